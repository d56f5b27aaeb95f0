//! The parsers of single headers: none panics, and what they read comes back when it is written.

use roceway_stack::checksum::{Sum, copy_and_sum};
use roceway_stack::tcp::options::{WantedOptions, grant};
use roceway_stack::wire::arp::ArpPacket;
use roceway_stack::wire::ethernet::EthernetHeader;
use roceway_stack::wire::icmpv4::IcmpHeader;
use roceway_stack::wire::ipv4::Ipv4View;
use roceway_stack::wire::ipv6::Ipv6View;
use roceway_stack::wire::ndp::NdpMessage;
use roceway_stack::wire::tcp::{Options, TcpHeader, aligned_timestamps};
use roceway_stack::wire::udp::UdpHeader;

/// The target: a byte says which parser, the rest is for it.
pub(crate) fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 8 {
        0 => ethernet(bytes),
        1 => arp(bytes),
        2 => ipv4(bytes),
        3 => ipv6(bytes),
        4 => tcp(bytes),
        5 => options(bytes),
        6 => small(bytes),
        _ => sums(bytes),
    }
}

fn ethernet(bytes: &[u8]) {
    if let Some(header) = EthernetHeader::parse(bytes) {
        assert_eq!(header.to_bytes()[..], bytes[..14]);
    }
}

fn arp(bytes: &[u8]) {
    if let Some(packet) = ArpPacket::parse(bytes) {
        let again = ArpPacket::parse(&packet.to_bytes()).expect("what was written is read");
        assert_eq!(again, packet);
    }
}

fn ipv4(bytes: &[u8]) {
    for view in [Ipv4View::new(bytes), Ipv4View::quoted(bytes)].into_iter().flatten() {
        assert!((20..=60).contains(&view.header_len()));
        assert!(view.fragment_offset() <= 65_528);
        let _ = (view.source(), view.destination(), view.protocol(), view.more_fragments());
    }
    if let Ok(view) = Ipv4View::new(bytes) {
        assert!(view.header_len() <= usize::from(view.total_len()));
        assert!(Sum::of(&bytes[..view.header_len()]).is_valid());
    }
}

fn ipv6(bytes: &[u8]) {
    if let Ok(view) = Ipv6View::new(bytes) {
        let _ = (view.source(), view.destination(), view.next_header(), view.payload_len());
    }
}

fn tcp(bytes: &[u8]) {
    let Ok(header) = TcpHeader::parse(bytes) else { return };
    assert!(usize::from(header.header_len) <= bytes.len() && header.header_len >= 20);
    let mut out = [0; 20];
    header.emit(&mut out);
    assert_eq!(out[..12], bytes[..12]);
    assert_eq!(out[13..16], bytes[13..16]);
    options(header.options(bytes));
}

fn options(bytes: &[u8]) {
    let options = Options::parse(bytes);
    assert!(options.window_scale.is_none_or(|scale| scale <= 14));
    if let Some(timestamps) = aligned_timestamps(bytes) {
        assert_eq!(options.timestamps, Some(timestamps));
    }
    // What is granted for what was read fits, and reads as what it grants.
    let wanted = WantedOptions {
        mss: options.mss,
        window_scale: options.window_scale,
        sack_permitted: options.sack_permitted,
        timestamps: options.timestamps,
        sack: &options.sack,
    };
    let granted = grant(&wanted);
    assert!(granted.len() <= 40 && granted.len().is_multiple_of(4));
    let again = Options::parse(&granted);
    assert!(again.timestamps == options.timestamps && again.mss == options.mss);
}

fn small(bytes: &[u8]) {
    if let Some(header) = UdpHeader::parse(bytes) {
        assert_eq!(UdpHeader::parse(&header.to_bytes()), Some(header));
    }
    if let Some(message) = NdpMessage::parse(bytes) {
        let (again, length) = message.to_bytes();
        assert_eq!(NdpMessage::parse(&again[..length]), Some(message));
    }
    if let Some(header) = IcmpHeader::parse(bytes) {
        let _ = (header.to_bytes(), header.rest_u32());
    }
}

/// The fast sums against the slow one of RFC 1071.
fn sums(bytes: &[u8]) {
    let mut slow = 0_u64;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        slow += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while slow > 0xffff {
        slow = (slow & 0xffff) + (slow >> 16);
    }
    let slow = !u16::try_from(slow).unwrap_or(0);
    assert_eq!(Sum::of(bytes).checksum(), slow);
    let mut copy = vec![0; bytes.len()];
    assert_eq!(copy_and_sum(&mut copy, bytes).checksum(), slow);
    assert_eq!(copy, bytes);
    let (first, second) = bytes.split_at(bytes.len() / 3);
    assert_eq!(Sum::of(first).plus_at(first.len(), Sum::of(second)).checksum(), slow);
}

/// One header for each parser.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..8)
        .map(|which| {
            let mut seed = vec![which];
            seed.resize(70, 0x45);
            seed
        })
        .collect();
    let syn = [5, 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    seeds.push(syn.to_vec());
    seeds.push([&[5, 1, 1, 8, 10][..], &[1; 8], &[1, 1, 5, 18], &[9; 16]].concat());
    seeds
}
