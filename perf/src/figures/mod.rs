//! `perf figures`: the papers' figures as ladders of this product's own configurations.
//!
//! [`ladder`] says which rungs there are, `measure` makes contenders of them, which take turns as
//! in a comparison, and `document` and [`chart`] show what came of it beside the papers' numbers. A
//! rung is options and nothing else: nothing here sleeps, copies or waits for the sake of a figure.

pub mod chart;
mod document;
pub mod ladder;
mod measure;

use std::sync::Arc;

use roceway_runtime::busypoll::cycles::CycleCounter;
use roceway_runtime::settings::Flags;

pub use document::{Document, RungRow};
pub use measure::Under;

use crate::compare::{self, Contender, Plan, VethKernel, Watch};
use ladder::FIGURES;
use measure::RungRival;

/// What to run.
#[derive(Debug)]
pub struct Request {
    /// Numbers of the figures.
    pub figures: Vec<u8>,
    /// The device under Roceway's rungs.
    pub under: Under,
    /// What the user set besides.
    pub flags: Flags,
    /// Namespaces with a veth pair for the kernel's rungs, or why there are none.
    pub veth: Result<VethKernel, String>,
}

/// How many measurements one repetition has.
#[must_use]
pub fn measurements(figures: &[u8]) -> usize {
    let wanted = FIGURES.iter().filter(|figure| figures.contains(&figure.number));
    wanted.map(|figure| figure.rungs.len()).sum()
}

/// Runs the ladders: all rungs once, then all again, so that the machine's mood hits all alike.
pub fn run(plan: &Plan, request: &Request, watch: Watch<'_>) -> Document {
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    let mut notes = Vec::new();
    let cycles = match CycleCounter::open() {
        Ok(counter) => Some(Arc::new(counter)),
        Err(error) => {
            notes.push(format!("no processor cycles: perf_event_open: {error}"));
            None
        }
    };
    if let Err(reason) = &request.veth {
        notes.push(format!("the kernel over veth is left out: {reason}"));
    }
    for figure in FIGURES.iter().filter(|figure| request.figures.contains(&figure.number)) {
        for index in 0..figure.rungs.len() {
            let (under, flags) = (request.under.clone(), request.flags.clone());
            let veth = request.veth.as_ref().ok().cloned();
            let cycles = cycles.clone();
            contenders.push(Box::new(RungRival { figure, index, under, flags, veth, cycles }));
        }
    }
    let mut referee = || compare::look(plan.cores);
    let block = compare::run(plan, &mut contenders, &mut referee, watch);
    notes.extend(block.notes);
    let wanted = FIGURES.iter().filter(|figure| request.figures.contains(&figure.number));
    let rows = wanted
        .flat_map(|figure| (0..figure.rungs.len()).map(move |index| (figure, index)))
        .map(|(figure, index)| document::row(figure, index, &block.rows))
        .collect();
    let under = request.under.clone();
    Document { rows, under, notes, repetitions: block.repetitions }
}
