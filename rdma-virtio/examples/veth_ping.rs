//! Raw frames over a veth pair between two packet NICs, each on its own core: the round trip below
//! any stack. Run as root; everything happens in a network namespace that vanishes.
//!
//! `cargo run --release -p roceway-rdma-virtio --example veth_ping [round trips] [bytes]`

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roceway_rdma_virtio::nic::packet::{PacketNic, PacketOptions};
use roceway_rdma_virtio::nic::{
    Completion, Lkey, Nic, Offload, PostError, RecvWr, RegionView, SendWr, Sge, WcChecksum,
    WcStatus,
};

const HERE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const THERE: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// A type for local experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const RECEIVES: usize = 64;
const RECEIVE_LEN: usize = 2048;
const SEND_AT: usize = RECEIVES * RECEIVE_LEN;

/// One end: a NIC, its memory, and one message that it sends again and again.
struct End {
    nic: PacketNic,
    memory: Vec<u8>,
    lkey: Lkey,
    length: usize,
}

impl End {
    fn new(interface: &str, own: [u8; 6], other: [u8; 6], length: usize) -> Result<Self, String> {
        let options = PacketOptions { mac: Some(own), ..PacketOptions::default() };
        let mut nic = PacketNic::open(interface, &options).map_err(|e| e.to_string())?;
        let mut memory = vec![0_u8; SEND_AT + RECEIVE_LEN];
        let addr = memory.as_mut_ptr().expose_provenance() as u64;
        let view = RegionView { addr, length: memory.len() as u64, memfd: None, writable: true };
        // SAFETY: the memory lives as long as the NIC, and posted parts of it are left alone.
        let lkey = unsafe { nic.register(view) }.map_err(|e| e.to_string())?;
        memory[SEND_AT + 12..SEND_AT + 18].copy_from_slice(&other);
        memory[SEND_AT + 18..SEND_AT + 24].copy_from_slice(&own);
        memory[SEND_AT + 24..SEND_AT + 26].copy_from_slice(&ETHERTYPE);
        let mut end = Self { nic, memory, lkey, length };
        for slot in 0..RECEIVES {
            end.post(slot);
        }
        Ok(end)
    }

    fn sge(&self, offset: usize, length: usize) -> Sge {
        let addr = self.memory.as_ptr().expose_provenance() as u64 + offset as u64;
        Sge { addr, length: u32::try_from(length).unwrap_or(0), lkey: self.lkey }
    }

    fn post(&mut self, slot: usize) {
        let sges = [self.sge(slot * RECEIVE_LEN, RECEIVE_LEN)];
        let _ = self.nic.post_recv(&[RecvWr { wr_id: slot as u64, sges: &sges }]);
    }

    fn send(&mut self) -> Result<(), PostError> {
        let sges = [self.sge(SEND_AT, self.length)];
        self.nic.post_send(&SendWr {
            wr_id: 0,
            sges: &sges,
            signalled: false,
            inline: false,
            offload: Offload::default(),
        })?;
        self.nic.doorbell();
        Ok(())
    }

    /// Spins until a frame of ours comes, or `stop`.
    fn receive(&mut self, stop: &AtomicBool) -> bool {
        let checksum = WcChecksum::Unknown;
        let status = WcStatus::General;
        let mut out = [Completion { wr_id: 0, status, byte_len: 0, more: false, checksum }];
        loop {
            if !self.nic.recv_ready() {
                if stop.load(Ordering::Relaxed) {
                    return false;
                }
                std::hint::spin_loop();
                continue;
            }
            if self.nic.poll_recv(&mut out) == 0 {
                continue;
            }
            let slot = usize::try_from(out[0].wr_id).unwrap_or(0);
            let kind = slot * RECEIVE_LEN + 24;
            let ours = self.memory[kind..kind + 2] == ETHERTYPE;
            self.post(slot);
            if ours {
                return true;
            }
        }
    }
}

fn pin(core: usize) {
    // SAFETY: cpu_set_t is plain integers; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set and `core` is below its size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set outlives the call; a core that is not there is refused, which does no harm.
    let _ = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

fn namespace() -> Result<(), String> {
    // SAFETY: it changes this thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(format!("unshare(CLONE_NEWNET): {error}; run it with sudo"));
    }
    for line in ["link add va type veth peer name vb", "link set va up", "link set vb up"] {
        let done = Command::new("ip").args(line.split(' ')).status();
        if !done.map_err(|e| format!("ip: {e}; install iproute2"))?.success() {
            return Err(format!("ip {line} failed"));
        }
    }
    // Carrier, and the kernel's first frames.
    std::thread::sleep(std::time::Duration::from_millis(200));
    Ok(())
}

fn run(count: usize, bytes: usize) -> Result<(), String> {
    namespace()?;
    // The header travels too.
    let length = 12 + bytes.clamp(14, 1514);
    let mut here = End::new("va", HERE, THERE, length)?;
    let mut there = End::new("vb", THERE, HERE, length)?;
    let stop = AtomicBool::new(false);
    let mut nanoseconds = Vec::with_capacity(count);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            while there.receive(&stop) {
                if there.send().is_err() {
                    return;
                }
            }
        });
        pin(0);
        for _ in 0..count {
            let start = Instant::now();
            if here.send().is_err() || !here.receive(&stop) {
                break;
            }
            nanoseconds.push(start.elapsed().as_nanos());
        }
        stop.store(true, Ordering::Relaxed);
    });
    if nanoseconds.is_empty() {
        return Err("no frame came back".to_owned());
    }
    nanoseconds.sort_unstable();
    let at = |permille: usize| nanoseconds[(nanoseconds.len() - 1) * permille / 1000];
    let bytes = length - 12;
    println!("veth, {} round trips of {bytes}-byte frames between two packet NICs", count);
    println!("p50 {} ns  p90 {} ns  p99 {} ns  p99.9 {} ns", at(500), at(900), at(990), at(999));
    Ok(())
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<usize>().ok());
    let count = numbers.next().flatten().unwrap_or(50_000).max(1);
    let bytes = numbers.next().flatten().unwrap_or(67);
    match run(count, bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("veth_ping: {message}");
            ExitCode::FAILURE
        }
    }
}
