//! Where snapshots live: named objects that are written once and read by ranges.
//!
//! What every store promises, held by one contract suite that all of them pass:
//! - nobody sees an object before `finish` has returned, and then all of it;
//! - an upload that is dropped, or whose `finish` fails, leaves no object;
//! - an object that is there is never overwritten;
//! - what `finish` has returned survives a power cut.
//!
//! A store knows nothing of archives, manifests or databases: keys in, bytes out.

pub mod local;
pub mod memory;
pub mod s3;
mod url;

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::Ranged;

pub use local::LocalStore;
pub use memory::MemoryStore;
pub use s3::S3Store;
pub use url::StoreUrl;

/// The name of an object: parts joined by `/`, none of them empty, `.`, `..` or starting with a dot
/// (stores keep those for themselves), made of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The part before the last `/`, empty at the top.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let good = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.len() <= 255
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.split('/').all(good) {
            Ok(Key(text.to_owned()))
        } else {
            Err(Error::usage(format!("'{}' cannot be a key in a store", crate::platform::error::one_line(text))))
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: Key,
    /// Its length.
    pub bytes: u64,
    /// When it was published, by the store's clock.
    pub modified: SystemTime,
}

/// One level of a store's tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names of the folders in it, sorted.
    pub folders: Vec<String>,
    /// The objects in it, sorted by key.
    pub objects: Vec<ObjectMeta>,
}

/// Which names in a folder are asked for: a store need not look at the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names<'a> {
    /// All.
    All,
    /// Those that do not sort before the one, and sort before the other where there is one.
    Between(&'a str, Option<&'a str>),
    /// Those that begin with this.
    StartingWith(&'a str),
}

impl Names<'_> {
    /// Whether a name is one of them.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::Between(from, until) => name >= *from && until.is_none_or(|until| name < until),
            Names::StartingWith(start) => name.starts_with(start),
        }
    }
}

/// How a `finish` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// The object is there, durably, with the bytes that were written.
    Created,
    /// An object of that key was there already and was left as it was.
    AlreadyThere,
}

/// An object being written; invisible until `finish`, gone when dropped.
pub trait Upload: Write + Send {
    /// Makes the object visible, whole and durable, unless one of its key is there already.
    fn finish(self: Box<Self>) -> Result<Published>;
}

/// A place that holds objects. See the module's description for what it promises.
pub trait Store: Send + Sync {
    /// Where it is, for messages and for commands that the user can copy; without secrets.
    fn location(&self) -> String;

    /// Starts an object of that key.
    fn create(&self, key: &Key) -> Result<Box<dyn Upload>>;

    /// The same for one that may have as many as `most_bytes`: a store that cuts uploads into parts makes them large enough.
    fn create_large(&self, key: &Key, most_bytes: u64) -> Result<Box<dyn Upload>> {
        let _ = most_bytes;
        self.create(key)
    }

    /// Opens an object for reading; [`Kind::NotFound`] where there is none.
    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>>;

    /// What is known of an object; None where there is none.
    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>>;

    /// Lists the folders and objects of these names in one folder (`""` is the top). A folder that is not there is empty.
    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing>;

    /// Removes an object, durably; one that is not there is no error.
    fn delete(&self, key: &Key) -> Result<()>;

    /// Removes many objects, in no order; on failure some may be gone and some not.
    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        keys.iter().try_for_each(|key| self.delete(key))
    }

    /// Removes what crashed uploads left behind and is older than `age`; how many bytes that freed.
    fn clear_leftovers(&self, age: Duration) -> Result<u64>;

    /// True where a part of a folder costs as much to list as all of it, and objects are deleted one by one: the store is
    /// near. One that is far away is asked for as little as will do, and for much at once.
    fn is_near(&self) -> bool {
        false
    }

    /// What the service behind the store can do beside what every store must, each by a name: tried on the object of `key`,
    /// which is there and may be overwritten.
    fn probe(&self, key: &Key) -> Vec<(String, Result<String>)> {
        let _ = key;
        Vec::new()
    }

    /// Bytes that the store can still take, where it can tell.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Reads a whole small object; one of more than `max_bytes` is refused before a byte of it is read.
    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        let object = self.open(key)?;
        if object.len() > max_bytes {
            return Err(Error::problem(format!(
                "{key} has {} bytes, more than the {max_bytes} it may have",
                object.len()
            )));
        }
        let mut bytes = vec![0; usize::try_from(object.len()).expect("bounded just above")];
        object.read_at(0, &mut bytes).io(Kind::Unreachable, || format!("cannot read {key} in {}", self.location()))?;
        Ok(bytes)
    }

    /// Writes a whole small object.
    fn write(&self, key: &Key, bytes: &[u8]) -> Result<Published> {
        let mut upload = self.create(key)?;
        upload.write_all(bytes).io(Kind::Failed, || format!("cannot write {key} in {}", self.location()))?;
        upload.finish()
    }
}
