//! The stack: what joins IP, UDP and TCP of one interface of one worker.

use core::net::SocketAddr;

use crate::frame::{Burst, Offloads, RxChecksum, RxFrame, Taken, TxChecksum, TxFrame};
use crate::gro::{Gro, Joined};
use crate::ip::{Incoming, Ip, IpConfig, IpConfigError, Transport};
use crate::memory::{Memory, Piece, Slot};
use crate::slab::Id;
use crate::tcp::{Connection, FramePieces, Tcp, TcpConfig};
use crate::time::Instant;
use crate::udp::{Udp, UdpConfig, UdpContext, UdpId};

/// What a stack is told at its start.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// The interface.
    pub ip: IpConfig,
    /// TCP.
    pub tcp: TcpConfig,
    /// UDP. Its worker number is set from `worker`.
    pub udp: UdpConfig,
    /// What the device can do.
    pub offloads: Offloads,
    /// Number of the worker; it goes into every socket id.
    pub worker: u8,
}

/// Secrets of a stack: 128 random bits for each layer, from the system at start (from a seed in
/// simulations only).
#[derive(Clone, Copy)]
pub struct StackKeys {
    /// Of IP.
    pub ip: [u8; 16],
    /// Of UDP.
    pub udp: [u8; 16],
    /// Of TCP.
    pub tcp: [u8; 16],
}

/// A TCP/IP stack with one interface.
pub struct Stack {
    tcp: Tcp,
    ip: Ip,
    udp: Udp,
    offloads: Offloads,
    gro: Gro,
}

impl Stack {
    /// A stack without sockets.
    ///
    /// # Errors
    /// What of the interface's configuration cannot be.
    pub fn new(
        config: StackConfig,
        keys: &StackKeys,
        now: Instant,
    ) -> Result<Stack, IpConfigError> {
        let mut tcp = Tcp::new(config.tcp, keys.tcp, config.worker, now);
        tcp.set_offloads(config.offloads);
        Ok(Stack {
            tcp,
            ip: Ip::new(config.ip, keys.ip)?,
            udp: Udp::new(UdpConfig { worker: config.worker, ..config.udp }, keys.udp),
            offloads: config.offloads,
            gro: Gro::default(),
        })
    }

    /// Takes a frame of one piece whose checksum the device answers for, and that is not coalesced,
    /// if it is the plainest there is; otherwise it is for [`Stack::on_frame`].
    #[inline(always)]
    pub fn on_plain_frame<M: Memory>(&mut self, now: Instant, piece: Piece, mem: &mut M) -> Taken {
        if self.udp.expects() {
            let taken = self.udp.on_expected_frame(piece, mem);
            if taken != Taken::No {
                return taken;
            }
        }
        let known = (RxChecksum::Partial, 0);
        self.tcp.on_expected_pieces(now, FramePieces::One(piece), known, mem)
    }

    /// As [`Stack::on_plain_frame`], where nobody answers for the checksum: it is verified here.
    #[inline(always)]
    pub fn on_unverified_frame<M: Memory>(
        &mut self,
        now: Instant,
        piece: Piece,
        mem: &mut M,
    ) -> Taken {
        let known = (RxChecksum::Unknown, 0);
        self.tcp.on_expected_pieces(now, FramePieces::One(piece), known, mem)
    }

    /// The part of [`Stack::on_plain_frame`] that is about datagrams, for a frame of a burst.
    #[inline]
    pub fn on_plain_datagram<M: Memory>(&mut self, piece: Piece, mem: &mut M) -> Taken {
        self.udp.on_expected_frame(piece, mem)
    }

    /// Takes a received frame; its pieces pass into the stack's ownership.
    #[inline(never)]
    pub fn on_frame<M: Memory>(&mut self, now: Instant, frame: &RxFrame<'_>, mem: &mut M) {
        let taken = match self.tcp.on_expected_frame(now, frame, mem) {
            Taken::No => self.tcp.on_expected_of_another(now, frame, mem),
            taken => taken,
        };
        match taken {
            Taken::No => self.on_other_frame(now, frame, mem),
            Taken::Copied => frame.pieces.iter().for_each(|piece| mem.release(piece.slot)),
            Taken::Kept => {}
        }
    }

    /// As [`Stack::on_frame`], for a frame of a burst: segments that follow one another are joined
    /// first. [`Stack::end_burst`] follows within the turn.
    #[inline(never)]
    pub fn on_burst_frame<M: Memory>(&mut self, now: Instant, frame: &RxFrame<'_>, mem: &mut M) {
        if !Gro::is_candidate(frame) {
            self.end_burst(now, mem);
            self.on_frame(now, frame, mem);
            return;
        }
        match self.gro.join(frame, mem) {
            Joined::Yes => return,
            Joined::Last => return self.end_burst(now, mem),
            Joined::No => self.end_burst(now, mem),
        }
        if !self.gro.hold(frame, mem) {
            self.on_frame(now, frame, mem);
        }
    }

