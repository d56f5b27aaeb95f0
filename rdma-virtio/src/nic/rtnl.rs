//! Network interfaces of the host: index, MTU, hardware address, up and down by ioctl; addresses
//! and link events by rtnetlink.
//!
//! Owns its control sockets. Knows no device type and is never used on the data path. Nothing here
//! blocks: the kernel answers requests before `send` returns.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::DeviceError;

/// Longest interface name in bytes, without the terminating zero (`IFNAMSIZ`).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Makes a [`DeviceError`].
pub(crate) fn error(
    device: &str,
    call: &'static str,
    source: io::Error,
    remedy: &str,
) -> DeviceError {
    DeviceError { device: device.to_owned(), call, source, remedy: remedy.to_owned() }
}

/// The line that gives this program a capability, for error messages.
#[must_use]
pub fn setcap_remedy(capability: &str) -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "PROGRAM".to_owned(), |path| path.display().to_string());
    format!("run it with sudo, or once: sudo setcap {capability}+ep {program}")
}

/// Takes ownership of what `socket`, `open` or the like returned.
pub(crate) fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller passes the fresh result of a call that made this fd; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket with close-on-exec.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    owned(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// An `ifreq` for the named interface, all else zero.
///
/// # Errors
/// `EINVAL` for an empty or too long name, or one with a zero, a slash or white space in it.
pub(crate) fn request(name: &str) -> io::Result<libc::ifreq> {
    let bad = |b: u8| b == 0 || b == b'/' || b.is_ascii_whitespace();
    if name.is_empty() || name.len() > NAME_MAX || name.bytes().any(bad) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: ifreq is plain integers and byte arrays; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// An ioctl that takes an `ifreq`.
pub(crate) fn ioctl(fd: RawFd, code: u64, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every request that this crate passes with an ifreq reads and writes one, and
    // `request` is one, borrowed for the call.
    let result = unsafe { libc::ioctl(fd, code, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A network interface by name.
#[derive(Debug)]
pub struct Interface {
    name: String,
    control: OwnedFd,
}

impl Interface {
    /// Names an interface; it need not exist yet.
    ///
    /// # Errors
    /// A name that no interface can have, or no socket to be had.
    pub fn new(name: &str) -> io::Result<Self> {
        request(name)?;
        let control = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        Ok(Self { name: name.to_owned(), control })
    }

    fn get(&self, code: u64) -> io::Result<libc::ifreq> {
        let mut answer = request(&self.name)?;
        ioctl(self.control.as_raw_fd(), code, &mut answer)?;
        Ok(answer)
    }

    /// Its index.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface.
    pub fn index(&self) -> io::Result<i32> {
        let answer = self.get(libc::SIOCGIFINDEX)?;
        // SAFETY: SIOCGIFINDEX filled this member; every bit pattern of it is an integer.
        Ok(unsafe { answer.ifr_ifru.ifru_ifindex })
    }

    /// Its MTU, at most 65,535.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface.
    pub fn mtu(&self) -> io::Result<u16> {
        let answer = self.get(libc::SIOCGIFMTU)?;
        // SAFETY: SIOCGIFMTU filled this member; every bit pattern of it is an integer.
        let mtu = unsafe { answer.ifr_ifru.ifru_mtu };
        Ok(u16::try_from(mtu).unwrap_or(if mtu < 0 { 0 } else { u16::MAX }))
    }

    /// Sets the MTU.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, `EINVAL` if the interface cannot have it.
    pub fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut wish = request(&self.name)?;
        wish.ifr_ifru.ifru_mtu = i32::from(mtu);
        ioctl(self.control.as_raw_fd(), libc::SIOCSIFMTU, &mut wish)
    }

    /// Its hardware address.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface; `EINVAL` if it is not an Ethernet.
    pub fn mac(&self) -> io::Result<[u8; 6]> {
        let answer = self.get(libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR filled this member; every bit pattern of it is valid.
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        // The loopback interface frames its packets as Ethernet does.
        if ![libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&address.sa_family) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = u8::from_ne_bytes(from.to_ne_bytes());
        }
        Ok(mac)
    }

    /// Whether it is administratively up.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface.
    pub fn is_up(&self) -> io::Result<bool> {
        let answer = self.get(libc::SIOCGIFFLAGS)?;
        // SAFETY: SIOCGIFFLAGS filled this member; every bit pattern of it is an integer.
        let flags = unsafe { answer.ifr_ifru.ifru_flags };
        Ok(i32::from(flags) & libc::IFF_UP != 0)
    }

    /// Brings it up or down.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        let mut wish = self.get(libc::SIOCGIFFLAGS)?;
        let bit = i16::try_from(libc::IFF_UP).unwrap_or(1);
        // SAFETY: SIOCGIFFLAGS filled this member; every bit pattern of it is an integer.
        let flags = unsafe { wish.ifr_ifru.ifru_flags };
        wish.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
        ioctl(self.control.as_raw_fd(), libc::SIOCSIFFLAGS, &mut wish)
    }

    /// Gives it an address, replacing the same one; an IPv6 address is usable at once (no
    /// duplicate address detection).
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, `EINVAL` for an impossible prefix.
    pub fn add_address(&self, address: IpAddr, prefix: u8) -> io::Result<()> {
        const IFA_F_NODAD: u8 = 0x02;
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let (family, flags) = match address {
            IpAddr::V4(_) => (libc::AF_INET, 0),
            IpAddr::V6(_) => (libc::AF_INET6, IFA_F_NODAD),
        };
        // struct ifaddrmsg, then IFA_LOCAL and IFA_ADDRESS.
        let mut body = vec![u8::try_from(family).unwrap_or(0), prefix, flags, 0];
        body.extend_from_slice(&self.index()?.to_ne_bytes());
        for kind in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
            let length = u16::try_from(4 + octets.len()).unwrap_or(0);
            body.extend_from_slice(&length.to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(&octets);
        }
        let netlink = Netlink::open(0)?;
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        netlink.send(libc::RTM_NEWADDR, flags, &body)?;
        netlink.acknowledged()
    }
}

/// Longest frame that an interface segments if it does not say (`GSO_LEGACY_MAX_SIZE`).
const GSO_MAX_DEFAULT: u32 = 65_536;

/// Frames from this length on, in bytes with all headers, the interface does not segment: the
/// smaller of `gso_max_size` and `gso_ipv4_max_size`.
///
/// # Errors
/// If the kernel does not answer, or there is no such interface.
pub fn gso_max_size(index: i32) -> io::Result<u32> {
    const IFLA_GSO_MAX_SIZE: u16 = 41;
    const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
    let netlink = Netlink::open(0)?;
    netlink.ask_link(index)?;
    let mut buffer = [0_u8; 8192];
    let length = netlink.receive(&mut buffer)?;
    let (_, body) = messages(&buffer[..length])
        .find(|(kind, _)| *kind == libc::RTM_NEWLINK)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    let smallest = attributes(body.get(16..).unwrap_or_default())
        .filter(|(kind, _)| [IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE].contains(kind))
        .filter_map(|(_, value)| value.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)))
        .min();
    Ok(smallest.unwrap_or(GSO_MAX_DEFAULT))
}

/// What a link is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Up, with carrier.
    Up,
    /// Down, or without carrier.
    Down,
    /// The interface no longer exists, at least not in this network namespace.
    Gone,
}

