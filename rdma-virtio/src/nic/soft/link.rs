//! The link's life: meeting a peer, greeting it, noticing its death or stall, beginning again.
//!
//! Cold: called from `maintain`, and from `disarm` for what a sleeper was woken by. Never blocks.
//! Invariant: the data path has a peer's memory in use exactly while the session is complete.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use arrayvec::ArrayVec;

use super::barrier;
use super::bounce::BOUNCE_LEN;
use super::channel::{Channel, FDS_MAX, Fds, Incoming, WORDS_LEN_MAX};
use super::device_error;
use super::greeting::{Export, Greeting, Word};
use super::layout::{ARMED_OFFSET, CONSUMED_OFFSET, EXPORTS_MAX};
use super::options::SoftOptions;
use super::path::Meeting;
use super::session::{GREETING_NS_MAX, Session};
use super::shared::{Ring, SharedWord};
use super::{SoftCounters, SoftNic};
use crate::nic::{Accepted, DeviceError, NicEvent, WcStatus, Wire};

const BOUNCE_LEN_U64: u64 = 1 << 20;
const _: () = assert!(BOUNCE_LEN == 1 << 20);

/// Words taken from the socket at one time at most.
const WORDS_MAX: usize = 32;
/// How long the last messages of a peer that is gone may wait to be polled: 50 ms.
const LAST_MESSAGES_NS_MAX: u64 = 50_000_000;

/// What is known of the link besides the data path.
#[derive(Debug)]
pub(super) struct Link {
    name: String,
    meeting: Meeting,
    greeting: Greeting,
    memfds: ArrayVec<OwnedFd, FDS_MAX>,
    session: Option<Session>,
    news: VecDeque<NicEvent>,
    failure: Option<DeviceError>,
    keys: u32,
    /// The socket has ended; since when, as far as `maintain` knows.
    ended: bool,
    ended_ns: Option<u64>,
    /// Of the last peer that was linked, until it is gone.
    peer_identity: Option<u64>,
    timeout_ns: u64,
    stall: Stall,
}

/// For how long the peer has taken nothing of what waits for it.
#[derive(Debug, Default)]
struct Stall {
    consumed: u64,
    waits: bool,
    waited_ns: u64,
    looked_ns: u64,
}

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The peer died or left.
    Gone,
    /// The peer has not taken our messages in time.
    Stalled,
    /// The peer says that we have not taken its messages in time.
    ToldStalled,
}

impl Link {
    pub(super) fn new(
        name: &str,
        meeting: Meeting,
        options: &SoftOptions,
    ) -> Result<Link, DeviceError> {
        let seed = random_u64().map_err(|error| device_error(name, "getrandom", error, ""))?;
        let greeting = Greeting {
            identity: seed,
            slots: options.slots,
            mtu: options.mtu,
            frames: options.wire() == Wire::Frames,
            forces_barriers: barrier::can_force_barriers(),
            accepted: options.capabilities(name).accepted(),
            // A peer that does not take large frames whole has them cut for it.
            bounce_len: if options.tso || options.large { BOUNCE_LEN_U64 } else { 0 },
            link_len: 0,
            exports: ArrayVec::new(),
        };
        let [k0, k1, k2, ..] = seed.to_le_bytes();
        Ok(Link {
            name: name.to_owned(),
            meeting,
            greeting,
            memfds: ArrayVec::new(),
            session: None,
            news: VecDeque::new(),
            failure: None,
            keys: u32::from_le_bytes([k0, k1, k2, 0]),
            ended: false,
            ended_ns: None,
            peer_identity: None,
            timeout_ns: options.timeout_ns,
            stall: Stall::default(),
        })
    }

    /// A key that differs from registration to registration; 24 bits.
    pub(super) fn next_key(&mut self) -> u32 {
        self.keys = self.keys.wrapping_add(1) & 0x00ff_ffff;
        self.keys
    }

    /// Says to peers to come what is taken, of what the options allow.
    pub(super) fn accept(&mut self, accepted: Accepted) {
        self.greeting.accepted = self.greeting.accepted.and(accepted);
    }

    /// Whether a peer was told what is shown to it.
    pub(super) fn has_told(&self) -> bool {
        self.session.is_some()
    }

    /// Whether `maintain` has something to say at once.
    pub(super) fn has_news(&self) -> bool {
        self.ended || self.failure.is_some() || !self.news.is_empty()
    }

    /// Adds a region to what is shown; the table of regions has bounded their number.
    pub(super) fn export(&mut self, memfd: OwnedFd, export: Export) {
        if self.memfds.len() < EXPORTS_MAX {
            self.memfds.push(memfd);
            self.greeting.exports.push(export);
        }
    }

    /// Makes the peer's event fd readable. A socket that is full is readable already, and one
    /// that has ended wakes its peer by that.
    pub(super) fn wake_peer(&self) {
        if let Some(session) = &self.session {
            let _ = session.say(Word::Wake, "");
        }
    }

