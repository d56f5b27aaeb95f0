//! The receive ring (`TPACKET_V2`): one slot a frame, in memory that the kernel shares with us.
//!
//! Owns the mapping. Never writes to a slot but to hand it back. Invariants: a slot whose status
//! has `TP_STATUS_USER` is ours until we write `TP_STATUS_KERNEL`; what its header says is held to
//! the slot before it is used.
//!
//! Why version 2: version 3 hands over whole blocks, a millisecond later at the earliest; version
//! 2 hands over each frame as it comes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::open::set;

/// Frames in a block: with slots of 64-byte granularity a block is whole pages then.
pub(super) const BLOCK_FRAMES: u32 = 64;

/// Bytes in front of a message: `tpacket2_hdr` and `sockaddr_ll`, as the kernel aligns them.
const SLOT_HEADER: u32 = 96;

/// Bytes of the virtio-net header that the kernel puts in front of each frame.
const KERNEL_HEADER_LEN: usize = 10;

const STATUS_VLAN: u32 = 0x10;

/// Shape of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    frame_size: u32,
    frames: u32,
}

impl Geometry {
    /// For messages of up to `message` bytes; the number of frames is rounded up to whole blocks.
    pub(super) fn new(message: u32, frames: u16) -> Self {
        let mut frame_size = (SLOT_HEADER + message).next_multiple_of(64);
        // Slots a multiple of a page apart would share their cache sets.
        if frame_size.is_multiple_of(4096) {
            frame_size += 64;
        }
        Self { frame_size, frames: u32::from(frames.max(1)).next_multiple_of(BLOCK_FRAMES) }
    }
}

/// `struct tpacket_req`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
}

/// A frame in the ring, with what stands before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// First byte of the Ethernet header.
    pub(super) start: *const u8,
    /// Bytes of it.
    pub(super) length: usize,
    header: [u8; KERNEL_HEADER_LEN],
}

impl Frame {
    /// Its virtio-net header, as virtio 1.2 §5.1.6 has it; `num_buffers` is 0.
    #[inline]
    pub(super) fn header(&self) -> [u8; 12] {
        let mut header = [0; 12];
        header[..KERNEL_HEADER_LEN].copy_from_slice(&self.header);
        header
    }
}

/// What the next slot holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// Nothing yet.
    Empty,
    /// A frame.
    Full(Frame),
    /// A frame that is not whole, or belongs to a VLAN.
    Unusable,
}

/// A mapped receive ring.
#[derive(Debug)]
pub(super) struct Ring {
    /// Address of the mapping, which this type owns.
    base: usize,
    length: usize,
    frame_size: usize,
    frames: usize,
    next: usize,
}