/// Watches one interface's link.
#[derive(Debug)]
pub struct LinkWatch {
    netlink: Netlink,
    index: i32,
}

impl LinkWatch {
    /// Subscribes to link events and asks for the present state, which the first
    /// [`LinkWatch::poll`] returns.
    ///
    /// # Errors
    /// If the socket cannot be had or the interface does not exist.
    pub fn open(index: i32) -> io::Result<Self> {
        let group = u32::try_from(libc::RTMGRP_LINK).unwrap_or(1);
        let watch = Self { netlink: Netlink::open(group)?, index };
        watch.netlink.ask_link(index)?;
        Ok(watch)
    }

    /// The fd that becomes readable with a link event.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.netlink.fd.as_raw_fd()
    }

    /// The newest state, if events came since the last call. One system call if none did.
    pub fn poll(&mut self) -> Option<LinkState> {
        let mut newest = None;
        let mut buffer = [0_u8; 8192];
        // Bounded, so that a storm of events of other interfaces cannot hold the worker.
        for _ in 0..64 {
            match self.netlink.receive(&mut buffer) {
                Ok(length) => {
                    newest = link_state(&buffer[..length], self.index).or(newest);
                }
                // Events were lost: ask anew.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    if self.netlink.ask_link(self.index).is_err() {
                        return Some(LinkState::Gone);
                    }
                }
                Err(_) => break,
            }
        }
        newest
    }
}

