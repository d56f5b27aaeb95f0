//! The gateway, sets of offloads, and test beds.
#![forbid(unsafe_code)]

pub mod gateway;
pub mod offload_sets;
pub mod rxe_vm;
