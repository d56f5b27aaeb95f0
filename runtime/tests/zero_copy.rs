//! Sending and receiving without a copy: what comes back and when, what is counted, and what is
//! refused.

mod common;

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Instant;

use common::config;
use common::local::{PATIENCE, Pair, counter, pattern, settle};
use roceway_runtime::local::{Lent, Pieces, SendOutcome, TcpStream};
use roceway_runtime::rdma_virtio::nic::spec;

const BLOCK: usize = 65_536;
/// Gives `count` whole buffers to `stream`, taking back those that have ended; returns the number
/// of acknowledged ones once all have. `drain` receives meanwhile.
fn give_all(pair: &Pair, stream: &TcpStream, count: u64, mut drain: impl FnMut()) -> u64 {
    let (mut next, mut ended, mut acknowledged) = (0, 0, 0);
    let mut filled = None;
    let start = Instant::now();
    while ended < count {
        assert!(start.elapsed() < PATIENCE, "only {ended} of {count} buffers came back");
        while let Some(sent) = pair.left.poll_sent() {
            assert_eq!(sent.cookie, ended, "they end in the order of the stream");
            ended += 1;
            acknowledged += u64::from(sent.outcome == SendOutcome::Acknowledged);
        }
        if filled.is_none()
            && next < count
            && let Ok(mut buffer) = pair.left.buffer()
        {
            let first = usize::try_from(next).expect("small") * BLOCK;
            (first..).zip(buffer.iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
            filled = Some(buffer.freeze());
        }
        if let Some(buffer) = &filled
            && stream.give(buffer, 0..BLOCK, next).is_ok()
        {
            next += 1;
            filled = None;
        }
        pair.turn();
        drain();
    }
    acknowledged
}

/// Checks pieces against the pattern from `at` on; returns the place behind them.
fn check(pieces: &Pieces, mut at: usize) -> usize {
    for piece in pieces.iter() {
        for byte in piece {
            assert_eq!(*byte, pattern(at), "byte {at}");
            at += 1;
        }
    }
    at
}

#[test]
fn bytes_travel_without_a_copy_and_cookies_come_back() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let mut pieces = pair.right.pieces();
    let mut at = 0;
    let count = 40;
    let acknowledged = give_all(&pair, &client, count, || {
        if server.take(&mut pieces, usize::MAX).is_ok() {
            at = check(&pieces, at);
        }
    });
    assert_eq!(acknowledged, count);
    pair.until("the rest", || {
        if server.take(&mut pieces, usize::MAX).is_ok() {
            at = check(&pieces, at);
        }
        (at == 40 * BLOCK).then_some(())
    });
    pieces.clear();
    settle(&pair);
    let bytes = count * BLOCK as u64;
    for (name, expected) in [("bytes_given", bytes), ("bytes_written", 0), ("bytes_read", 0)] {
        assert_eq!(counter(&pair.left, "tcp", name), expected, "{name}");
    }
    for (name, expected) in [("bytes_taken", bytes), ("bytes_read", 0), ("bytes_compacted", 0)] {
        assert_eq!(counter(&pair.right, "tcp", name), expected, "{name}");
    }
    for (name, expected) in
        [("given", count), ("given_acknowledged", count), ("given_dropped", 0), ("misuse", 0)]
    {
        assert_eq!(counter(&pair.left, "memory", name), expected, "{name}");
    }
    assert_eq!(counter(&pair.right, "memory", "bytes_lent_copied"), 0);
    assert_eq!(counter(&pair.right, "memory", "lent_now"), 0);
    pair.left.check_counters();
    pair.right.check_counters();
}

