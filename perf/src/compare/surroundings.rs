//! Which repetitions were made in the same surroundings, so that their figures may be put together.
//!
//! A hypervisor moves virtual cpus: between cores of one cluster, to another cluster, onto threads
//! of one core. What all figures over shared memory begin with shows where they are: how long a
//! cache line takes there and back. A repetition before and after which it does not take as long is
//! of two places; of the others, those that are most alike count.

use super::{Look, Measured, Referee};

/// Two times of which one is so many times the other are of different places.
const APART: f64 = 1.5;

/// A repetition at one place.
#[derive(Debug)]
pub(super) struct Repetition {
    /// Counted from one.
    pub(super) number: usize,
    pub(super) measured: Vec<Measured>,
    /// A cache line's round trip around it, if that is known.
    pub(super) line_ns: Option<f64>,
}

fn are_apart(a: f64, b: f64) -> bool {
    a > APART * b || b > APART * a
}

fn microseconds(ns: f64) -> String {
    format!("{:.2} us", ns / 1000.0)
}

/// The line's round trip around a repetition, or why that must not count. After a flaw at its
/// beginning, nobody asks about its end.
pub(super) fn judge(before: Look, referee: Referee<'_>) -> Result<Option<f64>, String> {
    let flawless = |look: Look| look.flaw.map_or(Ok(look.line_ns), Err);
    let (before, after) = (flawless(before)?, flawless(referee())?);
    let Some((before, after)) = before.zip(after) else { return Ok(None) };
    if are_apart(before, after) {
        let (before, after) = (microseconds(before), microseconds(after));
        return Err(format!(
            "a cache line took {before} there and back before it, {after} after it: a cpu was moved"
        ));
    }
    Ok(Some(f64::midpoint(before, after)))
}

/// Whether each is at the place where most are; of as many, at the one that came first.
fn at_one_place(all: &[Repetition]) -> Vec<bool> {
    let like = |this: &Repetition| -> Vec<bool> {
        let apart = |other: &Repetition| this.line_ns.zip(other.line_ns);
        all.iter().map(|other| !apart(other).is_some_and(|(a, b)| are_apart(a, b))).collect()
    };
    let number = |members: &Vec<bool>| members.iter().filter(|member| **member).count();
    all.iter()
        .map(like)
        .reduce(|a, b| if number(&b) > number(&a) { b } else { a })
        .unwrap_or_default()
}

/// How many are at the place where most are.
pub(super) fn largest(all: &[Repetition]) -> usize {
    at_one_place(all).into_iter().filter(|member| *member).count()
}

/// Those that count, and what the reader must know of the others.
pub(super) fn split(all: Vec<Repetition>) -> (Vec<Vec<Measured>>, Vec<String>) {
    let members = at_one_place(&all);
    let known = |wanted: bool| {
        let these = all.iter().zip(&members).filter(move |(_, member)| **member == wanted);
        these.filter_map(|(repetition, _)| Some((repetition.number, repetition.line_ns?)))
    };
    let mut notes = Vec::new();
    let counting: Vec<f64> = known(true).map(|(_, ns)| ns).collect();
    if let Some(ns) = crate::arithmetic::median(&counting) {
        let usual = microseconds(ns);
        for (number, ns) in known(false) {
            let took = microseconds(ns);
            notes.push(format!(
                "repetition {number} dropped: a cache line took {took} there and back, and {usual} \
                 around those that count"
            ));
        }
    }
    let count = all.into_iter().zip(members).filter(|(_, member)| *member);
    (count.map(|(repetition, _)| repetition.measured).collect(), notes)
}
