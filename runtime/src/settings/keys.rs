//! Every setting: its name, form, range and place. What a user can say is exactly this table.

use roceway_busypoll::Spin;
use roceway_rdma_virtio::memory::mapping::PageWish;
use roceway_stack::tcp::EcnMode;
use roceway_stack::tcp::congestion::Algorithm;
use roceway_stack::time::Duration;

use super::Settings;
use super::value::Value;
use crate::config::Prefix;
use crate::offload::OffloadWish;
use crate::shared::Manner;

/// A setting, for help texts.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name; in a file the part before the dot is the table.
    pub name: &'static str,
    /// The form of its value.
    pub form: &'static str,
    /// What it does, and its default.
    pub help: &'static str,
    pub(super) set: fn(&mut Settings, Value<'_>) -> Result<(), String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.name, self.form)
    }
}

type Set = fn(&mut Settings, Value<'_>) -> Result<(), String>;

const fn key(name: &'static str, form: &'static str, help: &'static str, set: Set) -> Key {
    Key { name, form, help, set }
}

const SECOND: u64 = 1_000_000_000;

/// Bytes of a connection's buffer (`TcpConfig`).
const BUFFER: std::ops::RangeInclusive<u32> = 4096..=1 << 30;

fn time(value: Value<'_>, least: u64, most: u64) -> Result<Duration, String> {
    value.time_ns(least..=most).map(Duration::from_nanos)
}

/// Parses each part of a list.
fn each<T: std::str::FromStr>(value: Value<'_>, wanted: &str) -> Result<Vec<T>, String> {
    let parse = |part: &str| part.trim().parse().map_err(|_bad| wanted.to_owned());
    value.0.split(',').map(parse).collect()
}

fn addresses(settings: &mut Settings, value: Value<'_>) -> Result<(), String> {
    let wanted = |error| format!("an address with its prefix, such as 10.0.0.1/24; {error}");
    let parse = |part: &str| part.trim().parse::<Prefix>().map_err(wanted);
    settings.worker.addresses = value.0.split(',').map(parse).collect::<Result<_, _>>()?;
    Ok(())
}

fn mac(settings: &mut Settings, value: Value<'_>) -> Result<(), String> {
    let wanted = || "a unicast hardware address, such as 02:00:00:00:00:01".to_owned();
    let mut mac = [0; 6];
    let mut parts = value.0.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wanted)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_bad| wanted())?;
    }
    if parts.next().is_some() || mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(wanted());
    }
    settings.worker.mac = Some(mac);
    Ok(())
}

fn spin(settings: &mut Settings, value: Value<'_>) -> Result<(), String> {
    let wanted = "`forever`, or the shortest and the longest time, such as 50us..200us";
    settings.worker.turn.spin = match value.0.split_once("..") {
        None if value.0 == "forever" => Spin::Forever,
        None => return Err(wanted.to_owned()),
        Some((min, max)) => {
            let min_ns = Value(min.trim()).time_ns(0..=SECOND)?;
            let max_ns = Value(max.trim()).time_ns(min_ns..=SECOND)?;
            Spin::Adaptive { min_ns, max_ns }
        }
    };
    Ok(())
}

fn offload(settings: &mut Settings, value: Value<'_>) -> Result<(), String> {
    let understood = OffloadWish::parse(value.0, settings.worker.offloads)?;
    settings.worker.offloads = understood.wish;
    if !understood.cleared.is_empty() {
        let names = understood.cleared.join(", ");
        settings.notices.push(format!("offload: {names} cleared: UFO is never offered"));
    }
    Ok(())
}

