//! Devices by name: `kind:name,key=value,...`, as users write them.
//!
//! Every mistake is answered with what would be right: the nearest key, the list, the range.
//! Nothing is opened before the whole text was understood.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::any::AnyNic;
use super::fault::{FaultOptions, FaultyNic};
use super::packet::{PacketNic, PacketOptions};
use super::rdma::RdmaNic;
use super::rdma::options::RdmaOptions;
use super::rdma::raw::RawNic;
use super::soft::{SoftNic, SoftOptions};
use super::tap::{TapNic, TapOptions};
use super::{DeviceError, Receive};

mod rdma;

pub use self::rdma::OF_RC as RC_OPTIONS;

/// A kind of device, for help texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindHelp {
    /// What stands before the colon.
    pub kind: &'static str,
    /// What stands behind it.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its options, besides [`FAULT_OPTIONS`].
    pub options: &'static [OptionHelp],
}

/// An option of a device, for help texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHelp {
    /// What stands before the equals sign.
    pub key: &'static str,
    /// The form of its value.
    pub value: &'static str,
    /// Its default.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn option(
    key: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> OptionHelp {
    OptionHelp { key, value, default, help }
}

/// Every kind of device.
pub const KINDS: &[KindHelp] = &[
    KindHelp {
        kind: "soft",
        name: "/PATH.sock",
        help: "software RDMA NIC over shared memory with another process on this machine",
        options: &[
            option("mtu", "68..65535", "1500", "longest IP packet; the same at both ends"),
            option("large", "on|off", "on", "pass large segments whole; needs csum"),
            option("tso", "on|off", "off", "segment and checksum in the NIC; excludes large"),
            option("csum", "on|off", "on", "transmit checksum offload"),
            option("receive", "spanning|one", "spanning", "receives of a message: several or one"),
            option("slots", "64..8192", "512", "slots of the send ring, a power of two"),
            option("timeout", "10ms..60s", "1s", "a peer without progress for so long has stalled"),
        ],
    },
    KindHelp {
        kind: "tap",
        name: "NAME",
        help: "the host kernel as the peer, through a TAP interface",
        options: &[
            option("mtu", "68..65521", "the interface's", "MTU to give the interface"),
            option("csum", "on|off", "on", "checksum offload, both ways"),
            option("tso", "on|off", "on", "hand large segments to the host; needs csum"),
            option("gro", "on|off", "on", "take large segments from the host; needs csum"),
            option("addr", "ADDRESS/PREFIX", "none", "address of the host's end; may be repeated"),
            option("up", "on|off", "off", "bring the host's end up"),
            option("queue", "1..4096", "512", "work requests outstanding, each way"),
        ],
    },
    KindHelp {
        kind: "packet",
        name: "INTERFACE",
        help: "an interface of this host, through a packet socket: the kernel's own wire",
        options: &[
            option("mac", "aa:bb:cc:dd:ee:ff", "random", "own hardware address"),
            option("csum", "on|off", "on", "checksum offload, both ways"),
            option("tso", "on|off", "on", "hand large segments to the interface; needs csum"),
            option("gro", "on|off", "on", "take large segments; needs csum"),
            option(
                "promisc",
                "on|off",
                "off",
                "take and send frames of any address: for a gateway",
            ),
            option("bypass", "on|off", "on", "send past the queueing discipline"),
            option("ring", "64..4096", "256", "frames of the receive ring, a multiple of 64"),
            option("queue", "1..4096", "512", "work requests outstanding, each way"),
        ],
    },
    KindHelp {
        kind: "rdma",
        name: "DEVICE",
        help: "an RDMA NIC through verbs, by device (mlx5_0, mlx5_0:1) or interface (eth2); run on \
               soft-RoCE (rc, ud) and on a double of libibverbs (raw), on no hardware",
        options: rdma::OPTIONS,
    },
];

/// Options of every kind: faults on what is received, and with `sends` on what is sent.
pub const FAULT_OPTIONS: &[OptionHelp] = &[
    option("loss", "0..1 or %", "0", "rate of received messages lost"),
    option("dup", "0..1 or %", "0", "rate of received messages delivered twice"),
    option("reorder", "0..1 or %", "0", "rate of received messages overtaken by later ones"),
    option("corrupt", "0..1 or %", "0", "rate of received messages with a flipped bit"),
    option("error", "0..1 or %", "0", "rate of sends that complete in error"),
    option("delay", "0..10s", "0", "time that received messages are held back"),
    option("seed", "number", "1", "seed of the faults"),
    option("sends", "on|off", "off", "loss, dup and reorder of sent messages, too"),
];

