//! Credits of one session, both ways: how many data messages may be sent, and how many were
//! granted.
//!
//! Every count is cumulative and travels in each header, so a lost update is made good by the
//! next. Invariants: nothing is sent beyond the limit seen; a limit never moves back; at most one
//! update that carries no data is on its way until the peer shows that it has seen it, which it
//! does with the first message that uses it. On a reliable wire messages arrive in order and
//! whole, and anything else is a violation; on a datagram wire gaps are losses, and a late
//! message within [`LATE_MAX`] is taken once.

use super::header::{HEADER_LEN, Header, Kind};

/// Most credits that a peer may have at a time.
pub const CREDITS_MAX: u32 = 16_384;
/// A datagram may be overtaken by so many others and is still taken.
pub const LATE_MAX: u32 = 64;
/// A peer that was not heard of for so long gets a probe, in nanoseconds.
pub const SILENCE_NS: u64 = 500_000_000;
/// On a datagram wire a peer that was not heard of for so long is given up, in nanoseconds. On a
/// reliable one its queue pair gives up by itself.
pub const SILENCE_NS_MAX: u64 = 1_500_000_000;
/// A datagram peer that is doubted is given up when it does not answer for so long, in nanoseconds.
pub const DOUBT_NS_MAX: u64 = 400_000_000;
/// On a datagram wire an update or a probe is repeated after so long, in nanoseconds.
pub const REPEAT_NS: u64 = 5_000_000;

/// Whether messages may be lost, doubled and overtaken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// In order, once (RC).
    Reliable,
    /// As it comes (UD).
    Datagram,
}

/// What a message that arrived is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Arrival {
    /// The next data message; so many before it are missing.
    Fresh {
        /// Messages that were sent before it and have not arrived.
        missing: u32,
    },
    /// A data message that had been given up for lost.
    Late,
    /// A data message that was taken already, or came too late to know: drop it.
    Duplicate,
    /// A control message; so many data messages before it are missing.
    Control {
        /// Messages that were sent before it and have not arrived.
        missing: u32,
    },
    /// The peer breaks the rules: its session ends.
    Violation(Violation),
}

/// How a peer breaks the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// It sent more than it was granted.
    BeyondCredit,
    /// It grants more than there can be.
    Limit,
    /// It has seen a limit that was never granted.
    Echo,
    /// Out of order on a reliable wire.
    Order,
}

/// What is owed by way of control messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owed {
    /// Nothing.
    Nothing,
    /// A credit update.
    Update,
    /// A probe: nothing may be sent, and the update may have been lost.
    Probe,
}

/// The credits of one session.
#[derive(Clone, Debug)]
pub struct Credit {
    delivery: Delivery,
    /// Data messages sent, and how many may have been.
    sent: u32,
    allowed: u32,
    /// Data messages of the peer that arrived or are missing, how many it may have sent, and how
    /// many of these it was told.
    received: u32,
    granted: u32,
    told: u32,
    /// The limit in the last update on its way and when it was sent.
    update: Option<(u32, u64)>,
    probed_ns: Option<u64>,
    /// A probe is to be answered.
    asked: bool,
    /// Bit n: message `marked - 1 - n` has arrived; so have those from there to `received`, which
    /// were taken one after the other.
    arrived: u64,
    marked: u32,
    /// So many messages may be taken by a look at their headers; never more than were granted, and
    /// none while an update is on its way.
    calm: u32,
    /// Limit and echo of the last message that was taken so, as they came.
    tail: [u8; TAIL_LEN],
}

/// Bytes of limit and echo, which end a header.
const TAIL_LEN: usize = 8;

/// How far `to` is ahead of `from`; nothing if it is behind.
#[inline]
fn ahead(to: u32, from: u32) -> Option<u32> {
    let distance = to.wrapping_sub(from);
    (distance <= u32::MAX / 2).then_some(distance)
}

impl Credit {
    /// A new session: the peer may send `granted`, and this side what the peer's hello says.
    #[must_use]
    pub fn new(delivery: Delivery, granted: u32, allowed: u32) -> Credit {
        let granted = granted.min(CREDITS_MAX);
        Credit {
            delivery,
            sent: 0,
            allowed: allowed.min(CREDITS_MAX),
            received: 0,
            granted,
            told: granted,
            update: None,
            probed_ns: None,
            asked: false,
            arrived: u64::MAX,
            marked: 0,
            calm: 0,
            // No limit and echo that there can be at first.
            tail: [0xff; TAIL_LEN],
        }
    }

    /// Data messages that may be sent now.
    #[must_use]
    #[inline]
    pub fn available(&self) -> u32 {
        self.allowed.wrapping_sub(self.sent)
    }

