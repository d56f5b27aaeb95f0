//! One copy of lwIP behind safe calls.
//!
//! Invariants: a copy belongs to at most one [`Stack`], which takes `&mut self` for all that it
//! does, so that lwIP, which has no lock, never runs twice at once. What is around the stack is
//! borrowed for the length of a call; the C side forgets it with the call.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::calls::{Callbacks, Calls, Pbuf, RawOptions, roceway_calls_left, roceway_calls_right};

/// Which copy of lwIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// One.
    Left,
    /// The other.
    Right,
}

static TAKEN: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

impl Side {
    fn calls(self) -> &'static Calls {
        match self {
            Side::Left => &roceway_calls_left,
            Side::Right => &roceway_calls_right,
        }
    }

    fn taken(self) -> &'static AtomicBool {
        match self {
            Side::Left => &TAKEN[0],
            Side::Right => &TAKEN[1],
        }
    }
}

/// What an end is to be. Its address is 10.80.0.`host`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a packet without its Ethernet header.
    pub mtu: u16,
    /// The last byte of its address, of both kinds.
    pub host: u8,
    /// The same of the other end.
    pub peer: u8,
    /// Whether checksums are computed and verified.
    pub checksums: bool,
    /// A UDP socket instead of a TCP connection.
    pub udp: bool,
    /// Waits for the TCP connection instead of opening it.
    pub listens: bool,
}

/// A frame that lwIP sends, while it does.
#[derive(Debug)]
pub struct Frame<'a> {
    calls: &'static Calls,
    pbuf: *const Pbuf,
    length: u32,
    lives: PhantomData<&'a ()>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Calls")
    }
}

impl Frame<'_> {
    /// Its bytes, from the Ethernet header on.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Copies it, as much as fits.
    pub fn copy_to(&self, to: &mut [u8]) {
        let length = u32::try_from(to.len()).unwrap_or(u32::MAX);
        // SAFETY: the frame lives as long as this borrow, by `send`; `to` has `length` bytes.
        let _copied = unsafe { (self.calls.copy)(self.pbuf, to.as_mut_ptr(), length) };
    }
}

/// What is around a stack: its link below and its application above.
pub trait Around {
    /// Sends a frame. False: no room; lwIP keeps what is TCP's and tries again.
    fn send(&self, frame: Frame<'_>) -> bool;

    /// Takes bytes that came for the socket.
    fn received(&self, bytes: &[u8]);
}

/// The callbacks of one side, for one kind of surroundings.
struct For<A, const RIGHT: bool>(PhantomData<A>);

impl<A: Around, const RIGHT: bool> For<A, RIGHT> {
    const CALLBACKS: Callbacks = Callbacks { send: Self::send, received: Self::received };

    /// # Safety
    /// `around` is the `&A` of the call that is under way, and `pbuf` a frame of this side.
    unsafe extern "C" fn send(around: *mut c_void, pbuf: *const Pbuf, length: u32) -> c_int {
        let calls = if RIGHT { Side::Right } else { Side::Left }.calls();
        // SAFETY: it is a borrow whose owner waits for the call; the caller upholds it.
        let around = unsafe { &*around.cast::<A>() };
        around.send(Frame { calls, pbuf, length, lives: PhantomData }).into()
    }

    /// # Safety
    /// As above, and `bytes` are `length` bytes that lwIP leaves alone meanwhile.
    unsafe extern "C" fn received(around: *mut c_void, bytes: *const u8, length: u32) {
        // SAFETY: as above.
        let around = unsafe { &*around.cast::<A>() };
        // SAFETY: lwIP owns so many bytes there until this returns; the caller upholds it.
        around.received(unsafe { std::slice::from_raw_parts(bytes, length as usize) });
    }
}

/// One end: one copy of lwIP with an interface and a socket.
pub struct Stack<A> {
    side: Side,
    around: PhantomData<fn(&A)>,
}

impl<A: Around> Stack<A> {
    /// Takes a copy of lwIP and opens its socket. None: it is in use, or lwIP refuses.
    pub fn start(side: Side, options: Options, around: &A) -> Option<Stack<A>> {
        if side.taken().swap(true, Ordering::Acquire) {
            return None;
        }
        let raw = RawOptions {
            mtu: options.mtu,
            host: options.host,
            peer: options.peer,
            checksums: options.checksums.into(),
            udp: options.udp.into(),
            listens: options.listens.into(),
        };
        let callbacks = match side {
            Side::Left => const { &For::<A, false>::CALLBACKS },
            Side::Right => const { &For::<A, true>::CALLBACKS },
        };
        // SAFETY: the copy was free and is ours; the callbacks are constants, and are made for
        // the `A` that every call of this stack gives.
        let opened = unsafe { (side.calls().start)(erased(around), callbacks, &raw const raw) };
        if opened == 0 {
            side.taken().store(false, Ordering::Release);
            return None;
        }
        Some(Stack { side, around: PhantomData })
    }

    /// Whether the connection is open; a UDP socket always is.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        // SAFETY: the copy is ours, and nobody else runs it.
        (unsafe { (self.side.calls().is_ready)() }) != 0
    }

    /// Takes a frame that came. False: lwIP has no memory for it.
    pub fn input(&mut self, around: &A, frame: &[u8]) -> bool {
        let (bytes, length) = parts(frame);
        // SAFETY: the copy is ours; lwIP copies the bytes before it returns.
        (unsafe { (self.side.calls().input)(erased(around), bytes, length) }) != 0
    }

    /// Looks at the timers, and sends what could not be sent before.
    pub fn timers(&mut self, around: &A, now_ms: u32) {
        // SAFETY: the copy is ours.
        unsafe { (self.side.calls().timers)(erased(around), now_ms) };
    }

