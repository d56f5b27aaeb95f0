//! The addresses of this network namespace's interfaces (getifaddrs(3)), and socket addresses.
//!
//! Owns the list of the C library while it reads it.

use super::gid::InterfaceAddress;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

/// The C library's list.
struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by getifaddrs, freed once.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// The addresses of all interfaces.
pub(super) fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list = List(ptr::null_mut());
    // SAFETY: a place for the list's beginning.
    if unsafe { libc::getifaddrs(&mut list.0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut at = list.0.cast_const();
    // SAFETY: a list of the C library, which ends with null.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next;
        // SAFETY: null, or an address of its family's length.
        let Some(address) = (unsafe { socket_address(entry.ifa_addr.cast()) }) else { continue };
        // SAFETY: a C string of the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        // SAFETY: as above.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let name = name.to_string_lossy().into_owned();
        addresses.push(InterfaceAddress { index, name, ip: address.ip() });
    }
    Ok(addresses)
}

/// Reads an IPv4 or IPv6 socket address; none for other families and null.
///
/// # Safety
/// `address` is null, or begins a socket address with as many bytes as its family has.
pub(super) unsafe fn socket_address(address: *const libc::sockaddr_storage) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family; the caller's promise.
    let family = unsafe { address.cast::<libc::sa_family_t>().read() };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says what follows.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says what follows.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let (port, scope) = (u16::from_be(address.sin6_port), address.sin6_scope_id);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

/// A socket address in the C library's form.
pub(super) fn to_storage(address: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: integers only.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = ptr::from_mut(&mut storage);
    match address {
        SocketAddr::V4(address) => {
            let family = u16::try_from(libc::AF_INET).unwrap_or(0);
            let value = libc::sockaddr_in {
                sin_family: family,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: address.ip().to_bits().to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is large enough and aligned for every family.
            unsafe { place.cast::<libc::sockaddr_in>().write(value) };
        }
        SocketAddr::V6(address) => {
            let value = libc::sockaddr_in6 {
                sin6_family: u16::try_from(libc::AF_INET6).unwrap_or(0),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(value) };
        }
    }
    storage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_survive_the_form_of_the_c_library() {
        for text in ["10.1.2.3:4791", "[2001:db8::1]:80", "[fe80::1%7]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            let storage = to_storage(address);
            // SAFETY: a whole storage.
            assert_eq!(unsafe { socket_address(&storage) }, Some(address), "{text}");
        }
        // SAFETY: null is allowed.
        assert_eq!(unsafe { socket_address(ptr::null()) }, None);
    }

    #[test]
    fn the_loopback_interface_is_among_those_here() {
        let here = addresses().unwrap();
        let local = here.iter().find(|at| at.ip.is_loopback()).expect("every namespace has lo");
        assert_ne!(local.index, 0);
    }
}
