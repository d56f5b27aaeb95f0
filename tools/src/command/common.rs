//! Options that every command shares, and the choice of the stack.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueEnum};
use roceway_perf::ends::Handles;
use roceway_perf::kernel::Waiting;
use roceway_runtime::settings::{Flags, Settings, SettingsError};

use super::Failure;

/// Buffers of a worker whose streams go without copies, at least: 1.5 MiB, as many as those of the
/// bare link in `perf compare`.
const ZERO_COPY_BLOCKS: u32 = 24;

/// The stack under a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Stack {
    /// The host kernel's sockets.
    Kernel,
    /// Roceway on a device.
    Roceway,
}

/// Options that every command shares.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// The stack to run on [default: roceway if a device is named, otherwise kernel]
    #[arg(long, value_enum, value_name = "STACK")]
    stack: Option<Stack>,
    /// How sockets are waited for [default: spin; a server over Roceway sleeps when idle]
    #[arg(long, value_enum, value_name = "MANNER")]
    wait: Option<Waiting>,
    /// Prints one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    worker: WorkerLine,
}

/// Options of Roceway's worker. `ROCEWAY_*` variables and a TOML file say the same.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of Roceway")]
struct WorkerLine {
    /// soft:/PATH.sock, tap:NAME or packet:INTERFACE, with options after commas
    #[arg(long, value_name = "KIND:NAME[,KEY=VALUE]")]
    device: Option<String>,
    /// Address of this end; may be repeated
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    address: Vec<String>,
    /// Default gateway; may be repeated, once for each family
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// Longest IP packet [default: the device's]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<String>,
    /// all, none, a list such as csum,guest_csum,gso, changes such as -mrg_rxbuf, or LKL's mask
    /// [default: all,-gro,+gso_uso]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    offload: Option<String>,
    /// Takes settings from a TOML file [default: the one that ROCEWAY_CONFIG names]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting, such as tcp.congestion=newreno; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Writes every frame, both ways, to a pcapng file
    #[arg(long, value_name = "FILE")]
    capture: Option<String>,
    /// Prints every non-zero counter and each connection's TCP_INFO at the end; SIGUSR1 prints
    /// them to standard error at any time
    #[arg(long)]
    counters: bool,
    /// Sends and receives streams at this end in buffers of the worker's own, without a copy: 24 of
    /// them, or memory.blocks if that is more; a message is at most memory.block bytes
    #[arg(long)]
    zero_copy: bool,
    /// Which sockets a test uses: the worker's own inside its turn, the same between turns, or
    /// those for any thread, which wait; `--set manner=` says who turns then [default: inside]
    #[arg(long, value_enum, value_name = "WHICH")]
    sockets: Option<Sockets>,
}

/// Which of the runtime's sockets a test uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Sockets {
    /// The worker's own, inside its turn.
    Inside,
    /// The worker's own, between turns.
    Between,
    /// Those for any thread.
    Shared,
}

impl WorkerLine {
    /// The first option that was given, for an error.
    fn given(&self) -> Option<&'static str> {
        let all = [
            ("--device", self.device.is_some()),
            ("--address", !self.address.is_empty()),
            ("--gateway", !self.gateway.is_empty()),
            ("--mtu", self.mtu.is_some()),
            ("--offload", self.offload.is_some()),
            ("--config", self.config.is_some()),
            ("--set", !self.set.is_empty()),
            ("--capture", self.capture.is_some()),
            ("--counters", self.counters),
            ("--sockets", self.sockets.is_some()),
            ("--zero-copy", self.zero_copy),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn flags(&self) -> Result<Flags, SettingsError> {
        let mut flags = Flags { config: self.config.clone(), ..Flags::default() };
        for text in &self.set {
            flags.set(text)?;
        }
        let lists = [("address", &self.address), ("gateway", &self.gateway)];
        for (name, value) in lists.iter().flat_map(|(name, all)| all.iter().map(move |v| (name, v)))
        {
            flags.add(name, value);
        }
        for (name, value) in [
            ("device", &self.device),
            ("mtu", &self.mtu),
            ("offload", &self.offload),
            ("capture", &self.capture),
        ] {
            if let Some(value) = value {
                flags.add(name, value);
            }
        }
        Ok(flags)
    }
}

/// What a command runs on.
#[derive(Debug)]
pub(crate) enum Chosen {
    /// The host kernel's sockets.
    Kernel(Waiting),
    /// Roceway, with these settings.
    Roceway(Box<Settings>),
}

/// Which end a command is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It measures: nothing sleeps unless it was asked to.
    Client,
    /// It waits for clients: when there are none, its core is not worn out.
    Server,
}

impl Common {
    /// Whether counters were asked for.
    pub(crate) fn wants_counters(&self) -> bool {
        self.worker.counters
    }

    /// What the options say of Roceway's worker.
    pub(crate) fn flags(&self) -> Result<Flags, Failure> {
        self.worker.flags().map_err(|error| Failure::Usage(error.to_string()))
    }

    /// The sockets that a test uses.
    pub(crate) fn handles(&self, settings: &Settings) -> Handles {
        match self.worker.sockets.unwrap_or(Sockets::Inside) {
            Sockets::Inside => Handles::Inside,
            Sockets::Between => Handles::Between,
            Sockets::Shared => Handles::Shared(settings.manner),
        }
    }

    /// Whether streams are to go without copies.
    pub(crate) fn wants_zero_copy(&self) -> bool {
        self.worker.zero_copy
    }

    /// The stack, as the options and the settings say.
    pub(crate) fn choose(&self, end: End) -> Result<Chosen, Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        let kernel = Chosen::Kernel(self.wait.unwrap_or_default());
        if self.stack == Some(Stack::Kernel) {
            return match self.worker.given() {
                Some(name) => usage(format!("{name} is for Roceway, and --stack kernel is not")),
                None => Ok(kernel),
            };
        }
        let refused = |error: SettingsError| Failure::Usage(error.to_string());
        let flags = self.worker.flags().map_err(refused)?;
        let mut settings = Settings::load(&flags).map_err(refused)?;
        for notice in &settings.notices {
            eprintln!("{notice}");
        }
        if self.stack.is_none() && settings.device.is_none() {
            return match self.worker.given() {
                Some(name) => {
                    usage(format!("{name} is for Roceway: name a --device, or use --stack roceway"))
                }
                None => Ok(kernel),
            };
        }
        if matches!((self.wait, end), (Some(Waiting::Spin), _) | (None, End::Client)) {
            settings.worker = settings.worker.spinning();
        }
        if self.worker.zero_copy {
            let memory = &mut settings.worker.memory;
            memory.blocks = memory.blocks.max(ZERO_COPY_BLOCKS);
        }
        Ok(Chosen::Roceway(Box::new(settings)))
    }

    /// A flag that SIGUSR1 sets from now on, instead of ending the process.
    pub(crate) fn on_user_signal() -> Result<Arc<AtomicBool>, Failure> {
        on_signal(signal_hook::consts::SIGUSR1)
    }
}

/// A flag that a signal sets from now on.
pub(crate) fn on_signal(signal: i32) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(Failure::failed)?;
    Ok(flag)
}
