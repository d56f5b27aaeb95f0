//! Memory that a NIC may reach: mappings, regions, and the worker's arena of slots.

pub mod arena;
pub mod buffer;
pub mod copy;
mod home;
pub mod leases;
pub mod lent;
mod limits;
pub mod mapping;
pub mod region;
pub mod slot;
pub mod sum;
