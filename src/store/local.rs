//! A store in a folder. Each object is one file; a `/` in a key separates folders.
//!
//! An upload is a file `.upload-<random>` in the folder of the future object. It is locked (`flock`) as long as the
//! process that writes it lives. `finish` syncs it, renames it without replacing an existing file (see
//! [`crate::platform::new_name`]), and syncs the folder. Files that are not objects (names that start with a dot or have characters not allowed in a key, links to
//! files, devices) are ignored. This store creates files with mode 0600 and folders with mode 0700. If root writes into
//! the store of another user, that user gets the new files and folders. A folder remains after its last object was
//! deleted, so a listing may show an empty one.
//!
//! This module does not read `lifeboat.json`: its callers decide whether a folder *is* a store.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use crate::platform::attributes::{self, Owner};
use crate::platform::disk::{
    self, SyncBehind, folder_of, open_plain, or_here, remove_file, shown, sync_folder, temporary_file,
};
use crate::platform::error::{Error, IoContext, Kind, Reason, Result};
use crate::platform::incidental::is_incidental;
use crate::platform::new_name::{is_lock_name, persist_new};
use crate::platform::place::{self, Place};
use crate::platform::ranged::{Ranged, require_within};
use crate::store::interface::{Key, Listing, Names, ObjectMeta, Published, Store, Upload, read_opened};

const UPLOAD_PREFIX: &str = ".upload-";
const FOLDER_MODE: u32 = 0o700;

/// A store in a folder of this machine. See [`Store`] for its guarantees.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: PathBuf,
}

impl LocalStore {
    /// Opens the existing folder at `path`. Fails with [`Kind::Unreachable`] if it does not exist. Writes nothing.
    pub fn open(path: &Path) -> Result<Self> {
        let store = LocalStore { root: path.to_path_buf() };
        store.check_root()?;
        Ok(store)
    }

    /// Creates the folder at `path` and its missing parents durably, with access only for this user (0700). An existing
    /// folder is not changed.
    pub fn create(path: &Path) -> Result<Self> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !or_here(folder).exists()).collect();
        for folder in missing.iter().rev() {
            match Place::of(folder).and_then(|place| place.create_folder(FOLDER_MODE)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                created => created.io(Kind::Unreachable, || format!("cannot create the folder {}", shown(path)))?,
            }
        }
        for parent in missing.iter().filter_map(|folder| folder.parent()).map(or_here) {
            sync_folder(parent).io(Kind::Failed, || format!("cannot sync the folder {}", shown(parent)))?;
        }
        LocalStore::open(path)
    }

    /// Returns the path of `key`'s file.
    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Fails if the store's folder itself is missing: then "no such file" does not mean that the object is absent.
    fn check_root(&self) -> Result<()> {
        let root = shown(&self.root);
        match fs::metadata(or_here(&self.root)) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Error::unreachable(format!("the store {root} is not a folder"))
                .hint("give the folder that contains the store")),
            Err(error) if is_absent(&error) => {
                let absent = Error::unreachable(format!("the store folder {root} does not exist")).because(error);
                let hint = "check that its disk is mounted; 'lifeboat init' creates the stores of a new config, and \
                            'lifeboat snapshot --store' creates a store that no config has";
                Err(absent.reason(Reason::StoreIsAbsent).hint(hint))
            }
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => "run as a user who may enter the folder and all above it",
                    _ => "check that its disk is mounted and in order",
                };
                Err(Error::unreachable(format!("cannot access the store folder {root}")).because(error).hint(hint))
            }
        }
    }

    /// Converts the result of a lookup. Returns `None` if the object is absent and the store's folder exists.
    fn found<T>(&self, lookup: io::Result<T>, message: impl FnOnce() -> String) -> Result<Option<T>> {
        match lookup {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_absent(&error) => self.check_root().map(|()| None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let denied = Err(error).io(Kind::Unreachable, message);
                denied.map_err(|denied: Error| denied.hint(self.hint_for_denied()))
            }
            Err(error) => Err(error).io(Kind::Unreachable, message),
        }
    }

    /// Returns the hint for a file or folder that this user may not read: another user has written to the store.
    fn hint_for_denied(&self) -> String {
        let root = shown(&self.root);
        match fs::metadata(or_here(&self.root)) {
            Ok(facts) => format!(
                "another user has written to this store: run as that user, or give all of it to the owner of its folder; \
                 as root: chown -R {} {root}",
                Owner::of(&facts)
            ),
            Err(_) => "run as a user who may read the store".to_owned(),
        }
    }

    /// Creates the folder of `key` durably and returns its path. Never creates the store's own folder.
    fn make_folder(&self, key: &Key) -> Result<PathBuf> {
        let mut folder = self.root.clone();
        for part in key.folder().split('/').filter(|part| !part.is_empty()) {
            let parent = folder.clone();
            folder.push(part);
            let made = match Place::of(&folder).and_then(|place| place.create_folder(FOLDER_MODE)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(false),
                made => made.map(|()| true),
            };
            if made.as_ref().is_err_and(is_absent) {
                self.check_root()?;
            }
            let is_new = made.io(Kind::Unreachable, || format!("cannot create the folder {}", shown(&folder)))?;
            if is_new && let Err(error) = attributes::give_new_folder(&parent, &folder) {
                tracing::warn!("{} could not be given to the owner of the store: {error}", shown(&folder));
            }
            // Sync an existing folder too: another upload may have created it and not synced it yet.
            sync_folder(&parent).io(Kind::Unreachable, || format!("cannot sync the folder {}", shown(&parent)))?;
        }
        Ok(folder)
    }

    /// Removes one folder's abandoned uploads that are older than `age`. Returns the number of bytes freed.
    fn clear_folder(folder: &Path, age: Duration) -> Result<u64> {
        let now = SystemTime::now();
        let mut freed_bytes = 0;
        let message = || format!("cannot list the folder {}", shown(folder));
        for entry in place::read_folder(folder).io(Kind::Unreachable, message)? {
            let entry = entry.io(Kind::Unreachable, message)?;
            let path = folder.join(entry.file_name());
            if !entry.file_name().to_str().is_some_and(is_unfinished) {
                continue;
            }
            let Ok(meta) = entry.metadata() else { continue }; // deleted since: its upload has ended
            let is_old = meta.modified().is_ok_and(|modified| now.duration_since(modified).is_ok_and(|is| is > age));
            if !meta.is_file() || !is_old || is_owned(&path) {
                continue;
            }
            match remove_file(&path) {
                Ok(()) => freed_bytes += meta.len(),
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    return Err(error).io(Kind::Failed, || format!("cannot remove {}", shown(&path)));
                }
            }
        }
        Ok(freed_bytes)
    }
}

