//! Roceway over a TAP with TSO against the kernel's sockets on its other side, each direction, in
//! the namespace of the veth block.

use std::net::{Ipv4Addr, SocketAddr};

use roceway_runtime::{Prefix, WorkerConfig};

use super::rivals::{Case, Contender, measured, workload};
use super::{Measured, Plan};
use crate::ends::{self, Opening};
use crate::kernel::{Kernel, Waiting};
use crate::local::with_server;
use crate::report::Place;

/// The kernel's end of the TAP, with its offloads as they come: checksums and TSO, both ways.
const DEVICE: &str = "tap:rtap,addr=10.77.9.1/24,up=on";
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 2);

/// Tests of both directions: out of Roceway, and into it.
pub(super) const TESTS: [&str; 2] = ["TCP_STREAM", "TCP_MAERTS"];

/// One direction.
#[derive(Debug)]
pub(super) struct TapRival {
    pub(super) case: Case,
}

/// Both directions.
pub(super) fn both() -> Vec<Box<dyn Contender>> {
    let cases = TESTS.into_iter().filter_map(Case::named);
    cases.map(|case| Box::new(TapRival { case }) as Box<dyn Contender>).collect()
}

impl Contender for TapRival {
    fn name(&self) -> String {
        format!("roceway, tap, copy, {}", self.case.name())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let workload = workload(self.case, plan);
        let config = WorkerConfig::new(Prefix { address: OWN.into(), length: 24 });
        let opening = Opening::new(config.spinning(), workload.buffers);
        let opening = opening.at(OWN, plan.cores.client);
        let options = workload.buffers;
        let outcome = with_server(
            plan.cores.server,
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            || Kernel::new(Waiting::Spin, options),
            |transport, server, stop| server.serve(transport, stop),
            |server| {
                let server = SocketAddr::new(HOST.into(), server.port());
                ends::client(DEVICE, &opening, &workload, server, &mut |_| ())
            },
        )
        .map_err(|error| error.to_string())?
        .0;
        let place =
            Place { stack: "roceway".into(), device: "tap".into(), mode: Some("copy".into()) };
        Ok(measured(&workload, &place, outcome))
    }
}
