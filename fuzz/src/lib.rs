//! Fuzz targets: one plain function `fn(&[u8])` for each thing that reads bytes from outside.
//!
//! A target panics if what it reads breaks a promise: counters that do not conserve, memory that is
//! not given back, a step without end. It never sleeps and, the soft NIC's apart, makes no system
//! call. The same input does the same each time. `fuzz/run` replays the corpora and then mutates
//! them; see README.md.

pub mod corpus;
pub mod coverage;
pub mod input;
pub mod mutate;
pub mod random;
pub mod targets;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also of its corpus.
    pub name: &'static str,
    /// Takes an input.
    pub run: fn(&[u8]),
    /// Makes the inputs that its corpus begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = targets::ALL;

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
