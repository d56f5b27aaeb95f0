//! Opening the NIC mode raw over the test-only double of libibverbs: what is found by trial, what
//! is refused and how. Traffic over it is in perf's tests.
//!
//! Each case runs in a process of its own, since a process loads the library once. A test that
//! finds no double says so and is skipped.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use roceway_rdma_virtio::memory::mapping::{Mapping, PageWish};
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::nic::{
    Capabilities, Completion, Lkey, Nic, Offload, RegionView, SegmentationKind,
    SegmentationRequest, SendWr, Sge, WcChecksum, WcStatus, spec,
};

/// The double, beside the folder of the tests' programs.
fn double() -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("libverbs_double.so");
    named.into_iter().chain([beside]).find(|path| path.exists())
}

/// Runs `test` in a process that has the double for its libibverbs, once for each row with the
/// devices that it names; the row's number is the argument.
fn with_double(name: &str, devices: &[&str], test: fn(usize)) {
    if let Ok(row) = std::env::var("ROCEWAY_TEST_ROW") {
        test(row.parse().expect("a number"));
        return;
    }
    let Some(double) = double() else {
        eprintln!("SKIPPED {name}: no double of libibverbs; cargo build -p roceway-verbs-double");
        return;
    };
    for (row, devices) in devices.iter().enumerate() {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env("ROCEWAY_LIBIBVERBS", &double)
            .env("ROCEWAY_DOUBLE", devices)
            .env("ROCEWAY_TEST_ROW", row.to_string())
            .status()
            .expect("a process of its own");
        assert!(status.success(), "{name} failed with {devices}");
    }
}

fn open(text: &str) -> AnyNic {
    spec::open(text).unwrap_or_else(|error| panic!("{error}"))
}

fn counter(nic: &AnyNic, name: &str) -> u64 {
    let mut found = None;
    nic.visit_counters(&mut |own, value| {
        if own == name {
            found = Some(value);
        }
    });
    found.expect(name)
}

fn setting(nic: &AnyNic, name: &str) -> String {
    let settings = nic.settings();
    let found = settings.iter().find(|(key, _)| *key == name);
    found.unwrap_or_else(|| panic!("{name} is not among {settings:?}")).1.clone()
}

/// Transmit checksum, receive checksum, TSO over IPv4 and over IPv6.
fn offloads(capabilities: &Capabilities) -> [bool; 4] {
    let Capabilities { tx_checksum, rx_checksum, tso4, tso6, .. } = *capabilities;
    [tx_checksum, rx_checksum, tso4, tso6]
}

/// Device, options, offloads that are used, and what is said of steering.
const TRIALS: &[(&str, &str, [bool; 4], &str)] = &[
    ("", "", [false; 4], "could not be tried"),
    (
        "loopback=on",
        "",
        [true; 4],
        "rules for the address; copies of broadcast and multicast (tried)",
    ),
    ("loopback=on,lie=tso", "", [true, true, false, false], "(tried)"),
    ("loopback=on,lie=csum", "", [false, true, false, false], "(tried)"),
    (
        "loopback=on,lie=flow",
        "",
        [true; 4],
        "its rules do not steer: copies of every frame, sorted",
    ),
    ("loopback=on,csum=off", "", [false; 4], "(tried)"),
    ("loopback=on,tso=off", "", [true, true, false, false], "(tried)"),
    ("loopback=on,max_sge=8", "", [true, true, false, false], "(tried)"),
    ("loopback=on,max_tso_header=60", "", [true, true, false, false], "(tried)"),
    ("", "csum=on", [true, true, false, false], "could not be tried"),
    ("", "csum=on,tso=on", [true; 4], "could not be tried"),
    ("loopback=on", "csum=off", [false; 4], "(tried)"),
    ("loopback=on", "tso=off", [true, true, false, false], "(tried)"),
    ("loopback=on", "vlan=7", [true; 4], "(tried)"),
    ("loopback=on", "promisc=on", [true; 4], "copies of every frame of the port"),
    ("loopback=on,dont_trap=off", "groups=take", [true; 4], "taken from the kernel (tried)"),
    ("loopback=on,dont_trap=off", "groups=off", [true; 4], "no broadcast or multicast (tried)"),
];

