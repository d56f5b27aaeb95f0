//! What a capture holds: every frame once, in order, with directions, wall-clock times and
//! complete checksums.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::SystemTime;

use common::{address, config, nics};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use roceway_runtime::shared::{Manner, TcpListener, TcpStream, Worker};

const LENGTH: usize = 500_000;

/// Direction, age in seconds and bytes of every frame in a file.
fn frames(path: &Path) -> Vec<(u32, u64, Vec<u8>)> {
    let mut reader = PcapNgReader::new(File::open(path).expect("a file")).expect("pcapng");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.expect("a block") else { continue };
        let flags = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Flags(flags) => Some(*flags),
            _ => None,
        });
        let age = now.checked_sub(packet.timestamp).expect("not from the future");
        frames.push((flags.expect("flags"), age.as_secs(), packet.data.to_vec()));
    }
    frames
}

/// RFC 1071: the sum over a TCP segment and its pseudo-header is all ones.
fn tcp_checksum_is_right(frame: &[u8]) -> bool {
    let segment = &frame[34..];
    let length = u32::try_from(segment.len()).expect("short");
    let pseudo = [&frame[26..34], &[0, 6][..], &length.to_be_bytes()[2..]].concat();
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum == 0xffff
}

#[test]
fn both_ends_see_the_same_frames() {
    let folder = tempfile::tempdir().expect("a directory");
    let (one, two) = nics();
    let start = |nic, host: u8| {
        let mut config = config(host);
        config.capture = Some(folder.path().join(format!("{host}.pcapng")));
        Worker::with_nic(nic, &config, Manner::Owned).expect("a worker")
    };
    let (client, server) = (start(one, 1), start(two, 2));
    let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
    let sending = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(&vec![5; LENGTH]).expect("room");
    });
    let mut stream = TcpStream::connect(&client, address(2, 7)).expect("a connection");
    let mut out = Vec::new();
    assert_eq!(stream.read_to_end(&mut out).expect("bytes"), LENGTH);
    sending.join().expect("the sender");
    drop(stream);
    let mut counters = server.counters().expect("a worker");
    counters.retain(|(layer, _, _)| *layer == "capture");
    assert_eq!(counters.len(), 3);
    assert!(counters.iter().all(|(_, name, value)| *name == "frames" || *value == 0));
    client.stop();
    server.stop();
    drop((client, server));
    let (ours, theirs) =
        (frames(&folder.path().join("1.pcapng")), frames(&folder.path().join("2.pcapng")));
    let bytes_of = |frames: &[(u32, u64, Vec<u8>)], direction: u32| -> Vec<Vec<u8>> {
        let of_it = frames.iter().filter(|(flags, ..)| flags & 3 == direction);
        of_it.map(|(_, _, bytes)| bytes.clone()).filter(|bytes| bytes[12..14] == [8, 0]).collect()
    };
    let (sent, received) = (bytes_of(&theirs, 2), bytes_of(&ours, 1));
    assert!(sent.len() > 10, "{} frames", sent.len());
    // The last ones may still have been under way when the ends stopped.
    let n = received.len();
    assert!(n + 5 >= sent.len() && n <= sent.len());
    for (sent, received) in sent.iter().zip(&received) {
        assert!(sent == received, "the same frame at both ends");
        assert!(tcp_checksum_is_right(sent));
    }
    assert!(ours.iter().chain(&theirs).all(|(_, age, _)| *age < 600));
}

#[test]
fn a_file_that_cannot_be_made_is_told_at_the_start() {
    let (one, _two) = nics();
    let mut config = config(1);
    config.capture = Some("/nowhere/it.pcapng".into());
    let error = Worker::with_nic(one, &config, Manner::Owned).err().expect("no directory");
    let error = error.to_string();
    assert!(error.starts_with("capture to /nowhere/it.pcapng: No such file"), "{error}");
}

/// /dev/full takes no byte: traffic goes on, and the loss is counted.
#[test]
fn a_full_disk_is_counted_and_traffic_goes_on() {
    let (one, two) = nics();
    let mut full = config(1);
    full.capture = Some("/dev/full".into());
    let client = Worker::with_nic(one, &full, Manner::CallerDriven).expect("a worker");
    let server = Worker::with_nic(two, &config(2), Manner::CallerDriven).expect("a worker");
    let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|n| n == 1) {
            stream.write_all(&byte).expect("room");
        }
    });
    let mut stream = TcpStream::connect(&client, address(2, 7)).expect("a connection");
    for byte in 0..100 {
        stream.write_all(&[byte]).expect("room");
        stream.read_exact(&mut [0]).expect("an answer");
        thread::sleep(std::time::Duration::from_millis(2));
    }
    drop(stream);
    answering.join().expect("the other end");
    let counters = client.counters().expect("a worker");
    let errors =
        counters.iter().find(|(layer, name, _)| (*layer, *name) == ("capture", "write_errors"));
    assert!(errors.is_some_and(|(_, _, errors)| *errors > 0));
}
