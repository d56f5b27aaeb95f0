//! The VLAN tag of a host that lives in one VLAN, whose stack knows of none.
//!
//! Nothing is copied for it: on the way out the tag is an element of its own between the two
//! addresses and the rest of the frame, on the way in it lands in a place of its own.
//! Invariant: a place of a received tag belongs to one posted receive.

use arrayvec::ArrayVec;

use crate::memory::mapping::{Mapping, PageWish};
use crate::nic::{DeviceError, Lkey, Sge};
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::region::{Access, Region};

/// Bytes of both addresses, behind which the tag stands.
pub(super) const ADDRESSES_LEN: u32 = 12;
/// Bytes of a tag.
pub(super) const TAG_LEN: u32 = 4;
/// Bytes of a place: no two tags share a word.
const PLACE_LEN: u32 = 8;

/// The tag and its registered memory.
pub(super) struct Tag {
    /// Deregistered before it is unmapped.
    region: Region,
    mapping: Mapping,
    lkey: Lkey,
    bytes: [u8; 4],
    /// Places of received tags.
    places: u32,
}

impl Tag {
    /// Memory for the tag that is sent and for as many as receives are posted.
    pub(super) fn new(
        device: &str,
        domain: &ProtectionDomain,
        (vlan, places): (u16, u32),
    ) -> Result<Tag, DeviceError> {
        let length = usize::try_from((places + 1) * PLACE_LEN).unwrap_or(0);
        let mapping = Mapping::create(c"roceway-vlan", length, PageWish::Ordinary)
            .map_err(|error| error.into_device(device))?;
        let bytes = u64::try_from(mapping.len()).unwrap_or(0);
        // SAFETY: the region is dropped before the mapping; a place is named by one receive at a
        // time and read after its completion, the sent tag is never written again.
        let region = unsafe { domain.register(mapping.addr(), bytes, Access::LocalWrite) }?;
        let [high, low] = vlan.to_be_bytes();
        let lkey = region.lkey();
        let tag = Tag { region, mapping, lkey, bytes: [0x81, 0, high, low], places };
        // SAFETY: the last place of the mapping, which nobody else uses yet.
        unsafe { tag.at(places).write_unaligned(tag.bytes) };
        Ok(tag)
    }

    /// Bytes registered.
    pub(super) fn length(&self) -> u64 {
        self.region.length()
    }

    fn at(&self, place: u32) -> *mut [u8; 4] {
        assert!(place <= self.places, "within the mapping");
        let offset = usize::try_from(place * PLACE_LEN).unwrap_or(0);
        self.mapping.as_mut_ptr().wrapping_add(offset).cast()
    }

    fn sge(&self, place: u32) -> Sge {
        let addr = self.mapping.addr() + u64::from(place) * u64::from(PLACE_LEN);
        Sge { addr, length: TAG_LEN, lkey: self.lkey }
    }

    /// Puts the tag between addresses and rest; nothing if the first element ends within the
    /// addresses.
    pub(super) fn insert<const N: usize>(&self, sges: &[Sge]) -> Option<ArrayVec<Sge, N>> {
        split(sges, self.sge(self.places))
    }

    /// Where a tagged frame is received: its tag into a place of its own.
    pub(super) fn receive<const N: usize>(
        &self,
        place: u32,
        sges: &[Sge],
    ) -> Option<ArrayVec<Sge, N>> {
        split(sges, self.sge(place % self.places.max(1)))
    }

    /// A header of the stack with the tag in it; its length, 0 if it does not fit.
    pub(super) fn header(&self, header: &[u8], out: &mut [u8]) -> usize {
        let (at, behind) = (ADDRESSES_LEN as usize, (ADDRESSES_LEN + TAG_LEN) as usize);
        let length = header.len() + TAG_LEN as usize;
        if header.len() < at || length > out.len() {
            return 0;
        }
        out[..at].copy_from_slice(&header[..at]);
        out[at..behind].copy_from_slice(&self.bytes);
        out[behind..length].copy_from_slice(&header[at..]);
        length
    }

    /// Whether a received tag names our VLAN, whatever its priority.
    pub(super) fn is_ours(&self, place: u32) -> bool {
        // SAFETY: a place of the mapping whose receive is complete.
        let found = unsafe { self.at(place % self.places.max(1)).read_unaligned() };
        let vlan = |bytes: [u8; 4]| u16::from_be_bytes([bytes[2], bytes[3]]) & 0x0fff;
        found[..2] == self.bytes[..2] && vlan(found) == vlan(self.bytes)
    }
}

/// The elements with another one behind the addresses.
fn split<const N: usize>(sges: &[Sge], tag: Sge) -> Option<ArrayVec<Sge, N>> {
    let [first, rest @ ..] = sges else { return None };
    let length = first.length.checked_sub(ADDRESSES_LEN).filter(|length| *length > 0)?;
    let mut out = ArrayVec::new();
    let behind = Sge { addr: first.addr + u64::from(ADDRESSES_LEN), length, lkey: first.lkey };
    for sge in [Sge { length: ADDRESSES_LEN, ..*first }, tag, behind].iter().chain(rest) {
        out.try_push(*sge).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stands_behind_the_addresses_and_nothing_moves() {
        let lkey = Lkey(7);
        let sge = |addr: u64, length: u32| Sge { addr, length, lkey };
        let tag = sge(9000, 4);
        let out: ArrayVec<Sge, 4> = split(&[sge(100, 60), sge(500, 10)], tag).unwrap();
        assert_eq!(out[..], [sge(100, 12), tag, sge(112, 48), sge(500, 10)]);
        assert_eq!(split::<4>(&[sge(100, 12), sge(500, 10)], tag), None, "too short");
        assert_eq!(split::<3>(&[sge(100, 60), sge(500, 10)], tag), None, "too many");
    }
}
