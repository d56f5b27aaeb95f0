//! The connections of the exchange: TCP of the host's kernel, never waited for.
//!
//! Owns sockets and bytes; what the words mean is the table's business. Invariants: as many
//! connections as peers and strangers at most; of each, one word coming in and a bounded number of
//! bytes going out; every descriptor is watched by the event descriptor as long as it is open.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::wire::exchange::{Word, WordError};
use super::wire::peer::ConnId;
use super::wire::stream::WordStream;
use crate::nic::rtnl::{owned, socket};
use crate::verbs::connect::Identifier;

/// Bytes that wait to be sent on one connection.
const OUT_MAX: usize = 1024;
/// Connections accepted in one look.
const ACCEPTS_MAX: usize = 8;

/// Watches descriptors: readable as soon as one is.
pub(super) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    pub(super) fn new() -> io::Result<Watch> {
        // SAFETY: no memory is passed.
        Ok(Watch { epoll: owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })? })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: u32::try_from(events).unwrap_or(0), u64: 0 };
        // SAFETY: `event` is a valid epoll_event that outlives the call.
        let result = unsafe { libc::epoll_ctl(self.fd(), operation, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether one of them is readable now: one system call for all.
    pub(super) fn is_ready(&self) -> bool {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event, which is all that is asked for; nothing is waited for.
        let ready = unsafe { libc::epoll_wait(self.fd(), &raw mut event, 1, 0) };
        // An error is for who looks closer.
        ready != 0
    }

    /// Watches a descriptor until it is closed.
    pub(super) fn add(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN)
    }
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// Somebody connected from there; the answer is the connection's name.
    Incoming(Caller, IpAddr),
    /// A call got through, or not.
    Connected(ConnId, bool),
    /// A word came.
    Word(ConnId, Word),
    /// What came is no word.
    Garbage(ConnId, WordError),
    /// It ended; whether the other process ended it.
    Closed(ConnId, bool),
    /// The other host answers, and no process of it is there to be talked with.
    Nobody(ConnId),
}

/// Who connected, by which way.
pub(super) enum Caller {
    /// TCP of the host's kernel.
    Tcp(TcpStream),
    /// The connection manager: the request, and what it carries.
    Managed(Box<(Identifier, Vec<u8>)>),
}

impl fmt::Debug for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Caller::Tcp(_) => "Tcp",
            Caller::Managed(_) => "Managed",
        })
    }
}

struct Connection {
    id: ConnId,
    stream: TcpStream,
    connecting: bool,
    words: WordStream,
    out: Vec<u8>,
}

/// All connections.
pub(super) struct Conversations {
    own: IpAddr,
    listener: Option<TcpListener>,
    connections: Vec<Connection>,
}

/// Begins a connection from `own` to `to`.
fn connect(own: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let fd = socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    if own.is_ipv4() == to.is_ipv4() {
        name(libc::bind, fd.as_raw_fd(), SocketAddr::new(own, 0))?;
    }
    match name(libc::connect, fd.as_raw_fd(), to) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) })
}

type Naming = unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32;

/// Calls `bind` or `connect`.
fn name(call: Naming, fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let family = |family: i32| libc::sa_family_t::try_from(family).unwrap_or(0);
    let result = match address {
        SocketAddr::V4(v4) => {
            let address = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
            // SAFETY: a valid address of this length, read during the call.
            unsafe { call(fd, (&raw const address).cast(), length) }
        }
        SocketAddr::V6(v6) => {
            let address = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
            // SAFETY: as above.
            unsafe { call(fd, (&raw const address).cast(), length) }
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Conversations {
    /// Listens on the port, if it is not 0, of this host's address on the wire.
    pub(super) fn new(own: IpAddr, port: u16, watch: &Watch) -> io::Result<Conversations> {
        let mut listener = None;
        if port != 0 {
            let socket = TcpListener::bind((own, port))?;
            socket.set_nonblocking(true)?;
            watch.add(socket.as_raw_fd())?;
            listener = Some(socket);
        }
        Ok(Conversations { own, listener, connections: Vec::new() })
    }

    /// Takes a connection over that came in.
    pub(super) fn adopt(&mut self, id: ConnId, stream: TcpStream, watch: &Watch) {
        // Without delay: words are short and waited for. Failing costs time only.
        let _slower = stream.set_nodelay(true);
        if stream.set_nonblocking(true).is_err() || watch.add(stream.as_raw_fd()).is_err() {
            return;
        }
        self.push(id, stream, false);
    }

    fn push(&mut self, id: ConnId, stream: TcpStream, connecting: bool) {
        let (words, out) = (WordStream::default(), Vec::new());
        self.connections.push(Connection { id, stream, connecting, words, out });
    }

    /// Begins a call; false if it failed at once.
    pub(super) fn dial(&mut self, id: ConnId, to: SocketAddr, watch: &Watch) -> bool {
        let Ok(stream) = connect(self.own, to) else { return false };
        let _slower = stream.set_nodelay(true);
        if watch.control(libc::EPOLL_CTL_ADD, stream.as_raw_fd(), libc::EPOLLOUT).is_err() {
            return false;
        }
        self.push(id, stream, true);
        true
    }

    /// Says a word.
    pub(super) fn say(&mut self, id: ConnId, word: &Word) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id)
            && connection.out.len() < OUT_MAX
        {
            connection.out.extend(word.encode());
            connection.push_out();
        }
    }

    /// Closes a connection; what was said goes out before.
    pub(super) fn hang_up(&mut self, id: ConnId) {
        if let Some(at) = self.connections.iter().position(|c| c.id == id) {
            let mut connection = self.connections.swap_remove(at);
            connection.push_out();
            // What the other side said meanwhile would turn the end into a reset that overtakes
            // the last word.
            let mut unread = [0; 512];
            while matches!(connection.stream.read(&mut unread), Ok(1..)) {}
            let _gone_already = connection.stream.shutdown(Shutdown::Both);
        }
    }

    /// What happened next, if anything did.
    pub(super) fn listen(&mut self, watch: &Watch, heard: &mut Vec<Heard>) {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.as_ref().map(TcpListener::accept) {
                Some(Ok((stream, from))) => {
                    heard.push(Heard::Incoming(Caller::Tcp(stream), from.ip()))
                }
                _ => break,
            }
        }
        for connection in &mut self.connections {
            connection.look(watch, heard);
        }
    }
}

