//! The server of `perf`: netperf's control protocol on one side, flows on the other. One thread
//! steps all sessions over one transport; over the blocking kernel each session has its thread.

mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use session::{Life, Session};

use crate::kernel::Kernel;
use crate::transport::{Pass, Ready, Role, Token, Transport, ready};

/// Control connections at once; further ones wait in the listener's queue.
pub const SESSIONS_MAX: usize = 4096;
/// Threads of a blocking server.
const THREADS_MAX: usize = 1024;
/// The token of the control listener.
const LISTENER: Token = 0;
/// Timers and control connections are looked at once in so many turns.
const LOOK_TURNS: u32 = 64;

/// A server over one transport.
#[derive(Debug)]
pub struct Server<T: Transport> {
    listener: Option<T::Listener>,
    sessions: Vec<Option<Session<T>>>,
    turns: u32,
}

impl<T: Transport> Server<T> {
    /// Listens for control connections; port 0 takes any.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn listen(transport: &mut T, address: SocketAddr) -> io::Result<Self> {
        let listener = transport.listen(address, Role::Control, LISTENER)?;
        Ok(Self { listener: Some(listener), sessions: Vec::new(), turns: 0 })
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
        let mut tokens = Vec::new();
        let mut again = Vec::new();
        let mut known = Ready::Any;
        while !stop.load(Ordering::Relaxed) && !self.is_finished() {
            self.turns = self.turns.wrapping_add(1);
            let look = self.turns.is_multiple_of(LOOK_TURNS)
                || transport.manner() != crate::transport::Manner::Spins;
            // Timers belong to sessions that no event may ever name again.
            if known == Ready::Any || self.turns.is_multiple_of(LOOK_TURNS) {
                tokens.clear();
                tokens.extend(0..=self.sessions.len());
            }
            let pass = self.step(transport, &tokens, look, &mut again)?;
            tokens.clear();
            tokens.append(&mut again);
            known = transport.turn(pass, &mut tokens)?;
        }
        Ok(())
    }

    /// Whether there is nothing left to serve: a server without listener ends with its session.
    fn is_finished(&self) -> bool {
        self.listener.is_none() && self.sessions.iter().all(Option::is_none)
    }

    fn step(
        &mut self,
        transport: &mut T,
        tokens: &[Token],
        look: bool,
        again: &mut Vec<Token>,
    ) -> io::Result<Pass> {
        let mut pass = Pass::Resting;
        for &token in tokens {
            let Some(index) = token.checked_sub(1) else {
                // A spinning server does not pay for a look at its listener in every turn.
                if look && self.accept(transport)? {
                    again.extend([LISTENER, self.sessions.len()]);
                    pass = Pass::Busy;
                }
                continue;
            };
            let Some(place) = self.sessions.get_mut(index) else { continue };
            let Some(session) = place else { continue };
            match session.step(transport, look) {
                Life::Moved => {
                    pass = Pass::Busy;
                    again.push(token);
                }
                Life::Waits if pass == Pass::Resting && session.is_running() => pass = Pass::Idle,
                Life::Waits => {}
                Life::Over => *place = None,
            }
        }
        if look {
            self.count_sharers();
        }
        Ok(pass)
    }

    fn accept(&mut self, transport: &mut T) -> io::Result<bool> {
        let Some(listener) = &mut self.listener else { return Ok(false) };
        let free = self.sessions.iter().position(Option::is_none);
        let index = free.unwrap_or(self.sessions.len());
        if index >= SESSIONS_MAX {
            return Ok(false);
        }
        let token = index + 1;
        let Some(control) = ready(transport.accept(listener, token)).or_else(transient)? else {
            return Ok(false);
        };
        let session = Some(Session::new(control, token));
        match self.sessions.get_mut(index) {
            Some(place) => *place = session,
            None => self.sessions.push(session),
        }
        Ok(true)
    }

    fn count_sharers(&mut self) {
        let sessions = self.sessions.iter_mut().flatten();
        let running: Vec<_> = sessions.filter(|session| session.is_running()).collect();
        let number = running.len();
        for session in running {
            session.sharers = session.sharers.max(number);
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
                let mut server = Server { listener: None, sessions, turns: 0 };
                // A broken session has told its client by closing.
                let _ = server.serve(&mut own, &stop);
            }
            threads.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    Ok(())
}
