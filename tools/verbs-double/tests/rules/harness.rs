//! A program's side of the library: the exported functions and the operations of a context, as a
//! program compiled against `infiniband/verbs.h` calls them. Each test gets a world of its own.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use verbs_double::abi::consts::*;
use verbs_double::abi::flows::{Flow, FlowAttr};
use verbs_double::abi::objects::*;
use verbs_double::abi::tables::VerbsContext;
use verbs_double::abi::work::{RecvWr, SendWr, Sge, Wc};

// SAFETY: the functions of the library, as its header declares them. They are called here with
// objects that they made themselves or with null, which they refuse.
unsafe extern "C" {
    pub(crate) safe fn ibv_get_device_list(count: *mut c_int) -> *mut *mut Device;
    pub(crate) safe fn ibv_free_device_list(list: *mut *mut Device);
    pub(crate) safe fn ibv_open_device(device: *mut Device) -> *mut Context;
    pub(crate) safe fn ibv_close_device(context: *mut Context) -> c_int;
    pub(crate) safe fn ibv_query_gid(c: *mut Context, p: u8, i: c_int, g: *mut [u8; 16]) -> c_int;
    pub(crate) safe fn ibv_alloc_pd(context: *mut Context) -> *mut Pd;
    pub(crate) safe fn ibv_dealloc_pd(pd: *mut Pd) -> c_int;
    pub(crate) safe fn ibv_reg_mr(p: *mut Pd, a: *mut c_void, l: usize, f: c_uint) -> *mut Mr;
    pub(crate) safe fn ibv_dereg_mr(mr: *mut Mr) -> c_int;
    pub(crate) safe fn ibv_create_comp_channel(context: *mut Context) -> *mut CompChannel;
    pub(crate) safe fn ibv_destroy_comp_channel(channel: *mut CompChannel) -> c_int;
    pub(crate) safe fn ibv_create_cq(
        context: *mut Context,
        cqe: c_int,
        cq_context: *mut c_void,
        channel: *mut CompChannel,
        vector: c_int,
    ) -> *mut Cq;
    pub(crate) safe fn ibv_destroy_cq(cq: *mut Cq) -> c_int;
    pub(crate) safe fn ibv_get_cq_event(
        channel: *mut CompChannel,
        cq: *mut *mut Cq,
        context: *mut *mut c_void,
    ) -> c_int;
    pub(crate) safe fn ibv_ack_cq_events(cq: *mut Cq, count: c_uint);
    pub(crate) safe fn ibv_create_srq(pd: *mut Pd, init: *mut SrqInitAttr) -> *mut Srq;
    pub(crate) safe fn ibv_modify_srq(srq: *mut Srq, attr: *const SrqAttr, mask: c_int) -> c_int;
    pub(crate) safe fn ibv_destroy_srq(srq: *mut Srq) -> c_int;
    pub(crate) safe fn ibv_create_qp(pd: *mut Pd, init: *mut QpInitAttr) -> *mut Qp;
    pub(crate) safe fn ibv_destroy_qp(qp: *mut Qp) -> c_int;
    pub(crate) safe fn ibv_modify_qp(qp: *mut Qp, attr: *const QpAttr, mask: c_int) -> c_int;
    pub(crate) safe fn ibv_query_qp(
        qp: *mut Qp,
        attr: *mut QpAttr,
        mask: c_int,
        init: *mut QpInitAttr,
    ) -> c_int;
    pub(crate) safe fn ibv_create_ah(pd: *mut Pd, attr: *const AhAttr) -> *mut Ah;
    pub(crate) safe fn ibv_create_ah_from_wc(
        pd: *mut Pd,
        wc: *const Wc,
        grh: *const [u8; 40],
        port: u8,
    ) -> *mut Ah;
    pub(crate) safe fn ibv_destroy_ah(ah: *mut Ah) -> c_int;
    pub(crate) safe fn ibv_attach_mcast(qp: *mut Qp, gid: *const [u8; 16], lid: u16) -> c_int;
    pub(crate) safe fn ibv_detach_mcast(qp: *mut Qp, gid: *const [u8; 16], lid: u16) -> c_int;
    pub(crate) safe fn ibv_get_async_event(c: *mut Context, e: *mut AsyncEvent) -> c_int;
    pub(crate) safe fn ibv_ack_async_event(event: *mut AsyncEvent);
    safe fn verbs_double_configure(text: *const c_char) -> c_int;
    safe fn verbs_double_control(text: *const c_char) -> c_int;
    safe fn verbs_double_counter(name: *const c_char) -> u64;
}

static ONE_WORLD: Mutex<()> = Mutex::new(());

