//! Connections between Roceway and the kernel, and what is asked of every one of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as KernelListener, TcpStream as KernelStream};

use roceway_runtime::local::{TcpListener, TcpStream};

use super::{Flow, HOST, Node, US, World, accept, connect, kernel_flow, pattern};

/// Where Roceway listens.
pub(crate) const PORT: u16 = 7;
/// Family, and whether Roceway opens the connection.
pub(crate) const WAYS: [(usize, bool); 4] = [(0, true), (0, false), (1, true), (1, false)];
const LENGTHS: [usize; 6] = [1, 100, 1448, 1449, 20_000, 100_000];

/// A connection between both sides: opened by Roceway, or by the kernel.
pub(crate) fn connection(
    world: &World,
    node: &Node,
    (family, ours_opens): (usize, bool),
) -> (TcpStream, KernelStream) {
    if ours_opens {
        let listener = world.in_kernel(move || KernelListener::bind((HOST[family], 0)).unwrap());
        let to = listener.local_addr().unwrap();
        // Roceway turns until the kernel has accepted: the last step of the handshake may be lost.
        let thread = world.kernel(move || accept(&listener));
        let stream = node.connect(to).unwrap();
        (stream, node.join("the kernel's accept", thread))
    } else {
        let to = SocketAddr::new(US[family], PORT);
        let listener = TcpListener::bind(&node.worker, to).unwrap();
        let thread = world.kernel(move || connect(to).unwrap());
        let stream = node.accept(&listener);
        (stream, node.join("the kernel's connect", thread))
    }
}

/// Requests of several lengths and the same as the answer; the kernel answers, then it asks.
pub(crate) fn requests(world: &World, node: &Node, way: (usize, bool)) {
    let (ours, mut theirs) = connection(world, node, way);
    let server = world.kernel(move || {
        for length in LENGTHS {
            let mut bytes = vec![0; length];
            theirs.read_exact(&mut bytes).unwrap();
            theirs.write_all(&bytes).unwrap();
        }
        theirs
    });
    for length in LENGTHS {
        node.write_all(&ours, pattern(0, length)).unwrap();
        let mut bytes = vec![0; length];
        node.read_exact(&ours, &mut bytes).unwrap();
        assert!(bytes == pattern(0, length), "{way:?} {length}");
    }
    let mut theirs = node.join("the server", server);
    let client = world.kernel(move || {
        for length in LENGTHS {
            theirs.write_all(pattern(0, length)).unwrap();
            let mut bytes = vec![0; length];
            theirs.read_exact(&mut bytes).unwrap();
            assert!(bytes == pattern(0, length), "{way:?} {length}");
        }
    });
    for length in LENGTHS {
        let mut bytes = vec![0; length];
        node.read_exact(&ours, &mut bytes).unwrap();
        node.write_all(&ours, &bytes).unwrap();
    }
    node.join("the client", client);
}

/// Sends so much each way at once, then each way alone.
pub(crate) fn bulk(world: &World, node: &Node, way: (usize, bool), total: u64) {
    for (to_kernel, from_kernel) in [(total, total), (total, 0), (0, total)] {
        let (ours, theirs) = connection(world, node, way);
        let thread = kernel_flow(theirs, from_kernel);
        let mut flows = [Flow::new(ours, to_kernel)];
        node.run_flows(&mut flows);
        assert_eq!(flows[0].received, from_kernel);
        assert_eq!(node.join("the kernel's end", thread), to_kernel);
    }
}

/// The kernel's part of a short connection: sends back what comes, to the end.
fn answer(mut stream: KernelStream) {
    let mut bytes = [0; 3];
    stream.read_exact(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    assert_eq!(stream.read(&mut bytes).unwrap(), 0);
}

/// The other part: asks, is answered, closes.
fn ask(mut stream: KernelStream) {
    stream.write_all(b"ask").unwrap();
    let mut bytes = [0; 3];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ask");
}

/// Each connection asks once, is answered, and is closed by who opened it.
pub(crate) fn from_us_in_sequence(world: &World, node: &Node, family: usize, count: u32) {
    let listener = world.in_kernel(move || KernelListener::bind((HOST[family], 0)).unwrap());
    let to = listener.local_addr().unwrap();
    let server = world.kernel(move || {
        for _ in 0..count {
            answer(accept(&listener));
        }
    });
    for _ in 0..count {
        let stream = node.connect(to).unwrap();
        node.write_all(&stream, b"ask").unwrap();
        let mut reply = [0; 3];
        node.read_exact(&stream, &mut reply).unwrap();
        assert_eq!(&reply, b"ask");
    }
    node.join("the server", server);
}

pub(crate) fn from_kernel_in_sequence(world: &World, node: &Node, family: usize, count: u32) {
    let to = SocketAddr::new(US[family], PORT);
    let listener = TcpListener::bind(&node.worker, to).unwrap();
    let client = world.kernel(move || {
        for _ in 0..count {
            ask(connect(to).unwrap());
        }
    });
    for _ in 0..count {
        let stream = node.accept(&listener);
        let mut request = [0; 3];
        node.read_exact(&stream, &mut request).unwrap();
        node.write_all(&stream, &request).unwrap();
        assert_eq!(node.read_all(&stream).unwrap(), 0);
    }
    node.join("the client", client);
}

/// So many connections of each side, all open and busy at the same time.
pub(crate) fn at_once(world: &World, node: &Node, family: usize, count: u32) {
    const EACH: u64 = 100_000;
    let to = SocketAddr::new(US[family], PORT);
    let ours = TcpListener::bind(&node.worker, to).unwrap();
    let theirs = world.in_kernel(move || KernelListener::bind((HOST[family], 0)).unwrap());
    let far = theirs.local_addr().unwrap();
    let kernel = world.kernel(move || {
        let mut threads = Vec::new();
        for _ in 0..count / 2 {
            threads.push(kernel_flow(connect(to).unwrap(), EACH));
            threads.push(kernel_flow(accept(&theirs), EACH));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    let mut flows: Vec<Flow> =
        (0..count / 2).map(|_| Flow::new(node.connect(far).unwrap(), EACH)).collect();
    flows.extend((0..count / 2).map(|_| Flow::new(node.accept(&ours), EACH)));
    node.run_flows(&mut flows);
    assert!(flows.iter().all(|flow| flow.received == EACH));
    assert_eq!(node.join("the kernel's ends", kernel), u64::from(count / 2 * 2) * EACH);
}
