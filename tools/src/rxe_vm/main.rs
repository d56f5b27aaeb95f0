//! The program behind `tools/rxe-vm`: command line, the order of things, printing, exit code
//! (0 all passed, 1 something failed or could not be done, 2 misused).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget};
use roceway::rxe_vm::Trouble;
use roceway::rxe_vm::guest::Plan;
use roceway::rxe_vm::image::{self, Kernel};
use roceway::rxe_vm::programs::{ALWAYS, Programs};
use roceway::rxe_vm::report::{self, Outcome};
use roceway::rxe_vm::scenario::{self, Scenario, Topology};
use roceway::rxe_vm::session::{Session, Watcher, topologies};

/// What takes longer than this shows what it is doing.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);

/// Runs programs on the real soft-RoCE driver, in virtual machines without KVM.
#[derive(Parser, Debug)]
#[command(
    name = "rxe-vm",
    about,
    after_help = "Examples:
  tools/rxe-vm                                  every scenario, on every topology that it names
  tools/rxe-vm --brief                          in a few minutes, as tools/test does it
  tools/rxe-vm --list                           what there is
  tools/rxe-vm stock-pingpong --topology hosts  one scenario between two guests
  tools/rxe-vm --program roceway=target/debug/roceway --notes perf-rc
  tools/rxe-vm --file mine.sh --topology pair   a scenario of one's own
  tools/rxe-vm --json > rows.json               rows in the form of `roceway perf --json`

A scenario is a file in tools/src/rxe_vm/scenarios. The kernel and the packages are fetched once and
kept in $ROCEWAY_RXE_VM_CACHE, otherwise in ~/.cache/roceway/rxe-vm."
)]
struct Line {
    /// Scenarios to run [default: all]
    #[arg(value_name = "SCENARIO")]
    names: Vec<String>,
    /// Runs this scenario file, which need not lie in the folder
    #[arg(long = "file", value_name = "FILE.sh")]
    files: Vec<PathBuf>,
    /// Only this topology: one guest with two devices, or two guests
    #[arg(long, value_name = "pair|hosts", value_parser = topology)]
    topology: Option<Topology>,
    /// What tools/test does: no scenario that only measures, each once, on the topology that it
    /// names first, with short counts, and both topologies at once
    #[arg(long, conflicts_with = "topology")]
    brief: bool,
    /// Both topologies at once: for what does not measure
    #[arg(long)]
    at_once: bool,
    /// Counts instructions: one processor in one guest, whose clock goes a nanosecond ahead with
    /// each, and not otherwise. What a scenario times is instructions then, alike in every run
    #[arg(long, conflicts_with_all = ["brief", "at_once", "topology"])]
    instructions: bool,
    /// The guests' clock is the processor's counter, which costs a program nothing to read, where
    /// the HPET is a system call and an exit from emulation
    #[arg(long, conflicts_with = "instructions")]
    tsc: bool,
    /// Lists the scenarios and ends
    #[arg(long)]
    list: bool,
    /// Prints one JSON document on standard output and nothing else
    #[arg(long)]
    json: bool,
    /// Prints what the sides say while they run
    #[arg(long)]
    notes: bool,
    /// Takes this file for a program instead of building or searching it
    #[arg(long = "program", value_name = "NAME=PATH", value_parser = program)]
    programs: Vec<(String, PathBuf)>,
    /// Memory of a guest
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    #[arg(value_parser = clap::value_parser!(u32).range(256..=8192))]
    memory: u32,
    /// Ends everything after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
    /// Keeps the guests' consoles in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// The folder of the unpacked kernel, as tools/rxe-vm passes it
    #[arg(long, env = "ROCEWAY_RXE_VM_KERNEL", hide = true)]
    kernel: Option<PathBuf>,
}

impl Line {
    /// Where scenarios may run.
    fn topologies(&self) -> Vec<Topology> {
        match self.topology {
            Some(one) => vec![one],
            None if self.instructions => vec![Topology::Pair],
            None => Topology::ALL.to_vec(),
        }
    }
}

fn topology(name: &str) -> Result<Topology, String> {
    let found = Topology::ALL.into_iter().find(|topology| topology.name() == name);
    found.ok_or_else(|| "pair or hosts".into())
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH")?;
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    if path.is_file() { Ok((name.into(), path)) } else { Err("there is no such file".into()) }
}

