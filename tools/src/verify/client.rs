//! The verifying end: all checks of a device, in their order.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use roceway_perf::report::Row;
use roceway_runtime::rdma_virtio::nic::spec::DeviceSpec;
use roceway_runtime::rdma_virtio::verbs::trial::frames::{Claims, Frame, Frames, Manner};

use super::control::{Answer, Ask, Line, VERSION, from_hex, to_hex};
use super::frame::{Mac, Way};
use super::raw::{self, Direction, End, Rule};
use super::server::PREFIX;
use super::{
    Check, Log, Missed, Mode, PORT, Target, Watch, local, offloads, report, serving, wire,
};

/// How long the served end of one host may take to open.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// The other host.
pub(crate) struct Peer {
    line: Line,
    /// Its build and device, for people.
    pub(crate) name: String,
    /// What its doctor says of the device.
    pub(crate) facts: serde_json::Value,
}

impl Peer {
    /// Connects to `roceway verify server` at a host.
    ///
    /// # Errors
    /// What failed, in a sentence.
    pub(crate) fn connect(host: &str) -> Result<Peer, String> {
        let line = Line::connect(host, PORT);
        let mut line = line.map_err(|error: io::Error| format!("{host}: {error}"))?;
        let hello = Ask::Hello { version: VERSION, build: report::build() };
        match line.ask(&hello).map_err(|what| format!("{host}: {what}"))? {
            Answer::Hello { version, build, device, facts } if version == VERSION => {
                Ok(Peer { line, name: format!("{host}, rdma:{device}, {build}"), facts })
            }
            other => Err(format!("{host} says {other:?}")),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The checks, in their order.
    pub(crate) checks: Vec<Check>,
    /// Figures, in the form of `perf --json`.
    pub(crate) rows: Vec<Row>,
}

/// Makes all checks.
pub(crate) fn verify(target: &Target, mut peer: Option<&mut Peer>, watch: Watch<'_>) -> Found {
    let mut found = Found::default();
    for mode in &target.modes {
        let peer = peer.as_deref_mut();
        let (checks, rows) = match mode {
            Mode::Raw => raw_mode(target, peer, watch),
            Mode::Rc | Mode::Ud => wire_mode(target, *mode, peer, watch),
        };
        found.checks.extend(checks);
        found.rows.extend(rows);
    }
    found
}

fn wire_mode(
    target: &Target,
    mode: Mode,
    peer: Option<&mut Peer>,
    watch: Watch<'_>,
) -> (Vec<Check>, Vec<Row>) {
    let mut log = Log::new(mode, "here", watch);
    let own = local::checks(&mut log, target, mode);
    let Some(own) = own else {
        log.not_tried(&wire::ALL, "the mode has no usable port here");
        return (log.checks, Vec::new());
    };
    let rows = match peer {
        None => alone(&mut log, target, (mode, own)),
        Some(peer) => {
            let asked = peer.line.ask(&Ask::Local { mode });
            match asked {
                Ok(Answer::Local { checks, address }) => {
                    log.extend(checks);
                    match address {
                        Some(address) => together(&mut log, target, (mode, own, address), peer),
                        None => {
                            log.not_tried(&wire::ALL, "the peer's port cannot be used");
                            Vec::new()
                        }
                    }
                }
                Ok(other) => broken(&mut log, &format!("{other:?}")),
                Err(what) => broken(&mut log, &what),
            }
        }
    };
    (log.checks, rows)
}

fn broken(log: &mut Log<'_>, what: &str) -> Vec<Row> {
    log.check("conversation", || Err(Missed::failed(what)));
    log.not_tried(&wire::ALL, "the peer does not answer");
    Vec::new()
}

/// Both ends on this host, over the same port.
fn alone(log: &mut Log<'_>, target: &Target, (mode, own): (Mode, IpAddr)) -> Vec<Row> {
    let here = target.wire(mode, own, (PORT + 1, PORT + 2));
    let there = target.wire(mode, own, (PORT + 2, PORT + 1));
    let served = |log: &mut Log<'_>, served: &serving::Served| {
        let mut silent = |_: &str, _: Option<&Check>| {};
        let mut there = Log::new(mode, "peer", &mut silent);
        served.checks(&mut there);
        log.extend(there.checks);
    };
    let rows = both_ends(&serving::Plan::new(&there), |end_other| match end_other {
        Ok(end_other) => wire::checks(log, &here, |log| {
            if let Some(seen) = end_other() {
                served(log, &seen);
            }
        }),
        Err(what) => {
            log.check(wire::ALL[0], || Err(Missed::Failed(format!("the other end: {what}"))));
            log.not_tried(&wire::ALL[1..], "the other end did not open");
            Vec::new()
        }
    });
    if target.offloads {
        offloads::checks(log, (&here, &there));
    }
    rows
}

/// Serves on a thread while `body` runs, which is given what ends the served end, or why there is
/// none.
pub(super) fn both_ends<R>(
    plan: &serving::Plan<'_>,
    body: impl FnOnce(Result<&mut dyn FnMut() -> Option<serving::Served>, String>) -> R,
) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let stopped = &stop;
        let mut thread = Some(scope.spawn(move || serving::serve(plan, stopped, &tell)));
        let opened = told.recv_timeout(OPEN_MAX);
        let opened = opened.unwrap_or_else(|_| Err("it did not open in time".to_owned()));
        let result = match opened {
            Ok(_) => body(Ok(&mut || {
                stop.store(true, Ordering::Relaxed);
                thread.take().and_then(|thread| thread.join().ok())
            })),
            Err(what) => body(Err(what)),
        };
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// The other end at the other host.
fn together(
    log: &mut Log<'_>,
    target: &Target,
    (mode, own, address): (Mode, IpAddr, IpAddr),
    peer: &mut Peer,
) -> Vec<Row> {
    let device = target.wire(mode, address, (PORT + 1, PORT + 1));
    if let Err(error) = DeviceSpec::parse(&device) {
        log.not_tried(&wire::ALL, &error.to_string());
        return Vec::new();
    }
    match peer.line.ask(&Ask::Wire { mode, address: own }) {
        Ok(Answer::Ready { .. }) => {}
        Ok(other) => return broken(log, &format!("{other:?}")),
        Err(what) => return broken(log, &what),
    }
    wire::checks(log, &device, |log| match peer.line.ask(&Ask::EndWire) {
        Ok(Answer::Wire { checks }) => log.extend(checks),
        Ok(other) => {
            log.check("conversation", || Err(Missed::failed(format!("{other:?}"))));
        }
        Err(what) => {
            log.check("conversation", || Err(Missed::Failed(what)));
        }
    })
}

fn raw_mode(target: &Target, peer: Option<&mut Peer>, watch: Watch<'_>) -> (Vec<Check>, Vec<Row>) {
    let mut log = Log::new(Mode::Raw, "both", watch);
    let names: Vec<String> = ["_out", "_in"]
        .iter()
        .flat_map(|suffix| raw::ALL.iter().map(move |name| format!("{name}{suffix}")))
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.extend(wire::ALL);
    let mut opened = None;
    log.check("queue_pairs", || {
        let frames = Frames::open(&target.name).map_err(|error| refused(&error))?;
        let claims = frames.claims();
        opened = Some(frames);
        Ok(told(&claims))
    });
    let Some(mut frames) = opened else {
        log.not_tried(&names, "there is no RAW_PACKET queue pair");
        return (log.checks, Vec::new());
    };
    let Some(peer) = peer else {
        log.not_tried(&names, "a port does not hear its own frames: name another host with --peer");
        return (log.checks, Vec::new());
    };
    let mut remote = None;
    log.check("queue_pairs_peer", || {
        let there = Remote::open(&mut peer.line).map_err(Missed::Failed)?;
        let text = told(&there.claims);
        remote = Some(there);
        Ok(text)
    });
    let Some(mut remote) = remote else {
        log.not_tried(&names, "the peer has no RAW_PACKET queue pair");
        return (log.checks, Vec::new());
    };
    let (here, there) = addresses();
    Direction {
        from: &mut frames,
        to: &mut remote,
        way: Way { from: here, to: there },
        suffix: "_out",
    }
    .checks(&mut log);
    Direction {
        from: &mut remote,
        to: &mut frames,
        way: Way { from: there, to: here },
        suffix: "_in",
    }
    .checks(&mut log);
    remote.close();
    drop(frames);
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let rows = together(&mut log, target, (Mode::Raw, nowhere, nowhere), peer);
    (log.checks, rows)
}

/// A device without such queue pairs claims nothing; one that forbids them could not be tried.
fn refused(error: &roceway_runtime::rdma_virtio::nic::DeviceError) -> Missed {
    Missed::NotTried(error.to_string())
}

fn told(claims: &Claims) -> String {
    format!(
        "claims: checksums {}, segmentation up to {} bytes, flow rules {}; inline {} bytes given",
        if claims.checksum { "yes" } else { "no" },
        claims.tso,
        if claims.steering { "yes" } else { "no" },
        claims.inline
    )
}

/// Hardware addresses of this trial.
fn addresses() -> (Mac, Mac) {
    let [a, b, ..] = std::process::id().to_ne_bytes();
    let [p, q, r] = PREFIX;
    ([p, q, r, a, b, 1], [p, q, r, a, b, 2])
}

/// The other host's queue pair.
struct Remote<'a> {
    line: &'a mut Line,
    claims: Claims,
}

