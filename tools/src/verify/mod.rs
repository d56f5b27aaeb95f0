//! What a NIC does, shown by use: the checks of `roceway verify`, and their report.
//!
//! - [`local`]: one port that talks to itself, by bare verbs.
//! - [`raw`]: frames between two hosts, by bare verbs; [`frame`] builds and judges them.
//! - [`wire`]: Roceway's own device, with every byte compared at both ends, and its figures; the
//!   end that is asked is [`serving`].
//! - [`offloads`]: the same under sets of offloads in which each pair of them occurs.
//! - [`control`], [`server`], [`client`]: how the two ends talk about it over the host's TCP.
//! - [`report`]: text and JSON, written at once or not at all.
//!
//! A check has passed, has failed, or could not be tried, and says why with what was seen. Nothing
//! outlives the command; nothing of the host is changed but what open devices change.

pub(crate) mod client;
mod control;
mod frame;
mod local;
mod offloads;
mod raw;
pub(crate) mod report;
pub(crate) mod server;
mod serving;
mod target;
mod wire;

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub(crate) use target::{Mode, Target};

/// The control connection's port, unless another is given; the next ones carry the wire's exchange.
pub(crate) const PORT: u16 = 4797;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It was tried, and is as it must be.
    Passed,
    /// It was tried, and is not.
    Failed,
    /// It could not be tried here.
    NotTried,
}

/// A check.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    /// The mode that it is about.
    pub(crate) mode: Mode,
    /// Whose it is: `here`, `peer`, or `both`.
    pub(crate) side: String,
    /// Its name, the same in every report.
    pub(crate) name: String,
    /// How it came out.
    pub(crate) verdict: Verdict,
    /// The figure or evidence that was seen, or why it failed or could not be tried.
    pub(crate) evidence: String,
    /// How long it took.
    pub(crate) milliseconds: u64,
}

/// Why there is no evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Missed {
    /// It was tried and is wrong.
    Failed(String),
    /// It could not be tried.
    NotTried(String),
}

impl Missed {
    /// A failure that says `what`.
    fn failed(what: impl fmt::Display) -> Missed {
        Missed::Failed(what.to_string())
    }
}

/// Evidence, or why there is none.
pub(crate) type Seen = Result<String, Missed>;

/// Told of each check: before it begins (none yet) and after.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&str, Option<&Check>);

/// The checks of one mode and side, as they are made.
pub(crate) struct Log<'a> {
    mode: Mode,
    side: &'static str,
    /// What was made.
    pub(crate) checks: Vec<Check>,
    watch: Watch<'a>,
}

impl<'a> Log<'a> {
    pub(crate) fn new(mode: Mode, side: &'static str, watch: Watch<'a>) -> Log<'a> {
        Log { mode, side, checks: Vec::new(), watch }
    }

    /// Makes a check; returns whether it passed.
    pub(crate) fn check(&mut self, name: &str, body: impl FnOnce() -> Seen) -> bool {
        (self.watch)(name, None);
        let started = Instant::now();
        let (verdict, evidence) = match body() {
            Ok(evidence) => (Verdict::Passed, evidence),
            Err(Missed::Failed(why)) => (Verdict::Failed, why),
            Err(Missed::NotTried(why)) => (Verdict::NotTried, why),
        };
        let check = Check {
            mode: self.mode,
            side: self.side.to_owned(),
            name: name.to_owned(),
            verdict,
            evidence,
            milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        (self.watch)(name, Some(&check));
        self.checks.push(check);
        verdict == Verdict::Passed
    }

    /// Several that cannot be tried, for one reason.
    pub(crate) fn not_tried(&mut self, names: &[&str], why: &str) {
        for name in names {
            self.check(name, || Err(Missed::NotTried(why.to_owned())));
        }
    }

    /// Takes checks that were made elsewhere.
    pub(crate) fn extend(&mut self, checks: Vec<Check>) {
        for check in checks {
            (self.watch)(&check.name, Some(&check));
            self.checks.push(check);
        }
    }
}

/// Bytes that say where they belong: neighbours differ, and so do numbers.
pub(crate) fn pattern(number: u64, place: u64) -> u8 {
    let mixed = (number ^ place.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

/// `length` bytes of it.
pub(crate) fn patterned(number: u64, length: usize) -> Vec<u8> {
    (0_u64..).take(length).map(|place| pattern(number, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_differ_between_and_within() {
        let differ = |a: (u64, u64), b: (u64, u64)| pattern(a.0, a.1) != pattern(b.0, b.1);
        assert!((0..1000).filter(|&n| differ((n, 0), (n + 1, 0))).count() > 950);
        assert!((0..1000).filter(|&place| differ((7, place), (7, place + 1))).count() > 950);
        assert_eq!(patterned(3, 5)[4], pattern(3, 4));
    }

    #[test]
    fn a_log_keeps_verdict_and_reason_of_each_check() {
        let mut told = Vec::new();
        let mut watch = |name: &str, check: Option<&Check>| {
            told.push((name.to_owned(), check.map(|check| check.verdict)));
        };
        let mut log = Log::new(Mode::Rc, "here", &mut watch);
        assert!(log.check("one", || Ok("1".to_owned())));
        assert!(!log.check("two", || Err(Missed::failed("wrong"))));
        log.not_tried(&["three"], "no peer");
        let found: Vec<(&str, Verdict, &str)> = log
            .checks
            .iter()
            .map(|check| (&*check.name, check.verdict, &*check.evidence))
            .collect();
        assert_eq!(
            found,
            [
                ("one", Verdict::Passed, "1"),
                ("two", Verdict::Failed, "wrong"),
                ("three", Verdict::NotTried, "no peer")
            ]
        );
        assert_eq!(told[0], ("one".to_owned(), None));
        assert_eq!(told[1], ("one".to_owned(), Some(Verdict::Passed)));
    }
}
