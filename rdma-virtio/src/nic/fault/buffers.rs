//! The receives that the caller posted, while they belong to the wrapper or to the NIC beneath.
//!
//! Invariant: every element was checked against a writable registered region before it came in
//! here, and belongs to the NIC (this wrapper included) until its completion is delivered.

use arrayvec::ArrayVec;

use crate::nic::{PostError, RecvWr, RegionView, Sge};

/// Elements of one receive that the wrapper can remember.
pub(super) const ELEMENTS_MAX: usize = 32;

/// A receive: who posted it and where its bytes go.
#[derive(Clone, Debug, Default)]
struct Buffer {
    wr_id: u64,
    sges: ArrayVec<Sge, ELEMENTS_MAX>,
    total: u32,
}

/// A buffer that holds some bytes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Filled {
    pub(super) buffer: usize,
    pub(super) bytes: u32,
}

/// All buffers, named by their index, which is the `wr_id` beneath.
#[derive(Debug)]
pub(super) struct Buffers {
    all: Vec<Buffer>,
    free: Vec<usize>,
}

impl Buffers {
    pub(super) fn new(capacity: usize) -> Buffers {
        Buffers { all: vec![Buffer::default(); capacity], free: (0..capacity).rev().collect() }
    }

    /// Remembers a receive after checking its elements.
    pub(super) fn add(
        &mut self,
        wr: &RecvWr<'_>,
        regions: &[(u32, RegionView)],
    ) -> Result<usize, PostError> {
        if wr.sges.is_empty() || wr.sges.len() > ELEMENTS_MAX {
            return Err(PostError::SgeCount);
        }
        let mut total = 0_u32;
        for sge in wr.sges {
            let (_, region) = regions
                .iter()
                .find(|(lkey, region)| *lkey == sge.lkey.0 && region.writable)
                .ok_or(PostError::BadLkey)?;
            let offset = sge.addr.checked_sub(region.addr).ok_or(PostError::OutOfBounds)?;
            if offset.saturating_add(u64::from(sge.length)) > region.length || sge.length == 0 {
                return Err(PostError::OutOfBounds);
            }
            total = total.checked_add(sge.length).ok_or(PostError::TooLong)?;
        }
        let index = self.free.pop().ok_or(PostError::QueueFull)?;
        let buffer = &mut self.all[index];
        buffer.wr_id = wr.wr_id;
        buffer.total = total;
        buffer.sges.clear();
        buffer.sges.extend(wr.sges.iter().copied());
        Ok(index)
    }

    /// Forgets a buffer, which goes back to the caller: its `wr_id`.
    pub(super) fn give_back(&mut self, index: usize) -> u64 {
        self.free.push(index);
        self.all[index].wr_id
    }

    /// Where its bytes go.
    pub(super) fn sges(&self, index: usize) -> &[Sge] {
        &self.all[index].sges
    }

    /// Bytes that fit.
    pub(super) fn total(&self, index: usize) -> u32 {
        self.all[index].total
    }

    /// Whether there is such a buffer.
    pub(super) fn index(&self, wr_id: u64) -> Option<usize> {
        usize::try_from(wr_id).ok().filter(|index| *index < self.all.len())
    }

    /// Copies a message out of its buffers.
    pub(super) fn gather(&self, message: &[Filled], bytes: &mut Vec<u8>) {
        bytes.clear();
        self.walk(message, |addr, length| {
            let start = bytes.len();
            bytes.resize(start + length, 0);
            let from = std::ptr::with_exposed_provenance::<u8>(addr);
            // SAFETY: `addr..addr + length` lies in a registered region, as `add` checked, in a
            // buffer that is ours; `bytes` was just made long enough.
            unsafe { std::ptr::copy_nonoverlapping(from, bytes[start..].as_mut_ptr(), length) };
        });
    }

    /// Copies a message into its buffers, which have room for it.
    pub(super) fn scatter(&self, message: &[Filled], bytes: &[u8]) {
        let mut rest = bytes;
        self.walk(message, |addr, length| {
            let (part, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            let to = std::ptr::with_exposed_provenance_mut::<u8>(addr);
            // SAFETY: at most `length` bytes at `addr`, in a registered writable region, as `add`
            // checked, in a buffer that is ours.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len()) };
        });
    }

    /// Calls `visit` with address and length of each stretch of a message.
    fn walk(&self, message: &[Filled], mut visit: impl FnMut(usize, usize)) {
        for filled in message {
            let mut rest = filled.bytes;
            for sge in self.sges(filled.buffer) {
                let length = sge.length.min(rest);
                rest -= length;
                if let (Ok(addr), Ok(length)) = (usize::try_from(sge.addr), usize::try_from(length))
                    && length > 0
                {
                    visit(addr, length);
                }
            }
        }
    }
}
