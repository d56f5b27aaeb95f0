//! The `roceway` command: parses the command line, calls the crates, prints, and chooses the exit
//! code: 0 done, 1 failed, 2 misused. It measures nothing itself.
#![forbid(unsafe_code)]

mod command;
mod doctor;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
