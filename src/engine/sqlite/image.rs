//! A restored image before it is in place: written, synced, checked, and adapted to its target.

use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::connection::{self, Purpose, explain};
use super::health::{self, NewFaults};
use super::survey::{self, OnDamage, TableCheck};
use crate::platform::digest::Sha256;
use crate::platform::disk::{SyncBehind, create_locked, folder_of, lock_left_over, remove_file, shown};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::snapshots::manifest::{Depth, Manifest};

/// An image that is written to its own file (mode 0600); removed if dropped before [`finish`](Self::finish).
///
/// A separate thread writes, so that the caller can hash the next bytes meanwhile.
pub(crate) struct ImageWriter {
    image: Option<ImageFile>,
    buffer: Vec<u8>,
    running: Option<Running>,
}

struct Running {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Result<()>>,
}

/// The size of one buffer for the writing thread, and the number of such buffers.
const PIECE_BYTES: usize = 1 << 20;
const PIECES: usize = 4;

/// A written image, until it is moved to its place; removed if dropped before that.
///
/// It stays locked (`flock`) while the process that made it lives, so that files left by a crash can be recognized and
/// removed.
pub(crate) struct ImageFile {
    path: PathBuf,
    file: File,
}

impl ImageWriter {
    /// Creates the file, and reserves space for `bytes` if the file system supports that.
    pub(crate) fn create(path: PathBuf, bytes: u64) -> Result<Self> {
        let file = loop {
            if let Some(file) = create_locked(&path)? {
                break file;
            }
        };
        let image = ImageFile { path, file };
        // Even if the space cannot be reserved, every write is checked.
        let reserved = rustix::fs::fallocate(&image.file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes.max(1));
        if reserved == Err(rustix::io::Errno::NOSPC) {
            return Err(Error::failed(format!("not enough space for {bytes} bytes in {}", shown(&image.path)))
                .hint("free some space"));
        }
        let message = format!("cannot write {}", shown(&image.path));
        let cannot = || message.clone();
        let file = image.file.try_clone().io(Kind::Failed, cannot)?;
        let (full, pieces) = sync_channel::<Vec<u8>>(PIECES);
        let (give_back, empty) = channel();
        for _ in 1..PIECES {
            give_back.send(Vec::new()).expect("the receiver is right here");
        }
        let text = message.clone();
        let write = move || write_pieces(file, &pieces, &give_back).io(Kind::Failed, || text);
        let thread = thread::Builder::new().name("write".to_owned()).spawn(write).io(Kind::Failed, cannot)?;
        Ok(ImageWriter { image: Some(image), buffer: Vec::new(), running: Some(Running { full, empty, thread }) })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.buffer.reserve_exact(PIECE_BYTES - self.buffer.len());
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == PIECE_BYTES {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<()> {
        let piece = std::mem::take(&mut self.buffer);
        if let Some(running) = &self.running
            && running.full.send(piece).is_ok()
            && let Ok(mut next) = running.empty.recv()
        {
            next.clear();
            self.buffer = next;
            return Ok(());
        }
        // The writing thread has ended; joining it returns its error.
        self.join().and(Err(Error::failed("writing the image has already failed")))
    }

    fn join(&mut self) -> Result<()> {
        match self.running.take() {
            None => Ok(()),
            Some(Running { full, thread, .. }) => {
                drop(full);
                thread.join().unwrap_or_else(|_| Err(Error::failed("the writing thread has panicked")))
            }
        }
    }

    /// Writes the remaining bytes and syncs the file.
    pub(crate) fn finish(mut self) -> Result<ImageFile> {
        if !self.buffer.is_empty() {
            self.hand_over()?;
        }
        self.join()?;
        self.image.take().ok_or_else(|| Error::failed("the image was already finished"))
    }
}

impl Drop for ImageWriter {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn write_pieces(mut file: File, pieces: &Receiver<Vec<u8>>, give_back: &Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut behind = SyncBehind::new(&file)?;
    for piece in pieces {
        file.write_all(&piece)?;
        behind.wrote(piece.len() as u64)?;
        // After the last piece, nobody receives the buffer any more.
        let _ = give_back.send(piece);
    }
    behind.finish()?;
    file.sync_all()
}

impl ImageFile {
    /// Returns the path of the image.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open file.
    #[must_use]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns true if `path` names this file, and not another that was put in its place.
    #[must_use]
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let identity = |facts: std::fs::Metadata| (facts.dev(), facts.ino());
        match (std::fs::symlink_metadata(path), self.file.metadata()) {
            (Ok(found), Ok(own)) => identity(found) == identity(own),
            _ => false,
        }
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        // If the image has been moved to its place, no file with this name is left.
        let _ = remove_file(&self.path);
    }
}

/// Returns a hidden file name beside `target` for an unfinished image, made unique by `stamp`.
#[must_use]
pub(crate) fn path_beside(target: &Path, stamp: &str) -> PathBuf {
    folder_of(target).join(format!("{}{stamp}-{}", unfinished_prefix(target), std::process::id()))
}

fn unfinished_prefix(target: &Path) -> String {
    // The length does not depend on the target's name, which may be as long as the file system allows.
    let name = target.file_name().unwrap_or_default();
    format!(".lifeboat-{}-", &Sha256::of(name.as_bytes()).to_string()[..16])
}

/// Removes unfinished images beside `target` that were left by restores that were killed.
pub(crate) fn clear_unfinished(target: &Path) {
    let prefix = unfinished_prefix(target);
    for entry in std::fs::read_dir(folder_of(target)).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix)
            || !entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            continue;
        }
        if let Some(_lock) = lock_left_over(&entry.path()) {
            tracing::info!("removing {}, left by a restore that was killed", shown(&entry.path()));
            let _ = remove_file(&entry.path());
        }
    }
}