impl Ring {
    /// Asks the kernel for the ring and maps it.
    pub(super) fn map(fd: &OwnedFd, geometry: Geometry) -> io::Result<Self> {
        let Geometry { frame_size, frames } = geometry;
        let block_size = frame_size * BLOCK_FRAMES;
        let block_count = frames / BLOCK_FRAMES;
        let request = Request { block_size, block_count, frame_size, frame_count: frames };
        set(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let too_big = |_| io::Error::from_raw_os_error(libc::EINVAL);
        let frame_size = usize::try_from(frame_size).map_err(too_big)?;
        let frames = usize::try_from(frames).map_err(too_big)?;
        let length = frame_size * frames;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing one.
        let base =
            unsafe { libc::mmap(null, length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.expose_provenance(), length, frame_size, frames, next: 0 })
    }

    /// Address of the next slot.
    #[inline]
    fn slot(&self) -> *mut u8 {
        // `next < frames`, so the slot is inside the mapping.
        std::ptr::with_exposed_provenance_mut(self.base + self.next * self.frame_size)
    }

    #[inline]
    fn status(&self) -> &AtomicU32 {
        // SAFETY: the slot begins with the 4-byte status, is aligned to 16, and stays mapped as
        // long as `self`; both sides access it atomically.
        unsafe { AtomicU32::from_ptr(self.slot().cast()) }
    }

    /// Whether the next slot is ours: one load.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Looks at the next slot.
    #[inline]
    pub(super) fn peek(&self) -> Slot {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return Slot::Empty;
        }
        let slot = self.slot();
        // SAFETY: the slot is ours since the acquiring load saw its status, and is longer than its
        // header; any bit pattern is a valid header.
        let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        let Ok(length) = usize::try_from(header.tp_snaplen) else { return Slot::Unusable };
        let start = usize::from(header.tp_mac);
        let tagged = status & STATUS_VLAN != 0 && header.tp_vlan_tci & 0xfff != 0;
        let outside = start < size_of::<libc::tpacket2_hdr>() + KERNEL_HEADER_LEN
            || start + length > self.frame_size
            || length == 0;
        if tagged || outside || header.tp_len != header.tp_snaplen {
            return Slot::Unusable;
        }
        // SAFETY: `start` was just checked to be inside the slot.
        let start = unsafe { slot.add(start) }.cast_const();
        // SAFETY: it was just checked that so many bytes are between the slot's header and `start`.
        let header = unsafe { start.sub(KERNEL_HEADER_LEN) };
        // SAFETY: the slot is ours, and bytes need no alignment.
        let header = unsafe { header.cast::<[u8; KERNEL_HEADER_LEN]>().read() };
        Slot::Full(Frame { start, length, header })
    }

    /// Computes the checksum that `header` (virtio 1.2 §5.1.6) says is partial, in the slot, and
    /// clears the flag. The frame is the one that [`Ring::peek`] just returned.
    #[cold]
    pub(super) fn complete_checksum(&mut self, header: &mut [u8; 12], frame: Frame) {
        const NEEDS_CSUM: u8 = 1;
        // SAFETY: the slot is ours until `release`, `peek` held the frame to it, and `&mut self`
        // keeps anybody else from it.
        let frame = unsafe { std::slice::from_raw_parts_mut(frame.start.cast_mut(), frame.length) };
        if header[0] & NEEDS_CSUM == 0 {
            return;
        }
        let start = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let place = start + usize::from(u16::from_le_bytes([header[8], header[9]]));
        let Some(covered) = frame.get(start..) else { return };
        let mut sum = 0_u64;
        for pair in covered.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // RFC 768: a UDP checksum of 0 is sent as all ones, which means the same to TCP.
        let checksum = match !u16::try_from(sum).unwrap_or(0) {
            0 => 0xffff,
            other => other,
        };
        if let Some(target) = frame.get_mut(place..place + 2) {
            target.copy_from_slice(&checksum.to_be_bytes());
            header[0] &= !NEEDS_CSUM;
        }
    }

    /// Hands the next slot back to the kernel and steps on.
    #[inline]
    pub(super) fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next += 1;
        if self.next == self.frames {
            self.next = 0;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let base = std::ptr::with_exposed_provenance_mut(self.base);
        // SAFETY: base and length are those of the mapping that `map` made and nobody else frees.
        let _ = unsafe { libc::munmap(base, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_pages_and_slots_spread_over_cache_sets() {
        let rows = [(1_548_u32, 256_u16), (65_562, 256), (4_000, 64), (9_048, 1), (65_553, 4_095)];
        for (message, frames) in rows {
            let geometry = Geometry::new(message, frames);
            assert!((geometry.frame_size * BLOCK_FRAMES).is_multiple_of(4096));
            assert!(geometry.frame_size >= message + SLOT_HEADER);
            assert!(geometry.frame_size.is_multiple_of(16));
            assert!(!geometry.frame_size.is_multiple_of(4096));
            assert!(geometry.frames >= u32::from(frames));
            assert!(geometry.frames.is_multiple_of(BLOCK_FRAMES));
        }
    }
}