    /// Data messages that the peer may still send: receives that are spoken for.
    #[must_use]
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.granted.wrapping_sub(self.received)
    }

    /// Grants the peer more.
    pub fn grant(&mut self, more: u32) {
        let more = more.min(CREDITS_MAX.saturating_sub(self.outstanding()));
        self.granted = self.granted.wrapping_add(more);
    }

    /// The header of the next data message. The caller has seen that one is available.
    #[must_use]
    #[inline]
    pub fn data_header(&mut self, session: u32, incarnation: u32) -> Header {
        debug_assert!(self.available() > 0);
        let header = self.header(Kind::Data, session, incarnation);
        self.sent = self.sent.wrapping_add(1);
        header
    }

    /// The counts in the header of the next data message; otherwise as [`Credit::data_header`].
    #[must_use]
    #[inline]
    pub fn data_counts(&mut self) -> (u32, u32, u32) {
        let sequence = self.sent;
        self.sent = sequence.wrapping_add(1);
        self.told = self.granted;
        self.asked = false;
        (sequence, self.granted, self.allowed)
    }

    /// Takes back the last data message, which was never sent.
    pub fn unsend(&mut self) {
        self.sent = self.sent.wrapping_sub(1);
    }

    #[inline]
    fn header(&mut self, kind: Kind, session: u32, incarnation: u32) -> Header {
        self.told = self.granted;
        self.asked = false;
        Header {
            kind,
            session,
            incarnation,
            sequence: self.sent,
            limit: self.granted,
            echo: self.allowed,
        }
    }

    /// What is owed now; `starved` says whether data waits for credit.
    ///
    /// An update is owed when there is as much to tell as the peer still has, by what it was
    /// told.
    #[must_use]
    #[inline]
    pub fn owed(&self, now_ns: u64, starved: bool) -> Owed {
        if self.asked {
            return Owed::Update;
        }
        let untold = self.granted.wrapping_sub(self.told);
        if untold != 0 && self.told.wrapping_sub(self.received) <= untold {
            match self.update {
                None => return Owed::Update,
                Some((_, since)) if self.may_repeat(now_ns, since) => return Owed::Update,
                Some(_) => {}
            }
        }
        if self.delivery == Delivery::Datagram {
            return self.owed_again(now_ns, starved);
        }
        Owed::Nothing
    }

    /// Whether an update is owed, were none under way.
    #[must_use]
    #[inline]
    pub fn may_owe(&self) -> bool {
        let untold = self.granted.wrapping_sub(self.told);
        self.asked || (untold != 0 && self.told.wrapping_sub(self.received) <= untold)
    }

    /// Whether the peer can send nothing of what it was told, and there is more.
    #[must_use]
    pub fn starves(&self) -> bool {
        self.told == self.received && self.granted != self.told
    }

    /// Messages that may come until an update may be owed, if nothing is sent or granted
    /// meanwhile; 0 if one is.
    #[must_use]
    #[inline]
    pub fn until_owed(&self) -> u32 {
        let untold = self.granted.wrapping_sub(self.told);
        let left = self.told.wrapping_sub(self.received);
        match untold {
            _ if self.asked => 0,
            0 => u32::MAX,
            untold => left.saturating_sub(untold),
        }
    }

    fn may_repeat(&self, now_ns: u64, since: u64) -> bool {
        self.delivery == Delivery::Datagram && now_ns.saturating_sub(since) >= REPEAT_NS
    }

    #[inline(never)]
    fn owed_again(&self, now_ns: u64, starved: bool) -> Owed {
        if !starved || self.available() > 0 {
            return Owed::Nothing;
        }
        match self.probed_ns {
            Some(since) if !self.may_repeat(now_ns, since) => Owed::Nothing,
            _ => Owed::Probe,
        }
    }

    /// The header of a control message that is owed.
    #[must_use]
    pub fn control_header(&mut self, kind: Kind, ids: (u32, u32), now_ns: u64) -> Header {
        let header = self.header(kind, ids.0, ids.1);
        match kind {
            Kind::Credit => {
                self.update = Some((header.limit, now_ns));
                self.be_careful();
            }
            Kind::Probe => self.probed_ns = Some(now_ns),
            Kind::Data => debug_assert!(false, "data has a header of its own"),
        }
        header
    }

    /// A message arrived whose session and incarnation are right.
    #[inline]
    pub fn on_header(&mut self, header: &Header) -> Arrival {
        self.mark_arrived();
        self.be_careful();
        if ahead(self.granted, header.echo).is_none() {
            return Arrival::Violation(Violation::Echo);
        }
        if ahead(header.limit, self.allowed).is_some_and(|more| more > 0) {
            if header.limit.wrapping_sub(self.sent) > CREDITS_MAX {
                return Arrival::Violation(Violation::Limit);
            }
            self.allowed = header.limit;
            self.probed_ns = None;
        }
        if let Some((limit, _)) = self.update
            && ahead(header.echo, limit).is_some()
        {
            self.update = None;
        }
        match header.kind {
            Kind::Data => self.on_data(header.sequence),
            Kind::Credit => self.on_control(header.sequence),
            Kind::Probe => {
                let arrival = self.on_control(header.sequence);
                // On a reliable wire the acknowledgement of the probe is all the answer it needs.
                self.asked = self.delivery == Delivery::Datagram;
                arrival
            }
        }
    }

    /// The next so many messages may be taken by a look at their headers, as far as the peer may
    /// send them and no update is on its way.
    #[inline]
    pub fn calm_down(&mut self, messages: u32) {
        self.calm = if self.update.is_some() { 0 } else { messages.min(self.outstanding()) };
    }

    /// The next message is looked at closely.
    #[inline]
    pub fn be_careful(&mut self) {
        self.calm = 0;
    }

    /// Takes a data message if the session is calm ([`Credit::calm_down`]), and it is the next one;
    /// otherwise [`Credit::on_header`] is to judge it, and nothing was done.
    #[must_use]
    #[inline(always)]
    pub fn take_next(&mut self, head: &[u8; HEADER_LEN]) -> bool {
        let [sequence, _, _] = Header::counts(head);
        let Some(calm) = self.calm.checked_sub(1) else { return false };
        if sequence != self.received {
            return false;
        }
        if head[HEADER_LEN - TAIL_LEN..] != self.tail && !self.take_tail(head) {
            return false;
        }
        self.received = sequence.wrapping_add(1);
        self.calm = calm;
        true
    }

    /// Takes limit and echo; false if they say what is to be judged.
    #[inline(always)]
    fn take_tail(&mut self, head: &[u8; HEADER_LEN]) -> bool {
        let [_, limit, echo] = Header::counts(head);
        if ahead(self.granted, echo).is_none() {
            return false;
        }
        if limit != self.allowed {
            let more = limit.wrapping_sub(self.allowed);
            if more > CREDITS_MAX || limit.wrapping_sub(self.sent) > CREDITS_MAX {
                return false;
            }
            self.allowed = limit;
            self.probed_ns = None;
        }
        self.tail.copy_from_slice(&head[HEADER_LEN - TAIL_LEN..]);
        true
    }

    /// Marks those that were taken one after the other since the last time.
    #[inline]
    fn mark_arrived(&mut self) {
        let count = self.received.wrapping_sub(self.marked);
        let kept = self.arrived.checked_shl(count).unwrap_or(0);
        self.arrived = kept | 1_u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1);
        self.marked = self.received;
    }

    /// Data messages that came so far, or are missing.
    #[must_use]
    pub fn received(&self) -> u32 {
        self.received
    }

    #[inline]
    fn on_data(&mut self, sequence: u32) -> Arrival {
        let Some(missing) = ahead(sequence, self.received) else {
            return self.on_late(sequence);
        };
        if missing >= self.outstanding() {
            return Arrival::Violation(Violation::BeyondCredit);
        }
        if missing != 0 && self.delivery == Delivery::Reliable {
            return Arrival::Violation(Violation::Order);
        }
        self.advance(missing);
        self.received = self.received.wrapping_add(1);
        self.mark_arrived();
        Arrival::Fresh { missing }
    }

    fn on_control(&mut self, sequence: u32) -> Arrival {
        // An overtaken one of a datagram wire says nothing new.
        let missing = ahead(sequence, self.received).unwrap_or(0);
        if missing > self.outstanding() {
            return Arrival::Violation(Violation::BeyondCredit);
        }
        let in_order = sequence == self.received;
        if !in_order && self.delivery == Delivery::Reliable {
            return Arrival::Violation(Violation::Order);
        }
        self.advance(missing);
        Arrival::Control { missing }
    }

    /// Messages are missing: they are counted as received.
    fn advance(&mut self, missing: u32) {
        self.received = self.received.wrapping_add(missing);
        self.arrived = self.arrived.checked_shl(missing).unwrap_or(0);
        self.marked = self.received;
    }

    fn on_late(&mut self, sequence: u32) -> Arrival {
        if self.delivery == Delivery::Reliable {
            return Arrival::Violation(Violation::Order);
        }
        let behind = self.received.wrapping_sub(1).wrapping_sub(sequence);
        if behind >= LATE_MAX || self.arrived >> behind & 1 == 1 {
            return Arrival::Duplicate;
        }
        self.arrived |= 1 << behind;
        Arrival::Late
    }
}

#[cfg(test)]
#[path = "credit_tests.rs"]
mod tests;
