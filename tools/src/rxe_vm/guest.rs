//! One QEMU process: how it is started, heard and ended.
//!
//! The first serial port is the console and goes to a file; the second is the process's standard
//! input and output, and carries the lines of [`super::lines`]. The process is killed when the
//! [`Guest`] is dropped, and by the kernel when this process dies without dropping it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use super::scenario::Topology;
use super::{Trouble, io};

/// How much of the console a failure shows.
const TAIL_BYTES: u64 = 8192;
const TAIL_LINES: usize = 50;
/// A line longer than this ends the guest: nothing of ours is.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub image: PathBuf,
    /// How the sides are joined.
    pub topology: Topology,
    /// Memory of each guest in MiB.
    pub memory_mib: u32,
    /// Whether the scenarios are told to take short counts.
    pub brief: bool,
    /// Whether the guest's time is the number of its instructions.
    pub instructions: bool,
    /// The clock is the processor's counter, and not the HPET.
    pub tsc: bool,
    /// A folder for the wire and the console's files, this run's own.
    pub folder: PathBuf,
}

/// Something that a guest's result line brought.
#[derive(Debug)]
pub enum Heard {
    /// A line of guest number `.0`.
    Line(usize, String),
    /// Guest number `.0` says nothing any more: its process ended.
    Silent(usize),
}

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    process: Child,
    input: ChildStdin,
    reader: Option<JoinHandle<()>>,
    console: PathBuf,
}

impl Guest {
    /// Starts guest number `index` of the plan's topology; what it says goes to `heard`.
    ///
    /// # Errors
    ///
    /// QEMU is not there or cannot be started.
    pub fn start(plan: &Plan, index: usize, heard: Sender<Heard>) -> Result<Self, Trouble> {
        let console = plan.folder.join(format!("console-{index}"));
        // setpriv: the kernel kills the guest when this thread's process dies, however it dies.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(arguments(plan, index, &console))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| io("setpriv qemu-system-x86_64", &error))?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Trouble::new("the guest has no serial port"));
        };
        let reader = std::thread::spawn(move || listen(index, BufReader::new(output), &heard));
        Ok(Self { process, input, reader: Some(reader), console })
    }

    /// Sends a line to the guest. One that is gone is noticed where it is listened to.
    pub fn send(&mut self, line: &str) {
        let line = format!("{line}\n");
        let _ = self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush());
    }

    /// The last lines of the console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        tail(&self.console).unwrap_or_else(|error| format!("(no console: {error})"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn arguments(plan: &Plan, index: usize, console: &Path) -> Vec<String> {
    let side = plan.topology.guests()[index];
    let processors = plan.topology.guests().len();
    let wire = plan.folder.join("wire");
    let append = format!(
        "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check random.trust_cpu=on \
         TOPOLOGY={} SIDE={side}{}{}{}",
        plan.topology,
        if plan.brief { " BRIEF=1" } else { "" },
        if plan.instructions { " INSTRUCTIONS=1" } else { "" },
        if plan.tsc { " tsc=reliable clocksource=tsc" } else { "" }
    );
    let mut all: Vec<String> = [
        "-accel",
        if plan.instructions { "tcg,thread=single" } else { "tcg,thread=multi" },
        "-cpu",
        if plan.tsc { "max,+invtsc" } else { "max" },
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
    ]
    .map(str::to_owned)
    .into();
    all.push(format!("file:{}", console.display()));
    let mut pair = |name: &str, value: String| all.extend([name.to_owned(), value]);
    pair("-serial", "stdio".into());
    // Two cores in all: TCG has one thread a processor. Instructions are counted of one.
    pair("-smp", if plan.instructions { "1".into() } else { (2 / processors).to_string() });
    if plan.instructions {
        // A nanosecond each, and none while there is nothing to do.
        pair("-icount", "shift=0,sleep=off".into());
    }
    pair("-m", plan.memory_mib.to_string());
    pair("-kernel", plan.kernel.display().to_string());
    pair("-initrd", plan.image.display().to_string());
    pair("-append", append);
    if plan.topology == Topology::Hosts {
        // A Unix socket: over TCP, QEMU's lack of TCP_NODELAY would hold back every second frame.
        let server = if index == 0 { "on" } else { "off" };
        pair(
            "-netdev",
            format!("stream,id=n,server={server},addr.type=unix,addr.path={}", wire.display()),
        );
        let mac = format!("52:54:00:00:09:{:02x}", index + 1);
        pair("-device", format!("virtio-net-pci,netdev=n,romfile=,mac={mac}"));
    }
    all
}

/// Passes lines on until the guest ends.
fn listen(index: usize, mut output: impl BufRead, heard: &Sender<Heard>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            break;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if heard.send(Heard::Line(index, text)).is_err() {
            return;
        }
    }
    // The listener may have gone already, which is no trouble.
    let _ = heard.send(Heard::Silent(index));
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn plan(topology: Topology) -> Plan {
        Plan {
            kernel: "/k".into(),
            image: "/i".into(),
            topology,
            memory_mib: 512,
            brief: topology == Topology::Hosts,
            instructions: false,
            tsc: false,
            folder: "/f".into(),
        }
    }

    #[test]
    fn a_pair_has_no_network_and_hosts_share_a_wire() {
        let text = |topology, index| arguments(&plan(topology), index, Path::new("/c")).join(" ");
        let pair = text(Topology::Pair, 0);
        assert!(!pair.contains("netdev") && pair.contains("-smp 2") && pair.contains("SIDE=ab"));
        let (one, other) = (text(Topology::Hosts, 0), text(Topology::Hosts, 1));
        assert!(one.contains("server=on") && one.contains(":01") && one.contains("SIDE=a"));
        assert!(one.contains("BRIEF=1") && !pair.contains("BRIEF"));
        assert!(other.contains("server=off") && other.contains(":02") && other.contains("SIDE=b"));
        for guest in [pair, one, other] {
            assert!(guest.contains("-nodefaults") && guest.contains("accel tcg"), "{guest}");
        }
    }

    #[test]
    fn where_instructions_are_counted_there_is_one_processor_and_no_other_clock() {
        let plan = Plan { instructions: true, ..plan(Topology::Pair) };
        let text = arguments(&plan, 0, Path::new("/c")).join(" ");
        assert!(text.contains("-icount shift=0,sleep=off") && text.contains("-smp 1"), "{text}");
        assert!(text.contains("thread=single") && text.contains("INSTRUCTIONS=1"), "{text}");
    }

    #[test]
    fn the_clock_is_the_counter_only_where_it_is_asked_for() {
        let text = |tsc| {
            let plan = Plan { tsc, ..plan(Topology::Pair) };
            arguments(&plan, 0, Path::new("/c")).join(" ")
        };
        assert!(text(true).contains("clocksource=tsc") && text(true).contains("+invtsc"));
        assert!(!text(false).contains("tsc"));
    }

    #[test]
    fn lines_are_passed_on_and_then_the_silence() {
        let (sender, receiver) = channel();
        listen(1, BufReader::new(&b"@b one\r\n@b tw"[..]), &sender);
        let heard: Vec<String> = receiver.try_iter().map(|heard| format!("{heard:?}")).collect();
        assert_eq!(heard, ["Line(1, \"@b one\")", "Line(1, \"@b tw\")", "Silent(1)"]);
    }

    #[test]
    fn the_tail_of_a_console_is_its_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (0..1000).map(|n| format!("line {n}\r\n\r\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        let tail = tail(file.path()).unwrap();
        assert!(tail.ends_with("line 999") && tail.lines().count() == TAIL_LINES, "{tail}");
    }
}
