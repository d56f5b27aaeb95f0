//! Contexts and what they answer: ibv_open_device(3), ibv_query_device(3),
//! ibv_query_device_ex(3), ibv_query_port(3), ibv_query_gid(3), ibv_query_pkey(3).

use std::ffi::{c_int, c_void};

use super::{extended, flows, give, pointer_or_errno, queues, set_errno, status, take_back, work};
use crate::abi::consts;
use crate::abi::objects::{
    CompatPortAttr, Context, ContextOps, Device, DeviceAttr, DeviceAttrEx, GidEntry, PortAttr,
};
use crate::abi::tables::VerbsContext;
use crate::address::gid_words;
use crate::events::{ContextState, counting_descriptor};
use crate::world::{self, World};

const OPS: ContextOps = ContextOps {
    compat_query_device: None,
    compat_query_port: None,
    compat: [None; 5],
    alloc_mw: None,
    bind_mw: None,
    dealloc_mw: None,
    compat_create_cq: None,
    poll_cq: Some(work::poll_cq),
    req_notify_cq: Some(work::req_notify_cq),
    compat_cq: [None; 3],
    compat_srq: [None; 4],
    post_srq_recv: Some(work::post_srq_recv),
    compat_qp: [None; 4],
    post_send: Some(work::post_send),
    post_recv: Some(work::post_recv),
    compat_ah: [None; 5],
};

fn verbs_context(device: *mut Device, fds: (c_int, c_int), vectors: c_int) -> VerbsContext {
    VerbsContext {
        query_port: Some(query_port),
        advise_mr: None,
        alloc_null_mr: None,
        counters: [None; 4],
        reg_dm_mr: None,
        alloc_dm: None,
        free_dm: None,
        flow_actions: [None; 3],
        modify_qp_rate_limit: None,
        alloc_parent_domain: None,
        dealloc_td: None,
        alloc_td: None,
        modify_cq: None,
        post_srq_ops: None,
        destroy_rwq_ind_table: None,
        create_rwq_ind_table: None,
        destroy_wq: None,
        modify_wq: None,
        create_wq: None,
        query_rt_values: None,
        create_cq_ex: Some(queues::create_cq_ex),
        private: std::ptr::null_mut(),
        query_device_ex: Some(query_device_ex),
        destroy_flow: Some(flows::destroy_flow),
        placeholder2: None,
        create_flow: Some(flows::create_flow),
        placeholder1: None,
        open_qp: None,
        create_qp_ex: Some(extended::create_qp_ex),
        get_srq_num: None,
        create_srq_ex: None,
        open_xrcd: None,
        close_xrcd: None,
        placeholder3: 0,
        sz: size_of::<VerbsContext>(),
        context: Context {
            device,
            ops: OPS,
            cmd_fd: fds.0,
            async_fd: fds.1,
            num_comp_vectors: vectors,
            mutex: libc::PTHREAD_MUTEX_INITIALIZER,
            // verbs.h: __VERBS_ABI_IS_EXTENDED.
            abi_compat: std::ptr::without_provenance_mut::<c_void>(usize::MAX),
        },
    }
}

/// ibv_open_device(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_open_device(device: *mut Device) -> *mut Context {
    pointer_or_errno(world::with(|world| open(world, device)))
}

fn open(world: &mut World, device: *mut Device) -> Result<*mut Context, i32> {
    let mut known = world.devices.iter();
    let number = known.position(|known| known.pointer == device.addr()).ok_or(libc::ENODEV)?;
    world.admit_call("ibv_open_device", number)?;
    if let Err(error) = world.activate() {
        eprintln!("libibverbs double: {error}");
        return Err(libc::EIO);
    }
    let (command, events) = (counting_descriptor(), counting_descriptor());
    if command < 0 || events < 0 {
        return Err(libc::EMFILE);
    }
    let vectors = world.devices[number].config.limits.comp_vectors;
    let vectors = c_int::try_from(vectors).unwrap_or(1);
    let made = give(verbs_context(device, (command, events), vectors));
    // SAFETY: just made; only the address of a member is taken.
    let context = unsafe { &raw mut (*made).context };
    world.devices[number].open += 1;
    world.contexts.insert(ContextState {
        device: number,
        pointer: context.expose_provenance(),
        fd: events,
        events: std::collections::VecDeque::new(),
    });
    Ok(context)
}

