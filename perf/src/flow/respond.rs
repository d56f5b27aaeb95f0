//! The server's end of request and response over one connection.

use std::io;

use super::exchange::INBOX_SLACK;
use super::pipe::{Pipe, is_gone};
use super::under_way::tag_bytes;
use super::{OPERATIONS_MAX, Step};
use crate::arithmetic::count;
use crate::recorder::Recorder;
use crate::transport::Transport;

/// The server's end.
#[derive(Debug)]
pub struct Responder<T: Transport> {
    pub(super) pipe: Pipe<T>,
    request: usize,
    response: Vec<u8>,
    inbox: Vec<u8>,
    request_got: usize,
    owed: usize,
    /// Bytes of a datagram that its answer begins with.
    tag: usize,
}

impl<T: Transport> Responder<T> {
    /// A server on a pipe; `echoes` if answers begin as their datagrams did, as far as both sizes
    /// have room for a [`tag_bytes`].
    #[must_use]
    pub fn new(pipe: Pipe<T>, (request, response): (usize, usize), echoes: bool) -> Self {
        let tagged = echoes && pipe.is_datagram();
        Self {
            pipe,
            request,
            response: vec![0xa5; response],
            inbox: vec![0; request + INBOX_SLACK],
            request_got: 0,
            owed: 0,
            tag: if tagged { tag_bytes(request, response, 1) } else { 0 },
        }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        for _ in 0..OPERATIONS_MAX {
            while self.owed > 0 {
                let part = self.owed.min(self.response.len());
                let bytes = self.response.get(..part).unwrap_or_default();
                let Some(sent) = self.pipe.send(transport, bytes)? else {
                    return Ok(Step::Waiting);
                };
                recorder.on_send();
                self.owed -= sent.min(self.owed);
            }
            let received = match self.pipe.receive(transport, &mut self.inbox) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(Step::Waiting),
                Err(error) if is_gone(&error) => return Ok(Step::Done),
                Err(error) => return Err(error),
            };
            if received == 0 && !self.pipe.is_datagram() {
                return Ok(Step::Done);
            }
            recorder.on_receive();
            self.on_received(received, recorder);
        }
        Ok(Step::Moved)
    }

    fn on_received(&mut self, received: usize, recorder: &mut Recorder) {
        let tag = self.inbox.iter().take(self.tag.min(received));
        self.response.iter_mut().zip(tag).for_each(|(byte, tag)| *byte = *tag);
        self.request_got += if self.pipe.is_datagram() { self.request } else { received };
        while self.request_got >= self.request {
            self.request_got -= self.request;
            self.owed += self.response.len();
            recorder.tally(1, count(self.request + self.response.len()));
        }
    }
}
