//! Trials: what a device does, shown by use and not by its claims.
//!
//! [`joined::Joined`] is a port whose two queue pairs send to each other, over RC or UD;
//! [`frames::Frames`] is a RAW_PACKET queue pair with rules. Both make their own objects and
//! memory, wait for every completion within a bound, and hand out copies only, so that nothing here
//! is unsafe to use. They are for looking, not for speed.

pub mod frames;
pub mod joined;
mod memory;

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::attributes::PortState;
use super::completion::CompletionQueue;
use super::device::{self, Found};
use super::work_completion::{CompletionKind, CompletionStatus, WorkCompletion};
use crate::nic::DeviceError;

/// How long a completion or an event may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Completions taken at once.
const BATCH: usize = 32;

/// An error of a trial: `what` happened in `call`.
fn trouble(device: &str, call: &'static str, what: String) -> DeviceError {
    DeviceError {
        device: device.to_owned(),
        call,
        source: io::Error::other(what),
        remedy: String::new(),
    }
}

/// The device of this name, with its port up.
fn find(name: &str) -> Result<Found, DeviceError> {
    let found = device::find(name)?;
    let port = found.context.port(found.port)?;
    if port.state == PortState::Active {
        return Ok(found);
    }
    let mut error =
        trouble(name, "ibv_query_port", format!("port {} is {:?}", found.port, port.state));
    error.remedy = "bring its link up: ip link set IF up, and see the cable".to_owned();
    Err(error)
}

/// Whether a descriptor becomes readable within `limit`.
fn readable(fd: RawFd, limit: Duration) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let timeout = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one entry.
    let result = unsafe { libc::poll(&mut entry, 1, timeout) };
    result > 0
}

/// Takes completions until `enough`, for [`PATIENCE`] at most.
fn collect(
    device: &str,
    queue: &CompletionQueue,
    mut enough: impl FnMut(&WorkCompletion) -> bool,
) -> Result<(), DeviceError> {
    let deadline = Instant::now() + PATIENCE;
    let mut out = [WorkCompletion::default(); BATCH];
    loop {
        let found = queue.poll(&mut out).map_err(|failure| {
            trouble(device, "ibv_poll_cq", format!("the queue failed: {failure}"))
        })?;
        let mut done = false;
        for completion in &out[..found.min(BATCH)] {
            if completion.status() != CompletionStatus::Success {
                return Err(failed(device, completion));
            }
            done |= enough(completion);
        }
        if done {
            return Ok(());
        }
        if Instant::now() > deadline {
            let what = format!("no completion within {} s", PATIENCE.as_secs());
            return Err(trouble(device, "ibv_poll_cq", what));
        }
        if found == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

fn failed(device: &str, completion: &WorkCompletion) -> DeviceError {
    let call = match completion.kind() {
        CompletionKind::Send => "ibv_post_send",
        _ => "ibv_post_recv",
    };
    let what = format!(
        "completed with {} (vendor's code {:#x})",
        completion.status(),
        completion.vendor_error()
    );
    trouble(device, call, what)
}
