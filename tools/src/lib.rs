//! The gateway, and test beds.
#![forbid(unsafe_code)]

pub mod gateway;
pub mod rxe_vm;
