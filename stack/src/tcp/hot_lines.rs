//! In how many cache lines lies what the fast path touches of a connection in each transaction:
//! the expected segment in (`on_expected`), its reading, and one small write out
//! (`send_expected`, `send_at_once`). Each structure says itself which of its fields that are
//! (`hot`), beside their declaration.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem::offset_of;

use super::connection::Connection;
use super::receiver::Receiver;
use super::sender::Sender;
use super::timers::TimerSet;
use crate::slab::Slab;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A field: its offset and its length.
pub(super) type Place = (usize, usize);

/// The places of fields of a structure.
macro_rules! places {
    ($type:ident: $($field:ident),+) => {
        alloc::vec![$((
            core::mem::offset_of!($type, $field),
            $crate::tcp::hot_lines::length_of(|it: &$type| &it.$field),
        )),+]
    };
}
pub(super) use places;

pub(super) const fn length_of<T, F>(_field: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// The same places seen from a structure that has this one at `offset`.
pub(super) fn within(offset: usize, places: Vec<Place>) -> Vec<Place> {
    places.into_iter().map(|(at, length)| (offset + at, length)).collect()
}

fn lines(places: &[Place]) -> BTreeSet<usize> {
    places.iter().flat_map(|&(at, length)| at / LINE..=(at + length - 1) / LINE).collect()
}

#[test]
fn the_fast_path_touches_seven_lines_of_a_connection_in_one_row() {
    // Else lines of the structure were no lines of the memory.
    assert_eq!(Slab::<Connection>::ENTRY_BYTES % LINE, 0);
    let places = [
        Connection::hot(),
        within(offset_of!(Connection, snd), Sender::hot()),
        within(offset_of!(Connection, rcv), Receiver::hot()),
        within(offset_of!(Connection, timers), TimerSet::hot()),
    ]
    .concat();
    let touched = lines(&places);
    let bytes: usize = places.iter().map(|(_, length)| length).sum();
    let row = touched.iter().zip(touched.iter().skip(1)).all(|(one, next)| next - one == 1);
    assert!(touched.len() <= 7 && row, "{bytes} bytes in lines {touched:?}");
    // Seven is not far from what so many bytes need at least.
    assert!(bytes > 5 * LINE, "{bytes}: is a list complete?");
}
