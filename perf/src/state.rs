//! What a worker tells of itself: every counter that is not zero, and TCP_INFO of every
//! connection. A snapshot, for people and for programs; it changes nothing.

use std::fmt::Write;

use roceway_runtime::OffloadsInUse;
use roceway_runtime::local::Worker;
use roceway_runtime::stack::tcp::TcpInfo;
use serde_json::{Value, json};

/// Connections that a text shows; the number of further ones is said.
const SHOWN_MAX: usize = 64;
/// A slow start threshold from here on means that there is none yet.
const NO_THRESHOLD: u32 = 1 << 30;

/// A snapshot of a worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerState {
    /// Layer, name and value of every counter that is not zero.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// Every TCP connection.
    pub connections: Vec<TcpInfo>,
    /// The offloads that are in use.
    pub offloads: OffloadsInUse,
}

impl WorkerState {
    /// The state of a worker, now.
    #[must_use]
    pub fn of(worker: &Worker) -> Self {
        let mut state = Self { offloads: worker.offloads(), ..Self::default() };
        worker.visit_counters(&mut |layer, name, value| {
            if value > 0 {
                state.counters.push((layer, name, value));
            }
        });
        worker.visit_connections(&mut |info| state.connections.push(*info));
        state
    }

    /// The state for people; `whose` is told in the first line.
    #[must_use]
    pub fn text(&self, whose: &str) -> String {
        let layers = self.counters.iter().map(|(layer, ..)| layer.len()).max().unwrap_or(0);
        let names = self.counters.iter().map(|(_, name, _)| name.len()).max().unwrap_or(0);
        let mut text = format!("\noffloads of {whose}: {}\n", self.offloads);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "counters of {whose} that are not zero");
        for (layer, name, value) in &self.counters {
            let _ = writeln!(text, "  {layer:layers$}  {name:names$}  {value:>14}");
        }
        let _ = writeln!(text, "\nTCP connections of {whose}: {}", self.connections.len());
        for info in self.connections.iter().take(SHOWN_MAX) {
            push_connection(&mut text, info);
        }
        if let Some(more) = self.connections.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            let _ = writeln!(text, "  and {more} more");
        }
        text
    }

    /// The state for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut layers = serde_json::Map::new();
        for (layer, name, value) in &self.counters {
            let place = layers.entry(*layer).or_insert_with(|| json!({}));
            if let Some(fields) = place.as_object_mut() {
                fields.insert((*name).to_owned(), json!(value));
            }
        }
        let connections: Vec<Value> = self.connections.iter().map(connection).collect();
        let offloads = json!({
            "in_use": self.offloads.names,
            "software_checksum": self.offloads.software_checksum,
            "not_offered": self.offloads.missing,
        });
        json!({ "offloads": offloads, "counters": layers, "connections": connections })
    }
}

fn microseconds(ns: u64) -> f64 {
    crate::arithmetic::real(ns) / 1000.0
}

fn push_connection(text: &mut String, info: &TcpInfo) {
    let us = |time: roceway_runtime::stack::time::Duration| microseconds(time.as_nanos());
    let threshold = match info.ssthresh {
        NO_THRESHOLD.. => "none".to_owned(),
        bytes => bytes.to_string(),
    };
    let _ = writeln!(
        text,
        "  {} -> {}  {:?}",
        info.ends.local_addr(),
        info.ends.remote_addr(),
        info.state
    );
    let _ = writeln!(
        text,
        "    rtt {:.1} us (mean deviation {:.1}, least {:.1})  rto {:.0} us  retransmits {}",
        us(info.rtt),
        us(info.rtt_var),
        us(info.min_rtt),
        us(info.rto),
        info.retransmits
    );
    let _ = writeln!(
        text,
        "    cwnd {}  ssthresh {threshold}  mss {}  peer's window {}  own window {}",
        info.cwnd, info.snd_mss, info.snd_wnd, info.rcv_wnd
    );
    let _ = writeln!(
        text,
        "    unacknowledged {}  unsent {}  unread {}  lent {}  timestamps {}  sack {}  ecn {}{}",
        info.unacked,
        info.unsent,
        info.unread,
        info.lent,
        switch(info.timestamps),
        switch(info.sack),
        switch(info.ecn),
        if info.recovering { "  in loss recovery" } else { "" }
    );
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn connection(info: &TcpInfo) -> Value {
    json!({
        "local": info.ends.local_addr().to_string(),
        "remote": info.ends.remote_addr().to_string(),
        "state": format!("{:?}", info.state),
        "rtt_ns": info.rtt.as_nanos(),
        "rtt_var_ns": info.rtt_var.as_nanos(),
        "min_rtt_ns": info.min_rtt.as_nanos(),
        "rto_ns": info.rto.as_nanos(),
        "cwnd": info.cwnd,
        "ssthresh": info.ssthresh,
        "snd_mss": info.snd_mss,
        "snd_wnd": info.snd_wnd,
        "rcv_wnd": info.rcv_wnd,
        "unacked": info.unacked,
        "unsent": info.unsent,
        "unread": info.unread,
        "lent": info.lent,
        "retransmits": info.retransmits,
        "recovering": info.recovering,
        "timestamps": info.timestamps,
        "sack": info.sack,
        "ecn": info.ecn,
        "window_scales": info.window_scales,
    })
}
