//! The kernel side of a port: a TAP interface that gets what no rule takes, and whose frames leave
//! by the port. Plain frames without offloads. Opening one needs CAP_NET_ADMIN.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// An open TAP interface.
pub(crate) struct Tap {
    file: File,
}

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;

/// `struct ifreq` with flags or a hardware address.
#[repr(C)]
struct Request {
    name: [u8; 16],
    family_or_flags: i16,
    address: [u8; 6],
    rest: [u8; 16],
}

impl Tap {
    /// Opens or makes an interface and gives it the port's hardware address.
    ///
    /// # Errors
    /// The errno of the call that failed.
    pub(crate) fn open(name: &str, mac: [u8; 6]) -> io::Result<Tap> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun")?;
        let mut request = Request {
            name: [0; 16],
            family_or_flags: IFF_TAP | IFF_NO_PI,
            address: [0; 6],
            rest: [0; 16],
        };
        let length = name.len().min(15);
        request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        // SAFETY: an open file and a structure of the size that the call reads.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let ethernet = libc::ARPHRD_ETHER;
        request.family_or_flags = i16::try_from(ethernet).unwrap_or(1);
        request.address = mac;
        // SAFETY: as above.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::SIOCSIFHWADDR, &raw mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Tap { file })
    }

    /// The descriptor to wait for.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Gives a frame to the kernel; it drops what it has no room for.
    pub(crate) fn write(&self, frame: &[u8]) {
        let _ = (&self.file).write(frame);
    }

    /// Takes a frame from the kernel, if there is one.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        (&self.file).read(buffer).ok()
    }
}
