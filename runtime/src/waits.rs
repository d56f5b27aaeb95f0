//! Who waits for which socket, and how the stack's events find them.
//!
//! Owns the table of waiters of one worker; never wakes anybody itself: what is due is handed to
//! the caller, who wakes once the worker is released. Invariants: a waiter is in exactly one list;
//! the stack is asked to report exactly what the waiters of a socket wait for. Registering and
//! finding cost the length of one socket's list; nothing is allocated once the table has grown.

use std::task::Waker;

use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, Event, Listener, Readiness};
use roceway_stack::udp::{self, UdpId};

use crate::core::Core;

/// A socket that can be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Socket {
    /// A TCP connection.
    Connection(Id<Connection>),
    /// A TCP listener; accepting counts as reading.
    Listener(Id<Listener>),
    /// A UDP socket.
    Datagram(UdpId),
}

impl Socket {
    /// Its kind, and its place among those of its kind.
    pub(crate) fn place(self) -> (usize, usize) {
        let (list, index) = match self {
            Socket::Connection(id) => (0, id.index()),
            Socket::Listener(id) => (1, id.index()),
            Socket::Datagram(id) => (2, id.index()),
        };
        (list, usize::try_from(index).unwrap_or(usize::MAX))
    }
}

/// Whoever waits.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A call of another thread, by the number of its slot.
    Call(u32),
    /// A task of the worker's own thread.
    Task(Waker),
}

/// End of a list.
const NONE: u32 = u32::MAX;

struct Entry {
    next: u32,
    socket: Socket,
    interest: Readiness,
    /// `None` while the entry is free.
    waiter: Option<Waiter>,
}

/// The table.
#[derive(Default)]
pub(crate) struct Waits {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// First waiter of each socket, by kind and index.
    heads: [Vec<u32>; 3],
}

impl Waits {
    /// Whether nobody waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }

    /// Adds a waiter. The caller then tells the stack by [`Waits::watch`].
    pub(crate) fn add(&mut self, socket: Socket, interest: Readiness, waiter: Waiter) {
        let (list, place) = socket.place();
        if self.heads[list].len() <= place {
            self.heads[list].resize(place + 1, NONE);
        }
        let next = self.heads[list][place];
        let entry = Entry { next, socket, interest, waiter: Some(waiter) };
        self.heads[list][place] = match self.free.pop() {
            Some(index) => {
                if let Some(slot) = self.at_mut(index) {
                    *slot = entry;
                }
                index
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        };
    }

    /// A task waits, instead of whichever task waited for the same before, which comes back to be
    /// dropped outside.
    pub(crate) fn set_task(
        &mut self,
        socket: Socket,
        interest: Readiness,
        waker: &Waker,
    ) -> Option<Waker> {
        let mut at = self.head(socket);
        while let Some(entry) = self.at_mut(at) {
            if entry.interest == interest
                && let Some(Waiter::Task(old)) = &mut entry.waiter
            {
                if old.will_wake(waker) {
                    return None;
                }
                return Some(std::mem::replace(old, waker.clone()));
            }
            at = entry.next;
        }
        self.add(socket, interest, Waiter::Task(waker.clone()));
        None
    }

    /// Takes those waiters of a socket out that `is_due` names, and hands them over.
    pub(crate) fn take(
        &mut self,
        socket: Socket,
        is_due: impl Fn(Readiness, &Waiter) -> bool,
        mut due: impl FnMut(Waiter),
    ) {
        let (list, place) = socket.place();
        let (mut before, mut at) = (NONE, self.head(socket));
        while let Some(entry) = self.at_mut(at) {
            let next = entry.next;
            let hit = entry.socket != socket
                || entry.waiter.as_ref().is_none_or(|waiter| is_due(entry.interest, waiter));
            if !hit {
                (before, at) = (at, next);
                continue;
            }
            if let Some(waiter) = entry.waiter.take() {
                due(waiter);
            }
            self.free.push(at);
            match self.at_mut(before) {
                Some(previous) => previous.next = next,
                None => self.heads[list][place] = next,
            }
            at = next;
        }
    }

    /// Takes the waiter of a call out; false if it is gone already.
    pub(crate) fn remove_call(&mut self, socket: Socket, call: u32) -> bool {
        let mut found = false;
        let is_it = |_: Readiness, waiter: &Waiter| matches!(waiter, Waiter::Call(c) if *c == call);
        self.take(socket, is_it, |_waiter| found = true);
        found
    }

    /// Takes everybody out.
    pub(crate) fn drain(&mut self, mut due: impl FnMut(Waiter)) {
        for entry in &mut self.entries {
            if let Some(waiter) = entry.waiter.take() {
                due(waiter);
            }
        }
        *self = Waits::default();
    }

    /// Has the stack report what the waiters of a socket wait for.
    pub(crate) fn watch(&self, socket: Socket, core: &mut Core) {
        let mut interest = Readiness::NONE;
        let mut at = self.head(socket);
        while let Some(entry) = self.at(at) {
            interest = interest.union(entry.interest);
            at = entry.next;
        }
        watch(socket, interest, core);
    }

    /// Takes events from the stack, at most `budget`, and hands over whom they concern. A waiter
    /// finds out by trying again; one that must wait again is added again. Returns how many
    /// events there were.
    pub(crate) fn dispatch(
        &mut self,
        core: &mut Core,
        budget: u32,
        mut due: impl FnMut(Waiter),
    ) -> u32 {
        let mut done = 0;
        while done < budget
            && let Some((socket, ready)) = next_event(core)
        {
            done += 1;
            let is_due = |interest: Readiness, _: &Waiter| !interest.intersection(ready).is_empty();
            self.take(socket, is_due, &mut due);
            self.watch(socket, core);
        }
        done
    }

    fn head(&self, socket: Socket) -> u32 {
        let (list, place) = socket.place();
        self.heads[list].get(place).copied().unwrap_or(NONE)
    }

    fn at(&self, index: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(index).ok()?)
    }
}

