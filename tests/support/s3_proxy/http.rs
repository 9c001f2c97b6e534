//! Reads HTTP/1.1 messages: heads, and bodies in pieces.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::net::TcpStream;

const PIECE_BYTES: usize = 64 * 1024;
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Returns the value of a header.
pub fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The head of a request or of a reply: its original bytes and its parts.
pub struct Head {
    pub bytes: Vec<u8>,
    /// The request line or the status line.
    pub first_line: String,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads up to the empty line. Returns `None` if the other side has closed the connection.
    pub fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let line = read_line(from)?;
            if line.is_empty() && bytes.is_empty() {
                return Ok(None);
            }
            bytes.extend_from_slice(&line);
            if !line.ends_with(b"\n") || bytes.len() > MAX_HEAD_BYTES {
                return Err(ErrorKind::InvalidData.into());
            }
            if line == b"\r\n" {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let first_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Some(Head { bytes, first_line, headers }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Returns how the end of the body is marked, or `None` if the head does not state it.
    pub fn framing(&self) -> io::Result<Option<Framing>> {
        if self.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
            return Ok(Some(Framing::Chunked));
        }
        let length = self.header("content-length").map(str::parse).transpose();
        Ok(length.map_err(|_| ErrorKind::InvalidData)?.map(Framing::Length))
    }

    /// Returns true if the connection must be closed after this message.
    pub fn wants_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || self.first_line.starts_with("HTTP/1.0")
    }
}

/// Returns a head with one header removed or changed to another value.
pub fn rewrite(head: &[u8], name: &str, value: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(head.len());
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let key = line.split(|byte| *byte == b':').next().unwrap_or_default();
        match value {
            _ if key.len() == line.len() || !key.eq_ignore_ascii_case(name.as_bytes()) => bytes.extend_from_slice(line),
            None => {}
            Some(value) => {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(format!(": {value}\r\n").as_bytes());
            }
        }
    }
    bytes
}

/// The way in which the end of a body is marked: by its length, by chunks, or by the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    ToEnd,
}

impl Framing {
    pub fn is_empty(self) -> bool {
        self == Framing::Length(0)
    }

    /// Returns a number of bytes that is at most `most` and less than the whole body.
    pub fn less_than_all(self, most: u64) -> u64 {
        match self {
            Framing::Length(length) => most.min(length.saturating_sub(1)),
            Framing::Chunked | Framing::ToEnd => most,
        }
    }
}

/// The kind of a piece of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Payload,
    /// A line that begins or ends a chunk.
    Frame,
    /// The line of the last chunk, or a line after it.
    End,
}

/// Reads a body to its end and passes it to `take` in pieces of at most [`PIECE_BYTES`].
pub fn read_body(
    from: &mut BufReader<TcpStream>,
    framing: Framing,
    mut take: impl FnMut(&mut [u8], Piece) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut read_payload =
        |from: &mut BufReader<TcpStream>, mut left: u64, take: &mut dyn FnMut(&mut [u8], Piece) -> _| {
            while left > 0 {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let length = from.read(&mut buffer[..most])?;
                if length == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                left -= length as u64;
                take(&mut buffer[..length], Piece::Payload)?;
            }
            Ok(())
        };
    match framing {
        Framing::Length(length) => read_payload(from, length, &mut take),
        Framing::ToEnd => {
            while !from.fill_buf()?.is_empty() {
                let length = from.buffer().len() as u64;
                read_payload(from, length, &mut take)?;
            }
            Ok(())
        }
        Framing::Chunked => loop {
            let mut line = read_line(from)?;
            let length = chunk_length(&line).ok_or(ErrorKind::InvalidData)?;
            if length == 0 {
                loop {
                    take(&mut line, Piece::End)?;
                    if line == b"\r\n" {
                        return Ok(());
                    }
                    line = read_line(from)?;
                    if line.is_empty() {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            take(&mut line, Piece::Frame)?;
            read_payload(from, length, &mut take)?;
            take(&mut read_line(from)?, Piece::Frame)?;
        },
    }
}

fn read_line(from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(MAX_HEAD_BYTES as u64).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Parses the length in the line before a chunk, in the format of HTTP or of aws-chunked.
fn chunk_length(line: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(line).ok()?.split(';').next()?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

/// Extracts the payload of a body that the SDK sent as aws-chunked.
#[derive(Default)]
pub struct AwsChunks {
    line: Vec<u8>,
    left: u64,
    is_over: bool,
}

impl AwsChunks {
    /// Reads the next bytes of the body and passes the payload in them to `take`.
    pub fn read(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while !bytes.is_empty() && !self.is_over {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                take(payload);
                self.left -= payload.len() as u64;
                bytes = rest;
                continue;
            }
            self.line.push(bytes[0]);
            bytes = &bytes[1..];
            if self.line.ends_with(b"\n") && self.line != b"\r\n" {
                self.left = chunk_length(&self.line).unwrap_or(0);
                self.is_over = self.left == 0;
            }
            if self.line.ends_with(b"\n") {
                self.line.clear();
            }
        }
    }
}

/// Returns true if a reply with this status has no body.
pub fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}
