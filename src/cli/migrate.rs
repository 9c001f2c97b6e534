//! `migrate`: its arguments, and its result for people.

use std::path::PathBuf;

use chrono_tz::Tz;
use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::migrate::MigrateReport;
use crate::ops::migrate::plan::{self, PlanOptions};
use crate::ops::migrate::rollback::{self, RollbackOptions};
use crate::ops::migrate::run::{self, RunOptions};
use crate::ops::migrate::verify::{self, CompareOptions};
use crate::platform::error::{Result, one_line};
use crate::platform::text;

impl Text for MigrateReport {
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
}

/// Inspects every value of SQLite files or of their snapshots, and writes a plan that you can edit
#[derive(Args, Clone, Debug)]
pub(super) struct PlanArgs {
    /// SQLite files, source names from the config, or snapshot ids
    #[arg(value_name = "FILE|SNAPSHOT", required = true)]
    inputs: Vec<String>,
    /// The target: a PostgreSQL URL, or a source name from the config
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// The prefix of the variables that define the target: TDX_DB_ for TDX_DB_HOST, _PORT, _NAME, _USER and _PASSWORD
    #[arg(long, value_name = "PREFIX")]
    env_prefix: Option<String>,
    /// A file that may contain those variables, in addition to the environment
    #[arg(long, value_name = "FILE", default_value = ".env")]
    env_file: PathBuf,
    /// The target's schema
    #[arg(long, value_name = "NAME", default_value = "app")]
    schema: String,
    /// The time zone of times without an offset, such as Asia/Shanghai
    #[arg(long, value_name = "ZONE")]
    zone: Option<Tz>,
    /// Propose only what the files define: no hypertables, no additional indexes
    #[arg(long)]
    no_proposals: bool,
    /// Keep the upper-case letters of names, so that statements must quote them
    #[arg(long)]
    keep_case: bool,
    /// The plan's file; it must not exist yet
    #[arg(long, short, value_name = "FILE", default_value = "plan.toml")]
    output: PathBuf,
}

impl From<PlanArgs> for PlanOptions {
    fn from(args: PlanArgs) -> Self {
        PlanOptions {
            inputs: args.inputs,
            to: args.to,
            env_prefix: args.env_prefix,
            env_file: args.env_file,
            schema: args.schema,
            zone: args.zone,
            no_proposals: args.no_proposals,
            keep_case: args.keep_case,
            output: args.output,
        }
    }
}

/// Runs a plan: saves each file, creates schemas and tables, loads every row, creates keys, indexes and policies
#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
    /// The plan file
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Another connection to the plan's target: a PostgreSQL URL, or a source name from the config
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Do not take snapshots of the files first
    #[arg(long)]
    no_snapshot: bool,
}

impl From<RunArgs> for RunOptions {
    fn from(args: RunArgs) -> Self {
        RunOptions { plan: args.plan, to: args.to, no_snapshot: args.no_snapshot }
    }
}

/// Compares every row of the target with its file, and reports each difference
#[derive(Args, Clone, Debug)]
pub(super) struct VerifyArgs {
    /// The plan file
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Another connection to the plan's target: a PostgreSQL URL, or a source name from the config
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Compare only this number of rows of each table, and the row counts of all tables
    #[arg(long, value_name = "N")]
    sample: Option<u64>,
    /// The maximum number of differences to report one by one
    #[arg(long, value_name = "N", default_value_t = 100)]
    most: usize,
}

impl From<VerifyArgs> for CompareOptions {
    fn from(args: VerifyArgs) -> Self {
        CompareOptions { plan: args.plan, to: args.to, sample: args.sample, max_differences: args.most }
    }
}

/// Removes the tables, schemas and rows that 'run' created, if the tables have only the rows that it loaded
#[derive(Args, Clone, Debug)]
pub(super) struct RollbackArgs {
    /// The plan file
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Another connection to the plan's target: a PostgreSQL URL, or a source name from the config
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Also roll back tables whose rows differ from those that were loaded
    #[arg(long)]
    even_changed: bool,
}

impl From<RollbackArgs> for RollbackOptions {
    fn from(args: RollbackArgs) -> Self {
        RollbackOptions { plan: args.plan, to: args.to, even_changed: args.even_changed }
    }
}

/// Migrates SQLite files to PostgreSQL or TimescaleDB: plan, run, verify, rollback
#[derive(Args, Clone, Debug)]
pub(super) struct MigrateArgs {
    /// The step of the migration
    #[command(subcommand)]
    step: Step,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Step {
    /// Inspects every value of the files and writes a plan that you can edit: types, keys, indexes, hypertables, with
    /// the reasons
    Plan(PlanArgs),
    /// Runs a plan, after a snapshot of each file; safe to run again
    Run(RunArgs),
    /// Compares every row of the target with its file, and reports each difference
    Verify(VerifyArgs),
    /// Removes what 'run' created, and nothing else
    Rollback(RollbackArgs),
}

impl Subcommand for MigrateArgs {
    fn name(&self) -> &'static str {
        "migrate"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let report = match self.step.clone() {
            Step::Plan(args) => plan::run(&args.into(), &call.context),
            Step::Run(args) => run::run(&args.into(), &call.context),
            Step::Verify(args) => verify::run(&args.into(), &call.context),
            Step::Rollback(args) => rollback::run(&args.into(), &call.context),
        };
        call.finish(&report?)
    }
}
