//! A name in a folder that nobody can exchange. If other users can exchange a part of its path for a link, root creates,
//! opens, renames and removes files through the descriptor of the folder.
//!
//! If this process runs as root, it does not follow every symbolic link: one of another user is followed only if the
//! file or folder at its end belongs to that user. The kernel has the same rule for links in folders such as `/tmp`
//! (`protected_symlinks`). Without it, the owner of a folder could make root read, overwrite or give away files that are
//! elsewhere. A hard link to a file of another user, a pipe or a device is refused too where other users may create one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, ReadDir};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::platform::error::{Error, one_line};
use crate::platform::shell::quote_path;

/// The greatest number of links in a path, as in the kernel.
const MAX_LINKS: u32 = 40;

/// A name in a folder. The name itself is never followed if it is a symbolic link.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder, opened; `None` if its path is safe to use, because no other user can exchange a part of it.
    folder: Option<OwnedFd>,
    /// The name in the folder, or else the whole path.
    name: PathBuf,
    path: PathBuf,
}

impl Place {
    /// Opens the folder of a path, if other users can exchange a part of it.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = folder_of(path);
        Ok(match !is_root() || is_fixed(folder)? {
            true => Place { folder: None, name: path.to_owned(), path: path.to_owned() },
            false => Place { folder: Some(open_folder(folder)?), name: name.into(), path: path.to_owned() },
        })
    }

    fn at(&self) -> BorrowedFd<'_> {
        self.folder.as_ref().map_or(CWD, OwnedFd::as_fd)
    }

    fn folder_facts(&self) -> rustix::io::Result<Stat> {
        match &self.folder {
            Some(folder) => rustix::fs::fstat(folder),
            None => rustix::fs::stat(folder_of(&self.path)),
        }
    }

    /// Opens the file. Does not wait for the other end of a pipe.
    pub(crate) fn open(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(self.at(), &self.name, flags, Mode::empty())?))
    }

    /// Creates the file, and opens it for reading and writing. Fails if the name exists.
    pub(crate) fn create_new(&self, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(self.at(), &self.name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Opens a file that is read or changed in place, and creates it if the flags say so. Fails if root must not use it
    /// (see [`require_own`](Self::require_own)).
    pub(crate) fn open_own(&self, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        // Before it is opened: to close a descriptor of a database drops the locks of this process.
        self.require_own()?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.at(), &self.name, flags, mode)?;
        self.require_own_file(&rustix::fs::fstat(&file)?)?;
        Ok(file)
    }

    /// Fails if this process is root, other users may change the folder, and one of them may have planted the file: it is
    /// a link, a pipe, a device, or a hard link to a file of another user. A file that does not exist is accepted.
    pub(crate) fn require_own(&self) -> io::Result<()> {
        if !is_root() {
            return Ok(());
        }
        match rustix::fs::statat(self.at(), &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => self.require_own_file(&facts),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn require_own_file(&self, facts: &Stat) -> io::Result<()> {
        if !is_root() {
            return Ok(());
        }
        let folder = self.folder_facts()?;
        if !others_may_change(&folder) {
            return Ok(());
        }
        let path = one_line(&self.path.display().to_string());
        let refuse = |what: String, hint: &str| Err(Error::usage(format!("{path} {what}")).hint(hint).into());
        let hint =
            "another user can have planted it to make root change another file: find out who made it, and remove it";
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile if facts.st_nlink < 2 => Ok(()),
            FileType::RegularFile if folder.st_uid != 0 && facts.st_uid == folder.st_uid => Ok(()),
            FileType::RegularFile => {
                refuse(format!("has another name (a hard link), and belongs to the user {}", facts.st_uid), hint)
            }
            FileType::Directory => Ok(()),
            FileType::Symlink => refuse(format!("is a symbolic link of the user {}", facts.st_uid), hint),
            _ => refuse("is a pipe or a device, and not a file".to_owned(), hint),
        }
    }

    /// Creates a folder. Fails if the name exists.
    pub(crate) fn create_folder(&self, mode: u32) -> io::Result<()> {
        match &self.folder {
            Some(folder) => Ok(rustix::fs::mkdirat(folder, &self.name, Mode::from_raw_mode(mode))?),
            None => DirBuilder::new().mode(mode).create(&self.name),
        }
    }

    /// Removes a file or a link.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match &self.folder {
            Some(folder) => Ok(rustix::fs::unlinkat(folder, &self.name, AtFlags::empty())?),
            None => fs::remove_file(&self.name),
        }
    }

    /// Gives a file or folder another name. Replaces a file of that name.
    pub(crate) fn rename(&self, to: &Place) -> io::Result<()> {
        match (&self.folder, &to.folder) {
            (None, None) => fs::rename(&self.name, &to.name),
            _ => Ok(rustix::fs::renameat(self.at(), &self.name, to.at(), &to.name)?),
        }
    }

    /// Gives a file or folder another name, if the file system can do it without replacing a file of that name.
    pub(crate) fn rename_exclusively(&self, to: &Place) -> rustix::io::Result<()> {
        rustix::fs::renameat_with(self.at(), &self.name, to.at(), &to.name, RenameFlags::NOREPLACE)
    }

    /// Gives a file a second name. Fails if that exists.
    pub(crate) fn link(&self, to: &Place) -> rustix::io::Result<()> {
        rustix::fs::linkat(self.at(), &self.name, to.at(), &to.name, AtFlags::empty())
    }
}

