//! The main file of a database as a connection has it open.
//!
//! Everything here goes through SQLite's own descriptor, so that no lock of this process is dropped, and takes no lock.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, ffi};

use super::files::FileIdentity;
use super::header::HEADER_BYTES;

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

/// SQLite's methods of a file, of which the one that takes locks is replaced.
#[repr(C)]
struct Guarded {
    /// The first field, because SQLite finds its methods at this address.
    methods: ffi::sqlite3_io_methods,
    original: *const ffi::sqlite3_io_methods,
}

/// The address of every [`Guarded`], by that of SQLite's own methods.
static GUARDED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Takes a lock as SQLite does, but never the exclusive one, which a connection that only reads takes to roll back a
/// journal.
unsafe extern "C" fn lock_shared_only(file: *mut ffi::sqlite3_file, level: std::ffi::c_int) -> std::ffi::c_int {
    if level == ffi::SQLITE_LOCK_EXCLUSIVE {
        return ffi::SQLITE_BUSY;
    }
    // SAFETY: only files whose methods are the first field of a `Guarded` have this method.
    let original = unsafe { &*(*(*file).pMethods.cast::<Guarded>()).original };
    // SAFETY: SQLite calls this with an open file.
    original.xLock.map_or(ffi::SQLITE_IOERR_LOCK, |lock| unsafe { lock(file, level) })
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

    /// Returns the identity of the file. Returns `None` if another file is at its path by now.
    pub(super) fn identity(&self, path: &Path) -> Option<FileIdentity> {
        // SQLite compares only the inode that it has open with the inode at the path. It keeps its number while the
        // file is open, even if the file is deleted.
        let identity = FileIdentity::at(path)?;
        (!self.has_moved() && FileIdentity::at(path) == Some(identity)).then_some(identity)
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

    /// Fills a buffer with the bytes from `start` on. Returns false if the file ends before, or cannot be read.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], start: u64) -> bool {
        let (Ok(length), Ok(start)) = (i32::try_from(buffer.len()), i64::try_from(start)) else { return false };
        let Some(read) = self.methods().xRead else { return false };
        // SAFETY: the file is open, and xRead writes as many bytes as it is asked for.
        unsafe { read(self.file, buffer.as_mut_ptr().cast(), length, start) == ffi::SQLITE_OK }
    }

    /// Takes the lock that excludes all other connections, of this and of other processes, until the connection is
    /// closed. Returns false if there are any. The connection must be able to write, and must not have read anything.
    pub(super) fn lock_exclusively(&self) -> bool {
        let Some(lock) = self.methods().xLock else { return false };
        // SAFETY: the file is open. Locks are taken in the order that SQLite's interface requires.
        [ffi::SQLITE_LOCK_SHARED, ffi::SQLITE_LOCK_EXCLUSIVE]
            .into_iter()
            .all(|level| unsafe { lock(self.file, level) == ffi::SQLITE_OK })
    }

    /// Keeps SQLite from rolling back a journal that becomes hot while the connection is open, because a program is
    /// killed: a read is then "busy". For connections that do not write, to databases that are not in WAL mode.
    pub(super) fn refuse_exclusive_lock(&self) {
        let original: *const ffi::sqlite3_io_methods = self.methods();
        let mut all = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
        let guarded = *all.entry(original as usize).or_insert_with(|| {
            let methods = ffi::sqlite3_io_methods { xLock: Some(lock_shared_only), ..*self.methods() };
            std::ptr::from_ref(Box::leak(Box::new(Guarded { methods, original }))) as usize
        });
        // SAFETY: the methods do the same as SQLite's, and exist as long as the program.
        unsafe { (*self.file).pMethods = guarded as *const ffi::sqlite3_io_methods };
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
