//! Every frame of a worker in a pcapng file, in both directions.
//!
//! A frame is copied once, its partial checksum completed in the copy; blocks of frames go to a
//! thread of their own that writes them, so that a slow disk never holds the turn up. What that
//! thread is behind with is bounded: frames beyond it are counted and left out. A disk that takes
//! no more is said once, and traffic goes on. Times are the turn's, as wall clock.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use roceway_rdma_virtio::memory::arena::Arena;
use roceway_rdma_virtio::memory::slot::Piece;
use roceway_rdma_virtio::virtio::net_header::{NEEDS_CSUM, NetHeader};
use roceway_stack::time::Instant;

/// Bytes of a block of frames; it is handed over when it has grown to this.
const BLOCK_LEN: usize = 256 * 1024;
/// Blocks on their way to the disk: 16 MiB in all.
const BLOCKS_MAX: usize = 64;
/// A block is handed over when it is so old, full or not.
const BLOCK_AGE_NS: u64 = 100_000_000;

/// Which way a frame goes: the two lowest bits of pcapng's `epb_flags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Received = 1,
    Sent = 2,
}

/// What a capture counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CaptureCounters {
    /// Frames handed to the writer.
    pub(crate) frames: u64,
    /// Frames left out because the writer was behind.
    pub(crate) frames_left_out: u64,
}

/// A capture under way.
pub(crate) struct Capture {
    writer: PcapNgWriter<Vec<u8>>,
    frames_in_block: u64,
    block_since_ns: u64,
    /// Wall clock minus the worker's clock.
    wall_offset_ns: u64,
    frame: Vec<u8>,
    counters: CaptureCounters,
    write_errors: Arc<AtomicU64>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

fn other(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error.to_string()),
    }
}

