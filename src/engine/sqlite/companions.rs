//! Checks that a WAL or journal belongs to the database that it is beside, before SQLite reads them.
//!
//! SQLite trusts the names: it applies any WAL, rolls back any journal, and deletes them beside a file without bytes,
//! even if they hold the only copy of the rows. It does so whoever opens the database, and why. This check runs when a
//! connection has opened the file and has not yet read it. It reads the main file through SQLite's descriptor, takes no
//! locks and changes nothing.
//!
//! The mismatches that it finds are proven, because the commands refuse such a database until it is replaced:
//!
//! - The main file has no bytes, or fewer than one page, but there is a WAL or a journal of a database with pages.
//! - The page sizes differ.
//! - The WAL has changes, but the main file is not in WAL mode: SQLite sets the mode in the main file before it creates
//!   the WAL, and deletes the WAL before it sets another mode. An older copy was put in the place of the file.
//! - A page is neither in the main file nor in the WAL (or, of the pages before the transaction, in the journal).
//! - The change counters in the versions of page 1 do not follow each other: SQLite increments the counter when a
//!   transaction changes page 1. Without page 1 in the WAL or journal, no transaction has changed the number of pages.
//! - A journal does not begin as a journal, is shorter than its header says, or belongs to a transaction of several
//!   databases that were at other paths.
//!
//! It cannot find a WAL of another state of the same database, or of a copy of it, with fitting counters and
//! numbers of pages. (In WAL mode, SQLite does not increment the counter while the same connection goes on writing.) The
//! salts and checksums of a WAL show only that its frames belong to each other: the main file has no copy of them. A WAL
//! with an invalid header has no frames for SQLite and for this check.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::files::{Fingerprint, companion, file_bytes};
use super::header::Header;
use super::journal::{self, HotJournal, Journal};
use super::main_file::MainFile;
use super::wal::{Committed, Frames, Wal};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

/// The length of the smallest database: one page of the smallest size.
const SMALLEST_BYTES: u64 = 512;

/// The difference of the change counters of a database and its journal. A commit increments the counter once; some are
/// tried again.
const MAX_COMMITS: u32 = 3;

/// The number of times that files are compared while a program changes them, and the time in between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(60);

/// The hint for files that do not belong together.
pub(super) const HINT: &str = "open them with no other program, which could delete rows that are only in the WAL or \
                               journal: 'lifeboat snapshot --allow-damaged' saves all of them as they are, and 'lifeboat \
                               restore latest --replace' moves them aside together";

/// Fails if the WAL or the journal beside a database does not belong to it. `connection` must not have read the database
/// yet.
pub(super) fn require_matching(connection: &Connection, path: &Path) -> Result<()> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let before = Fingerprint::of(path);
        let Some(mismatch) = find_mismatch(connection, path) else { return Ok(()) };
        // A program that writes meanwhile changes one file after the other.
        let found = Some((before, mismatch));
        let is_lasting = before == Fingerprint::of(path) && last == found;
        last = found;
        if is_lasting {
            break;
        }
        interrupt::sleep(PAUSE)?;
    }
    let Some((_, mismatch)) = last else { return Ok(()) };
    let message = format!("the files of {} do not belong together: {mismatch}", shown(path));
    Err(Error::problem(message).hint(HINT))
}

/// Returns the reason why a file that is too short for a database is a part of one: there is a WAL or a journal beside it.
pub(super) fn rest_of_database(path: &Path) -> Option<String> {
    let main = Main { bytes: file_bytes(path), header: None, path };
    if main.bytes < SMALLEST_BYTES { main.wal_mismatch().or_else(|| main.journal_mismatch()) } else { None }
}

/// Returns the header that a database has in its WAL or in its hot journal: until a checkpoint or a rollback, its file may
/// begin with other bytes.
pub(super) fn header_beside(path: &Path) -> Option<Header> {
    if file_bytes(path) < SMALLEST_BYTES {
        return None;
    }
    let in_journal = || match Journal::read(&companion(path, "-journal")) {
        Some(Journal::Hot(journal)) => journal.header,
        _ => None,
    };
    Wal::open(&companion(path, "-wal")).and_then(|wal| wal.header()).or_else(in_journal)
}

fn find_mismatch(connection: &Connection, path: &Path) -> Option<String> {
    let file = MainFile::of(connection)?;
    let main = Main { bytes: file.bytes()?, header: Header::of(&file.start()), path };
    main.wal_mismatch().or_else(|| if file.is_reserved() { None } else { main.journal_mismatch() })
}

/// The main file of a database.
struct Main<'a> {
    bytes: u64,
    header: Option<Header>,
    path: &'a Path,
}

