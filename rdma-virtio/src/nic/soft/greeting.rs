//! What the two sides say to each other on the socket, and the checks of what the peer shows.
//!
//! Each side sends a greeting with its memory, checks and maps what the other one shows, and says
//! that it is ready. Nothing that the peer says is used before it was checked; an unknown or
//! malformed word ends the connection.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::channel::{Fds, WORDS_LEN_MAX};
use super::layout::{
    BOUNCE_REGION, EXPORTS_MAX, MAGIC, RING_OFFSET, SLOT_LEN, SLOTS_MAX, SLOTS_MIN, VERSION,
};
use super::receiver::Shown;
use super::shared::SharedMemory;
use crate::memory::mapping::{MAPPING_LEN_MAX, Mapping};
use crate::nic::Accepted;

/// The first byte of each message on the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Word {
    /// A greeting; the rest is a [`Greeting`].
    Greeting = 1,
    /// The sender has mapped what the receiver shows.
    Ready = 2,
    /// Wakes a sleeper.
    Wake = 3,
    /// The sender gives the link up since the receiver stalls.
    Stalled = 4,
    /// Two others are linked already.
    Busy = 5,
    /// The sender refuses the receiver; the rest says why.
    Refused = 6,
}

impl Word {
    /// The word that a message begins with.
    pub(super) fn of(bytes: &[u8]) -> Option<Word> {
        let words =
            [Word::Greeting, Word::Ready, Word::Wake, Word::Stalled, Word::Busy, Word::Refused];
        let first = bytes.first()?;
        words.into_iter().find(|word| word.byte() == *first)
    }

    /// As it lies in the message.
    pub(super) fn byte(self) -> u8 {
        match self {
            Word::Greeting => 1,
            Word::Ready => 2,
            Word::Wake => 3,
            Word::Stalled => 4,
            Word::Busy => 5,
            Word::Refused => 6,
        }
    }
}

/// A region as its owner announces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Export {
    /// Length of the whole memfd.
    pub(super) file_len: u64,
    /// First byte of the region in the memfd.
    pub(super) start: u64,
    /// Bytes of the region.
    pub(super) length: u64,
}

/// What each side says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Greeting {
    /// Different for each NIC that was ever opened.
    pub(super) identity: u64,
    /// Slots of its ring.
    pub(super) slots: u32,
    /// Its MTU.
    pub(super) mtu: u16,
    /// Whether its messages are bare frames.
    pub(super) frames: bool,
    /// Whether barriers may be forced on it and it forces them itself.
    pub(super) forces_barriers: bool,
    /// What it takes whole.
    pub(super) accepted: Accepted,
    /// Bytes of its bounce area, behind its ring.
    pub(super) bounce_len: u64,
    /// Length of its link memory.
    pub(super) link_len: u64,
    /// Its regions, in order of their numbers.
    pub(super) exports: ArrayVec<Export, EXPORTS_MAX>,
}

/// The peer's memory, mapped and checked.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its link memory.
    pub(super) link: Arc<SharedMemory>,
    /// Its regions.
    pub(super) shown: ArrayVec<Shown, { EXPORTS_MAX + 1 }>,
}

impl Greeting {
    /// As it goes over the socket.
    pub(super) fn encode(&self) -> ArrayVec<u8, WORDS_LEN_MAX> {
        let mut bytes = ArrayVec::new();
        let mut put = |part: &[u8]| bytes.extend(part.iter().copied());
        put(&[Word::Greeting.byte()]);
        put(&MAGIC.to_le_bytes());
        put(&VERSION.to_le_bytes());
        put(&self.identity.to_le_bytes());
        put(&self.slots.to_le_bytes());
        put(&self.mtu.to_le_bytes());
        put(&[
            u8::from(self.frames),
            u8::from(self.forces_barriers),
            u8::try_from(self.exports.len()).unwrap_or(0),
            bits_of(&self.accepted),
        ]);
        put(&self.bounce_len.to_le_bytes());
        put(&self.link_len.to_le_bytes());
        for export in &self.exports {
            put(&export.file_len.to_le_bytes());
            put(&export.start.to_le_bytes());
            put(&export.length.to_le_bytes());
        }
        bytes
    }

