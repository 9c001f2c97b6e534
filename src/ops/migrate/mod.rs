//! `migrate`: SQLite files into PostgreSQL or TimescaleDB, by a plan that people edit.

mod inputs;
pub mod plan;
pub mod rollback;
pub mod run;
pub mod verify;

use std::path::PathBuf;

use serde::Serialize;

use crate::ops::Report;
use crate::platform::error::Kind;

/// A table of a migration.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// `file:table`.
    pub source: String,
    /// `schema.table`.
    pub target: String,
    /// Rows: of the file in a plan, of the target otherwise.
    pub rows: u64,
    /// Rows that are not, or would not be, in the target.
    pub rejected: u64,
}

/// What a step of a migration came to.
#[derive(Clone, Debug, Serialize)]
pub struct MigrateReport {
    /// `plan`, `run`, `verify` or `rollback`.
    pub step: &'static str,
    /// Whether all is as it should be.
    pub ok: bool,
    /// The plan's file.
    pub plan: PathBuf,
    /// In the plan's order.
    pub tables: Vec<TableReport>,
    /// What differs between files and target, or keeps a plan from being run.
    pub differences: Vec<serde_json::Value>,
    /// What is to be known beside.
    pub notes: Vec<String>,
    /// Snapshots that were taken.
    pub snapshots: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// The same of loading alone, with indexes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<f64>,
    /// The last line for people.
    #[serde(skip)]
    pub verdict: String,
}

impl Report for MigrateReport {
    fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { Kind::Problem.exit_code() }
    }
}
