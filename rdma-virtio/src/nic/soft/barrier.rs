//! The orderings of the soft link that a plain acquire or release access does not give, by name.
//!
//! The armed protocol is Dekker's: the sleeper writes its armed word and then reads the ring; the
//! poster writes the ring and then reads the armed word. Each needs a full barrier between its two
//! steps. The poster's is on the hot path, so where the kernel can, the sleeper forces it on the
//! poster's processor (membarrier(2), global expedited) and the poster pays nothing.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence, fence};

/// Registers this process for barriers forced by sleepers, once; whether that worked and this
/// process may force them on others.
pub(super) fn can_force_barriers() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED).is_ok()
            && membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED).is_ok()
    })
}

/// The poster's barrier, between its writes and its look at the armed word.
#[inline]
pub(super) fn posts_before_looking_whether_armed(peer_forces: bool) {
    if peer_forces {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The sleeper's barrier, between its armed word and its last look at the ring.
///
/// # Errors
/// If the kernel refuses the barrier that it granted at start.
pub(super) fn armed_before_the_last_look(force: bool) -> io::Result<()> {
    fence(Ordering::SeqCst);
    if force {
        membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)?;
        fence(Ordering::SeqCst);
    }
    Ok(())
}

/// The puller's barrier: bytes that were pulled are read before the sequence is read again.
#[inline]
pub(super) fn pulled_before_sequence_again() {
    fence(Ordering::Acquire);
}

/// The sender's barrier: a revocation is visible before the message's bytes may change.
#[inline]
pub(super) fn revoked_before_reuse() {
    fence(Ordering::Release);
}

fn membarrier(command: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes integers only and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
