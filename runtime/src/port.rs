//! The port joins device and stack: received frames up (`receive`), frames to send down, and
//! nothing else.

mod receive;

use arrayvec::ArrayVec;
use roceway_rdma_virtio::memory::slot::Piece as DevicePiece;
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::virtio::driver::{Received, TransmitError};
use roceway_rdma_virtio::virtio::interface::NetInterface;
use roceway_rdma_virtio::virtio::net_header::{self, GSO_NONE, NEEDS_CSUM, NetHeader};
use roceway_stack::frame::{BURST_MAX, Burst, SegmentKind, TX_PIECES_MAX, TxChecksum, TxFrame};
use roceway_stack::memory::Piece;
use roceway_stack::stack::Stack;
use roceway_stack::time::Instant;

use crate::capture::{Capture, Direction};
use crate::memory::{Low, StackMemory, to_device};

/// What is said of a frame of one piece that is plain, perhaps but for its checksum.
struct Plain {
    header: NetHeader,
    checksum: Option<TxChecksum>,
}

impl Plain {
    const fn of(checksum: TxChecksum) -> Plain {
        let header = NetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_NONE,
            hdr_len: 0,
            gso_size: 0,
            csum_start: checksum.start,
            csum_offset: checksum.offset,
            num_buffers: 0,
        };
        Plain { header, checksum: Some(checksum) }
    }

    const fn complete() -> Plain {
        let Plain { mut header, .. } = Plain::of(TxChecksum { start: 0, offset: 0 });
        header.flags = 0;
        Plain { header, checksum: None }
    }
}

/// A frame of [`Stack::poll_plain_frame`].
const SEGMENT: &Plain = &Plain::of(Stack::PLAIN_CHECKSUM);
/// The same from a stack that computes its checksums.
const COMPLETE: &Plain = &Plain::complete();
/// A frame of [`Stack::send_datagram_at_once`].
const DATAGRAM: &Plain = &Plain::of(Stack::DATAGRAM_CHECKSUM);

/// What the port counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PortCounters {
    /// Frames taken from the stack and given to the device.
    pub(crate) frames_sent: u64,
    /// Times the device took no more frames for now; the frame waited, it was not lost.
    pub(crate) transmit_stalls: u64,
    /// Frames that the device refused for good; a fault of the port or the device.
    pub(crate) frames_refused: u64,
}

/// The port.
pub(crate) struct Port {
    pub(crate) interface: NetInterface<AnyNic>,
    pub(crate) counters: PortCounters,
    received: Received,
    sending: TxFrame,
    /// Frames of a burst, on their way to the device.
    burst: Burst,
    /// `sending` was refused for want of room and comes first next time.
    stalled: bool,
    /// Frames were handed to the device since the last doorbell.
    unrung: bool,
    low: Low,
    /// Segments of a burst are joined before the stack sees them.
    pub(crate) gro: bool,
    /// The stack computes checksums: nothing is left to the device.
    pub(crate) checksums_by_stack: bool,
    /// Takes a copy of every frame, if it is wanted.
    pub(crate) capture: Option<Box<Capture>>,
}

impl Port {
    /// A port over an interface. `low`: free receive slots below which the stack gives some back;
    /// `small_low`: free small slots below which they are kept for headers.
    pub(crate) fn new(interface: NetInterface<AnyNic>, low: u32, small_low: u32) -> Port {
        Port {
            interface,
            counters: PortCounters::default(),
            received: Received::default(),
            sending: TxFrame::default(),
            burst: Burst::new(),
            stalled: false,
            unrung: false,
            low: Low { receive: low, small: small_low },
            gro: false,
            checksums_by_stack: false,
            capture: None,
        }
    }

