//! netperf's six tests, as a table. A test is an entry here; everything it does is shared parts.

use std::fmt;

use crate::control::SEND_DEFAULT;

/// The transport protocol of a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What the client's end of a test does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Request and response over one connection.
    RequestResponse,
    /// A connection for each request and response.
    ConnectRequestResponse,
    /// The client sends.
    Send,
    /// The client receives.
    Receive,
}

/// A test.
#[derive(PartialEq, Eq, Debug)]
pub struct Test {
    /// netperf's name.
    pub name: &'static str,
    /// Its protocol.
    pub protocol: Protocol,
    /// What it does.
    pub kind: Kind,
    /// One line for people.
    pub about: &'static str,
}

impl Test {
    /// Whether the result is a latency distribution rather than a rate of bytes.
    #[must_use]
    pub fn has_rtt(&self) -> bool {
        match self.kind {
            Kind::RequestResponse | Kind::ConnectRequestResponse => true,
            Kind::Send | Kind::Receive => false,
        }
    }

    /// Bytes of a message unless the user says otherwise: netperf's send call of a TCP stream, or
    /// the largest UDP payload that an Ethernet MTU of 1500 carries over either family.
    #[must_use]
    pub fn default_message(&self) -> usize {
        match self.protocol {
            Protocol::Tcp => SEND_DEFAULT,
            Protocol::Udp => 1452,
        }
    }
}

/// The tests.
pub static TESTS: [Test; 6] = [
    Test {
        name: "TCP_RR",
        protocol: Protocol::Tcp,
        kind: Kind::RequestResponse,
        about: "request and response over one TCP connection: round-trip time",
    },
    Test {
        name: "TCP_STREAM",
        protocol: Protocol::Tcp,
        kind: Kind::Send,
        about: "one TCP stream, client to server: throughput",
    },
    Test {
        name: "TCP_MAERTS",
        protocol: Protocol::Tcp,
        kind: Kind::Receive,
        about: "one TCP stream, server to client: throughput",
    },
    Test {
        name: "TCP_CRR",
        protocol: Protocol::Tcp,
        kind: Kind::ConnectRequestResponse,
        about: "connect, request, response, close: connections a second",
    },
    Test {
        name: "UDP_RR",
        protocol: Protocol::Udp,
        kind: Kind::RequestResponse,
        about: "request and response in datagrams: round-trip time",
    },
    Test {
        name: "UDP_STREAM",
        protocol: Protocol::Udp,
        kind: Kind::Send,
        about: "datagrams, client to server: throughput sent and received",
    },
];

/// A name that is no test.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub struct UnknownTest {
    /// What was asked for.
    pub asked: String,
    /// The valid name that is most like it.
    pub nearest: &'static str,
}

impl fmt::Display for UnknownTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = TESTS.iter().map(|test| test.name).collect();
        write!(
            f,
            "unknown test '{}'; did you mean {}? The tests are {}",
            self.asked,
            self.nearest,
            names.join(", ")
        )
    }
}

/// Finds a test by name, in either case, with `-` for `_` if the user likes.
///
/// # Errors
/// With the nearest name, if there is no such test.
pub fn find(name: &str) -> Result<&'static Test, UnknownTest> {
    let wanted = name.to_ascii_uppercase().replace('-', "_");
    if let Some(test) = TESTS.iter().find(|test| test.name == wanted) {
        return Ok(test);
    }
    let nearest = TESTS
        .iter()
        .map(|test| test.name)
        .min_by_key(|name| strsim::damerau_levenshtein(name, &wanted))
        .unwrap_or("TCP_RR");
    Err(UnknownTest { asked: name.to_owned(), nearest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_either_case_and_with_dashes() {
        for (asked, found) in
            [("tcp_rr", "TCP_RR"), ("TCP_Stream", "TCP_STREAM"), ("udp-rr", "UDP_RR")]
        {
            assert_eq!(find(asked).unwrap().name, found);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        for (asked, nearest) in
            [("tcp_r", "TCP_RR"), ("tcpmaerts", "TCP_MAERTS"), ("udp_steam", "UDP_STREAM")]
        {
            assert_eq!(find(asked).unwrap_err().nearest, nearest, "{asked}");
        }
        assert!(find("x").unwrap_err().to_string().contains("TCP_CRR"));
    }
}
