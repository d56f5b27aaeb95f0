//! What the environment variable `ROCEWAY_DOUBLE` says: devices, their limits and what they lack.
//!
//! Entries are separated by `;` or line ends, items of an entry by `,`. An entry that begins with
//! `dev=NAME` describes a device; other entries hold settings of the whole process. `@PATH` reads
//! the text from a file. It parses and checks; it opens nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use crate::abi::consts;

/// A GID and its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gid {
    /// 16 bytes in network order.
    pub(crate) raw: [u8; 16],
    /// `enum ibv_gid_type`.
    pub(crate) kind: u32,
}

/// What a device claims but does not do, so that a probe has something to find.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Lies {
    /// Segmentation is claimed; the frame leaves in one piece.
    pub(crate) tso: bool,
    /// Checksum offload is claimed; the field stays as it was.
    pub(crate) checksum: bool,
    /// Rules are accepted; nothing ever matches.
    pub(crate) flow: bool,
}

/// A device as the text describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeviceConfig {
    /// `dev=`, at most 63 bytes.
    pub(crate) name: String,
    /// `mac=`.
    pub(crate) mac: [u8; 6],
    /// `gid=` and what `ip=` implies, by index.
    pub(crate) gids: Vec<Gid>,
    /// `netdev=`: the interface whose index GID entries bear.
    pub(crate) netdev: Option<String>,
    /// `tap=`: the kernel side.
    pub(crate) tap: Option<String>,
    /// `mtu=`: longest Ethernet payload in bytes.
    pub(crate) mtu: u16,
    /// `active_mtu=` in bytes.
    pub(crate) active_mtu: u32,
    /// `link_layer=infiniband`.
    pub(crate) infiniband: bool,
    /// `link=down`.
    pub(crate) down: bool,
    /// `raw=off`: no RAW_PACKET queue pairs, as rxe has none.
    pub(crate) raw: bool,
    /// `privileged=no`: RAW_PACKET and rules fail with `EPERM`.
    pub(crate) privileged: bool,
    /// `flows=off`: no flow steering.
    pub(crate) flows: bool,
    /// `dont_trap=off`: rules that copy are refused with `EOPNOTSUPP`.
    pub(crate) dont_trap: bool,
    /// `leftovers=after`: default rules see only what the kernel side does not want.
    pub(crate) leftovers_after_kernel: bool,
    /// `csum=off`: no checksum offload.
    pub(crate) checksum: bool,
    /// `loopback=on`: frames to stations come back to the port's own queue pairs.
    pub(crate) loopback: bool,
    /// `lie=tso|csum|flow`.
    pub(crate) lies: Lies,
    /// `memlock=`: bytes that may be registered, or the limit of the process with `rlimit`.
    pub(crate) memlock: Option<u64>,
    /// Everything that has a number and is a limit.
    pub(crate) limits: Limits,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $value:expr),+ $(,)?) => {
        /// Limits of a device; each is a key of the text.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct Limits {
            $($(#[$doc])* pub(crate) $name: u32,)+
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: $value,)+ }
            }
        }

        impl Limits {
            fn set(&mut self, key: &str, value: u32) -> bool {
                match key {
                    $(stringify!($name) => self.$name = value,)+
                    _ => return false,
                }
                true
            }
        }
    };
}

limits! {
    /// `ibv_device_attr.max_qp`.
    max_qp = 2048,
    /// `ibv_device_attr.max_qp_wr`.
    max_qp_wr = 16384,
    /// `ibv_device_attr.max_sge`.
    max_sge = 30,
    /// `ibv_device_attr.max_cq`.
    max_cq = 1024,
    /// `ibv_device_attr.max_cqe`.
    max_cqe = 65536,
    /// `ibv_device_attr.max_mr`.
    max_mr = 4096,
    /// `ibv_device_attr.max_pd`.
    max_pd = 256,
    /// `ibv_device_attr.max_ah`.
    max_ah = 4096,
    /// `ibv_device_attr.max_srq`.
    max_srq = 256,
    /// `ibv_device_attr.max_srq_wr`.
    max_srq_wr = 16384,
    /// `ibv_device_attr.max_srq_sge`.
    max_srq_sge = 30,
    /// `ibv_device_attr.max_qp_rd_atom` and its like.
    max_rd_atom = 16,
    /// `ibv_port_attr.max_msg_sz`.
    max_msg_sz = 8 << 20,
    /// Largest `max_inline_data` that a queue pair gets.
    max_inline = 220,
    /// Largest `max_tso_header` that a queue pair gets.
    max_tso_header = 128,
    /// `ibv_tso_caps.max_tso`; 0 for none.
    max_tso = 256 << 10,
    /// `ibv_tso_caps.supported_qpts`.
    tso_qpts = 1 << consts::QPT_RAW_PACKET,
    /// `ibv_context.num_comp_vectors`.
    comp_vectors = 1,
    /// Bits that are taken from `ibv_device_attr.device_cap_flags`.
    cap_flags_without = 0,
}