    /// The arena for the stack.
    #[inline]
    pub(crate) fn memory(&mut self) -> StackMemory<'_> {
        StackMemory { arena: self.interface.memory(), low: &self.low }
    }

    /// Takes frames from the stack to the device, at most `budget`; returns how many.
    #[inline(never)]
    pub(crate) fn pump_transmit(&mut self, stack: &mut Stack, now: Instant, budget: u32) -> u32 {
        let mut done = 0;
        while done < budget {
            let sent = match self.transmit_plain(stack, now) {
                true => 1,
                false if stack.has_frames() || self.stalled => {
                    self.transmit_more(stack, now, budget - done)
                }
                false => 0,
            };
            if sent == 0 {
                break;
            }
            done += sent;
        }
        if done > 0 {
            self.counters.frames_sent += u64::from(done);
            self.unrung = true;
        }
        done
    }

    /// Passes on a frame of [`Stack::send_at_once`].
    #[inline(always)]
    pub(crate) fn transmit_at_once(&mut self, piece: Piece, now: Instant) {
        self.counters.frames_sent += 1;
        self.unrung = true;
        let _taken_or_waiting = self.transmit_segment(piece, now);
    }

    /// Passes on a frame of [`Stack::send_datagram_at_once`], and gives its reference back.
    #[inline(always)]
    pub(crate) fn transmit_datagram(&mut self, stack: &mut Stack, piece: Piece, now: Instant) {
        self.counters.frames_sent += 1;
        self.unrung = true;
        if self.capture.is_some() {
            self.capture_sent(now, &[to_device(piece)], &DATAGRAM.header);
        }
        if self.interface.transmit_lent(to_device(piece), &DATAGRAM.header) {
            return stack.end_datagram(piece.slot, &mut self.memory());
        }
        let _taken_or_waiting = self.transmit_held(piece, DATAGRAM);
        self.interface.memory().release(to_device(piece).slot);
    }

    /// Passes on the plainest kind of frame without building a description of it.
    #[inline(always)]
    fn transmit_plain(&mut self, stack: &mut Stack, now: Instant) -> bool {
        if self.stalled {
            return false;
        }
        let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
        let Some(piece) = stack.poll_plain_frame(now, &mut memory) else { return false };
        self.transmit_segment(piece, now)
    }

    /// Gives a plain segment to the device; false if it waits for room.
    #[inline(always)]
    fn transmit_segment(&mut self, piece: Piece, now: Instant) -> bool {
        if self.checksums_by_stack {
            return self.transmit_complete(piece, now);
        }
        self.transmit_piece(piece, SEGMENT, now)
    }

    #[inline(never)]
    fn transmit_complete(&mut self, piece: Piece, now: Instant) -> bool {
        self.transmit_piece(piece, COMPLETE, now)
    }

    /// Gives a plain frame to the device; false if it waits for room.
    #[inline(always)]
    fn transmit_piece(&mut self, piece: Piece, plain: &'static Plain, now: Instant) -> bool {
        if self.capture.is_some() {
            self.capture_sent(now, &[to_device(piece)], &plain.header);
        }
        self.interface.transmit_lent(to_device(piece), &plain.header)
            || self.transmit_held(piece, plain)
    }

    /// A plain frame that the device reads later: with a reference, and as any other frame.
    #[inline(never)]
    fn transmit_held(&mut self, piece: Piece, plain: &'static Plain) -> bool {
        self.interface.memory().retain(to_device(piece).slot);
        match self.interface.transmit(&[to_device(piece)], &plain.header) {
            Ok(()) => true,
            Err(error) => self.transmit_held_later((piece, plain.checksum), error),
        }
    }

    /// The device did not take a plain frame: it waits as any other does.
    #[cold]
    fn transmit_held_later(
        &mut self,
        (piece, checksum): (Piece, Option<TxChecksum>),
        error: TransmitError,
    ) -> bool {
        self.sending.pieces.clear();
        self.sending.pieces.push(piece);
        self.sending.checksum = checksum;
        self.sending.segmentation = None;
        self.after_refusal(error)
    }

    /// Takes a burst, or else the next frame; returns how many, at most `budget`.
    #[inline(never)]
    fn transmit_more(&mut self, stack: &mut Stack, now: Instant, budget: u32) -> u32 {
        let room = self.interface.transmit_room();
        if !self.stalled && room >= BURST_MAX && budget as usize >= BURST_MAX {
            self.burst.clear();
            let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
            stack.poll_burst(now, &mut memory, &mut self.burst);
            if !self.burst.is_empty() {
                return self.transmit_burst(now);
            }
        }
        u32::from(self.transmit_next(stack, now))
    }

    /// Gives the burst to the device, which has room for it.
    fn transmit_burst(&mut self, now: Instant) -> u32 {
        let plain = if self.checksums_by_stack { COMPLETE } else { SEGMENT };
        let pieces: ArrayVec<DevicePiece, BURST_MAX> =
            self.burst.iter().map(|&piece| to_device(piece)).collect();
        if self.capture.is_some() {
            for piece in &pieces {
                self.capture_sent(now, &[*piece], &plain.header);
            }
        }
        let taken = self.interface.transmit_burst(&pieces, &plain.header);
        for piece in &pieces[taken..] {
            self.counters.frames_refused += 1;
            self.interface.memory().release(piece.slot);
        }
        u32::try_from(pieces.len()).unwrap_or(0)
    }

    /// Takes the next frame of any kind, or the one that waits; false if there is none or the
    /// device has no room.
    #[inline(never)]
    fn transmit_next(&mut self, stack: &mut Stack, now: Instant) -> bool {
        if !self.stalled {
            let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
            if !stack.poll_frame(now, &mut memory, &mut self.sending) {
                return false;
            }
            if self.capture.is_some() {
                let pieces: ArrayVec<DevicePiece, TX_PIECES_MAX> =
                    self.sending.pieces.iter().map(|&piece| to_device(piece)).collect();
                self.capture_sent(now, &pieces, &net_header_of(&self.sending));
            }
        }
        self.transmit()
    }

    #[cold]
    fn capture_received(&mut self, now: Instant) {
        if let Some(capture) = &mut self.capture {
            let (pieces, header) = (&self.received.pieces, &self.received.header);
            let when = (Direction::Received, now.as_nanos());
            capture.take(when, pieces, header, self.interface.memory_ref());
        }
    }

    #[cold]
    fn capture_sent(&mut self, now: Instant, pieces: &[DevicePiece], header: &NetHeader) {
        if let Some(capture) = &mut self.capture {
            let when = (Direction::Sent, now.as_nanos());
            capture.take(when, pieces, header, self.interface.memory_ref());
        }
    }

    /// Gives `sending` to the device; false if it has no room now.
    fn transmit(&mut self) -> bool {
        let header = net_header_of(&self.sending);
        let result = if let [piece] = self.sending.pieces[..] {
            self.interface.transmit(&[to_device(piece)], &header)
        } else {
            let pieces: ArrayVec<DevicePiece, TX_PIECES_MAX> =
                self.sending.pieces.iter().map(|&piece| to_device(piece)).collect();
            self.interface.transmit(&pieces, &header)
        };
        self.stalled = false;
        match result {
            Ok(()) => true,
            Err(error) => self.after_refusal(error),
        }
    }

    #[cold]
    fn after_refusal(&mut self, error: TransmitError) -> bool {
        if error == TransmitError::RingFull {
            self.stalled = true;
            self.counters.transmit_stalls += 1;
            return false;
        }
        self.refuse()
    }

    /// The device will never take this frame: it is dropped, and TCP or the application sends
    /// again what it must.
    #[cold]
    fn refuse(&mut self) -> bool {
        self.counters.frames_refused += 1;
        for piece in self.sending.pieces.drain(..) {
            self.interface.memory().release(to_device(piece).slot);
        }
        true
    }

    /// Whether a frame waits for room on the device, or on the NIC.
    #[inline]
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled || self.interface.has_backlog()
    }

    /// Rings the doorbell if there is anything to ring it for.
    #[inline]
    pub(crate) fn doorbell(&mut self) {
        if self.unrung || self.is_stalled() {
            self.unrung = false;
            self.interface.doorbell();
        }
    }
}

/// What the virtio-net header says of a frame (virtio 1.2 §5.1.6.2).
#[inline]
fn net_header_of(frame: &TxFrame) -> NetHeader {
    let mut header = NetHeader {
        flags: 0,
        gso_type: GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        num_buffers: 0,
    };
    if let Some(checksum) = frame.checksum {
        header.flags = NEEDS_CSUM;
        header.csum_start = checksum.start;
        header.csum_offset = checksum.offset;
    }
    if let Some(segmentation) = frame.segmentation {
        header.gso_type = match segmentation.kind {
            SegmentKind::Tcp4 => net_header::GSO_TCPV4,
            SegmentKind::Tcp6 => net_header::GSO_TCPV6,
            SegmentKind::Udp => net_header::GSO_UDP_L4,
        };
        if segmentation.ecn {
            header.gso_type |= net_header::GSO_ECN;
        }
        header.gso_size = segmentation.size;
        header.hdr_len = segmentation.header_len;
    }
    header
}
