//! One connection to a peer, from the greeting to its end.
//!
//! Owns the socket, the own link memory that was made for this connection, and what the peer
//! shows. A new connection has new memory, so that nothing stale of an earlier peer is ever read.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::channel::{Channel, FDS_MAX, Fds};
use super::greeting::{Greeting, Opened, Word};
use super::shared::SharedMemory;
use crate::memory::mapping::{Mapping, PageWish};
use crate::nic::DeviceError;

/// A peer that connects and says nothing is dropped after this time: 5 s.
pub(super) const GREETING_NS_MAX: u64 = 5_000_000_000;

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: Channel,
    /// The own link memory, already shown to the peer.
    pub(super) own: Arc<SharedMemory>,
    /// The peer, once it has greeted and its memory is mapped.
    pub(super) peer: Option<(Greeting, Opened)>,
    /// Whether the peer has mapped ours.
    pub(super) peer_ready: bool,
    /// When it began.
    pub(super) began_ns: u64,
}

impl Session {
    /// Makes link memory and greets the peer. `mine` gets the length of the link memory here.
    pub(super) fn begin(
        channel: Channel,
        mine: &mut Greeting,
        regions: &[BorrowedFd<'_>],
        now_ns: u64,
    ) -> Result<Session, DeviceError> {
        let bounce_len = usize::try_from(mine.bounce_len).unwrap_or(0);
        let length = Greeting::link_len_of(mine.slots, bounce_len);
        let own = Mapping::create(c"roceway-soft-link", length, PageWish::Ordinary)
            .and_then(|own| own.seal().map(|()| own))
            .map(|own| Arc::new(SharedMemory(own)))
            .map_err(|error| error.into_device(""))?;
        mine.link_len = u64::try_from(length).unwrap_or(0);
        let mut fds: ArrayVec<BorrowedFd<'_>, FDS_MAX> = ArrayVec::new();
        fds.push(own.0.memfd(0));
        fds.extend(regions.iter().copied().take(FDS_MAX - 1));
        channel.send(&mine.encode(), &fds).map_err(|source| DeviceError {
            device: String::new(),
            call: "sendmsg",
            source,
            remedy: String::new(),
        })?;
        drop(fds);
        Ok(Session { channel, own, peer: None, peer_ready: false, began_ns: now_ns })
    }

    /// Deals with the peer's greeting: checks it, maps the peer's memory, says that we are ready.
    ///
    /// # Errors
    /// One sentence that says why the peer is refused.
    pub(super) fn on_greeting(
        &mut self,
        mine: &Greeting,
        bytes: &[u8],
        fds: Fds,
    ) -> Result<(), String> {
        if self.peer.is_some() {
            return Err("it greeted twice".to_owned());
        }
        let theirs = Greeting::decode(bytes)?;
        if theirs.mtu != mine.mtu {
            return Err(format!("it has mtu={}, this side mtu={}", theirs.mtu, mine.mtu));
        }
        if theirs.frames != mine.frames {
            let state = |frames| if frames { "on" } else { "off" };
            return Err(format!(
                "it has tso={}, this side tso={}",
                state(theirs.frames),
                state(mine.frames)
            ));
        }
        let opened = theirs.open(fds)?;
        self.peer = Some((theirs, opened));
        self.say(Word::Ready, "").map_err(|error| format!("it does not answer: {error}"))
    }

    /// Sends a word and text.
    pub(super) fn say(&self, word: Word, text: &str) -> io::Result<()> {
        say(&self.channel, word, text)
    }

    /// Whether both sides see each other's memory.
    pub(super) fn is_complete(&self) -> bool {
        self.peer.is_some() && self.peer_ready
    }
}

/// Sends a word and text over a channel.
pub(super) fn say(channel: &Channel, word: Word, text: &str) -> io::Result<()> {
    let mut bytes: ArrayVec<u8, 256> = ArrayVec::new();
    bytes.push(word.byte());
    bytes.extend(text.bytes().take(255));
    channel.send(&bytes, &[])
}
