//! What `infiniband/verbs.h` defines inline, in the same way: through the context's operations.
//!
//! Owns nothing. The exported symbols of the same names are older forms of these calls, which
//! know fewer fields, or do not exist. Invariant: an operation of [`verbs_context`] is used only if
//! the context is extended, large enough to have it, and it is not null.
//!
//! Safety of all of them: the objects passed were made by the same library and are not destroyed,
//! and pointers are valid for the length that the call's manual page says.

use super::Zero;
use super::generated::*;
use core::ffi::{c_int, c_void};
use core::mem::{offset_of, size_of};
use core::ptr;

/// What `ibv_context::abi_compat` of an extended context is (`__VERBS_ABI_IS_EXTENDED`).
const ABI_IS_EXTENDED: usize = usize::MAX;

/// The extended context around `context`, if there is one that reaches down to the operation at
/// `offset` (`verbs_get_ctx` and the size check of `verbs_get_ctx_op`).
///
/// # Safety
/// `context` was made by `ibv_open_device` and is open.
#[inline]
unsafe fn extended(context: *mut ibv_context, offset: usize) -> *mut verbs_context {
    // SAFETY: the caller's promise.
    if unsafe { (*context).abi_compat }.addr() != ABI_IS_EXTENDED {
        return ptr::null_mut();
    }
    let outer = context.cast::<u8>().wrapping_sub(offset_of!(verbs_context, context));
    let outer = outer.cast::<verbs_context>();
    // SAFETY: an extended context is the last member of a verbs_context, whose member `sz` lies
    // immediately before it whatever the version.
    let size = unsafe { (*outer).sz };
    if size < size_of::<verbs_context>() - offset { ptr::null_mut() } else { outer }
}

/// An operation of the extended context, if it has it.
macro_rules! extended_operation {
    ($context:expr, $operation:ident) => {{
        // SAFETY: the caller of the call promises an open context.
        let outer = unsafe { extended($context, offset_of!(verbs_context, $operation)) };
        if outer.is_null() {
            None
        } else {
            // SAFETY: `extended` says that the structure reaches down to this member.
            unsafe { (*outer).$operation }
        }
    }};
}

fn unsupported<T>() -> *mut T {
    // SAFETY: no arguments.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own.
    unsafe { *errno = libc::EOPNOTSUPP };
    ptr::null_mut()
}

/// `ibv_query_port`: the call with every field, else `legacy`, the exported one, which fills the
/// first fields only.
///
/// # Safety
/// See the module.
pub unsafe fn ibv_query_port(
    context: *mut ibv_context,
    port: u8,
    attr: &mut ibv_port_attr,
    legacy: unsafe extern "C" fn(*mut ibv_context, u8, *mut _compat_ibv_port_attr) -> c_int,
) -> c_int {
    match extended_operation!(context, query_port) {
        // SAFETY: the operation of this context, and a structure of the length that is passed.
        Some(query) => unsafe { query(context, port, attr, size_of::<ibv_port_attr>()) },
        None => {
            *attr = ibv_port_attr::zero();
            // SAFETY: the older structure is a prefix of the one that is passed.
            unsafe { legacy(context, port, ptr::from_mut(attr).cast()) }
        }
    }
}

/// `ibv_query_device_ex`, else `legacy`, the exported `ibv_query_device`.
///
/// # Safety
/// See the module.
pub unsafe fn ibv_query_device_ex(
    context: *mut ibv_context,
    attr: &mut ibv_device_attr_ex,
    legacy: unsafe extern "C" fn(*mut ibv_context, *mut ibv_device_attr) -> c_int,
) -> c_int {
    if let Some(query) = extended_operation!(context, query_device_ex) {
        let size = size_of::<ibv_device_attr_ex>();
        // SAFETY: the operation of this context, and a structure of the length that is passed.
        let result = unsafe { query(context, ptr::null(), attr, size) };
        if result != libc::EOPNOTSUPP && result != libc::ENOSYS {
            return result;
        }
    }
    *attr = ibv_device_attr_ex::zero();
    // SAFETY: the older structure is the first member.
    unsafe { legacy(context, &mut attr.orig_attr) }
}

/// `ibv_create_cq_ex`.
///
/// # Safety
/// See the module.
pub unsafe fn ibv_create_cq_ex(
    context: *mut ibv_context,
    attr: &mut ibv_cq_init_attr_ex,
) -> *mut ibv_cq_ex {
    match extended_operation!(context, create_cq_ex) {
        // SAFETY: the operation of this context.
        Some(create) => unsafe { create(context, attr) },
        None => unsupported(),
    }
}

