//! Which sockets became ready: for an application that holds thousands of them and must not ask
//! each.
//!
//! A socket is named by a token of the application's choice with `watch`; from then on
//! [`Worker::poll_event`] reports it whenever something new has come for it, and what is there
//! already is reported at once. It is epoll with `EPOLLET`: an event says that something has
//! changed, so whoever takes one uses the socket until `WouldBlock` before it waits for the next.
//! A socket is in the queue at most once, with all that has come for it. It may be reported
//! without need (an acknowledgement that brought no room for a large write), never too late. Where
//! the worker's memory and not the connection's own limit left no room to write, nothing of the
//! connection tells when there is some: it is reported about once a millisecond, to try again.
//!
//! Watching, reporting and closing cost the same however many sockets there are, and allocate
//! nothing once the table of tokens has grown; a socket that is not watched, and a worker whose
//! application never asks, cost nothing. A closed socket is forgotten with its event.
//!
//! Events come while the worker turns: an application inside [`Worker::turn_with`] finds those of
//! the frames that were just received. What it leaves in the queue stays there, but no turn is made
//! for it, and the worker may sleep over it: so take them all. The tasks of an
//! [`Executor`](crate::asynchronous::Executor) are woken from the same queue: with its worker
//! `watch` does nothing and nothing is reported here.

pub use roceway_stack::tcp::Readiness;
use roceway_stack::time::{Duration, Instant};

use super::{TcpListener, TcpStream, UdpSocket, Worker};
use crate::core::Core;
use crate::waits::{self, Socket};

/// How often sockets are reported again that found no memory.
const STARVED_PERIOD: Duration = Duration::from_millis(1);

/// What became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What the application calls the socket.
    pub token: u64,
    /// What can be done with it, of what it is watched for. A listener is readable when a
    /// connection can be accepted; a connection that ended is both, and its calls say why.
    pub ready: Readiness,
}

/// A token, and the socket that it is for: the places of closed sockets are used again.
#[derive(Clone, Copy)]
struct Named {
    socket: Socket,
    token: u64,
    interest: Readiness,
    /// It is among the starved.
    starved: bool,
}

/// The tokens of the watched sockets of one worker, by kind and place of the socket.
#[derive(Default)]
pub(super) struct Tokens {
    kinds: [Vec<Option<Named>>; 3],
    /// Sockets that found no memory to write, each once.
    starved: Vec<Socket>,
    /// When those are reported.
    starved_until: Option<Instant>,
}

impl Tokens {
    fn set(&mut self, socket: Socket, token: u64, interest: Readiness) {
        let (kind, place) = socket.place();
        let names = &mut self.kinds[kind];
        if names.len() <= place {
            names.resize(place + 1, None);
        }
        names[place] = Some(Named { socket, token, interest, starved: false });
    }

    fn get(&mut self, socket: Socket) -> Option<&mut Named> {
        let (kind, place) = socket.place();
        let named = self.kinds[kind].get_mut(place)?.as_mut()?;
        (named.socket == socket).then_some(named)
    }

    /// Reports the starved once it is time; returns whether any are left.
    fn report_starved(&mut self, core: &mut Core) -> bool {
        let until = *self.starved_until.get_or_insert(core.now + STARVED_PERIOD);
        if core.now < until {
            return true;
        }
        self.starved_until = None;
        for at in 0..self.starved.len() {
            let socket = self.starved[at];
            if let Some(named) = self.get(socket)
                && std::mem::take(&mut named.starved)
            {
                waits::watch(socket, named.interest, core);
            }
        }
        self.starved.clear();
        false
    }
}

impl Worker {
    /// Whether [`Worker::poll_event`] may have something to tell: a few loads.
    #[must_use]
    #[inline]
    pub fn has_events(&self) -> bool {
        self.shared.core.borrow().stack.has_events() || self.shared.starving.get()
    }

    /// The next of the watched sockets that became ready, in the order in which they did (TCP
    /// before UDP). `None` once all were told.
    #[inline]
    pub fn poll_event(&self) -> Option<Event> {
        if !self.has_events() {
            return None;
        }
        self.next_event()
    }

    fn next_event(&self) -> Option<Event> {
        if self.shared.hosted.get() {
            return None;
        }
        let core = &mut *self.shared.core.borrow_mut();
        let tokens = &mut *self.shared.tokens.borrow_mut();
        if self.shared.starving.get() {
            self.shared.starving.set(tokens.report_starved(core));
        }
        loop {
            let (socket, ready) = waits::next_event(core)?;
            if let Some(named) = tokens.get(socket) {
                return Some(Event { token: named.token, ready });
            }
        }
    }

    fn watch(&self, socket: Socket, token: u64, interest: Readiness) {
        if self.shared.hosted.get() {
            return;
        }
        self.shared.tokens.borrow_mut().set(socket, token, interest);
        let core = &mut *self.shared.core.borrow_mut();
        waits::watch(socket, interest, core);
        // What is ready already is an event now: no sleep before the application was asked.
        if core.stack.has_events() {
            core.expect_work();
        }
    }
}

impl TcpListener {
    /// Has [`Worker::poll_event`] report under `token` that a connection can be accepted.
    pub fn watch(&self, token: u64) {
        self.worker().watch(Socket::Listener(self.id()), token, Readiness::READABLE);
    }

    /// Ends [`TcpListener::watch`].
    pub fn unwatch(&self) {
        self.worker().watch(Socket::Listener(self.id()), 0, Readiness::NONE);
    }
}

impl TcpStream {
    /// A write found no room. If the connection's limit would allow it, memory is what lacks.
    #[cold]
    pub(super) fn on_no_room(&self, core: &mut Core) {
        let shared = &self.worker().shared;
        let tokens = &mut *shared.tokens.borrow_mut();
        let socket = Socket::Connection(self.id());
        if let Some(named) = tokens.get(socket)
            && named.interest.contains(Readiness::WRITABLE)
            && !named.starved
            && core.stack.tcp().0.readiness(self.id()).contains(Readiness::WRITABLE)
        {
            named.starved = true;
            tokens.starved.push(socket);
            shared.starving.set(true);
        }
    }

    /// Has [`Worker::poll_event`] report under `token` what comes of `interest`, and nothing else
    /// from now on. A connection that is being opened is writable once it is established.
    pub fn watch(&self, token: u64, interest: Readiness) {
        self.worker().watch(Socket::Connection(self.id()), token, interest);
    }

    /// Ends [`TcpStream::watch`].
    pub fn unwatch(&self) {
        self.watch(0, Readiness::NONE);
    }
}

impl UdpSocket {
    /// Has [`Worker::poll_event`] report under `token` what comes of `interest`, and nothing else
    /// from now on. What the peer's host said of an earlier datagram makes a socket readable.
    pub fn watch(&self, token: u64, interest: Readiness) {
        self.worker().watch(Socket::Datagram(self.id()), token, interest);
    }

    /// Ends [`UdpSocket::watch`].
    pub fn unwatch(&self) {
        self.watch(0, Readiness::NONE);
    }
}
