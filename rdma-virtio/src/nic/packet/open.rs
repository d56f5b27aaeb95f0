//! Opening a packet socket: everything that happens once, before the first frame.
//!
//! Owns the socket options of `AF_PACKET` and the filter. Changes nothing on the host but the
//! interface's receive filter (one more unicast address, all multicast), which the kernel undoes
//! when the socket closes.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use super::super::DeviceError;
use super::super::host::{MESSAGE_MAX, in_range, plain_message_max};
use super::super::rtnl::{self, Interface, LinkWatch};
use super::ring::{Geometry, Ring};

// linux/if_packet.h; libc has the rest.
const PACKET_VNET_HDR: i32 = 15;
const PACKET_IGNORE_OUTGOING: i32 = 23;
// linux/ethtool.h and linux/sockios.h.
const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_GTSO: u32 = 0x1e;

/// Longest frame worth offering: an IP packet has at most 65,535 bytes, and interfaces by default
/// segment frames that are, with their Ethernet header, shorter than 65,536.
const LARGE_FRAME_MAX: u32 = 65_535;

/// Bytes of frames that the kernel may hold for us before a send has to wait.
const SEND_BUFFER: i32 = 4 << 20;

/// Options of `packet:IFNAME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketOptions {
    /// Our own hardware address; a random, locally administered one if none is given.
    pub mac: Option<[u8; 6]>,
    /// Leave transmit checksums to the interface, and take its partial ones.
    pub checksum: bool,
    /// Hand large TCP segments to the interface whole, if it can segment. Needs `checksum`.
    pub tso: bool,
    /// Take large TCP segments (the peer's, where it is this host, or coalesced ones) whole. If
    /// not, they are dropped and counted. Needs `checksum`.
    pub large_receive: bool,
    /// Take what is for any address but the interface's own, and send from any: for a bridge.
    pub promiscuous: bool,
    /// Send past the host's queueing discipline. Without, traffic control sees what is sent.
    pub qdisc_bypass: bool,
    /// Frames in the receive ring: 64 to 4,096, rounded up to a multiple of 64. Each takes 65,664
    /// bytes of kernel memory with `large_receive`, else the MTU and about 200. A larger ring
    /// outlasts a longer stall of the worker but leaves the caches: over veth the round trip's
    /// 99th percentile was 2.3 us with 64 and 124 frames, 3.1 us with 256, at the same median.
    pub ring: u16,
    /// Work requests that may be outstanding, each way; 1 to 4,096.
    pub queue: u16,
}

impl Default for PacketOptions {
    fn default() -> Self {
        Self {
            mac: None,
            checksum: true,
            tso: true,
            large_receive: true,
            promiscuous: false,
            qdisc_bypass: true,
            ring: 128,
            queue: 512,
        }
    }
}

/// What the host granted.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) ring: Ring,
    pub(super) watch: LinkWatch,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u16,
    /// Longest frame that the interface segments; 0 if it does not segment TCP.
    pub(super) large_frame: u32,
}

