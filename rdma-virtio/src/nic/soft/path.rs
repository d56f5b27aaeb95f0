//! Where two sides meet: a path in the file system, or a pair of sockets made together.
//!
//! At a path, whoever comes first listens and the other one connects. A lock file beside the socket
//! says who may listen, so that a stale socket is removed only by who will replace it. The socket
//! has mode 0600, and both sides check the other one's user. Never blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::channel::Channel;
use super::device_error;
use super::events::Events;
use super::greeting::Word;
use super::session::say;
use crate::nic::DeviceError;

/// Time between two tries to connect: 2 ms.
const RETRY_NS: u64 = 2_000_000;
/// How long "busy" is taken for the remains of a peer that has just died: 1 s.
const BUSY_NS_MAX: u64 = 1_000_000_000;
/// Connections turned away at one time at most.
const OTHERS_MAX: u64 = 8;

/// Where a NIC finds its peer.
#[derive(Debug)]
pub(super) enum Meeting {
    /// A socket that was made together with the peer's; taken by the first look.
    Pair(Option<Channel>),
    /// A path.
    Path(PathMeeting),
}

/// Meeting at a path.
#[derive(Debug)]
pub(super) struct PathMeeting {
    name: String,
    path: PathBuf,
    listening: Option<Listening>,
    next_try_ns: u64,
    told_busy: bool,
    busy_since_ns: Option<u64>,
    refused: u64,
}

/// The listening socket and the right to it.
#[derive(Debug)]
struct Listening {
    socket: OwnedFd,
    path: PathBuf,
    lock_path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Meeting {
    /// At a path; nothing happens yet.
    pub(super) fn at_path(name: &str, path: &Path) -> Result<Meeting, DeviceError> {
        let longest = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;
        let length = path.as_os_str().len();
        if length == 0 || length > longest || path.as_os_str().as_bytes().contains(&0) {
            let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
            let remedy = format!("a socket's path has 1 to {longest} bytes, this one {length}");
            return Err(device_error(name, "bind", source, &remedy));
        }
        Ok(Meeting::Path(PathMeeting {
            name: name.to_owned(),
            path: path.to_owned(),
            listening: None,
            next_try_ns: 0,
            told_busy: false,
            busy_since_ns: None,
            refused: 0,
        }))
    }

    /// With the other end of a socket.
    pub(super) fn with(channel: Channel) -> Meeting {
        Meeting::Pair(Some(channel))
    }

    /// Looks for a peer.
    ///
    /// # Errors
    /// If the path cannot be used, or is taken.
    pub(super) fn poll(
        &mut self,
        now_ns: u64,
        events: &Events,
    ) -> Result<Option<Channel>, DeviceError> {
        match self {
            Meeting::Pair(channel) => Ok(channel.take()),
            Meeting::Path(path) => path.poll(now_ns, events),
        }
    }

    /// The peer says that two others are linked.
    pub(super) fn on_busy(&mut self) {
        if let Meeting::Path(path) = self {
            path.told_busy = true;
        }
    }

    /// The link is up.
    pub(super) fn on_linked(&mut self) {
        if let Meeting::Path(path) = self {
            path.busy_since_ns = None;
        }
    }

    /// Whether others connect to this side.
    pub(super) fn is_listener(&self) -> bool {
        matches!(self, Meeting::Path(PathMeeting { listening: Some(_), .. }))
    }

    /// Tells whoever else connects that the link is taken; how many.
    pub(super) fn turn_others_away(&mut self) -> u64 {
        let Meeting::Path(PathMeeting { listening: Some(listening), .. }) = self else { return 0 };
        let mut told = 0;
        while told < OTHERS_MAX
            && let Ok(Some(channel)) = accept(listening.socket.as_raw_fd())
        {
            let _ = say(&channel, Word::Busy, "");
            told += 1;
        }
        told
    }

    /// How many were refused for their user since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        match self {
            Meeting::Pair(_) => 0,
            Meeting::Path(path) => std::mem::take(&mut path.refused),
        }
    }
}

