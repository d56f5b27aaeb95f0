//! The options of `rdma:`, as users write them.

use super::{OptionHelp, Value, option};
use crate::nic::rdma::options::{RdmaOptions, peer};
use crate::nic::rdma::wire::exchange::Mode;
use crate::nic::rdma::wire::peers::Prefix;

/// For help texts.
pub(super) const OPTIONS: &[OptionHelp] = &[
    option("mode", "rc|ud", "none", "virtual wire between Roceway hosts: reliable or datagrams"),
    option("peer", "ADDRESS[:PORT]", "none", "a host to call and to answer; may be repeated"),
    option("accept", "ADDRESS/PREFIX", "none", "hosts that may call; may be repeated"),
    option("peers", "1..1024", "the listed", "most peers (the default adds 3 with accept=)"),
    option("mtu", "68..65535", "the mode's", "longest IP packet: 1500 (rc), what fits (ud)"),
    option("mac", "aa:bb:cc:dd:ee:ff", "the GID's", "own hardware address"),
    option("large", "on|off", "on", "pass segments of 64 KB whole; rc only"),
    option("gid", "0..255", "by address", "index of the GID, instead of the best"),
    option("port", "0..65535", "4796", "TCP port where peers call; 0 not to listen"),
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

/// Sets one.
///
/// # Errors
/// What would be right.
pub(super) fn set(options: &mut RdmaOptions, value: &Value<'_>) -> Result<(), String> {
    let byte = |least, most| value.number(least, most).map(|n| u8::try_from(n).unwrap_or(u8::MAX));
    match value.key {
        "mode" => options.mode = Some(mode(value)?),
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

fn mode(value: &Value<'_>) -> Result<Mode, String> {
    match value.text {
        "rc" => Ok(Mode::Rc),
        "ud" => Ok(Mode::Ud),
        _ => Err(value.wrong("rc or ud")),
    }
}
