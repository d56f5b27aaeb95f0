//! Flow steering: ibv_create_flow(3). Reads the specifications, checks them, and finds for each
//! frame who gets it.
//!
//! Rules match by priority, lower numbers first; "most vendors support either full mask or zero
//! mask", so other masks are refused. Where several rules of one priority have the same
//! specifications, each gets a copy. What no rule takes goes to the default rules, "which isn't
//! steered to any QP", and then to the kernel side; with `leftovers=after` the kernel side comes
//! first, as mlx5 has it.

use crate::abi::consts::*;
use crate::abi::flows::{self, FlowAttr};
use crate::device::Device;
use crate::segment::{self, Headers, PROTOCOL_TCP, PROTOCOL_UDP};

/// What a rule looks at. `None` matches anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matcher {
    destination_mac: Option<[u8; 6]>,
    source_mac: Option<[u8; 6]>,
    ethertype: Option<u16>,
    vlan: Option<u16>,
    version: Option<u8>,
    source_ip: Option<Vec<u8>>,
    destination_ip: Option<Vec<u8>>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Its handle.
    pub(crate) handle: u32,
    /// Handle of the queue pair that gets the frame.
    pub(crate) qp: u32,
    /// `enum ibv_flow_attr_type`.
    pub(crate) kind: u32,
    /// Lower goes first.
    pub(crate) priority: u16,
    /// Whether lower priorities see the frame too.
    pub(crate) dont_trap: bool,
    /// Whether the frame is dropped instead.
    pub(crate) drop: bool,
    /// For `ibv_wc_read_flow_tag`.
    pub(crate) tag: u32,
    /// What it looks at.
    pub(crate) matcher: Matcher,
}

/// Who gets a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Handles of queue pairs, with the tag of the rule.
    pub(crate) copies: Vec<(u32, u32)>,
    /// Whether the kernel side does.
    pub(crate) kernel: bool,
}

/// A field and its mask: `None` for a zero mask, an error for a partial one.
fn field<const N: usize>(value: &[u8], mask: &[u8], at: usize) -> Result<Option<[u8; N]>, i32> {
    let (mut field, mut bits) = ([0; N], [0; N]);
    field.copy_from_slice(&value[at..at + N]);
    bits.copy_from_slice(&mask[at..at + N]);
    if bits == [0; N] {
        Ok(None)
    } else if bits == [0xff; N] {
        Ok(Some(field))
    } else {
        Err(libc::EINVAL)
    }
}

fn halves(spec: &[u8], at: usize, length: usize) -> (&[u8], &[u8]) {
    (&spec[at..at + length], &spec[at + length..at + 2 * length])
}

impl Matcher {
    fn ethernet(&mut self, spec: &[u8]) -> Result<(), i32> {
        let (value, mask) = halves(spec, flows::SPEC_ETH_VALUE, flows::ETH_FILTER);
        self.destination_mac = field(value, mask, 0)?;
        self.source_mac = field(value, mask, 6)?;
        self.ethertype = field(value, mask, 12)?.map(u16::from_be_bytes);
        // A tag's identifier may be asked for alone: its mask is 0x0fff then.
        let tag = u16::from_be_bytes([value[14], value[15]]);
        self.vlan = match u16::from_be_bytes([mask[14], mask[15]]) {
            0 => None,
            0xffff | 0x0fff => Some(tag & 0x0fff),
            _ => return Err(libc::EINVAL),
        };
        Ok(())
    }

    fn set_version(&mut self, version: u8) -> Result<(), i32> {
        match self.version.replace(version) {
            None => Ok(()),
            Some(_) => Err(libc::EINVAL),
        }
    }

    fn ipv4(&mut self, spec: &[u8]) -> Result<(), i32> {
        self.set_version(4)?;
        let (value, mask) = halves(spec, flows::SPEC_WORD_VALUE, flows::IPV4_FILTER);
        self.source_ip = field::<4>(value, mask, 0)?.map(Vec::from);
        self.destination_ip = field::<4>(value, mask, 4)?.map(Vec::from);
        Ok(())
    }

