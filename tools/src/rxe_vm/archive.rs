//! The "newc" cpio archive that the kernel unpacks as its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Owns the format; reads no files.
//!
//! Every entry is a header of 110 hexadecimal characters, the name with a zero byte, and the data,
//! each padded to four bytes. Folders come before what is in them.

use std::collections::BTreeSet;

const FOLDER_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;
const PROGRAM_MODE: u32 = 0o100_755;
const LINK_MODE: u32 = 0o120_777;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    names: BTreeSet<String>,
}

impl Archive {
    /// A program or a library: executable.
    pub fn program(&mut self, path: &str, data: &[u8]) {
        self.entry(path, PROGRAM_MODE, data);
    }

    /// A file of data.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        self.entry(path, FILE_MODE, data);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK_MODE, to.as_bytes());
    }

    /// A folder and those above it; one that is there already is no error.
    pub fn folder(&mut self, path: &str) {
        self.parents(path);
        let name = path.trim_matches('/');
        if !name.is_empty() && self.names.insert(name.to_owned()) {
            self.raw(name, FOLDER_MODE, &[]);
        }
    }

    /// Whether something of this path is in it.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.names.contains(path.trim_start_matches('/'))
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.raw("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.trim_matches('/').rsplit_once('/') {
            self.folder(parent);
        }
    }

    /// The first of two entries with the same name stays.
    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.parents(path);
        let name = path.trim_start_matches('/');
        if self.names.insert(name.to_owned()) {
            self.raw(name, mode, data);
        }
    }

    fn raw(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.inode += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("an entry is below 4 GiB");
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, device numbers, namesize, check
        let (size, name_size) = (length(data.len()), length(name.len() + 1));
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and data of every entry: a reader that shares nothing with the writer.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let total = bytes.len();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&bytes[110..109 + name_size]).unwrap().to_owned();
            let align =
                |at: usize| (total - bytes.len() + at).div_ceil(4) * 4 + bytes.len() - total;
            let start = align(110 + name_size);
            let data = bytes[start..start + size].to_vec();
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, u32::try_from(mode).unwrap(), data));
            bytes = &bytes[align(start + size)..];
        }
    }

    #[test]
    fn entries_are_read_back_with_their_folders_before_them() {
        let mut archive = Archive::default();
        archive.program("/init", b"#!/bin/sh\n");
        archive.file("/etc/deep/name", b"abc");
        archive.file("/etc/deep/name", b"the second is left out");
        archive.link("/lib", "usr/lib");
        archive.folder("/etc");
        assert!(archive.contains("/etc/deep/name") && !archive.contains("/etc/name"));
        let entries = read(&archive.finish());
        let expected: [(&str, u32, &[u8]); 5] = [
            ("init", 0o100_755, b"#!/bin/sh\n"),
            ("etc", 0o040_755, b""),
            ("etc/deep", 0o040_755, b""),
            ("etc/deep/name", 0o100_644, b"abc"),
            ("lib", 0o120_777, b"usr/lib"),
        ];
        assert_eq!(entries.len(), expected.len());
        for (entry, expected) in entries.iter().zip(expected) {
            assert_eq!((entry.0.as_str(), entry.1, entry.2.as_slice()), expected);
        }
    }
}
