//! Sending and receiving without a copy, on the worker's own thread.
//!
//! To send: [`Worker::buffer`] gives a buffer to be filled; frozen, [`TcpStream::give`] takes a
//! range of it with a cookie, and [`Worker::poll_sent`] gives both back once the peer has
//! acknowledged every byte *and* the NIC has completed every transmission. A buffer may be given
//! several times, also to several connections, whole or in parts; as long as one is under way its
//! bytes cannot be written, which the types see to. A connection that is closed goes on sending
//! what it was given; one that is aborted, or fails, gives it back as [`SendOutcome::Dropped`] as
//! soon as the NIC is done with it. Whoever drops a worker drops what is under way with it.
//!
//! To receive: [`TcpStream::take`] hands out pieces where the NIC put them, in order. They come
//! back when [`Pieces`] is cleared or dropped, or when each [`Lent`] that was drained from it is,
//! in any order and on any thread. Until then their bytes count as unread towards the peer's
//! window. A connection's application may hold `tcp.lent_slots` receive slots; beyond that `take`
//! would block. All together may hold half of the receive slots; beyond that they get copies, which
//! are counted.
//!
//! # What does not compile
//!
//! Handles are consumed, and borrowed bytes end before them. This is how it is meant:
//!
//! ```no_run
//! # use roceway_runtime::local::{Buffer, BufferMut, Lent, Pieces, TcpStream, Worker};
//! # fn right(
//! #     (worker, stream): (&Worker, &TcpStream), mut buffer: BufferMut, mut pieces: Pieces,
//! # ) -> std::io::Result<()> {
//! buffer[0] = 1;
//! let buffer = buffer.freeze();
//! stream.give(&buffer, 0..1, 7)?;
//! stream.take(&mut pieces, 4096)?;
//! let first = pieces.iter().next().map(|bytes| bytes[0]);
//! let kept: Vec<Lent> = pieces.drain().collect();
//! drop(kept);
//! pieces.clear();
//! let again: Result<BufferMut, Buffer> = buffer.try_into_mut();
//! # let (_first, _again, _worker) = (first, again, worker);
//! # Ok(())
//! # }
//! ```
//!
//! A lent piece is given back once:
//!
//! ```compile_fail,E0382
//! # use roceway_runtime::local::Lent;
//! fn twice(piece: Lent) {
//!     drop(piece);
//!     drop(piece);
//! }
//! ```
//!
//! Its bytes are not read after that, nor by who borrowed them before:
//!
//! ```compile_fail,E0382
//! # use roceway_runtime::local::Lent;
//! fn after(piece: Lent) -> u8 {
//!     drop(piece);
//!     piece[0]
//! }
//! ```
//!
//! ```compile_fail,E0505
//! # use roceway_runtime::local::Lent;
//! fn borrowed(piece: Lent) -> u8 {
//!     let bytes = &piece[..];
//!     drop(piece);
//!     bytes[0]
//! }
//! ```
//!
//! The same of all pieces together, which `clear` and the next `take` give back:
//!
//! ```compile_fail,E0502
//! # use roceway_runtime::local::Pieces;
//! fn cleared(mut pieces: Pieces) -> Option<u8> {
//!     let first = pieces.iter().next();
//!     pieces.clear();
//!     first.map(|bytes| bytes[0])
//! }
//! ```
//!
//! ```compile_fail,E0502
//! # use roceway_runtime::local::{Pieces, TcpStream};
//! fn taken(stream: &TcpStream, mut pieces: Pieces) -> std::io::Result<Option<u8>> {
//!     let first = pieces.iter().next();
//!     stream.take(&mut pieces, 4096)?;
//!     Ok(first.map(|bytes| bytes[0]))
//! }
//! ```
//!
//! A piece is received memory, and read only:
//!
//! ```compile_fail,E0594
//! # use roceway_runtime::local::Lent;
//! fn written(mut piece: Lent) {
//!     piece[0] = 1;
//! }
//! ```
//!
//! What may be under way is not written, neither by its name before nor by the one after:
//!
//! ```compile_fail,E0382
//! # use roceway_runtime::local::{BufferMut, TcpStream};
//! fn before(stream: &TcpStream, mut buffer: BufferMut) -> std::io::Result<()> {
//!     stream.give(&buffer.freeze(), 0..1, 7)?;
//!     buffer[0] = 1;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail,E0594
//! # use roceway_runtime::local::{Buffer, TcpStream};
//! fn after(stream: &TcpStream, mut buffer: Buffer) -> std::io::Result<()> {
//!     stream.give(&buffer, 0..1, 7)?;
//!     buffer[0] = 1;
//!     Ok(())
//! }
//! ```
//!
//! A buffer that is not frozen yet, and so still has a writer, is not given:
//!
//! ```compile_fail,E0308
//! # use roceway_runtime::local::{BufferMut, TcpStream};
//! fn unfrozen(stream: &TcpStream, buffer: BufferMut) -> std::io::Result<()> {
//!     stream.give(&buffer, 0..1, 7)
//! }
//! ```
//!
//! Pieces of the worker's own thread do not leave it together; each [`Lent`] may:
//!
//! ```compile_fail,E0277
//! # use roceway_runtime::local::Pieces;
//! fn elsewhere(mut pieces: Pieces) {
//!     std::thread::spawn(move || pieces.clear());
//! }
//! ```

