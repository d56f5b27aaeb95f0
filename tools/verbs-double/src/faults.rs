//! What was asked to fail: losses, statuses of completions, calls. It decides; others act.

use std::collections::VecDeque;

/// Which queue a forced status is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// A send.
    Send,
    /// A receive.
    Receive,
}

/// A status that one of the next work requests shall complete with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ForcedStatus {
    /// Number of the device.
    pub(crate) device: usize,
    /// Queue pair number, or any.
    pub(crate) number: Option<u32>,
    /// Sends or receives.
    pub(crate) direction: Direction,
    /// Requests that still pass.
    pub(crate) after: u32,
    /// The status.
    pub(crate) status: u32,
}

/// Losses of a device.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Loss {
    /// Messages in a million that are lost on the way out.
    pub(crate) parts_per_million: u32,
    /// Messages that are lost next in any case.
    pub(crate) next: u32,
    /// Frames whose last byte is changed behind the checksum next.
    pub(crate) corrupt: u32,
    /// Nothing is executed: posted requests wait.
    pub(crate) stalled: bool,
}

/// All faults.
#[derive(Debug)]
pub(crate) struct Faults {
    forced: Vec<ForcedStatus>,
    calls: VecDeque<(String, i32, u32)>,
    random: u64,
}

impl Faults {
    /// Without faults; losses come from `seed`.
    pub(crate) fn new(seed: u64) -> Faults {
        Faults { forced: Vec::new(), calls: VecDeque::new(), random: seed | 1 }
    }

    /// Adds a forced status.
    pub(crate) fn force(&mut self, status: ForcedStatus) {
        self.forced.push(status);
    }

    /// Lets the next `count` calls of a verb fail.
    pub(crate) fn fail_call(&mut self, call: &str, errno: i32, count: u32) {
        self.calls.push_back((call.to_string(), errno, count));
    }

    /// The errno that this call shall fail with.
    pub(crate) fn of_call(&mut self, call: &str) -> Option<i32> {
        let place = self.calls.iter().position(|(name, ..)| name == call)?;
        let (_, errno, left) = &mut self.calls[place];
        let errno = *errno;
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.calls.remove(place);
        }
        Some(errno)
    }

    /// The status that the next request of a queue shall complete with.
    pub(crate) fn of_request(
        &mut self,
        device: usize,
        number: u32,
        direction: Direction,
    ) -> Option<u32> {
        let mut hit = None;
        for (place, forced) in self.forced.iter_mut().enumerate() {
            let meant = forced.device == device
                && forced.direction == direction
                && forced.number.is_none_or(|wanted| wanted == number);
            if meant && forced.after == 0 {
                hit = hit.or(Some(place));
            } else if meant {
                forced.after -= 1;
            }
        }
        // Success is what happens anyway.
        Some(self.forced.remove(hit?).status).filter(|status| *status != 0)
    }

    /// Whether the next message is lost.
    pub(crate) fn loses(&mut self, loss: &mut Loss) -> bool {
        if loss.next > 0 {
            loss.next -= 1;
            return true;
        }
        loss.parts_per_million > 0 && self.draw() % 1_000_000 < u64::from(loss.parts_per_million)
    }

    /// xorshift64 (Marsaglia 2003): the same seed, the same losses.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}