/// ibv_open_device(3): closes a context; objects that are left go with it, as with the file of a
/// driver, but their structures stay.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_close_device(context: *mut Context) -> c_int {
    let closed = world::with(|world| {
        let (handle, device) = world.context_at(context)?;
        for qp in world.qps.handles(|qp| qp.context == handle) {
            world.remove_qp(qp);
        }
        for cq in world.cqs.handles(|cq| cq.context == handle) {
            world.cqs.remove(cq);
        }
        for srq in world.srqs.handles(|srq| srq.context == handle) {
            world.srqs.remove(srq);
        }
        world.devices[device].open -= 1;
        world.contexts.remove(handle).ok_or(libc::EINVAL)
    });
    let Ok(_state) = closed else {
        set_errno(libc::EINVAL);
        return -1;
    };
    // SAFETY: a context of this library, open until now.
    let descriptors = unsafe { context.as_ref() }.map(|open| [open.cmd_fd, open.async_fd]);
    for descriptor in descriptors.into_iter().flatten() {
        // SAFETY: opened for this context, and closed once.
        unsafe { libc::close(descriptor) };
    }
    let offset = std::mem::offset_of!(VerbsContext, context);
    // SAFETY: the context is the last member of the structure that was made for it.
    let made: *mut VerbsContext = unsafe { context.byte_sub(offset) }.cast();
    // SAFETY: made by `give` in `open`, and out of the table now.
    unsafe { take_back(made) };
    0
}

/// ibv_query_device(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_device(
    context: *mut Context,
    attr: *mut DeviceAttr,
) -> c_int {
    let found = world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_query_device", device)?;
        Ok(world.devices[device].attributes())
    });
    status(found.map(|found| {
        // SAFETY: a place for the attributes (ibv_query_device(3)).
        unsafe { attr.write(found) };
    }))
}

/// Writes the first `size` bytes of a structure: what an older program has room for.
fn write_prefix<T: Copy>(value: &T, place: *mut T, size: usize) {
    let bytes = size.min(size_of::<T>());
    // SAFETY: the program states how many bytes it has room for.
    unsafe {
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast(), place.cast::<u8>(), bytes)
    };
}

/// ibv_query_device_ex(3), called through `struct verbs_context`.
pub(super) unsafe extern "C" fn query_device_ex(
    context: *mut Context,
    input: *const u32,
    attr: *mut DeviceAttrEx,
    size: usize,
) -> c_int {
    // SAFETY: null or the structure of one member, `comp_mask`.
    if unsafe { input.as_ref() }.is_some_and(|mask| *mask != 0) {
        return status(Err(libc::EINVAL));
    }
    let found = world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_query_device_ex", device)?;
        Ok(world.devices[device].attributes_ex())
    });
    status(found.map(|found| write_prefix(&found, attr, size)))
}

fn port(context: *const Context, number: u8) -> Result<PortAttr, i32> {
    world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_query_port", device)?;
        if number != 1 {
            return Err(libc::EINVAL);
        }
        Ok(world.devices[device].port())
    })
}

/// ibv_query_port(3) through `struct verbs_context`.
pub(super) unsafe extern "C" fn query_port(
    context: *mut Context,
    number: u8,
    attr: *mut PortAttr,
    size: usize,
) -> c_int {
    status(port(context, number).map(|found| write_prefix(&found, attr, size)))
}

/// The exported symbol behind ibv_query_port(3): the old form, without `port_cap_flags2`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_port(
    context: *mut Context,
    number: u8,
    attr: *mut CompatPortAttr,
) -> c_int {
    status(port(context, number).map(|found| {
        // SAFETY: a place for the attributes in their old form (ibv_query_port(3)).
        unsafe { attr.write(found.compat) };
    }))
}

fn gid_entry(world: &World, device: usize, port: u32, index: u32) -> Result<GidEntry, i32> {
    let device = &world.devices[device];
    let length = u32::try_from(device.gids.len()).unwrap_or(u32::MAX);
    if port != 1 || index >= length {
        return Err(libc::EINVAL);
    }
    // ibv_query_gid_ex(3): ENODATA for an index within the table without data.
    let gid = device.gid(index).ok_or(libc::ENODATA)?;
    Ok(GidEntry {
        gid: gid_words(gid.raw),
        gid_index: index,
        port_num: port,
        gid_type: gid.kind,
        ndev_ifindex: device.interface(),
    })
}

