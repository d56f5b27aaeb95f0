//! What runs the targets; `fuzz/run` calls it. Each target runs in a process of its own, so that a
//! crash, a hang or exhausted memory of one is found out and does not end the others.

mod drive;

use std::path::Path;
use std::process::ExitCode;

use roceway_fuzz::{TARGETS, Target, corpus, target};

const USAGE: &str = "\
fuzz run SECONDS [TARGET...]   replay the corpora, then mutate them, in about so many seconds
fuzz replay TARGET PATH        run one input, or a folder of them
fuzz minimise TARGET FILE      make an input that fails smaller, in place
fuzz grow SECONDS [TARGET...]  as run, and keep in the corpora what reached something new
fuzz unpack TARGET FOLDER      write a corpus as one file an input
fuzz list                      the targets
ROCEWAY_FUZZ_SEED chooses another run; the default is 1.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[&str]) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    match words {
        ["run", seconds, names @ ..] => drive::all(number(seconds)?, &named(names)?, false),
        ["grow", seconds, names @ ..] => drive::all(number(seconds)?, &named(names)?, true),
        ["one", name, seconds, kept] => {
            drive::one(find(name)?, number(seconds)?, *kept == "keep").map_err(text)?;
            Ok(true)
        }
        ["replay", name, path] => {
            let inputs = corpus::read(Path::new(path)).map_err(text)?;
            inputs.iter().for_each(|input| (find_or_exit(name).run)(input));
            println!("{} inputs pass", inputs.len());
            Ok(true)
        }
        ["minimise", name, path] => drive::minimise(find(name)?, Path::new(path)).map_err(text),
        ["unpack", name, folder] => {
            std::fs::create_dir_all(folder).map_err(text)?;
            for (number, input) in corpus::load(name).map_err(text)?.iter().enumerate() {
                let file = Path::new(folder).join(format!("{number:04}"));
                std::fs::write(file, input).map_err(text)?;
            }
            Ok(true)
        }
        ["list"] => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(true)
        }
        _ => Err(format!("what is wanted?\n{USAGE}")),
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    target(name).ok_or_else(|| format!("no target is called {name}; `fuzz list` names them"))
}

fn find_or_exit(name: &str) -> &'static Target {
    find(name).unwrap_or_else(|error| {
        eprintln!("fuzz: {error}");
        std::process::exit(2)
    })
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number of seconds"))
}

fn named(names: &[&str]) -> Result<Vec<&'static Target>, String> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    names.iter().map(|name| find(name)).collect()
}
