//! Posted receives against a naive model.

use std::os::fd::AsRawFd;

use proptest::prelude::*;

use super::super::regions::Regions;
use super::super::{
    Completion, Offload, PostError, RecvWr, RegionView, SendWr, Sge, WcChecksum, WcStatus,
};
use super::IoVec;
use super::receives::{RECV_SGE_MAX, Receives};
use super::sends::{Sends, without};

fn blank() -> Completion {
    Completion {
        wr_id: 0,
        status: WcStatus::General,
        byte_len: 0,
        more: false,
        checksum: WcChecksum::Unknown,
    }
}

/// A step of the model: post receives of these element lengths, or deliver so many bytes.
#[derive(Clone, Debug)]
enum Step {
    Post(Vec<u32>),
    Deliver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec(0_u32..40, 1..6).prop_map(Step::Post),
        (1_usize..150).prop_map(Step::Deliver),
    ]
}

#[test]
fn the_signal_of_the_newest_send_can_be_asked_for_afterwards() {
    let sink = std::fs::File::create("/dev/null").unwrap();
    let memory = [7_u8; 64];
    let addr = memory.as_ptr().expose_provenance() as u64;
    let mut regions = Regions::default();
    let view = RegionView { addr, length: 64, memfd: None, writable: false };
    let lkey = regions.add("test", view).unwrap();
    let mut sends = Sends::new(8, 64, false);
    sends.link_up = true;
    let sges = [Sge { addr, length: 64, lkey }];
    let mut out = [blank(); 8];
    for (name, signals, asked) in [
        ("nothing", &[][..], None),
        ("unsignalled", &[false, false], Some(1)),
        ("signalled", &[false, true], None),
        ("both", &[true, false], Some(1)),
    ] {
        for (wr_id, &signalled) in (0..).zip(signals) {
            let offload = Offload::default();
            let wr = SendWr { wr_id, sges: &sges, signalled, inline: false, offload };
            sends.post(sink.as_raw_fd(), &wr, &regions).unwrap();
        }
        let _ = sends.take(&mut out);
        assert_eq!(sends.signal_last(), asked.is_some(), "{name}");
        let count = sends.take(&mut out);
        assert_eq!(out[..count].first().map(|done| done.wr_id), asked, "{name}");
        assert!(!sends.signal_last(), "{name}, twice");
    }
}

const ARENA: usize = 8192;

/// The queue under test with memory of its own, beside a model made of plain vectors.
struct World {
    memory: Vec<u8>,
    regions: Regions,
    receives: Receives,
    /// Posted, oldest first: wr_id and (offset, length) of the elements.
    model: Vec<(u64, Vec<(usize, usize)>)>,
    next_id: u64,
    next_offset: usize,
    next_byte: u8,
}

impl World {
    fn new(max_wr: u32) -> Self {
        let mut memory = vec![0_u8; ARENA];
        let addr = memory.as_mut_ptr().expose_provenance() as u64;
        let mut regions = Regions::default();
        let view = RegionView { addr, length: ARENA as u64, memfd: None, writable: true };
        regions.add("test", view).unwrap();
        let receives = Receives::new(max_wr);
        let model = Vec::new();
        Self { memory, regions, receives, model, next_id: 0, next_offset: 0, next_byte: 0 }
    }

    fn post(&mut self, lengths: &[u32]) {
        let base = self.memory.as_mut_ptr().expose_provenance() as u64;
        let mut sges = Vec::new();
        let mut places = Vec::new();
        for &length in lengths {
            if self.next_offset + length as usize > ARENA {
                self.next_offset = 0;
            }
            let addr = base + self.next_offset as u64;
            sges.push(Sge { addr, length, lkey: super::super::Lkey(0) });
            places.push((self.next_offset, length as usize));
            self.next_offset += length as usize;
        }
        let wr = RecvWr { wr_id: self.next_id, sges: &sges };
        let result = self.receives.post_all(&[wr], &self.regions);
        if lengths.iter().sum::<u32>() == 0 {
            assert_eq!(result, Err(PostError::SgeCount));
        } else if result.is_ok() {
            self.model.push((self.next_id, places));
        } else {
            assert_eq!(result, Err(PostError::QueueFull));
        }
        self.next_id += 1;
    }

