//! Streams: one end rewrites every byte and sends, the other reads every byte.

use std::hint::black_box;
use std::io;

use super::pipe::{Pipe, is_gone};
use super::{OPERATIONS_MAX, Step};
use crate::arithmetic::count;
use crate::block::Block;
use crate::pacing::Pacer;
use crate::pattern;
use crate::recorder::Recorder;
use crate::transport::{Transport, ready};

/// The end that sends.
#[derive(Debug)]
pub struct Sender<T: Transport> {
    pub(super) pipe: Pipe<T>,
    /// The message, where it is copied from; without copies only its length counts.
    block: Block,
    sent: usize,
    /// Whether the block was rewritten and nothing of it has left yet.
    fresh: bool,
    /// A message in a buffer of the stack's that found no room.
    filled: Option<T::Filled>,
    round: u64,
    pacer: Option<Pacer>,
}

/// What became of a message.
enum Message {
    /// So many bytes of it are on their way.
    Sent(usize),
    /// Nothing for now, because of this.
    Not(Step),
}

impl<T: Transport> Sender<T> {
    /// Sends messages of `message` bytes, at a pace if there is one.
    #[must_use]
    pub fn new(pipe: Pipe<T>, message: usize, pacer: Option<Pacer>) -> Self {
        let block = Block::new(message.max(1));
        Self { pipe, block, sent: 0, fresh: false, filled: None, round: 0, pacer }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        let zero_copy = transport.is_zero_copy() && !self.pipe.is_datagram();
        for _ in 0..OPERATIONS_MAX {
            let outcome = match zero_copy {
                true => self.give(transport),
                false => self.send(transport),
            };
            let sent = match outcome {
                Ok(Message::Sent(sent)) => sent,
                Ok(Message::Not(step)) => return Ok(step),
                Err(error) if !self.pipe.is_datagram() && is_gone(&error) => {
                    return Ok(Step::Done);
                }
                Err(error) => return Err(error),
            };
            recorder.on_send();
            recorder.on_bytes(transport.now_ns(), count(sent));
            if recorder.is_over() {
                return Ok(Step::Waiting);
            }
        }
        Ok(Step::Moved)
    }

    /// Whether the next message's time has not come.
    fn is_early(&self, transport: &T) -> bool {
        self.pacer.as_ref().is_some_and(|pacer| pacer.intended_ns() > transport.now_ns())
    }

    /// Has the stack copy what fits of the message.
    fn send(&mut self, transport: &mut T) -> io::Result<Message> {
        if self.sent == 0 && !self.fresh {
            if self.is_early(transport) {
                return Ok(Message::Not(Step::Scheduled));
            }
            pattern::rewrite(&mut self.block, self.round);
            self.round += 1;
            self.fresh = true;
        }
        let rest = self.block.get(self.sent..).unwrap_or_default();
        let Some(sent) = self.pipe.send(transport, rest)? else {
            return Ok(Message::Not(Step::Waiting));
        };
        self.advance(sent);
        Ok(Message::Sent(sent))
    }

    /// Writes the message where it is sent from.
    fn give(&mut self, transport: &mut T) -> io::Result<Message> {
        let filled = match self.filled.take() {
            Some(filled) => filled,
            None if self.is_early(transport) => return Ok(Message::Not(Step::Scheduled)),
            None => {
                let round = self.round;
                let write = |room: &mut [u8]| pattern::rewrite(room, round);
                match ready(transport.fill(self.block.len(), write))? {
                    Some(filled) => filled,
                    // No readiness tells of a buffer that becomes free.
                    None => return Ok(Message::Not(Step::Scheduled)),
                }
            }
        };
        match self.pipe.give(transport, &filled)? {
            Some(sent) => {
                self.round += 1;
                if let Some(pacer) = &mut self.pacer {
                    pacer.advance();
                }
                Ok(Message::Sent(sent))
            }
            None => {
                self.filled = Some(filled);
                Ok(Message::Not(Step::Waiting))
            }
        }
    }

    fn advance(&mut self, sent: usize) {
        self.sent += sent;
        self.fresh = false;
        if self.pipe.is_datagram() || self.sent >= self.block.len() {
            self.sent = 0;
            if let Some(pacer) = &mut self.pacer {
                pacer.advance();
            }
        }
    }
}

/// The end that receives.
#[derive(Debug)]
pub struct Receiver<T: Transport> {
    pub(super) pipe: Pipe<T>,
    inbox: Block,
}

impl<T: Transport> Receiver<T> {
    /// Receives up to `size` bytes a call.
    #[must_use]
    pub fn new(pipe: Pipe<T>, size: usize) -> Self {
        Self { pipe, inbox: Block::new(size.max(1)) }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        let zero_copy = transport.is_zero_copy() && !self.pipe.is_datagram();
        for _ in 0..OPERATIONS_MAX {
            let outcome = match zero_copy {
                true => self.take(transport),
                false => self.receive(transport),
            };
            let received = match outcome {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(Step::Waiting),
                Err(error) if is_gone(&error) => return Ok(Step::Done),
                Err(error) => return Err(error),
            };
            if received == 0 && !self.pipe.is_datagram() {
                return Ok(Step::Done);
            }
            recorder.on_receive();
            if recorder.is_timed() {
                recorder.on_bytes(transport.now_ns(), count(received));
                if recorder.is_over() {
                    return Ok(Step::Waiting);
                }
            } else {
                recorder.tally(0, count(received));
            }
        }
        Ok(Step::Moved)
    }

    /// Has the stack copy what came, and reads it.
    fn receive(&mut self, transport: &mut T) -> io::Result<Option<usize>> {
        let received = self.pipe.receive(transport, &mut self.inbox)?;
        let bytes = self.inbox.get(..received.unwrap_or(0)).unwrap_or_default();
        black_box(pattern::read(bytes));
        Ok(received)
    }

    /// Reads what came where it lies.
    fn take(&mut self, transport: &mut T) -> io::Result<Option<usize>> {
        self.pipe.take(transport, self.inbox.len(), |piece| {
            black_box(pattern::read(piece));
        })
    }
}
