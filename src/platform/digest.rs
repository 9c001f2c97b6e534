//! Hashes: SHA-256 of bytes, and the order-independent digest of a table's rows.
//!
//! # The row digest `xxh3-128-sum`
//!
//! The digest of a table is the sum, modulo 2^128, of XXH3-128 (seed 0) over each row's encoding; a table without rows
//! has digest 0. It is written `xxh3-128-sum:` and 32 lower-case hexadecimal digits. Rows may come in any order and
//! from any number of threads; a row that occurs twice counts twice.
//!
//! The encoding of a row is the concatenation of its values in column order, each as
//!
//! | value | bytes |
//! | --- | --- |
//! | NULL | `00` |
//! | integer | `01`, 8 bytes little-endian two's complement |
//! | real | `02`, 8 bytes little-endian IEEE 754 |
//! | text | `03`, 8 bytes little-endian length, the bytes as UTF-8 |
//! | blob | `04`, 8 bytes little-endian length, the bytes |
//!
//! The type is part of the encoding and variable parts carry their length, so `('ab', 'c')`,
//! `('a', 'bc')`, `1` and `'1'` are four different rows.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256 as Sha256State};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::platform::error::Error;

/// The name of the algorithm, which is part of a written row digest, so that another one can follow it later.
pub const ROW_DIGEST_NAME: &str = "xxh3-128-sum";

/// The SHA-256 of some bytes; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Sha256(Sha256State::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        if lower && hex::decode_to_slice(text, &mut bytes).is_ok() {
            Ok(Sha256(bytes))
        } else {
            Err(Error::problem("not a SHA-256 of 64 lower-case hexadecimal digits"))
        }
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message))
    }
}

/// Hashes what is written to it.
#[derive(Clone, Default)]
pub struct Hasher(Sha256State);

impl Hasher {
    /// Starts a hash of no bytes.
    #[must_use]
    pub fn new() -> Self {
        Hasher::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all bytes added.
    #[must_use]
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The order-independent digest of a set of rows; see the module's description.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RowDigest(pub u128);

impl RowDigest {
    /// Adds a row, given its encoding.
    pub fn add(&mut self, encoded_row: &[u8]) {
        self.add_hash(xxh3_128(encoded_row));
    }

    /// Adds a row, given the hash of its encoding (see [`RowHasher`]).
    pub fn add_hash(&mut self, row: u128) {
        self.0 = self.0.wrapping_add(row);
    }

    /// Adds all rows of another digest.
    pub fn merge(&mut self, other: RowDigest) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROW_DIGEST_NAME}:{:032x}", self.0)
    }
}

impl fmt::Debug for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RowDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix(ROW_DIGEST_NAME).and_then(|rest| rest.strip_prefix(':'));
        let digits = digits.filter(|d| d.len() == 32 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        match digits.map(|digits| u128::from_str_radix(digits, 16)) {
            Some(Ok(sum)) => Ok(RowDigest(sum)),
            _ => Err(Error::problem(format!("not a row digest of the form {ROW_DIGEST_NAME}:<32 hexadecimal digits>"))),
        }
    }
}

impl Serialize for RowDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message))
    }
}

/// Values of at least this many bytes are hashed where they are, and not copied.
const LARGE_VALUE_BYTES: usize = 64 * 1024;

/// Hashes the encoding of one row at a time. A large value is hashed where it is; the others are collected in a buffer,
/// which is reused for the next row.
#[derive(Default)]
pub struct RowHasher {
    /// The end of the encoding, which is not hashed yet.
    buffer: Vec<u8>,
    /// The hash of the encoding before the buffer; `None` if the row has no large value so far.
    hashed: Option<Box<Xxh3Default>>,
    payload_bytes: u64,
}

