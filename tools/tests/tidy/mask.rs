//! Blanks comments and the insides of literals in Rust text, keeping every line and column, so that
//! rules can look for keywords and braces without a parser.

/// What the scanner is in.
enum Place {
    Code,
    LineComment,
    /// Depth of nested comments.
    BlockComment(usize),
    Text,
    /// Number of `#`.
    RawText(usize),
}

/// The masked text: as long as `text` in bytes.
pub(crate) fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = Place::Code;
    while out.len() < bytes.len() {
        let rest = &bytes[out.len()..];
        let (keep, blank) = match &mut place {
            Place::Code => {
                let word_before = out.last().is_some_and(|byte| is_word(*byte));
                code(rest, word_before, &mut place)
            }
            Place::LineComment if rest[0] == b'\n' => leave(&mut place, 0),
            Place::LineComment => (0, 1),
            Place::BlockComment(depth) => match (rest, *depth) {
                ([b'*', b'/', ..], 1) => {
                    place = Place::Code;
                    (0, 2)
                }
                ([b'*', b'/', ..], _) => {
                    *depth -= 1;
                    (0, 2)
                }
                ([b'/', b'*', ..], _) => {
                    *depth += 1;
                    (0, 2)
                }
                _ => (0, 1),
            },
            Place::Text => match rest {
                [b'\\', _, ..] => (0, 2),
                [b'"', ..] => leave(&mut place, 1),
                _ => (0, 1),
            },
            Place::RawText(hashes) => {
                let closes = rest[0] == b'"'
                    && rest[1..].iter().take_while(|byte| **byte == b'#').count() >= *hashes;
                if closes { leave(&mut place, 1) } else { (0, 1) }
            }
        };
        out.extend_from_slice(&rest[..keep]);
        let blanked = rest[keep..].iter().take(blank);
        out.extend(blanked.map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
    }
    String::from_utf8(out).expect("code outside of literals and comments is ASCII here")
}

fn leave(place: &mut Place, keep: usize) -> (usize, usize) {
    *place = Place::Code;
    (keep, 0)
}

/// How many bytes to keep and how many to blank at `rest`, which is code.
fn code(rest: &[u8], word_before: bool, place: &mut Place) -> (usize, usize) {
    match rest {
        [b'/', b'/', ..] => {
            *place = Place::LineComment;
            (0, 2)
        }
        [b'/', b'*', ..] => {
            *place = Place::BlockComment(1);
            (0, 2)
        }
        [b'"', ..] => {
            *place = Place::Text;
            (1, 0)
        }
        [b'r' | b'b' | b'c', ..] if !word_before => match raw_text(rest) {
            Some((prefix, hashes)) => {
                *place = Place::RawText(hashes);
                (prefix, 0)
            }
            None => (1, 0),
        },
        [b'\'', ..] => (1, char_literal(rest)),
        [byte, ..] if byte.is_ascii() => (1, 0),
        _ => (0, 1),
    }
}

/// The prefix of a raw string, its quote included, and the number of `#`.
fn raw_text(rest: &[u8]) -> Option<(usize, usize)> {
    let letters = if rest[0] == b'r' { 1 } else { 2 };
    if letters == 2 && rest.get(1) != Some(&b'r') {
        return None;
    }
    let hashes = rest[letters..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(letters + hashes) == Some(&b'"')).then_some((letters + hashes + 1, hashes))
}

/// How many bytes after the quote belong to a character literal; 0 for a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    let end = match rest {
        [_, b'\\', ..] => 3 + rest[3..].iter().position(|byte| *byte == b'\'').unwrap_or(0),
        [_, first, ..] => {
            let length = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                0xf0.. => 4,
            };
            1 + length
        }
        _ => return 0,
    };
    if rest.get(end) == Some(&b'\'') { end } else { 0 }
}

/// Whether a byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The places of `word` as a whole word in masked text.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(at + word.len()).copied();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The line (from 1) of a place.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    1 + code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn mask_blanks_comments_and_literals() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("{ \" }") {"#, r#"f("      ") {"#),
            ("r#\"a\"b\"# x", "r#\"   \"# x"),
            ("br\"{\" b\"}\"", "br\" \" b\" \""),
            ("'{' 'a '\\'' '\\u{41}' b'}'", "'   'a '    '        b'  "),
            ("for<'a> x(y: &'a str)", "for<'a> x(y: &'a str)"),
            ("'é' }", "'    }"),
            ("let bar = r; // r\"", "let bar = r;      "),
        ] {
            assert_eq!(mask(text), expected, "{text}");
            assert_eq!(mask(text).len(), text.len(), "{text}");
        }
    }
}