/// Begins a world of this configuration; no other test runs until the guard goes.
pub(crate) fn world(text: &str) -> MutexGuard<'static, ()> {
    let guard = ONE_WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let text = CString::new(text).unwrap();
    assert_eq!(verbs_double_configure(text.as_ptr()), 0);
    guard
}

/// A control line; the result of the call.
pub(crate) fn try_control(line: &str) -> c_int {
    let line = CString::new(line).unwrap();
    verbs_double_control(line.as_ptr())
}

/// A control line that must hold.
pub(crate) fn control(line: &str) {
    assert_eq!(try_control(line), 0, "{line}");
}

pub(crate) fn counter(name: &str) -> u64 {
    let text = CString::new(name).unwrap();
    let value = verbs_double_counter(text.as_ptr());
    assert_ne!(value, u64::MAX, "no counter {name}");
    value
}

pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// An object of the library.
pub(crate) fn at<T: ?Sized>(pointer: *mut T) -> &'static mut T {
    assert!(!pointer.is_null(), "errno {}", errno());
    // SAFETY: the library made it, and tests use an object only until they destroy it.
    unsafe { &mut *pointer }
}

/// A zeroed plain structure, as programs begin with.
pub(crate) fn zeroed<T>() -> T {
    // SAFETY: used for structures of numbers and pointers only.
    unsafe { std::mem::zeroed() }
}

/// Opens the device of a number.
pub(crate) fn open(number: usize) -> *mut Context {
    let list = ibv_get_device_list(std::ptr::null_mut());
    assert!(!list.is_null());
    // SAFETY: the list has as many devices as the test's configuration.
    let place = unsafe { list.add(number) };
    let context = ibv_open_device(*at(place));
    ibv_free_device_list(list);
    context
}

/// Room of a side's buffer.
pub(crate) const ROOM: usize = 256 << 10;

/// A device with the objects that most tests need. Its memory stays, since it is registered.
pub(crate) struct Side {
    pub(crate) context: *mut Context,
    pub(crate) pd: *mut Pd,
    pub(crate) cq: *mut Cq,
    pub(crate) mr: *mut Mr,
    pub(crate) memory: *mut [u8],
}

pub(crate) fn side(number: usize) -> Side {
    side_with(number, 64)
}

pub(crate) fn side_with(number: usize, cqe: c_int) -> Side {
    let context = open(number);
    let pd = ibv_alloc_pd(context);
    let cq = ibv_create_cq(context, cqe, std::ptr::null_mut(), std::ptr::null_mut(), 0);
    let memory: *mut [u8] = Box::into_raw(vec![0u8; ROOM].into_boxed_slice());
    let rights = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ;
    let mr = ibv_reg_mr(pd, memory.cast(), ROOM, rights);
    Side { context, pd, cq: at(cq), mr: at(mr), memory }
}

impl Side {
    /// The memory from an offset on.
    pub(crate) fn bytes(&self, offset: usize, length: usize) -> &'static mut [u8] {
        &mut at(self.memory)[offset..offset + length]
    }

    pub(crate) fn address(&self, offset: usize) -> u64 {
        u64::try_from(self.memory.cast::<u8>().addr() + offset).unwrap()
    }

    pub(crate) fn sge(&self, offset: usize, length: usize) -> Sge {
        let length = u32::try_from(length).unwrap();
        Sge { addr: self.address(offset), length, lkey: at(self.mr).lkey }
    }

    /// The GID of RoCE v2 over IPv4.
    pub(crate) fn gid(&self) -> [u8; 16] {
        let mut gid = [0; 16];
        assert_eq!(ibv_query_gid(self.context, 1, 3, &raw mut gid), 0);
        gid
    }

    /// A way to another side.
    pub(crate) fn way_to(&self, other: &Side) -> AhAttr {
        let gid = other.gid();
        let words = [0, 8].map(|at| u64::from_ne_bytes(gid[at..at + 8].try_into().unwrap()));
        AhAttr {
            dgid: words,
            sgid_index: 3,
            hop_limit: 64,
            is_global: 1,
            port_num: 1,
            ..AhAttr::default()
        }
    }

    pub(crate) fn init(&self, kind: c_uint) -> QpInitAttr {
        QpInitAttr {
            qp_context: std::ptr::null_mut(),
            send_cq: self.cq,
            recv_cq: self.cq,
            srq: std::ptr::null_mut(),
            cap: QpCap {
                max_send_wr: 8,
                max_recv_wr: 8,
                max_send_sge: 3,
                max_recv_sge: 3,
                max_inline_data: 64,
            },
            qp_type: kind,
            sq_sig_all: 0,
        }
    }

    pub(crate) fn qp(&self, kind: c_uint) -> *mut Qp {
        at(ibv_create_qp(self.pd, &mut self.init(kind)))
    }
}

