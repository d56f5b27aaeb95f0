//! Requests that were sent and not yet answered: which of them an answer is for.
//!
//! A TCP answer is for the oldest. A datagram may be lost, late or doubled, so that the oldest is a
//! guess: where both sizes have room, a request begins with the lowest bytes of its sequence number
//! ([`tag_bytes`]), the other end returns them, and an answer is for the request of its number or
//! for none. Every queue here is bounded.

use std::collections::VecDeque;

/// Bytes of a sequence number, at most.
const TAG_MAX: usize = 4;
/// Requests between the oldest that has no answer and the newest, at most: one that so many others
/// have overtaken is lost.
const SPAN_MAX: usize = 131_072;

/// Bytes of a sequence number that requests and responses of these sizes carry, with `depth` under
/// way at once: up to four, as many as both have, and none where they could not tell twice the
/// depth apart, as one byte cannot if more than 128 are under way.
#[must_use]
pub fn tag_bytes(request: usize, response: usize, depth: usize) -> usize {
    let bytes = request.min(response).min(TAG_MAX);
    if depth <= span_of(bytes) { bytes } else { 0 }
}

/// Half of the numbers that a tag has: what came before can then be told from what comes.
fn span_of(tag: usize) -> usize {
    match tag {
        0 => 0,
        1 => 1 << 7,
        2 => 1 << 15,
        _ => SPAN_MAX,
    }
}

/// A request under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Issued {
    /// When it was meant to leave.
    intended_ns: u64,
    /// When it left.
    sent_ns: u64,
}

/// Which request an answer was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Answered {
    /// One that was meant to leave at this time.
    Intended(u64),
    /// None that is under way: it was given up, or has its answer.
    Nothing,
}

/// Requests under way, oldest first.
#[derive(Debug)]
pub(super) struct UnderWay {
    tag: usize,
    /// Sequence number of the first entry.
    base: u32,
    /// `None` once answered, if an older one is not. The first is never `None`.
    entries: VecDeque<Option<Issued>>,
    live: usize,
}

impl UnderWay {
    /// None yet; answers carry `tag` bytes of a sequence number.
    pub(super) fn new(tag: usize, depth: usize) -> Self {
        Self { tag, base: 0, entries: VecDeque::with_capacity(depth), live: 0 }
    }

    /// How many have no answer.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Whether answers say whose they are.
    #[inline]
    pub(super) fn is_tagged(&self) -> bool {
        self.tag > 0
    }

    /// Writes the number of the next request where it has its place.
    #[inline]
    pub(super) fn write_tag(&self, request: &mut [u8]) {
        if self.tag > 0 {
            let next = self.base.wrapping_add(span(self.entries.len())).to_le_bytes();
            request.iter_mut().zip(next).take(self.tag).for_each(|(byte, tag)| *byte = tag);
        }
    }

    /// A request left; returns how many were overtaken by so many that they are lost.
    #[inline]
    pub(super) fn push(&mut self, intended_ns: u64, sent_ns: u64) -> u64 {
        self.entries.push_back(Some(Issued { intended_ns, sent_ns }));
        self.live += 1;
        let mut lost = 0;
        while self.tag > 0 && self.entries.len() > span_of(self.tag) {
            lost += u64::from(self.give_up_first());
        }
        lost
    }

    /// The oldest is answered.
    #[inline]
    pub(super) fn answer_oldest(&mut self) -> Answered {
        match self.entries.pop_front().flatten() {
            Some(issued) => {
                self.base = self.base.wrapping_add(1);
                self.live -= 1;
                Answered::Intended(issued.intended_ns)
            }
            None => Answered::Nothing,
        }
    }

    /// An answer that begins with these bytes has come.
    #[inline]
    pub(super) fn answer_tagged(&mut self, answer: &[u8]) -> Answered {
        let mut number = [0; TAG_MAX];
        number.iter_mut().zip(answer).take(self.tag).for_each(|(byte, tag)| *byte = *tag);
        let distance = u32::from_le_bytes(number).wrapping_sub(self.base);
        let distance = match self.tag {
            1 => distance & 0xff,
            2 => distance & 0xffff,
            3 => distance & 0x00ff_ffff,
            _ => distance,
        };
        let entry = usize::try_from(distance).ok().and_then(|at| self.entries.get_mut(at));
        let Some(issued) = entry.and_then(Option::take) else { return Answered::Nothing };
        self.live -= 1;
        self.drop_answered();
        Answered::Intended(issued.intended_ns)
    }

