//! The checks that several commands share: one line for each check, and the same JSON document for all commands.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::engine::restoring::RestoreReport;
use crate::ops::new_rows::NewRows;
use crate::ops::summary::{Check, RunSummary, SnapshotSummary, SourceResults};
use crate::ops::{Report, ReportedSnapshot, serialize_failures};
use crate::platform::error::{Error, Kind, Result};

/// The checks made so far.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Adds a check.
    pub(crate) fn add(&mut self, name: impl Into<String>, ok: bool, message: impl Into<String>) {
        self.0.push(Check { name: name.into(), ok, message: message.into(), source: None });
    }

    /// Adds a check that was made.
    pub(crate) fn push(&mut self, check: Check) {
        self.0.push(check);
    }

    /// Adds a check from a result; returns false if it failed. An interruption by a signal is not a finding and is
    /// returned as an error.
    pub(crate) fn note(&mut self, name: impl Into<String>, found: Result<String>) -> Result<bool> {
        let (ok, message) = match found {
            Ok(message) => (true, message),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => (false, error.full_message_with_hint()),
        };
        self.add(name, ok, message);
        Ok(ok)
    }

    /// Returns true if no check has failed.
    pub(crate) fn are_ok(&self) -> bool {
        self.0.iter().all(|check| check.ok)
    }

    /// Adds the checks of another list.
    pub(crate) fn append(&mut self, mut other: Checks) {
        self.0.append(&mut other.0);
    }

    /// Returns the checks that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Check> {
        self.0.iter().filter(|check| !check.ok)
    }

    /// Runs `work`, and marks the checks that it adds as checks of `source`.
    pub(crate) fn of_source<T>(&mut self, source: impl ToString, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.mark();
        let result = work(self);
        self.set_source(before, source);
        result
    }

    /// Returns the position of the next check.
    pub(crate) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Marks the checks that were added since `mark` as checks of `source`.
    pub(crate) fn set_source(&mut self, mark: usize, source: impl ToString) {
        let source = source.to_string();
        self.0[mark..].iter_mut().for_each(|check| check.source = Some(source.clone()));
    }

    pub(crate) fn into_report(self) -> ChecksReport {
        ChecksReport { ok: self.are_ok(), checks: self.0, ..ChecksReport::default() }
    }
}

/// All checks, and the actions taken because of them.
#[derive(Debug, Default)]
pub(crate) struct ChecksReport {
    /// True if all checks passed.
    pub ok: bool,
    /// The checks, in the order in which they were made.
    pub checks: Vec<Check>,
    /// The snapshots that were taken.
    pub(crate) snapshots: Vec<ReportedSnapshot>,
    /// The snapshots that were taken after intended changes, as baselines for later ones.
    pub(crate) new_baselines: Vec<ReportedSnapshot>,
    /// The restores that were made.
    pub restored: Vec<RestoreReport>,
    /// The commands that restore the snapshots.
    pub rollback: Vec<String>,
    /// The rows that a restore of the lost data would take away, or has taken away.
    pub new_rows: Vec<NewRows>,
    /// The names of the sources that have nothing to save yet, because this is their first deploy.
    pub first_deploy: Vec<String>,
    /// A summary in one line, for people.
    pub verdict: String,
    /// The actions that failed; the first one decides the exit code.
    pub failures: Vec<Error>,
    /// The results of the actions, by source. Those of the checks are added in the summary.
    pub results: SourceResults,
}

impl ChecksReport {
    /// Returns the checks that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }

    /// Returns one result for each source. A failed check of the machine or of a store is a failure of every source.
    fn results(&self) -> SourceResults {
        let mut results = self.results.clone();
        for check in &self.checks {
            match &check.source {
                Some(source) if check.ok => results.succeed(source),
                Some(source) => results.fail(source, None),
                None => {}
            }
        }
        if self.failed().any(|check| check.source.is_none()) {
            results.fail_all();
        }
        results
    }
}

impl Serialize for ChecksReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_failures(&mut map, &self.failures)?;
        map.serialize_entry("ok", &(self.ok && self.failures.is_empty()))?;
        if !self.verdict.is_empty() {
            map.serialize_entry("verdict", &self.verdict)?;
        }
        map.serialize_entry("checks", &self.checks)?;
        map.serialize_entry("snapshots", &self.snapshots)?;
        if !self.new_baselines.is_empty() {
            map.serialize_entry("new_baselines", &self.new_baselines)?;
        }
        if !self.restored.is_empty() {
            map.serialize_entry("restored", &self.restored)?;
        }
        if !self.rollback.is_empty() {
            map.serialize_entry("rollback", &self.rollback)?;
        }
        if !self.new_rows.is_empty() {
            map.serialize_entry("new_rows", &self.new_rows)?;
        }
        if !self.first_deploy.is_empty() {
            map.serialize_entry("first_deploy", &self.first_deploy)?;
        }
        map.end()
    }
}

impl Report for ChecksReport {
    fn summary(&self) -> RunSummary {
        let of = |snapshot: &ReportedSnapshot| SnapshotSummary::of(&snapshot.manifest, &snapshot.proof);
        RunSummary {
            checks: self.checks.clone(),
            snapshots: self.snapshots.iter().map(of).collect(),
            rollback: self.rollback.clone(),
            results: self.results(),
        }
    }

    fn errors(&self) -> &[Error] {
        &self.failures
    }

    fn is_ok(&self) -> bool {
        self.ok
    }
}
