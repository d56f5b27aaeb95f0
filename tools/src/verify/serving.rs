//! The served end of Roceway's own device: it answers datagrams and one TCP connection, and says
//! what it saw; then it serves `perf`.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use roceway_perf::roceway::Roceway;
use roceway_perf::server::Server;
use roceway_perf::state::WorkerState;
use roceway_perf::transport::{Pass, Role, Transport, ready};

use super::wire::{
    self, ADDRESSES, BACK, BUFFER, BYTES, Manner, PERF_PORT, TCP_PORT, THERE, UDP_PORT, Version,
    compare, write_pattern,
};
use super::{Log, Missed, Seen, pattern};

/// What the served end is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// Its device.
    pub(super) device: &'a str,
    pub(super) manner: Manner,
    /// Whether it is asked by IPv4 or by IPv6.
    pub(super) version: Version,
    /// Bytes that the connection brings.
    pub(super) bytes: u64,
}

impl<'a> Plan<'a> {
    /// With all offloads, as the checks of the wire have it.
    pub(super) fn new(device: &'a str) -> Plan<'a> {
        Plan { device, manner: Manner::all(ADDRESSES[1]), version: Version::V4, bytes: BYTES }
    }
}

/// What the served end saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    wanted: u64,
    bytes: u64,
    datagrams: u64,
    wrong: Option<String>,
    pub(super) state: WorkerState,
}

impl Served {
    /// Its checks.
    pub(super) fn checks(&self, log: &mut Log<'_>) {
        log.check("bytes_seen", || self.as_sent());
        log.check("counters", || wire::counters(&self.state));
    }

    /// Whether all came, and as it was sent.
    pub(super) fn as_sent(&self) -> Seen {
        match &self.wrong {
            Some(wrong) => Err(Missed::Failed(wrong.clone())),
            None if self.bytes != self.wanted => {
                let what = format!("{} of {} bytes came", self.bytes, self.wanted);
                Err(Missed::Failed(what))
            }
            None => {
                Ok(format!("{} bytes and {} datagrams, all as sent", self.bytes, self.datagrams))
            }
        }
    }
}

/// Opens a device and serves on it until `stop`; `told` hears the settings, or what went wrong.
pub(super) fn serve(
    plan: &Plan<'_>,
    stop: &AtomicBool,
    told: &Sender<Result<String, String>>,
) -> Served {
    let mut served = Served { wanted: plan.bytes, ..Served::default() };
    let result = wire::open(plan.device, &plan.manner).and_then(|mut opened| {
        let to = |port| plan.manner.own.at(plan.version, port);
        let transport = &mut opened.transport;
        let listening = Answering::new(transport, to)
            .and_then(|answering| Ok((answering, Server::listen(transport, to(PERF_PORT))?)));
        let (mut answering, mut server) = listening.map_err(|error| error.to_string())?;
        // Whoever waits for it may have gone.
        let _heard = told.send(Ok(opened.settings.clone()));
        let ended = answering
            .run(transport, stop, &mut served)
            .and_then(|()| server.serve(transport, stop));
        served.state = transport.state();
        ended.map_err(|error| error.to_string())
    });
    if let Err(what) = result {
        let _heard = told.send(Err(what.clone()));
        served.wrong.get_or_insert(what);
    }
    served
}

/// The served end of datagrams and connection.
struct Answering {
    listener: <Roceway as Transport>::Listener,
    stream: Option<<Roceway as Transport>::Stream>,
    datagrams: <Roceway as Transport>::Datagram,
    has_peer: bool,
    buffer: Vec<u8>,
    sent: u64,
}

impl Answering {
    fn new(transport: &mut Roceway, to: impl Fn(u16) -> SocketAddr) -> io::Result<Answering> {
        Ok(Answering {
            listener: transport.listen(to(TCP_PORT), Role::Data, 1)?,
            stream: None,
            datagrams: transport.bind(to(UDP_PORT), Role::Data, 2)?,
            has_peer: false,
            buffer: vec![0; BUFFER],
            sent: 0,
        })
    }

    /// Answers until the connection has ended, or `stop`.
    fn run(
        &mut self,
        transport: &mut Roceway,
        stop: &AtomicBool,
        served: &mut Served,
    ) -> io::Result<()> {
        let mut tokens = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let mut moved = self.datagram(transport, served)?;
            match self.connection(transport, served)? {
                Moved::Ended => return Ok(()),
                Moved::Something => moved = true,
                Moved::Nothing => {}
            }
            let pass = if moved { Pass::Busy } else { Pass::Idle };
            let _everything_is_asked = transport.turn(pass, &mut tokens)?;
            tokens.clear();
        }
        Ok(())
    }

    fn datagram(&mut self, transport: &mut Roceway, served: &mut Served) -> io::Result<bool> {
        let came = ready(transport.try_recv_datagram(&mut self.datagrams, &mut self.buffer))?;
        let Some((length, from)) = came else { return Ok(false) };
        let Some((number, body)) = self.buffer[..length].split_first_chunk_mut::<8>() else {
            served.wrong.get_or_insert(format!("a datagram of {length} bytes came"));
            return Ok(true);
        };
        let number = u64::from_be_bytes(*number);
        served.datagrams += 1;
        for (place, byte) in (0_u64..).zip(body.iter_mut()) {
            if *byte != pattern(number, place) {
                served.wrong.get_or_insert(format!("datagram {number}: byte {place} is wrong"));
            }
            *byte = !pattern(number, place);
        }
        if !self.has_peer {
            self.has_peer = true;
            transport.set_peer(&mut self.datagrams, from)?;
        }
        // One that does not fit is lost, as datagrams are.
        ready(transport.try_send_datagram(&mut self.datagrams, &self.buffer[..length]))?;
        Ok(true)
    }

    fn connection(&mut self, transport: &mut Roceway, served: &mut Served) -> io::Result<Moved> {
        let Some(stream) = &mut self.stream else {
            self.stream = ready(transport.accept(&mut self.listener, 3))?;
            return Ok(Moved::Nothing);
        };
        let mut moved = Moved::Nothing;
        match ready(transport.try_recv(stream, &mut self.buffer))? {
            Some(0) => {
                // Dropped, it closes its own direction.
                self.stream = None;
                return Ok(Moved::Ended);
            }
            Some(length) => {
                moved = Moved::Something;
                if let Some(wrong) = compare(THERE, served.bytes, &self.buffer[..length]) {
                    served.wrong.get_or_insert(wrong);
                }
                served.bytes += u64::try_from(length).unwrap_or(0);
            }
            None => {}
        }
        if self.sent < served.bytes {
            let most = usize::try_from(served.bytes - self.sent).unwrap_or(BUFFER).min(BUFFER);
            write_pattern(BACK, self.sent, &mut self.buffer[..most]);
            if let Some(sent) = ready(transport.try_send(stream, &self.buffer[..most]))? {
                self.sent += u64::try_from(sent).unwrap_or(0);
                moved = Moved::Something;
            }
        }
        Ok(moved)
    }
}

enum Moved {
    Nothing,
    Something,
    Ended,
}
