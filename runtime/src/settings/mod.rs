//! Configuration as users write it: flags, then `ROCEWAY_*` variables, then a TOML file, then the
//! defaults. What stands earlier in that order wins, setting by setting.
//!
//! The same names everywhere: `tcp.send_buffer` is `--set tcp.send_buffer=1MiB`,
//! `ROCEWAY_TCP_SEND_BUFFER=1MiB`, and `send_buffer = "1MiB"` in the table `[tcp]`. Every mistake
//! is answered with where it stands and what would be right; nothing is ignored.

mod keys;
mod value;

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use keys::{KEYS, Key};
use value::Value;

use crate::config::{Prefix, WorkerConfig};
use crate::shared::Manner;

/// What the variables begin with.
const PREFIX: &str = "ROCEWAY_";
/// The variable that names the file.
const FILE_VARIABLE: &str = "ROCEWAY_CONFIG";
/// Variables that others read: which libraries verbs are found in, and the tests' double of them.
const NOT_OURS: [&str; 3] = ["ROCEWAY_LIBIBVERBS", "ROCEWAY_LIBRDMACM", "ROCEWAY_DOUBLE"];
/// Longest file that is read.
const FILE_LEN_MAX: u64 = 1 << 20;

/// What a command line says. A program fills in what its user gave.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The TOML file; without it, the one that `ROCEWAY_CONFIG` names, if it does.
    pub config: Option<PathBuf>,
    /// Settings by name, in order: the program's own flags, such as `("device", "tap:rw0")`, and
    /// those of a general one such as `--set NAME=VALUE`, split by [`Flags::set`].
    pub settings: Vec<(String, String)>,
}

impl Flags {
    /// Adds a setting under its name.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.settings.push((name.to_owned(), value.into()));
    }

    /// Adds a setting written `NAME=VALUE`.
    ///
    /// # Errors
    /// If there is no equals sign.
    pub fn set(&mut self, text: &str) -> Result<(), SettingsError> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| SettingsError::NoValue { text: text.to_owned() })?;
        self.add(name.trim(), value.trim());
        Ok(())
    }
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The device, for [`crate::local::Worker::open`]; `None` if none was named.
    pub device: Option<String>,
    /// Who turns a shared worker.
    pub manner: Manner,
    /// What the worker is told.
    pub worker: WorkerConfig,
    /// What was understood otherwise than it was written, a line each, for people.
    pub notices: Vec<String>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path}, line {line}: {cause}")]
    Toml {
        /// The file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        cause: String,
    },
    /// No setting has this name.
    #[error("{place}: there is no setting `{name}`{}", nearest_text(.nearest.as_deref()))]
    Unknown {
        /// Where it stands.
        place: String,
        /// What was written.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("{place}: `{value}` is no value for {name}: it must be {wanted}")]
    Value {
        /// Where it stands.
        place: String,
        /// The setting.
        name: String,
        /// What was written.
        value: String,
        /// What would be right.
        wanted: String,
    },
    /// A setting without a value.
    #[error("`{text}` sets nothing: write NAME=VALUE")]
    NoValue {
        /// What was written.
        text: String,
    },
}