/// ibv_query_gid(3): 0, or -1 with errno. An empty entry is sixteen zeros.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_gid(
    context: *mut Context,
    port: u8,
    index: c_int,
    gid: *mut [u8; 16],
) -> c_int {
    let found = world::with(|world| {
        let (_, device) = world.context_at(context)?;
        let index = u32::try_from(index).map_err(|_| libc::EINVAL)?;
        match gid_entry(world, device, u32::from(port), index) {
            Ok(entry) => Ok(crate::address::gid_bytes(entry.gid)),
            Err(libc::ENODATA) => Ok([0; 16]),
            Err(errno) => Err(errno),
        }
    });
    match found {
        Ok(found) => {
            // SAFETY: a place for a GID (ibv_query_gid(3)).
            unsafe { gid.write(found) };
            0
        }
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// ibv_query_gid_ex(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn _ibv_query_gid_ex(
    context: *mut Context,
    port: u32,
    index: u32,
    entry: *mut GidEntry,
    flags: u32,
) -> c_int {
    // The sixth argument, the size of an entry, has been that of this structure since the call is
    // there; a function of this ABI may leave it unread.
    let found = world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_query_gid_ex", device)?;
        if flags != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        gid_entry(world, device, port, index)
    });
    status(found.map(|found| {
        // SAFETY: a place for an entry (ibv_query_gid_ex(3)).
        unsafe { entry.write(found) };
    }))
}

/// ibv_query_gid_table(3): the number of entries, or a negative errno.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn _ibv_query_gid_table(
    context: *mut Context,
    entries: *mut GidEntry,
    room: usize,
    flags: u32,
    size: usize,
) -> isize {
    let found = world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_query_gid_table", device)?;
        if flags != 0 || size != size_of::<GidEntry>() {
            return Err(libc::EOPNOTSUPP);
        }
        let all = 0..u32::try_from(world.devices[device].gids.len()).unwrap_or(0);
        let found: Vec<GidEntry> =
            all.filter_map(|index| gid_entry(world, device, 1, index).ok()).collect();
        if found.len() > room { Err(libc::EINVAL) } else { Ok(found) }
    });
    match found {
        Ok(found) => {
            // SAFETY: the program states room for so many entries.
            unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), entries, found.len()) };
            isize::try_from(found.len()).unwrap_or(0)
        }
        Err(errno) => -isize::try_from(errno).unwrap_or(1),
    }
}

/// The type of a GID as sysfs tells it: 0 for RoCE v1 and InfiniBand, 1 for RoCE v2. Private to
/// rdma-core; its own ibv_devinfo calls it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_gid_type(
    context: *mut Context,
    port: u8,
    index: u32,
    kind: *mut u32,
) -> c_int {
    let found = world::with(|world| {
        let (_, device) = world.context_at(context)?;
        match gid_entry(world, device, u32::from(port), index) {
            Ok(entry) => Ok(u32::from(entry.gid_type == consts::GID_TYPE_ROCE_V2)),
            // An empty entry is of the first type.
            Err(libc::ENODATA) => Ok(0),
            Err(errno) => Err(errno),
        }
    });
    match found {
        Ok(found) => {
            // SAFETY: a place for the type.
            unsafe { kind.write(found) };
            0
        }
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// ibv_query_pkey(3): one key, the default one.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_pkey(
    context: *mut Context,
    port: u8,
    index: c_int,
    key: *mut u16,
) -> c_int {
    let known = world::with(|world| world.context_at(context).is_ok());
    if !known || port != 1 || index != 0 {
        set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: a place for a key (ibv_query_pkey(3)).
    unsafe { key.write(0xffff) };
    0
}

/// ibv_get_pkey_index(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_pkey_index(
    context: *mut Context,
    port: u8,
    key: u16,
) -> c_int {
    let known = world::with(|world| world.context_at(context).is_ok());
    if known && port == 1 && key == 0xffff { 0 } else { -1 }
}
