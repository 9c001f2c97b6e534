//! Checks that a folder can be written to, and has free space.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::ops::summary::Check;
use crate::platform::disk::{free_bytes, free_files, open_plain, shown};
use crate::platform::place::{Place, resolve};
use crate::platform::text;

/// The length of the test file: large enough to need a block of its own, so that the write fails on a full disk.
const PROBE_BYTES: usize = 4096;
/// The minimum number of files that can still be created (free inodes). A database, its WAL, and a snapshot in progress
/// need some.
const MIN_FILES: u64 = 100;

/// Checks that this user can create, write, sync and remove a file in the folder `path`. If `path` is a file, checks
/// that this user can open it for writing.
#[must_use]
pub fn writable(path: &Path) -> Check {
    let name = format!("writable {}", shown(path));
    let result = match fs::metadata(path) {
        Err(error) => Err(error),
        Ok(facts) if facts.is_dir() => probe(path),
        Ok(_) => resolve(path).and_then(|path| open_plain(&path, OFlags::WRONLY | OFlags::APPEND)).map(drop),
    };
    match result {
        Ok(()) => Check::good(name, format!("{} can be written to", shown(path))),
        Err(error) => Check::bad(name, explain(path, &error)),
    }
}

/// Creates, writes, syncs and removes a test file.
fn probe(folder: &Path) -> io::Result<()> {
    let number = getrandom::u64().map_err(|_| io::Error::other("cannot get random numbers from the system"))?;
    let path = folder.join(format!(".lifeboat-probe-{number:016x}"));
    let place = Place::of(&path)?;
    let mut file = place.create_new(0o600)?;
    // The bytes are different each time, so that a file system with deduplication must write them.
    let bytes: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(PROBE_BYTES).collect();
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    let removed = place.remove();
    written.and(removed)
}

/// Describes why the path cannot be written to, and what the user can do.
fn explain(path: &Path, error: &io::Error) -> String {
    let named = shown(path);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ROFS) => format!("{named} is on a read-only mount: mount it writable"),
        Some(Errno::ACCESS | Errno::PERM) => {
            let user = rustix::process::geteuid().as_raw();
            format!("this user ({user}) may not write to {named}: grant write access with chown or chmod")
        }
        Some(Errno::NOSPC) => format!("no space is left on the disk of {named} (bytes or files): free some"),
        Some(Errno::DQUOT) => format!("the quota of this user on the disk of {named} is used up: free some space"),
        Some(Errno::NOENT) => format!("{named} does not exist"),
        _ => format!("cannot write to {named}: {error}"),
    }
}

/// Checks that the disk of `path` has `bytes` free for an ordinary user, and that at least 100 files can be created on
/// it.
#[must_use]
pub fn min_free(path: &Path, bytes: u64) -> Check {
    let name = format!("free space {}", shown(path));
    let (free, files) = match free_bytes(path).and_then(|free| Ok((free, free_files(path)?))) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::bad(name, format!("{} does not exist", shown(path)));
        }
        Err(error) => return Check::bad(name, format!("cannot get the free space of {}: {error}", shown(path))),
    };
    let message = format!("{} free, {} required", text::bytes(free), text::bytes(bytes));
    match files {
        _ if free < bytes => Check::bad(name, format!("{message}: free some space")),
        Some(files) if files < MIN_FILES => {
            Check::bad(name, format!("{message}, but only {files} more files can be created: remove some"))
        }
        _ => Check::good(name, message),
    }
}
