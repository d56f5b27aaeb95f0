//! A frame as it passes between stack and device: pieces of memory and what virtio-net's header
//! says of them (virtio 1.2 §5.1.6).

use arrayvec::ArrayVec;

use crate::memory::Piece;

/// Most pieces that one outgoing frame consists of: a header slot and 64 KiB in 4 KiB chunks that
/// need not be aligned.
pub const TX_PIECES_MAX: usize = 18;

/// What is known of a received frame's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxChecksum {
    /// Nothing: it must be computed.
    Unknown,
    /// It was checked and is right (`VIRTIO_NET_HDR_F_DATA_VALID`).
    Valid,
    /// It holds only the pseudo-header's sum, because the frame never left the machine or link
    /// that vouches for it (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial,
}

/// A received frame. Ownership of each piece passes to the stack, which releases or keeps it.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame<'a> {
    /// The bytes from the Ethernet header on, in order; never empty. All headers lie in the
    /// first piece if they are in the frame at all.
    pub pieces: &'a [Piece],
    /// What the device knows of the checksum.
    pub checksum: RxChecksum,
    /// Payload bytes of each wire segment if the frame is several coalesced ones, else 0.
    pub gso_size: u16,
}

/// A transport checksum left to the device: sum from `start` to the frame's end, stored at
/// `start + offset`, where the pseudo-header's sum lies already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxChecksum {
    /// First summed byte, counted from the Ethernet header.
    pub start: u16,
    /// Place of the checksum, counted from `start`.
    pub offset: u16,
}

/// Which protocol a large frame is segmented as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, either family.
    Udp,
}

/// Segmentation left to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxSegmentation {
    /// The protocol.
    pub kind: SegmentKind,
    /// Payload bytes of each segment but the last; never 0.
    pub size: u16,
    /// Bytes of all headers, from the Ethernet header to the transport's end.
    pub header_len: u16,
    /// CWR is set, which only the first segment may bear (RFC 3168 §6.1.2).
    pub ecn: bool,
}

/// A frame to send. Each piece carries one reference, which the receiver of the frame releases
/// when the device has completed it.
#[derive(Clone, Debug, Default)]
pub struct TxFrame {
    /// The bytes in order. The first piece begins with the Ethernet header and has
    /// [`TX_HEADROOM`] free bytes before it in its slot.
    pub pieces: ArrayVec<Piece, TX_PIECES_MAX>,
    /// The checksum left to do, if any.
    pub checksum: Option<TxChecksum>,
    /// The segmentation left to do, if any.
    pub segmentation: Option<TxSegmentation>,
}

impl TxFrame {
    /// Bytes of the frame from the Ethernet header on.
    #[must_use]
    pub fn frame_len(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.len).sum()
    }
}

/// Most frames that are taken in one go.
pub const BURST_MAX: usize = 32;

/// Frames of one piece each, from the Ethernet header on, with the free bytes before it that a
/// [`TxFrame`] has, and with one reference each.
pub type Burst = ArrayVec<Piece, BURST_MAX>;

/// Free bytes before the Ethernet header in the slot of a frame's first piece: room for the
/// virtio-net header, and an alignment that puts the IP header on a 4-byte boundary.
pub const TX_HEADROOM: u32 = 18;

/// What the device can do for outgoing and says of incoming frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// Transport checksums of outgoing frames may be left partial.
    pub tx_checksum: bool,
    /// TCP over IPv4 may be sent in frames of up to 64 KiB.
    pub tso4: bool,
    /// TCP over IPv6 may be sent in frames of up to 64 KiB.
    pub tso6: bool,
    /// They may bear CWR.
    pub tso_ecn: bool,
    /// UDP may be sent in frames of up to 64 KiB.
    pub uso: bool,
}

/// What became of a frame on its short way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Taken {
    /// Nothing was done: it is for the long way.
    No,
    /// It was taken, and nothing of it is needed any more: its pieces are the caller's still.
    Copied,
    /// It was taken with its pieces: a reference of each is the stack's.
    Kept,
}