/// Everything that the text says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    /// By number.
    pub(crate) devices: Vec<DeviceConfig>,
    /// `wire=`: the folder where processes find each other.
    pub(crate) wire: Option<PathBuf>,
    /// `control=`: path of a datagram socket that takes control lines.
    pub(crate) control: Option<PathBuf>,
    /// `seed=` of the losses.
    pub(crate) seed: u64,
}

impl Config {
    /// Reads `ROCEWAY_DOUBLE`; without it there are two devices, `double0` and `double1`.
    ///
    /// # Errors
    /// A sentence that names the item.
    pub(crate) fn from_environment() -> Result<Config, String> {
        let text = std::env::var("ROCEWAY_DOUBLE").unwrap_or_default();
        match text.strip_prefix('@') {
            None => Config::parse(&text),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Config::parse(&text),
                Err(error) => Err(format!("{path}: {error}")),
            },
        }
    }

    /// Reads a text.
    ///
    /// # Errors
    /// A sentence that names the item.
    pub(crate) fn parse(text: &str) -> Result<Config, String> {
        let mut config = Config { devices: Vec::new(), wire: None, control: None, seed: 1 };
        let mut none = false;
        for entry in text.split([';', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
            let items: Vec<(&str, &str)> =
                entry.split(',').map(|item| split(item.trim())).collect::<Result<_, _>>()?;
            if let Some(("dev", name)) = items.first().copied() {
                let number = config.devices.len();
                config.devices.push(DeviceConfig::parse(name, number, &items[1..])?);
                continue;
            }
            for (key, value) in items {
                match key {
                    "wire" => config.wire = Some(PathBuf::from(value)),
                    "control" => config.control = Some(PathBuf::from(value)),
                    "seed" => config.seed = number(key, value)?,
                    "devices" if value == "none" => none = true,
                    _ => return Err(format!("`{key}={value}`: no such setting")),
                }
            }
        }
        if config.devices.is_empty() && !none {
            for (number, name) in ["double0", "double1"].into_iter().enumerate() {
                config.devices.push(DeviceConfig::parse(name, number, &[])?);
            }
        }
        Ok(config)
    }
}

fn split(item: &str) -> Result<(&str, &str), String> {
    item.split_once('=').ok_or_else(|| format!("`{item}`: say KEY=VALUE"))
}

fn number<T: TryFrom<u64>>(key: &str, value: &str) -> Result<T, String> {
    let parsed = match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => value.parse(),
    };
    let parsed = parsed.ok().and_then(|parsed| T::try_from(parsed).ok());
    parsed.ok_or_else(|| format!("`{key}={value}`: not a number that fits"))
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "up" => Ok(true),
        "off" | "no" | "down" => Ok(false),
        _ => Err(format!("`{key}={value}`: say on or off")),
    }
}

/// Parses `aa:bb:cc:dd:ee:ff`.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = part.ok_or_else(|| format!("`{text}`: not a hardware address"))?;
    }
    match parts.next() {
        None => Ok(mac),
        Some(_) => Err(format!("`{text}`: not a hardware address")),
    }
}

/// The 16 bytes of an address: IPv4 as `::ffff:a.b.c.d`, as RoCE v2 has it.
pub(crate) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}

/// Parses `ADDRESS[/v1|/v2|/ib]`; RoCE v2 unless said. `empty` is an entry without a GID.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn parse_gid(text: &str) -> Result<Gid, String> {
    if text == "empty" {
        return Ok(Gid { raw: [0; 16], kind: consts::GID_TYPE_IB });
    }
    let (address, kind) = match text.split_once('/') {
        None => (text, consts::GID_TYPE_ROCE_V2),
        Some((address, "v2")) => (address, consts::GID_TYPE_ROCE_V2),
        Some((address, "v1")) => (address, consts::GID_TYPE_ROCE_V1),
        Some((address, "ib")) => (address, consts::GID_TYPE_IB),
        Some(_) => return Err(format!("`gid={text}`: the type is v1, v2 or ib")),
    };
    let address: IpAddr = address.parse().map_err(|_| format!("`gid={text}`: not an address"))?;
    Ok(Gid { raw: address_bytes(address), kind })
}

/// The link-local address that comes from a MAC by EUI-64 (RFC 4291 appendix A).
fn link_local(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    let [ab, cf, fd, ef] = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, ab, cf, fd, ef).octets()
}

/// Link-local first and each address as v1 and v2, in mlx5's order.
fn usual_gids(mac: [u8; 6], addresses: &[IpAddr]) -> Vec<Gid> {
    let all = std::iter::once(link_local(mac)).chain(addresses.iter().copied().map(address_bytes));
    let both = [consts::GID_TYPE_ROCE_V1, consts::GID_TYPE_ROCE_V2];
    all.flat_map(|raw| both.map(|kind| Gid { raw, kind })).collect()
}

