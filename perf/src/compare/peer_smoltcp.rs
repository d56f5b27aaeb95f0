//! smoltcp over the same soft link: the NIC calls of the bare link, frame by frame, and its own
//! stack above them, polled by hand, which is its fastest way. It has no segmentation offload here,
//! so it is compared with Roceway's rows at the same MTU.

use std::hint::black_box;

use roceway_runtime::rdma_virtio::nic::frames::{FrameNic, Taken};
use roceway_runtime::rdma_virtio::nic::soft::SoftNic;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::peers::{End, PeerRow, Test};
use crate::control::RECEIVE_DEFAULT;
use crate::pattern;

const ETHERNET: usize = 14;
const PORT: u16 = 7;
/// Bytes of each buffer of a socket: Roceway's default.
const BUFFER: usize = 1 << 20;

/// The link as smoltcp sees a device.
struct Device<'a> {
    nic: &'a FrameNic<SoftNic>,
    mtu: u16,
    checksums: bool,
}

struct Rx<'a>(&'a FrameNic<SoftNic>, Taken);
struct Tx<'a>(&'a FrameNic<SoftNic>);

impl phy::RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // A receive that cannot be posted again is missed by the link, which stalls and says so.
        self.0.read(self.1, f).expect("the receive that was taken is posted again")
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let length = u32::try_from(len).unwrap_or(u32::MAX);
        self.0.send(length, f).expect("there is room for a frame, and it fits")
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'t>
        = Rx<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Tx<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        if !self.nic.has_room() {
            return None;
        }
        self.nic.take().map(|taken| (Rx(self.nic, taken), Tx(self.nic)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        self.nic.has_room().then_some(Tx(self.nic))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ethernet;
        all.max_transmission_unit = usize::from(self.mtu) + ETHERNET;
        if !self.checksums {
            all.checksum = ChecksumCapabilities::ignored();
        }
        all
    }
}

/// One end: its interface, its socket, its clock.
pub(super) struct Smoltcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    start: std::time::Instant,
    nic: FrameNic<SoftNic>,
    row: PeerRow,
    /// Whom the next datagram goes to.
    to: udp::UdpMetadata,
    inbox: Vec<u8>,
}

fn address(host: u8) -> IpAddress {
    IpAddress::v4(10, 79, 0, host)
}

fn device(nic: &FrameNic<SoftNic>, row: PeerRow) -> Device<'_> {
    Device { nic, mtu: row.mtu, checksums: row.checksums }
}

/// The socket of a row; it opens its connection, or waits for it.
fn socket(
    row: PeerRow,
    host: u8,
    interface: &mut Interface,
    sockets: &mut SocketSet<'static>,
) -> Result<SocketHandle, String> {
    if row.test == Test::UdpRr {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 65_536]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(PORT).map_err(|error| format!("{error:?}"))?;
        return Ok(sockets.add(socket));
    }
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    if host == 2 {
        socket.listen(PORT).map_err(|error| format!("{error:?}"))?;
    } else {
        let to = IpEndpoint::new(address(2), PORT);
        socket.connect(interface.context(), to, 49_152).map_err(|error| format!("{error:?}"))?;
    }
    Ok(sockets.add(socket))
}

impl Smoltcp {
    fn time(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn udp(&mut self) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

impl End for Smoltcp {
    const STACK: &'static str = "smoltcp";

    fn new(nic: FrameNic<SoftNic>, row: PeerRow, host: u8) -> Result<Smoltcp, String> {
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, host]));
        let mut config = Config::new(mac);
        config.random_seed = u64::from(host);
        let mut interface = Interface::new(config, &mut device(&nic, row), Instant::ZERO);
        interface.update_ip_addrs(|all| {
            // Room for one address there always is.
            let _pushed = all.push(IpCidr::new(address(host), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let socket = socket(row, host, &mut interface, &mut sockets)?;
        let start = std::time::Instant::now();
        let to = IpEndpoint::new(address(2), PORT).into();
        let inbox = vec![0; RECEIVE_DEFAULT];
        Ok(Smoltcp { interface, sockets, socket, start, nic, row, to, inbox })
    }

    fn nic(&mut self) -> &mut FrameNic<SoftNic> {
        &mut self.nic
    }

    fn is_open(&mut self) -> bool {
        self.row.test == Test::UdpRr || self.tcp().may_send() && self.tcp().may_recv()
    }

    fn take_frame(&mut self) {
        let now = self.time();
        let mut device = device(&self.nic, self.row);
        let _result = self.interface.poll_ingress_single(now, &mut device, &mut self.sockets);
    }

    fn send(&mut self) {
        let now = self.time();
        let mut device = device(&self.nic, self.row);
        let _result = self.interface.poll_egress(now, &mut device, &mut self.sockets);
    }

    fn take_byte(&mut self) -> bool {
        let mut byte = [0];
        if self.row.test != Test::UdpRr {
            return matches!(self.tcp().recv_slice(&mut byte), Ok(1));
        }
        let Ok((_, from)) = self.udp().recv_slice(&mut byte) else { return false };
        self.to = from;
        true
    }

    fn give_byte(&mut self) -> Result<(), String> {
        if self.row.test == Test::UdpRr {
            let to = self.to;
            self.udp().send_slice(&[1], to).map_err(|error| format!("{error:?}"))?;
        } else {
            self.tcp().send_slice(&[1]).map_err(|error| format!("{error:?}"))?;
        }
        self.send();
        Ok(())
    }

    fn read_all(&mut self) {
        let socket: &mut tcp::Socket<'_> = self.sockets.get_mut(self.socket);
        while let Ok(got @ 1..) = socket.recv_slice(&mut self.inbox) {
            black_box(pattern::read(self.inbox.get(..got).unwrap_or_default()));
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        if !self.tcp().can_send() {
            return Ok(0);
        }
        let sent = self.tcp().send_slice(bytes).map_err(|error| format!("{error:?}"))?;
        self.send();
        Ok(sent)
    }
}
