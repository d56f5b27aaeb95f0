//! The device list: ibv_get_device_list(3), ibv_get_device_name(3), ibv_get_device_guid(3).

use std::ffi::{c_char, c_int};

use super::{pointer_or_errno, set_errno};
use crate::abi::objects::Device;
use crate::world;

/// ibv_get_device_list(3): a list that ends with null.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_device_list(count: *mut c_int) -> *mut *mut Device {
    let found = world::with(|world| {
        if let Some(errno) = world.faults.of_call("ibv_get_device_list") {
            return Err(errno);
        }
        if world.misconfigured.is_some() {
            return Err(libc::EINVAL);
        }
        let devices = world.devices.iter().filter(|device| !device.dead);
        let pointers = devices.map(|device| std::ptr::with_exposed_provenance_mut(device.pointer));
        Ok(pointers.collect::<Vec<*mut Device>>())
    });
    let mut list = match found {
        Ok(list) => list,
        Err(errno) => return pointer_or_errno(Err(errno)),
    };
    // SAFETY: null or a place for the count (ibv_get_device_list(3)).
    if let Some(count) = unsafe { count.as_mut() } {
        *count = c_int::try_from(list.len()).unwrap_or(c_int::MAX);
    }
    list.push(std::ptr::null_mut());
    let bytes = std::mem::size_of_val(list.as_slice());
    // SAFETY: no conditions; the block is released by free in ibv_free_device_list.
    let block: *mut *mut Device = unsafe { libc::malloc(bytes) }.cast();
    if block.is_null() {
        return pointer_or_errno(Err(libc::ENOMEM));
    }
    // SAFETY: the block has room for the whole list.
    unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), block, list.len()) };
    block
}

/// ibv_get_device_list(3): frees the list, not the devices.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_free_device_list(list: *mut *mut Device) {
    // SAFETY: the list came from malloc above.
    unsafe { libc::free(list.cast()) };
}

/// ibv_get_device_name(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_device_name(device: *const Device) -> *const c_char {
    // SAFETY: a device of the list.
    unsafe { device.as_ref() }.map_or(std::ptr::null(), |device| device.name.as_ptr())
}

/// ibv_get_device_index(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_device_index(device: *const Device) -> c_int {
    let number =
        world::with(|world| world.devices.iter().position(|known| known.pointer == device.addr()));
    number.and_then(|number| c_int::try_from(number).ok()).unwrap_or(-1)
}

/// ibv_get_device_guid(3), in network order.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_device_guid(device: *const Device) -> u64 {
    let guid = world::with(|world| {
        let mut known = world.devices.iter().filter(|known| known.pointer == device.addr());
        known.next().map(crate::device::Device::guid)
    });
    guid.unwrap_or_else(|| {
        set_errno(libc::EINVAL);
        0
    })
}
