//! The main file of a database as a connection has it open.
//!
//! Everything here goes through SQLite's own descriptor, so that no lock of this process is dropped, and takes no lock.

use std::fs;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ffi};

use super::header::HEADER_BYTES;

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of the file at a path, or `None` if there is none.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(FileIdentity { device: facts.dev(), inode: facts.ino() })
    }

    /// Returns the identity of the file that a connection has open. Returns `None` if another file is at its path by
    /// now.
    pub(super) fn of(connection: &Connection, path: &Path) -> Option<Self> {
        // SQLite compares only the inode that it has open with the inode at the path. It keeps its number while the
        // file is open, even if the file is deleted.
        let identity = FileIdentity::at(path)?;
        let file = MainFile::of(connection)?;
        (!file.has_moved() && FileIdentity::at(path) == Some(identity)).then_some(identity)
    }

    /// Returns a path at which the facts of a file that this process has open can be read, also if the file was renamed
    /// or deleted: that of its descriptor. Returns `path` where the system does not show descriptors.
    pub(super) fn descriptor_or(self, path: &Path) -> PathBuf {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let mut descriptors = entries.map(|entry| entry.path());
        descriptors.find(|path| FileIdentity::at(path) == Some(self)).unwrap_or_else(|| path.to_owned())
    }
}

/// The numbers in the index of a WAL that change when pages are copied from the WAL to the main file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    salts: [u32; 2],
    /// The number of frames that are copied for certain.
    done: u32,
    /// The number of frames that may be copied.
    begun: u32,
}

impl Checkpoint {
    /// Returns true if a checkpoint may be running.
    pub(super) fn is_running(self) -> bool {
        self.done != self.begun
    }
}

/// The main file of a connection.
pub(super) struct MainFile<'a> {
    file: *mut ffi::sqlite3_file,
    connection: PhantomData<&'a Connection>,
}

impl<'a> MainFile<'a> {
    /// Returns the file, or `None` if SQLite has not opened one.
    pub(super) fn of(connection: &'a Connection) -> Option<Self> {
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        let place = (&raw mut file).cast();
        let operation = ffi::SQLITE_FCNTL_FILE_POINTER;
        // SAFETY: the handle is open, "main" is a C string, and this operation stores a pointer to the file that the
        // connection has open and keeps.
        let code = unsafe { ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), operation, place) };
        // SAFETY: the pointer that SQLite stored is valid.
        let is_open = code == ffi::SQLITE_OK && !file.is_null() && unsafe { !(*file).pMethods.is_null() };
        is_open.then_some(MainFile { file, connection: PhantomData })
    }

    fn methods(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: checked in `of`; the methods are SQLite's, and exist as long as the program.
        unsafe { &*(*self.file).pMethods }
    }

    /// Returns the first bytes as they are on disk, with zeros for missing ones; none if the file is empty or cannot be
    /// read.
    pub(super) fn start(&self) -> Vec<u8> {
        let mut start = [0u8; HEADER_BYTES];
        let Some(read) = self.methods().xRead else { return Vec::new() };
        // SAFETY: the file is open, and xRead writes as many bytes as it is asked for.
        match unsafe { read(self.file, start.as_mut_ptr().cast(), HEADER_BYTES as i32, 0) } {
            ffi::SQLITE_OK => start.to_vec(),
            // SQLite fills the missing bytes with zeros.
            ffi::SQLITE_IOERR_SHORT_READ if start != [0; HEADER_BYTES] => start.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Returns the length, or `None` if it cannot be read.
    pub(super) fn bytes(&self) -> Option<u64> {
        let mut bytes = 0;
        let size = self.methods().xFileSize?;
        // SAFETY: the file is open, and xFileSize writes one number.
        let code = unsafe { size(self.file, &raw mut bytes) };
        u64::try_from(bytes).ok().filter(|_| code == ffi::SQLITE_OK)
    }

    /// Returns true if another file, or none, is at the path from which the file was opened. False also if SQLite does
    /// not know, because the file was opened without locks.
    pub(super) fn has_moved(&self) -> bool {
        let mut moved = 0;
        let Some(control) = self.methods().xFileControl else { return false };
        // SAFETY: the file is open, and this operation writes one number.
        let code = unsafe { control(self.file, ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast()) };
        code == ffi::SQLITE_OK && moved != 0
    }

    /// Returns the state of checkpoints. Call it only in a read transaction of a database in WAL mode.
    ///
    /// The places are those of "WAL-Index File Format" in SQLite's documentation.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        const INDEX_BYTES: i32 = 32_768;
        let mut index: *mut std::ffi::c_void = std::ptr::null_mut();
        let map = self.methods().xShmMap?;
        // SAFETY: the file is open. In WAL mode, the connection has already mapped this first part of the index, so
        // that SQLite only returns where it is.
        let code = unsafe { map(self.file, 0, INDEX_BYTES, 0, (&raw mut index).cast()) };
        if code != ffi::SQLITE_OK || index.is_null() {
            return None;
        }
        // SAFETY: all places are in the part that is mapped, and aligned. Other processes may change the numbers.
        let number = |place: usize| unsafe { index.cast::<u32>().add(place / 4).read_volatile() };
        Some(Checkpoint { salts: [number(32), number(36)], done: number(96), begun: number(128) })
    }

    /// Returns true if a connection of this or another process is writing in a rollback-journal mode: it holds the
    /// RESERVED lock, or a stronger one. False also if that cannot be found out.
    pub(super) fn is_reserved(&self) -> bool {
        let mut reserved = 0;
        let Some(check) = self.methods().xCheckReservedLock else { return false };
        // SAFETY: the file is open, and xCheckReservedLock writes one number.
        let code = unsafe { check(self.file, &raw mut reserved) };
        code == ffi::SQLITE_OK && reserved != 0
    }
}
