//! Debian's ibv_devinfo and perftest on the library, unmodified: it is found as
//! `libibverbs.so.1` by LD_LIBRARY_PATH. Skipped, by name, where a program is not installed.
//!
//! The shared object that cargo makes has no symbol versions, since rustc's own version script
//! allows no other beside it. The dynamic linker takes it all the same and says so on standard
//! error. Where there is a C compiler the test links the static library anew, with versions.

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

/// What the dynamic linker says of a library without versions.
const UNVERSIONED: &str = "no version information";

/// A library, which cargo builds beside the test programs.
fn library(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().join(name)
}

/// Links the static library with the versions that programs ask for.
fn linked(to: &Path) -> bool {
    let map = concat!(env!("CARGO_MANIFEST_DIR"), "/versions.map");
    let mut command = Command::new("cc");
    command.args(["-shared", "-Wl,-soname,libibverbs.so.1", "-Wl,--whole-archive"]);
    command.arg(library("libverbs_double.a")).arg("-Wl,--no-whole-archive");
    command.arg(format!("-Wl,--version-script={map}")).arg("-o").arg(to);
    command.args(["-lgcc_s", "-lc", "-lm"]);
    command.output().is_ok_and(|output| {
        assert!(output.status.success(), "{}", text(&output));
        true
    })
}

/// Puts the library into a folder under the name that programs ask for; says whether it has
/// versions.
fn named(folder: &Path) -> bool {
    let to = folder.join("libibverbs.so.1");
    if linked(&to) {
        return true;
    }
    let library = library("libverbs_double.so");
    assert!(library.is_file(), "{} is not there", library.display());
    std::os::unix::fs::symlink(library, to).unwrap();
    false
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
    let versioned = named(folder.path());
    let double = "dev=poor0,ip=10.9.0.1,raw=off,max_sge=7;dev=rich0,active_mtu=4096,link=down";
    let output = command("ibv_devinfo", folder.path(), double).arg("-v").output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(!text.contains(UNVERSIONED), versioned, "{text}");
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

/// Runs a program of perftest at both ends of a wire, with 200 messages.
fn measure(program: &str, arguments: &[&str], ends: [&[&str]; 2]) {
    let folder = tempfile::tempdir().unwrap();
    named(folder.path());
    let start = |own: u8, more: &[&str]| {
        let mac = format!("02:00:00:00:00:{own:02x}");
        let wire = folder.path().display();
        let double = format!("wire={wire};dev=double0,mac={mac},ip=10.9.0.{own}");
        let mut command = command(program, folder.path(), &double);
        command.args(["-d", "double0", "-n", "200", "-s", "200", "-F"]);
        command.args(arguments).args(more).spawn().unwrap()
    };
    let mut server = start(1, ends[0]);
    // It listens, or has its rule, by then; a client that finds nobody fails.
    std::thread::sleep(Duration::from_millis(1500));
    let mut client = start(2, ends[1]);
    let limit = Instant::now() + Duration::from_secs(60);
    while client.try_wait().unwrap().is_none() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
    let late = client.try_wait().unwrap().is_none();
    let _ = client.kill();
    let _ = server.kill();
    let (client, server) = (client.wait_with_output().unwrap(), server.wait_with_output().unwrap());
    let both = format!("{program}\nclient: {}\nserver: {}", text(&client), text(&server));
    assert!(!late && client.status.success(), "{both}");
    assert!(text(&client).contains("t_avg[usec]"), "{both}");
}

#[test]
fn raw_ethernet_lat_measures_between_two_processes() {
    let program = "raw_ethernet_lat";
    if !is_installed(program) {
        let test = "raw_ethernet_lat_measures_between_two_processes";
        return skipped(test, "install perftest");
    }
    let (one, two) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
    let server = ["--server", "-B", one, "-E", two];
    let client = ["--client", "-B", two, "-E", one];
    measure(program, &[], [&server, &client]);
}

#[test]
fn perftest_measures_over_rc_and_ud() {
    if !is_installed("ib_send_lat") {
        return skipped("perftest_measures_over_rc_and_ud", "install perftest");
    }
    let port = (20_000 + std::process::id() % 20_000).to_string();
    for (program, arguments) in [
        ("ib_send_lat", &["-c", "RC"][..]),
        ("ib_send_lat", &["-c", "UD"]),
        ("ib_write_lat", &[]),
        ("ib_read_lat", &[]),
    ] {
        let arguments = [arguments, &["-x", "3", "-p", &port]].concat();
        measure(program, &arguments, [&[], &["127.0.0.1"]]);
    }
}