impl RowHasher {
    /// Starts a new row.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.hashed = None;
        self.payload_bytes = 0;
    }

    /// Adds a NULL.
    pub fn null(&mut self) {
        self.buffer.push(0);
    }

    /// Adds an integer.
    pub fn integer(&mut self, value: i64) {
        self.buffer.push(1);
        self.buffer.extend_from_slice(&value.to_le_bytes());
        self.payload_bytes += 8;
    }

    /// Adds a real.
    pub fn real(&mut self, value: f64) {
        self.buffer.push(2);
        self.buffer.extend_from_slice(&value.to_bits().to_le_bytes());
        self.payload_bytes += 8;
    }

    /// Adds a text.
    pub fn text(&mut self, value: &[u8]) {
        self.sized(3, value);
    }

    /// Adds a blob.
    pub fn blob(&mut self, value: &[u8]) {
        self.sized(4, value);
    }

    fn sized(&mut self, tag: u8, value: &[u8]) {
        self.buffer.push(tag);
        self.buffer.extend_from_slice(&(value.len() as u64).to_le_bytes());
        if value.len() < LARGE_VALUE_BYTES {
            self.buffer.extend_from_slice(value);
        } else {
            let hashed = self.hashed.get_or_insert_with(|| Box::new(Xxh3Default::new()));
            hashed.update(&self.buffer);
            hashed.update(value);
            self.buffer.clear();
        }
        self.payload_bytes += value.len() as u64;
    }

    /// Returns the hash of the row's encoding.
    #[must_use]
    pub fn hash(&self) -> u128 {
        match &self.hashed {
            None => xxh3_128(&self.buffer),
            Some(hashed) => {
                let mut hashed = hashed.clone();
                hashed.update(&self.buffer);
                hashed.digest128()
            }
        }
    }

    /// Returns the size of the row's values alone: 8 for a number, the length of a text or blob, 0 for NULL.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(build: impl FnOnce(&mut RowHasher)) -> RowDigest {
        let mut hasher = RowHasher::default();
        build(&mut hasher);
        let mut digest = RowDigest::default();
        digest.add_hash(hasher.hash());
        digest
    }

    #[test]
    fn large_values_have_the_hash_of_the_whole_encoding() {
        let mut hasher = RowHasher::default();
        for length in [0, 1, LARGE_VALUE_BYTES - 1, LARGE_VALUE_BYTES, LARGE_VALUE_BYTES + 1, 3 * LARGE_VALUE_BYTES] {
            let value: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            let sized = |tag: u8| [&[tag][..], &(length as u64).to_le_bytes(), &value].concat();
            let integer = [&[1][..], &7i64.to_le_bytes()].concat();
            let encoding = [&integer[..], &sized(4), &[0], &sized(3), &integer].concat();
            // The second row shows that nothing is left of the first.
            for _ in 0..2 {
                hasher.clear();
                hasher.integer(7);
                hasher.blob(&value);
                hasher.null();
                hasher.text(&value);
                hasher.integer(7);
                assert_eq!(hasher.hash(), xxh3_128(&encoding), "{length} bytes");
                assert_eq!(hasher.hash(), xxh3_128(&encoding), "{length} bytes, hashed again");
                assert_eq!(hasher.payload_bytes(), 2 * length as u64 + 16);
            }
        }
    }

    #[test]
    fn rows_that_look_alike_have_different_digests() {
        let rows = [
            row(|e| {
                e.text(b"ab");
                e.text(b"c");
            }),
            row(|e| {
                e.text(b"a");
                e.text(b"bc");
            }),
            row(|e| e.integer(1)),
            row(|e| e.text(b"1")),
            row(|e| e.blob(b"1")),
            row(|e| e.real(1.0)),
            row(RowHasher::null),
            row(|e| e.text(b"")),
        ];
        for (i, a) in rows.iter().enumerate() {
            for b in &rows[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn order_does_not_matter_but_multiplicity_does() {
        let (a, b) = (row(|e| e.integer(1)), row(|e| e.integer(2)));
        let sum = |parts: &[RowDigest]| {
            let mut sum = RowDigest::default();
            parts.iter().for_each(|part| sum.merge(*part));
            sum
        };
        assert_eq!(sum(&[a, b]), sum(&[b, a]));
        assert_ne!(sum(&[a, b]), sum(&[a, b, b]));
        assert_ne!(sum(&[a, a]), RowDigest::default());
    }

    #[test]
    fn digests_are_read_back_from_their_text() {
        let digest = row(|e| e.integer(-1));
        assert_eq!(digest.to_string().parse::<RowDigest>().ok(), Some(digest));
        assert!("xxh3-128-sum:+0000000000000000000000000000001".parse::<RowDigest>().is_err());
        let sha = Sha256::of(b"abc");
        assert_eq!(sha.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha.to_string().parse::<Sha256>().ok(), Some(sha));
    }
}