impl Store for LocalStore {
    /// Returns the path that was given to `open` or `create`, unquoted.
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    /// Starts an object. Writes are not buffered, so write large pieces.
    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let folder = self.make_folder(key)?;
        let target = self.path(key);
        let temp = temporary_file(&folder, UPLOAD_PREFIX, "");
        if temp.as_ref().is_err_and(is_absent) {
            self.check_root()?;
        }
        let temp = temp.io(Kind::Unreachable, || format!("cannot start writing {}", shown(&target)))?;
        if let Err(error) = attributes::give_new_file(&self.root, temp.as_file()) {
            tracing::warn!("{} could not be given to the owner of the store: {error}", shown(&target));
        }
        // The lock only protects a slow upload from `clear_leftovers`. On a file system without locks,
        // the file's age still protects it.
        let _ = temp.as_file().try_lock();
        let behind = SyncBehind::new(temp.as_file()).io(Kind::Failed, || format!("cannot write {}", shown(&target)))?;
        Ok(Box::new(LocalUpload { temp, behind, target, failed: false }))
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>> {
        let path = self.path(key);
        let message = || format!("cannot open {}", shown(&path));
        let opened = open_plain(&path, OFlags::RDONLY).and_then(|file| Ok((file.metadata()?, file)));
        match self.found(opened, message)? {
            Some((meta, file)) if meta.is_file() => Ok(Box::new(LocalObject { file, bytes: meta.len() })),
            _ => Err(Error::not_found(format!("{key} does not exist in {}", shown(&self.root)))),
        }
    }

    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        let path = self.path(key);
        let message = || format!("cannot read the metadata of {}", shown(&path));
        match self.found(fs::symlink_metadata(&path), message)? {
            Some(meta) if meta.is_file() => object_meta(key.clone(), &meta).map(Some).io(Kind::Unreachable, message),
            _ => Ok(None),
        }
    }

    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing> {
        let mut listing = Listing::default();
        let path = match folder {
            "" => or_here(&self.root).to_path_buf(),
            folder => self.path(&folder.parse()?),
        };
        let message = || format!("cannot list the folder {}", shown(&path));
        let Some(entries) = self.found(place::read_folder(&path), message)? else { return Ok(listing) };
        for entry in entries {
            let entry = entry.io(Kind::Unreachable, message)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| names.include(name)) else { continue };
            let key = if folder.is_empty() { name.parse() } else { format!("{folder}/{name}").parse() };
            let Ok(key) = key else { continue };
            let kind = entry.file_type().io(Kind::Unreachable, message)?;
            if kind.is_dir() || (kind.is_symlink() && path.join(name).is_dir()) {
                listing.folders.push(name.to_owned());
            } else if kind.is_file() {
                match entry.metadata().and_then(|meta| object_meta(key, &meta)) {
                    Ok(meta) => listing.objects.push(meta),
                    Err(error) if is_absent(&error) => {} // deleted since
                    Err(error) => {
                        let message = || format!("cannot read the metadata of {}", shown(&path.join(name)));
                        return Err(error).io(Kind::Unreachable, message);
                    }
                }
            }
        }
        listing.folders.sort();
        listing.objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listing)
    }

    fn is_local(&self) -> bool {
        true
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let message = || format!("cannot delete {}", shown(&path));
        if self.stat(key)?.is_some() {
            self.found(remove_file(&path), message)?;
        }
        // Sync also if it was already deleted: the process that deleted it may have died before its sync.
        self.found(sync_folder(folder_of(&path)), message)?;
        Ok(())
    }

    /// Checks the store's folder and the folders directly in it. A file that a living process still writes is kept
    /// regardless of its age. A file that cannot be opened, such as one of another user, is kept too.
    fn clear_leftovers(&self, age: Duration) -> Result<u64> {
        let mut freed_bytes = LocalStore::clear_folder(or_here(&self.root), age)?;
        for folder in self.list("", Names::All)?.folders {
            freed_bytes += LocalStore::clear_folder(&self.root.join(folder), age)?;
        }
        Ok(freed_bytes)
    }

    fn free_bytes(&self) -> Option<u64> {
        disk::free_bytes(&self.root).ok()
    }

    fn some_names(&self) -> Result<Vec<String>> {
        let folder = or_here(&self.root);
        let entries =
            place::read_folder(folder).io(Kind::Unreachable, || format!("cannot list the folder {}", shown(folder)))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        // A process that creates this store at the same time has temporary files.
        Ok(names.filter(|name| !is_incidental(name) && !is_unfinished(name)).take(100).collect())
    }

    fn create_large(&self, key: &Key, _: u64) -> Result<Box<dyn Upload>> {
        self.create(key)
    }

    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        read_opened(self, key, max_bytes)
    }

    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        keys.iter().try_for_each(|key| self.delete(key))
    }

    fn probe(&self, _: &Key) -> Vec<(String, Result<String>)> {
        Vec::new()
    }
}

