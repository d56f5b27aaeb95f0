//! Scenarios: the files of `scenarios/`. Owns their heads; what they do is the guest's business.
//!
//! A scenario is a shell file that defines two functions, `a` and `b`, for the two sides; its head
//! says, one comment line each, `title`, `topologies` (pair, hosts; the first is where it runs if
//! it runs once), `programs` that it calls beyond those that every guest has, `seconds` that it may
//! take, and `checks`: every one of them must be reported, or the scenario has failed. One that
//! only measures says `brief: no`. What it may call is in `guest/lib.sh`.

use std::fmt;
use std::path::Path;

use super::{Trouble, io};

/// The longest that one scenario may take.
pub const SECONDS_MAX: u64 = 300;

/// How the two sides are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// One guest with two devices over a veth pair.
    Pair,
    /// Two guests, a device in each, joined by a virtual cable.
    Hosts,
}

impl Topology {
    /// Both, the cheaper first.
    pub const ALL: [Self; 2] = [Self::Pair, Self::Hosts];

    /// The name in scenario files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Hosts => "hosts",
        }
    }

    /// The sides that each guest plays.
    #[must_use]
    pub fn guests(self) -> &'static [&'static str] {
        match self {
            Self::Pair => &["ab"],
            Self::Hosts => &["a", "b"],
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topology| topology.name() == name)
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One file of the folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The file's name without `.sh`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Where it can run.
    pub topologies: Vec<Topology>,
    /// Programs that must be in the guest.
    pub programs: Vec<String>,
    /// How long it may take.
    pub seconds: u64,
    /// What must be reported.
    pub checks: Vec<String>,
    /// Whether it is part of a brief run.
    pub brief: bool,
    /// The whole file.
    pub text: String,
}

impl Scenario {
    /// Reads a file's head.
    ///
    /// # Errors
    ///
    /// A line of the head that is missing, twice there, unknown or without sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, Trouble> {
        let head = Head { name, text };
        let seconds = head.value("seconds")?;
        let seconds = seconds.parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
        let topologies = head.words("topologies")?;
        let scenario = Self {
            name: name.to_owned(),
            title: head.value("title")?.to_owned(),
            topologies: topologies.iter().filter_map(|word| Topology::parse(word)).collect(),
            programs: head.words("programs")?,
            seconds: seconds
                .ok_or_else(|| head.trouble(&format!("`seconds` is a number to {SECONDS_MAX}")))?,
            checks: head.words("checks")?,
            brief: head.says_yes("brief")?,
            text: text.to_owned(),
        };
        if scenario.topologies.is_empty() || scenario.topologies.len() != topologies.len() {
            return Err(head.trouble("`topologies` are pair, hosts or both"));
        }
        if scenario.checks.is_empty() {
            return Err(head.trouble("without `checks` it could not fail"));
        }
        for side in ["a() {", "b() {"] {
            if !text.lines().any(|line| line.starts_with(side)) {
                return Err(head.trouble(&format!("there is no function `{side}`")));
            }
        }
        Ok(scenario)
    }
}

struct Head<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Head<'a> {
    fn trouble(&self, what: &str) -> Trouble {
        Trouble::new(format!("scenario {}: {what}", self.name))
    }

    fn value(&self, key: &str) -> Result<&'a str, Trouble> {
        let lines = self.text.lines().take_while(|line| line.starts_with('#'));
        let mut values = lines.filter_map(|line| {
            line.trim_start_matches('#').trim_start().strip_prefix(key)?.strip_prefix(':')
        });
        let value = values.next().ok_or_else(|| self.trouble(&format!("`# {key}:` is missing")))?;
        match values.next() {
            Some(_) => Err(self.trouble(&format!("`# {key}:` stands there twice"))),
            None => Ok(value.trim()),
        }
    }

    /// A key that need not be there, and is `yes` or `no`.
    fn says_yes(&self, key: &str) -> Result<bool, Trouble> {
        let lines = self.text.lines().take_while(|line| line.starts_with('#'));
        if !lines.into_iter().any(|line| line.starts_with(&format!("# {key}:"))) {
            return Ok(true);
        }
        match self.value(key)? {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(self.trouble(&format!("`{key}` is yes or no"))),
        }
    }

    fn words(&self, key: &str) -> Result<Vec<String>, Trouble> {
        Ok(self.value(key)?.split_whitespace().map(str::to_owned).collect())
    }
}

/// The scenario of one file, named like the file.
///
/// # Errors
///
/// It cannot be read or has no proper head.
pub fn read(path: &Path) -> Result<Scenario, Trouble> {
    let text = std::fs::read_to_string(path).map_err(|error| io(path.display(), &error))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Scenario::parse(&name, &text)
}

/// All scenarios of a folder, by name.
///
/// # Errors
///
/// A file that cannot be read or has no proper head.
pub fn read_all(folder: &Path) -> Result<Vec<Scenario>, Trouble> {
    let entries = std::fs::read_dir(folder).map_err(|error| io(folder.display(), &error))?;
    let mut scenarios = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| io(folder.display(), &error))?.path();
        if path.extension().is_some_and(|end| end == "sh") {
            scenarios.push(read(&path)?);
        }
    }
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# title: A title\n# topologies: pair hosts\n# programs: one two\n\
                        # seconds: 20\n# checks: first second\n\na() {\n}\nb() {\n}\n";

    #[test]
    fn a_head_is_read() {
        let scenario = Scenario::parse("name", GOOD).unwrap();
        assert_eq!(scenario.topologies, Topology::ALL);
        assert_eq!(scenario.programs, ["one", "two"]);
        assert_eq!(scenario.checks, ["first", "second"]);
        assert_eq!((scenario.title.as_str(), scenario.seconds), ("A title", 20));
        assert!(scenario.brief);
        let measures = GOOD.replace("# seconds", "# brief: no\n# seconds");
        assert!(!Scenario::parse("name", &measures).unwrap().brief);
    }

    #[test]
    fn a_head_that_cannot_mean_anything_is_refused_with_the_reason() {
        let rows = [
            ("# title: A title\n", "", "`# title:` is missing"),
            ("# seconds: 20", "# seconds: 0", "a number to 300"),
            ("# seconds: 20", "# seconds: 301", "a number to 300"),
            ("pair hosts", "pair cloud", "pair, hosts or both"),
            ("pair hosts", "", "pair, hosts or both"),
            ("first second", "", "it could not fail"),
            ("# seconds", "# brief: perhaps\n# seconds", "`brief` is yes or no"),
            ("b() {", "c() {", "no function `b() {`"),
            ("# programs: one", "# title: again\n# programs: one", "twice"),
        ];
        for (from, to, reason) in rows {
            let text = GOOD.replace(from, to);
            let cause = Scenario::parse("name", &text).unwrap_err().cause;
            assert!(cause.contains(reason) && cause.contains("scenario name"), "{cause}");
        }
    }
}
