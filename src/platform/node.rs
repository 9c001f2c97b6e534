//! Files whose owner, mode and extended attributes can be set: one that is open, and one that is only named by a
//! descriptor, because SQLite has it open.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, OFlags, Uid, XattrFlags};

use crate::platform::disk::{folder_of, open_plain, sync_folder};

/// A file whose attributes can be set.
pub(crate) trait Node {
    /// Returns the metadata.
    fn facts(&self) -> io::Result<fs::Metadata>;

    /// Sets the permission bits.
    fn set_mode(&self, mode: u32) -> io::Result<()>;

    /// Sets an extended attribute.
    fn set_attribute(&self, name: &str, value: &[u8]) -> rustix::io::Result<()>;

    /// Removes an extended attribute.
    fn remove_attribute(&self, name: &str) -> rustix::io::Result<()>;

    /// Sets the user, if there is one, and the group.
    fn set_owner(&self, user: Option<Uid>, group: Gid) -> rustix::io::Result<()>;

    /// Writes the attributes to disk.
    fn sync(&self) -> io::Result<()>;
}

impl Node for File {
    fn facts(&self) -> io::Result<fs::Metadata> {
        self.metadata()
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.set_permissions(Permissions::from_mode(mode))
    }

    fn set_attribute(&self, name: &str, value: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::fsetxattr(self, name, value, XattrFlags::empty())
    }

    fn remove_attribute(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::fremovexattr(self, name)
    }

    fn set_owner(&self, user: Option<Uid>, group: Gid) -> rustix::io::Result<()> {
        rustix::fs::fchown(self, user, Some(group))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A descriptor that names a file and cannot read it (`O_PATH`).
///
/// Closing any other descriptor drops the POSIX locks that this process has on the file. Closing this one does not, so
/// it can be used while SQLite has the file open.
#[derive(Debug)]
pub(crate) struct FileReference {
    descriptor: rustix::fd::OwnedFd,
    folder: PathBuf,
}

impl FileReference {
    /// Opens the file at a path. The last part of the path is not followed if it is a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let descriptor = open_plain(path, OFlags::PATH)?.into();
        Ok(FileReference { descriptor, folder: folder_of(path).to_owned() })
    }

    /// Returns the path of the descriptor, which stands for the file itself and not for a name of it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()))
    }
}

impl Node for FileReference {
    fn facts(&self) -> io::Result<fs::Metadata> {
        fs::metadata(self.path())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.path(), Permissions::from_mode(mode))
    }

    fn set_attribute(&self, name: &str, value: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::setxattr(self.path(), name, value, XattrFlags::empty())
    }

    fn remove_attribute(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::removexattr(self.path(), name)
    }

    fn set_owner(&self, user: Option<Uid>, group: Gid) -> rustix::io::Result<()> {
        rustix::fs::chownat(&self.descriptor, "", user, Some(group), AtFlags::EMPTY_PATH)
    }

    /// Syncs the folder: this descriptor cannot sync the file.
    fn sync(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }
}
