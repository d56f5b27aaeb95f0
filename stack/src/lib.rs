//! A TCP/IP stack as a value: frames, calls and the time go in, frames and events come out.
//!
//! The layers, from the wire up:
//!
//! - [`wire`]: one file a header; a checked view of bytes and a small value each.
//! - [`ip`]: neighbours, routes, reassembly of fragments, ICMP.
//! - [`udp`] and [`tcp`]: the transports.
//! - [`memory`] and [`frame`]: how a frame lies in memory that a device can reach.
//!
//! The crate has no clock, no I/O, no threads, no globals, no random numbers of its own and no
//! unsafe code: time is an argument ([`time::Instant`]), keys are given at construction, and
//! memory is reached through the [`memory::Memory`] trait.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod checksum;
mod copy;
mod counted;
pub mod frame;
mod gro;
pub mod heap_memory;
pub mod ip;
pub mod memory;
mod ring;
pub mod slab;
pub mod stack;
pub mod tcp;
pub mod time;
pub mod udp;
pub mod wire;
