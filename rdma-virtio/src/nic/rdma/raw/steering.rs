//! Which frames of the port are received: flow rules, and what takes their place where the device
//! does not do what it says.
//!
//! Rules are values that are put into a link, and into the next one when that has failed. Their
//! priorities leave the two in front of a station's address free for rules per connection and per
//! service, for a process that shares the host's address one day.

use arrayvec::ArrayVec;

use super::options::{Groups, RawOptions};
use crate::nic::DeviceError;
use crate::verbs::flow::{EthernetMatch, Flow, FlowRule, FlowScope, MacMatch};
use crate::verbs::queue_pair::{QueuePair, Rts};

/// Groups that are joined at most.
pub(super) const GROUPS_MAX: usize = 32;
/// The priority of rules for addresses; 0 is for five-tuples and 1 for three-tuples.
const PRIORITY_ADDRESS: u16 = 2;
const BROADCAST: [u8; 6] = [0xff; 6];

/// Who sorts frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sorter {
    /// The device, by rules for each address.
    Device,
    /// This process: the device hands it copies of everything.
    Process,
}

/// What a link receives.
#[derive(Clone, Debug)]
pub(super) struct Steering {
    port: u8,
    pub(super) mac: [u8; 6],
    pub(super) options: RawOptions,
    pub(super) sorter: Sorter,
    /// Whether the device compares single bits, so that one rule is for all groups.
    any_group: Option<bool>,
    joined: ArrayVec<[u8; 6], GROUPS_MAX>,
}

impl Steering {
    pub(super) fn new(port: u8, mac: [u8; 6], options: RawOptions) -> Steering {
        let sorter = if options.promiscuous { Sorter::Process } else { Sorter::Device };
        Steering { port, mac, options, sorter, any_group: None, joined: ArrayVec::new() }
    }

    fn rule(&self, destination: MacMatch, copies: bool) -> FlowRule {
        FlowRule {
            port: self.port,
            priority: PRIORITY_ADDRESS,
            scope: FlowScope::Described,
            copies,
            ethernet: Some(EthernetMatch {
                destination: Some(destination),
                vlan: self.options.vlan,
                ..EthernetMatch::default()
            }),
            ip: None,
            transport: None,
        }
    }

    /// Frames to this station's own address.
    pub(super) fn station(&self) -> FlowRule {
        self.rule(MacMatch::exactly(self.mac), false)
    }

    /// A copy of every frame of the port, which leaves everybody else's as they are.
    pub(super) fn everything(&self) -> FlowRule {
        FlowRule {
            port: self.port,
            priority: 0,
            scope: FlowScope::Sniffer,
            copies: false,
            ethernet: None,
            ip: None,
            transport: None,
        }
    }

    fn group(&self, group: MacMatch) -> FlowRule {
        self.rule(group, self.options.groups == Groups::Copy)
    }

    /// Puts all rules into a link that has none.
    pub(super) fn install(
        &mut self,
        pair: &QueuePair<Rts>,
        flows: &mut Vec<Flow>,
    ) -> Result<(), DeviceError> {
        if self.sorter == Sorter::Process {
            flows.push(pair.flow(&self.everything())?);
            return Ok(());
        }
        flows.push(pair.flow(&self.station())?);
        if self.options.groups == Groups::Off {
            return Ok(());
        }
        if self.any_group != Some(false) {
            match pair.flow(&self.group(MacMatch::any_group())) {
                Ok(flow) => {
                    self.any_group = Some(true);
                    flows.push(flow);
                    return Ok(());
                }
                Err(_) => self.any_group = Some(false),
            }
        }
        flows.push(self.group_flow(pair, BROADCAST)?);
        for group in &self.joined {
            flows.push(self.group_flow(pair, *group)?);
        }
        Ok(())
    }

