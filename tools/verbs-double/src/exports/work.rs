//! The data path, called through the operations of a context: ibv_post_send(3),
//! ibv_post_recv(3), ibv_post_srq_recv(3), ibv_poll_cq(3), ibv_req_notify_cq(3).

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::abi::consts::QPT_UD;
use crate::abi::objects::{Ah, Cq, Qp, Srq};
use crate::abi::work::{RecvWr, SendWr, Sge, Wc};
use crate::completion::Armed;
use crate::posting::Posted;
use crate::shared_receive::RecvWqe;
use crate::world::{self, World};

/// Longest list that is read; no device here has so many elements.
const SGES_MAX: usize = 1024;

/// Copies a list of SGEs. A number of elements that cannot be gives a list that is longer than any
/// device takes, without a look at memory that the program did not state.
fn sges(list: *const Sge, count: c_int) -> Vec<Sge> {
    let Ok(count @ 0..=SGES_MAX) = usize::try_from(count) else {
        return vec![Sge { addr: 0, length: 0, lkey: 0 }; SGES_MAX];
    };
    if count == 0 || list.is_null() {
        return Vec::new();
    }
    // SAFETY: the program states so many elements (ibv_post_send(3)).
    unsafe { std::slice::from_raw_parts(list, count) }.to_vec()
}

/// The handle of an address handle in a request of a UD queue pair.
pub(super) fn address_handle(address: u64) -> Option<u32> {
    let address = usize::try_from(address).ok()?;
    let pointer: *const Ah = std::ptr::with_exposed_provenance(address);
    // SAFETY: null or an address handle of this library, which the program keeps until the
    // request is complete (ibv_post_send(3)).
    unsafe { pointer.as_ref() }.map(|ah| ah.handle)
}

/// ibv_post_send(3): "stops processing WRs from this list at the first failure and returns this
/// failing WR through bad_wr".
pub(super) unsafe extern "C" fn post_send(
    qp: *mut Qp,
    mut wr: *mut SendWr,
    bad: *mut *mut SendWr,
) -> c_int {
    // SAFETY: a queue pair of this library.
    let Some(object) = (unsafe { qp.as_ref() }) else { return libc::EINVAL };
    world::with(|world| {
        world.counters.post_send_calls += 1;
        let mut result = 0;
        // SAFETY: a list that ends with null and lives through the call.
        while let Some(one) = unsafe { wr.as_ref() } {
            let ud = object.qp_type == QPT_UD;
            let ah = if ud { address_handle(one.ud().0) } else { None };
            let list = sges(one.sg_list, one.num_sge);
            let posted = Posted { wr: *one, sges: list, ah, inline: None };
            if let Err(errno) = world.post_send(object.handle, posted) {
                world.counters.send_refused += 1;
                // SAFETY: a place for the failing request.
                unsafe { bad.write(wr) };
                result = errno;
                break;
            }
            wr = one.next;
        }
        world.run();
        result
    })
}

fn post_receives(
    mut wr: *mut RecvWr,
    bad: *mut *mut RecvWr,
    post: impl Fn(&mut World, RecvWqe) -> Result<(), i32>,
) -> c_int {
    world::with(|world| {
        world.counters.post_recv_calls += 1;
        // SAFETY: a list that ends with null and lives through the call.
        while let Some(one) = unsafe { wr.as_ref() } {
            let list = sges(one.sg_list, one.num_sge);
            let counted = usize::try_from(one.num_sge).is_ok_and(|count| count == list.len());
            let wqe = RecvWqe { wr_id: one.wr_id, sges: list };
            let done = if counted { post(world, wqe) } else { Err(libc::EINVAL) };
            if let Err(errno) = done {
                world.counters.recv_refused += 1;
                // SAFETY: a place for the failing request.
                unsafe { bad.write(wr) };
                return errno;
            }
            wr = one.next;
        }
        0
    })
}

/// ibv_post_recv(3).
pub(super) unsafe extern "C" fn post_recv(
    qp: *mut Qp,
    wr: *mut RecvWr,
    bad: *mut *mut RecvWr,
) -> c_int {
    // SAFETY: a queue pair of this library.
    let Some(handle) = (unsafe { qp.as_ref() }).map(|qp| qp.handle) else { return libc::EINVAL };
    post_receives(wr, bad, |world, wqe| world.post_recv(handle, wqe))
}

/// ibv_post_srq_recv(3).
pub(super) unsafe extern "C" fn post_srq_recv(
    srq: *mut Srq,
    wr: *mut RecvWr,
    bad: *mut *mut RecvWr,
) -> c_int {
    // SAFETY: a shared queue of this library.
    let Some(handle) = (unsafe { srq.as_ref() }).map(|srq| srq.handle) else {
        return libc::EINVAL;
    };
    post_receives(wr, bad, |world, wqe| world.post_srq_recv(handle, wqe))
}

/// ibv_poll_cq(3): the number of completions, or negative.
pub(super) unsafe extern "C" fn poll_cq(cq: *mut Cq, room: c_int, wc: *mut Wc) -> c_int {
    // SAFETY: a queue of this library.
    let Some(handle) = (unsafe { cq.as_ref() }).map(|cq| cq.handle) else { return -1 };
    let Ok(room) = usize::try_from(room) else { return -1 };
    // SAFETY: the program states room for so many completions, written or not.
    let places = unsafe { std::slice::from_raw_parts_mut(wc.cast::<MaybeUninit<Wc>>(), room) };
    world::with(|world| {
        world.counters.poll_calls += 1;
        let mut count = 0;
        for place in places {
            match world.poll(handle) {
                Ok(Some(entry)) => {
                    place.write(entry.wc);
                    count += 1;
                }
                Ok(None) => break,
                Err(()) => return -1,
            }
        }
        world.counters.poll_empty += u64::from(count == 0);
        count
    })
}

/// ibv_req_notify_cq(3): one event for the next completion that is added.
pub(super) unsafe extern "C" fn req_notify_cq(cq: *mut Cq, solicited_only: c_int) -> c_int {
    // SAFETY: a queue of this library.
    let Some(handle) = (unsafe { cq.as_ref() }).map(|cq| cq.handle) else { return libc::EINVAL };
    world::with(|world| {
        world.counters.notify_calls += 1;
        let Some(queue) = world.cqs.get_mut(handle) else { return libc::EINVAL };
        // A wish for any completion is not narrowed by one for solicited ones.
        queue.armed = match (queue.armed, solicited_only) {
            (Armed::Any, _) | (_, 0) => Armed::Any,
            _ => Armed::Solicited,
        };
        0
    })
}
