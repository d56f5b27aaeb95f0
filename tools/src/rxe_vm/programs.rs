//! The programs that go into a guest: where they come from, and the libraries that they need.
//!
//! Debian's are found in PATH. Ours are built by cargo, each when a scenario asks for it. A program
//! that is not there costs the scenarios that need it, by name; those that every guest needs are a
//! failure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Trouble, io};

/// What every guest has beside busybox.
pub const ALWAYS: [&str; 3] = ["ip", "tc", "rdma"];

/// One of ours: what cargo is told. Those whose figures count are built for release.
#[derive(Clone, Copy, Debug)]
struct Ours {
    name: &'static str,
    package: &'static str,
    options: &'static [&'static str],
}

const ORACLE: &str = "roceway-verbs-oracle";
const OURS: [Ours; 4] = [
    Ours { name: "roceway", package: "roceway", options: &["--release"] },
    Ours { name: "verbs-pingpong", package: ORACLE, options: &["--release"] },
    Ours { name: "verbs-compare", package: ORACLE, options: &["--features", "rdma-sys,ibverbs"] },
    Ours { name: "ibverbs-echo", package: ORACLE, options: &["--features", "rdma-sys,ibverbs"] },
];

/// Loaded by name at run time, so that no program's own list has them: folder and pattern of names.
const LOADED: [(&str, &str); 3] = [
    ("/usr/lib/x86_64-linux-gnu", "libibverbs.so.1"),
    ("/usr/lib/x86_64-linux-gnu", "librdmacm.so.1"),
    ("/usr/lib/x86_64-linux-gnu/libibverbs", "librxe-rdmav"),
];

/// Finds programs; remembers what it built.
#[derive(Debug)]
pub struct Programs {
    workspace: PathBuf,
    given: BTreeMap<String, PathBuf>,
    measures: bool,
}

impl Programs {
    /// `workspace` is where cargo builds; `given` overrides programs by name. Where nothing is
    /// measured, ours are those of the tests, which are there already.
    #[must_use]
    pub fn new(workspace: PathBuf, given: BTreeMap<String, PathBuf>, measures: bool) -> Self {
        Self { workspace, given, measures }
    }

    /// The file of a program.
    ///
    /// # Errors
    ///
    /// It is nowhere, or does not build; the cause says which.
    pub fn find(&mut self, name: &str) -> Result<PathBuf, Trouble> {
        if let Some(path) = self.given.get(name) {
            return Ok(path.clone());
        }
        let path = match OURS.iter().find(|ours| ours.name == name) {
            Some(ours) => self.build(ours)?,
            None => in_path(name).ok_or_else(|| {
                Trouble::new(format!("{name} is not installed")).remedy("look for its package")
            })?,
        };
        self.given.insert(name.to_owned(), path.clone());
        Ok(path)
    }

    fn build(&self, ours: &Ours) -> Result<PathBuf, Trouble> {
        let Ours { name, package, options } = *ours;
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.workspace);
        cargo.args(["build", "--locked", "--message-format=json", "-p", package, "--bin", name]);
        cargo.args(options.iter().filter(|option| self.measures || **option != "--release"));
        let output = cargo.stdin(Stdio::null()).output().map_err(|error| io("cargo", &error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let built = text.lines().filter_map(|line| executable(line, name)).next_back();
        match built {
            Some(path) if output.status.success() => Ok(path),
            _ => {
                let errors = String::from_utf8_lossy(&output.stderr);
                let last = errors.lines().rfind(|line| line.starts_with("error"));
                let last = last.or(errors.lines().next_back()).unwrap_or("no executable");
                Err(Trouble::new(format!("cargo build -p {package} --bin {name}: {last}")))
            }
        }
    }
}

/// The executable that a message of cargo names for a binary.
fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    (message["target"]["name"] == name)
        .then(|| message["executable"].as_str().map(PathBuf::from))
        .flatten()
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/usr/sbin"));
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The libraries of a program, with the dynamic linker, as `ldd` lists them: absolute paths.
///
/// # Errors
///
/// `ldd` cannot be run, or the program lacks a library. A static program has none.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let output = Command::new("ldd").arg(program).output().map_err(|error| io("ldd", &error))?;
    listed(&String::from_utf8_lossy(&output.stdout))
        .map_err(|lacking| Trouble::new(format!("{} lacks {lacking}", program.display())))
}

/// `name => path (address)`, or `path (address)` for the linker.
fn listed(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in text.lines() {
        if let Some((name, "not found")) = line.trim().split_once(" => ") {
            return Err(name.to_owned());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        paths.extend(path.map(PathBuf::from));
    }
    Ok(paths)
}

/// The verbs libraries and providers that programs load by name.
///
/// # Errors
///
/// One of them is not installed.
pub fn loaded_by_name() -> Result<Vec<PathBuf>, Trouble> {
    let mut found = Vec::new();
    for (folder, name) in LOADED {
        let entries = std::fs::read_dir(folder).map_err(|error| io(folder, &error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let matching: Vec<PathBuf> = names
            .filter(|entry| entry == name || name.ends_with("rdmav") && entry.starts_with(name))
            .map(|entry| Path::new(folder).join(entry))
            .collect();
        if matching.is_empty() {
            return Err(Trouble::new(format!("{folder}/{name} is not there"))
                .remedy("apt-get install libibverbs1 librdmacm1 ibverbs-providers"));
        }
        found.extend(matching);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_listed_as_ldd_prints_them() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(listed(text).unwrap(), expected.map(PathBuf::from));
        assert_eq!(listed("\tnot a dynamic executable\n").unwrap(), Vec::<PathBuf>::new());
        assert_eq!(listed("\tlibx.so.1 => not found\n"), Err("libx.so.1".into()));
    }

    #[test]
    fn the_executable_is_read_from_the_messages_of_cargo() {
        let message = r#"{"target":{"name":"roceway","kind":["bin"]},"executable":"/t/roceway"}"#;
        assert_eq!(executable(message, "roceway"), Some(PathBuf::from("/t/roceway")));
        assert_eq!(executable(message, "other"), None);
        let library = r#"{"target":{"name":"roceway","kind":["lib"]},"executable":null}"#;
        assert_eq!(executable(library, "roceway"), None);
    }

    #[test]
    fn a_program_that_is_given_is_not_searched() {
        let given = BTreeMap::from([("roceway".to_owned(), PathBuf::from("/x/roceway"))]);
        let mut programs = Programs::new(PathBuf::from("/nowhere"), given, true);
        assert_eq!(programs.find("roceway").unwrap(), PathBuf::from("/x/roceway"));
        let cause = programs.find("no-such-program-here").unwrap_err().cause;
        assert_eq!(cause, "no-such-program-here is not installed");
    }
}
