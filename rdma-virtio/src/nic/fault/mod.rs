//! A wrapper that injects seeded faults into any NIC.
//!
//! It works on received messages, on the completions of sends, and, if asked to, on sends. A
//! message that is dropped
//! or withheld keeps its posted receives here; dropped ones are posted again beneath. So the NIC's
//! contract holds but for one thing, which is the purpose: receives complete in the order in which
//! messages are delivered, not in posting order, as where buffers have been dropped beneath.
//!
//! Order of faults: loss, corruption, duplication, then reordering and delay. A duplicate is
//! a copy in receives that the wrapper keeps back for that (a quarter of what is posted, at most
//! 32, and only if duplication is asked for). If the NIC beneath runs short of receives, what is
//! held is released early, so that holding never starves a link.
//!
//! While a message is held, [`FaultyNic::arm`] says that something is pending, so that its time
//! is not slept over. Times advance with `maintain` only.

mod buffers;
mod corrupt;
mod sends;
mod verdict;

use std::collections::VecDeque;
use std::os::fd::RawFd;

pub use verdict::{DELAY_NS_MAX, FaultOptions, REORDER_DISTANCE_MAX};

use super::{
    Accepted, Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, Offload,
    PostError, RecvWr, RegionView, SendWr, Sge, WcChecksum, WcStatus,
};
use buffers::{Buffers, ELEMENTS_MAX, Filled};
use corrupt::{Corrupted, corrupt};
use sends::Sends;
use verdict::{Random, Verdict};

/// Receives kept back for duplicates at most: a 64 KiB message takes 17 of 4 KiB.
const SPARES_MAX: usize = 32;
/// A reordered message that nothing overtakes is released after this time: 10 ms.
const REORDER_NS_MAX: u64 = 10_000_000;
/// Completions taken from beneath at one time.
const BATCH: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counters of a wrapper. `received + duplicated = delivered + lost + lost_uncheckable +
        /// held`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct FaultCounters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl FaultCounters {
            /// Calls `visit` with each name and value.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
                $(visit(concat!("fault_", stringify!($name)), self.$name);)+
            }
        }
    };
}

counters! {
    /// Messages that came from beneath.
    received,
    /// Messages given to the caller, duplicates included.
    delivered,
    /// Messages lost.
    lost,
    /// Messages that were to be corrupted and were lost, since nothing in them would notice.
    lost_uncheckable,
    /// Messages delivered or held twice.
    duplicated,
    /// Duplicates that were skipped for want of spare receives.
    duplicates_skipped,
    /// Messages with a flipped bit.
    corrupted,
    /// Messages held to be overtaken.
    reordered,
    /// Messages held for a time.
    delayed,
    /// Held messages released early, since the NIC beneath was short of receives.
    released_early,
    /// Messages held now.
    held,
    /// Receives that completed in error beneath, passed on.
    receive_errors,
    /// Send completions turned into errors.
    send_errors,
    /// Sends that never went out.
    sends_lost,
    /// Sends that went out twice.
    sends_duplicated,
    /// Sends held to be overtaken.
    sends_reordered,
}

/// A message that is held back.
#[derive(Debug)]
struct Held {
    message: Vec<Filled>,
    checksum: WcChecksum,
    /// Released when so many messages have passed, if that comes before its time.
    after: Option<u64>,
    /// Released at this time at the latest.
    at_ns: u64,
}

/// A NIC with faults; see the module's description.
#[derive(Debug)]
pub struct FaultyNic<N: Nic> {
    inner: N,
    options: FaultOptions,
    capabilities: Capabilities,
    receive_random: Random,
    send_random: Random,
    /// Present if sends are to have faults.
    sends: Option<Sends>,
    regions: Vec<(u32, RegionView)>,
    buffers: Buffers,
    /// Receives that are not posted beneath.
    spare: VecDeque<usize>,
    /// Receives that are posted beneath.
    beneath: usize,
    partial: Vec<Filled>,
    ready: VecDeque<Completion>,
    held: Vec<Held>,
    /// Emptied lists, to be used again.
    pool: Vec<Vec<Filled>>,
    bytes: Vec<u8>,
    now_ns: u64,
    counters: FaultCounters,
}

