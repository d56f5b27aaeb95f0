//! Headers and options: the usual, the edges, and nonsense.

use std::vec;

use proptest::prelude::*;

use super::*;

const HEADER: TcpHeader = TcpHeader {
    source_port: 0x1234,
    destination_port: 80,
    seq: SeqNum::new(0xdead_beef),
    ack: SeqNum::new(0x0102_0304),
    flags: TcpFlags::SYN.with(TcpFlags::ACK),
    window: 0xfffe,
    urgent: 7,
    header_len: 20,
};

#[test]
fn rfc9293_3_1_the_layout() {
    let mut out = [0xaa; 20];
    HEADER.emit(&mut out);
    let expected =
        [0x12, 0x34, 0, 80, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 0x50, 0x12, 0xff, 0xfe, 0, 0, 0, 7];
    assert_eq!(out, expected);
    assert_eq!(TcpHeader::parse(&out), Ok(HEADER));
}

#[test]
fn lengths_are_checked() {
    let mut bytes = [0; 60];
    for (offset, len, expected) in [
        (5, 0, Err(TcpHeaderError::Truncated)),
        (5, 19, Err(TcpHeaderError::Truncated)),
        (5, 20, Ok(20)),
        (0, 60, Err(TcpHeaderError::DataOffset)),
        (4, 60, Err(TcpHeaderError::DataOffset)),
        (6, 20, Err(TcpHeaderError::Truncated)),
        (6, 24, Ok(24)),
        (15, 59, Err(TcpHeaderError::Truncated)),
        (15, 60, Ok(60)),
    ] {
        bytes[12] = offset << 4;
        let parsed = TcpHeader::parse(&bytes[..len]).map(|it| it.header_len);
        assert_eq!(parsed, expected, "offset {offset}, {len} bytes");
    }
}

#[test]
fn flags_combine() {
    let it = TcpFlags::SYN.with(TcpFlags::FIN);
    assert!(it.contains(TcpFlags::SYN) && it.intersects(TcpFlags::FIN.with(TcpFlags::RST)));
    assert!(!it.contains(TcpFlags::SYN.with(TcpFlags::ACK)) && !it.intersects(TcpFlags::RST));
    assert_eq!(it.without(TcpFlags::SYN), TcpFlags::FIN);
    assert_eq!(TcpFlags::from_bits(it.bits()), it);
}

fn sack(start: u32, end: u32) -> SackBlock {
    SackBlock { start: SeqNum::new(start), end: SeqNum::new(end) }
}

#[test]
fn options_of_each_kind() {
    let none = Options::default();
    let timestamps = Some(Timestamps { value: 1, echo: 2 });
    let rows: &[(&str, &[u8], Options)] = &[
        ("nothing", &[], none.clone()),
        ("MSS", &[2, 4, 5, 0xb4], Options { mss: Some(1460), ..none.clone() }),
        ("window scale", &[1, 3, 3, 7], Options { window_scale: Some(7), ..none.clone() }),
        (
            "RFC 7323 §2.3: a scale above 14",
            &[3, 3, 255],
            Options { window_scale: Some(14), ..none.clone() },
        ),
        ("SACK permitted", &[4, 2], Options { sack_permitted: true, ..none.clone() }),
        ("timestamps", &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2], Options { timestamps, ..none.clone() }),
        (
            "SACK",
            &[5, 10, 0, 0, 0, 3, 0, 0, 0, 4],
            Options { sack: [sack(3, 4)].into_iter().collect(), ..none.clone() },
        ),
        (
            "after an unknown one",
            &[254, 5, 9, 9, 9, 4, 2],
            Options { sack_permitted: true, ..none.clone() },
        ),
        ("after the end", &[0, 4, 2], none.clone()),
        (
            "wrong lengths of known kinds",
            &[2, 3, 1, 3, 4, 1, 1, 4, 3, 0, 8, 4, 0, 0, 5, 3, 1],
            none.clone(),
        ),
        ("length 0", &[9, 0, 4, 2], none.clone()),
        ("length 1", &[9, 1, 4, 2], none.clone()),
        ("length beyond the header", &[8, 10, 0, 0, 0, 1], none.clone()),
        ("no length", &[4], none.clone()),
    ];
    for (name, bytes, expected) in rows {
        assert_eq!(Options::parse(bytes), *expected, "{name}");
    }
}

#[test]
fn no_more_sack_blocks_are_taken_than_fit_into_a_header() {
    let mut bytes = vec![kind::SACK, 2 + 8 * 6];
    bytes.extend([1; 48]);
    assert_eq!(Options::parse(&bytes).sack.len(), SACK_BLOCKS_MAX);
}

#[test]
fn rfc7323_a_the_aligned_timestamps() {
    let timestamps = Timestamps { value: 0x0102_0304, echo: 0xfffe_fdfc };
    let mut out = [0; 12];
    emit_aligned_timestamps(&mut out, timestamps);
    assert_eq!(aligned_timestamps(&out), Some(timestamps));
    assert_eq!(Options::parse(&out).timestamps, Some(timestamps));
    for at in 0..4 {
        let mut other = out;
        other[at] ^= 1;
        assert_eq!(aligned_timestamps(&other), None);
    }
    assert_eq!(aligned_timestamps(&out[..11]), None);
    assert_eq!(aligned_timestamps(&[&out[..], &[0; 4]].concat()), None);
}

proptest! {
    #[test]
    fn any_bytes_parse_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Options::parse(&bytes);
        let _ = aligned_timestamps(&bytes);
        if let Ok(header) = TcpHeader::parse(&bytes) {
            let options = header.options(&bytes);
            prop_assert_eq!(options.len() + 20, usize::from(header.header_len));
            let mut again = [0; 20];
            header.emit(&mut again);
            // Not the checksum, nor the reserved bits beside the data offset.
            for at in (0..20).filter(|at| ![12, 16, 17].contains(at)) {
                prop_assert_eq!(again[at], bytes[at], "byte {}", at);
            }
            prop_assert_eq!(again[12], bytes[12] & 0xf0);
        }
    }
}
