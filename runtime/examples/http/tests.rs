//! The file server of the examples: what it serves, and what it refuses.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use roceway_runtime::settings::Settings;
use roceway_runtime::shared::{Manner, TcpListener, TcpStream, Worker};

use super::request::{Refusal, Request, end_of_head, parse};
use super::serve::{Reading, serve};
use crate::support::{second, soft_pair};

fn file(path: &str, keep_alive: bool) -> Result<Request, Refusal> {
    Ok(Request { path: PathBuf::from(path), head_only: false, keep_alive })
}

#[test]
fn requests_are_understood_or_refused() {
    let rows: &[(&str, Result<Request, Refusal>)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", file("index.html", true)),
        ("GET /a/b.txt?c=d HTTP/1.0\r\n\r\n", file("a/b.txt", false)),
        ("GET /a%20b HTTP/1.1\r\nhost:a\r\nConnection: close\r\n\r\n", file("a b", false)),
        ("GET //a/./b/ HTTP/1.1\r\nHost: a\r\n\r\n", file("a/b/index.html", true)),
        ("GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::NotFound)),
        ("GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::NotFound)),
        ("GET /a/%2e%2e%2fb HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::NotFound)),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::NotFound)),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET / HTTP/1.1\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Err(Refusal::BadRequest)),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(Refusal::VersionNotSupported)),
        ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", Err(Refusal::BadRequest)),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::MethodNotAllowed)),
        ("\r\n\r\n", Err(Refusal::BadRequest)),
    ];
    for (head, expected) in rows {
        assert_eq!(parse(head.as_bytes()), *expected, "{head}");
    }
    assert!(parse(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok_and(|request| request.head_only));
}

fn files() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    std::fs::write(root.path().join("large"), large).expect("a file");
    std::fs::write(root.path().join("index.html"), "hello").expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", root.path().join("out")).expect("a link");
    root
}

/// Status line and body.
fn ask(client: &Worker, head: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(client, second(80)).expect("a connection");
    stream.write_all(head.as_bytes()).expect("room");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = end_of_head(&answer).expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    (head.lines().next().unwrap_or_default().to_owned(), answer[end..].to_vec())
}

#[test]
fn files_are_served_in_both_manners() {
    let root = files();
    let serve_below = |listener: TcpListener, root: &Path, reading| {
        let root = root.to_owned();
        thread::spawn(move || serve(&listener, &root, reading))
    };
    let rows = [(Manner::Owned, Reading::ZeroCopy), (Manner::CallerDriven, Reading::ZeroCopy)];
    let rows = rows.into_iter().chain(rows.map(|(manner, _)| (manner, Reading::Copy)));
    for (manner, reading) in rows {
        let [client, server] = soft_pair(&Settings::new()).map(|(nic, settings)| {
            Worker::with_nic(nic, &settings.worker, manner).expect("a worker")
        });
        let listener = TcpListener::bind(&server, second(80)).expect("a listener");
        let serving = serve_below(listener.try_clone().expect("a handle"), root.path(), reading);
        let (status, body) = ask(&client, "GET /large HTTP/1.0\r\n\r\n");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(body == std::fs::read(root.path().join("large")).expect("a file"));
        for (head, expected) in [
            ("HEAD /large HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
            ("GET /none HTTP/1.0\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("GET /out HTTP/1.0\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("PUT / HTTP/1.0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ] {
            let (status, body) = ask(&client, head);
            assert_eq!(status, expected, "{head}");
            assert!(body.len() < 100, "{head}");
        }
        // Two requests at once, in order, on one connection.
        let two = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\
                   Connection: close\r\n\r\n";
        let (_, body) = ask(&client, two);
        let body = String::from_utf8(body).expect("text");
        assert!(body.starts_with("helloHTTP/1.1 200 OK"), "{body}");
        let (status, _) = ask(&client, &format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(17_000)));
        assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
        listener.shutdown().expect("a worker");
        serving.join().expect("the server").expect("an orderly end");
    }
}