impl PathMeeting {
    fn poll(&mut self, now_ns: u64, events: &Events) -> Result<Option<Channel>, DeviceError> {
        if let Some(listening) = &self.listening {
            let accepted = accept(listening.socket.as_raw_fd())
                .map_err(|error| self.error("accept4", error, ""))?;
            return Ok(accepted.filter(|channel| {
                let right = is_trusted(channel);
                if !right {
                    self.refused += 1;
                    let _ = say(channel, Word::Refused, "it belongs to another user");
                }
                right
            }));
        }
        self.check_busy(now_ns)?;
        if now_ns < self.next_try_ns {
            return Ok(None);
        }
        self.next_try_ns = now_ns.saturating_add(RETRY_NS);
        match connect(&self.path) {
            Ok(channel) if is_trusted(&channel) => Ok(Some(channel)),
            Ok(_) => {
                let source = io::Error::from_raw_os_error(libc::EPERM);
                Err(self.error("connect", source, "another user listens there; use another path"))
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED | libc::ENOENT) => self.listen(events).map(|()| None),
                Some(libc::EAGAIN) => Ok(None),
                Some(libc::EPROTOTYPE | libc::ENOTSOCK) => {
                    Err(self.error("connect", error, "the path is not a soft NIC's; use another"))
                }
                _ => Err(self.error("connect", error, "use a path in a directory of your own")),
            },
        }
    }

    /// A peer that has just died may still look alive; after a second it is someone else.
    fn check_busy(&mut self, now_ns: u64) -> Result<(), DeviceError> {
        if !std::mem::take(&mut self.told_busy) {
            return Ok(());
        }
        let since = *self.busy_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) < BUSY_NS_MAX {
            return Ok(());
        }
        self.busy_since_ns = None;
        let source = io::Error::from_raw_os_error(libc::EBUSY);
        Err(self.error("connect", source, "two others are linked there; use another path"))
    }

    /// Takes the lock and listens; does nothing if someone else has the lock.
    fn listen(&mut self, events: &Events) -> Result<(), DeviceError> {
        let mut lock_path = self.path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let remedy = "use a path in a directory that you may write";
        let lock =
            take_lock(&lock_path).map_err(|(call, error)| self.error(call, error, remedy))?;
        let Some(lock) = lock else { return Ok(()) };
        match fs::symlink_metadata(&self.path) {
            Ok(found) if !found.file_type().is_socket() => {
                let source = io::Error::from_raw_os_error(libc::EEXIST);
                return Err(self.error("bind", source, "the path is no socket; use another"));
            }
            Ok(_) => fs::remove_file(&self.path)
                .map_err(|error| self.error("unlink", error, "remove the stale socket"))?,
            Err(_) => {}
        }
        let socket = bind(&self.path).map_err(|error| self.error("bind", error, remedy))?;
        events.add(socket.as_raw_fd()).map_err(|error| self.error("epoll_ctl", error, ""))?;
        let path = self.path.clone();
        self.listening = Some(Listening { socket, path, lock_path, _lock: lock });
        Ok(())
    }

    fn error(&self, call: &'static str, source: io::Error, remedy: &str) -> DeviceError {
        device_error(&self.name, call, source, remedy)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // In this order: who finds no socket must not find the lock free of us yet.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Whether the process at the other end is ours or root's.
fn is_trusted(channel: &Channel) -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    let own = unsafe { libc::geteuid() };
    channel.peer_uid().is_ok_and(|uid| uid == own || uid == 0)
}

/// The lock file, locked; `None` if someone else has it.
fn take_lock(path: &Path) -> Result<Option<File>, (&'static str, io::Error)> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| ("open of its lock file", error))?;
    // SAFETY: plain system call on a descriptor that we own.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(("flock", error))
        };
    }
    // Its last owner may have removed it between our open and our lock.
    let same = fs::symlink_metadata(path)
        .is_ok_and(|named| lock.metadata().is_ok_and(|ours| ours.ino() == named.ino()));
    Ok(same.then_some(lock))
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call.
    own(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })
}

fn own(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call just returned this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The address of a path, whose length was checked.
fn address(path: &Path) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid `sockaddr_un`, which is plain integers.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    (address, libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap_or(0))
}

fn connect(path: &Path) -> io::Result<Channel> {
    let socket = socket()?;
    let (address, length) = address(path);
    // SAFETY: `address` is valid for `length` bytes and outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(Channel::new(socket))
}

fn bind(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let (address, length) = address(path);
    // The mode of a socket before it is bound is that of its path: no moment with another mode.
    // SAFETY: plain system call on a descriptor that we own.
    check(unsafe { libc::fchmod(socket.as_raw_fd(), 0o600) })?;
    // SAFETY: `address` is valid for `length` bytes and outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: plain system call on a descriptor that we own.
    check(unsafe { libc::listen(socket.as_raw_fd(), 16) })?;
    Ok(socket)
}

fn accept(fd: RawFd) -> io::Result<Option<Channel>> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers ask for no address.
    let accepted = unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    match own(accepted) {
        Ok(socket) => Ok(Some(Channel::new(socket))),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted => Ok(None),
            _ => Err(error),
        },
    }
}