#[test]
fn copying_copies_each_byte_exactly_once_on_each_side() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let data: Vec<u8> = (0..1_000_000).map(pattern).collect();
    let (mut written, mut got) = (0, Vec::new());
    let mut out = vec![0; 100_000];
    pair.until("the stream", || {
        written += client.write(&data[written..]).unwrap_or(0);
        let n = server.read(&mut out).unwrap_or(0);
        got.extend_from_slice(&out[..n]);
        (got.len() == data.len()).then_some(())
    });
    assert_eq!(got, data);
    assert_eq!(counter(&pair.left, "tcp", "bytes_written"), 1_000_000);
    assert_eq!(counter(&pair.right, "tcp", "bytes_read"), 1_000_000);
    for worker in [&pair.left, &pair.right] {
        for name in ["bytes_given", "bytes_taken", "bytes_compacted"] {
            assert_eq!(counter(worker, "tcp", name), 0, "{name}");
        }
    }
}

#[test]
fn a_large_buffer_leaves_as_one_segment() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let mut pieces = pair.right.pieces();
    // Beyond the first windows, which are smaller.
    let mut at = 0;
    give_all(&pair, &client, 8, || at += server.take(&mut pieces, usize::MAX).unwrap_or(0));
    pieces.clear();
    settle(&pair);
    let before = counter(&pair.left, "tcp", "segments_sent");
    let frames = counter(&pair.right, "port", "frames_received");
    let buffer = pair.left.buffer().expect("a block").freeze();
    // Whole segments of the wire that an IP packet has room for besides the longest headers.
    let len = 45 * 1448;
    client.give(&buffer, 0..len, 100).expect("room");
    let _ = pair.left.turn();
    let _ = pair.right.turn();
    assert_eq!(server.take(&mut pieces, usize::MAX).ok(), Some(len));
    assert_eq!(counter(&pair.left, "tcp", "segments_sent"), before + 1);
    assert_eq!(counter(&pair.right, "port", "frames_received"), frames + 1);
}

#[test]
fn a_cookie_comes_back_only_when_both_peer_and_nic_are_done() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let buffer = pair.left.buffer().expect("a block").freeze();
    client.give(&buffer, 0..1000, 7).expect("room");
    for _ in 0..50 {
        // The NIC completes, but the peer does not turn.
        let _ = pair.left.turn();
        assert!(pair.left.poll_sent().is_none(), "nobody has acknowledged it");
    }
    let buffer = buffer.try_into_mut().expect_err("it is being sent");
    let sent = pair.sent();
    assert_eq!((sent.cookie, sent.outcome), (7, SendOutcome::Acknowledged));
    assert!(sent.buffer.is(&buffer));
    drop(sent);
    let mut buffer = buffer.try_into_mut().expect("the only holder");
    buffer[0] = 1;
    assert!(pair.left.poll_sent().is_none(), "once only");
    drop(server);
}

#[test]
fn one_buffer_goes_to_several_connections_and_in_parts() {
    let pair = Pair::new();
    let ends = [pair.connect(81), pair.connect(82)];
    let mut buffer = pair.left.buffer().expect("a block");
    (0..).zip(buffer.iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
    let buffer = buffer.freeze();
    let parts = [(0, 0..10_000, 1), (1, 0..20_000, 2), (0, 10_000..BLOCK, 3), (1, 5..6, 4)];
    for (end, range, cookie) in parts {
        ends[end].0.give(&buffer, range, cookie).expect("room");
    }
    drop(buffer);
    assert_eq!(counter(&pair.left, "memory", "block_exhausted"), 0);
    let mut got = [Vec::new(), Vec::new()];
    let mut pieces = pair.right.pieces();
    let mut cookies = Vec::new();
    pair.until("all of it", || {
        for (end, got) in ends.iter().zip(&mut got) {
            if end.1.take(&mut pieces, usize::MAX).is_ok() {
                pieces.iter().for_each(|piece| got.extend_from_slice(piece));
            }
        }
        cookies.extend(pair.left.poll_sent().map(|sent| sent.cookie));
        (cookies.len() == 4).then_some(())
    });
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 2, 3, 4]);
    assert!((0..BLOCK).zip(&got[0]).all(|(at, byte)| *byte == pattern(at)));
    assert_eq!((got[0].len(), got[1].len()), (BLOCK, 20_001));
    assert_eq!(got[1][20_000], pattern(5));
    // The block is free again: all eight can be had.
    let all: Vec<_> = (0..8).map(|_| pair.left.buffer().expect("a free block")).collect();
    assert_eq!(pair.left.buffer().expect_err("a ninth").kind(), ErrorKind::WouldBlock);
    drop(all);
    assert!(pair.left.buffer().is_ok());
}