    /// Takes what [`Stack::on_burst_frame`] still held back.
    #[inline]
    pub fn end_burst<M: Memory>(&mut self, now: Instant, mem: &mut M) {
        if let Some((pieces, checksum, gso_size)) = self.gro.release() {
            self.on_frame(now, &RxFrame { pieces: &pieces, checksum, gso_size }, mem);
        }
    }

    /// Segments that became part of another one before TCP saw them.
    #[must_use]
    pub fn joined(&self) -> u64 {
        self.gro.joined()
    }

    fn on_other_frame<M: Memory>(&mut self, now: Instant, frame: &RxFrame<'_>, mem: &mut M) {
        use crate::tcp::SegmentBytes;
        match self.ip.on_frame(now, frame, mem) {
            Incoming::Consumed => {}
            Incoming::Tcp(mut packet) => {
                if frame.gso_size != 0 {
                    // Joined segments: the headers are still those of the first.
                    let len: u32 = frame.pieces.iter().map(|piece| piece.len).sum();
                    packet.transport_len = len.saturating_sub(packet.transport_start);
                }
                let bytes = SegmentBytes::Frame(frame);
                self.tcp.on_packet(&packet, &bytes, (now, &self.ip), mem);
            }
            Incoming::ReassembledTcp(packet, whole) => {
                let bytes = SegmentBytes::Whole(&whole);
                self.tcp.on_packet(&packet, &bytes, (now, &self.ip), mem);
            }
            Incoming::Udp(packet) => {
                let (udp, mut cx) = self.udp(now, mem);
                udp.on_packet(&mut cx, frame, &packet);
            }
            Incoming::ReassembledUdp(packet, whole) => self.udp.on_reassembled(&packet, whole),
            Incoming::Error(error) => match error.transport {
                Transport::Tcp => self.tcp.on_icmp_error(&error, (now, &mut self.ip), mem),
                Transport::Udp => self.udp.on_error(now, &mut self.ip, &error),
            },
        }
    }

    /// The next frame to send, if it is the plainest there is: one piece, with
    /// [`Stack::PLAIN_CHECKSUM`] left to the device if that computes checksums. It is only lent:
    /// who reads it after the next call of the stack retains its slot. `None` says nothing about
    /// other frames: ask [`Stack::poll_frame`] then.
    #[inline(always)]
    pub fn poll_plain_frame<M: Memory>(&mut self, now: Instant, mem: &mut M) -> Option<Piece> {
        self.tcp.poll_expected(now, &self.ip, mem)
    }

    /// The next frames to send, as many as there are in a row and `out` has room for, if they are
    /// segments of one stream that lies in memory as it will leave, with
    /// [`Stack::PLAIN_CHECKSUM`] left to the device if that computes checksums. An empty `out` says
    /// nothing about other frames.
    #[inline(always)]
    pub fn poll_burst<M: Memory>(&mut self, now: Instant, mem: &mut M, out: &mut Burst) {
        self.tcp.poll_burst(now, &self.ip, mem, out);
    }

    /// Takes a small write of a connection with `TCP_NODELAY` that nothing precedes, and gives the
    /// frame that carries it, lent as by [`Stack::poll_plain_frame`]. `None`: nothing was done, and
    /// the write is for [`Tcp::send`]. `now` is the present, for timers count from it.
    #[inline(always)]
    pub fn send_at_once<M: Memory>(
        &mut self,
        id: Id<Connection>,
        data: &[u8],
        now: Instant,
        mem: &mut M,
    ) -> Option<Piece> {
        self.tcp.send_at_once(id, data, (now, &self.ip), mem)
    }

    /// The checksum that a frame of [`Stack::poll_plain_frame`] leaves to the device.
    pub const PLAIN_CHECKSUM: TxChecksum = crate::tcp::EXPECTED_CHECKSUM;

    /// Takes a short datagram that nothing precedes, and gives the frame that carries it, with
    /// [`Stack::DATAGRAM_CHECKSUM`] left to the device and a reference that is the caller's.
    /// `None`: nothing was done, and the datagram is for [`Udp::send_to`].
    #[inline(always)]
    pub fn send_datagram_at_once<M: Memory>(
        &mut self,
        id: UdpId,
        (data, to): (&[u8], Option<SocketAddr>),
        now: Instant,
        mem: &mut M,
    ) -> Option<Piece> {
        let (udp, mut cx) = self.udp(now, mem);
        udp.send_at_once(&mut cx, id, data, to)
    }