    /// From the socket.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Greeting, String> {
        let mut reader = Reader { bytes };
        let [word] = reader.array()?;
        if word != Word::Greeting.byte() {
            return Err("it does not begin with a greeting".to_owned());
        }
        if reader.u64()? != MAGIC {
            return Err("it is not a soft NIC".to_owned());
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(format!("it speaks version {version}, this side version {VERSION}"));
        }
        let identity = reader.u64()?;
        let slots = reader.u32()?;
        let mtu = u16::from_le_bytes(reader.array()?);
        let [frames, forces_barriers, count, bits] = reader.array()?;
        let bounce_len = reader.u64()?;
        let link_len = reader.u64()?;
        let mut exports = ArrayVec::new();
        for _ in 0..count {
            let export =
                Export { file_len: reader.u64()?, start: reader.u64()?, length: reader.u64()? };
            exports.try_push(export).map_err(|_| format!("it shows {count} regions"))?;
        }
        Ok(Greeting {
            identity,
            slots,
            mtu,
            frames: frames != 0,
            forces_barriers: forces_barriers != 0,
            accepted: accepted_of(bits),
            bounce_len,
            link_len,
            exports,
        })
    }

    /// Length of the link memory that this geometry needs.
    pub(super) fn link_len_of(slots: u32, bounce_len: usize) -> usize {
        let ring = usize::try_from(slots).unwrap_or(0) * SLOT_LEN;
        (RING_OFFSET + ring + bounce_len).next_multiple_of(4096)
    }

    /// Checks what the peer says against its memory, and maps that.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub(super) fn open(&self, fds: Fds) -> Result<Opened, String> {
        if !self.slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&self.slots) {
            return Err(format!("its ring has {} slots", self.slots));
        }
        if fds.len() != self.exports.len() + 1 {
            return Err(format!(
                "{} descriptors came for {} regions",
                fds.len(),
                self.exports.len()
            ));
        }
        let bounce_len = length(self.bounce_len)?;
        let link_len = length(self.link_len)?;
        if link_len != Greeting::link_len_of(self.slots, bounce_len) {
            return Err(format!("its link memory is {link_len} bytes long"));
        }
        let mut fds = fds.into_iter();
        let mut open = |length: usize| -> Result<Arc<SharedMemory>, String> {
            let fd: OwnedFd = fds.next().ok_or("a descriptor is missing")?;
            Mapping::open_sealed(fd, length)
                .map(|found| Arc::new(SharedMemory(found)))
                .map_err(|error| error.to_string())
        };
        let link = open(link_len)?;
        let mut shown = ArrayVec::new();
        for (number, export) in self.exports.iter().enumerate() {
            let file_len = length(export.file_len)?;
            let (start, bytes) = (length(export.start)?, length(export.length)?);
            if start.checked_add(bytes).is_none_or(|end| end > file_len) || bytes == 0 {
                return Err("a region leaves its memory".to_owned());
            }
            let number = u8::try_from(number).map_err(|_| "too many regions")?;
            shown.push(Shown { number, memory: open(file_len)?, start, length: bytes });
        }
        if bounce_len > 0 {
            let start = RING_OFFSET + usize::try_from(self.slots).unwrap_or(0) * SLOT_LEN;
            let memory = Arc::clone(&link);
            shown.push(Shown { number: BOUNCE_REGION, memory, start, length: bounce_len });
        }
        Ok(Opened { link, shown })
    }
}

/// What is taken, a bit each, the first the lowest.
fn bits_of(accepted: &Accepted) -> u8 {
    let Accepted { checksum, large4, large6, ecn, uso4, uso6 } = *accepted;
    let all = [checksum, large4, large6, ecn, uso4, uso6];
    all.iter().rev().fold(0, |bits, &taken| bits << 1 | u8::from(taken))
}

fn accepted_of(bits: u8) -> Accepted {
    let [checksum, large4, large6, ecn, uso4, uso6] =
        std::array::from_fn(|place| bits >> place & 1 != 0);
    Accepted { checksum, large4, large6, ecn, uso4, uso6 }
}

/// A length that this process could map.
fn length(announced: u64) -> Result<usize, String> {
    usize::try_from(announced)
        .ok()
        .filter(|length| *length <= MAPPING_LEN_MAX)
        .ok_or_else(|| format!("it announces {announced} bytes"))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let Some((first, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err("its greeting is too short".to_owned());
        };
        self.bytes = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        let mut exports = ArrayVec::new();
        exports.push(Export { file_len: 8192, start: 4096, length: 4096 });
        Greeting {
            identity: 77,
            slots: 512,
            mtu: 1500,
            frames: false,
            forces_barriers: true,
            accepted: Accepted { large4: true, uso6: true, ..Accepted::default() },
            bounce_len: 0,
            link_len: 69_632,
            exports,
        }
    }

    #[test]
    fn a_greeting_comes_back_as_it_was_sent_and_no_prefix_of_it_is_taken() {
        let bytes = greeting().encode();
        assert_eq!(Greeting::decode(&bytes), Ok(greeting()));
        for length in 0..bytes.len() {
            assert!(Greeting::decode(&bytes[..length]).is_err(), "{length}");
        }
        let mut other = bytes.clone();
        other[9] ^= 1;
        assert!(Greeting::decode(&other).unwrap_err().contains("version"));
        other[3] ^= 1;
        assert!(Greeting::decode(&other).unwrap_err().contains("not a soft NIC"));
    }

    #[test]
    fn a_word_is_known_or_none() {
        for byte in 0..=u8::MAX {
            let word = Word::of(&[byte]);
            assert_eq!(word.is_some(), (1..=6).contains(&byte));
            assert!(word.is_none_or(|word| word.byte() == byte));
        }
        assert_eq!(Word::of(&[]), None);
    }
}
