//! The system calls by which SQLite opens, gives away and removes files.
//!
//! SQLite names the WAL, its index and the journal itself, and opens whatever has those names. As root it also gives them
//! the owner of the database. If another user owns the folder, that user could have root read, overwrite or give away
//! other files: by a hard link under such a name, or by a link in the place of a folder. So these calls open each file
//! through the descriptor of its folder (see [`Place`]). SQLite calls them with its own arguments, and no caller of
//! SQLite can forget a check.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;

use nix::errno::Errno;
use rusqlite::ffi;
use rustix::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::platform::place::Place;

type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type Chown = unsafe extern "C" fn(c_int, u32, u32) -> c_int;
type Unlink = unsafe extern "C" fn(*const c_char) -> c_int;

/// Replaces SQLite's system calls in this process, once.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: SQLite calls these functions with the arguments of the calls that they replace: the types are those of
        // `posixOpen`, `posixFchown` and `unlink` in its `os_unix.c`. The names are C strings.
        unsafe {
            let system = ffi::sqlite3_vfs_find(std::ptr::null());
            let Some(set) = system.as_ref().and_then(|system| system.xSetSystemCall) else { return };
            let calls = [
                (c"open", std::mem::transmute::<Open, unsafe extern "C" fn()>(open)),
                (c"fchown", std::mem::transmute::<Chown, unsafe extern "C" fn()>(change_owner)),
                (c"unlink", std::mem::transmute::<Unlink, unsafe extern "C" fn()>(unlink)),
            ];
            for (name, call) in calls {
                set(system, name.as_ptr(), Some(call));
            }
        }
    });
}

unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = unsafe { path_of(path) };
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    returned(try_open(path, flags, Mode::from_raw_mode(mode.cast_unsigned())).map(IntoRawFd::into_raw_fd))
}

fn try_open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    if rustix::process::geteuid().is_root() {
        Place::of(path)?.open_own(flags, mode)
    } else {
        Ok(rustix::fs::open(path, flags, mode)?)
    }
}

/// Gives a file without bytes, which SQLite has just created, to the owner of its database. A file with bytes keeps its
/// owner: it may be another user's, moved here.
unsafe extern "C" fn change_owner(file: c_int, user: u32, group: u32) -> c_int {
    let try_change = || -> io::Result<c_int> {
        if !rustix::process::geteuid().is_root() {
            return Ok(0);
        }
        // SAFETY: SQLite passes a descriptor that it has open.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        if rustix::fs::fstat(file)?.st_size == 0 {
            rustix::fs::fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        Ok(0)
    };
    returned(try_change())
}

unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = unsafe { path_of(path) };
    returned(Place::of(path).and_then(|place| place.remove()).map(|()| 0))
}

/// # Safety
///
/// `path` is a C string that lives as long as the result.
unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: the caller guarantees it.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    Path::new(OsStr::from_bytes(bytes))
}

/// Returns the result of a system call: -1 if it failed, with the error number where C code looks for it.
fn returned(result: io::Result<c_int>) -> c_int {
    result.unwrap_or_else(|error| {
        Errno::set_raw(error.raw_os_error().unwrap_or(Errno::EPERM as c_int));
        -1
    })
}
