//! Work of no use beside each message: what a stack would cost, as instructions, as pages that it
//! touches and as pieces of code that it comes through, before a message is sent or after.
//!
//! Owns the memory. Under emulation an instruction, and the first touch of a page or of a piece of
//! code since the last change of process, have each their price, and work after a message is sent
//! may be hidden behind the other end's: with these the rest of a round trip can be told.

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

/// Pieces of code that there are to be visited.
pub const VISITS_MAX: u32 = 1024;

/// A piece of code of a few instructions, another one for each number.
type Block = fn(u64) -> u64;

#[inline(never)]
fn block<const NUMBER: u64>(sum: u64) -> u64 {
    black_box(sum).rotate_left(1) ^ (NUMBER << 20)
}

macro_rules! row {
    ($row:literal: $($column:literal)*) => { [$(block::<{ $row * 16 + $column }> as Block),*] };
}
macro_rules! rows {
    ($($row:literal)*) => { [$(row!($row: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*] };
}
static BLOCKS: [[Block; 16]; 64] = rows!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
);

/// The work for each message.
pub struct Load {
    when: When,
    turns: u64,
    visits: usize,
    /// One byte of each page is read.
    memory: Vec<u8>,
}

impl Load {
    /// So many instructions, pages and pieces of code a message.
    #[must_use]
    pub fn new(when: When, instructions: u32, pages: u32, visits: u32) -> Load {
        let length = usize::try_from(pages).unwrap_or(0) * PAGE;
        // Written, so that each page is one of its own.
        let memory = (0..length).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        let turns = u64::from(instructions) / INSTRUCTIONS_A_TURN;
        Load { when, turns, visits: usize::try_from(visits).unwrap_or(0), memory }
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
        let blocks = BLOCKS.as_flattened().iter().take(self.visits);
        let visited = blocks.fold(0, |sum, block| black_box(*block)(sum));
        let touched = self.memory.iter().step_by(PAGE).map(|byte| u64::from(*black_box(byte)));
        touched.fold(visited, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done_at_its_time_and_reads_each_page() {
        let load = Load::new(When::After, 100, 3, 0);
        assert_eq!(load.bear(When::Before), 0);
        let expected = [0, PAGE % 251, 2 * PAGE % 251].iter().sum::<usize>();
        assert_eq!(load.bear(When::After), u64::try_from(expected).unwrap());
        assert_eq!(Load::new(When::Before, 0, 0, 0).bear(When::Before), 0);
    }

    #[test]
    fn each_piece_of_code_is_another_one_and_visited_once() {
        let visited = |visits| Load::new(When::Before, 0, 0, visits).bear(When::Before);
        let expected = |visits: u32| {
            (0..u64::from(visits)).fold(0_u64, |sum, number| sum.rotate_left(1) ^ (number << 20))
        };
        for visits in [1, 2, 17, VISITS_MAX] {
            assert_eq!(visited(visits), expected(visits));
        }
        let all = BLOCKS.as_flattened();
        assert_eq!(all.len(), usize::try_from(VISITS_MAX).unwrap());
        let places: std::collections::BTreeSet<usize> =
            all.iter().map(|block| *block as usize).collect();
        assert_eq!(places.len(), all.len());
    }
}
