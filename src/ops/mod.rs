//! One file per subcommand: `XArgs` in, `XReport` out; nothing here prints.

pub mod check;
pub mod checks;
pub mod copy;
pub(crate) mod destination;
pub mod diff;
pub mod doctor;
pub mod drill;
pub mod extract;
pub(crate) mod fetch;
pub mod gate;
pub mod guard;
pub mod init;
pub mod inventory;
pub mod keygen;
pub(crate) mod layout;
pub mod list;
pub(crate) mod look;
pub mod migrate;
pub mod preflight;
pub mod prune;
pub(crate) mod put_back;
pub(crate) mod readme;
pub mod restore;
pub mod show;
pub mod snapshot;
pub(crate) mod sources;
pub(crate) mod stores;
pub(crate) mod tags;
pub mod verify;
pub mod watch;

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

/// What every command is given, beside its own arguments.
pub struct Context {
    /// The config, where there is one.
    pub config: Option<Config>,
    /// The stores that the command line names, or else those of the config.
    pub stores: Vec<StoreUrl>,
    /// Whether the command line names them: only then one may be made.
    pub stores_are_given: bool,
    /// What opens encrypted archives.
    pub keys: Keys,
    /// The passphrase among them, which also encrypts.
    pub passphrase: Option<Secret>,
    /// The flags that gave the keys, for commands that are printed; the keys themselves are in none.
    pub key_flags: Vec<String>,
    /// This machine's name, as origins carry it.
    pub host: String,
    /// Threads for compressing and decompressing.
    pub jobs: usize,
    /// Where temporary files go.
    pub scratch: Scratch,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

/// What a command found and did.
pub trait Report: Serialize {
    /// Failures that did not keep the rest from being done; the first decides the exit code.
    fn errors(&self) -> &[Error] {
        &[]
    }

    /// 0, or what says that something is wrong.
    fn exit_code(&self) -> u8 {
        self.errors().first().map_or(0, |error| error.kind.exit_code())
    }
}

/// An error as JSON documents carry it.
#[must_use]
pub fn error_document(error: &Error) -> Value {
    json!({
        "kind": error.kind.name(),
        "message": error.message,
        "hint": error.hint,
        "causes": error.causes(),
    })
}

/// One thing that is wrong, as JSON documents carry it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Problem {
    /// A word for the sort of problem.
    pub kind: String,
    /// The whole story, causes included, on one line.
    pub message: String,
}

impl Problem {
    /// Tells an error as a problem.
    #[must_use]
    pub fn of(kind: &str, error: &Error) -> Self {
        Problem { kind: kind.to_owned(), message: error.whole() }
    }
}

/// The path in an origin that is of this machine.
pub(crate) fn origin_path(manifest: &Manifest, host: &str) -> Option<PathBuf> {
    manifest.origin.path.as_ref().filter(|_| manifest.origin.host == host).map(PathBuf::from)
}

/// A snapshot as JSON documents carry it: its manifest, and what its tests showed.
#[must_use]
pub fn snapshot_document(manifest: &Manifest, proof: &ProofSummary) -> Map<String, Value> {
    let Ok(Value::Object(mut document)) = serde_json::to_value(manifest) else { return Map::new() };
    document.insert("proof".to_owned(), json!(proof.level.name()));
    document.insert("proof_at".to_owned(), json!(proof.at));
    document.insert("restore_seconds".to_owned(), json!(proof.restore_seconds));
    document
}

impl Context {
    /// For whom the config wants snapshots encrypted.
    pub(crate) fn config_sealing(&self) -> Result<Option<Sealing>> {
        let Some(config) = &self.config else { return Ok(None) };
        let encryption = config.encryption()?;
        if !encryption.recipients.is_empty() {
            return Ok(Some(Sealing::Recipients(encryption.recipients.clone())));
        }
        Ok(encryption.passphrase()?.map(Sealing::Passphrase))
    }

    /// A `lifeboat` command on `snapshot` that the reader can copy.
    pub(crate) fn command_line(&self, words: &[&str], snapshot: &Manifest, store: &str) -> String {
        let mut line = "lifeboat".to_owned();
        let config = self.config.as_ref().map(|config| config.path.display().to_string());
        let mut words: Vec<&str> = words.iter().copied().chain(["--store", store]).collect();
        words.extend(config.iter().flat_map(|path| ["--config", path.as_str()]));
        if snapshot.encrypted {
            match self.key_flags.as_slice() {
                // The environment or the config has the key, or nobody has given one yet.
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

/// An absolute form of `path`, whether or not anything is there; links in what is there are resolved.
pub(crate) fn resolve_target(path: &Path) -> Result<PathBuf> {
    let shown = || shown(path);
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    // A link that leads nowhere yet is followed too.
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
