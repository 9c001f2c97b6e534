//! Computes the size of a row in a btree index, exactly as PostgreSQL builds it with pages of 8 kB and its default
//! compression, `pglz`. A row that is too long cannot be inserted, which shows only when the index is created.

/// The greatest size of a row in a btree index (`BTMaxItemSize` in `nbtree.h`).
pub(super) const MAX_BYTES: usize = 2704;

/// Values longer than this are compressed in an index (`TOAST_INDEX_TARGET` in `heaptoast.h`).
const COMPRESSED_FROM: usize = 510;

/// The bytes that a row has besides its values.
const HEADER_BYTES: usize = 8;

/// Returns true if a row may be too long, by the sum of the lengths of its values without compression.
#[must_use]
pub(super) fn may_be_too_long(value_bytes: usize) -> bool {
    // Each of the other columns, of which an index has 32 at most, adds 8 bytes and those of its alignment.
    value_bytes + HEADER_BYTES + 32 * 16 > MAX_BYTES
}

/// The size of a row that is being built.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IndexRow {
    bytes: usize,
    has_null: bool,
}

fn align(bytes: usize, to: usize) -> usize {
    bytes.next_multiple_of(to)
}

impl IndexRow {
    /// Adds a value of 8 bytes.
    pub(super) fn add_fixed(&mut self) {
        self.bytes = align(self.bytes, 8) + 8;
    }

    /// Adds NULL.
    pub(super) fn add_null(&mut self) {
        self.has_null = true;
    }

    /// Adds a text or a byte string.
    pub(super) fn add_bytes(&mut self, value: &[u8]) {
        let compressed = if value.len() + 4 > COMPRESSED_FROM { compressed_bytes(value) } else { None };
        match compressed {
            Some(compressed) if compressed + 8 < value.len() - 2 => self.bytes = align(self.bytes, 4) + 8 + compressed,
            _ if value.len() < 127 => self.bytes += 1 + value.len(),
            _ => self.bytes = align(self.bytes, 4) + 4 + value.len(),
        }
    }

    /// Returns the size of the row.
    #[must_use]
    pub(super) fn finish(self) -> usize {
        let header = if self.has_null { 2 * HEADER_BYTES } else { HEADER_BYTES };
        align(header + self.bytes, 8)
    }
}

/// The number of earlier positions that `pglz` remembers.
const HISTORY: usize = 4096;

/// The longest match that `pglz` writes.
const MAX_MATCH: usize = 273;

/// Returns the length of a value after compression by `pglz_compress` (`pg_lzcompress.c`) with its default strategy, or
/// `None` if that gives up.
fn compressed_bytes(source: &[u8]) -> Option<usize> {
    const FIRST_SUCCESS_BY: usize = 1024;
    // At least a quarter must be saved.
    let most = source.len() * 75 / 100;
    let mut history = History::new(source);
    let (mut at, mut bytes, mut items, mut has_matched) = (0, 0usize, 0usize, false);
    while at < source.len() {
        if bytes >= most || (!has_matched && bytes >= FIRST_SUCCESS_BY) {
            return None;
        }
        // A control byte comes before every eight items.
        bytes += usize::from(items.is_multiple_of(8));
        items += 1;
        let length = match history.find_match(at) {
            Some(length) => {
                has_matched = true;
                bytes += if length > 17 { 3 } else { 2 };
                length
            }
            None => {
                bytes += 1;
                1
            }
        };
        for _ in 0..length {
            history.add(at);
            at += 1;
        }
    }
    (bytes < most).then_some(bytes)
}

/// An earlier position, in a list of the positions with the same hash. 0 is no entry.
#[derive(Clone, Copy, Default)]
struct Entry {
    next: usize,
    previous: usize,
    hash: usize,
    position: usize,
}

struct History<'a> {
    source: &'a [u8],
    starts: Vec<usize>,
    entries: Vec<Entry>,
    next: usize,
    is_full: bool,
}

impl<'a> History<'a> {
    fn new(source: &'a [u8]) -> Self {
        let lists = match source.len() {
            ..128 => 512,
            128..256 => 1024,
            256..512 => 2048,
            512..1024 => 4096,
            _ => 8192,
        };
        let entries = vec![Entry::default(); HISTORY + 1];
        History { source, starts: vec![0; lists], entries, next: 1, is_full: false }
    }

    fn hash(&self, at: usize) -> usize {
        // The server's bytes have a sign.
        let byte = |offset: usize| i32::from(self.source[at + offset] as i8);
        let hash = match self.source.len() - at {
            ..4 => byte(0),
            _ => (byte(0) << 6) ^ (byte(1) << 4) ^ (byte(2) << 2) ^ byte(3),
        };
        hash as u32 as usize & (self.starts.len() - 1)
    }

    fn add(&mut self, position: usize) {
        let (hash, number) = (self.hash(position), self.next);
        if self.is_full {
            let Entry { next, previous, hash, .. } = self.entries[number];
            match previous {
                0 => self.starts[hash] = next,
                _ => self.entries[previous].next = next,
            }
            if next != 0 {
                self.entries[next].previous = previous;
            }
        }
        let next = self.starts[hash];
        self.entries[number] = Entry { next, previous: 0, hash, position };
        if next != 0 {
            self.entries[next].previous = number;
        }
        self.starts[hash] = number;
        self.next += 1;
        if self.next > HISTORY {
            (self.next, self.is_full) = (1, true);
        }
    }

    /// Returns the length of the match that the server would choose for a position.
    fn find_match(&self, at: usize) -> Option<usize> {
        let (mut good_match, mut longest) = (128usize, 0);
        let mut number = self.starts[self.hash(at)];
        while number != 0 {
            let Entry { next, position, .. } = self.entries[number];
            if at - position >= 0x0fff {
                break;
            }
            let pairs = self.source[at..].iter().zip(&self.source[position..]);
            let length = pairs.take(MAX_MATCH).take_while(|(one, other)| one == other).count();
            longest = longest.max(length);
            number = next;
            if number != 0 {
                if longest >= good_match {
                    break;
                }
                good_match -= good_match * 10 / 100;
            }
        }
        (longest > 2).then_some(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_with_repetitions_shrink() {
        assert_eq!(compressed_bytes(&[b'a'; 9000]).map(|bytes| bytes < 200), Some(true));
        let mut number = 1u32;
        let mut random = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        let noise: Vec<u8> = std::iter::repeat_with(&mut random).take(9000).collect();
        assert_eq!(compressed_bytes(&noise), None);
        let size = |value: &[u8]| {
            let mut row = IndexRow::default();
            row.add_bytes(value);
            row.finish()
        };
        assert_eq!((size(b""), size(b"1234567"), size(b"12345678")), (16, 16, 24));
        // Header, length and value: 2704 bytes fit.
        assert_eq!((size(&noise[..2692]), size(&noise[..2693])), (MAX_BYTES, MAX_BYTES + 8));
        let mut row = IndexRow::default();
        row.add_null();
        row.add_fixed();
        assert_eq!(row.finish(), 24);
    }
}
