//! Roceway's own device between two ends: every byte compared at both, and the figures of `perf`.
//!
//! This is the end that asks; the other one is in `serving`. All of it is over the device; the
//! control connection only begins and ends it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use roceway_perf::catalogue;
use roceway_perf::client;
use roceway_perf::ends::Opening;
use roceway_perf::kernel::SocketOptions;
use roceway_perf::recorder::{Until, Window};
use roceway_perf::report::{Place, Row};
use roceway_perf::roceway::Roceway;
use roceway_perf::state::WorkerState;
use roceway_perf::transport::{Pass, Role, Transport, ready, wait_for};
use roceway_perf::workload::Workload;
use roceway_runtime::rdma_virtio::nic::{Nic, spec};
use roceway_runtime::stack::tcp::EcnMode;
use roceway_runtime::{OffloadWish, Prefix, WorkerConfig};

use super::{Log, Missed, Seen, pattern};

/// Addresses of the wire, of ranges for benchmarks (RFC 2544, RFC 5180): here, and the other end.
pub(super) const ADDRESSES: [Family; 2] = [
    Family { v4: Ipv4Addr::new(198, 18, 77, 1), v6: Ipv6Addr::new(0x2001, 2, 0, 0x77, 0, 0, 0, 1) },
    Family { v4: Ipv4Addr::new(198, 18, 77, 2), v6: Ipv6Addr::new(0x2001, 2, 0, 0x77, 0, 0, 0, 2) },
];
/// Checks of the asking end, in their order.
pub(super) const ALL: [&str; 7] =
    ["wire", "udp", "tcp", "tcp_rr", "tcp_stream", "tcp_maerts", "counters"];
pub(super) const TCP_PORT: u16 = 9001;
pub(super) const UDP_PORT: u16 = 9002;
pub(super) const PERF_PORT: u16 = 12_865;
/// Bytes of the connection, each way.
pub(super) const BYTES: u64 = 4 << 20;
/// The least MTU of a link with IPv6 (RFC 8200 §5); datagrams of `ud` may have less.
pub(super) const MTU_OF_V6: usize = 1280;
const DATAGRAMS: u64 = 100;
/// Of these, so many may be lost: they are datagrams.
const LOST_MAX: u64 = 5;
/// Connections to a peer that is known.
const KNOWN: usize = 20;
/// How long a connection may take to be there, a datagram, and all bytes.
const UP_NS: u64 = 20_000_000_000;
const DATAGRAM_NS: u64 = 300_000_000;
const TRANSFER_NS: u64 = 30_000_000_000;
/// Numbers of the two patterns of the connection.
pub(super) const THERE: u64 = 1;
pub(super) const BACK: u64 = 2;
/// Lengths of writes, in turn.
const WRITES: [usize; 8] = [1, 7, 536, 1448, 4096, 9000, 65_536, 100_000];
pub(super) const BUFFER: usize = 128 << 10;
const FIGURE: Duration = Duration::from_secs(1);

/// The addresses of an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

/// Which of them a check goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    /// Both.
    pub(super) const ALL: [Version; 2] = [Version::V4, Version::V6];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Version::V4 => "IPv4",
            Version::V6 => "IPv6",
        }
    }

    /// Bytes of IP and UDP headers.
    pub(super) fn udp_headers(self) -> usize {
        match self {
            Version::V4 => 28,
            Version::V6 => 48,
        }
    }
}

impl Family {
    /// A port at one of them.
    pub(super) fn at(self, version: Version, port: u16) -> SocketAddr {
        match version {
            Version::V4 => SocketAddr::new(self.v4.into(), port),
            Version::V6 => SocketAddr::new(self.v6.into(), port),
        }
    }
}

/// What an end is opened with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) own: Family,
    pub(super) offloads: OffloadWish,
    pub(super) ecn: EcnMode,
}