fn nearest_text(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

impl Settings {
    /// The defaults: no device, no address.
    #[must_use]
    pub fn new() -> Settings {
        let nowhere = Prefix { address: std::net::Ipv4Addr::UNSPECIFIED.into(), length: 1 };
        let worker = WorkerConfig { addresses: Vec::new(), ..WorkerConfig::new(nowhere) };
        Settings { device: None, manner: Manner::default(), worker, notices: Vec::new() }
    }

    /// The configuration of this process: its environment, and the flags.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load(flags: &Flags) -> Result<Settings, SettingsError> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()));
        Settings::from(flags, variables)
    }

    /// As [`Settings::load`], with these environment variables.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn from(
        flags: &Flags,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Settings, SettingsError> {
        let ours = |name: &str| name.starts_with(PREFIX) && !NOT_OURS.contains(&name);
        let mut variables: Vec<(String, String)> =
            variables.into_iter().filter(|(name, _)| ours(name)).collect();
        let named = variables.iter().position(|(name, _)| name == FILE_VARIABLE);
        let named = named.map(|index| PathBuf::from(variables.swap_remove(index).1));
        let mut settings = Settings::new();
        if let Some(path) = flags.config.clone().or(named) {
            let shown = path.display().to_string();
            let text = read(&path)
                .map_err(|source| SettingsError::File { path: shown.clone(), source })?;
            settings.apply_toml(&shown, &text)?;
        }
        // In order, so that of several mistakes always the same one is told.
        variables.sort_unstable();
        for (variable, value) in &variables {
            settings.apply_variable(variable, value)?;
        }
        let mut before: Vec<&str> = Vec::new();
        for (name, value) in &flags.settings {
            // A flag that is given several times adds to a list.
            let list = before.contains(&name.as_str()) && LISTS.contains(&name.as_str());
            before.push(name);
            settings.apply("command line", name, value, list)?;
        }
        Ok(settings)
    }

    /// Takes the settings of a TOML document; `path` is its name in errors.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn apply_toml(&mut self, path: &str, text: &str) -> Result<(), SettingsError> {
        let table = DeTable::parse(text).map_err(|error| SettingsError::Toml {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            cause: error.message().to_owned(),
        })?;
        self.apply_table(&Document { path, text }, "", table.get_ref())
    }

    fn apply_table(
        &mut self,
        document: &Document<'_>,
        prefix: &str,
        table: &DeTable<'_>,
    ) -> Result<(), SettingsError> {
        for (key, value) in table {
            let place = document.place(key.span().start);
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if prefix.is_empty() && is_table(&name) => {
                    self.apply_table(document, &format!("{name}."), inner)?;
                }
                _ => {
                    let text = text_of(value).ok_or_else(|| match find(&name) {
                        Some(key) => wrong(&place, key, "this", key.form),
                        None => unknown(&place, &name),
                    })?;
                    self.apply(&place, &name, &text, false)?;
                }
            }
        }
        Ok(())
    }

    fn apply_variable(&mut self, variable: &str, value: &str) -> Result<(), SettingsError> {
        let found = KEYS.iter().find(|key| variable_of(key.name) == variable);
        let Some(key) = found else {
            let names = KEYS.iter().map(|key| variable_of(key.name));
            return Err(SettingsError::Unknown {
                place: "environment".to_owned(),
                name: variable.to_owned(),
                nearest: nearest(variable, names.chain([FILE_VARIABLE.to_owned()])),
            });
        };
        (key.set)(self, Value(value.trim())).map_err(|wanted| wrong(variable, key, value, &wanted))
    }

    fn apply(
        &mut self,
        place: &str,
        name: &str,
        value: &str,
        add: bool,
    ) -> Result<(), SettingsError> {
        let key = find(name).ok_or_else(|| unknown(place, name))?;
        let (addresses, gateways) = if add {
            (self.worker.addresses.clone(), self.worker.gateways.clone())
        } else {
            (Vec::new(), Vec::new())
        };
        (key.set)(self, Value(value.trim())).map_err(|wanted| wrong(place, key, value, &wanted))?;
        match name {
            "address" => drop(self.worker.addresses.splice(0..0, addresses)),
            "gateway" => drop(self.worker.gateways.splice(0..0, gateways)),
            _ => {}
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new()
    }
}

/// Settings that are lists.
const LISTS: [&str; 2] = ["address", "gateway"];

struct Document<'a> {
    path: &'a str,
    text: &'a str,
}

impl Document<'_> {
    fn place(&self, at: usize) -> String {
        format!("{}, line {}", self.path, line_of(self.text, at))
    }
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length > FILE_LEN_MAX) {
        return Err(std::io::Error::other("longer than 1 MiB: is this a configuration?"));
    }
    Ok(text)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

/// Whether any setting lies in a table of this name.
fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(table, _)| table == name))
}

/// A value of a file as a flag would have it; `None` for what no setting can be.
fn text_of(value: &Spanned<DeValue<'_>>) -> Option<String> {
    Some(match value.get_ref() {
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(on) => (if *on { "on" } else { "off" }).to_owned(),
        DeValue::Array(values) => {
            values.iter().map(text_of).collect::<Option<Vec<String>>>()?.join(",")
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The variable of a setting.
fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('.', "_"))
}

fn unknown(place: &str, name: &str) -> SettingsError {
    SettingsError::Unknown {
        place: place.to_owned(),
        name: name.to_owned(),
        nearest: nearest(name, KEYS.iter().map(|key| key.name.to_owned())),
    }
}

fn wrong(place: &str, key: &Key, value: &str, wanted: &str) -> SettingsError {
    SettingsError::Value {
        place: place.to_owned(),
        name: key.name.to_owned(),
        value: value.to_owned(),
        wanted: wanted.to_owned(),
    }
}

/// The name that is most like this one, or that it is the last part of; `None` if none is like it.
fn nearest(name: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let likeness = |candidate: &str| {
        let last = candidate.rsplit('.').next().unwrap_or(candidate);
        strsim::jaro_winkler(name, candidate).max(strsim::jaro_winkler(name, last))
    };
    let rated = names.map(|candidate| (likeness(&candidate), candidate));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then_some(best.1)
}

#[cfg(test)]
mod tests;
