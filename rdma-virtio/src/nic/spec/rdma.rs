//! The options of `rdma:`, as users write them.

use super::{OptionHelp, Value, option};
use crate::nic::rdma::options::{Exchange, RdmaOptions, peer};
use crate::nic::rdma::raw::options::{Groups, Wish};
use crate::nic::rdma::wire::exchange::Mode;
use crate::nic::rdma::wire::peers::Prefix;

/// For help texts.
pub(super) const OPTIONS: &[OptionHelp] = &[
    option(
        "mode",
        "raw|rc|ud",
        "raw",
        "raw: Ethernet, a host of its own beside the kernel; rc, ud: a \
        virtual wire between Roceway hosts, reliable or of datagrams",
    ),
    option("peer", "ADDRESS[:PORT]", "none", "a host to call and to answer; may be repeated"),
    option("accept", "ADDRESS/PREFIX", "none", "hosts that may call; may be repeated"),
    option("peers", "1..1024", "the listed", "most peers (the default adds 3 with accept=)"),
    option(
        "mtu",
        "68..65535",
        "the mode's",
        "longest IP packet: the interface's (raw), 1500 (rc), \
        what fits (ud)",
    ),
    option("mac", "aa:bb:cc:dd:ee:ff", "random", "own hardware address (rc, ud: made of the GID)"),
    option("vlan", "1..4094", "none", "raw: live in this VLAN"),
    option(
        "groups",
        "copy|take|off",
        "copy",
        "raw: broadcast and multicast as copies, taken from \
        the kernel, or none",
    ),
    option("promisc", "on|off", "off", "raw: receive copies of all frames of the port"),
    option(
        "csum",
        "try|on|off",
        "try",
        "raw: checksums by the device, if a trial shows that it can",
    ),
    option("tso", "try|on|off", "try", "raw: segmentation by the device, likewise"),
    option("large", "on|off", "on", "pass segments of 64 KB whole; rc only"),
    option("gid", "0..255", "by address", "index of the GID, instead of the best"),
    option("port", "0..65535", "4796", "port where peers call; 0 not to listen"),
    option("exchange", "auto|cm|tcp", "auto", "call by librdmacm, by the host's TCP, or as works"),
    option("tclass", "0..255", "0", "traffic class: DSCP times 4, and ECN"),
    option("sl", "0..7", "0", "service level, the VLAN priority"),
    option("flow", "0..1048575", "0", "flow label"),
    option("timeout", "1..31", "12", "RC: 4.096 us times 2^N until a packet is repeated"),
    option("retry", "0..7", "6", "RC: how often a packet is repeated"),
    option("rnr", "0..6", "6", "RC: how often a peer that is not ready is asked again"),
    option("rnr-timer", "0..31", "12", "RC: code of the wait after that; 12 is 0.64 ms"),
    option("give-up", "10ms..60s", "1s", "RC: bound of the time until a dead path is noticed"),
    option("queue", "16..4096", "256", "sends outstanding"),
    option("receives", "4..4096", "64 or 512", "receives of a whole message (large or not)"),
];

/// Options of `mode=rc` alone.
pub const OF_RC: &[&str] = &["large", "timeout", "retry", "rnr", "rnr-timer", "give-up"];
/// Options of another mode, or of two.
const OF_RAW: &[&str] = &["vlan", "groups", "promisc", "csum", "tso"];
const OF_WIRES: &[&str] = &["peer", "accept", "peers", "gid", "port", "tclass", "sl", "flow"];

/// What cannot be combined.
///
/// # Errors
/// What would be right.
pub(super) fn settle(options: &RdmaOptions, seen: &[&str]) -> Result<(), String> {
    for key in seen {
        let wrong = match options.mode {
            None if OF_WIRES.contains(key) => "mode=rc and mode=ud",
            None | Some(Mode::Ud) if OF_RC.contains(key) => "mode=rc",
            Some(_) if OF_RAW.contains(key) => "mode=raw",
            None | Some(_) => continue,
        };
        return Err(format!("{key}= is for {wrong}"));
    }
    if options.raw.vlan.is_some() && options.raw.promiscuous {
        return Err("vlan= and promisc=on exclude each other".to_owned());
    }
    if options.raw.tso == Wish::On && options.raw.checksum == Wish::Off {
        return Err("tso=on needs csum=on or csum=try".to_owned());
    }
    options.check()
}

