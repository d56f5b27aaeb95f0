//! The header in front of every message on a queue pair of the wire: 24 bytes, big-endian.
//!
//! Only bytes and values; what they mean for credits is in `credit`. A header's length is the
//! same in every version that talks with version 1, since receives of all peers are posted before
//! it is known who will fill them.

/// The version that this code speaks.
pub const VERSION: u8 = 1;
/// The oldest version that it still talks to.
pub const VERSION_MIN: u8 = 1;
/// Bytes of a header.
pub const HEADER_LEN: usize = 24;
/// [`HEADER_LEN`] as lengths of messages are counted.
pub const HEADER_BYTES: u32 = 24;
/// Bytes at the beginning of a header that are the same in all data messages of a session.
pub const START_LEN: usize = 12;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A virtio-net header and a frame follow; it uses one credit.
    Data,
    /// A credit update: nothing but the header; needs no credit.
    Credit,
    /// Asks for a credit update, where messages may be lost (UD); needs no credit.
    Probe,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Data => 1,
            Kind::Credit => 2,
            Kind::Probe => 3,
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        [Kind::Data, Kind::Credit, Kind::Probe].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// The header. Counts are of data messages of one session, and wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// The number that the receiver gave this session.
    pub session: u32,
    /// The sender's process, different for each start.
    pub incarnation: u32,
    /// Data messages that the sender sent before this message.
    pub sequence: u32,
    /// Data messages that the receiver of this header may have sent, in all.
    pub limit: u32,
    /// The highest limit that the sender has seen from the receiver.
    pub echo: u32,
}

/// Why bytes are no header of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// A version that is not spoken.
    Version,
    /// A kind that this version does not know.
    Kind,
}

impl Header {
    /// What does not change from one data message of a session to the next: the first bytes.
    #[must_use]
    pub fn data_start(session: u32, incarnation: u32) -> [u8; START_LEN] {
        let header =
            Header { kind: Kind::Data, session, incarnation, sequence: 0, limit: 0, echo: 0 };
        let mut start = [0; START_LEN];
        start.copy_from_slice(&header.encode()[..START_LEN]);
        start
    }

    /// Sequence, limit and echo.
    #[must_use]
    #[inline(always)]
    pub fn counts(bytes: &[u8; HEADER_LEN]) -> [u32; 3] {
        let [.., s0, s1, s2, s3, l0, l1, l2, l3, e0, e1, e2, e3] = *bytes;
        [[s0, s1, s2, s3], [l0, l1, l2, l3], [e0, e1, e2, e3]].map(u32::from_be_bytes)
    }

    /// Writes a data message's header, as it lies on the wire, of how its session's begin.
    #[inline(always)]
    pub fn write_data(
        bytes: &mut [u8; HEADER_LEN],
        start: &[u8; START_LEN],
        counts: (u32, u32, u32),
    ) {
        bytes[..START_LEN].copy_from_slice(start);
        bytes[12..16].copy_from_slice(&counts.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&counts.1.to_be_bytes());
        bytes[20..24].copy_from_slice(&counts.2.to_be_bytes());
    }

    /// As it lies on the wire.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = VERSION;
        bytes[1] = self.kind.byte();
        bytes[4..8].copy_from_slice(&self.session.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.limit.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.echo.to_be_bytes());
        bytes
    }

    /// Reads it. Bytes 2 and 3 are reserved and not looked at.
    ///
    /// # Errors
    /// If version or kind are not known.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, HeaderError> {
        if !(VERSION_MIN..=VERSION).contains(&bytes[0]) {
            return Err(HeaderError::Version);
        }
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Ok(Header {
            kind: Kind::of(bytes[1]).ok_or(HeaderError::Kind)?,
            session: word(4),
            incarnation: word(8),
            sequence: word(12),
            limit: word(16),
            echo: word(20),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { kind: Kind::Data, session: 1, incarnation: 2, sequence: 3, limit: 4, echo: 5 };

    #[test]
    fn what_is_written_is_read() {
        for kind in [Kind::Data, Kind::Credit, Kind::Probe] {
            let header = Header { kind, ..HEADER };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn unknown_versions_and_kinds_are_refused_and_reserved_bytes_are_not_looked_at() {
        let rows = [
            ("version 0", 0, 0, Err(HeaderError::Version)),
            ("version 2", 0, 2, Err(HeaderError::Version)),
            ("kind 0", 1, 0, Err(HeaderError::Kind)),
            ("kind 4", 1, 4, Err(HeaderError::Kind)),
            ("reserved", 2, 0xff, Ok(HEADER)),
            ("reserved", 3, 0xff, Ok(HEADER)),
        ];
        for (name, at, byte, expected) in rows {
            let mut bytes = HEADER.encode();
            bytes[at] = byte;
            assert_eq!(Header::decode(&bytes), expected, "{name}");
        }
    }
}
