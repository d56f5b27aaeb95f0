//! Boots the guests of a topology, hands them one scenario after the other, and listens.
//!
//! A scenario ends when both sides have said so. A side that fails, a line that is none, silence
//! beyond the time-out, a guest that ends before its end line: the scenario has failed, its guests
//! are killed, and the next scenario gets fresh ones. No guest outlives its session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::Trouble;
use super::guest::{Guest, Heard, Plan};
use super::lines::{self, Line};
use super::report::Outcome;
use super::scenario::{Scenario, Topology};

/// The longest that a boot may take; seen: 6 to 10 s, and 50 s on a machine that is busy otherwise.
const BOOT: Duration = Duration::from_secs(180);
/// The longest that a guest may take to power off; seen: below a second.
const POWER_OFF: Duration = Duration::from_secs(20);
/// How often an interruption is looked for.
const TICK: Duration = Duration::from_millis(200);
/// Rows that one scenario may tell.
const ROWS_MAX: usize = 10_000;

/// What the caller is told while a session runs.
pub trait Watcher {
    /// What is being done now.
    fn doing(&mut self, what: &str);
    /// A note of a side.
    fn note(&mut self, text: &str);
}

/// Guests of one topology, started when first needed.
pub struct Session<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    guests: Vec<Guest>,
    heard: (Sender<Heard>, Receiver<Heard>),
    release: String,
}

impl<'a> Session<'a> {
    /// A session without guests yet. `stop` ends it at the next look, with an error.
    #[must_use]
    pub fn new(plan: &'a Plan, stop: &'a AtomicBool) -> Self {
        Self { plan, stop, guests: Vec::new(), heard: channel(), release: String::new() }
    }

    /// The kernel's release as a guest told it; empty before the first boot.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Runs one scenario, on guests that are booted if there are none.
    ///
    /// # Errors
    ///
    /// The guests cannot be started, or the session was stopped. What goes wrong inside a guest is
    /// part of the outcome.
    pub fn run(
        &mut self,
        scenario: &Scenario,
        watcher: &mut dyn Watcher,
    ) -> Result<Outcome, Trouble> {
        let topology = self.plan.topology;
        if self.guests.is_empty() {
            watcher.doing(&format!("booting {topology}"));
            self.boot()?;
        }
        watcher.doing(&format!("{} on {topology}", scenario.name));
        let started = Instant::now();
        let mut outcome = Outcome::new(scenario, topology);
        for guest in &mut self.guests {
            guest.send(&format!("run {}", scenario.name));
        }
        let deadline = started + Duration::from_secs(scenario.seconds);
        let result = self.follow(&mut outcome, deadline, watcher);
        outcome.elapsed = started.elapsed();
        if outcome.is_failed() || result.is_err() {
            outcome.consoles = self.guests.iter().map(Guest::console_tail).collect();
        }
        if let Err(trouble) = result {
            self.stopped()?;
            outcome.broken = Some(trouble.cause);
            // Nobody knows what these guests still do.
            self.guests.clear();
        }
        Ok(outcome)
    }

    /// Powers the guests off. One that does not say its end line has failed.
    ///
    /// # Errors
    ///
    /// A guest that ended otherwise, with its console's last lines.
    pub fn finish(mut self) -> Result<(), Trouble> {
        for guest in &mut self.guests {
            guest.send("poweroff");
        }
        let deadline = Instant::now() + POWER_OFF;
        let mut done = vec![false; self.guests.len()];
        while done.contains(&false) {
            match self.hear(deadline) {
                // The first guest to end may be gone before the other one has said its last line.
                Ok(Heard::Silent(guest)) if done[guest] => {}
                Ok(Heard::Silent(guest)) => return Err(self.with_consoles(&self.lost(guest))),
                Ok(Heard::Line(guest, text)) => done[guest] |= text.ends_with(" done"),
                Err(trouble) => return Err(self.with_consoles(&trouble.cause)),
            }
        }
        Ok(())
    }