    /// Bytes that the connection would take.
    #[must_use]
    pub fn room(&self) -> u32 {
        // SAFETY: the copy is ours.
        unsafe { (self.side.calls().room)() }
    }

    /// Gives bytes to the connection and sends what may be sent; how many it took, 0 if it is full.
    pub fn write(&mut self, around: &A, bytes: &[u8]) -> usize {
        let (bytes, length) = parts(bytes);
        // SAFETY: the copy is ours; lwIP copies the bytes before it returns.
        (unsafe { (self.side.calls().write)(erased(around), bytes, length) }) as usize
    }

    /// Sends a datagram to whom the last one came from, at first to the peer.
    pub fn send_datagram(&mut self, around: &A, bytes: &[u8]) -> bool {
        let (bytes, length) = parts(bytes);
        // SAFETY: the copy is ours; lwIP copies the bytes before it returns.
        (unsafe { (self.side.calls().send_datagram)(erased(around), bytes, length) }) != 0
    }
}

fn erased<A>(around: &A) -> *mut c_void {
    // Only ever a shared borrow again.
    (&raw const *around).cast_mut().cast()
}

fn parts(bytes: &[u8]) -> (*const u8, u32) {
    (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

impl<A> Drop for Stack<A> {
    fn drop(&mut self) {
        // SAFETY: the copy is ours; what it still sends goes nowhere.
        unsafe { (self.side.calls().finish)() };
        self.side.taken().store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    /// Frames that wait for the other side, and bytes that came.
    #[derive(Default)]
    struct Wire {
        frames: RefCell<VecDeque<Vec<u8>>>,
        bytes: RefCell<Vec<u8>>,
        is_full: Cell<bool>,
    }

    impl Around for Wire {
        fn send(&self, frame: Frame<'_>) -> bool {
            if self.is_full.get() {
                return false;
            }
            let mut bytes = vec![0; frame.length() as usize];
            frame.copy_to(&mut bytes);
            self.frames.borrow_mut().push_back(bytes);
            true
        }

        fn received(&self, bytes: &[u8]) {
            self.bytes.borrow_mut().extend_from_slice(bytes);
        }
    }

    fn options(host: u8, udp: bool, checksums: bool) -> Options {
        Options { mtu: 1500, host, peer: 3 - host, checksums, udp, listens: host == 2 }
    }

    struct Pair {
        left: (Stack<Wire>, Wire),
        right: (Stack<Wire>, Wire),
    }

    impl Pair {
        /// The copies are in use while another test has them.
        fn new(udp: bool, checksums: bool) -> Pair {
            let (a, b) = (Wire::default(), Wire::default());
            let start = |side, host, wire: &Wire| loop {
                match Stack::start(side, options(host, udp, checksums), wire) {
                    Some(stack) => break stack,
                    None => std::thread::yield_now(),
                }
            };
            let left = start(Side::Left, 1, &a);
            let right = start(Side::Right, 2, &b);
            Pair { left: (left, a), right: (right, b) }
        }

        /// Carries frames until there are none; `damage` may change them.
        fn settle(&mut self, damage: impl Fn(&mut Vec<u8>)) {
            let Pair { left: (left, a), right: (right, b) } = self;
            loop {
                let (to_right, to_left) =
                    (a.frames.borrow_mut().pop_front(), b.frames.borrow_mut().pop_front());
                if to_right.is_none() && to_left.is_none() {
                    return;
                }
                if let Some(mut frame) = to_right {
                    damage(&mut frame);
                    assert!(right.input(b, &frame));
                }
                if let Some(mut frame) = to_left {
                    damage(&mut frame);
                    assert!(left.input(a, &frame));
                }
            }
        }
    }

    #[test]
    fn bytes_cross_a_connection_whole_and_a_copy_is_lent_once() {
        for checksums in [false, true] {
            let mut pair = Pair::new(false, checksums);
            let again = Stack::start(Side::Left, options(1, false, false), &Wire::default());
            assert!(again.is_none(), "the copy is in use");
            pair.settle(|_| ());
            assert!(pair.left.0.is_ready() && pair.right.0.is_ready());
            let sent: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
            let mut done = 0;
            while done < sent.len() {
                done += pair.left.0.write(&pair.left.1, &sent[done..]);
                pair.settle(|_| ());
            }
            assert!(*pair.right.1.bytes.borrow() == sent, "checksums {checksums}");
        }
    }

    #[test]
    fn a_full_link_delays_and_loses_nothing() {
        let mut pair = Pair::new(false, true);
        pair.settle(|_| ());
        pair.left.1.is_full.set(true);
        assert_eq!(pair.left.0.write(&pair.left.1, b"late"), 4);
        pair.settle(|_| ());
        assert!(pair.right.1.bytes.borrow().is_empty());
        pair.left.1.is_full.set(false);
        pair.left.0.timers(&pair.left.1, 0);
        pair.settle(|_| ());
        assert_eq!(*pair.right.1.bytes.borrow(), b"late");
    }

    #[test]
    fn checksums_are_verified_where_they_are_computed() {
        for (checksums, arrives) in [(false, true), (true, false)] {
            let mut pair = Pair::new(true, checksums);
            assert!(pair.left.0.send_datagram(&pair.left.1, b"first"));
            pair.settle(|_| ());
            assert_eq!(*pair.right.1.bytes.borrow(), b"first");
            assert!(pair.right.0.send_datagram(&pair.right.1, b"answer"));
            pair.settle(|frame| {
                if let Some(last) = frame.last_mut() {
                    *last ^= 1;
                }
            });
            assert_eq!(pair.left.1.bytes.borrow().len() == 6, arrives, "checksums {checksums}");
        }
    }
}
