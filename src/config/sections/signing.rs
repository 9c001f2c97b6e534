//! `[signing]`: the key that signs snapshots, and the keys that must have signed them.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::sections::reading::{ReadContext, filled};
use crate::config::values::{Parsed, Text};
use crate::platform::error::{Error, Result};
use crate::platform::signature::PublicKey;

/// The key that signs snapshots, and the keys of which one must have signed them.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// The file of the private key that signs.
    pub key_file: Option<PathBuf>,
    /// The public keys of which one must have signed a snapshot; `None` if signatures are not checked.
    pub trusted: Option<Vec<PublicKey>>,
}

/// A public key; `None` if the text is empty.
struct MaybeKey(Option<PublicKey>);

impl std::str::FromStr for MaybeKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "" => Ok(MaybeKey(None)),
            text => text.parse().map(|key| MaybeKey(Some(key))),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSigning {
    key_file: Option<Text>,
    trusted: Option<Vec<Parsed<MaybeKey>>>,
}

impl RawSigning {
    pub(in crate::config) fn read(self, context: &ReadContext<'_>) -> Result<Signing> {
        let is_written = self.key_file.is_some();
        let key_file = filled(self.key_file).map(|path| context.path(&path)).transpose()?;
        let trusted = self.trusted.map(|keys| keys.into_iter().filter_map(|key| key.0.0).collect::<Vec<_>>());
        // A variable that is not set is often empty. It must not switch off what should protect.
        if trusted.as_ref().is_some_and(Vec::is_empty) || (is_written && key_file.is_none()) {
            return Err(Error::unreachable("trusted or key_file is set, but empty")
                .hint("set the variables that they use, or remove both to work without signatures"));
        }
        Ok(Signing { key_file, trusted })
    }
}
