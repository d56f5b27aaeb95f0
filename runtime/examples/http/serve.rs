//! A connection of the file server: requests one after another, files in pieces.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use roceway_runtime::shared::{BufferMut, TcpListener, TcpStream};

use super::request::{self, HEAD_MAX, Refusal, Request};

/// Connections at once; the next one is told to come again.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take for its next request or for reading an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A file is read and written in pieces of this size.
const PIECE: usize = 64 * 1024;

/// How the bytes of a file get into the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// Read into memory of the connection's, and copied from there.
    Copy,
    /// Read into buffers of the worker's, which are sent as they are; copied while none is free.
    ZeroCopy,
}

/// Serves the files below `root` for ever, or until the listener is shut down.
pub(crate) fn serve(listener: &TcpListener, root: &Path, reading: Reading) -> io::Result<()> {
    let root = Arc::new(root.canonicalize()?);
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(()),
            Err(error) => return Err(error),
        };
        if busy.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            // It is being turned away: whether it hears why does not matter.
            let _told = answer(&mut stream, "503 Service Unavailable", false);
            continue;
        }
        busy.fetch_add(1, Ordering::Relaxed);
        let (root, busy) = (Arc::clone(&root), Arc::clone(&busy));
        thread::spawn(move || {
            // A client that goes away in between is nothing to report.
            let _ended = converse(&mut stream, &root, reading);
            busy.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(stream: &mut TcpStream, root: &Path, reading: Reading) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut received = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let end = loop {
            let end = request::end_of_head(&received);
            if end.unwrap_or(received.len()) > HEAD_MAX {
                return answer(stream, "431 Request Header Fields Too Large", false);
            }
            if let Some(end) = end {
                break end;
            }
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                n => received.extend_from_slice(&piece[..n]),
            }
        };
        let keep_alive = match request::parse(&received[..end]) {
            Ok(request) => {
                send_file(stream, root, &request, (&mut piece, reading))?;
                request.keep_alive
            }
            Err(refusal) => {
                // What the client wants of the connection, and where its next request begins, is
                // not certain.
                let status = match refusal {
                    Refusal::BadRequest => "400 Bad Request",
                    Refusal::NotFound => "404 Not Found",
                    Refusal::MethodNotAllowed => "405 Method Not Allowed",
                    Refusal::VersionNotSupported => "505 HTTP Version Not Supported",
                };
                answer(stream, status, false)?;
                false
            }
        };
        if !keep_alive {
            return Ok(());
        }
        received.drain(..end);
    }
}

/// A status with its name as the body.
fn answer(stream: &mut TcpStream, status: &str, keep_alive: bool) -> io::Result<()> {
    let length = status.len() + 1;
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    stream.write_all(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n{allow}\r\n{status}\n"
        )
        .as_bytes(),
    )
}

/// The file, if it lies below the root also once symbolic links are followed.
fn open(root: &Path, below: &Path) -> Option<(File, u64, PathBuf)> {
    let path = root.join(below).canonicalize().ok()?;
    if !path.starts_with(root) {
        return None;
    }
    let file = File::open(&path).ok()?;
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some((file, metadata.len(), path))
}

fn send_file(
    stream: &mut TcpStream,
    root: &Path,
    request: &Request,
    (piece, reading): (&mut [u8], Reading),
) -> io::Result<()> {
    let Some((file, length, path)) = open(root, &request.path) else {
        return answer(stream, "404 Not Found", request.keep_alive);
    };
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("txt" | "md" | "toml" | "rs") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let connection = if request.keep_alive { "keep-alive" } else { "close" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if request.head_only {
        return Ok(());
    }
    // No more than was promised, should the file grow; less is an error, which ends the connection.
    let mut at = 0;
    while at < length {
        let n = match reading {
            Reading::Copy => copy_some(stream, &file, (at, length), piece)?,
            Reading::ZeroCopy => match stream.worker().buffer() {
                Ok(buffer) => give_some(stream, &file, (at, length), buffer)?,
                Err(_all_in_use) => copy_some(stream, &file, (at, length), piece)?,
            },
        };
        at += u64::try_from(n).unwrap_or(0);
    }
    Ok(())
}

/// The part of a buffer that what is left of a file takes.
fn part(buffer: &mut [u8], (at, length): (u64, u64)) -> &mut [u8] {
    let left = usize::try_from(length - at).unwrap_or(usize::MAX);
    let room = buffer.len().min(left);
    &mut buffer[..room]
}

/// Bytes of a file, at least one.
fn read_some(file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
    match file.read_at(into, at)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

fn copy_some(
    stream: &mut TcpStream,
    file: &File,
    left: (u64, u64),
    piece: &mut [u8],
) -> io::Result<usize> {
    let n = read_some(file, left.0, part(piece, left))?;
    stream.write_all(&piece[..n])?;
    Ok(n)
}

/// The file's pages go straight into the worker's memory, and from there to the NIC.
fn give_some(
    stream: &TcpStream,
    file: &File,
    left: (u64, u64),
    mut buffer: BufferMut,
) -> io::Result<usize> {
    let n = read_some(file, left.0, part(&mut buffer, left))?;
    stream.give(&buffer.freeze(), 0..n)?;
    Ok(n)
}