/// Compares an image with its manifest: the rows and digest of every table, the schema, and the results of SQLite's own
/// checks. Faults that existed when the snapshot was taken are accepted; everything else fails.
pub(crate) fn check(path: &Path, manifest: &Manifest) -> Result<Vec<TableCheck>> {
    check_image(path, manifest).map_err(|mut error| {
        // Whatever SQLite reports for these bytes, the fault is in the snapshot, not in the user's request.
        if error.kind == Kind::Usage && manifest.sqlite.as_ref().is_some_and(|facts| facts.health.is_some()) {
            (error.kind, error.hint) = (Kind::Problem, None);
        }
        error
    })
}

fn check_image(path: &Path, manifest: &Manifest) -> Result<Vec<TableCheck>> {
    let facts =
        manifest.sqlite.as_ref().ok_or_else(|| Error::problem("the manifest does not describe an SQLite snapshot"))?;
    let before = facts.health.as_ref().ok_or_else(|| {
        Error::usage("this snapshot holds the raw bytes of a damaged file, and cannot be restored as a database")
            .hint("get its files with 'lifeboat extract'")
    })?;
    let (for_survey, for_health) = (connection::open(path, Purpose::Image)?, connection::open(path, Purpose::Image)?);
    // The two checks report the same damage in different words. So if there was damage, the same check runs again.
    let depth = if before.integrity.is_empty() { Depth::Full } else { before.check };
    let (survey, now) = thread::scope(|scope| {
        let health = scope.spawn(move || health::examine(&for_health, depth));
        let survey = survey::survey(&for_survey, OnDamage::Note);
        (survey, health.join().unwrap_or_else(|_| Err(Error::failed("a thread has panicked"))))
    });
    let (survey, now) = (survey?, now?);
    let tables = survey::compare(&manifest.tables, &survey.tables);
    survey::require_all(&tables)?;
    if survey.schema_digest != facts.schema_digest {
        return Err(Error::problem("the restored schema differs from the schema in the snapshot"));
    }
    let NewFaults { faults, unknown } = health::new_faults(before, &now);
    if let Some(first) = faults.first() {
        return Err(Error::problem(format!(
            "SQLite finds {} faults in the restored image that the source did not have: {first}",
            faults.len()
        )));
    }
    if let Some(first) = unknown.first() {
        tracing::warn!(
            "every row is restored as it was saved, but {} checks of indexes failed or could not be run here: {first}; \
             REINDEX rebuilds the indexes",
            unknown.len()
        );
    }
    Ok(tables)
}

/// Takes a scratch image out of WAL mode, so that it is a single file again.
pub(crate) fn leave_wal(path: &Path) -> Result<()> {
    let cannot = |error| explain(error, "cannot take the restored image out of WAL mode");
    let connection = connection::open(path, Purpose::Scratch)?;
    let mode: String =
        connection.query_row("PRAGMA main.journal_mode = DELETE", [], |row| row.get(0)).map_err(cannot)?;
    if mode == "delete" { Ok(()) } else { Err(Error::failed("cannot take the restored image out of WAL mode")) }
}

/// Rewrites a scratch image to `converted` with another page size.
pub(crate) fn convert_pages(path: &Path, page_bytes: u64, converted: &Path) -> Result<()> {
    let cannot = |error| {
        explain(error, &format!("cannot convert the restored image to the target's page size of {page_bytes}"))
            .hint("restore to a new path, stop the program that uses the old file, and move the new file to its path")
    };
    let connection = connection::open(path, Purpose::Scratch)?;
    connection.execute_batch(&format!("PRAGMA main.page_size = {page_bytes}")).map_err(cannot)?;
    // A plain VACUUM would renumber rowids that are not stored in a column, but full-text indexes refer to them.
    connection::with_old_strings(&connection, || {
        connection.execute("VACUUM main INTO ?1", [converted.to_string_lossy()]).map(drop).map_err(cannot)
    })?;
    let result = connection::open(converted, Purpose::Image)?;
    let now: i64 = result.query_row("PRAGMA main.page_size", [], |row| row.get(0)).map_err(cannot)?;
    if now.unsigned_abs() == page_bytes {
        Ok(())
    } else {
        Err(Error::failed("the restored image still has its old page size"))
    }
}
