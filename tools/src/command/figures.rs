//! `roceway perf figures`: the papers' figures as ladders of configurations, each with its chart.

use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use roceway_busypoll::pin::{Cpu, Topology};
use roceway_perf::compare::{Plan, VethKernel};
use roceway_perf::control::message::CONTROL_PORT;
use roceway_perf::figures::{self, Request, Under};
use roceway_perf::host::Host;
use roceway_perf::local::Cores;

use super::common::{Chosen, Common, End};
use super::compare::progress;
use super::{Failure, print};

const EXAMPLES: &str = "Examples:
  roceway perf figures                     all three, over a soft link, in under a minute
  roceway perf figures --figure 6 --charts docs
  roceway perf figures --json > ladder.json
  roceway perf figures 10.10.0.1 --device rdma:mlx5_0,mode=rc --address 10.10.0.2/24
                                           over a device, against `roceway perf server` there";

/// Most repetitions that may be asked for.
const REPETITIONS_MAX: u16 = 1000;

/// The ladders.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FiguresLine {
    /// Where the server runs, if a device is named
    #[arg(value_name = "HOST")]
    host: Option<String>,
    /// The server's control port
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = CONTROL_PORT)]
    port: u16,
    /// The figure; may be repeated [default: 6, 7 and 8]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(6..=8))]
    figure: Vec<u8>,
    /// Cpus of the two ends [default: two physical cores of one node]
    #[arg(short = 'T', long, value_name = "CPU,CPU", value_delimiter = ',', num_args = 1)]
    cpus: Vec<usize>,
    /// Repetitions that must count
    #[arg(long, value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(REPETITIONS_MAX)))]
    repetitions: u16,
    /// Writes figure6.svg, figure7.svg and figure8.svg into this folder
    #[arg(long, value_name = "FOLDER")]
    charts: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl FiguresLine {
    fn plan(&self) -> Result<(Plan, Vec<String>), Failure> {
        let topology = Topology::read();
        let (cpus, warnings) = match *self.cpus {
            [] => {
                let choice = topology.choose(2);
                (choice.cpus, choice.warnings)
            }
            [client, server] => {
                let cpus = vec![Cpu(client), Cpu(server)];
                let warnings = topology.warnings(&cpus);
                (cpus, warnings)
            }
            _ => {
                let cause = "-T needs the cpus of both ends, such as -T 2,3";
                return Err(Failure::Usage(cause.into()));
            }
        };
        let cpu = |index: usize| cpus.get(index).map(|Cpu(id)| *id);
        let plan = Plan::new(Cores { client: cpu(0), server: cpu(1) });
        let plan = Plan { repetitions: usize::from(self.repetitions), ..plan };
        Ok((plan, warnings.iter().map(ToString::to_string).collect()))
    }

    /// The device and the server beyond it, if one is named.
    fn under(&self) -> Result<Under, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.into()));
        let (device, chosen) = match self.common.choose(End::Client)? {
            Chosen::Kernel(_) if self.host.is_none() => return Ok(Under::Soft),
            Chosen::Kernel(_) => {
                return usage("--device is missing: say through which one HOST is reached");
            }
            Chosen::Roceway(settings) => (settings.device.clone(), Chosen::Roceway(settings)),
        };
        match (device, &self.host) {
            (None, None) => Ok(Under::Soft),
            (None, Some(_)) => usage("--device is missing: say through which one HOST is reached"),
            (Some(_), None) => usage(
                "HOST is missing: with --device the server, `roceway perf server`, is at the other \
                 end of the device",
            ),
            (Some(device), Some(host)) => {
                let server = super::perf::resolve(host, self.port, &chosen)?;
                Ok(Under::Device { device, server })
            }
        }
    }

    /// Runs the ladders.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let (plan, warnings) = self.plan()?;
        let under = self.under()?;
        let flags = self.common.flags()?;
        let figures = if self.figure.is_empty() { vec![6, 7, 8] } else { self.figure.clone() };
        if let Some(folder) = &self.charts {
            // Found out before a minute of measuring.
            std::fs::create_dir_all(folder).map_err(|error| chart_failure(folder, &error))?;
        }
        // While this process has one thread; a device of this host is not in another namespace.
        let veth = match (&under, figures.contains(&8)) {
            (Under::Device { .. }, _) => Err("the device is in this network namespace".into()),
            (Under::Soft, false) => Err("figure 8 was not asked for".into()),
            (Under::Soft, true) => VethKernel::new(),
        };
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
        let bar = progress(plan.repetitions * figures::measurements(&figures));
        let mut watch = |repetition: usize, of: usize, name: &str| {
            bar.inc(1);
            bar.set_message(format!("repetition {repetition} of {of}: {name}"));
        };
        let device = match &under {
            Under::Soft => "soft, both ends here".to_owned(),
            Under::Device { device, server } => format!("{device}, server {server}"),
        };
        let request = Request { figures, under, flags, veth };
        let mut document = figures::run(&plan, &request, &mut watch);
        bar.finish_and_clear();
        document.notes.splice(0..0, warnings);
        self.print(&plan, &document, (device, started))
    }

    fn print(
        &self,
        plan: &Plan,
        document: &figures::Document,
        (device, started): (String, Instant),
    ) -> Result<(), Failure> {
        let host = Host::read();
        let cpus = [plan.cores.client, plan.cores.server]
            .map(|core| core.map_or("any".into(), |core| core.to_string()))
            .join(",");
        let today = date(SystemTime::now());
        let settings = [
            ("repetitions", document.repetitions.to_string()),
            ("seconds each", plan.length.as_secs_f64().to_string()),
            ("warm-up", format!("{} s", plan.warmup.as_secs_f64())),
            ("cpus", cpus),
            ("device", device),
            ("date", today.clone()),
        ];
        let foot = [
            format!("{today}, {}, {} online, {}", host.cpu, host.cpus, host.kernel),
            format!("{}; medians of {} repetitions", host.build, document.repetitions),
        ];
        if let Some(folder) = &self.charts {
            for (figure, chart) in document.charts(&foot) {
                let path = folder.join(format!("figure{figure}.svg"));
                std::fs::write(&path, chart.svg()).map_err(|error| chart_failure(&path, &error))?;
            }
        }
        let total_s = started.elapsed().as_secs_f64();
        if self.common.json {
            let mut options: serde_json::Map<String, serde_json::Value> = settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
                .collect();
            options.insert("host".into(), serde_json::json!(host));
            return print(&document.json(&options.into(), total_s));
        }
        let head = roceway_perf::report::head(&settings, &host);
        print(&format!("{head}{}took {total_s:.0} s in all\n", document.text()))
    }
}

fn chart_failure(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::Failed {
        cause: format!("cannot write the chart {}: {error}", path.display()),
        remedy: "name a folder that can be written with --charts".into(),
    }
}

/// The day, in UTC, as 2026-11-30 (the civil calendar from a count of days).
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Counted from 0000-03-01, so that a leap day is the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{of_month:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::date;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn days_have_their_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_603_200, "2024-12-31"),
            (1_796_020_800, "2026-11-30"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
