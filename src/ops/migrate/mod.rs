//! `migrate`: SQLite files into PostgreSQL or TimescaleDB, by a plan that people edit.

mod inputs;
mod plan;
mod rollback;
mod run;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

pub use crate::ops::migrate::plan::PlanArgs;
pub use crate::ops::migrate::rollback::RollbackArgs;
pub use crate::ops::migrate::run::RunArgs;
pub use crate::ops::migrate::verify::VerifyArgs;
use crate::ops::{Context, Report};
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::text;

/// Brings SQLite files into PostgreSQL or TimescaleDB: plan, run, verify, rollback
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    /// What is to be done
    #[command(subcommand)]
    pub step: Step,
}

/// A step of a migration.
#[derive(Subcommand, Clone, Debug)]
pub enum Step {
    /// Looks at every value of the files and writes a plan to edit: types, keys, indexes, hypertables, with what speaks for each
    Plan(PlanArgs),
    /// Does what a plan says, after a snapshot of each file; safe to run again
    Run(RunArgs),
    /// Compares every row of the target with its file, and says exactly what differs
    Verify(VerifyArgs),
    /// Takes away what 'run' has made, and nothing else
    Rollback(RollbackArgs),
}

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
    fn text(&self) -> String {
        let mut out = String::new();
        for snapshot in &self.snapshots {
            out.push_str(&format!("saved {snapshot}\n"));
        }
        if !self.tables.is_empty() {
            let rows = self.tables.iter().map(|table| {
                vec![table.source.clone(), table.target.clone(), table.rows.to_string(), table.rejected.to_string()]
            });
            out.push_str(&text::table(&["SOURCE", "TARGET", ">ROWS", ">REJECTED"], rows));
        }
        for difference in &self.differences {
            let message = difference.get("message").and_then(serde_json::Value::as_str);
            out.push_str(&format!("DIFFERENCE {}\n", one_line(message.unwrap_or_default())));
        }
        for note in &self.notes {
            out.push_str(&format!("note: {}\n", one_line(note)));
        }
        out.push_str(&self.verdict);
        out.push('\n');
        out
    }

    fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { Kind::Problem.exit_code() }
    }
}

/// Runs the step.
pub fn run(args: &MigrateArgs, context: &Context) -> Result<MigrateReport> {
    match &args.step {
        Step::Plan(args) => plan::run(args, context),
        Step::Run(args) => run::run(args, context),
        Step::Verify(args) => verify::run(args, context),
        Step::Rollback(args) => rollback::run(args, context),
    }
}
