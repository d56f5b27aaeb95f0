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
use roceway_perf::plot::{self, PlotError};
use roceway_perf::progress::Progress;
use roceway_perf::report::{self, Place, Setting, TestReport};
use roceway_perf::server::serve_blocking;
use roceway_perf::workload::{Outcome, Workload};
use roceway_runtime::settings::Settings;

use super::common::{Chosen, Common, End};
use super::compare::CompareLine;
use super::figures::FiguresLine;
use super::worker::{self, Listen, Serving, States, WorkerTest};
use super::{Failure, print};

const EXAMPLES: &str = "Examples:
  roceway perf compare                     Roceway, the bare link and the kernel, side by side
  roceway perf figures                     the papers' figures, as ladders of configurations
  roceway perf tcp_rr -l 5                 both ends here, over the kernel's loopback
  roceway perf tcp_rr 192.0.2.7 -l 5       against `roceway perf server` or netserver there
  roceway perf tcp_stream -H host -m 16384 -l 10 --json
  roceway perf udp_rr --rate 10000 --plot rtt.svg
  roceway perf tcp_crr -l -100000          a count instead of a time
  roceway perf tcp_rr --stack roceway -l 5 --counters
                                           both ends here, over Roceway and a soft link
  roceway perf tcp_stream --stack roceway --zero-copy -m 65536 -l 5
                                           a stream that no end copies
  roceway perf tcp_rr 10.0.0.2 --device packet:eth1 --address 10.0.0.1/24
                                           over Roceway on an interface of this host
  roceway perf server";

const SERVER_EXAMPLES: &str = "Examples:
  roceway perf server                      every address, netperf's port 12865
  roceway perf server -p 5000 -T 1         another port, on cpu 1
  netperf -H this-host -t TCP_RR           a stock netperf may be the client
  roceway perf server --device soft:/tmp/link.sock --address 10.0.0.2/24
                                           over Roceway; then, in another shell,
  roceway perf tcp_rr 10.0.0.2 --device soft:/tmp/link.sock --address 10.0.0.1/24";

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
    /// Reproduces the papers' figures as ladders of this product's configurations
    Figures(FiguresLine),
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
    /// The address to listen on [default: all, of IPv4 and IPv6]
    #[arg(short = 'L', long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
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
            Some(PerfCommand::Figures(line)) => line.run(),
            Some(PerfCommand::CompareVeth(line)) => line.run_child(),
            None => self.test.run(),
        }
    }
}

pub(super) fn test_failure(error: &TestError) -> Failure {
    Failure::Failed { cause: error.to_string(), remedy: error.remedy().to_owned() }
}

impl TestLine {
    fn run(self) -> Result<(), Failure> {
        let name = self.test.as_deref().unwrap_or_default();
        let test = catalogue::find(name).map_err(|error| Failure::Usage(error.to_string()))?;
        let workload =
            self.options.workload(test).map_err(|error| Failure::Usage(error.to_string()))?;
        let chosen = self.common.choose(End::Client)?;
        let host = self.host.as_deref().or(self.named_host.as_deref());
        if let Chosen::Roceway(settings) = &chosen {
            self.over(settings, Cores::default()).check(host.is_some())?;
        }
        let server = host.map(|host| resolve(host, self.port, &chosen)).transpose()?;
        let cores = self.cores(&chosen, server.is_some())?;
        let run = Run { line: &self, chosen, workload, server, cores };
        let (outcome, states) = run.measure()?;
        run.report(&outcome, states)
    }

    fn over<'a>(&self, settings: &'a Settings, cores: Cores) -> WorkerTest<'a> {
        let counters = self.common.wants_counters();
        let handles = self.common.handles(settings);
        let zero_copy = self.common.wants_zero_copy();
        WorkerTest { settings, cores, counters, handles, zero_copy }
    }

    /// The cores of both ends: as named, otherwise two physical cores, and of this end only if the
    /// other one is elsewhere.
    fn cores(&self, chosen: &Chosen, remote: bool) -> Result<Cores, Failure> {
        let named = self.options.cores();
        if remote && named.server.is_some() {
            let cause = "-T names the cpu of the other end, which its own command line chooses: \
                         `roceway perf server -T CPU` there";
            return Err(Failure::Usage(cause.into()));
        }
        let spread = matches!(chosen, Chosen::Kernel(Waiting::Block));
        let pick = named.client.is_none();
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
}

