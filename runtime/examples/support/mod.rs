//! What the examples share: their command line, and a soft link within the process for those who
//! have no device at hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::exit;

use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::rdma_virtio::nic::spec;
use roceway_runtime::settings::{Flags, KEYS, Settings};

/// The command line: settings, the example's own options, and what remains.
pub(crate) struct Arguments {
    pub(crate) settings: Settings,
    /// Options of the example, without their dashes.
    own: BTreeMap<String, String>,
    /// Arguments that are no options.
    #[allow(dead_code, reason = "not every example takes any")]
    pub(crate) rest: Vec<String>,
}

/// Says what is wrong and ends the process.
pub(crate) fn fail(cause: impl std::fmt::Display) -> ! {
    eprintln!("error: {cause}");
    exit(1);
}

impl Arguments {
    /// Reads `--NAME VALUE` and `--NAME=VALUE`, where NAME is a setting or one of `own`.
    pub(crate) fn read(usage: &str, own: &[&str]) -> Arguments {
        let mut flags = Flags::default();
        let mut given = BTreeMap::new();
        let mut rest = Vec::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else {
                rest.push(word);
                continue;
            };
            if option == "help" {
                println!(
                    "{usage}\nSettings, each as --NAME VALUE, ROCEWAY_NAME or in --config FILE:"
                );
                KEYS.iter()
                    .for_each(|key| println!("  {:24} {:24} {}", key.name, key.form, key.help));
                exit(0);
            }
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (option.to_owned(), words.next()),
            };
            let value = value.unwrap_or_else(|| fail(format!("--{name} needs a value")));
            match name.as_str() {
                "config" => flags.config = Some(value.into()),
                name if own.contains(&name) => drop(given.insert(name.to_owned(), value)),
                name => flags.add(name, value),
            }
        }
        let settings = Settings::load(&flags).unwrap_or_else(|error| fail(error));
        for notice in &settings.notices {
            eprintln!("{notice}");
        }
        Arguments { settings, own: given, rest }
    }

    /// An option of the example's own.
    pub(crate) fn own<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let value = self.own.get(name)?;
        Some(value.parse().unwrap_or_else(|_| fail(format!("--{name} {value} makes no sense"))))
    }

    /// The device, if one was named.
    pub(crate) fn device(&self) -> Option<AnyNic> {
        let device = self.settings.device.as_deref()?;
        Some(spec::open(device).unwrap_or_else(|error| fail(error)))
    }
}

/// The two ends of a soft link within this process, with settings for each.
pub(crate) fn soft_pair(settings: &Settings) -> [(AnyNic, Settings); 2] {
    let (one, two) = SoftNic::pair(&SoftOptions::default()).unwrap_or_else(|error| fail(error));
    [(one, "10.0.0.1/24"), (two, "10.0.0.2/24")].map(|(nic, address)| {
        let mut settings = settings.clone();
        settings.worker.addresses = vec![address.parse().unwrap_or_else(|error| fail(error))];
        if address.starts_with("10.0.0.2") {
            // Two workers do not write to one file.
            settings.worker.capture = None;
        }
        (AnyNic::from(nic), settings)
    })
}

/// The second end's address, with a port.
pub(crate) fn second(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], port))
}
