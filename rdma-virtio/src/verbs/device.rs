//! RDMA devices of this machine, and one of them by name.
//!
//! Owns the list that libibverbs returns, for as long as one of its devices is held. Never opens a
//! device to list it; [`find`] opens devices to learn which interface is whose.

use super::context::Context;
use super::error;
use super::library::{Library, library};
use super::sys;
use crate::nic::DeviceError;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// What a device is (`ibv_node_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeType {
    /// A channel adapter: InfiniBand or RoCE.
    ChannelAdapter,
    /// An iWARP NIC.
    Rnic,
    /// A switch, router or another kind; its number in `ibv_node_type`.
    Other(i32),
}

/// What carries a device's messages (`ibv_transport_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// InfiniBand's transport, over InfiniBand or Ethernet (RoCE).
    InfiniBand,
    /// iWARP.
    Iwarp,
    /// Another; its number in `ibv_transport_type`.
    Other(i32),
}

/// The list that a device belongs to.
struct List {
    library: &'static Library,
    list: NonNull<*mut sys::ibv_device>,
}

// SAFETY: libibverbs may be called from any thread; the list is not changed after it was made.
unsafe impl Send for List {}
// SAFETY: as above.
unsafe impl Sync for List {}

impl Drop for List {
    fn drop(&mut self) {
        let free = self.library.table.ibv_free_device_list;
        // SAFETY: made by ibv_get_device_list and freed only here, after every device of it.
        unsafe { free(self.list.as_ptr()) };
    }
}

/// An RDMA device that is not opened.
#[derive(Clone)]
pub struct Device {
    list: Arc<List>,
    device: NonNull<sys::ibv_device>,
    name: String,
}

// SAFETY: as for the list; the structure is only read.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Device").field(&self.name).finish()
    }
}

