//! The summary of a run: what notices, metrics and GitHub report about it.

use serde::Serialize;

use crate::snapshots::manifest::Manifest;
use crate::snapshots::proofs::{ProofLevel, ProofSummary};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The name of the check.
    pub name: String,
    /// True if the check passed.
    pub ok: bool,
    /// The finding, for people.
    pub message: String,
}

impl Check {
    /// Returns a check that passed.
    pub(crate) fn good(name: impl Into<String>, message: impl Into<String>) -> Self {
        Check { name: name.into(), ok: true, message: message.into() }
    }

    /// Returns a check that failed.
    pub(crate) fn bad(name: impl Into<String>, message: impl Into<String>) -> Self {
        Check { name: name.into(), ok: false, message: message.into() }
    }
}

/// The summary of a run.
#[derive(Clone, Debug, Default)]
pub struct RunSummary {
    /// The checks that were made.
    pub checks: Vec<Check>,
    /// The snapshots that were taken or tested.
    pub snapshots: Vec<SnapshotSummary>,
    /// The commands that restore the snapshots.
    pub rollback: Vec<String>,
}

/// The summary of one snapshot.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSummary {
    /// Its id.
    pub id: String,
    /// Its source, if it is known.
    pub source: Option<String>,
    /// Its number of rows, if it is known.
    pub rows: Option<u64>,
    /// The length of its archive, if it is known.
    pub archive_bytes: Option<u64>,
    /// The result of its tests, in one word; empty if it is not known.
    pub proof: &'static str,
    /// The problems that a test found now.
    pub problems: Vec<String>,
}

impl SnapshotSummary {
    /// Makes the summary of a snapshot from its manifest and its tests.
    #[must_use]
    pub fn of(manifest: &Manifest, proof: &ProofSummary) -> Self {
        SnapshotSummary {
            id: manifest.id.to_string(),
            source: Some(manifest.source.to_string()),
            rows: Some(manifest.rows),
            archive_bytes: manifest.archive_bytes,
            proof: proof.level.name(),
            problems: Vec::new(),
        }
    }
}

/// Returns the level of that name, or an empty text: the names come from another machine.
#[must_use]
pub(crate) fn proof_named(name: &str) -> &'static str {
    let levels = [ProofLevel::None, ProofLevel::Verified, ProofLevel::Drilled, ProofLevel::Damaged];
    levels.into_iter().map(ProofLevel::name).find(|known| *known == name).unwrap_or_default()
}
