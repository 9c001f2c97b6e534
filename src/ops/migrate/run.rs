//! `migrate run`: saves the files, then runs a plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::engine::sqlite::still::{Before, Watched};
use crate::migrate::Plan;
use crate::migrate::collisions::{self, MergedTable};
use crate::migrate::run::{Job, connect};
use crate::migrate::state::{PlanState, SourceState, Unexpected};
use crate::ops::migrate::inputs::{Inputs, params_of, state_of, state_of_file};
use crate::ops::migrate::{MigrateReport, TableReport};
use crate::ops::save::{self, SaveOptions};
use crate::ops::{Context, tags};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result, one_line};

/// Options of [`run()`].
#[derive(Clone, Debug)]
pub(crate) struct RunOptions {
    /// The plan file
    pub plan: PathBuf,
    /// Another connection to the plan's target: a PostgreSQL URL, or a source name from the config
    pub to: Option<String>,
    /// Do not take snapshots of the files first
    pub no_snapshot: bool,
}

/// Runs the command.
pub(crate) fn run(options: &RunOptions, context: &Context) -> Result<MigrateReport> {
    let clock = Instant::now();
    let plan = Plan::load(&options.plan)?;
    if plan.tables.is_empty() {
        return Err(Error::usage(format!("the plan {} has no tables", shown(&options.plan))));
    }
    let params = params_of(&plan, options.to.as_deref(), context)?;
    // Connect before anything is saved or created, so that obstacles are reported at once.
    let (session, noted) = connect(&plan, &params)?;
    let inputs = Inputs::open(&plan.files, context)?;
    // From here to the end, no process may write to a file.
    let live = plan.files.iter().filter(|file| file.path.is_some());
    let before: Vec<Before> = live.map(|file| Before::note(&inputs.files[&file.name])).collect();
    let mut saved = Vec::new();
    let sources = match &noted {
        Some(noted) => {
            require_as_saved(&plan, &inputs, noted, context)?;
            noted.sources.clone()
        }
        None => {
            let sources = save(&plan, &inputs, options.no_snapshot, context)?;
            let taken = sources.iter().filter(|(name, _)| !inputs.manifests.contains_key(*name));
            saved = taken.filter_map(|(_, source)| source.snapshot.clone()).collect();
            sources
        }
    };
    // Once the plan has begun, its rejected rows are counted instead.
    let collisions = if noted.is_none() { count_collisions(&plan, &inputs)? } else { Vec::new() };
    collisions.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    let watched: Vec<Watched> = before.into_iter().map(Before::hold).collect::<Result<_>>()?;
    let job =
        Job { plan: &plan, files: &inputs.files, params: &params, jobs: context.jobs, progress: &*context.progress };
    let outcome = job.run(session, &sources, noted.as_ref(), &watched)?;
    let tables: Vec<TableReport> = outcome
        .tables
        .into_iter()
        .map(|table| TableReport {
            source: table.source,
            target: table.target,
            rows: table.rows,
            rejected: table.rejected,
        })
        .collect();
    let (rows, rejected) = tables.iter().fold((0, 0), |sum, table| (sum.0 + table.rows, sum.1 + table.rejected));
    let mut verdict = match outcome.was_complete {
        true => format!("loaded no rows: the plan was completed before, and loaded {rows} rows then"),
        false => format!("loaded {rows} rows"),
    };
    if rejected > 0 {
        verdict.push_str(&format!(", and rejected {rejected}, which are kept in lifeboat_migrate.rejects"));
    }
    if !outcome.unexpected.is_empty() {
        verdict.push_str(", MORE than the plan expects: set expected_rejects in the plan if that is right");
    }
    if !outcome.missing_keys.is_empty() {
        verdict.push_str(&format!("; {} keys were NOT created", outcome.missing_keys.len()));
    }
    verdict.push_str(&format!("; compare all rows with 'lifeboat migrate verify {}'", shown(&options.plan)));
    Ok(MigrateReport {
        step: "run",
        ok: outcome.unexpected.is_empty() && outcome.missing_keys.is_empty(),
        plan: options.plan.clone(),
        tables,
        differences: differences(&outcome.unexpected, "reject")
            .chain(differences(&outcome.missing_keys, "key"))
            .collect(),
        notes: collisions.into_iter().chain(outcome.notes).collect(),
        snapshots: saved,
        seconds: clock.elapsed().as_secs_f64(),
        load_seconds: Some(outcome.load_seconds),
        verdict,
    })
}

