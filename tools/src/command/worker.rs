//! A test or a server over Roceway: from settings to ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roceway_busypoll::Spin;
use roceway_perf::client::TestError;
use roceway_perf::ends::{self, ADDRESSES, Handles, Opening};
use roceway_perf::kernel::SocketOptions;
use roceway_perf::local::Cores;
use roceway_perf::recorder::Recorder;
use roceway_perf::report::Setting;
use roceway_perf::server::Server;
use roceway_perf::state::WorkerState;
use roceway_perf::transport::Transport;
use roceway_perf::workload::{Outcome, Workload};
use roceway_runtime::StartError;
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::rdma_virtio::nic::spec::DeviceSpec;
use roceway_runtime::settings::Settings;
use roceway_runtime::shared::Manner;
use rustix::io::Errno;

use super::common::{Common, on_signal};
use super::{Failure, print};

/// What the workers tell of themselves, with whose each is.
pub(crate) type States = Vec<(&'static str, WorkerState)>;

/// A test over Roceway.
pub(crate) struct WorkerTest<'a> {
    /// Device and worker.
    pub(crate) settings: &'a Settings,
    /// The cores of the ends that are here.
    pub(crate) cores: Cores,
    /// Whether counters were asked for.
    pub(crate) counters: bool,
    /// The sockets that it uses.
    pub(crate) handles: Handles,
    /// Whether streams go without copies.
    pub(crate) zero_copy: bool,
}

impl WorkerTest<'_> {
    fn opening(&self, options: SocketOptions) -> Result<Opening, Failure> {
        let mut opening = Opening::new(self.settings.worker.clone(), options);
        opening.keep_end = self.counters;
        opening.handles = self.handles;
        opening.zero_copy = self.zero_copy;
        opening.asked = Some(Common::on_user_signal()?);
        Ok(opening)
    }

    /// Whether the device can be meant, and the command line names both it and a host, or neither.
    pub(crate) fn check(&self, host: bool) -> Result<(), Failure> {
        if let Some(device) = &self.settings.device {
            check_device(device, self.settings)?;
        }
        if self.zero_copy && matches!(self.handles, Handles::Shared(_)) {
            let text = "--zero-copy needs the worker's own sockets: --sockets inside or between";
            return Err(Failure::Usage(text.into()));
        }
        let text = match (self.settings.device.is_some(), host) {
            (true, false) => {
                "HOST is missing: with --device the server is at the other end of the device; \
                 without it both ends run here, over a soft link"
            }
            (false, true) => "--device is missing: say through which one HOST is reached",
            (true, true) | (false, false) => return Ok(()),
        };
        Err(Failure::Usage(text.into()))
    }

    /// Runs it.
    pub(crate) fn run(
        &self,
        workload: &Workload,
        server: Option<SocketAddr>,
        watch: &mut dyn FnMut(&Recorder),
    ) -> Result<(Outcome, States), Failure> {
        if matches!(self.handles, Handles::Shared(_)) && workload.connections > 1 {
            let cause = "--sockets shared takes one connection: its calls wait";
            return Err(Failure::Usage(cause.into()));
        }
        let mut opening = self.opening(workload.buffers)?;
        let failed = |error: TestError| super::perf::test_failure(&error);
        let (outcome, states) = match (&self.settings.device, server) {
            (Some(device), Some(server)) => {
                opening.config.cpu = self.cores.client.or(opening.config.cpu);
                let (outcome, state) =
                    ends::client(device, &opening, workload, server, watch).map_err(failed)?;
                (outcome, vec![("the client", state)])
            }
            _ => {
                let mut ends = [
                    opening.clone().at(ADDRESSES[0], self.cores.client),
                    // Each its own flag: whoever looks first would take it from the other.
                    Opening { asked: Some(Common::on_user_signal()?), ..opening }
                        .at(ADDRESSES[1], self.cores.server),
                ];
                // What one end sends the other receives: one file holds all.
                ends[1].config.capture = None;
                let nics = ends::soft_pair(&SoftOptions::default()).map_err(failed)?;
                let (outcome, [client, server]) =
                    ends::pair(nics, &ends, workload, watch).map_err(failed)?;
                (outcome, vec![("the client", client), ("the server", server)])
            }
        };
        Ok((outcome, states))
    }

    /// Its effective options.
    pub(crate) fn describe(&self, states: &States, all: &mut Vec<Setting>) {
        let worker = &self.settings.worker;
        let device = self.settings.device.as_deref().unwrap_or("soft, both ends here");
        let addresses: Vec<String> = match self.settings.device {
            Some(_) => worker.addresses.iter().map(ToString::to_string).collect(),
            None => ADDRESSES.map(|address| format!("{address}/24")).into(),
        };
        all.push(("stack", format!("roceway, {:?}", worker.tcp.congestion).to_lowercase()));
        all.push(("device", device.to_owned()));
        all.push(("addresses", addresses.join(" ")));
        all.push(("mtu", worker.mtu.map_or("the device's".into(), |mtu| mtu.to_string())));
        all.push(("offloads wanted", worker.offloads.to_string()));
        for (whose, state) in states {
            let name = if *whose == "the server" { "offloads, server" } else { "offloads" };
            all.push((name, state.offloads.to_string()));
        }
        all.push(("idle", idle(worker.turn.spin)));
        let sockets = match self.handles {
            Handles::Inside => "the worker's own, inside its turn",
            Handles::Between => "the worker's own, between turns",
            Handles::Shared(Manner::Owned) => "for any thread, a thread of the worker's turns",
            Handles::Shared(Manner::CallerDriven) => "for any thread, the callers turn",
        };
        all.push(("sockets", sockets.to_owned()));
    }
}

