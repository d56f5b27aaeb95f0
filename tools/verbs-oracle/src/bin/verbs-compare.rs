//! The same calls by Roceway's bindings and by the crate rdma-sys, on this machine.
//!
//! Prints `compared count=N devices=N differences=N`, after one line a difference; exit code 1 if
//! there is one.

use std::process::ExitCode;

fn main() -> ExitCode {
    match roceway_verbs_oracle::compare::everything() {
        Ok(report) => {
            for difference in &report.differences {
                println!("differs {difference}");
            }
            let (count, differences) = (report.compared, report.differences.len());
            println!("compared count={count} devices={} differences={differences}", report.devices);
            if differences == 0 && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("verbs-compare: {failure}");
            ExitCode::FAILURE
        }
    }
}
