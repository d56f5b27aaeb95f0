//! Both ends of a test in this process: a server thread and the calling thread, each on its core.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use crate::client::{self, TestError};
use crate::kernel::{Kernel, Waiting};
use crate::recorder::Recorder;
use crate::server::{Server, serve_blocking};
use crate::transport::Transport;
use crate::workload::{Outcome, Workload};

/// The cores of the two ends; none leaves the choice to the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cores {
    /// Of the client.
    pub client: Option<usize>,
    /// Of the server.
    pub server: Option<usize>,
}

/// Pins the calling thread, if a core is given.
///
/// # Errors
/// If the core does not exist or may not be used.
pub fn pin(core: Option<usize>) -> io::Result<()> {
    let Some(id) = core else { return Ok(()) };
    if core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    let what = format!("cannot run on cpu {id}: it does not exist or is not allowed here");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Runs `body` against a server that runs on its own thread and transport until `body` is done.
///
/// # Errors
/// If the server cannot start, else what `body` fails with.
pub fn with_server<T: Transport, V>(
    core: Option<usize>,
    address: SocketAddr,
    open: impl FnOnce() -> io::Result<T> + Send,
    serve: impl FnOnce(&mut T, &mut Server<T>, &Arc<AtomicBool>) -> io::Result<()> + Send,
    body: impl FnOnce(SocketAddr) -> Result<V, TestError>,
) -> Result<V, TestError> {
    let stop = Arc::new(AtomicBool::new(false));
    let failed = |source| TestError::Io { what: "the server's end".into(), source };
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = scope.spawn(move || -> io::Result<()> {
            pin(core)?;
            let mut transport = open()?;
            let mut server = Server::listen(&mut transport, address)?;
            let bound = server.addresses(&transport)?;
            let _ = bound.first().map(|first| tell.send(*first));
            serve(&mut transport, &mut server, &stopped)
        });
        let result = told.recv().ok().map(body);
        stop.store(true, Ordering::Relaxed);
        let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread died")));
        match (ended, result) {
            (Err(source), None | Some(Err(_))) => Err(failed(source)),
            (_, Some(result)) => result,
            (Ok(()), None) => Err(failed(io::ErrorKind::NotConnected.into())),
        }
    })
}

/// Runs a test over the host kernel with both ends here. The calling thread is pinned.
///
/// # Errors
/// If either end fails.
pub fn kernel(
    waiting: Waiting,
    workload: &Workload,
    cores: Cores,
    address: SocketAddr,
    watch: &mut (dyn FnMut(&Recorder) + Send),
) -> Result<Outcome, TestError> {
    let options = workload.buffers;
    with_server(
        cores.server,
        address,
        || Kernel::new(waiting, options),
        |transport, server, stop| match waiting {
            Waiting::Block => serve_blocking(transport, server, stop),
            Waiting::Spin | Waiting::Epoll => server.serve(transport, stop),
        },
        |server| kernel_client(waiting, workload, cores.client, server, watch),
    )
}

/// Runs the client of a test over the host kernel. The calling thread is pinned.
///
/// # Errors
/// If the test fails.
pub fn kernel_client(
    waiting: Waiting,
    workload: &Workload,
    core: Option<usize>,
    server: SocketAddr,
    watch: &mut (dyn FnMut(&Recorder) + Send),
) -> Result<Outcome, TestError> {
    let failed = |source| TestError::Io { what: "this end".into(), source };
    pin(core).map_err(failed)?;
    match waiting {
        Waiting::Block => client::test_blocking(waiting, workload, server, watch),
        Waiting::Spin | Waiting::Epoll => {
            let mut transport = Kernel::new(waiting, workload.buffers).map_err(failed)?;
            client::test(&mut transport, workload, server, watch)
        }
    }
}
