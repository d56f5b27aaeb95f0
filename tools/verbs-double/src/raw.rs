//! RAW_PACKET: whole Ethernet frames, segmented and summed on the way out, steered on the way in.
//!
//! Ports of one wire hear each other as on a hub; a frame does not come back to its own port,
//! neither to its queue pairs nor to its kernel side. With `loopback=on` one to a single station
//! comes back to the queue pairs that rules give it to, as devices with a switch inside do while
//! several contexts are open (mlx5_ib_enable_lb in the kernel).

use crate::abi::consts::*;
use crate::abi::work::Wc;
use crate::device::FRAME_EXTRA;
use crate::message::{Kind, Message};
use crate::queue_pair::{Extra, SendWqe};
use crate::segment;
use crate::steering::Verdict;
use crate::transport::{Arrival, byte_len};
use crate::world::World;

/// Shortest frame without its check sequence (IEEE 802.3 §3.2.7): shorter ones are padded.
const FRAME_MIN: usize = 60;
const ETHERNET_HEADER: usize = 14;

impl World {
    /// Sends a frame or a large one; returns the status of the send.
    pub(crate) fn send_raw(&mut self, handle: u32, wqe: &SendWqe) -> u32 {
        let Some(qp) = self.qps.get(handle) else { return WC_LOC_QP_OP_ERR };
        let number = qp.device;
        let Ok(payload) = self.payload(qp.pd, wqe) else { return WC_LOC_PROT_ERR };
        let config = &self.devices[number].config;
        let lies = config.lies;
        let sums = wqe.flags & SEND_IP_CSUM != 0 && !lies.checksum;
        let mut frames = if wqe.opcode == WR_TSO {
            // ibv_query_device_ex(3): "maximum payload size in bytes supported for segmentation".
            if byte_len(&payload) > config.limits.max_tso {
                return WC_LOC_LEN_ERR;
            }
            let mss = if lies.tso { usize::MAX / 2 } else { usize::from(wqe.mss) };
            match segment::segment(&wqe.header, &payload, mss) {
                Some(frames) => frames,
                None => return WC_LOC_QP_OP_ERR,
            }
        } else {
            vec![payload]
        };
        if frames.iter().any(|frame| frame.len() < ETHERNET_HEADER) {
            return WC_LOC_LEN_ERR;
        }
        for frame in &mut frames {
            if sums {
                segment::complete_checksums(frame);
            }
            self.send_frame(number, std::mem::take(frame));
        }
        WC_SUCCESS
    }

    /// Lets a frame out of a port, from a queue pair or from the kernel side.
    pub(crate) fn send_frame(&mut self, device: usize, mut frame: Vec<u8>) {
        let config = &self.devices[device].config;
        if frame.len() > usize::from(config.mtu) + FRAME_EXTRA {
            self.counters.frames_too_long += 1;
            return;
        }
        if !self.is_live(device) {
            self.counters.dropped_port_down += 1;
            return;
        }
        if self.loses(device) {
            return;
        }
        if frame.len() < FRAME_MIN {
            frame.resize(FRAME_MIN, 0);
        }
        let loss = &mut self.devices[device].loss;
        if loss.corrupt > 0 {
            loss.corrupt -= 1;
            // The last byte that a checksum covers.
            let end = segment::parse(&frame).map_or(frame.len(), |headers| headers.end);
            frame[end - 1] ^= 0xff;
        }
        self.counters.frames_sent += 1;
        let source = self.wire.port(device);
        let message = Message { kind: Kind::Frame, source, payload: frame, ..Message::default() };
        self.send_to_all(&message);
        self.inbox.push_back(message);
    }

    /// A frame came from the wire: to every port of this process but the one it came from.
    pub(crate) fn deliver_frame(&mut self, message: &Message) {
        for number in 0..self.devices.len() {
            let device = &self.devices[number];
            let listens = device.open > 0 || device.tap.is_some();
            let own = self.wire.port(number) == message.source;
            let back = device.config.loopback && device.open > 1 && message.payload[0] & 1 == 0;
            if listens && self.is_live(number) && (!own || back) {
                self.take_frame(number, &message.payload, own);
            }
        }
    }

    fn take_frame(&mut self, number: usize, frame: &[u8], own: bool) {
        let device = &self.devices[number];
        let mut verdict = device.steer(frame);
        verdict.kernel &= !own;
        let Verdict { copies, kernel } = verdict;
        let verified = device.checksums() && segment::checksums_verified(frame);
        if copies.is_empty() && !kernel {
            self.counters.frames_unwanted += 1;
        }
        for (handle, flow_tag) in copies {
            self.take_copy(handle, frame, (verified, flow_tag));
        }
        if let (true, Some(tap)) = (kernel, &self.devices[number].tap) {
            tap.write(frame);
            self.counters.frames_to_kernel += 1;
        }
    }

    fn take_copy(&mut self, handle: u32, frame: &[u8], (verified, flow_tag): (bool, u32)) {
        if !self.qps.get(handle).is_some_and(crate::queue_pair::Qp::receives_now) {
            self.counters.frames_unwanted += 1;
            return;
        }
        let Some(wqe) = self.take_receive(handle) else {
            self.counters.frames_no_receive += 1;
            return;
        };
        self.counters.frames_steered += 1;
        let wc = Wc {
            opcode: WC_OP_RECV,
            byte_len: byte_len(frame),
            wc_flags: if verified { WC_FLAG_IP_CSUM_OK } else { 0 },
            ..Wc::default()
        };
        let extra = Extra { flow_tag, solicited: false };
        self.land(handle, &wqe, Arrival { data: frame, wc, extra });
    }
}
