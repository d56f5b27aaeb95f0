//! Tests of settings: precedence, and that every mistake is answered.

use super::*;

fn flags(settings: &[&str]) -> Flags {
    let mut flags = Flags::default();
    for text in settings {
        flags.set(text).expect("NAME=VALUE");
    }
    flags
}

fn variables(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn toml(text: &str) -> Result<Settings, String> {
    let mut settings = Settings::new();
    settings.apply_toml("it.toml", text).map_err(|error| error.to_string())?;
    Ok(settings)
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "mtu = 1000\nqueue_size = 64\ncpu = 3\n").expect("a file");
    let mut flags = flags(&["mtu=3000"]);
    flags.config = Some(file.path().to_owned());
    let environment = variables(&[("ROCEWAY_MTU", "2000"), ("ROCEWAY_QUEUE_SIZE", "128")]);
    let settings = Settings::from(&flags, environment.clone()).expect("settings");
    let worker = &settings.worker;
    assert_eq!((worker.mtu, worker.queue_size, worker.cpu), (Some(3000), Some(128), Some(3)));
    assert_eq!(worker.tcp.send_buffer, 1 << 20, "the default");
    // The file can be named by the environment too.
    let path = file.path().display().to_string();
    let environment = [environment, variables(&[("ROCEWAY_CONFIG", &path)])].concat();
    let settings = Settings::from(&Flags::default(), environment).expect("settings");
    assert_eq!((settings.worker.mtu, settings.worker.cpu), (Some(2000), Some(3)));
}

#[test]
fn a_file_has_tables_and_lists() {
    let settings = toml(
        "device = \"tap:rw0\"\naddress = [\"10.0.0.1/24\", \"fd00::1/64\"]\n\
         manner = \"caller-driven\"\n[tcp]\nsend_buffer = \"64KiB\"\nsack = false\n\
         delayed_ack = \"10ms\"\n[turn]\nspin = \"10us..1ms\"\n",
    )
    .expect("settings");
    assert_eq!(settings.device.as_deref(), Some("tap:rw0"));
    assert_eq!(settings.worker.addresses.len(), 2);
    assert_eq!(settings.manner, Manner::CallerDriven);
    assert_eq!(settings.worker.tcp.send_buffer, 65_536);
    assert!(!settings.worker.tcp.sack);
    assert_eq!(settings.worker.tcp.delayed_ack.as_millis(), 10);
}

#[test]
fn a_flag_given_twice_adds_to_a_list_and_replaces_another() {
    let flags = flags(&["address=10.0.0.1/24", "address=fd00::1/64", "mtu=1000", "mtu=2000"]);
    let environment = variables(&[("ROCEWAY_ADDRESS", "10.9.9.9/8")]);
    let settings = Settings::from(&flags, environment).expect("settings");
    let shown: Vec<String> = settings.worker.addresses.iter().map(Prefix::to_string).collect();
    assert_eq!(shown, ["10.0.0.1/24", "fd00::1/64"]);
    assert_eq!(settings.worker.mtu, Some(2000));
}

#[test]
fn every_mistake_in_a_file_is_answered_with_its_line() {
    let rows = [
        ("mtu = = 3", "it.toml, line 1: "),
        ("\n\nmtu = \"a", "it.toml, line 3: "),
        ("mtu = 9\nmtu = 9", "it.toml, line 2: duplicate key"),
        (
            "cpu = 1\n[tcp]\nsend_bufer = 1",
            "it.toml, line 3: there is no setting `tcp.send_bufer`; did you mean \
             `tcp.send_buffer`?",
        ),
        ("send_buffer = 1", "line 1: there is no setting `send_buffer`; did you mean `tcp.send_bu"),
        ("[tpc]\nsack = true", "line 1: there is no setting `tpc`"),
        (
            "[tcp]\nsend_buffer = 0",
            "line 2: `0` is no value for tcp.send_buffer: it must be a size",
        ),
        ("mtu = 1.5", "line 1: `this` is no value for mtu: it must be 576..65535"),
        ("queue_size = 100", "`100` is no value for queue_size: it must be a power of two from 16"),
        ("address = \"10.0.0.1\"", "write it as 10.0.0.1/24"),
        ("address = []", "address"),
        ("mac = \"ff:ff:ff:ff:ff:ff\"", "a unicast hardware address"),
        ("[memory]\nreceive_slot = \"3KiB\"", "a power of two from 2048 to 65536"),
        ("[turn]\nspin = \"2ms..1ms\"", "a time from 2ms to 1s"),
    ];
    for (text, expected) in rows {
        let error = toml(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn mistakes_elsewhere_name_the_nearest_too() {
    let error = Settings::from(&Flags::default(), variables(&[("ROCEWAY_DEVISE", "x")]));
    assert_eq!(
        error.expect_err("unknown").to_string(),
        "environment: there is no setting `ROCEWAY_DEVISE`; did you mean `ROCEWAY_DEVICE`?"
    );
    let others = variables(&[("ROCEWAY_LIBIBVERBS", "/x"), ("ROCEWAY_DOUBLE", "devices=none")]);
    assert!(Settings::from(&Flags::default(), others).is_ok(), "variables that others read");
    let error = Settings::from(&flags(&["adress=10.0.0.1/24"]), []).expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "command line: there is no setting `adress`; did you mean `address`?"
    );
    let error = Settings::from(&flags(&["zzz=1"]), []).expect_err("unknown");
    assert_eq!(error.to_string(), "command line: there is no setting `zzz`");
    let error = Settings::from(&flags(&["tcp.sack=maybe"]), []).expect_err("no switch");
    assert_eq!(
        error.to_string(),
        "command line: `maybe` is no value for tcp.sack: it must be on or off"
    );
    assert!(Flags::default().set("mtu").is_err());
    let missing = Flags { config: Some("/nowhere/it.toml".into()), ..Flags::default() };
    let error = Settings::from(&missing, []).expect_err("no file").to_string();
    assert!(error.starts_with("/nowhere/it.toml: No such file"), "{error}");
}

#[test]
fn names_are_unique_also_as_variables() {
    let mut names: Vec<String> = KEYS.iter().map(|key| variable_of(key.name)).collect();
    let total = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), total);
}
