//! What a turn does: the phases, in order, and what each says of itself. No code runs here.

/// A phase of the turn, in the turn's order. The discriminant indexes counters and budgets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Commands of other threads.
    Control,
    /// Received frames.
    Receive,
    /// Timers that are due.
    Timers,
    /// Tasks of the application.
    Application,
    /// Frames to send.
    Transmit,
    /// Completed sends and fresh receive buffers, once the doorbell is rung.
    After,
}

impl Phase {
    /// Number of phases.
    pub const COUNT: usize = 6;
    /// All phases in order.
    pub const ALL: [Phase; Phase::COUNT] = [
        Phase::Control,
        Phase::Receive,
        Phase::Timers,
        Phase::Application,
        Phase::Transmit,
        Phase::After,
    ];
}

/// How many items a phase did. A phase that did as many as its budget allows is taken to have
/// more: the next turn is a busy one whatever [`Work::ready`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Progress(u32);

impl Progress {
    /// Nothing was there to do.
    pub const NONE: Progress = Progress(0);

    /// `items` were done.
    #[inline]
    pub const fn done(items: u32) -> Progress {
        Progress(items)
    }

    /// Items done.
    #[must_use]
    #[inline]
    pub const fn items(self) -> u32 {
        self.0
    }
}

/// What [`Work::arm`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Armed {
    /// Nothing waits, and whatever comes makes the device's descriptor readable.
    Quiet,
    /// Something is there already: do not sleep.
    Pending,
}

/// The work of one core. All times are nanoseconds of [`crate::Clock`]; every phase does at most
/// `budget` items and returns how many. Nothing here blocks.
pub trait Work {
    /// Whether anything waits: a completion, a command, a runnable task, a frame to send. Called
    /// every turn; a few loads, and the only thing besides the clock that an idle turn looks at.
    /// Timers do not belong here: [`Work::deadline`] names them.
    fn ready(&mut self) -> bool;

    /// Takes commands of other threads.
    fn control(&mut self, now: u64, budget: u32) -> Progress;

    /// Takes received frames. Must not depend on room to send: two full peers would wait for each
    /// other.
    fn receive(&mut self, now: u64, budget: u32) -> Progress;

    /// Runs timers that are due. Comes after [`Work::receive`], so that a core that stalled does
    /// not take its own pause for a lost segment.
    fn timers(&mut self, now: u64, budget: u32) -> Progress;

    /// Polls tasks of the application.
    fn application(&mut self, now: u64, budget: u32) -> Progress;

    /// Hands frames to the device.
    fn transmit(&mut self, now: u64, budget: u32) -> Progress;

    /// Tells the device of everything handed over in this turn; called once a busy turn.
    fn doorbell(&mut self);

    /// What can wait until the frames are on their way: takes send completions, posts receive
    /// buffers. Does not count as traffic for the idle policy.
    fn after(&mut self, now: u64, budget: u32) -> Progress;

    /// Rare work, about once a millisecond, less often while the core sleeps.
    fn cold(&mut self, now: u64);

    /// When the next timer is due; `u64::MAX` if none is armed. Asked when a turn found
    /// nothing to do. A call outside the turn that brings a deadline nearer makes [`Work::ready`]
    /// true or calls [`crate::Loop::expect_work`].
    fn deadline(&mut self) -> u64;

    /// Asks the device for an event with the next completion, then looks once more. A device that
    /// cannot says [`Armed::Pending`]; the core then goes on polling, which is counted.
    fn arm(&mut self) -> Armed;

    /// Ends the wish for events and takes those that came.
    fn disarm(&mut self);
}
