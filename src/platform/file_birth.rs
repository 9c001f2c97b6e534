//! The identity of a file for as long as its file system exists.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The inode of a file and the time at which it was created. A file that is created later, at the same path or with the
/// same inode, has another time. The file keeps both when its content, its name or its mount changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBirth {
    /// The inode.
    pub inode: u64,
    /// The time at which the inode was created.
    pub created_at: DateTime<Utc>,
}

impl FileBirth {
    /// Returns the identity of the file at a path. Returns `None` if there is none, or if the file system does not record
    /// when its files were created.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let facts = std::fs::metadata(path).ok()?;
        let created_at = DateTime::<Utc>::from(facts.created().ok()?);
        // Some file systems that record no time answer with the first one.
        (created_at.timestamp() > 0).then(|| FileBirth { inode: facts.ino(), created_at })
    }
}