/// A test on its way.
struct Run<'a> {
    line: &'a TestLine,
    chosen: Chosen,
    workload: Workload,
    server: Option<SocketAddr>,
    cores: Cores,
}

impl Run<'_> {
    fn over<'a>(&self, settings: &'a Settings) -> WorkerTest<'a> {
        self.line.over(settings, self.cores)
    }

    fn measure(&self) -> Result<(Outcome, States), Failure> {
        let workload = &self.workload;
        let mut progress = Progress::new(&workload.window);
        let mut watch = |recorder: &_| progress.watch(recorder);
        let outcome = match (&self.chosen, self.server) {
            (Chosen::Roceway(settings), server) => {
                return self.over(settings).run(workload, server, &mut watch);
            }
            (Chosen::Kernel(waiting), Some(server)) => {
                local::kernel_client(*waiting, workload, self.cores.client, server, &mut watch)
            }
            (Chosen::Kernel(waiting), None) => {
                let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
                local::kernel(*waiting, workload, self.cores, any, &mut watch)
            }
        };
        drop(progress);
        Ok((outcome.map_err(|error| test_failure(&error))?, Vec::new()))
    }

    fn place(&self) -> Place {
        let (stack, device, mode) = match &self.chosen {
            Chosen::Kernel(waiting) => {
                let device = self.server.map_or("loopback".into(), |to| to.ip().to_string());
                ("kernel", device, waiting.to_string())
            }
            Chosen::Roceway(settings) => {
                let device = settings.device.as_deref().unwrap_or("soft").to_owned();
                let zero_copy = self.line.common.wants_zero_copy();
                let mode = if zero_copy { "zero-copy" } else { "copy" };
                ("roceway", device, mode.to_owned())
            }
        };
        Place { stack: stack.into(), device, mode: Some(mode) }
    }

    fn report(&self, outcome: &Outcome, states: States) -> Result<(), Failure> {
        let (line, place) = (self.line, self.place());
        let name = format!("{} {}", place.stack, place.device);
        let report = TestReport {
            settings: self.settings(&states),
            host: Host::read(),
            place,
            workload: &self.workload,
            outcome,
            states: if line.common.wants_counters() { states } else { Vec::new() },
        };
        print(&if line.common.json { report.json() } else { report.text() })?;
        // Last, so that a full disk costs nobody the figures.
        if let (Some(path), Some(latency)) = (&line.options.plot, &outcome.latency) {
            let title = format!("{}, round-trip time", self.workload.test.name);
            plot::write(path, &title, &[(name, latency)])
                .map_err(|error| picture_failure(&error))?;
        }
        Ok(())
    }

    fn settings(&self, states: &States) -> Vec<Setting> {
        let mut all = report::settings(&self.workload);
        let cpu = |core: Option<usize>| core.map_or("any".into(), |core| core.to_string());
        match &self.chosen {
            Chosen::Kernel(waiting) => {
                let control = Kernel::congestion_control().unwrap_or_else(|_| "unknown".into());
                all.push(("stack", format!("kernel, {waiting}, {control}")));
            }
            Chosen::Roceway(settings) => self.over(settings).describe(states, &mut all),
        }
        match self.server {
            Some(server) => {
                all.push(("server", server.to_string()));
                all.push(("cpu", cpu(self.cores.client)));
            }
            None => {
                all.push(("server", "in this process".into()));
                all.push((
                    "cpus",
                    format!("{},{}", cpu(self.cores.client), cpu(self.cores.server)),
                ));
            }
        }
        all
    }
}

pub(super) fn picture_failure(error: &PlotError) -> Failure {
    Failure::Failed {
        cause: error.to_string(),
        remedy: "the figures above are complete; name a file that can be written with --plot"
            .into(),
    }
}

/// Whether a name can only be meant as an IPv4 address and is none: the C library would take 1.2.3
/// for 1.2.0.3, 010.0.0.1 for 8.0.0.1 and 1 for 0.0.0.1. No host's name ends in a number.
fn is_odd_address(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = match hex {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()),
    };
    is_number && host.parse::<Ipv4Addr>().is_err()
}