impl DeviceConfig {
    fn parse(name: &str, number: usize, items: &[(&str, &str)]) -> Result<Self, String> {
        if name.is_empty() || name.len() > 63 {
            return Err(format!("`dev={name}`: a name has 1 to 63 bytes"));
        }
        let last = u8::try_from(number + 1).map_err(|_| "more than 255 devices".to_string())?;
        let mut device = DeviceConfig {
            name: name.to_string(),
            mac: [2, 0, 0, 0, 0, last],
            gids: Vec::new(),
            netdev: None,
            tap: None,
            mtu: 1500,
            active_mtu: 1024,
            infiniband: false,
            down: false,
            raw: true,
            privileged: true,
            flows: true,
            dont_trap: true,
            leftovers_after_kernel: false,
            checksum: true,
            loopback: false,
            lies: Lies::default(),
            memlock: None,
            limits: Limits::default(),
        };
        let mut addresses = Vec::new();
        for &(key, value) in items {
            if key == "ip" {
                let parsed = value.parse::<IpAddr>();
                addresses.push(parsed.map_err(|_| format!("`ip={value}`: not an address"))?);
            } else {
                device.set(key, value)?;
            }
        }
        if device.gids.is_empty() {
            if addresses.is_empty() {
                addresses.push(IpAddr::from([10, 77, 0, last]));
            }
            device.gids = usual_gids(device.mac, &addresses);
        }
        Ok(device)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "mac" => self.mac = parse_mac(value)?,
            "gid" => self.gids.push(parse_gid(value)?),
            "netdev" => self.netdev = Some(value.to_string()),
            "tap" => self.tap = Some(value.to_string()),
            "mtu" => self.mtu = number(key, value)?,
            "active_mtu" => {
                self.active_mtu = number(key, value)?;
                if ![256, 512, 1024, 2048, 4096].contains(&self.active_mtu) {
                    return Err(format!("`{key}={value}`: 256, 512, 1024, 2048 or 4096"));
                }
            }
            "link_layer" => self.infiniband = value == "infiniband",
            "link" => self.down = !switch(key, value)?,
            "raw" => self.raw = switch(key, value)?,
            "privileged" => self.privileged = switch(key, value)?,
            "flows" => self.flows = switch(key, value)?,
            "dont_trap" => self.dont_trap = switch(key, value)?,
            "leftovers" => self.leftovers_after_kernel = value == "after",
            "csum" => self.checksum = switch(key, value)?,
            "loopback" => self.loopback = switch(key, value)?,
            "tso" => {
                if !switch(key, value)? {
                    self.limits.max_tso = 0;
                }
            }
            "lie" => match value {
                "tso" => self.lies.tso = true,
                "csum" => self.lies.checksum = true,
                "flow" => self.lies.flow = true,
                _ => return Err(format!("`lie={value}`: say tso, csum or flow")),
            },
            "memlock" => {
                self.memlock = match value {
                    "off" => None,
                    "rlimit" => Some(u64::MAX),
                    _ => Some(number(key, value)?),
                }
            }
            _ => {
                if !self.limits.set(key, number(key, value)?) {
                    return Err(format!("`{key}={value}`: no such item of a device"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_read_and_each_wrong_one_is_named() {
        let text = "wire=/tmp/w,seed=7;dev=poor0,mac=02:aa:00:00:00:09,ip=10.9.0.1,raw=off,\
                    max_sge=3,active_mtu=4096\ndev=b,gid=fe80::1/v1,gid=empty,lie=tso,tso=on";
        let config = Config::parse(text).unwrap();
        assert_eq!((config.seed, config.devices.len()), (7, 2));
        let poor = &config.devices[0];
        assert_eq!((poor.raw, poor.limits.max_sge, poor.active_mtu), (false, 3, 4096));
        assert_eq!(poor.gids.len(), 4);
        assert_eq!(poor.gids[3].raw[12..], [10, 9, 0, 1]);
        assert_eq!(poor.gids[0].raw[8..], [0, 0xaa, 0, 0xff, 0xfe, 0, 0, 9]);
        assert_eq!(config.devices[1].gids[0].kind, consts::GID_TYPE_ROCE_V1);
        assert!(config.devices[1].lies.tso);
        assert_eq!(Config::parse("").unwrap().devices.len(), 2);
        assert_eq!(Config::parse("devices=none").unwrap().devices.len(), 0);
        for wrong in
            ["dev=", "dev=a,mac=02:00", "dev=a,x=1", "x=1", "dev=a,max_sge=z", "dev=a,gid=1/v3"]
        {
            let message = Config::parse(wrong).unwrap_err();
            assert!(message.contains('`'), "{wrong}: {message}");
        }
    }
}
