//! The handles for any thread, in both manners: `std::net`'s semantics, waits that end, and no
//! wake-up lost.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use common::{address, each_manner};
use roceway_runtime::shared::{TcpListener, TcpStream, UdpSocket, Worker};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(30);

/// A connection between two workers: the client's end and the server's.
fn connect(client: &Worker, server: &Worker) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind(server, address(2, 7)).expect("a listener");
    let one = TcpStream::connect_timeout(client, &address(2, 7), LONG).expect("a connection");
    let (two, peer) = listener.accept().expect("the connection");
    assert_eq!(peer, one.local_addr().expect("an address"));
    assert_eq!(one.peer_addr().expect("an address"), address(2, 7));
    (listener, one, two)
}

#[test]
fn handles_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Worker>();
    crosses::<TcpListener>();
    crosses::<TcpStream>();
    crosses::<UdpSocket>();
}

/// However a connection ends at one end, the other end's reader and writer return.
#[test]
fn every_way_to_end_reaches_the_other_end() {
    type End = fn(TcpStream, &Worker);
    let ends: [(&str, End, bool); 4] = [
        ("dropped", |stream, _| drop(stream), true),
        ("shut down", |stream, _| stream.shutdown(Shutdown::Both).expect("connected"), true),
        ("aborted", |stream, _| stream.abort().expect("a worker"), false),
        ("its worker stopped", |_, worker| worker.stop(), false),
    ];
    for (name, end, orderly) in ends {
        each_manner(|client, server| {
            let (_listener, one, mut two) = connect(&client, &server);
            let reading = thread::spawn(move || two.read(&mut [0]).map_err(|error| error.kind()));
            thread::sleep(SHORT);
            end(one, &client);
            // A worker that is gone takes its NIC along, which ends the link; only an owned one
            // lingers before that until its last bytes are taken.
            let client = orderly.then_some(client);
            let outcome = reading.join().expect("the reader");
            assert_eq!(outcome.is_ok(), orderly, "{name}: {outcome:?}");
            drop(client);
        });
    }
}

#[test]
fn bytes_come_back_in_order() {
    each_manner(|client, server| {
        let (_listener, mut one, mut two) = connect(&client, &server);
        let echo = thread::spawn(move || {
            let mut chunk = vec![0; 10_000];
            let mut total = 0;
            loop {
                match two.read(&mut chunk).expect("bytes") {
                    0 => return total,
                    n => two.write_all(&chunk[..n]).expect("room"),
                }
                total += 1;
            }
        });
        let data: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[i as usize % 4]).collect();
        let mut writer = one.try_clone().expect("a handle");
        let sent = data.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&sent).expect("room");
            writer.shutdown(Shutdown::Write).expect("connected");
        });
        let mut back = Vec::new();
        one.read_to_end(&mut back).expect("bytes");
        writing.join().expect("the writer");
        assert!(echo.join().expect("the echo") > 0);
        assert!(back == data, "{} of {} bytes", back.len(), data.len());
    });
}

