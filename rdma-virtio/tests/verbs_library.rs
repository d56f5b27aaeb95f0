//! The library of verbs is found at run time: what is said without it, and with it.
//!
//! Each case runs in a process of its own, since a process opens the library once: this test's
//! binary starts itself again with another environment.

use roceway_rdma_virtio::verbs::{connect, device, library};
use std::process::Command;

/// What a process with this environment says: the result of listing devices, then of opening a
/// channel of the connection manager.
fn said(environment: &[(&str, &str)]) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "says_what_it_finds", "--nocapture", "--test-threads=1"]);
    command.env_remove("ROCEWAY_LIBIBVERBS").env_remove("ROCEWAY_LIBRDMACM");
    command.env("ROCEWAY_TEST_SAYS", "1").envs(environment.iter().copied());
    let output = command.output().expect("it starts itself");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.strip_prefix("says ")).map(str::to_owned).collect()
}

#[test]
fn says_what_it_finds() {
    if std::env::var_os("ROCEWAY_TEST_SAYS").is_none() {
        return;
    }
    // The harness has written the test's name on this line.
    println!();
    match device::devices() {
        Ok(devices) => println!("says {} devices", devices.len()),
        Err(error) => println!("says {error}"),
    }
    match library::connect_library() {
        Ok(library) => println!("says {}", library.name()),
        Err(error) => println!("says {error}"),
    }
    // A second look says the same, not more.
    if let (Err(first), Err(second)) = (device::devices(), device::find("rxe0")) {
        assert_eq!(first.to_string(), second.to_string());
    }
    let _ = connect::EventChannel::new();
}

#[test]
fn a_library_that_is_named_and_not_there_is_not_said_to_be_installed() {
    let none = "/nonexistent/libibverbs.so.1";
    let said = said(&[("ROCEWAY_LIBIBVERBS", none)]);
    let remedy = "unset ROCEWAY_LIBIBVERBS, or have it name a library that this user may read";
    assert_eq!(said[0], format!("no RDMA: {none} not found; {remedy}"));
    assert_eq!(
        said[1],
        "no RDMA: librdmacm.so.1 belongs to the system's libibverbs.so.1; unset \
         ROCEWAY_LIBIBVERBS or set ROCEWAY_LIBRDMACM too"
    );
}

#[test]
fn a_library_without_verbs_is_named_with_the_function_that_it_lacks() {
    let environment = [("ROCEWAY_LIBIBVERBS", "libc.so.6"), ("ROCEWAY_LIBRDMACM", "libc.so.6")];
    let said = said(&environment);
    let lacks = "no RDMA: libc.so.6 has no function";
    let remedy = "install a later rdma-core";
    assert_eq!(said[0], format!("{lacks} ibv_get_device_list; {remedy}"));
    assert_eq!(said[1], format!("{lacks} rdma_create_event_channel; {remedy}"));
}

#[test]
fn on_this_machine_it_lists_devices_or_says_why_not() {
    let said = said(&[]);
    let listed = said[0].strip_suffix(" devices").is_some_and(|count| count.parse::<u32>().is_ok());
    let known = [
        "no RDMA: libibverbs.so.1 not found; install rdma-core",
        // The library is there, the kernel has no RDMA.
        "no RDMA: ibv_get_device_list: Function not implemented (os error 38); load the kernel's \
         RDMA modules: modprobe ib_uverbs",
    ];
    assert!(listed || known.contains(&said[0].as_str()), "{}", said[0]);
}
