//! Who may import whom: read from the manifests and from the paths in the sources.

use crate::mask::{line_of, words};
use crate::source::{FOLDERS, Finding, Source};
use std::fs;
use std::path::Path;

/// Folder, crate, and the crates of the workspace that it may import.
const LAYERS: [(&str, &str, &[&str]); 9] = [
    ("stack", "roceway-stack", &[]),
    ("rdma-virtio", "roceway-rdma-virtio", &[]),
    ("busypoll", "roceway-busypoll", &[]),
    ("runtime", "roceway-runtime", &["roceway-stack", "roceway-rdma-virtio", "roceway-busypoll"]),
    ("perf", "roceway-perf", &["roceway-runtime", "roceway-lwip"]),
    ("perf/lwip", "roceway-lwip", &[]),
    (
        "tools",
        "roceway",
        &[
            "roceway-stack",
            "roceway-rdma-virtio",
            "roceway-busypoll",
            "roceway-runtime",
            "roceway-perf",
        ],
    ),
    (
        "fuzz",
        "roceway-fuzz",
        &["roceway-stack", "roceway-rdma-virtio", "roceway-runtime", "roceway-perf"],
    ),
    ("tools/verbs-oracle", "roceway-verbs-oracle", &["roceway-rdma-virtio"]),
];

/// Crates below a layer's folder that stand alone: they import what is named above, or nothing.
const ALONE: [&str; 3] = ["tools/verbs-double", "tools/verbs-oracle", "perf/lwip"];

/// The crates that `folder` may import.
fn allowed(folder: &str) -> &'static [&'static str] {
    LAYERS.iter().find(|layer| layer.0 == folder).map_or(&[], |layer| layer.2)
}

fn finding(path: &str, line: usize, what: String) -> Finding {
    Finding { rule: "layer", path: path.to_string(), line, item: String::new(), what }
}

/// Findings in the manifests: dependencies that go up or sideways, and members that are no layer.
pub(crate) fn check_manifests(root: &Path) -> Vec<Finding> {
    let mut findings = members(&fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default());
    for folder in FOLDERS.into_iter().chain(ALONE) {
        let path = format!("{folder}/Cargo.toml");
        let text = fs::read_to_string(root.join(&path)).unwrap_or_default();
        findings.extend(manifest(&path, folder, &text));
    }
    findings
}

fn members(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(list) = line.strip_prefix("members") else { continue };
        for member in list.split('"').skip(1).step_by(2) {
            if !FOLDERS.contains(&member) && !ALONE.contains(&member) {
                let what = format!("`{member}` is no layer: put it into one of {FOLDERS:?}");
                findings.push(finding("Cargo.toml", index + 1, what));
            }
        }
    }
    findings
}

fn manifest(path: &str, folder: &str, text: &str) -> Vec<Finding> {
    let (mut findings, mut in_dependencies) = (Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.trim_matches(['[', ']']).ends_with("dependencies");
            // `[dependencies.name]` names the crate in the heading.
            if let Some((_, name)) = line.trim_matches(['[', ']']).split_once("dependencies.") {
                findings.extend(dependency(path, folder, index + 1, name));
            }
        } else if in_dependencies {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            findings.extend(dependency(path, folder, index + 1, name));
        }
    }
    findings
}

fn dependency(path: &str, folder: &str, line: usize, name: &str) -> Option<Finding> {
    let ours = name == "roceway" || name.starts_with("roceway-");
    (ours && !allowed(folder).contains(&name))
        .then(|| finding(path, line, format!("{folder} must not import {name}: remove it")))
}

/// Findings in one file: paths to crates that its crate may not import, and modules that lie in
/// another crate.
pub(crate) fn check_source(source: &Source) -> Vec<Finding> {
    let alone = ALONE.into_iter().find(|alone| source.path.starts_with(&format!("{alone}/")));
    let folder = alone.unwrap_or_else(|| source.path.split('/').next().unwrap_or_default());
    let mut findings = Vec::new();
    for (_, name, _) in LAYERS {
        let identifier = name.replace('-', "_");
        let own = LAYERS.iter().any(|layer| layer.0 == folder && layer.1 == name);
        if own || allowed(folder).contains(&name) {
            continue;
        }
        for at in words(&source.code, &identifier) {
            // The command's crate is called like the project and like modules of others, so only
            // paths that begin with it count.
            let begins_path = source.code[at + identifier.len()..].starts_with("::")
                && !source.code[..at].ends_with("::");
            if name == "roceway" && !begins_path {
                continue;
            }
            let line = line_of(&source.code, at);
            let what = format!("{folder} must not import {name}: say it in its own words");
            findings.push(finding(&source.path, line, what));
        }
    }
    for (index, line) in source.text.lines().enumerate() {
        // Folders between the file and its crate's: so far up a path may go.
        let depth = source.path.split('/').count().saturating_sub(2);
        if line.trim_start().starts_with("#[path") && line.matches("../").count() > depth {
            let what = "keep the module in its own crate".to_string();
            findings.push(finding(&source.path, index + 1, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_go_down_only() {
        for (folder, text, expected) in [
            ("stack", "[dependencies]\narrayvec.workspace = true", 0),
            ("stack", "[dependencies]\nroceway-busypoll.workspace = true", 1),
            ("stack", "[dev-dependencies]\nroceway-runtime = { path = \"x\" }", 1),
            ("busypoll", "[target.'cfg(loom)'.dependencies.roceway-stack]\npath = \"x\"", 1),
            ("runtime", "[dependencies]\nroceway-stack.workspace = true", 0),
            ("perf", "[dependencies]\nroceway-stack.workspace = true", 1),
            ("runtime", "[dependencies]\nroceway = \"1\"", 1),
            ("stack", "[package]\nname = \"roceway-stack\"", 0),
            ("tools/verbs-double", "[dependencies]\nroceway-rdma-virtio = \"1\"", 1),
            ("tools/verbs-oracle", "[dependencies]\nroceway-rdma-virtio = \"1\"", 0),
            ("tools/verbs-oracle", "[dependencies]\nroceway-runtime = \"1\"", 1),
        ] {
            assert_eq!(manifest("x", folder, text).len(), expected, "{folder}: {text}");
        }
        assert_eq!(members("members = [\"stack\", \"common\"]").len(), 1);
    }

    #[test]
    fn paths_go_down_only() {
        for (path, text, expected) in [
            ("stack/src/a.rs", "use roceway_busypoll::Loop;", 1),
            ("stack/src/a.rs", "// use roceway_busypoll::Loop;", 0),
            ("stack/tests/a.rs", "use roceway_stack::time;", 0),
            ("perf/src/a.rs", "roceway_stack::x()", 1),
            ("tools/src/a.rs", "roceway_stack::x()", 0),
            ("tools/verbs-double/src/a.rs", "roceway_rdma_virtio::x()", 1),
            ("tools/verbs-oracle/src/a.rs", "roceway_rdma_virtio::x()", 0),
            ("runtime/src/a.rs", "use roceway::x;", 1),
            ("perf/src/a.rs", "use crate::roceway::x;", 0),
            ("runtime/src/a.rs", "#[path = \"../../stack/src/x.rs\"]", 1),
            ("stack/tests/a/main.rs", "#[path = \"../support/mod.rs\"]", 0),
        ] {
            assert_eq!(check_source(&Source::new(path, text)).len(), expected, "{path}: {text}");
        }
    }
}
