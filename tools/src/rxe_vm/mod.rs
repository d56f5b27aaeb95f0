//! The virtual machine test bed: real rdma_rxe devices under software emulation.
//!
//! A [`scenario`] is a file that says what either side runs and which checks must come out.
//! [`image`] packs guest scripts, kernel modules and the [`programs`] under test with their
//! libraries into an initramfs ([`archive`] knows its format). [`guest`] is one QEMU process;
//! [`session`] boots one or two of them, hands out scenarios and listens to their [`lines`];
//! [`report`] turns what was heard into text or JSON. The network of the guests is theirs alone: a
//! veth pair, or a Unix socket.
//!
//! Nothing here measures: figures come from the programs in the guest, and times under emulation
//! compare only with other times of the same guest.

pub mod archive;
pub mod guest;
pub mod image;
pub mod lines;
pub mod programs;
pub mod report;
pub mod scenario;
pub mod session;

use std::fmt;

/// Why something could not be done, and what the user can do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The cause.
    pub cause: String,
    /// What can be done; may be empty.
    pub remedy: String,
}

impl Trouble {
    /// A trouble without a known remedy.
    pub fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: String::new() }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.remedy.is_empty() {
            f.write_str(&self.cause)
        } else {
            write!(f, "{}\nremedy: {}", self.cause, self.remedy)
        }
    }
}

impl std::error::Error for Trouble {}

/// The error of a system call on a file or program, named.
pub(crate) fn io(what: impl fmt::Display, error: &std::io::Error) -> Trouble {
    Trouble::new(format!("{what}: {error}"))
}
