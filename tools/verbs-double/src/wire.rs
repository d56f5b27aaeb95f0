//! The soft wire between processes, and the thread that stands for the device's own engines.
//!
//! With `wire=DIR` each process takes a number from `DIR/slots`, listens on `DIR/NUMBER.sock`, and
//! connects to whom it finds. Queue pair numbers contain the number of their process, so a message
//! finds its way without a directory; frames go to all. A process that is gone is as a cable that
//! was pulled: what is sent to it is lost.
//!
//! The thread reads connections, kernel sides and the control socket, and runs the timers. It
//! holds the lock of the world while it works and not while it waits.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::events;
use crate::message::{Kind, Message};
use crate::tap::Tap;
use crate::world::{self, World};

/// Bits of a queue pair number that number the queue pairs of a process.
const SLOT_SHIFT: u32 = 12;
/// Processes on a wire since its folder was made; then numbers come again.
const SLOT_MAX: u32 = 4095;
/// Unsent bytes to one process before messages are dropped.
const UNSENT_MAX: usize = 64 << 20;
/// The same for frames, which a network may lose.
const UNSENT_FRAMES_MAX: usize = 4 << 20;
/// Longest message that is believed.
const MESSAGE_MAX: usize = 64 << 20;

/// A connection to another process.
struct Connection {
    stream: UnixStream,
    slot: Option<u32>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that are sent.
    sent: usize,
    dead: bool,
}

/// The wire of a process.
pub(crate) struct Wire {
    folder: Option<PathBuf>,
    control_path: Option<PathBuf>,
    joined: bool,
    slot: u32,
    listener: Option<UnixListener>,
    control: Option<UnixDatagram>,
    connections: Vec<Connection>,
    thread: Option<Thread>,
}

/// How the thread is reached.
struct Thread {
    stop: Arc<AtomicBool>,
    wake: RawFd,
    until: Option<Instant>,
}

impl Wire {
    /// A wire that is not joined yet.
    pub(crate) fn new(folder: Option<PathBuf>, control_path: Option<PathBuf>) -> Wire {
        Wire {
            folder,
            control_path,
            joined: false,
            slot: 0,
            listener: None,
            control: None,
            connections: Vec::new(),
            thread: None,
        }
    }

    /// Whether a queue pair is one of this process.
    pub(crate) fn is_here(&self, number: u32) -> bool {
        self.slot == 0 || number >> SLOT_SHIFT == self.slot
    }

    /// The number of the `made`th queue pair.
    pub(crate) fn number(&self, made: u32) -> u32 {
        // 0 and 1 are those of management (InfiniBand Architecture Specification §3.5.5).
        match self.slot {
            0 => 0x11 + made % 0xff_ff00,
            slot => slot << SLOT_SHIFT | (made + 0x11) & ((1 << SLOT_SHIFT) - 1),
        }
    }

    /// A number for a port, unlike those of other processes.
    pub(crate) fn port(&self, device: usize) -> u32 {
        self.slot << 8 | u32::try_from(device).unwrap_or(0xff) & 0xff
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        if let Some(thread) = &self.thread {
            thread.stop.store(true, Ordering::Relaxed);
            events::signal(thread.wake);
        }
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        std::fs::create_dir_all(&folder)?;
        self.slot = next_slot(&folder)?;
        let own = folder.join(format!("{}.sock", self.slot));
        let _ = std::fs::remove_file(&own);
        let listener = UnixListener::bind(&own)?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let slot = stem.and_then(|stem| stem.parse().ok());
            if let Some(slot) = slot.filter(|slot| *slot != self.slot) {
                self.connect(slot);
            }
        }
        Ok(())
    }

    /// Connects to a process, unless it is gone.
    fn connect(&mut self, slot: u32) -> Option<usize> {
        let path = self.folder.as_ref()?.join(format!("{slot}.sock"));
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    let _ = std::fs::remove_file(&path);
                }
                return None;
            }
        };
        stream.set_nonblocking(true).ok()?;
        let mut connection = Connection::new(stream);
        connection.slot = Some(slot);
        let hello = Message { kind: Kind::Hello, source: self.slot, ..Message::default() };
        connection.push(&hello, UNSENT_MAX);
        self.connections.push(connection);
        Some(self.connections.len() - 1)
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection::new(stream));
            }
        }
    }

    /// The connection by which a process is spoken to: always the same, so that order holds.
    fn way_to(&mut self, slot: u32) -> Option<usize> {
        let known = self
            .connections
            .iter()
            .position(|connection| connection.slot == Some(slot) && !connection.dead);
        known.or_else(|| self.connect(slot))
    }

    /// Whether bytes for the process of a queue pair are still here.
    pub(crate) fn unsent_to(&self, number: u32) -> bool {
        let slot = Some(number >> SLOT_SHIFT);
        self.connections.iter().any(|known| known.slot == slot && !known.output.is_empty())
    }

    fn unsent(&self) -> bool {
        self.connections.iter().any(|connection| !connection.output.is_empty())
    }
}

