//! Which measurements were made in the same surroundings, so that their figures may be put
//! together.
//!
//! A hypervisor moves virtual cpus: between cores of one cluster, to another cluster, onto threads
//! of one core. What all figures over shared memory begin with shows where they are: how long a
//! cache line takes there and back. A measurement before and after which it does not take as long
//! is of two places; of the others, those that are most alike count.

use super::{Look, Measured};
use crate::arithmetic::median;

/// Two times of which one is so many times the other are of different places.
const APART: f64 = 1.5;

/// What a reader must know if nothing else can be shown.
const ALL_FLAGGED: &str =
    "every measurement was flagged; the figures are of surroundings that must not be";
/// Why a row is not there.
const NONE_COUNTS: &str = "none of its measurements counts";

/// A measurement, and where it was made.
#[derive(Debug)]
struct Sample {
    /// The contender's name.
    name: String,
    /// Counted from one.
    round: usize,
    measured: Measured,
    /// A cache line's round trip around it, if that is known.
    line_ns: Option<f64>,
}

/// Measurements that must not count, all for one kind of reason: how many, and of the first one,
/// why.
#[derive(Debug, Default)]
struct Dropped {
    count: usize,
    first: String,
}

impl Dropped {
    fn add(&mut self, reason: String) {
        if self.count == 0 {
            self.first = reason;
        }
        self.count += 1;
    }

    fn note(&self, of: usize) -> Option<String> {
        let Dropped { count, first } = self;
        match count {
            0 => None,
            1 => Some(format!("1 of {of} measurements dropped: {first}")),
            _ => Some(format!("{count} of {of} measurements dropped, the first because {first}")),
        }
    }
}

/// All measurements of a block.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: Vec<Sample>,
    flagged: Vec<Sample>,
    /// Made on cores that must not be compared.
    flawed: Dropped,
    /// During which a cpu was moved.
    moved: Dropped,
}

fn are_apart(a: f64, b: f64) -> bool {
    a > APART * b || b > APART * a
}

fn microseconds(ns: f64) -> String {
    format!("{:.2} us", ns / 1000.0)
}

impl Samples {
    /// Adds a contender's measurement of this round and what was seen before and after it.
    pub(super) fn add(
        &mut self,
        (name, round): (String, usize),
        measured: Measured,
        (before, after): (&Look, &Look),
    ) {
        if let Some(flaw) = before.flaw.as_ref().or(after.flaw.as_ref()) {
            self.flawed.add(flaw.clone());
            self.flagged.push(Sample { name, round, measured, line_ns: None });
            return;
        }
        let around = before.line_ns.zip(after.line_ns);
        if let Some((before, after)) = around.filter(|(before, after)| are_apart(*before, *after)) {
            let (before, after) = (microseconds(before), microseconds(after));
            self.moved.add(format!(
                "a cache line took {before} there and back before it, {after} after it: a cpu was \
                 moved"
            ));
            self.flagged.push(Sample { name, round, measured, line_ns: None });
            return;
        }
        let line_ns = around.map(|(before, after)| f64::midpoint(before, after));
        self.kept.push(Sample { name, round, measured, line_ns });
    }

    /// Of each, whether it was made at the place where most were; of as many, at the one that came
    /// first.
    fn at_one_place(&self) -> Vec<bool> {
        let like = |this: &Sample| -> Vec<bool> {
            let apart = |other: &Sample| this.line_ns.zip(other.line_ns);
            let all = self.kept.iter();
            all.map(|other| !apart(other).is_some_and(|(a, b)| are_apart(a, b))).collect()
        };
        let number = |members: &Vec<bool>| members.iter().filter(|member| **member).count();
        self.kept
            .iter()
            .map(like)
            .reduce(|a, b| if number(&b) > number(&a) { b } else { a })
            .unwrap_or_default()
    }

    /// How many measurements count of the contender of which the fewest do.
    pub(super) fn fewest(&self, names: &[String]) -> usize {
        let members = self.at_one_place();
        let of = |name: &String| {
            let all = self.kept.iter().zip(&members);
            all.filter(|(sample, member)| **member && sample.name == *name).count()
        };
        names.iter().map(of).min().unwrap_or(0)
    }

    /// Those that count, with the round of each, in the order of these names, and what the reader
    /// must know of the others.
    pub(super) fn split(self, names: &[String]) -> (Vec<(usize, Measured)>, Vec<String>) {
        let of = self.kept.len() + self.flagged.len();
        let mut notes: Vec<_> =
            [&self.flawed, &self.moved].iter().filter_map(|dropped| dropped.note(of)).collect();
        if self.kept.is_empty() {
            if of > 0 {
                notes.push(ALL_FLAGGED.into());
            }
            return (in_order(self.flagged, names), notes);
        }
        let members = self.at_one_place();
        notes.extend(self.elsewhere(&members).note(of));
        let all = self.kept.into_iter().zip(members).filter(|(_, member)| *member);
        let counting: Vec<_> = all.map(|(sample, _)| sample).collect();
        let without = names.iter().filter(|name| counting.iter().all(|one| one.name != **name));
        notes.extend(without.map(|name| format!("{name} is left out: {NONE_COUNTS}")));
        (in_order(counting, names), notes)
    }

    /// Those at another place than the members.
    fn elsewhere(&self, members: &[bool]) -> Dropped {
        let lines = |wanted: bool| {
            let these = self.kept.iter().zip(members).filter(move |(_, member)| **member == wanted);
            these.filter_map(|(sample, _)| sample.line_ns)
        };
        let mut dropped = Dropped::default();
        let Some(usual) = median(&lines(true).collect::<Vec<_>>()) else { return dropped };
        for ns in lines(false) {
            let (took, usual) = (microseconds(ns), microseconds(usual));
            dropped.add(format!(
                "a cache line took {took} there and back, and {usual} around those that count"
            ));
        }
        dropped
    }
}

/// The measurements of these, sorted by the place of each one's name.
fn in_order(mut samples: Vec<Sample>, names: &[String]) -> Vec<(usize, Measured)> {
    let place = |name: &String| names.iter().position(|other| other == name);
    samples.sort_by_key(|sample| place(&sample.name).unwrap_or(usize::MAX));
    samples.into_iter().map(|sample| (sample.round, sample.measured)).collect()
}
