//! Control messages over a connection that may deliver them in pieces.

use std::io;

use super::message::{MESSAGE_BYTES, Message};
use crate::transport::{Transport, ready, wait_for};

/// Collects one message from pieces.
#[derive(Debug)]
pub struct Inbox {
    bytes: [u8; MESSAGE_BYTES],
    filled: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: [0; MESSAGE_BYTES], filled: 0 }
    }
}

/// What a control connection brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arrived {
    /// Not a whole message yet.
    Nothing,
    /// A message; boxed, since most looks bring nothing.
    Message(Box<Message>),
    /// The other side has closed; a part of a message, if any, is dropped.
    Closed,
}

impl Inbox {
    /// Takes what the connection has.
    ///
    /// # Errors
    /// Why the connection broke.
    pub fn poll<T: Transport>(
        &mut self,
        transport: &mut T,
        stream: &mut T::Stream,
    ) -> io::Result<Arrived> {
        // Until nothing is left: what stayed would not be told of again.
        while self.filled < MESSAGE_BYTES {
            let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
            let Some(received) = ready(transport.try_recv(stream, room))? else {
                return Ok(Arrived::Nothing);
            };
            if received == 0 {
                return Ok(Arrived::Closed);
            }
            self.filled += received;
        }
        self.filled = 0;
        Ok(Arrived::Message(Box::new(Message::decode(&self.bytes))))
    }
}

/// Waits for a message.
///
/// # Errors
/// If the connection breaks or closes, or nothing comes within `limit_ns`.
pub fn receive<T: Transport>(
    transport: &mut T,
    stream: &mut T::Stream,
    limit_ns: u64,
    what: &str,
) -> io::Result<Message> {
    let mut inbox = Inbox::default();
    wait_for(transport, limit_ns, what, |transport| match inbox.poll(transport, stream)? {
        Arrived::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        Arrived::Message(message) => Ok(*message),
        Arrived::Closed => {
            let what = format!("{what}: the other side closed the control connection");
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
        }
    })
}

/// Sends a message whole.
///
/// # Errors
/// If the connection breaks, or does not take it within `limit_ns`.
pub fn send<T: Transport>(
    transport: &mut T,
    stream: &mut T::Stream,
    message: &Message,
    limit_ns: u64,
) -> io::Result<()> {
    let bytes = message.encode();
    let mut sent = 0;
    wait_for(transport, limit_ns, "sending a control message", |transport| {
        sent += transport.try_send(stream, bytes.get(sent..).unwrap_or_default())?;
        if sent < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    })
}
