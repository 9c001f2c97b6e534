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
/// Memory: with readahead, it holds two pieces more than the number of parallel reads ([`Ranged::parallel_reads`]).
pub(super) struct ReadAhead {
    source: Arc<dyn Ranged>,
    /// The range that has not been requested yet.
    rest: Range<u64>,
    parallel: Option<ParallelReads>,
    hasher: Hasher,
}

/// Passes a whole file to `sink`, in order. Returns its SHA-256.
pub fn stream(file: Arc<dyn Ranged>, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Sha256> {
    let bytes = file.len();
    let mut reader = ReadAhead::new(file, 0..bytes)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        crate::platform::interrupt::check()?;
        match reader.read(&mut buffer).io(Kind::Unreachable, || "cannot read the archive".to_owned())? {
            0 => return Ok(reader.sha256()),
            length => sink(&buffer[..length])?,
        }
    }
}

/// The state of the readahead: the requests that threads send in parallel.
struct ParallelReads {
    feeder: Feeder<Range<u64>>,
    results: Ordered<Result<()>>,
    /// The number of pieces in flight. Requests stop once it exceeds `parallel`.
    in_flight: usize,
    /// The number of parallel reads.
    parallel: usize,
    piece: Vec<u8>,
    /// The number of bytes of the piece that were returned.
    returned: usize,
}

impl ReadAhead {
    /// Creates a reader of the bytes of `range`, which must lie within the file.
    pub(super) fn new(source: Arc<dyn Ranged>, range: Range<u64>) -> Result<Self> {
        let pieces = range.end.saturating_sub(range.start).div_ceil(PIECE_BYTES);
        let parallel = source.parallel_reads().min(usize::try_from(pieces).unwrap_or(usize::MAX));
        let parallel = if parallel > 1 { Some(ParallelReads::start(&source, parallel)?) } else { None };
        Ok(ReadAhead { source, rest: range, parallel, hasher: Hasher::new() })
    }

    /// Returns the SHA-256 of the bytes that were returned.
    pub(super) fn sha256(self) -> Sha256 {
        self.hasher.finish()
    }
}

impl ParallelReads {
    fn start(source: &Arc<dyn Ranged>, parallel: usize) -> Result<Self> {
        let worker = || {
            let source = Arc::clone(source);
            Ok(move |range: Range<u64>, _: &[u8], output: &mut Vec<u8>| {
                output.resize(usize::try_from(range.end - range.start).expect("a piece"), 0);
                source.read_at(range.start, output).map_err(Error::from)
            })
        };
        let (feeder, results) = pipeline::start(parallel, "read", worker)?;
        Ok(ParallelReads { feeder, results, in_flight: 0, parallel, piece: Vec::new(), returned: 0 })
    }

    /// Requests as many pieces as may be in flight, and waits for the next one.
    fn next_piece(&mut self, rest: &mut Range<u64>) -> io::Result<()> {
        let died = || io::Error::from(Error::failed("a read thread ended unexpectedly"));
        self.results.recycle(std::mem::take(&mut self.piece));
        self.returned = 0;
        while self.in_flight <= self.parallel && !rest.is_empty() {
            let end = rest.end.min(rest.start + PIECE_BYTES);
            let input = self.feeder.buffer().ok_or_else(died)?;
            if !self.feeder.send(rest.start..end, input) {
                return Err(died());
            }
            rest.start = end;
            self.in_flight += 1;
        }
        if self.in_flight == 0 {
            return Ok(());
        }
        let (result, piece) = self.results.next().ok_or_else(died)?;
        self.in_flight -= 1;
        self.piece = piece;
        Ok(result?)
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.parallel {
            None => {
                let left = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
                let length = buffer.len().min(left);
                self.source.read_at(self.rest.start, &mut buffer[..length])?;
                self.rest.start += length as u64;
                length
            }
            Some(reads) => {
                if reads.returned == reads.piece.len() {
                    reads.next_piece(&mut self.rest)?;
                }
                let piece = &reads.piece[reads.returned..];
                let length = buffer.len().min(piece.len());
                buffer[..length].copy_from_slice(&piece[..length]);
                reads.returned += length;
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
    struct Remote(Vec<u8>, usize, Option<u64>);

    impl Ranged for Remote {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            if self.2.is_some_and(|broken| (offset..offset + buffer.len() as u64).contains(&broken)) {
                return Err(Error::unreachable("the connection is closed").into());
            }
            self.0.read_at(offset, buffer)
        }
        fn parallel_reads(&self) -> usize {
            self.1
        }
    }

    #[test]
    fn bytes_are_returned_in_order_for_any_number_of_parallel_reads() {
        let bytes: Vec<u8> = (0..25_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for parallel in [1, 2, 4, 9] {
            for range in [0..bytes.len() as u64, 5..6, 17..17, 4_000_000..21_000_001] {
                let source = Arc::new(Remote(bytes.clone(), parallel, None));
                let mut reader = ReadAhead::new(source, range.clone()).expect("starts");
                let mut read = Vec::new();
                reader.read_to_end(&mut read).expect("complete");
                assert!(read == bytes[range.start as usize..range.end as usize], "{parallel} {range:?}");
                assert_eq!(reader.sha256(), Sha256::of(&read));
            }
        }
    }

    #[test]
    fn errors_of_the_source_keep_their_kind() {
        for parallel in [1, 4] {
            let source = Arc::new(Remote(vec![7; 20_000_000], parallel, Some(13_000_000)));
            let mut reader = ReadAhead::new(source, 0..20_000_000).expect("starts");
            let error = Error::from(reader.read_to_end(&mut Vec::new()).expect_err("a failed read"));
            assert_eq!(error.kind, crate::platform::error::Kind::Unreachable, "{error}");
        }
    }
}
