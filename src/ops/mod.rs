//! The operations behind the subcommands, one file each: options in, a report out. Nothing here prints to stdout.

pub(crate) mod check;
pub(crate) mod checks;
pub(crate) mod copy;
pub(crate) mod destination;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod drill;
pub(crate) mod extract;
pub(crate) mod fetch;
pub(crate) mod gate;
pub(crate) mod guard;
pub(crate) mod init;
pub(crate) mod inventory;
pub(crate) mod keygen;
pub(crate) mod layout;
pub(crate) mod list;
pub(crate) mod look;
pub(crate) mod migrate;
pub mod preflight;
pub(crate) mod prune;
pub(crate) mod put_back;
pub(crate) mod readme;
pub(crate) mod restore;
pub(crate) mod show;
pub(crate) mod snapshot;
pub(crate) mod sources;
pub(crate) mod stores;
pub(crate) mod tags;
pub(crate) mod verify;
pub(crate) mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::archive::{Keys, Sealing};
use crate::config::Config;
use crate::engine::sqlite::target::quote_word;
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result};
use crate::platform::progress::Progress;
use crate::platform::scratch::Scratch;
use crate::platform::secret::Secret;
use crate::snapshots::catalog::{Narrow, ProofSummary};
use crate::snapshots::manifest::Manifest;
use crate::store::StoreUrl;

/// The settings that every command receives in addition to its own options.
pub struct Context {
    /// The config, if there is one.
    pub config: Option<Config>,
    /// The stores that the command line names, or else those of the config.
    pub stores: Vec<StoreUrl>,
    /// True if the command line names the stores. Only then may a new store be created.
    pub stores_are_given: bool,
    /// The keys that open encrypted archives.
    pub keys: Keys,
    /// The passphrase among the keys; it also encrypts.
    pub passphrase: Option<Secret>,
    /// The flags that gave the keys, for commands that are printed. They never contain the keys themselves.
    pub key_flags: Vec<String>,
    /// This machine's name, as it is recorded in origins.
    pub host: String,
    /// The number of threads for compressing and decompressing.
    pub jobs: usize,
    /// The folder for temporary files.
    pub scratch: Scratch,
    /// The receiver of progress messages.
    pub progress: Arc<dyn Progress>,
}

/// The result of a command.
pub trait Report: Serialize {
    /// Returns the failures that did not stop the rest of the work. The first one decides the exit code.
    fn errors(&self) -> &[Error] {
        &[]
    }

    /// Returns the exit code; by default 0, or that of the first failure.
    fn exit_code(&self) -> u8 {
        self.errors().first().map_or(0, |error| error.kind.exit_code())
    }
}

/// Returns an error as it appears in JSON documents.
#[must_use]
pub fn error_document(error: &Error) -> Value {
    json!({
        "kind": error.kind.name(),
        "message": error.message,
        "hint": error.hint,
        "causes": error.causes(),
    })
}

/// A problem, as it appears in JSON documents.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Problem {
    /// The kind of problem, in one word.
    pub kind: String,
    /// The message with its causes, on one line.
    pub message: String,
}

impl Problem {
    /// Makes a problem from an error.
    #[must_use]
    pub fn of(kind: &str, error: &Error) -> Self {
        Problem { kind: kind.to_owned(), message: error.whole() }
    }
}

/// Returns the path of a snapshot's origin if the snapshot was taken on `host`.
pub(crate) fn origin_path(manifest: &Manifest, host: &str) -> Option<PathBuf> {
    manifest.origin.path.as_ref().filter(|_| manifest.origin.host == host).map(PathBuf::from)
}

/// Returns a snapshot as it appears in JSON documents: its manifest, and the results of its tests.
#[must_use]
pub fn snapshot_document(manifest: &Manifest, proof: &ProofSummary) -> Map<String, Value> {
    let Ok(Value::Object(mut document)) = serde_json::to_value(manifest) else { return Map::new() };
    document.insert("proof".to_owned(), json!(proof.level.name()));
    document.insert("proof_at".to_owned(), json!(proof.at));
    document.insert("restore_seconds".to_owned(), json!(proof.restore_seconds));
    document
}

impl Context {
    /// Returns the recipients or the passphrase that the config encrypts snapshots with, if it has any.
    pub(crate) fn config_sealing(&self) -> Result<Option<Sealing>> {
        let Some(config) = &self.config else { return Ok(None) };
        let encryption = config.encryption()?;
        if !encryption.recipients.is_empty() {
            return Ok(Some(Sealing::Recipients(encryption.recipients.clone())));
        }
        Ok(encryption.passphrase()?.map(Sealing::Passphrase))
    }

    /// Returns a `lifeboat` command on `snapshot` that the reader can copy.
    pub(crate) fn command_line(&self, words: &[&str], snapshot: &Manifest, store: &str) -> String {
        let mut line = "lifeboat".to_owned();
        let config = self.config.as_ref().map(|config| config.path.display().to_string());
        let mut words: Vec<&str> = words.iter().copied().chain(["--store", store]).collect();
        words.extend(config.iter().flat_map(|path| ["--config", path.as_str()]));
        if snapshot.encrypted {
            match self.key_flags.as_slice() {
                // No flag gave a key. Without any key the reader must add one; else it is in the environment or the
                // config.
                [] if self.keys.is_empty() => words.extend(["--identity", "KEY.txt"]),
                flags => words.extend(flags.iter().map(String::as_str)),
            }
        }
        for word in words {
            line.push(' ');
            line.push_str(&quote_word(word));
        }
        line
    }
}

/// Returns an absolute form of `path`, whether it exists or not. Links in the part that exists are resolved.
pub(crate) fn resolve_target(path: &Path) -> Result<PathBuf> {
    let shown = || shown(path);
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    // A link whose target does not exist yet is followed too.
    if let Ok(next) = std::fs::read_link(path) {
        let next = path.parent().unwrap_or(Path::new(".")).join(next);
        if next != path && std::fs::symlink_metadata(&next).is_err() {
            return resolve_target(&next);
        }
        return Err(Error::usage(format!("{} is a link that leads nowhere", shown())));
    }
    let name = path.file_name().ok_or_else(|| Error::usage(format!("{} names no file", shown())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = parent.canonicalize().map_err(|error| {
        Error::unreachable(format!("the folder of {} is not there", shown()))
            .hint("make it first, or check the path")
            .because(error)
    })?;
    Ok(folder.join(name))
}
