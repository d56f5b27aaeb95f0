//! The words with which two hosts come together, outside the wire's queue pairs.
//!
//! Hello, Accept or Refuse, Ready; later Bye. Each is a prefix of 8 bytes and a body, big-endian.
//! A body may be longer than this version knows: the rest is skipped, so that a later version can
//! add to it. Bytes and values only; who says what when is in `peers`.

use arrayvec::ArrayVec;

use super::header::{VERSION, VERSION_MIN};

/// What every word begins with.
pub const MAGIC: [u8; 4] = *b"RcWy";
/// Bytes of the prefix.
pub const PREFIX_LEN: usize = 8;
/// Longest body that is read; a longer one ends the conversation.
pub const BODY_MAX: usize = 256;
/// Bytes of the body of a hello.
pub const HELLO_LEN: usize = 68;
/// Bytes of the body of a refusal.
pub const REFUSE_LEN: usize = 12;
/// Longest word that this version writes.
pub const WORD_MAX: usize = PREFIX_LEN + HELLO_LEN;

/// What carries the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Reliable connected.
    Rc,
    /// Datagram.
    Ud,
}

impl Mode {
    fn byte(self) -> u8 {
        match self {
            Mode::Rc => 1,
            Mode::Ud => 2,
        }
    }

    fn of(byte: u8) -> Option<Mode> {
        [Mode::Rc, Mode::Ud].into_iter().find(|mode| mode.byte() == byte)
    }

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Rc => "rc",
            Mode::Ud => "ud",
        }
    }
}

/// The end of a queue pair, as the other side needs it to connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// Queue pair number, 24 bits.
    pub qpn: u32,
    /// First packet sequence number, 24 bits.
    pub psn: u32,
    /// Queue key; UD only.
    pub qkey: u32,
    /// GID of the port.
    pub gid: [u8; 16],
    /// Path MTU as `enum ibv_mtu` has it: 1 (256 bytes) to 5 (4096).
    pub path_mtu: u8,
}

/// What each side says of itself, in Hello and Accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Oldest and newest version that it speaks; in Accept both are the one chosen.
    pub versions: (u8, u8),
    /// The wire's mode.
    pub mode: Mode,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Longest IP packet on the wire.
    pub mtu: u16,
    /// Longest message that it takes, header of the wire included.
    pub message_max: u32,
    /// Where its queue pair is.
    pub endpoint: Endpoint,
    /// What messages to it bear as session.
    pub session: u32,
    /// Its process; different for each start.
    pub incarnation: u32,
    /// Data messages that the receiver of this may send at once.
    pub credits: u16,
    /// TCP port where it listens for hellos; 0 if it does not.
    pub port: u16,
    /// Random for each process: settles simultaneous hellos.
    pub host: u64,
}

/// Why a hello is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No version in common.
    Version,
    /// The other mode.
    Mode,
    /// Another MTU.
    Mtu,
    /// The longest message does not fit.
    Message,
    /// Neither in the list nor within an accepted prefix.
    NotAllowed,
    /// As many peers as there may be.
    Full,
    /// Both called, and the refusing side's call stands.
    Crossed,
    /// The hello came from this process itself.
    Itself,
    /// Another peer has the hardware address, or this host itself.
    Mac,
    /// The hello made no sense, or the refusing side could not make a queue pair.
    Failed,
}

const REFUSALS: [(Refusal, u8); 10] = [
    (Refusal::Version, 1),
    (Refusal::Mode, 2),
    (Refusal::Mtu, 3),
    (Refusal::Message, 4),
    (Refusal::NotAllowed, 5),
    (Refusal::Full, 6),
    (Refusal::Crossed, 7),
    (Refusal::Itself, 8),
    (Refusal::Mac, 9),
    (Refusal::Failed, 10),
];

impl Refusal {
    fn byte(self) -> u8 {
        REFUSALS.iter().find(|(refusal, _)| *refusal == self).map_or(0, |(_, byte)| *byte)
    }

    /// What it means to the user.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Version => "no common version of the wire",
            Refusal::Mode => "it runs the other mode; give both hosts the same mode=",
            Refusal::Mtu => "it has another MTU; give both hosts the same mtu=",
            Refusal::Message => {
                "its receives are too short for our messages; give both the same \
                                 large= and memory.receive_len"
            }
            Refusal::NotAllowed => "it does not know this host; give it peer= or accept=",
            Refusal::Full => "it has as many peers as it may; give it a larger peers=",
            Refusal::Crossed => "both called at once and its own call stands",
            Refusal::Itself => "the address is this process itself",
            Refusal::Mac => "another peer has this hardware address; give each host its own",
            Refusal::Failed => "it could not make a queue pair",
        }
    }
}

