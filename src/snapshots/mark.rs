//! The mark of a store, `lifeboat.json`: it says that a place is a store, and in which format.
//!
//! No single object guards the rest: if the mark is absent or damaged, a store is read as long as one of its manifests
//! can be, or if it has an archive without a manifest, and the mark is written again by the next command that writes to
//! the store.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::archive::{FORMAT, check_version};
use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::snapshots::catalog::{Catalog, STORE_DOCUMENT};
use crate::snapshots::names::key;
use crate::store::{Store, StoreExt};

const MAX_BYTES: u64 = 1 << 16;
/// The field of the mark that holds the format version of the store.
const VERSION_FIELD: &str = "lifeboat_store";
/// The number of manifests in an archive tier after which the search for a readable one ends.
const MOST_ARCHIVED: u32 = 3;

/// The state of a store's mark.
enum Mark {
    /// It is there, and this program can use the store.
    Whole,
    /// It is not there.
    Absent,
    /// It is there, but is not a mark, or cannot be read.
    Unusable {
        /// The reason.
        error: Error,
        /// True if it is certainly nothing but a damaged mark, so that a whole one may take its place.
        is_replaceable: bool,
    },
}

impl Catalog {
    /// Opens an existing store. If its mark is absent or damaged, logs a warning, once for each store.
    pub fn open(store: Box<dyn Store>) -> Result<Self> {
        let (catalog, mark) = Self::find_store(store)?;
        let (problem, is_replaceable) = match &mark {
            Mark::Whole => return Ok(catalog),
            Mark::Absent => ("is missing".to_owned(), true),
            Mark::Unusable { error, is_replaceable } => {
                let cause = error.causes().pop().unwrap_or_else(|| error.full_message());
                (format!("cannot be used ({cause})"), *is_replaceable)
            }
        };
        let next = if is_replaceable { "; the next snapshot there writes it again" } else { "" };
        let location = one_line(&catalog.location());
        warn_once(format!("{STORE_DOCUMENT} in {location} {problem}: the store is read without it{next}"));
        Ok(catalog)
    }

    /// Opens an existing store to write new snapshots. If its mark is absent or damaged, writes it again.
    pub fn open_to_write(store: Box<dyn Store>) -> Result<Self> {
        let (catalog, mark) = Self::find_store(store)?;
        if !matches!(mark, Mark::Whole) {
            // The store can be used without the mark.
            match catalog.write_mark_again(&mark) {
                Ok(()) => tracing::warn!(
                    "{STORE_DOCUMENT} in {} was missing or damaged, and was written again",
                    one_line(&catalog.location())
                ),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => warn_once(format!(
                    "{STORE_DOCUMENT} in {} is missing or damaged, and is not written again: {}",
                    one_line(&catalog.location()),
                    error.full_message_with_hint()
                )),
            }
        }
        Ok(catalog)
    }

    /// Returns true if `store` is already a store of snapshots, and gives `store` back.
    pub fn exists(store: Box<dyn Store>) -> Result<(bool, Box<dyn Store>)> {
        let catalog = Catalog::of(store);
        let exists = match catalog.read_mark()? {
            Mark::Whole | Mark::Unusable { .. } => true,
            Mark::Absent => catalog.has_data()?,
        };
        Ok((exists, catalog.store))
    }

    /// Creates a store in an empty place, and opens it.
    pub fn create(store: Box<dyn Store>) -> Result<Self> {
        // If another process was first, the document is the same.
        let _ = store.write(&key(STORE_DOCUMENT)?, &document())?;
        Catalog::open(store)
    }

    /// Opens a store: its mark is whole, a manifest in it can be read, or it has archives without a manifest.
    fn find_store(store: Box<dyn Store>) -> Result<(Self, Mark)> {
        let catalog = Catalog::of(store);
        let mark = catalog.read_mark()?;
        if matches!(mark, Mark::Whole) || catalog.has_data()? {
            return Ok((catalog, mark));
        }
        Err(match mark {
            Mark::Unusable { error, .. } => error,
            Mark::Whole | Mark::Absent => catalog.absent(),
        })
    }

    fn absent(&self) -> Error {
        Error::unreachable(format!("there is no lifeboat store in {}", one_line(&self.location())))
            .reason(Reason::StoreIsAbsent)
            .hint(match self.is_local() {
                true => {
                    "check the path, and that its disk is mounted; 'lifeboat snapshot --store' creates a store if the \
                     folder does not exist"
                }
                false => {
                    "check the bucket and the prefix; 'lifeboat snapshot --store' creates a store if no object exists \
                     there"
                }
            })
    }

