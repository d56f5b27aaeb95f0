//! `roceway gateway`: opens both sides, turns the bridge until a signal or the end of a device, and
//! tells what it did.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use roceway::gateway::addresses::{ADDRESSES_MAX, AGE_NS};
use roceway::gateway::beacon::Standing;
use roceway::gateway::side::Side;
use roceway::gateway::{Bridge, Limits, Which};
use roceway_busypoll::pin::{Cpu, pin_current_thread};
use roceway_busypoll::{Doorbell, EventWait, Limits as TurnLimits, Loop, Spin};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::rdma::wire::exchange::Mode;
use roceway_runtime::rdma_virtio::nic::spec::{Device, DeviceSpec};
use roceway_runtime::rdma_virtio::nic::{Nic, spec};
use serde_json::{Value, json};

use super::common::{Common, on_signal};
use super::{Failure, print};

const EXAMPLES: &str = "Examples:
  roceway gateway rdma:mlx5_0,mode=rc,accept=10.1.0.0/24 tap:gw0,addr=10.2.0.254/24,up=on
                       this host, with an address of its own on the wire
  roceway gateway rdma:mlx5_0,mode=rc,accept=10.1.0.0/24 packet:eth1
                       the hosts of the network behind eth1; this host itself is not reached there
  ip link add br0 type bridge; ip link set eth1 master br0; ip link set br0 up
  roceway gateway rdma:mlx5_0,mode=rc,accept=10.1.0.0/24 tap:gw0,up=on & ip link set gw0 master br0
                       both: the network behind eth1, and this host
  roceway gateway soft:/run/link.sock tap:gw0,addr=10.2.0.254/24,up=on --counters
                       without RDMA, to try it out

The wire's hosts, and those behind the gateway, are one Ethernet: give all of them addresses of
one network. It learns which hardware address is on which side, sends broadcast and what it does
not know to the other side, and nothing back to where it came from. Of several gateways between
the same wire and the same network one forwards, and another one takes over when it ends. A TAP
without mtu= gets the wire's. SIGINT and SIGTERM end it, SIGUSR1 prints its counters to standard
error.";

/// How the gateway waits when nothing comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Waiting {
    /// Polls for 50 to 200 us, then sleeps.
    Block,
    /// Never sleeps.
    Spin,
}

/// The gateway.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gateway {
    /// The wire: rdma:DEVICE,mode=rc or mode=ud with its peers, or soft:/PATH.sock
    #[arg(value_name = "WIRE")]
    wire: String,
    /// Where ordinary hosts are: tap:NAME or packet:INTERFACE
    #[arg(value_name = "SIDE")]
    host: String,
    /// Hardware addresses that are remembered, at most
    #[arg(long, value_name = "COUNT", default_value_t = ADDRESSES_MAX)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=65_536))]
    addresses: u32,
    /// How long one is remembered that is not heard
    #[arg(long, value_name = "SECONDS", default_value_t = AGE_NS / 1_000_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=86_400))]
    age: u64,
    /// How it waits when nothing comes
    #[arg(long, value_enum, value_name = "MANNER", default_value = "block")]
    wait: Waiting,
    /// The cpu to run on
    #[arg(short = 'T', long, value_name = "CPU")]
    cpu: Option<usize>,
    /// Prints every counter that is not zero at the end
    #[arg(long)]
    counters: bool,
    /// Prints one JSON document in a line when it runs, and one at the end with --counters
    #[arg(long)]
    json: bool,
}

