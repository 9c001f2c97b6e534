//! Places for files that live only as long as the work in hand.
//!
//! Every scratch folder holds a mark that its owner keeps locked; folders whose mark nobody holds are
//! left over from a crash and are cleared when the next one is made. Nothing is ever told apart by its name alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{Error, IoContext, Kind, Result};

const PREFIX: &str = "lifeboat-scratch-";
const MARK: &str = "making";
/// Kept free on every disk that something is written to.
const HEADROOM_BYTES: u64 = 16 << 20;

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
        require_space(&self.base, bytes).map_err(|error| error.hint("name a roomier folder with --scratch"))?;
        clear_dead(&self.base);
        let made = || {
            let folder = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(fs::Permissions::from_mode_bits(0o700))
                .tempdir_in(&self.base)?;
            let mark =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.path().join(MARK))?;
            rustix::fs::flock(&mark, FlockOperation::NonBlockingLockExclusive)?;
            Ok(ScratchFolder { folder, _mark: mark })
        };
        made().io(Kind::Failed, || format!("cannot make a scratch folder in {}", self.base.display()))
    }
}

trait FromModeBits {
    fn from_mode_bits(mode: u32) -> Self;
}

impl FromModeBits for fs::Permissions {
    fn from_mode_bits(mode: u32) -> Self {
        std::os::unix::fs::PermissionsExt::from_mode(mode)
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
        let Ok(mark) = File::open(entry.path().join(MARK)) else { continue };
        if rustix::fs::flock(&mark, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Fails where the disk of `folder` has not room for `bytes` more, and a little.
pub fn require_space(folder: &Path, bytes: u64) -> Result<()> {
    let state = rustix::fs::statvfs(folder).map_err(std::io::Error::from);
    let state = state.io(Kind::Unreachable, || format!("cannot look at {}", folder.display()))?;
    let free = state.f_bavail.saturating_mul(state.f_frsize);
    // A disk too small for the headroom itself can still take what is small.
    let headroom = HEADROOM_BYTES.min(state.f_blocks.saturating_mul(state.f_frsize) / 16);
    if free < bytes.saturating_add(headroom) {
        return Err(Error::failed(format!("{} has {free} bytes free and needs {bytes}", folder.display()))
            .hint("free some space"));
    }
    Ok(())
}

/// Makes a file (0600) that was not there.
pub fn create_file(path: &Path) -> Result<File> {
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    file.io(Kind::Failed, || format!("cannot create {}", path.display()))
}

/// Makes a folder (0700) that was not there.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path).io(Kind::Failed, || format!("cannot create {}", path.display()))
}

/// Makes what was done in a folder (names made, changed, removed) survive a power cut.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).io(Kind::Failed, || format!("cannot sync {}", path.display()))
}
