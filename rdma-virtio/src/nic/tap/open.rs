//! Opening a TAP interface: everything that happens once, before the first frame.
//!
//! Owns the ioctls of `/dev/net/tun`. Leaves nothing behind: an interface that did not exist before
//! goes away with its fd.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::super::host::{NET_HEADER_LEN, in_range};
use super::super::rtnl::{self, Interface, LinkWatch};
use super::super::{Accepted, DeviceError};

// linux/if_tun.h; libc has the rest.
const TUN_F_CSUM: u32 = 1;
const TUN_F_TSO4: u32 = 2;
const TUN_F_TSO6: u32 = 4;
const TUN_F_TSO_ECN: u32 = 8;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// Options of `tap:NAME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapOptions {
    /// Leave transmit checksums to the host, and take its partial ones.
    pub checksum: bool,
    /// Hand large TCP segments to the host whole. Needs `checksum`.
    pub tso: bool,
    /// Take large TCP segments from the host whole. Needs `checksum`.
    pub large_receive: bool,
    /// MTU to give the interface, 68 to 65,521; otherwise it keeps its own.
    pub mtu: Option<u16>,
    /// Addresses, with prefix lengths, to give the host's end.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Bring the host's end up.
    pub up: bool,
    /// Work requests that may be outstanding, each way; 1 to 4,096.
    pub queue: u16,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self {
            checksum: true,
            tso: true,
            large_receive: true,
            mtu: None,
            addresses: Vec::new(),
            up: false,
            queue: 512,
        }
    }
}

/// What the host granted.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) watch: LinkWatch,
    pub(super) mtu: u16,
    /// What it may send to us.
    pub(super) granted: Accepted,
    /// Whether it segments UDP: since Linux 6.2.
    pub(super) uso: bool,
}

/// Opens the interface, creating it if it is not there.
pub(super) fn open(device: &str, name: &str, options: &TapOptions) -> Result<Opened, DeviceError> {
    in_range(device, "option queue", options.queue, 1..=4096)?;
    if let Some(mtu) = options.mtu {
        in_range(device, "option mtu", mtu, 68..=65_521)?;
    }
    let interface = Interface::new(name).map_err(|source| {
        rtnl::error(device, "name", source, "an interface name has 1 to 15 characters")
    })?;
    let fd = open_tun(device)?;
    attach(device, name, &fd)?;
    value_ioctl(&fd, libc::TUNSETVNETHDRSZ, NET_HEADER_LEN)
        .map_err(|source| rtnl::error(device, "ioctl(TUNSETVNETHDRSZ)", source, ""))?;
    // The header's fields are little-endian (virtio 1.2 §5.1.6), whoever had the TAP before.
    value_ioctl(&fd, libc::TUNSETVNETLE, 1)
        .map_err(|source| rtnl::error(device, "ioctl(TUNSETVNETLE)", source, ""))?;
    // A host that may send such frames takes them, too.
    let uso = tell(&fd, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6).is_ok();
    let granted = set_offloads(device, &fd, options, uso)?;
    configure(device, &interface, options)?;
    let mtu = interface.mtu().map_err(|e| rtnl::error(device, "ioctl(SIOCGIFMTU)", e, ""))?;
    let index = interface.index().map_err(|e| rtnl::error(device, "ioctl(SIOCGIFINDEX)", e, ""))?;
    let watch =
        LinkWatch::open(index).map_err(|e| rtnl::error(device, "socket(AF_NETLINK)", e, ""))?;
    Ok(Opened { fd, watch, mtu, granted, uso })
}

fn open_tun(device: &str) -> Result<OwnedFd, DeviceError> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path is a constant C string.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) };
    rtnl::owned(fd).map_err(|source| {
        let remedy = match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "the host has no TUN driver: sudo modprobe tun"
            }
            _ => "run it with sudo, or once: sudo chmod 666 /dev/net/tun",
        };
        rtnl::error(device, "open(/dev/net/tun)", source, remedy)
    })
}

