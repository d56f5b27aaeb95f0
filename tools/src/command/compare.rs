//! `roceway perf compare`: picks the cores, runs the blocks, prints one document.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use roceway_busypoll::pin::{Cpu, Topology};
use roceway_perf::compare::{self, Block, CHILD_ARGUMENT, Document, Extras, MESSAGE_LARGE, Plan};
use roceway_perf::control::{RECEIVE_DEFAULT, SEND_DEFAULT};
use roceway_perf::host::Host;
use roceway_perf::local::Cores;
use roceway_perf::plot;

use super::common::Common;
use super::{Failure, print};

const EXAMPLES: &str = "Examples:
  roceway perf compare                     everything, in about a minute
  roceway perf compare --json > run.json
  roceway perf compare -T 2,3 --plot rtt.svg
  roceway perf compare --many --idle       with thousands of connections, and at rest
  roceway perf compare --crr               with connections opened and closed
  roceway perf compare --only zero-copy    some of the rows
  roceway perf compare --counters --capture run.pcapng";

/// Most repetitions that may be asked for.
const REPETITIONS_MAX: u16 = 1000;

/// The comparison.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareLine {
    /// Cpus of the two ends [default: two physical cores of one node]
    #[arg(short = 'T', long, value_name = "CPU,CPU", value_delimiter = ',', num_args = 1)]
    cpus: Vec<usize>,
    /// Repetitions that must count
    #[arg(long, value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(REPETITIONS_MAX)))]
    repetitions: u16,
    /// Writes the distributions of the round trips as an SVG picture
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Also 10,000 idle connections, and 1,000 active ones against the kernel's epoll
    #[arg(long)]
    many: bool,
    /// Also the first request after a second's rest, and what rest costs
    #[arg(long)]
    idle: bool,
    /// Also connections opened and closed by the client, for 10 s each: two minutes more
    #[arg(long)]
    crr: bool,
    /// Only those contenders whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Prints one JSON document on standard output and nothing else
    #[arg(long)]
    json: bool,
    /// Writes frames of Roceway's rows to a pcapng file, a section for each, from short runs of
    /// their own after the measurements
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Prints every non-zero counter and each connection's TCP_INFO of Roceway's workers, from the
    /// last repetition; SIGUSR1 prints them to standard error at any time
    #[arg(long)]
    counters: bool,
}

impl CompareLine {
    fn plan(&self) -> Result<(Plan, Vec<String>), Failure> {
        if !matches!(self.cpus.len(), 0 | 2) {
            return Err(Failure::Usage("-T needs the cpus of both ends, such as -T 2,3".into()));
        }
        let topology = Topology::read();
        let (cpus, warnings) = match *self.cpus {
            [client, server] => {
                let cpus = vec![Cpu(client), Cpu(server)];
                let warnings = topology.warnings(&cpus);
                (cpus, warnings)
            }
            _ => {
                let choice = topology.choose(2);
                (choice.cpus, choice.warnings)
            }
        };
        let cpu = |index: usize| cpus.get(index).map(|Cpu(id)| *id);
        let plan = Plan::new(Cores { client: cpu(0), server: cpu(1) });
        // Each end its own flag: whoever looks first would take it from the other.
        let asked = Some([Common::on_user_signal()?, Common::on_user_signal()?]);
        let plan = Plan {
            repetitions: usize::from(self.repetitions),
            only: self.only.clone(),
            counters: self.counters,
            capture: self.capture.clone(),
            asked,
            ..plan
        };
        Ok((plan, warnings.iter().map(ToString::to_string).collect()))
    }

