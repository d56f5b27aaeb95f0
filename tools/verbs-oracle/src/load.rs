//! Work of no use beside each message: what a stack would cost, as instructions and as pages that
//! it touches, before a message is sent or after.
//!
//! Owns the memory. Under emulation an instruction and the first touch of a page since the last
//! change of process have each their price, and work after a message is sent may be hidden behind
//! the other end's: with these three the rest of a round trip can be told.

use clap::ValueEnum;
use std::hint::black_box;

/// When the work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum When {
    /// Between a message that came and the one that is sent: the other end waits for it.
    Before,
    /// Between the message that is sent and the sleep.
    After,
}

/// Bytes of a page.
const PAGE: usize = 4096;
/// Instructions of one turn of the loop: `mov` to and from memory, `dec`, `jne`.
const INSTRUCTIONS_A_TURN: u64 = 4;

/// The work for each message.
pub struct Load {
    when: When,
    turns: u64,
    /// One byte of each page is read.
    memory: Vec<u8>,
}

impl Load {
    /// So many instructions and pages a message.
    #[must_use]
    pub fn new(when: When, instructions: u32, pages: u32) -> Load {
        let length = usize::try_from(pages).unwrap_or(0) * PAGE;
        // Written, so that each page is one of its own.
        let memory = (0..length).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        Load { when, turns: u64::from(instructions) / INSTRUCTIONS_A_TURN, memory }
    }

    /// Does the work, if it is time for it; a sum that nobody needs.
    pub fn bear(&self, now: When) -> u64 {
        if now != self.when {
            return 0;
        }
        let mut left = self.turns;
        while left != 0 {
            left = black_box(left) - 1;
        }
        self.memory.iter().step_by(PAGE).map(|byte| u64::from(*black_box(byte))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done_at_its_time_and_reads_each_page() {
        let load = Load::new(When::After, 100, 3);
        assert_eq!(load.bear(When::Before), 0);
        let expected = [0, PAGE % 251, 2 * PAGE % 251].iter().sum::<usize>();
        assert_eq!(load.bear(When::After), u64::try_from(expected).unwrap());
        assert_eq!(Load::new(When::Before, 0, 0).bear(When::Before), 0);
    }
}
