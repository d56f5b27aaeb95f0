//! A double of libibverbs: the library's binary interface over devices that exist only here.
//!
//! It is for tests. Programs load it in place of `libibverbs.so.1` and find devices that keep the
//! rules of the manual pages: a wrong request fails as the page says, and a right one is executed.
//! `abi` holds the layouts of the public header, `exports` the functions; behind them `world` holds
//! all objects under one lock. It shares no code with the crates that are tested on it, and never
//! talks to a kernel driver.

pub mod abi;
mod address;
mod completion;
mod config;
mod control;
mod counters;
mod datagram;
mod device;
mod events;
mod exports;
mod faults;
mod memory;
mod message;
mod posting;
mod queue_pair;
mod raw;
mod reliable;
mod segment;
mod shared_receive;
mod steering;
mod strings;
mod table;
mod tap;
mod transport;
mod wire;
mod world;
