//! Progress of a long run, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::arithmetic::{nanoseconds, real, seconds};
use crate::recorder::{Recorder, Until, Window};

/// Runs of up to this length show nothing.
const QUIET: Duration = Duration::from_secs(2);
/// Distance of redraws.
const REDRAW_NS: u64 = 200_000_000;

/// A line that shows how far a run is. It is drawn on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    redraw_ns: u64,
}

impl Progress {
    /// Progress of a run with this window.
    #[must_use]
    pub fn new(window: &Window) -> Self {
        let length = match window.until {
            Until::Elapsed(duration) if duration > QUIET => Some(nanoseconds(duration)),
            Until::Elapsed(_) => None,
            Until::Count(_) | Until::PeerEnds => Some(0),
        };
        let length = length.filter(|_| std::io::stderr().is_terminal());
        let bar = length.map(|length| {
            let bar = ProgressBar::new(length);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, redraw_ns: REDRAW_NS }
    }

    /// Notes how far the run is; redraws five times a second.
    pub fn watch(&mut self, recorder: &Recorder) {
        let Some(bar) = &self.bar else { return };
        let counted = recorder.counted();
        if !recorder.is_counting() || counted.elapsed_ns < self.redraw_ns {
            return;
        }
        self.redraw_ns = counted.elapsed_ns + REDRAW_NS;
        let elapsed = seconds(counted.elapsed_ns);
        let rate = if counted.transactions > 0 {
            format!("{:.0} transactions/s", real(counted.transactions) / elapsed)
        } else {
            format!("{:.2} Gbit/s", real(counted.bytes) * 8e-9 / elapsed)
        };
        bar.set_position(counted.elapsed_ns);
        bar.set_message(format!("{elapsed:.1} s  {rate}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
