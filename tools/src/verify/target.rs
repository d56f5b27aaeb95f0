//! What is verified: a device, its modes and the options for them, out of
//! `rdma:DEV[,KEY=VALUE...]`.
//!
//! Pure. The options themselves are checked by the device's own parser.

use std::fmt;
use std::net::IpAddr;

use roceway_runtime::rdma_virtio::nic::spec::{DeviceSpec, RC_OPTIONS};
use serde::{Deserialize, Serialize};

/// A mode of `rdma:`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Bare Ethernet.
    Raw,
    /// The wire over reliable connected queue pairs.
    Rc,
    /// The wire over datagrams.
    Ud,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Raw, Mode::Rc, Mode::Ud];

    /// As it is written behind `mode=`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Raw => "raw",
            Mode::Rc => "rc",
            Mode::Ud => "ud",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Options that verify chooses itself.
const OWN: [&str; 4] = ["peer", "accept", "peers", "port"];

/// A device to be verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// The device as the user named it: `mlx5_0`, `mlx5_0:1` or `eth2`.
    pub(crate) name: String,
    /// The modes: the one that was named, or all.
    pub(crate) modes: Vec<Mode>,
    /// The other options, as written.
    options: Vec<String>,
    /// Whether sets of offloads are tried as well.
    pub(crate) offloads: bool,
}

impl Target {
    /// Reads a device.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let Some(rest) = text.strip_prefix("rdma:") else {
            return Err(format!("{text}: only RDMA devices are verified; write rdma:DEV"));
        };
        let mut items = rest.split(',');
        let name = items.next().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err("rdma: needs a device, such as rdma:mlx5_0 or rdma:eth2".to_owned());
        }
        let (mut modes, mut options) = (Mode::ALL.to_vec(), Vec::new());
        for item in items {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            if OWN.contains(&key) {
                return Err(format!("{key}= is chosen by verify; name the other host with --peer"));
            }
            if key == "mode" {
                let found = Mode::ALL.into_iter().find(|mode| mode.name() == value);
                modes = vec![found.ok_or_else(|| format!("mode={value}: say raw, rc or ud"))?];
            } else {
                options.push(item.to_owned());
            }
        }
        let target = Target { name, modes, options, offloads: false };
        // Whatever else is wrong with an option is said before anything is opened.
        for mode in target.modes.iter().filter(|mode| **mode != Mode::Raw) {
            let probe = target.wire(*mode, IpAddr::from([127, 0, 0, 1]), (1, 1));
            DeviceSpec::parse(&probe).map_err(|error| error.to_string())?;
        }
        Ok(target)
    }

    /// The index of the GID, if one was named.
    pub(crate) fn gid(&self) -> Option<u32> {
        self.options.iter().find_map(|item| item.strip_prefix("gid=")?.parse().ok())
    }

    /// Whether an option is for a mode: of several modes only rc takes rc's. What is not for the
    /// only one is refused by the device.
    fn is_for(&self, mode: Mode, item: &str) -> bool {
        let key = item.split_once('=').map_or(item, |(key, _)| key);
        mode == Mode::Rc || self.modes.len() == 1 || !RC_OPTIONS.contains(&key)
    }

    /// The device of Roceway in a mode: its own exchange at `own_port`, the peer's at `peer_port`.
    pub(crate) fn wire(
        &self,
        mode: Mode,
        peer: IpAddr,
        (own_port, peer_port): (u16, u16),
    ) -> String {
        let mut text = format!("rdma:{},mode={mode}", self.name);
        for item in self.options.iter().filter(|item| self.is_for(mode, item)) {
            text = text + "," + item;
        }
        match (mode, peer) {
            (Mode::Raw, _) => {}
            (_, IpAddr::V4(v4)) => text += &format!(",port={own_port},peer={v4}:{peer_port}"),
            (_, IpAddr::V6(v6)) => text += &format!(",port={own_port},peer=[{v6}]:{peer_port}"),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_with_its_mode_and_options() {
        let target = Target::parse("rdma:mlx5_0:1,mode=rc,gid=3,tclass=104").unwrap();
        assert_eq!((target.name.as_str(), target.gid()), ("mlx5_0:1", Some(3)));
        assert_eq!(target.modes, [Mode::Rc]);
        let text = target.wire(Mode::Rc, "10.0.0.2".parse().unwrap(), (7, 8));
        assert_eq!(text, "rdma:mlx5_0:1,mode=rc,gid=3,tclass=104,port=7,peer=10.0.0.2:8");
        let text = target.wire(Mode::Ud, "fd00::2".parse().unwrap(), (7, 8));
        assert!(text.ends_with(",port=7,peer=[fd00::2]:8"), "{text}");
        assert_eq!(Target::parse("rdma:eth2").unwrap().modes, Mode::ALL);
    }

    #[test]
    fn an_option_of_rc_is_for_rc_where_there_are_several_modes() {
        let target = Target::parse("rdma:a,timeout=14,retry=2,tclass=104").unwrap();
        let peer = "10.0.0.2".parse().unwrap();
        let text = [Mode::Rc, Mode::Ud].map(|mode| target.wire(mode, peer, (7, 8)));
        assert_eq!(text[0], "rdma:a,mode=rc,timeout=14,retry=2,tclass=104,port=7,peer=10.0.0.2:8");
        assert_eq!(text[1], "rdma:a,mode=ud,tclass=104,port=7,peer=10.0.0.2:8");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (text, says) in [
            ("soft:/x", "write rdma:DEV"),
            ("rdma:", "needs a device"),
            ("rdma:a,peer=10.0.0.1", "--peer"),
            ("rdma:a,mode=xy", "say raw, rc or ud"),
            ("rdma:a,mode=rc,gidd=1", "gid"),
            ("rdma:a,tclass=999", "tclass"),
            ("rdma:a,mode=ud,timeout=14", "timeout"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
