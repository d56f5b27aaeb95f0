//! The licences of all crates that the workspace uses, from `cargo metadata`.
//!
//! By default only the crates for this machine are looked at, without the network, since cargo has
//! fetched them to build this test. With `ROCEWAY_LICENCES=all` every crate of Cargo.lock is, other
//! platforms and `cfg(loom)` included; cargo may have to fetch their manifests.

use serde_json::Value;
use std::io::Write;
use std::process::Command;

/// Licences that any crate may have.
const ALLOWED: [&str; 6] = ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "Zlib", "0BSD"];
/// Crate, further licence, and why it may have it.
const EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "unicode-ident",
    "Unicode-3.0",
    "tables of syn and proc-macro2, which run while serde, clap and thiserror derive; nothing of \
     it is linked into a program",
)];

#[test]
fn every_crate_has_an_allowed_licence() {
    let all = std::env::var("ROCEWAY_LICENCES").is_ok_and(|value| value == "all");
    let Some(metadata) = metadata(all) else { return };
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() >= 6, "the workspace alone has six crates");
    let mut findings = Vec::new();
    let mut used = [false; EXCEPTIONS.len()];
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        let exception = EXCEPTIONS.iter().position(|exception| exception.0 == name);
        let further = exception.map_or("", |index| EXCEPTIONS[index].1);
        if !satisfied(licence, &|licence| ALLOWED.contains(&licence)) {
            match exception {
                Some(index)
                    if satisfied(licence, &|one| ALLOWED.contains(&one) || one == further) =>
                {
                    used[index] = true;
                }
                _ => findings.push(format!("{name}: `{licence}`: use another crate")),
            }
        }
    }
    for (exception, used) in EXCEPTIONS.iter().zip(used) {
        if !used {
            findings.push(format!("{}: remove the exception, nothing needs it", exception.0));
        }
    }
    println!("{} crates looked at", packages.len());
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn metadata(all: bool) -> Option<Value> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked", "--manifest-path", manifest]);
    if !all {
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        command.args(["--offline", "--filter-platform", &platform]);
    }
    let output = command.output().expect("cargo runs");
    if output.status.success() {
        return Some(serde_json::from_slice(&output.stdout).expect("cargo writes JSON"));
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(!all, "cargo metadata failed: {reason}");
    let first = reason.lines().next().unwrap_or_default();
    // Past the test harness, which keeps the output of tests that pass to itself.
    let test = "every_crate_has_an_allowed_licence";
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: cargo metadata --offline: {first}");
    None
}

/// Whether an SPDX expression can be satisfied with licences for which `allowed` holds.
/// `expression := term (OR term)*`, `term := factor (AND factor)*`; a `/` is an old way to say OR,
/// and a licence WITH an exception counts as not allowed.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = alternatives(&words, &mut at, allowed);
    result && at == words.len()
}

fn alternatives(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = conjunction(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= conjunction(words, at, allowed);
    }
    result
}

fn conjunction(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = factor(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= factor(words, at, allowed);
    }
    result
}

fn factor(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let result = alternatives(words, at, allowed);
        *at += 1;
        return result;
    }
    if words.get(*at) == Some(&"WITH") {
        *at += 2;
        return false;
    }
    allowed(word)
}

#[test]
fn licence_expressions_are_read() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("Unlicense OR MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("(GPL-2.0 OR BSD-3-Clause) AND (MIT OR ISC)", true),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
        ("MIT AND", false),
    ] {
        let allowed = |licence: &str| ALLOWED.contains(&licence);
        assert_eq!(satisfied(expression, &allowed), expected, "{expression:?}");
    }
}