    fn ipv6(&mut self, spec: &[u8]) -> Result<(), i32> {
        self.set_version(6)?;
        let (value, mask) = halves(spec, flows::SPEC_WORD_VALUE, flows::IPV6_FILTER);
        self.source_ip = field::<16>(value, mask, 0)?.map(Vec::from);
        self.destination_ip = field::<16>(value, mask, 16)?.map(Vec::from);
        // Flow label, next header, traffic class and hop limit are not looked at here.
        if mask[32..39] != [0; 7] {
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    fn ports(&mut self, protocol: u8, spec: &[u8]) -> Result<(), i32> {
        if self.protocol.replace(protocol).is_some() {
            return Err(libc::EINVAL);
        }
        let (value, mask) = halves(spec, flows::SPEC_ETH_VALUE, flows::PORTS_FILTER);
        self.destination_port = field(value, mask, 0)?.map(u16::from_be_bytes);
        self.source_port = field(value, mask, 2)?.map(u16::from_be_bytes);
        Ok(())
    }

    /// Whether a frame is what the rule looks for.
    fn matches(&self, frame: &[u8], headers: &Headers) -> bool {
        let is = |wanted: &Option<[u8; 6]>, at: usize| {
            wanted.is_none_or(|wanted| frame[at..at + 6] == wanted)
        };
        let address = |wanted: &Option<Vec<u8>>, source: bool| {
            let Some(wanted) = wanted else { return true };
            let at = match (headers.version, source) {
                (4, true) => 12,
                (4, false) => 16,
                (_, true) => 8,
                (_, false) => 24,
            };
            frame.get(headers.ip + at..headers.ip + at + wanted.len()) == Some(wanted)
        };
        let port = |wanted: Option<u16>, offset: usize| {
            let Some(wanted) = wanted else { return true };
            let Some((_, at)) = headers.transport else { return false };
            frame[at + offset..at + offset + 2] == wanted.to_be_bytes()
        };
        is(&self.destination_mac, 0)
            && is(&self.source_mac, 6)
            && self.ethertype.is_none_or(|wanted| wanted == headers.ethertype)
            && self.vlan.is_none_or(|wanted| headers.vlan.map(|tag| tag & 0xfff) == Some(wanted))
            && self.version.is_none_or(|wanted| wanted == headers.version)
            && address(&self.source_ip, true)
            && address(&self.destination_ip, false)
            && self
                .protocol
                .is_none_or(|wanted| headers.transport.is_some_and(|found| found.0 == wanted))
            && port(self.source_port, 0)
            && port(self.destination_port, 2)
    }
}

/// What the specifications behind an attribute say: matcher, tag, whether to drop.
///
/// # Errors
/// `EINVAL`: "flow specification, QP or priority are invalid".
fn specifications(count: u8, mut rest: &[u8]) -> Result<(Matcher, u32, bool), i32> {
    let (mut matcher, mut tag, mut drop) = (Matcher::default(), 0, false);
    let mut ethernet = false;
    for _ in 0..count {
        let head: [u8; 6] =
            rest.get(..6).and_then(|head| head.try_into().ok()).ok_or(libc::EINVAL)?;
        let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let size = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let expected = match kind {
            FLOW_SPEC_ETH => flows::SPEC_ETH_SIZE,
            FLOW_SPEC_IPV4 => flows::SPEC_IPV4_SIZE,
            FLOW_SPEC_IPV6 => flows::SPEC_IPV6_SIZE,
            FLOW_SPEC_TCP | FLOW_SPEC_UDP => flows::SPEC_PORTS_SIZE,
            FLOW_SPEC_ACTION_TAG => flows::SPEC_TAG_SIZE,
            FLOW_SPEC_ACTION_DROP => flows::SPEC_DROP_SIZE,
            _ => return Err(libc::EINVAL),
        };
        if size != expected || rest.len() < size {
            return Err(libc::EINVAL);
        }
        let (spec, behind) = rest.split_at(size);
        match kind {
            FLOW_SPEC_ETH if ethernet => return Err(libc::EINVAL),
            FLOW_SPEC_ETH => {
                ethernet = true;
                matcher.ethernet(spec)?;
            }
            FLOW_SPEC_IPV4 => matcher.ipv4(spec)?,
            FLOW_SPEC_IPV6 => matcher.ipv6(spec)?,
            FLOW_SPEC_TCP => matcher.ports(PROTOCOL_TCP, spec)?,
            FLOW_SPEC_UDP => matcher.ports(PROTOCOL_UDP, spec)?,
            FLOW_SPEC_ACTION_TAG => {
                tag = u32::from_le_bytes([spec[8], spec[9], spec[10], spec[11]]);
            }
            _ => drop = true,
        }
        rest = behind;
    }
    if rest.is_empty() { Ok((matcher, tag, drop)) } else { Err(libc::EINVAL) }
}

impl Device {
    /// Adds a rule for a queue pair; `specs` are the bytes behind the attribute.
    ///
    /// # Errors
    /// By ibv_create_flow(3): `ENXIO` without steering, `EPERM` without privilege, `EINVAL` for a
    /// specification, mask, port or flag that does not hold; `EOPNOTSUPP` for copies where the
    /// device makes none.
    pub(crate) fn add_rule(&mut self, qp: u32, attr: &FlowAttr, specs: &[u8]) -> Result<u32, i32> {
        if !self.steers() {
            return Err(libc::ENXIO);
        }
        if !self.config.privileged {
            return Err(libc::EPERM);
        }
        let normal = attr.attr_type == FLOW_ATTR_NORMAL;
        let dont_trap = attr.flags & FLOW_ATTR_FLAGS_DONT_TRAP != 0;
        let flags = attr.flags & !FLOW_ATTR_FLAGS_DONT_TRAP == 0;
        // "Only rule type IBV_FLOW_ATTR_NORMAL supports IBV_FLOW_ATTR_FLAGS_DONT_TRAP flag."
        let holds = attr.comp_mask == 0
            && attr.port == 1
            && flags
            && attr.attr_type <= FLOW_ATTR_SNIFFER
            && (normal || !dont_trap)
            && (normal == (attr.num_of_specs > 0));
        if !holds {
            return Err(libc::EINVAL);
        }
        if dont_trap && !self.config.dont_trap {
            return Err(libc::EOPNOTSUPP);
        }
        let (matcher, tag, drop) = specifications(attr.num_of_specs, specs)?;
        let handle = self.rules_made;
        self.rules_made += 1;
        let (kind, priority) = (attr.attr_type, attr.priority);
        self.rules.push(Rule { handle, qp, kind, priority, dont_trap, drop, tag, matcher });
        self.rules.sort_by_key(|rule| (rule.priority, rule.handle));
        Ok(handle)
    }

    /// Who gets a frame.
    pub(crate) fn steer(&self, frame: &[u8]) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(headers) = segment::parse(frame) else { return verdict };
        let of = |kind: u32| self.rules.iter().filter(move |rule| rule.kind == kind);
        verdict.copies.extend(of(FLOW_ATTR_SNIFFER).map(|rule| (rule.qp, rule.tag)));
        if self.steer_normal(frame, &headers, &mut verdict) {
            return verdict;
        }
        let multicast = frame[0] & 1 != 0;
        let wanted = self.tap.is_some() && (multicast || frame[..6] == self.config.mac);
        if self.config.leftovers_after_kernel && wanted {
            verdict.kernel = true;
            return verdict;
        }
        let before = verdict.copies.len();
        if multicast {
            verdict.copies.extend(of(FLOW_ATTR_MC_DEFAULT).map(|rule| (rule.qp, rule.tag)));
        }
        if verdict.copies.len() == before {
            verdict.copies.extend(of(FLOW_ATTR_ALL_DEFAULT).map(|rule| (rule.qp, rule.tag)));
        }
        verdict.kernel = verdict.copies.len() == before && self.tap.is_some();
        verdict
    }

    /// Rules of type NORMAL; says whether one of them keeps the frame.
    fn steer_normal(&self, frame: &[u8], headers: &Headers, verdict: &mut Verdict) -> bool {
        if self.config.lies.flow {
            return false;
        }
        let mut hit: Option<&Rule> = None;
        for rule in self.rules.iter().filter(|rule| rule.kind == FLOW_ATTR_NORMAL) {
            let same = hit.is_none_or(|first| {
                first.priority == rule.priority && first.matcher == rule.matcher
            });
            if !same || !rule.matcher.matches(frame, headers) {
                continue;
            }
            if !rule.drop {
                verdict.copies.push((rule.qp, rule.tag));
            }
            if !rule.dont_trap {
                hit = hit.or(Some(rule));
            }
        }
        hit.is_some()
    }
}
