//! What a device does, found by use: frames to this station's own address, which a device hands
//! back to the port they came from, go out with every offload, and are compared with what must
//! arrive.
//!
//! Nothing is inferred from a flag: a device that claims something and does not do it is found out,
//! and software takes its place. Not every device hands frames back; there nothing can be tried,
//! which is told, and only the user can vouch for it. The kernel's driver of mlx5 hands them back
//! while two processes, or two contexts, have the device open (mlx5_ib_enable_lb; read, not tried),
//! so a second context is open meanwhile. Frames that leave the port all the same harm nobody: no
//! other station has the address.

mod frames;

use std::time::{Duration, Instant};

use self::frames::{Frame, Kind, MARK_LEN, Station, build, is_segment, segments};
use super::link::{Base, Link};
use super::steering::Steering;
use crate::memory::mapping::{Mapping, PageWish};
use crate::nic::{DeviceError, Lkey, Sge};
use crate::verbs::extended::BatchSend;
use crate::verbs::flow::Flow;
use crate::verbs::region::{Access, Region};
use crate::verbs::work_completion::WorkCompletion;
use crate::verbs::work_list::ReceiveList;

/// How long a frame is waited for.
const WAIT: Duration = Duration::from_millis(20);
const BUFFERS: usize = 16;
const BUFFER_LEN: usize = 4096;
/// Payload of the large frame, and of its segments.
const LARGE: usize = 700;
const MSS: u16 = 200;

/// What was found; nothing of what could not be tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// Rules bring the station its frames.
    pub(super) steers: Option<bool>,
    /// Checksums are completed, of TCP and UDP over both families.
    pub(super) tx_checksum: Option<bool>,
    /// What is said of received checksums is true.
    pub(super) rx_checksum: Option<bool>,
    /// Large segments are cut, over each family.
    pub(super) tso4: Option<bool>,
    pub(super) tso6: Option<bool>,
}

/// What is claimed, so that nothing is asked of a device that it would refuse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims {
    pub(super) checksum: bool,
    pub(super) tso: bool,
}

/// A link with memory of its own.
struct Trial<'a> {
    // The link is dropped first: its device reaches the memory until then.
    link: Link,
    list: ReceiveList,
    region: Region,
    mapping: Mapping,
    lkey: Lkey,
    station: Station,
    claims: Claims,
    marks: u64,
    steering: &'a Steering,
}

/// Tries the device with a link that it gets for this alone.
pub(super) fn probe(
    base: &Base,
    link: Link,
    (steering, claims): (&Steering, Claims),
) -> Result<Found, DeviceError> {
    // Two users of the device, see above; one that cannot be had is done without.
    let _second = base.context.device().open().ok();
    let station_rule = link.pair.pair().flow(&steering.station())?;
    let mut trial = Trial::new(base, link, (steering, claims))?;
    trial.run(station_rule)
}

impl Trial<'_> {
    fn new<'a>(
        base: &Base,
        link: Link,
        (steering, claims): (&'a Steering, Claims),
    ) -> Result<Trial<'a>, DeviceError> {
        let device = base.context.device().name();
        let bytes = (BUFFERS + 1) * BUFFER_LEN;
        let mapping = Mapping::create(c"roceway-trial", bytes, PageWish::Ordinary)
            .map_err(|error| error.into_device(device))?;
        let length = u64::try_from(mapping.len()).unwrap_or(0);
        // SAFETY: the link, whose requests alone name it, is dropped before region and mapping; a
        // buffer is read after its completion only.
        let region = unsafe { base.domain.register(mapping.addr(), length, Access::LocalWrite) }?;
        let lkey = region.lkey();
        let station = Station { mac: steering.mac, vlan: steering.options.vlan };
        let list = ReceiveList::new(1, 1);
        let mut trial =
            Trial { link, list, region, mapping, lkey, station, claims, marks: 0, steering };
        for buffer in 0..BUFFERS {
            trial.post(buffer);
        }
        Ok(trial)
    }

    fn run(&mut self, station_rule: Flow) -> Result<Found, DeviceError> {
        debug_assert!(self.region.length() > 0);
        let mut found = Found::default();
        if self.comes_back() {
            found.steers = Some(true);
        } else {
            // The rule may be at fault, or frames never come back.
            drop(station_rule);
            let Ok(_everything) = self.link.pair.pair().flow(&self.steering.everything()) else {
                return Ok(found);
            };
            if !self.comes_back() {
                return Ok(found);
            }
            found.steers = Some(false);
            self.try_offloads(&mut found);
            return Ok(found);
        }
        self.try_offloads(&mut found);
        drop(station_rule);
        Ok(found)
    }

    /// Whether a plain frame comes back as it was sent.
    fn comes_back(&mut self) -> bool {
        let frame = self.frame(Kind { v6: false, tcp: false }).finished();
        self.send(&frame.bytes, false);
        self.wait(&frame).is_some()
    }

    fn try_offloads(&mut self, found: &mut Found) {
        found.rx_checksum = Some(self.tells_right_from_wrong());
        found.tx_checksum = Some(self.claims.checksum && self.completes_checksums());
        let segments = self.claims.tso && found.tx_checksum == Some(true);
        found.tso4 = Some(segments && self.cuts(Kind { v6: false, tcp: true }));
        found.tso6 = Some(segments && self.cuts(Kind { v6: true, tcp: true }));
    }

    /// A frame with a mark that no other has.
    fn frame(&mut self, kind: Kind) -> Frame {
        build(self.station, kind, &self.payload(60))
    }

    fn payload(&mut self, length: usize) -> Vec<u8> {
        self.marks += 1;
        let mark = self.marks.to_be_bytes();
        let filling = (MARK_LEN..length).map(|at| u8::try_from(at % 251).unwrap_or(0));
        mark.into_iter().chain(filling).collect()
    }

    fn completes_checksums(&mut self) -> bool {
        frames::ALL.into_iter().all(|kind| {
            let frame = self.frame(kind);
            self.send(&frame.bytes, true);
            self.wait(&frame).is_some_and(|(received, _)| frame.arrived_whole(&received))
        })
    }

    /// Whether a wrong checksum is never called right, and a right one is at least sometimes.
    fn tells_right_from_wrong(&mut self) -> bool {
        let mut verified = false;
        for kind in frames::ALL {
            let right = self.frame(kind).finished();
            self.send(&right.bytes, false);
            verified |= self.wait(&right).is_some_and(|(_, verified)| verified);
            let wrong = self.frame(kind).spoilt();
            self.send(&wrong.bytes, false);
            if self.wait(&wrong).is_some_and(|(_, verified)| verified) {
                return false;
            }
        }
        verified
    }

    /// Whether a large frame arrives as its segments, in order.
    fn cuts(&mut self, kind: Kind) -> bool {
        let payload = self.payload(LARGE);
        let whole = build(self.station, kind, &payload);
        let parts = segments(self.station, kind, (&payload, usize::from(MSS)));
        self.put(&payload);
        let sge = self.sent(payload.len());
        let addr = u64::try_from(whole.bytes.as_ptr().expose_provenance()).unwrap_or(0);
        let length = u32::try_from(whole.header_len).unwrap_or(0);
        let header = Sge { addr, length, lkey: Lkey(0) };
        let request = BatchSend { wr_id: 0, signalled: true, checksum: true, destination: None };
        // SAFETY: the frame lives until the batch was posted.
        let added = unsafe { self.link.pair.send_tso(&request, header, MSS, &[sge]) };
        if added.is_err() || self.link.pair.post().is_err() {
            return false;
        }
        self.reap();
        // Its segments have no marks, but come one behind the other.
        let limit = Instant::now() + WAIT;
        parts.iter().all(|part| self.take(limit, |received| is_segment(part, received)).is_some())
    }
}

