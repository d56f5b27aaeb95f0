//! The other end: does what the verifying end asks for, one client at a time.
//!
//! A client may open this host's device and have frames sent on it. Those may bear addresses of
//! [`PREFIX`] only, from and to, so that nobody is spoken for who is not part of the trial.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use roceway_runtime::rdma_virtio::verbs::trial::frames::{Frames, Manner, RECEIVES};

use super::control::{Answer, Ask, Line, VERSION, from_hex, to_hex};
use super::raw::{self, End, Rule};
use super::{Check, Log, Mode, PORT, Target, local, report, serving};

/// Hardware addresses of trials: locally administered, and these three bytes.
pub(super) const PREFIX: [u8; 3] = [0x02, 0x52, 0x57];
/// How long a receive may be asked to take.
const RECEIVE_MAX: Duration = Duration::from_secs(5);
/// How long Roceway's device may take to open.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Serves on a listener, until a client has left if `once`.
///
/// # Errors
/// If no connection can be taken any more.
pub(crate) fn serve(
    listener: &TcpListener,
    target: &Target,
    once: bool,
    tell: &mut dyn FnMut(&str),
) -> io::Result<()> {
    loop {
        let (stream, from) = listener.accept()?;
        tell(&format!("{from} verifies"));
        match client(stream, from, target, tell) {
            Ok(()) => tell(&format!("{from} has left")),
            Err(error) => tell(&format!("{from}: {error}")),
        }
        if once {
            return Ok(());
        }
    }
}

fn client(
    stream: TcpStream,
    from: SocketAddr,
    target: &Target,
    tell: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let mut line = Line::new(stream)?;
    let mut frames = None;
    while let Some(ask) = line.hear::<Ask>()? {
        let answer = match ask {
            Ask::Hello { version, .. } if version != VERSION => Err(format!(
                "the other end speaks version {VERSION} of verify, this one version {version}"
            )),
            Ask::Hello { .. } => Ok(Answer::Hello {
                version: VERSION,
                build: report::build(),
                device: target.name.clone(),
                facts: report::facts(&target.name),
            }),
            Ask::Local { mode } => {
                let mut watch = watch(mode, tell);
                let mut log = Log::new(mode, "peer", &mut watch);
                let address = local::checks(&mut log, target, mode);
                Ok(Answer::Local { checks: log.checks, address })
            }
            Ask::Wire { mode, address } => {
                let device = target.wire(mode, address, (PORT + 1, PORT + 1));
                serve_wire(&mut line, mode, &device)?;
                tell(&format!("{from}: the wire in mode {mode} is through"));
                continue;
            }
            Ask::EndWire => Err("there is no wire".to_owned()),
            asked => on_frames(&mut frames, target, asked),
        };
        line.say(&answer.unwrap_or_else(|what| Answer::Trouble { what }))?;
    }
    Ok(())
}

fn watch<'a>(
    mode: Mode,
    tell: &'a mut dyn FnMut(&str),
) -> impl FnMut(&str, Option<&Check>) + use<'a> {
    move |_, check| {
        if let Some(check) = check {
            tell(&format!("{mode} {}: {}", check.name, check.evidence));
        }
    }
}

/// Serves on Roceway's device until the client ends it or is gone.
fn serve_wire(line: &mut Line, mode: Mode, device: &str) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let stopped = &stop;
        let serve = move || serving::serve(&serving::Plan::new(device), stopped, &tell);
        let thread = scope.spawn(serve);
        let opened = told.recv_timeout(OPEN_MAX);
        let opened = opened.unwrap_or_else(|_| Err("the device did not open in time".to_owned()));
        let ended = match opened {
            Err(what) => line.say(&Answer::Trouble { what }).map(|()| false),
            Ok(settings) => line
                .say(&Answer::Ready { settings })
                .and_then(|()| line.hear::<Ask>())
                .map(|asked| asked == Some(Ask::EndWire)),
        };
        stop.store(true, Ordering::Relaxed);
        let served = thread.join().map_err(|_| io::Error::other("the served end died"))?;
        if ended? {
            let mut silent = |_: &str, _: Option<&Check>| {};
            let mut log = Log::new(mode, "peer", &mut silent);
            served.checks(&mut log);
            line.say(&Answer::Wire { checks: log.checks })?;
        }
        Ok(())
    })
}

/// What is asked of the RAW_PACKET queue pair.
fn on_frames(frames: &mut Option<Frames>, target: &Target, ask: Ask) -> Result<Answer, String> {
    if ask == Ask::Frames {
        let opened = Frames::open(&target.name).map_err(|error| error.to_string())?;
        let claims = opened.claims();
        *frames = Some(opened);
        return Ok(Answer::Claims {
            checksum: claims.checksum,
            tso: claims.tso,
            steering: claims.steering,
            inline: claims.inline,
        });
    }
    let Some(open) = frames else { return Err("there is no queue pair".to_owned()) };
    match ask {
        Ask::Rule { mac, udp_port } => {
            allowed(&mac)?;
            let wanted = udp_port.map_or(Rule::Address, Rule::UdpPort);
            End::add_rule(open, mac, wanted)?;
        }
        Ask::Forget => End::forget_rules(open)?,
        Ask::Send { frame, checksum, inline, cut } => {
            let bytes = from_hex(&frame).filter(|bytes| bytes.len() >= raw::FRAME_MIN);
            let bytes = bytes.ok_or_else(|| "this is no frame".to_owned())?;
            allowed(&bytes[..6])?;
            allowed(&bytes[6..12])?;
            End::send(open, &bytes, &Manner { checksum, inline, cut })?;
        }
        Ask::Receive { most, milliseconds } => {
            let limit = Duration::from_millis(milliseconds).min(RECEIVE_MAX);
            let found = End::receive(open, most.min(RECEIVES), limit)?;
            let frames = found.iter().map(|frame| (to_hex(&frame.bytes), frame.verified)).collect();
            return Ok(Answer::Frames { frames });
        }
        Ask::EndFrames => *frames = None,
        Ask::Hello { .. } | Ask::Local { .. } | Ask::Wire { .. } | Ask::EndWire | Ask::Frames => {
            return Err("it was not asked in its turn".to_owned());
        }
    }
    Ok(Answer::Done)
}

fn allowed(mac: &[u8]) -> Result<(), String> {
    if mac.starts_with(&PREFIX) {
        return Ok(());
    }
    Err("frames of trials bear addresses that begin with 02:52:57".to_owned())
}
