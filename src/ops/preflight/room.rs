//! Checks that a folder can be written to, and has free space.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::io::Errno;

use crate::ops::preflight::Finding;
use crate::platform::disk::{free_bytes, free_files, shown};
use crate::platform::text;

/// The length of the test file: enough to need a block of its own.
const PROBE_BYTES: usize = 4096;
/// The number of files that must be free: a database with its log, a snapshot in progress and the files beside it need
/// some.
const MIN_FILES: u64 = 100;

/// Checks that this user can create, write, sync and remove a file in the folder `path` or, if `path` is a file, open
/// it for writing.
#[must_use]
pub fn writable(path: &Path) -> Finding {
    let name = format!("writable {}", shown(path));
    let tried = match fs::metadata(path) {
        Err(error) => Err(error),
        Ok(facts) if facts.is_dir() => probe(path),
        Ok(_) => OpenOptions::new().append(true).open(path).map(drop),
    };
    match tried {
        Ok(()) => Finding::good(name, format!("{} can be written to", shown(path))),
        Err(error) => Finding::bad(name, why(path, &error)),
    }
}

fn probe(folder: &Path) -> io::Result<()> {
    let number = getrandom::u64().map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let path = folder.join(format!(".lifeboat-probe-{number:016x}"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    // The bytes are different each time, so that the disk cannot skip the write.
    let bytes: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(PROBE_BYTES).collect();
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn why(path: &Path, error: &io::Error) -> String {
    let named = shown(path);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ROFS) => format!("{named} is on a read-only mount: mount it writable"),
        Some(Errno::ACCESS | Errno::PERM) => {
            let user = rustix::process::geteuid().as_raw();
            format!("this user ({user}) may not write to {named}: give it to them with chown or chmod")
        }
        Some(Errno::NOSPC) => format!("no space is left on the disk of {named} (bytes or files): free some"),
        Some(Errno::DQUOT) => format!("the quota of this user on the disk of {named} is used up: free some space"),
        Some(Errno::NOENT) => format!("{named} is not there"),
        _ => format!("cannot write to {named}: {error}"),
    }
}

/// Checks that the disk of `path` has `bytes` free for an ordinary user, and that some more files can be created on it.
#[must_use]
pub fn min_free(path: &Path, bytes: u64) -> Finding {
    let name = format!("free space {}", shown(path));
    let (free, files) = match free_bytes(path).and_then(|free| Ok((free, free_files(path)?))) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::bad(name, format!("{} is not there", shown(path)));
        }
        Err(error) => return Finding::bad(name, format!("cannot look at the disk of {}: {error}", shown(path))),
    };
    let told = format!("{} free, {} asked for", text::bytes(free), text::bytes(bytes));
    match files {
        _ if free < bytes => Finding::bad(name, format!("{told}: free some space")),
        Some(files) if files < MIN_FILES => {
            Finding::bad(name, format!("{told}, but only {files} more files can be made: remove some"))
        }
        _ => Finding::good(name, told),
    }
}
