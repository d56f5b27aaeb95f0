//! Every declaration of Roceway's bindings against other hands': the C compiler with the headers
//! of this machine, and the crate rdma-sys (feature `rdma-sys`).
//!
//! The list is `declared.rs`. A test that cannot run names itself.

mod declared;
#[cfg(feature = "rdma-sys")]
mod rdma_sys_oracle;

use roceway_rdma_virtio::verbs::sys;
use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::Path;
use std::process::Command;

/// The layout of a structure as Roceway declares it.
struct Structure {
    kind: &'static str,
    name: &'static str,
    size: usize,
    align: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! ours {
    (structures { $($kind:ident $ours:ident $theirs:ident {
        $($field:ident $their_field:ident,)*
    })* } constants { $($group:ident { $($constant:ident)* })* }) => {
        fn structures() -> Vec<Structure> {
            vec![$(Structure {
                kind: stringify!($kind),
                name: stringify!($ours),
                size: size_of::<sys::$ours>(),
                align: align_of::<sys::$ours>(),
                fields: vec![$((stringify!($field), offset_of!(sys::$ours, $field)),)*],
            },)*]
        }
        fn constants() -> Vec<(&'static str, i128)> {
            vec![$($((stringify!($constant), i128::from(sys::$constant)),)*)*]
        }
    };
}

declared::declared!(ours);

fn skip(test: &str, reason: &str) {
    // Past the test harness, which keeps the output of tests that pass to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// A program that the compiler accepts if the headers of this machine agree; returns it and the
/// number of its assertions.
fn assertions() -> (String, usize) {
    let mut text = String::from(
        "#include <stddef.h>\n#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n",
    );
    let mut count = 0;
    let mut assert = |condition: String| {
        count += 1;
        writeln!(text, "_Static_assert({condition}, \"differs\");").expect("memory");
    };
    for structure in structures() {
        let Structure { kind, name, size, align, ref fields } = structure;
        if kind == "nested" {
            continue;
        }
        assert(format!("sizeof({kind} {name}) == {size}"));
        assert(format!("_Alignof({kind} {name}) == {align}"));
        for (field, offset) in fields {
            // A member that has no name in C is compared by the members around it.
            let Some(field) = c_name(field) else { continue };
            assert(format!("offsetof({kind} {name}, {field}) == {offset}"));
        }
    }
    for (name, value) in constants() {
        // A helper of the list, which is an enumeration made for it.
        let name = match name {
            "OPTIONAL_ACCESS_FLAGS" => "IBV_ACCESS_OPTIONAL_RANGE",
            other => other,
        };
        assert(format!("(long long)({name}) == {value}LL"));
    }
    (text, count)
}

fn c_name(field: &'static str) -> Option<&'static str> {
    // Words of Rust have an underscore behind them.
    let name = field.strip_suffix('_').unwrap_or(field);
    (!name.starts_with("__bindgen_anon")).then_some(name)
}

fn compile(text: &str) -> std::io::Result<std::process::Output> {
    let mut child = Command::new("cc")
        .args(["-std=gnu11", "-fsyntax-only", "-x", "c", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    // A compiler that stops early closes the pipe; what it says then is looked at.
    let _ = child.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
    child.wait_with_output()
}

#[test]
fn the_c_compiler_finds_the_same_sizes_offsets_and_numbers() {
    let test = "the_c_compiler_finds_the_same_sizes_offsets_and_numbers";
    if !Path::new("/usr/include/infiniband/verbs.h").exists()
        || !Path::new("/usr/include/rdma/rdma_cma.h").exists()
    {
        return skip(test, "libibverbs-dev and librdmacm-dev are not installed");
    }
    let (text, count) = assertions();
    let output = match compile(&text) {
        Ok(output) => output,
        Err(error) => return skip(test, &format!("there is no C compiler: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{count} assertions hold");
    assert!(count > 900, "only {count} assertions: the list is broken");
    // The same with one number wrong, so that the test is known to be able to fail.
    let wrong = text.replacen("sizeof(struct ibv_sge) == 16", "sizeof(struct ibv_sge) == 17", 1);
    assert_ne!(wrong, text);
    assert!(!compile(&wrong).expect("it ran before").status.success());
}

#[cfg(not(feature = "rdma-sys"))]
#[test]
fn rdma_sys_has_the_same_declarations() {
    let reason = "needs --features rdma-sys, libibverbs-dev, librdmacm-dev and libclang 14";
    skip("rdma_sys_has_the_same_declarations", reason);
}