fn main() -> ExitCode {
    let line = Line::parse();
    match run(&line) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("rxe-vm: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything passed.
fn run(line: &Line) -> Result<bool, Trouble> {
    let scenarios = chosen(line)?;
    if line.list {
        list(&scenarios);
        return Ok(true);
    }
    let kernel = line.kernel.as_deref().ok_or_else(|| {
        Trouble::new("no kernel was given").remedy("start this through tools/rxe-vm")
    })?;
    let kernel = Kernel::open(kernel)?;
    let mut screen = Screen::new(line);
    let _turn = turn(&mut screen)?;
    let stop = stop_on_signals(Duration::from_secs(line.limit))?;
    let outcomes =
        Run { line, kernel: &kernel, stop: &stop, screen: &mut screen }.all(scenarios)?;
    screen.bar.finish_and_clear();
    if line.json {
        println!("{:#}", report::json(&kernel.release, &outcomes));
    }
    Ok(!outcomes.iter().any(Outcome::is_failed))
}

/// The scenarios that the command line asks for.
fn chosen(line: &Line) -> Result<Vec<Scenario>, Trouble> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scenarios = scenario::read_all(&here.join("src/rxe_vm/scenarios"))?;
    if let Some(unknown) =
        line.names.iter().find(|name| !scenarios.iter().any(|s| s.name == **name))
    {
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        return Err(Trouble::new(format!("there is no scenario {unknown}"))
            .remedy(format!("one of {}", names.join(", "))));
    }
    let all = line.names.is_empty() && line.files.is_empty();
    scenarios.retain(|s| all || line.names.contains(&s.name));
    for file in &line.files {
        scenarios.push(scenario::read(file)?);
    }
    if line.brief {
        scenarios.retain(|scenario| scenario.brief || !all);
        scenarios.iter_mut().for_each(|scenario| scenario.topologies.truncate(1));
    }
    Ok(scenarios)
}

fn list(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let places: Vec<&str> = scenario.topologies.iter().map(|place| place.name()).collect();
        println!("{:20} {:10} {}", scenario.name, places.join(","), scenario.title);
    }
}

/// Emulation takes all that the machine has: one run at a time, by a lock on a file.
fn turn(screen: &mut Screen) -> Result<File, Trouble> {
    let path = std::env::temp_dir().join("roceway-rxe-vm.lock");
    let trouble = |error: std::io::Error| Trouble::new(format!("{}: {error}", path.display()));
    let file = File::create(&path).map_err(trouble)?;
    screen.doing("waiting for another rxe-vm to end");
    file.lock().map_err(trouble)?;
    Ok(file)
}

/// Set by SIGINT, SIGTERM and SIGHUP, and when the time is over.
fn stop_on_signals(limit: Duration) -> Result<Arc<AtomicBool>, Trouble> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| Trouble::new(format!("signal {signal}: {error}")))?;
    }
    let flag = stop.clone();
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("rxe-vm: the limit of {} s is over", limit.as_secs());
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// Progress on a terminal, plain lines elsewhere. A clone writes to the same place.
#[derive(Clone)]
struct Screen {
    bar: ProgressBar,
    started: Instant,
    notes: bool,
    text: bool,
}

impl Screen {
    fn new(line: &Line) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(PROGRESS_AFTER / 8);
        Self { bar, started: Instant::now(), notes: line.notes, text: !line.json }
    }

    fn print(&self, text: &str) {
        self.bar.suspend(|| {
            if self.text {
                print!("{text}");
            } else {
                eprint!("{text}");
            }
        });
    }
}

impl Watcher for Screen {
    fn doing(&mut self, what: &str) {
        if self.bar.is_hidden() {
            eprintln!("rxe-vm: {what} (at {:.0} s)", self.started.elapsed().as_secs_f64());
        } else {
            self.bar.set_message(what.to_owned());
        }
    }

    fn note(&mut self, text: &str) {
        if self.notes {
            self.bar.suspend(|| eprintln!("rxe-vm:   {text}"));
        }
    }
}

/// What runs on one topology.
struct Part<'a> {
    place: Topology,
    scenarios: Vec<&'a Scenario>,
}

/// One run of the command.
struct Run<'a> {
    line: &'a Line,
    kernel: &'a Kernel,
    stop: &'a AtomicBool,
    screen: &'a mut Screen,
}

