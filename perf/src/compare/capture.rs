//! The capture of a comparison: runs of their own, so that writing frames slows no figure. One
//! pcapng file holds a section for each row of Roceway's.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::Plan;
use super::rivals::Contender;

/// Has every contender write its frames and appends them to `path`; returns what went wrong.
pub(super) fn all(
    plan: &Plan,
    path: &Path,
    contenders: &mut [Box<dyn Contender + '_>],
) -> Vec<String> {
    let part = part_of(path);
    let mut notes = Vec::new();
    for contender in contenders {
        let name = contender.name();
        let done = contender.capture(plan, &part).and_then(|written| match written {
            true => append(&part, path).map_err(|error| error.to_string()),
            false => Ok(()),
        });
        if let Err(reason) = done {
            notes.push(format!("no frames of {name} in the capture: {reason}"));
        }
    }
    notes
}

/// Moves the contents of `part` to the end of `path`, which is made if need be. Sections of pcapng
/// may follow one another.
///
/// # Errors
/// If either file fails; then `path` has at least what it had, and `part` is gone.
pub fn append(part: &Path, path: &Path) -> io::Result<()> {
    let copied = File::open(part).and_then(|mut from| {
        let mut to = OpenOptions::new().create(true).append(true).open(path)?;
        io::copy(&mut from, &mut to)
    });
    std::fs::remove_file(part)?;
    copied.map(|_bytes| ())
}

/// Where a section is written first.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_one_another_and_vanish() {
        let folder = std::env::temp_dir().join(format!("roceway-append-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let whole = folder.join("whole.pcapng");
        for text in ["one", "two"] {
            let part = part_of(&whole);
            std::fs::write(&part, text).unwrap();
            append(&part, &whole).unwrap();
            assert!(!part.exists());
        }
        assert_eq!(std::fs::read_to_string(&whole).unwrap(), "onetwo");
        assert!(append(&folder.join("none"), &whole).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
