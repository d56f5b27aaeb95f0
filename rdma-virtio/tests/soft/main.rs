//! The soft NIC as its users see it: two sides in one thread, two threads, two processes, and
//! with faults.

mod faults;
mod messages;
mod processes;
mod threads;
mod world;