impl Main<'_> {
    fn wal_mismatch(&self) -> Option<String> {
        let path = companion(self.path, "-wal");
        let wal_bytes = file_bytes(&path);
        if wal_bytes == 0 {
            return None;
        }
        if self.bytes < SMALLEST_BYTES {
            return Some(format!("the file has {} bytes, but {} has {wal_bytes} bytes", self.bytes, shown(&path)));
        }
        let wal = Wal::open(&path)?;
        if let Some(header) = self.header.filter(|header| header.page_bytes != wal.page_bytes) {
            let (own, other) = (header.page_bytes, wal.page_bytes);
            return Some(format!("the file has pages of {own} bytes, but {} has pages of {other} bytes", shown(&path)));
        }
        if self.header.is_some_and(|header| !header.is_wal)
            && wal.committed(Frames::ByChecksums).ok().flatten().is_some()
        {
            return Some(format!("the file is not in WAL mode, but {} has changes", shown(&path)));
        }
        // Frames after the last valid one are no proof of anything, but to compute the checksums takes longer.
        let compare = |frames| {
            let committed = wal.committed(frames).ok().flatten()?;
            self.compare_wal(&committed, wal.page_bytes, &path)
        };
        compare(Frames::BySalts).and_then(|_| compare(Frames::ByChecksums))
    }

    fn compare_wal(&self, committed: &Committed, page_bytes: u32, wal: &Path) -> Option<String> {
        let wal = shown(wal);
        let pages = u32::try_from(self.bytes / u64::from(page_bytes)).ok()?;
        if let Some(page) = committed.first_missing(pages, page_bytes) {
            let all = committed.pages;
            return Some(format!("the database has {all} pages, but page {page} is neither in the file nor in {wal}"));
        }
        let header = self.header?;
        if committed.is_whole(page_bytes) {
            return None;
        }
        match (committed.counters, header.pages) {
            (Some((first, last)), _) => {
                // The file has page 1 as it was before the WAL, or as one of the versions in it.
                let before = first.wrapping_sub(1);
                let counter = header.change_counter;
                (counter.wrapping_sub(before) > last.wrapping_sub(before)).then(|| {
                    format!("the change counter of the file is {counter}, but in {wal} it is from {first} to {last}")
                })
            }
            (None, Some(pages)) if pages != committed.pages => {
                Some(format!("the file has {pages} pages, but {wal} is of a database of {}", committed.pages))
            }
            (None, _) => None,
        }
    }

    /// Compares the journal, which no connection is writing.
    fn journal_mismatch(&self) -> Option<String> {
        let path = companion(self.path, "-journal");
        let journal_bytes = file_bytes(&path);
        if journal_bytes == 0 {
            return None;
        }
        let journal = Journal::read(&path);
        if self.bytes == 0 {
            // Before its first transaction, a database has no bytes.
            let is_first = matches!(&journal, Some(Journal::Hot(journal)) if journal.pages == 0);
            let mismatch = format!("the file has 0 bytes, but {} has {journal_bytes} bytes", shown(&path));
            return (!is_first).then_some(mismatch);
        }
        match journal? {
            Journal::Cold => None,
            Journal::Invalid => Some(format!("{} is not a journal, or is not complete", shown(&path))),
            Journal::Hot(journal) => self.compare_journal(&journal, &path),
        }
    }

    fn compare_journal(&self, journal: &HotJournal, path: &Path) -> Option<String> {
        let name = shown(path);
        if let Some(super_journal) = journal.super_journal.as_deref().filter(|path| !path.exists()) {
            // Its absence means that the transaction was committed, but only at the paths where it took place.
            let database = journal::database_of(super_journal);
            let is_other = database.file_name() == self.path.file_name()
                && database.canonicalize().is_ok_and(|database| database != self.path);
            if is_other || !database.exists() {
                let other = shown(super_journal);
                return Some(format!("{name} is of a transaction of several databases, which {other} decides about"));
            }
        }
        if journal.pages == 0 {
            return None;
        }
        // The file may have another page size in the middle of a VACUUM, but then page 1 is in the journal.
        let before = journal.header.or(self.header.filter(|_| journal.is_complete))?;
        if before.page_bytes != journal.page_bytes {
            let (own, other) = (before.page_bytes, journal.page_bytes);
            return Some(format!("the file has pages of {own} bytes, but {name} has pages of {other} bytes"));
        }
        if let (Some(old), Some(new)) = (journal.header, self.header) {
            let (old, new) = (old.change_counter, new.change_counter);
            if new.wrapping_sub(old) > MAX_COMMITS {
                return Some(format!("the change counter of the file is {new}, but in {name} it is {old}"));
            }
        }
        if !journal.is_complete {
            return None;
        }
        // Before a transaction changes the length of the file, it saves page 1, which has the number of pages.
        let pages = u32::try_from(self.bytes.div_ceil(u64::from(journal.page_bytes))).ok()?;
        if journal.header.is_none() && pages != journal.pages {
            return Some(format!("the file has {pages} pages, but {name} is of a database of {}", journal.pages));
        }
        let pages = u32::try_from(self.bytes / u64::from(journal.page_bytes)).ok()?;
        let page = journal.first_missing(pages)?;
        Some(format!("the database had {} pages, but page {page} is neither in the file nor in {name}", journal.pages))
    }
}