#[test]
fn written_and_given_bytes_keep_their_order() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let mut buffer = pair.left.buffer().expect("a block");
    buffer[..4].copy_from_slice(b"cdef");
    let buffer = buffer.freeze();
    client.write(b"ab").expect("room");
    client.give(&buffer, 0..2, 1).expect("room");
    client.write(b"x").expect("room");
    client.give(&buffer, 2..4, 2).expect("room");
    client.write(b"gh").expect("room");
    let mut got = Vec::new();
    let mut out = [0; 64];
    pair.until("eight bytes", || {
        let n = server.read(&mut out).unwrap_or(0);
        got.extend_from_slice(&out[..n]);
        (got.len() == 9).then_some(())
    });
    assert_eq!(got, b"abcdxefgh");
}

#[test]
fn closing_still_delivers_and_aborting_drops() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let buffer = pair.left.buffer().expect("a block").freeze();
    client.give(&buffer, 0..BLOCK, 1).expect("room");
    drop(client);
    let mut got = 0;
    let mut pieces = pair.right.pieces();
    pair.until("the end of the stream", || match server.take(&mut pieces, usize::MAX) {
        Ok(0) => Some(()),
        Ok(n) => {
            got += n;
            None
        }
        Err(_) => None,
    });
    assert_eq!(got, BLOCK);
    let sent = pair.sent();
    assert_eq!((sent.cookie, sent.outcome), (1, SendOutcome::Acknowledged));

    let (client, server) = pair.connect(81);
    client.give(&buffer, 0..BLOCK, 1).expect("the cookie is free again");
    let _ = pair.left.turn();
    client.give(&buffer, 0..BLOCK, 2).expect("room");
    client.abort();
    for cookie in [2, 1] {
        let sent = pair.sent();
        assert_eq!((sent.cookie, sent.outcome), (cookie, SendOutcome::Dropped));
    }
    drop((client, server));
    assert_eq!(counter(&pair.left, "memory", "given_dropped"), 2);
    assert_eq!(counter(&pair.left, "memory", "given"), 3);
}

#[test]
fn what_makes_no_sense_is_refused_and_counted() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    let buffer = pair.left.buffer().expect("a block").freeze();
    let foreign = pair.right.buffer().expect("a block").freeze();
    client.give(&buffer, 0..10, 5).expect("room");
    let backwards = std::ops::Range { start: 7, end: 3 };
    let rows = [
        ("a cookie in use", &buffer, 10..20, 5, ErrorKind::AlreadyExists),
        ("no bytes", &buffer, 10..10, 6, ErrorKind::InvalidInput),
        ("backwards", &buffer, backwards, 6, ErrorKind::InvalidInput),
        ("beyond the end", &buffer, 10..BLOCK + 1, 6, ErrorKind::InvalidInput),
        ("far beyond the end", &buffer, 10..usize::MAX, 6, ErrorKind::InvalidInput),
        ("another worker's", &foreign, 0..10, 6, ErrorKind::InvalidInput),
    ];
    let count = u64::try_from(rows.len()).expect("few");
    for (name, buffer, range, cookie, kind) in rows {
        let error = client.give(buffer, range, cookie).expect_err(name);
        assert_eq!(error.kind(), kind, "{name}");
    }
    assert_eq!(counter(&pair.left, "memory", "given_refused"), count);
    assert_eq!(counter(&pair.left, "memory", "given"), 1);
    let mut foreign = pair.left.pieces();
    assert_eq!(server.take(&mut foreign, 1).expect_err("foreign").kind(), ErrorKind::InvalidInput);
    assert_eq!(pair.sent().cookie, 5);
    client.give(&buffer, 0..10, 5).expect("it came back, so it may be used again");
    drop(server);
    pair.until("a reset", || client.is_connected().err());
    let error = client.give(&buffer, 0..10, 9).expect_err("the connection is over");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!((pair.sent().cookie, pair.left.poll_sent().map(|s| s.cookie)), (5, None));
}

