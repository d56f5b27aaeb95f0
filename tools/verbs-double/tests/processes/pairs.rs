//! RC and UD between processes, a peer that is killed, and a control line from outside.

use super::harness::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::*;

const PEER: &str = "VERBS_DOUBLE_TEST_PEER";

fn device(folder: &Path, last: u8) -> String {
    let folder = folder.display();
    format!("wire={folder};dev=double0,mac=02:00:00:00:00:{last:02x},ip=10.9.0.{last}")
}

/// The peer process and its two pipes.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(folder: &Path, more: &str) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pairs::peer", "--nocapture"])
            .env(PEER, format!("{}{more}", device(folder, 2)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Peer { child, to, from }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    /// The next line that is for us; the test harness writes others.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the peer is gone");
            if let Some((_, text)) = line.trim().split_once("> ") {
                return text.to_string();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn way(side: &Side, last: u8) -> AhAttr {
    let low = u64::from_ne_bytes([0, 0, 0xff, 0xff, 10, 9, 0, last]);
    AhAttr { dgid: [0, low], ..side.way_to(side) }
}

fn attr(side: &Side, last: u8, number: u32) -> QpAttr {
    // 4.096 us times 2^15 is 134 ms, eight times over: a loaded machine answers in that time.
    let attr = rc_attr(side, side, number);
    QpAttr { ah_attr: way(side, last), timeout: 15, retry_cnt: 7, rnr_retry: 7, ..attr }
}

/// The peer: sends back every message of an RC and of a UD queue pair.
#[test]
fn peer() {
    let Ok(text) = std::env::var(PEER) else { return };
    let _world = world(&text);
    let side = side_with(0, 512);
    let (rc, ud) = (side.qp(QPT_RC), running(&side, QPT_UD));
    println!("> {} {}", at(rc).qp_num, at(ud).qp_num);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    ready(rc, &attr(&side, 1, line.trim().parse().unwrap()));
    for id in 0..4 {
        assert_eq!(recv(rc, id, &[side.sge(0, 100_000)]), 0);
        assert_eq!(recv(ud, id, &[side.sge(100_000, 2000)]), 0);
    }
    println!("> ready");
    loop {
        for wc in poll(side.cq) {
            assert_eq!(wc.status, WC_SUCCESS);
            let length = usize::try_from(wc.byte_len).unwrap();
            if wc.opcode != WC_OP_RECV {
                continue;
            }
            if wc.qp_num == at(rc).qp_num {
                assert_eq!(send(rc, 9, true, side.sge(0, length)), 0);
                assert_eq!(recv(rc, 1, &[side.sge(0, 100_000)]), 0);
            } else {
                let area: &mut [u8; 40] = side.bytes(100_000, 40).try_into().unwrap();
                let ah = ibv_create_ah_from_wc(side.pd, &raw const wc, area, 1);
                let address = u64::try_from(ah.expose_provenance()).unwrap();
                let mut request = wr(8, WR_SEND, SEND_SIGNALED);
                request.wr = [address, u64::from(wc.src_qp) | u64::from(QKEY) << 32, 0, 0];
                assert_eq!(post(ud, request, &[side.sge(100_040, length - 40)]), 0);
                assert_eq!(recv(ud, 1, &[side.sge(100_000, 2000)]), 0);
                assert_eq!(ibv_destroy_ah(ah), 0);
            }
        }
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}

#[test]
fn messages_go_there_and_back_until_the_peer_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let _world = world(&device(folder.path(), 1));
    let side = side_with(0, 512);
    let mut peer = Peer::start(folder.path(), "");
    let numbers = peer.hear();
    let (rc_peer, ud_peer) = numbers.split_once(' ').unwrap();
    let (rc, ud) = (side.qp(QPT_RC), running(&side, QPT_UD));
    ready(rc, &attr(&side, 2, rc_peer.parse().unwrap()));
    peer.say(&at(rc).qp_num.to_string());
    assert_eq!(peer.hear(), "ready");
    for round in 0..50usize {
        let length = 1 + round * 1999;
        for (place, byte) in side.bytes(0, length).iter_mut().enumerate() {
            *byte = u8::try_from((place + round) % 251).unwrap();
        }
        assert_eq!(recv(rc, 2, &[side.sge(100_000, 100_000)]), 0);
        assert_eq!(send(rc, 1, true, side.sge(0, length)), 0);
        let mut found = ends(&wait(side.cq, 2));
        found.sort_unstable();
        assert_eq!(found, [(1, WC_SUCCESS), (2, WC_SUCCESS)]);
        assert_eq!(side.bytes(0, length), side.bytes(100_000, length));
    }
    let ah = ibv_create_ah(side.pd, &way(&side, 2));
    let address = u64::try_from(ah.expose_provenance()).unwrap();
    for round in 0..20usize {
        assert_eq!(recv(ud, 4, &[side.sge(100_000, 2000)]), 0);
        let mut request = wr(3, WR_SEND, SEND_SIGNALED);
        let number: u64 = ud_peer.parse().unwrap();
        request.wr = [address, number | u64::from(QKEY) << 32, 0, 0];
        assert_eq!(post(ud, request, &[side.sge(0, 1 + round * 50)]), 0);
        let mut found = ends(&wait(side.cq, 2));
        found.sort_unstable();
        assert_eq!(found, [(3, WC_SUCCESS), (4, WC_SUCCESS)]);
        assert_eq!(side.bytes(0, 1 + round * 50), side.bytes(100_040, 1 + round * 50));
    }
    peer.child.kill().unwrap();
    peer.child.wait().unwrap();
    assert_eq!(send(rc, 5, false, side.sge(0, 10)), 0);
    assert_eq!(ends(&wait(side.cq, 1)), [(5, WC_RETRY_EXC_ERR)]);
}

#[test]
fn a_sleeper_wakes_for_a_message_and_a_control_line_comes_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let _world = world(&device(folder.path(), 1));
    let side = side_with(0, 512);
    let control_path = folder.path().join("control");
    let more = format!(";control={}", control_path.display());
    let mut peer = Peer::start(folder.path(), &more);
    let numbers = peer.hear();
    let number: u32 = numbers.split_once(' ').unwrap().0.parse().unwrap();
    let channel = ibv_create_comp_channel(side.context);
    let cq = ibv_create_cq(side.context, 16, std::ptr::null_mut(), channel, 0);
    let mut init = side.init(QPT_RC);
    init.recv_cq = cq;
    let rc = ibv_create_qp(side.pd, &mut init);
    ready(rc, &attr(&side, 2, number));
    peer.say(&at(rc).qp_num.to_string());
    assert_eq!(peer.hear(), "ready");
    assert_eq!(recv(rc, 2, &[side.sge(100_000, 100_000)]), 0);
    arm(cq, false);
    assert_eq!(send(rc, 1, true, side.sge(0, 10)), 0);
    // Blocks until the device's own thread has put the message into memory.
    let (mut got, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
    assert_eq!(ibv_get_cq_event(channel, &raw mut got, &raw mut context), 0);
    ibv_ack_cq_events(got, 1);
    assert_eq!(ends(&poll(cq)), [(2, WC_SUCCESS)]);
    wait(side.cq, 1);

    let own = folder.path().join("asks");
    let asks = UnixDatagram::bind(&own).unwrap();
    let mut reply = [0; 200];
    for (line, expected) in [("port double0 down", "ok"), ("nonsense", "`nonsense`")] {
        asks.send_to(line.as_bytes(), &control_path).unwrap();
        let length = asks.recv(&mut reply).unwrap();
        assert!(reply[..length].starts_with(expected.as_bytes()));
    }
    assert_eq!(send(rc, 3, false, side.sge(0, 10)), 0);
    assert_eq!(ends(&wait(side.cq, 1)), [(3, WC_RETRY_EXC_ERR)]);
}
