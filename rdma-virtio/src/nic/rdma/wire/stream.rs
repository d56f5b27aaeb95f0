//! Words out of a byte stream that comes in any pieces.
//!
//! Invariant: holds at most one word's bytes; whatever cannot become a word is found out at its
//! first wrong byte that is there.

use arrayvec::ArrayVec;

use super::exchange::{BODY_MAX, MAGIC, PREFIX_LEN, Word, WordError};

/// Bytes of the word that is coming in.
#[derive(Clone, Debug, Default)]
pub struct WordStream {
    bytes: ArrayVec<u8, { PREFIX_LEN + BODY_MAX }>,
}

impl WordStream {
    /// Takes from the front of `input` what belongs to the present word; gives the word if it is
    /// whole.
    ///
    /// # Errors
    /// If no word can come of it: the conversation is over.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Word>, WordError> {
        while !input.is_empty() {
            let missing = self.wanted()?.saturating_sub(self.bytes.len());
            let (now, later) = input.split_at(missing.min(input.len()));
            self.bytes.extend(now.iter().copied());
            *input = later;
            let wanted = self.wanted()?;
            if self.bytes.len() >= PREFIX_LEN && self.bytes.len() == wanted {
                let word = Word::decode(self.bytes[4], &self.bytes[PREFIX_LEN..])?;
                self.bytes.clear();
                return Ok(Some(word));
            }
        }
        Ok(None)
    }

    /// Whether a word has begun.
    #[must_use]
    pub fn is_midway(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Bytes of the word, as far as is known.
    fn wanted(&self) -> Result<usize, WordError> {
        let have = self.bytes.len().min(MAGIC.len());
        if self.bytes[..have] != MAGIC[..have] {
            return Err(WordError::Magic);
        }
        if self.bytes.len() < PREFIX_LEN {
            return Ok(PREFIX_LEN);
        }
        let length = usize::from(u16::from_be_bytes([self.bytes[6], self.bytes[7]]));
        if length > BODY_MAX {
            return Err(WordError::Malformed);
        }
        Ok(PREFIX_LEN + length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::HELLO;
    use super::super::exchange::{Parting, Refusal};
    use super::*;

    #[test]
    fn words_come_out_however_they_were_cut() {
        let words = [
            Word::Hello(HELLO),
            Word::Ready,
            Word::Refuse(Refusal::Mtu, 9000),
            Word::Bye(Parting::Broken),
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.encode()).collect();
        for piece in [1, 2, 3, 7, 8, 9, 64, 1000] {
            let mut stream = WordStream::default();
            let mut found = Vec::new();
            for mut part in bytes.chunks(piece) {
                while let Some(word) = stream.take(&mut part).unwrap() {
                    found.push(word);
                }
            }
            assert_eq!(found, words, "pieces of {piece}");
            assert!(!stream.is_midway());
        }
    }

    #[test]
    fn what_is_no_word_is_found_out_at_once() {
        let mut long = Word::Ready.encode().to_vec();
        long[6..8].copy_from_slice(&257_u16.to_be_bytes());
        let rows: [(&str, &[u8], WordError); 4] = [
            ("another protocol", b"GET / HTTP/1.1", WordError::Magic),
            ("its first byte", b"X", WordError::Magic),
            ("a body that is too long", &long, WordError::Malformed),
            ("an unknown kind", b"RcWy\x09\x01\0\0", WordError::Malformed),
        ];
        for (name, mut bytes, expected) in rows {
            assert_eq!(WordStream::default().take(&mut bytes), Err(expected), "{name}");
        }
    }
}
