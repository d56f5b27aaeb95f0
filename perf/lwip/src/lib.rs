//! lwIP as one end of a link, twice in a process: frames go in and out by hand, and there is one
//! socket of its raw interface, TCP or UDP, on port 7.
//!
//! Owns the two copies of lwIP, whose state is global; each is lent to one `Stack` at a time.
//! Knows no device and no clock. Empty without the feature `lwip`.

#[cfg(feature = "lwip")]
mod calls;
#[cfg(feature = "lwip")]
mod stack;

#[cfg(feature = "lwip")]
pub use stack::{Around, Frame, Options, Side, Stack};
