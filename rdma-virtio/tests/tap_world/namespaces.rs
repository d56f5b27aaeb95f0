//! Network namespaces that vanish with their thread. Nothing here touches the namespace of whoever
//! runs the tests.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Runs `body` on a thread in a network namespace of its own, or says loudly why it does not.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if let Some(reason) = missing() {
        return skipped(test, &reason);
    }
    let thread = std::thread::spawn(|| {
        enter_new_namespace();
        ip("link set lo up");
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says that a test, or a part of it, is skipped; past the harness, which would keep it to itself.
pub(crate) fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {reason}");
}

/// What the machine lacks for these tests.
fn missing() -> Option<String> {
    // SAFETY: no argument, no failure.
    if unsafe { libc::geteuid() } != 0 {
        return Some("it needs root, for network namespaces".to_owned());
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".to_owned());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("there is no ip; install iproute2".to_owned());
    }
    let can = std::thread::spawn(|| {
        // SAFETY: it changes this thread alone, which ends at once.
        unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
    });
    if !can.join().unwrap_or(false) {
        return Some("network namespaces are not allowed here".to_owned());
    }
    None
}

fn enter_new_namespace() {
    // SAFETY: it changes this thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    // A kernel that greets its neighbours at times of its own would disturb what is counted.
    allow_ipv6(false);
}

/// Switches IPv6 in the namespace of the calling thread.
pub(crate) fn allow_ipv6(on: bool) {
    for place in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{place}/disable_ipv6");
        // A kernel without IPv6 has no such file, and is quiet.
        let _ = std::fs::write(path, if on { "0" } else { "1" });
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {text}");
}

type Job = Box<dyn FnOnce() + Send>;

/// A second namespace, held by a thread that runs what it is given.
pub(crate) struct Peer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Peer {
    /// Makes the namespace.
    pub(crate) fn new() -> Self {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            enter_new_namespace();
            ip("link set lo up");
            // SAFETY: no argument, no failure.
            tell.send(unsafe { libc::gettid() }).unwrap();
            for job in queue {
                job();
            }
        });
        let tid = told.recv().unwrap();
        Self { jobs: Some(jobs), thread: Some(thread), tid }
    }

    /// A thread in the namespace, by which `ip link set ... netns` names it.
    pub(crate) fn thread_id(&self) -> i32 {
        self.tid
    }

    /// Runs `job` there and waits for its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job = Box::new(move || {
            let _ = tell.send(job());
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the peer's thread panicked")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A veth pair `va` here and `vb`, with 10.8.0.1/24 and address 02:00:00:00:00:01, at a peer.
pub(crate) fn veth() -> Peer {
    let peer = Peer::new();
    ip("link add va type veth peer name vb");
    ip(&format!("link set vb netns {}", peer.tid));
    ip("link set va up");
    peer.run(|| {
        ip("link set vb address 02:00:00:00:00:01");
        ip("addr add 10.8.0.1/24 dev vb");
        ip("link set vb up");
    });
    peer
}

/// Takes this thread's capabilities to configure networks and to open raw sockets, for good.
pub(crate) fn drop_network_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    const NET_ADMIN_AND_RAW: u32 = 1 << 12 | 1 << 13;
    let mut header = [VERSION_3, 0];
    let mut data = [0_u32; 6];
    // SAFETY: header and data have the sizes of version 3.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    assert_eq!(got, 0);
    for word in &mut data[..3] {
        *word &= !NET_ADMIN_AND_RAW;
    }
    // SAFETY: header and data have the sizes of version 3.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    assert_eq!(set, 0);
}
