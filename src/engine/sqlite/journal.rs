//! Reads a rollback journal outside SQLite, which takes no locks on it. See "The Rollback Journal" of SQLite's file
//! format.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::header::{Header, JOURNAL_MAGIC, lock_page};
use crate::platform::disk::open_plain;

/// The number of pages up to which a journal is read. A longer one is compared as far as it was read.
const MAX_PAGES: u64 = 1 << 16;

/// The longest name of a super-journal that is read.
const MAX_NAME_BYTES: u64 = 4096;

/// The length of the mark at the end of a journal that has the name of a super-journal before it.
pub(super) const MARK_BYTES: usize = JOURNAL_MAGIC.len();

/// The length of the ending that SQLite adds to the name of a database for the name of a super-journal.
const SUPER_ENDING_BYTES: usize = 12;

/// The content of a file that has the name of a journal.
pub(super) enum Journal {
    /// It begins with a zero, so SQLite does not roll it back: a transaction that has ended, or is not synced yet.
    Cold,
    /// It does not begin as SQLite writes a journal, or it ends before its records do.
    Invalid,
    /// A journal that SQLite rolls back unless somebody writes.
    Hot(HotJournal),
}

/// A journal of a transaction that was not completed.
pub(super) struct HotJournal {
    /// The page size in bytes.
    pub(super) page_bytes: u32,
    /// The number of pages that the database had before the transaction.
    pub(super) pages: u32,
    /// The pages whose old content is in the journal.
    pub(super) saved: HashSet<u32>,
    /// False if the journal may have more pages than were read.
    pub(super) is_complete: bool,
    /// The header of the database before the transaction, if page 1 is in the journal.
    pub(super) header: Option<Header>,
    /// The file that decides about a transaction of several databases.
    pub(super) super_journal: Option<PathBuf>,
}

impl Journal {
    /// Reads a journal. Returns `None` if it cannot be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let file = open_plain(path, OFlags::RDONLY).ok()?;
        let bytes = file.metadata().ok()?.len();
        read(&file, bytes).ok()
    }
}

impl HotJournal {
    /// Returns the first page after the first `pages` ones that the database had, but whose content is not here.
    pub(super) fn first_missing(&self, pages: u32) -> Option<u32> {
        let mut missing = (pages.saturating_add(1)..=self.pages).filter(|page| !self.saved.contains(page));
        missing.find(|page| *page != lock_page(self.page_bytes))
    }
}

/// Returns the database that a super-journal is named after.
pub(super) fn database_of(super_journal: &Path) -> PathBuf {
    let name = super_journal.as_os_str().as_bytes();
    PathBuf::from(OsStr::from_bytes(&name[..name.len().saturating_sub(SUPER_ENDING_BYTES)]))
}

fn read(file: &File, bytes: u64) -> io::Result<Journal> {
    let mut start = [0u8; 28];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let mut first = [0];
            let is_zero = file.read_at(&mut first, 0)? == 0 || first == [0];
            return Ok(if is_zero { Journal::Cold } else { Journal::Invalid });
        }
        read => read?,
    }
    if start[0] == 0 {
        return Ok(Journal::Cold);
    }
    let (sector_bytes, page_bytes) = (number(&start, 20), number(&start, 24));
    let is_size = |bytes: u32, least| bytes.is_power_of_two() && (least..=65_536).contains(&bytes);
    if !start.starts_with(&JOURNAL_MAGIC) {
        return Ok(Journal::Invalid);
    }
    if !is_size(sector_bytes, 32) || !is_size(page_bytes, 512) {
        // According to SQLite, the writer was killed before it synced the header, so before it changed the database.
        return Ok(Journal::Cold);
    }
    let mut journal = HotJournal {
        page_bytes,
        pages: number(&start, 16),
        saved: HashSet::new(),
        is_complete: true,
        header: None,
        super_journal: super_journal(file, bytes)?,
    };
    let record_bytes = u64::from(page_bytes) + 8;
    let sector_bytes = u64::from(sector_bytes);
    // One journal can have several parts, each with its own header at the start of a sector.
    let mut at = 0;
    while at + sector_bytes <= bytes {
        let mut header = [0u8; 16];
        file.read_exact_at(&mut header, at)?;
        if !header.starts_with(&JOURNAL_MAGIC) {
            break;
        }
        at += sector_bytes;
        let room = (bytes - at) / record_bytes;
        let records = match number(&header, 8) {
            // The number is not written if the journal is not synced.
            u32::MAX => room,
            records if u64::from(records) > room => return Ok(Journal::Invalid),
            records => u64::from(records),
        };
        for _ in 0..records {
            if journal.saved.len() as u64 == MAX_PAGES {
                journal.is_complete = false;
                return Ok(Journal::Hot(journal));
            }
            let mut page = [0u8; 4];
            file.read_exact_at(&mut page, at)?;
            let page = u32::from_be_bytes(page);
            if page == 1 && journal.header.is_none() {
                let mut old = vec![0; page_bytes as usize + 4];
                file.read_exact_at(&mut old, at + 4)?;
                let (old, sum) = old.split_at(page_bytes as usize);
                if checksum(number(&header, 12), old) != number(sum, 0) {
                    // From here on, the records are of an earlier transaction (`journal_mode = PERSIST`).
                    journal.is_complete = false;
                    return Ok(Journal::Hot(journal));
                }
                journal.header = Header::of(old);
            }
            journal.saved.insert(page);
            at += record_bytes;
        }
        at = at.next_multiple_of(sector_bytes);
    }
    Ok(if bytes < sector_bytes { Journal::Invalid } else { Journal::Hot(journal) })
}

/// Reads the name at the end of a journal; `None` if there is none.
fn super_journal(file: &File, bytes: u64) -> io::Result<Option<PathBuf>> {
    let mut end = [0u8; 16];
    if bytes < 16 {
        return Ok(None);
    }
    file.read_exact_at(&mut end, bytes - 16)?;
    let (name_bytes, sum) = (u64::from(number(&end, 0)), number(&end, 4));
    if end[8..] != JOURNAL_MAGIC || name_bytes == 0 || name_bytes > MAX_NAME_BYTES.min(bytes - 16) {
        return Ok(None);
    }
    let mut name = vec![0; usize::try_from(name_bytes).unwrap_or_default()];
    file.read_exact_at(&mut name, bytes - 16 - name_bytes)?;
    let is_name = name.len() > SUPER_ENDING_BYTES && name[name.len() - SUPER_ENDING_BYTES..].starts_with(b"-mj");
    // SQLite sums up characters, which are signed on most processors.
    let signed = name.iter().fold(0u32, |sum, byte| sum.wrapping_add_signed(i32::from(byte.cast_signed())));
    let unsigned = name.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    Ok((is_name && (sum == signed || sum == unsigned)).then(|| PathBuf::from(OsStr::from_bytes(&name))))
}

/// Returns the checksum of a page in a journal; `nonce` is in the journal's header.
fn checksum(nonce: u32, page: &[u8]) -> u32 {
    let places = (1..).map_while(|step| page.len().checked_sub(200 * step)).take_while(|place| *place > 0);
    places.fold(nonce, |sum, place| sum.wrapping_add(u32::from(page[place])))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}