/// Cuts netlink messages: type and body of each.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<16>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).ok()?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = bytes.get(16..length.min(bytes.len()))?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Cuts attributes: type and value of each.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value = bytes.get(4..length.min(bytes.len()))?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The last state of the interface that the messages tell.
fn link_state(bytes: &[u8], index: i32) -> Option<LinkState> {
    let mut state = None;
    for (kind, body) in messages(bytes) {
        if i32::from(kind) == libc::NLMSG_ERROR {
            // The answer to a question about an interface that is no longer there.
            let errno = body.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
            if errno == -libc::ENODEV {
                state = Some(LinkState::Gone);
            }
            continue;
        }
        let Some(info) = body.first_chunk::<16>() else { continue };
        if i32::from_ne_bytes([info[4], info[5], info[6], info[7]]) != index {
            continue;
        }
        // A bridge reports its ports in its own family; only AF_UNSPEC tells of the link itself.
        if info[0] != 0 {
            continue;
        }
        let flags = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
        let wanted = libc::IFF_UP | libc::IFF_LOWER_UP;
        if kind == libc::RTM_DELLINK {
            state = Some(LinkState::Gone);
        } else if kind == libc::RTM_NEWLINK {
            let up = flags & wanted == wanted;
            state = Some(if up { LinkState::Up } else { LinkState::Down });
        }
    }
    state
}

/// An rtnetlink socket that never blocks.
#[derive(Debug)]
struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    fn open(groups: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        let fd = socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)?;
        // SAFETY: sockaddr_nl is plain integers; all zero is a valid value.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or(16);
        address.nl_groups = groups;
        let length = u32::try_from(mem::size_of_val(&address)).unwrap_or(0);
        let pointer = std::ptr::from_ref(&address).cast();
        // SAFETY: `pointer` and `length` are those of `address`, which outlives the call.
        let result = unsafe { libc::bind(fd.as_raw_fd(), pointer, length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { fd }) }
    }

    fn send(&self, kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(16 + body.len()).unwrap_or(0);
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        // SAFETY: pointer and length are those of `message`, which outlives the call.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Asks for the state of an interface.
    fn ask_link(&self, index: i32) -> io::Result<()> {
        let mut body = [0_u8; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.send(libc::RTM_GETLINK, 0, &body)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: pointer and length are those of `buffer`, borrowed for the call.
        let length =
            unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    }

    /// Reads the kernel's verdict on the one request that was sent.
    fn acknowledged(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        let length = self.receive(&mut buffer)?;
        for (kind, body) in messages(&buffer[..length]) {
            if i32::from(kind) == libc::NLMSG_ERROR {
                let errno = body.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
                return match errno {
                    0 => Ok(()),
                    _ => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: i32, flags: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&32_u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&[family, 0, 0, 0]);
        bytes.extend_from_slice(&index.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    #[test]
    fn link_messages_are_understood() {
        let up = libc::IFF_UP | libc::IFF_LOWER_UP;
        let (new, del) = (libc::RTM_NEWLINK, libc::RTM_DELLINK);
        let rows: [(&str, Vec<u8>, Option<LinkState>); 9] = [
            ("up", message(new, 0, 7, up), Some(LinkState::Up)),
            ("no carrier", message(new, 0, 7, libc::IFF_UP), Some(LinkState::Down)),
            ("down", message(new, 0, 7, libc::IFF_LOWER_UP), Some(LinkState::Down)),
            ("deleted", message(del, 0, 7, up), Some(LinkState::Gone)),
            ("other interface", message(del, 0, 8, up), None),
            ("left a bridge", message(del, 7, 7, up), None),
            (
                "newest wins",
                [message(new, 0, 7, 0), message(new, 0, 7, up)].concat(),
                Some(LinkState::Up),
            ),
            ("cut short", message(new, 0, 7, up)[..20].to_vec(), None),
            ("empty", Vec::new(), None),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(link_state(&bytes, 7), expected, "{name}");
        }
    }

    #[test]
    fn a_message_of_length_zero_ends_the_walk() {
        assert_eq!(link_state(&[0; 64], 7), None);
    }

    #[test]
    fn attributes_are_cut_and_bad_lengths_end_the_walk() {
        let bytes = [5, 0, 1, 0, 9, 0, 0, 0, 4, 0, 2, 0, 3, 0, 3, 0, 8, 0, 4, 0];
        let all: Vec<_> = attributes(&bytes).collect();
        assert_eq!(all, [(1, &[9_u8][..]), (2, &[][..])]);
    }

    #[test]
    fn loopback_segments_64_kb_and_an_unknown_interface_nothing() {
        let lo = Interface::new("lo").unwrap().index().unwrap();
        assert!(gso_max_size(lo).unwrap() >= 65_536);
        assert!(gso_max_size(i32::MAX).is_err());
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "a/b", "a b", "sixteen-bytes-xx", "nul\0"] {
            assert!(Interface::new(name).is_err(), "{name:?}");
        }
        assert!(Interface::new("fifteen-bytes-x").is_ok());
    }

    #[test]
    fn loopback_is_there() {
        let lo = Interface::new("lo").unwrap();
        assert!(lo.index().unwrap() > 0);
        assert!(lo.mtu().unwrap() > 0);
        assert_eq!(lo.mac().unwrap(), [0; 6]);
        let gone = Interface::new("no-such-if").unwrap().index().unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    }
}
