//! Reads the header of a file: detects a database, and reads its properties before SQLite opens it.
//!
//! See "The Database Header" of SQLite's file format.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::OFlags;

use crate::platform::disk::open_plain;

/// The first bytes of every SQLite database.
pub(crate) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The length of the header.
pub(crate) const HEADER_BYTES: usize = 100;

/// The first bytes of every WAL, except for the last bit.
const WAL_MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];

/// The first bytes of every rollback journal.
pub(super) const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// The number of bytes by which a text is recognized.
const TEXT_BYTES: u64 = 4096;

/// The type of a file, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A database.
    Database(Header),
    /// The file starts like a database, but the rest of its header is invalid.
    Damaged,
    /// The file has no bytes.
    Empty,
    /// A write-ahead log or a rollback journal.
    Companion,
    /// Something else; an encrypted database looks like this too.
    Other,
}

/// The properties in a database's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The page size in bytes.
    pub page_bytes: u32,
    /// True if the database is in WAL mode.
    pub is_wal: bool,
    /// The counter of transactions that changed the file; in WAL mode only checkpoints increment it.
    pub change_counter: u32,
    /// The number of pages; `None` if it was not updated, by a very old version of SQLite.
    pub pages: Option<u32>,
}

/// Returns the number of the page that SQLite never uses, because locks are taken on its bytes.
pub(super) fn lock_page(page_bytes: u32) -> u32 {
    0x4000_0000 / page_bytes + 1
}

impl Header {
    /// Returns `wal` or `delete`, as manifests name it. The file does not show which of the rollback modes is used.
    #[must_use]
    pub(crate) fn journal_mode(&self) -> &'static str {
        if self.is_wal { "wal" } else { "delete" }
    }

    /// Reads the header of a database from its first bytes. Returns `None` if they are not those of a database.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match Content::of(start) {
            Content::Database(header) => Some(header),
            _ => None,
        }
    }

    fn parse(start: &[u8]) -> Option<Self> {
        let page_bytes = match u16::from_be_bytes(start.get(16..18)?.try_into().ok()?) {
            1 => 65_536,
            bytes => u32::from(bytes),
        };
        let number = |at: usize| Some(u32::from_be_bytes(start.get(at..at + 4)?.try_into().ok()?));
        let change_counter = number(24)?;
        let is_complete = start.len() >= HEADER_BYTES;
        let pages = number(28).filter(|pages| *pages > 0 && number(92) == Some(change_counter));
        let header = Header { page_bytes, is_wal: start.get(18..20)? == [2, 2], change_counter, pages };
        (is_complete && page_bytes.is_power_of_two() && page_bytes >= 512).then_some(header)
    }
}

impl Content {
    /// Determines the content from the first bytes of a file.
    #[must_use]
    pub(crate) fn of(start: &[u8]) -> Self {
        if start.is_empty() {
            Content::Empty
        } else if start.starts_with(MAGIC) {
            Header::parse(start).map_or(Content::Damaged, Content::Database)
        } else if start.get(..3) == Some(&WAL_MAGIC[..3]) && matches!(start.get(3), Some(0x82 | 0x83))
            || start.starts_with(&JOURNAL_MAGIC[..4])
        {
            Content::Companion
        } else {
            Content::Other
        }
    }

    /// Returns true if the header is that of a database, and says that this version of SQLite cannot read it. Such a file is
    /// not damaged. Has the same conditions as [`Content::read`].
    pub(super) fn is_of_newer_format(path: &Path) -> bool {
        let mut start = Vec::with_capacity(HEADER_BYTES);
        let read = open_plain(path, OFlags::RDONLY).map(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut start));
        matches!(read, Ok(Ok(_))) && Header::of(&start).is_some() && start[18..20].iter().any(|version| *version > 2)
    }

    /// Returns true if a file certainly never was a database: it is a text or a program. A database whose first page was
    /// overwritten is neither. Has the same conditions as [`Content::read`].
    pub(super) fn is_other_kind(path: &Path) -> bool {
        let mut start = Vec::new();
        let read = open_plain(path, OFlags::RDONLY).map(|file| file.take(TEXT_BYTES).read_to_end(&mut start));
        if !matches!(read, Ok(Ok(_))) || Content::of(&start) != Content::Other {
            return false;
        }
        // The end may be in the middle of a character.
        let text = start.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let is_text = start.len() - text.len() < 4 && !text.contains(|c: char| c.is_control() && !c.is_whitespace());
        is_text || start.starts_with(b"\x7fELF")
    }

    /// Reads the start of a file. Call it only while nothing in this process has the file open through SQLite (see the
    /// parent module). Links are not followed, and the call does not block.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut start = Vec::with_capacity(HEADER_BYTES);
        open_plain(path, OFlags::RDONLY)?.take(HEADER_BYTES as u64).read_to_end(&mut start)?;
        Ok(Content::of(&start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(page: [u8; 2], modes: [u8; 2]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(page);
        bytes.extend(modes);
        bytes.extend([0, 64, 32, 32, 0, 0, 0, 7]);
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    #[test]
    fn a_text_and_a_program_never_were_databases() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let is_other_kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            Content::is_other_kind(&path)
        };
        let long = "größer ".repeat(5000);
        for other in [&b"ssh-ed25519 AAAA me@host\n"[..], b"#!/bin/sh\r\n\techo", long.as_bytes(), b"\x7fELF\x02\x01\0"]
        {
            assert!(is_other_kind(other), "{:?}", String::from_utf8_lossy(&other[..8]));
        }
        for damaged in [&b""[..], &[0; 8192], &[1; 10], &[0xff; 4096], b"SQLite format 3\0", &WAL_MAGIC] {
            assert!(!is_other_kind(damaged), "{:?}", &damaged[..damaged.len().min(8)]);
        }
    }

    #[test]
    fn a_database_is_recognized_by_its_header() {
        let header =
            |page_bytes, is_wal| Content::Database(Header { page_bytes, is_wal, change_counter: 7, pages: None });
        assert_eq!(Content::of(&start([16, 0], [1, 1])), header(4096, false));
        assert_eq!(Content::of(&start([2, 0], [2, 2])), header(512, true));
        assert_eq!(Content::of(&start([0, 1], [1, 1])), header(65_536, false));
    }

    #[test]
    fn other_content_is_recognized() {
        assert_eq!(Content::of(b""), Content::Empty);
        assert_eq!(Content::of(MAGIC), Content::Damaged);
        assert_eq!(Content::of(&start([16, 1], [1, 1])), Content::Damaged);
        assert_eq!(Content::of(&start([0, 0], [1, 1])), Content::Damaged);
        assert_eq!(Content::of(&start([16, 0], [1, 1])[..50]), Content::Damaged);
        assert_eq!(Content::of(b"SQLite format 3, the story of"), Content::Other);
        assert_eq!(Content::of(&[0x37, 0x7f, 0x06, 0x83, 0]), Content::Companion);
        assert_eq!(Content::of(&[0xd9, 0xd5, 0x05, 0xf9, 0x20]), Content::Companion);
    }
}