/// `ibv_create_qp_ex`; `legacy` is the exported `ibv_create_qp`, which is used where nothing beyond
/// it is asked for.
///
/// # Safety
/// See the module.
pub unsafe fn ibv_create_qp_ex(
    context: *mut ibv_context,
    attr: &mut ibv_qp_init_attr_ex,
    legacy: unsafe extern "C" fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp,
) -> *mut ibv_qp {
    if attr.comp_mask == IBV_QP_INIT_ATTR_PD {
        let pd = attr.pd;
        // SAFETY: the older structure is a prefix of this one.
        return unsafe { legacy(pd, ptr::from_mut(attr).cast()) };
    }
    match extended_operation!(context, create_qp_ex) {
        // SAFETY: the operation of this context.
        Some(create) => unsafe { create(context, attr) },
        None => unsupported(),
    }
}

/// `ibv_modify_cq`: an errno, 0 if it was done.
///
/// # Safety
/// See the module.
pub unsafe fn ibv_modify_cq(cq: *mut ibv_cq, attr: &mut ibv_modify_cq_attr) -> c_int {
    // SAFETY: a queue names the context that it was made in.
    let context = unsafe { (*cq).context };
    match extended_operation!(context, modify_cq) {
        // SAFETY: the operation of this queue's context.
        Some(modify) => unsafe { modify(cq, attr) },
        None => libc::EOPNOTSUPP,
    }
}

/// `ibv_create_flow`.
///
/// # Safety
/// See the module; `attr` is followed in memory by its specifications, `attr.size` bytes in all.
pub unsafe fn ibv_create_flow(qp: *mut ibv_qp, attr: *mut ibv_flow_attr) -> *mut ibv_flow {
    // SAFETY: a queue pair names the context that it was made in.
    let context = unsafe { (*qp).context };
    match extended_operation!(context, ibv_create_flow) {
        // SAFETY: the operation of this queue pair's context.
        Some(create) => unsafe { create(qp, attr) },
        None => unsupported(),
    }
}

/// `ibv_destroy_flow`: an errno, 0 if it was done.
///
/// # Safety
/// See the module.
pub unsafe fn ibv_destroy_flow(flow: *mut ibv_flow) -> c_int {
    // SAFETY: a rule names the context that it was made in.
    let context = unsafe { (*flow).context };
    match extended_operation!(context, ibv_destroy_flow) {
        // SAFETY: the operation of this rule's context.
        Some(destroy) => unsafe { destroy(flow) },
        None => libc::EOPNOTSUPP,
    }
}

/// An operation of `ibv_context_ops`. One that the provider does not have is null in none of them:
/// libibverbs fills all with functions that fail.
macro_rules! operation {
    ($object:expr, $operation:ident) => {{
        // SAFETY: an object names the context that it was made in.
        let context = unsafe { (*$object).context };
        // SAFETY: the context lives longer than its objects.
        unsafe { (*context).ops.$operation }
    }};
}

/// What polls a queue, `poll_cq` of `ibv_context_ops`: completions taken, negative for an error.
pub type PollCq = unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int;

/// What polls queues whose provider cannot.
unsafe extern "C" fn no_poll_cq(_: *mut ibv_cq, _: c_int, _: *mut ibv_wc) -> c_int {
    -libc::EOPNOTSUPP
}

/// `ibv_poll_cq` of a queue, to be called many times: a provider sets its operations when it makes
/// the context.
///
/// # Safety
/// See the module.
pub unsafe fn poll_cq_of(cq: *mut ibv_cq) -> PollCq {
    operation!(cq, poll_cq).unwrap_or(no_poll_cq)
}

/// `ibv_req_notify_cq`: an errno, 0 if it was done.
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    match operation!(cq, req_notify_cq) {
        // SAFETY: the operation of this queue's context.
        Some(notify) => unsafe { notify(cq, solicited_only) },
        None => libc::EOPNOTSUPP,
    }
}

/// What posts sends, `post_send` of `ibv_context_ops`: an errno, 0 if all of a list that ends were
/// posted.
pub type PostSend =
    unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int;

/// What posts sends whose provider cannot.
unsafe extern "C" fn no_post_send(
    _: *mut ibv_qp,
    _: *mut ibv_send_wr,
    _: *mut *mut ibv_send_wr,
) -> c_int {
    libc::EOPNOTSUPP
}

/// `ibv_post_send` of a queue pair, to be called many times: a provider sets its operations when it
/// makes the context.
///
/// # Safety
/// See the module.
pub unsafe fn post_send_of(qp: *mut ibv_qp) -> PostSend {
    operation!(qp, post_send).unwrap_or(no_post_send)
}

/// `ibv_post_recv`: an errno, 0 if all were posted.
///
/// # Safety
/// See the module; `wr` begins a list that ends.
#[inline]
pub unsafe fn ibv_post_recv(
    qp: *mut ibv_qp,
    wr: *mut ibv_recv_wr,
    bad: &mut *mut ibv_recv_wr,
) -> c_int {
    match operation!(qp, post_recv) {
        // SAFETY: the operation of this queue pair's context.
        Some(post) => unsafe { post(qp, wr, bad) },
        None => libc::EOPNOTSUPP,
    }
}

