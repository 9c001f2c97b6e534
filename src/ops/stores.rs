//! Opens the stores that a command line names, and creates new ones where that is allowed.

use std::path::{Path, PathBuf};

use crate::ops::Context;
use crate::platform::disk::shown;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::store::{LocalStore, S3Store, Store, StoreUrl};

impl Context {
    /// Returns the stores. Fails if there is none.
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
                Err(Error::usage("several stores are named, and only 'snapshot' writes to several")
                    .hint("name one; 'lifeboat copy' copies between two"))
            }
            stores => Ok(&stores[0]),
        }
    }

    /// Opens the store, which must exist. If the config has several stores and the first one cannot be reached, opens
    /// the next one that can, with a warning.
    pub fn open_catalog(&self) -> Result<Catalog> {
        let first = match (open(self.store()?), self.stores_are_given) {
            (Err(error), false) if error.kind == Kind::Unreachable => error,
            (opened, _) => return opened,
        };
        for store in &self.stores[1..] {
            if let Ok(catalog) = open(store) {
                tracing::warn!("using {}: {}", one_line(&catalog.location()), first.whole());
                return Ok(catalog);
            }
        }
        Err(first)
    }

    /// Opens the first store. Does not fall back to another one, since this store is the one to be tested.
    pub(crate) fn open_first(&self) -> Result<Catalog> {
        open(self.store()?)
    }

    /// Opens a store to write to. One that the command line names is created if it does not exist. One of the config
    /// must exist, since an empty folder may also mean that a disk is not mounted.
    pub(crate) fn open_to_write(&self, store: &StoreUrl) -> Result<Catalog> {
        // A store that the command line gives by its name in the config is one of the config's.
        let configured = self.config.as_ref().and_then(|config| config.stores().ok()).unwrap_or_default();
        let is_named = configured.iter().any(|known| known.name.is_some() && are_one(&known.store, store));
        if self.stores_are_given && !is_named {
            return open_or_create(store);
        }
        open(store).map_err(|error| match error.kind {
            Kind::Unreachable => {
                error.hint("check that its disk is mounted; 'lifeboat init' makes the stores of a new config")
            }
            _ => error,
        })
    }
}

/// Opens a store, which must exist.
pub(crate) fn open(store: &StoreUrl) -> Result<Catalog> {
    Catalog::open(place(store)?)
}

/// Returns the place for a store that exists or may be created: a folder, which must exist, or a bucket and prefix.
pub(crate) fn place(store: &StoreUrl) -> Result<Box<dyn Store>> {
    Ok(match store {
        StoreUrl::Folder(path) => Box::new(LocalStore::open(&absolute(path)?)?),
        StoreUrl::S3(settings) => Box::new(S3Store::new((**settings).clone())?),
    })
}

/// Opens a store, or creates it if its folder is absent or empty or there is nothing under its prefix. Creating one is
/// logged as a warning.
pub(crate) fn open_or_create(store: &StoreUrl) -> Result<Catalog> {
    match store {
        StoreUrl::Folder(path) => open_or_create_folder(&absolute(path)?),
        StoreUrl::S3(settings) => {
            let store = S3Store::new((**settings).clone())?;
            if Catalog::is_there(&store)? {
                return Catalog::open(Box::new(store));
            }
            // Other processes may be creating this store, or testing what its service can do.
            let names = store.some_names()?;
            if let Some(name) = names.iter().find(|name| !Catalog::is_own(name)) {
                // Another process may have created and used it between the two checks.
                return match Catalog::is_there(&store)? {
                    true => Catalog::open(Box::new(store)),
                    false => Err(not_empty(&store.location(), name)),
                };
            }
            announce(Catalog::create(Box::new(store))?)
        }
    }
}

/// Returns true if two URLs mean the same place, whatever their other settings are.
pub(crate) fn are_one(one: &StoreUrl, other: &StoreUrl) -> bool {
    match (one, other) {
        (StoreUrl::S3(one), StoreUrl::S3(other)) => {
            (&one.endpoint, &one.bucket, &one.prefix) == (&other.endpoint, &other.bucket, &other.prefix)
        }
        (StoreUrl::Folder(one), StoreUrl::Folder(other)) => {
            let real = |path: &Path| path.canonicalize().ok().or_else(|| absolute(path).ok());
            real(one) == real(other)
        }
        _ => false,
    }
}

/// Returns the absolute path of the store's folder, so that printed commands work from any folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::unreachable(format!("cannot find {}", shown(path))).because(error))?;
    // Remove a slash at the end, so that one store has one name.
    Ok(absolute.components().collect())
}

fn open_or_create_folder(path: &Path) -> Result<Catalog> {
    if path.join("lifeboat.json").exists() {
        return Catalog::open(Box::new(LocalStore::open(path)?));
    }
    if !path.exists() {
        return announce(Catalog::create(Box::new(LocalStore::create(path)?))?);
    }
    let store = LocalStore::open(path)?;
    let foreign = std::fs::read_dir(path)
        .map_err(|error| Error::unreachable(format!("cannot look into {}", shown(path))).because(error))?
        .flatten()
        // A new file system has `lost+found`, and a process that creates this store at the same time has `.upload-`
        // files.
        .find(|entry| {
            entry.file_name() != "lost+found" && !entry.file_name().to_string_lossy().starts_with(".upload-")
        });
    if let Some(entry) = foreign {
        if path.join("lifeboat.json").exists() {
            return Catalog::open(Box::new(store));
        }
        return Err(not_empty(&path.display().to_string(), &entry.file_name().to_string_lossy()));
    }
    announce(Catalog::create(Box::new(store))?)
}

fn not_empty(place: &str, name: &str) -> Error {
    Error::usage(format!("{} is no lifeboat store, and not empty", one_line(place)))
        .hint(format!("it holds {}; name an empty place, or one that is not there yet", one_line(name)))
}

fn announce(catalog: Catalog) -> Result<Catalog> {
    tracing::warn!("made a new store in {}", one_line(&catalog.location()));
    Ok(catalog)
}