/// Has the stack report this of a socket and nothing else, at once what is ready already.
pub(crate) fn watch(socket: Socket, interest: Readiness, core: &mut Core) {
    match socket {
        Socket::Connection(id) => core.stack.tcp().0.watch(id, interest),
        Socket::Listener(id) => core.stack.tcp().0.watch_listener(id, !interest.is_empty()),
        Socket::Datagram(id) => {
            let interest = udp::Readiness {
                readable: interest.contains(Readiness::READABLE),
                writable: interest.contains(Readiness::WRITABLE),
            };
            let now = core.now;
            let (stack, mut memory) = core.parts();
            stack.udp(now, &mut memory).0.watch(id, interest);
        }
    }
}

/// The stack's next event, of TCP or UDP.
pub(crate) fn next_event(core: &mut Core) -> Option<(Socket, Readiness)> {
    if let Some(event) = core.stack.tcp().0.poll_event() {
        return Some(match event {
            Event::Connection(id, ready) => (Socket::Connection(id), ready),
            Event::Listener(id) => (Socket::Listener(id), Readiness::READABLE),
        });
    }
    let now = core.now;
    let (stack, mut memory) = core.parts();
    let (id, ready) = stack.udp(now, &mut memory).0.poll_event()?;
    let mut bits = Readiness::NONE;
    if ready.readable {
        bits = bits.union(Readiness::READABLE);
    }
    if ready.writable {
        bits = bits.union(Readiness::WRITABLE);
    }
    Some((Socket::Datagram(id), bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Readiness = Readiness::READABLE;
    const WRITE: Readiness = Readiness::WRITABLE;

    fn socket(index: u64) -> Socket {
        Socket::Connection(Id::from_raw(index))
    }

    fn take(waits: &mut Waits, socket: Socket, ready: Readiness) -> Vec<u32> {
        let mut calls = Vec::new();
        waits.take(
            socket,
            |interest, _| !interest.intersection(ready).is_empty(),
            |waiter| match waiter {
                Waiter::Call(call) => calls.push(call),
                Waiter::Task(_) => {}
            },
        );
        calls.sort_unstable();
        calls
    }

    #[test]
    fn exactly_those_who_wait_for_it_are_taken() {
        let mut waits = Waits::default();
        for (call, (index, interest)) in
            [(3, READ), (3, WRITE), (3, READ), (9, READ)].into_iter().enumerate()
        {
            let call = u32::try_from(call).unwrap();
            waits.add(socket(index), interest, Waiter::Call(call));
        }
        assert_eq!(take(&mut waits, socket(3), READ), [0, 2]);
        assert_eq!(take(&mut waits, socket(3), READ), [0_u32; 0]);
        assert_eq!(take(&mut waits, socket(4), READ), [0_u32; 0], "a socket nobody waits for");
        assert!(waits.remove_call(socket(9), 3));
        assert!(!waits.remove_call(socket(9), 3));
        assert_eq!(take(&mut waits, socket(3), READ.union(WRITE)), [1]);
        assert!(waits.is_empty());
    }

    #[test]
    fn a_waiter_of_an_earlier_socket_in_the_same_place_is_released() {
        let mut waits = Waits::default();
        waits.add(socket(3), READ, Waiter::Call(1));
        assert_eq!(take(&mut waits, socket(3 | 1 << 32), WRITE), [1]);
        assert!(waits.is_empty());
    }

    #[test]
    fn entries_are_used_again() {
        let mut waits = Waits::default();
        for round in 0..100 {
            waits.add(socket(round % 5), READ, Waiter::Call(0));
            assert_eq!(take(&mut waits, socket(round % 5), READ), [0]);
        }
        assert_eq!(waits.entries.len(), 1);
    }
}
