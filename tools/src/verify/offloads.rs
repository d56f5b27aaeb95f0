//! Sets of offloads, in which each pair of settings that the device offers occurs: bytes of a
//! connection both ways at once, and datagrams that one end cuts, every byte compared.
//!
//! Both ends are on this host and have the same set. What the device does not offer is found by
//! asking it for all, and stays out.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use roceway::offload_sets::{NAMES, OffloadSet, covering, legal};
use roceway_perf::roceway::Roceway;
use roceway_perf::transport::wait_for;
use roceway_runtime::OffloadWish;
use roceway_runtime::local::UdpSocket;

use super::client::both_ends;
use super::wire::{self, ADDRESSES, Plan, TCP_PORT, UDP_PORT};
use super::{Log, Missed, Seen};

/// Bytes of a connection each way, and datagrams that leave in one call.
const BYTES: u64 = 256 << 10;
const SEGMENTS: u64 = 24;
const SEGMENT_LEN: usize = 1111;
/// Datagrams of each call: the first brings both ends together, one of the others may lose some.
const CALLS: [u64; 3] = [1, SEGMENTS, SEGMENTS];
const ANSWERS_NS: u64 = 2_000_000_000;

/// One check for each set, named by it.
pub(super) fn checks(log: &mut Log<'_>, (here, there): (&str, &str)) {
    let mut sets = Vec::new();
    let found = log.check("offloads", || {
        let end = wire::open(here, ADDRESSES[0], OffloadWish::ALL).map_err(Missed::Failed)?;
        let missing = end.transport.state().offloads.missing;
        sets = covering(&legal(|name| !missing.contains(&name)));
        let offered = NAMES.iter().filter(|name| !missing.contains(*name)).count();
        Ok(format!(
            "{} sets have each pair of {offered} settings; not offered: {}",
            sets.len(),
            if missing.is_empty() { "none".to_owned() } else { missing.join(",") }
        ))
    });
    for set in sets.iter().filter(|_| found) {
        log.check(&format!("offloads {}", set.text()), || under(*set, (here, there)));
    }
}

fn under(set: OffloadSet, (here, there): (&str, &str)) -> Seen {
    let plan = Plan { offloads: set.wish, bytes: BYTES, ..Plan::new(there) };
    both_ends(&plan, |end_other| {
        let end_other =
            end_other.map_err(|what| Missed::Failed(format!("the other end: {what}")))?;
        let mut end = wire::open(here, ADDRESSES[0], set.wish).map_err(Missed::Failed)?;
        let to = |port| SocketAddr::new(ADDRESSES[1].into(), port);
        let length = SEGMENT_LEN.min(end.mtu.saturating_sub(28));
        let again = segments(&mut end.transport, to(UDP_PORT), length)?;
        wire::transfer(&mut end.transport, to(TCP_PORT), BYTES)?;
        let state = end.transport.state();
        wire::counters(&state)?;
        let served = end_other().ok_or_else(|| Missed::failed("the other end died"))?;
        served.as_sent()?;
        Ok(format!("{BYTES} bytes each way, {SEGMENTS} datagrams, {again} calls lost some"))
    })
}

/// Datagrams of one call, and an answer to each; returns how many calls lost one.
fn segments(transport: &mut Roceway, to: SocketAddr, length: usize) -> Result<u64, Missed> {
    let own = SocketAddr::new(ADDRESSES[0].into(), UDP_PORT);
    let socket = UdpSocket::bind(transport.worker(), own).map_err(Missed::failed)?;
    socket.connect(to).map_err(Missed::failed)?;
    let mut lost = 0;
    for (call, count) in (0_u64..).zip(CALLS) {
        let numbers = call * SEGMENTS..call * SEGMENTS + count;
        let answered = one_call(transport, &socket, (numbers, length)).map_err(Missed::failed)?;
        match (answered, count) {
            (true, SEGMENTS) => return Ok(lost),
            (true, _) => {}
            (false, _) => lost += 1,
        }
    }
    Err(Missed::Failed(format!("each call lost some of {SEGMENTS} datagrams")))
}

/// Whether all datagrams of one call were answered in time.
fn one_call(
    transport: &mut Roceway,
    socket: &UdpSocket,
    (numbers, length): (Range<u64>, usize),
) -> io::Result<bool> {
    let all: Vec<(u64, Vec<u8>)> =
        numbers.map(|number| (number, wire::datagram(number, length))).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    let size = u16::try_from(length).map_err(io::Error::other)?;
    // What is still on its way may take the room.
    let taken = wait_for(transport, ANSWERS_NS, "room", |_| socket.send_segments(&bytes, size))?;
    let taken = taken.div_ceil(length.max(1));
    let mut open: BTreeSet<u64> = all.iter().take(taken).map(|(number, _)| *number).collect();
    let mut into = vec![0; 1 << 16];
    let heard = wait_for(transport, ANSWERS_NS, "datagrams", |_| {
        while !open.is_empty() {
            let came = socket.recv(&mut into)?;
            for (number, sent) in &all {
                match wire::answers(*number, sent, &into[..came]) {
                    Ok(true) => open.remove(number),
                    Ok(false) => continue,
                    Err(wrong) => return Err(io::Error::other(wrong)),
                };
            }
        }
        Ok(())
    });
    match heard {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
        Err(error) => Err(error),
    }
}
