//! The list of exceptions: `rule | path[::function] | reason`, one a line, `#` begins a remark.

use crate::source::Finding;
use std::fs;
use std::path::Path;

const FILE: &str = "tools/tidy-exceptions.txt";

struct Exception {
    line: usize,
    rule: String,
    path: String,
    item: Option<String>,
    used: bool,
}

/// The findings that no exception covers, and findings about the exceptions themselves.
pub(crate) fn apply(root: &Path, findings: Vec<Finding>) -> Vec<Finding> {
    let text = fs::read_to_string(root.join(FILE)).unwrap_or_default();
    filter(&text, findings)
}

fn filter(text: &str, findings: Vec<Finding>) -> Vec<Finding> {
    let (mut exceptions, mut left) = parse(text);
    for finding in findings {
        let mut excepted = false;
        for exception in exceptions.iter_mut().filter(|exception| covers(exception, &finding)) {
            exception.used = true;
            excepted = true;
        }
        if !excepted {
            left.push(finding);
        }
    }
    let unused = exceptions.iter().filter(|exception| !exception.used);
    left.extend(unused.map(|e| own_finding(e.line, "remove it: it excepts nothing any more")));
    left
}

fn covers(exception: &Exception, finding: &Finding) -> bool {
    exception.rule == finding.rule
        && exception.path == finding.path
        && exception.item.as_ref().is_none_or(|item| *item == finding.item)
}

fn parse(text: &str) -> (Vec<Exception>, Vec<Finding>) {
    let (mut exceptions, mut findings) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.splitn(3, '|').map(str::trim).collect();
        match fields[..] {
            [rule, place, reason] if reason.len() >= 10 => {
                let (path, item) = match place.split_once("::") {
                    Some((path, item)) => (path, Some(item.to_string())),
                    None => (place, None),
                };
                exceptions.push(Exception {
                    line: index + 1,
                    rule: rule.to_string(),
                    path: path.to_string(),
                    item,
                    used: false,
                });
            }
            _ => {
                let what = "write `rule | path[::function] | reason`, the reason in words";
                findings.push(own_finding(index + 1, what));
            }
        }
    }
    (exceptions, findings)
}

fn own_finding(line: usize, what: &str) -> Finding {
    Finding {
        rule: "exception",
        path: FILE.to_string(),
        line,
        item: String::new(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn finding(item: &str) -> Finding {
        let mut finding = Source::new("a/b.rs", "").finding("function-length", 7, String::new());
        finding.item = item.to_string();
        finding
    }

    #[test]
    fn exceptions_cover_what_they_name_and_must_be_used() {
        for (name, text, left) in [
            ("none", "# remark\n\n", &["function-length"][..]),
            ("file", "function-length | a/b.rs | a table of states", &[]),
            ("function", "function-length | a/b.rs::f | a table of states", &[]),
            (
                "other function",
                "function-length | a/b.rs::g | a table of states",
                &["function-length", "exception"],
            ),
            ("no reason", "function-length | a/b.rs |", &["exception", "function-length"]),
        ] {
            let rules: Vec<&str> =
                filter(text, vec![finding("f")]).iter().map(|left| left.rule).collect();
            assert_eq!(rules, left, "{name}");
        }
    }
}
