//! The operations behind the subcommands, one file each. An operation takes options and returns a report; nothing here
//! prints to stdout.

pub(crate) mod check;
pub(crate) mod checks;
pub(crate) mod choose;
pub(crate) mod command_line;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod destination;
pub(crate) mod diff;
mod differences;
pub(crate) mod doctor;
pub(crate) mod drill;
pub(crate) mod extract;
pub(crate) mod fetch;
pub(crate) mod first_deploy;
pub(crate) mod gate;
mod gone;
pub(crate) mod guard;
pub(crate) mod host_name;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod inventory;
pub(crate) mod keygen;
pub(crate) mod list;
pub(crate) mod lost_manifests;
pub(crate) mod migrate;
pub(crate) mod new_rows;
mod newest_state;
pub(crate) mod origin;
pub(crate) mod other_name;
pub(crate) mod overwritten;
pub mod preflight;
pub(crate) mod prune;
pub(crate) mod put_back;
mod reencrypt;
mod removed;
pub(crate) mod restore;
pub(crate) mod restore_in_place;
pub(crate) mod save;
pub(crate) mod show;
pub(crate) mod sources;
pub(crate) mod stores;
pub mod summary;
pub(crate) mod tags;
pub(crate) mod verify;
pub(crate) mod watch;

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::archive::{EncryptWith, Keys};
use crate::config::Config;
use crate::engine::context::EngineContext;
use crate::ops::summary::RunSummary;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::progress::Progress;
use crate::platform::scratch::Scratch;
use crate::platform::secret::Secret;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::proofs::ProofSummary;
use crate::snapshots::search::SnapshotFilter;
use crate::snapshots::trust::Trust;
use crate::store::StoreUrl;

/// The settings that every operation receives in addition to its own options.
pub struct Context {
    /// The config, if there is one.
    pub config: Option<Config>,
    /// The stores that the command line names, or else those of the config.
    pub stores: Vec<StoreUrl>,
    /// True if the command line names the stores. Only then may a new store be created.
    pub stores_are_given: bool,
    /// The keys that open encrypted archives.
    pub keys: Keys,
    /// The rules by which snapshots are trusted.
    pub trust: Trust,
    /// The passphrase of --passphrase-file; new snapshots are encrypted with it.
    pub passphrase: Option<Secret>,
    /// The flags that gave the keys, such as `--identity FILE`, for printed commands. They never contain the keys.
    pub key_flags: Vec<String>,
    /// This machine's name, as it is recorded in the origin of a snapshot.
    pub host: String,
    /// True if the command line or the environment gives that name, and not the config or the system.
    pub host_is_given: bool,
    /// The number of threads for compressing and decompressing.
    pub jobs: usize,
    /// The folder for temporary files.
    pub scratch: Scratch,
    /// The receiver of progress messages.
    pub progress: Arc<dyn Progress>,
}

/// The result of an operation.
pub trait Report: Serialize {
    /// Returns the failures that did not stop the rest of the work. The first one decides the exit code.
    fn errors(&self) -> &[Error] {
        &[]
    }

    /// Returns the summary for notices, metrics and GitHub.
    fn summary(&self) -> RunSummary {
        RunSummary::default()
    }

    /// Returns false if the operation found a problem.
    fn is_ok(&self) -> bool {
        true
    }

    /// Returns the exit code: that of the first failure; without a failure, 0 or the code of a problem.
    fn exit_code(&self) -> u8 {
        match self.errors().first() {
            Some(error) => error.kind.exit_code(),
            None if self.is_ok() => 0,
            None => Kind::Problem.exit_code(),
        }
    }
}

/// Adds the name of the store to an error, for operations that use two stores.
fn in_store(error: Error, catalog: &Catalog) -> Error {
    let location = catalog.location();
    error.context(format!("a problem in {}", one_line(&location)))
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
    /// Creates a problem from an error.
    #[must_use]
    pub fn of(kind: &str, error: &Error) -> Self {
        Problem { kind: kind.to_owned(), message: error.full_message() }
    }
}

/// Adds the failures of a report to its JSON document: the first as `error`, unless it is a problem that was found, and
/// all as `problems`.
pub(crate) fn serialize_failures<M: SerializeMap>(map: &mut M, failures: &[Error]) -> Result<(), M::Error> {
    if let Some(error) = failures.first().filter(|error| error.kind != Kind::Problem) {
        map.serialize_entry("error", &error_document(error))?;
    }
    if !failures.is_empty() {
        let problems: Vec<_> = failures.iter().map(|error| Problem::of(error.kind.name(), error)).collect();
        map.serialize_entry("problems", &problems)?;
    }
    Ok(())
}

/// A snapshot in a report, with the stores that have it.
#[derive(Clone, Debug)]
pub(crate) struct ReportedSnapshot {
    /// Its complete manifest.
    pub manifest: Manifest,
    /// The results of its tests.
    pub proof: ProofSummary,
    /// The stores that have it.
    pub stores: Vec<String>,
}

impl Serialize for ReportedSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut document = snapshot_document(&self.manifest, &self.proof);
        document.insert("stores".to_owned(), json!(self.stores));
        document.serialize(serializer)
    }
}

/// Returns a snapshot as it appears in JSON documents: its manifest, and the results of its tests.
#[must_use]
pub fn snapshot_document(manifest: &Manifest, proof: &ProofSummary) -> Map<String, Value> {
    let Ok(Value::Object(mut document)) = serde_json::to_value(manifest) else { return Map::new() };
    // They are for later comparisons, and not for readers of the document.
    document.remove("compared_with");
    document.remove("compared_tables");
    document.remove("losses_since");
    document.remove("previous");
    document.remove("index_sha256");
    document.insert("proof".to_owned(), json!(proof.level.name()));
    document.insert("proof_at".to_owned(), json!(proof.at));
    document.insert("restore_seconds".to_owned(), json!(proof.restore_seconds));
    document
}

impl Context {
    /// Returns the settings and services of an operation on a database.
    pub(crate) fn for_engine(&self) -> EngineContext {
        EngineContext {
            host: self.host.clone(),
            jobs: self.jobs,
            scratch: self.scratch.clone(),
            progress: Arc::clone(&self.progress),
        }
    }

    /// Returns the recipients or the passphrase of the config's `[encryption]`, if there are any.
    pub(crate) fn config_encryption(&self) -> Result<Option<EncryptWith>> {
        let Some(config) = &self.config else { return Ok(None) };
        let encryption = config.encryption()?;
        if !encryption.recipients.is_empty() {
            return Ok(Some(EncryptWith::Recipients(encryption.recipients.clone())));
        }
        Ok(encryption.passphrase()?.map(EncryptWith::Passphrase))
    }
}