impl Run<'_> {
    fn all(&mut self, scenarios: Vec<Scenario>) -> Result<Vec<Outcome>, Trouble> {
        let given: BTreeMap<_, _> = self.line.programs.iter().cloned().collect();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut finder = Programs::new(workspace, given, !self.line.brief);
        let mut programs = Vec::new();
        for name in ALWAYS {
            programs.push((name.to_owned(), finder.find(name)?));
        }
        let (mut ready, mut outcomes) = (Vec::new(), Vec::new());
        for scenario in scenarios {
            self.screen.doing(&format!("programs of {}", scenario.name));
            let found: Result<Vec<_>, Trouble> = scenario
                .programs
                .iter()
                .map(|name| Ok((name.clone(), finder.find(name)?)))
                .collect();
            match found {
                Ok(found) => {
                    programs.extend(found);
                    ready.push(scenario);
                }
                Err(trouble) => outcomes.extend(self.skipped(&scenario, &trouble)),
            }
        }
        let wanted = self.line.topologies();
        let mut parts: Vec<Part<'_>> = Vec::new();
        for place in wanted {
            let here: Vec<&Scenario> =
                ready.iter().filter(|s| topologies(s, &[place]).next().is_some()).collect();
            if !here.is_empty() {
                parts.push(Part { place, scenarios: here });
            }
        }
        if !parts.is_empty() {
            self.screen.doing("packing the guest");
            let folder = Folder::new()?;
            let image = image::build(self.kernel, &programs, &ready, &folder.0)?;
            let file = folder.0.join("image");
            std::fs::write(&file, image)
                .map_err(|error| Trouble::new(format!("{}: {error}", file.display())))?;
            outcomes.extend(self.parts(&parts, &file)?);
        }
        Ok(outcomes)
    }

    /// One after the other, or all at once.
    fn parts(&self, parts: &[Part<'_>], image: &Path) -> Result<Vec<Outcome>, Trouble> {
        let run = |part: &Part<'_>| self.part(part, image, &mut self.screen.clone());
        let found: Vec<_> = if self.line.brief || self.line.at_once {
            let died = || Trouble::new("a thread died");
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    parts.iter().map(|part| scope.spawn(move || run(part))).collect();
                let ended = threads.into_iter().map(|thread| thread.join());
                ended.map(|ended| ended.unwrap_or_else(|_| Err(died()))).collect()
            })
        } else {
            parts.iter().map(run).collect()
        };
        let all: Result<Vec<Vec<Outcome>>, Trouble> = found.into_iter().collect();
        Ok(all?.into_iter().flatten().collect())
    }

    fn skipped(&mut self, scenario: &Scenario, trouble: &Trouble) -> Vec<Outcome> {
        let places = self.line.topologies();
        let outcome = |place| Outcome {
            skipped: Some(trouble.cause.clone()),
            ..Outcome::new(scenario, place)
        };
        let outcomes: Vec<Outcome> = topologies(scenario, &places).map(outcome).collect();
        for outcome in &outcomes {
            self.screen.print(&report::text(outcome));
        }
        outcomes
    }

    /// The scenarios of one topology, in guests of their own.
    fn part(
        &self,
        part: &Part<'_>,
        image: &Path,
        screen: &mut Screen,
    ) -> Result<Vec<Outcome>, Trouble> {
        let folder = image.with_file_name(part.place.name());
        std::fs::create_dir_all(&folder)
            .map_err(|error| Trouble::new(format!("{}: {error}", folder.display())))?;
        let plan = Plan {
            kernel: self.kernel.image(),
            image: image.to_owned(),
            topology: part.place,
            memory_mib: self.line.memory,
            brief: self.line.brief,
            instructions: self.line.instructions,
            tsc: self.line.tsc,
            folder: folder.clone(),
        };
        let mut session = Session::new(&plan, self.stop);
        let mut outcomes = Vec::new();
        for scenario in &part.scenarios {
            let outcome = session.run(scenario, screen)?;
            self.keep(&folder, &outcome)?;
            screen.print(&report::text(&outcome));
            outcomes.push(outcome);
        }
        session.finish()?;
        Ok(outcomes)
    }

    fn keep(&self, from: &Path, outcome: &Outcome) -> Result<(), Trouble> {
        let Some(to) = &self.line.keep else { return Ok(()) };
        let trouble = |error| Trouble::new(format!("{}: {error}", to.display()));
        std::fs::create_dir_all(to).map_err(trouble)?;
        for (index, guest) in outcome.topology.guests().iter().enumerate() {
            let name = format!("{}-{}-{guest}.log", outcome.scenario, outcome.topology);
            std::fs::copy(from.join(format!("console-{index}")), to.join(name)).map_err(trouble)?;
        }
        Ok(())
    }
}

/// A folder of this run, deleted with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Trouble> {
        let path = std::env::temp_dir().join(format!("roceway-rxe-vm.{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Trouble::new(format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing more can be done about a folder that does not go.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_its_help_has_examples() {
        let mut command = Line::command();
        command.clone().debug_assert();
        assert!(command.render_long_help().to_string().contains("Examples:"));
    }

    #[test]
    fn every_scenario_has_a_proper_head() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rxe_vm/scenarios");
        assert!(!scenario::read_all(&folder).unwrap().is_empty());
    }
}
