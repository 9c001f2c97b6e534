//! Reads a write-ahead log outside SQLite, which takes no locks on it. See "The WAL File Format" of SQLite's file format.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::header::{self, Header, lock_page};
use crate::platform::disk::open_plain;

const HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// The first bytes of every WAL, with the last bit 0 or 1.
const MAGIC: u32 = 0x377f_0682;

/// The number of frames up to which a WAL is read. A longer one is not compared with its database.
const MAX_FRAMES: u64 = 1 << 16;

/// A WAL with a valid header. SQLite ignores one without.
pub(super) struct Wal {
    file: File,
    /// The page size in bytes.
    pub(super) page_bytes: u32,
    is_big_endian: bool,
    /// Two numbers that all frames since the last restart of the WAL have.
    salts: [u8; 8],
    checksum: (u32, u32),
}

/// The committed transactions of a WAL.
pub(super) struct Committed {
    /// The number of pages that the database has after the last one.
    pub(super) pages: u32,
    /// The numbers of the pages in the WAL.
    written: HashSet<u32>,
    /// The change counters in the first and the last version of page 1; `None` if that page is not in the WAL.
    pub(super) counters: Option<(u32, u32)>,
}

/// The test by which a frame is recognized as one that was written since the last restart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// By its salts.
    BySalts,
    /// By its salts and checksum, as SQLite does.
    ByChecksums,
}

impl Wal {
    /// Opens a WAL. Returns `None` if it has no valid header, or cannot be read.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = open_plain(path, OFlags::RDONLY).ok()?;
        let mut start = [0u8; HEADER_BYTES as usize];
        file.read_exact_at(&mut start, 0).ok()?;
        let magic = number(&start, 0);
        let is_big_endian = magic & 1 == 1;
        let page_bytes = number(&start, 8);
        let checksum = add_checksum(is_big_endian, (0, 0), &start[..24]);
        let is_valid = magic & !1 == MAGIC
            && checksum == (number(&start, 24), number(&start, 28))
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes);
        let salts = start[16..24].try_into().ok()?;
        is_valid.then_some(Wal { file, page_bytes, is_big_endian, salts, checksum })
    }

    /// Returns the header in the first version of page 1; `None` if that page is not in the WAL.
    pub(super) fn header(&self) -> Option<Header> {
        for frame in 0..MAX_FRAMES {
            let at = HEADER_BYTES + frame * (FRAME_HEADER_BYTES + u64::from(self.page_bytes));
            let mut start = [0u8; FRAME_HEADER_BYTES as usize + header::HEADER_BYTES];
            if !read_at(&self.file, &mut start, at).ok()? || start[8..16] != self.salts {
                return None;
            }
            if number(&start, 0) == 1 {
                return Header::of(&start[FRAME_HEADER_BYTES as usize..]);
            }
        }
        None
    }

    /// Reads the committed transactions. Returns `None` if there are none, or more than are read.
    pub(super) fn committed(&self, frames: Frames) -> io::Result<Option<Committed>> {
        let mut committed: Option<Committed> = None;
        let (mut written, mut counters) = (HashSet::new(), None);
        let mut checksum = self.checksum;
        let mut page = vec![0; self.page_bytes as usize];
        for frame in 0.. {
            let at = HEADER_BYTES + frame * (FRAME_HEADER_BYTES + u64::from(self.page_bytes));
            let mut header = [0u8; FRAME_HEADER_BYTES as usize];
            if !read_at(&self.file, &mut header, at)? || header[8..16] != self.salts {
                break;
            }
            if frame == MAX_FRAMES {
                return Ok(None);
            }
            let number_of_page = number(&header, 0);
            if frames == Frames::ByChecksums {
                if !read_at(&self.file, &mut page, at + FRAME_HEADER_BYTES)? {
                    break;
                }
                checksum = add_checksum(self.is_big_endian, checksum, &header[..8]);
                checksum = add_checksum(self.is_big_endian, checksum, &page);
                if checksum != (number(&header, 16), number(&header, 20)) {
                    break;
                }
            }
            if number_of_page == 1 {
                let mut counter = [0; 4];
                if !read_at(&self.file, &mut counter, at + FRAME_HEADER_BYTES + 24)? {
                    break;
                }
                let counter = u32::from_be_bytes(counter);
                let first = counters.map_or(counter, |(first, _)| first);
                counters = Some((first, counter));
            }
            written.insert(number_of_page);
            let pages = number(&header, 4);
            if pages > 0 {
                let committed = committed.get_or_insert(Committed { pages, written: HashSet::new(), counters });
                committed.written.extend(written.drain());
                (committed.pages, committed.counters) = (pages, counters);
            }
        }
        Ok(committed)
    }
}

impl Committed {
    /// Returns true if every page of the database is in the WAL, so that nothing is read from the main file.
    pub(super) fn is_whole(&self, page_bytes: u32) -> bool {
        self.first_missing(0, page_bytes).is_none()
    }

    /// Returns the first page after the first `pages` ones that the database has, but the WAL does not.
    pub(super) fn first_missing(&self, pages: u32, page_bytes: u32) -> Option<u32> {
        let mut missing = (pages.saturating_add(1)..=self.pages).filter(|page| !self.written.contains(page));
        missing.find(|page| *page != lock_page(page_bytes))
    }
}

/// Fills `bytes` from a place in a file; false if the file ends before.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn add_checksum(is_big_endian: bool, start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let word = bytes.try_into().unwrap_or_default();
        if is_big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    bytes.chunks_exact(8).fold(start, |(first, second), pair| {
        let first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        (first, second.wrapping_add(word(&pair[4..])).wrapping_add(first))
    })
}
