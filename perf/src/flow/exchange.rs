//! The client's end of request and response over one connection: closed loop with one or several
//! requests under way, or open loop at a given rate.

use std::io;

use super::pipe::Pipe;
use super::under_way::{Answered, UnderWay, tag_bytes};
use super::{Exchange, LOST_AFTER_NS, OPERATIONS_MAX, Step};
use crate::arithmetic::count;
use crate::recorder::Recorder;
use crate::transport::Transport;

/// Room beyond one message, so that a receive that did not fill it has taken all there was.
pub(super) const INBOX_SLACK: usize = 4096;

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
    under_way: UnderWay,
    heard_ns: u64,
}

impl<T: Transport> Requester<T> {
    /// A client on a connected pipe.
    #[must_use]
    pub fn new(pipe: Pipe<T>, exchange: Exchange) -> Self {
        let Exchange { request, response, depth, .. } = exchange;
        let tagged = exchange.echoes && pipe.is_datagram();
        let tag = if tagged { tag_bytes(request, response, depth) } else { 0 };
        Self {
            request: vec![0x5a; request],
            inbox: vec![0; response + INBOX_SLACK],
            under_way: UnderWay::new(tag, depth),
            pipe,
            exchange,
            request_sent: 0,
            response_got: 0,
            issued: 0,
            heard_ns: 0,
        }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        let mut now = None;
        for _ in 0..OPERATIONS_MAX {
            let blocked = self.send_due(transport, recorder, &mut now)?;
            if self.under_way.len() == 0 && !blocked {
                return Ok(Step::Scheduled);
            }
            let Some(received) = self.pipe.receive(transport, &mut self.inbox)? else {
                let paced = self.exchange.pacer.is_some();
                return Ok(if paced { Step::Scheduled } else { Step::Waiting });
            };
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
            self.under_way.write_tag(&mut self.request);
            let rest = self.request.get(self.request_sent..).unwrap_or_default();
            let Some(sent) = self.pipe.send(transport, rest)? else { return Ok(true) };
            recorder.on_send();
            if self.request_sent == 0 {
                self.on_issued((intended, at), recorder);
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

    fn on_issued(&mut self, (intended, at): (u64, u64), recorder: &mut Recorder) {
        if self.under_way.len() == 0 {
            self.heard_ns = at;
        }
        self.issued += 1;
        let overtaken = self.under_way.push(intended, at);
        if overtaken > 0 {
            self.on_lost(overtaken, recorder);
        }
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
        let moved = count(self.exchange.request + size);
        if self.under_way.is_tagged() {
            let answer = self.inbox.get(..received).unwrap_or_default();
            match self.under_way.answer_tagged(answer) {
                Answered::Intended(intended) => recorder.on_transaction(intended, at, moved),
                Answered::Nothing => recorder.on_late(),
            }
            return Ok(());
        }
        self.response_got += if self.pipe.is_datagram() { size } else { received };
        while self.response_got >= size {
            self.response_got -= size;
            match self.under_way.answer_oldest() {
                Answered::Intended(intended) => recorder.on_transaction(intended, at, moved),
                Answered::Nothing => recorder.on_late(),
            }
        }
        Ok(())
    }

    /// Notes the time: a datagram, or its answer, may be lost. Returns whether one was.
    pub(super) fn on_time(&mut self, now_ns: u64, recorder: &mut Recorder) -> bool {
        let Some(before) = now_ns.checked_sub(LOST_AFTER_NS) else { return false };
        // Answers without number keep all of those alive that they may be for.
        if !self.pipe.is_datagram() || (!self.under_way.is_tagged() && self.heard_ns >= before) {
            return false;
        }
        let before = if self.under_way.is_tagged() { before } else { u64::MAX };
        let lost = self.under_way.give_up(before);
        if lost > 0 {
            self.on_lost(lost, recorder);
        }
        lost > 0
    }

    #[cold]
    fn on_lost(&mut self, requests: u64, recorder: &mut Recorder) {
        recorder.on_lost(requests);
        // Their count is free again, so that a run by count reaches it.
        self.issued -= requests;
    }
}
