//! Frames between two hosts by bare verbs: rules, checksums, segmentation, inline and integrity of
//! RAW_PACKET queue pairs, both ways.
//!
//! An [`End`] sends what it is told and tells what it got; the judging is all here.

use std::time::Duration;

use roceway_runtime::rdma_virtio::verbs::flow::{
    EthernetMatch, FlowRule, FlowScope, IpMatch, MacMatch, TransportMatch, TransportProtocol,
};
use roceway_runtime::rdma_virtio::verbs::trial::frames::{Claims, Frame, Frames, Manner};

use super::frame::{self, Form, Mac, Sums, Way};
use super::{Log, Missed, Seen, patterned};

/// How long frames may take from end to end.
const ARRIVES: Duration = Duration::from_millis(1500);
/// How long nothing must come for it to be said that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);
/// Shortest frame that may be sent: its Ethernet header.
pub(super) const FRAME_MIN: usize = 14;
/// Payload of a segment.
const MSS: u16 = 1000;
/// Checks of a direction, in their order.
pub(super) const ALL: [&str; 7] = [
    "rules",
    "rules_by_port",
    "integrity",
    "checksum",
    "checksum_verified",
    "segmentation",
    "inline",
];

/// What a rule takes, besides that it is for the end's own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// Everything to the address.
    Address,
    /// IPv4 UDP to this port only.
    UdpPort(u16),
}

/// Makes a rule.
pub(super) fn rule(port: u8, mac: Mac, rule: Rule) -> FlowRule {
    let (ip, transport, ethertype) = match rule {
        Rule::Address => (None, None, None),
        Rule::UdpPort(to) => (
            Some(IpMatch::V4 { source: None, destination: None }),
            Some(TransportMatch {
                protocol: TransportProtocol::Udp,
                source: None,
                destination: Some(to),
            }),
            Some(0x0800),
        ),
    };
    FlowRule {
        port,
        priority: 0,
        scope: FlowScope::Described,
        copies: false,
        ethernet: Some(EthernetMatch {
            destination: Some(MacMatch::exactly(mac)),
            ethertype,
            ..EthernetMatch::default()
        }),
        ip,
        transport,
    }
}

/// A RAW_PACKET queue pair, here or at the other host.
pub(super) trait End {
    fn claims(&mut self) -> Claims;
    fn add_rule(&mut self, mac: Mac, wanted: Rule) -> Result<(), String>;
    fn forget_rules(&mut self) -> Result<(), String>;
    fn send(&mut self, frame: &[u8], manner: &Manner) -> Result<(), String>;
    fn receive(&mut self, most: usize, limit: Duration) -> Result<Vec<Frame>, String>;
}

impl End for Frames {
    fn claims(&mut self) -> Claims {
        Frames::claims(self)
    }

    fn add_rule(&mut self, mac: Mac, wanted: Rule) -> Result<(), String> {
        let port = self.port();
        Frames::add_rule(self, &rule(port, mac, wanted)).map_err(|error| error.to_string())
    }

    fn forget_rules(&mut self) -> Result<(), String> {
        Frames::forget_rules(self);
        Ok(())
    }

    fn send(&mut self, frame: &[u8], manner: &Manner) -> Result<(), String> {
        Frames::send(self, frame, manner).map_err(|error| error.to_string())
    }

    fn receive(&mut self, most: usize, limit: Duration) -> Result<Vec<Frame>, String> {
        Frames::receive(self, most, limit).map_err(|error| error.to_string())
    }
}

/// A direction under trial.
pub(super) struct Direction<'a> {
    pub(super) from: &'a mut dyn End,
    pub(super) to: &'a mut dyn End,
    pub(super) way: Way,
    /// `_out` or `_in`.
    pub(super) suffix: &'static str,
}

