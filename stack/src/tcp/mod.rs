//! TCP, RFC 9293.

pub mod congestion;
pub mod options;
mod ranges;
pub mod reassembly;
pub mod recovery;
pub mod rtt;
pub mod seq;
pub mod timers;
