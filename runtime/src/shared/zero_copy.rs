//! Sending and receiving without a copy, from any thread: the handles are `Send`, and a call hands
//! them over instead of bytes. What [`crate::local`] says of them holds here, but that nobody is
//! told of a send's end: a buffer that was given can be filled again once the last handle of it and
//! every send are gone, which is when [`Worker::buffer`] gives it out anew.
//!
//! [`Worker::register`] makes buffers of memory of the application's own. Over a soft link it is
//! too late for that once the peer has come, which a worker that turns by itself may see at once:
//! [`Worker::with_memory`] registers before the first turn.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::{Running, TcpStream, Worker, unexpected};
use crate::calls::{Data, Reply, Request};
pub use crate::local::{Buffer, BufferMut, Lent};
use crate::shared::Wait;
use crate::zero_copy::Moved;

/// Memory of the application's own that is to be sent from.
#[derive(Debug)]
pub struct OwnMemory {
    /// The memory, which is mapped and sealed.
    pub memfd: OwnedFd,
    /// Bytes of each of the buffers that it becomes.
    pub block_len: usize,
}

impl Worker {
    /// A buffer of the worker's memory, `memory.block` bytes long, to be filled and given away.
    /// Never waits.
    ///
    /// # Errors
    /// `WouldBlock` if all are in use; `BrokenPipe` if the worker was stopped.
    pub fn buffer(&self) -> io::Result<BufferMut> {
        let mut moved = Moved::Nothing;
        self.call(Request::Block, Data::Moved(&mut moved), Wait::Never)?;
        match moved {
            Moved::Block(buffer) => Ok(buffer),
            Moved::Nothing | Moved::Given(..) | Moved::Taken(_) => unexpected(),
        }
    }
}

impl Worker {
    /// Registers memory of the application's own to be sent from, as buffers of `block_len` bytes:
    /// see [`crate::local::Worker::register`]. Waits for the worker's thread, not for the peer.
    ///
    /// # Errors
    /// As there; `BrokenPipe` if the worker was stopped.
    pub fn register(&self, memfd: OwnedFd, block_len: usize) -> io::Result<Vec<BufferMut>> {
        match &*self.0 {
            Running::Owned(owned) => {
                owned.ask(move |executor| executor.handle().register(memfd, block_len))?
            }
            Running::Driven(driven) => driven.register(memfd, block_len),
        }
    }
}

impl TcpStream {
    /// The worker that it is on.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.0.worker
    }

    /// Gives a range of a buffer to be sent, all of it, behind what was written and given before;
    /// waits for room as a write does. The caller may keep the buffer or drop it.
    ///
    /// # Errors
    /// As writing; `InvalidInput` if the range is empty or leaves the buffer, or that is another
    /// worker's.
    pub fn give(&self, buffer: &Buffer, range: Range<usize>) -> io::Result<()> {
        let connected = &*self.0;
        let len = range.end.saturating_sub(range.start);
        let mut moved = Moved::Given(buffer.clone(), (range.start, len));
        let wait = connected.patience.to_write();
        match connected.worker.call(Request::Give(connected.id), Data::Moved(&mut moved), wait)? {
            Reply::Bytes(_) => Ok(()),
            _ => unexpected(),
        }
    }

    /// Received pieces where the NIC put them, in order, of at most `max` bytes together; waits for
    /// them as a read does. Each is given back when it is dropped. None is the end of the stream.
    ///
    /// # Errors
    /// As reading.
    pub fn take(&self, max: usize) -> io::Result<Vec<Lent>> {
        let connected = &*self.0;
        let mut moved = Moved::Nothing;
        let wait = connected.patience.to_read();
        let request = Request::Take(connected.id, max.max(1));
        connected.worker.call(request, Data::Moved(&mut moved), wait)?;
        match moved {
            Moved::Taken(pieces) => Ok(pieces),
            Moved::Nothing => Ok(Vec::new()),
            Moved::Given(..) | Moved::Block(_) => unexpected(),
        }
    }
}
