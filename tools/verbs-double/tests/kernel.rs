//! The kernel side of a port: a TAP interface in a network namespace of the test's own. The peer
//! is the kernel's own ICMP. Skipped, by name, without root.

use verbs_double as _;

#[path = "rules/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the rules; not all of it is used here")]
mod harness;

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::*;
use verbs_double::abi::consts::*;
use verbs_double::abi::flows::FlowAttr;
use verbs_double::abi::objects::{Qp, QpAttr};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const KERNEL: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()).to_be_bytes()
}

/// An ICMP echo request to the kernel's address.
fn echo(number: u8) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 7, 0, number];
    icmp.extend_from_slice(&[0x55; 32]);
    let check = sum(&icmp);
    icmp[2..4].copy_from_slice(&check);
    let mut ip = vec![0x45, 0, 0, 60, 0, number, 0x40, 0, 64, 1, 0, 0, 10, 88, 0, 1, 10, 88, 0, 2];
    let check = sum(&ip);
    ip[10..12].copy_from_slice(&check);
    [&KERNEL[..], &OURS, &[8, 0], &ip, &icmp].concat()
}

fn namespace() -> bool {
    // SAFETY: no pointers; only this thread moves.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

fn await_frames(qp: *mut Qp, side: &Side, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let (limit, mut found) = (Instant::now() + Duration::from_secs(5), Vec::new());
    while found.is_empty() && Instant::now() < limit {
        for wc in poll(side.cq) {
            assert_eq!(wc.status, WC_SUCCESS);
            let length = usize::try_from(wc.byte_len).unwrap();
            let frame = side.bytes(4096, length).to_vec();
            assert_eq!(recv(qp, 1, &[side.sge(4096, 2048)]), 0);
            if wanted(&frame) {
                found.push(frame);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    found
}

#[test]
fn what_is_not_steered_reaches_the_kernel_and_it_answers() {
    let test = "what_is_not_steered_reaches_the_kernel_and_it_answers";
    let skipped = |reason: &str| {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    };
    if !std::path::Path::new("/dev/net/tun").exists() || !namespace() {
        return skipped("needs root and /dev/net/tun");
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return skipped("needs iproute2");
    }
    ip("tuntap add rwdouble0 mode tap");
    let _world = world("dev=double0;dev=double1,tap=rwdouble0");
    let (a, b) = (side_with(0, 256), side_with(1, 256));
    ip("addr add 10.88.0.2/24 dev rwdouble0");
    ip("link set rwdouble0 up");
    ip("neigh add 10.88.0.1 lladdr 02:00:00:00:00:01 dev rwdouble0");
    let qp = running(&a, QPT_RAW_PACKET);
    assert_eq!(recv(qp, 1, &[a.sge(4096, 2048)]), 0);
    let all = FlowAttr {
        comp_mask: 0,
        attr_type: FLOW_ATTR_ALL_DEFAULT,
        size: 0,
        priority: 0,
        num_of_specs: 0,
        port: 1,
        flags: 0,
    };
    assert!(!rule(qp, &all, &[]).is_null());
    let reply = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 0;
    a.bytes(0, 74).copy_from_slice(&echo(1));
    assert_eq!(send(qp, 9, false, a.sge(0, 74)), 0);
    let found = await_frames(qp, &a, reply);
    assert_eq!((&found[0][..6], &found[0][26..30]), (&OURS[..], &[10, 88, 0, 2][..]));
    // A rule at the kernel's own port takes its frames away from it.
    let mut other = b.init(QPT_RAW_PACKET);
    other.cap.max_recv_wr = 8;
    let thief = ibv_create_qp(b.pd, &mut other);
    ready(thief, &QpAttr { port_num: 1, ..QpAttr::default() });
    assert_eq!(recv(thief, 1, &[b.sge(0, 2048)]), 0);
    assert!(!rule(thief, &all, &[]).is_null());
    let before = counter("frames_to_kernel");
    a.bytes(0, 74).copy_from_slice(&echo(2));
    assert_eq!(send(qp, 9, false, a.sge(0, 74)), 0);
    assert_eq!(wait(b.cq, 1)[0].byte_len, 74);
    assert_eq!(counter("frames_to_kernel"), before);
}

/// `leftovers=after`: a default rule sees only what the kernel side does not want.
#[test]
fn default_rules_may_stand_behind_the_kernel() {
    let test = "default_rules_may_stand_behind_the_kernel";
    if !std::path::Path::new("/dev/net/tun").exists() || !namespace() {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs root and /dev/net/tun");
        return;
    }
    let _world = world("dev=double0;dev=double1,tap=rwdouble1,leftovers=after");
    let (a, b) = (side_with(0, 256), side_with(1, 256));
    let (sender, other) = (running(&a, QPT_RAW_PACKET), running(&b, QPT_RAW_PACKET));
    let all = FlowAttr {
        comp_mask: 0,
        attr_type: FLOW_ATTR_ALL_DEFAULT,
        size: 0,
        priority: 0,
        num_of_specs: 0,
        port: 1,
        flags: 0,
    };
    assert!(!rule(other, &all, &[]).is_null());
    for (number, destination) in [KERNEL, [0xff; 6], [2, 9, 9, 9, 9, 9]].into_iter().enumerate() {
        assert_eq!(recv(other, 5, &[b.sge(0, 2048)]), 0);
        a.bytes(0, 74).copy_from_slice(&echo(1));
        a.bytes(0, 6).copy_from_slice(&destination);
        let before = counter("frames_to_kernel");
        assert_eq!(send(sender, 9, false, a.sge(0, 74)), 0);
        let (to_kernel, to_rule) = (counter("frames_to_kernel") - before, poll(b.cq).len());
        assert_eq!((to_kernel, to_rule), if number < 2 { (1, 0) } else { (0, 1) }, "{number}");
    }
}