/// Changes the state by the attributes of a table row.
pub(crate) fn modify(qp: *mut Qp, state: c_uint, mask: c_int, attr: &QpAttr) -> c_int {
    let attr = QpAttr { qp_state: state, ..*attr };
    ibv_modify_qp(qp, &raw const attr, QP_STATE | mask)
}

pub(crate) const RC_INIT: c_int = QP_PKEY_INDEX | QP_PORT | QP_ACCESS_FLAGS;
pub(crate) const RC_RTR: c_int =
    QP_AV | QP_PATH_MTU | QP_DEST_QPN | QP_RQ_PSN | QP_MAX_DEST_RD_ATOMIC | QP_MIN_RNR_TIMER;
pub(crate) const RC_RTS: c_int =
    QP_SQ_PSN | QP_MAX_QP_RD_ATOMIC | QP_RETRY_CNT | QP_RNR_RETRY | QP_TIMEOUT;
pub(crate) const UD_INIT: c_int = QP_PKEY_INDEX | QP_PORT | QP_QKEY;

/// What a connection of RC is made with.
pub(crate) fn rc_attr(own: &Side, peer: &Side, number: u32) -> QpAttr {
    QpAttr {
        port_num: 1,
        qp_access_flags: ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ,
        ah_attr: own.way_to(peer),
        path_mtu: 3,
        dest_qp_num: number,
        rq_psn: 0xff_fffe,
        sq_psn: 0xff_fffe,
        max_dest_rd_atomic: 1,
        max_rd_atomic: 1,
        min_rnr_timer: 12,
        timeout: 8,
        retry_cnt: 3,
        rnr_retry: 3,
        ..QpAttr::default()
    }
}

/// Brings a queue pair to RTS.
pub(crate) fn ready(qp: *mut Qp, attr: &QpAttr) {
    let (init, rtr, rts) = match at(qp).qp_type {
        QPT_RC => (RC_INIT, RC_RTR, RC_RTS),
        QPT_UD => (UD_INIT, 0, QP_SQ_PSN),
        _ => (QP_PORT, 0, 0),
    };
    assert_eq!(modify(qp, QPS_INIT, init, attr), 0);
    assert_eq!(modify(qp, QPS_RTR, rtr, attr), 0);
    assert_eq!(modify(qp, QPS_RTS, rts, attr), 0);
}

/// Two connected queue pairs.
pub(crate) fn connected(a: &Side, b: &Side) -> (*mut Qp, *mut Qp) {
    let (one, other) = (a.qp(QPT_RC), b.qp(QPT_RC));
    ready(one, &rc_attr(a, b, at(other).qp_num));
    ready(other, &rc_attr(b, a, at(one).qp_num));
    (one, other)
}

pub(crate) const QKEY: u32 = 0x1111_1111;

/// A queue pair of UD or RAW_PACKET in RTS.
pub(crate) fn running(side: &Side, kind: c_uint) -> *mut Qp {
    let qp = side.qp(kind);
    ready(qp, &QpAttr { port_num: 1, qkey: QKEY, ..QpAttr::default() });
    qp
}

/// A send of some SGEs.
pub(crate) fn wr(id: u64, opcode: c_uint, flags: c_uint) -> SendWr {
    SendWr {
        wr_id: id,
        next: std::ptr::null_mut(),
        sg_list: std::ptr::null_mut(),
        num_sge: 0,
        opcode,
        send_flags: flags,
        imm_data: 0,
        wr: [0; 4],
        remote_srqn: 0,
        tail: [0; 6],
    }
}

/// Posts one send through the context's operations.
pub(crate) fn post(qp: *mut Qp, mut wr: SendWr, sges: &[Sge]) -> c_int {
    let mut list = sges.to_vec();
    wr.sg_list = list.as_mut_ptr();
    wr.num_sge = c_int::try_from(list.len()).unwrap();
    post_list(qp, &raw mut wr).0
}

/// Posts a list as it is; the result and the request that failed.
pub(crate) fn post_list(qp: *mut Qp, wr: *mut SendWr) -> (c_int, *mut SendWr) {
    let mut bad = std::ptr::null_mut();
    let call = at(at(qp).context).ops.post_send.unwrap();
    // SAFETY: a queue pair and a list that live through the call.
    let result = unsafe { call(qp, wr, &raw mut bad) };
    (result, bad)
}

/// Posts a signalled or unsignalled SEND.
pub(crate) fn send(qp: *mut Qp, id: u64, signalled: bool, sge: Sge) -> c_int {
    post(qp, wr(id, WR_SEND, if signalled { SEND_SIGNALED } else { 0 }), &[sge])
}

fn recv_wr(id: u64, list: &mut [Sge]) -> RecvWr {
    RecvWr {
        wr_id: id,
        next: std::ptr::null_mut(),
        sg_list: list.as_mut_ptr(),
        num_sge: c_int::try_from(list.len()).unwrap(),
    }
}