impl Manner {
    /// With all offloads, as the checks of the wire have it.
    pub(super) fn all(own: Family) -> Manner {
        Manner { own, offloads: OffloadWish::ALL, ecn: EcnMode::Accept }
    }
}

/// An opened device with a worker on it.
pub(super) struct Opened {
    pub(super) transport: Roceway,
    pub(super) settings: String,
    /// Longest IP packet.
    pub(super) mtu: usize,
}

pub(super) fn open(device: &str, manner: &Manner) -> Result<Opened, String> {
    let nic = spec::open(device).map_err(|error| error.to_string())?;
    let settings: Vec<String> =
        nic.settings().iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mtu = usize::from(nic.capabilities().mtu);
    let mut config = WorkerConfig::new(Prefix { address: manner.own.v4.into(), length: 24 });
    if mtu >= MTU_OF_V6 {
        config.addresses.push(Prefix { address: manner.own.v6.into(), length: 64 });
    }
    config.offloads = manner.offloads;
    config.tcp.ecn = manner.ecn;
    let opening = Opening::new(config, SocketOptions::default());
    let transport = opening.start(nic, "verify").map_err(|error| error.to_string())?;
    Ok(Opened { transport, settings: settings.join("; "), mtu })
}

pub(super) fn write_pattern(number: u64, from: u64, into: &mut [u8]) {
    for (place, byte) in (from..).zip(into) {
        *byte = pattern(number, place);
    }
}

/// What is wrong with bytes that begin at `from` of a pattern.
pub(super) fn compare(number: u64, from: u64, bytes: &[u8]) -> Option<String> {
    let mut places = (from..).zip(bytes);
    let (place, byte) = places.find(|(place, byte)| **byte != pattern(number, *place))?;
    let right = pattern(number, place);
    Some(format!("byte {place} of the connection is {byte:#04x} instead of {right:#04x}"))
}

/// Opens this end's device and makes all its checks; `end` ends the other end, while this one is
/// still there. Returns the figures.
pub(super) fn checks(
    log: &mut Log<'_>,
    device: &str,
    end_other: impl FnOnce(&mut Log<'_>),
) -> Vec<Row> {
    let to = |port| ADDRESSES[1].at(Version::V4, port);
    let mut opened = None;
    let up = log.check(ALL[0], || {
        let mut end = open(device, &Manner::all(ADDRESSES[0])).map_err(Missed::Failed)?;
        let to = to(PERF_PORT);
        let failed = |what: &str, error: io::Error| {
            Missed::Failed(format!("{what}: {error}; {}", end.settings))
        };
        let mut connect = || connect(&mut end.transport, to);
        let first = connect().map_err(|error| failed("the first connection", error))?;
        let mut known = Vec::with_capacity(KNOWN);
        for _ in 0..KNOWN {
            known.push(connect().map_err(|error| failed("a further connection", error))?);
        }
        known.sort();
        let text = format!(
            "connected to a new peer {first:.1?} after the device was open, to a known one in \
             {:.1?} (median of {KNOWN}); {}",
            known[KNOWN / 2],
            end.settings
        );
        opened = Some(end);
        Ok(text)
    });
    let (true, Some(mut end)) = (up, opened) else {
        log.not_tried(&ALL[1..], "the wire did not come up");
        end_other(log);
        return Vec::new();
    };
    let transport = &mut end.transport;
    let largest = end.mtu.saturating_sub(28).clamp(64, 1472);
    let mut rows = Vec::new();
    log.check(ALL[1], || datagrams(transport, to(UDP_PORT), largest));
    if log.check(ALL[2], || connection(transport, to(TCP_PORT))) {
        for name in &ALL[3..6] {
            log.check(name, || figure(transport, device, (name, to(PERF_PORT)), &mut rows));
        }
    } else {
        log.not_tried(&ALL[3..6], "the connection failed, and its end with it");
    }
    log.check(ALL[6], || counters(&transport.state()));
    end_other(log);
    rows
}

pub(super) fn datagram(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length.max(8), 0);
    write_pattern(number, 0, &mut bytes[8..]);
    bytes
}