/// Why a session ends, as the one who ends it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parting {
    /// The process ends, and its connections with it.
    Closing,
    /// The queue pair failed; the process lives and will call or take calls again.
    Broken,
}

/// A word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The caller's first word.
    Hello(Hello),
    /// The answer; the queue pair is ready to receive.
    Accept(Hello),
    /// The answer that ends it, with a number that explains it: the refusing side's MTU, longest
    /// message or newest version.
    Refuse(Refusal, u32),
    /// The caller's queue pair is ready to receive.
    Ready,
    /// The session ends.
    Bye(Parting),
}

/// Why bytes are no word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WordError {
    /// Something else than a Roceway wire speaks.
    Magic,
    /// A kind of word, or a body, that makes no sense.
    Malformed,
    /// A hello of versions none of which is spoken here.
    Version,
}

impl Word {
    fn kind(&self) -> u8 {
        match self {
            Word::Hello(_) => 1,
            Word::Accept(_) => 2,
            Word::Refuse(..) => 3,
            Word::Ready => 4,
            Word::Bye(_) => 5,
        }
    }

    /// As it goes over the connection.
    #[must_use]
    pub fn encode(&self) -> ArrayVec<u8, WORD_MAX> {
        let mut body: ArrayVec<u8, HELLO_LEN> = ArrayVec::new();
        match self {
            Word::Hello(hello) | Word::Accept(hello) => hello.write(&mut body),
            Word::Refuse(refusal, number) => {
                body.extend([refusal.byte(), VERSION_MIN, VERSION, 0]);
                body.extend(number.to_be_bytes());
                body.extend([0; 4]);
            }
            Word::Ready => {}
            Word::Bye(parting) => body.extend([u8::from(*parting == Parting::Broken), 0, 0, 0]),
        }
        let length = u16::try_from(body.len()).unwrap_or(0);
        let mut bytes = ArrayVec::new();
        bytes.extend(MAGIC);
        bytes.extend([self.kind(), VERSION]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// The word of a kind with this body.
    ///
    /// # Errors
    /// If there is no such word.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Word, WordError> {
        match kind {
            1 => Hello::read(body).map(Word::Hello),
            2 => Hello::read(body).map(Word::Accept),
            3 => {
                let body: &[u8; REFUSE_LEN] = body.first_chunk().ok_or(WordError::Malformed)?;
                let number = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
                let known = REFUSALS.iter().find(|(_, byte)| *byte == body[0]);
                // A reason of a later version is still a refusal.
                Ok(Word::Refuse(known.map_or(Refusal::Failed, |(refusal, _)| *refusal), number))
            }
            4 => Ok(Word::Ready),
            5 => match body.first() {
                Some(0) => Ok(Word::Bye(Parting::Closing)),
                Some(_) => Ok(Word::Bye(Parting::Broken)),
                None => Err(WordError::Malformed),
            },
            _ => Err(WordError::Malformed),
        }
    }
}

impl Hello {
    fn write(&self, body: &mut ArrayVec<u8, HELLO_LEN>) {
        body.extend([self.versions.0, self.versions.1, self.mode.byte(), 0]);
        body.extend(self.mac);
        body.extend(self.mtu.to_be_bytes());
        body.extend(self.message_max.to_be_bytes());
        body.extend(self.endpoint.qpn.to_be_bytes());
        body.extend(self.endpoint.psn.to_be_bytes());
        body.extend(self.endpoint.qkey.to_be_bytes());
        body.extend(self.endpoint.gid);
        body.extend(self.session.to_be_bytes());
        body.extend(self.incarnation.to_be_bytes());
        body.extend(self.credits.to_be_bytes());
        body.extend(self.port.to_be_bytes());
        body.extend([self.endpoint.path_mtu, 0, 0, 0]);
        body.extend(self.host.to_be_bytes());
    }

    fn read(body: &[u8]) -> Result<Hello, WordError> {
        let versions = match body {
            [first, last, ..] if first <= last => (*first, *last),
            _ => return Err(WordError::Malformed),
        };
        if versions.0 > VERSION || versions.1 < VERSION_MIN {
            return Err(WordError::Version);
        }
        let body: &[u8; HELLO_LEN] = body.first_chunk().ok_or(WordError::Malformed)?;
        let half = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let mut mac = [0; 6];
        mac.copy_from_slice(&body[4..10]);
        let mut gid = [0; 16];
        gid.copy_from_slice(&body[28..44]);
        let hello = Hello {
            versions,
            mode: Mode::of(body[2]).ok_or(WordError::Malformed)?,
            mac,
            mtu: half(10),
            message_max: word(12),
            endpoint: Endpoint {
                qpn: word(16),
                psn: word(20),
                qkey: word(24),
                gid,
                path_mtu: body[56],
            },
            session: word(44),
            incarnation: word(48),
            credits: half(52),
            port: half(54),
            host: u64::from(word(60)) << 32 | u64::from(word(64)),
        };
        if hello.is_sensible() { Ok(hello) } else { Err(WordError::Malformed) }
    }

