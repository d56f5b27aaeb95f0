//! Requirements of the RFCs, one test each, against a peer made by hand.

#[path = "../support/mod.rs"]
mod support;

mod closing;
mod ecn;
mod flow;
mod hostile;
mod icmp;
mod marking;
mod opening;
mod options;
mod resets;
mod retransmission;
