//! Rows in the text format of COPY: counted and hashed one by one as they are read.

use std::sync::{Mutex, PoisonError};

use crate::platform::digest::RowDigest;
use crate::platform::error::Error;

/// Count, bytes and digest of rows in COPY's text format.
///
/// For the digest, a row's encoding is its line without the line break. In the text format, a line break inside a value
/// is written `\n`, so a raw line break is always the end of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowSum {
    /// The number of rows.
    pub rows: u64,
    /// The number of their bytes, line breaks included.
    pub bytes: u64,
    /// Their order-independent digest.
    pub digest: RowDigest,
    /// The digest of the rows with the values of generated columns, if these were read too.
    pub with_generated: Option<RowDigest>,
}

impl RowSum {
    /// Adds whole rows. Returns the text after the last line break, which is not counted.
    pub(crate) fn add<'a>(&mut self, mut text: &'a [u8]) -> &'a [u8] {
        while let Some(end) = memchr::memchr(b'\n', text) {
            self.digest.add(&text[..end]);
            self.rows += 1;
            self.bytes += end as u64 + 1;
            text = &text[end + 1..];
        }
        text
    }

    /// Adds the counts and the digests of another sum.
    pub(crate) fn merge(&mut self, other: &RowSum) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.digest.merge(other.digest);
        if let Some(digest) = other.with_generated {
            self.with_generated.get_or_insert_default().merge(digest);
        }
    }

    /// Adds whole rows that end with the values of generated columns, and removes these values from the rows. Returns the
    /// number of bytes that are left of the rows; the bytes after the last line break follow them.
    fn add_and_cut(&mut self, rows: &mut Vec<u8>, start: usize, columns: Columns) -> usize {
        let (mut read, mut written) = (start, start);
        while let Some(length) = memchr::memchr(b'\n', &rows[read..]) {
            let row = &rows[read..read + length];
            self.with_generated.get_or_insert_default().add(row);
            let kept = columns.kept(row).len();
            self.digest.add(&row[..kept]);
            self.rows += 1;
            self.bytes += kept as u64 + 1;
            rows.copy_within(read..read + kept, written);
            rows[written + kept] = b'\n';
            (read, written) = (read + length + 1, written + kept + 1);
        }
        rows.copy_within(read.., written);
        rows.truncate(written + rows.len() - read);
        written
    }
}

/// The columns of the rows that are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// The number of columns that are kept: zero for a table that has no others than generated ones.
    pub kept: usize,
    /// The number of generated columns, which follow them.
    pub generated: usize,
}

impl Columns {
    /// Returns the beginning of a row: the values that are not generated. A tab inside a value is written `\t`.
    fn kept(self, row: &[u8]) -> &[u8] {
        if self.kept == 0 {
            return &[];
        }
        let end = memchr::memrchr_iter(b'\t', row).nth(self.generated - 1);
        end.map_or(row, |end| &row[..end])
    }
}

/// The size at which a piece is full: rows are added to it until it has at least as many bytes.
pub(crate) const PIECE_BYTES: usize = 4 << 20;

/// Used buffers of pieces, for reuse: allocating new memory costs about as much as reading it.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(Mutex<Vec<Vec<u8>>>);

impl BufferPool {
    /// Returns a buffer that is large enough for a piece, unless it has a very large row.
    fn take(&self) -> Vec<u8> {
        let buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        buffer.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES + (512 << 10)))
    }

    /// Takes a buffer back. A buffer that has grown is not kept.
    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * PIECE_BYTES {
            buffer.clear();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// Divides rows into pieces that end with a whole row.
pub(crate) struct Gatherer<'a> {
    pool: &'a BufferPool,
    columns: Columns,
    /// The bytes of the buffer that are complete rows and have been counted.
    counted: usize,
    /// The bytes of the buffer that have been searched for row ends.
    searched: usize,
    /// The sum of the rows so far.
    pub sum: RowSum,
}

impl<'a> Gatherer<'a> {
    /// Starts with no rows.
    #[must_use]
    pub(crate) fn new(pool: &'a BufferPool, columns: Columns) -> Self {
        let with_generated = (columns.generated > 0).then(RowDigest::default);
        Gatherer { pool, columns, counted: 0, searched: 0, sum: RowSum { with_generated, ..RowSum::default() } }
    }

