//! The subcommands of `roceway`, their common options and their errors.

mod common;
mod compare;
mod doctor;
mod figures;
mod gateway;
mod perf;
mod verify;
mod worker;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A user-space TCP/IP runtime for RoCE hosts.
#[derive(Parser, Debug)]
#[command(name = "roceway", version, arg_required_else_help = true)]
#[command(about = "A user-space TCP/IP runtime for RoCE hosts")]
#[command(after_help = "Examples:
  roceway perf compare
  roceway perf tcp_rr -l 5
  roceway perf server
  roceway doctor
  roceway gateway rdma:mlx5_0,mode=rc,accept=10.1.0.0/24 tap:gw0,addr=10.2.0.254/24,up=on
  roceway verify rdma:mlx5_0")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Measures latency and throughput: netperf's tests, a server for them, and a comparison
    Perf(Box<perf::Perf>),
    /// Says which devices would work on this machine, and what mends the others
    Doctor(doctor::Doctor),
    /// Joins a wire between Roceway hosts to an ordinary network
    Gateway(gateway::Gateway),
    /// Tries on a NIC what it claims, alone or with another host, and writes a report
    Verify(verify::Verify),
}

/// Why a command did not do what it was asked for, and what the user can do about it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line cannot mean anything.
    Usage(String),
    /// It was tried and did not work.
    Failed {
        /// The cause.
        cause: String,
        /// What can be done; may be empty.
        remedy: String,
    },
}

impl Failure {
    /// A failure without a known remedy.
    pub(crate) fn failed(cause: impl fmt::Display) -> Self {
        Self::Failed { cause: cause.to_string(), remedy: String::new() }
    }
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    // clap prints help and version to standard output and exits 0, and misuse with 2.
    let line = Line::parse();
    let result = match line.command {
        Command::Perf(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Gateway(command) => command.run(),
        Command::Verify(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(cause)) => {
            eprintln!("roceway: {cause}\nTry `roceway --help`.");
            ExitCode::from(2)
        }
        Err(Failure::Failed { cause, remedy }) => {
            eprintln!("roceway: {cause}");
            if !remedy.is_empty() {
                eprintln!("remedy: {remedy}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes a report; a reader that went away is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        let mut commands = vec![Line::command()];
        while let Some(mut command) = commands.pop() {
            let name = command.get_name().to_owned();
            assert!(command.render_long_help().to_string().contains("Examples:"), "{name}");
            // `help` is the parser's own.
            let ours = command.get_subcommands().filter(|c| !c.is_hide_set());
            commands.extend(ours.filter(|c| c.get_name() != "help").cloned());
        }
    }
}