/// Posts one receive.
pub(crate) fn recv(qp: *mut Qp, id: u64, sges: &[Sge]) -> c_int {
    let mut list = sges.to_vec();
    let (mut one, mut bad) = (recv_wr(id, &mut list), std::ptr::null_mut());
    let call = at(at(qp).context).ops.post_recv.unwrap();
    // SAFETY: a queue pair and a list that live through the call.
    unsafe { call(qp, &raw mut one, &raw mut bad) }
}

/// Posts one receive to a shared queue.
pub(crate) fn recv_shared(srq: *mut Srq, id: u64, sges: &[Sge]) -> c_int {
    let mut list = sges.to_vec();
    let (mut one, mut bad) = (recv_wr(id, &mut list), std::ptr::null_mut());
    let call = at(at(srq).context).ops.post_srq_recv.unwrap();
    // SAFETY: a queue and a list that live through the call.
    unsafe { call(srq, &raw mut one, &raw mut bad) }
}

/// Polls at most `room` completions: their number, or negative, and the completions.
pub(crate) fn poll_some(cq: *mut Cq, room: usize) -> (c_int, Vec<Wc>) {
    let mut wc = vec![Wc::default(); room];
    let call = at(at(cq).context).ops.poll_cq.unwrap();
    // SAFETY: a queue and places that live through the call.
    let count = unsafe { call(cq, c_int::try_from(room).unwrap(), wc.as_mut_ptr()) };
    wc.truncate(usize::try_from(count).unwrap_or(0));
    (count, wc)
}

/// Polls everything.
pub(crate) fn poll(cq: *mut Cq) -> Vec<Wc> {
    let (count, wc) = poll_some(cq, 256);
    assert!(count >= 0);
    wc
}

/// Polls until so many completions came, at most five seconds.
pub(crate) fn wait(cq: *mut Cq, count: usize) -> Vec<Wc> {
    let mut found = Vec::new();
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while found.len() < count {
        found.extend(poll(cq));
        assert!(std::time::Instant::now() < limit, "{found:?}");
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    found
}

/// Identity and status of completions.
pub(crate) fn ends(found: &[Wc]) -> Vec<(u64, c_uint)> {
    found.iter().map(|wc| (wc.wr_id, wc.status)).collect()
}

pub(crate) fn arm(cq: *mut Cq, solicited_only: bool) {
    let call = at(at(cq).context).ops.req_notify_cq.unwrap();
    // SAFETY: a queue that lives through the call.
    assert_eq!(unsafe { call(cq, c_int::from(solicited_only)) }, 0);
}

pub(crate) fn readable(fd: c_int) -> bool {
    let mut wanted = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure that lives through the call.
    unsafe { libc::poll(&raw mut wanted, 1, 0) == 1 }
}

/// All events that are there, acknowledged: type and element.
pub(crate) fn events(context: *mut Context) -> Vec<(c_uint, u64)> {
    let mut found = Vec::new();
    while readable(at(context).async_fd) {
        let mut event = AsyncEvent { element: 0, event_type: 0 };
        assert_eq!(ibv_get_async_event(context, &raw mut event), 0);
        ibv_ack_async_event(&raw mut event);
        found.push((event.event_type, event.element));
    }
    found
}

pub(crate) fn verbs(context: *mut Context) -> &'static VerbsContext {
    assert_eq!(at(context).abi_compat.addr(), usize::MAX);
    let offset = std::mem::offset_of!(VerbsContext, context);
    at(context.wrapping_byte_sub(offset).cast())
}

/// Makes a rule of an attribute and the specifications behind it.
pub(crate) fn rule(qp: *mut Qp, attr: &FlowAttr, specs: &[u8]) -> *mut Flow {
    let bytes = size_of::<FlowAttr>() + specs.len();
    // In words, for the attribute's alignment.
    let mut block = vec![0u32; bytes.div_ceil(4)];
    let size = u16::try_from(bytes).unwrap();
    let place: *mut FlowAttr = block.as_mut_ptr().cast();
    *at(place) = FlowAttr { size, ..*attr };
    let behind: *mut u8 = place.wrapping_add(1).cast();
    // SAFETY: the block has room for attribute and specifications.
    unsafe { std::ptr::copy_nonoverlapping(specs.as_ptr(), behind, specs.len()) };
    let call = verbs(at(qp).context).create_flow.unwrap();
    // SAFETY: a queue pair and a block that live through the call.
    unsafe { call(qp, place) }
}

pub(crate) fn end_rule(flow: *mut Flow) -> c_int {
    let call = verbs(at(flow).context).destroy_flow.unwrap();
    // SAFETY: a rule of this library.
    unsafe { call(flow) }
}