/// What to open.
#[derive(Clone, PartialEq, Debug)]
pub enum Device {
    /// `soft:`
    Soft(PathBuf, SoftOptions),
    /// `tap:`
    Tap(String, TapOptions),
    /// `packet:`
    Packet(String, PacketOptions),
    /// `rdma:`
    Rdma(String, RdmaOptions),
}

/// A device as the user wrote it, understood.
#[derive(Clone, PartialEq, Debug)]
pub struct DeviceSpec {
    /// The text.
    pub text: String,
    /// The device.
    pub device: Device,
    /// Faults to put upon it.
    pub faults: FaultOptions,
}

/// Parses a spec and opens the device.
///
/// # Errors
/// What is wrong with the text and what would be right, or what the device's calls say.
pub fn open(spec: &str) -> Result<AnyNic, DeviceError> {
    DeviceSpec::parse(spec)?.open()
}

impl DeviceSpec {
    /// Understands `kind:name,key=value,...`.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<DeviceSpec, DeviceError> {
        parse(text).map_err(|mistake| DeviceError {
            device: text.to_owned(),
            call: "",
            source: io::Error::new(io::ErrorKind::InvalidInput, mistake),
            remedy: String::new(),
        })
    }

    /// Opens the device.
    ///
    /// # Errors
    /// What the device's calls say.
    pub fn open(&self) -> Result<AnyNic, DeviceError> {
        let nic = match &self.device {
            Device::Soft(path, options) => AnyNic::from(SoftNic::open(path, options)?),
            Device::Tap(name, options) => AnyNic::Tap(Box::new(TapNic::open(name, options)?)),
            Device::Packet(name, options) => {
                AnyNic::Packet(Box::new(PacketNic::open(name, options)?))
            }
            Device::Rdma(name, options) if options.mode.is_none() => {
                AnyNic::Raw(Box::new(RawNic::open(name, options)?))
            }
            Device::Rdma(name, options) => AnyNic::Rdma(Box::new(RdmaNic::open(name, options)?)),
        };
        if self.faults.is_any() {
            return Ok(AnyNic::Faulty(Box::new(FaultyNic::new(nic, self.faults)?)));
        }
        Ok(nic)
    }
}

/// A value, and the text before it for messages.
struct Value<'a> {
    key: &'a str,
    text: &'a str,
}

fn parse(text: &str) -> Result<DeviceSpec, String> {
    let (kind_name, rest) = text.split_once(':').unwrap_or((text, ""));
    let Some(kind) = KINDS.iter().find(|kind| kind.kind == kind_name) else {
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.kind).collect();
        return Err(unknown(("kind of device", "kinds of device"), kind_name, &kinds));
    };
    let mut parts = rest.split(',');
    let name = parts.next().unwrap_or("");
    if name.is_empty() {
        return Err(format!("a name is missing: write {}:{}", kind.kind, kind.name));
    }
    let mut device = match kind.kind {
        "soft" => Device::Soft(PathBuf::from(name), SoftOptions::default()),
        "tap" => Device::Tap(name.to_owned(), TapOptions::default()),
        "packet" => Device::Packet(name.to_owned(), PacketOptions::default()),
        _ => Device::Rdma(name.to_owned(), RdmaOptions::default()),
    };
    let mut faults = FaultOptions::default();
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let Some((key, text)) = part.split_once('=') else {
            return Err(format!("'{part}' is no option: write key=value"));
        };
        if !kind.options.iter().chain(FAULT_OPTIONS).any(|option| option.key == key) {
            let keys: Vec<&str> =
                kind.options.iter().chain(FAULT_OPTIONS).map(|option| option.key).collect();
            let all = format!("options of {}", kind.kind);
            return Err(unknown(("option", &all), key, &keys));
        }
        if seen.contains(&key) && !["addr", "peer", "accept"].contains(&key) {
            return Err(format!("{key} is given twice"));
        }
        seen.push(key);
        let value = Value { key, text };
        if FAULT_OPTIONS.iter().any(|option| option.key == key) {
            set_fault(&mut faults, &value)?;
        } else {
            set_option(&mut device, &value)?;
        }
    }
    settle(&mut device, &seen)?;
    faults.check()?;
    Ok(DeviceSpec { text: text.to_owned(), device, faults })
}