    fn group_flow(&self, pair: &QueuePair<Rts>, group: [u8; 6]) -> Result<Flow, DeviceError> {
        pair.flow(&self.group(MacMatch::exactly(group))).map_err(|error| {
            let refused = matches!(
                error.source.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)
            );
            if !refused || self.options.groups != Groups::Copy {
                return error;
            }
            DeviceError {
                source: std::io::Error::other(format!(
                    "the device makes no rule that leaves the kernel its copies of broadcast and \
                     multicast (IBV_FLOW_ATTR_FLAGS_DONT_TRAP): {}",
                    error.source
                )),
                remedy: "groups=take takes them from the kernel, for a port that it does not use; \
                         groups=off does without"
                    .to_owned(),
                ..error
            }
        })
    }

    /// Receives one more group.
    pub(super) fn join(
        &mut self,
        pair: &QueuePair<Rts>,
        flows: &mut Vec<Flow>,
        group: [u8; 6],
    ) -> Result<(), DeviceError> {
        let covered = self.sorter == Sorter::Process
            || self.options.groups == Groups::Off
            || self.any_group == Some(true)
            || group == BROADCAST;
        if covered || self.joined.contains(&group) {
            return Ok(());
        }
        let flow = self.group_flow(pair, group)?;
        if self.joined.try_push(group).is_err() {
            return Err(DeviceError {
                device: pair.device().to_owned(),
                call: "join a multicast group",
                source: std::io::Error::from_raw_os_error(libc::ENOSPC),
                remedy: format!("at most {GROUPS_MAX} groups: use fewer IPv6 addresses"),
            });
        }
        flows.push(flow);
        Ok(())
    }

    /// What is done, for people.
    pub(super) fn describe(&self) -> String {
        let groups = match self.options.groups {
            Groups::Off => "no broadcast or multicast",
            Groups::Copy => "copies of broadcast and multicast",
            Groups::Take => "broadcast and multicast taken from the kernel",
        };
        match (self.sorter, self.options.promiscuous) {
            (Sorter::Device, _) => format!("rules for the address; {groups}"),
            (Sorter::Process, true) => "copies of every frame of the port".to_owned(),
            (Sorter::Process, false) => {
                "its rules do not steer: copies of every frame, sorted in software".to_owned()
            }
        }
    }

    /// Whether a frame that the device handed over is for this host. Only a process that sorts
    /// itself must ask; its own frames come back to it as everybody's do.
    pub(super) fn wants(&self, destination: [u8; 6], source: [u8; 6]) -> bool {
        let group = destination[0] & 1 != 0;
        let ours = destination == self.mac || (group && self.options.groups != Groups::Off);
        source != self.mac && (ours || self.options.promiscuous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn a_process_that_sorts_takes_what_the_rules_would_have_given_it() {
        let mut steering = Steering::new(1, MAC, RawOptions::default());
        let (other, group) = ([2, 0, 0, 0, 0, 7], [0x33, 0x33, 0, 0, 0, 1]);
        let rows = [
            ("its own address", MAC, other, true),
            ("somebody else's", other, [2, 0, 0, 0, 0, 8], false),
            ("a group's", group, other, true),
            ("everybody's", BROADCAST, other, true),
            ("its own frame, come back", BROADCAST, MAC, false),
        ];
        for (name, destination, source, expected) in rows {
            assert_eq!(steering.wants(destination, source), expected, "{name}");
        }
        steering.options.groups = Groups::Off;
        assert!(!steering.wants(group, other));
        steering.options.promiscuous = true;
        assert!(steering.wants(other, [2, 0, 0, 0, 0, 8]) && !steering.wants(other, MAC));
    }

    #[test]
    fn rules_name_address_and_vlan_and_leave_room_before_them() {
        let options = RawOptions { vlan: Some(7), ..RawOptions::default() };
        let steering = Steering::new(2, MAC, options);
        let station = steering.station();
        assert!(station.priority == 2 && station.port == 2 && !station.copies);
        assert_eq!(station.ethernet.unwrap().vlan, Some(7));
        assert!(steering.group(MacMatch::any_group()).copies);
        assert_eq!(steering.everything().scope, FlowScope::Sniffer);
    }
}