/// Attaches the fd to the interface.
fn attach(device: &str, name: &str, fd: &OwnedFd) -> Result<(), DeviceError> {
    let fail = |source: io::Error| {
        let remedy = match source.raw_os_error() {
            Some(libc::EPERM) => format!(
                "{}; or let an administrator make it for you: \
                 sudo ip tuntap add dev {name} mode tap user $USER",
                rtnl::setcap_remedy("cap_net_admin")
            ),
            Some(libc::EBUSY) => "another process has it open".to_owned(),
            Some(libc::EINVAL) => {
                format!("{name} is there already and is not a single-queue TAP")
            }
            _ => String::new(),
        };
        rtnl::error(device, "ioctl(TUNSETIFF)", source, &remedy)
    };
    let mut request = rtnl::request(name).map_err(fail)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(0);
    rtnl::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request).map_err(fail)
}

/// An ioctl that reads an integer through a pointer.
fn value_ioctl(fd: &OwnedFd, code: u64, value: u32) -> io::Result<()> {
    // SAFETY: the requests passed here read one int through the pointer, and `value` outlives the
    // call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_ref(&value)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells the host what may be sent to us, always: a TAP keeps what an earlier process said. Returns
/// what the host accepted.
fn set_offloads(
    device: &str,
    fd: &OwnedFd,
    options: &TapOptions,
    uso: bool,
) -> Result<Accepted, DeviceError> {
    let large = options.checksum && options.large_receive;
    let wanted = Accepted {
        checksum: options.checksum,
        large4: large,
        large6: large,
        ecn: large,
        uso4: large && uso,
        uso6: large && uso,
    };
    let less = [
        wanted,
        Accepted { ecn: false, ..wanted },
        Accepted { ecn: false, large6: false, ..wanted },
        Accepted { checksum: wanted.checksum, ..Accepted::default() },
        Accepted::default(),
    ];
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for offloads in less {
        match tell(fd, bits_of(&offloads)) {
            Ok(()) => return Ok(offloads),
            Err(error) => last = error,
        }
    }
    Err(rtnl::error(device, "ioctl(TUNSETOFFLOAD)", last, ""))
}

/// As the driver has it: without checksums there is nothing else.
pub(super) fn bits_of(accepted: &Accepted) -> u32 {
    let Accepted { checksum, large4, large6, ecn, uso4, uso6 } = *accepted;
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    // The host takes both bits of USO, or none.
    let uso = uso4 || uso6;
    let large = bit(large4, TUN_F_TSO4)
        | bit(large6, TUN_F_TSO6)
        | bit(ecn && (large4 || large6), TUN_F_TSO_ECN)
        | bit(uso, TUN_F_USO4 | TUN_F_USO6);
    if checksum { TUN_F_CSUM | large } else { 0 }
}

/// Tells the host what may be sent to us.
pub(super) fn tell(fd: &OwnedFd, offloads: u32) -> io::Result<()> {
    let offloads = libc::c_ulong::from(offloads);
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Configures the host's end as far as asked.
fn configure(device: &str, interface: &Interface, options: &TapOptions) -> Result<(), DeviceError> {
    let remedy = |source: &io::Error| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => rtnl::setcap_remedy("cap_net_admin"),
        Some(libc::EINVAL) => "the interface cannot have this value".to_owned(),
        _ => String::new(),
    };
    let fail = |call| {
        move |source: io::Error| {
            let remedy = remedy(&source);
            rtnl::error(device, call, source, &remedy)
        }
    };
    if let Some(mtu) = options.mtu
        && interface.mtu().ok() != Some(mtu)
    {
        interface.set_mtu(mtu).map_err(fail("ioctl(SIOCSIFMTU)"))?;
    }
    for (address, prefix) in &options.addresses {
        interface.add_address(*address, *prefix).map_err(fail("netlink(RTM_NEWADDR)"))?;
    }
    if options.up && !interface.is_up().unwrap_or(false) {
        interface.set_up(true).map_err(fail("ioctl(SIOCSIFFLAGS)"))?;
    }
    Ok(())
}
