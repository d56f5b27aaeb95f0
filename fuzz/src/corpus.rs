//! Inputs as they lie in the tree: one file a target, each input behind its 16-bit length.

use std::io;
use std::path::{Path, PathBuf};

/// The folder of this crate.
fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The file with a target's inputs.
#[must_use]
pub fn path(target: &str) -> PathBuf {
    home().join("corpus").join(target)
}

/// The folder for inputs that made a target fail; not in the tree.
#[must_use]
pub fn artifacts() -> PathBuf {
    home().join("artifacts")
}

/// A target's inputs; none if there is no file.
///
/// # Errors
/// If the file cannot be read or is cut short.
pub fn load(target: &str) -> io::Result<Vec<Vec<u8>>> {
    match std::fs::read(path(target)) {
        Ok(bytes) => unpack(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn unpack(mut rest: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length));
        let Some((input, tail)) = tail.split_at_checked(length) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the corpus is cut short"));
        };
        inputs.push(input.to_vec());
        rest = tail;
    }
    Ok(inputs)
}

/// Writes a target's inputs.
///
/// # Errors
/// If an input is longer than 65,535 bytes, or the file cannot be written.
pub fn save(target: &str, inputs: &[Vec<u8>]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for input in inputs {
        let length = u16::try_from(input.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(input);
    }
    std::fs::create_dir_all(home().join("corpus"))?;
    std::fs::write(path(target), bytes)
}

/// A single input from a file of its own, or all of a folder, as other fuzzers keep them.
///
/// # Errors
/// If they cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    if !path.is_dir() {
        return Ok(vec![std::fs::read(path)?]);
    }
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(path)? {
        inputs.push(std::fs::read(entry?.path())?);
    }
    Ok(inputs)
}
