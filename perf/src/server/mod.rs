//! The server of `perf`: netperf's control protocol on one side, flows on the other. One thread
//! steps all sessions over one transport; over the blocking kernel each session has its thread.

mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use session::{Life, Session};

use crate::kernel::Kernel;
use crate::transport::{DIRECT_MAX, Manner, Pass, Ready, Role, Token, Transport, ready};

/// Control connections at once; further ones wait in the listener's queue.
pub const SESSIONS_MAX: usize = 16_384;
/// Threads of a blocking server.
const THREADS_MAX: usize = 1024;
/// The token of the control listeners.
const LISTENER: Token = 0;
/// Timers and control connections are looked at once in so many turns.
const LOOK_TURNS: u32 = 64;
/// Sessions that one look at timers, or one at those without a test, asks in turn: thousands must
/// not delay the tests of others.
const LOOKS: usize = 32;

/// The token of a session's control connection.
fn control_token(index: usize) -> Token {
    2 * index + 1
}

/// The token of a session's data sockets.
fn data_token(index: usize) -> Token {
    2 * index + 2
}

/// A server over one transport. Where the transport tells what is ready, sessions without a test
/// cost nothing.
#[derive(Debug)]
pub struct Server<T: Transport> {
    listeners: Vec<T::Listener>,
    sessions: Vec<Option<Session<T>>>,
    /// Places without a session.
    free: Vec<usize>,
    /// Sessions with a test, by index.
    active: Vec<usize>,
    /// Those of them that are stepped in every pass.
    direct: Vec<usize>,
    /// The session without a test, and the place in `active`, that are looked at next.
    next_quiet: usize,
    next_active: usize,
    /// A connection may wait for which there was no place.
    is_full: bool,
    /// A test has begun since sharers were counted.
    has_begun: bool,
    /// Sessions that a listed pass steps.
    list: Vec<Token>,
    /// What became ready, and what moved and may move on.
    tokens: Vec<Token>,
    pass: Pass,
    turns: u32,
}

/// What a pass looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    /// Control connections and clock, of sessions that are stepped anyway.
    closely: bool,
    /// Timers of some sessions besides.
    timers: bool,
}

