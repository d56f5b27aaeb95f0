//! Finds functions in masked text: name, lines, number of parameters.

use crate::mask::{is_word, line_of, words};

/// A function with a body, or a declaration without one.
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of `fn`.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub(crate) lines: usize,
    /// Parameters, `self` included.
    pub(crate) parameters: usize,
}

/// All functions of masked text, nested ones too.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    words(code, "fn").filter_map(|at| function(code, at)).collect()
}

/// The function whose keyword stands at `at`; none for the type `fn(…)`.
fn function(code: &str, at: usize) -> Option<Function> {
    let rest = &code[at + 2..];
    let name: String =
        rest.trim_start().bytes().take_while(|byte| is_word(*byte)).map(char::from).collect();
    if name.is_empty() {
        return None;
    }
    let open = at + 2 + find(rest, |byte, depth| byte == b'(' && depth == 0)?;
    let (close, parameters) = parameters(code, open)?;
    let after = &code[close..];
    let end = close + find(after, |byte, depth| matches!(byte, b'{' | b';') && depth == 0)?;
    let last = if code.as_bytes()[end] == b'{' { closing_brace(code, end)? } else { end };
    let line = line_of(code, at);
    Some(Function { name, line, lines: line_of(code, last) - line + 1, parameters })
}

/// How a byte changes the depth of parentheses, brackets and angles. The angle of `->` and `=>`
/// closes nothing.
fn step(byte: u8, before: u8) -> isize {
    match byte {
        b'(' | b'[' | b'<' => 1,
        b')' | b']' => -1,
        b'>' if before != b'-' && before != b'=' => -1,
        _ => 0,
    }
}

/// The first place where `wanted` holds for the byte and the depth before it.
fn find(text: &str, wanted: impl Fn(u8, isize) -> bool) -> Option<usize> {
    let (mut depth, mut before) = (0, b' ');
    for (at, byte) in text.bytes().enumerate() {
        if wanted(byte, depth) {
            return Some(at);
        }
        depth += step(byte, before);
        before = byte;
    }
    None
}

/// The place after the closing parenthesis of the list that opens at `open`, and its length.
fn parameters(code: &str, open: usize) -> Option<(usize, usize)> {
    let (mut depth, mut before, mut commas) = (0, b' ', 0);
    let mut since_comma = false;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        depth += step(byte, before);
        before = byte;
        match byte {
            b')' if depth == 0 => return Some((at + 1, commas + usize::from(since_comma))),
            b',' if depth == 1 => {
                commas += 1;
                since_comma = false;
            }
            byte if at > open && !byte.is_ascii_whitespace() => since_comma = true,
            _ => {}
        }
    }
    None
}

fn closing_brace(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::functions;

    #[test]
    fn functions_are_measured() {
        for (text, expected) in [
            ("fn a() {}", ("a", 1, 0)),
            ("pub fn a(\n    &self,\n    b: u8,\n) -> [u8; 2]\n{\n}", ("a", 6, 2)),
            ("fn a<F: Fn(u8) -> u8>(f: F) where F: Clone { if x { y } }", ("a", 1, 1)),
            ("fn a(f: fn(u8, u8) -> u8, g: Box<dyn Fn(u8) -> A<u8, u8>>);", ("a", 1, 2)),
        ] {
            let found = &functions(text)[0];
            assert_eq!((found.name.as_str(), found.lines, found.parameters), expected, "{text}");
        }
        assert!(functions("type A = fn(u8) -> u8;").is_empty());
    }
}
