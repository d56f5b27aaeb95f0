//! `roceway perf`: a test by name, the server, the comparison.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use roceway_busypoll::pin::{Cpu, Topology};
use roceway_perf::catalogue::{self, TESTS, Test};
use roceway_perf::client::TestError;
use roceway_perf::compare::CHILD_ARGUMENT;
use roceway_perf::control::message::CONTROL_PORT;
use roceway_perf::host::Host;
use roceway_perf::kernel::{Kernel, SocketOptions, Waiting};
use roceway_perf::local::{self, Cores};
use roceway_perf::options::TestOptions;
use roceway_perf::plot;
use roceway_perf::progress::Progress;
use roceway_perf::report::{self, Place, Setting, TestReport};
use roceway_perf::server::{Server, serve_blocking};
use roceway_perf::workload::{Outcome, Workload};

use super::common::{Common, Stack};
use super::compare::CompareLine;
use super::{Failure, print};

const EXAMPLES: &str = "Examples:
  roceway perf compare                     Roceway, the bare link and the kernel, side by side
  roceway perf tcp_rr -l 5                 both ends here, over the kernel's loopback
  roceway perf tcp_rr 192.0.2.7 -l 5       against `roceway perf server` or netserver there
  roceway perf tcp_stream -H host -m 16384 -l 10 --json
  roceway perf udp_rr --rate 10000 --plot rtt.svg
  roceway perf tcp_crr -l -100000          a count instead of a time
  roceway perf server";

const SERVER_EXAMPLES: &str = "Examples:
  roceway perf server                      every address, netperf's port 12865
  roceway perf server -p 5000 -T 1         another port, on cpu 1
  netperf -H this-host -t TCP_RR           a stock netperf may be the client";

/// Measures latency and throughput.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = tests_help(), arg_required_else_help = true)]
pub(crate) struct Perf {
    #[command(subcommand)]
    command: Option<PerfCommand>,
    #[command(flatten)]
    test: TestLine,
}

#[derive(Subcommand, Debug)]
enum PerfCommand {
    /// Serves tests to `roceway perf TEST HOST` and to a stock netperf
    Server(ServerLine),
    /// Compares Roceway, the bare link and the kernel, in one interleaved run
    Compare(CompareLine),
    /// The part of a comparison that runs in namespaces of its own
    #[command(name = CHILD_ARGUMENT, hide = true)]
    CompareVeth(CompareLine),
}

/// One test.
#[derive(Args, Debug)]
struct TestLine {
    /// tcp_rr, tcp_stream, tcp_maerts, tcp_crr, udp_rr or udp_stream
    #[arg(required = true, value_name = "TEST")]
    test: Option<String>,
    /// Where the server runs; without it both ends run here
    #[arg(value_name = "HOST")]
    host: Option<String>,
    /// The same as HOST
    #[arg(short = 'H', long = "host", value_name = "HOST", conflicts_with = "host")]
    named_host: Option<String>,
    /// The server's control port
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = CONTROL_PORT)]
    port: u16,
    #[command(flatten)]
    options: TestOptions,
    #[command(flatten)]
    common: Common,
}

/// The server.
#[derive(Args, Debug)]
#[command(after_help = SERVER_EXAMPLES)]
struct ServerLine {
    /// The address to listen on
    #[arg(short = 'L', long, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    listen: IpAddr,
    /// The control port
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = CONTROL_PORT)]
    port: u16,
    /// The cpu to run on
    #[arg(short = 'T', long, value_name = "CPU")]
    cpu: Option<usize>,
    #[command(flatten)]
    common: Common,
}

impl Perf {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Some(PerfCommand::Server(line)) => line.run(),
            Some(PerfCommand::Compare(line)) => line.run(),
            Some(PerfCommand::CompareVeth(line)) => line.run_child(),
            None => self.test.run(),
        }
    }
}

fn test_failure(error: &TestError) -> Failure {
    Failure::Failed { cause: error.to_string(), remedy: error.remedy().to_owned() }
}

impl TestLine {
    fn run(self) -> Result<(), Failure> {
        let name = self.test.as_deref().unwrap_or_default();
        let test = catalogue::find(name).map_err(|error| Failure::Usage(error.to_string()))?;
        let workload =
            self.options.workload(test).map_err(|error| Failure::Usage(error.to_string()))?;
        let host = self.host.as_deref().or(self.named_host.as_deref());
        let server = host.map(|host| resolve(host, self.port)).transpose()?;
        let cores = self.cores(server.is_some())?;
        let mut progress = Progress::new(&workload.window);
        let mut watch = |recorder: &_| progress.watch(recorder);
        let waiting = self.common.wait;
        let outcome = match (self.common.stack, server) {
            (Stack::Kernel, Some(server)) => {
                local::kernel_client(waiting, &workload, cores.client, server, &mut watch)
            }
            (Stack::Kernel, None) => {
                let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
                local::kernel(waiting, &workload, cores, any, &mut watch)
            }
        };
        drop(progress);
        let outcome = outcome.map_err(|error| test_failure(&error))?;
        self.report(&workload, server, cores, &outcome)
    }