impl<T: Transport> Server<T> {
    /// Listens for control connections; port 0 takes any.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn listen(transport: &mut T, address: SocketAddr) -> io::Result<Self> {
        let mut server = Self::new(Vec::new());
        server.also_listen(transport, address)?;
        Ok(server)
    }

    /// Listens on a further address.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn also_listen(&mut self, transport: &mut T, address: SocketAddr) -> io::Result<()> {
        self.listeners.push(transport.listen(address, Role::Control, LISTENER)?);
        Ok(())
    }

    fn new(sessions: Vec<Option<Session<T>>>) -> Self {
        Self {
            listeners: Vec::new(),
            sessions,
            free: Vec::new(),
            active: Vec::new(),
            direct: Vec::new(),
            next_quiet: 0,
            next_active: 0,
            is_full: false,
            has_begun: false,
            list: Vec::new(),
            tokens: Vec::new(),
            pass: Pass::Resting,
            turns: 0,
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the stack cannot say.
    pub fn addresses(&self, transport: &T) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|listener| transport.listener_address(listener)).collect()
    }

    /// Serves until `stop` is set.
    ///
    /// # Errors
    /// If the stack is broken for good.
    pub fn serve(&mut self, transport: &mut T, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) && !self.is_finished() {
            self.turn(transport)?;
        }
        Ok(())
    }

    /// Whether there is nothing left to serve: a server without listener ends with its session.
    fn is_finished(&self) -> bool {
        self.listeners.is_empty() && self.free.len() == self.sessions.len()
    }

    /// One turn of the transport and a pass over those sessions that may have something to do.
    ///
    /// # Errors
    /// If the stack is broken for good.
    #[inline]
    pub fn turn(&mut self, transport: &mut T) -> io::Result<()> {
        let spins = transport.manner() == Manner::Spins;
        self.turns = self.turns.wrapping_add(1);
        let timers = self.turns.is_multiple_of(LOOK_TURNS);
        let look = Look { closely: timers || !spins || self.pass == Pass::Resting, timers };
        // A stack that spins skips the step where nothing came, unless it was busy.
        let idles = look.closely && spins && self.pass == Pass::Idle;
        let before = if idles { Pass::Busy } else { self.pass };
        let mut tokens = std::mem::take(&mut self.tokens);
        let pass = transport.turn_with(before, &mut tokens, |transport, known, tokens| {
            self.step(transport, known, tokens, look)
        });
        self.tokens = tokens;
        self.pass = pass?;
        Ok(())
    }

    /// One pass over those sessions that may have something to do.
    #[inline]
    fn step(
        &mut self,
        transport: &mut T,
        known: Ready,
        tokens: &mut Vec<Token>,
        look: Look,
    ) -> io::Result<Pass> {
        let mut pass = Pass::Resting;
        match known {
            Ready::Any => {
                tokens.clear();
                // A spinning server does not pay for a look at its listeners in every turn.
                if look.closely && self.accept(transport)?.is_some() {
                    pass = Pass::Busy;
                }
                self.step_active(transport, tokens, look, &mut pass);
                if look.closely {
                    self.step_quiet(transport, tokens, &mut pass);
                }
            }
            Ready::Listed => {
                std::mem::swap(&mut self.list, tokens);
                tokens.clear();
                for at in 0..self.direct.len() {
                    let Some(&index) = self.direct.get(at) else { break };
                    self.step_one((transport, look.closely), index, tokens, &mut pass);
                }
                self.step_listed(transport, tokens, look, &mut pass)?;
                if look.timers {
                    self.look_at_timers(transport, tokens, &mut pass);
                }
                // Tests go on whose sockets say nothing now.
                if pass == Pass::Resting && !self.active.is_empty() {
                    pass = Pass::Idle;
                }
            }
        }
        if std::mem::take(&mut self.has_begun) {
            self.count_sharers();
        }
        Ok(pass)
    }

    /// Steps those that became ready or moved last, and takes connections.
    fn step_listed(
        &mut self,
        transport: &mut T,
        again: &mut Vec<Token>,
        look: Look,
        pass: &mut Pass,
    ) -> io::Result<()> {
        for at in 0..self.list.len() {
            let Some(&token) = self.list.get(at) else { break };
            if token == LISTENER {
                if let Some(accepted) = self.accept(transport)? {
                    again.extend([LISTENER, accepted]);
                    *pass = Pass::Busy;
                }
                continue;
            }
            let index = (token - 1) / 2;
            let closely = look.closely || token == control_token(index);
            self.step_one((transport, closely), index, again, pass);
        }
        Ok(())
    }

    /// Looks at some of the sessions with a test, since no event may ever name them again.
    #[cold]
    fn look_at_timers(&mut self, transport: &mut T, again: &mut Vec<Token>, pass: &mut Pass) {
        for _ in 0..self.active.len().min(LOOKS) {
            self.next_active =
                if self.next_active + 1 < self.active.len() { self.next_active + 1 } else { 0 };
            let Some(&index) = self.active.get(self.next_active) else { return };
            self.step_one((transport, true), index, again, pass);
        }
        if self.is_full {
            again.push(LISTENER);
        }
    }

    fn step_active(
        &mut self,
        transport: &mut T,
        again: &mut Vec<Token>,
        look: Look,
        pass: &mut Pass,
    ) {
        let mut at = 0;
        while let Some(&index) = self.active.get(at) {
            self.step_one((transport, look.closely), index, again, pass);
            // One that is over left its place to the last.
            at += usize::from(self.active.get(at) == Some(&index));
        }
    }

    /// Asks some of the sessions without a test, in turn.
    fn step_quiet(&mut self, transport: &mut T, again: &mut Vec<Token>, pass: &mut Pass) {
        for _ in 0..self.sessions.len().min(LOOKS) {
            let index = self.next_quiet;
            self.next_quiet = if index + 1 < self.sessions.len() { index + 1 } else { 0 };
            let quiet = self.sessions.get(index).and_then(Option::as_ref);
            if quiet.is_some_and(|session| session.active_at.is_none()) {
                self.step_one((transport, true), index, again, pass);
            }
        }
    }

    /// Steps one session; it is active while it has a test.
    #[inline]
    fn step_one(
        &mut self,
        (transport, look): (&mut T, bool),
        index: usize,
        again: &mut Vec<Token>,
        pass: &mut Pass,
    ) {
        let has_room = self.direct.len() < DIRECT_MAX;
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let role = if has_room { Role::of_data(transport.manner(), 1) } else { Role::Data };
        let was_running = session.is_running();
        let life = session.step(transport, look, role);
        let (is_running, has_test) = (session.is_running(), session.has_test());
        let was_active = session.active_at.is_some();
        match life {
            Life::Moved => {
                *pass = Pass::Busy;
                again.push(data_token(index));
            }
            Life::Waits if *pass == Pass::Resting && is_running => *pass = Pass::Idle,
            Life::Waits | Life::Over => {}
        }
        self.has_begun |= is_running && !was_running;
        match (was_active, has_test && life != Life::Over) {
            (false, true) => self.activate(index),
            (true, false) => self.deactivate(index),
            (true, true) | (false, false) => {}
        }
        if life == Life::Over {
            self.end(index, again);
        }
    }

    #[cold]
    fn activate(&mut self, index: usize) {
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        session.active_at = Some(self.active.len());
        self.active.push(index);
        if session.is_direct {
            self.direct.push(index);
        }
    }

    #[cold]
    fn deactivate(&mut self, index: usize) {
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let Some(at) = session.active_at.take() else { return };
        self.active.swap_remove(at);
        if let Some(&moved) = self.active.get(at)
            && let Some(Some(session)) = self.sessions.get_mut(moved)
        {
            session.active_at = Some(at);
        }
        self.direct.retain(|direct| *direct != index);
    }

    #[cold]
    fn end(&mut self, index: usize, again: &mut Vec<Token>) {
        if self.sessions.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
            if self.is_full {
                again.push(LISTENER);
            }
        }
    }

    /// Takes a control connection; returns its token.
    fn accept(&mut self, transport: &mut T) -> io::Result<Option<Token>> {
        let index = self.free.last().copied().unwrap_or(self.sessions.len());
        self.is_full = index >= SESSIONS_MAX;
        if self.is_full {
            return Ok(None);
        }
        for listener in &mut self.listeners {
            let control = match transport.accept(listener, control_token(index)) {
                Err(error) if is_lack(&error) => {
                    self.is_full = true;
                    continue;
                }
                Err(error) if is_dead(&error) => continue,
                control => ready(control)?,
            };
            let Some(control) = control else { continue };
            let session = Some(Session::new(control, data_token(index)));
            match self.sessions.get_mut(index) {
                Some(place) => {
                    *place = session;
                    self.free.pop();
                }
                None => self.sessions.push(session),
            }
            return Ok(Some(control_token(index)));
        }
        Ok(None)
    }

    fn count_sharers(&mut self) {
        let sessions = &mut self.sessions;
        let running = |index: &&usize| {
            let session = sessions.get(**index).and_then(Option::as_ref);
            session.is_some_and(Session::is_running)
        };
        let number = self.active.iter().filter(running).count();
        for index in &self.active {
            if let Some(Some(session)) = sessions.get_mut(*index) {
                session.sharers = session.sharers.max(number);
            }
        }
    }
}

