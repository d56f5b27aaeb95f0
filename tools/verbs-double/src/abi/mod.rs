//! The binary interface of libibverbs as its public header `infiniband/verbs.h` declares it:
//! structures, constants, tables of operations. Written by hand from the header; a test compiles
//! a small C program against the system's header, where there is one, and compares every offset.
//!
//! It owns layouts only. Unions are plain words here, taken apart by functions, so that reading
//! one needs no unsafe code; this holds for little-endian machines, which `ENDIAN` checks.

pub mod consts;
pub mod flows;
pub mod objects;
pub mod tables;
pub mod work;

/// Fails to compile on a big-endian machine.
const ENDIAN: () = assert!(cfg!(target_endian = "little"), "unions are read as little-endian");

/// Forces the check of `ENDIAN`.
pub const fn checked() {
    ENDIAN
}