/// Returns `path`, or `.` if it is empty.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn folder_of(path: &Path) -> &Path {
    or_here(path.parent().unwrap_or(path))
}

/// Returns true if only root can put another folder or a link in the place of a part of a path: each part is in a folder
/// of root that nobody else may change, or in one whose sticky bit protects what belongs to root. False also for a path
/// with a link. The folder at its end may belong to anybody.
fn is_fixed(folder: &Path) -> io::Result<bool> {
    let mut above: Option<Stat> = None;
    let (mut path, absolute) = (PathBuf::new(), std::path::absolute(folder)?);
    for part in absolute.components() {
        path.push(part);
        let facts = match rustix::fs::lstat(&path) {
            Err(Errno::NOENT) => return Ok(false),
            facts => facts?,
        };
        let is_safe = above.is_none_or(|above| {
            let is_sticky = Mode::from_raw_mode(above.st_mode).contains(Mode::SVTX);
            !others_may_change(&above) || (above.st_uid == 0 && is_sticky && facts.st_uid == 0)
        });
        if !is_safe || part == Component::ParentDir || FileType::from_raw_mode(facts.st_mode) != FileType::Directory {
            return Ok(false);
        }
        above = Some(facts);
    }
    Ok(true)
}

/// Opens a folder for the names in it (`O_PATH`). Root does not follow every link.
pub(crate) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let path = or_here(path);
    if !is_root() {
        return Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    }
    let walked = walk(path)?;
    if !walked.missing.is_empty() {
        return Err(Errno::NOENT.into());
    }
    match FileType::from_raw_mode(rustix::fs::fstat(&walked.last)?.st_mode) {
        FileType::Directory => Ok(walked.last),
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// Opens a file, a pipe or a device for reading. Root does not follow every link.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    if !is_root() {
        return File::open(path);
    }
    let walked = walk(path)?;
    if !walked.missing.is_empty() {
        return Err(Errno::NOENT.into());
    }
    let expected = rustix::fs::fstat(&walked.last)?;
    let file = File::open(path)?;
    let opened = rustix::fs::fstat(&file)?;
    if (opened.st_dev, opened.st_ino) != (expected.st_dev, expected.st_ino) {
        return Err(io::Error::other("another file was put in its place meanwhile"));
    }
    Ok(file)
}

/// Lists a folder. Root does not follow every link. In the entries, only the names are those of the folder, and not the
/// paths.
pub(crate) fn read_folder(path: &Path) -> io::Result<ReadDir> {
    let path = or_here(path);
    if !is_root() || is_fixed(path)? {
        return fs::read_dir(path);
    }
    let folder = open_folder(path)?;
    let opened = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    opened.map_err(|error| io::Error::other(format!("/proc/self/fd cannot be read: {error}")))
}

/// Returns true if a path was not followed because of the owner of a link in it.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Error>())
}

/// Returns the absolute path of an existing file or folder without links. Root does not follow every link.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    if !is_root() {
        return path.canonicalize();
    }
    let walked = walk(path)?;
    if walked.missing.is_empty() { Ok(walked.real) } else { Err(Errno::NOENT.into()) }
}