/// `ibv_post_srq_recv`: an errno, 0 if all were posted.
///
/// # Safety
/// See the module; `wr` begins a list that ends.
#[inline]
pub unsafe fn ibv_post_srq_recv(
    srq: *mut ibv_srq,
    wr: *mut ibv_recv_wr,
    bad: &mut *mut ibv_recv_wr,
) -> c_int {
    match operation!(srq, post_srq_recv) {
        // SAFETY: the operation of this queue's context.
        Some(post) => unsafe { post(srq, wr, bad) },
        None => libc::EOPNOTSUPP,
    }
}

/// Calls through a table that is a member of the object itself (`ibv_qp_ex`, `ibv_cq_ex`).
macro_rules! member_calls {
    ($($(#[$doc:meta])* $name:ident($object:ident.$member:ident
        $(, $argument:ident: $kind:ty)*) -> $result:ty = $absent:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// See the module; the object was made with the flag that this member needs.
        #[inline]
        pub unsafe fn $name(object: *mut $object $(, $argument: $kind)*) -> $result {
            // SAFETY: the caller's promise: the object lives.
            match unsafe { (*object).$member } {
                // SAFETY: the member of this object.
                Some(call) => unsafe { call(object $(, $argument)*) },
                None => $absent,
            }
        }
    )*};
}

member_calls! {
    /// `ibv_wr_start`: begins a batch of sends.
    ibv_wr_start(ibv_qp_ex.wr_start) -> () = ();
    /// `ibv_wr_complete`: posts the batch; an errno, 0 if all were posted.
    ibv_wr_complete(ibv_qp_ex.wr_complete) -> c_int = libc::EOPNOTSUPP;
    /// `ibv_wr_abort`: forgets the batch.
    ibv_wr_abort(ibv_qp_ex.wr_abort) -> () = ();
    /// `ibv_wr_send`.
    ibv_wr_send(ibv_qp_ex.wr_send) -> () = ();
    /// `ibv_wr_send_tso`: the header is read before `ibv_wr_complete` returns.
    ibv_wr_send_tso(ibv_qp_ex.wr_send_tso, header: *mut c_void, length: u16, mss: u16) -> () = ();
    /// `ibv_wr_set_ud_addr`.
    ibv_wr_set_ud_addr(ibv_qp_ex.wr_set_ud_addr, ah: *mut ibv_ah, qpn: u32, qkey: u32) -> () = ();
    /// `ibv_wr_set_inline_data`: the bytes are read before it returns.
    ibv_wr_set_inline_data(ibv_qp_ex.wr_set_inline_data, data: *mut c_void, length: usize)
        -> () = ();
    /// `ibv_wr_set_inline_data_list`: list and bytes are read before it returns.
    ibv_wr_set_inline_data_list(ibv_qp_ex.wr_set_inline_data_list, count: usize,
        list: *const ibv_data_buf) -> () = ();
    /// `ibv_wr_set_sge`: one element.
    ibv_wr_set_sge(ibv_qp_ex.wr_set_sge, lkey: u32, addr: u64, length: u32) -> () = ();
    /// `ibv_wr_set_sge_list`: the list is read before it returns.
    ibv_wr_set_sge_list(ibv_qp_ex.wr_set_sge_list, count: usize, list: *const ibv_sge) -> () = ();
    /// `ibv_start_poll`: 0 if there is a completion, `ENOENT` if there is none.
    ibv_start_poll(ibv_cq_ex.start_poll, attr: *mut ibv_poll_cq_attr) -> c_int = libc::EOPNOTSUPP;
    /// `ibv_end_poll`: gives the completions back that were looked at.
    ibv_end_poll(ibv_cq_ex.end_poll) -> () = ();
    /// `ibv_wc_read_opcode`.
    ibv_wc_read_opcode(ibv_cq_ex.read_opcode) -> ibv_wc_opcode = IBV_WC_DRIVER1;
    /// `ibv_wc_read_vendor_err`.
    ibv_wc_read_vendor_err(ibv_cq_ex.read_vendor_err) -> u32 = 0;
    /// `ibv_wc_read_byte_len`.
    ibv_wc_read_byte_len(ibv_cq_ex.read_byte_len) -> u32 = 0;
    /// `ibv_wc_read_qp_num`.
    ibv_wc_read_qp_num(ibv_cq_ex.read_qp_num) -> u32 = 0;
    /// `ibv_wc_read_src_qp`.
    ibv_wc_read_src_qp(ibv_cq_ex.read_src_qp) -> u32 = 0;
    /// `ibv_wc_read_wc_flags`.
    ibv_wc_read_wc_flags(ibv_cq_ex.read_wc_flags) -> u32 = 0;
}
