//! How two ends find each other: each says one line over TCP.
//!
//! `queue-pair NUMBER psn NUMBER lid NUMBER mtu BYTES qkey NUMBER gid HEX32`. Owns the text and
//! nothing else; psn is what the sender's packets begin with.

use crate::{Failure, said};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What one end says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Its queue pair.
    pub queue_pair: u32,
    /// The packet sequence number that it begins with.
    pub psn: u32,
    /// Its LID; 0 on Ethernet.
    pub lid: u16,
    /// Its path MTU in bytes.
    pub mtu: u16,
    /// Its Q_Key; 0 of a connected queue pair.
    pub qkey: u32,
    /// Its GID.
    pub gid: [u8; 16],
}

impl Hello {
    /// The line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let gid: String = self.gid.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "queue-pair {} psn {} lid {} mtu {} qkey {} gid {gid}",
            self.queue_pair, self.psn, self.lid, self.mtu, self.qkey
        )
    }

    /// Reads a line.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Hello> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [
            "queue-pair",
            queue_pair,
            "psn",
            psn,
            "lid",
            lid,
            "mtu",
            mtu,
            "qkey",
            qkey,
            "gid",
            gid,
        ] = words[..]
        else {
            return None;
        };
        if gid.len() != 32 {
            return None;
        }
        Some(Hello {
            queue_pair: queue_pair.parse().ok()?,
            psn: psn.parse().ok()?,
            lid: lid.parse().ok()?,
            mtu: mtu.parse().ok()?,
            qkey: qkey.parse().ok()?,
            gid: u128::from_str_radix(gid, 16).ok()?.to_be_bytes(),
        })
    }
}

/// A connection over which both ends talk.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Waits for the other end.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn listen(address: SocketAddr) -> Result<Wire, Failure> {
        let (stream, _) = TcpListener::bind(address)?.accept()?;
        Wire::over(stream)
    }

    /// Goes to the other end, which may not listen yet.
    ///
    /// # Errors
    /// If nobody listens within the time.
    pub fn dial(address: SocketAddr, patience: Duration) -> Result<Wire, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => return Wire::over(stream),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn over(stream: TcpStream) -> Result<Wire, Failure> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Wire { stream: BufReader::new(stream) })
    }

    /// Says a line.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn say(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?)
    }

    /// Hears a line.
    ///
    /// # Errors
    /// If the other end is gone, or says nothing for a minute.
    pub fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(said("the other end has hung up"));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Says who this is and hears who the other is.
    ///
    /// # Errors
    /// If the other end is gone or says something else.
    pub fn introduce(&mut self, own: &Hello) -> Result<Hello, Failure> {
        self.say(&own.to_line())?;
        let line = self.hear()?;
        Hello::from_line(&line).ok_or_else(|| said(format!("the other end said `{line}`")))
    }

    /// Waits until both have come here.
    ///
    /// # Errors
    /// If the other end is gone or says something else.
    pub fn meet(&mut self, point: &str) -> Result<(), Failure> {
        self.say(point)?;
        let heard = self.hear()?;
        if heard == point { Ok(()) } else { Err(said(format!("heard `{heard}`, not `{point}`"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_its_line_and_garbage_is_none() {
        let hello =
            Hello { queue_pair: 17, psn: 0xff_ffff, lid: 3, mtu: 4096, qkey: 7, gid: [0xfe; 16] };
        let line = hello.to_line();
        assert_eq!(Hello::from_line(&line), Some(hello));
        for garbage in ["", "queue-pair 17", "hello", &line[..line.len() - 1], &format!("{line} x")]
        {
            assert_eq!(Hello::from_line(garbage), None, "{garbage}");
        }
    }
}
