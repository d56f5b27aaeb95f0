//! Options that every command shares.

use clap::{Args, ValueEnum};
use roceway_perf::kernel::Waiting;

/// The stack under a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Stack {
    /// The host kernel's sockets.
    #[default]
    Kernel,
}

/// Options that every command shares.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// The stack to run on
    #[arg(long, value_enum, default_value_t, value_name = "STACK")]
    pub(crate) stack: Stack,
    /// How the kernel's sockets are waited for
    #[arg(long, value_enum, default_value_t, value_name = "MANNER")]
    pub(crate) wait: Waiting,
    /// Prints one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}
