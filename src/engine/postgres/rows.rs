//! Rows as COPY prints them: counted and hashed one by one while they pass.

use crate::digest::RowDigest;

/// Count, bytes and digest of rows in COPY's text form.
///
/// A row's encoding, for the digest, is its line without the line break. In the text form a line break inside a value
/// is written `\n`, so a raw one is always a row's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum {
    /// Rows.
    pub rows: u64,
    /// Their bytes, line breaks included.
    pub bytes: u64,
    /// Their order-independent digest.
    pub digest: RowDigest,
}

impl RowSum {
    /// Adds whole rows; what comes after the last line break is not counted and returned.
    pub fn add<'a>(&mut self, mut text: &'a [u8]) -> &'a [u8] {
        while let Some(end) = memchr::memchr(b'\n', text) {
            self.digest.add(&text[..end]);
            self.rows += 1;
            self.bytes += end as u64 + 1;
            text = &text[end + 1..];
        }
        text
    }

    /// Adds what another sum counted.
    pub fn merge(&mut self, other: &RowSum) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.digest.merge(other.digest);
    }
}

/// The bytes at which a piece is full: rows are added to it until it has at least as many.
pub const PIECE_BYTES: usize = 4 << 20;

/// Gathers rows into pieces that end with a row.
#[derive(Default)]
pub struct Gatherer {
    piece: Vec<u8>,
    /// Bytes of the piece that are whole rows, and counted.
    whole: usize,
    /// What passed so far.
    pub sum: RowSum,
}

impl Gatherer {
    /// Adds bytes of the stream; a piece that is full now.
    pub fn add(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES + (64 << 10));
        }
        self.piece.extend_from_slice(bytes);
        let rest = self.sum.add(&self.piece[self.whole..]).len();
        self.whole = self.piece.len() - rest;
        if self.whole < PIECE_BYTES {
            return None;
        }
        let rest = self.piece.split_off(self.whole);
        self.whole = 0;
        Some(std::mem::replace(&mut self.piece, rest))
    }

    /// The last piece, where there is one; an error of the stream's where a row is cut.
    pub fn finish(&mut self) -> Result<Option<Vec<u8>>, crate::error::Error> {
        if self.whole < self.piece.len() {
            return Err(crate::error::Error::failed("the server's COPY ended within a row"));
        }
        self.whole = 0;
        let piece = std::mem::take(&mut self.piece);
        Ok(if piece.is_empty() { None } else { Some(piece) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_end_with_a_row_however_the_stream_is_cut() {
        let text: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\tsome text of row {n}\n\n").into_bytes()).collect();
        let mut whole = RowSum::default();
        assert!(whole.add(&text).is_empty());
        assert_eq!(whole.rows, 400_000);
        for size in [1 << 20, 8191, 777] {
            let mut gatherer = Gatherer::default();
            let mut pieces: Vec<Vec<u8>> = text.chunks(size).filter_map(|chunk| gatherer.add(chunk)).collect();
            pieces.extend(gatherer.finish().unwrap());
            assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")));
            assert!(pieces.len() > 1 && pieces[0].len() >= PIECE_BYTES && pieces[0].len() < PIECE_BYTES + size);
            assert_eq!(gatherer.sum, whole);
            assert_eq!(pieces.concat(), text);
        }
        let mut gatherer = Gatherer::default();
        gatherer.add(b"half a row");
        assert!(gatherer.finish().is_err());
    }
}