#[test]
fn as_many_sends_as_there_are_names_for() {
    let mut left = config(1);
    left.tcp.send_buffer = 1 << 20;
    let pair = Pair::of(left, config(2));
    let (client, _server) = pair.connect(80);
    client.set_nodelay(true).expect("no delay");
    let buffer = pair.left.buffer().expect("a block").freeze();
    for cookie in 0..1024 {
        client.give(&buffer, 0..1, cookie).expect("room");
    }
    let full = client.give(&buffer, 0..1, 1024).expect_err("too many");
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert_eq!(counter(&pair.left, "memory", "given_exhausted"), 1);
    let mut ended = 0;
    pair.until("all of them", || {
        ended += u64::from(pair.left.poll_sent().is_some());
        (ended == 1024).then_some(())
    });
    client.give(&buffer, 0..1, 1024).expect("room again");
}

/// Takes everything that comes and keeps it.
fn keep(pair: &Pair, stream: &TcpStream, kept: &mut Vec<Lent>) {
    let mut pieces = pair.right.pieces();
    if stream.take(&mut pieces, usize::MAX).is_ok() {
        kept.extend(pieces.drain());
    }
}

#[test]
fn a_slow_application_stops_its_own_peer_and_nobody_else() {
    let mut right = config(2);
    right.tcp.receive_buffer = 400_000;
    let pair = Pair::of(config(1), right);
    let (client, server) = pair.connect(80);
    let (other, other_server) = pair.connect(81);
    let data = vec![3; 1 << 20];
    let (mut written, mut kept) = (0, Vec::new());
    for _ in 0..2000 {
        written += client.write(&data[written..]).unwrap_or(0);
        pair.turn();
        keep(&pair, &server, &mut kept);
    }
    let held: usize = kept.iter().map(|piece| piece.len()).sum();
    let info = server.info().expect("open");
    assert!((300_000..=500_000).contains(&held), "{held}");
    assert_eq!(info.lent as usize, held);
    assert!(info.rcv_wnd < 65_536, "the window is shut: {}", info.rcv_wnd);
    // The others have buffers.
    let mut out = vec![0; 65_536];
    let mut got = 0;
    pair.until("another connection's bytes", || {
        let _ = other.write(&data[..10_000]);
        got += other_server.read(&mut out).unwrap_or(0);
        (got > 300_000).then_some(())
    });
    // From another thread, in another order.
    kept.reverse();
    std::thread::spawn(move || drop(kept)).join().expect("no panic");
    let mut rest = 0;
    let mut pieces = pair.right.pieces();
    pair.until("the rest", || {
        written += client.write(&data[written..]).unwrap_or(0);
        rest += server.take(&mut pieces, usize::MAX).unwrap_or(0);
        (rest == data.len() - held).then_some(())
    });
    pieces.clear();
    assert_eq!(server.info().expect("open").lent, 0);
    assert_eq!(counter(&pair.right, "memory", "misuse"), 0);
}

