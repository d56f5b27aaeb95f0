//! Two hosts on a wire that tests can look at, and after each test the check that every datagram
//! and slot is accounted for.

mod fast_path;
mod hostile;
mod receive;
mod segments;
mod send;

use std::vec::Vec;

use super::*;
use crate::frame::{RxChecksum, RxFrame, TxFrame};
use crate::heap_memory::{HeapLimits, HeapMemory};
use crate::ip::{Incoming, InterfaceAddress, IpConfig, gather, release};
use crate::time::Duration;

/// One host.
struct Host {
    ip: Ip,
    udp: Udp,
    mem: HeapMemory,
    now: Instant,
    offloads: Offloads,
    received_checksum: RxChecksum,
    out: TxFrame,
}

fn address(number: u8) -> [IpAddr; 2] {
    let v6 = core::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number));
    [IpAddr::from([10, 0, 0, number]), IpAddr::V6(v6)]
}

fn at(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(address(number)[0], port)
}

fn at_v6(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(address(number)[1], port)
}

fn any_v4(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

impl Host {
    fn new(number: u8) -> Host {
        Host::with(number, |_| {}, UdpConfig::default(), HeapLimits::default())
    }

    fn with(
        number: u8,
        change: impl FnOnce(&mut IpConfig),
        config: UdpConfig,
        limits: HeapLimits,
    ) -> Host {
        let [v4, v6] = address(number);
        let mut ip_config = IpConfig::new(
            [2, 0, 0, 0, 0, number],
            &[
                InterfaceAddress { address: v4, prefix_len: 24 },
                InterfaceAddress { address: v6, prefix_len: 64 },
            ],
        );
        change(&mut ip_config);
        Host {
            ip: Ip::new(ip_config, [number; 16]).unwrap(),
            udp: Udp::new(config, [number; 16]),
            mem: HeapMemory::new(limits),
            now: Instant::from_nanos(1),
            offloads: Offloads::default(),
            received_checksum: RxChecksum::Unknown,
            out: TxFrame::default(),
        }
    }

    /// A host with the MTU of the test.
    fn with_mtu(number: u8, mtu: u16) -> Host {
        let limits = HeapLimits { receive_len: 4096, ..HeapLimits::default() };
        Host::with(number, |config| config.mtu = mtu, UdpConfig::default(), limits)
    }

    /// A socket whose every event is reported from now on.
    fn bind(&mut self, local: SocketAddr) -> UdpId {
        let id = self.udp.bind(&self.ip, local).unwrap();
        self.udp.watch(id, Readiness { readable: true, writable: true });
        let ready = Readiness { readable: false, writable: true };
        assert_eq!(self.events().last(), Some(&(id, ready)), "what it is ready for already");
        id
    }

    fn send(&mut self, id: UdpId, data: &[u8], to: Option<SocketAddr>) -> Result<(), UdpError> {
        let (ip, mem) = (&mut self.ip, &mut self.mem);
        let mut cx = UdpContext { now: self.now, ip, mem, offloads: self.offloads };
        self.udp.send_to(&mut cx, id, data, to)
    }

    fn recv(&mut self, id: UdpId) -> Result<(Vec<u8>, SocketAddr), UdpError> {
        let mut buffer = std::vec![0; 65_536];
        let received = self.udp.recv_from(id, &mut buffer, &mut self.mem)?;
        assert_eq!(received.len, received.datagram_len);
        buffer.truncate(received.len);
        Ok((buffer, received.source))
    }

    fn send_segments(&mut self, id: UdpId, data: &[u8], size: u16) -> Result<usize, UdpError> {
        let (ip, mem) = (&mut self.ip, &mut self.mem);
        let mut cx = UdpContext { now: self.now, ip, mem, offloads: self.offloads };
        self.udp.send_segments(&mut cx, id, (data, size), None)
    }

    /// Every frame that waits, with what was left to the device.
    fn sent(&mut self) -> Vec<(Vec<u8>, Option<crate::frame::TxChecksum>)> {
        let mut frames = Vec::new();
        loop {
            let (ip, mem) = (&mut self.ip, &mut self.mem);
            let mut cx = UdpContext { now: self.now, ip, mem, offloads: self.offloads };
            let some = self.udp.poll_frame(&mut cx, &mut self.out)
                || self.ip.poll_frame(&mut self.mem, &mut self.out);
            if !some {
                return frames;
            }
            assert_eq!(self.out.pieces[0].start, crate::frame::TX_HEADROOM);
            let len = self.out.pieces.iter().map(|piece| piece.len).sum();
            frames.push((gather(&self.out.pieces, 0, len, &self.mem), self.out.checksum));
            release(&self.out.pieces, &mut self.mem);
        }
    }

    fn give(&mut self, bytes: &[u8]) {
        self.give_coalesced(bytes, 0);
    }

    fn give_coalesced(&mut self, bytes: &[u8], gso_size: u16) {
        let pieces = self.mem.receive_chain(bytes).unwrap();
        let frame = RxFrame { pieces: &pieces, checksum: self.received_checksum, gso_size };
        match self.ip.on_frame(self.now, &frame, &mut self.mem) {
            Incoming::Consumed => {}
            Incoming::Udp(packet) => {
                let (ip, mem) = (&mut self.ip, &mut self.mem);
                let mut cx = UdpContext { now: self.now, ip, mem, offloads: self.offloads };
                self.udp.on_packet(&mut cx, &frame, &packet);
            }
            Incoming::ReassembledUdp(packet, bytes) => self.udp.on_reassembled(&packet, bytes),
            Incoming::Error(error) => self.udp.on_error(self.now, &mut self.ip, &error),
            Incoming::Tcp(_) => release(&pieces, &mut self.mem),
            Incoming::ReassembledTcp(..) => {}
        }
        self.udp.check();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.ip.on_timers(self.now);
    }

    fn events(&mut self) -> Vec<(UdpId, Readiness)> {
        core::iter::from_fn(|| self.udp.poll_event()).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.sent();
        for index in 0..self.udp.sockets.index_end() {
            if let Some(id) = self.udp.sockets.id_at(index) {
                self.udp.close(id, &mut self.mem).unwrap();
            }
        }
        self.udp.check();
        self.ip.check();
        assert_eq!(self.mem.live_slots(), 0, "slots leak");
    }
}

/// Carries frames both ways until none is left.
fn exchange(a: &mut Host, b: &mut Host) {
    loop {
        let (from_a, from_b) = (a.sent(), b.sent());
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        from_a.iter().for_each(|(frame, _)| b.give(frame));
        from_b.iter().for_each(|(frame, _)| a.give(frame));
    }
}

fn pair() -> (Host, Host) {
    (Host::new(1), Host::new(2))
}
