//! The phases of a turn over a core that is borrowed for each of them, so that the application in
//! between can use its sockets.

use std::cell::RefCell;

use roceway_busypoll::{Armed, Progress, Work};

use crate::core::Core;

/// A turn's work: the core's phases, and the application's.
pub(super) struct Phases<'a, F> {
    pub(super) core: &'a RefCell<Core>,
    pub(super) application: F,
}

impl<F: FnMut() -> u32> Work for Phases<'_, F> {
    #[inline]
    fn ready(&mut self) -> bool {
        self.core.borrow_mut().ready()
    }

    #[inline]
    fn control(&mut self, now: u64, budget: u32) -> Progress {
        self.core.borrow_mut().control(now, budget)
    }

    #[inline]
    fn receive(&mut self, now: u64, budget: u32) -> Progress {
        self.core.borrow_mut().receive(now, budget)
    }

    #[inline]
    fn timers(&mut self, now: u64, budget: u32) -> Progress {
        self.core.borrow_mut().timers(now, budget)
    }

    #[inline]
    fn application(&mut self, _now: u64, _budget: u32) -> Progress {
        Progress::done((self.application)())
    }

    #[inline]
    fn transmit(&mut self, now: u64, budget: u32) -> Progress {
        self.core.borrow_mut().transmit(now, budget)
    }

    #[inline]
    fn doorbell(&mut self) {
        self.core.borrow_mut().doorbell();
    }

    #[inline]
    fn after(&mut self, now: u64, budget: u32) -> Progress {
        self.core.borrow_mut().after(now, budget)
    }

    fn cold(&mut self, now: u64) {
        self.core.borrow_mut().cold(now);
    }

    fn deadline(&mut self) -> u64 {
        self.core.borrow_mut().deadline()
    }

    fn arm(&mut self) -> Armed {
        self.core.borrow_mut().arm()
    }

    fn disarm(&mut self) {
        self.core.borrow_mut().disarm();
    }
}
