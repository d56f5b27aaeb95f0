//! The rungs: what each changes of the one before, and what the papers measured there.
//!
//! The papers' numbers are those that H.K. Jerry Chu and Yuan Liu give in words in "User Space
//! TCP - Getting LKL Ready for the Prime Time" (netdev 1.2, 2016) beside its figures 6, 7 and 8.
//! What only a bar of a figure shows is not guessed from it.

/// Title and authors of the papers' numbers.
pub const SOURCE: &str = "H.K. Jerry Chu, Yuan Liu: User Space TCP - Getting LKL Ready for the \
                          Prime Time (netdev 1.2, 2016), figures 6, 7 and 8";

/// What a paper measured at a rung.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Paper {
    /// In the figure's unit.
    pub value: f64,
    /// What it is there.
    pub rung: &'static str,
}

/// What a figure measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// The median round trip; less is better.
    Microseconds,
    /// Payload in one direction; more is better.
    Gigabits,
}

impl Unit {
    /// As it stands in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::Gigabits => "Gbit/s",
        }
    }
}

/// An option that a rung sets: one of the runtime's settings, or one of [`OWN`].
pub type Change = (&'static str, &'static str);

/// Options that are not the runtime's settings: which stack; which of the runtime's sockets;
/// whether an end's stack has a core of its own; whether streams go without copies; how the
/// kernel's sockets are waited for, over which device, and whether its interfaces have their
/// offloads.
pub const OWN: [&str; 7] = ["stack", "sockets", "core", "zero-copy", "wait", "device", "interface"];

/// A rung of a ladder.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rung {
    /// Its name.
    pub name: &'static str,
    /// What it sets of what the one before had.
    pub changes: &'static [Change],
    /// What a paper measured there.
    pub paper: Option<Paper>,
}

/// A figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figure {
    /// Its number in the paper.
    pub number: u8,
    /// What it shows.
    pub title: &'static str,
    /// netperf's test.
    pub test: &'static str,
    /// What is measured.
    pub unit: Unit,
    /// What the reader must know of the comparison.
    pub note: &'static str,
    /// The options of the first rung.
    pub base: &'static [Change],
    /// From the lowest up.
    pub rungs: &'static [Rung],
}

const fn rung(name: &'static str, changes: &'static [Change]) -> Rung {
    Rung { name, changes, paper: None }
}

const fn measured(rung: Rung, value: f64, name: &'static str) -> Rung {
    Rung { paper: Some(Paper { value, rung: name }), ..rung }
}

/// A buffer holds a message, so that all that the buffers have is under way; together they are as
/// large as the chunks that streams are copied to on the rungs below: 1.5 MiB.
const ZERO_COPY: [Change; 3] =
    [("zero-copy", "on"), ("memory.block", "16KiB"), ("memory.blocks", "96")];

const KERNEL_OFF: [Change; 12] = [
    ("stack", "kernel"),
    ("sockets", "-"),
    ("core", "own"),
    ("turn.spin", "-"),
    ("offload", "-"),
    ("manner", "-"),
    ("zero-copy", "-"),
    ("memory.block", "-"),
    ("memory.blocks", "-"),
    ("wait", "spin"),
    ("device", "veth"),
    ("interface", "no offloads"),
];

/// 1-byte round trips, from handing each call to another thread to receiving within the turn.
pub const LATENCY: Figure = Figure {
    number: 6,
    title: "1-byte TCP_RR, from hand-off to inline receive",
    test: "TCP_RR",
    unit: Unit::Microseconds,
    note: "the paper: over an RDMA NIC between two hosts; hand-offs there wake a thread each time",
    base: &[("stack", "roceway"), ("sockets", "shared"), ("manner", "owned"), ("core", "any")],
    rungs: &[
        measured(
            rung("hand-off to a stack thread", &[("turn.spin", "50us..200us")]),
            92.0,
            "lkl base, 4 times the host's 23",
        ),
        rung("the same, pinned", &[("core", "own")]),
        rung("interrupt-like wake-up", &[("turn.spin", "0us..0us")]),
        measured(rung("direct calls", &[("manner", "caller-driven")]), 40.0, "without busy poll"),
        measured(rung("busy polling", &[("turn.spin", "forever")]), 33.0, "busy poll"),
        rung("own thread, no lock", &[("sockets", "between"), ("manner", "-")]),
        rung("inline receive", &[("sockets", "inside")]),
        measured(
            rung(
                "the kernel, sleeping",
                &[
                    ("stack", "kernel"),
                    ("sockets", "-"),
                    ("turn.spin", "-"),
                    ("device", "loopback"),
                    ("wait", "block"),
                ],
            ),
            23.0,
            "host base",
        ),
        rung("the kernel, polling", &[("wait", "spin")]),
    ],
};

const STREAM_BASE: &[Change] = &[
    ("stack", "roceway"),
    ("sockets", "inside"),
    ("core", "own"),
    ("turn.spin", "forever"),
    ("offload", "none"),
];