impl<'a> Remote<'a> {
    fn open(line: &'a mut Line) -> Result<Remote<'a>, String> {
        match line.ask(&Ask::Frames)? {
            Answer::Claims { checksum, tso, steering, inline } => {
                Ok(Remote { line, claims: Claims { checksum, tso, steering, inline } })
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn done(&mut self, ask: &Ask) -> Result<(), String> {
        match self.line.ask(ask)? {
            Answer::Done => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn close(mut self) {
        // A peer that is gone has closed it.
        let _closed = self.done(&Ask::EndFrames);
    }
}

impl End for Remote<'_> {
    fn claims(&mut self) -> Claims {
        self.claims
    }

    fn add_rule(&mut self, mac: Mac, wanted: Rule) -> Result<(), String> {
        let udp_port = match wanted {
            Rule::Address => None,
            Rule::UdpPort(port) => Some(port),
        };
        self.done(&Ask::Rule { mac, udp_port })
    }

    fn forget_rules(&mut self) -> Result<(), String> {
        self.done(&Ask::Forget)
    }

    fn send(&mut self, frame: &[u8], manner: &Manner) -> Result<(), String> {
        let Manner { checksum, inline, cut } = *manner;
        self.done(&Ask::Send { frame: to_hex(frame), checksum, inline, cut })
    }

    fn receive(&mut self, most: usize, limit: Duration) -> Result<Vec<Frame>, String> {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(0);
        match self.line.ask(&Ask::Receive { most, milliseconds })? {
            Answer::Frames { frames } => frames
                .into_iter()
                .map(|(digits, verified)| {
                    let bytes = from_hex(&digits).ok_or("the peer sent no frame")?;
                    Ok(Frame { bytes, verified })
                })
                .collect(),
            other => Err(format!("{other:?}")),
        }
    }
}
