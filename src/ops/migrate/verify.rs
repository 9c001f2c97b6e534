//! `migrate verify`: compares the rows of the target with those of the files, one by one.

use std::path::PathBuf;
use std::time::Instant;

use crate::migrate::Plan;
use crate::migrate::verify::{VerifyOptions, verify};
use crate::ops::Context;
use crate::ops::migrate::inputs::{Inputs, params_of};
use crate::ops::migrate::{MigrateReport, TableReport};
use crate::platform::error::Result;

/// Options of [`run()`].
#[derive(Clone, Debug)]
pub(crate) struct CompareOptions {
    /// The plan file
    pub plan: PathBuf,
    /// Another connection to the plan's target: a PostgreSQL URL, or a source name from the config
    pub to: Option<String>,
    /// Compare only this number of rows of each table, and the row counts of all tables
    pub sample: Option<u64>,
    /// The maximum number of differences to report one by one
    pub max_differences: usize,
}

/// Runs the command.
pub(crate) fn run(options: &CompareOptions, context: &Context) -> Result<MigrateReport> {
    let clock = Instant::now();
    let plan = Plan::load(&options.plan)?;
    let params = params_of(&plan, options.to.as_deref(), context)?;
    let inputs = Inputs::open(&plan.files, context)?;
    let verify_options = VerifyOptions { sample: options.sample, max_differences: options.max_differences };
    let verdict = verify(&plan, &inputs.files, &params, verify_options, &*context.progress)?;
    let ok = verdict.differences.is_empty() && verdict.more == 0;
    let tables: Vec<TableReport> = verdict
        .tables
        .into_iter()
        .map(|table| TableReport {
            source: table.source,
            target: table.target,
            rows: table.rows,
            rejected: table.rejected,
        })
        .collect();
    let mut notes = verdict.notes;
    // `differences` has a limit; `more` counts the differences beyond it.
    if verdict.more > 0 {
        notes.push(format!("there are at least {} more differences", verdict.more));
    }
    let summary = match options.sample {
        _ if !ok => "the target DIFFERS from the files".to_owned(),
        Some(rows) => format!("no difference: compared {rows} rows of each table"),
        None => "no difference: compared every row".to_owned(),
    };
    Ok(MigrateReport {
        step: "verify",
        ok,
        plan: options.plan.clone(),
        tables,
        differences: verdict.differences.iter().map(|one| serde_json::json!(one)).collect(),
        notes,
        snapshots: Vec::new(),
        seconds: clock.elapsed().as_secs_f64(),
        load_seconds: None,
        verdict: summary,
    })
}
