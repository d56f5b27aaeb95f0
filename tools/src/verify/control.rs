//! What the two ends say to each other: one JSON document a line, over the host's TCP, a question
//! and an answer in turn.
//!
//! Everything that comes is bounded and checked; the one who asks is the one who verifies.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::Mac;
use super::{Check, Mode};

/// Version of the conversation; both ends must have the same.
pub(super) const VERSION: u32 = 1;
/// Longest line: 128 frames of 9 KiB as hexadecimal digits.
const LINE_MAX: u64 = 4 << 20;
/// How long an answer may take: the other end makes its own checks meanwhile.
const ANSWER: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(5);

/// A question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Ask {
    /// Who are you?
    Hello { version: u32, build: String },
    /// Make your own checks of a mode.
    Local { mode: Mode },
    /// Open Roceway's device towards this address, and serve on it.
    Wire { mode: Mode, address: IpAddr },
    /// End it, and tell what was seen.
    EndWire,
    /// Open a RAW_PACKET queue pair.
    Frames,
    /// A rule of it: everything to the address, or to this UDP port only.
    Rule { mac: Mac, udp_port: Option<u16> },
    /// End all rules.
    Forget,
    /// Send a frame.
    Send { frame: String, checksum: bool, inline: bool, cut: Option<(usize, u16)> },
    /// Take frames.
    Receive { most: usize, milliseconds: u64 },
    /// Close the queue pair.
    EndFrames,
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub(super) enum Answer {
    /// Who I am.
    Hello { version: u32, build: String, device: String, facts: serde_json::Value },
    /// My own checks, and the address of my GID.
    Local { checks: Vec<Check>, address: Option<IpAddr> },
    /// The device is open, with these settings.
    Ready { settings: String },
    /// What the served end saw.
    Wire { checks: Vec<Check> },
    /// What my queue pair claims.
    Claims { checksum: bool, tso: u32, steering: bool, inline: usize },
    /// Frames: hexadecimal digits, and whether the device verified them.
    Frames { frames: Vec<(String, bool)> },
    /// It is done.
    Done,
    /// It did not work.
    Trouble { what: String },
}

/// One end of a conversation.
pub(super) struct Line {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Line {
    /// Takes a connection.
    ///
    /// # Errors
    /// If the socket fails.
    pub(super) fn new(stream: TcpStream) -> io::Result<Line> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Line { writer: stream.try_clone()?, reader: BufReader::new(stream) })
    }

    /// Connects to the other end.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn connect(host: &str, port: u16) -> io::Result<Line> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses(host, port)? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Line::new(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn say<T: Serialize>(&mut self, what: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.writer.write_all(&line)
    }

    /// Reads a line; none at its end.
    pub(super) fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            let what = "a line without end: this is no `roceway verify`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }

    /// A question and its answer.
    ///
    /// # Errors
    /// What failed, or what the other end says went wrong.
    pub(super) fn ask(&mut self, question: &Ask) -> Result<Answer, String> {
        let answer = self.say(question).and_then(|()| self.hear());
        match answer {
            Ok(Some(Answer::Trouble { what })) => Err(what),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err("the other end has hung up".to_owned()),
            Err(error) => Err(format!("the other end: {error}")),
        }
    }
}

/// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let found = if has_port { host.to_socket_addrs() } else { (host, port).to_socket_addrs() };
    Ok(found?.collect())
}

/// Bytes as hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Bytes out of hexadecimal digits; none if they are none.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn bytes_survive_their_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        for wrong in ["0", "0g", "é0"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hosts_are_read_with_and_without_port() {
        for (text, expected) in [
            ("10.0.0.2", "10.0.0.2:7"),
            ("10.0.0.2:9", "10.0.0.2:9"),
            ("fd00::2", "[fd00::2]:7"),
            ("[fd00::2]:9", "[fd00::2]:9"),
        ] {
            assert_eq!(addresses(text, 7).unwrap()[0].to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_conversation_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for said in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"{\"do\":\"nothing\"}\n", b"{\"do\":\"hello\""]
        {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(said).unwrap();
            drop(client);
            let mut line = Line::new(listener.accept().unwrap().0).unwrap();
            assert!(line.hear::<Ask>().is_err());
        }
        let client = TcpStream::connect(address).unwrap();
        drop(client);
        let mut line = Line::new(listener.accept().unwrap().0).unwrap();
        assert_eq!(line.hear::<Ask>().unwrap(), None);
    }
}
