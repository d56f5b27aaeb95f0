//! What a user says of a test, with netperf's own letters, and its check: the limits are here and
//! every refusal names the limit.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::catalogue::{Kind, Protocol, Test};
use crate::control::RECEIVE_DEFAULT;
use crate::flow::{CONNECTIONS_MAX, DATAGRAM_MAX, DEPTH_MAX, MESSAGE_MAX};
use crate::kernel::SocketOptions;
use crate::local::Cores;
use crate::pacing::{RATE_MAX, Rate};
use crate::recorder::{Until, Window};
use crate::workload::Workload;

/// Warm-up of a timed test unless the user says otherwise.
const WARMUP_DEFAULT: Duration = Duration::from_millis(100);
/// Length of a test unless the user says otherwise.
const LENGTH_DEFAULT: f64 = 10.0;
/// The longest warm-up, test or interval.
const SECONDS_MAX: f64 = 86_000.0;
/// The largest socket buffer that may be asked for.
const BUFFER_MAX: usize = 1 << 30;

/// Options of a test; netperf's letters where it has them.
#[derive(clap::Args, Clone, Debug, Default, Serialize)]
pub struct TestOptions {
    /// Seconds to run, fractions allowed; negative: so many transactions, or bytes of a stream
    #[arg(short = 'l', long, value_name = "SECONDS|-COUNT", allow_negative_numbers = true)]
    pub length: Option<f64>,
    /// Seconds at the start that are not counted [default: 0.1, or 0 for a count]
    #[arg(long, value_name = "SECONDS")]
    pub warmup: Option<f64>,
    /// Bytes of request and response
    #[arg(short = 'r', long, value_name = "BYTES[,BYTES]", value_delimiter = ',', num_args = 1..=2)]
    pub sizes: Vec<usize>,
    /// Bytes of a message of a stream, one send call [default: 16384 for TCP, as netperf's on
    /// Linux; 1452 for UDP]
    #[arg(short = 'm', long, value_name = "BYTES")]
    pub message: Option<usize>,
    /// Bytes that each receive call of a stream asks for [default: 131072, as netperf's on Linux]
    #[arg(short = 'M', long, value_name = "BYTES")]
    pub receive: Option<usize>,
    /// Connections at once
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1)]
    pub connections: usize,
    /// Further requests under way on each connection, beyond the first
    #[arg(short = 'b', long, value_name = "NUMBER", default_value_t = 0)]
    pub burst: usize,
    /// Open loop: requests or messages a second over all connections; latency then counts from
    /// the time at which a request was meant to leave
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Seconds between samples of the report
    #[arg(long, value_name = "SECONDS")]
    pub interval: Option<f64>,
    /// Cpus of this end and of the other one
    #[arg(short = 'T', long, value_name = "THIS[,OTHER]", value_delimiter = ',', num_args = 1..=2)]
    pub cpus: Vec<usize>,
    /// `SO_SNDBUF` of both ends
    #[arg(long, value_name = "BYTES")]
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` of both ends
    #[arg(long, value_name = "BYTES")]
    pub receive_buffer: Option<usize>,
    /// Writes the latency distribution as an SVG picture
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// An option that cannot be, with the limit.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum OptionError {
    /// A number outside its limits.
    #[error("--{option} {value}: must be {limit}")]
    Limit {
        /// The option's long name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        limit: String,
    },
    /// An option that means nothing for the test.
    #[error("--{option} does not apply to {test}: {reason}")]
    NotFor {
        /// The option's long name.
        option: &'static str,
        /// The test.
        test: &'static str,
        /// Why not.
        reason: &'static str,
    },
}

fn limit<V: ToString + Copy>(
    option: &'static str,
    value: V,
    limit: impl Into<String>,
) -> OptionError {
    OptionError::Limit { option, value: value.to_string(), limit: limit.into() }
}

fn seconds(option: &'static str, value: f64) -> Result<Duration, OptionError> {
    let duration = Duration::try_from_secs_f64(value).ok();
    duration
        .filter(|_| value <= SECONDS_MAX)
        .ok_or_else(|| limit(option, value, format!("between 0 and {SECONDS_MAX} seconds")))
}

fn within(option: &'static str, value: usize, max: usize) -> Result<usize, OptionError> {
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    Err(limit(option, value, format!("between 1 and {max}")))
}

impl TestOptions {
    /// Checks the options for a test and makes them its workload.
    ///
    /// # Errors
    /// The first option that cannot be.
    pub fn workload(&self, test: &'static Test) -> Result<Workload, OptionError> {
        let largest = match test.protocol {
            Protocol::Tcp => MESSAGE_MAX,
            Protocol::Udp => DATAGRAM_MAX,
        };
        self.check_applicable(test)?;
        let request = within("sizes", self.sizes.first().copied().unwrap_or(1), largest)?;
        let response = within("sizes", self.sizes.get(1).copied().unwrap_or(request), largest)?;
        let message = self.message.unwrap_or(test.default_message());
        let rate = match self.rate {
            Some(rate) => Some(Rate::new(rate).ok_or_else(|| {
                limit("rate", rate, format!("between 0.001 and {RATE_MAX} a second"))
            })?),
            None => None,
        };
        let buffer = |option, size: Option<usize>| {
            size.map(|size| within(option, size, BUFFER_MAX)).transpose()
        };
        Ok(Workload {
            test,
            request,
            response,
            message: within("message", message, largest)?,
            receive: within("receive", self.receive.unwrap_or(RECEIVE_DEFAULT), MESSAGE_MAX)?,
            connections: within("connections", self.connections, CONNECTIONS_MAX)?,
            depth: within("burst", self.burst.saturating_add(1), DEPTH_MAX)?,
            rate,
            window: self.window()?,
            buffers: SocketOptions {
                send_buffer: buffer("send-buffer", self.send_buffer)?,
                receive_buffer: buffer("receive-buffer", self.receive_buffer)?,
            },
        })
    }

    fn check_applicable(&self, test: &'static Test) -> Result<(), OptionError> {
        let not_for = |option, reason| Err(OptionError::NotFor { option, test: test.name, reason });
        match test.kind {
            Kind::Send | Kind::Receive => {
                if !self.sizes.is_empty() {
                    return not_for("sizes", "a stream has messages: use --message");
                }
                if self.burst > 0 {
                    return not_for("burst", "a stream always sends as much as fits");
                }
                if self.plot.is_some() {
                    return not_for("plot", "a stream has no latency distribution");
                }
                if test.kind == Kind::Receive && self.rate.is_some() {
                    return not_for("rate", "the other end sends");
                }
            }
            Kind::RequestResponse | Kind::ConnectRequestResponse => {
                for (option, given) in [("message", self.message), ("receive", self.receive)] {
                    if given.is_some() {
                        return not_for(option, "use --sizes for request and response");
                    }
                }
            }
        }
        if test.kind == Kind::ConnectRequestResponse && (self.burst > 0 || self.rate.is_some()) {
            let option = if self.burst > 0 { "burst" } else { "rate" };
            return not_for(option, "each connection carries one transaction");
        }
        Ok(())
    }

    fn window(&self) -> Result<Window, OptionError> {
        let length = self.length.unwrap_or(LENGTH_DEFAULT);
        let until = if length < 0.0 {
            let digits = format!("{:.0}", -length);
            let bounds = format!("whole and at most {} if negative", i32::MAX);
            let count = digits.parse().ok().filter(|count| *count <= u64::from(u32::MAX >> 1));
            match count {
                Some(count) if length.fract() == 0.0 => Until::Count(count),
                Some(_) | None => return Err(limit("length", length, bounds)),
            }
        } else {
            let duration = seconds("length", length)?;
            if duration.is_zero() {
                return Err(limit("length", length, "greater than 0, or a negative count"));
            }
            Until::Elapsed(duration)
        };
        let warmup = match (self.warmup, until) {
            (Some(warmup), Until::Elapsed(_)) => seconds("warmup", warmup)?,
            (None, Until::Elapsed(_)) => WARMUP_DEFAULT,
            (None | Some(0.0), Until::Count(_) | Until::PeerEnds) => Duration::ZERO,
            (Some(warmup), Until::Count(_) | Until::PeerEnds) => {
                return Err(limit("warmup", warmup, "0 if the length is a count"));
            }
        };
        let interval = match self.interval {
            Some(interval) if interval < 0.001 => {
                return Err(limit("interval", interval, "at least 0.001 seconds"));
            }
            Some(interval) => Some(seconds("interval", interval)?),
            None => None,
        };
        Ok(Window { warmup, until, interval })
    }

    /// The cores that the user named.
    #[must_use]
    pub fn cores(&self) -> Cores {
        Cores { client: self.cpus.first().copied(), server: self.cpus.get(1).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::find;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: TestOptions,
    }

    fn parse(test: &str, line: &str) -> Result<Workload, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.options.workload(find(test).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn netperfs_letters_work() {
        let work = parse("tcp_rr", "-l 2 -r 128,1024 -b 3 -T 0,1").unwrap();
        assert_eq!((work.request, work.response, work.depth), (128, 1024, 4));
        assert_eq!(work.window.until, Until::Elapsed(Duration::from_secs(2)));
        let work = parse("tcp_rr", "-l -5000").unwrap();
        assert_eq!(work.window.until, Until::Count(5000));
        assert!(work.window.warmup.is_zero());
        let work = parse("udp_stream", "-m 100 --rate 1000.5").unwrap();
        assert_eq!((work.message, work.receive), (100, 131_072));
        let work = parse("tcp_stream", "-M 4096").unwrap();
        assert_eq!((work.message, work.receive), (16_384, 4096));
        assert_eq!(parse("tcp_rr", "-r 7").unwrap().response, 7);
    }

    #[test]
    fn absurd_options_are_refused_with_the_limit() {
        for (test, line, says) in [
            ("tcp_rr", "-r 0", "between 1 and"),
            ("udp_rr", "-r 65508", "65507"),
            ("tcp_rr", "-l 0", "greater than 0"),
            ("tcp_rr", "-l 1e300", "86000"),
            ("tcp_rr", "-l -1e300", "negative"),
            ("tcp_rr", "-l nan", "between 0"),
            ("tcp_rr", "-l -1.5", "whole"),
            ("tcp_rr", "-n 0", "between 1 and 16384"),
            ("tcp_rr", "--rate 0", "0.001"),
            ("tcp_rr", "-b 18446744073709551615", "65536"),
            ("tcp_rr", "--interval 0", "0.001"),
            ("tcp_rr", "-l -5 --warmup 1", "count"),
            ("tcp_stream", "-r 1", "--message"),
            ("tcp_stream", "--plot x.svg", "no latency"),
            ("tcp_maerts", "--rate 5", "other end"),
            ("tcp_crr", "-b 1", "one transaction"),
            ("tcp_rr", "-m 5", "--sizes"),
            ("udp_rr", "-M 5", "--sizes"),
            ("tcp_stream", "-M 0", "between 1 and"),
        ] {
            let error = parse(test, line).unwrap_err();
            assert!(error.contains(says), "{test} {line}: {error}");
        }
    }
}