/// Opens the interface.
pub(super) fn open(
    device: &str,
    name: &str,
    options: &PacketOptions,
) -> Result<Opened, DeviceError> {
    let no_interface = "`ip link` lists the interfaces; `ip link add` makes one";
    let fail = |call, remedy: &'static str| {
        move |source: io::Error| rtnl::error(device, call, source, remedy)
    };
    in_range(device, "option queue", options.queue, 1..=4096)?;
    in_range(device, "option ring", options.ring, 64..=4096)?;
    if options.mac.is_some_and(|mac| mac[0] & 1 != 0 || mac == [0; 6]) {
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        let remedy = "an address of one's own is neither a group address nor all zero";
        return Err(rtnl::error(device, "option mac", source, remedy));
    }
    let interface =
        Interface::new(name).map_err(fail("name", "an interface name has 1 to 15 characters"))?;
    let index = interface.index().map_err(fail("ioctl(SIOCGIFINDEX)", no_interface))?;
    let hosts = interface
        .mac()
        .map_err(fail("ioctl(SIOCGIFHWADDR)", "only Ethernet interfaces will do"))?;
    let mtu = interface.mtu().map_err(fail("ioctl(SIOCGIFMTU)", ""))?;
    // Protocol 0 receives nothing until `bind`, so no unfiltered frame gets in.
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let fd = rtnl::socket(libc::AF_PACKET, kind, 0).map_err(|source| {
        let remedy = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => rtnl::setcap_remedy("cap_net_raw"),
            _ => "the host's kernel has no AF_PACKET".to_owned(),
        };
        rtnl::error(device, "socket(AF_PACKET)", source, &remedy)
    })?;
    let mac = match options.mac {
        Some(mac) => mac,
        None => random_mac().map_err(fail("getrandom", ""))?,
    };
    let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
    set(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)
        .map_err(fail("setsockopt(PACKET_VERSION)", ""))?;
    // Always the old header of 10 bytes: of 12 (PACKET_VNET_HDR_SZ, since Linux 6.6) a ring leaves
    // the first two unwritten and puts the rest behind them.
    set(&fd, libc::SOL_PACKET, PACKET_VNET_HDR, &1_i32)
        .map_err(fail("setsockopt(PACKET_VNET_HDR)", ""))?;
    let filter = if options.promiscuous { all_but(hosts) } else { only_for(mac) };
    attach_filter(&fd, &filter).map_err(fail("setsockopt(SO_ATTACH_FILTER)", ""))?;
    set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32)
        .map_err(fail("setsockopt(PACKET_IGNORE_OUTGOING)", "it needs Linux 4.20 or later"))?;
    if options.qdisc_bypass {
        set(&fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)
            .map_err(fail("setsockopt(PACKET_QDISC_BYPASS)", ""))?;
    }
    grow_send_buffer(&fd);
    let message = match options.checksum && options.large_receive {
        true => MESSAGE_MAX,
        false => plain_message_max(mtu),
    };
    let ring = Ring::map(&fd, Geometry::new(message, options.ring))
        .map_err(fail("setsockopt(PACKET_RX_RING)", "the option ring= makes it smaller"))?;
    let watch = LinkWatch::open(index).map_err(fail("socket(AF_NETLINK)", ""))?;
    bind(&fd, index).map_err(fail("bind(AF_PACKET)", ""))?;
    join(&fd, index, (!options.promiscuous).then_some(mac))
        .map_err(fail("setsockopt(PACKET_ADD_MEMBERSHIP)", ""))?;
    let large_frame = large_frame(&fd, name, index);
    Ok(Opened { fd, ring, watch, mac, mtu, large_frame })
}

/// `setsockopt` with a plain value.
pub(super) fn set<T: Copy>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = u32::try_from(size_of::<T>()).unwrap_or(0);
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: `pointer` and `length` are those of `value`, borrowed for the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `getsockopt` of two 32-bit words; those that the kernel does not fill stay 0.
pub(super) fn get(fd: &OwnedFd, level: i32, option: i32) -> io::Result<[u32; 2]> {
    let mut value = [0_u32; 2];
    let mut length = u32::try_from(size_of_val(&value)).unwrap_or(0);
    let pointer = value.as_mut_ptr().cast();
    // SAFETY: `pointer` and `length` are those of `value`, which outlives the call.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, pointer, &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A random, locally administered unicast address.
fn random_mac() -> io::Result<[u8; 6]> {
    let mut mac = [0_u8; 6];
    // SAFETY: pointer and length are those of `mac`, which outlives the call.
    let length = unsafe { libc::getrandom(mac.as_mut_ptr().cast(), mac.len(), 0) };
    if length != 6 {
        return Err(io::Error::last_os_error());
    }
    mac[0] = mac[0] & 0xfc | 0x02;
    Ok(mac)
}

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k }
}

