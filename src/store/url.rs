//! The URL or path that names a store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::s3::S3Settings;
use crate::platform::error::{Error, Result, one_line};

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
            return Err(Error::usage("the store has an empty name").hint("name a folder, or s3://bucket/prefix"));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(StoreUrl::Folder(PathBuf::from(path)));
        }
        if text.starts_with("s3://") {
            return Ok(StoreUrl::S3(Box::new(text.parse()?)));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(Error::usage(format!("this lifeboat has no stores of the kind {}://", one_line(scheme)))
                .hint("name a folder, or s3://bucket/prefix"));
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
