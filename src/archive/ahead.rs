//! Reads a range of a file in order, with readahead of several pieces if each read is a request to a server.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use super::pipeline::{self, Feeder, Ordered};
use crate::platform::digest::{Hasher, Sha256};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::Ranged;

/// The size of one readahead request.
const PIECE_BYTES: u64 = 4 << 20;

/// A sequential reader of a range of a file. It hashes the bytes that it returns.
///
/// Memory: with readahead, two pieces more than the number of parallel reads ([`Ranged::lanes`]).
pub(super) struct Ahead {
    source: Arc<dyn Ranged>,
    /// The range that has not been requested yet.
    rest: Range<u64>,
    lanes: Option<Lanes>,
    hasher: Hasher,
}

/// Passes a whole file to `sink`, in order. Returns its SHA-256.
pub fn stream(file: Arc<dyn Ranged>, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Sha256> {
    let bytes = file.len();
    let mut ahead = Ahead::new(file, 0..bytes)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        crate::platform::interrupt::check()?;
        match ahead.read(&mut buffer).io(Kind::Unreachable, || "cannot read the archive".to_owned())? {
            0 => return Ok(ahead.sha256()),
            length => sink(&buffer[..length])?,
        }
    }
}

struct Lanes {
    feeder: Feeder<Range<u64>>,
    results: Ordered<Result<()>>,
    /// The number of pieces in flight. Requests stop once it exceeds `most`.
    on_their_way: usize,
    most: usize,
    piece: Vec<u8>,
    /// The number of bytes of the piece that were returned.
    given: usize,
}

impl Ahead {
    /// Creates a reader of the bytes of `range`, which must lie within the file.
    pub(super) fn new(source: Arc<dyn Ranged>, range: Range<u64>) -> Result<Self> {
        let pieces = range.end.saturating_sub(range.start).div_ceil(PIECE_BYTES);
        let most = source.lanes().min(usize::try_from(pieces).unwrap_or(usize::MAX));
        let lanes = if most > 1 { Some(Lanes::start(&source, most)?) } else { None };
        Ok(Ahead { source, rest: range, lanes, hasher: Hasher::new() })
    }

    /// Returns the SHA-256 of the bytes that were returned.
    pub(super) fn sha256(self) -> Sha256 {
        self.hasher.finish()
    }
}

impl Lanes {
    fn start(source: &Arc<dyn Ranged>, most: usize) -> Result<Self> {
        let worker = || {
            let source = Arc::clone(source);
            Ok(move |range: Range<u64>, _: &[u8], output: &mut Vec<u8>| {
                output.resize(usize::try_from(range.end - range.start).expect("a piece"), 0);
                source.read_at(range.start, output).map_err(Error::from)
            })
        };
        let (feeder, results) = pipeline::start(most, "read", worker)?;
        Ok(Lanes { feeder, results, on_their_way: 0, most, piece: Vec::new(), given: 0 })
    }

    /// Requests as many pieces as may be in flight, and waits for the next one.
    fn next_piece(&mut self, rest: &mut Range<u64>) -> io::Result<()> {
        let died = || io::Error::from(Error::failed("a reading thread has died"));
        self.results.recycle(std::mem::take(&mut self.piece));
        self.given = 0;
        while self.on_their_way <= self.most && !rest.is_empty() {
            let end = rest.end.min(rest.start + PIECE_BYTES);
            let input = self.feeder.buffer().ok_or_else(died)?;
            if !self.feeder.send(rest.start..end, input) {
                return Err(died());
            }
            rest.start = end;
            self.on_their_way += 1;
        }
        if self.on_their_way == 0 {
            return Ok(());
        }
        let (result, piece) = self.results.next().ok_or_else(died)?;
        self.on_their_way -= 1;
        self.piece = piece;
        Ok(result?)
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.lanes {
            None => {
                let left = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
                let length = buffer.len().min(left);
                self.source.read_at(self.rest.start, &mut buffer[..length])?;
                self.rest.start += length as u64;
                length
            }
            Some(lanes) => {
                if lanes.given == lanes.piece.len() {
                    lanes.next_piece(&mut self.rest)?;
                }
                let piece = &lanes.piece[lanes.given..];
                let length = buffer.len().min(piece.len());
                buffer[..length].copy_from_slice(&piece[..length]);
                lanes.given += length;
                length
            }
        };
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that allows parallel reads, and can fail at one offset.
    struct Far(Vec<u8>, usize, Option<u64>);

    impl Ranged for Far {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            if self.2.is_some_and(|broken| (offset..offset + buffer.len() as u64).contains(&broken)) {
                return Err(Error::unreachable("the line is cut").into());
            }
            self.0.read_at(offset, buffer)
        }
        fn lanes(&self) -> usize {
            self.1
        }
    }

    #[test]
    fn bytes_come_in_order_whatever_the_lanes() {
        let bytes: Vec<u8> = (0..25_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for lanes in [1, 2, 4, 9] {
            for range in [0..bytes.len() as u64, 5..6, 17..17, 4_000_000..21_000_001] {
                let source = Arc::new(Far(bytes.clone(), lanes, None));
                let mut ahead = Ahead::new(source, range.clone()).expect("starts");
                let mut read = Vec::new();
                ahead.read_to_end(&mut read).expect("whole");
                assert!(read == bytes[range.start as usize..range.end as usize], "{lanes} {range:?}");
                assert_eq!(ahead.sha256(), Sha256::of(&read));
            }
        }
    }

    #[test]
    fn what_breaks_below_comes_through() {
        for lanes in [1, 4] {
            let source = Arc::new(Far(vec![7; 20_000_000], lanes, Some(13_000_000)));
            let mut ahead = Ahead::new(source, 0..20_000_000).expect("starts");
            let error = Error::from(ahead.read_to_end(&mut Vec::new()).expect_err("cut"));
            assert_eq!(error.kind, crate::platform::error::Kind::Unreachable, "{error}");
        }
    }
}
