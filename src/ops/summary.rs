//! The summary of a run: what notices, metrics and GitHub report about it.

use serde::Serialize;

use crate::notify::Failure;
use crate::platform::error::Error;
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
    /// The source that the check is about; `None` if it is about the machine or a store.
    #[serde(skip)]
    pub source: Option<String>,
}

impl Check {
    /// Returns a check that passed.
    pub(crate) fn good(name: impl Into<String>, message: impl Into<String>) -> Self {
        Check { name: name.into(), ok: true, message: message.into(), source: None }
    }

    /// Returns a check that failed.
    pub(crate) fn bad(name: impl Into<String>, message: impl Into<String>) -> Self {
        Check { name: name.into(), ok: false, message: message.into(), source: None }
    }
}

/// The result of a run for one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceResult {
    /// The source's name.
    pub source: String,
    /// True if the run did for the source all that it was asked to do.
    pub ok: bool,
    /// The first error, if an error is why it did not.
    pub error: Option<Failure>,
}

/// The results of a run, at most one for each source, in the order in which the sources were first named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceResults(Vec<SourceResult>);

impl SourceResults {
    /// Records a success. A failure that was already recorded for the source stays.
    pub(crate) fn succeed(&mut self, source: impl ToString) {
        self.entry(source);
    }

    /// Records a failure. The first error that is given for the source stays.
    pub(crate) fn fail(&mut self, source: impl ToString, error: Option<&Error>) {
        let entry = self.entry(source);
        entry.ok = false;
        entry.error = entry.error.take().or_else(|| error.map(Failure::from));
    }

    /// Records a failure for every source in the list.
    pub(crate) fn fail_all(&mut self) {
        self.0.iter_mut().for_each(|result| result.ok = false);
    }

    /// Returns the results.
    #[must_use]
    pub fn as_slice(&self) -> &[SourceResult] {
        &self.0
    }

    fn entry(&mut self, source: impl ToString) -> &mut SourceResult {
        let source = source.to_string();
        let at = self.0.iter().position(|result| result.source == source).unwrap_or_else(|| {
            self.0.push(SourceResult { source, ok: true, error: None });
            self.0.len() - 1
        });
        &mut self.0[at]
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
    /// The results, by source. Empty if the command does not know them.
    pub results: SourceResults,
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
    let levels =
        [ProofLevel::None, ProofLevel::Verified, ProofLevel::Drilled, ProofLevel::Damaged, ProofLevel::Unknown];
    levels.into_iter().map(ProofLevel::name).find(|known| *known == name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stays_and_so_does_its_first_error() {
        let mut results = SourceResults::default();
        results.succeed("app");
        results.fail("billing", None);
        results.fail("billing", Some(&Error::failed("first")));
        results.fail("billing", Some(&Error::failed("second")));
        results.succeed("billing");
        let found: Vec<_> = results.as_slice().iter().map(|one| (one.source.as_str(), one.ok)).collect();
        assert_eq!(found, [("app", true), ("billing", false)]);
        assert_eq!(results.as_slice()[1].error.as_ref().map(|error| error.message.as_str()), Some("first"));
        results.fail_all();
        assert!(results.as_slice().iter().all(|one| !one.ok));
    }
}
