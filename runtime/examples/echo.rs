//! An echo server made of tasks, one a connection.
//!
//! Without arguments: a server and a client in one process, over a soft link.
//! With a device: a server on port 7, or a client with `--connect ADDRESS:PORT`:
//!
//! ```text
//! echo --device tap:rw0,addr=10.0.0.1/24,up=on --address 10.0.0.2/24
//! ```

mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use futures_util::io::{AsyncReadExt, AsyncWriteExt, copy};
use roceway_runtime::asynchronous::{Executor, Handle, TcpListener, TcpStream};
use roceway_runtime::local::Worker;
use support::{Arguments, fail, second, soft_pair};

const USAGE: &str = "echo [--device KIND:NAME --address ADDRESS/PREFIX] [--connect ADDRESS:PORT]";
const PORT: u16 = 7;
const GREETINGS: u32 = 10_000;

async fn serve(handle: Handle) -> io::Result<()> {
    let listener = TcpListener::bind(&handle, SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let task = handle.spawn("echo", async move {
            match copy(&stream, &mut &stream).await {
                Ok(bytes) => println!("{peer}: {bytes} bytes back"),
                Err(error) => println!("{peer}: {error}"),
            }
        });
        match task {
            Some(task) => task.detach(),
            None => return Ok(()),
        }
    }
}

async fn greet(handle: Handle, to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(&handle, to).await?;
    stream.set_nodelay(true)?;
    let greeting = b"hello";
    let mut answer = [0; 5];
    let start = Instant::now();
    for _ in 0..GREETINGS {
        stream.write_all(greeting).await?;
        stream.read_exact(&mut answer).await?;
        if answer != *greeting {
            return Err(io::Error::other("the echo says something else"));
        }
    }
    println!("{GREETINGS} greetings, {:?} each", start.elapsed() / GREETINGS);
    stream.close().await
}

fn main() {
    let arguments = Arguments::read(USAGE, &["connect"]);
    let start = |nic, settings: &roceway_runtime::settings::Settings| {
        let worker = Worker::with_nic(nic, &settings.worker);
        Executor::new(worker.unwrap_or_else(|error| fail(error)))
    };
    let done = match arguments.device() {
        Some(nic) => {
            let executor = start(nic, &arguments.settings);
            let handle = executor.handle().clone();
            match arguments.own::<SocketAddr>("connect") {
                Some(to) => executor.run(greet(handle, to)),
                None => executor.run(serve(handle)),
            }
        }
        None => {
            let [(one, client), (two, server)] = soft_pair(&arguments.settings);
            // The server ends with the process.
            std::thread::spawn(move || {
                let executor = start(two, &server);
                let _ends_with_the_process = executor.run(serve(executor.handle().clone()));
            });
            let executor = start(one, &client);
            executor.run(greet(executor.handle().clone(), second(PORT)))
        }
    };
    if let Err(error) = done.and_then(|outcome| outcome) {
        fail(error);
    }
}
