//! Machines written down as text, for tests: one line a file, unpacked into a temporary folder.
//!
//! `path = value`, `path -> target of a symbolic link`, `path/` for an empty folder, `#` begins a
//! remark. `\n` and `\t` in a value are what they are in Rust. The folder goes away with the
//! [`Tree`].

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder with a machine in it.
pub(crate) struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Tree {
    /// An empty one.
    pub(crate) fn new() -> Tree {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("roceway-doctor-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder");
        Tree(path)
    }

    /// The machine that `text` describes.
    pub(crate) fn of(text: &str) -> Tree {
        let tree = Tree::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((path, target)) = line.split_once(" -> ") {
                let path = tree.place(path);
                symlink(target, path).expect("a symbolic link");
            } else if let Some((path, value)) = line.split_once(" = ") {
                tree.bytes(
                    path,
                    format!("{}\n", value.replace("\\n", "\n").replace("\\t", "\t")).as_bytes(),
                );
            } else if let Some(path) = line.strip_suffix('/') {
                fs::create_dir_all(tree.0.join(path)).expect("a folder");
            } else {
                panic!("not of the form of a tree: {line}");
            }
        }
        tree
    }

    /// Where it lies.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Writes one file.
    pub(crate) fn bytes(&self, path: &str, bytes: &[u8]) {
        fs::write(self.place(path), bytes).expect("a file");
    }

    /// Takes a file or a folder away.
    pub(crate) fn remove(&self, path: &str) {
        let path = self.0.join(path);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.expect("something to remove");
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.0.join(path.trim());
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        path
    }
}