/// Sending and receiving.
impl Trial<'_> {
    fn post(&mut self, buffer: usize) {
        let addr = self.mapping.addr() + u64::try_from(buffer * BUFFER_LEN).unwrap_or(0);
        let length = u32::try_from(BUFFER_LEN).unwrap_or(0);
        let id = u64::try_from(buffer).unwrap_or(0);
        let pushed = self.list.push(id, &[Sge { addr, length, lkey: self.lkey }]);
        // A receive less; a device that takes none is found not to bring anything.
        if pushed.is_err() || self.link.pair.pair().post_recv(&mut self.list).is_err() {
            self.list.clear();
        }
    }

    /// The element of what is sent.
    fn sent(&self, length: usize) -> Sge {
        let addr = self.mapping.addr() + u64::try_from(BUFFERS * BUFFER_LEN).unwrap_or(0);
        Sge { addr, length: u32::try_from(length).unwrap_or(0), lkey: self.lkey }
    }

    fn put(&mut self, bytes: &[u8]) {
        let to = self.mapping.as_mut_ptr().wrapping_add(BUFFERS * BUFFER_LEN);
        let length = bytes.len().min(BUFFER_LEN);
        // SAFETY: the last buffer of the mapping, of which earlier sends are complete.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, length) };
    }

    fn send(&mut self, bytes: &[u8], checksum: bool) {
        self.put(bytes);
        let sge = self.sent(bytes.len());
        let request = BatchSend { wr_id: 0, signalled: true, checksum, destination: None };
        // One that fails does not come back, which is the finding.
        let _not_sent = self.link.pair.send(&request, &[sge]);
        let _not_posted = self.link.pair.post();
        self.reap();
    }

    /// Waits for the completion of what was sent.
    fn reap(&mut self) {
        let limit = Instant::now() + WAIT;
        let mut completion = [WorkCompletion::default()];
        while Instant::now() < limit {
            match self.link.send_queue.poll(&mut completion) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Waits for a frame by its mark: its bytes, and whether the device calls its checksum right.
    fn wait(&mut self, frame: &Frame) -> Option<(Vec<u8>, bool)> {
        let mark = frame.mark().to_vec();
        let at = frame.header_len;
        self.take(Instant::now() + WAIT, |received| {
            received.get(at..at + MARK_LEN) == Some(&mark[..])
        })
    }

    /// Waits for a frame; others are of no interest.
    fn take(&mut self, limit: Instant, is_it: impl Fn(&[u8]) -> bool) -> Option<(Vec<u8>, bool)> {
        let mut completion = [WorkCompletion::default()];
        while Instant::now() < limit {
            match self.link.recv_queue.poll(&mut completion) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) => {
                    let [completion] = completion;
                    let buffer = usize::try_from(completion.wr_id()).ok();
                    let buffer = buffer.filter(|buffer| *buffer < BUFFERS)?;
                    if !completion.is_success() {
                        return None;
                    }
                    let received = self.read(buffer, completion.byte_len());
                    self.post(buffer);
                    if is_it(&received) {
                        return Some((received, completion.checksum_verified()));
                    }
                }
                Err(_) => return None,
            }
        }
        None
    }

    fn read(&self, buffer: usize, length: u32) -> Vec<u8> {
        let length = usize::try_from(length).unwrap_or(0).min(BUFFER_LEN);
        let mut bytes = vec![0; length];
        let from = self.mapping.as_ptr().wrapping_add(buffer * BUFFER_LEN);
        // SAFETY: a buffer of the mapping whose receive is complete.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), length) };
        bytes
    }
}