/// A C string in an array of known length.
pub(super) fn text(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// All RDMA devices of this network namespace, in the library's order; none is no error.
///
/// # Errors
/// If there is no library (the text says what to install) or it cannot list devices.
pub fn devices() -> Result<Vec<Device>, DeviceError> {
    let library = library()?;
    let mut count = 0;
    let list = library.table.ibv_get_device_list;
    // SAFETY: a place for the number.
    let pointer = unsafe { list(&mut count) };
    let failed = |errno| error::failure("no RDMA", "ibv_get_device_list", errno);
    let pointer = error::object(pointer).map_err(failed)?;
    let list = Arc::new(List { library, list: pointer });
    let mut devices = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` entries.
        let entry = unsafe { pointer.add(index) };
        // SAFETY: as above; an entry is initialised.
        let Some(device) = NonNull::new(unsafe { entry.read() }) else { break };
        let get_name = library.table.ibv_get_device_name;
        // SAFETY: a device of a list that lives.
        let name = unsafe { get_name(device.as_ptr()) };
        if name.is_null() {
            continue;
        }
        // SAFETY: a C string that lives as long as the device.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        devices.push(Device { list: Arc::clone(&list), device, name });
    }
    Ok(devices)
}

impl Device {
    /// The kernel's name of it, such as `mlx5_0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its character device below /dev/infiniband, such as `uverbs0`.
    #[must_use]
    pub fn uverbs_name(&self) -> String {
        text(&self.structure().dev_name)
    }

    /// Its folder below /sys/class/infiniband.
    #[must_use]
    pub fn sysfs_path(&self) -> String {
        text(&self.structure().ibdev_path)
    }

    /// Its node GUID in host order, 0 if unknown.
    #[must_use]
    pub fn guid(&self) -> u64 {
        let get = self.library().table.ibv_get_device_guid;
        // SAFETY: the device lives as long as its list.
        u64::from_be(unsafe { get(self.device.as_ptr()) })
    }

    /// What it is.
    #[must_use]
    pub fn node_type(&self) -> NodeType {
        match self.structure().node_type {
            sys::IBV_NODE_CA => NodeType::ChannelAdapter,
            sys::IBV_NODE_RNIC => NodeType::Rnic,
            other => NodeType::Other(other),
        }
    }

    /// What carries its messages.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.structure().transport_type {
            sys::IBV_TRANSPORT_IB => Transport::InfiniBand,
            sys::IBV_TRANSPORT_IWARP => Transport::Iwarp,
            other => Transport::Other(other),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// If the process may not use it, or it was removed.
    pub fn open(&self) -> Result<Context, DeviceError> {
        Context::open(self)
    }

    pub(super) fn library(&self) -> &'static Library {
        self.list.library
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_device {
        self.device.as_ptr()
    }

    fn structure(&self) -> &sys::ibv_device {
        // SAFETY: the device lives as long as its list, and nobody writes to it.
        unsafe { self.device.as_ref() }
    }
}

/// A device and port, opened by the name that a user wrote.
#[derive(Clone, Debug)]
pub struct Found {
    /// The opened device.
    pub context: Context,
    /// The port, from 1.
    pub port: u8,
    /// The interface that was written instead of a device: its index.
    pub interface: Option<u32>,
}

/// Opens the device that `name` means: a device (`mlx5_0`), a device and port (`mlx5_0:1`), or a
/// network interface (`eth2`) that a GID of a device belongs to.
///
/// # Errors
/// If there is none; the text lists the devices that there are.
pub fn find(name: &str) -> Result<Found, DeviceError> {
    let devices = devices()?;
    let (wanted, port) = split_port(name);
    if let Some(device) = devices.iter().find(|device| device.name == wanted) {
        let context = device.open()?;
        let ports = context.attributes()?.ports;
        let port = port.unwrap_or(1);
        if port == 0 || u32::from(port) > ports {
            let remedy = format!("{wanted} has ports 1 to {ports}");
            return Err(error::refusal(name, "no such port".to_owned(), remedy));
        }
        return Ok(Found { context, port, interface: None });
    }
    if let Some(index) = interface_index(name) {
        for device in &devices {
            let Ok(context) = device.open() else { continue };
            let gids = context.gids().unwrap_or_default();
            if let Some(entry) = gids.iter().find(|entry| entry.interface == index) {
                let port = entry.port;
                return Ok(Found { context, port, interface: Some(index) });
            }
        }
        let what = "no RDMA device belongs to this interface".to_owned();
        return Err(error::refusal(name, what, listed(&devices)));
    }
    Err(error::refusal(name, "no such RDMA device or interface".to_owned(), listed(&devices)))
}

/// `mlx5_0:1` is device `mlx5_0`, port 1; anything else is all name.
fn split_port(name: &str) -> (&str, Option<u8>) {
    match name.rsplit_once(':') {
        Some((device, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().map_or((name, None), |port| (device, Some(port)))
        }
        _ => (name, None),
    }
}

fn listed(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "this host has no RDMA device (for soft-RoCE: rdma link add rxe0 type rxe netdev \
                IF)"
        .to_owned();
    }
    let names: Vec<&str> = devices.iter().map(Device::name).collect();
    format!("there are {}", names.join(", "))
}

fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_what_stands_behind_the_last_colon_if_it_is_a_number() {
        for (name, expected) in [
            ("mlx5_0", ("mlx5_0", None)),
            ("mlx5_0:1", ("mlx5_0", Some(1))),
            ("mlx5_0:255", ("mlx5_0", Some(255))),
            ("mlx5_0:256", ("mlx5_0:256", None)),
            ("mlx5_0:", ("mlx5_0:", None)),
            ("eth0:x", ("eth0:x", None)),
        ] {
            assert_eq!(split_port(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_ends_at_its_zero_byte_or_its_array() {
        let bytes = |text: &[u8]| {
            text.iter().map(|&byte| c_char::from_ne_bytes([byte])).collect::<Vec<_>>()
        };
        assert_eq!(text(&bytes(b"rxe0\0junk")), "rxe0");
        assert_eq!(text(&bytes(b"rxe0")), "rxe0");
        assert_eq!(text(&[]), "");
    }
}
