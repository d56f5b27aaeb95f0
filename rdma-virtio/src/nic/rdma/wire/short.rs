//! Words as the private data of the connection manager's messages, which take 56 bytes.
//!
//! Hello and Accept go without their GID, which is the address that the message comes from, and
//! refusals as they are; each with the kind of word in its fourth byte, which is 0 otherwise. The
//! manager's own messages stand for the others: "ready to use" for Ready, the end of the
//! connection for Bye. Bytes and values only.

use arrayvec::ArrayVec;

use super::exchange::{HELLO_LEN, MAGIC, PREFIX_LEN, REFUSE_LEN, Word, WordError};

/// Bytes of a hello: as many as a request on a reliable connection carries.
pub const SHORT_LEN: usize = HELLO_LEN - GID_LEN + MAGIC.len();

const GID_AT: usize = 28;
const GID_LEN: usize = 16;
/// Where the kind of word stands in a body.
const KIND_AT: usize = 3;
const _: () = assert!(SHORT_LEN == 56);

impl Word {
    /// As private data; nothing for words that the manager says itself.
    #[must_use]
    pub fn encode_short(&self) -> Option<ArrayVec<u8, SHORT_LEN>> {
        let long = self.encode();
        let (kind, body) = (long[MAGIC.len()], &long[PREFIX_LEN..]);
        let mut bytes: ArrayVec<u8, SHORT_LEN> = ArrayVec::new();
        bytes.extend(MAGIC);
        match self {
            Word::Hello(_) | Word::Accept(_) => {
                bytes.extend(body[..GID_AT].iter().copied());
                bytes.extend(body[GID_AT + GID_LEN..].iter().copied());
            }
            Word::Refuse(..) => bytes.extend(body.iter().copied()),
            Word::Ready | Word::Bye(_) => return None,
        }
        bytes[MAGIC.len() + KIND_AT] = kind;
        Some(bytes)
    }

    /// The word in private data that came from the port with this GID. What follows it, which the
    /// manager fills up with zeroes, is not looked at.
    ///
    /// # Errors
    /// If there is none.
    pub fn decode_short(bytes: &[u8], gid: [u8; GID_LEN]) -> Result<Word, WordError> {
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(WordError::Magic);
        };
        if *magic != MAGIC {
            return Err(WordError::Magic);
        }
        let kind = *rest.get(KIND_AT).ok_or(WordError::Malformed)?;
        let mut body = [0; HELLO_LEN];
        let length = if kind == 3 { REFUSE_LEN } else { HELLO_LEN - GID_LEN };
        let found = rest.get(..length).ok_or(WordError::Malformed)?;
        if kind == 3 {
            body[..length].copy_from_slice(found);
        } else {
            body[..GID_AT].copy_from_slice(&found[..GID_AT]);
            body[GID_AT..GID_AT + GID_LEN].copy_from_slice(&gid);
            body[GID_AT + GID_LEN..].copy_from_slice(&found[GID_AT..]);
        }
        body[KIND_AT] = 0;
        match kind {
            1..=3 => Word::decode(kind, &body),
            _ => Err(WordError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::HELLO;
    use super::super::exchange::{Parting, Refusal};
    use super::*;

    const GID: [u8; 16] = HELLO.endpoint.gid;

    #[test]
    fn words_survive_the_short_way() {
        let words = [Word::Hello(HELLO), Word::Accept(HELLO), Word::Refuse(Refusal::Mtu, 9000)];
        for word in words {
            let mut bytes = word.encode_short().unwrap().to_vec();
            assert!(bytes.len() <= SHORT_LEN);
            bytes.resize(196, 0);
            assert_eq!(Word::decode_short(&bytes, GID), Ok(word));
        }
        assert!(Word::Ready.encode_short().is_none());
        assert!(Word::Bye(Parting::Closing).encode_short().is_none());
    }

    #[test]
    fn what_is_no_word_is_refused_at_every_length() {
        let bytes = Word::Hello(HELLO).encode_short().unwrap();
        for length in 0..bytes.len() {
            assert!(Word::decode_short(&bytes[..length], GID).is_err());
        }
        for kind in [0, 4, 5, 255] {
            let mut other = bytes.clone();
            other[7] = kind;
            assert_eq!(Word::decode_short(&other, GID), Err(WordError::Malformed));
        }
        let mut other = bytes.clone();
        other[0] = b'X';
        assert_eq!(Word::decode_short(&other, GID), Err(WordError::Magic));
        assert_eq!(Word::decode_short(&bytes, [0; 16]), Err(WordError::Malformed));
    }
}
