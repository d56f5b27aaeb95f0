//! The kernel's side: sockets with limits on time, ping, and programs that end with the test.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};

use super::LIMIT;

/// Takes one connection, within the limit.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let limit = Instant::now() + LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return limited(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < limit, "nobody connects to the kernel");
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// Connects, within the limit.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, LIMIT).map(limited)
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A UDP socket of the kernel's that does not wait for ever.
pub(crate) fn udp(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Ends a connection by a reset.
pub(crate) fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Has the kernel probe an idle connection every second, and give it up after `probes` of them.
pub(crate) fn keep_alive_every_second(stream: &TcpStream, probes: u32) {
    let second = Duration::from_secs(1);
    sockopt::set_socket_keepalive(stream, true).unwrap();
    sockopt::set_tcp_keepidle(stream, second).unwrap();
    sockopt::set_tcp_keepintvl(stream, second).unwrap();
    sockopt::set_tcp_keepcnt(stream, probes).unwrap();
}

/// Sends an echo request of `length` bytes of data and waits for its reply.
pub(crate) fn ping(to: IpAddr, length: usize) {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket: OwnedFd = rustix::net::socket(family, SocketType::DGRAM, Some(protocol)).unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT)).unwrap();
    // Type, code, checksum and identifier (both the kernel's to fill in), sequence number, data.
    let mut message = vec![request, 0, 0, 0, 0, 0, 0, 7];
    message.extend((0..length).map(|i| (i % 251).to_le_bytes()[0]));
    let target = SocketAddr::new(to, 0);
    let sent = rustix::net::sendto(&socket, &message, SendFlags::empty(), &target).unwrap();
    assert_eq!(sent, message.len());
    let mut out = vec![0; message.len() + 1];
    let (count, _) = rustix::net::recv(&socket, &mut out[..], RecvFlags::empty()).unwrap();
    assert_eq!((count, out[0], &out[6..8]), (message.len(), reply, &message[6..8]));
    assert!(out[8..count] == message[8..], "the data of a ping comes back as it was");
}

/// A program that is killed when the test ends, however it ends.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    /// Starts `program` in the namespace of the calling thread, silent but for its output.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> io::Result<Program> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map(Program)
    }

    /// What it said on standard output, and whether it ended well; it must have ended.
    pub(crate) fn finish(mut self) -> (bool, String, String) {
        let status = self.0.wait().unwrap();
        let mut texts = [String::new(), String::new()];
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut texts[0]).unwrap();
        }
        if let Some(mut pipe) = self.0.stderr.take() {
            pipe.read_to_string(&mut texts[1]).unwrap();
        }
        let [out, err] = texts;
        (status.success(), out, err)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
