//! `migrate verify`: compares what was loaded with the files, row by row.

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
    /// The plan
    pub plan: PathBuf,
    /// Another way to the plan's target: a URL, or a name of the config
    pub to: Option<String>,
    /// Compare only this number of rows of each table, and the row counts of all tables
    pub sample: Option<u64>,
    /// The most differences to report one by one
    pub most: usize,
}

/// Runs the command.
pub(crate) fn run(options: &CompareOptions, context: &Context) -> Result<MigrateReport> {
    let clock = Instant::now();
    let plan = Plan::load(&options.plan)?;
    let params = params_of(&plan, options.to.as_deref(), context)?;
    let inputs = Inputs::open(&plan.files, context)?;
    let how = VerifyOptions { sample: options.sample, most_differences: options.most };
    let verdict = verify(&plan, &inputs.files, &params, how, &*context.progress)?;
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
    if verdict.more > 0 {
        notes.push(format!("there are at least {} more differences", verdict.more));
    }
    let what = match options.sample {
        Some(rows) => format!("{rows} rows of each table are"),
        None => "every row is".to_owned(),
    };
    let told = if ok { format!("{what} as it should be") } else { "what was loaded DIFFERS from the files".to_owned() };
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
        verdict: told,
    })
}