/// An object being written: a locked temporary file in the object's folder, removed when dropped.
struct LocalUpload {
    temp: NamedTempFile,
    behind: SyncBehind,
    target: PathBuf,
    /// True after the first error, permanently: bytes may be missing, so nothing may be published.
    failed: bool,
}

impl LocalUpload {
    fn attempt<T>(&mut self, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let message = || format!("cannot write {}", shown(&self.target));
        if self.failed {
            return Err(Error::failed(format!("{} after an earlier failure", message())).into());
        }
        match work(self.temp.as_file_mut()) {
            // Nothing was written. `write_all` retries only if it sees this kind of error.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failed = true;
                Err(error).io(Kind::Failed, message).map_err(io::Error::from)
            }
            done => done,
        }
    }
}

impl Write for LocalUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.attempt(|file| file.write(bytes))?;
        if let Err(error) = self.behind.wrote(written as u64) {
            // The bytes are written, but the caller does not know that, and must not write them again.
            self.failed = true;
            let failed = Err(error).io(Kind::Failed, || format!("cannot write {}", shown(&self.target)));
            return failed.map_err(io::Error::from);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(File::flush)
    }
}

impl Upload for LocalUpload {
    fn finish(mut self: Box<Self>) -> Result<Published> {
        self.flush()?;
        self.behind.finish().io(Kind::Failed, || format!("cannot publish {}", shown(&self.target)))?;
        publish(self.temp, &self.target)
    }
}