impl<N: Nic> FaultyNic<N> {
    /// Wraps a NIC of which nothing is posted or registered yet.
    ///
    /// # Errors
    /// If a rate or time is out of range.
    pub fn new(inner: N, options: FaultOptions) -> Result<FaultyNic<N>, DeviceError> {
        let mut capabilities = inner.capabilities().clone();
        options.check().map_err(|remedy| DeviceError {
            device: capabilities.name.clone(),
            call: "open",
            source: std::io::Error::from_raw_os_error(libc::EINVAL),
            remedy,
        })?;
        let most = u16::try_from(ELEMENTS_MAX).unwrap_or(u16::MAX);
        capabilities.max_recv_sge = capabilities.max_recv_sge.min(most);
        let receives = usize::try_from(capabilities.max_recv_wr).unwrap_or(0);
        let longest = usize::try_from(capabilities.max_message).unwrap_or(0);
        let sends = options.sends.then(|| {
            // What may be held or lost cannot be read before the call returns.
            capabilities.max_inline = 0;
            let capacity = usize::try_from(capabilities.max_send_wr).unwrap_or(0);
            Sends::new(options.seed.rotate_left(32), capacity)
        });
        Ok(FaultyNic {
            inner,
            options,
            capabilities,
            receive_random: Random::new(options.seed),
            send_random: Random::new(!options.seed),
            sends,
            regions: Vec::new(),
            buffers: Buffers::new(receives),
            spare: VecDeque::with_capacity(receives),
            beneath: 0,
            partial: Vec::new(),
            ready: VecDeque::with_capacity(receives),
            held: Vec::new(),
            pool: Vec::new(),
            bytes: Vec::with_capacity(longest),
            now_ns: 0,
            counters: FaultCounters::default(),
        })
    }

