//! The head of an HTTP/1.1 request (RFC 9112 §3, §5): method, path and whether to keep the
//! connection. Believes nothing: whatever is not clearly a request for a file below the root is
//! refused.

use std::path::PathBuf;

/// Longest request head.
pub(crate) const HEAD_MAX: usize = 16 * 1024;

/// How a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 505
    VersionNotSupported,
}

/// A request that makes sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// Below the root; without `..`, root or prefix.
    pub(crate) path: PathBuf,
    /// HEAD: the body is not wanted.
    pub(crate) head_only: bool,
    pub(crate) keep_alive: bool,
}

/// Where the head ends, if it is complete: behind the empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Understands a complete head.
pub(crate) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let head = std::str::from_utf8(head).map_err(|_| Refusal::BadRequest)?;
    let mut lines = head.strip_suffix("\r\n\r\n").ok_or(Refusal::BadRequest)?.split("\r\n");
    let mut words = lines.next().ok_or(Refusal::BadRequest)?.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::BadRequest);
    };
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other if other.starts_with("HTTP/") => return Err(Refusal::VersionNotSupported),
        _ => return Err(Refusal::BadRequest),
    };
    let mut hosts = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Refusal::BadRequest)?;
        // RFC 9112 §5.1: no space before the colon; §5.2: no continuation lines.
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(Refusal::BadRequest);
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "connection" => match value.to_ascii_lowercase().as_str() {
                "close" => keep_alive = false,
                "keep-alive" => keep_alive = true,
                _ => {}
            },
            // A body would be taken for the next request.
            "content-length" if value != "0" => return Err(Refusal::BadRequest),
            "transfer-encoding" => return Err(Refusal::BadRequest),
            _ => {}
        }
    }
    // RFC 9112 §3.2: exactly one Host in HTTP/1.1.
    if hosts > 1 || (hosts == 0 && version == "HTTP/1.1") {
        return Err(Refusal::BadRequest);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refusal::MethodNotAllowed),
    };
    Ok(Request { path: path_of(target)?, head_only, keep_alive })
}

/// The path of a target in origin form (RFC 9112 §3.2.1), as one below the root.
fn path_of(target: &str) -> Result<PathBuf, Refusal> {
    let path = target.split(['?', '#']).next().unwrap_or("");
    let decoded = percent_decoded(path.strip_prefix('/').ok_or(Refusal::BadRequest)?)?;
    let mut below = PathBuf::new();
    for part in decoded.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." || part.contains(['\0', '\\']) {
            return Err(Refusal::NotFound);
        }
        below.push(part);
    }
    if decoded.is_empty() || decoded.ends_with('/') {
        below.push("index.html");
    }
    Ok(below)
}

fn percent_decoded(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = after else { return Err(Refusal::BadRequest) };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(Refusal::BadRequest);
        };
        bytes.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| Refusal::BadRequest)
}
