//! Parses JSON documents that others may have written.

use serde::de::{DeserializeOwned, Error as _};

/// Parses a document. Fails if it is invalid, or if it has more than `max_commas` commas, which bound the number of its
/// values: short values need many times their length in memory.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], max_commas: usize) -> serde_json::Result<T> {
    if has_more_commas(bytes, max_commas) {
        return Err(serde_json::Error::custom(format!("it has more than {max_commas} values")));
    }
    serde_json::from_slice(bytes)
}

/// Returns true if a document has too many commas for [`parse`].
#[must_use]
pub fn has_more_commas(bytes: &[u8], max_commas: usize) -> bool {
    memchr::memchr_iter(b',', bytes).count() > max_commas
}