    /// Reads the mark. Fails if the store cannot be reached, or if its format is that of a newer version.
    fn read_mark(&self) -> Result<Mark> {
        // Read instead of stat: if the request is refused, only a reply with a body has the cause.
        let bytes = match self.store.read(&key(STORE_DOCUMENT)?, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind == Kind::NotFound => return Ok(Mark::Absent),
            // A lifecycle rule of the bucket moved it. It exists, so the store does, and new snapshots can be written.
            Err(error) if error.reason == Some(Reason::ObjectIsArchived) => {
                warn_once(format!("{STORE_DOCUMENT} is not read: {}", error.full_message()));
                return Ok(Mark::Whole);
            }
            // It has too many bytes, or this one file of a folder cannot be read.
            Err(error) if error.kind == Kind::Problem || (error.kind == Kind::Unreachable && self.is_local()) => {
                return match error.reason {
                    Some(_) => Err(error),
                    None => Ok(Mark::Unusable { error, is_replaceable: false }),
                };
            }
            Err(error) => return Err(error),
        };
        let location = one_line(&self.location());
        // A page for people, such as the login page of a network, says nothing about the store.
        if !self.is_local() && bytes.trim_ascii_start().starts_with(b"<") {
            return Err(Error::unreachable(format!("cannot read {STORE_DOCUMENT} in {location}"))
                .because("the answer is a web page, and not that of an S3 service")
                .hint("check the endpoint"));
        }
        let unusable = |error: Error, is_replaceable: bool| {
            let error = error.hint(format!(
                "if {location} is to be a new store, remove {STORE_DOCUMENT}; if it is one, its snapshots are missing"
            ));
            Ok(Mark::Unusable { error, is_replaceable })
        };
        let cannot_parse = || Error::problem(format!("cannot parse {STORE_DOCUMENT} in {location}"));
        match serde_json::from_slice::<Value>(&bytes) {
            Err(error) => unusable(cannot_parse().because(error), true),
            Ok(document) => match document.get(VERSION_FIELD) {
                None => unusable(cannot_parse().because(format!("it has no field {VERSION_FIELD}")), false),
                Some(version) => match check_version(&format!("the store {location}"), version) {
                    Ok(()) => Ok(Mark::Whole),
                    Err(error) if error.is_newer_format() => Err(error),
                    Err(error) => unusable(error, true),
                },
            },
        }
    }

    /// Returns true if a manifest in the store can be read, or if it has an archive without a manifest. Fails as
    /// [`has_readable_manifest`](Self::has_readable_manifest) does.
    fn has_data(&self) -> Result<bool> {
        if self.has_readable_manifest()? {
            return Ok(true);
        }
        for source in self.sources()? {
            if !self.list_without_manifest(Some(&source))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns true if a manifest in the store can be read. Fails if all that were found are of a newer version, or are
    /// in an archive tier, or if the store cannot be reached.
    fn has_readable_manifest(&self) -> Result<bool> {
        let (mut unreadable, mut archived) = (None, 0);
        for source in self.sources()? {
            for id in self.ids_with_manifest(&source)?.iter().rev() {
                match self.manifest_as_stored(id) {
                    Ok(_) => return Ok(true),
                    Err(error) if error.kind == Kind::Interrupted => return Err(error),
                    Err(error) if error.is_newer_format() => unreadable = Some(error),
                    Err(error) if error.reason == Some(Reason::ObjectIsArchived) => {
                        archived += 1;
                        if archived == MOST_ARCHIVED {
                            return Err(error);
                        }
                        unreadable = unreadable.or(Some(error));
                    }
                    Err(error) if error.kind == Kind::Unreachable && !self.is_local() => return Err(error),
                    Err(_) => {}
                }
            }
        }
        match unreadable {
            Some(error) => Err(error.context(format!(
                "{} has no usable {STORE_DOCUMENT}, and no manifest that can be read",
                one_line(&self.location())
            ))),
            None => Ok(false),
        }
    }

    /// Writes the mark of this version, unless a newer version uses the store, too: its mark may have been another one.
    /// Other processes may do the same at the same time.
    fn write_mark_again(&self, mark: &Mark) -> Result<()> {
        match mark {
            Mark::Whole => return Ok(()),
            Mark::Absent | Mark::Unusable { is_replaceable: true, .. } => {}
            Mark::Unusable { error, .. } => {
                return Err(error.duplicate().hint("move it away: then it is written again"));
            }
        }
        if let Some(newer) = self.newer_manifest()? {
            return Err(newer);
        }
        let key = key(STORE_DOCUMENT)?;
        // Read again: another process may have written it.
        if let Mark::Unusable { is_replaceable: true, .. } = self.read_mark()? {
            self.store.delete(&key)?;
        }
        // If another process was first, the document is the same.
        let _ = self.store.write(&key, &document())?;
        match self.read_mark()? {
            Mark::Whole => Ok(()),
            Mark::Absent => Err(Error::failed("it was not stored")),
            Mark::Unusable { error, .. } => Err(error),
        }
    }
}

fn document() -> Vec<u8> {
    serde_json::to_vec(&json!({ VERSION_FIELD: FORMAT })).expect("one number")
}

/// Logs a warning, unless this process has logged it before.
pub(super) fn warn_once(message: String) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if !logged.contains(&message) {
        tracing::warn!("{message}");
        logged.insert(message);
    }
}
