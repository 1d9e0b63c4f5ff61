//! A connection on which a test says whatever it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Longest wait for the other side to say or end something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection without manners.
pub struct Raw {
    stream: TcpStream,
}

/// A frontend message: tag, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A startup packet for a role and a database.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let body = [&196_608_u32.to_be_bytes()[..], format!("user\0{user}\0database\0{database}\0\0").as_bytes()]
        .concat();
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// The SQLSTATE in the body of an ErrorResponse.
pub fn sqlstate(body: &[u8]) -> Result<String> {
    let mut fields = body.split(|byte| *byte == 0).filter_map(|field| field.strip_prefix(b"C"));
    Ok(String::from_utf8(fields.next().context("no SQLSTATE")?.to_vec())?)
}

/// Parse of a statement without parameters' types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Bind of a portal to a statement without parameters; all results as text.
pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

/// Execute of a portal, at most so many rows; 0 for all.
pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0], &rows_max.to_be_bytes()].concat())
}

/// One Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

impl Raw {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> Result<Raw> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Raw { stream })
    }

    /// Connects and logs in without a password, up to the first ReadyForQuery.
    pub fn session(port: u16) -> Result<Raw> {
        let mut raw = Raw::connect(port)?;
        raw.say(&startup("postgres", "postgres"));
        loop {
            let (tag, body) = raw.message()?;
            match tag {
                b'Z' => return Ok(raw),
                b'E' => bail!("login failed: {}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }

    /// The socket.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Says something. The other side may have gone before it has heard it all.
    pub fn say(&mut self, bytes: &[u8]) {
        let _gone = self.stream.write_all(bytes);
    }

    /// Says that nothing more comes.
    pub fn hang_up(&mut self) {
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// The next backend message.
    pub fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).context("no message")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        ensure!((4..1 << 24).contains(&length), "a message of {length} bytes");
        let mut body = vec![0; usize::try_from(length)? - 4];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// All messages up to one of the kinds in `tags`, itself among them.
    pub fn until(&mut self, tags: &[u8]) -> Result<Vec<(u8, Vec<u8>)>> {
        let mut messages = Vec::new();
        loop {
            let message = self.message()?;
            let is_last = tags.contains(&message.0);
            messages.push(message);
            if is_last {
                return Ok(messages);
            }
        }
    }

    /// Runs one Query: the tags of what was answered, ParameterStatus and notices left out, and the SQLSTATE of its
    /// error.
    pub fn run(&mut self, sql: &str) -> Result<(String, Option<String>)> {
        self.say(&query(sql));
        let messages = self.until(b"Z")?;
        let tags = messages
            .iter()
            .map(|(tag, _)| char::from(*tag))
            .filter(|tag| !matches!(tag, 'S' | 'N'))
            .collect();
        let error =
            messages.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body)).transpose()?;
        Ok((tags, error))
    }

    /// The SQLSTATE of the next error, and whether the connection ended after it. Other messages are passed over.
    pub fn error(&mut self) -> Result<(String, bool)> {
        loop {
            let (tag, body) = self.message()?;
            if tag != b'E' {
                continue;
            }
            let state = sqlstate(&body)?;
            let severity_is_fatal = body.split(|byte| *byte == 0).any(|field| field == b"VFATAL");
            return Ok((state, severity_is_fatal));
        }
    }

    /// Waits until the other side ends the connection, in whatever way; what it said before.
    pub fn wait_for_end(&mut self) -> Result<Vec<u8>> {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(said),
                Ok(count) => said.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    bail!("the connection was left open; it said {:?}", String::from_utf8_lossy(&said))
                }
                // A reset is an end too.
                Err(_) => return Ok(said),
            }
        }
    }
}
