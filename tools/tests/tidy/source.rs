//! The files that the tidy test reads, and what it says of them.

use crate::mask;
use std::fmt;
use std::fs;
use std::path::Path;

/// Folders of the workspace that hold Rust code; `fuzz` may be missing.
pub(crate) const FOLDERS: [&str; 7] =
    ["stack", "rdma-virtio", "busypoll", "runtime", "perf", "tools", "fuzz"];

/// A Rust file.
pub(crate) struct Source {
    /// From the workspace's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the insides of literals blanked; the same lines and columns in
    /// bytes.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_string(), text: text.to_string(), code: mask::mask(text) }
    }

    /// Files that hold tests only.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
    }

    pub(crate) fn finding(&self, rule: &'static str, line: usize, what: String) -> Finding {
        Finding { rule, path: self.path.clone(), line, item: String::new(), what }
    }
}

/// Something to do.
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) path: String,
    pub(crate) line: usize,
    /// The function, where there is one: an exception names it.
    pub(crate) item: String,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {} [{}]", self.path, self.line, self.what, self.rule)
    }
}

/// All Rust files of the workspace, by path.
pub(crate) fn read_all(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        read_folder(root, &root.join(folder), &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn read_folder(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("corpus") {
                read_folder(root, &path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy();
            // A file that another process removes meanwhile is not there.
            if let Ok(text) = fs::read_to_string(&path) {
                sources.push(Source::new(&name, &text));
            }
        }
    }
}