/// Opens the deepest folder of a path that exists. Returns it with the names after it. Fails if nothing is at the end of
/// a link.
pub(crate) fn open_existing(path: &Path) -> io::Result<(OwnedFd, Vec<OsString>)> {
    let walked = walk(path)?;
    if walked.is_dangling || walked.missing.iter().any(|name| name == "..") {
        return Err(Errno::NOENT.into());
    }
    match FileType::from_raw_mode(rustix::fs::fstat(&walked.last)?.st_mode) {
        FileType::Directory => Ok((walked.last, walked.missing)),
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// The part of a path that exists.
struct Walked {
    /// The last file or folder, opened with `O_PATH`.
    last: OwnedFd,
    /// Its path without links.
    real: PathBuf,
    /// The names after it.
    missing: Vec<OsString>,
    /// True if the first missing name is in the target of a link.
    is_dangling: bool,
}

enum Part {
    Name(OsString),
    /// The names of a link's target are before this. The owner and the path are those of the link.
    EndOfLink(u32, PathBuf),
}

fn walk(path: &Path) -> io::Result<Walked> {
    let root = || rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut parts: VecDeque<Part> = names_of(&std::path::absolute(path)?).collect();
    let (mut at, mut real, mut links) = (root()?, PathBuf::from("/"), 0);
    while let Some(part) = parts.pop_front() {
        let name = match part {
            Part::Name(name) => name,
            Part::EndOfLink(owner, link) => {
                require_owner(&at, owner, &link)?;
                continue;
            }
        };
        let next = match open_next(&at, &name) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                let (mut missing, mut is_dangling) = (vec![name], false);
                for part in parts {
                    match part {
                        Part::Name(name) => missing.push(name),
                        Part::EndOfLink(owner, link) => {
                            require_owner(&at, owner, &link)?;
                            is_dangling = true;
                        }
                    }
                }
                return Ok(Walked { last: at, real, missing, is_dangling });
            }
            Err(error) => return Err(error.into()),
        };
        let facts = rustix::fs::fstat(&next)?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::Symlink {
            if name == ".." {
                real.pop();
            } else {
                real.push(&name);
            }
            at = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let link = real.join(&name);
        let owner = facts.st_uid;
        parts.push_front(Part::EndOfLink(owner, link.clone()));
        if rustix::fs::fstatfs(&next).is_ok_and(|system| system.f_type == rustix::fs::PROC_SUPER_MAGIC) {
            // The text of such a link may be no path. Users cannot create links there.
            at = rustix::fs::openat(&at, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            real = link.canonicalize().unwrap_or(link);
            continue;
        }
        let target = rustix::fs::readlinkat(&next, "", Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            (at, real) = (root()?, PathBuf::from("/"));
        }
        names_of(&target).rev().for_each(|part| parts.push_front(part));
    }
    Ok(Walked { last: at, real, missing: Vec::new(), is_dangling: false })
}

fn names_of(path: &Path) -> impl DoubleEndedIterator<Item = Part> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
        Component::ParentDir => Some(Part::Name(OsString::from(".."))),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name)
}

/// Opens a file, a folder or a link in a folder.
fn open_next(at: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // With DIRECTORY, the kernel mounts a folder that is mounted on demand.
    match rustix::fs::openat(at, name, flags | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => rustix::fs::openat(at, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Fails if a link of one user leads to a file or folder of another.
fn require_owner(end: &OwnedFd, link_owner: u32, link: &Path) -> io::Result<()> {
    let owner = rustix::fs::fstat(end)?.st_uid;
    if !is_root() || link_owner == 0 || owner == link_owner {
        return Ok(());
    }
    let shown = one_line(&link.display().to_string());
    let message = format!(
        "{shown} is a symbolic link of the user {link_owner}, but leads to what belongs to the user {owner}: root does not \
         follow it"
    );
    let hint = format!("if the link is meant to be there, run as root: chown -h root {}", quote_path(link));
    Err(Error::usage(message).hint(hint).into())
}

/// Returns true if users other than root may create files in a folder.
fn others_may_change(folder: &Stat) -> bool {
    let mode = Mode::from_raw_mode(folder.st_mode);
    folder.st_uid != 0 || mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && folder.st_gid != 0)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_dots_are_resolved_as_the_system_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        symlink("a/b", root.join("relative")).unwrap();
        symlink(root.join("relative"), root.join("absolute")).unwrap();
        symlink("../file", root.join("a/b/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for path in ["absolute/file", "relative/../b/./file", "a/b/up", "a/b", "a/b/file/x", "loop", "missing/x", ""] {
            let path = root.join(path);
            let walked = walk(&path).map(|walked| (walked.real, walked.missing.is_empty()));
            let expected = path.canonicalize();
            match walked {
                Ok((real, true)) => assert_eq!(Some(real), expected.ok(), "{path:?}"),
                _ => assert!(expected.is_err(), "{path:?}"),
            }
        }
        let (_, missing) = open_existing(&root.join("absolute/c/d")).unwrap();
        assert_eq!(missing, ["c", "d"]);
    }
}
