//! What the backends that speak to the host's kernel share: posted receives and sends as iovecs,
//! and the event fd. TAP and packet sockets both read and write one message a system call.
//!
//! Knows nothing of the devices themselves.

pub(super) mod events;
pub(super) mod receives;
pub(super) mod sends;
#[cfg(test)]
mod tests;

use std::os::fd::RawFd;

/// Length of the virtio-net header in front of every message (virtio 1.2 §5.1.6).
pub(super) const NET_HEADER_LEN: u32 = 12;

/// Longest message: header, Ethernet header and a 64 KB frame, as virtio 1.2 §5.1.6.3.1 reckons.
pub(super) const MESSAGE_MAX: u32 = NET_HEADER_LEN + 14 + 65_536;

/// A message of a link without large frames: header, Ethernet header, one VLAN tag, IP packet.
pub(super) fn plain_message_max(mtu: u16) -> u32 {
    NET_HEADER_LEN + 18 + u32::from(mtu)
}

/// One `struct iovec`, as an address instead of a pointer, so that whoever holds it may move to
/// another thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct IoVec {
    pub(super) base: usize,
    pub(super) len: usize,
}

// `readv` and `writev` are handed these: the layouts must agree.
const _: () = assert!(
    size_of::<IoVec>() == size_of::<libc::iovec>()
        && align_of::<IoVec>() == align_of::<libc::iovec>()
        && std::mem::offset_of!(IoVec, len) == std::mem::offset_of!(libc::iovec, iov_len)
);

/// What a message-preserving fd said to one `readv` or `writev`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Io {
    /// So many bytes were moved.
    Done(usize),
    /// Nothing there, or no room; try later.
    Again,
    /// The interface is down or gone.
    LinkFault(i32),
    /// Refused for another reason; the errno.
    Refused(i32),
}

fn outcome(result: isize) -> Io {
    if let Ok(length) = usize::try_from(result) {
        return Io::Done(length);
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    match errno {
        // ENOBUFS is the answer of a full device queue; the frame did not leave.
        libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM => Io::Again,
        // EIO and EBADFD are a TAP's words for down and deleted.
        libc::EIO | libc::EBADFD | libc::ENETDOWN | libc::ENODEV | libc::ENXIO => {
            Io::LinkFault(errno)
        }
        _ => Io::Refused(errno),
    }
}

/// Most elements in one system call (`IOV_MAX`).
pub(super) const VECTORS_MAX: usize = 1024;

/// Reads one message.
///
/// # Safety
/// Every range in `vectors` may be written.
pub(super) unsafe fn read_message(fd: RawFd, vectors: &[IoVec]) -> Io {
    let count = i32::try_from(vectors.len().min(VECTORS_MAX)).unwrap_or(0);
    // SAFETY: IoVec has iovec's layout (asserted above), `count` is within the slice, and the
    // caller vouches for the ranges.
    outcome(unsafe { libc::readv(fd, vectors.as_ptr().cast(), count) })
}

/// Writes one message.
///
/// # Safety
/// Every range in `vectors` may be read.
pub(super) unsafe fn write_message(fd: RawFd, vectors: &[IoVec]) -> Io {
    let count = i32::try_from(vectors.len().min(VECTORS_MAX)).unwrap_or(0);
    // SAFETY: IoVec has iovec's layout (asserted above), `count` is within the slice, and the
    // caller vouches for the ranges.
    outcome(unsafe { libc::writev(fd, vectors.as_ptr().cast(), count) })
}
