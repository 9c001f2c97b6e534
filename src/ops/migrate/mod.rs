//! `migrate`: copies SQLite files into PostgreSQL or TimescaleDB, by a plan that people edit.

mod inputs;
pub(crate) mod plan;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod verify;

use std::path::PathBuf;

use serde::Serialize;

use crate::ops::Report;

/// A table of a migration.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TableReport {
    /// `file:table`.
    pub source: String,
    /// `schema.table`.
    pub target: String,
    /// The number of rows: those of the file for `plan`, those of the target otherwise.
    pub rows: u64,
    /// The number of rows that are not, or would not be, in the target.
    pub rejected: u64,
}

/// The result of a step of a migration.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MigrateReport {
    /// `plan`, `run`, `verify` or `rollback`.
    pub step: &'static str,
    /// True if everything is as expected.
    pub ok: bool,
    /// The plan's file.
    pub plan: PathBuf,
    /// The tables, in the plan's order.
    pub tables: Vec<TableReport>,
    /// The differences between files and target, or the reasons why a plan cannot be run.
    pub differences: Vec<serde_json::Value>,
    /// Further remarks.
    pub notes: Vec<String>,
    /// The ids of the snapshots that were taken.
    pub snapshots: Vec<String>,
    /// Its duration in seconds.
    pub seconds: f64,
    /// The duration in seconds of loading alone, including indexes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<f64>,
    /// The last line of the text output.
    #[serde(skip)]
    pub verdict: String,
}

impl Report for MigrateReport {
    fn is_ok(&self) -> bool {
        self.ok
    }
}
