//! The checks that several commands share: one line for each check, and the same JSON document for all commands.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::engine::restoring::RestoreReport;
use crate::ops::summary::{Check, RunSummary, SnapshotSummary};
use crate::ops::{Report, ReportedSnapshot, error_document};
use crate::platform::error::{Error, Kind, Result};

/// The checks made so far.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Adds a check.
    pub(crate) fn add(&mut self, name: impl Into<String>, ok: bool, message: impl Into<String>) {
        self.0.push(Check { name: name.into(), ok, message: message.into() });
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
    /// The restores that were made.
    pub restored: Vec<RestoreReport>,
    /// The commands that restore the snapshots.
    pub rollback: Vec<String>,
    /// A summary in one line, for people.
    pub verdict: String,
    /// The actions that failed; the first one decides the exit code.
    pub failures: Vec<Error>,
}

impl ChecksReport {
    /// Returns the checks that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

impl Serialize for ChecksReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(error) = self.failures.first().filter(|error| error.kind != Kind::Problem) {
            map.serialize_entry("error", &error_document(error))?;
        }
        map.serialize_entry("ok", &(self.ok && self.failures.is_empty()))?;
        map.serialize_entry("checks", &self.checks)?;
        map.serialize_entry("snapshots", &self.snapshots)?;
        if !self.restored.is_empty() {
            map.serialize_entry("restored", &self.restored)?;
        }
        if !self.rollback.is_empty() {
            map.serialize_entry("rollback", &self.rollback)?;
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
        }
    }

    fn errors(&self) -> &[Error] {
        &self.failures
    }

    fn is_ok(&self) -> bool {
        self.ok
    }
}
