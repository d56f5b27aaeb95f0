//! Connections opened and closed, one after the other: the client sends its FIN first and keeps the
//! TIME-WAIT, and all go to one port of the server, so that a run of ten seconds uses each of the
//! client's ports many times. Nobody closes by a reset.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::{Prefix, WorkerConfig};

use super::rivals::{Case, Contender, measured, workload};
use super::{Measured, Plan};
use crate::arithmetic::real;
use crate::ends::{self, ADDRESSES, Opening};
use crate::flow::{ConnectResponder, Connector, Flow, Run};
use crate::histogram::Latency;
use crate::kernel::{Kernel, SocketOptions, Waiting};
use crate::local::pin;
use crate::recorder::{Counted, Recorder, Until, Window};
use crate::report::Place;
use crate::roceway::Roceway;
use crate::state::WorkerState;
use crate::transport::{Role, Transport};
use crate::workload::{Outcome, Remote, Workload};

/// How long a link may take to come up.
const LINK_NS_MAX: u64 = 10_000_000_000;
/// Requests and responses have one byte.
const SIZES: (usize, usize) = (1, 1);
/// Ports that both stacks choose from unless told otherwise: 32768 to 60999.
const PORTS: f64 = 28_232.0;

/// Whose connections.
#[derive(Debug)]
pub(super) enum ChurnRival {
    /// Roceway's over the soft link; what the client's TCP counted in the last run.
    Roceway(Option<(u64, [u64; 3])>),
    /// The kernel's over loopback.
    Kernel,
}

/// Both.
pub(super) fn both() -> Vec<Box<dyn Contender>> {
    vec![Box::new(ChurnRival::Roceway(None)), Box::new(ChurnRival::Kernel)]
}

fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

/// What the kernel does about ports in TIME-WAIT: 0 never uses them again, 1 does after a second,
/// 2 does over loopback only.
fn time_wait_reuse() -> String {
    let path = "/proc/sys/net/ipv4/tcp_tw_reuse";
    std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// TCP counters of an end that say how it went: TIME-WAITs used again, resets either way.
fn told(state: &WorkerState) -> [u64; 3] {
    ["time_waits_reused", "resets_sent", "resets_received"].map(|wanted| {
        let found =
            state.counters.iter().find(|(layer, name, _)| (*layer, *name) == ("tcp", wanted));
        found.map_or(0, |(_, _, value)| *value)
    })
}

/// Serves connections until it is told to stop; returns what it counted, with CPU time.
fn serve<T: Transport>(
    transport: &mut T,
    address: SocketAddr,
    tell: &mpsc::Sender<SocketAddr>,
    stop: &AtomicBool,
) -> Result<(Counted, u64), String> {
    let role = Role::of_data(transport.manner(), 1);
    let listener = transport.listen(address, role, 0).map_err(text)?;
    let at = transport.listener_address(&listener).map_err(text)?;
    let responder = ConnectResponder::new(listener, 0, SIZES, false).client_closes_first();
    let mut flows = [Flow::ConnectRespond(responder)];
    let window =
        Window { warmup: std::time::Duration::ZERO, until: Until::PeerEnds, interval: None };
    let mut recorder = Recorder::new(window, None, transport.now_ns());
    let before = transport.cpu_ns();
    let mut run = Run::new(transport, &mut flows, &recorder);
    let _client_waits = tell.send(at);
    while !stop.load(Ordering::Relaxed) {
        run.turn(transport, &mut recorder, &mut |_| ()).map_err(text)?;
    }
    Ok((recorder.counted().clone(), transport.cpu_ns().saturating_sub(before)))
}

/// Opens and closes connections for as long as the workload says.
fn connect<T: Transport>(
    transport: &mut T,
    to: SocketAddr,
    workload: &Workload,
) -> Result<(Recorder, u64), String> {
    let role = Role::of_data(transport.manner(), 1);
    let mut flows = [Flow::Connect(Connector::new(to, (role, 0), SIZES, None))];
    let mut recorder = Recorder::new(workload.window, Some(Latency::new()), transport.now_ns());
    let cpu = crate::flow::run(transport, &mut flows, &mut recorder, &mut |_| ()).map_err(text)?;
    Ok((recorder, cpu.0))
}

/// Runs both ends, each on its core with its transport.
fn pair<S: Transport, C: Transport>(
    plan: &Plan,
    workload: &Workload,
    server: impl FnOnce() -> Result<(S, SocketAddr), String> + Send,
    client: impl FnOnce() -> Result<C, String>,
) -> Result<(Outcome, C), String> {
    let stop = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let (stopped, tell) = (&stop, tell);
        let thread = scope.spawn(move || {
            pin(plan.cores.server).map_err(text)?;
            let (mut transport, address) = server()?;
            serve(&mut transport, address, &tell, stopped)
        });
        let run = || -> Result<_, String> {
            pin(plan.cores.client).map_err(text)?;
            let mut transport = client()?;
            let to = told.recv().map_err(|_| "the server does not start".to_owned())?;
            let ran = connect(&mut transport, to, workload)?;
            Ok((ran, transport))
        };
        let ran = run();
        stop.store(true, Ordering::Relaxed);
        let served = thread.join().map_err(|_| "the server's thread died".to_owned())?;
        let ((recorder, cpu_ns), transport) = ran?;
        let (there, there_cpu_ns) = served?;
        let (counted, latency, samples) = recorder.into_parts();
        let remote = Remote {
            cpu_ns: Some(there_cpu_ns),
            transactions: there.transactions,
            bytes: there.bytes,
            elapsed_ns: there.elapsed_ns,
        };
        Ok((Outcome { counted, latency, samples, cpu_ns, remote }, transport))
    })
}