/// Every setting.
pub const KEYS: &[Key] = &[
    key("device", "KIND:NAME[,KEY=VALUE]", "the device, such as soft:/run/link.sock", |s, v| {
        s.device = Some(v.0.to_owned());
        Ok(())
    }),
    key("address", "ADDRESS/PREFIX[,...]", "addresses of this end", addresses),
    key("gateway", "ADDRESS[,...]", "default gateways; none", |s, v| {
        s.worker.gateways = each(v, "IPv4 or IPv6 addresses")?;
        Ok(())
    }),
    key("mac", "aa:bb:cc:dd:ee:ff", "hardware address; the device's or random", mac),
    key("mtu", "576..65535", "longest IP packet; the device's", |s, v| {
        s.worker.mtu = Some(v.number(576..=65_535)?);
        Ok(())
    }),
    key("cpu", "NUMBER", "core to pin the turning thread to; none", |s, v| {
        s.worker.cpu = Some(v.number(0..=4095)?);
        Ok(())
    }),
    key("worker", "0..255", "number of the worker; 0", |s, v| {
        s.worker.worker = v.number(0..=255)?;
        Ok(())
    }),
    key("manner", "owned|caller-driven", "who turns a shared worker; owned", |s, v| {
        s.manner =
            v.one_of(&[("owned", Manner::Owned), ("caller-driven", Manner::CallerDriven)])?;
        Ok(())
    }),
    key("capture", "FILE", "write every frame to this pcapng file; none", |s, v| {
        s.worker.capture = Some(v.0.into());
        Ok(())
    }),
    key(
        "queue_size",
        "16..4096",
        "entries of each virtqueue, a power of two; 256, rc 512",
        |s, v| {
            s.worker.queue_size = u16::try_from(v.power_of_two(16..=4096)?).ok();
            Ok(())
        },
    ),
    key(
        "offload",
        "all|none|0xMASK|[+-]NAME[,...]",
        "what the device does for us; all,-gro,+gso_uso",
        offload,
    ),
    key("tcp.send_buffer", "4KiB..1GiB", "most unacknowledged and unsent bytes; 1MiB", |s, v| {
        s.worker.tcp.send_buffer = v.size(BUFFER)?;
        Ok(())
    }),
    key("tcp.receive_buffer", "4KiB..1GiB", "most unread bytes; 1MiB", |s, v| {
        s.worker.tcp.receive_buffer = v.size(BUFFER)?;
        Ok(())
    }),
    key("tcp.lent_slots", "1..65535", "receive slots an application may keep; 256", |s, v| {
        s.worker.tcp.lent_slots = v.number(1..=65_535)?;
        Ok(())
    }),
    key("tcp.congestion", "cubic|newreno", "congestion control; cubic", |s, v| {
        s.worker.tcp.congestion =
            v.one_of(&[("cubic", Algorithm::Cubic), ("newreno", Algorithm::NewReno)])?;
        Ok(())
    }),
    key("tcp.timestamps", "on|off", "offer timestamps (RFC 7323); on", |s, v| {
        s.worker.tcp.timestamps = v.switch()?;
        Ok(())
    }),
    key("tcp.sack", "on|off", "offer selective acknowledgements (RFC 2018); on", |s, v| {
        s.worker.tcp.sack = v.switch()?;
        Ok(())
    }),
    key(
        "tcp.ecn",
        "off|accept|on",
        "congestion marks (RFC 3168), asked for if on; accept",
        |s, v| {
            s.worker.tcp.ecn = v.one_of(&[
                ("off", EcnMode::Off),
                ("accept", EcnMode::Accept),
                ("on", EcnMode::On),
            ])?;
            Ok(())
        },
    ),
    key("tcp.delayed_ack", "0..499ms", "longest delay of an acknowledgement; 40ms", |s, v| {
        s.worker.tcp.delayed_ack = time(v, 0, 499_000_000)?;
        Ok(())
    }),
    key("tcp.msl", "10ms..2min", "half of what TIME-WAIT lasts; 30s", |s, v| {
        s.worker.tcp.msl = time(v, 10_000_000, 120 * SECOND)?;
        Ok(())
    }),
    key("tcp.fin_wait_2", "1s..1h", "how long an orphan waits for the peer's FIN; 60s", |s, v| {
        s.worker.tcp.fin_wait_2 = time(v, SECOND, 3600 * SECOND)?;
        Ok(())
    }),
    key("tcp.give_up", "1s..1h", "how long data goes unacknowledged; 120s", |s, v| {
        s.worker.tcp.give_up = time(v, SECOND, 3600 * SECOND)?;
        Ok(())
    }),
    key("tcp.syn_give_up", "1s..1h", "the same for a SYN; 180s", |s, v| {
        s.worker.tcp.syn_give_up = time(v, SECOND, 3600 * SECOND)?;
        Ok(())
    }),
    key("tcp.connections", "1..1048576", "most connections; 65536", |s, v| {
        s.worker.tcp.connections_max = v.number(1..=1 << 20)?;
        Ok(())
    }),
    key("tcp.listeners", "1..65535", "most listeners; 1024", |s, v| {
        s.worker.tcp.listeners_max = v.number(1..=65_535)?;
        Ok(())
    }),
    key("tcp.time_waits", "1..1048576", "most compact TIME-WAITs; 65536", |s, v| {
        s.worker.tcp.time_wait_max = v.number(1..=1 << 20)?;
        Ok(())
    }),
    key("udp.sockets", "1..65536", "most sockets; 65536", |s, v| {
        s.worker.udp.sockets = v.number(1..=65_536)?;
        Ok(())
    }),
    key("udp.receive_datagrams", "1..65535", "unread datagrams a socket; 512", |s, v| {
        s.worker.udp.receive_datagrams = v.number(1..=65_535)?;
        Ok(())
    }),
    key("udp.receive_buffer", "4KiB..1GiB", "unread bytes a socket; 256KiB", |s, v| {
        s.worker.udp.receive_bytes = v.size(BUFFER)?;
        Ok(())
    }),
    key("udp.send_frames", "1..65535", "frames to be sent a socket; 256", |s, v| {
        s.worker.udp.send_frames = v.number(1..=65_535)?;
        Ok(())
    }),
    key("memory.small", "64..1048576", "transmit slots of 256 bytes; 4096", |s, v| {
        s.worker.memory.small = v.number(64..=1 << 20)?;
        Ok(())
    }),
    key("memory.chunks", "32..1048576", "transmit slots of 4 KiB; 384", |s, v| {
        s.worker.memory.chunks = v.number(32..=1 << 20)?;
        Ok(())
    }),
    key("memory.blocks", "0..65536", "buffers for sending without a copy; 8", |s, v| {
        s.worker.memory.blocks = v.number(0..=1 << 16)?;
        Ok(())
    }),
    key("memory.block", "4KiB..1MiB", "bytes of such a buffer; 64KiB", |s, v| {
        let size = v.size(4096..=1 << 20)?;
        s.worker.memory.block_len = Value(&size.to_string()).power_of_two(4096..=1 << 20)?;
        Ok(())
    }),
    key("memory.receive", "32..1048576", "receive slots; 1024", |s, v| {
        s.worker.memory.receive = v.number(32..=1 << 20)?;
        Ok(())
    }),
    key("memory.receive_slot", "2KiB..64KiB", "bytes of a receive slot; 4KiB", |s, v| {
        let size = v.size(2048..=65_536)?;
        s.worker.memory.receive_len = Value(&size.to_string()).power_of_two(2048..=65_536)?;
        Ok(())
    }),
    key("memory.huge_pages", "on|off", "huge pages if there are any; off", |s, v| {
        let pages = if v.switch()? { PageWish::Huge } else { PageWish::Ordinary };
        s.worker.memory.pages = pages;
        Ok(())
    }),
    key("turn.spin", "forever|MIN..MAX", "how long to poll before sleep; 50us..200us", spin),
];