    /// Returns a buffer to collect rows in.
    #[must_use]
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.pool.take()
    }

    /// Counts the rows that were added to the buffer. Takes a piece out of the buffer if one is full.
    pub(crate) fn gather(&mut self, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        if memchr::memchr(b'\n', &buffer[self.searched..]).is_none() {
            // No row has ended.
        } else if self.columns.generated > 0 {
            self.counted = self.sum.add_and_cut(buffer, self.counted, self.columns);
        } else {
            let rest = self.sum.add(&buffer[self.counted..]).len();
            self.counted = buffer.len() - rest;
        }
        self.searched = buffer.len();
        if self.counted < PIECE_BYTES {
            return None;
        }
        let mut next = self.pool.take();
        next.extend_from_slice(&buffer[self.counted..]);
        let mut full = std::mem::replace(buffer, next);
        full.truncate(self.counted);
        (self.counted, self.searched) = (0, buffer.len());
        Some(full)
    }

    /// Returns the last piece, if there is one. Fails if a row is incomplete, or if the number of rows differs from the
    /// server's count.
    pub(crate) fn finish(&mut self, buffer: Vec<u8>, reported_rows: u64) -> Result<Option<Vec<u8>>, Error> {
        if self.counted < buffer.len() {
            return Err(Error::failed("the server's COPY ended in the middle of a row"));
        }
        if self.sum.rows != reported_rows {
            let rows = self.sum.rows;
            return Err(Error::failed(format!(
                "received {rows} rows from a COPY, but the server reports that it sent {reported_rows}"
            )));
        }
        Ok(if buffer.is_empty() { None } else { Some(buffer) })
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
            let pool = BufferPool::default();
            let mut gatherer = Gatherer::new(&pool, Columns::default());
            let mut buffer = gatherer.buffer();
            let mut pieces: Vec<Vec<u8>> = Vec::new();
            for chunk in text.chunks(size) {
                buffer.extend_from_slice(chunk);
                pieces.extend(gatherer.gather(&mut buffer));
            }
            pieces.extend(gatherer.finish(buffer, 400_000).unwrap());
            assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")));
            assert!(pieces.len() > 1 && pieces[0].len() >= PIECE_BYTES && pieces[0].len() < PIECE_BYTES + size);
            assert_eq!(gatherer.sum, whole);
            assert_eq!(pieces.concat(), text);
        }
        let pool = BufferPool::default();
        let mut gatherer = Gatherer::new(&pool, Columns::default());
        let mut buffer = b"half a row".to_vec();
        assert!(gatherer.gather(&mut buffer).is_none());
        assert!(gatherer.finish(buffer, 0).is_err());
        assert!(Gatherer::new(&pool, Columns::default()).finish(Vec::new(), 1).is_err());
    }

    #[test]
    fn values_of_generated_columns_are_hashed_and_cut_off() {
        let rows = b"1\ta\\tb\t10\tx\n2\t\\N\t20\t\n";
        let mut sums = Vec::new();
        for size in [3, 100] {
            let pool = BufferPool::default();
            let mut gatherer = Gatherer::new(&pool, Columns { kept: 2, generated: 2 });
            let mut buffer = gatherer.buffer();
            for chunk in rows.chunks(size) {
                buffer.extend_from_slice(chunk);
                assert!(gatherer.gather(&mut buffer).is_none());
            }
            assert_eq!(gatherer.finish(buffer, 2).unwrap().unwrap(), b"1\ta\\tb\n2\t\\N\n");
            sums.push(gatherer.sum);
        }
        let (mut kept, mut whole) = (RowSum::default(), RowSum::default());
        kept.add(b"1\ta\\tb\n2\t\\N\n");
        whole.add(rows);
        let expected = RowSum { with_generated: Some(whole.digest), ..kept };
        assert_eq!(sums, [expected, expected]);

        let pool = BufferPool::default();
        let mut gatherer = Gatherer::new(&pool, Columns { kept: 0, generated: 1 });
        let mut buffer = b"7\n8\n".to_vec();
        assert!(gatherer.gather(&mut buffer).is_none());
        assert_eq!(gatherer.finish(buffer, 2).unwrap().unwrap(), b"\n\n");
    }
}
