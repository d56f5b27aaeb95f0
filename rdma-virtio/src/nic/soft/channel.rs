//! The unix socket between the two sides: whole messages, descriptors, the peer's user and its
//! death. Never blocks.
//!
//! It carries the greeting, wake-ups for a sleeper, and its end says that the peer is gone.
//! Wake-ups go through it rather than through an eventfd, since the flags of an eventfd belong to
//! both sides: a hostile peer could make it block its writer.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use arrayvec::ArrayVec;

use super::layout::EXPORTS_MAX;

/// Longest message on the socket.
pub(super) const WORDS_LEN_MAX: usize = 512;
/// Descriptors that come with a greeting at most.
pub(super) const FDS_MAX: usize = EXPORTS_MAX + 1;

/// Descriptors that came with a message.
pub(super) type Fds = ArrayVec<OwnedFd, FDS_MAX>;

/// What came through the socket.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Nothing yet.
    Nothing,
    /// A message: its length in the caller's buffer and its descriptors.
    Message(usize, Fds),
    /// The peer has closed its end or died.
    End,
}

/// One end of a connected socket.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

/// Room for the ancillary data of a message with [`FDS_MAX`] descriptors, aligned for its header.
#[repr(C, align(8))]
struct Ancillary([u8; 128]);

const FDS_BYTES: usize = FDS_MAX * size_of::<RawFd>();
const _: () = assert!(size_of::<libc::cmsghdr>() + FDS_BYTES <= 120);

impl Channel {
    /// Takes over a connected socket of type `SOCK_SEQPACKET`.
    pub(super) fn new(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// Two ends within one process.
    pub(super) fn pair() -> io::Result<(Channel, Channel)> {
        let mut fds: [RawFd; 2] = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `fds` has room for the two descriptors that the call writes.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
        // SAFETY: the call just returned this descriptor; nobody else has it.
        let left = unsafe { OwnedFd::from_raw_fd(fds[0]) };
        // SAFETY: as above.
        let right = unsafe { OwnedFd::from_raw_fd(fds[1]) };
        Ok((Channel::new(left), Channel::new(right)))
    }

    /// The descriptor, to wait for.
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Effective user of the process at the other end, when it connected or began to listen.
    pub(super) fn peer_uid(&self) -> io::Result<libc::uid_t> {
        // SAFETY: all-zero bytes are a valid `ucred`, which is plain integers.
        let mut found: libc::ucred = unsafe { zeroed() };
        let mut length = socklen(size_of::<libc::ucred>());
        // SAFETY: `found` is valid for `length` bytes and both outlive the call.
        check(unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut length,
            )
        })?;
        Ok(found.uid)
    }

    /// Sends a message with descriptors. A full socket is `WouldBlock`, a dead peer `BrokenPipe`.
    pub(super) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut part =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        let mut ancillary = Ancillary([0; 128]);
        if !fds.is_empty() {
            let numbers: ArrayVec<RawFd, FDS_MAX> =
                fds.iter().take(FDS_MAX).map(AsRawFd::as_raw_fd).collect();
            write_rights(&mut ancillary, &mut message, &numbers);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `message` points at `part` and `ancillary`, which outlive the call.
        let sent = unsafe { libc::sendmsg(self.fd(), &raw const message, flags) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives a message. Descriptors beyond [`FDS_MAX`] are closed by the kernel.
    pub(super) fn receive(&self, buffer: &mut [u8; WORDS_LEN_MAX]) -> io::Result<Incoming> {
        match self.receive_once(buffer) {
            // A peer that hung up without reading all of ours is reported once before its own
            // last words, which say why.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.receive_once(buffer)
            }
            result => result,
        }
    }

    fn receive_once(&self, buffer: &mut [u8; WORDS_LEN_MAX]) -> io::Result<Incoming> {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut ancillary = Ancillary([0; 128]);
        // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = ancillary.0.as_mut_ptr().cast();
        message.msg_controllen = control_len();
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: `message` points at `part` and `ancillary`, which outlive the call.
        let received = unsafe { libc::recvmsg(self.fd(), &raw mut message, flags) };
        let Ok(length) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Incoming::Nothing),
                _ => Err(error),
            };
        };
        let fds = read_rights(&message);
        Ok(if length == 0 { Incoming::End } else { Incoming::Message(length, fds) })
    }
}

fn control_len() -> usize {
    size_of::<Ancillary>()
}

fn socklen(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).unwrap_or(0)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts descriptors into a message's ancillary data.
fn write_rights(ancillary: &mut Ancillary, message: &mut libc::msghdr, fds: &[RawFd]) {
    let bytes = u32::try_from(size_of_val(fds)).unwrap_or(0);
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    // SAFETY: a pure computation on a length.
    message.msg_controllen = usize::try_from(unsafe { libc::CMSG_SPACE(bytes) }).unwrap_or(0);
    // SAFETY: `message` has a control buffer that is longer than a header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const *message) };
    // SAFETY: a pure computation on a length.
    let header_len = usize::try_from(unsafe { libc::CMSG_LEN(bytes) }).unwrap_or(0);
    let filled = libc::cmsghdr {
        cmsg_len: header_len,
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    // SAFETY: `header` is the start of `ancillary`, aligned to 8 and long enough.
    unsafe { header.write(filled) };
    // SAFETY: as above.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: room for FDS_MAX descriptors behind the header was asserted at compile time.
    unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr(), data.cast::<RawFd>(), fds.len()) };
}

/// Takes the descriptors out of a received message.
fn read_rights(message: &libc::msghdr) -> Fds {
    let mut fds = Fds::new();
    // SAFETY: the kernel filled the control buffer and its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const *message) };
    if header.is_null() {
        return fds;
    }
    // SAFETY: not null, so a whole header lies in the control buffer.
    let found = unsafe { header.read() };
    if found.cmsg_level != libc::SOL_SOCKET || found.cmsg_type != libc::SCM_RIGHTS {
        return fds;
    }
    // SAFETY: a pure computation on a length.
    let header_len = usize::try_from(unsafe { libc::CMSG_LEN(0) }).unwrap_or(0);
    let count = found.cmsg_len.saturating_sub(header_len) / size_of::<RawFd>();
    // SAFETY: the header was checked.
    let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
    for number in 0..count.min(FDS_MAX) {
        // SAFETY: the kernel wrote `count` descriptors here.
        let fd = unsafe { data.wrapping_add(number).read_unaligned() };
        // SAFETY: the kernel has just installed this descriptor for us; nobody else has it.
        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    fds
}