    /// The NIC beneath.
    pub fn inner(&self) -> &N {
        &self.inner
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> FaultCounters {
        let faults = self.sends.as_ref().map(|sends| sends.faults).unwrap_or_default();
        FaultCounters {
            held: u64::try_from(self.held.len()).unwrap_or(u64::MAX),
            sends_lost: faults.lost,
            sends_duplicated: faults.duplicated,
            sends_reordered: faults.reordered,
            ..self.counters
        }
    }

    /// Receives to keep back for duplicates.
    fn spares_wanted(&self) -> usize {
        if self.options.duplicate > 0.0 {
            SPARES_MAX.min((self.beneath + self.spare.len()) / 4)
        } else {
            0
        }
    }

    /// Posts a buffer beneath; it stays spare if that fails.
    fn post_beneath(&mut self, index: usize) -> Result<(), PostError> {
        let wr_id = u64::try_from(index).unwrap_or(u64::MAX);
        let wr = RecvWr { wr_id, sges: self.buffers.sges(index) };
        match self.inner.post_recv(&[wr]) {
            Ok(_) => {
                self.beneath += 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Posts beneath what is spare beyond what is wanted.
    fn refill(&mut self) {
        while self.spare.len() > self.spares_wanted() {
            let Some(index) = self.spare.pop_front() else { return };
            if self.post_beneath(index).is_err() {
                self.spare.push_back(index);
                return;
            }
        }
    }

    /// A message is dropped: its receives are posted again.
    fn repost(&mut self, mut message: Vec<Filled>) {
        for filled in message.drain(..) {
            if self.post_beneath(filled.buffer).is_err() {
                self.spare.push_back(filled.buffer);
            }
        }
        self.pool.push(message);
    }

    fn take_from_beneath(&mut self, wanted: usize) {
        let mut batch = [NOTHING; BATCH];
        while self.ready.len() < wanted {
            let count = self.inner.poll_recv(&mut batch);
            for completion in &batch[..count] {
                self.on_completion(completion);
            }
            if count == 0 {
                break;
            }
        }
        self.release_early();
    }

    fn on_completion(&mut self, completion: &Completion) {
        let Some(buffer) = self.buffers.index(completion.wr_id) else { return };
        self.beneath = self.beneath.saturating_sub(1);
        if completion.status != WcStatus::Success {
            self.counters.receive_errors += 1;
            let wr_id = self.buffers.give_back(buffer);
            self.ready.push_back(Completion { wr_id, ..*completion });
            return;
        }
        self.partial.push(Filled { buffer, bytes: completion.byte_len });
        if !completion.more {
            let empty = self.pool.pop().unwrap_or_default();
            let message = std::mem::replace(&mut self.partial, empty);
            self.judge(message, completion.checksum);
        }
    }

    fn judge(&mut self, message: Vec<Filled>, mut checksum: WcChecksum) {
        self.counters.received += 1;
        let verdict = Verdict::draw(&mut self.receive_random, &self.options);
        if verdict.lose {
            self.counters.lost += 1;
            return self.repost(message);
        }
        if let Some(bit) = verdict.flip {
            self.buffers.gather(&message, &mut self.bytes);
            match corrupt(&mut self.bytes, self.capabilities.wire, bit) {
                Corrupted::Flipped => self.counters.corrupted += 1,
                Corrupted::MustBeLost => {
                    self.counters.lost_uncheckable += 1;
                    return self.repost(message);
                }
            }
            self.buffers.scatter(&message, &self.bytes);
            checksum = WcChecksum::Unknown;
        }
        let copy = if verdict.duplicate { self.copy_of(&message) } else { None };
        self.hold_or_deliver(message, checksum, verdict.overtaken_by);
        if let Some(copy) = copy {
            self.hold_or_deliver(copy, checksum, 0);
        }
        self.release_due();
    }

    /// A copy of a message in spare receives.
    fn copy_of(&mut self, message: &[Filled]) -> Option<Vec<Filled>> {
        let length: u32 = message.iter().map(|filled| filled.bytes).sum();
        let mut copy = self.pool.pop().unwrap_or_default();
        let mut rest = length;
        for index in &self.spare {
            if rest == 0 {
                break;
            }
            let bytes = rest.min(self.buffers.total(*index));
            copy.push(Filled { buffer: *index, bytes });
            rest -= bytes;
        }
        let one_message = self.capabilities.receive == super::Receive::OneMessage;
        if rest > 0 || (one_message && copy.len() > 1) {
            copy.clear();
            self.pool.push(copy);
            self.counters.duplicates_skipped += 1;
            return None;
        }
        self.spare.drain(..copy.len());
        self.buffers.gather(message, &mut self.bytes);
        self.buffers.scatter(&copy, &self.bytes);
        self.counters.duplicated += 1;
        Some(copy)
    }

    fn hold_or_deliver(&mut self, message: Vec<Filled>, checksum: WcChecksum, overtaken_by: u64) {
        let delay_ns = self.options.delay_ns;
        if delay_ns == 0 && overtaken_by == 0 {
            return self.deliver(message, checksum);
        }
        self.counters.delayed += u64::from(delay_ns > 0);
        self.counters.reordered += u64::from(overtaken_by > 0);
        let more_ns = if overtaken_by > 0 { REORDER_NS_MAX } else { 0 };
        let passed = self.counters.delivered + overtaken_by;
        self.held.push(Held {
            message,
            checksum,
            // Under a delay it is overtaken by time, else by messages.
            after: (delay_ns == 0).then_some(passed),
            at_ns: self.now_ns.saturating_add(delay_ns).saturating_add(more_ns),
        });
    }

    fn deliver(&mut self, mut message: Vec<Filled>, checksum: WcChecksum) {
        self.counters.delivered += 1;
        let count = message.len();
        for (number, filled) in message.drain(..).enumerate() {
            self.ready.push_back(Completion {
                wr_id: self.buffers.give_back(filled.buffer),
                status: WcStatus::Success,
                byte_len: filled.bytes,
                more: number + 1 < count,
                checksum,
            });
        }
        self.pool.push(message);
    }

    /// Delivers held messages whose turn has come. Each delivery may make another one due.
    fn release_due(&mut self) {
        while let Some(number) = self.held.iter().position(|held| {
            let passed = held.after.is_some_and(|after| self.counters.delivered >= after);
            passed || self.now_ns >= held.at_ns
        }) {
            let held = self.held.remove(number);
            self.deliver(held.message, held.checksum);
        }
    }

    /// Delivers held messages so that the NIC beneath is not starved of receives.
    fn release_early(&mut self) {
        let all = self.beneath
            + self.spare.len()
            + self.held.iter().map(|held| held.message.len()).sum::<usize>();
        let enough = SPARES_MAX.min(all / 2);
        while self.ready.is_empty() && self.beneath < enough && !self.held.is_empty() {
            let held = self.held.remove(0);
            self.counters.released_early += 1;
            self.deliver(held.message, held.checksum);
        }
    }
}

const NOTHING: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

impl<N: Nic> Nic for FaultyNic<N> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        // SAFETY: the caller upholds the same contract towards us, and we touch only buffers that
        // are posted to us.
        let lkey = unsafe { self.inner.register(region) }?;
        self.regions.push((lkey.0, region));
        Ok(lkey)
    }

    fn deregister(&mut self, lkey: Lkey) {
        self.regions.retain(|(known, _)| *known != lkey.0);
        self.inner.deregister(lkey);
    }

    fn accept(&mut self, accepted: Accepted) -> Result<(), DeviceError> {
        self.inner.accept(accepted)
    }

    fn join(&mut self, group: [u8; 6]) -> Result<(), DeviceError> {
        self.inner.join(group)
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        for (taken, wr) in wrs.iter().enumerate() {
            let result = self.buffers.add(wr, &self.regions).and_then(|index| {
                if self.spare.len() < self.spares_wanted() {
                    self.spare.push_back(index);
                    return Ok(());
                }
                self.post_beneath(index).inspect_err(|_| {
                    self.buffers.give_back(index);
                })
            });
            if let Err(error) = result {
                return if taken > 0 { Ok(taken) } else { Err(error) };
            }
        }
        Ok(wrs.len())
    }

    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        match &mut self.sends {
            Some(sends) => sends.post(&mut self.inner, wr, &self.options, self.now_ns),
            None => self.inner.post_send(wr),
        }
    }

    fn signal_last(&mut self) -> bool {
        match &mut self.sends {
            Some(sends) => sends.signal_last(),
            None => self.inner.signal_last(),
        }
    }

    fn doorbell(&mut self) {
        self.inner.doorbell();
    }

    fn recv_ready(&self) -> bool {
        !self.ready.is_empty() || self.inner.recv_ready()
    }

    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        self.take_from_beneath(out.len());
        let count = out.len().min(self.ready.len());
        for (place, completion) in out.iter_mut().zip(self.ready.drain(..count)) {
            *place = completion;
        }
        count
    }

    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        let count = match &mut self.sends {
            Some(sends) => sends.poll(&mut self.inner, out),
            None => self.inner.poll_send(out),
        };
        for completion in &mut out[..count] {
            let fails = self.send_random.chance(self.options.send_error);
            if fails && completion.status == WcStatus::Success {
                completion.status = WcStatus::General;
                self.counters.send_errors += 1;
            }
        }
        count
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        let holds = self.sends.as_ref().is_some_and(Sends::holds);
        if holds || !self.ready.is_empty() || !self.held.is_empty() {
            return Ok(Armed::Pending);
        }
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn event_fd(&self) -> RawFd {
        self.inner.event_fd()
    }

    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        self.now_ns = now_ns;
        self.release_due();
        self.refill();
        if let Some(sends) = &mut self.sends {
            sends.release(&mut self.inner, now_ns.saturating_sub(REORDER_NS_MAX));
        }
        self.inner.maintain(now_ns)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        self.counters().visit(visit);
        self.inner.visit_counters(visit);
    }
}
