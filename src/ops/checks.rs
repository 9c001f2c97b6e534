//! What commands that check have in common: one line for each check, and a document that is the same for all.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ops::restore::RestoreReport;
use crate::ops::{Report, error_document};
use crate::platform::error::{Error, Kind, Result, one_line};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// True where it is as it must be.
    pub ok: bool,
    /// What was found.
    pub message: String,
}

/// What was looked at so far.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Notes a check.
    pub(crate) fn add(&mut self, name: impl Into<String>, ok: bool, message: impl Into<String>) {
        self.0.push(Check { name: name.into(), ok, message: message.into() });
    }

    /// Notes how a look ended; false where it failed. A signal is no finding.
    pub(crate) fn note(&mut self, name: impl Into<String>, found: Result<String>) -> Result<bool> {
        let (ok, message) = match found {
            Ok(message) => (true, message),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => (false, told(&error)),
        };
        self.add(name, ok, message);
        Ok(ok)
    }

    /// True where nothing has failed.
    pub(crate) fn are_ok(&self) -> bool {
        self.0.iter().all(|check| check.ok)
    }

    /// Adds those of another look.
    pub(crate) fn append(&mut self, mut other: Checks) {
        self.0.append(&mut other.0);
    }

    /// Those that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Check> {
        self.0.iter().filter(|check| !check.ok)
    }

    pub(crate) fn into_report(self) -> ChecksReport {
        ChecksReport { ok: self.are_ok(), checks: self.0, ..ChecksReport::default() }
    }
}

/// An error on one line, with what to do about it.
pub(crate) fn told(error: &Error) -> String {
    let hint = error.hint.as_ref().map(|hint| format!(" ({})", one_line(hint))).unwrap_or_default();
    error.whole() + &hint
}

/// Everything that was looked at, and what was done about it.
#[derive(Debug, Default)]
pub struct ChecksReport {
    /// True where all is as it must be.
    pub ok: bool,
    /// In the order in which it was looked at.
    pub checks: Vec<Check>,
    /// The snapshots that were taken.
    pub snapshots: Vec<Map<String, Value>>,
    /// What was restored.
    pub restored: Vec<RestoreReport>,
    /// The commands that bring back what the snapshots hold.
    pub rollback: Vec<String>,
    /// What it all means, in a line for people.
    pub verdict: String,
    /// What could not be done; the first decides the exit code.
    pub failures: Vec<Error>,
}

impl ChecksReport {
    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
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
    fn errors(&self) -> &[Error] {
        &self.failures
    }

    fn exit_code(&self) -> u8 {
        match self.failures.first() {
            Some(error) => error.kind.exit_code(),
            None if self.ok => 0,
            None => Kind::Problem.exit_code(),
        }
    }
}