#[test]
fn a_device_is_given_what_a_trial_showed_that_it_does() {
    let devices: Vec<String> = TRIALS.iter().map(|row| format!("dev=double0,{}", row.0)).collect();
    let devices: Vec<&str> = devices.iter().map(|text| text.trim_end_matches(',')).collect();
    with_double("a_device_is_given_what_a_trial_showed_that_it_does", &devices, |row| {
        let (device, options, expected, steering) = TRIALS[row];
        for mode in ["rdma:double0", "rdma:double0,mode=raw"] {
            let text = [mode, options].join(",");
            let nic = open(text.trim_end_matches(','));
            assert_eq!(offloads(nic.capabilities()), expected, "{device} {text}");
            let said = setting(&nic, "steering");
            assert!(said.contains(steering), "{device}: {said}");
            assert!(setting(&nic, "mode").starts_with("raw"));
        }
    });
}

/// Device, specification, what the refusal says.
const REFUSALS: &[(&str, &str, &[&str])] = &[
    ("dev=a;dev=b", "rdma:mlx5_0", &["there are a, b"]),
    ("dev=a,link=down", "rdma:a", &["port 1 is Down", "ip link set"]),
    ("dev=a,link_layer=infiniband", "rdma:a", &["InfiniBand", "mode=rc or mode=ud"]),
    ("dev=a,raw=off", "rdma:a", &["no RAW_PACKET queue pairs", "mode=rc or mode=ud"]),
    ("dev=a,privileged=no", "rdma:a", &["CAP_NET_RAW", "mode=rc or mode=ud"]),
    ("dev=a,flows=off", "rdma:a", &["no flow rules", "mode=rc or mode=ud"]),
    ("dev=a,dont_trap=off", "rdma:a", &["DONT_TRAP", "groups=take", "groups=off", "mode=rc"]),
    ("dev=a,memlock=4096", "rdma:a", &["ibv_reg_mr", "ulimit -l"]),
    ("dev=a", "rdma:a:2", &["a has ports 1 to 1"]),
    ("devices=none", "rdma:a", &["this host has no RDMA device"]),
];

#[test]
fn a_refusal_names_what_lacks_and_offers_the_other_modes() {
    let devices: Vec<&str> = REFUSALS.iter().map(|row| row.0).collect();
    with_double("a_refusal_names_what_lacks_and_offers_the_other_modes", &devices, |row| {
        let (device, text, expected) = REFUSALS[row];
        let error = spec::open(text).map(|_| ()).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{device}: {error}");
        }
    });
}

#[test]
fn sizes_are_what_the_device_has() {
    let devices = ["dev=a,loopback=on,max_tso=16384,max_qp_wr=64,max_inline=96,max_cqe=100"];
    with_double("sizes_are_what_the_device_has", &devices, |_| {
        let nic = open("rdma:a,mtu=9000,mac=02:00:00:00:00:77");
        let can = nic.capabilities();
        assert_eq!((can.mac, can.mtu), (Some([2, 0, 0, 0, 0, 0x77]), 9000));
        assert_eq!((can.max_message, can.max_inline), (16_384, 94));
        assert_eq!((can.max_send_wr, can.max_recv_wr), (64, 64));
        drop(nic);
        // Another process would draw another address.
        let macs: Vec<_> = (0..2).map(|_| open("rdma:a").capabilities().mac).collect();
        assert_ne!(macs[0], macs[1]);
    });
}

/// A NIC and memory that it sends from.
struct Sender {
    nic: AnyNic,
    memory: Mapping,
    lkey: Lkey,
}

/// Bytes of a frame, and of one that the device cuts.
const PLAIN: u32 = 200;
const LARGE: u32 = 4000;

impl Sender {
    fn open(text: &str) -> Sender {
        let mut nic = open(text);
        let memory = Mapping::create(c"frames", 1 << 16, PageWish::Ordinary).expect("memory");
        // TCP over IPv4, which whoever cuts it looks at.
        let mut headers = [0_u8; 54];
        (headers[12], headers[14], headers[23], headers[46]) = (8, 0x45, 6, 5 << 4);
        // SAFETY: within the mapping, which nobody else knows yet.
        unsafe { std::ptr::copy_nonoverlapping(headers.as_ptr(), memory.as_mut_ptr(), 54) };
        let length = u64::try_from(memory.len()).expect("small");
        let view = RegionView { addr: memory.addr(), length, memfd: None, writable: false };
        // SAFETY: the memory is a later field than the NIC, so that it is unmapped afterwards.
        let lkey = unsafe { nic.register(view) }.expect("a region");
        Sender { nic, memory, lkey }
    }

