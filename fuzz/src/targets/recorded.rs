//! Records a real connection: a second stack plays the peer, and what it sends becomes an input of
//! the target `frames`. Keys and times being fixed, the connection comes to life again when the
//! input is replayed.

use std::net::SocketAddr;

use roceway_stack::frame::{Offloads, RxChecksum, RxFrame, TxFrame};
use roceway_stack::heap_memory::HeapMemory;
use roceway_stack::ip::{InterfaceAddress, IpConfig};
use roceway_stack::memory::Memory;
use roceway_stack::stack::{Stack, StackConfig, StackKeys};
use roceway_stack::tcp::TcpConfig;
use roceway_stack::time::Duration;
use roceway_stack::udp::UdpConfig;

use super::frames::shaped;
use super::host::{Host, OUR_PORT, PEER_MAC, our_address, peer_address};

/// Shapes of the target `frames`.
const RAW: u8 = 0;
const WAIT: u8 = 9;
const ECHO: u8 = 12;
const CLOSE: u8 = 13;

/// The peer, the host, and what went from the one to the other.
struct Recorder {
    host: Host,
    peer: Stack,
    mem: HeapMemory,
    parts: Vec<(u8, Vec<u8>)>,
}

impl Recorder {
    fn new(v6: bool) -> Recorder {
        let host = Host::new(Offloads::default());
        let prefix_len = if v6 { 64 } else { 24 };
        let address = InterfaceAddress { address: peer_address(v6), prefix_len };
        let config = StackConfig {
            ip: IpConfig::new(PEER_MAC, &[address]),
            tcp: TcpConfig::default(),
            udp: UdpConfig::default(),
            offloads: Offloads::default(),
            worker: 2,
        };
        let keys = StackKeys { ip: [4; 16], udp: [5; 16], tcp: [6; 16] };
        let peer = Stack::new(config, &keys, host.now).expect("the configuration is right");
        Recorder { host, peer, mem: HeapMemory::default(), parts: Vec::new() }
    }

    /// Frames go back and forth until neither side has one.
    fn exchange(&mut self) {
        for _ in 0..32 {
            let mut frame = TxFrame::default();
            let mut quiet = true;
            while self.peer.poll_frame(self.host.now, &mut self.mem, &mut frame) {
                let mut bytes = Vec::new();
                for piece in &frame.pieces {
                    bytes.extend_from_slice(self.mem.bytes(*piece));
                    self.mem.release(piece.slot);
                }
                self.host.deliver(&bytes, RxChecksum::Unknown, 0);
                self.parts.push((RAW, bytes));
                quiet = false;
            }
            for bytes in std::mem::take(&mut self.host.out) {
                let pieces = self.mem.receive_chain(&bytes).expect("there is room");
                let (checksum, gso_size) = (RxChecksum::Unknown, 0);
                let frame = RxFrame { pieces: &pieces, checksum, gso_size };
                self.peer.on_frame(self.host.now, &frame, &mut self.mem);
                quiet = false;
            }
            if quiet {
                return;
            }
        }
    }

    /// Something else than a frame happens at the host.
    fn happens(&mut self, shape: u8) {
        match shape {
            ECHO => self.host.echo(),
            CLOSE => self.host.close(),
            _ => self.host.advance(Duration::from_millis(100)),
        }
        let argument = if shape == WAIT { vec![100, 0] } else { Vec::new() };
        self.parts.push((shape, argument));
        let now = self.host.now;
        self.peer.on_timers(now, 1000, &mut self.mem);
        self.exchange();
    }
}

/// Neighbours found, a handshake, requests and answers, a close from the host and one from the
/// peer.
pub(crate) fn connection(v6: bool) -> Vec<u8> {
    let mut recorder = Recorder::new(v6);
    let remote = SocketAddr::new(our_address(v6), OUR_PORT);
    for closes_first in [true, false] {
        let now = recorder.host.now;
        let (tcp, ip) = recorder.peer.tcp();
        let opened = tcp.connect(remote, None, (now, ip));
        let id = opened.expect("a free port");
        recorder.exchange();
        for length in [1, 300, 1900] {
            let data = vec![0x61; length];
            let _ = recorder.peer.tcp().0.send(id, &data, &mut recorder.mem);
            recorder.exchange();
            recorder.happens(ECHO);
            recorder.happens(WAIT);
        }
        if closes_first {
            recorder.happens(CLOSE);
        }
        let now = recorder.host.now;
        recorder.peer.tcp().0.close(id, now, &mut recorder.mem);
        recorder.exchange();
        recorder.happens(CLOSE);
        recorder.happens(WAIT);
    }
    let parts: Vec<(u8, &[u8])> =
        recorder.parts.iter().map(|(shape, bytes)| (*shape, bytes.as_slice())).collect();
    shaped(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::targets::frames::steps;

    #[test]
    fn a_recorded_connection_comes_to_life_again() {
        for v6 in [false, true] {
            let input = connection(v6);
            assert!(input.len() > 3000 && input.len() < 16_000, "{} bytes", input.len());
            let mut host = Host::new(Offloads::default());
            steps(&mut host, &mut Input::new(&input[1..]));
            let counters = host.stack.tcp().0.counters();
            assert_eq!(counters.passive_opens, 2, "{counters:?}");
            host.end();
        }
    }
}