/// What large segments and checksums left alone give, without a NIC in between.
pub const OFFLOADS: Figure = Figure {
    number: 7,
    title: "TCP_STREAM by offload, memory to memory",
    test: "TCP_STREAM",
    unit: Unit::Gigabits,
    note: "the paper's is guest to proxy; its GRO/GSO without checksum offload (6.3 Gbit/s) has no \
           rung here, since GSO needs CSUM",
    base: STREAM_BASE,
    rungs: &[
        measured(rung("no offload", &[]), 2.0, "baseline"),
        rung("checksum", &[("offload", "+csum,+guest_csum")]),
        rung("GSO", &[("offload", "+gso")]),
        measured(rung("GSO/GRO", &[("offload", "+gro")]), 7.2, "GRO and checksum offload"),
        measured(
            rung(
                "TSO, big packets",
                &[("offload", "+host_tso4,+host_tso6,+guest_tso4,+guest_tso6")],
            ),
            10.0,
            "large segments, more than 10",
        ),
        measured(
            rung("TSO, mergeable buffers", &[("offload", "+mrg_rxbuf")]),
            10.0,
            "large segments, more than 10",
        ),
        rung("zero-copy sockets", &ZERO_COPY),
    ],
};

/// The whole stack over a NIC, against the kernel.
pub const STREAM: Figure = Figure {
    number: 8,
    title: "TCP_STREAM over a NIC, against the kernel",
    test: "TCP_STREAM",
    unit: Unit::Gigabits,
    note: "Roceway's device half copies in no configuration, so the rung `zero-copy device` is the \
           one before it, measured again; the paper's NICs have 40 Gbit/s",
    base: STREAM_BASE,
    rungs: &[
        measured(rung("no offload", &[]), 3.0, "lkl no offload"),
        rung("GSO/GRO", &[("offload", "+csum,+guest_csum,+gso,+gro")]),
        measured(
            rung(
                "TSO, big packets",
                &[("offload", "+host_tso4,+host_tso6,+guest_tso4,+guest_tso6")],
            ),
            14.0,
            "lkl with offload",
        ),
        measured(rung("zero-copy device", &[]), 24.0, "zero copy virtio"),
        rung("zero-copy sockets", &ZERO_COPY),
        rung("the kernel, offloads off", &KERNEL_OFF),
        measured(rung("the kernel, offloads on", &[("interface", "offloads")]), 31.0, "host base"),
    ],
};

/// All of them.
pub const FIGURES: [Figure; 3] = [LATENCY, OFFLOADS, STREAM];

/// The options of a figure's rung: what the ones below it set and it left, in the order in which
/// they were first set. A change of `offload` is added to what it was.
#[must_use]
pub fn options(figure: &Figure, index: usize) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let rungs = figure.rungs.iter().take(index + 1).flat_map(|rung| rung.changes);
    for (name, value) in figure.base.iter().chain(rungs) {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, before)) if value.starts_with('+') => {
                let sum = if before == "none" { String::new() } else { format!("{before},") };
                *before = sum + &value.replace('+', "");
            }
            Some((_, before)) => *before = (*value).to_owned(),
            None => all.push((name, (*value).to_owned())),
        }
    }
    all.retain(|(_, value)| value != "-");
    all
}

/// What a rung has other than the one below it: name, there, here; `-` where it has no such option.
#[must_use]
pub fn differences(figure: &Figure, index: usize) -> Vec<(&'static str, String, String)> {
    let Some(below) = index.checked_sub(1) else { return Vec::new() };
    let (before, after) = (options(figure, below), options(figure, index));
    let value = |all: &[(&'static str, String)], name: &str| {
        let found = all.iter().find(|(known, _)| *known == name);
        found.map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
    };
    let mut names: Vec<&'static str> = before.iter().map(|(name, _)| *name).collect();
    names.extend(
        after
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !before.iter().any(|(known, _)| known == name)),
    );
    let pairs = names.into_iter().map(|name| (name, value(&before, name), value(&after, name)));
    pairs.filter(|(_, before, after)| before != after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_differs_in_what_its_name_says() {
        for figure in FIGURES {
            for (index, rung) in figure.rungs.iter().enumerate().skip(1) {
                let differences = differences(&figure, index);
                let names: Vec<&str> = differences.iter().map(|(name, ..)| *name).collect();
                let becomes_kernel = names.contains(&"stack");
                let expected: &[&str] = match rung.name {
                    "the same, pinned" => &["core"],
                    "interrupt-like wake-up" | "busy polling" => &["turn.spin"],
                    "direct calls" => &["manner"],
                    // Only shared sockets have a manner.
                    "own thread, no lock" => &["sockets", "manner"],
                    "inline receive" => &["sockets"],
                    "the kernel, polling" => &["wait"],
                    "the kernel, offloads on" => &["interface"],
                    "zero-copy device" => &[],
                    "zero-copy sockets" => &["zero-copy", "memory.block", "memory.blocks"],
                    _ if becomes_kernel => continue,
                    _ => &["offload"],
                };
                assert_eq!(names, expected, "{} {}", figure.number, rung.name);
            }
        }
    }

    #[test]
    fn offloads_add_up() {
        let of = |index| options(&OFFLOADS, index).pop().unwrap().1;
        assert_eq!(of(0), "none");
        assert_eq!(of(2), "csum,guest_csum,gso");
        assert_eq!(of(3), "csum,guest_csum,gso,gro");
        assert!(of(5).ends_with("guest_tso6,mrg_rxbuf"), "{}", of(5));
    }
}