impl Direction<'_> {
    /// Makes all checks of this direction.
    pub(super) fn checks(&mut self, log: &mut Log<'_>) {
        let suffix = self.suffix;
        let name = |at: usize| format!("{}{suffix}", ALL[at]);
        if !log.check(&name(0), || self.rules()) {
            let rest: Vec<String> = (1..ALL.len()).map(name).collect();
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            let why = "no frame to a rule's address arrives, or others do";
            return log.not_tried(&rest, why);
        }
        log.check(&name(1), || self.rules_by_port());
        let taken = self.to.add_rule(self.way.to, Rule::Address);
        for (at, check) in [
            (2, Direction::integrity as fn(&mut Self) -> Seen),
            (3, Direction::checksum),
            (4, Direction::verified),
            (5, Direction::segmentation),
            (6, Direction::inline),
        ] {
            log.check(&name(at), || {
                taken.clone().map_err(Missed::failed)?;
                check(self)
            });
        }
        // What cannot be ended here ends with its queue pair.
        let _forgotten = self.to.forget_rules();
    }

    /// Sends, and takes what comes of this way.
    fn through(
        &mut self,
        frame: &[u8],
        manner: &Manner,
        most: usize,
        limit: Duration,
    ) -> Result<Vec<Frame>, Missed> {
        self.from.send(frame, manner).map_err(Missed::failed)?;
        let came = self.to.receive(most, limit).map_err(Missed::failed)?;
        Ok(came
            .into_iter()
            .filter(|frame| frame.bytes.get(6..12) == Some(&self.way.from))
            .collect())
    }

    fn one(&mut self, frame: &[u8], manner: &Manner) -> Result<Frame, Missed> {
        let came = self.through(frame, manner, 1, ARRIVES)?;
        came.into_iter().next().ok_or_else(|| {
            Missed::Failed(format!("a frame of {} bytes did not arrive", frame.len()))
        })
    }

    fn udp(&self, to: Mac) -> Vec<u8> {
        let way = Way { to, ..self.way };
        frame::build(way, Form { v6: false, tcp: false }, &patterned(5, 100), Sums::Right)
    }

    fn rules(&mut self) -> Seen {
        let plain = Manner::default();
        let (own, mut other) = (self.way.to, self.way.to);
        other[5] ^= 0x55;
        self.to.add_rule(own, Rule::Address).map_err(Missed::failed)?;
        let own_frame = self.udp(own);
        let came = self.through(&own_frame, &plain, 1, ARRIVES)?;
        if came.is_empty() {
            return Err(Missed::failed(
                "a rule was accepted, but a frame to its address did not arrive: the rule does not \
                 steer, or a switch or the peer's port filters an address that is not its own",
            ));
        }
        let foreign = self.udp(other);
        if !self.through(&foreign, &plain, 1, SILENCE)?.is_empty() {
            return Err(Missed::failed("a frame to an address without rule arrived, too"));
        }
        self.to.forget_rules().map_err(Missed::failed)?;
        if !self.through(&own_frame, &plain, 1, SILENCE)?.is_empty() {
            return Err(Missed::failed("frames still arrive after the rule's end"));
        }
        Ok("a frame to the rule's address arrived; to another address, and after the rule's end, \
            none"
            .to_owned())
    }

    /// The rules of a host that shares its address: by protocol and port.
    fn rules_by_port(&mut self) -> Seen {
        let plain = Manner::default();
        let refused = |error: String| Missed::NotTried(format!("the rule was refused: {error}"));
        // 9002 is the port that the frames bear.
        self.to.add_rule(self.way.to, Rule::UdpPort(9002)).map_err(refused)?;
        let frame = self.udp(self.way.to);
        self.one(&frame, &plain)?;
        self.to.forget_rules().map_err(Missed::failed)?;
        self.to.add_rule(self.way.to, Rule::UdpPort(9003)).map_err(refused)?;
        let came = self.through(&frame, &plain, 1, SILENCE)?;
        self.to.forget_rules().map_err(Missed::failed)?;
        if !came.is_empty() {
            return Err(Missed::failed("a rule for another UDP port took the frame, too"));
        }
        Ok("a rule for its UDP port took a frame, one for another port did not".to_owned())
    }

    fn integrity(&mut self) -> Seen {
        let (mut frames, mut bytes) = (0, 0);
        for length in [18, 46, 47, 100, 255, 256, 257, 511, 1000, 1023, 1024, 1400, 1472] {
            let form = Form { v6: false, tcp: false };
            let sent =
                frame::build(self.way, form, &patterned(length, length_of(length)), Sums::Right);
            let came = self.one(&sent, &Manner::default())?;
            let came = frame::unpadded(&came.bytes, form);
            if came != sent {
                return Err(Missed::Failed(super::local::difference(&sent, came)));
            }
            frames += 1;
            bytes += sent.len();
        }
        Ok(format!("{frames} frames of 60 to 1514 bytes, {bytes} bytes, all as sent"))
    }

    fn checksum(&mut self) -> Seen {
        if !self.from.claims().checksum {
            return Err(Missed::NotTried("the device claims no checksums of raw packets".into()));
        }
        let manner = Manner { checksum: true, ..Manner::default() };
        for form in Form::ALL {
            for length in [1, 100, 1201] {
                let payload = patterned(11, length);
                let sent = frame::build(self.way, form, &payload, Sums::Left);
                let came = self.one(&sent, &manner)?;
                let came = frame::unpadded(&came.bytes, form);
                frame::check_sums(came, form).map_err(Missed::Failed)?;
                if came.get(form.headers()..) != Some(&payload) {
                    return Err(Missed::failed("the payload changed"));
                }
            }
        }
        Ok("12 frames with empty fields arrived with right sums: IPv4 and IPv6, TCP and UDP, IPv4 \
            header"
            .to_owned())
    }

    /// What the receiver says of checksums: a wrong one must never be called right.
    fn verified(&mut self) -> Seen {
        let mut marked = Vec::new();
        for form in Form::ALL {
            let payload = patterned(12, 200);
            let right = frame::build(self.way, form, &payload, Sums::Right);
            if self.one(&right, &Manner::default())?.verified {
                marked.push(form.name());
            }
            let wrong = frame::build(self.way, form, &payload, Sums::Wrong);
            // One that drops what is wrong is right, too.
            let came = self.through(&wrong, &Manner::default(), 1, SILENCE)?;
            if came.iter().any(|frame| frame.verified) {
                let what = format!("a wrong {} checksum was called right", form.name());
                return Err(Missed::Failed(what));
            }
        }
        if marked.is_empty() {
            return Err(Missed::NotTried(
                "the device says nothing of received checksums; software looks".to_owned(),
            ));
        }
        Ok(format!("verified by the device: {}; none of the wrong ones", marked.join(", ")))
    }

    fn segmentation(&mut self) -> Seen {
        let claims = self.from.claims();
        let longest = usize::try_from(claims.tso).unwrap_or(0);
        if longest == 0 {
            return Err(Missed::NotTried("the device claims no segmentation".to_owned()));
        }
        let mut told = Vec::new();
        for form in Form::ALL.into_iter().filter(|form| form.tcp) {
            for (length, mss) in [(usize::from(MSS) * 3 + 1, MSS), (60_000, 1400)] {
                let length = length.min(longest);
                let large = frame::build(self.way, form, &patterned(21, length), Sums::Left);
                let manner = Manner {
                    checksum: true,
                    cut: Some((form.headers(), mss)),
                    ..Manner::default()
                };
                let count = length.div_ceil(usize::from(mss));
                let came = self.through(&large, &manner, count, ARRIVES)?;
                let segments: Vec<Vec<u8>> = came.into_iter().map(|frame| frame.bytes).collect();
                frame::check_cut(&large, form, mss, &segments)
                    .map_err(|what| Missed::Failed(format!("{}: {what}", form.name())))?;
                told.push(format!("{} {length} bytes in {count}", form.name()));
            }
        }
        Ok(format!("lengths, sequence numbers, flags and sums right: {}", told.join(", ")))
    }

    fn inline(&mut self) -> Seen {
        let longest = self.from.claims().inline;
        let form = Form { v6: false, tcp: false };
        if longest < 60 {
            return Err(Missed::NotTried(format!("the device gives {longest} bytes inline")));
        }
        let payload = patterned(31, longest - form.headers());
        let sent = frame::build(self.way, form, &payload, Sums::Right);
        let manner = Manner { inline: true, ..Manner::default() };
        let came = self.one(&sent, &manner)?;
        let came = frame::unpadded(&came.bytes, form);
        if came != sent {
            return Err(Missed::Failed(super::local::difference(&sent, came)));
        }
        Ok(format!("{longest} bytes came as they were, although overwritten once they were posted"))
    }
}

fn length_of(length: u64) -> usize {
    usize::try_from(length).unwrap_or(0)
}
