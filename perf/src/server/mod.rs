//! The server of `perf`: netperf's control protocol on one side, flows on the other. One thread
//! steps all sessions over one transport; over the blocking kernel each session has its thread.

mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use session::{Life, Session};

use crate::kernel::Kernel;
use crate::transport::{Manner, Pass, Ready, Role, Token, Transport, ready};

/// Control connections at once; further ones wait in the listener's queue.
pub const SESSIONS_MAX: usize = 16_384;
/// Threads of a blocking server.
const THREADS_MAX: usize = 1024;
/// The token of the control listener.
const LISTENER: Token = 0;
/// Timers and control connections are looked at once in so many turns.
const LOOK_TURNS: u32 = 64;
/// Sessions without a test that one look asks for a request: thousands of them must not delay
/// the tests of others.
const QUIET_LOOKS: usize = 32;

/// A server over one transport.
#[derive(Debug)]
pub struct Server<T: Transport> {
    listener: Option<T::Listener>,
    sessions: Vec<Option<Session<T>>>,
    /// Sessions with a test, by index.
    active: Vec<usize>,
    /// The session without a test that is looked at next.
    next_quiet: usize,
    /// Sessions that a listed pass steps.
    list: Vec<Token>,
    turns: u32,
}

impl<T: Transport> Server<T> {
    /// Listens for control connections; port 0 takes any.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn listen(transport: &mut T, address: SocketAddr) -> io::Result<Self> {
        let listener = transport.listen(address, Role::Control, LISTENER)?;
        Ok(Self::new(Some(listener), Vec::new()))
    }

    fn new(listener: Option<T::Listener>, sessions: Vec<Option<Session<T>>>) -> Self {
        let (active, list) = (Vec::new(), Vec::new());
        Self { listener, sessions, active, next_quiet: 0, list, turns: 0 }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the stack cannot say.
    pub fn address(&self, transport: &T) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => transport.listener_address(listener),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Serves until `stop` is set.
    ///
    /// # Errors
    /// If the stack is broken for good.
    pub fn serve(&mut self, transport: &mut T, stop: &AtomicBool) -> io::Result<()> {
        self.serve_watched(transport, stop, &mut |_| ())
    }

    /// As [`Server::serve`]; `watch` is called now and then, between turns.
    ///
    /// # Errors
    /// If the stack is broken for good.
    pub fn serve_watched(
        &mut self,
        transport: &mut T,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(&mut T),
    ) -> io::Result<()> {
        let spins = transport.manner() == Manner::Spins;
        let mut tokens = Vec::new();
        let mut pass = Pass::Resting;
        while !stop.load(Ordering::Relaxed) && !self.is_finished() {
            self.turns = self.turns.wrapping_add(1);
            let due = self.turns.is_multiple_of(LOOK_TURNS);
            let look = due || !spins || pass == Pass::Resting;
            // A stack that spins skips the step where nothing came, unless it was busy.
            let before = if look && spins && pass == Pass::Idle { Pass::Busy } else { pass };
            pass = transport.turn_with(before, &mut tokens, |transport, known, tokens| {
                // Timers belong to sessions that no event may ever name again.
                if due && known == Ready::Listed {
                    tokens.extend(self.active.iter().map(|index| index + 1));
                }
                self.step(transport, known, tokens, look)
            })?;
            if look {
                watch(transport);
            }
        }
        Ok(())
    }

    /// Whether there is nothing left to serve: a server without listener ends with its session.
    fn is_finished(&self) -> bool {
        self.listener.is_none() && self.sessions.iter().all(Option::is_none)
    }

    /// One pass over those sessions that may have something to do.
    fn step(
        &mut self,
        transport: &mut T,
        known: Ready,
        tokens: &mut Vec<Token>,
        look: bool,
    ) -> io::Result<Pass> {
        let mut pass = Pass::Resting;
        match known {
            Ready::Any => {
                tokens.clear();
                // A spinning server does not pay for a look at its listener in every turn.
                if look && self.accept(transport)?.is_some() {
                    pass = Pass::Busy;
                }
                self.step_active(transport, tokens, look, &mut pass);
                if look {
                    self.step_quiet(transport, tokens, &mut pass);
                }
            }
            Ready::Listed => {
                std::mem::swap(&mut self.list, tokens);
                tokens.clear();
                for at in 0..self.list.len() {
                    match self.list.get(at).map(|token| token.checked_sub(1)) {
                        Some(Some(index)) => {
                            self.step_one((transport, look), index, tokens, &mut pass);
                        }
                        Some(None) => {
                            if let Some(token) = self.accept(transport)? {
                                tokens.extend([LISTENER, token]);
                                pass = Pass::Busy;
                            }
                        }
                        None => {}
                    }
                }
            }
        }
        if look {
            self.count_sharers();
        }
        Ok(pass)
    }

    fn step_active(
        &mut self,
        transport: &mut T,
        again: &mut Vec<Token>,
        look: bool,
        pass: &mut Pass,
    ) {
        let mut at = 0;
        while let Some(&index) = self.active.get(at) {
            self.step_one((transport, look), index, again, pass);
            match self.sessions.get_mut(index).and_then(Option::as_mut) {
                Some(session) if session.has_test() => at += 1,
                Some(session) => {
                    session.is_active = false;
                    self.active.swap_remove(at);
                }
                None => {
                    self.active.swap_remove(at);
                }
            }
        }
    }

    /// Asks some of the sessions without a test, in turn.
    fn step_quiet(&mut self, transport: &mut T, again: &mut Vec<Token>, pass: &mut Pass) {
        for _ in 0..self.sessions.len().min(QUIET_LOOKS) {
            let index = self.next_quiet;
            self.next_quiet = if index + 1 < self.sessions.len() { index + 1 } else { 0 };
            let quiet = self.sessions.get(index).and_then(Option::as_ref);
            if quiet.is_some_and(|session| !session.is_active) {
                self.step_one((transport, true), index, again, pass);
            }
        }
    }

    /// Steps one session, which becomes active with its test.
    fn step_one(
        &mut self,
        (transport, look): (&mut T, bool),
        index: usize,
        again: &mut Vec<Token>,
        pass: &mut Pass,
    ) {
        let Some(place) = self.sessions.get_mut(index) else { return };
        let Some(session) = place else { return };
        match session.step(transport, look) {
            Life::Moved => {
                *pass = Pass::Busy;
                again.push(index + 1);
            }
            Life::Waits if *pass == Pass::Resting && session.is_running() => *pass = Pass::Idle,
            Life::Waits => {}
            Life::Over => {
                *place = None;
                return;
            }
        }
        if session.has_test() && !session.is_active {
            session.is_active = true;
            self.active.push(index);
        }
    }

    /// Takes a control connection; returns its token.
    fn accept(&mut self, transport: &mut T) -> io::Result<Option<Token>> {
        let Some(listener) = &mut self.listener else { return Ok(None) };
        let free = self.sessions.iter().position(Option::is_none);
        let index = free.unwrap_or(self.sessions.len());
        if index >= SESSIONS_MAX {
            return Ok(None);
        }
        let token = index + 1;
        let Some(control) = ready(transport.accept(listener, token)).or_else(transient)? else {
            return Ok(None);
        };
        let session = Some(Session::new(control, token));
        match self.sessions.get_mut(index) {
            Some(place) => *place = session,
            None => self.sessions.push(session),
        }
        Ok(Some(token))
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

/// A connection that died in the queue, or a lack of descriptors, ends no server.
fn transient<V>(error: io::Error) -> io::Result<Option<V>> {
    use rustix::io::Errno;
    let known = [Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    match error.raw_os_error() {
        Some(code) if known.iter().any(|errno| errno.raw_os_error() == code) => Ok(None),
        _ => Err(error),
    }
}

/// A server over the blocking kernel: a thread for each control connection.
///
/// # Errors
/// If the listener breaks or no thread can be had.
pub fn serve_blocking(
    transport: &mut Kernel,
    server: &mut Server<Kernel>,
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    let threads = Arc::new(AtomicUsize::new(0));
    let Some(listener) = &mut server.listener else { return Ok(()) };
    let mut tokens = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let _blocking_knows_nothing = transport.turn(Pass::Resting, &mut tokens)?;
        if threads.load(Ordering::Relaxed) >= THREADS_MAX {
            continue;
        }
        let Some(control) = ready(transport.accept(listener, LISTENER)).or_else(transient)? else {
            continue;
        };
        let (waiting, options) = (transport.waiting(), transport.options());
        let (threads, stop) = (Arc::clone(&threads), Arc::clone(stop));
        threads.fetch_add(1, Ordering::Relaxed);
        std::thread::Builder::new().name("perf session".into()).spawn(move || {
            if let Ok(mut own) = Kernel::new(waiting, options) {
                let sessions = vec![Some(Session::new(control, 1))];
                let mut server = Server::new(None, sessions);
                // A broken session has told its client by closing.
                let _ = server.serve(&mut own, &stop);
            }
            threads.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    Ok(())
}
