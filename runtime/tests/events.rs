//! Readiness events of local sockets: what is reported, how often, and what never is.

mod common;

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use common::{address, config, nics};
use roceway_runtime::asynchronous::{self, Executor};
use roceway_runtime::local::{Event, Readiness, TcpListener, TcpStream, UdpSocket, Worker};

const READ: Readiness = Readiness::READABLE;
const WRITE: Readiness = Readiness::WRITABLE;
const BOTH: Readiness = READ.union(WRITE);
const PATIENCE: Duration = Duration::from_secs(20);

/// Two workers on one link, turned by this thread, and a listener of the second.
struct World {
    client: Worker,
    server: Worker,
    listener: TcpListener,
}

impl World {
    fn new() -> World {
        let (a, b) = nics();
        let client = Worker::with_nic(a, &config(1)).expect("a worker");
        let server = Worker::with_nic(b, &config(2)).expect("a worker");
        let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
        let world = World { client, server, listener };
        drop(world.connect());
        world.settle();
        world
    }

    fn turn(&self) {
        let _ = self.client.turn();
        let _ = self.server.turn();
    }

    fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
        let start = Instant::now();
        loop {
            match attempt() {
                Ok(value) => return value,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{what}: {error}"),
            }
            assert!(start.elapsed() < PATIENCE, "{what}");
            self.turn();
        }
    }

    /// Turns until everything under way has arrived, delayed acknowledgements too.
    fn settle(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            self.turn();
        }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let ours = TcpStream::connect(&self.client, address(2, 7)).expect("a connection");
        let theirs = self.until("accepting", || self.listener.accept()).0;
        self.until("connecting", || match ours.is_connected() {
            Ok(false) => Err(ErrorKind::WouldBlock.into()),
            other => other,
        });
        (ours, theirs)
    }
}

fn events(worker: &Worker) -> Vec<Event> {
    std::iter::from_fn(|| worker.poll_event()).collect()
}

fn event(token: u64, ready: Readiness) -> Event {
    Event { token, ready }
}

#[test]
fn a_stream_is_reported_once_for_all_that_came_and_again_when_more_does() {
    let world = World::new();
    let (ours, theirs) = world.connect();
    theirs.watch(77, READ);
    world.settle();
    assert_eq!(events(&world.server), []);
    for round in 0..3 {
        for _ in 0..4 {
            ours.write(b"x").expect("room");
            world.turn();
        }
        world.settle();
        // Unread bytes of the round before are no reason to be silent about new ones.
        assert_eq!(events(&world.server), [event(77, READ)], "round {round}");
        world.settle();
        assert!(!world.server.has_events() && world.server.poll_event().is_none(), "{round}");
    }
}

#[test]
fn what_is_ready_already_is_reported_at_once_and_only_what_is_watched_for() {
    let world = World::new();
    let (ours, theirs) = world.connect();
    theirs.watch(1, READ);
    assert_eq!(events(&world.server), []);
    theirs.watch(2, BOTH);
    assert_eq!(events(&world.server), [event(2, WRITE)]);
    ours.write(b"x").expect("room");
    world.settle();
    theirs.watch(3, WRITE);
    assert_eq!(events(&world.server), [event(3, WRITE)], "the token is the newest");
    theirs.watch(4, READ);
    theirs.unwatch();
    ours.write(b"y").expect("room");
    world.settle();
    assert_eq!(events(&world.server), []);
    theirs.watch(u64::MAX, BOTH);
    assert_eq!(events(&world.server), [event(u64::MAX, BOTH)]);
}