    fn fail(&mut self, call: &'static str, errno: i32, remedy: &str) {
        let source = io::Error::from_raw_os_error(errno);
        self.failure = Some(device_error(&self.name, call, source, remedy));
    }
}

impl SoftNic {
    /// See [`crate::nic::Nic::maintain`].
    pub(super) fn keep_up(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        self.read_words();
        self.finish_ended(now_ns);
        self.watch_for_stall(now_ns);
        if self.receiver.publish() {
            self.sleep.on_progress(&mut self.counters, &self.link);
        }
        if self.link.session.is_some() {
            let told = self.link.meeting.turn_others_away();
            self.counters.peers_told_busy += told;
        } else {
            self.meet(now_ns)?;
        }
        match self.link.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.link.news.pop_front()),
        }
    }

    /// Takes what came through the socket.
    pub(super) fn read_words(&mut self) {
        let mut buffer = [0; WORDS_LEN_MAX];
        for _ in 0..WORDS_MAX {
            let Some(session) = &self.link.session else { return };
            if self.link.ended {
                return;
            }
            match session.channel.receive(&mut buffer) {
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::Message(length, fds)) => {
                    self.counters.wakes_received += 1;
                    self.on_word(&buffer[..length.min(WORDS_LEN_MAX)], fds);
                }
                Ok(Incoming::End) | Err(_) => self.link.ended = true,
            }
        }
    }

    fn on_word(&mut self, bytes: &[u8], fds: Fds) {
        let text = || String::from_utf8_lossy(&bytes[1..]).into_owned();
        match Word::of(bytes) {
            Some(Word::Wake) => {}
            Some(Word::Greeting) => self.on_greeting(bytes, fds),
            Some(Word::Ready) => {
                if let Some(session) = &mut self.link.session {
                    session.peer_ready = true;
                }
                self.come_up();
            }
            Some(Word::Stalled) => self.end(End::ToldStalled),
            Some(Word::Busy) => {
                self.link.session = None;
                self.link.meeting.on_busy();
            }
            Some(Word::Refused) => {
                let remedy = format!("the peer refuses: {}", text());
                self.link.fail("connect", libc::ECONNREFUSED, &remedy);
                self.end(End::Gone);
            }
            None => self.refuse("it says what nobody understands"),
        }
    }

    fn on_greeting(&mut self, bytes: &[u8], fds: Fds) {
        let Some(session) = &mut self.link.session else { return };
        match session.on_greeting(&self.link.greeting, bytes, fds) {
            Ok(()) => self.come_up(),
            Err(why) => self.refuse(&why),
        }
    }

    /// Ends a session whose peer makes no sense. Who connected has an error; who listens goes on
    /// listening.
    fn refuse(&mut self, why: &str) {
        self.counters.peers_refused += 1;
        if let Some(session) = &self.link.session {
            let _ = session.say(Word::Refused, why);
        }
        if !self.link.meeting.is_listener() {
            let remedy = format!("the peer is refused: {why}");
            self.link.fail("connect", libc::EPROTO, &remedy);
        }
        self.end(End::Gone);
    }

    /// Takes the link into use when both sides see each other.
    fn come_up(&mut self) {
        let Some(session) = &mut self.link.session else { return };
        if !session.is_complete() || self.sender.is_up() {
            return;
        }
        let Some((theirs, opened)) = &mut session.peer else { return };
        let forced = theirs.forces_barriers && self.link.greeting.forces_barriers;
        let (own, peer) = (&session.own, &opened.link);
        let views = (
            Ring::in_link(own, self.link.greeting.slots),
            Ring::in_link(peer, theirs.slots),
            SharedWord::in_link(own, CONSUMED_OFFSET),
            SharedWord::in_link(peer, CONSUMED_OFFSET),
            SharedWord::in_link(own, ARMED_OFFSET),
            SharedWord::in_link(peer, ARMED_OFFSET),
        );
        let (
            Some(own_ring),
            Some(ring),
            Some(consumed),
            Some(peers),
            Some(armed),
            Some(theirs_armed),
        ) = views
        else {
            return self.refuse("its memory is too short");
        };
        let identity = theirs.identity;
        self.peer = theirs.accepted;
        self.looks = self.frames || Accepted { checksum: true, ..self.peer } != Accepted::ALL;
        self.bounce.connect(own, self.link.greeting.slots);
        let shown = std::mem::take(&mut opened.shown);
        self.sender.connect(own_ring, peers);
        self.receiver.connect(ring, consumed, shown);
        self.sleep.connect(armed, theirs_armed, forced);
        self.link.stall = Stall::default();
        self.link.meeting.on_linked();
        if self.link.peer_identity.is_some_and(|before| before != identity) {
            self.counters.peers_gone += 1;
            self.link.news.push_back(NicEvent::PeerGone);
        }
        self.link.peer_identity = Some(identity);
        self.counters.links_up += 1;
        self.link.news.push_back(NicEvent::LinkUp);
    }

    /// Ends the session of a peer that is gone, when its last messages were polled.
    fn finish_ended(&mut self, now_ns: u64) {
        let greets = self.link.session.as_ref().filter(|session| !session.is_complete());
        if greets.is_some_and(|session| now_ns.saturating_sub(session.began_ns) > GREETING_NS_MAX) {
            return self.refuse("it did not greet in time");
        }
        if !self.link.ended {
            return;
        }
        let since = *self.link.ended_ns.get_or_insert(now_ns);
        if !self.receiver.ready() || now_ns.saturating_sub(since) > LAST_MESSAGES_NS_MAX {
            self.end(End::Gone);
        }
    }

    fn end(&mut self, why: End) {
        let was_up = self.sender.is_up();
        let status = match why {
            End::Stalled => WcStatus::RetryExceeded,
            End::Gone | End::ToldStalled => WcStatus::Flushed,
        };
        self.sender.disconnect(status);
        self.receiver.disconnect();
        self.sleep.disconnect();
        self.bounce.disconnect();
        self.link.session = None;
        self.link.ended = false;
        self.link.ended_ns = None;
        if !was_up {
            return;
        }
        self.counters.links_down += 1;
        if why == End::Gone {
            self.counters.peers_gone += 1;
            self.link.peer_identity = None;
            self.link.news.push_back(NicEvent::PeerGone);
        } else {
            self.link.news.push_back(NicEvent::LinkDown);
        }
    }

    /// Takes the link down if the peer has taken nothing for too long. A pause of this process
    /// itself counts for a quarter of the timeout at most.
    fn watch_for_stall(&mut self, now_ns: u64) {
        if !self.sender.is_up() {
            return;
        }
        let (consumed, tail) = self.sender.progress(&mut self.counters);
        let stall = &mut self.link.stall;
        let passed = now_ns.saturating_sub(stall.looked_ns).min(self.link.timeout_ns / 4);
        stall.looked_ns = now_ns;
        if consumed == tail || consumed != stall.consumed || !stall.waits {
            stall.consumed = consumed;
            stall.waits = consumed != tail;
            stall.waited_ns = 0;
            return;
        }
        stall.waited_ns += passed;
        if stall.waited_ns >= self.link.timeout_ns {
            self.counters.peers_stalled += 1;
            if let Some(session) = &self.link.session {
                let _ = session.say(Word::Stalled, "");
            }
            self.end(End::Stalled);
        }
    }

    /// Looks for a peer and greets it.
    fn meet(&mut self, now_ns: u64) -> Result<(), DeviceError> {
        let found = self.link.meeting.poll(now_ns, &self.events)?;
        self.counters.peers_refused += self.link.meeting.take_refused();
        let Some(channel) = found else { return Ok(()) };
        self.greet(channel, now_ns)
    }

    fn greet(&mut self, channel: Channel, now_ns: u64) -> Result<(), DeviceError> {
        self.events.add(channel.fd()).map_err(|error| self.error("epoll_ctl", error, ""))?;
        let memfds: ArrayVec<_, FDS_MAX> = self.link.memfds.iter().map(AsFd::as_fd).collect();
        let begun = Session::begin(channel, &mut self.link.greeting, &memfds, now_ns);
        drop(memfds);
        match begun {
            Ok(session) => {
                self.link.session = Some(session);
                self.read_words();
                Ok(())
            }
            // Who hangs up during the greeting was not a peer.
            Err(error) if error.source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(DeviceError { device: self.link.name.clone(), ..error }),
        }
    }

    /// What was counted and what must hold of it, for tests: a sentence if it does not.
    ///
    /// # Errors
    /// The sum that does not hold.
    pub fn check_conservation(&self) -> Result<(), String> {
        let SoftCounters {
            taken,
            received,
            drop_malformed,
            drop_revoked,
            drop_torn,
            drop_too_long,
            work_requests,
            sends_completed,
            sends_flushed,
            sends_retry_exceeded,
            ..
        } = self.counters();
        let drops = drop_malformed + drop_revoked + drop_torn + drop_too_long;
        if taken != received + drops {
            return Err(format!("taken {taken} != received {received} + drops {drops}"));
        }
        let ended = sends_completed + sends_flushed + sends_retry_exceeded;
        let outstanding = self.sends_outstanding();
        if work_requests != ended + outstanding {
            return Err(format!("posted {work_requests} != ended {ended} + {outstanding} more"));
        }
        Ok(())
    }
}

fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: `bytes` has room for its own length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(got) == Ok(bytes.len()) {
        Ok(u64::from_le_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}
