//! `roceway verify`: tries on a user's own NIC what it claims, prints and writes a report.
//! Exit code 0 says that nothing failed and something passed, 1 that a check failed.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use roceway_runtime::rdma_virtio::verbs::device;

use super::{Failure, print};
use crate::verify::client::{Peer, verify};
use crate::verify::report::{self, Report};
use crate::verify::{Check, PORT, Target, Verdict, server};

const EXAMPLES: &str = "Examples:
  roceway verify rdma:mlx5_0                       all modes, what one host can show
  roceway verify server rdma:mlx5_0                at the other host; then here:
  roceway verify rdma:mlx5_0 --peer 10.0.0.2
  roceway verify rdma:mlx5_0,mode=rc --peer 10.0.0.2 --report rc.txt
  roceway verify rdma:mlx5_0,mode=rc --offloads
  tail -n 1 rc.txt | python3 -m json.tool

Each check passes, fails or could not be tried, with what was seen; a run takes less than five
minutes. The report has text for people and, as its last line, JSON for programs. mode=raw needs
CAP_NET_RAW and --peer; its frames go from and to addresses that begin with 02:52:57. The wire's
ends are 198.18.77.1 and .2, its exchange is at TCP ports 4798 and 4799.";

/// The trial of a NIC.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Verify {
    #[command(subcommand)]
    command: Option<End>,
    /// What is tried: rdma:DEV[,mode=raw|rc|ud][,OPTION=VALUE...], DEV a verbs device or its
    /// interface [default mode: all of them]
    #[arg(value_name = "DEVICE", required = true)]
    device: Option<String>,
    /// Another host where `roceway verify server` runs
    #[arg(long, value_name = "HOST[:PORT]")]
    peer: Option<String>,
    /// Also tries sets of offloads in which each pair of settings occurs, both ends on this host
    #[arg(long, conflicts_with = "peer")]
    offloads: bool,
    /// The report's file [default: roceway-verify-DEVICE.txt]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Prints the report as one JSON document on standard output and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum End {
    /// The other end: waits for `roceway verify --peer`, one client after the other
    Server(Serve),
}

const SERVER_EXAMPLES: &str = "Examples:
  roceway verify server rdma:mlx5_0
  roceway verify server rdma:eth2,gid=3 --listen 10.0.0.2 --once

Whoever reaches the port can have this host's device opened and tried: run it while it is needed,
on a network that you trust.";

/// The other end.
#[derive(Args, Clone, Debug)]
#[command(after_help = SERVER_EXAMPLES)]
struct Serve {
    /// This host's device: rdma:DEV[,OPTION=VALUE...]
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Where to listen [default: all addresses, port 4797]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    listen: Option<String>,
    /// Ends after the first client
    #[arg(long)]
    once: bool,
}

impl Verify {
    /// Makes the checks, prints and writes the report.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if let Some(End::Server(serve)) = &self.command {
            return serve.run();
        }
        let device = self.device.as_deref().unwrap_or_default();
        let mut target = Target::parse(device).map_err(Failure::Usage)?;
        target.offloads = self.offloads;
        // A device that is not there is no finding about it.
        device::find(&target.name).map_err(|error| Failure::Failed {
            cause: format!("{}: {}", error.device, error.source),
            remedy: error.remedy,
        })?;
        let path = self.report.clone().unwrap_or_else(|| report::default_path(device));
        let mut peer = match &self.peer {
            Some(host) => Some(Peer::connect(host).map_err(|cause| {
                Failure::Failed {
                    cause,
                    remedy:
                        "start `roceway verify server rdma:DEV` there, and let its port through"
                            .to_owned(),
                }
            })?),
            None => None,
        };
        let started = Instant::now();
        let facts = report::facts(&target.name);
        let shows = !self.json && std::io::stderr().is_terminal();
        let mut watch = |name: &str, check: Option<&Check>| {
            if shows {
                progress(name, check);
            }
        };
        let found = verify(&target, peer.as_mut(), &mut watch);
        let named = peer.as_ref().map(|peer| (peer.name.as_str(), &peer.facts));
        let report = Report::new(device, named, found, (facts, started.elapsed()));
        print(&if self.json { report.json() } else { report.text() })?;
        report
            .write(&path)
            .map_err(|error| Failure::Failed { cause: error.what, remedy: error.remedy })?;
        if !self.json {
            eprintln!("written to {}", path.display());
        }
        let failures = report.failures();
        if failures.is_empty() && report.passed() > 0 {
            return Ok(());
        }
        let cause = if failures.is_empty() {
            format!("{device}: nothing could be tried")
        } else {
            format!("{device}: failed: {}", failures.join(", "))
        };
        let remedy = "the report says what was seen; `roceway doctor` names what mends a machine";
        Err(Failure::Failed { cause, remedy: remedy.to_owned() })
    }
}

/// A line for people who wait.
fn progress(name: &str, check: Option<&Check>) {
    match check {
        None => eprint!("\r\x1b[K{name} ..."),
        Some(check) => {
            let verdict = match check.verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::NotTried => "not tried",
            };
            eprint!("\r\x1b[K{} {name}: {verdict}\n", check.mode);
        }
    }
}

impl Serve {
    fn run(&self) -> Result<(), Failure> {
        let target = Target::parse(&self.device).map_err(Failure::Usage)?;
        let listener = self.listener()?;
        let bound = listener.local_addr().map_err(Failure::failed)?;
        print(&format!("roceway verify server: {} listens at {bound}\n", self.device))?;
        server::serve(&listener, &target, self.once, &mut |text| eprintln!("{text}"))
            .map_err(Failure::failed)
    }

    fn listener(&self) -> Result<TcpListener, Failure> {
        let listen = |address: SocketAddr| {
            TcpListener::bind(address).map_err(|error| Failure::Failed {
                cause: format!("cannot listen at {address}: {error}"),
                remedy: "choose another address or port with --listen".to_owned(),
            })
        };
        match &self.listen {
            None => {
                // A host without IPv6 has the other.
                let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT);
                listen(any).or_else(|_| listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)))
            }
            Some(text) => {
                let address = text
                    .parse::<IpAddr>()
                    .map(|address| SocketAddr::new(address, PORT))
                    .or_else(|_| text.parse());
                listen(address.map_err(|_| {
                    Failure::Usage(format!("--listen {text}: write ADDRESS or ADDRESS:PORT"))
                })?)
            }
        }
    }
}
