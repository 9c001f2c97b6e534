//! `keygen`: makes a key for encrypted archives, in the format that `age-keygen` writes, or one that signs snapshots, in the
//! format of OpenSSH.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use chrono::Utc;
use serde::Serialize;

use crate::archive::{Keys, Recipient, generate_key};
use crate::ops::Report;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::new_name::write_new_file;
use crate::platform::secret::Secret;
use crate::platform::signature::{self, SigningKey};

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct KeygenOptions {
    /// Write the key to this new file, readable by you alone; by default it goes to stdout
    pub output: Option<PathBuf>,
    /// Do not make a key: print the public keys of the secret keys in this file
    pub public: Option<PathBuf>,
    /// Make a key that signs snapshots, and not one that encrypts them
    pub signing: bool,
}

/// A new key, or the public halves of existing keys.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum KeygenReport {
    /// A key was made.
    Made {
        /// Its public half, to encrypt to.
        public_key: String,
        /// The file that it was written to, if any.
        path: Option<String>,
        /// The key's text, if it was not written to a file. It is never part of a JSON document.
        #[serde(skip)]
        text: Option<Secret>,
    },
    /// Public keys were read from a file.
    Public {
        /// The public halves of the keys in the file, in their order.
        public_keys: Vec<String>,
        /// The file.
        path: String,
    },
}

impl KeygenReport {
    /// Returns a message for people that is printed in addition to the result.
    #[must_use]
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            KeygenReport::Made { public_key, .. } => Some(format!("public key: {public_key}")),
            KeygenReport::Public { .. } => None,
        }
    }
}

impl Report for KeygenReport {}

/// Runs the command; with `json` a secret key must go to a file.
pub(crate) fn run(options: &KeygenOptions, json: bool) -> Result<KeygenReport> {
    if let Some(path) = &options.public {
        if has_signing_key(path) {
            let public_keys = vec![SigningKey::read(path)?.public().to_string()];
            return Ok(KeygenReport::Public { public_keys, path: path.display().to_string() });
        }
        let mut keys = Keys::new();
        keys.add_identity_file(path)?;
        let public_keys = keys.recipients().iter().map(Recipient::to_string).collect();
        return Ok(KeygenReport::Public { public_keys, path: path.display().to_string() });
    }
    if json && options.output.is_none() {
        return Err(Error::usage("a secret key is never written into a JSON document")
            .hint("write the key to a file with --output FILE"));
    }
    let (public, text) = match options.signing {
        true => {
            let (public, text) = signature::generate_key("lifeboat")?;
            (public.to_string(), text)
        }
        false => {
            let (public, text) = generate_key(Utc::now());
            (public.to_string(), text)
        }
    };
    if let Some(path) = &options.output {
        write_key(path, &text)?;
    }
    let text = if options.output.is_none() { Some(text) } else { None };
    let path = options.output.as_ref().map(|path| path.display().to_string());
    Ok(KeygenReport::Made { public_key: public, path, text })
}

/// Returns true if a file begins as a private key of SSH does.
fn has_signing_key(path: &Path) -> bool {
    let mut start = [0; 64];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|bytes| signature::is_private_key(&String::from_utf8_lossy(&start[..bytes])))
}

/// Writes a key to a new file (mode 0600), atomically and durably. Fails if the file exists.
fn write_key(path: &Path, text: &Secret) -> Result<()> {
    let message = || format!("cannot write the key to {}", shown(path));
    if write_new_file(path, 0o600, text.expose().as_bytes()).io(Kind::Failed, message)? {
        return Ok(());
    }
    Err(Error::usage(format!("{} already exists", shown(path)))
        .hint("name another file: data that is encrypted to a lost key cannot be decrypted"))
}
