//! The TAP NIC over a pair of sockets that keep message boundaries as a TAP does: no privilege
//! needed, and the peer is the test.

use std::os::fd::FromRawFd;
use std::time::Duration;

use super::super::{ChecksumRequest, Offload, Sge, WcChecksum, WcStatus};
use super::*;

const ARENA: usize = 1 << 18;

struct World {
    nic: TapNic,
    peer: OwnedFd,
    memory: Vec<u8>,
    lkey: Lkey,
}

fn pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` is two ints, as socketpair wants.
    let result = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
    assert_eq!(result, 0);
    // SAFETY: the fd is fresh and nobody else's.
    let first = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: the fd is fresh and nobody else's.
    let second = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    (first, second)
}

impl World {
    fn new(queue: u32) -> Self {
        let (fd, peer) = pair();
        let index = rtnl::Interface::new("lo").unwrap().index().unwrap();
        let watch = LinkWatch::open(index).unwrap();
        let capabilities = Capabilities {
            name: "tap:test".to_owned(),
            mac: None,
            mtu: 1500,
            wire: Wire::VirtioNet,
            receive: Receive::Spanning,
            max_message: MESSAGE_MAX,
            max_send_wr: queue,
            max_recv_wr: queue,
            max_send_sge: SEND_SGE_MAX,
            max_recv_sge: RECV_SGE_MAX,
            max_inline: INLINE_MAX,
            tx_checksum: true,
            rx_checksum: true,
            tso4: true,
            tso6: true,
            rx_large4: true,
            rx_large6: true,
            tso_ecn: true,
            uso: true,
            rx_ecn: true,
            rx_uso4: true,
            rx_uso6: true,
        };
        let mut nic = TapNic::assemble(capabilities, fd, watch, MESSAGE_MAX as usize).unwrap();
        nic.sends.link_up = true;
        let mut memory = vec![0_u8; ARENA];
        let addr = memory.as_mut_ptr().expose_provenance() as u64;
        let view = RegionView { addr, length: ARENA as u64, memfd: None, writable: true };
        // SAFETY: `memory` lives as long as the world and is not touched while posted.
        let lkey = unsafe { nic.register(view) }.unwrap();
        Self { nic, peer, memory, lkey }
    }

    fn sge(&self, offset: usize, length: usize) -> Sge {
        let addr = self.memory.as_ptr().expose_provenance() as u64 + offset as u64;
        Sge { addr, length: u32::try_from(length).unwrap(), lkey: self.lkey }
    }

    fn post_recv(&mut self, wr_id: u64, offset: usize, length: usize) {
        let sges = [self.sge(offset, length)];
        assert_eq!(self.nic.post_recv(&[RecvWr { wr_id, sges: &sges }]), Ok(1));
    }

    fn send(&mut self, wr_id: u64, sge: Sge, kind: Kind) -> Result<(), PostError> {
        let sges = [sge];
        self.nic.post_send(&SendWr {
            wr_id,
            sges: &sges,
            signalled: kind == Kind::Signalled,
            inline: kind == Kind::Inline,
            offload: Offload::default(),
        })
    }

    fn recv(&mut self) -> Vec<(u64, u32, bool)> {
        let mut out = [blank(); 64];
        let taken = self.nic.poll_recv(&mut out);
        out[..taken].iter().map(|c| (c.wr_id, c.byte_len, c.more)).collect()
    }

    fn sent(&mut self) -> Vec<(u64, WcStatus)> {
        let mut out = [blank(); 64];
        let taken = self.nic.poll_send(&mut out);
        out[..taken].iter().map(|c| (c.wr_id, c.status)).collect()
    }

    fn peer_send(&self, bytes: &[u8]) {
        let vector = IoVec { base: bytes.as_ptr().expose_provenance(), len: bytes.len() };
        // SAFETY: the vector is the slice.
        let result = unsafe { super::super::host::write_message(self.peer.as_raw_fd(), &[vector]) };
        assert_eq!(result, Io::Done(bytes.len()));
    }

    fn peer_recv(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0_u8; SPILL_LEN];
        let vector = IoVec { base: bytes.as_mut_ptr().expose_provenance(), len: bytes.len() };
        // SAFETY: the vector is the buffer.
        match unsafe { read_message(self.peer.as_raw_fd(), &[vector]) } {
            Io::Done(length) => {
                bytes.truncate(length);
                Some(bytes)
            }
            _ => None,
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.nic.visit_counters(&mut |n, value| {
            if n == name {
                found = Some(value);
            }
        });
        found.unwrap()
    }

    fn readable(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.nic.event_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, borrowed for the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Signalled,
    Unsignalled,
    Inline,
}

fn blank() -> Completion {
    Completion {
        wr_id: 0,
        status: WcStatus::General,
        byte_len: 0,
        more: false,
        checksum: WcChecksum::Unknown,
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + seed).to_le_bytes()[0]).collect()
}

#[test]
fn a_message_passes_whole_in_both_directions() {
    let mut world = World::new(64);
    let message = pattern(79, 3);
    world.memory[..79].copy_from_slice(&message);
    world.send(9, world.sge(0, 79), Kind::Signalled).unwrap();
    assert_eq!(world.peer_recv(), Some(message.clone()));
    assert_eq!(world.sent(), [(9, WcStatus::Success)]);
    world.post_recv(5, 4096, 2048);
    assert!(!world.nic.recv_ready());
    world.peer_send(&message);
    assert!(world.nic.recv_ready());
    assert!(world.nic.recv_ready(), "asking twice loses nothing");
    assert_eq!(world.recv(), [(5, 79, false)]);
    assert_eq!(world.memory[4096..4096 + 79], message);
    assert!(!world.nic.recv_ready());
}

#[test]
fn a_64_kib_message_spans_receives_of_4_kib() {
    let mut world = World::new(64);
    for i in 0..52 {
        world.post_recv(i, 4096 * index(i), 4096);
    }
    // The first by way of the NIC's own buffer, the others straight into the receives.
    let message = pattern(65_562, 1);
    for round in 0..3 {
        world.peer_send(&message);
        let completions = world.recv();
        assert_eq!(completions.len(), 17);
        check_span(&world, &completions, round * 17, &message);
    }
    // The unused one stays posted, and is too short for a second like those.
    world.peer_send(&pattern(5000, 7));
    assert_eq!(world.recv(), []);
    world.post_recv(52, 0, 4096);
    assert_eq!(world.recv(), [(51, 4096, true), (52, 904, false)]);
    assert_eq!(world.memory[51 * 4096..52 * 4096], pattern(5000, 7)[..4096]);
    assert_eq!(world.memory[..904], pattern(5000, 7)[4096..]);
}

fn check_span(world: &World, completions: &[(u64, u32, bool)], first: usize, message: &[u8]) {
    for (i, &(wr_id, length, more)) in completions.iter().enumerate() {
        assert_eq!(index(wr_id), first + i);
        assert_eq!((length, more), if i < 16 { (4096, true) } else { (26, false) });
    }
    let start = first * 4096;
    assert_eq!(&world.memory[start..start + message.len()], message);
}

#[test]
fn completions_that_do_not_fit_the_caller_s_array_come_with_the_next_call() {
    let mut world = World::new(64);
    for i in 0..8 {
        world.post_recv(i, 100 * index(i), 100);
    }
    world.peer_send(&pattern(450, 0));
    world.peer_send(&pattern(50, 0));
    let mut out = [blank(); 2];
    let mut all = Vec::new();
    while world.nic.recv_ready() {
        let taken = world.nic.poll_recv(&mut out);
        all.extend(out[..taken].iter().map(|c| (c.byte_len, c.more)));
    }
    let expected = [(100, true), (100, true), (100, true), (100, true), (50, false), (50, false)];
    assert_eq!(all, expected);
}

#[test]
fn a_message_longer_than_all_posted_receives_waits_for_more() {
    let mut world = World::new(64);
    world.post_recv(0, 0, 100);
    let (long, short) = (pattern(350, 1), pattern(20, 2));
    world.peer_send(&long);
    world.peer_send(&short);
    assert!(!world.nic.recv_ready());
    assert_eq!(world.recv(), []);
    assert_eq!(world.counter("rx_waited_for_buffers"), 1);
    for i in 1..4 {
        world.post_recv(i, 1000 * index(i), 100);
        assert_eq!(world.nic.recv_ready(), i == 3);
    }
    let expected = [(0, 100, true), (1, 100, true), (2, 100, true), (3, 50, false)];
    assert_eq!(world.recv(), expected);
    let got: Vec<u8> = [0, 1000, 2000]
        .iter()
        .flat_map(|&o| world.memory[o..o + 100].to_vec())
        .chain(world.memory[3000..3050].to_vec())
        .collect();
    assert_eq!(got, long);
    world.post_recv(4, 4000, 100);
    assert_eq!(world.recv(), [(4, 20, false)]);
    assert_eq!(world.memory[4000..4020], short);
}

#[test]
fn a_message_that_never_finds_room_is_dropped_and_counted() {
    let mut world = World::new(64);
    world.post_recv(0, 0, 100);
    world.peer_send(&pattern(200, 1));
    world.peer_send(&pattern(50, 2));
    assert!(!world.nic.recv_ready());
    world.nic.maintain(1).unwrap();
    world.nic.maintain(WAIT_NS_MAX).unwrap();
    assert!(!world.nic.recv_ready());
    world.nic.maintain(WAIT_NS_MAX + 1).unwrap();
    assert_eq!(world.counter("rx_dropped_no_buffers"), 1);
    assert_eq!(world.recv(), [(0, 50, false)]);
    assert_eq!(world.memory[..50], pattern(50, 2));
}

#[test]
fn back_pressure_keeps_sends_in_order_and_bounded() {
    let mut world = World::new(512);
    let kinds = [Kind::Signalled, Kind::Unsignalled, Kind::Inline, Kind::Signalled];
    let mut expected_done = Vec::new();
    let mut done = Vec::new();
    let mut posted = 0_usize;
    loop {
        let kind = kinds[posted % 4];
        let (offset, length) = (posted * 64, if kind == Kind::Inline { 40 } else { 64 });
        world.memory[offset..offset + length].copy_from_slice(&pattern(length, posted));
        match world.send(posted as u64, world.sge(offset, length), kind) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, PostError::QueueFull);
                break;
            }
        }
        if kind == Kind::Signalled {
            expected_done.push((posted as u64, WcStatus::Success));
        } else if kind == Kind::Inline {
            // Its bytes were read: the buffer is free again.
            world.memory[offset..offset + length].fill(0xee);
        }
        posted += 1;
        done.append(&mut world.sent());
        assert!(posted < 4000, "a socket takes everything");
    }
    assert!(world.counter("tx_waited") >= 512);
    for i in 0..posted {
        let length = if kinds[i % 4] == Kind::Inline { 40 } else { 64 };
        assert_eq!(world.peer_recv(), Some(pattern(length, i)), "message {i}");
        world.nic.doorbell();
        done.append(&mut world.sent());
    }
    assert_eq!(world.peer_recv(), None);
    assert_eq!(done, expected_done);
    assert_eq!(world.counter("tx_frames"), posted as u64);
}

#[test]
fn a_send_that_makes_no_progress_fails_and_frees_those_behind() {
    let mut world = World::new(64);
    let mut posted = 0;
    while world.counter("tx_waited") < 2 {
        world.send(posted, world.sge(0, 64), Kind::Unsignalled).unwrap();
        posted += 1;
    }
    world.nic.maintain(1_000).unwrap();
    world.nic.maintain(20_000_999).unwrap();
    assert_eq!(world.sent(), []);
    world.nic.maintain(20_001_000).unwrap();
    assert_eq!(world.sent(), [(posted - 2, WcStatus::RetryExceeded)]);
    assert_eq!(world.counter("tx_stuck"), 1);
    while world.peer_recv().is_some() {}
    world.nic.doorbell();
    assert!(world.peer_recv().is_some(), "the one behind it was sent");
}

#[test]
fn a_refused_request_posts_nothing() {
    let mut world = World::new(4);
    let good = world.sge(0, 64);
    let rows = [
        ("lkey", Sge { lkey: Lkey(7), ..good }, Kind::Signalled, PostError::BadLkey),
        ("bounds", world.sge(ARENA - 10, 11), Kind::Signalled, PostError::OutOfBounds),
        ("long", world.sge(0, 65_563), Kind::Signalled, PostError::TooLong),
        ("long inline", world.sge(0, 257), Kind::Inline, PostError::TooLong),
    ];
    for (name, sge, kind, expected) in rows {
        assert_eq!(world.send(1, sge, kind), Err(expected), "{name}");
    }
    let none = SendWr {
        wr_id: 0,
        sges: &[],
        signalled: true,
        inline: false,
        offload: Offload {
            checksum: Some(ChecksumRequest { start: 34, offset: 16 }),
            segmentation: None,
        },
    };
    assert_eq!(world.nic.post_send(&none), Err(PostError::SgeCount));
    assert_eq!(
        world.nic.post_send(&SendWr { sges: &[good; 33], ..none }),
        Err(PostError::SgeCount)
    );
    assert_eq!(world.peer_recv(), None);
    assert_eq!(world.sent(), []);
    let bad = [world.sge(ARENA, 1)];
    let wrs = [RecvWr { wr_id: 0, sges: &[good] }, RecvWr { wr_id: 1, sges: &bad }];
    assert_eq!(world.nic.post_recv(&wrs), Ok(1));
    assert_eq!(world.nic.post_recv(&wrs[1..]), Err(PostError::OutOfBounds));
}

#[test]
fn a_link_that_goes_down_flushes_waiting_sends_and_refuses_new_ones() {
    let mut world = World::new(64);
    let mut posted = 0;
    while world.counter("tx_waited") < 3 {
        world.send(posted, world.sge(0, 64), Kind::Unsignalled).unwrap();
        posted += 1;
    }
    world.post_recv(0, 0, 100);
    assert_eq!(world.nic.on_link(LinkState::Down), Some(NicEvent::LinkDown));
    assert_eq!(world.nic.on_link(LinkState::Down), None);
    let flushed: Vec<_> = (posted - 3..posted).map(|i| (i, WcStatus::Flushed)).collect();
    assert_eq!(world.sent(), flushed);
    assert_eq!(world.send(0, world.sge(0, 1), Kind::Inline), Err(PostError::LinkDown));
    assert_eq!(world.nic.on_link(LinkState::Up), Some(NicEvent::LinkUp));
    world.peer_send(&[1]);
    assert_eq!(world.recv(), [(0, 1, false)], "receives stay posted");
    world.post_recv(1, 0, 100);
    assert_eq!(world.nic.on_link(LinkState::Gone), Some(NicEvent::Removed));
    let mut out = [blank(); 4];
    assert_eq!(world.nic.poll_recv(&mut out), 1);
    assert_eq!((out[0].wr_id, out[0].status), (1, WcStatus::Flushed));
    assert_eq!(world.nic.arm().unwrap(), Armed::Quiet);
    assert_eq!(world.nic.maintain(1 << 40).unwrap(), None);
}

#[test]
fn an_armed_nic_wakes_for_what_it_can_serve_only() {
    let mut world = World::new(64);
    // Nothing posted: a frame cannot be served, so it must not end the sleep.
    world.peer_send(&[1]);
    assert_eq!(world.nic.arm().unwrap(), Armed::Quiet);
    assert!(!world.readable());
    world.nic.disarm();
    world.post_recv(0, 0, 100);
    assert_eq!(world.nic.arm().unwrap(), Armed::Pending);
    assert_eq!(world.recv(), [(0, 1, false)]);
    world.post_recv(1, 0, 100);
    assert_eq!(world.nic.arm().unwrap(), Armed::Quiet);
    assert!(!world.readable());
    world.peer_send(&[2]);
    assert!(world.readable());
    world.nic.disarm();
    assert!(!world.readable(), "a spinning worker is not woken");
    assert_eq!(world.recv(), [(1, 1, false)]);
    // A waiting send wakes when there is room again.
    while world.counter("tx_waited") == 0 {
        world.send(7, world.sge(0, 64), Kind::Signalled).unwrap();
        world.sent();
    }
    assert_eq!(world.nic.arm().unwrap(), Armed::Quiet);
    assert!(!world.readable());
    while world.peer_recv().is_some() {}
    std::thread::sleep(Duration::from_millis(1));
    assert!(world.readable());
    world.nic.disarm();
    assert_eq!(world.sent(), [(7, WcStatus::Success)]);
}

#[test]
fn a_burst_is_read_in_steps_that_double() {
    let mut world = World::new(64);
    for i in 0..64 {
        world.post_recv(i, 64 * index(i), 64);
    }
    for i in 0..20 {
        world.peer_send(&[i]);
    }
    let mut steps = Vec::new();
    while world.nic.recv_ready() {
        steps.push(world.recv().len());
    }
    assert_eq!(steps, [1, 2, 4, 8, 5]);
    world.peer_send(&[0]);
    assert!(world.nic.recv_ready());
    assert_eq!(world.recv().len(), 1);
}

fn index(i: u64) -> usize {
    usize::try_from(i).unwrap()
}