    /// The cores of both ends: as named, otherwise two physical cores, and of this end only if the
    /// other one is elsewhere.
    fn cores(&self, remote: bool) -> Result<Cores, Failure> {
        let named = self.options.cores();
        if remote && named.server.is_some() {
            let cause = "-T names the cpu of the other end, which its own command line chooses: \
                         `roceway perf server -T CPU` there";
            return Err(Failure::Usage(cause.into()));
        }
        let (pick, spread) = (named.client.is_none(), self.common.wait == Waiting::Block);
        if remote || !pick || (spread && self.options.connections > 1) {
            return Ok(named);
        }
        let choice = Topology::read().choose(2);
        for warning in &choice.warnings {
            eprintln!("warning: {warning}");
        }
        let cpu = |index: usize| choice.cpus.get(index).map(|Cpu(id)| *id);
        Ok(Cores { client: cpu(0), server: cpu(1) })
    }

    fn report(
        &self,
        workload: &Workload,
        server: Option<SocketAddr>,
        cores: Cores,
        outcome: &Outcome,
    ) -> Result<(), Failure> {
        if let (Some(path), Some(latency)) = (&self.options.plot, &outcome.latency) {
            let series = [(format!("kernel {}", self.common.wait), latency)];
            let title = format!("{}, round-trip time", workload.test.name);
            plot::write(path, &title, &series).map_err(Failure::failed)?;
        }
        let device = server.map_or("loopback".into(), |server| server.ip().to_string());
        let mode = Some(self.common.wait.to_string());
        let report = TestReport {
            settings: self.settings(workload, server, cores),
            host: Host::read(),
            place: Place { stack: "kernel".into(), device, mode },
            workload,
            outcome,
        };
        print(&if self.common.json { report.json() } else { report.text() })
    }

    fn settings(
        &self,
        workload: &Workload,
        server: Option<SocketAddr>,
        cores: Cores,
    ) -> Vec<Setting> {
        let mut all = report::settings(workload);
        let cpu = |core: Option<usize>| core.map_or("any".into(), |core| core.to_string());
        let control = Kernel::congestion_control().unwrap_or_else(|_| "unknown".into());
        all.push(("stack", format!("kernel, {}, {control}", self.common.wait)));
        match server {
            Some(server) => {
                all.push(("server", server.to_string()));
                all.push(("cpu", cpu(cores.client)));
            }
            None => {
                all.push(("server", "in this process, over loopback".into()));
                all.push(("cpus", format!("{},{}", cpu(cores.client), cpu(cores.server))));
            }
        }
        all
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let found = (host, port).to_socket_addrs();
    let cause = match found.map(|mut all| all.next()) {
        Ok(Some(address)) => return Ok(address),
        Ok(None) => format!("{host} has no address"),
        Err(error) => format!("cannot resolve {host}: {error}"),
    };
    Err(Failure::Failed { cause, remedy: "give a name that resolves, or an address".into() })
}

impl ServerLine {
    fn run(self) -> Result<(), Failure> {
        local::pin(self.cpu).map_err(Failure::failed)?;
        let waiting = self.common.wait;
        let mut kernel = Kernel::new(waiting, SocketOptions::default()).map_err(Failure::failed)?;
        let address = SocketAddr::new(self.listen, self.port);
        let mut server = Server::listen(&mut kernel, address).map_err(|error| Failure::Failed {
            cause: format!("cannot listen on {address}: {error}"),
            remedy: "stop the netserver that holds the port, or choose another with -p".into(),
        })?;
        let bound = server.address(&kernel).map_err(Failure::failed)?;
        if self.common.json {
            print(&format!("{}\n", serde_json::json!({ "listening": bound.to_string() })))?;
        } else {
            print(&format!("serving netperf's tests on {bound}, kernel, {waiting}\n"))?;
        }
        // Ends with the process: SIGINT and SIGTERM do what they always do.
        let never = Arc::new(AtomicBool::new(false));
        match waiting {
            Waiting::Block => serve_blocking(&mut kernel, &mut server, &never),
            Waiting::Spin | Waiting::Epoll => server.serve(&mut kernel, &never),
        }
        .map_err(Failure::failed)
    }
}

/// The tests as help shows them.
fn tests_help() -> String {
    let line = |test: &Test| format!("  {:<11} {}\n", test.name.to_lowercase(), test.about);
    let lines: String = TESTS.iter().map(line).collect();
    format!("Tests:\n{lines}\n{EXAMPLES}")
}
