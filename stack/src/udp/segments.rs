//! Several datagrams in one frame (virtio 1.2 §5.1.6, `VIRTIO_NET_HDR_GSO_UDP_L4`): sent as one
//! that the device cuts, and received as one that is cut here, each datagram with its own bounds.
//!
//! Invariants: a large frame has at most [`SEGMENTS_MAX`] datagrams, all of one size but the last;
//! every datagram received is queued or dropped by itself, and counted.

use core::net::SocketAddr;

use arrayvec::ArrayVec;

use super::receive::Datagram;
use super::send::{Build, Outgoing, PAYLOAD_MAX, Prepared};
use super::{Udp, UdpContext, UdpDrop, UdpError, UdpId};
use crate::frame::RxFrame;
use crate::ip::{Packet, release};
use crate::memory::{Memory, Piece};

/// Most datagrams of one frame; what Linux takes in one call (`UDP_MAX_SEGMENTS`).
pub(super) const SEGMENTS_MAX: usize = 64;
/// Most pieces that one datagram of a large frame lies in.
const PIECES_MAX: usize = 34;

impl Udp {
    /// Sends `data` as datagrams of `size` bytes each, the last one with what is left, to `to` or
    /// to the connected peer: as frames that the device cuts where it can, else one by one. Says
    /// how many bytes were taken: whole datagrams, and less than all of them if room ran out.
    ///
    /// # Errors
    ///
    /// [`UdpError::MessageTooLong`] if `size` is 0 or does not fit a packet; otherwise as
    /// [`Udp::send_to`], of the first datagram.
    pub fn send_segments<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        (data, size): (&[u8], u16),
        to: Option<SocketAddr>,
    ) -> Result<usize, UdpError> {
        if size == 0 {
            return Err(UdpError::MessageTooLong);
        }
        let size = usize::from(size);
        let mut taken = 0;
        while taken < data.len() {
            let rest = &data[taken..];
            let count = self.segments_at_once(cx, id, to, (rest.len(), size))?;
            let part = &rest[..rest.len().min(count * size)];
            let sent = if count > 1 {
                self.send_large(cx, id, part, size)
            } else {
                self.send_to(cx, id, part, to)
            };
            match sent {
                Ok(()) => taken += part.len(),
                Err(_) if taken > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// How many datagrams the next frame may have.
    fn segments_at_once<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        to: Option<SocketAddr>,
        (len, size): (usize, usize),
    ) -> Result<usize, UdpError> {
        let socket = self.sockets.get(id).ok_or(UdpError::NotFound)?;
        let target = to.or(socket.remote).ok_or(UdpError::NotConnected)?;
        let mtu = match cx.ip.route(target.ip()) {
            Some(route) => usize::from(route.mtu),
            None => return Ok(1),
        };
        let headers = if target.is_ipv6() { 48 } else { 28 };
        if size + headers > mtu {
            return Err(UdpError::MessageTooLong);
        }
        let is_known = socket.template.holds_for(to, cx.ip.neighbor_generation())
            || matches!(self.prepare(cx, id, target), Ok(Prepared::Ready));
        let whole = len.div_ceil(size).min(SEGMENTS_MAX).min(PAYLOAD_MAX / size);
        Ok(if cx.offloads.uso && is_known { whole.max(1) } else { 1 })
    }

    /// Queues one frame with several datagrams, with the headers that the socket keeps.
    fn send_large<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        data: &[u8],
        size: usize,
    ) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.frames_queued >= self.config.send_frames {
            return self.block(id);
        }
        let count = data.len().div_ceil(size);
        let ident = cx.ip.next_ident();
        for _ in 1..count {
            // Each datagram will have one of its own.
            let _taken = cx.ip.next_ident();
        }
        let mut build = Build {
            mem: cx.mem,
            chain: &mut self.chain,
            cut: &mut self.cut,
            socket: id,
            template: &socket.template,
        };
        if !build.whole(data, ident, true) {
            return self.block(id);
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        for frame in self.cut.drain(..) {
            self.outgoing.push_back(Outgoing { segment: size, ..frame });
        }
        socket.frames_queued += 1;
        self.counters.sent += u64::try_from(count).unwrap_or(0);
        self.counters.sent_large += 1;
        Ok(())
    }

    /// Takes a frame with several datagrams; the first one is counted as received already.
    #[cold]
    pub(super) fn take_coalesced<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        (frame, size): (&RxFrame<'_>, u32),
        packet: &Packet,
        whole: &Datagram,
    ) -> Result<(), UdpDrop> {
        let count = whole.len.div_ceil(size);
        if count < 2 || usize::try_from(count).is_ok_and(|count| count > 2 * SEGMENTS_MAX) {
            return Err(UdpDrop::Coalesced);
        }
        self.counters.received += u64::from(count - 1);
        self.counters.received_large += 1;
        for number in 0..count {
            let start = whole.start + number * size;
            let len = size.min(whole.len - number * size);
            let pieces = range_of(frame.pieces, start, len);
            for piece in &pieces {
                cx.mem.retain(piece.slot);
            }
            let one = Datagram { start: 0, len, ..*whole };
            if let Err(reason) = self.queue(cx, &pieces, packet, &one) {
                self.drops.add(reason);
                release(&pieces, cx.mem);
            }
        }
        release(frame.pieces, cx.mem);
        Ok(())
    }
}

/// The pieces of `len` bytes from `start`.
fn range_of(pieces: &[Piece], start: u32, len: u32) -> ArrayVec<Piece, PIECES_MAX> {
    let mut range = ArrayVec::new();
    let (mut skip, mut left) = (start, len);
    for piece in pieces {
        let rest = piece.skip(skip.min(piece.len));
        skip -= piece.len - rest.len;
        let part = rest.take(left.min(rest.len));
        left -= part.len;
        if part.len > 0 && range.try_push(part).is_err() {
            break;
        }
    }
    range
}