fn end(nic: AnyNic, index: usize, core: Option<usize>) -> Result<Roceway, String> {
    let config = WorkerConfig::new(Prefix { address: ADDRESSES[index].into(), length: 24 });
    let opening = Opening::new(config.spinning(), SocketOptions::default());
    opening.at(ADDRESSES[index], core).start(nic, "an end").map_err(text)
}

impl ChurnRival {
    fn place(&self) -> Place {
        let (stack, device, mode) = match self {
            Self::Roceway(_) => ("roceway", "soft", "client closes".to_owned()),
            Self::Kernel => {
                ("kernel", "loopback", format!("spin, tcp_tw_reuse {}", time_wait_reuse()))
            }
        };
        Place { stack: stack.into(), device: device.into(), mode: Some(mode) }
    }
}

impl Contender for ChurnRival {
    fn name(&self) -> String {
        let Place { stack, device, mode } = self.place();
        format!("{stack}, {device}, {}, TCP_CRR", mode.unwrap_or_default())
    }

    fn notes(&self) -> Vec<String> {
        let Self::Roceway(Some((connections, [reused, sent, received]))) = self else {
            return Vec::new();
        };
        vec![format!(
            "TCP_CRR: in Roceway's last run {connections} connections used the client's ports \
             {:.0} times over; {reused} TIME-WAITs were used again by timestamps, {sent} resets \
             sent, {received} received",
            real(*connections) / PORTS
        )]
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let workload = workload(Case::named("TCP_CRR").ok_or("there is no such test")?, plan);
        let outcome = match self {
            Self::Roceway(last) => {
                let (here, there) = ends::soft_pair(&SoftOptions::default()).map_err(text)?;
                let at = SocketAddr::new(ADDRESSES[1].into(), 7);
                let server = || Ok((end(there, 1, plan.cores.server)?, at));
                let client = || {
                    let mut client = end(here, 0, plan.cores.client)?;
                    client.wait_for_link(LINK_NS_MAX).map_err(text)?;
                    Ok(client)
                };
                let (outcome, transport) = pair(plan, &workload, server, client)?;
                *last = Some((outcome.counted.transactions, told(&transport.state())));
                outcome
            }
            Self::Kernel => {
                let kernel = || Kernel::new(Waiting::Spin, SocketOptions::default()).map_err(text);
                let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
                pair(plan, &workload, || Ok((kernel()?, any)), kernel)?.0
            }
        };
        Ok(measured(&workload, &self.place(), outcome))
    }
}
