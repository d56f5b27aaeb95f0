//! `roceway doctor`: examines the machine and prints the report. Exit code 0 says that something
//! would work (with DEVICE: that it would), 1 that nothing would.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, print};
use crate::doctor::{Machine, examine};

const EXAMPLES: &str = "Examples:
  roceway doctor                          everything, and what mends it
  roceway doctor --json > doctor.json
  roceway doctor rdma && echo yes         whether some RDMA device works in some mode
  roceway doctor rdma:mlx5_0,mode=rc      whether this one does
  roceway doctor --root ./tree            files recorded on another machine

It looks and tries, and changes nothing. Reading everything needs no privilege; as root it sees
more. Counters of RDMA ports are watched for a second.";

/// The examination.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// What the exit code is about: soft, tap, packet, rdma, rdma:DEV or rdma:DEV,mode=MODE, DEV a
    /// verbs device or its interface [default: anything]
    #[arg(value_name = "DEVICE")]
    device: Option<String>,
    /// Reads sys, proc, dev, etc and lib below this folder instead of /, and tries nothing
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// Prints one JSON document on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Examines and prints.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let (root, machine) = match &self.root {
            Some(root) => (root.as_path(), Machine::Recorded),
            None => (Path::new("/"), Machine::Live),
        };
        if !root.is_dir() {
            return Err(Failure::Usage(format!("{} is no folder", root.display())));
        }
        let bar = spinner();
        let report = examine(root, machine, &mut |what| {
            bar.set_message(what.to_owned());
            bar.tick();
        });
        bar.finish_and_clear();
        let works = report.works(self.device.as_deref());
        if works.is_ok() {
            print(&if self.json { report.json() } else { report.text() })?;
        }
        let remedy = "each problem in the report has the command that mends it".to_owned();
        match (works, &self.device) {
            (Ok(true), _) => Ok(()),
            (Ok(false), None) => {
                Err(Failure::Failed { cause: "nothing would work here".to_owned(), remedy })
            }
            (Ok(false), Some(device)) => {
                Err(Failure::Failed { cause: format!("{device} would not work here"), remedy })
            }
            (Err(cause), _) => Err(Failure::failed(cause)),
        }
    }
}

/// A line on standard error, on a terminal only.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar
}
