//! Replaying and mutating: one target in this process, all of them in processes of their own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use roceway_fuzz::coverage::Coverage;
use roceway_fuzz::mutate::mutate;
use roceway_fuzz::random::Random;
use roceway_fuzz::{Target, corpus};

/// A target that works on one input for so long hangs.
const HANG: Duration = Duration::from_secs(20);
/// Inputs kept of one run at most.
const KEPT_MAX: usize = 20_000;
/// What a corpus may weigh, bytes: all of them stay below 200 KB.
const CORPUS_MAX: usize = 12 * 1024;

fn seed() -> u64 {
    std::env::var("ROCEWAY_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The input that a target works on, for whoever finds its process dead.
struct Current(File);

impl Current {
    fn path(target: &Target) -> PathBuf {
        corpus::artifacts().join(format!("{}.current", target.name))
    }

    fn new(target: &Target) -> io::Result<Current> {
        std::fs::create_dir_all(corpus::artifacts())?;
        let path = Current::path(target);
        OpenOptions::new().create(true).truncate(true).write(true).open(path).map(Current)
    }

    fn set(&self, input: &[u8]) -> io::Result<()> {
        let length = u32::try_from(input.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(input);
        self.0.write_all_at(&bytes, 0)
    }

    /// Takes the input out of what a dead process left.
    fn take(target: &Target) -> io::Result<Vec<u8>> {
        let bytes = std::fs::read(Current::path(target))?;
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(0);
        Ok(rest.get(..length).unwrap_or(rest).to_vec())
    }
}

/// Replays a target's corpus and mutates it for a time.
pub(crate) fn one(target: &Target, seconds: u64, keep: bool) -> io::Result<()> {
    let current = Current::new(target)?;
    let mut coverage = Coverage::default();
    let mut inputs = corpus::load(target.name)?;
    inputs.extend((target.seeds)());
    inputs.push(Vec::new());
    let mut try_it = |input: &[u8]| -> io::Result<bool> {
        current.set(input)?;
        coverage.begin();
        (target.run)(input);
        Ok(coverage.end())
    };
    for input in &inputs {
        try_it(input)?;
    }
    let replayed = inputs.len();
    let mut random = Random::new(seed());
    let started = Instant::now();
    let mut runs = 0_u64;
    while started.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..64 {
            // Half of the time one of the newest, which reached what no other did.
            let newest = inputs.len().min(32);
            let at = match random.below(2) {
                0 => inputs.len() - 1 - random.below(newest),
                _ => random.below(inputs.len()),
            };
            let mut input = inputs[at].clone();
            mutate(&mut input, &inputs[random.below(inputs.len())], &mut random);
            runs += 1;
            if try_it(&input)? && inputs.len() < KEPT_MAX {
                inputs.push(input);
            }
        }
    }
    let edges = coverage.edges();
    let guided = if coverage.is_guided() { "" } else { ", without guidance" };
    let fresh = inputs.len() - replayed;
    let name = target.name;
    println!(
        "{name:16} {replayed:5} replayed {runs:9} mutated {fresh:5} new {edges:6} edges{guided}"
    );
    if keep {
        distil(target, inputs)?;
    }
    std::fs::remove_file(Current::path(target))
}

/// Keeps the shortest inputs that reach what all do, as far as there is room.
fn distil(target: &Target, mut inputs: Vec<Vec<u8>>) -> io::Result<()> {
    inputs.sort_by_key(Vec::len);
    let mut coverage = Coverage::default();
    let (mut kept, mut size) = (Vec::new(), 0);
    for input in inputs {
        coverage.begin();
        (target.run)(&input);
        if coverage.end() && size + input.len() + 2 <= CORPUS_MAX {
            size += input.len() + 2;
            kept.push(input);
        }
    }
    corpus::save(target.name, &kept)
}

struct Running {
    target: &'static Target,
    child: Child,
    started: Instant,
}

/// Runs targets in processes of their own, as many at a time as there are cpus; whether all pass.
pub(crate) fn all(seconds: u64, targets: &[&'static Target], keep: bool) -> Result<bool, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    let total = seconds * u64::try_from(jobs).unwrap_or(1);
    let each = total / u64::try_from(targets.len()).unwrap_or(1).max(1);
    println!("{} targets, {each} s each, {jobs} at a time, seed {}", targets.len(), seed());
    let mut waiting = targets.iter();
    let mut running: Vec<Running> = Vec::new();
    let mut passed = true;
    loop {
        while running.len() < jobs
            && let Some(target) = waiting.next()
        {
            running.push(start(target, each, keep).map_err(|error| error.to_string())?);
        }
        if running.is_empty() {
            return Ok(passed);
        }
        std::thread::sleep(Duration::from_millis(20));
        let mut still = Vec::new();
        for mut one in running {
            let late = one.started.elapsed() > Duration::from_secs(3 * each) + HANG;
            if late {
                let _ = one.child.kill();
            }
            match one.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => {}
                Some(status) => {
                    passed = false;
                    failed(one.target, status, late);
                }
                None if late => {
                    let _ = one.child.wait();
                    passed = false;
                    failed(one.target, ExitStatus::default(), true);
                }
                None => still.push(one),
            }
        }
        running = still;
    }
}

fn start(target: &'static Target, seconds: u64, keep: bool) -> io::Result<Running> {
    let child = Command::new(std::env::current_exe()?)
        .args(["one", target.name, &seconds.to_string(), if keep { "keep" } else { "drop" }])
        .spawn()?;
    Ok(Running { target, child, started: Instant::now() })
}

/// Saves the input that a process died of, and says how to come back to it.
fn failed(target: &Target, status: ExitStatus, hangs: bool) {
    let what = if hangs { "hangs".to_owned() } else { status.to_string() };
    let name = target.name;
    let file = corpus::artifacts().join(format!("{name}-{}", std::process::id()));
    match Current::take(target).and_then(|input| std::fs::write(&file, input)) {
        Ok(()) => println!(
            "{name}: FAILED ({what}); again: fuzz replay {name} {0}, smaller: fuzz minimise \
             {name} {0}",
            file.display()
        ),
        Err(error) => println!("{name}: FAILED ({what}); its input is lost: {error}"),
    }
}

/// Makes an input that panics smaller, in place.
pub(crate) fn minimise(target: &Target, path: &Path) -> io::Result<bool> {
    let mut input = std::fs::read(path)?;
    std::panic::set_hook(Box::new(|_| {}));
    let run = target.run;
    let fails = |input: &[u8]| catch_unwind(|| run(input)).is_err();
    if !fails(&input) {
        println!("it does not panic");
        return Ok(false);
    }
    let mut width = input.len().next_power_of_two() / 2;
    while width > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            shorter.drain(at..(at + width).min(input.len()));
            if fails(&shorter) {
                input = shorter;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
    for at in 0..input.len() {
        let mut simpler = input.clone();
        simpler[at] = 0;
        if fails(&simpler) {
            input = simpler;
        }
    }
    println!("{} bytes: {input:02x?}", input.len());
    std::fs::write(path, input)?;
    Ok(true)
}