/// Whether a connection died in the queue, which ends no server.
fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::CONNABORTED.raw_os_error())
}

/// Whether descriptors or memory are lacking, which passes.
fn is_lack(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    known.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A server over the blocking kernel: a thread for each control connection.
///
/// # Errors
/// If a listener breaks or no thread can be had.
pub fn serve_blocking(
    transport: &mut Kernel,
    server: &mut Server<Kernel>,
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    let threads = Arc::new(AtomicUsize::new(0));
    let mut tokens = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let _blocking_knows_nothing = transport.turn(Pass::Resting, &mut tokens)?;
        for listener in &mut server.listeners {
            if threads.load(Ordering::Relaxed) >= THREADS_MAX {
                break;
            }
            let control = match transport.accept(listener, LISTENER) {
                Err(error) if is_lack(&error) || is_dead(&error) => continue,
                control => ready(control)?,
            };
            let Some(control) = control else { continue };
            let (waiting, options) = (transport.waiting(), transport.options());
            let (threads, stop) = (Arc::clone(&threads), Arc::clone(stop));
            threads.fetch_add(1, Ordering::Relaxed);
            std::thread::Builder::new().name("perf session".into()).spawn(move || {
                if let Ok(mut own) = Kernel::new(waiting, options) {
                    let sessions = vec![Some(Session::new(control, data_token(0)))];
                    // A broken session has told its client by closing.
                    let _ = Server::new(sessions).serve(&mut own, &stop);
                }
                threads.fetch_sub(1, Ordering::Relaxed);
            })?;
        }
    }
    Ok(())
}