    /// Runs the comparison.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let (plan, warnings) = self.plan()?;
        if let Some(path) = &self.capture {
            // Emptied, and found out before a minute of measuring if it cannot be written.
            File::create(path).map_err(|error| capture_failure(path, &error))?;
        }
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
        let extras = Extras { many: self.many, idle: self.idle };
        let mut contenders = compare::soft_block(extras);
        let bar = progress(plan.repetitions * contenders.len());
        let mut watch = |repetition: usize, of: usize, name: &str| {
            bar.inc(1);
            bar.set_message(format!("repetition {repetition} of {of}: {name}"));
        };
        let mut referee = || compare::look(plan.cores);
        let mut block = compare::run(&plan, &mut contenders, &mut referee, &mut watch);
        if self.crr {
            bar.inc_length(u64::try_from(2 * plan.repetitions).unwrap_or(0));
            let long = Plan { length: compare::CHURN_LENGTH, capture: None, ..plan.clone() };
            let mut churning = compare::churn_block();
            merge(&mut block, compare::run(&long, &mut churning, &mut referee, &mut watch));
        }
        bar.set_message("over veth pairs");
        let part = self.capture.as_ref().map(|path| path.with_extension("veth.pcapng"));
        match compare::parent(&self.child_arguments(&plan, part.as_deref())) {
            Ok(veth) => merge(&mut block, veth),
            Err(reason) => block.notes.push(format!("the veth block is skipped: {reason}")),
        }
        if let (Some(part), Some(path)) = (&part, &self.capture)
            && part.exists()
            && let Err(error) = compare::append(part, path)
        {
            block.notes.push(format!("no frames of the veth block in the capture: {error}"));
        }
        bar.finish_and_clear();
        if block.rows.is_empty() && !self.only.is_empty() {
            let names = compare::soft_block(extras);
            let names: Vec<String> = names.iter().map(|contender| contender.name()).collect();
            let text =
                format!("--only matches nobody; among others there are: {}", names.join("; "));
            return Err(Failure::Usage(text));
        }
        block.notes.splice(0..0, warnings);
        let latencies = std::mem::take(&mut block.latencies);
        self.print(&plan, block)?;
        // Last, so that a full disk costs nobody the figures.
        if let Some(path) = &self.plot {
            let series: Vec<_> = latencies.iter().map(|(name, all)| (name.clone(), all)).collect();
            plot::write(path, "round-trip times", &series)
                .map_err(|error| super::perf::picture_failure(&error))?;
        }
        Ok(())
    }

    fn child_arguments(&self, plan: &Plan, capture: Option<&Path>) -> Vec<String> {
        let mut all = vec!["perf".to_owned(), CHILD_ARGUMENT.to_owned()];
        if let (Some(client), Some(server)) = (plan.cores.client, plan.cores.server) {
            all.extend(["-T".to_owned(), format!("{client},{server}")]);
        }
        all.extend(["--repetitions".to_owned(), self.repetitions.to_string()]);
        if self.counters {
            all.push("--counters".to_owned());
        }
        for text in &self.only {
            all.extend(["--only".to_owned(), text.clone()]);
        }
        if let Some(path) = capture {
            all.extend(["--capture".to_owned(), path.display().to_string()]);
        }
        all
    }

    /// The child's side of the veth block.
    pub(crate) fn run_child(&self) -> Result<(), Failure> {
        let (plan, _) = self.plan()?;
        let answer = compare::child(&plan).map_err(Failure::failed)?;
        print(&answer)
    }

    fn print(&self, plan: &Plan, block: Block) -> Result<(), Failure> {
        let host = Host::read();
        let cpus = [plan.cores.client, plan.cores.server]
            .map(|core| core.map_or("any".into(), |core| core.to_string()))
            .join(",");
        let settings = [
            ("repetitions", block.repetitions.to_string()),
            ("seconds each", plan.length.as_secs_f64().to_string()),
            ("warm-up", format!("{} s", plan.warmup.as_secs_f64())),
            ("cpus", cpus),
            ("request,response", "1,1 B".to_owned()),
            ("stream message", format!("{SEND_DEFAULT} and {MESSAGE_LARGE} B")),
            ("stream receive call", format!("{RECEIVE_DEFAULT} B")),
            ("kernel congestion control", congestion()),
        ];
        let mut options = serde_json::Map::new();
        for (name, value) in &settings {
            options.insert((*name).to_owned(), value.clone().into());
        }
        options.insert("host".into(), serde_json::json!(host));
        let ratios = compare::ratios(&block.rounds);
        let workers = self.counters.then_some(block.workers);
        let document = Document { options, rows: block.rows, ratios, notes: block.notes, workers };
        if self.json {
            return print(&document.json());
        }
        let head = roceway_perf::report::head(&settings, &host);
        print(&(head + &document.text()))
    }
}

fn congestion() -> String {
    roceway_perf::kernel::Kernel::congestion_control().unwrap_or_else(|_| "unknown".into())
}

fn merge(block: &mut Block, other: Block) {
    block.rows.extend(other.rows);
    block.rounds.extend(other.rounds);
    block.latencies.extend(other.latencies);
    block.notes.extend(other.notes);
    block.workers.extend(other.workers);
}

fn capture_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed {
        cause: format!("cannot write the capture {}: {error}", path.display()),
        remedy: "name a file that can be written with --capture".into(),
    }
}

/// A line on standard error, on a terminal only.
pub(super) fn progress(measurements: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(measurements).unwrap_or(0));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
        bar.set_style(style);
    }
    bar
}