/// Returns what the plan does not expect as differences of a kind.
fn differences(found: &[Unexpected], kind: &'static str) -> impl Iterator<Item = serde_json::Value> {
    found.iter().map(move |one| serde_json::json!({ "kind": kind, "table": one.table, "message": one.message }))
}

/// Counts the rows of merged tables that have the key of a row before them, before anything is loaded.
fn count_collisions(plan: &Plan, inputs: &Inputs) -> Result<Vec<String>> {
    let mut targets: BTreeMap<(&str, &str), Vec<MergedTable<'_>>> = BTreeMap::new();
    for table in plan.tables.iter().filter(|table| table.merge) {
        let tables = targets.entry((&table.schema, &table.name)).or_default();
        tables.push(MergedTable { plan: table, path: &inputs.files[&table.file] });
    }
    let mut found = Vec::new();
    for tables in targets.values().filter(|tables| tables.len() > 1) {
        found.extend(collisions::sentences(tables, plan.zone)?);
    }
    Ok(found)
}

/// Fails if a table has other rows than when the plan was started: between two runs nothing watches the files, and rows
/// that are already loaded are not read again.
fn require_as_saved(plan: &Plan, inputs: &Inputs, noted: &PlanState, context: &Context) -> Result<()> {
    for file in &plan.files {
        let saved = noted.sources.get(&file.name);
        let now = match inputs.manifests.get(&file.name) {
            Some(manifest) => state_of(manifest),
            None => state_of_file(&inputs.files[&file.name], context)?,
        };
        for table in plan.tables.iter().filter(|table| table.file == file.name) {
            let then = saved.and_then(|saved| saved.tables.get(&table.source));
            if then.is_some() && then == now.tables.get(&table.source) {
                continue;
            }
            let since = if noted.finished { "after it was loaded" } else { "after the plan was started" };
            let hint = match saved.and_then(|saved| saved.snapshot.as_ref()) {
                Some(snapshot) => format!(
                    "to migrate its current content, stop the programs that write to it, run 'lifeboat migrate \
                     rollback', then run the plan again; the snapshot {snapshot} has its earlier content"
                ),
                None => "stop the programs that write to it, run 'lifeboat migrate rollback', then run the plan again"
                    .to_owned(),
            };
            return Err(Error::problem(format!(
                "{} was changed {since}: its rows differ from the saved rows",
                table.shown_source()
            ))
            .hint(hint));
        }
    }
    Ok(())
}

/// Saves every file, and returns the state of its tables.
fn save(plan: &Plan, inputs: &Inputs, no_snapshot: bool, context: &Context) -> Result<BTreeMap<String, SourceState>> {
    let mut sources = BTreeMap::new();
    for file in &plan.files {
        let path = &inputs.files[&file.name];
        let state = match inputs.manifests.get(&file.name) {
            Some(manifest) => state_of(manifest),
            None if no_snapshot => state_of_file(path, context)?,
            None => {
                let options = SaveOptions { tag: vec![tags::MIGRATE.to_owned()], ..SaveOptions::default() };
                let chosen = match context.source_at(path)? {
                    Some(chosen) => chosen,
                    None => context.named_source(&path.display().to_string())?,
                };
                if context.stores.is_empty() {
                    return Err(Error::usage("the files are saved before they are migrated, but no store is named")
                        .hint("name a store with --store, or skip the snapshots with --no-snapshot"));
                }
                let report = save::take(&options, &[chosen], context)?;
                if let Some(error) = report.failures.into_iter().next() {
                    let message = format!("{} could not be saved, so nothing was migrated", one_line(&file.name));
                    return Err(error.context(message));
                }
                let saved = report.snapshots.first().ok_or_else(|| Error::failed("no snapshot was taken"))?;
                state_of(&saved.manifest)
            }
        };
        sources.insert(file.name.clone(), state);
    }
    Ok(sources)
}
