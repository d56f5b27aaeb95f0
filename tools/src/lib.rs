//! Test beds.
#![forbid(unsafe_code)]

pub mod rxe_vm;