    fn boot(&mut self) -> Result<(), Trouble> {
        self.heard = channel();
        let _ = std::fs::remove_file(self.plan.folder.join("wire"));
        let count = self.plan.topology.guests().len();
        for index in 0..count {
            if index > 0 {
                self.wait_for_wire()?;
            }
            self.guests.push(Guest::start(self.plan, index, self.heard.0.clone())?);
        }
        let deadline = Instant::now() + BOOT;
        let mut ready = 0;
        while ready < count {
            match self.line(deadline) {
                Ok((_, _, Line::Ready(release))) => {
                    self.release = release;
                    ready += 1;
                }
                Ok((_, side, Line::Broken(cause))) => {
                    return Err(self.with_consoles(&format!("guest {side}: {cause}")));
                }
                Ok((_, _, line)) => {
                    return Err(self.with_consoles(&format!("not a boot: {line:?}")));
                }
                Err(trouble) => return Err(self.with_consoles(&trouble.cause)),
            }
        }
        Ok(())
    }

    /// The second guest connects to the first one's socket, which must be there.
    fn wait_for_wire(&self) -> Result<(), Trouble> {
        let (wire, deadline) = (self.plan.folder.join("wire"), Instant::now() + POWER_OFF);
        while !wire.exists() {
            self.stopped()?;
            if Instant::now() > deadline {
                return Err(Trouble::new("QEMU did not make its socket; is it older than 7.2?"));
            }
            std::thread::sleep(TICK / 4);
        }
        Ok(())
    }

    /// Listens until both sides have ended.
    fn follow(
        &mut self,
        outcome: &mut Outcome,
        deadline: Instant,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Trouble> {
        let (mut ended, mut waiting) = (0, Vec::<(usize, String)>::new());
        while ended < 2 {
            let (guest, side, line) = self.line(deadline)?;
            match line {
                Line::Say(text) => watcher.note(&format!("{side}: {text}")),
                Line::Check(name, verdict, detail) => {
                    watcher.note(&format!("{side}: {verdict:?} {name} {detail}"));
                    outcome.check(name, verdict, detail)?;
                }
                Line::Rows(rows) => {
                    outcome.rows.extend(rows);
                    if outcome.rows.len() > ROWS_MAX {
                        return Err(Trouble::new(format!("more than {ROWS_MAX} rows")));
                    }
                }
                Line::Meet(place) => {
                    if waiting.iter().any(|(other, at)| *at == place && *other != guest) {
                        for guest in &mut self.guests {
                            guest.send(&format!("go {place}"));
                        }
                        waiting.clear();
                    } else {
                        waiting.push((guest, place));
                    }
                }
                Line::End(name, 0) if name == outcome.scenario => ended += 1,
                Line::End(name, status) => {
                    return Err(Trouble::new(format!(
                        "side {side} of {name} ended with status {status}"
                    )));
                }
                Line::Ready(_) | Line::Broken(_) | Line::Done => {
                    return Err(Trouble::new(format!("side {side} said {line:?} in between")));
                }
            }
        }
        Ok(())
    }

    /// The next line, with its guest and side. A guest that ended is an error.
    fn line(&self, deadline: Instant) -> Result<(usize, String, Line), Trouble> {
        match self.hear(deadline)? {
            Heard::Line(guest, text) => {
                let (side, line) = lines::parse(&text).map_err(Trouble::new)?;
                Ok((guest, side, line))
            }
            Heard::Silent(guest) => Err(Trouble::new(self.lost(guest))),
        }
    }

    fn hear(&self, deadline: Instant) -> Result<Heard, Trouble> {
        loop {
            self.stopped()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Trouble::new("it took too long"));
            }
            match self.heard.1.recv_timeout(left.min(TICK)) {
                Ok(heard) => return Ok(heard),
                Err(RecvTimeoutError::Timeout) => {}
                // This session holds a sender.
                Err(RecvTimeoutError::Disconnected) => unreachable!("the channel has a sender"),
            }
        }
    }

    fn lost(&self, guest: usize) -> String {
        let side = self.plan.topology.guests()[guest];
        format!("guest {side} ended without its end line (a kernel panic looks like this)")
    }

    fn stopped(&self) -> Result<(), Trouble> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Trouble::new("interrupted")),
            false => Ok(()),
        }
    }

    fn with_consoles(&self, cause: &str) -> Trouble {
        let mut text = cause.to_owned();
        for (guest, side) in self.guests.iter().zip(self.plan.topology.guests()) {
            text.push_str(&format!("\n--- console of guest {side}\n{}", guest.console_tail()));
        }
        Trouble::new(text)
    }
}

/// The topologies that a scenario runs on, of those that are wanted.
pub fn topologies<'a>(
    scenario: &'a Scenario,
    wanted: &'a [Topology],
) -> impl Iterator<Item = Topology> + 'a {
    scenario.topologies.iter().copied().filter(|topology| wanted.contains(topology))
}
