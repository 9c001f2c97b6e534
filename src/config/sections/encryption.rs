//! `[encryption]`: the keys of snapshots.

use std::path::PathBuf;

use serde::Deserialize;

use crate::archive::{Keys, Recipient, read_passphrase_file};
use crate::config::sections::reading::{ReadContext, filled};
use crate::config::values::{Parsed, Text};
use crate::platform::error::{Error, Result};
use crate::platform::secret::Secret;
use crate::platform::secret_file;

/// The keys that snapshots are encrypted to, and the keys that decrypt them.
#[derive(Clone, Default)]
pub struct Encryption {
    /// The public keys that new snapshots are encrypted to.
    pub recipients: Vec<Recipient>,
    /// The secret key that decrypts them, if it is given as text.
    pub identity: Option<Secret>,
    /// The files of secret keys that decrypt them.
    pub identity_files: Vec<PathBuf>,
    /// A file whose first line is the passphrase that encrypts and decrypts them.
    pub passphrase_file: Option<PathBuf>,
    /// True if snapshots that are not encrypted are trusted all the same.
    pub allow_plaintext: bool,
    /// True if the section sets a key or a passphrase, even if its value is empty.
    pub is_written: bool,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encryption({} recipients)", self.recipients.len())
    }
}

impl Encryption {
    /// Returns true if new snapshots are encrypted.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        !self.recipients.is_empty() || self.passphrase_file.is_some()
    }

    /// Reads the passphrase from its file.
    pub fn passphrase(&self) -> Result<Option<Secret>> {
        self.passphrase_file.as_deref().map(read_passphrase_file).transpose()
    }

    /// Adds the keys that decrypt snapshots, and the passphrase. Missing identity files are skipped: a machine that
    /// only saves does not need them.
    pub fn add_to(&self, keys: &mut Keys) -> Result<()> {
        if let Some(identity) = &self.identity {
            keys.add_identity(identity.expose(), "encryption.identity").map_err(|error| {
                // A text that is not a key is taken for the name of a file, and is in the message.
                if error.full_message().contains(identity.expose().trim()) {
                    return Error::usage(
                        "encryption.identity is not an age secret key, and not the path of a readable file",
                    );
                }
                error
            })?;
        }
        for path in &self.identity_files {
            secret_file::refuse_key(path, "identity file")?;
            if path.exists() {
                keys.add_identity_file(path)?;
            } else {
                tracing::info!("the identity file {} does not exist", crate::platform::disk::shown(path));
            }
        }
        if let Some(passphrase) = self.passphrase()? {
            keys.add_passphrase(passphrase);
        }
        Ok(())
    }
}

/// A public key; `None` if the text is empty.
struct MaybeRecipient(Option<Recipient>);

impl std::str::FromStr for MaybeRecipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            Ok(MaybeRecipient(None))
        } else {
            text.trim().parse().map(|key| MaybeRecipient(Some(key)))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawEncryption {
    recipients: Vec<Parsed<MaybeRecipient>>,
    identity: Option<Text>,
    identity_file: Option<Text>,
    identity_files: Vec<String>,
    passphrase_file: Option<Text>,
    allow_plaintext: bool,
}

impl RawEncryption {
    pub(in crate::config) fn read(self, context: &ReadContext<'_>) -> Result<Encryption> {
        // In many pipelines, a secret that is not set is empty. A snapshot that should be encrypted must not be saved
        // unencrypted because of that.
        let is_written = !self.recipients.is_empty() || self.passphrase_file.is_some();
        let has_identity = self.identity.is_some() || self.identity_file.is_some() || !self.identity_files.is_empty();
        let recipients: Vec<Recipient> = self.recipients.into_iter().filter_map(|recipient| recipient.0.0).collect();
        let passphrase_file = filled(self.passphrase_file).map(|path| context.path(&path)).transpose()?;
        if is_written && recipients.is_empty() && passphrase_file.is_none() {
            return Err(Error::unreachable("recipients or passphrase_file is set, but empty")
                .hint("set the variables that they use, or remove both to save snapshots without encryption"));
        }
        if !recipients.is_empty() && passphrase_file.is_some() {
            return Err(Error::usage("an archive is encrypted to keys or with a passphrase, not both")
                .hint("remove recipients or passphrase_file"));
        }
        let files = filled(self.identity_file).into_iter().chain(self.identity_files);
        Ok(Encryption {
            recipients,
            identity: filled(self.identity).map(Secret::new),
            identity_files: files.map(|path| context.path(&path)).collect::<Result<_>>()?,
            passphrase_file,
            allow_plaintext: self.allow_plaintext,
            is_written: is_written || has_identity,
        })
    }
}
