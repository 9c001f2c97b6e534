//! A folder that exists only until it is dropped or kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::platform::place::Place;

/// A private folder (0700) with a random name. It is removed with its content when dropped.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// Creates a folder. Root does not create it beyond a link of another user.
    pub(crate) fn create(parent: &Path, prefix: &str) -> io::Result<Self> {
        let named = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(16)
            .make_in(parent, |path| Place::of(path)?.create_folder(0o700))?;
        let path = named.into_temp_path().keep()?;
        Ok(TemporaryFolder { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the folder stay, because it has another name now.
    pub(crate) fn keep(mut self) {
        self.path.clear();
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::debug!("cannot remove {}: {error}", crate::platform::disk::shown(&self.path));
        }
    }
}
