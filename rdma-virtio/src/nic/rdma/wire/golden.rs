//! Stored bytes of version 1: they never change, and every later version that talks with version
//! 1 reads them. The same bytes stand in `docs/wire.md`.

use super::exchange::tests::HELLO;
use super::exchange::{PREFIX_LEN, Parting, Refusal, Word};
use super::header::{Header, Kind};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len() / 2)
        .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

const DATA: &str = "01 01 0000 dead0001 0badcafe 00000005 00000012 0000000d";
const CREDIT: &str = "01 02 0000 dead0001 0badcafe ffffffff 00000003 00000000";
const PROBE: &str = "01 03 0000 dead0001 0badcafe 00000000 0000000d 0000000d";

const HELLO_WORD: &str = "52635779 01 01 0044
    01 01 01 00 02000000000a 05dc 0001003e
    00000011 00abcdef 12345678
    00000000000000000000ffff0a090001
    dead0001 0badcafe 000d 12bc 03000000 0123456789abcdef";
const REFUSE_WORD: &str = "52635779 03 01 000c 03010100 00002328 00000000";
const READY_WORD: &str = "52635779 04 01 0000";
const BYE_CLOSING: &str = "52635779 05 01 0004 00000000";
const HELLO_SHORT: &str = "52635779  01010101 02000000000a 05dc 0001003e 00000011 00abcdef 12345678
    dead0001 0badcafe 000d 12bc 03000000 0123456789abcdef";
const REFUSE_SHORT: &str = "52635779  03010103 00002328 00000000";
const BYE_BROKEN: &str = "52635779 05 01 0004 01000000";

#[test]
fn headers_of_version_1_are_these_bytes() {
    let header = |kind, sequence, limit, echo| Header {
        kind,
        session: 0xdead_0001,
        incarnation: 0x0bad_cafe,
        sequence,
        limit,
        echo,
    };
    let rows = [
        (DATA, header(Kind::Data, 5, 18, 13)),
        (CREDIT, header(Kind::Credit, u32::MAX, 3, 0)),
        (PROBE, header(Kind::Probe, 0, 13, 13)),
    ];
    for (stored, value) in rows {
        assert_eq!(value.encode()[..], bytes(stored), "{value:?}");
        assert_eq!(Header::decode(bytes(stored).first_chunk().unwrap()), Ok(value));
    }
}

#[test]
fn words_of_version_1_are_these_bytes() {
    let rows = [
        (HELLO_WORD, Word::Hello(HELLO)),
        (REFUSE_WORD, Word::Refuse(Refusal::Mtu, 9000)),
        (READY_WORD, Word::Ready),
        (BYE_CLOSING, Word::Bye(Parting::Closing)),
        (BYE_BROKEN, Word::Bye(Parting::Broken)),
    ];
    for (stored, word) in rows {
        let stored = bytes(stored);
        assert_eq!(word.encode()[..], stored, "{word:?}");
        assert_eq!(Word::decode(stored[4], &stored[PREFIX_LEN..]), Ok(word));
    }
    let mut accept = bytes(HELLO_WORD);
    accept[4] = 2;
    assert_eq!(Word::Accept(HELLO).encode()[..], accept);
}

#[test]
fn words_through_the_connection_manager_are_these_bytes() {
    let rows =
        [(HELLO_SHORT, Word::Hello(HELLO)), (REFUSE_SHORT, Word::Refuse(Refusal::Mtu, 9000))];
    for (stored, word) in rows {
        let stored = bytes(stored);
        assert_eq!(word.encode_short().unwrap()[..], stored, "{word:?}");
        assert_eq!(Word::decode_short(&stored, HELLO.endpoint.gid), Ok(word));
    }
}

#[test]
fn the_specification_shows_the_stored_bytes() {
    let text = include_str!("../../../../../docs/wire.md");
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let page = squeezed(text);
    for stored in [
        DATA,
        CREDIT,
        PROBE,
        HELLO_WORD,
        REFUSE_WORD,
        READY_WORD,
        BYE_CLOSING,
        HELLO_SHORT,
        REFUSE_SHORT,
    ] {
        assert!(page.contains(&squeezed(stored)), "{stored}");
    }
}
