//! netperf's control messages (2.7): 656 bytes, big-endian 32-bit words, and their layout in one
//! table of word numbers. Floats are IEEE single bits in a word; character tails are not swapped.
//! Reading never fails on content: every word is a number, and what it may be is checked by use.

/// Bytes of every control message, both ways.
pub const MESSAGE_BYTES: usize = 656;
/// 32-bit words of data after type and errno.
pub const DATA_WORDS: usize = 162;
/// The port that netserver listens on.
pub const CONTROL_PORT: u16 = 12_865;

/// Message types.
pub mod kind {
    /// A request for any of the six tests.
    pub const OMNI: u32 = 97;
    /// Its answer.
    pub const OMNI_RESPONSE: u32 = 98;
}

/// `errno` words that this server answers with: Linux's numbers, as netperf prints them.
pub mod errno {
    /// The request is not one that is understood (`EINVAL`).
    pub const INVALID: u32 = 22;
    /// The protocol or family is not supported (`EPROTONOSUPPORT`).
    pub const UNSUPPORTED: u32 = 93;
    /// The data port could not be had (`EADDRINUSE`).
    pub const ADDRESS: u32 = 98;
    /// The test broke (`EIO`).
    pub const BROKEN: u32 = 5;
}

/// Data words of a request.
pub mod request {
    /// `SO_SNDBUF`, -1 for the default.
    pub const SEND_BUFFER: usize = 0;
    /// Bytes of a send call.
    pub const SEND_SIZE: usize = 1;
    /// Alignment of the send buffer.
    pub const SEND_ALIGN: usize = 2;
    /// Number of send buffers.
    pub const SEND_WIDTH: usize = 4;
    /// Bytes of a request, -1 where there are none.
    pub const REQUEST_SIZE: usize = 5;
    /// `SO_RCVBUF`, -1 for the default.
    pub const RECV_BUFFER: usize = 6;
    /// Bytes of a receive call.
    pub const RECV_SIZE: usize = 7;
    /// Alignment of the receive buffer.
    pub const RECV_ALIGN: usize = 8;
    /// Number of receive buffers.
    pub const RECV_WIDTH: usize = 10;
    /// Bytes of a response, -1 where there are none.
    pub const RESPONSE_SIZE: usize = 11;
    /// Flags, see [`super::flag`].
    pub const FLAGS: usize = 12;
    /// Length in seconds; negative: bytes or transactions.
    pub const LENGTH: usize = 14;
    /// Bytes to write before a send call, -1 for the default.
    pub const SEND_DIRTY: usize = 17;
    /// Bytes to write before a receive call, -1 for the default.
    pub const RECV_DIRTY: usize = 18;
    /// Bytes to read before a receive call, -1 for the default.
    pub const RECV_CLEAN: usize = 19;
    /// The data port that the server should take, or 0.
    pub const DATA_PORT: usize = 20;
    /// 4 or 6.
    pub const FAMILY: usize = 21;
    /// 1 for a stream, 2 for datagrams.
    pub const SOCKET_TYPE: usize = 22;
    /// 6 or 17.
    pub const PROTOCOL: usize = 23;
    /// See [`super::direction`].
    pub const DIRECTION: usize = 24;
    /// The client's data port, or 0.
    pub const NETPERF_PORT: usize = 25;
    /// Socket priority, -1 for the default.
    pub const PRIORITY: usize = 36;
    /// Type of service, -1 for the default.
    pub const TOS: usize = 37;
    /// Numbers end here; 16 bytes of congestion control and 32 of a file name follow.
    pub const NUMBERS: usize = 38;
}

/// Data words of the answer to a request.
pub mod response {
    /// `SO_RCVBUF` in effect, or -1.
    pub const RECV_BUFFER: usize = 0;
    /// Bytes of a receive call.
    pub const RECV_SIZE: usize = 1;
    /// Number of receive buffers.
    pub const RECV_WIDTH: usize = 2;
    /// `SO_SNDBUF` in effect, or -1.
    pub const SEND_BUFFER: usize = 3;
    /// Bytes of a send call.
    pub const SEND_SIZE: usize = 4;
    /// Number of send buffers.
    pub const SEND_WIDTH: usize = 5;
    /// Flags, see [`super::flag`].
    pub const FLAGS: usize = 6;
    /// Length, as asked.
    pub const LENGTH: usize = 8;
    /// Where the data connection goes.
    pub const DATA_PORT: usize = 11;
}

