//! netperf's tests over Roceway and over the host kernel.
//!
//! A test is an entry of [`catalogue`]; a [`workload`] is a test with its numbers. The [`client`]
//! asks a server for it in netperf's [`control`] protocol and runs its [`flow`]s over a
//! [`transport`]: the host [`kernel`], or [`roceway`]. The [`server`] is the other end; [`local`]
//! and [`ends`] put one end or both into this process. A [`recorder`] counts, a [`histogram`]
//! holds the
//! latencies, and [`compare`] lets all contenders take turns.
//!
//! Nothing here is needed by the library, and nothing here reads or writes memory unsafely.
#![forbid(unsafe_code)]

pub mod arithmetic;
pub mod block;
pub mod catalogue;
pub mod client;
pub mod compare;
pub mod control;
pub mod ends;
pub mod figures;
pub mod flow;
pub mod histogram;
pub mod host;
pub mod kernel;
pub mod local;
pub mod options;
pub mod pacing;
pub mod pattern;
pub mod plot;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod roceway;
pub mod server;
pub mod shared;
pub mod state;
pub mod transport;
pub mod workload;