/// Defaults that depend on other options, and what cannot be combined.
fn settle(device: &mut Device, seen: &[&str]) -> Result<(), String> {
    match device {
        Device::Soft(_, options) => {
            if !seen.contains(&"large") && (options.tso || !options.csum) {
                options.large = false;
            }
            options.check()
        }
        Device::Tap(_, TapOptions { checksum, tso, large_receive, .. })
        | Device::Packet(_, PacketOptions { checksum, tso, large_receive, .. }) => {
            for (key, on) in [("tso", tso), ("gro", large_receive)] {
                if *on && !*checksum && seen.contains(&key) {
                    return Err(format!("{key}=on needs csum=on"));
                }
                *on &= *checksum;
            }
            Ok(())
        }
        Device::Rdma(_, options) => rdma::settle(options, seen),
    }
}

fn set_option(device: &mut Device, value: &Value<'_>) -> Result<(), String> {
    match device {
        Device::Soft(_, options) => match value.key {
            "mtu" => options.mtu = value.number(68, 65_535)?,
            "large" => options.large = value.switch()?,
            "tso" => options.tso = value.switch()?,
            "csum" => options.csum = value.switch()?,
            "receive" => options.receive = value.receive()?,
            "slots" => options.slots = value.number(64, 8192)?.into(),
            _ => options.timeout_ns = value.time_ns()?,
        },
        Device::Tap(_, options) => match value.key {
            "mtu" => options.mtu = Some(value.number(68, 65_521)?),
            "csum" => options.checksum = value.switch()?,
            "tso" => options.tso = value.switch()?,
            "gro" => options.large_receive = value.switch()?,
            "addr" => options.addresses.push(value.address()?),
            "up" => options.up = value.switch()?,
            _ => options.queue = value.number(1, 4096)?,
        },
        Device::Packet(_, options) => match value.key {
            "mac" => options.mac = Some(value.mac()?),
            "csum" => options.checksum = value.switch()?,
            "tso" => options.tso = value.switch()?,
            "gro" => options.large_receive = value.switch()?,
            "promisc" => options.promiscuous = value.switch()?,
            "bypass" => options.qdisc_bypass = value.switch()?,
            "ring" => options.ring = value.multiple_of(64, 64, 4096)?,
            _ => options.queue = value.number(1, 4096)?,
        },
        Device::Rdma(_, options) => rdma::set(options, value)?,
    }
    Ok(())
}

fn set_fault(faults: &mut FaultOptions, value: &Value<'_>) -> Result<(), String> {
    match value.key {
        "loss" => faults.loss = value.rate()?,
        "dup" => faults.duplicate = value.rate()?,
        "reorder" => faults.reorder = value.rate()?,
        "corrupt" => faults.corrupt = value.rate()?,
        "error" => faults.send_error = value.rate()?,
        "delay" => faults.delay_ns = value.time_ns()?,
        "sends" => faults.sends = value.switch()?,
        _ => faults.seed = value.text.parse().map_err(|_| value.wrong("a number"))?,
    }
    Ok(())
}

impl Value<'_> {
    fn wrong(&self, wanted: &str) -> String {
        format!("{}={} is not {wanted}", self.key, self.text)
    }

    fn switch(&self) -> Result<bool, String> {
        match self.text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.wrong("on or off")),
        }
    }

    fn receive(&self) -> Result<Receive, String> {
        match self.text {
            "spanning" => Ok(Receive::Spanning),
            "one" => Ok(Receive::OneMessage),
            _ => Err(self.wrong("spanning or one")),
        }
    }

    fn number(&self, least: u16, most: u16) -> Result<u16, String> {
        let found: Option<u16> = self.text.parse().ok();
        found
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.wrong(&format!("a number from {least} to {most}")))
    }

    fn multiple_of(&self, unit: u16, least: u16, most: u16) -> Result<u16, String> {
        let number = self.number(least, most)?;
        if number.is_multiple_of(unit) {
            Ok(number)
        } else {
            Err(self.wrong(&format!("a multiple of {unit}")))
        }
    }

    /// A fraction, or a percentage.
    fn rate(&self) -> Result<f64, String> {
        let (number, unit) = match self.text.strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (self.text, 1.0),
        };
        let found: Option<f64> = number.trim().parse().ok();
        found
            .map(|number| number / unit)
            .filter(|rate| (0.0..=1.0).contains(rate))
            .ok_or_else(|| self.wrong("a rate from 0 to 1, or from 0% to 100%"))
    }

    /// A time with a unit; only 0 needs none.
    fn time_ns(&self) -> Result<u64, String> {
        let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
        let wrong = || self.wrong("a time such as 500us, 10ms or 2s");
        if self.text == "0" {
            return Ok(0);
        }
        let (number, unit_ns) = units
            .iter()
            .find_map(|(unit, ns)| Some((self.text.strip_suffix(unit)?, *ns)))
            .ok_or_else(wrong)?;
        if let Ok(number) = number.parse::<u64>() {
            return number.checked_mul(unit_ns).ok_or_else(wrong);
        }
        let fraction: f64 = number.parse().map_err(|_| wrong())?;
        let unit = Duration::from_nanos(unit_ns);
        let seconds = fraction * unit.as_secs_f64();
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        u64::try_from(time.as_nanos()).map_err(|_| wrong())
    }

    fn address(&self) -> Result<(IpAddr, u8), String> {
        let wrong = || self.wrong("an address with its prefix, such as 10.0.0.1/24 or fd00::1/64");
        let (address, prefix) = self.text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        // No prefix would take the whole world for neighbours.
        if prefix == 0 || prefix > longest {
            return Err(wrong());
        }
        Ok((address, prefix))
    }

    fn mac(&self) -> Result<[u8; 6], String> {
        let wrong = || self.wrong("a unicast hardware address such as 02:00:00:00:00:01");
        let mut mac = [0; 6];
        let mut bytes = self.text.split(':');
        for place in &mut mac {
            let text = bytes.next().filter(|text| text.len() == 2).ok_or_else(wrong)?;
            *place = u8::from_str_radix(text, 16).map_err(|_| wrong())?;
        }
        if bytes.next().is_some() || mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(wrong());
        }
        Ok(mac)
    }
}

