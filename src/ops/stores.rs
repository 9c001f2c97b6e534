//! Opens the stores of the command line and of the config, and creates new ones if that is allowed.

use std::path::Path;

use crate::ops::Context;
use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::platform::incidental::is_incidental;
use crate::platform::{disk, new_name};
use crate::snapshots::catalog::Catalog;
use crate::store::StoreUrl;

impl Context {
    /// Returns all stores of the command line or, if it names none, of the config. Fails if there is none.
    pub(crate) fn all_stores(&self) -> Result<&[StoreUrl]> {
        if self.stores.is_empty() {
            let error = Error::usage("no store is named");
            return Err(error.hint("name one with --store, a folder or s3://bucket/prefix, or in lifeboat.toml"));
        }
        Ok(&self.stores)
    }

    /// Returns the store that the command line names, or the first one of the config. Fails if the command line names
    /// several.
    pub(crate) fn store(&self) -> Result<&StoreUrl> {
        match self.all_stores()? {
            [_, _, ..] if self.stores_are_given => {
                Err(Error::usage("several stores are named, but only 'snapshot' accepts several")
                    .hint("name one store; 'lifeboat copy' copies between two stores"))
            }
            stores => Ok(&stores[0]),
        }
    }

    /// Opens a store, which must exist. Its snapshots are trusted by the rules of this run.
    pub(crate) fn open(&self, store: &StoreUrl) -> Result<Catalog> {
        open(store).map(|catalog| catalog.with_trust(self.trust.clone()))
    }

    /// Opens the store, which must exist. If it is the config's first store and cannot be reached, opens the next one
    /// that can be reached, and logs a warning.
    pub fn open_catalog(&self) -> Result<Catalog> {
        let first = match (self.open(self.store()?), self.stores_are_given) {
            (Err(error), false) if error.kind == Kind::Unreachable => error,
            (opened, _) => return opened,
        };
        for store in &self.stores[1..] {
            if let Ok(catalog) = self.open(store) {
                tracing::warn!("using {}: {}", one_line(&catalog.location()), first.full_message());
                return Ok(catalog);
            }
        }
        Err(first)
    }

    /// Opens the first store. Does not fall back to another one, since this store is the one to be tested.
    pub(crate) fn open_first(&self) -> Result<Catalog> {
        self.open(self.store()?)
    }

    /// Opens a store to write to. A store that the command line names is created if it does not exist. A store of the
    /// config must exist, because an empty folder can also mean that a disk is not mounted.
    pub(crate) fn open_to_write(&self, store: &StoreUrl) -> Result<Catalog> {
        let opened = match self.may_create(store) {
            true => return open_or_create(store).map(|catalog| catalog.with_trust(self.trust.clone())),
            false => open_to_write(store).map(|catalog| catalog.with_trust(self.trust.clone())),
        };
        opened.map_err(|error| match error.reason {
            Some(Reason::StoreIsAbsent) => {
                error.hint("check that its disk is mounted; 'lifeboat init' creates the stores of a new config")
            }
            _ => error,
        })
    }
}

impl Context {
    /// Returns true if a store is created if it does not exist: only the command line names it. A store that the command
    /// line gives by its name in the config counts as a store of the config.
    pub(crate) fn may_create(&self, store: &StoreUrl) -> bool {
        let configured = self.config.as_ref().and_then(|config| config.stores().ok()).unwrap_or_default();
        let is_named = configured.iter().any(|known| known.name.is_some() && known.store.is_same_place(store));
        self.stores_are_given && !is_named
    }
}

/// Opens a store, which must exist.
pub(crate) fn open(store: &StoreUrl) -> Result<Catalog> {
    Catalog::open(store.open()?)
}

/// Opens a store to write new snapshots; it must exist. If its mark is missing, the mark is written again.
pub(crate) fn open_to_write(store: &StoreUrl) -> Result<Catalog> {
    Catalog::open_to_write(store.open()?)
}

/// Opens a store to write, or creates it if its folder is absent or empty, or if there is no object under its prefix. Logs a
/// warning if it creates one.
pub(crate) fn open_or_create(store: &StoreUrl) -> Result<Catalog> {
    let (exists, opened) = Catalog::exists(store.open_or_create()?)?;
    if exists {
        return Catalog::open_to_write(opened);
    }
    // Lifeboat's own objects are ignored here: another process may be creating this store, or testing the service with
    // `doctor`.
    let names = opened.some_names()?;
    if let Some(name) = names.iter().find(|name| !Catalog::is_own(name) && !is_incidental(name)) {
        // Another process may have created and used it between the two checks.
        let (exists, opened) = Catalog::exists(opened)?;
        return match exists {
            true => Catalog::open_to_write(opened),
            false => Err(not_empty(&opened.location(), name)),
        };
    }
    let catalog = Catalog::create(opened)?;
    tracing::warn!("created a new store in {}", one_line(&catalog.location()));
    for missing in store.folder().map(missing_guarantees).unwrap_or_default() {
        tracing::warn!("the file system of {}: {missing}", one_line(&catalog.location()));
    }
    Ok(catalog)
}

/// Returns the guarantees that the file system of a store's folder does not give, each as a message.
#[must_use]
pub(crate) fn missing_guarantees(folder: &Path) -> Vec<String> {
    let mut missing: Vec<String> = new_name::missing_guarantee(folder).into_iter().collect();
    missing.extend(disk::missing_guarantees(folder));
    missing
}

fn not_empty(location: &str, name: &str) -> Error {
    Error::usage(format!("{} is not empty and not a lifeboat store", one_line(location)))
        .hint(format!("it contains {}; name an empty folder or prefix, or one that does not exist yet", one_line(name)))
}
