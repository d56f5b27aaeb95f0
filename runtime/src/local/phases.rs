//! The phases of a turn over a core that is borrowed for the turn, but not while the application
//! runs in the midst of it, so that it can use its sockets.

use std::cell::{RefCell, RefMut};

use roceway_busypoll::{Armed, Progress, Work};

use crate::core::Core;

/// A turn's work: the core's phases, and the application's.
pub(super) struct Phases<'a, F> {
    cell: &'a RefCell<Core>,
    held: Option<RefMut<'a, Core>>,
    application: F,
}

impl<'a, F: FnMut() -> u32> Phases<'a, F> {
    /// Nothing is borrowed before the first phase.
    #[inline(always)]
    pub(super) fn new(cell: &'a RefCell<Core>, application: F) -> Phases<'a, F> {
        Phases { cell, held: None, application }
    }

    #[inline(always)]
    fn core(&mut self) -> &mut Core {
        let cell = self.cell;
        self.held.get_or_insert_with(|| cell.borrow_mut())
    }
}

impl<F: FnMut() -> u32> Work for Phases<'_, F> {
    #[inline(always)]
    fn ready(&mut self) -> bool {
        self.core().ready()
    }

    #[inline(always)]
    fn control(&mut self, now: u64, budget: u32) -> Progress {
        self.core().control(now, budget)
    }

    #[inline(always)]
    fn receive(&mut self, now: u64, budget: u32) -> Progress {
        self.core().receive(now, budget)
    }

    #[inline(always)]
    fn timers(&mut self, now: u64, budget: u32) -> Progress {
        self.core().timers(now, budget)
    }

    #[inline(always)]
    fn application(&mut self, _now: u64, _budget: u32) -> Progress {
        self.held = None;
        Progress::done((self.application)())
    }

    #[inline(always)]
    fn transmit(&mut self, now: u64, budget: u32) -> Progress {
        self.core().transmit(now, budget)
    }

    #[inline(always)]
    fn doorbell(&mut self) {
        self.core().doorbell();
    }

    #[inline(always)]
    fn after(&mut self, now: u64, budget: u32) -> Progress {
        self.core().after(now, budget)
    }

    fn cold(&mut self, now: u64) {
        self.core().cold(now);
    }

    fn deadline(&mut self) -> u64 {
        self.core().deadline()
    }

    fn arm(&mut self) -> Armed {
        self.core().arm()
    }

    fn disarm(&mut self) {
        self.core().disarm();
    }
}