/// The next process number, from a file that only one process changes at a time.
fn next_slot(folder: &Path) -> io::Result<u32> {
    let mut options = OpenOptions::new();
    let path = folder.join("slots");
    let mut file: File = options.read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let last: u32 = text.trim().parse().unwrap_or(0);
    let slot = last % SLOT_MAX + 1;
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(slot.to_string().as_bytes())?;
    Ok(slot)
}

impl Connection {
    fn new(stream: UnixStream) -> Connection {
        let (input, output) = (Vec::new(), Vec::new());
        Connection { stream, slot: None, input, output, sent: 0, dead: false }
    }

    /// Sends or keeps a message; false if there is no room for it.
    fn push(&mut self, message: &Message, room: usize) -> bool {
        if self.output.len() - self.sent > room {
            return false;
        }
        let at = self.output.len();
        self.output.extend_from_slice(&[0; 4]);
        message.encode(&mut self.output);
        let length = u32::try_from(self.output.len() - at - 4).unwrap_or(0);
        self.output[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.flush();
        true
    }

    fn flush(&mut self) {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            // SAFETY: the bytes live through the call. Not `write`, since a peer that is gone
            // must not raise SIGPIPE in a program that did not ask for it.
            let sent = unsafe {
                libc::send(
                    self.stream.as_raw_fd(),
                    rest.as_ptr().cast(),
                    rest.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            let Ok(sent) = usize::try_from(sent) else {
                self.dead |= io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock;
                break;
            };
            self.sent += sent;
        }
        // What is sent goes in one piece, seldom: a long queue is not moved for every message.
        if self.dead || self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > UNSENT_FRAMES_MAX {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Reads what is there and takes whole messages.
    fn read(&mut self, out: &mut Vec<Message>) {
        let mut buffer = [0; 65536];
        // Bounded, so that one peer does not hold up the others.
        for _ in 0..64 {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.dead = true;
                    break;
                }
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    self.dead |= error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        let mut at = 0;
        while let Some(head) = self.input.get(at..at + 4) {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MESSAGE_MAX {
                self.dead = true;
                break;
            }
            let Some(bytes) = self.input.get(at + 4..at + 4 + length) else { break };
            match Message::decode(bytes) {
                Some(message) if message.kind == Kind::Hello => self.slot = Some(message.source),
                Some(message) => out.push(message),
                None => self.dead = true,
            }
            at += 4 + length;
        }
        self.input.drain(..at);
    }
}

impl World {
    /// Joins the wire and opens kernel sides, once a device is opened.
    ///
    /// # Errors
    /// A sentence that names what failed.
    pub(crate) fn activate(&mut self) -> Result<(), String> {
        if self.wire.joined {
            return Ok(());
        }
        self.wire.joined = true;
        self.wire.join().map_err(|error| format!("wire: {error}"))?;
        for device in &mut self.devices {
            if let Some(name) = &device.config.tap {
                let tap = Tap::open(name, device.config.mac);
                device.tap = Some(tap.map_err(|error| format!("tap={name}: {error}"))?);
            }
        }
        if let Some(path) = &self.wire.control_path {
            let _ = std::fs::remove_file(path);
            let socket = UnixDatagram::bind(path).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            let socket = socket.map_err(|error| format!("control={}: {error}", path.display()))?;
            self.wire.control = Some(socket);
        }
        let needed = self.wire.listener.is_some()
            || self.wire.control.is_some()
            || self.devices.iter().any(|device| device.tap.is_some());
        if needed {
            self.start_thread();
        }
        Ok(())
    }

    /// Sends a message to the process that has its receiver.
    pub(crate) fn send_to(&mut self, message: &Message) {
        let before = self.wire.connections.len();
        let Some(at) = self.wire.way_to(message.destination >> SLOT_SHIFT) else {
            self.counters.dropped_no_peer += 1;
            return;
        };
        // The thread does not wait for a connection that it has not seen.
        if let Some(thread) = self.wire.thread.as_ref().filter(|_| at == before) {
            events::signal(thread.wake);
        }
        if !self.wire.connections[at].push(message, UNSENT_MAX) {
            self.counters.dropped_peer_full += 1;
        }
        self.wake_if_unsent();
    }

    /// Sends a message to every other process.
    pub(crate) fn send_to_all(&mut self, message: &Message) {
        let mut told = Vec::new();
        for connection in &mut self.wire.connections {
            let Some(slot) = connection.slot.filter(|slot| !told.contains(slot)) else { continue };
            if connection.dead {
                continue;
            }
            told.push(slot);
            let taken = connection.push(message, UNSENT_FRAMES_MAX);
            self.counters.dropped_peer_full += u64::from(!taken);
        }
        self.wake_if_unsent();
    }

    fn wake_if_unsent(&self) {
        if let Some(thread) = self.wire.thread.as_ref().filter(|_| self.wire.unsent()) {
            events::signal(thread.wake);
        }
    }

    /// Starts the thread, or wakes it if a timer ends before it would look.
    pub(crate) fn start_thread(&mut self) {
        let deadline = self.next_deadline();
        if let Some(thread) = &mut self.wire.thread {
            let later = deadline.is_some_and(|at| thread.until.is_none_or(|until| at < until));
            if later {
                thread.until = deadline;
                events::signal(thread.wake);
            }
            return;
        }
        let (stop, wake) = (Arc::new(AtomicBool::new(false)), events::counting_descriptor());
        let flag = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("verbs-double".to_string());
        let started = builder.spawn(move || run_thread(&flag, wake));
        if started.is_ok() {
            self.wire.thread = Some(Thread { stop, wake, until: deadline });
        }
    }

    /// What the thread waits for, and how long at most.
    fn waits(&mut self, wake: RawFd) -> (Vec<libc::pollfd>, Option<Instant>) {
        let wait = |fd: RawFd, out: bool| libc::pollfd {
            fd,
            events: libc::POLLIN | if out { libc::POLLOUT } else { 0 },
            revents: 0,
        };
        let mut list = vec![wait(wake, false)];
        list.extend(self.wire.listener.iter().map(|one| wait(one.as_raw_fd(), false)));
        list.extend(self.wire.control.iter().map(|one| wait(one.as_raw_fd(), false)));
        list.extend(
            self.devices.iter().filter_map(|device| Some(wait(device.tap.as_ref()?.fd(), false))),
        );
        for connection in &self.wire.connections {
            list.push(wait(connection.stream.as_raw_fd(), !connection.output.is_empty()));
        }
        let deadline = self.next_deadline();
        if let Some(thread) = self.wire.thread.as_mut().filter(|thread| thread.wake == wake) {
            thread.until = deadline;
        }
        (list, deadline)
    }

    /// One round of the thread; nothing for the thread of a world that was replaced.
    fn turn(&mut self, wake: RawFd) {
        if self.wire.thread.as_ref().is_none_or(|thread| thread.wake != wake) {
            return;
        }
        self.wire.accept();
        let mut messages = Vec::new();
        for connection in &mut self.wire.connections {
            connection.flush();
            connection.read(&mut messages);
        }
        self.wire.connections.retain(|connection| !connection.dead);
        self.inbox.extend(messages);
        self.read_taps();
        let mut line = [0; 1024];
        while let Some(Ok((length, from))) =
            self.wire.control.as_ref().map(|control| control.recv_from(&mut line))
        {
            let text = String::from_utf8_lossy(&line[..length]).into_owned();
            let reply = match text.trim() {
                "counters" => self.counters.lines(),
                line => self.control(line).err().unwrap_or_else(|| "ok".to_string()),
            };
            if let (Some(control), Some(path)) = (&self.wire.control, from.as_pathname()) {
                let _ = control.send_to(reply.as_bytes(), path);
            }
        }
        self.expire(Instant::now());
    }

    fn read_taps(&mut self) {
        let mut buffer = vec![0; 65536];
        for number in 0..self.devices.len() {
            for _ in 0..64 {
                let Some(tap) = &self.devices[number].tap else { break };
                let Some(length) = tap.read(&mut buffer) else { break };
                self.send_frame(number, buffer[..length].to_vec());
            }
        }
    }
}

fn run_thread(stop: &AtomicBool, wake: RawFd) {
    while !stop.load(Ordering::Relaxed) {
        let (mut list, deadline) = world::with(|world| world.waits(wake));
        let wait = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        wait_for(&mut list, wait);
        while events::is_signalled(wake) {
            events::take(wake);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        world::with(|world| world.turn(wake));
    }
    // SAFETY: the descriptor was made for this thread and nobody signals it once it is stopped.
    unsafe { libc::close(wake) };
}

/// ppoll(2), since the timers are finer than a millisecond.
fn wait_for(list: &mut [libc::pollfd], wait: Option<Duration>) {
    let time = wait.map(|wait| libc::timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(list.len()).unwrap_or(0);
    // SAFETY: the list and the time live through the call.
    unsafe { libc::ppoll(list.as_mut_ptr(), count, time, std::ptr::null()) };
}
