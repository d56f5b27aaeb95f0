//! `roceway gateway`: joins the wire of hosts that run Roceway to an ordinary network.
//!
//! A bridge of two sides with hardware addresses that it learns: a frame goes from its side to the
//! other one, or nowhere; never back to where it came from. What a frame's virtio-net header says
//! goes with it. The parts: [`side`] is a device with its copy of frames, [`addresses`] who is
//! where, [`beacon`] how loops are found out, [`bridge`] the work of a turn. Owns no thread: the
//! caller turns it with a `busypoll::Loop`.

pub mod addresses;
pub mod beacon;
pub mod bridge;
pub mod counters;
pub mod side;

pub use bridge::{Bridge, Broken, Limits};

/// A side of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The wire between hosts that run Roceway.
    Wire,
    /// The TAP or the interface behind which ordinary hosts are.
    Host,
}

impl Which {
    /// Both.
    pub const BOTH: [Which; 2] = [Which::Wire, Which::Host];

    /// Its name, for people and for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Which::Wire => "wire",
            Which::Host => "host",
        }
    }
}
