//! Memory that a NIC may reach: mappings, regions, and the worker's arena of slots.

pub mod mapping;
