//! The turn of a busy-polling core: in which order a core looks at its work, how much of each it
//! does, what time it is, and when it stops looking and sleeps.
//!
//! - [`Work`]: what a turn calls, in order; the runtime implements it.
//! - [`Loop`]: the turn itself, on one screen, with a [`Budget`] a phase and [`Counters`].
//! - [`Clock`]: nanoseconds of `CLOCK_MONOTONIC`, read from the time stamp counter.
//! - [`idle`]: when to stop polling; [`Doorbell`] and [`EventWait`]: how to sleep and lose nothing.
//! - [`Lead`] and [`Parker`]: who turns when threads take turns, and how the others sleep.
//! - [`cycles`]: how many cycles were used, where the machine counts them.
//! - [`pin`]: which cores to use, and what is wrong with them.
//!
//! The crate knows neither packets nor verbs and imports no other crate of the workspace. Its only
//! unsafe code is in `sys.rs`.

pub mod budget;
pub mod clock;
pub mod counters;
#[cfg(not(loom))]
pub mod cycles;
mod doorbell;
mod event;
pub mod idle;
mod lead;
mod parker;
pub mod pin;
mod quota;
mod sync;
mod sys;
mod turn;
mod wait;
pub mod work;

pub use budget::Budget;
pub use clock::Clock;
pub use counters::Counters;
pub use doorbell::Doorbell;
pub use idle::{Idle, Sleeper, Spin, Wake};
pub use lead::{Lead, Place};
pub use parker::Parker;
pub use turn::{Begun, Limits, Loop, Nap, Turned};
pub use wait::EventWait;
pub use work::{Armed, Phase, Progress, Work};
