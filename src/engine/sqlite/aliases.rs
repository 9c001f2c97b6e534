//! Refuses a database in WAL mode under a name that its program does not use.
//!
//! SQLite names a WAL after the path by which a database is opened. If the file has a second name (a hard link, or a
//! mount of the single file), its WAL may be beside that one: then a reader misses the newest rows, and what a writer
//! changes is not seen by the program, or mixed with the WAL. A name with a WAL and its index (`-shm`) is in use, and is
//! accepted; a WAL alone may have been copied there. See "How To Corrupt An SQLite Database File", section 2.5.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::files::companion;
use super::header::Header;
use crate::platform::disk::{folder_of, shown};
use crate::platform::error::{Error, Result};

/// Fails with a usage error if a database in WAL mode has another name, and no WAL with its index beside `path`.
pub(super) fn require_name_in_use(header: &Header, path: &Path) -> Result<()> {
    let has = |suffix: &&str| fs::symlink_metadata(companion(path, suffix)).is_ok();
    if !header.is_wal || ["-wal", "-shm"].iter().all(has) {
        return Ok(());
    }
    let shown = shown(path);
    let risk = "in WAL mode, its newest rows may be in a WAL beside its other name";
    if is_single_mount(path) {
        return Err(Error::usage(format!("{shown} is a mount of a single file: {risk}"))
            .hint("mount the folder that contains the database, with its -wal and -shm, or name the original file"));
    }
    if has_links(path) {
        return Err(Error::usage(format!("{shown} is one of several hard links to the same file: {risk}")).hint(
            "name the path that its program uses ('find FOLDER -samefile FILE' lists all names), or remove the other names",
        ));
    }
    Ok(())
}

/// Returns true if a file has another name: it is a mount of a single file, or one of several hard links.
pub(super) fn has_other_name(path: &Path) -> bool {
    is_single_mount(path) || has_links(path)
}

fn has_links(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.nlink() > 1)
}

/// Returns true if a file is a mount of its own, and not only in one. False also on systems that do not show it.
fn is_single_mount(path: &Path) -> bool {
    let mount = |path: &Path| {
        let facts = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
        (facts.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(facts.stx_mnt_id)
    };
    match (mount(path), mount(folder_of(path))) {
        (Some(file), Some(folder)) => file != folder,
        _ => false,
    }
}