impl Capture {
    /// Begins to write to `path`, which is made or emptied. The present is given by the worker's
    /// clock and by the wall's.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(crate) fn create(
        path: &Path,
        device: &str,
        (now, wall): (Instant, SystemTime),
    ) -> io::Result<Capture> {
        let now_ns = now.as_nanos();
        let file = File::create(path)?;
        let (full, to_write) = sync_channel(BLOCKS_MAX);
        let (written, empty) = sync_channel(BLOCKS_MAX);
        let write_errors = Arc::new(AtomicU64::new(0));
        let errors = Arc::clone(&write_errors);
        let shown = path.display().to_string();
        let thread = thread::Builder::new()
            .name("roceway-capture".to_owned())
            .spawn(move || write_blocks(file, &shown, &to_write, &written, &errors))?;
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(0);
        let mut writer = PcapNgWriter::new(Vec::with_capacity(2 * BLOCK_LEN)).map_err(other)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(device.to_owned())),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(
                    "roceway; checksums left to the device are completed in this file",
                )),
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        writer.write_pcapng_block(interface).map_err(other)?;
        let mut capture = Capture {
            writer,
            frames_in_block: 0,
            block_since_ns: now_ns,
            wall_offset_ns: wall_ns.wrapping_sub(now_ns),
            frame: Vec::with_capacity(64 * 1024),
            counters: CaptureCounters::default(),
            write_errors,
            full: Some(full),
            empty,
            thread: Some(thread),
        };
        // The head goes first: no frame makes sense without it.
        capture.hand_over(now_ns);
        Ok(capture)
    }

    /// Takes a copy of a frame.
    #[cold]
    pub(crate) fn take(
        &mut self,
        (direction, now_ns): (Direction, u64),
        pieces: &[Piece],
        header: &NetHeader,
        arena: &Arena,
    ) {
        self.frame.clear();
        pieces.iter().for_each(|&piece| self.frame.extend_from_slice(arena.piece(piece)));
        if header.flags & NEEDS_CSUM != 0 {
            complete_checksum(&mut self.frame, header.csum_start, header.csum_offset);
        }
        let flags = EnhancedPacketOption::Flags(direction as u32);
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(self.wall_offset_ns.wrapping_add(now_ns)),
            original_len: u32::try_from(self.frame.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&self.frame),
            options: vec![flags],
        };
        // Writing to memory cannot fail.
        if self.writer.write_pcapng_block(packet).is_ok() {
            self.frames_in_block += 1;
        }
        if self.writer.get_ref().len() >= BLOCK_LEN {
            self.hand_over(now_ns);
        }
    }

    /// Hands over what has waited for long. Called by the worker's cold work.
    pub(crate) fn maintain(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.block_since_ns) >= BLOCK_AGE_NS {
            self.hand_over(now_ns);
        }
    }

    /// Calls `visit` with the name and value of every counter.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("frames", self.counters.frames);
        visit("frames_left_out", self.counters.frames_left_out);
        visit("write_errors", self.write_errors.load(Ordering::Relaxed));
    }

    fn hand_over(&mut self, now_ns: u64) {
        self.block_since_ns = now_ns;
        let (Some(full), false) = (&self.full, self.writer.get_ref().is_empty()) else { return };
        let next = self.empty.try_recv().unwrap_or_else(|_none| Vec::with_capacity(2 * BLOCK_LEN));
        let block = std::mem::replace(self.writer.get_mut(), next);
        let frames = std::mem::take(&mut self.frames_in_block);
        match full.try_send(block) {
            Ok(()) => self.counters.frames += frames,
            Err(TrySendError::Full(mut block) | TrySendError::Disconnected(mut block)) => {
                self.counters.frames_left_out += frames;
                block.clear();
                *self.writer.get_mut() = block;
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(full) = self.full.take() {
            // The last block waits for its turn: nothing else does any more.
            let _writer_gone = full.send(std::mem::take(self.writer.get_mut()));
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The writing thread's life.
fn write_blocks(
    mut file: File,
    path: &str,
    blocks: &Receiver<Vec<u8>>,
    written: &SyncSender<Vec<u8>>,
    errors: &AtomicU64,
) {
    let mut is_broken = false;
    while let Ok(mut block) = blocks.recv() {
        // After an error in the middle of a block nothing that follows could be read.
        let outcome = if is_broken { Err(None) } else { file.write_all(&block).map_err(Some) };
        if let Err(error) = outcome {
            errors.fetch_add(1, Ordering::Relaxed);
            is_broken = true;
            if let Some(error) = error {
                eprintln!("roceway: {path}: {error}; the capture ends here, traffic goes on");
            }
        }
        block.clear();
        // Beyond what is kept, memory is given back.
        drop(written.try_send(block));
    }
}

/// Completes a partial checksum (virtio 1.2 §5.1.6.2): RFC 1071 over everything from `start`,
/// where the pseudo-header's sum lies already.
fn complete_checksum(frame: &mut [u8], start: u16, offset: u16) {
    let (start, offset) = (usize::from(start), usize::from(offset));
    let Some(summed) = frame.get_mut(start..) else { return };
    if summed.len() < offset + 2 {
        return;
    }
    let mut sum = 0_u64;
    for pair in summed.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let checksum = !u16::try_from(sum).unwrap_or(0);
    // RFC 768: a UDP checksum of zero would mean none; TCP may have either.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    summed[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_partial_checksums_are_completed() {
        // RFC 1071 §3: 0001 f203 f4f5 f6f7 sums to ddf2; here the field at 2 holds f203.
        let mut frame = [9, 9, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        complete_checksum(&mut frame, 2, 2);
        assert_eq!(frame[4..6], (!0xddf2_u16).to_be_bytes());
        assert_eq!(frame[..4], [9, 9, 0, 1]);
        let mut short = [1, 2, 3];
        for (start, offset) in [(0, 2), (2, 0), (3, 0), (9, 9), (u16::MAX, u16::MAX)] {
            complete_checksum(&mut short, start, offset);
            assert_eq!(short, [1, 2, 3], "outside the frame: {start}, {offset}");
        }
    }
}
