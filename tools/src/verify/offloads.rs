//! Sets of offloads, in which each pair of settings that the device offers occurs: bytes of a
//! connection both ways at once, and datagrams that one end cuts, every byte compared.
//!
//! Each set goes by IPv4 and, where the MTU allows it, by IPv6, and those with a setting of
//! ECN use it (`tcp.ecn=on`). Both ends are on this host, over one port of it, and have the same
//! set. What the device does not offer is found by asking it for all, and stays out.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use roceway::offload_sets::{NAMES, OffloadSet, covering, legal};
use roceway_perf::roceway::Roceway;
use roceway_perf::transport::wait_for;
use roceway_runtime::local::UdpSocket;
use roceway_runtime::stack::tcp::EcnMode;

use super::client::both_ends;
use super::serving::Plan;
use super::wire::{self, ADDRESSES, MTU_OF_V6, Manner, TCP_PORT, UDP_PORT, Version};
use super::{Log, Missed, Seen};

/// Bytes of a connection each way, and datagrams that leave in one call.
const BYTES: u64 = 256 << 10;
const SEGMENTS: u64 = 24;
const SEGMENT_LEN: usize = 1111;
/// Datagrams of each call: the first brings both ends together, one of the others may lose some.
const CALLS: [u64; 3] = [1, SEGMENTS, SEGMENTS];
/// Answers that take longer are lost.
const ANSWERS_NS: u64 = 2_000_000_000;
/// How long there may be no room to send: until a wire has found its other end, which may take it
/// several calls on a busy host.
const ROOM_NS: u64 = 10_000_000_000;

/// One check for each set, named by it.
pub(super) fn checks(log: &mut Log<'_>, (here, there): (&str, &str)) {
    let mut sets = Vec::new();
    let mut versions: &[Version] = &Version::ALL;
    let found = log.check("offloads", || {
        let end = wire::open(here, &Manner::all(ADDRESSES[0])).map_err(Missed::Failed)?;
        let missing = end.transport.state().offloads.missing;
        if end.mtu < MTU_OF_V6 {
            versions = &Version::ALL[..1];
        }
        let names: Vec<&str> = versions.iter().map(|version| version.name()).collect();
        sets = covering(&legal(|name| !missing.contains(&name)));
        let offered = NAMES.iter().filter(|name| !missing.contains(*name)).count();
        Ok(format!(
            "{} sets have each pair of {offered} settings, each by {}; not offered: {}",
            sets.len(),
            names.join(" and "),
            if missing.is_empty() { "none".to_owned() } else { missing.join(",") }
        ))
    });
    for set in sets.iter().filter(|_| found) {
        for version in versions {
            let name = format!("offloads {}, {}", set.text(), version.name());
            log.check(&name, || under(*set, *version, (here, there)));
        }
    }
}

fn under(set: OffloadSet, version: Version, (here, there): (&str, &str)) -> Seen {
    let marks = set.text().contains("ecn");
    let ecn = if marks { EcnMode::On } else { EcnMode::Accept };
    let manner = |own| Manner { own, offloads: set.wish, ecn };
    let plan = Plan { manner: manner(ADDRESSES[1]), version, bytes: BYTES, ..Plan::new(there) };
    both_ends(&plan, |end_other| {
        let end_other =
            end_other.map_err(|what| Missed::Failed(format!("the other end: {what}")))?;
        let mut end = wire::open(here, &manner(ADDRESSES[0])).map_err(Missed::Failed)?;
        let seen = exchanged(&mut end, version, marks);
        let state = end.transport.state();
        let served = end_other().ok_or_else(|| Missed::failed("the other end died"))?;
        let counted = |whose: &str, state| match wire::failures(state) {
            Some(bad) => Err(Missed::Failed(format!("{bad} {whose}"))),
            None => Ok(()),
        };
        let judged = seen.and_then(|evidence| {
            counted("here", &state)?;
            served.as_sent()?;
            counted("there", &served.state)?;
            Ok(evidence)
        });
        let sessions = || format!("here {}; there {}", wire::why(&state), wire::why(&served.state));
        let ended = state.counters.iter().any(|(_, name, _)| *name == "wire_sessions_down");
        match judged {
            Ok(evidence) if ended => Ok(format!("{evidence}; {}", sessions())),
            Err(Missed::Failed(what)) => Err(Missed::Failed(format!("{what}; {}", sessions()))),
            other => other,
        }
    })
}

/// Datagrams and a connection through a device whose other end answers; what came of them.
fn exchanged(end: &mut wire::Opened, version: Version, marks: bool) -> Seen {
    let ends = |port| (ADDRESSES[0].at(version, port), ADDRESSES[1].at(version, port));
    let length = SEGMENT_LEN.min(end.mtu.saturating_sub(version.udp_headers()));
    let again = segments(&mut end.transport, ends(UDP_PORT), length)?;
    let agreed = wire::transfer(&mut end.transport, ends(TCP_PORT).1, BYTES)?;
    // Else the settings of ECN were set and nothing of them tried.
    if marks && !agreed {
        return Err(Missed::failed("the connection did not agree on ECN"));
    }
    Ok(format!("{BYTES} bytes each way, {SEGMENTS} datagrams, {again} calls lost some"))
}

/// Datagrams of one call, and an answer to each; returns how many calls lost one.
fn segments(
    transport: &mut Roceway,
    (own, to): (SocketAddr, SocketAddr),
    length: usize,
) -> Result<u64, Missed> {
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
    let taken = wait_for(transport, ROOM_NS, "room", |_| socket.send_segments(&bytes, size))?;
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
