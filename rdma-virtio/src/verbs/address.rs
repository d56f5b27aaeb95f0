//! The way to a peer's port: address vectors, and the handles that datagrams are sent by.
//!
//! Owns address handles. Never resolves anything: whoever makes one has chosen GID and way.

use super::domain::DomainInner;
use super::gid::Gid;
use super::sys::{self, Zero};
use crate::nic::DeviceError;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// The way to a peer's port (`ibv_ah_attr`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// Local port, from 1.
    pub port: u8,
    /// Local entry of the GID table.
    pub source_index: u8,
    /// The peer's GID.
    pub destination: Gid,
    /// The peer's LID; 0 on Ethernet.
    pub lid: u16,
    /// Service level: the VLAN priority on Ethernet, 0 to 7.
    pub service_level: u8,
    /// The IP header's traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// The IPv6 flow label, 20 bits; RoCE version 2 may derive its UDP source port from it.
    pub flow_label: u32,
    /// The IP header's TTL or hop limit.
    pub hop_limit: u8,
}

impl Path {
    pub(super) fn attributes(&self) -> sys::ibv_ah_attr {
        let mut attr = sys::ibv_ah_attr::zero();
        attr.is_global = 1;
        attr.port_num = self.port;
        attr.dlid = self.lid;
        attr.sl = self.service_level;
        attr.grh.dgid.raw = self.destination.0;
        attr.grh.sgid_index = self.source_index;
        attr.grh.traffic_class = self.traffic_class;
        attr.grh.flow_label = self.flow_label & 0x000f_ffff;
        attr.grh.hop_limit = self.hop_limit;
        attr
    }

    pub(super) fn from_attributes(attr: &sys::ibv_ah_attr) -> Path {
        Path {
            port: attr.port_num,
            source_index: attr.grh.sgid_index,
            // SAFETY: any bytes are a GID.
            destination: Gid(unsafe { attr.grh.dgid.raw }),
            lid: attr.dlid,
            service_level: attr.sl,
            traffic_class: attr.grh.traffic_class,
            flow_label: attr.grh.flow_label,
            hop_limit: attr.grh.hop_limit,
        }
    }
}

struct HandleInner {
    domain: Arc<DomainInner>,
    handle: NonNull<sys::ibv_ah>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for HandleInner {}
// SAFETY: as above.
unsafe impl Sync for HandleInner {}

impl Drop for HandleInner {
    fn drop(&mut self) {
        let destroy = self.domain.context().table().ibv_destroy_ah;
        // SAFETY: made once, destroyed here; lists of sends that name it hold it.
        let _destroyed = unsafe { destroy(self.handle.as_ptr()) };
    }
}

/// An address handle; its clones are the same. One that is destroyed while a send by it is not
/// completed fails that send, so a cache drops it after the completion.
#[derive(Clone)]
pub struct AddressHandle {
    inner: Arc<HandleInner>,
}

impl fmt::Debug for AddressHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("AddressHandle")
    }
}

impl AddressHandle {
    pub(super) fn new(
        domain: &Arc<DomainInner>,
        path: &Path,
    ) -> Result<AddressHandle, DeviceError> {
        let mut attr = path.attributes();
        let create = domain.context().table().ibv_create_ah;
        // SAFETY: the domain lives.
        let pointer = unsafe { create(domain.as_ptr(), &mut attr) };
        let handle = domain.context().object("ibv_create_ah", pointer)?;
        let inner = HandleInner { domain: Arc::clone(domain), handle };
        Ok(AddressHandle { inner: Arc::new(inner) })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_ah {
        self.inner.handle.as_ptr()
    }

    /// Whether both are the same handle.
    #[inline]
    #[must_use]
    pub fn is(&self, other: &AddressHandle) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn a_path_survives_the_form_of_the_library() {
        let ip: IpAddr = "10.9.0.2".parse().unwrap();
        let path = Path {
            port: 2,
            source_index: 3,
            destination: Gid::from(ip),
            lid: 0x1234,
            service_level: 5,
            traffic_class: 0b1010_1001,
            flow_label: 0xf_4321,
            hop_limit: 64,
        };
        let attr = path.attributes();
        assert_eq!(attr.is_global, 1);
        assert_eq!(Path::from_attributes(&attr), path);
        let wide = Path { flow_label: u32::MAX, ..path };
        assert_eq!(wide.attributes().grh.flow_label, 0x000f_ffff);
    }
}
