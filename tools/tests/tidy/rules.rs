//! The rules for single files: head, sizes, words, unsafe code.

use crate::functions::functions;
use crate::mask::{line_of, words};
use crate::source::{FOLDERS, Finding, Source};
use std::path::Path;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_CODE_LINES_MAX: usize = 500;
const LINE_COLUMNS_MAX: usize = 100;
const PARAMETERS_MAX: usize = 5;
/// How far above an unsafe block its reason may stand.
const SAFETY_LINES_MAX: usize = 12;
/// Where unsafe code may be.
const UNSAFE_PLACES: [&str; 8] = [
    "rdma-virtio/",
    "busypoll/src/sys",
    // Forks, and handles signals.
    "runtime/tests/processes.rs",
    // Calls C.
    "perf/lwip/",
    "fuzz/src/coverage",
    "fuzz/src/targets/",
    "tools/verbs-double/",
    "tools/verbs-oracle/",
];
/// Crates that forbid unsafe code to the compiler too.
const SAFE_CRATES: [&str; 3] = ["stack", "runtime", "perf"];
/// Split, so that this file does not contain them.
const BANNED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("db", "g!"),
    concat!("#[ig", "nore"),
];

/// Findings in one file.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    head(source, &mut findings);
    lines(source, &mut findings);
    file_length(source, &mut findings);
    function_sizes(source, &mut findings);
    unsafe_code(source, &mut findings);
    findings
}

/// Findings about whole crates: what their roots forbid, and that they are described.
pub(crate) fn check_crates(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in SAFE_CRATES {
        let path = format!("{folder}/src/lib.rs");
        let text = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
        if !text.contains("#![forbid(unsafe_code)]") {
            let what = "add #![forbid(unsafe_code)]".to_string();
            findings.push(Source::new(&path, &text).finding("unsafe", 1, what));
        }
    }
    for folder in FOLDERS.into_iter().filter(|folder| root.join(folder).is_dir()) {
        let path = format!("{folder}/README.md");
        if !root.join(&path).is_file() {
            let what = "describe the crate here, with one diagram".to_string();
            findings.push(Source::new(&path, "").finding("readme", 1, what));
        }
    }
    findings
}

fn head(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//!") {
        let what = "begin with //! and say what the file owns and never does".to_string();
        findings.push(source.finding("head", 1, what));
    }
}

fn lines(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let what = format!("break the line: {columns} columns, at most {LINE_COLUMNS_MAX}");
            findings.push(source.finding("line-length", index + 1, what));
        }
        for word in BANNED {
            // As a whole word: `todos!` and the like are not meant.
            if words(line, word).next().is_some() {
                let what = format!("finish it: `{word}` does not stay in the tree");
                findings.push(source.finding("word", index + 1, what));
            }
        }
    }
}

fn file_length(source: &Source, findings: &mut Vec<Finding>) {
    if source.is_test() {
        return;
    }
    let end = test_module(source).unwrap_or(usize::MAX);
    let code = source.code.lines().enumerate().take(end);
    let code: Vec<usize> =
        code.filter(|(_, line)| !line.trim().is_empty()).map(|(index, _)| index + 1).collect();
    if let Some(first_beyond) = code.get(FILE_CODE_LINES_MAX) {
        let count = code.len();
        let what = format!("split the file: {count} lines of code, at most {FILE_CODE_LINES_MAX}");
        findings.push(source.finding("file-length", *first_beyond, what));
    }
}

/// The index of the line where the tests at the end of the file begin.
fn test_module(source: &Source) -> Option<usize> {
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    let is_test =
        |line: &str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
    (0..lines.len()).find(|&index| {
        let mut after = lines[index + 1..].iter().skip_while(|line| line.starts_with("#["));
        is_test(lines[index])
            && after.next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    })
}

fn function_sizes(source: &Source, findings: &mut Vec<Finding>) {
    for function in functions(&source.code) {
        let mut found = |rule, what| {
            let mut finding = source.finding(rule, function.line, what);
            finding.item.clone_from(&function.name);
            findings.push(finding);
        };
        let (name, lines, parameters) = (&function.name, function.lines, function.parameters);
        if lines > FUNCTION_LINES_MAX {
            let what = format!("split `{name}`: {lines} lines, at most {FUNCTION_LINES_MAX}");
            found("function-length", what);
        }
        if parameters > PARAMETERS_MAX {
            let what = format!(
                "give `{name}` a named struct: {parameters} parameters, at most {PARAMETERS_MAX}"
            );
            found("parameters", what);
        }
    }
}

fn unsafe_code(source: &Source, findings: &mut Vec<Finding>) {
    let allowed = UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place));
    let lines: Vec<&str> = source.text.lines().collect();
    for at in words(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        if !allowed {
            let what = "move unsafe code to rdma-virtio or busypoll/src/sys.rs".to_string();
            findings.push(source.finding("unsafe", line, what));
        }
        // `unsafe fn` has its conditions in its documentation, which clippy asks for.
        let what_follows = source.code[at + "unsafe".len()..].trim_start();
        let needs_reason = what_follows.starts_with('{') || what_follows.starts_with("impl");
        let near = &lines[line.saturating_sub(SAFETY_LINES_MAX)..line];
        if needs_reason && !reason_stands_above(near) {
            let what =
                "say after `// SAFETY:` which invariant holds and who upholds it".to_string();
            findings.push(source.finding("safety", line, what));
        }
    }
}

/// Whether `SAFETY:` stands in the last of these lines or above it without an empty line between.
fn reason_stands_above(lines: &[&str]) -> bool {
    let statement = lines.iter().rev().take_while(|line| !line.trim().is_empty());
    statement.into_iter().any(|line| line.contains("SAFETY:"))
}