/// Names what is unknown, the nearest known one, and all, which are named in the plural.
fn unknown((what, all): (&str, &str), found: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(found, a).total_cmp(&strsim::jaro_winkler(found, b)))
        .copied()
        .unwrap_or("");
    let near = strsim::jaro_winkler(found, nearest) > 0.6;
    let hint = if near { format!(" did you mean '{nearest}'?") } else { String::new() };
    format!("unknown {what} '{found}';{hint} the {all} are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::rdma::raw::options::{Groups, Wish};

    fn refusal(text: &str) -> String {
        let refused = DeviceSpec::parse(text).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{text}: ")), "{refused}");
        refused
    }

    #[test]
    fn specs_are_understood() {
        let spec =
            DeviceSpec::parse("soft:/tmp/a.sock,mtu=9000,loss=1%,delay=1.5ms,seed=7").unwrap();
        let options = SoftOptions { mtu: 9000, ..SoftOptions::default() };
        assert_eq!(spec.device, Device::Soft(PathBuf::from("/tmp/a.sock"), options));
        let faults =
            FaultOptions { loss: 0.01, delay_ns: 1_500_000, seed: 7, ..FaultOptions::default() };
        assert_eq!(spec.faults, faults);

        let spec = DeviceSpec::parse("soft:x,csum=off,timeout=250ms,slots=1024").unwrap();
        let Device::Soft(_, options) = spec.device else { panic!() };
        assert!(!options.large && !options.csum && options.slots == 1024);
        assert_eq!(options.timeout_ns, 250_000_000);

        let spec = DeviceSpec::parse("tap:r0,addr=10.0.0.1/24,addr=fd00::1/64,gro=off").unwrap();
        let Device::Tap(name, options) = spec.device else { panic!() };
        assert!(name == "r0" && options.addresses.len() == 2 && !options.large_receive);

        let spec = DeviceSpec::parse("packet:eth0,mac=02:00:00:00:00:01,ring=128").unwrap();
        let Device::Packet(_, options) = spec.device else { panic!() };
        assert_eq!((options.mac, options.ring), (Some([2, 0, 0, 0, 0, 1]), 128));

        let text = "rdma:mlx5_0:1,mode=rc,peer=10.0.0.2,peer=[fd00::2]:99,accept=10.1.0.0/16,gid=3";
        let Device::Rdma(name, options) = DeviceSpec::parse(text).unwrap().device else { panic!() };
        assert!(name == "mlx5_0:1" && options.peers.len() == 2 && options.accept.len() == 1);
        assert_eq!((options.gid, options.peers_max()), (Some(3), 5));

        for text in ["rdma:eth2", "rdma:eth2,mode=raw"] {
            let device = DeviceSpec::parse(text).unwrap().device;
            assert_eq!(device, Device::Rdma("eth2".to_owned(), RdmaOptions::default()));
        }
        let text = "rdma:m,vlan=7,groups=take,csum=on,tso=off,mac=02:00:00:00:00:01";
        let Device::Rdma(_, options) = DeviceSpec::parse(text).unwrap().device else { panic!() };
        let raw = options.raw;
        assert_eq!((raw.vlan, raw.groups, raw.promiscuous), (Some(7), Groups::Take, false));
        assert_eq!((raw.checksum, raw.tso), (Wish::On, Wish::Off));
    }

    #[test]
    fn mistakes_are_answered_with_what_would_be_right() {
        let rows = [
            ("sofd:/x", "did you mean 'soft'?"),
            ("", "unknown kind of device ''; the kinds of device are "),
            ("soft:", "write soft:/PATH.sock"),
            ("soft", "write soft:/PATH.sock"),
            (
                "soft:/x,mtv=9000",
                ": unknown option 'mtv'; did you mean 'mtu'? the options of soft are mtu, large",
            ),
            ("soft:/x,mtu", "write key=value"),
            ("soft:/x,mtu=0", "a number from 68 to 65535"),
            ("soft:/x,mtu=70000", "a number from 68 to 65535"),
            ("soft:/x,mtu=1500,mtu=9000", "mtu is given twice"),
            ("soft:/x,slots=100", "a power of two from 64 to 8192"),
            ("soft:/x,timeout=1ns", "choose 10 ms to 60 s"),
            ("soft:/x,timeout=5", "a time such as"),
            ("soft:/x,large=yes", "on or off"),
            ("soft:/x,large=on,tso=on", "exclude each other"),
            ("soft:/x,large=on,csum=off", "large=on needs csum=on"),
            ("soft:/x,loss=2", "from 0 to 1"),
            ("soft:/x,loss=NaN", "from 0 to 1"),
            ("soft:/x,delay=11s", "choose 0 to 10s"),
            ("tap:t,tso=on,csum=off", "tso=on needs csum=on"),
            ("tap:t,addr=10.0.0.1", "with its prefix"),
            ("tap:t,addr=10.0.0.1/33", "with its prefix"),
            ("tap:t,addr=10.0.0.1/0", "with its prefix"),
            ("packet:e,mac=01:00:00:00:00:01", "a unicast hardware address"),
            ("packet:e,ring=65", "a multiple of 64"),
            ("packet:e,queue=0", "a number from 1 to 4096"),
            ("rdma:m,mode=uc", "raw, rc or ud"),
            ("rdma:m,peer=10.0.0.2", "peer= is for mode=rc and mode=ud"),
            ("rdma:m,mode=raw,retry=3", "retry= is for mode=rc"),
            ("rdma:m,mode=rc,peer=10.0.0.2,vlan=3", "vlan= is for mode=raw"),
            ("rdma:m,mode=ud,peer=10.0.0.2,rnr=3", "rnr= is for mode=rc"),
            ("rdma:m,vlan=4095", "a number from 1 to 4094"),
            ("rdma:m,vlan=3,promisc=on", "exclude each other"),
            ("rdma:m,csum=yes", "try, on or off"),
            ("rdma:m,groups=some", "copy, take or off"),
            ("rdma:m,csum=off,tso=on", "tso=on needs csum"),
            ("rdma:m,mode=rc", "give peer=ADDRESS"),
            ("rdma:m,mode=rc,peer=host", "an address such as"),
            ("rdma:m,mode=rc,accept=10.0.0.1", "with its prefix"),
            ("rdma:m,mode=rc,peer=10.0.0.2,timeout=20", "lower timeout="),
            ("rdma:m,mode=rc,flow=1048576", "a number from 0 to 1048575"),
        ];
        for (text, wanted) in rows {
            let found = refusal(text);
            assert!(found.contains(wanted), "{text}: {found}");
        }
    }

    #[test]
    fn every_option_in_the_table_is_understood_and_every_default_is_legal() {
        for kind in KINDS {
            for option in kind.options.iter().chain(FAULT_OPTIONS) {
                let found = refusal(&format!("{}:x,{}=\u{1}", kind.kind, option.key));
                assert!(!found.contains("unknown option"), "{}: {found}", option.key);
                let text = format!("{}:x,{}={}", kind.kind, option.key, option.default);
                // Words for what is known only when it is opened.
                let words = ["the ", "none", "random", "by ", "64 or"];
                let symbolic = words.iter().any(|word| option.default.starts_with(word));
                // Some are for the wires only, which need a peer.
                let wire = format!("{text},mode=rc,peer=10.0.0.2");
                let legal = [text.clone(), wire].iter().any(|text| DeviceSpec::parse(text).is_ok());
                assert!(symbolic || legal, "{text}");
            }
        }
    }
}