/// Whether an answer is that to datagram `number`.
pub(super) fn answers(number: u64, sent: &[u8], came: &[u8]) -> Result<bool, String> {
    if came.get(..8) != Some(&number.to_be_bytes()) {
        return Ok(false);
    }
    if came.len() != sent.len() || came[8..].iter().zip(&sent[8..]).any(|(a, b)| *a != !*b) {
        return Err(format!("the answer to datagram {number} of {} bytes is wrong", sent.len()));
    }
    Ok(true)
}

/// Sends a datagram and waits for its answer; whether it came.
fn exchange(
    transport: &mut Roceway,
    socket: &mut <Roceway as Transport>::Datagram,
    (number, length): (u64, usize),
) -> Result<bool, Missed> {
    let sent = datagram(number, length);
    let mut into = vec![0; BUFFER];
    ready(transport.try_send_datagram(socket, &sent)).map_err(Missed::failed)?;
    let answered = wait_for(transport, DATAGRAM_NS, "a datagram", |transport| {
        loop {
            let (length, _) = transport.try_recv_datagram(socket, &mut into)?;
            match answers(number, &sent, &into[..length]) {
                // The answer to an earlier one.
                Ok(false) => {}
                other => return Ok(other.map(drop)),
            }
        }
    });
    match answered {
        Ok(Ok(())) => Ok(true),
        Ok(Err(wrong)) => Err(Missed::Failed(wrong)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
        Err(error) => Err(Missed::failed(error)),
    }
}

fn socket(transport: &mut Roceway, to: SocketAddr) -> io::Result<<Roceway as Transport>::Datagram> {
    let own = ADDRESSES[0].at(Version::V4, UDP_PORT);
    let mut socket = transport.bind(own, Role::Data, 1)?;
    transport.set_peer(&mut socket, to)?;
    Ok(socket)
}

/// How long a connection takes to be there; it is closed again.
fn connect(transport: &mut Roceway, to: SocketAddr) -> io::Result<Duration> {
    let started = transport.now_ns();
    let mut stream = transport.connect(to, Role::Data, 4)?;
    wait_for(transport, UP_NS, "a connection", |t| t.connected(&mut stream))?;
    Ok(Duration::from_nanos(transport.now_ns().saturating_sub(started)))
}

fn datagrams(transport: &mut Roceway, to: SocketAddr, largest: usize) -> Seen {
    let mut socket = socket(transport, to).map_err(Missed::failed)?;
    let mut lost = 0;
    for number in 0..DATAGRAMS {
        let spread = usize::try_from(number * 7919).unwrap_or(0) % largest;
        let length = if number % 10 == 9 { largest } else { spread };
        if !exchange(transport, &mut socket, (number, length))? {
            lost += 1;
        }
    }
    if lost > LOST_MAX {
        return Err(Missed::Failed(format!("{lost} of {DATAGRAMS} datagrams were lost")));
    }
    Ok(format!("{DATAGRAMS} datagrams of 8 to {largest} bytes and their answers, {lost} lost"))
}

fn connection(transport: &mut Roceway, to: SocketAddr) -> Seen {
    let started = transport.now_ns();
    transfer(transport, to, BYTES)?;
    let elapsed = Duration::from_nanos(transport.now_ns().saturating_sub(started));
    Ok(format!("{BYTES} bytes each way at once in {elapsed:.1?}, every byte compared at both ends"))
}

/// So many patterned bytes each way at once; whether the connection had ECN.
pub(super) fn transfer(
    transport: &mut Roceway,
    to: SocketAddr,
    bytes: u64,
) -> Result<bool, Missed> {
    let failed = |error: io::Error| Missed::failed(error);
    let mut stream = transport.connect(to, Role::Data, 2).map_err(failed)?;
    wait_for(transport, UP_NS, "a connection", |t| t.connected(&mut stream)).map_err(failed)?;
    let started = transport.now_ns();
    let (mut sent, mut came, mut writes) = (0_u64, 0_u64, WRITES.iter().cycle());
    let (mut buffer, mut tokens) = (vec![0; BUFFER], Vec::new());
    let mut length = WRITES[0];
    while came < bytes {
        let mut pass = Pass::Idle;
        let left = usize::try_from(bytes - sent).unwrap_or(BUFFER).min(length);
        if left > 0 {
            write_pattern(THERE, sent, &mut buffer[..left]);
            if let Some(n) =
                ready(transport.try_send(&mut stream, &buffer[..left])).map_err(failed)?
            {
                sent += u64::try_from(n).unwrap_or(0);
                length = writes.next().copied().unwrap_or(BUFFER);
                pass = Pass::Busy;
            }
        }
        if let Some(n) = ready(transport.try_recv(&mut stream, &mut buffer)).map_err(failed)? {
            if n == 0 {
                let what = format!("the connection ended after {came} of {bytes} bytes");
                return Err(Missed::Failed(what));
            }
            if let Some(wrong) = compare(BACK, came, &buffer[..n]) {
                return Err(Missed::Failed(wrong));
            }
            came += u64::try_from(n).unwrap_or(0);
            pass = Pass::Busy;
        }
        if transport.now_ns().saturating_sub(started) > TRANSFER_NS {
            return Err(Missed::Failed(format!(
                "{sent} bytes sent and {came} received of {bytes} within {} s",
                TRANSFER_NS / 1_000_000_000
            )));
        }
        let _everything_is_asked = transport.turn(pass, &mut tokens).map_err(failed)?;
        tokens.clear();
    }
    let mut ecn = false;
    transport.worker().visit_connections(&mut |info| ecn |= info.ecn);
    transport.shutdown_write(&mut stream).map_err(failed)?;
    let ended = wait_for(transport, UP_NS, "the connection's end", |transport| {
        transport.try_recv(&mut stream, &mut buffer)
    });
    match ended {
        Ok(0) => Ok(ecn),
        Ok(more) => Err(Missed::Failed(format!("{more} bytes more came than were sent"))),
        // The other end may have closed its whole socket.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(ecn),
        Err(error) => Err(failed(error)),
    }
}

fn figure(
    transport: &mut Roceway,
    device: &str,
    (name, server): (&str, SocketAddr),
    rows: &mut Vec<Row>,
) -> Seen {
    let test = catalogue::find(name).map_err(Missed::failed)?;
    let workload = Workload {
        test,
        request: 1,
        response: 1,
        message: test.default_message(),
        receive: BUFFER,
        connections: 1,
        depth: 1,
        rate: None,
        window: Window {
            warmup: Duration::from_millis(200),
            until: Until::Elapsed(FIGURE),
            interval: None,
        },
        buffers: SocketOptions::default(),
    };
    let outcome =
        client::test(transport, &workload, server, &mut |_| {}).map_err(Missed::failed)?;
    let place = Place { stack: "roceway".into(), device: device.into(), mode: None };
    let row = Row::new(&workload, &place, &outcome);
    let text = match (row.p50_ns, row.p99_ns, row.gbit_per_s) {
        (Some(p50), Some(p99), _) => format!(
            "p50 {:.1} us, p99 {:.1} us, {:.0} a second",
            p50 / 1000.0,
            p99 / 1000.0,
            row.transactions_per_s.unwrap_or(0.0)
        ),
        (_, _, Some(rate)) => format!("{rate:.3} Gbit/s"),
        _ => return Err(Missed::failed("nothing was measured")),
    };
    rows.push(row);
    Ok(text)
}

/// Counters that stay 0 on a wire that works, by their names' ends.
const BAD: [&str; 18] = [
    "rx_failed",
    "tx_failed",
    "sends_failed",
    "polls_failed",
    "posts_failed",
    "posts_of_receives_failed",
    "rx_drop_short",
    "rx_drop_header",
    "rx_drop_violation",
    "rx_drop_span",
    "rx_drop_merge",
    "bad_used_id",
    "bad_used_len",
    "bad_completion",
    "bad_chain",
    "bad_header",
    "broken_ring",
    "checksum",
];
/// Counters that say why a wire's session ended.
const WHY: [&str; 10] = [
    "wire_sessions_up",
    "wire_sessions_down",
    "wire_violations",
    "wire_broken",
    "wire_gone",
    "wire_timeouts",
    "wire_dials_failed",
    "wire_refused",
    "wire_refusals",
    "rdma_queue_pair_events",
];
/// Counters that are told.
const TOLD: [&str; 6] = [
    "rdma_doorbells",
    "wire_tx_data",
    "wire_tx_updates",
    "rdma_signalled_completions",
    "rdma_events",
    "retransmissions",
];

/// What the wire counted of its sessions, for the text of a failure.
pub(super) fn why(state: &WorkerState) -> String {
    let told: Vec<String> = state
        .counters
        .iter()
        .filter(|(_, name, _)| WHY.contains(name) || name.starts_with("rdma_failures_"))
        .map(|(_, name, value)| format!("{name} {value}"))
        .collect();
    if told.is_empty() { "no session came up".to_owned() } else { told.join(", ") }
}

/// The counters that tell of a failure, if any do.
pub(super) fn failures(state: &WorkerState) -> Option<String> {
    let bad: Vec<String> = state
        .counters
        .iter()
        .filter(|(_, name, value)| *value > 0 && BAD.iter().any(|word| name.ends_with(word)))
        .map(|(layer, name, value)| format!("{layer} {name} {value}"))
        .collect();
    (!bad.is_empty()).then(|| bad.join(", "))
}

pub(super) fn counters(state: &WorkerState) -> Seen {
    if let Some(bad) = failures(state) {
        return Err(Missed::Failed(format!("{bad} ({})", why(state))));
    }
    let told: Vec<String> = state
        .counters
        .iter()
        .filter(|(_, name, _)| TOLD.contains(name))
        .map(|(_, name, value)| format!("{name} {value}"))
        .collect();
    let count = state.counters.len();
    Ok(format!("{count} counters moved, none of a failure; {}", told.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_with_its_place() {
        let mut bytes = vec![0; 100];
        write_pattern(THERE, 1000, &mut bytes);
        assert_eq!(compare(THERE, 1000, &bytes), None);
        assert!(compare(BACK, 1000, &bytes).is_some());
        bytes[17] ^= 1;
        assert!(compare(THERE, 1000, &bytes).unwrap().contains("byte 1017"));
    }

    #[test]
    fn answers_are_told_from_late_and_wrong_ones() {
        let sent = datagram(5, 40);
        let mut answer = sent.clone();
        answer[8..].iter_mut().for_each(|byte| *byte = !*byte);
        assert_eq!(answers(5, &sent, &answer), Ok(true));
        assert_eq!(answers(6, &sent, &answer), Ok(false));
        assert!(answers(5, &sent, &answer[..39]).is_err());
        assert!(answers(5, &sent, &sent).is_err());
        assert_eq!(answers(5, &sent, &[]), Ok(false));
    }

    #[test]
    fn a_counter_of_a_failure_is_named() {
        let state = |counters| WorkerState { counters, ..WorkerState::default() };
        let good = state(vec![("link", "rdma_doorbells", 7)]);
        assert!(counters(&good).unwrap().contains("rdma_doorbells 7"));
        let bad = state(vec![("link", "rdma_sends_failed", 1)]);
        let what = "link rdma_sends_failed 1 (no session came up)".to_owned();
        assert_eq!(counters(&bad), Err(Missed::Failed(what)));
        let ended = [("nic", "wire_sessions_down", 1), ("nic", "rdma_failures_remote", 1)];
        let told = why(&state(ended.to_vec()));
        assert_eq!(told, "wire_sessions_down 1, rdma_failures_remote 1");
    }
}
