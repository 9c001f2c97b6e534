//! Folders for temporary files that exist only during the current operation.
//!
//! Every scratch folder contains a mark file that its owner keeps locked. Folders whose mark is not locked are left
//! over from a crash; they are removed when the next folder is created. The name alone never decides that.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::platform::disk::{create_locked, lock_left_over, require_space, shown};
use crate::platform::error::{IoContext, Kind, Result};
use crate::platform::place;
use crate::platform::temporary_folder::TemporaryFolder;

const PREFIX: &str = "lifeboat-scratch-";
const MARK: &str = "making";

/// The location in which scratch folders are created.
#[derive(Clone, Debug)]
pub struct Scratch {
    base: PathBuf,
}

/// A private folder (0700). It is removed with its content when dropped.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: TemporaryFolder,
    _mark: File,
}

impl Scratch {
    /// Uses `base`, or the system's folder for temporary files.
    #[must_use]
    pub fn new(base: Option<PathBuf>) -> Self {
        Scratch { base: base.unwrap_or_else(std::env::temp_dir) }
    }

    /// Creates a scratch folder. Fails if its disk does not have space for `bytes` more.
    pub fn folder(&self, bytes: u64) -> Result<ScratchFolder> {
        require_space(&self.base, bytes).map_err(|error| match error.kind {
            Kind::Failed => error.hint("name a folder with more free space with --scratch or TMPDIR"),
            _ => error.hint("name another folder with --scratch"),
        })?;
        remove_left_over(&self.base);
        let cannot = || format!("cannot create a scratch folder in {}", shown(&self.base));
        // SQLite opens files without links only, and root does not follow every link.
        let base = place::resolve(&self.base).io(Kind::Failed, cannot)?;
        loop {
            let folder = TemporaryFolder::create(&base, PREFIX).io(Kind::Failed, cannot)?;
            match create_locked(&folder.path().join(MARK)) {
                Ok(Some(mark)) => return Ok(ScratchFolder { folder, _mark: mark }),
                // Another process took it for a folder left over from a crash and removed its mark.
                Ok(None) => {}
                Err(_) if !folder.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl ScratchFolder {
    /// Returns the path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }
}

/// Removes the folders of processes that died. A folder that cannot be removed stays until the next time.
fn remove_left_over(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A folder without a mark is being created at this moment, or is not one of lifeboat's.
        if let Some(_mark) = lock_left_over(&entry.path().join(MARK)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
