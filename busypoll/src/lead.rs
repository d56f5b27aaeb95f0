//! Who turns when no thread is there for it: of those that wait exactly one, the leader.
//!
//! Pure state that lives under the lock of what is turned; a waiter's token is what it is woken by.
//! The protocol, whose every interleaving the model in `lead_tests` checks:
//!
//! - A thread that must wait enters. It leads if nobody does, else it sleeps on its token.
//! - Whoever finds a waiter's socket ready says so ([`Lead::make_due`]) and wakes it once the lock
//!   is released.
//! - A thread that leaves while it leads names its successor, which is woken the same way.
//!
//! Invariants: if anybody waits who is not due, there is a leader, and it is one of those entered;
//! a waiter that is due or leads has been woken, or is the one that finds out for itself.

/// Number of a waiter.
pub type Place = u32;

const NONE: Place = Place::MAX;

struct Waiting<W> {
    token: W,
    is_due: bool,
    before: Place,
    after: Place,
}

/// Those who wait for one loop. At most 2^32 - 1 of them.
pub struct Lead<W> {
    leader: Place,
    places: Vec<Option<Waiting<W>>>,
    free: Vec<Place>,
    /// First of those that wait, the latest to come first.
    first: Place,
}

impl<W: Clone> Default for Lead<W> {
    fn default() -> Lead<W> {
        Lead::new()
    }
}

impl<W: Clone> Lead<W> {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Lead<W> {
        Lead { leader: NONE, places: Vec::new(), free: Vec::new(), first: NONE }
    }

    /// A thread begins to wait.
    pub fn enter(&mut self, token: W) -> Place {
        let waiting = Waiting { token, is_due: false, before: NONE, after: self.first };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(None);
                Place::try_from(self.places.len() - 1).unwrap_or(NONE)
            }
        };
        if let Some(first) = self.at(self.first) {
            first.before = place;
        }
        self.first = place;
        if let Some(slot) = self.slot(place) {
            *slot = Some(waiting);
        }
        if self.leader == NONE {
            self.leader = place;
        }
        place
    }

    /// Whether this one leads.
    #[must_use]
    pub fn leads(&self, place: Place) -> bool {
        self.leader == place
    }

    /// Whether anybody leads.
    #[must_use]
    pub fn has_leader(&self) -> bool {
        self.leader != NONE
    }

    /// What a waiter waits for has come. Returns the token to wake it by, once the lock is
    /// released.
    #[must_use]
    pub fn make_due(&mut self, place: Place) -> Option<W> {
        let waiting = self.at(place)?;
        waiting.is_due = true;
        Some(waiting.token.clone())
    }

    /// Whether what it waits for has come since it was asked last.
    pub fn take_due(&mut self, place: Place) -> bool {
        self.at(place).is_some_and(|waiting| std::mem::take(&mut waiting.is_due))
    }

    /// A thread waits no more. Returns the token of the new leader, to be woken once the lock is
    /// released, if the one that leaves led and others wait.
    #[must_use]
    pub fn leave(&mut self, place: Place) -> Option<W> {
        let left = self.slot(place)?.take()?;
        match self.at(left.before) {
            Some(before) => before.after = left.after,
            None => self.first = left.after,
        }
        if let Some(after) = self.at(left.after) {
            after.before = left.before;
        }
        self.free.push(place);
        if self.leader != place {
            return None;
        }
        // The latest to come has the warmest cache. One that is due passes leadership on at once.
        self.leader = self.first;
        let successor = self.leader;
        self.at(successor).map(|waiting| waiting.token.clone())
    }

    /// Everybody is due.
    pub fn make_all_due(&mut self, mut wake: impl FnMut(W)) {
        for waiting in self.places.iter_mut().flatten() {
            waiting.is_due = true;
            wake(waiting.token.clone());
        }
    }

    fn slot(&mut self, place: Place) -> Option<&mut Option<Waiting<W>>> {
        self.places.get_mut(usize::try_from(place).ok()?)
    }

    fn at(&mut self, place: Place) -> Option<&mut Waiting<W>> {
        self.slot(place)?.as_mut()
    }
}

#[cfg(test)]
#[path = "lead_tests.rs"]
mod tests;