    fn room(&self) -> usize {
        self.model.iter().flat_map(|(_, places)| places).map(|p| p.1).sum()
    }

    fn deliver(&mut self, length: usize) {
        assert_eq!(self.receives.room(), self.room());
        if self.room() < length {
            return;
        }
        self.next_byte = self.next_byte.wrapping_add(1);
        let start = usize::from(self.next_byte);
        let message: Vec<u8> = (0..length).map(|i| (start + i).to_le_bytes()[0]).collect();
        let split = length / 3;
        // SAFETY: `message` is no part of the posted ranges.
        unsafe { self.receives.scatter(0, message.as_ptr(), split) };
        let rest = &message[split..];
        // SAFETY: `message` is no part of the posted ranges.
        unsafe { self.receives.scatter(split, rest.as_ptr(), rest.len()) };
        let mut gathered = vec![0; length];
        self.receives.gather(&mut gathered);
        assert_eq!(gathered, message);
        self.receives.complete(length);
        self.compare(&message);
    }

    /// The completions and the bytes in the buffers are those of the model.
    fn compare(&mut self, message: &[u8]) {
        let mut out = [blank(); 64];
        let taken = self.receives.take(&mut out, 0);
        let mut at = 0;
        for completion in &out[..taken] {
            let (wr_id, places) = self.model.remove(0);
            assert_eq!(completion.wr_id, wr_id);
            assert_eq!(completion.status, WcStatus::Success);
            let mut left = completion.byte_len as usize;
            for (offset, length) in places {
                let take = left.min(length);
                assert_eq!(&self.memory[offset..offset + take], &message[at..at + take]);
                at += take;
                left -= take;
            }
            assert_eq!(left, 0);
            assert_eq!(completion.more, at < message.len());
        }
        assert_eq!(at, message.len());
    }
}

proptest! {
    #[test]
    fn messages_fill_receives_in_posting_order(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World::new(64);
        for step in steps {
            match step {
                Step::Post(lengths) => world.post(&lengths),
                Step::Deliver(length) => world.deliver(length),
            }
        }
    }
}

#[test]
fn the_queue_is_bounded_in_requests_and_elements() {
    let mut world = World::new(4);
    for _ in 0..5 {
        world.post(&[8]);
    }
    assert_eq!(world.model.len(), 4);
    let mut world = World::new(4);
    for _ in 0..3 {
        world.post(&[1; RECV_SGE_MAX as usize]);
    }
    assert_eq!(world.model.len(), 0, "20 elements are more than 4 receives may have");
    world.post(&[1; 16]);
    world.post(&[1]);
    assert_eq!(world.model.len(), 1);
}

#[test]
fn flushed_receives_complete_in_order() {
    let mut world = World::new(8);
    for _ in 0..3 {
        world.post(&[8]);
    }
    world.receives.flush();
    let mut out = [blank(); 8];
    assert_eq!(world.receives.take(&mut out, 0), 3);
    assert_eq!(out[..3].iter().map(|c| c.wr_id).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(out[..3].iter().all(|c| c.status == WcStatus::Flushed && c.byte_len == 0));
    assert_eq!(world.receives.room(), 0);
}

#[test]
fn a_short_kernel_header_leaves_out_num_buffers() {
    let v = |base, len| IoVec { base, len };
    let rows = [
        ("one element", vec![v(100, 79)], vec![v(100, 10), v(112, 67)]),
        ("header alone", vec![v(100, 12), v(500, 66)], vec![v(100, 10), v(500, 66)]),
        ("cut inside", vec![v(100, 11), v(500, 66)], vec![v(100, 10), v(501, 65)]),
        (
            "cut before",
            vec![v(100, 4), v(200, 6), v(300, 9)],
            vec![v(100, 4), v(200, 6), v(302, 7)],
        ),
        ("header only", vec![v(100, 12)], vec![v(100, 10)]),
        ("less than a header", vec![v(100, 5)], vec![v(100, 5)]),
    ];
    for (name, message, expected) in rows {
        let result = without(&message, 10, 12).unwrap();
        assert_eq!(result.as_slice(), expected, "{name}");
    }
}
