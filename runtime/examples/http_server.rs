//! A file server over HTTP/1.1: blocking sockets, one thread a connection.
//!
//! Without a device: server and client in one process, over a soft link; the client fetches a file.
//! With a device: serves the files below DIRECTORY (default: the current one):
//!
//! ```text
//! http_server --device tap:rw0,addr=10.0.0.1/24,up=on --address 10.0.0.2/24 --port 80 DIRECTORY
//! curl http://10.0.0.2/
//! ```
//!
//! With `--zero-copy true` files are read into buffers of the worker's and sent from there.

mod http;
mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use http::Reading;
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::settings::Settings;
use roceway_runtime::shared::{TcpListener, TcpStream, Worker};
use support::{Arguments, fail, second, soft_pair};

const USAGE: &str = "http_server [--device KIND:NAME --address ADDRESS/PREFIX] [--port N] \
     [--zero-copy true] [DIRECTORY]";
/// Bytes of the file that is fetched when there is no device.
const SHOWN: usize = 64 << 20;

fn worker(nic: AnyNic, settings: &Settings) -> Worker {
    let worker = Worker::with_nic(nic, &settings.worker, settings.manner);
    worker.unwrap_or_else(|error| fail(error))
}

fn serve_at(worker: &Worker, port: u16, root: &Path, reading: Reading) -> io::Result<()> {
    let listener = TcpListener::bind(worker, (Ipv4Addr::UNSPECIFIED, port))?;
    println!("serving {} on {}", root.display(), listener.local_addr()?);
    http::serve(&listener, root, reading)
}

/// Fetches one file and says how long that took.
fn fetch(worker: &Worker, from: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(worker, from)?;
    let start = Instant::now();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let took = start.elapsed();
    let head = http::end_of_head(&answer).ok_or(io::ErrorKind::InvalidData)?;
    let status = String::from_utf8_lossy(&answer[..head]);
    let status = status.lines().next().unwrap_or_default();
    let body = answer.len() - head;
    println!("GET {path}: {status}, {body} bytes in {took:?}");
    Ok(())
}

/// Server and client in this process.
fn show(settings: &Settings, reading: Reading) -> io::Result<()> {
    let root = std::env::temp_dir().join(format!("roceway-http-{}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("index.html"), "<p>Hello\n")?;
    std::fs::write(root.join("large"), vec![7; SHOWN])?;
    let [(one, client), (two, server)] = soft_pair(settings);
    let (client, server) = (worker(one, &client), worker(two, &server));
    let served = root.clone();
    // The server ends with the process.
    std::thread::spawn(move || serve_at(&server, 80, &served, reading));
    let fetched = ["/", "/large", "/../etc/passwd"]
        .iter()
        .try_for_each(|path| fetch(&client, second(80), path));
    std::fs::remove_dir_all(&root)?;
    fetched
}

fn main() {
    let arguments = Arguments::read(USAGE, &["port", "zero-copy"]);
    let root = arguments.rest.first().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let zero_copy = arguments.own("zero-copy").unwrap_or(false);
    let reading = if zero_copy { Reading::ZeroCopy } else { Reading::Copy };
    let done = match arguments.device() {
        Some(nic) => {
            let worker = worker(nic, &arguments.settings);
            serve_at(&worker, arguments.own("port").unwrap_or(80), &root, reading)
        }
        None => show(&arguments.settings, reading),
    };
    if let Err(error) = done {
        fail(error);
    }
}
