//! Frames that the device cuts: headers apart from payload, as `IBV_WR_TSO` wants them.

use arrayvec::ArrayVec;

use super::{HEADER_PLACE, SGES_MAX, Sends, Shape, TSO_HEADER_MAX};
use crate::nic::rdma::raw::link::Link;
use crate::nic::rdma::raw::tag::Tag;
use crate::nic::{Lkey, SegmentationRequest, Sge};

impl Sends {
    /// A frame that the device cuts: its headers apart from its payload.
    pub(super) fn add_large(
        &mut self,
        link: &mut Link,
        tag: Option<&Tag>,
        shape: &Shape<'_>,
        (segmentation, signalled): (SegmentationRequest, bool),
    ) -> Option<()> {
        let header_len = u32::from(segmentation.header_len);
        let mut payload: ArrayVec<Sge, SGES_MAX> = ArrayVec::new();
        let mut skip = header_len;
        for sge in shape.sges {
            let skipped = skip.min(sge.length);
            skip -= skipped;
            if skipped < sge.length {
                let addr = sge.addr + u64::from(skipped);
                payload.push(Sge { addr, length: sge.length - skipped, lkey: sge.lkey });
            }
        }
        // Most often all headers lie in the first element, which stays as it is until the send is
        // complete.
        let header = match shape.sges {
            [first, ..] if tag.is_none() && first.length >= header_len => {
                Sge { length: header_len, ..*first }
            }
            sges => self.copied_header(link, tag, (sges, header_len))?,
        };
        let fits = (14..=u32::from(TSO_HEADER_MAX)).contains(&header.length);
        if !fits || skip > 0 || payload.is_empty() {
            return None;
        }
        let send = self.request(signalled, true);
        self.counters.segmented += 1;
        if !signalled {
            return self.hold(send, &payload, Some((header, segmentation.size)));
        }
        // SAFETY: registered memory that the device half looked up, or a place of ours that no
        // other send of the batch has; either stays as it is until the batch is posted.
        unsafe { link.pair.send_tso(&send, header, segmentation.size, &payload) }.ok()
    }

    /// Headers in a place of their own, with the tag in them if there is one.
    fn copied_header(
        &mut self,
        link: &mut Link,
        tag: Option<&Tag>,
        (sges, header_len): (&[Sge], u32),
    ) -> Option<Sge> {
        if self.headers_used == self.headers.len() {
            let before = self.counters.doorbells;
            self.flush(link);
            self.counters.outgrown += self.counters.doorbells - before;
        }
        let mut bytes = [0_u8; HEADER_PLACE];
        let mut have = 0;
        for sge in sges {
            let left = usize::try_from(header_len).ok()?.checked_sub(have)?;
            let end = have + left.min(usize::try_from(sge.length).ok()?);
            read_into(*sge, bytes.get_mut(have..end)?);
            have = end;
        }
        let place = &mut self.headers[self.headers_used];
        self.headers_used += 1;
        let length = match tag {
            None => {
                *place = bytes;
                have
            }
            Some(tag) => tag.header(&bytes[..have], place),
        };
        let addr = u64::try_from(place.as_ptr().expose_provenance()).ok()?;
        Some(Sge { addr, length: u32::try_from(length).ok()?, lkey: Lkey(0) })
    }
}

/// Copies the first bytes of an element.
fn read_into(sge: Sge, out: &mut [u8]) {
    let from = std::ptr::with_exposed_provenance::<u8>(usize::try_from(sge.addr).unwrap_or(0));
    // SAFETY: at most the element's length, of registered memory in which the device half looked
    // it up and that nobody writes before the send is complete.
    unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
}