/// The address of a host: over Roceway, of a family that the worker has.
pub(super) fn resolve(host: &str, port: u16, chosen: &Chosen) -> Result<SocketAddr, Failure> {
    if is_odd_address(host) {
        let cause = format!(
            "'{host}' is no IPv4 address: four numbers from 0 to 255 with dots between them and no \
             zeros in front, such as 192.0.2.7"
        );
        return Err(Failure::Usage(cause));
    }
    let usable = |address: &SocketAddr| match chosen {
        Chosen::Kernel(_) => true,
        Chosen::Roceway(settings) => {
            let own = &settings.worker.addresses;
            own.is_empty() || own.iter().any(|prefix| prefix.address.is_ipv4() == address.is_ipv4())
        }
    };
    let found = (host, port).to_socket_addrs();
    let cause = match found.map(|mut all| all.find(usable)) {
        Ok(Some(address)) => return Ok(address),
        Ok(None) => format!("{host} has no address of a family that this end has"),
        Err(error) => format!("cannot resolve {host}: {error}"),
    };
    Err(Failure::Failed { cause, remedy: "give a name that resolves, or an address".into() })
}

impl ServerLine {
    fn run(self) -> Result<(), Failure> {
        let waiting = match self.common.choose(End::Server)? {
            Chosen::Kernel(waiting) => waiting,
            Chosen::Roceway(settings) => {
                let serving = Serving {
                    listen: self.listen,
                    port: self.port,
                    cpu: self.cpu,
                    counters: self.common.wants_counters(),
                    zero_copy: self.common.wants_zero_copy(),
                };
                return worker::serve(&settings, &serving, |bound, device| {
                    self.announce(bound, &format!("roceway, {device}"))
                });
            }
        };
        local::pin(self.cpu).map_err(Failure::failed)?;
        let mut kernel = Kernel::new(waiting, SocketOptions::default()).map_err(Failure::failed)?;
        let mut server = worker::listen(&mut kernel, Listen::new(self.listen), self.port)?;
        let bound = server.addresses(&kernel).map_err(Failure::failed)?;
        self.announce(&bound, &format!("kernel, {waiting}"))?;
        // Ends with the process: SIGINT and SIGTERM do what they always do.
        let never = Arc::new(AtomicBool::new(false));
        match waiting {
            Waiting::Block => serve_blocking(&mut kernel, &mut server, &never),
            Waiting::Spin | Waiting::Epoll => server.serve(&mut kernel, &never),
        }
        .map_err(Failure::failed)
    }

    fn announce(&self, bound: &[SocketAddr], on: &str) -> Result<(), Failure> {
        let bound: Vec<String> = bound.iter().map(ToString::to_string).collect();
        if self.common.json {
            return print(&format!("{}\n", serde_json::json!({ "listening": bound })));
        }
        print(&format!("serving netperf's tests on {}, {on}\n", bound.join(" and ")))
    }
}

/// The tests as help shows them.
fn tests_help() -> String {
    let line = |test: &Test| format!("  {:<11} {}\n", test.name.to_lowercase(), test.about);
    let lines: String = TESTS.iter().map(line).collect();
    format!("Tests:\n{lines}\n{EXAMPLES}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ipv4_addresses_are_taken_for_addresses() {
        for odd in [
            "1.2.3",
            "1",
            "0",
            "010.0.0.1",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.0x4",
            "0x7f000001",
            "1.2.3.",
            "127.1",
            "10.0.0.1.",
            "4294967295",
            "0x",
        ] {
            assert!(is_odd_address(odd), "{odd}");
            let refused = resolve(odd, 1, &Chosen::Kernel(Waiting::Spin));
            assert!(matches!(refused, Err(Failure::Usage(text)) if text.contains(odd)), "{odd}");
        }
        for sound in ["127.0.0.1", "::1", "fe80::1", "localhost", "host1", "h.0.example", "a-1.b2"]
        {
            assert!(!is_odd_address(sound), "{sound}");
        }
        let loopback = resolve("127.0.0.1", 7, &Chosen::Kernel(Waiting::Spin));
        assert!(matches!(loopback, Ok(address) if address.to_string() == "127.0.0.1:7"));
    }
}