    /// Posts a frame without the doorbell.
    fn post(&mut self, wr_id: u64, length: u32, (signalled, inline): (bool, bool)) {
        let sges = [Sge { addr: self.memory.addr(), length, lkey: self.lkey }];
        let cut = SegmentationRequest { kind: SegmentationKind::Tcp4, size: 1400, header_len: 54 };
        let segmentation = (length == LARGE).then_some(cut);
        let offload = Offload { checksum: None, segmentation };
        let wr = SendWr { wr_id, sges: &sges, signalled, inline, offload };
        self.nic.post_send(&wr).expect("room");
    }

    /// The completions that come until one does, or none in a tenth of a second.
    fn completed(&mut self) -> Vec<(u64, WcStatus)> {
        let checksum = WcChecksum::Unknown;
        let empty =
            Completion { wr_id: 0, status: WcStatus::Success, byte_len: 0, more: false, checksum };
        let (mut out, limit) = ([empty; 8], Instant::now() + Duration::from_millis(100));
        loop {
            let found = self.nic.poll_send(&mut out);
            if found > 0 || Instant::now() > limit {
                return out[..found].iter().map(|one| (one.wr_id, one.status)).collect();
            }
        }
    }
}

#[test]
fn a_signal_that_is_asked_for_afterwards_comes_and_no_other() {
    with_double(
        "a_signal_that_is_asked_for_afterwards_comes_and_no_other",
        &["dev=a,loopback=on;dev=b"],
        |_| {
            const PLAINLY: (bool, bool) = (false, false);
            let mut sender = Sender::open("rdma:a");
            assert!(!sender.nic.signal_last(), "nothing was sent");
            for length in [PLAIN, LARGE] {
                // Its poster learns only afterwards that nothing follows.
                sender.post(1, length, PLAINLY);
                sender.post(2, length, PLAINLY);
                assert!(sender.nic.signal_last(), "{length}");
                sender.nic.doorbell();
                assert_eq!(sender.completed(), [(2, WcStatus::Success)], "{length}");
                // Once it is with the device it cannot be changed, and nobody hears of it.
                sender.post(3, length, PLAINLY);
                sender.nic.doorbell();
                assert!(!sender.nic.signal_last(), "{length}");
                assert_eq!(sender.completed(), [], "{length}");
                // Nor is there anything to ask for behind what is signalled or was read at once.
                sender.post(4, PLAIN, (true, false));
                assert!(!sender.nic.signal_last());
                sender.post(5, 60, (false, true));
                assert!(!sender.nic.signal_last());
                sender.nic.doorbell();
                assert_eq!(sender.completed(), [(4, WcStatus::Success)], "{length}");
            }
        },
    );
}

/// With a tag, the headers of a frame that the device cuts lie in a place of their own, of which a
/// batch has 64.
#[test]
fn more_headers_than_a_batch_has_places_take_another_doorbell_which_ends_no_turn() {
    with_double(
        "more_headers_than_a_batch_has_places_take_another_doorbell_which_ends_no_turn",
        &["dev=a,loopback=on;dev=b"],
        |_| {
            const PLACES: u64 = 64;
            let mut sender = Sender::open("rdma:a,vlan=7");
            for (frames, doorbells) in [(PLACES, 1), (PLACES + 1, 2), (2 * PLACES + 1, 3)] {
                let before = ["raw_tx_doorbells", "rdma_turns_that_sent", "raw_tx_completed"]
                    .map(|name| counter(&sender.nic, name));
                for number in 1..=frames {
                    sender.post(number, LARGE, (number == frames, false));
                }
                sender.nic.doorbell();
                assert_eq!(sender.completed(), [(frames, WcStatus::Success)], "{frames}");
                let after = ["raw_tx_doorbells", "rdma_turns_that_sent", "raw_tx_completed"]
                    .map(|name| counter(&sender.nic, name));
                let more: Vec<u64> = after.iter().zip(before).map(|(b, a)| b - a).collect();
                assert_eq!(more, [doorbells, 1, frames], "{frames}");
            }
        },
    );
}