/// Sets one.
///
/// # Errors
/// What would be right.
pub(super) fn set(options: &mut RdmaOptions, value: &Value<'_>) -> Result<(), String> {
    let byte = |least, most| value.number(least, most).map(|n| u8::try_from(n).unwrap_or(u8::MAX));
    match value.key {
        "mode" => options.mode = mode(value)?,
        "vlan" => options.raw.vlan = Some(value.number(1, 4094)?),
        "groups" => options.raw.groups = groups(value)?,
        "promisc" => options.raw.promiscuous = value.switch()?,
        "csum" => options.raw.checksum = wish(value)?,
        "tso" => options.raw.tso = wish(value)?,
        "peer" => {
            let wrong = || value.wrong("an address such as 10.0.0.2 or [fd00::2]:4796");
            options.peers.push(peer(value.text).ok_or_else(wrong)?);
        }
        "accept" => {
            let (address, bits) = value.address()?;
            options.accept.push(Prefix { address, bits });
        }
        "peers" => options.peers_max = value.number(1, 1024)?,
        "mtu" => options.mtu = value.number(68, 65_535)?,
        "mac" => options.mac = Some(value.mac()?),
        "large" => options.large = value.switch()?,
        "gid" => options.gid = Some(value.number(0, 255)?.into()),
        "port" => options.port = value.number(0, 65_535)?,
        "exchange" => options.exchange = exchange(value)?,
        "tclass" => options.traffic_class = byte(0, 255)?,
        "sl" => options.service_level = byte(0, 7)?,
        "flow" => {
            let found: Option<u32> = value.text.parse().ok();
            let found = found.filter(|label| *label < 1 << 20);
            options.flow_label = found.ok_or_else(|| value.wrong("a number from 0 to 1048575"))?;
        }
        "timeout" => options.retry.timeout = byte(1, 31)?,
        "retry" => options.retry.retry_cnt = byte(0, 7)?,
        "rnr" => options.retry.rnr_retry = byte(0, 6)?,
        "rnr-timer" => options.retry.min_rnr_timer = byte(0, 31)?,
        "give-up" => {
            options.give_up_ns = value.time_ns()?;
            if !(10_000_000..=60_000_000_000).contains(&options.give_up_ns) {
                return Err(value.wrong("a time from 10ms to 60s"));
            }
        }
        "queue" => options.queue = value.number(16, 4096)?,
        _ => options.receives = value.number(4, 4096)?,
    }
    Ok(())
}

fn mode(value: &Value<'_>) -> Result<Option<Mode>, String> {
    match value.text {
        "raw" => Ok(None),
        "rc" => Ok(Some(Mode::Rc)),
        "ud" => Ok(Some(Mode::Ud)),
        _ => Err(value.wrong("raw, rc or ud")),
    }
}

fn groups(value: &Value<'_>) -> Result<Groups, String> {
    match value.text {
        "copy" => Ok(Groups::Copy),
        "take" => Ok(Groups::Take),
        "off" => Ok(Groups::Off),
        _ => Err(value.wrong("copy, take or off")),
    }
}

fn wish(value: &Value<'_>) -> Result<Wish, String> {
    match value.text {
        "try" => Ok(Wish::Tried),
        "on" => Ok(Wish::On),
        "off" => Ok(Wish::Off),
        _ => Err(value.wrong("try, on or off")),
    }
}

fn exchange(value: &Value<'_>) -> Result<Exchange, String> {
    match value.text {
        "auto" => Ok(Exchange::Auto),
        "cm" => Ok(Exchange::Managed),
        "tcp" => Ok(Exchange::Tcp),
        _ => Err(value.wrong("auto, cm or tcp")),
    }
}
