//! The soft NIC as its users see it: two sides in one thread, two threads, two processes, and
//! with faults; and under an assembled interface, which it lends frames.

mod faults;
mod lending;
mod messages;
mod processes;
mod threads;
mod world;
