//! What travels between ports: one structure for all transports, and its bytes between processes.
//! It is the double's own format; nothing of it is InfiniBand's.

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    /// An Ethernet frame.
    #[default]
    Frame,
    /// A message of a UD queue pair.
    Datagram,
    /// SEND of an RC queue pair.
    Send,
    /// RDMA WRITE, with immediate data if the flag says so.
    Write,
    /// RDMA READ request.
    ReadRequest,
    /// RDMA READ response.
    ReadResponse,
    /// Acknowledgement, or its refusal by [`Message::status`].
    Ack,
    /// First message of a connection: who speaks.
    Hello,
}

const KINDS: [Kind; 8] = [
    Kind::Frame,
    Kind::Datagram,
    Kind::Send,
    Kind::Write,
    Kind::ReadRequest,
    Kind::ReadResponse,
    Kind::Ack,
    Kind::Hello,
];

/// The solicited event bit.
pub(crate) const SOLICITED: u8 = 1;
/// Immediate data is there.
pub(crate) const IMMEDIATE: u8 = 2;
/// The addresses are those of RoCE v2, whose IPv4 form has an IPv4 header.
pub(crate) const ROCE_V2: u8 = 4;

/// Sent again since no acknowledgement came in time; in an answer: that one was new.
pub(crate) const PROBE: u8 = 8;

/// Answers of a responder.
pub(crate) mod answer {
    /// Done.
    pub(crate) const OK: u8 = 0;
    /// No receive was posted (RNR NAK); [`super::Message::length`] is the timer's code.
    pub(crate) const NOT_READY: u8 = 1;
    /// A message is missing before this one.
    pub(crate) const SEQUENCE: u8 = 2;
    /// The message does not fit the receive.
    pub(crate) const INVALID_REQUEST: u8 = 3;
    /// The key, range or right is wrong.
    pub(crate) const ACCESS: u8 = 4;
    /// The responder's own receive was wrong.
    pub(crate) const OPERATION: u8 = 5;
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// What it is.
    pub(crate) kind: Kind,
    /// Bits above.
    pub(crate) flags: u8,
    /// One of [`answer`].
    pub(crate) status: u8,
    /// Traffic class.
    pub(crate) class: u8,
    /// Hop limit.
    pub(crate) hops: u8,
    /// Service level.
    pub(crate) level: u8,
    /// Sending queue pair; the sending port for a frame.
    pub(crate) source: u32,
    /// Receiving queue pair.
    pub(crate) destination: u32,
    /// Packet sequence number, 24 bits.
    pub(crate) psn: u32,
    /// Immediate data as it lies in memory.
    pub(crate) immediate: u32,
    /// Q_Key or R_Key.
    pub(crate) key: u32,
    /// Bytes asked for, or a timer's code.
    pub(crate) length: u32,
    /// Flow label.
    pub(crate) label: u32,
    /// Remote address.
    pub(crate) address: u64,
    /// Source GID.
    pub(crate) sgid: [u8; 16],
    /// Destination GID.
    pub(crate) dgid: [u8; 16],
    /// The payload.
    pub(crate) payload: Vec<u8>,
}

/// Bytes before the payload.
pub(crate) const HEADER: usize = 76;

impl Message {
    /// Appends the bytes that go between processes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let kind = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0);
        out.push(u8::try_from(kind).unwrap_or(0));
        out.extend_from_slice(&[self.flags, self.status, self.class, self.hops, self.level, 0, 0]);
        for word in [
            self.source,
            self.destination,
            self.psn,
            self.immediate,
            self.key,
            self.length,
            self.label,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.address.to_le_bytes());
        out.extend_from_slice(&self.sgid);
        out.extend_from_slice(&self.dgid);
        out.extend_from_slice(&self.payload);
    }

    /// Reads the bytes of [`Message::encode`]; `None` if they are not whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Message> {
        let (head, payload) = bytes.split_at_checked(HEADER)?;
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&head[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let gid = |at: usize| {
            let mut gid = [0; 16];
            gid.copy_from_slice(&head[at..at + 16]);
            gid
        };
        Some(Message {
            kind: *KINDS.get(usize::from(head[0]))?,
            flags: head[1],
            status: head[2],
            class: head[3],
            hops: head[4],
            level: head[5],
            source: word(8),
            destination: word(12),
            psn: word(16),
            immediate: word(20),
            key: word(24),
            length: word(28),
            label: word(32),
            address: u64::from(word(36)) | (u64::from(word(40)) << 32),
            sgid: gid(44),
            dgid: gid(60),
            payload: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for kind in KINDS {
            let message = Message {
                kind,
                flags: 3,
                status: 4,
                psn: 0xab_cdef,
                address: 0x1122_3344_5566_7788,
                dgid: [9; 16],
                length: 77,
                payload: vec![1, 2, 3],
                ..Message::default()
            };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes.len(), HEADER + 3);
            assert_eq!(Message::decode(&bytes), Some(message));
            assert_eq!(Message::decode(&bytes[..HEADER - 1]), None);
        }
    }
}