use std::io::{self, ErrorKind};
use std::ops::{Deref, Range};
use std::os::fd::OwnedFd;
use std::rc::Rc;

pub use roceway_rdma_virtio::memory::buffer::{Buffer, BufferMut};
pub use roceway_rdma_virtio::memory::leases::{SendOutcome, Sent};
use roceway_rdma_virtio::memory::lent;
pub use roceway_rdma_virtio::memory::lent::Lent;

use super::{TcpStream, Worker};
use crate::io_error;

/// Received pieces in order, of one worker: at most 32 at a time.
pub struct Pieces {
    inner: lent::Pieces,
    worker: Worker,
}

impl Pieces {
    /// Gives all pieces back.
    #[inline]
    pub fn clear(&mut self) {
        if self.inner.is_empty() {
            return;
        }
        match self.worker.shared.core.try_borrow_mut() {
            Ok(mut core) => core.take_back(&mut self.inner),
            // Within a call of the stack: they go home by the queue.
            Err(_busy) => self.inner.drain().for_each(drop),
        }
    }

    /// Takes the pieces out, one by one, each to be kept by itself.
    pub fn drain(&mut self) -> impl Iterator<Item = Lent> + '_ {
        self.inner.drain()
    }
}

impl Deref for Pieces {
    type Target = lent::Pieces;

    #[inline]
    fn deref(&self) -> &lent::Pieces {
        &self.inner
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Worker {
    /// A buffer of the worker's memory, `memory.block_len` bytes long, to be filled and given away.
    /// What lies in it is left of an earlier use.
    ///
    /// # Errors
    /// `WouldBlock` if all are in use: some come back when sends end and handles are dropped.
    pub fn buffer(&self) -> io::Result<BufferMut> {
        let core = &mut *self.shared.core.borrow_mut();
        core.block().ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    /// Registers memory of the application's own to be sent from: a memfd, which is mapped here,
    /// and sealed so that nobody cuts it or maps it for writing from now on. It comes as buffers of
    /// `block_len` bytes, one behind the other, to be used like those of [`Worker::buffer`]; what
    /// is left over at the end is not used. There is no way to take it back from under a send: it
    /// is given up when all its buffers were dropped and all sends of them have ended.
    ///
    /// Bytes that are written through an older mapping of it while a buffer is given away leave as
    /// they are at the time, or in between.
    ///
    /// # Errors
    /// `InvalidInput` if it is no memfd that can be sealed, or `block_len` gives no block or more
    /// than 4096 with those that are out; `ResourceBusy` over a soft link that has a peer, which
    /// was shown what is sent from (before the first turn none has come); `OutOfMemory` if eight
    /// are registered; otherwise why the kernel or the NIC refuses, such as a memlock limit.
    pub fn register(&self, memfd: OwnedFd, block_len: usize) -> io::Result<Vec<BufferMut>> {
        let core = &mut *self.shared.core.borrow_mut();
        core.register(memfd, block_len).map_err(io_error::of_register)
    }

    /// The next send that has ended, of any connection. `None` if there is none now, or an executor
    /// takes them.
    #[inline]
    pub fn poll_sent(&self) -> Option<Sent> {
        if self.shared.hosted.get() {
            return None;
        }
        self.shared.core.borrow_mut().port.interface.memory().take_ended()
    }

    /// Room for received pieces.
    #[must_use]
    pub fn pieces(&self) -> Pieces {
        let inner = self.shared.core.borrow().port.interface.memory_ref().pieces();
        Pieces { inner, worker: self.clone() }
    }
}

impl TcpStream {
    /// Gives a range of a buffer to be sent, all of it or nothing, behind what was written and
    /// given before. `cookie` comes back with it; the caller may keep the buffer or drop it.
    ///
    /// # Errors
    /// `WouldBlock` if the send buffer has no room for all of it while other bytes are queued, or
    /// 1024 sends have not come back; `AlreadyExists` if the cookie is that of one; `InvalidInput`
    /// if the range is empty or leaves the buffer, or that is another worker's; otherwise why
    /// nothing can be sent.
    pub fn give(&self, buffer: &Buffer, range: Range<usize>, cookie: u64) -> io::Result<()> {
        let core = &mut *self.worker().shared.core.borrow_mut();
        let len = range.end.saturating_sub(range.start);
        core.give(self.id(), buffer, (range.start, len), Some(cookie)).map_err(io_error::of_give)
    }

    /// Appends received pieces of at most `max` bytes together to `pieces`, which is given back
    /// first; returns their bytes. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing came, or too much is held; `InvalidInput` if `pieces` is another
    /// worker's; otherwise why the connection ended.
    #[inline]
    pub fn take(&self, pieces: &mut Pieces, max: usize) -> io::Result<usize> {
        if !Rc::ptr_eq(&pieces.worker.shared, &self.worker().shared) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let core = &mut *self.worker().shared.core.borrow_mut();
        if !pieces.inner.is_empty() {
            core.take_back(&mut pieces.inner);
        }
        core.take(self.id(), max, &mut pieces.inner).map_err(io_error::of_receive)
    }
}