impl Gateway {
    /// Runs until it is told to stop.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.check()?;
        let stop = on_signal(signal_hook::consts::SIGINT)?;
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))
            .map_err(Failure::failed)?;
        let asked = Common::on_user_signal()?;
        if let Some(cpu) = self.cpu {
            pin_current_thread(Cpu(cpu)).map_err(Failure::failed)?;
        }
        let wire = open(&self.wire)?;
        let text = self.host_text(wire.capabilities().mtu);
        let host = open(&text)?;
        let settings = self.settings(&wire, &host, &text);
        let (wire, host) = (side(wire)?, side(host)?);
        let limits = Limits { addresses: self.addresses, age_ns: self.age * 1_000_000_000 };
        let mut bridge = Bridge::new(wire, host, &limits, RandomState::new().hash_one(0_u8));
        self.announce(&settings)?;
        let ended = self.turn(&mut bridge, &stop, &asked);
        if self.counters {
            print(&self.told(&bridge))?;
        }
        ended
    }

    /// What can be known to be wrong before anything is opened.
    fn check(&self) -> Result<(), Failure> {
        let parse =
            |text: &str| DeviceSpec::parse(text).map_err(|error| Failure::Usage(error.to_string()));
        match parse(&self.wire)?.device {
            Device::Soft(..) => {}
            Device::Rdma(_, options) if matches!(options.mode, Some(Mode::Rc | Mode::Ud)) => {}
            Device::Rdma(..) => {
                return Err(Failure::Usage(format!(
                    "{}: a wire has mode=rc or mode=ud; plain TCP hosts are reached without a \
                     gateway in the others",
                    self.wire
                )));
            }
            Device::Tap(..) | Device::Packet(..) => {
                return Err(Failure::Usage(format!(
                    "{} is no wire: the first device is rdma:…,mode=rc or mode=ud, or soft:",
                    self.wire
                )));
            }
        }
        match parse(&self.host)?.device {
            Device::Tap(..) | Device::Packet(..) | Device::Soft(..) => Ok(()),
            Device::Rdma(..) => Err(Failure::Usage(format!(
                "{} is where ordinary hosts are not: the second device is tap: or packet:",
                self.host
            ))),
        }
    }

    /// The second device with what a gateway wants of it where the user did not say.
    fn host_text(&self, mtu: u16) -> String {
        let says = |key: &str| self.host.split(',').any(|part| part.starts_with(key));
        let mut text = self.host.clone();
        if text.starts_with("tap:") && !says("mtu=") {
            text += &format!(",mtu={mtu}");
        }
        if text.starts_with("packet:") && !says("promisc=") {
            text += ",promisc=on";
        }
        text
    }

    fn settings(&self, wire: &AnyNic, host: &AnyNic, text: &str) -> Vec<(String, String)> {
        let on = |switch: bool| if switch { "on" } else { "off" };
        let mut all = vec![("wire".to_owned(), self.wire.clone())];
        all.extend(
            wire.settings().into_iter().map(|(name, value)| (format!("wire {name}"), value)),
        );
        all.push(("host".into(), text.to_owned()));
        for (which, nic) in Which::BOTH.into_iter().zip([wire, host]) {
            let capabilities = nic.capabilities();
            let name = which.name();
            all.push((format!("{name} packets"), format!("{} bytes", capabilities.mtu)));
            let offloads = format!(
                "checksum {}, large segments out {}, in {}",
                on(capabilities.tx_checksum),
                on(capabilities.tso4),
                on(capabilities.rx_large4)
            );
            all.push((format!("{name} offloads"), offloads));
        }
        all.push(("addresses".into(), format!("{} for {} s", self.addresses, self.age)));
        all.push((
            "idle".into(),
            match self.wait {
                Waiting::Block => "polls 50 to 200 us, then sleeps".into(),
                Waiting::Spin => "polls".into(),
            },
        ));
        all
    }

    fn announce(&self, settings: &[(String, String)]) -> Result<(), Failure> {
        if self.json {
            let all: serde_json::Map<String, Value> =
                settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            return print(&format!("{}\n", json!({ "gateway": "running", "settings": all })));
        }
        let width = settings.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::from("gateway running\n");
        for (name, value) in settings {
            text += &format!("  {name:width$}  {value}\n");
        }
        print(&text)
    }

    /// Turns until the end.
    fn turn(
        &self,
        bridge: &mut Bridge,
        stop: &AtomicBool,
        asked: &AtomicBool,
    ) -> Result<(), Failure> {
        let spin = match self.wait {
            Waiting::Block => Spin::DEFAULT,
            Waiting::Spin => Spin::Forever,
        };
        let mut turning = Loop::new(TurnLimits { spin, ..TurnLimits::default() });
        let [wire, host] = Which::BOTH.map(|which| bridge.side(which).interface.nic().event_fd());
        let bell = Doorbell::new().map_err(Failure::failed)?;
        let mut sleeper = EventWait::new(bell, Some(wire)).and(host);
        while !stop.load(Ordering::Relaxed) {
            turning.run_once(bridge, &mut sleeper).map_err(Failure::failed)?;
            if asked.load(Ordering::Relaxed) && asked.swap(false, Ordering::Relaxed) {
                eprint!("{}", self.told(bridge));
            }
            if let Some(broken) = bridge.broken() {
                let device = match broken.side {
                    Which::Wire => &self.wire,
                    Which::Host => &self.host,
                };
                let named = broken.cause.starts_with(device.split(',').next().unwrap_or(""));
                return Err(Failure::Failed {
                    cause: if named {
                        broken.cause.clone()
                    } else {
                        format!("{device}: {}", broken.cause)
                    },
                    remedy: "start the gateway again once that is mended".into(),
                });
            }
        }
        Ok(())
    }

    /// Every counter that is not zero.
    fn told(&self, bridge: &Bridge) -> String {
        let standing = match bridge.standing() {
            Standing::Forwards => "forwards",
            Standing::StandsBy => "stands by for another gateway",
            Standing::Loops => "forwards nothing, since its own frames come back to it",
        };
        let mut rows: Vec<(&str, &str, u64)> = Vec::new();
        bridge.visit_counters(&mut |layer, name, value| {
            if value > 0 {
                rows.push((layer, name, value));
            }
        });
        if self.json {
            let mut layers = serde_json::Map::new();
            for (layer, name, value) in rows {
                let place = layers.entry(layer).or_insert_with(|| json!({}));
                if let Some(fields) = place.as_object_mut() {
                    fields.insert(name.to_owned(), json!(value));
                }
            }
            return format!("{}\n", json!({ "gateway": standing, "counters": layers }));
        }
        let width = |of: fn(&(&str, &str, u64)) -> usize| rows.iter().map(of).max().unwrap_or(0);
        let (layers, names) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let mut text = format!("\nthe gateway {standing}; counters that are not zero\n");
        for (layer, name, value) in &rows {
            text += &format!("  {layer:layers$}  {name:names$}  {value:>14}\n");
        }
        text
    }
}

fn open(text: &str) -> Result<AnyNic, Failure> {
    spec::open(text).map_err(|error| Failure::Failed {
        remedy: error.remedy.clone(),
        cause: roceway_runtime::rdma_virtio::nic::DeviceError { remedy: String::new(), ..error }
            .to_string(),
    })
}

fn side(nic: AnyNic) -> Result<Side, Failure> {
    Side::new(nic).map_err(Failure::failed)
}