#[test]
fn a_connect_a_listener_and_room_to_write_are_reported() {
    let world = World::new();
    world.listener.watch(5);
    let ours = TcpStream::connect(&world.client, address(2, 7)).expect("a connection");
    ours.watch(6, WRITE);
    assert_eq!(events(&world.client), []);
    world.settle();
    assert_eq!(events(&world.client), [event(6, WRITE)]);
    assert_eq!(events(&world.server), [event(5, READ)]);
    let (theirs, _) = world.listener.accept().expect("the connection that was reported");

    let block = vec![1; 1 << 20];
    world.until("a full window", || match ours.write(&block) {
        Ok(_) => Err(ErrorKind::WouldBlock.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    });
    world.settle();
    while ours.write(&block).is_ok() {
        world.settle();
    }
    events(&world.client);
    let mut out = vec![0; 1 << 20];
    let start = Instant::now();
    while events(&world.client).is_empty() {
        let _ = theirs.read(&mut out);
        world.turn();
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(ours.write(&block).expect("room was reported") > 0);
}

#[test]
fn room_that_memory_left_none_of_is_reported_though_nothing_came_for_the_connection() {
    let world = World::new();
    let pairs: Vec<_> = (0..40).map(|_| world.connect()).collect();
    let (last, _) = world.connect();
    last.watch(1, WRITE);
    // Nobody reads: the windows close and the arena fills up.
    let block = vec![1; 1 << 20];
    for (ours, _) in &pairs {
        ours.set_send_buffer(1 << 20);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        for (ours, _) in &pairs {
            let _ = ours.write(&block);
        }
        world.turn();
    }
    events(&world.client);
    let refused = last.write(&block).expect_err("no memory");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    let ready = last.readiness().contains(WRITE);
    assert!(ready, "its own limit would allow it");
    // It is asked to try again, and as long as there is none, again.
    for _ in 0..3 {
        let start = Instant::now();
        while events(&world.client).is_empty() {
            world.turn();
            assert!(start.elapsed() < PATIENCE);
        }
        assert_eq!(events(&world.client), [], "once");
        assert!(last.write(&block).is_err());
    }
    for (ours, _) in &pairs {
        ours.abort();
    }
    let start = Instant::now();
    while last.write(&block).is_err() {
        while events(&world.client).is_empty() {
            world.turn();
            assert!(start.elapsed() < PATIENCE);
        }
    }
    world.settle();
    assert_eq!(events(&world.client).len(), 1, "its acknowledgements, and no more of starving");
}

#[test]
fn datagrams_and_refusals_are_reported() {
    let world = World::new();
    let server = UdpSocket::bind(&world.server, address(2, 9)).expect("a socket");
    let client = UdpSocket::bind(&world.client, address(1, 9)).expect("a socket");
    server.watch(1, READ);
    client.watch(2, READ);
    client.connect(address(2, 9)).expect("a peer");
    for _ in 0..3 {
        client.send(b"x").expect("room");
        client.send(b"x").expect("room");
        world.settle();
        assert_eq!(events(&world.server), [event(1, READ)]);
        assert_eq!(events(&world.client), []);
    }
    drop(server);
    client.send(b"x").expect("room");
    world.settle();
    assert_eq!(events(&world.client), [event(2, READ)]);
    let refused = client.recv(&mut [0]).expect_err("nobody is there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn the_end_of_a_connection_is_reported_however_it_comes() {
    type End = fn(TcpStream);
    let ends: [(&str, End, bool); 2] =
        [("close", drop, true), ("reset", |stream| stream.abort(), false)];
    for (name, end, is_orderly) in ends {
        let world = World::new();
        let (ours, theirs) = world.connect();
        ours.watch(8, READ);
        end(theirs);
        world.settle();
        assert_eq!(events(&world.client), [event(8, READ)], "{name}");
        assert_eq!(ours.read(&mut [0]).is_ok_and(|n| n == 0), is_orderly, "{name}");
    }
}

#[test]
fn a_peer_that_vanishes_is_reported_inside_the_next_turn() {
    let world = World::new();
    let (ours, theirs) = world.connect();
    ours.watch(8, READ);
    let World { client, server, listener } = world;
    drop((theirs, listener, server));
    let (start, mut found) = (Instant::now(), Vec::new());
    while found.is_empty() {
        let turned = client.turn_with_or_sleep(|| {
            found.extend(events(&client));
            0
        });
        let _ = turned.expect("the system waits");
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(found, [event(8, READ)]);
    let gone = ours.read(&mut [0]).expect_err("the peer is gone");
    assert_ne!(gone.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_closed_socket_is_forgotten_and_its_place_inherits_nothing() {
    let world = World::new();
    let (ours, theirs) = world.connect();
    theirs.watch(1, BOTH);
    events(&world.server);
    ours.write(b"x").expect("room");
    world.settle();
    assert!(world.server.has_events());
    drop((theirs, ours));
    world.settle();
    assert_eq!(events(&world.server), [], "of a connection that is closed");
    for _ in 0..3 {
        let (ours, theirs) = world.connect();
        ours.write(b"x").expect("room");
        world.settle();
        assert_eq!(events(&world.server), [], "of a connection that nobody watches");
        theirs.watch(2, READ);
        assert_eq!(events(&world.server), [event(2, READ)]);
    }
}

#[test]
fn of_two_thousand_watched_sockets_only_the_ready_are_told() {
    let world = World::new();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for token in 0..2000 {
        let (one, other) = world.connect();
        other.watch(token, READ);
        ours.push(one);
        theirs.push(other);
    }
    world.settle();
    assert_eq!(events(&world.server), []);
    for round in 0..50_usize {
        let at = [round * 37 % 2000, 1999 - round];
        for index in at {
            ours[index].write(b"x").expect("room");
        }
        world.settle_quickly();
        let mut told: Vec<u64> = events(&world.server).iter().map(|one| one.token).collect();
        told.sort_unstable();
        let mut sent = at.map(|at| u64::try_from(at).expect("small"));
        sent.sort_unstable();
        assert_eq!(told, sent, "round {round}");
    }
}

impl World {
    /// As many turns as a frame needs to arrive.
    fn settle_quickly(&self) {
        (0..8).for_each(|_| self.turn());
    }
}

#[test]
fn the_tasks_of_an_executor_keep_their_events() {
    let (a, b) = nics();
    let client = Worker::with_nic(a, &config(1)).expect("a worker");
    let executor = Executor::new(Worker::with_nic(b, &config(2)).expect("a worker"));
    let handle = executor.handle().clone();
    let listener = asynchronous::TcpListener::bind(&handle, address(2, 7)).expect("a listener");
    let read = executor.spawn("read", async move {
        let (stream, _) = listener.accept().await?;
        // Neither takes anything from the task, which waits for the same socket.
        stream.local().watch(1, BOTH);
        let mut byte = [0];
        stream.read(&mut byte).await
    });
    let ours = TcpStream::connect(&client, address(2, 7)).expect("a connection");
    let start = Instant::now();
    let mut written = false;
    while !read.is_finished() {
        let _ = client.turn();
        let _ = executor.turn();
        assert_eq!(executor.handle().worker().poll_event(), None);
        assert!(start.elapsed() < PATIENCE);
        if !written && start.elapsed() > Duration::from_millis(50) {
            written = ours.write(b"x").is_ok();
        }
    }
    assert_eq!(executor.run(read).expect("the system waits").expect("a byte"), 1);
}
