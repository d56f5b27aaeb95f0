//! The same calls by Roceway's bindings and by the crate rdma-sys, on this machine: also where
//! there is no RDMA device, both must say so in the same way.

#[cfg(feature = "rdma-sys")]
#[test]
fn both_hands_get_the_same_answers() {
    let report = roceway_verbs_oracle::compare::everything().expect("no query fails");
    println!("{} compared, {} devices", report.compared, report.devices);
    assert!(report.differences.is_empty(), "{}", report.differences.join("\n"));
    assert!(report.compared > 0);
}

#[cfg(not(feature = "rdma-sys"))]
#[test]
fn both_hands_get_the_same_answers() {
    use std::io::Write as _;
    // Past the test harness, which keeps the output of tests that pass to itself.
    let text = "SKIPPED both_hands_get_the_same_answers: needs --features rdma-sys";
    let _ = writeln!(std::io::stderr(), "{text}");
}
