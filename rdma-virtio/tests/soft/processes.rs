//! Two processes that meet at a path: who comes first, death, restart, stall, strangers.
//!
//! The other process is this test program itself, asked by an environment variable to play a
//! part; without it `child` is an empty test.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::nic::{DeviceError, Nic, NicEvent, PostError, WcStatus};

use crate::world::{Side, conserved, pattern};

const PART: &str = "ROCEWAY_TEST_PART";
const PATH: &str = "ROCEWAY_TEST_PATH";

/// Kills the child when the test ends, however it ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guard {
    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.0.id()).unwrap();
        // SAFETY: a signal to our own child, which was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

fn command(part: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["processes::child", "--exact", "--nocapture"]);
    command.env(PART, part).env(PATH, path).stdout(Stdio::null());
    command
}

fn spawn(part: &str, path: &Path) -> Guard {
    Guard(command(part, path).spawn().unwrap())
}

/// A directory of its own for each test.
fn directory(name: &str) -> PathBuf {
    let name = format!("roceway-soft-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    directory
}

fn open(path: &Path) -> Side<SoftNic> {
    let options = SoftOptions { timeout_ns: 300_000_000, ..SoftOptions::default() };
    Side::new(SoftNic::open(path, &options).unwrap(), 64)
}

/// Plays the part that the environment asks for.
#[test]
fn child() {
    let (Ok(part), Ok(path)) = (std::env::var(PART), std::env::var(PATH)) else { return };
    match part.as_str() {
        "echo" => echo(&mut open(Path::new(&path))),
        "mtu" => {
            let options = SoftOptions { mtu: 9000, ..SoftOptions::default() };
            expect_error(SoftNic::open(Path::new(&path), &options).unwrap(), "mtu=9000");
        }
        other => {
            expect_error(SoftNic::open(Path::new(&path), &SoftOptions::default()).unwrap(), other)
        }
    }
}

/// Returns every message until it is killed, or half a minute at most.
fn echo(side: &mut Side<SoftNic>) {
    let end = Instant::now() + Duration::from_secs(30);
    let mut number = 0;
    while Instant::now() < end {
        side.maintain();
        while let Some(bytes) = side.receive() {
            // Four messages may be on their way back at once.
            let offset = u32::try_from(number % 8 * 131_072).unwrap();
            number += 1;
            while side.send_bytes(offset, &bytes, number) == Err(PostError::QueueFull) {}
        }
        side.completions();
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Ends well if `maintain` fails with these words within ten seconds.
fn expect_error(mut nic: SoftNic, words: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    let mut now_ns = 0;
    while Instant::now() < end {
        now_ns += 1_000_000;
        if let Err(error) = nic.maintain(now_ns) {
            assert!(error.to_string().contains(words), "{error}");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no error");
}

/// Sends messages of several sizes and sees them come back.
fn exchange(side: &mut Side<SoftNic>) {
    for number in 0..30 {
        let length = [79, 1500, 60_000][usize::try_from(number % 3).unwrap()];
        let bytes = pattern(number, length);
        side.send_bytes(0, &bytes, number).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            side.maintain();
            if let Some(back) = side.receive() {
                assert!(back == bytes, "{number}");
                break;
            }
            assert!(Instant::now() < end, "message {number} does not come back");
        }
        while side.nic.sends_outstanding() > 0 {
            side.completions();
            assert!(Instant::now() < end);
        }
    }
    conserved(&[side]);
}

#[test]
fn either_side_may_start_first() {
    let directory = directory("first");
    let path = directory.join("link.sock");
    let mut side = open(&path);
    side.maintain();
    let socket = fs::metadata(&path).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let child = spawn("echo", &path);
    side.wait_for(NicEvent::LinkUp);
    exchange(&mut side);
    drop(child);
    drop(side);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "what was made is removed");

    let child = spawn("echo", &path);
    let end = Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut side = open(&path);
    side.wait_for(NicEvent::LinkUp);
    exchange(&mut side);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_killed_peer_is_noticed_within_a_second_and_its_successor_joins() {
    let directory = directory("kill");
    let path = directory.join("link.sock");
    // Once with the survivor listening, then with the survivor having connected.
    let mut side = open(&path);
    side.maintain();
    let mut child = spawn("echo", &path);
    side.wait_for(NicEvent::LinkUp);
    for round in 0..3 {
        exchange(&mut side);
        side.send_bytes(0, &pattern(1, 500), 77).unwrap();
        drop(child);
        let killed = Instant::now();
        side.wait_for(NicEvent::PeerGone);
        assert!(killed.elapsed() < Duration::from_secs(1));
        side.completions();
        assert_eq!(side.send_bytes(0, &[1; 79], 1), Err(PostError::LinkDown));
        while side.receive().is_some() {}
        if round == 1 {
            // The survivor leaves too, and comes back as the one that connects.
            drop(side);
            child = spawn("echo", &path);
            std::thread::sleep(Duration::from_millis(200));
            side = open(&path);
        } else {
            child = spawn("echo", &path);
        }
        side.wait_for(NicEvent::LinkUp);
    }
    exchange(&mut side);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_stalled_peer_ends_requests_in_error_and_comes_back() {
    let directory = directory("stall");
    let path = directory.join("link.sock");
    let mut side = open(&path);
    side.maintain();
    let child = spawn("echo", &path);
    side.wait_for(NicEvent::LinkUp);
    exchange(&mut side);
    child.signal(libc::SIGSTOP);
    side.send_bytes(0, &pattern(1, 500), 1).unwrap();
    side.send_bytes(4096, &pattern(2, 500), 2).unwrap();
    side.send(&[side.tx_sge(0, 79)], true, 3).unwrap();
    side.wait_for(NicEvent::LinkDown);
    assert_eq!(side.completions(), [(1, WcStatus::RetryExceeded), (2, WcStatus::Flushed)]);
    assert_eq!(side.nic.counters().peers_stalled, 1);
    child.signal(libc::SIGCONT);
    side.wait_for(NicEvent::LinkUp);
    assert_eq!(side.nic.counters().peers_gone, 0, "it is the same peer");
    while side.receive().is_some() {}
    exchange(&mut side);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_third_process_is_told_that_the_link_is_taken() {
    let directory = directory("third");
    let path = directory.join("link.sock");
    let mut side = open(&path);
    side.maintain();
    let child = spawn("echo", &path);
    side.wait_for(NicEvent::LinkUp);
    let mut third = spawn("two others are linked", &path);
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        side.maintain();
        if let Some(status) = third.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success());
    assert!(side.nic.counters().peers_told_busy > 0);
    exchange(&mut side);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_peer_with_other_options_is_refused_and_told_why() {
    let directory = directory("mtu");
    let path = directory.join("link.sock");
    let mut side = open(&path);
    side.maintain();
    let mut child = spawn("mtu", &path);
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        side.maintain();
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success());
    assert!(!side.nic.is_up());
    let child = spawn("echo", &path);
    side.wait_for(NicEvent::LinkUp);
    exchange(&mut side);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn another_user_is_refused() {
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped another_user_is_refused: only root can start a process as another user");
        return;
    }
    let directory = directory("user");
    let path = directory.join("link.sock");
    let mut side = open(&path);
    side.maintain();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let mut asked = command("another user", &path);
    asked.uid(65_534).gid(65_534).current_dir("/");
    let mut child = match asked.spawn() {
        Ok(child) => Guard(child),
        Err(error) => {
            eprintln!("skipped another_user_is_refused: nobody cannot run this test: {error}");
            return;
        }
    };
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        assert_eq!(side.maintain(), None);
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success());
    assert!(side.nic.counters().peers_refused > 0);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}

fn failure(path: &Path) -> DeviceError {
    let mut nic = SoftNic::open(path, &SoftOptions::default()).unwrap();
    nic.maintain(1).unwrap_err()
}

#[test]
fn paths_that_cannot_be_used_are_answered_with_a_remedy() {
    let directory = directory("paths");
    let file = directory.join("file");
    fs::write(&file, b"precious").unwrap();
    let rows = [
        (file.clone(), "no socket"),
        (directory.join("absent/link.sock"), "a directory that you may write"),
    ];
    for (path, wanted) in rows {
        let text = failure(&path).to_string();
        assert!(text.contains(wanted) && text.starts_with("soft:/"), "{text}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let long = directory.join("x".repeat(120));
    let error = SoftNic::open(&long, &SoftOptions::default()).unwrap_err();
    assert!(error.to_string().contains("1 to 107 bytes"), "{error}");
    // A socket that nobody listens on any more is replaced.
    let stale = directory.join("stale.sock");
    drop(std::os::unix::net::UnixDatagram::bind(&stale).unwrap());
    let seqpacket = directory.join("link.sock");
    let mut left = open(&seqpacket);
    left.maintain();
    let copy = directory.join("copy.sock");
    fs::rename(&seqpacket, &copy).unwrap();
    drop(left);
    let mut side = open(&copy);
    side.maintain();
    let child = spawn("echo", &copy);
    side.wait_for(NicEvent::LinkUp);
    drop((child, side));
    fs::remove_dir_all(&directory).unwrap();
}
