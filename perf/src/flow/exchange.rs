//! Request and response over one connection: closed loop with one or several requests under way,
//! or open loop at a given rate.

use std::collections::VecDeque;
use std::io;

use super::pipe::{Pipe, is_gone};
use super::{Exchange, IDLE_TURNS, LOST_AFTER_NS, OPERATIONS_MAX, Step};
use crate::arithmetic::count;
use crate::recorder::Recorder;
use crate::transport::{Manner, Transport};

/// Room beyond one message, so that a receive that did not fill it has taken all there was.
const INBOX_SLACK: usize = 4096;

/// The client's end.
#[derive(Debug)]
pub struct Requester<T: Transport> {
    pub(super) pipe: Pipe<T>,
    exchange: Exchange,
    request: Vec<u8>,
    inbox: Vec<u8>,
    request_sent: usize,
    response_got: usize,
    issued: u64,
    /// Intended send times of the requests under way, oldest first.
    under_way: VecDeque<u64>,
    heard_ns: u64,
    idle: u32,
}

impl<T: Transport> Requester<T> {
    /// A client on a connected pipe.
    #[must_use]
    pub fn new(pipe: Pipe<T>, exchange: Exchange) -> Self {
        Self {
            request: vec![0x5a; exchange.request],
            inbox: vec![0; exchange.response + INBOX_SLACK],
            under_way: VecDeque::with_capacity(exchange.depth),
            pipe,
            exchange,
            request_sent: 0,
            response_got: 0,
            issued: 0,
            heard_ns: 0,
            idle: 0,
        }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        let mut now = None;
        for _ in 0..OPERATIONS_MAX {
            let blocked = self.send_due(transport, recorder, &mut now)?;
            if self.under_way.is_empty() && !blocked {
                return Ok(Step::Scheduled);
            }
            let Some(received) = self.pipe.receive(transport, &mut self.inbox)? else {
                return Ok(self.on_nothing(transport, recorder));
            };
            self.idle = 0;
            recorder.on_receive();
            self.on_received(received, transport, recorder, &mut now)?;
            if recorder.is_over() {
                return Ok(Step::Waiting);
            }
        }
        Ok(Step::Moved)
    }

    /// Sends what the depth, the schedule and the socket allow; returns whether the socket did not.
    fn send_due(
        &mut self,
        transport: &mut T,
        recorder: &mut Recorder,
        now: &mut Option<u64>,
    ) -> io::Result<bool> {
        while self.request_sent > 0 || self.may_issue() {
            let at = *now.get_or_insert_with(|| transport.now_ns());
            let mut intended = at;
            if self.request_sent == 0
                && let Some(pacer) = &self.exchange.pacer
            {
                intended = pacer.intended_ns();
                if intended > at {
                    *now = None;
                    return Ok(false);
                }
            }
            let rest = self.request.get(self.request_sent..).unwrap_or_default();
            let Some(sent) = self.pipe.send(transport, rest)? else { return Ok(true) };
            recorder.on_send();
            if self.request_sent == 0 {
                self.on_issued(intended, at);
            }
            self.request_sent += sent;
            if self.pipe.is_datagram() || self.request_sent >= self.exchange.request {
                self.request_sent = 0;
            }
        }
        Ok(false)
    }

    fn may_issue(&self) -> bool {
        self.under_way.len() < self.exchange.depth
            && self.exchange.issue_max.is_none_or(|limit| self.issued < limit)
    }

    fn on_issued(&mut self, intended: u64, at: u64) {
        if self.under_way.is_empty() {
            self.heard_ns = at;
        }
        self.under_way.push_back(intended);
        self.issued += 1;
        if let Some(pacer) = &mut self.exchange.pacer {
            pacer.advance();
        }
    }

    fn on_received(
        &mut self,
        received: usize,
        transport: &T,
        recorder: &mut Recorder,
        now: &mut Option<u64>,
    ) -> io::Result<()> {
        if received == 0 && !self.pipe.is_datagram() {
            let what = "the other end closed the connection during the test";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let at = transport.now_ns();
        *now = Some(at);
        self.heard_ns = at;
        let size = self.exchange.response;
        self.response_got += if self.pipe.is_datagram() { size } else { received };
        let moved = count(self.exchange.request + size);
        while self.response_got >= size {
            self.response_got -= size;
            let Some(intended) = self.under_way.pop_front() else { break };
            recorder.on_transaction(intended, at, moved);
        }
        Ok(())
    }

    /// Nothing came: a UDP request may be lost. The clock is read only now and then.
    fn on_nothing(&mut self, transport: &T, recorder: &mut Recorder) -> Step {
        self.idle = self.idle.wrapping_add(1);
        let look = transport.manner() != Manner::Spins || self.idle.is_multiple_of(IDLE_TURNS);
        if look && self.pipe.is_datagram() {
            let now = transport.now_ns();
            if now.saturating_sub(self.heard_ns) > LOST_AFTER_NS {
                recorder.on_lost(count(self.under_way.len()));
                // Their count is free again, so that a run by count reaches it.
                self.issued -= count(self.under_way.len());
                self.under_way.clear();
                return Step::Moved;
            }
        }
        if self.exchange.pacer.is_some() { Step::Scheduled } else { Step::Waiting }
    }
}

/// The server's end.
#[derive(Debug)]
pub struct Responder<T: Transport> {
    pub(super) pipe: Pipe<T>,
    request: usize,
    response: Vec<u8>,
    inbox: Vec<u8>,
    request_got: usize,
    owed: usize,
}

impl<T: Transport> Responder<T> {
    /// A server on a pipe.
    #[must_use]
    pub fn new(pipe: Pipe<T>, request: usize, response: usize) -> Self {
        let inbox = vec![0; request + INBOX_SLACK];
        Self { pipe, request, response: vec![0xa5; response], inbox, request_got: 0, owed: 0 }
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
        self.request_got += if self.pipe.is_datagram() { self.request } else { received };
        while self.request_got >= self.request {
            self.request_got -= self.request;
            self.owed += self.response.len();
            recorder.tally(1, count(self.request + self.response.len()));
        }
    }
}
