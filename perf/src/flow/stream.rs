//! Streams: one end rewrites every byte and sends, the other reads every byte.

use std::hint::black_box;
use std::io;

use super::pipe::{Pipe, is_gone};
use super::{OPERATIONS_MAX, Step};
use crate::arithmetic::count;
use crate::pacing::Pacer;
use crate::pattern;
use crate::recorder::Recorder;
use crate::transport::Transport;

/// The end that sends.
#[derive(Debug)]
pub struct Sender<T: Transport> {
    pub(super) pipe: Pipe<T>,
    block: Vec<u8>,
    sent: usize,
    /// Whether the block was rewritten and nothing of it has left yet.
    fresh: bool,
    round: u64,
    pacer: Option<Pacer>,
}

impl<T: Transport> Sender<T> {
    /// Sends messages of `message` bytes, at a pace if there is one.
    #[must_use]
    pub fn new(pipe: Pipe<T>, message: usize, pacer: Option<Pacer>) -> Self {
        Self { pipe, block: vec![0; message.max(1)], sent: 0, fresh: false, round: 0, pacer }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        for _ in 0..OPERATIONS_MAX {
            if self.sent == 0 && !self.fresh {
                if let Some(pacer) = &self.pacer
                    && pacer.intended_ns() > transport.now_ns()
                {
                    return Ok(Step::Scheduled);
                }
                pattern::rewrite(&mut self.block, self.round);
                self.round += 1;
                self.fresh = true;
            }
            let rest = self.block.get(self.sent..).unwrap_or_default();
            let sent = match self.pipe.send(transport, rest) {
                Ok(Some(sent)) => sent,
                Ok(None) => return Ok(Step::Waiting),
                Err(error) if !self.pipe.is_datagram() && is_gone(&error) => {
                    return Ok(Step::Done);
                }
                Err(error) => return Err(error),
            };
            recorder.on_send();
            recorder.on_bytes(transport.now_ns(), count(sent));
            self.advance(sent);
            if recorder.is_over() {
                return Ok(Step::Waiting);
            }
        }
        Ok(Step::Moved)
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
    inbox: Vec<u8>,
}

impl<T: Transport> Receiver<T> {
    /// Receives up to `size` bytes a call.
    #[must_use]
    pub fn new(pipe: Pipe<T>, size: usize) -> Self {
        Self { pipe, inbox: vec![0; size.max(1)] }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        for _ in 0..OPERATIONS_MAX {
            let received = match self.pipe.receive(transport, &mut self.inbox) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(Step::Waiting),
                Err(error) if is_gone(&error) => return Ok(Step::Done),
                Err(error) => return Err(error),
            };
            if received == 0 && !self.pipe.is_datagram() {
                return Ok(Step::Done);
            }
            black_box(pattern::read(self.inbox.get(..received).unwrap_or_default()));
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
}
