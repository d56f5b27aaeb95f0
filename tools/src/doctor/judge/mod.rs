//! From [`Facts`] to what would work here, what would not, and what mends it.
//!
//! Pure: facts in, judgement out. Nothing is read, tried or printed. Every remedy is a command that
//! can be typed as it stands, or a sentence where no command can do it.

mod host;
mod modes;
mod rdma;
mod remedy;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::facts::Facts;

/// How bad a problem is; the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Something does not work.
    Blocker,
    /// It works, and worse than it could.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Problem {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// Whom it concerns: devices of Roceway, RDMA devices, or a part of the host.
    pub(crate) about: Vec<String>,
    /// What it is.
    pub(crate) what: String,
    /// Commands, in their order; may be empty.
    pub(crate) remedy: Vec<String>,
}

impl Problem {
    fn new(severity: Severity, about: &str, what: impl Into<String>) -> Problem {
        Problem { severity, about: vec![about.to_owned()], what: what.into(), remedy: Vec::new() }
    }

    fn with(mut self, remedy: impl Into<String>) -> Problem {
        self.remedy.push(remedy.into());
        self
    }
}

/// Why a device would not work.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reason {
    what: String,
    remedy: Vec<String>,
}

impl Reason {
    fn new(what: impl Into<String>, remedy: &[&str]) -> Reason {
        let remedy = remedy.iter().map(|line| (*line).to_owned()).collect();
        Reason { what: what.into(), remedy }
    }
}

/// Whether a device of Roceway would work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Verdict {
    /// As on the command line, such as `rdma:mlx5_0,mode=rc`.
    pub(crate) device: String,
    /// Whether all that is looked at is as it must be.
    pub(crate) works: bool,
    /// Numbers of the problems that keep it from working; the first is 1.
    pub(crate) problems: Vec<usize>,
}

/// What is thought of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Judgement {
    /// Every device and mode.
    pub(crate) verdicts: Vec<Verdict>,
    /// Every problem, the worst first.
    pub(crate) problems: Vec<Problem>,
}

/// Judges.
pub(crate) fn judge(facts: &Facts) -> Judgement {
    let mut verdicts = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for (device, reasons) in modes::all(facts) {
        let numbers = reasons.into_iter().map(|reason| number(&mut problems, &device, reason));
        let numbers: Vec<usize> = numbers.collect();
        verdicts.push(Verdict { works: numbers.is_empty(), device, problems: numbers });
    }
    let mut others = rdma::problems(facts);
    others.extend(host::problems(facts));
    // Stable: within a severity the order of the parts stays.
    others.sort_by_key(|problem| problem.severity);
    problems.extend(others);
    Judgement { verdicts, problems }
}

/// The number of a blocker; devices with the same reason share one.
fn number(problems: &mut Vec<Problem>, device: &str, reason: Reason) -> usize {
    let same =
        |problem: &Problem| (&problem.what, &problem.remedy) == (&reason.what, &reason.remedy);
    if let Some(index) = problems.iter().position(same) {
        problems[index].about.push(device.to_owned());
        return index + 1;
    }
    let about = vec![device.to_owned()];
    let Reason { what, remedy } = reason;
    problems.push(Problem { severity: Severity::Blocker, about, what, remedy });
    problems.len()
}