/// Publishes `temp` as the object at `target`, durably, in the only safe order: sync the file, rename it without
/// replacing an existing file, sync the folder. On failure neither of the two files is left.
fn publish(temp: NamedTempFile, target: &Path) -> Result<Published> {
    let message = || format!("cannot publish {}", shown(target));
    let folder = folder_of(target);
    temp.as_file().sync_all().io(Kind::Failed, message)?;
    match persist_new(temp, target) {
        Ok(_) => {
            if let Err(error) = sync_folder(folder) {
                // This upload created it, and its success was not reported yet.
                let _ = remove_file(target).and_then(|()| sync_folder(folder));
                return Err(error).io(Kind::Failed, message);
            }
            Ok(Published::Created)
        }
        Err(refused) if refused.kind() == io::ErrorKind::AlreadyExists => {
            if !fs::symlink_metadata(target).is_ok_and(|meta| meta.is_file()) {
                return Err(Error::failed(message())
                    .because(refused)
                    .hint("this path exists and is not a regular file: move it away"));
            }
            // The other upload may not have synced yet, and the caller relies on the object now.
            sync_folder(folder).io(Kind::Failed, message)?;
            Ok(Published::AlreadyExists)
        }
        Err(refused) => Err(refused).io(Kind::Failed, message),
    }
}

/// An object open for reading. It stays readable after it is deleted.
struct LocalObject {
    file: File,
    bytes: u64,
}

impl Ranged for LocalObject {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        require_within(self.bytes, offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset)
    }
}

fn object_meta(key: Key, meta: &Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta { key, bytes: meta.len(), modified: meta.modified()? })
}

/// Returns true if a file of this name is data of an upload, or the lock of a name that is being published.
fn is_unfinished(name: &str) -> bool {
    name.starts_with(UPLOAD_PREFIX) || is_lock_name(name)
}

/// Returns true if a living process holds the upload at `path`, or if this cannot be determined.
fn is_owned(path: &Path) -> bool {
    // Open for writing, because NFS grants exclusive locks only then.
    match open_plain(path, OFlags::RDWR) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(error) if is_absent(&error) => true,
        Err(error) => {
            tracing::warn!("cannot open the unfinished upload {}, so it is not removed: {error}", shown(path));
            true
        }
    }
}

/// Returns true for the errors that mean that no plain file of this name exists.
fn is_absent(error: &io::Error) -> bool {
    let link = rustix::io::Errno::LOOP.raw_os_error();
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || error.raw_os_error() == Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload_into(file: &str, folder: &Path) -> Box<LocalUpload> {
        let target = folder.join("object");
        let placed = NamedTempFile::new_in(folder).expect("a temporary file").into_temp_path();
        let file = File::options().write(true).open(file).expect("a device");
        let behind = SyncBehind::new(&file).expect("a second descriptor");
        Box::new(LocalUpload { temp: NamedTempFile::from_parts(file, placed), behind, target, failed: false })
    }

    #[test]
    fn full_disk_is_reported_and_nothing_is_published_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut upload = upload_into("/dev/full", folder.path());
        let error = Error::from(upload.write_all(b"x").expect_err("no space"));
        assert!(error.message.contains("object"), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("full")), "{error:?}");
        upload.temp.as_file_mut().set_len(0).ok();
        let error = upload.finish().expect_err("a write has failed");
        assert_eq!(error.kind, Kind::Failed);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn failed_write_is_never_followed_by_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut upload = upload_into("/dev/full", folder.path());
        upload.write_all(b"x").expect_err("no space");
        *upload.temp.as_file_mut() = File::options().write(true).open("/dev/null").expect("a device");
        upload.write_all(b"x").expect_err("a byte is missing before this one");
        upload.finish().expect_err("a write has failed");
    }

    #[test]
    fn object_that_cannot_be_synced_is_not_published() {
        let folder = tempfile::tempdir().expect("a folder");
        // A device cannot be synced: EINVAL.
        let error = upload_into("/dev/null", folder.path()).finish().expect_err("not durable");
        assert!(error.message.starts_with("cannot publish"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }
}