#[test]
fn who_holds_as_many_slots_as_it_may_waits_for_its_own() {
    let mut right = config(2);
    right.tcp.lent_slots = 4;
    let pair = Pair::of(config(1), right);
    let (client, server) = pair.connect(80);
    client.set_nodelay(true).expect("no delay");
    let mut kept = Vec::new();
    for _ in 0..10 {
        client.write(&[1; 600]).expect("room");
        settle(&pair);
        keep(&pair, &server, &mut kept);
    }
    assert_eq!(kept.len(), 4);
    let mut pieces = pair.right.pieces();
    let error = server.take(&mut pieces, usize::MAX).expect_err("sated");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(counter(&pair.right, "tcp", "taking_refused") > 0);
    // Copying is not taking.
    let mut out = [0; 600];
    assert_eq!(server.read(&mut out).ok(), Some(600));
    drop(kept.split_off(3));
    settle(&pair);
    assert_eq!(server.take(&mut pieces, usize::MAX).ok(), Some(600));
}

#[test]
fn beyond_half_of_the_receive_slots_pieces_are_copies() {
    let mut right = config(2);
    right.memory.receive = 256;
    right.tcp.lent_slots = 65_535;
    right.tcp.receive_buffer = 4 << 20;
    let pair = Pair::of(config(1), right);
    let (client, server) = pair.connect(80);
    let data: Vec<u8> = (0..2 << 20).map(pattern).collect();
    let (mut written, mut kept) = (0, Vec::new());
    let done = Rc::new(Cell::new(0));
    pair.until("all of it", || {
        written += client.write(&data[written..]).unwrap_or(0);
        keep(&pair, &server, &mut kept);
        done.set(kept.iter().map(|piece| piece.len()).sum());
        (done.get() == data.len()).then_some(())
    });
    let mut at = 0;
    for piece in &kept {
        assert!(piece.iter().enumerate().all(|(i, byte)| *byte == pattern(at + i)));
        at += piece.len();
    }
    let copied = counter(&pair.right, "memory", "bytes_lent_copied")
        + counter(&pair.right, "tcp", "bytes_compacted");
    assert!(copied > 1 << 20, "{copied}");
    assert_eq!(counter(&pair.right, "driver", "rx_drop_merge"), 0);
}

#[test]
fn handles_outlive_their_worker() {
    let pair = Pair::new();
    let (client, server) = pair.connect(80);
    client.write(b"still here").expect("room");
    let mut kept = Vec::new();
    pair.until("a piece", || {
        keep(&pair, &server, &mut kept);
        (!kept.is_empty()).then_some(())
    });
    let mut buffer = pair.left.buffer().expect("a block");
    let frozen = pair.left.buffer().expect("a block").freeze();
    client.give(&frozen, 0..100, 1).expect("room");
    drop((client, server, pair));
    assert_eq!(&*kept[0], b"still here");
    buffer.fill(7);
    assert!(buffer.freeze().iter().all(|byte| *byte == 7));
    assert!(frozen.try_into_mut().is_ok(), "nobody sends it any more");
}

#[test]
fn lost_frames_are_sent_again_from_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("link.sock");
    let open = |faults| {
        let device = format!("soft:{},large=off{faults}", path.display());
        spec::open(&device).expect("a device")
    };
    let (a, b) = (open(",loss=2%,reorder=1%,dup=1%,sends=on,seed=11"), open(""));
    let pair = Pair::over(a, b, config(1), config(2));
    let (client, server) = pair.connect(80);
    let mut pieces = pair.right.pieces();
    let mut at = 0;
    let acknowledged = give_all(&pair, &client, 12, || {
        if server.take(&mut pieces, usize::MAX).is_ok() {
            at = check(&pieces, at);
        }
    });
    assert_eq!(acknowledged, 12);
    pair.until("the rest", || {
        if server.take(&mut pieces, usize::MAX).is_ok() {
            at = check(&pieces, at);
        }
        (at == 12 * BLOCK).then_some(())
    });
    assert!(counter(&pair.left, "tcp", "retransmissions") > 0);
    assert_eq!(counter(&pair.left, "tcp", "bytes_written"), 0);
}