    fn is_sensible(&self) -> bool {
        let Endpoint { qpn, psn, gid, path_mtu, .. } = self.endpoint;
        self.mac[0] & 1 == 0
            && self.mac != [0; 6]
            && self.mtu >= 68
            && (1..1 << 24).contains(&qpn)
            && psn < 1 << 24
            && gid != [0; 16]
            && (1..=5).contains(&path_mtu)
            && self.host != 0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const HELLO: Hello = Hello {
        versions: (VERSION_MIN, VERSION),
        mode: Mode::Rc,
        mac: [2, 0, 0, 0, 0, 0x0a],
        mtu: 1500,
        message_max: 65_598,
        endpoint: Endpoint {
            qpn: 0x11,
            psn: 0x00ab_cdef,
            qkey: 0x1234_5678,
            gid: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 1],
            path_mtu: 3,
        },
        session: 0xdead_0001,
        incarnation: 0x0bad_cafe,
        credits: 13,
        port: 4796,
        host: 0x0123_4567_89ab_cdef,
    };

    fn again(word: Word) -> Result<Word, WordError> {
        let bytes = word.encode();
        Word::decode(bytes[4], &bytes[PREFIX_LEN..])
    }

    #[test]
    fn what_is_said_is_understood() {
        for (refusal, _) in REFUSALS {
            assert_eq!(again(Word::Refuse(refusal, 9)), Ok(Word::Refuse(refusal, 9)));
            assert!(!refusal.text().is_empty());
        }
        let ud = Hello { mode: Mode::Ud, ..HELLO };
        let words = [
            Word::Hello(HELLO),
            Word::Accept(ud),
            Word::Ready,
            Word::Bye(Parting::Closing),
            Word::Bye(Parting::Broken),
        ];
        for word in words {
            assert_eq!(again(word), Ok(word));
        }
    }

    #[test]
    fn a_hello_that_makes_no_sense_is_refused() {
        type Change = fn(&mut Hello);
        let rows: [(&str, Change); 9] = [
            ("multicast address", |hello| hello.mac[0] = 1),
            ("no address", |hello| hello.mac = [0; 6]),
            ("tiny MTU", |hello| hello.mtu = 67),
            ("queue pair 0", |hello| hello.endpoint.qpn = 0),
            ("long queue pair number", |hello| hello.endpoint.qpn = 1 << 24),
            ("long sequence number", |hello| hello.endpoint.psn = 1 << 24),
            ("empty GID", |hello| hello.endpoint.gid = [0; 16]),
            ("no path MTU", |hello| hello.endpoint.path_mtu = 6),
            ("no host", |hello| hello.host = 0),
        ];
        for (name, change) in rows {
            let mut hello = HELLO;
            change(&mut hello);
            assert_eq!(again(Word::Hello(hello)), Err(WordError::Malformed), "{name}");
        }
        let mode = Word::Hello(HELLO).encode();
        let mut body = mode[PREFIX_LEN..].to_vec();
        body[2] = 3;
        assert_eq!(Word::decode(1, &body), Err(WordError::Malformed));
        body[2] = 1;
        assert_eq!(Word::decode(1, &body[..HELLO_LEN - 1]), Err(WordError::Malformed));
        body.push(99);
        assert_eq!(Word::decode(1, &body), Ok(Word::Hello(HELLO)), "a later version's addition");
    }

    #[test]
    fn a_later_version_that_still_speaks_ours_is_understood() {
        let rows = [
            ("ours", (1, 1), Ok(())),
            ("next, talks to ours", (1, 2), Ok(())),
            ("far ahead", (2, 3), Err(WordError::Version)),
            ("before ours", (0, 0), Err(WordError::Version)),
            ("upside down", (2, 1), Err(WordError::Malformed)),
        ];
        for (name, versions, expected) in rows {
            let found = again(Word::Hello(Hello { versions, ..HELLO })).map(|_| ());
            assert_eq!(found, expected, "{name}");
        }
        let mut body = Word::Refuse(Refusal::Full, 3).encode()[PREFIX_LEN..].to_vec();
        body[0] = 200;
        assert_eq!(Word::decode(3, &body), Ok(Word::Refuse(Refusal::Failed, 3)));
    }
}
