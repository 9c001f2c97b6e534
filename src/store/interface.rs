//! The interface that every store implements: keys, objects, listings, uploads.

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::Ranged;

/// The name of an object: parts that are joined by `/`. A part consists of `A-Z a-z 0-9 . _ -`, has 1 to 255 bytes, and
/// does not start with a dot (such names are reserved for the store itself).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part after the last `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Returns everything before the last `/`, or an empty text at the top level.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_valid = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.len() <= 255
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.split('/').all(is_valid) {
            Ok(Key(text.to_owned()))
        } else {
            Err(Error::usage(format!("'{}' is not a valid key of an object", crate::platform::error::one_line(text))))
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's metadata, available without reading the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub bytes: u64,
    /// The time at which it was published, according to the store's clock.
    pub modified: SystemTime,
}

/// The content of one folder of a store, without its subfolders' content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The names of the folders in it, sorted.
    pub folders: Vec<String>,
    /// The objects in it, sorted by key.
    pub objects: Vec<ObjectMeta>,
}

/// A selection of the names in a folder, so that a store does not have to list all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names<'a> {
    /// All names.
    All,
    /// Names that sort at or after the first text and, if there is a second one, before the second.
    Between(&'a str, Option<&'a str>),
    /// Names that begin with this text.
    StartingWith(&'a str),
}

impl Names<'_> {
    /// Returns true if a name belongs to the selection.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::Between(from, until) => name >= *from && until.is_none_or(|until| name < until),
            Names::StartingWith(start) => name.starts_with(start),
        }
    }
}

/// The outcome of a `finish` that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// The object exists durably, with the bytes that were written.
    Created,
    /// An object with this key existed already and was not changed.
    AlreadyExists,
}

/// An object that is being written. It is invisible until `finish`. Dropping the upload discards it.
pub trait Upload: Write + Send {
    /// Publishes the object, complete and durable, unless an object with its key already exists.
    fn finish(self: Box<Self>) -> Result<Published>;
}

/// A place that holds objects. See [`crate::store`] for its guarantees.
pub trait Store: Send + Sync {
    /// Returns the store's location, for messages and for commands that the user can copy. It holds no secrets.
    fn location(&self) -> String;

    /// Starts an object with this key.
    fn create(&self, key: &Key) -> Result<Box<dyn Upload>>;

    /// Starts an object of at most `max_bytes`. A store that splits uploads into parts makes the parts large enough.
    fn create_large(&self, key: &Key, max_bytes: u64) -> Result<Box<dyn Upload>>;

    /// Opens an object for reading. Fails with [`Kind::NotFound`] if it does not exist.
    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>>;

    /// Returns an object's metadata, or `None` if it does not exist.
    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>>;

    /// Lists the folders and objects with these names in one folder (`""` is the top level). The listing of a folder
    /// that does not exist is empty.
    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing>;

    /// Deletes an object durably. It is not an error if the object does not exist.
    fn delete(&self, key: &Key) -> Result<()>;

    /// Deletes many objects, in any order. On failure some of them may have been deleted.
    fn delete_all(&self, keys: &[Key]) -> Result<()>;

    /// Removes data of crashed uploads that is older than `age`. Returns the number of bytes freed.
    fn clear_leftovers(&self, age: Duration) -> Result<u64>;

    /// Returns true if the store is local: listing a part of a folder takes as long as listing all of it, and objects
    /// are deleted one by one. For a remote store, callers use few requests, and list only the names that they need.
    fn is_local(&self) -> bool;

    /// Returns some names at the top level, to find out whether the store is empty. Names of uploads in progress are
    /// left out.
    fn some_names(&self) -> Result<Vec<String>>;

    /// Tests optional features of the store's service, and returns the name and the result of each test. The tests use
    /// the object `key`, which must exist and may be overwritten.
    fn probe(&self, key: &Key) -> Vec<(String, Result<String>)>;

    /// Returns the free space in bytes, or `None` if it is not known.
    fn free_bytes(&self) -> Option<u64>;

    /// Reads a small object into memory. An object of more than `max_bytes` is refused before any of it is read.
    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>>;
}

/// Reads a small object with [`Store::open`], for stores that have no faster way to [read](Store::read) one.
pub fn read_opened(store: &dyn Store, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
    let object = store.open(key)?;
    if object.len() > max_bytes {
        let bytes = object.len();
        return Err(Error::problem(format!("{key} has {bytes} bytes, but at most {max_bytes} are allowed")));
    }
    let mut bytes = vec![0; usize::try_from(object.len()).expect("bounded just above")];
    object.read_at(0, &mut bytes).io(Kind::Unreachable, || format!("cannot read {key} in {}", store.location()))?;
    Ok(bytes)
}

/// Writes small objects in one call.
pub trait StoreExt: Store {
    /// Writes and publishes a small object in one call.
    fn write(&self, key: &Key, bytes: &[u8]) -> Result<Published> {
        let mut upload = self.create(key)?;
        upload.write_all(bytes).io(Kind::Failed, || format!("cannot write {key} in {}", self.location()))?;
        upload.finish()
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
