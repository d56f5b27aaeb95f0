//! The armed word: how a side says that it sleeps, and how the other one wakes it.
//!
//! The sleeper writes its armed word, forces a full barrier, and looks at the ring once more. The
//! poster writes the ring and looks at the armed word. Whoever comes second sees the other one. A
//! word is signalled once: its upper bits count, its lowest bit says "armed", the next one "and I
//! wait for progress in my own ring".

use std::io;
use std::sync::atomic::Ordering;

use super::barrier;
use super::counters::SoftCounters;
use super::link::Link;
use super::shared::SharedWord;

const ARMED: u64 = 1;
const WANTS_PROGRESS: u64 = 2;
const STEP: u64 = 4;

/// Both sides' armed words.
#[derive(Debug)]
pub(super) struct Sleep {
    peer: SharedWord,
    own: SharedWord,
    /// What the own word says.
    word: u64,
    /// The value of the peer's word for which it was woken.
    signalled: u64,
    /// Whether the sleeper forces the poster's barrier; the same at both sides.
    forced: bool,
}

impl Sleep {
    /// Without a link.
    pub(super) fn new() -> Sleep {
        Sleep {
            peer: SharedWord::idle(),
            own: SharedWord::idle(),
            word: 0,
            signalled: 0,
            forced: false,
        }
    }

    /// Takes a new link into use.
    pub(super) fn connect(&mut self, own: SharedWord, peer: SharedWord, forced: bool) {
        *self = Sleep { peer, own, word: 0, signalled: 0, forced };
    }

    /// Ends the link.
    pub(super) fn disconnect(&mut self) {
        *self = Sleep::new();
    }

    /// A message was posted: wakes the peer if it sleeps.
    #[inline]
    pub(super) fn on_posted(&mut self, counters: &mut SoftCounters, link: &Link) {
        barrier::posts_before_looking_whether_armed(self.forced);
        let word = self.peer.get().load(Ordering::Relaxed);
        if word & ARMED != 0 {
            self.wake_once(word, counters, link);
        }
    }

    #[inline(never)]
    fn wake_once(&mut self, word: u64, counters: &mut SoftCounters, link: &Link) {
        if word != self.signalled {
            self.wake(word, counters, link);
        }
    }

    /// Progress was shown: wakes the peer if it sleeps and waits for that.
    #[inline]
    pub(super) fn on_progress(&mut self, counters: &mut SoftCounters, link: &Link) {
        barrier::posts_before_looking_whether_armed(self.forced);
        let word = self.peer.get().load(Ordering::Relaxed);
        let wanted = ARMED | WANTS_PROGRESS;
        if word & wanted == wanted && word != self.signalled {
            self.wake(word, counters, link);
        }
    }

    #[cold]
    fn wake(&mut self, word: u64, counters: &mut SoftCounters, link: &Link) {
        self.signalled = word;
        counters.wakes_sent += 1;
        link.wake_peer();
    }

    /// Says that this side sleeps; the caller then looks once more.
    ///
    /// # Errors
    /// If the barrier fails; the word is taken back then.
    pub(super) fn arm(&mut self, wants_progress: bool) -> io::Result<()> {
        if !self.own.is_linked() {
            return Ok(());
        }
        self.word = (self.word | (STEP - 1)).wrapping_add(1)
            | ARMED
            | if wants_progress { WANTS_PROGRESS } else { 0 };
        self.own.get().store(self.word, Ordering::Relaxed);
        let result = barrier::armed_before_the_last_look(self.forced);
        if result.is_err() {
            self.disarm();
        }
        result
    }

    /// Takes the word back.
    pub(super) fn disarm(&mut self) {
        if self.word & ARMED != 0 && self.own.is_linked() {
            self.word &= !(ARMED | WANTS_PROGRESS);
            self.own.get().store(self.word, Ordering::Relaxed);
        }
    }
}