    /// Gives those up that left before `before_ns`; returns how many.
    pub(super) fn give_up(&mut self, before_ns: u64) -> u64 {
        let mut lost = 0;
        while let Some(Some(oldest)) = self.entries.front()
            && oldest.sent_ns < before_ns
        {
            lost += u64::from(self.give_up_first());
        }
        lost
    }

    fn give_up_first(&mut self) -> bool {
        let was_live = self.entries.pop_front().flatten().is_some();
        self.base = self.base.wrapping_add(1);
        self.live -= usize::from(was_live);
        self.drop_answered();
        was_live
    }

    #[inline]
    fn drop_answered(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.base = self.base.wrapping_add(1);
        }
    }
}

/// A number of entries; there are never more than the span.
fn span(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tag that the next request would carry.
    fn next(under_way: &UnderWay) -> [u8; TAG_MAX] {
        let mut tag = [0; TAG_MAX];
        under_way.write_tag(&mut tag);
        tag
    }

    fn issue(under_way: &mut UnderWay, at: u64) -> [u8; TAG_MAX] {
        let tag = next(under_way);
        assert_eq!(under_way.push(at, at), 0);
        tag
    }

    #[test]
    fn a_tag_is_as_long_as_both_sizes_and_the_depth_allow() {
        for (request, response, depth, bytes) in [
            (1, 1, 1, 1),
            (1, 1, 128, 1),
            (1, 1, 129, 0),
            (1400, 2, 1, 2),
            (2, 2, 32_768, 2),
            (2, 9, 32_769, 0),
            (64, 64, 65_536, 4),
        ] {
            assert_eq!(tag_bytes(request, response, depth), bytes, "{request} {response} {depth}");
        }
    }

    #[test]
    fn an_answer_is_for_the_request_of_its_number_or_for_none() {
        for tag in 1..=TAG_MAX {
            let mut under_way = UnderWay::new(tag, 4);
            // Across the point where one and two bytes begin again.
            for at in 0..70_000 {
                let bytes = issue(&mut under_way, at);
                assert_eq!(under_way.answer_tagged(&bytes), Answered::Intended(at));
                assert_eq!(under_way.answer_tagged(&bytes), Answered::Nothing, "twice");
            }
            let sent: Vec<_> = (0..4).map(|at| issue(&mut under_way, at)).collect();
            for (index, left) in [(2, 3), (0, 2), (3, 1), (1, 0)] {
                let at = u64::try_from(index).expect("small");
                assert_eq!(under_way.answer_tagged(&sent[index]), Answered::Intended(at));
                assert_eq!(under_way.len(), left);
            }
        }
    }

    #[test]
    fn a_late_answer_is_never_taken_for_that_of_a_newer_request() {
        let mut under_way = UnderWay::new(1, 1);
        let lost = issue(&mut under_way, 10);
        assert_eq!(under_way.give_up(10), 0, "not yet");
        assert_eq!(under_way.give_up(11), 1);
        let newer = issue(&mut under_way, 20);
        assert_eq!(under_way.answer_tagged(&lost), Answered::Nothing);
        assert_eq!(under_way.answer_tagged(&newer), Answered::Intended(20));
    }

    #[test]
    fn what_was_overtaken_by_half_of_the_numbers_is_lost() {
        let mut under_way = UnderWay::new(1, 2);
        let lost = issue(&mut under_way, 0);
        let mut given_up = 0;
        for at in 1..200 {
            let bytes = next(&under_way);
            given_up += under_way.push(at, at);
            assert_eq!(under_way.answer_tagged(&bytes), Answered::Intended(at), "{at}");
            assert_eq!(given_up, u64::from(at >= 128), "{at}");
        }
        assert_eq!(under_way.len(), 0);
        assert_eq!(under_way.answer_tagged(&lost), Answered::Nothing);
    }

    #[test]
    fn without_tags_the_oldest_is_meant() {
        let mut under_way = UnderWay::new(0, 2);
        for at in 0..3 {
            assert_eq!(under_way.push(at, at), 0);
        }
        assert_eq!(under_way.answer_oldest(), Answered::Intended(0));
        assert_eq!(under_way.give_up(u64::MAX), 2);
        assert_eq!(under_way.answer_oldest(), Answered::Nothing);
    }
}
