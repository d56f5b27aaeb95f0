//! Sending and receiving without a copy, for tasks.
//!
//! [`Handle::buffer`] waits for a buffer to be filled, and [`Handle::register`] makes buffers of
//! memory of the application's own; [`TcpStream::give`] waits for room and gives
//! a [`Given`], which is ready once the send has ended. [`TcpStream::take`] waits for received
//! pieces. [`Buffer`], [`BufferMut`] and [`Lent`](crate::local::Lent) are `Send` and show their
//! bytes as a slice, so that `bytes::Bytes::from_owner` and the like make of them what other crates
//! take.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Handle;
use super::tcp::{TcpStream, poll_io};
use crate::host::Host;
use crate::io_error;
use crate::local::{Buffer, BufferMut, Pieces, SendOutcome};

impl Handle {
    /// A buffer of the worker's memory, to be filled and given away, once one is free.
    pub async fn buffer(&self) -> BufferMut {
        poll_fn(|cx| self.host().poll_buffer(cx.waker())).await
    }

    /// Registers memory of the application's own to be sent from, as buffers of `block_len` bytes:
    /// see [`crate::local::Worker::register`]. Never waits.
    ///
    /// # Errors
    /// As there.
    pub fn register(&self, memfd: OwnedFd, block_len: usize) -> io::Result<Vec<BufferMut>> {
        self.worker().register(memfd, block_len)
    }
}

/// A send under way: ready once the peer has acknowledged all of it and the NIC has completed every
/// transmission, or the connection has ended. Dropping it changes nothing about the send.
#[must_use = "the buffer is in use until this is ready"]
pub struct Given {
    host: Rc<Host>,
    cookie: u64,
}

impl Future for Given {
    type Output = SendOutcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SendOutcome> {
        self.host.poll_given(self.cookie, cx.waker())
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.host.forget_given(self.cookie);
    }
}

impl TcpStream {
    /// Gives a range of a buffer to be sent, all of it, once there is room.
    ///
    /// # Errors
    /// As [`crate::local::TcpStream::give`], without `WouldBlock` and `AlreadyExists`.
    pub async fn give(&self, buffer: &Buffer, range: Range<usize>) -> io::Result<Given> {
        let len = range.end.saturating_sub(range.start);
        let (host, id) = (self.host(), self.local().id());
        let give = || host.give(id, buffer, (range.start, len)).map_err(io_error::of_give);
        let cookie = poll_fn(|cx| poll_io(host, self.writable(), cx, give)).await?;
        Ok(Given { host: Rc::clone(host), cookie })
    }

    /// Takes received pieces of at most `max` bytes together, at least one; `pieces` is given back
    /// first. 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`crate::local::TcpStream::take`], without `WouldBlock`.
    pub async fn take(&self, pieces: &mut Pieces, max: usize) -> io::Result<usize> {
        let (host, stream) = (self.host(), self.local());
        poll_fn(|cx| poll_io(host, self.readable(), cx, || stream.take(pieces, max))).await
    }
}
