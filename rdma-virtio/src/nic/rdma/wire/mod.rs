//! The wire between Roceway hosts over RC or UD queue pairs, as a protocol: bytes and states.
//!
//! Owns: the header of every message, the words of the exchange that joins two hosts, credits,
//! the table of peers, which peer a frame goes to, back-off, RC's worst give-up time, counters.
//! Never does: clocks, sockets, verbs, memory of others. Events and times come in, actions go out;
//! `docs/wire.md` specifies the bytes, and `golden.rs` holds stored ones.
//!
//! Invariants: credits granted, and two receives a peer for control, never exceed the receives
//! posted; a control message never waits for credit; nothing that a peer says is used before it
//! was checked.

pub mod backoff;
pub mod counters;
pub mod credit;
pub mod exchange;
pub mod give_up;
pub mod header;
pub mod ledger;
pub mod macs;
pub mod peer;
pub mod peers;
pub mod short;
pub mod stream;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod golden;
