//! What joins the two worlds: a soft link, or two devices of the test-only double of libibverbs,
//! which does everything in the thread that calls it.
//!
//! A process loads one libibverbs, so whoever runs the program names the double and its devices in
//! the environment, as `tools/instructions` does.

use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::rdma_virtio::nic::spec;

/// A kind of link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    Soft,
    /// A soft link of frames of 1500 bytes that computes checksums.
    NoSegmentation,
    /// A soft link of frames of 1500 bytes that computes no checksums.
    NoChecksums,
    /// Plain Ethernet over RAW_PACKET queue pairs.
    Raw,
    /// The virtual Ethernet over reliable-connected queue pairs.
    Rc,
    /// The same over datagrams.
    Ud,
}

impl Link {
    /// Both ends.
    pub(super) fn ends(self) -> (AnyNic, AnyNic) {
        let mode = match self {
            Link::Soft => return soft(&SoftOptions::default()),
            Link::NoSegmentation => {
                return soft(&SoftOptions { large: false, ..SoftOptions::default() });
            }
            Link::NoChecksums => {
                return soft(&SoftOptions { large: false, csum: false, ..SoftOptions::default() });
            }
            Link::Raw => return (open("rdma:a"), open("rdma:b")),
            Link::Rc => "rc",
            Link::Ud => "ud",
        };
        // One listens and the other calls, by the loopback interface.
        let port = 20_000 + std::process::id() % 20_000;
        let way = format!("mode={mode},gid=3,exchange=tcp");
        let second = open(&format!("rdma:b,{way},port={port},accept=127.0.0.0/8,peers=1"));
        (open(&format!("rdma:a,{way},port=0,peer=127.0.0.2:{port}")), second)
    }
}

fn soft(options: &SoftOptions) -> (AnyNic, AnyNic) {
    let (a, b) = SoftNic::pair(options).expect("a soft link");
    (a.into(), b.into())
}

fn open(text: &str) -> AnyNic {
    spec::open(text).unwrap_or_else(|error| {
        panic!("{error}; run it by tools/instructions, which names the double of libibverbs")
    })
}