/// Whether device and addresses can be meant, before anything is opened.
fn check_device(device: &str, settings: &Settings) -> Result<(), Failure> {
    DeviceSpec::parse(device).map_err(|error| Failure::Usage(error.to_string()))?;
    if settings.worker.addresses.is_empty() {
        return Err(Failure::Usage(StartError::NoAddress.to_string()));
    }
    Ok(())
}

fn idle(spin: Spin) -> String {
    match spin {
        Spin::Forever => "spins".into(),
        Spin::Adaptive { min_ns, max_ns } => {
            format!("spins {} to {} us, then sleeps", min_ns / 1000, max_ns / 1000)
        }
    }
}

/// Where a server listens.
pub(crate) enum Listen {
    /// On the address that the user named.
    Named(IpAddr),
    /// On all of these, as far as the stack has their families.
    All(Vec<IpAddr>),
}

impl Listen {
    /// All addresses of both families, unless one was named.
    pub(crate) fn new(named: Option<IpAddr>) -> Self {
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        named.map_or(Self::All(any.into()), Self::Named)
    }

    /// The same of a worker: of those families only that it has an address of.
    fn of_worker(named: Option<IpAddr>, settings: &Settings) -> Self {
        let own = &settings.worker.addresses;
        let has = |family: &IpAddr| own.iter().any(|o| o.address.is_ipv4() == family.is_ipv4());
        match Self::new(named) {
            Self::All(families) => Self::All(families.into_iter().filter(has).collect()),
            named @ Self::Named(_) => named,
        }
    }
}

/// Listens where it is told, on one port.
pub(crate) fn listen<T: Transport>(
    transport: &mut T,
    listen: Listen,
    mut port: u16,
) -> Result<Server<T>, Failure> {
    let (addresses, all_needed) = match listen {
        Listen::Named(address) => (vec![address], true),
        Listen::All(addresses) => (addresses, false),
    };
    let mut server: Option<Server<T>> = None;
    for address in addresses {
        let address = SocketAddr::new(address, port);
        let listening = match &mut server {
            None => Server::listen(transport, address).map(|first| server = Some(first)),
            Some(server) => server.also_listen(transport, address),
        };
        match listening {
            Err(error) if !all_needed && is_missing_family(&error) => {}
            Err(error) => {
                return Err(Failure::Failed {
                    remedy: listen_remedy(&error).into(),
                    cause: format!("cannot listen on {address}: {error}"),
                });
            }
            Ok(()) => {
                // Port 0 took one, and the other family is to have the same.
                let bound = server.as_ref().map(|server| server.addresses(transport));
                let bound = bound.transpose().map_err(Failure::failed)?.unwrap_or_default();
                port = bound.first().map_or(port, SocketAddr::port);
            }
        }
    }
    server.ok_or_else(|| Failure::failed("there is no address of either family to listen on"))
}

/// Whether a stack has nothing of an address family.
fn is_missing_family(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(Errno::AFNOSUPPORT.raw_os_error())
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listen_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the netserver that holds the port, or choose another with -p"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023 with -p, or be root",
        _ => "listen with -L on an address of this host, or of the worker if it has a --device",
    }
}

/// What a server is told.
pub(crate) struct Serving {
    /// The address to listen on, if one was named.
    pub(crate) listen: Option<IpAddr>,
    /// The control port.
    pub(crate) port: u16,
    /// The core.
    pub(crate) cpu: Option<usize>,
    /// Whether counters were asked for.
    pub(crate) counters: bool,
    /// Whether streams go without copies.
    pub(crate) zero_copy: bool,
}

/// Serves tests over Roceway. With counters it ends in order on SIGINT or SIGTERM and prints them.
pub(crate) fn serve(
    settings: &Settings,
    serving: &Serving,
    announce: impl FnOnce(&[SocketAddr], &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(device) = &settings.device else {
        return Err(Failure::Usage("--device is missing: say which one to serve on".into()));
    };
    check_device(device, settings)?;
    let mut opening = Opening::new(settings.worker.clone(), SocketOptions::default());
    opening.config.cpu = serving.cpu.or(opening.config.cpu);
    opening.zero_copy = serving.zero_copy;
    opening.asked = Some(Common::on_user_signal()?);
    let stop = if serving.counters {
        let stop = on_signal(signal_hook::consts::SIGINT)?;
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))
            .map_err(Failure::failed)?;
        stop
    } else {
        Arc::new(AtomicBool::new(false))
    };
    let mut transport = opening.open(device, "the server").map_err(Failure::failed)?;
    let wanted = Listen::of_worker(serving.listen, settings);
    let mut server = listen(&mut transport, wanted, serving.port)?;
    let bound = server.addresses(&transport).map_err(Failure::failed)?;
    announce(&bound, device)?;
    server.serve(&mut transport, &stop).map_err(|error| Failure::Failed {
        cause: format!("{device}: {error}"),
        remedy: "restart the server once the device is there again".into(),
    })?;
    print(&transport.state().text("the server"))
}
