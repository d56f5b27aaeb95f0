//! Hostile bytes for the wire's pure part: for tests and, with `--cfg fuzzing`, for fuzz targets.
//!
//! Fails by a panic: of the code, or as counts do not add up.

use std::net::{IpAddr, Ipv4Addr};

use super::counters::WireCounters;
use super::credit::{Arrival, CREDITS_MAX, Credit, Delivery};
use super::exchange::{Endpoint, Mode, Word};
use super::header::{HEADER_LEN, Header, Kind};
use super::macs::Macs;
use super::peer::{PeerId, Prepared};
use super::peers::{Action, Admission, Identity, Outside, Peers, Prefix};
use super::stream::WordStream;

/// Headers in a row, from a peer that says anything.
pub fn headers(data: &[u8]) {
    for delivery in [Delivery::Reliable, Delivery::Datagram] {
        let mut credit = Credit::new(delivery, 8, 8);
        for bytes in data.as_chunks::<HEADER_LEN>().0 {
            let Ok(mut header) = Header::decode(bytes) else { continue };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
            // Half of them near to sense.
            if bytes[2] & 1 == 1 {
                header.sequence &= 15;
                header.limit &= 31;
                header.echo &= 7;
            }
            if let Arrival::Violation(_) = credit.on_header(&header) {
                break;
            }
            assert!(credit.outstanding() <= CREDITS_MAX && credit.available() <= CREDITS_MAX);
            credit.grant(8_u32.saturating_sub(credit.outstanding()));
            if credit.available() > 0 && bytes[3] & 1 == 1 {
                let _ = credit.data_header(0, 0);
            }
            let _ = credit.control_header(Kind::Credit, (0, 0), 0);
        }
    }
}

/// What a host says that may call: any bytes, in pieces, over several connections.
pub fn words(data: &[u8]) {
    let any = Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), bits: 0 };
    let identity = Identity {
        mode: Mode::Rc,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        message_max: 65_598,
        port: 4796,
        incarnation: 1,
        host: 1,
    };
    let admission = Admission { listed: vec![], accept: vec![any], peers_max: 2 };
    let mut peers = Peers::new(identity, admission, 1);
    let mut counters = WireCounters::default();
    let mut macs = Macs::new(identity.mac, 1);
    let mut now_ns = 0;
    for call in data.split(|byte| *byte == 0xfe).take(8) {
        let mut outside = Outside { now_ns, counters: &mut counters, macs: &mut macs };
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::from(call.len() & 1 == 1)));
        let Some(conn) = peers.on_incoming(ip, &mut outside) else { continue };
        let gid = [1; 16];
        if let Ok(word) = Word::decode_short(call, gid) {
            let again = word.encode_short().expect("it came as private data");
            assert_eq!(Word::decode_short(&again, gid), Ok(word));
            peers.on_word(conn, word, &mut outside);
            serve(&mut peers, &mut outside);
        }
        let mut stream = WordStream::default();
        for mut piece in call.chunks(1 + call.len() / 3) {
            loop {
                match stream.take(&mut piece) {
                    Ok(Some(word)) => peers.on_word(conn, word, &mut outside),
                    Ok(None) => break,
                    Err(error) => {
                        peers.on_garbage(conn, error, &mut outside);
                        break;
                    }
                }
                serve(&mut peers, &mut outside);
            }
        }
        now_ns += 1;
    }
    let mut outside = Outside { now_ns, counters: &mut counters, macs: &mut macs };
    peers.close(&mut outside);
    serve(&mut peers, &mut outside);
    assert_eq!(peers.up_count(), 0);
    assert_eq!(counters.sessions_up, counters.sessions_down);
    assert_eq!(macs.count(), 0);
}

/// Queue pairs are made and connected, in the mind.
fn serve(peers: &mut Peers, outside: &mut Outside<'_>) {
    while let Some(action) = peers.poll_action() {
        match action {
            Action::Prepare { peer } => {
                let endpoint = Endpoint { qpn: 9, path_mtu: 3, ..Endpoint::default() };
                let prepared = Prepared { endpoint, credits: 4 };
                peers.on_prepared(peer, (peer != PeerId(9)).then_some(prepared), outside);
            }
            Action::Establish { peer, hello, .. } => {
                peers.on_established(peer, hello.credits != 0, outside);
            }
            Action::Dial { .. }
            | Action::Say { .. }
            | Action::HangUp { .. }
            | Action::Up { .. }
            | Action::Down { .. }
            | Action::Doubt { .. }
            | Action::Replaced { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::exchange::tests::HELLO;
    use super::*;

    #[test]
    fn two_good_hellos_of_one_host_are_one_session() {
        let mut data = Word::Hello(HELLO).encode().to_vec();
        data.extend(Word::Ready.encode());
        let once = data.clone();
        data.push(0xfe);
        data.extend(once);
        words(&data);
    }

    proptest! {
        #[test]
        fn any_bytes_leave_the_table_whole(
            mut data in proptest::collection::vec(any::<u8>(), 0..400), hellos in 0_usize..4
        ) {
            for _ in 0..hellos {
                let at = data.len() / 2;
                let hello = Word::Hello(HELLO);
                data.splice(at..at, hello.encode());
                data.splice(0..0, hello.encode_short().unwrap());
            }
            words(&data);
        }

        #[test]
        fn any_headers_leave_the_credits_whole(
            mut data in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            for chunk in data.chunks_mut(HEADER_LEN) {
                chunk[0] = 1;
                if let Some(kind) = chunk.get_mut(1) {
                    *kind %= 4;
                }
            }
            headers(&data);
        }
    }
}
