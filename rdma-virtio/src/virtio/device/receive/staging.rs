//! Single buffers on their way to the NIC: checked, recorded, and posted in one list.
//!
//! Invariant: a head that was staged is in use until the NIC took it and gave it back, or it is
//! cleared again.

use std::hint::cold_path;

use super::BATCH;
use crate::memory::region::{Alike, Near, RegionTable, Segment};
use crate::nic::{Lkey, RecvPlace};
use crate::virtio::device::{FRAME_LEN_MIN, Setup};
use crate::virtio::net_header::NET_HEADER_LEN;

/// Single buffers about to be posted, all of one length and in one region.
#[derive(Debug)]
pub(in crate::virtio) struct Staging<'a> {
    rooms: &'a mut [Segment],
    alike: Alike,
    in_front: u32,
    /// Those that are left.
    places: std::slice::IterMut<'a, RecvPlace>,
}

/// What was staged, once nothing more is added.
#[derive(Clone, Copy, Debug)]
pub(in crate::virtio) struct Staged {
    /// Buffers.
    pub(in crate::virtio) count: usize,
    pub(super) length: u32,
    pub(super) lkey: Lkey,
}

impl<'a> Staging<'a> {
    #[inline(always)]
    pub(super) fn new(
        setup: &Setup,
        rooms: &'a mut [Segment],
        alike: Alike,
        places: &'a mut [RecvPlace; BATCH],
    ) -> Staging<'a> {
        Staging { rooms, alike, in_front: setup.in_front, places: places.iter_mut() }
    }

    /// Adds a buffer, under a head that becomes its own at once, so that the same head further on
    /// is seen to be in use. False if it is of another region, or there is no room.
    #[inline(always)]
    pub(in crate::virtio) fn add(&mut self, head: u16, addr: u64) -> bool {
        let (Some(segment), Some(room)) =
            (self.alike.at(addr), self.rooms.get_mut(usize::from(head)))
        else {
            cold_path();
            return false;
        };
        if room.exists() {
            cold_path();
            return false;
        }
        let Some(place) = self.places.next() else {
            cold_path();
            return false;
        };
        *room = segment;
        let addr = segment.addr() + u64::from(self.in_front);
        *place = RecvPlace { wr_id: u64::from(head), addr };
        true
    }

    /// What was staged.
    #[inline(always)]
    pub(in crate::virtio) fn end(self) -> Staged {
        let length = self.alike.length().saturating_sub(self.in_front);
        Staged { count: BATCH - self.places.len(), length, lkey: self.alike.lkey() }
    }
}

/// The region of a single buffer, for others of its length in there.
#[inline]
pub(super) fn look_for(
    regions: &RegionTable,
    near: &mut Near,
    (addr, length): (u64, u32),
) -> Option<Alike> {
    if length < NET_HEADER_LEN + FRAME_LEN_MIN {
        return None;
    }
    regions.find_near(near, addr, length)?;
    near.of_length(length)
}
