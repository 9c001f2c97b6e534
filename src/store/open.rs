//! Opens stores by URL or path. Nothing else knows the schemes of URLs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::platform::disk::shown;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::home;
use crate::platform::secret::Secret;
use crate::store::interface::Store;
use crate::store::local::LocalStore;
use crate::store::s3::{ObjectLock, S3Settings, S3Store};

/// The parsed URL or path of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A folder.
    Folder(PathBuf),
    /// A bucket and a prefix of S3, or of an S3-compatible service.
    S3(Box<S3Settings>),
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::usage("the store's name is empty").hint("give a folder or s3://bucket/prefix"));
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        home::refuse(
            path,
            "write the full path; a shell expands '~' only at the start of a word, as in '--store ~/backups'",
        )?;
        if text.starts_with("file://") {
            return Ok(StoreUrl::Folder(PathBuf::from(path)));
        }
        if text.starts_with("s3://") {
            return Ok(StoreUrl::S3(Box::new(text.parse()?)));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(Error::usage(format!("stores of the type {}:// are not supported", one_line(scheme)))
                .hint("give a folder or s3://bucket/prefix"));
        }
        Ok(StoreUrl::Folder(PathBuf::from(text)))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Folder(path) => write!(f, "{}", path.display()),
            StoreUrl::S3(settings) => write!(f, "{settings}"),
        }
    }
}

impl StoreUrl {
    /// Opens a store: a folder, which must exist, or a bucket and prefix.
    pub fn open(&self) -> Result<Box<dyn Store>> {
        Ok(match self {
            StoreUrl::Folder(path) => Box::new(LocalStore::open(&absolute(path)?)?),
            StoreUrl::S3(settings) => Box::new(S3Store::new((**settings).clone())?),
        })
    }

    /// Opens a store, and creates its folder if that does not exist.
    pub fn open_or_create(&self) -> Result<Box<dyn Store>> {
        match self {
            StoreUrl::Folder(path) if !path.exists() => Ok(Box::new(LocalStore::create(&absolute(path)?)?)),
            _ => self.open(),
        }
    }

    /// Returns the folder, if the store is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            StoreUrl::Folder(path) => Some(path),
            StoreUrl::S3(_) => None,
        }
    }

    /// Returns the secrets that the URL has, in its settings or from the config.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            StoreUrl::Folder(_) => Vec::new(),
            StoreUrl::S3(settings) => {
                let key = settings.key.iter();
                key.flat_map(|key| std::iter::once(&key.secret).chain(&key.token)).cloned().collect()
            }
        }
    }

    /// Removes the lock of new objects from the settings, and returns it.
    pub fn take_lock(&mut self) -> Option<ObjectLock> {
        match self {
            StoreUrl::Folder(_) => None,
            StoreUrl::S3(settings) => settings.lock.take(),
        }
    }

    /// Returns the URL with absolute paths, so that it means the same place from any folder.
    pub fn absolute(&self) -> Result<StoreUrl> {
        Ok(match self {
            StoreUrl::Folder(path) => StoreUrl::Folder(absolute(path)?),
            StoreUrl::S3(settings) => {
                let mut settings = settings.clone();
                if let Some(file) = &mut settings.credentials_file {
                    *file = absolute(Path::new(file))?.display().to_string();
                }
                StoreUrl::S3(settings)
            }
        })
    }

    /// Returns the URL with the settings that the environment gives it, so that it means the same place on another
    /// machine. Credentials are not a part of it.
    #[must_use]
    pub fn with_environment(&self) -> StoreUrl {
        match self {
            StoreUrl::Folder(_) => self.clone(),
            StoreUrl::S3(settings) => {
                let mut settings = settings.clone();
                settings.complete_from_variables();
                StoreUrl::S3(settings)
            }
        }
    }

    /// Returns the URL with the access key of another one, unless it says itself where its credentials are.
    #[must_use]
    pub fn with_key_of(&self, other: &StoreUrl) -> StoreUrl {
        match (self, other) {
            (StoreUrl::S3(settings), StoreUrl::S3(other)) => {
                let mut settings = settings.clone();
                if settings.key.is_none() && settings.profile.is_none() && settings.credentials_file.is_none() {
                    settings.key = other.key.clone();
                }
                StoreUrl::S3(settings)
            }
            _ => self.clone(),
        }
    }

    /// Returns true if two URLs mean the same place, whatever their other settings are.
    #[must_use]
    pub fn is_same_place(&self, other: &StoreUrl) -> bool {
        match (self, other) {
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
}

/// Returns the absolute path of the store's folder, so that printed commands work from any folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::unreachable(format!("cannot find {}", shown(path))).because(error))?;
    // Remove a slash at the end, so that one store has one name.
    Ok(absolute.components().collect())
}
