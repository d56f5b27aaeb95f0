//! Frames that nobody honest sends: whatever comes, nothing panics and everything is counted.

use super::*;
use proptest::prelude::*;

/// A frame that gets past the first checks, so that random bytes reach the deeper ones.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let parts = (
        0usize..5,
        proptest::sample::select(std::vec![1u8, 6, 17, 58, 0, 44, 99]),
        proptest::collection::vec(any::<u8>(), 0..120),
        any::<u16>(),
        any::<bool>(),
    );
    parts.prop_map(|(kind, protocol, payload, flags_and_offset, fragment)| match kind {
        0 => link(OUR_MAC, ethertype::ARP, &payload),
        1 | 2 => {
            let flags_and_offset = if fragment { flags_and_offset } else { 0 };
            frame_v4(
                Ipv4Header { flags_and_offset, ..header_v4(protocol, payload.len()) },
                &payload,
            )
        }
        3 => {
            let header = Ipv6Header { hop_limit: 255, ..header_v6(58, payload.len()) };
            let mut message = payload;
            if message.len() >= 8 {
                message[0] = [1, 2, 4, 128, 135, 136][usize::from(message[0]) % 6];
                message[1] = 0;
                message[2..4].fill(0);
                let checksum = pseudo_icmp_v6(&header).plus(Sum::of(&message)).checksum();
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
            }
            frame_v6(header, &message)
        }
        _ => frame_v6(header_v6(protocol, payload.len()), &payload),
    })
}

proptest! {
    #[test]
    fn random_frames_are_counted_once(
        frames in proptest::collection::vec(
            prop_oneof![proptest::collection::vec(any::<u8>(), 1..200), plausible()],
            1..40,
        ),
        steps in proptest::collection::vec(0u64..40_000, 40),
    ) {
        let mut world = World::new();
        for (bytes, step) in frames.iter().zip(&steps) {
            let _: Incoming = world.give(bytes);
            world.wait(Duration::from_millis(*step));
            let _: Resolution = world.ip.resolve(world.now, PEER_V4.into());
            world.ip.check();
        }
        world.sent();
    }

    #[test]
    fn frames_cut_anywhere_are_counted_once(
        bytes in plausible(), cut in any::<proptest::sample::Index>()
    ) {
        let mut world = World::new();
        let cut = cut.index(bytes.len()).max(1);
        let _: Incoming = world.give(&bytes[..cut]);
        world.sent();
    }

    #[test]
    fn a_flipped_bit_in_the_ipv4_header_never_passes(bit in 0usize..160, opened in any::<bool>()) {
        let mut world = World::new();
        let mut frame = frame_v4(header_v4(6, 20), &[0; 20]);
        if opened {
            let _: Incoming = world.give(&frame);
        }
        frame[14 + bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(world.give(&frame), Incoming::Consumed);
    }
}

#[test]
fn a_frame_without_pieces_is_counted() {
    let mut world = World::new();
    let frame = RxFrame { pieces: &[], checksum: RxChecksum::Unknown, gso_size: 0 };
    let incoming = world.ip.on_frame(world.now, &frame, &mut world.mem);
    assert_eq!(incoming, Incoming::Consumed);
    assert_eq!(world.ip.drops().get(IpDrop::Truncated), 1);
}