impl Connection {
    fn push_out(&mut self) {
        while !self.connecting && !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What ended it is found by reading.
                Err(_) => return,
            }
        }
    }

    fn look(&mut self, watch: &Watch, heard: &mut Vec<Heard>) {
        if self.connecting {
            let failed = !matches!(self.stream.take_error(), Ok(None));
            if !failed && self.stream.peer_addr().is_err() {
                return;
            }
            let readable =
                watch.control(libc::EPOLL_CTL_MOD, self.stream.as_raw_fd(), libc::EPOLLIN);
            self.connecting = false;
            heard.push(Heard::Connected(self.id, !failed && readable.is_ok()));
            return;
        }
        self.push_out();
        let mut bytes = [0; 512];
        match self.stream.read(&mut bytes) {
            Ok(0) => heard.push(Heard::Closed(self.id, true)),
            Ok(n) => self.take(&bytes[..n], heard),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                // The other kernel says that nobody is there.
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    heard.push(Heard::Closed(self.id, true));
                }
                _ => heard.push(Heard::Closed(self.id, false)),
            },
        }
    }

    fn take(&mut self, mut bytes: &[u8], heard: &mut Vec<Heard>) {
        loop {
            match self.words.take(&mut bytes) {
                Ok(Some(word)) => heard.push(Heard::Word(self.id, word)),
                Ok(None) => return,
                Err(error) => {
                    heard.push(Heard::Garbage(self.id, error));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::wire::exchange::{Parting, Refusal};
    use super::*;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    struct End {
        talk: Conversations,
        watch: Watch,
        heard: Vec<Heard>,
    }

    impl End {
        fn new(port: u16) -> io::Result<End> {
            let watch = Watch::new()?;
            let talk = Conversations::new(OWN, port, &watch)?;
            Ok(End { talk, watch, heard: Vec::new() })
        }

        /// The next thing that happens.
        fn next(&mut self) -> Heard {
            let end = Instant::now() + Duration::from_secs(5);
            while self.heard.is_empty() {
                assert!(Instant::now() < end, "nothing came");
                self.talk.listen(&self.watch, &mut self.heard);
                std::thread::sleep(Duration::from_micros(200));
            }
            self.heard.remove(0)
        }
    }

    fn pair() -> (End, End) {
        let mut ports = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap()..;
        let (mut server, port) =
            ports.find_map(|port| Some((End::new(port).ok()?, port))).expect("a free port");
        let mut client = End::new(0).unwrap();
        assert!(client.talk.dial(ConnId(7), SocketAddr::new(OWN, port), &client.watch));
        assert!(matches!(client.next(), Heard::Connected(ConnId(7), true)));
        let Heard::Incoming(Caller::Tcp(stream), OWN) = server.next() else { panic!() };
        server.talk.adopt(ConnId(9), stream, &server.watch);
        (server, client)
    }

    #[test]
    fn words_go_both_ways_and_the_last_one_arrives_before_the_end() {
        let (mut server, mut client) = pair();
        client.talk.say(ConnId(7), &Word::Ready);
        assert!(matches!(server.next(), Heard::Word(ConnId(9), Word::Ready)));
        client.talk.say(ConnId(7), &Word::Ready);
        server.talk.say(ConnId(9), &Word::Refuse(Refusal::Full, 3));
        server.talk.say(ConnId(9), &Word::Bye(Parting::Closing));
        server.talk.hang_up(ConnId(9));
        assert!(matches!(client.next(), Heard::Word(_, Word::Refuse(Refusal::Full, 3))));
        assert!(matches!(client.next(), Heard::Word(_, Word::Bye(Parting::Closing))));
        assert!(matches!(client.next(), Heard::Closed(ConnId(7), true)));
    }

    #[test]
    fn garbage_a_dead_port_and_a_vanished_peer_are_told() {
        let (mut server, mut client) = pair();
        client.talk.connections[0].out.extend(b"GET / HTTP/1.1\r\n");
        client.talk.connections[0].push_out();
        assert!(matches!(server.next(), Heard::Garbage(ConnId(9), WordError::Magic)));
        drop(server);
        assert!(matches!(client.next(), Heard::Closed(ConnId(7), true)));
        let free = TcpListener::bind((OWN, 0)).unwrap().local_addr().unwrap();
        if client.talk.dial(ConnId(8), free, &client.watch) {
            let refused = loop {
                match client.next() {
                    Heard::Connected(ConnId(8), through) => break !through,
                    Heard::Closed(ConnId(7), _) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert!(refused);
        }
    }
}