/// An address as the two loads of a filter find it.
fn halves(mac: [u8; 6]) -> (u32, u32) {
    let high = u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]);
    (high, u32::from(u16::from_be_bytes([mac[4], mac[5]])))
}

/// Lets in what is for us: our own address, broadcast, and IPv6 multicast (neighbour discovery).
/// The host's own traffic is turned away before it is copied.
fn only_for(mac: [u8; 6]) -> Vec<libc::sock_filter> {
    let (high, low) = halves(mac);
    vec![
        step(LOAD_WORD, 0, 0, 0),
        step(IF_EQUAL, 0, 2, high),
        step(LOAD_HALF, 0, 0, 4),
        step(IF_EQUAL, 5, 0, low),
        step(LOAD_HALF, 0, 0, 0),
        step(IF_EQUAL, 3, 0, 0x3333),
        step(LOAD_WORD, 0, 0, 0),
        step(IF_EQUAL, 1, 0, 0xffff_ffff),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ]
}

/// Lets everything in but what is for the host itself.
fn all_but(hosts: [u8; 6]) -> Vec<libc::sock_filter> {
    let (high, low) = halves(hosts);
    vec![
        step(LOAD_WORD, 0, 0, 0),
        step(IF_EQUAL, 0, 3, high),
        step(LOAD_HALF, 0, 0, 4),
        step(IF_EQUAL, 0, 1, low),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ]
}

fn attach_filter(fd: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(0),
        // The kernel copies the program and does not write to it.
        filter: program.as_ptr().cast_mut(),
    };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// As much as the host allows; what it keeps instead does as well, with more waiting.
fn grow_send_buffer(fd: &OwnedFd) {
    if set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER).is_err() {
        let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER);
    }
}

fn bind(fd: &OwnedFd, index: i32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain integers; all zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(17);
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(3).to_be();
    address.sll_ifindex = index;
    let length = u32::try_from(size_of_val(&address)).unwrap_or(0);
    let pointer = std::ptr::from_ref(&address).cast();
    // SAFETY: `pointer` and `length` are those of `address`, which outlives the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the interface accept frames to our address, and multicast; without one, all.
fn join(fd: &OwnedFd, index: i32, mac: Option<[u8; 6]>) -> io::Result<()> {
    // SAFETY: packet_mreq is plain integers; all zero is a valid value.
    let mut wish: libc::packet_mreq = unsafe { mem::zeroed() };
    wish.mr_ifindex = index;
    let mut add = |wanted: i32, mac: &[u8]| {
        wish.mr_type = u16::try_from(wanted).unwrap_or(0);
        wish.mr_alen = u16::try_from(mac.len()).unwrap_or(0);
        wish.mr_address[..mac.len()].copy_from_slice(mac);
        set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &wish)
    };
    match mac {
        Some(mac) if add(libc::PACKET_MR_UNICAST, &mac).is_ok() => {
            add(libc::PACKET_MR_ALLMULTI, &[])
        }
        // An interface that cannot filter by a second address sees everything instead.
        Some(_) | None => add(libc::PACKET_MR_PROMISC, &[]),
    }
}

/// The longest frame that the interface segments. The path that bypasses the queueing discipline
/// drops what the interface cannot segment, so no such frame may be offered.
fn large_frame(fd: &OwnedFd, name: &str, index: i32) -> u32 {
    let mut value = [ETHTOOL_GTSO, 0];
    let Ok(mut request) = rtnl::request(name) else { return 0 };
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    if rtnl::ioctl(fd.as_raw_fd(), SIOCETHTOOL, &mut request).is_err() || value[1] == 0 {
        return 0;
    }
    // A frame must be shorter than the limit.
    rtnl::gso_max_size(index).map_or(0, |limit| limit.saturating_sub(1).min(LARGE_FRAME_MAX))
}
