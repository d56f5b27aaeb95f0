//! The files in which a kernel tells of itself, below a root that is `/` or a recorded tree.
//!
//! Owns every read of sysfs and procfs, and its bounds. Nothing that it reads is believed: a value
//! is short text without control characters, or it is left out and named in [`Sysfs::skipped`].
//! What is simply not there (also: a device that went away while it was read, an attribute that
//! does not apply) is no fact and no error. Never writes, never blocks on a pipe.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

/// Longest value; sysfs gives a page at most.
const VALUE_LEN_MAX: u64 = 4096;
/// Longest file that is searched: `modules.dep` of a distribution's kernel has under 1 MiB.
const FILE_LEN_MAX: u64 = 4 << 20;
/// Most entries of a folder.
const ENTRIES_MAX: usize = 4096;
/// Most facts that are named as unreadable.
const SKIPPED_MAX: usize = 64;

/// A fact that is there and could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Skip {
    /// Its file, from the root.
    pub(crate) path: String,
    /// Why.
    pub(crate) why: String,
}

/// A tree of sysfs, procfs and `/etc`.
#[derive(Debug)]
pub(crate) struct Sysfs {
    root: PathBuf,
    skipped: RefCell<Vec<Skip>>,
}

impl Sysfs {
    /// The tree below `root`.
    pub(crate) fn below(root: &Path) -> Self {
        Self { root: root.to_path_buf(), skipped: RefCell::default() }
    }

    /// Where the tree lies.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What could not be read so far; at most 64 facts are named.
    pub(crate) fn skipped(&self) -> Vec<Skip> {
        self.skipped.borrow().clone()
    }

    /// The path of a file of this tree.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }

    /// Whether something is there.
    pub(crate) fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// One value: a line of at most 4 KiB, without blanks at its ends. An empty one is none.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let text = self.read(name, VALUE_LEN_MAX)?;
        let value = text.trim();
        if value.chars().any(char::is_control) {
            self.skip(name, "it is not one line of text");
            return None;
        }
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// A number.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        let value = self.value(name)?;
        let number = value.parse().ok();
        if number.is_none() {
            self.skip(name, "it is not a number of the expected range");
        }
        number
    }

    /// A text of several lines; control characters other than tabs are replaced.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.read(name, FILE_LEN_MAX)?;
        let plain = |c: char| if c.is_control() && !"\n\t".contains(c) { '?' } else { c };
        Some(text.chars().map(plain).collect())
    }

    /// The names in a folder, sorted; those that are not plain text are left out.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(error) => {
                self.skip_error(folder, &error);
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for entry in entries.flatten() {
            if names.len() == ENTRIES_MAX {
                self.skip(folder, "more than 4096 entries; the rest is left out");
                break;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.chars().any(char::is_control) {
                names.push(name);
            }
        }
        names.sort();
        names
    }

    /// The last name of the path that a symbolic link points to.
    pub(crate) fn link_name(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.path(name)).ok()?;
        let last = target.file_name()?.to_str()?;
        (!last.chars().any(char::is_control)).then(|| last.to_owned())
    }

    /// A whole file as text, if it is not longer than `max_len` bytes.
    fn read(&self, name: &str, max_len: u64) -> Option<String> {
        let mut bytes = Vec::new();
        // A pipe that someone put there must not stop us.
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(self.path(name));
        let result = opened.and_then(|file| file.take(max_len + 1).read_to_end(&mut bytes));
        if let Err(error) = result {
            self.skip_error(name, &error);
            return None;
        }
        if u64::try_from(bytes.len()).is_ok_and(|len| len > max_len) {
            self.skip(name, "it is too long");
            return None;
        }
        let text = String::from_utf8(bytes).ok();
        if text.is_none() {
            self.skip(name, "it is not text");
        }
        text
    }

    fn skip_error(&self, name: &str, error: &io::Error) {
        // What is not there, or no longer, or has no meaning for this device (sysfs answers EINVAL
        // for the type of an empty GID, EOPNOTSUPP for the speed of a virtual interface).
        let absent = [
            libc::ENOENT,
            libc::ENOTDIR,
            libc::ENODEV,
            libc::ENXIO,
            libc::EINVAL,
            libc::EOPNOTSUPP,
        ];
        if !error.raw_os_error().is_some_and(|errno| absent.contains(&errno)) {
            self.skip(name, &error.to_string());
        }
    }

    fn skip(&self, name: &str, why: &str) {
        let mut skipped = self.skipped.borrow_mut();
        if skipped.len() < SKIPPED_MAX {
            let plain = |c: char| if c.is_control() { '?' } else { c };
            let path = name.chars().map(plain).collect();
            skipped.push(Skip { path, why: why.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tree::Tree;

    #[test]
    fn a_value_is_short_plain_text_or_a_skipped_fact() {
        let long = "x".repeat(5000);
        let rows: [(&str, &[u8], Option<&str>, usize); 8] = [
            ("plain", b"4: ACTIVE\n", Some("4: ACTIVE"), 0),
            ("no newline", b"1500", Some("1500"), 0),
            ("empty", b"", None, 0),
            ("blanks", b" \n", None, 0),
            ("too long", long.as_bytes(), None, 1),
            ("an escape sequence", b"\x1b[2Jmlx5", None, 1),
            ("two lines", b"a\nb", None, 1),
            ("no text", b"\xff\xfe", None, 1),
        ];
        for (name, bytes, value, skipped) in rows {
            let tree = Tree::new();
            tree.bytes("sys/a", bytes);
            let sysfs = Sysfs::below(tree.root());
            assert_eq!(sysfs.value("/sys/a").as_deref(), value, "{name}");
            assert_eq!(sysfs.skipped().len(), skipped, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_no_error_and_what_cannot_be_read_is_named() {
        let tree = Tree::new();
        tree.bytes("sys/folder/file", b"x");
        tree.bytes("sys/number", b"many");
        let sysfs = Sysfs::below(tree.root());
        assert_eq!(sysfs.value("/sys/none"), None);
        assert_eq!(sysfs.value("/sys/folder/file/below"), None);
        assert!(sysfs.names("/sys/none").is_empty());
        assert!(sysfs.skipped().is_empty());
        assert_eq!(sysfs.value("/sys/folder"), None);
        assert_eq!(sysfs.number::<u32>("/sys/number"), None);
        let paths: Vec<_> = sysfs.skipped().into_iter().map(|skip| skip.path).collect();
        assert_eq!(paths, ["/sys/folder", "/sys/number"]);
    }

    #[test]
    fn skipped_facts_are_bounded() {
        let tree = Tree::new();
        tree.bytes("sys/garbage", b"\x07");
        let sysfs = Sysfs::below(tree.root());
        for _ in 0..SKIPPED_MAX + 5 {
            assert_eq!(sysfs.value("/sys/garbage"), None);
        }
        assert_eq!(sysfs.skipped().len(), SKIPPED_MAX);
    }
}
