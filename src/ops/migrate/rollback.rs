//! `migrate rollback`: removes what `migrate run` created.

use std::path::PathBuf;
use std::time::Instant;

use crate::migrate::{Plan, rollback};
use crate::ops::Context;
use crate::ops::migrate::inputs::params_of;
use crate::ops::migrate::{MigrateReport, TableReport};
use crate::platform::error::Result;

/// Options of [`run()`].
#[derive(Clone, Debug)]
pub(crate) struct RollbackOptions {
    /// The plan file
    pub plan: PathBuf,
    /// Another connection to the plan's target: a PostgreSQL URL, or a source name from the config
    pub to: Option<String>,
    /// Also roll back tables whose rows differ from those that were loaded
    pub even_changed: bool,
}

/// Runs the command.
pub(crate) fn run(options: &RollbackOptions, context: &Context) -> Result<MigrateReport> {
    let clock = Instant::now();
    let plan = Plan::load(&options.plan)?;
    let params = params_of(&plan, options.to.as_deref(), context)?;
    let outcome = rollback::rollback(&plan, &params, options.even_changed)?;
    let source = |target: &str| {
        let of = plan.tables.iter().filter(|table| table.shown_target() == target);
        of.map(|table| table.shown_source()).collect::<Vec<_>>().join(", ")
    };
    let tables: Vec<TableReport> = outcome
        .tables
        .into_iter()
        .map(|(target, rows)| TableReport { source: source(&target), target, rows, rejected: 0 })
        .collect();
    let verdict = match (outcome.was_run, tables.len()) {
        (false, _) => "there is nothing to roll back: the plan was not run, or was rolled back".to_owned(),
        (true, count) => format!("rolled back {count} tables; the files were not changed"),
    };
    Ok(MigrateReport {
        step: "rollback",
        ok: true,
        plan: options.plan.clone(),
        tables,
        differences: Vec::new(),
        notes: outcome.notes,
        snapshots: Vec::new(),
        seconds: clock.elapsed().as_secs_f64(),
        load_seconds: None,
        verdict,
    })
}