    /// Takes the slot of a frame of [`Stack::send_datagram_at_once`] back once nobody reads it.
    #[inline(always)]
    pub fn end_datagram<M: Memory>(&mut self, slot: Slot, mem: &mut M) {
        self.udp.keep_spare(slot, mem);
    }

    /// The checksum that a frame of [`Stack::send_datagram_at_once`] leaves to the device.
    pub const DATAGRAM_CHECKSUM: TxChecksum = crate::udp::EXPECTED_CHECKSUM;

    /// The next frame to send; false if there is none now.
    #[inline(never)]
    pub fn poll_frame<M: Memory>(&mut self, now: Instant, mem: &mut M, out: &mut TxFrame) -> bool {
        let generation = self.ip.neighbor_generation();
        if self.tcp.has_frames(generation) && self.tcp.poll_frame(now, &mut self.ip, mem, out) {
            return true;
        }
        if self.ip.has_frames() && self.ip.poll_frame(mem, out) {
            return true;
        }
        let (udp, mut cx) = self.udp(now, mem);
        udp.poll_frame(&mut cx, out)
    }

    /// Whether a frame may be ready to send: a few loads.
    #[inline(always)]
    #[must_use]
    pub fn has_frames(&self) -> bool {
        let generation = self.ip.neighbor_generation();
        // Mostly nothing is: asked without a branch for each queue.
        (self.tcp.has_queued() | self.ip.has_frames() | self.udp.wants_poll(generation))
            && self.is_frame_ready(generation)
    }

    #[inline(never)]
    fn is_frame_ready(&self, generation: u32) -> bool {
        self.tcp.has_frames(generation) || self.ip.has_frames() || self.udp.wants_poll(generation)
    }

    /// Whether [`Tcp::poll_event`] or [`Udp::poll_event`] may have something to tell: two loads.
    #[inline]
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.tcp.has_events() || self.udp.has_events()
    }

    /// Handles timers that have expired, at most about `budget`; returns how many.
    pub fn on_timers<M: Memory>(&mut self, now: Instant, budget: u32, mem: &mut M) -> u32 {
        if now >= self.ip.next_deadline() {
            self.ip.on_timers(now);
        }
        if mem.receive_is_low() {
            self.udp.compact(mem);
        }
        self.tcp.on_timers(now, budget, mem)
    }

    /// When [`Stack::on_timers`] has something to do next; [`Instant::NEVER`] if nothing waits.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.tcp.next_deadline().min(self.ip.next_deadline())
    }

    /// TCP, for calls.
    #[inline]
    pub fn tcp(&mut self) -> (&mut Tcp, &mut Ip) {
        (&mut self.tcp, &mut self.ip)
    }

    /// UDP, and what its calls work with.
    #[inline]
    pub fn udp<'a, M: Memory>(
        &'a mut self,
        now: Instant,
        mem: &'a mut M,
    ) -> (&'a mut Udp, UdpContext<'a, M>) {
        (&mut self.udp, UdpContext { now, ip: &mut self.ip, mem, offloads: self.offloads })
    }

    /// IP: addresses, routes, neighbours, counters.
    #[must_use]
    pub fn ip(&self) -> &Ip {
        &self.ip
    }

    /// The link came up.
    pub fn on_link_up(&mut self, now: Instant) {
        self.ip.on_link_up(now);
        self.tcp.on_link_up(now);
    }

    /// The link is down, and may come up soon: what asks for a neighbour waits for it.
    pub fn on_link_down(&mut self, now: Instant) {
        self.ip.on_link_down(now);
    }

    /// The only peer of the link is gone, and its state with it.
    pub fn on_link_lost<M: Memory>(&mut self, mem: &mut M) {
        self.ip.on_link_lost();
        self.tcp.on_link_lost(mem);
    }

    /// One host of the link is gone, and the state of its connections with it: they end.
    pub fn on_neighbor_lost<M: Memory>(&mut self, mac: [u8; 6], mem: &mut M) {
        self.ip.on_neighbor_lost(mac);
        self.tcp.on_neighbor_lost(Some(mac), mem);
    }

    /// Checks that every layer's counters conserve: received = delivered + each kind of drop.
    /// Panics if not; for tests.
    pub fn check(&self) {
        self.ip.check();
        self.udp.check();
        let tcp = self.tcp.counters();
        assert_eq!(tcp.check(), Ok(()), "TCP counters do not conserve: {tcp:?}");
    }

    /// Calls `visit` with layer, name and value of every counter.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        visit("gro", "joined", self.gro.joined());
        self.tcp.counters().each(|name, value| visit("tcp", name, value));
        self.ip.counters().each(|name, value| visit("ip", name, value));
        self.ip.drops().each(|name, value| visit("ip drops", name, value));
        self.udp.counters().each(|name, value| visit("udp", name, value));
        self.udp.drops().each(|name, value| visit("udp drops", name, value));
    }
}
