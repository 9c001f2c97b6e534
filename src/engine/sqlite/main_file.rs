//! The main file of a database as a connection has it open.
//!
//! Everything here goes through SQLite's own descriptor, so that no lock of this process is dropped, and takes no lock.

use std::marker::PhantomData;

use rusqlite::{Connection, ffi};

use super::header::HEADER_BYTES;

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
