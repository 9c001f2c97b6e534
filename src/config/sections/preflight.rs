//! `[preflight]`: the checks that run before anything else is done.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::http_check::{HttpCheck, JsonField};
use crate::config::sections::reading::{ReadContext, is_on};
use crate::config::values::{Age, Flag, HttpUrl, Parsed, Size, Status, Text};
use crate::platform::error::{Error, Result};

/// The checks that run before anything else is done.
#[derive(Clone, Debug, Default)]
pub struct Preflight {
    /// Folders that must be mount points.
    pub mounts: Vec<PathBuf>,
    /// Files and folders that may lie outside of the mount points, although databases and stores may not.
    pub outside_mounts: Vec<PathBuf>,
    /// Folders that must be writable, in addition to the mount points.
    pub writable: Vec<PathBuf>,
    /// Bytes that must be free wherever something is written.
    pub min_free: Option<u64>,
    /// Endpoints that must answer.
    pub http: Vec<HttpCheck>,
    /// True if a mount may be a file system in memory.
    pub allow_tmpfs: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawPreflight {
    mounts: Vec<String>,
    outside_mounts: Vec<String>,
    writable: Vec<String>,
    min_free: Option<Parsed<Size>>,
    http: Vec<RawEndpoint>,
    allow_tmpfs: Option<Parsed<Flag>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    url: Parsed<HttpUrl>,
    #[serde(default)]
    status: Option<Parsed<Status>>,
    #[serde(default)]
    json: Option<String>,
    #[serde(default)]
    equals: Option<Text>,
    #[serde(default)]
    contains: Option<String>,
    #[serde(default)]
    timeout: Option<Parsed<Age>>,
}

impl RawPreflight {
    pub(in crate::config) fn read(self, context: &ReadContext<'_>) -> Result<Preflight> {
        let paths = |texts: Vec<String>| texts.iter().map(|text| context.path(text)).collect::<Result<Vec<_>>>();
        let endpoint = |raw: RawEndpoint| {
            if raw.url.0.0.is_empty() {
                return Err(Error::usage("the url of an endpoint is empty"));
            }
            let mut check = HttpCheck::new(raw.url.0.0.parse()?);
            if let Some(status) = raw.status {
                check.status = status.0.0;
            }
            if let Some(timeout) = raw.timeout {
                check.timeout = timeout.0.0.to_std().map_err(|_| Error::usage("the timeout is invalid"))?;
            }
            check.contains = raw.contains;
            check.json = match (raw.json, raw.equals) {
                (Some(path), Some(expected)) => Some(JsonField { path, expected: expected.0 }),
                (None, None) => None,
                _ => {
                    return Err(Error::usage("json and equals must be set together")
                        .hint("write json = \"status\", equals = \"ok\""));
                }
            };
            Ok(check)
        };
        Ok(Preflight {
            mounts: paths(self.mounts)?,
            outside_mounts: paths(self.outside_mounts)?,
            writable: paths(self.writable)?,
            min_free: self.min_free.map(|size| size.0.0),
            http: self.http.into_iter().map(endpoint).collect::<Result<_>>()?,
            allow_tmpfs: is_on(self.allow_tmpfs, false),
        })
    }
}
