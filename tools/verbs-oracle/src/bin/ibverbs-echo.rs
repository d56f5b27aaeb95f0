//! A reliable connected queue pair of the crate `ibverbs` that echoes: another hand's verbs as the
//! peer of Roceway's.
//!
//! It finds the other end as verbs-pingpong does (one line each over TCP) and echoes messages of
//! `--size` bytes, one at a time, `--count` of them. Prints `hello ...` and `echoed count=N`; an
//! error goes to standard error with exit code 1.

use clap::Parser;
use ibverbs::{
    CompletionQueue, Gid, MemoryRegion, QueuePair, QueuePairEndpoint, ibv_qp_type, ibv_wc,
};
use roceway_verbs_oracle::exchange::{Hello, Wire};
use roceway_verbs_oracle::{Failure, said};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Echoes messages on a queue pair of the crate ibverbs.
#[derive(Debug, Parser)]
struct Options {
    /// A verbs device
    #[arg(long)]
    device: String,
    /// Index of the GID
    #[arg(long)]
    gid: u32,
    /// Wait for the other end at this address
    #[arg(long)]
    listen: SocketAddr,
    /// Bytes a message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Messages
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Seconds without a completion after which it gives up
    #[arg(long, default_value_t = 10)]
    patience: u64,
}

/// Marks completions of sends.
const SEND: u64 = 1;
/// Marks completions of receives.
const RECEIVE: u64 = 2;
/// The path MTU that both ends use, and its number in `ibv_mtu`: every RoCE port has it.
const MTU: (u16, u32) = (1024, 3);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ibverbs-echo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let devices = ibverbs::devices()?;
    let named = |device: &ibverbs::Device<'_>| {
        device.name().is_some_and(|name| name.to_bytes() == options.device.as_bytes())
    };
    let device = devices.iter().find(named);
    let device = device.ok_or_else(|| said(format!("there is no device {}", options.device)))?;
    let context = device.open()?;
    let queue = context.create_cq(16, 0)?;
    let domain = context.alloc_pd()?;
    // The first half receives, the second sends.
    let mut memory = domain.allocate::<u8>(2 * options.size)?;

    let mut wire = Wire::listen(options.listen)?;
    let line = wire.hear()?;
    let peer = Hello::from_line(&line).ok_or_else(|| said(format!("heard `{line}`")))?;
    let mut builder = domain.create_qp(&queue, &queue, ibv_qp_type::IBV_QPT_RC);
    builder.set_gid_index(options.gid).set_path_mtu(MTU.1).set_rq_psn(peer.psn);
    builder.set_timeout(14).set_retry_count(7).set_rnr_retry(7).set_min_rnr_timer(12);
    builder.set_max_send_wr(4).set_max_recv_wr(4);
    let prepared = builder.build()?;
    let own = prepared.endpoint();
    let own_gid = own.gid.ok_or_else(|| said("the device has no such GID"))?;
    let hello = Hello {
        queue_pair: own.num,
        psn: 0,
        lid: own.lid,
        mtu: MTU.0,
        qkey: 0,
        gid: bytes_of(own_gid),
    };
    wire.say(&hello.to_line())?;
    println!("hello device={} queue_pair={} crate=ibverbs", options.device, own.num);
    let mut gid = Gid::default();
    gid.as_mut().raw = peer.gid;
    let remote = QueuePairEndpoint { num: peer.queue_pair, lid: peer.lid, gid: Some(gid) };
    let mut pair = prepared.handshake(remote)?;
    // SAFETY: the half that receives is not touched before its completion.
    unsafe { pair.post_receive(&mut memory, ..options.size, RECEIVE) }?;
    wire.meet("ready")?;

    echo(&queue, &mut pair, &mut memory, options)?;
    wire.meet("done")?;
    println!("echoed count={}", options.count);
    Ok(())
}

/// Sends back what comes; one message is under way at a time.
fn echo(
    queue: &CompletionQueue<'_>,
    pair: &mut QueuePair<'_>,
    memory: &mut MemoryRegion<u8>,
    options: &Options,
) -> Result<(), Failure> {
    let mut completions = [ibv_wc::default(); 16];
    let (mut echoed, mut deadline) = (0, Instant::now() + Duration::from_secs(options.patience));
    while echoed < options.count {
        let completed = queue.poll(&mut completions)?;
        if completed.is_empty() {
            if Instant::now() > deadline {
                return Err(said(format!("no completion after {echoed} messages")));
            }
            std::thread::yield_now();
            continue;
        }
        deadline = Instant::now() + Duration::from_secs(options.patience);
        for completion in completed {
            if let Some((status, vendor)) = completion.error() {
                return Err(said(format!("completion: {status:?}, vendor's code {vendor:#x}")));
            }
            if completion.wr_id() == SEND {
                echoed += 1;
                continue;
            }
            if completion.len() != options.size {
                return Err(said(format!("a message of {} bytes", completion.len())));
            }
            memory.copy_within(..options.size, options.size);
            // SAFETY: as above.
            unsafe { pair.post_receive(memory, ..options.size, RECEIVE) }?;
            // SAFETY: the half that sends is not touched before the next message.
            unsafe { pair.post_send(memory, options.size.., SEND) }?;
        }
    }
    Ok(())
}

fn bytes_of(gid: Gid) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&gid.subnet_prefix().to_be_bytes());
    bytes[8..].copy_from_slice(&gid.interface_id().to_be_bytes());
    bytes
}
