//! What verbs-pingpong is told.
//!
//! Owns the command line. Both ends are given the same test, transport, size and number.

use crate::load::{Load, VISITS_MAX, When};
use crate::shape::Like;
use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::time::Duration;

/// What carries the messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Transport {
    /// Reliable connected.
    Rc,
    /// Unreliable datagrams.
    Ud,
}

/// How completions are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Wait {
    /// Asking again and again.
    Poll,
    /// Asleep until the completion channel has an event.
    Event,
}

/// How the ends find each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum By {
    /// A line each over the host's TCP.
    Tcp,
    /// librdmacm.
    Cm,
}

/// Which calls post sends and poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Calls {
    /// Lists of work requests, arrays of completions.
    Lists,
    /// Sends built in the queue, completions read field by field.
    Extended,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Test {
    /// Round trips.
    Pingpong,
    /// One way, as fast as it goes; RC only.
    Stream,
}

/// Round trips and streams over bare verbs, through Roceway's own bindings.
#[derive(Clone, Debug, Parser)]
#[command(name = "verbs-pingpong")]
pub struct Options {
    /// A verbs device (rxe0, mlx5_0:1) or its interface (eth2)
    #[arg(long)]
    pub device: String,
    /// Index of the GID instead of the one chosen by type and address
    #[arg(long)]
    pub gid: Option<u32>,
    /// Wait for the other end at this address
    #[arg(long, conflicts_with = "connect", required_unless_present = "connect")]
    pub listen: Option<SocketAddr>,
    /// Go to the other end at this address
    #[arg(long)]
    pub connect: Option<SocketAddr>,
    /// How the ends find each other
    #[arg(long, value_enum, default_value = "tcp")]
    pub by: By,
    /// What carries the messages
    #[arg(long, value_enum, default_value = "rc")]
    pub transport: Transport,
    /// How completions are waited for
    #[arg(long, value_enum, default_value = "event")]
    pub wait: Wait,
    /// What is measured
    #[arg(long, value_enum, default_value = "pingpong")]
    pub test: Test,
    /// Which calls post sends and poll
    #[arg(long, value_enum, default_value = "lists")]
    pub calls: Calls,
    /// Bytes a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub size: u32,
    /// Round trips, or messages of a stream
    #[arg(long, default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub count: u32,
    /// Take receives from a shared receive queue
    #[arg(long)]
    pub srq: bool,
    /// Send inline where the device allows messages of this size
    #[arg(long)]
    pub inline: bool,
    /// How much of Roceway's shape the calls have; by lists only
    #[arg(long, value_enum, default_value = "bare")]
    pub like: Like,
    /// Instructions of no use for each message, of round trips
    #[arg(long, default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=100_000_000))]
    pub spend: u32,
    /// Pages that are read for each message, of round trips
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=65_536))]
    pub touch: u32,
    /// Pieces of code, each another one, that are run through for each message, of round trips
    #[arg(long, default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(VISITS_MAX)))]
    pub visit: u32,
    /// When that is done: before an end sends, or after
    #[arg(long, value_enum, default_value = "before")]
    pub when: When,
    /// Seconds without a completion after which it gives up
    #[arg(long, default_value_t = 10)]
    pub patience: u64,
}

impl Options {
    /// Bytes a message.
    #[must_use]
    pub fn length(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    /// The work beside each message.
    #[must_use]
    pub fn load(&self) -> Load {
        Load::new(self.when, self.spend, self.touch, self.visit)
    }

    /// How long no completion may come.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}