#[test]
fn peek_leaves_the_bytes() {
    each_manner(|client, server| {
        let (_listener, mut one, mut two) = connect(&client, &server);
        one.write_all(b"hello").expect("room");
        let mut out = [0; 5];
        assert_eq!(two.peek(&mut out).expect("bytes"), 5);
        two.read_exact(&mut out).expect("bytes");
        assert_eq!(&out, b"hello");
        two.set_nonblocking(true).expect("an option");
        assert_eq!(two.read(&mut out).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(two.peek(&mut out).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn time_to_live_and_class_are_each_sockets_own() {
    each_manner(|client, server| {
        let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
        assert_eq!((listener.ttl().expect("a socket"), listener.tos().expect("a socket")), (64, 0));
        listener.set_ttl(9).expect("an option");
        listener.set_tos(0xb8).expect("an option");
        let one = TcpStream::connect_timeout(&client, &address(2, 7), LONG).expect("a connection");
        let (two, _) = listener.accept().expect("the connection");
        assert_eq!((two.ttl().expect("a socket"), two.tos().expect("a socket")), (9, 0xb8));
        assert_eq!((one.ttl().expect("a socket"), one.tos().expect("a socket")), (64, 0));
        one.set_ttl(255).expect("an option");
        one.set_tos(0x2b).expect("an option");
        let set = (one.ttl().expect("a socket"), one.tos().expect("a socket"));
        assert_eq!(set, (255, 0x28), "TCP leaves ECN's bits zero");
        for ttl in [0, 256, u32::MAX] {
            assert_eq!(one.set_ttl(ttl).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let datagrams = UdpSocket::bind(&client, address(1, 9)).expect("a socket");
        datagrams.set_ttl(1).expect("an option");
        datagrams.set_tos(0xff).expect("an option");
        let set = (datagrams.ttl().expect("a socket"), datagrams.tos().expect("a socket"));
        assert_eq!(set, (1, 0xff));
        one.set_soft_errors(true).expect("an option");
        assert!(one.take_error().expect("a socket").is_none(), "nothing went wrong");
    });
}

#[test]
fn waits_end_at_their_timeout() {
    each_manner(|client, server| {
        let (_listener, mut one, _two) = connect(&client, &server);
        one.set_read_timeout(Some(SHORT)).expect("an option");
        assert_eq!(one.read_timeout().expect("an option"), Some(SHORT));
        let start = Instant::now();
        assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= SHORT);
        assert_eq!(
            one.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        // Nobody reads at the other end: at last there is no room.
        one.set_write_timeout(Some(SHORT)).expect("an option");
        let error = loop {
            if let Err(error) = one.write(&[0; 60_000]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        // Nobody is there at all.
        let nobody = address(77, 7);
        let error = TcpStream::connect_timeout(&client, &nobody, SHORT).err().expect("no answer");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn refusal_and_reset_are_told() {
    each_manner(|client, server| {
        let (listener, mut one, two) = connect(&client, &server);
        let closed = address(2, 8);
        let error = TcpStream::connect(&client, closed).err().expect("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(
            TcpListener::bind(&server, address(2, 7)).err().expect("taken").kind(),
            ErrorKind::AddrInUse
        );
        assert_eq!(
            TcpListener::bind(&server, address(9, 7)).err().expect("not ours").kind(),
            ErrorKind::AddrNotAvailable
        );
        let aborting = thread::spawn(move || {
            thread::sleep(SHORT);
            two.abort().expect("a worker");
        });
        assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(one.take_error().expect("a worker").is_some());
        aborting.join().expect("the other end");
        drop(listener);
        let error = TcpStream::connect(&client, address(2, 7)).err().expect("closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn shutdown_and_close_wake_those_who_wait() {
    each_manner(|client, server| {
        let (listener, one, two) = connect(&client, &server);
        let other = listener.try_clone().expect("a handle");
        let accepting = thread::spawn(move || other.accept().err().expect("an end").kind());
        let mut other = one.try_clone().expect("a handle");
        let reading = thread::spawn(move || other.read(&mut [0]).expect("an end"));
        let mut other = two.try_clone().expect("a handle");
        let peer_reading = thread::spawn(move || other.read(&mut [0]).expect("an end"));
        thread::sleep(SHORT);
        listener.shutdown().expect("a worker");
        one.shutdown(Shutdown::Both).expect("a connection");
        assert_eq!(accepting.join().expect("the accepting thread"), ErrorKind::InvalidInput);
        assert_eq!(reading.join().expect("the reading thread"), 0);
        assert_eq!(peer_reading.join().expect("the peer's thread"), 0);
    });
}

#[test]
fn a_blocked_write_ends_with_its_connection() {
    each_manner(|client, server| {
        let (_listener, one, _two) = connect(&client, &server);
        let mut other = one.try_clone().expect("a handle");
        let writing = thread::spawn(move || {
            loop {
                if let Err(error) = other.write(&[0; 60_000]) {
                    return error.kind();
                }
            }
        });
        thread::sleep(SHORT);
        one.shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(writing.join().expect("the writer"), ErrorKind::BrokenPipe);
    });
}

#[test]
fn stopping_the_worker_wakes_everybody() {
    each_manner(|client, server| {
        let (listener, mut one, _two) = connect(&client, &server);
        let accepting = thread::spawn(move || listener.accept().err().expect("an end").kind());
        let udp = UdpSocket::bind(&server, address(2, 9)).expect("a socket");
        let receiving = thread::spawn(move || udp.recv(&mut [0]).expect_err("an end").kind());
        let reading = thread::spawn(move || one.read(&mut [0]).expect_err("an end").kind());
        thread::sleep(SHORT);
        client.stop();
        server.stop();
        for waiting in [accepting, receiving, reading] {
            assert_eq!(waiting.join().expect("a thread"), ErrorKind::BrokenPipe);
        }
        let error = TcpListener::bind(&server, address(2, 10)).err().expect("stopped");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(server.counters().unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn datagrams_go_both_ways() {
    each_manner(|client, server| {
        // Nothing retransmits a datagram that was sent before the link was up.
        let _up = connect(&client, &server);
        let two = UdpSocket::bind(&server, address(2, 9)).expect("a socket");
        let one = UdpSocket::bind(&client, address(1, 0)).expect("a socket");
        let echo = thread::spawn(move || {
            let mut out = [0; 100];
            for _ in 0..100 {
                let (n, peer) = two.recv_from(&mut out).expect("a datagram");
                two.send_to(&out[..n], peer).expect("room");
            }
        });
        one.connect(address(2, 9)).expect("a peer");
        assert_eq!(one.peer_addr().expect("a peer"), address(2, 9));
        let mut out = [0; 100];
        for i in 0..100_u8 {
            one.send(&[i; 50]).expect("room");
            assert_eq!(one.peek(&mut out).expect("a datagram"), 50);
            assert_eq!(one.recv(&mut out).expect("a datagram"), 50);
            assert_eq!(out[49], i);
        }
        echo.join().expect("the echo");
        one.set_read_timeout(Some(SHORT)).expect("an option");
        assert_eq!(one.recv(&mut out).unwrap_err().kind(), ErrorKind::WouldBlock);
        // Nobody is bound there any more; the answer is waited for, however busy the machine is.
        one.set_read_timeout(None).expect("an option");
        one.send(&[1]).expect("room");
        assert_eq!(one.recv(&mut out).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

/// Many threads on one worker: each connection has its own pair of threads.
#[test]
fn many_threads_share_a_worker() {
    const THREADS: u16 = 16;
    each_manner(|client, server| {
        let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
        let acceptors: Vec<_> = (0..4)
            .map(|_| {
                let listener = listener.try_clone().expect("a handle");
                thread::spawn(move || {
                    (0..THREADS / 4)
                        .map(|_| {
                            let (stream, _) = listener.accept().expect("a connection");
                            thread::spawn(move || serve(stream))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let clients: Vec<_> = (0..THREADS)
            .map(|number| {
                let client = client.clone();
                thread::spawn(move || ask(&client, u64::from(number)))
            })
            .collect();
        clients.into_iter().for_each(|thread| thread.join().expect("a client"));
        for acceptor in acceptors {
            for thread in acceptor.join().expect("an acceptor") {
                thread.join().expect("a server");
            }
        }
        let seen = client.connections().expect("a worker");
        println!("{} connections remain", seen.len());
    });
}

/// Requests of 8 bytes, answered; random sleeps at both ends make every order of events happen.
fn ask(client: &Worker, seed: u64) {
    let mut random = seed;
    let mut stream = TcpStream::connect(client, address(2, 7)).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    for _ in 0..60 {
        nap(&mut random);
        stream.write_all(&random.to_le_bytes()).expect("room");
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(u64::from_le_bytes(answer), random);
    }
}

fn serve(mut stream: TcpStream) {
    let mut random = 7;
    let mut question = [0; 8];
    while stream.read_exact(&mut question).is_ok() {
        nap(&mut random);
        stream.write_all(&question).expect("room");
    }
}

/// Sleeps for a random time, mostly not at all. Knuth's generator (TAOCP volume 2, section 3.3.4).
fn nap(random: &mut u64) {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    match *random >> 60 {
        0..10 => {}
        10..13 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(*random >> 53)),
    }
}
