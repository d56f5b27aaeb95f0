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

/// The lines that places touch of a structure that begins so many bytes behind a line's beginning.
fn lines(places: &[Place], start: usize) -> BTreeSet<usize> {
    let touched = |&(at, length): &Place| {
        let first = start + at;
        first / LINE..=(first + length - 1) / LINE
    };
    places.iter().flat_map(touched).collect()
}

#[test]
fn the_fast_path_touches_eight_lines_of_a_connection_at_most_in_one_row() {
    let places = [
        Connection::hot(),
        within(offset_of!(Connection, snd), Sender::hot()),
        within(offset_of!(Connection, rcv), Receiver::hot()),
        within(offset_of!(Connection, timers), TimerSet::hot()),
    ]
    .concat();
    let bytes: usize = places.iter().map(|(_, length)| length).sum();
    // Wherever in a line a connection begins.
    for start in (0..LINE).step_by(align_of::<Connection>()) {
        let touched = lines(&places, start);
        let row = touched.iter().zip(touched.iter().skip(1)).all(|(one, next)| next - one == 1);
        assert!(touched.len() <= 8 && row, "{bytes} bytes in lines {touched:?}");
    }
    // Eight is not far from what so many bytes need at least.
    assert!(bytes > 5 * LINE, "{bytes}: is a list complete?");
}