/// A data word that netperf leaves alone, in requests and their answers: [`ECHO`] in it says that
/// the server of `UDP_RR` returns, or shall return, the first bytes of each datagram.
pub const ECHO_WORD: usize = 160;
/// See [`ECHO_WORD`]; anything else means that answers do not say whose they are.
pub const ECHO: u32 = u32::from_be_bytes(*b"echo");

/// Data words of the results.
pub mod results {
    /// High half of the bytes received; the low half follows.
    pub const BYTES_RECEIVED: usize = 0;
    /// Receive calls.
    pub const RECEIVES: usize = 2;
    /// `SO_RCVBUF` at the end, or -1.
    pub const RECV_BUFFER: usize = 3;
    /// High half of the bytes sent; the low half follows.
    pub const BYTES_SENT: usize = 4;
    /// Send calls.
    pub const SENDS: usize = 6;
    /// `SO_SNDBUF` at the end, or -1.
    pub const SEND_BUFFER: usize = 7;
    /// Transactions.
    pub const TRANSACTIONS: usize = 9;
    /// Elapsed seconds, a float.
    pub const ELAPSED: usize = 10;
    /// CPU use in percent of all cpus, a float; negative if not measured.
    pub const CPU: usize = 11;
    /// Number of cpus.
    pub const CPUS: usize = 14;
}

/// Bits of the flags word.
pub mod flag {
    /// `TCP_NODELAY`.
    pub const NO_DELAY: u32 = 0x01;
    /// A connection for each transaction.
    pub const CONNECT: u32 = 0x04;
    /// The server's CPU use is wanted.
    pub const MEASURE_CPU: u32 = 0x08;
    /// The data may be routed.
    pub const ROUTED: u32 = 0x20;
}

/// Which way the data goes, seen from the client: bits of the direction word.
pub mod direction {
    /// The server sends.
    pub const MAERTS: u32 = 2;
    /// The client sends.
    pub const STREAM: u32 = 4;
    /// Both.
    pub const RR: u32 = 6;
}

/// A control message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is.
    pub kind: u32,
    /// 0, or why the request failed.
    pub errno: u32,
    words: [u32; DATA_WORDS],
}

impl Message {
    /// A message whose data is all zero.
    #[must_use]
    pub fn new(kind: u32, errno: u32) -> Self {
        Self { kind, errno, words: [0; DATA_WORDS] }
    }

    /// Reads a message; any 656 bytes are one.
    #[must_use]
    pub fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Self {
        let mut all = bytes.chunks_exact(4).map(|chunk| {
            let mut word = [0; 4];
            word.copy_from_slice(chunk);
            u32::from_be_bytes(word)
        });
        let mut message = Self::new(all.next().unwrap_or(0), all.next().unwrap_or(0));
        message.words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        message
    }

    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let all = [self.kind, self.errno].into_iter().chain(self.words);
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(all) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// A data word; 0 beyond the end.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// A data word with a sign.
    #[must_use]
    pub fn signed(&self, index: usize) -> i32 {
        self.word(index).cast_signed()
    }

    /// A data word that is a float.
    #[must_use]
    pub fn float(&self, index: usize) -> f32 {
        f32::from_bits(self.word(index))
    }

    /// Two data words, high half first.
    #[must_use]
    pub fn long(&self, index: usize) -> u64 {
        (u64::from(self.word(index)) << 32) | u64::from(self.word(index + 1))
    }

    /// Sets a data word; beyond the end nothing is set.
    pub fn set(&mut self, index: usize, value: u32) {
        if let Some(word) = self.words.get_mut(index) {
            *word = value;
        }
    }

    /// Sets a data word with a sign.
    pub fn set_signed(&mut self, index: usize, value: i32) {
        self.set(index, value.cast_unsigned());
    }

    /// Sets a data word to a size; larger than the word holds is its maximum.
    pub fn set_size(&mut self, index: usize, value: usize) {
        self.set(index, u32::try_from(value).unwrap_or(u32::MAX));
    }

    /// Sets a data word to a float, rounded to single precision.
    pub fn set_float(&mut self, index: usize, value: f64) {
        let single: f32 = format!("{value:e}").parse().unwrap_or(0.0);
        self.set(index, single.to_bits());
    }

    /// Sets two data words, high half first.
    pub fn set_long(&mut self, index: usize, value: u64) {
        self.set(index, u32::try_from(value >> 32).unwrap_or(u32::MAX));
        self.set(index + 1, u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX));
    }
}
