//! A rung as a contender: its options made a worker, a kernel, and a workload.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use roceway_runtime::busypoll::cycles::CycleCounter;
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::settings::{Flags, Settings};

use super::ladder::{Figure, OWN, options};
use crate::arithmetic::real;
use crate::compare::{Case, Contender, Measured, Plan, VethKernel, measured, workload};
use crate::ends::{self, ADDRESSES, Handles, Opening};
use crate::kernel::Waiting;
use crate::local::{self, Cores};
use crate::report::Place;
use crate::workload::{Outcome, Remote, Workload};

/// The device under Roceway's rungs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Under {
    /// A soft link, both ends here.
    Soft,
    /// The device that the flags name; a server of perf is beyond it.
    Device {
        /// As the user wrote it.
        device: String,
        /// The server's control address.
        server: SocketAddr,
    },
}

/// A rung that is measured.
#[derive(Debug)]
pub(super) struct RungRival {
    pub(super) figure: &'static Figure,
    pub(super) index: usize,
    pub(super) under: Under,
    /// What the user set besides: every rung has it.
    pub(super) flags: Flags,
    pub(super) veth: Option<VethKernel>,
    /// Of the thread that measures, if the machine has one.
    pub(super) cycles: Option<Arc<CycleCounter>>,
}

/// What the other end counted, in 10^9 bytes.
fn gigabytes(remote: Remote) -> f64 {
    real(remote.bytes) / 1e9
}

fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

impl RungRival {
    fn option(&self, name: &str) -> Option<String> {
        let all = options(self.figure, self.index);
        all.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.option(name).is_some_and(|is| is == value)
    }

    /// The name under which its row is found again.
    pub(super) fn mode(&self) -> String {
        format!("figure {} rung {}", self.figure.number, self.index)
    }

    /// The runtime's settings of this rung.
    fn settings(&self) -> Result<Settings, String> {
        let mut flags = self.flags.clone();
        for (name, value) in options(self.figure, self.index) {
            if !OWN.contains(&name) {
                flags.settings.push((name.to_owned(), value));
            }
        }
        Settings::load(&flags).map_err(text)
    }

    fn cores(&self, plan: &Plan) -> Cores {
        if self.is("core", "any") { Cores::default() } else { plan.cores }
    }

    fn roceway(&self, plan: &Plan, workload: &Workload) -> Result<Outcome, String> {
        let settings = self.settings()?;
        let cores = self.cores(plan);
        let mut opening = Opening::new(settings.worker, workload.buffers);
        opening.zero_copy = self.is("zero-copy", "on");
        opening.handles = match self.option("sockets").as_deref() {
            Some("shared") => Handles::Shared(settings.manner),
            Some("between") => Handles::Between,
            _ => Handles::Inside,
        };
        match &self.under {
            Under::Soft => {
                let ends = [
                    opening.clone().at(ADDRESSES[0], cores.client),
                    opening.at(ADDRESSES[1], cores.server),
                ];
                let nics = ends::soft_pair(&SoftOptions::default()).map_err(text)?;
                ends::pair(nics, &ends, workload, &mut |_| ()).map_err(text).map(|all| all.0)
            }
            Under::Device { device, server } => {
                opening.config.cpu = cores.client;
                let end = ends::client(device, &opening, workload, *server, &mut |_| ());
                end.map_err(text).map(|all| all.0)
            }
        }
    }

    fn kernel(&self, plan: &Plan, workload: &Workload) -> Result<Outcome, String> {
        let waiting = if self.is("wait", "block") { Waiting::Block } else { Waiting::Spin };
        if self.is("device", "veth") {
            let veth = self.veth.as_ref().ok_or("it needs network namespaces and veth pairs")?;
            veth.set_offloads(self.is("interface", "offloads"))?;
            return veth.run(plan, workload, waiting);
        }
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        local::kernel(waiting, workload, plan.cores, any, &mut |_| ()).map_err(text)
    }
}

impl Contender for RungRival {
    fn name(&self) -> String {
        let rung = self.figure.rungs.get(self.index).map_or("", |rung| rung.name);
        format!("figure {}, {rung}", self.figure.number)
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let case = Case::named(self.figure.test).ok_or("there is no such test")?;
        let workload = workload(case, plan);
        let is_kernel = self.is("stack", "kernel");
        let cycles = || self.cycles.as_ref().and_then(|counter| counter.read().ok());
        let before = cycles();
        // On a thread of its own: threads inherit the core that their maker is pinned to.
        let outcome = std::thread::scope(|scope| {
            let run = || match is_kernel {
                true => self.kernel(plan, &workload),
                false => self.roceway(plan, &workload),
            };
            scope.spawn(run).join().map_err(|_| "its thread died".to_owned())?
        })?;
        let cycles = cycles().zip(before).map(|(after, before)| after.saturating_sub(before));
        let stack = if is_kernel { "kernel" } else { "roceway" };
        let device = match &self.under {
            Under::Soft => "soft".to_owned(),
            Under::Device { device, .. } => device.clone(),
        };
        let place = Place { stack: stack.into(), device, mode: Some(self.mode()) };
        let remote = outcome.remote;
        let mut all = measured(&workload, &place, outcome);
        // Warm-up included on both sides of the division; over a device, this end's alone.
        let work = if case.test.has_rtt() { real(remote.transactions) } else { gigabytes(remote) };
        all.row.cycles = cycles.filter(|_| work > 0.0).map(|cycles| real(cycles) / work);
        Ok(all)
    }
}
