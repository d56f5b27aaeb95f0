//! Work requests and their completions: what is posted to a NIC, and what comes of it.

/// Names a registered region to the NIC that registered it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Lkey(pub u32);

/// A scatter-gather element: bytes of one registered region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sge {
    /// First byte, as a virtual address of this process.
    pub addr: u64,
    /// Number of bytes.
    pub length: u32,
    /// The region that holds them.
    pub lkey: Lkey,
}

/// A checksum that the NIC is asked to compute: over everything from `start`, stored at
/// `start + offset`, where the pseudo-header's sum lies already. Counted from the Ethernet header.
/// It is that of TCP or UDP right behind an IP header without options or extensions: what devices
/// know how to compute, which find the place themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChecksumRequest {
    /// First summed byte.
    pub start: u16,
    /// Place of the checksum, from `start`.
    pub offset: u16,
}

/// The protocol that a large frame is segmented as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either family.
    Udp,
}

/// Segmentation that the NIC is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentationRequest {
    /// The protocol.
    pub kind: SegmentationKind,
    /// Payload bytes a segment; not 0.
    pub size: u16,
    /// Length of all headers from the Ethernet header on.
    pub header_len: u16,
}

/// What a NIC with [`super::Wire::Frames`] is asked to do to a frame. With
/// [`super::Wire::VirtioNet`] the virtio-net header in the message says it instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// Checksum to compute.
    pub checksum: Option<ChecksumRequest>,
    /// Segmentation to do; implies a checksum request.
    pub segmentation: Option<SegmentationRequest>,
}

/// A send work request.
#[derive(Clone, Copy, Debug)]
pub struct SendWr<'a> {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// The message, gathered in order.
    pub sges: &'a [Sge],
    /// Whether a completion is wanted. Errors complete in any case.
    pub signalled: bool,
    /// Whether the bytes are read before `post_send` returns; at most
    /// [`super::Capabilities::max_inline`] of them. An inline request is never signalled.
    pub inline: bool,
    /// Offloads, for [`super::Wire::Frames`] only.
    pub offload: Offload,
}

/// A receive work request.
#[derive(Clone, Copy, Debug)]
pub struct RecvWr<'a> {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// Where the message goes, scattered in order.
    pub sges: &'a [Sge],
}

/// Receives of one element each, of one length and in one region: [`RecvWr`]s without lists.
#[derive(Clone, Copy, Debug)]
pub struct RecvBatch<'a> {
    /// Which and where.
    pub places: &'a [RecvPlace],
    /// Bytes of each.
    pub length: u32,
    /// The region that holds all of them.
    pub lkey: Lkey,
}

/// One receive of a [`RecvBatch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecvPlace {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// First byte, as a virtual address of this process.
    pub addr: u64,
}

/// How a work request ended (`ibv_wc_status`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WcStatus {
    /// Done.
    Success,
    /// The message was longer than the receive (`IBV_WC_LOC_LEN_ERR`).
    LocalLength,
    /// A local memory check failed (`IBV_WC_LOC_PROT_ERR`).
    LocalProtection,
    /// The queue was flushed, since the link is down or closing (`IBV_WC_WR_FLUSH_ERR`).
    Flushed,
    /// The peer did not take the message in time (`IBV_WC_RETRY_EXC_ERR`).
    RetryExceeded,
    /// The NIC or host refused it; the errno is in the counters (`IBV_WC_GENERAL_ERR`).
    General,
}

/// What the NIC knows of a received frame's transport checksum. Absence of knowledge is never
/// taken for a wrong checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WcChecksum {
    /// Nothing known.
    Unknown,
    /// Checked and right.
    Valid,
}

/// A completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Of the work request.
    pub wr_id: u64,
    /// How it ended.
    pub status: WcStatus,
    /// Bytes received into this work request; 0 for sends.
    pub byte_len: u32,
    /// Whether the message goes on in the next receive completion ([`super::Receive::Spanning`]).
    pub more: bool,
    /// Checksum knowledge, for [`super::Wire::Frames`] only.
    pub checksum: WcChecksum,
}
