//! Time to live and class of a socket's packets: what all three manners have in common.

use std::io;
use std::num::NonZeroU8;

use roceway_stack::ip::{Mark, Marking};

use crate::calls::CallError;
use crate::core::Core;
use crate::waits::Socket;

/// A time to live as `std::net` has it.
///
/// # Errors
/// `InvalidInput` unless it is 1 to 255.
pub(crate) fn ttl(ttl: u32) -> io::Result<Mark> {
    let ttl = u8::try_from(ttl).ok().and_then(NonZeroU8::new);
    ttl.map(Mark::Ttl)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a time to live is 1 to 255"))
}

/// Sets what the socket's packets say from now on.
pub(crate) fn set(core: &mut Core, socket: Socket, mark: Mark) -> Result<(), CallError> {
    let now = core.now;
    let (stack, mut memory) = core.parts();
    match socket {
        Socket::Connection(id) => {
            let option = roceway_stack::tcp::TcpOption::Mark(mark);
            stack.tcp().0.set_option(id, option, now);
        }
        Socket::Listener(id) => stack.tcp().0.mark_listener(id, mark),
        Socket::Datagram(id) => {
            stack.udp(now, &mut memory).0.mark(id, mark).map_err(CallError::Udp)?;
        }
    }
    Ok(())
}

/// What the socket's packets say.
pub(crate) fn get(core: &mut Core, socket: Socket) -> Result<Marking, CallError> {
    let now = core.now;
    let (stack, mut memory) = core.parts();
    let marking = match socket {
        Socket::Connection(id) => stack.tcp().0.marking(id),
        Socket::Listener(id) => stack.tcp().0.listener_marking(id),
        Socket::Datagram(id) => stack.udp(now, &mut memory).0.marking(id),
    };
    marking.ok_or(CallError::NotConnected)
}
