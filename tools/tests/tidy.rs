//! The tidy test: layers, sizes, words and unsafe code of the whole workspace, by reading it.
//!
//! It needs no privilege and nothing but the standard library. Each finding names file, line and
//! what to do. A finding may be excepted in `tools/tidy-exceptions.txt`, with a reason; an
//! exception that excepts nothing is itself a finding.

#[path = "tidy/exceptions.rs"]
mod exceptions;
#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/mask.rs"]
mod mask;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use source::{Finding, Source};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().expect("tools lies in the workspace").to_path_buf()
}

#[test]
fn workspace_is_tidy() {
    let root = root();
    let sources = source::read_all(&root);
    assert!(sources.len() > 20, "only {} files found: the search is broken", sources.len());
    let mut findings = layers::check_manifests(&root);
    findings.extend(rules::check_crates(&root));
    for source in &sources {
        findings.extend(layers::check_source(source));
        findings.extend(rules::check(source));
    }
    let findings = exceptions::apply(&root, findings);
    let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(texts.is_empty(), "{} findings\n{}\n", texts.len(), texts.join("\n"));
}

/// Findings of the rules for a file of this text.
fn findings_in(path: &str, text: &str) -> Vec<String> {
    let source = Source::new(path, text);
    rules::check(&source)
        .iter()
        .map(|finding| format!("{}:{}", finding.rule, finding.line))
        .collect()
}

#[test]
fn each_rule_finds_its_breach_and_nothing_else() {
    let long_line = format!("//! x\nconst A: u8 = 0; // {}\n", "é".repeat(100));
    let long_function = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(69));
    let fitting_function = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(68));
    let long_file = format!("//! x\n{}", "const A: u8 = 0;\n".repeat(501));
    let tests_are_free = format!(
        "//! x\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        "const A: u8 = 0;\n// why\n\n".repeat(500),
        "const A: u8 = 0;\n".repeat(50)
    );
    let banned = format!("//! x\n// {}: later\n", concat!("TO", "DO"));
    let rows: &[(&str, &str, &str, &[&str])] = &[
        ("no head", "stack/src/a.rs", "fn f() {}\n", &["head:1"]),
        ("line", "stack/src/a.rs", &long_line, &["line-length:2"]),
        ("long function", "stack/src/a.rs", &long_function, &["function-length:2"]),
        ("fitting function", "stack/src/a.rs", &fitting_function, &[]),
        ("long file", "stack/src/a.rs", &long_file, &["file-length:502"]),
        ("long tests", "stack/src/a.rs", &tests_are_free, &[]),
        ("test file", "stack/tests/a.rs", &long_file, &[]),
        ("banned word", "stack/src/a.rs", &banned, &["word:2"]),
        (
            "parameters",
            "stack/src/a.rs",
            "//! x\nfn f<F: Fn(u8, u8) -> u8>(a: F, b: (u8, u8), c: [u8; 2],\n d: A<u8, u8>, \
             e: u8, f: u8,) {}\n",
            &["parameters:2"],
        ),
        (
            "five parameters",
            "stack/src/a.rs",
            "//! x\nfn f(a: u8, b: (u8, u8), c: [u8; 2], d: A<u8, u8>, e: &dyn Fn(u8, u8),) {}\n",
            &[],
        ),
        (
            "unsafe",
            "stack/src/a.rs",
            "//! x\n// SAFETY: y\nunsafe impl A for B {}\n",
            &["unsafe:3"],
        ),
        (
            "unsafe in sys",
            "busypoll/src/sys.rs",
            "//! x\n// SAFETY: y\nlet a = unsafe { b() };\n",
            &[],
        ),
        ("no reason", "rdma-virtio/src/a.rs", "//! x\n\nunsafe impl A for B {}\n", &["safety:3"]),
        ("unsafe words", "stack/src/a.rs", "//! unsafe\n#![forbid(unsafe_code)]\n", &[]),
    ];
    for (name, path, text, expected) in rows {
        assert_eq!(findings_in(path, text), *expected, "{name}");
    }
}
