//! Places for files that live only as long as the work in hand.
//!
//! Every scratch folder holds a mark that its owner keeps locked; folders whose mark nobody holds are
//! left over from a crash and are cleared when the next one is made. Nothing is ever told apart by its name alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::platform::disk::{create_locked, lock_left_over, require_space, shown};
use crate::platform::error::{IoContext, Kind, Result};

const PREFIX: &str = "lifeboat-scratch-";
const MARK: &str = "making";

/// Where scratch folders are made.
#[derive(Clone, Debug)]
pub struct Scratch {
    base: PathBuf,
}

/// A folder of one's own (0700), removed with all that is in it when dropped.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: tempfile::TempDir,
    _mark: File,
}

impl Scratch {
    /// Makes scratch folders in `base`, or in the system's folder for temporary files.
    #[must_use]
    pub fn new(base: Option<PathBuf>) -> Self {
        Scratch { base: base.unwrap_or_else(std::env::temp_dir) }
    }

    /// Makes a folder on a disk that has room for `bytes` more.
    pub fn folder(&self, bytes: u64) -> Result<ScratchFolder> {
        require_space(&self.base, bytes).map_err(|error| match error.kind {
            Kind::Failed => error.hint("name a roomier folder with --scratch"),
            _ => error.hint("name another folder with --scratch"),
        })?;
        clear_dead(&self.base);
        let cannot = || format!("cannot make a scratch folder in {}", shown(&self.base));
        loop {
            let private = fs::Permissions::from_mode(0o700);
            let folder = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(&self.base);
            let folder = folder.io(Kind::Failed, cannot)?;
            match create_locked(&folder.path().join(MARK)) {
                Ok(Some(mark)) => return Ok(ScratchFolder { folder, _mark: mark }),
                // Somebody who clears took it for one that is left over.
                Ok(None) => {}
                Err(_) if !folder.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl ScratchFolder {
    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }
}

/// Removes the folders of those who died; one that cannot be removed stays for the next time.
fn clear_dead(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // No mark yet: it is being made at this moment, or is none of ours.
        if let Some(_mark) = lock_left_over(&entry.path().join(MARK)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
