//! As much of HTTP/2 as it takes to send gRPC messages that no library would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;

/// Bytes after which a connection is given up: below the window that a server opens at first.
const CONNECTION_BYTES_MAX: usize = 48 << 10;

/// A connection to a gRPC server.
pub struct Http2 {
    stream: TcpStream,
    next_stream: u32,
    sent: usize,
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is in no table.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        // Longer ones than a byte of seven bits can say are not used.
        [&[u8::try_from(text.len().min(126)).unwrap_or(126)][..], &text.as_bytes()[..text.len().min(126)]]
            .concat()
    };
    [&[0][..], &text(name), &text(value)].concat()
}

/// A gRPC message: not compressed, its length, its bytes.
#[must_use]
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, bytes].concat()
}

impl Http2 {
    /// Connects and greets.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(port: u16) -> Result<Http2> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        stream.write_all(&frame(4, 0, 0, &[]))?;
        Ok(Http2 { stream, next_stream: 1, sent: 0 })
    }

    /// Opens a stream and sends what is to be its data, whole or not. False when the connection takes no more.
    pub fn call(&mut self, path: &str, metadata: &[(&str, &str)], data: &[u8], ends: bool) -> bool {
        let mut headers =
            vec![literal(":method", "POST"), literal(":scheme", "http"), literal(":path", path)];
        headers.push(literal(":authority", "localhost"));
        headers.push(literal("content-type", "application/grpc"));
        headers.push(literal("te", "trailers"));
        headers.extend(metadata.iter().map(|(name, value)| literal(name, value)));
        let headers = frame(1, 4, self.next_stream, &headers.concat());
        let mut bytes = headers;
        for chunk in data.chunks(16_000) {
            bytes.extend(frame(0, 0, self.next_stream, chunk));
        }
        if ends {
            bytes.extend(frame(0, 1, self.next_stream, &[]));
        } else {
            // As a client that resets its stream does.
            bytes.extend(frame(3, 0, self.next_stream, &8_u32.to_be_bytes()));
        }
        self.next_stream += 2;
        self.say(&bytes)
    }

    /// Sends bytes as they are. False when the connection takes no more.
    pub fn say(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        let written = self.stream.write_all(bytes).is_ok();
        written && self.sent < CONNECTION_BYTES_MAX && self.take()
    }

    /// Takes what has come and forgets it. False when the other side has ended.
    pub fn take(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let _nonblocking = self.stream.set_nonblocking(true);
        let alive = match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        let _blocking = self.stream.set_nonblocking(false);
        alive
    }
}
