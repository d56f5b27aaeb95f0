//! Debian's ibv_devinfo and perftest's raw_ethernet_lat on the library, unmodified: it is found
//! as `libibverbs.so.1` by LD_LIBRARY_PATH. Skipped, by name, where a program is not installed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn skipped(test: &str, reason: &str) {
    // Past the test harness, which keeps the output of tests that pass to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// The shared object, which cargo builds beside the test programs.
fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().join("libverbs_double.so")
}

/// A folder in which the library has the name that programs ask for.
fn named(folder: &Path) {
    let library = library();
    assert!(library.is_file(), "{} is not there", library.display());
    std::os::unix::fs::symlink(library, folder.join("libibverbs.so.1")).unwrap();
}

fn command(program: &str, folder: &Path, double: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", folder).env("ROCEWAY_DOUBLE", double);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

#[test]
fn ibv_devinfo_shows_the_devices() {
    if !is_installed("ibv_devinfo") {
        return skipped("ibv_devinfo_shows_the_devices", "install ibverbs-utils");
    }
    let folder = tempfile::tempdir().unwrap();
    named(folder.path());
    let double = "dev=poor0,ip=10.9.0.1,raw=off,max_sge=7;dev=rich0,active_mtu=4096,link=down";
    let output = command("ibv_devinfo", folder.path(), double).arg("-v").output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let (poor, rich) = text.split_once("rich0").unwrap();
    assert!(poor.contains("poor0"), "{text}");
    for (part, line, value) in [
        (poor, "max_sge:", "7"),
        (poor, "max_raw_ethy_qp:", "0"),
        (poor, "state:", "PORT_ACTIVE (4)"),
        (poor, "link_layer:", "Ethernet"),
        (poor, "GID[  3]:", "::ffff:10.9.0.1, RoCE v2"),
        (rich, "state:", "PORT_DOWN (1)"),
        (rich, "active_mtu:", "4096 (5)"),
        (rich, "max_tso:", "262144"),
    ] {
        let found = part.lines().find(|one| one.trim_start().starts_with(line));
        assert!(found.is_some_and(|one| one.trim_end().ends_with(value)), "{line} {value}: {text}");
    }
}

#[test]
fn raw_ethernet_lat_measures_between_two_processes() {
    let test = "raw_ethernet_lat_measures_between_two_processes";
    if !is_installed("raw_ethernet_lat") {
        return skipped(test, "install perftest");
    }
    let folder = tempfile::tempdir().unwrap();
    named(folder.path());
    let start = |own: u8, other: u8, more: &[&str]| {
        let wire = folder.path().display();
        let mac = |last: u8| format!("02:00:00:00:00:{last:02x}");
        let double = format!("wire={wire};dev=double0,mac={},ip=10.9.0.{own}", mac(own));
        let mut command = command("raw_ethernet_lat", folder.path(), &double);
        command.args(["-d", "double0", "-n", "1000", "-s", "200", "-F"]);
        command.args(["-B", &mac(own), "-E", &mac(other)]).args(more);
        command.spawn().unwrap()
    };
    let mut server = start(1, 2, &["--server"]);
    std::thread::sleep(Duration::from_millis(700));
    let mut client = start(2, 1, &["--client"]);
    let limit = Instant::now() + Duration::from_secs(60);
    while client.try_wait().unwrap().is_none() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
    let late = client.try_wait().unwrap().is_none();
    let _ = client.kill();
    let _ = server.kill();
    let (client, server) = (client.wait_with_output().unwrap(), server.wait_with_output().unwrap());
    let both = format!("client: {}\nserver: {}", text(&client), text(&server));
    assert!(!late && client.status.success(), "{both}");
    assert!(both.contains("t_avg[usec]"), "{both}");
}
