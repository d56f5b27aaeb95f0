//! What a guest says on its second serial port: `@SIDE WORD REST`, one line each. Owns the grammar;
//! a line that is none of it is an error, never skipped.

use serde_json::Value;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not so.
    Failed,
    /// It cannot be made here.
    Skipped,
}

/// One line.
#[derive(Clone, PartialEq, Debug)]
pub enum Line {
    /// The guest is up; its kernel's release.
    Ready(String),
    /// The guest could not be set up.
    Broken(String),
    /// A note.
    Say(String),
    /// A check's name, its verdict, and the detail or reason.
    Check(String, Verdict, String),
    /// Rows of a `perf --json` document.
    Rows(Vec<Value>),
    /// The side waits for the other at this place.
    Meet(String),
    /// The side's function of this scenario returned this status.
    End(String, i32),
    /// The guest powers off; nothing follows.
    Done,
}

/// A line with the side that said it.
///
/// # Errors
///
/// The reason why it is no line of a guest.
pub fn parse(text: &str) -> Result<(String, Line), String> {
    let refuse = |why: &str| Err(format!("{why}: {text:?}"));
    let Some((side, rest)) = text.strip_prefix('@').and_then(|text| text.split_once(' ')) else {
        return refuse("not a line of a guest");
    };
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (first, detail) = rest.split_once(' ').unwrap_or((rest, ""));
    let check = |verdict| Line::Check(first.to_owned(), verdict, detail.trim().to_owned());
    let line = match word {
        "ready" => Line::Ready(rest.to_owned()),
        "broken" => Line::Broken(rest.to_owned()),
        "say" => Line::Say(rest.to_owned()),
        "passed" => check(Verdict::Passed),
        "failed" => check(Verdict::Failed),
        "skipped" => check(Verdict::Skipped),
        "rows" => match rows(rest) {
            Some(rows) => Line::Rows(rows),
            None => return refuse("no rows of a perf --json document"),
        },
        "meet" => Line::Meet(rest.to_owned()),
        "end" => match detail.parse() {
            Ok(status) => Line::End(first.to_owned(), status),
            Err(_) => return refuse("an end without a status"),
        },
        "done" => Line::Done,
        _ => return refuse("unknown word"),
    };
    Ok((side.to_owned(), line))
}

/// The rows of a document; each must name its test, stack and device.
fn rows(text: &str) -> Option<Vec<Value>> {
    let mut document: Value = serde_json::from_str(text).ok()?;
    let Value::Array(rows) = document.get_mut("rows")?.take() else { return None };
    let is_row = |row: &Value| ["test", "stack", "device"].iter().all(|key| row[key].is_string());
    (!rows.is_empty() && rows.iter().all(is_row)).then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_of_a_guest_are_understood() {
        let row = json!({"test": "TCP_RR", "stack": "roceway", "device": "rdma:rxe0,mode=rc"});
        let document = format!("@b rows {}", json!({"rows": [row], "lost": 0}));
        let rows = [
            ("@ab ready 6.1.0-56-amd64", "ab", Line::Ready("6.1.0-56-amd64".into())),
            ("@a broken insmod x", "a", Line::Broken("insmod x".into())),
            ("@a say so it is", "a", Line::Say("so it is".into())),
            ("@b passed rc", "b", Line::Check("rc".into(), Verdict::Passed, String::new())),
            (
                "@b failed rc 3 of 4",
                "b",
                Line::Check("rc".into(), Verdict::Failed, "3 of 4".into()),
            ),
            ("@b skipped x no", "b", Line::Check("x".into(), Verdict::Skipped, "no".into())),
            (document.as_str(), "b", Line::Rows(vec![row])),
            ("@a meet place", "a", Line::Meet("place".into())),
            ("@a end name 137", "a", Line::End("name".into(), 137)),
            ("@a done", "a", Line::Done),
        ];
        for (text, side, line) in rows {
            assert_eq!(parse(text), Ok((side.to_owned(), line)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let rows = [
            "",
            "ready",
            "@a",
            "@a what",
            "@a end name",
            "@a end name x",
            "@a rows",
            "@a rows {}",
            "@a rows {\"rows\":[]}",
            "@a rows {\"rows\":[{\"test\":\"x\"}]}",
            "[    1.0] Kernel panic",
        ];
        for text in rows {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
