//! `migrate plan`: inspects every value, and writes a plan with a proposal for each table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use chrono::Utc;
use chrono_tz::Tz;
use serde_json::json;

use crate::engine::postgres::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::sqlite::schema::{ColumnFacts, SchemaFacts, TableFacts};
use crate::engine::sqlite::values::Reader;
use crate::migrate::collisions::{self, MergedTable};
use crate::migrate::existing::ExistingSchema;
use crate::migrate::plan::{FORMAT, MAX_COLUMNS, Rejects, SourceFile, TablePlan};
use crate::migrate::profile::{self, ColumnTarget, TableProfile};
use crate::migrate::propose::{InspectedFile, Names, Proposal, ProposeOptions};
use crate::migrate::rehearse::{self, Scope};
use crate::migrate::{Plan, adopt, existing, orphaned, refused, write};
use crate::ops::Context;
use crate::ops::migrate::inputs::{Inputs, target_of};
use crate::ops::migrate::{MigrateReport, TableReport};
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::new_name::write_new_file;
use crate::snapshots::id::SourceName;

/// Options of [`run()`].
#[derive(Clone, Debug)]
pub(crate) struct PlanOptions {
    /// SQLite files, source names from the config, or snapshot ids
    pub inputs: Vec<String>,
    /// The target: a PostgreSQL URL, or a source name from the config
    pub to: Option<String>,
    /// The prefix of the variables that define the target: TDX_DB_ for TDX_DB_HOST, _PORT, _NAME, _USER and _PASSWORD
    pub env_prefix: Option<String>,
    /// A file that may contain those variables, in addition to the environment
    pub env_file: PathBuf,
    /// The target's schema
    pub schema: String,
    /// The time zone of times without an offset, such as Asia/Shanghai
    pub zone: Option<Tz>,
    /// Propose only what the files define: no hypertables, no additional indexes
    pub no_proposals: bool,
    /// Keep the upper-case letters of names, so that statements must quote them
    pub keep_case: bool,
    /// The plan's file; it must not exist yet
    pub output: PathBuf,
}

/// A file that was inspected.
struct Inspection {
    file: SourceFile,
    schema: SchemaFacts,
    profiles: Vec<TableProfile>,
}

/// Runs the command.
pub(crate) fn run(options: &PlanOptions, context: &Context) -> Result<MigrateReport> {
    let clock = Instant::now();
    let output =
        std::path::absolute(&options.output).io(Kind::Usage, || format!("cannot find {}", shown(&options.output)))?;
    if std::fs::symlink_metadata(&output).is_ok() {
        return Err(already_exists(&output));
    }
    let env_prefix = options.env_prefix.as_deref();
    let (target, params) = target_of(options.to.as_deref(), Some(&options.env_file), env_prefix, context)?;
    let server = inspect_target(&params, &options.schema)?;
    let files = name_files(&options.inputs, context)?;
    let inputs = Inputs::open(&files, context)?;
    let zone = options.zone.unwrap_or(Tz::UTC);
    let mut inspected = Vec::new();
    for file in files {
        inspected.push(inspect(&file, &inputs.files[&file.name], &server.existing, zone, context)?);
    }
    let propose_options = ProposeOptions {
        schema: options.schema.clone(),
        has_timescale: server.has_timescale,
        proposes: !options.no_proposals,
        zone,
        keeps_case: options.keep_case,
    };
    let mut proposals = propose(&inspected, &propose_options, &server.existing);
    let mut differences = clashes(&mut proposals, &inputs, zone)?;
    let notes: Vec<(String, Vec<String>)> =
        inspected.iter().map(|one| (one.file.name.clone(), not_carried_over(&one.schema))).collect();
    let mut plan = Plan {
        format: FORMAT,
        id: new_id()?,
        zone,
        rejects: Rejects::Table,
        target,
        files: inspected.iter().map(|one| one.file.clone()).collect(),
        tables: proposals.iter().map(|proposal| proposal.plan.clone()).collect(),
    };
    for proposal in proposals.iter_mut().filter(|proposal| proposal.plan.columns.len() > MAX_COLUMNS) {
        let (source, count) = (proposal.plan.shown_source(), proposal.plan.columns.len());
        proposal.conflicts.push(format!(
            "{source} has {count} columns, but a table in PostgreSQL has at most {MAX_COLUMNS} columns: remove some from the plan"
        ));
    }
    differences.extend(unassigned(obstacles(&params, &plan, &inputs, &server.existing, &mut proposals)?));
    expect_refused(&params, &mut plan, &inputs, &mut proposals)?;
    differences.extend(proposals.iter().flat_map(conflicts));
    if plan.tables.is_empty() {
        differences.push(json!({ "kind": "empty", "message": "the files have no tables" }));
    }
    let text = write::render(&plan, &proposals, &notes);
    let read = Plan::parse(&text).map_err(|error| error.context("the generated plan is not valid"));
    // The written plan must be readable, whatever the files contain.
    if differences.is_empty() && read? != plan {
        return Err(Error::failed("the generated plan differs from the proposed one"));
    }
    let written = write_new_file(&output, 0o644, text.as_bytes());
    if !written.io(Kind::Failed, || format!("cannot write the plan {}", shown(&output)))? {
        return Err(already_exists(&output));
    }
    let notes = all_notes(server.notes, &inspected, notes, &proposals, options.zone.is_none());
    let rejected: u64 = proposals.iter().map(|proposal| proposal.rejected).sum();
    let tables = proposals.iter().map(|proposal| TableReport {
        source: proposal.plan.shown_source(),
        target: proposal.plan.shown_target(),
        rows: proposal.rows,
        rejected: proposal.rejected,
    });
    let verdict = verdict(&output, rejected, differences.len());
    Ok(MigrateReport {
        step: "plan",
        ok: differences.is_empty(),
        plan: output,
        tables: tables.collect(),
        differences,
        notes,
        snapshots: Vec::new(),
        seconds: clock.elapsed().as_secs_f64(),
        load_seconds: None,
        verdict,
    })
}

/// Proposes a table for each table of each file.
fn propose(inspected: &[Inspection], options: &ProposeOptions, existing: &ExistingSchema) -> Vec<Proposal> {
    let mut names = Names::new(existing, options, inspected.iter().flat_map(|one| &one.schema.tables));
    let mut proposals: Vec<Proposal> = Vec::new();
    for one in inspected {
        let file = InspectedFile { name: &one.file.name, schema: &one.schema, profiles: &one.profiles };
        proposals.extend(adopt::propose(&file, options, existing, &mut names));
    }
    for proposal in &mut proposals {
        proposal.plan.expected_rejects = proposal.rejected;
    }
    proposals
}

/// Adds the notes on the files and the tables to the notes on the server.
fn all_notes(
    mut all: Vec<String>,
    inspected: &[Inspection],
    notes: Vec<(String, Vec<String>)>,
    proposals: &[Proposal],
    has_no_zone: bool,
) -> Vec<String> {
    let columns: usize = inspected.iter().flat_map(|one| &one.profiles).map(local_time_columns).sum();
    if columns > 0 && has_no_zone {
        all.push(format!(
            "{columns} columns have times without an offset, which are read as UTC: if this is wrong, plan with --zone"
        ));
    }
    all.extend(
        notes.into_iter().flat_map(|(file, notes)| notes.into_iter().map(move |note| format!("{file}: {note}"))),
    );
    all.extend(
        proposals
            .iter()
            .flat_map(|proposal| proposal.notes.iter().map(|note| format!("{}: {note}", proposal.plan.shown_source()))),
    );
    all
}

/// Returns the last line of the output: the result, and the next step for the user.
fn verdict(output: &Path, rejected: u64, obstacles: usize) -> String {
    match obstacles {
        0 if rejected > 0 => {
            format!("wrote {}: up to {rejected} rows would be rejected, see the comments in it", shown(output))
        }
        0 => format!("wrote {}: review it, then run 'lifeboat migrate run'", shown(output)),
        1 => format!("wrote {}: it cannot be run until the problem above is solved", shown(output)),
        obstacles => {
            format!("wrote {}: it cannot be run until the {obstacles} problems above are solved", shown(output))
        }
    }
}

fn already_exists(path: &Path) -> Error {
    Error::usage(format!("{} already exists", shown(path)))
        .hint("choose another file with --output, or remove that one")
}

fn new_id() -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Error::failed("cannot get random bytes").because(error))?;
    Ok(format!("{}-{}", Utc::now().format("%Y%m%dT%H%M%SZ"), hex::encode(random)))
}

/// The properties of the target server.
struct Server {
    has_timescale: bool,
    existing: ExistingSchema,
    notes: Vec<String>,
}

fn inspect_target(params: &Params, schema: &str) -> Result<Server> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    let has_timescale = existing::timescale(&mut session)?.is_some();
    let row = session.row(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'timescaledb') AS available",
    )?;
    let mut notes = Vec::new();
    if !has_timescale && row.flag("available")? {
        notes.push(
            "TimescaleDB is available but not installed: for hypertables, CREATE EXTENSION timescaledb and plan again"
                .to_owned(),
        );
    }
    let encoding = session.row("SELECT pg_catalog.current_setting('server_encoding') AS encoding")?;
    let encoding = encoding.text("encoding")?;
    if encoding != "UTF8" {
        notes.push(format!(
            "the target has the encoding {encoding}: a text with a character that it lacks would end the run; a database with \
             ENCODING 'UTF8' holds every text"
        ));
    }
    Ok(Server { has_timescale, existing: ExistingSchema::read(&mut session, schema)?, notes })
}

/// Tries the plan in the target. Adds what fails to the conflicts of its table, and returns what concerns no table.
fn obstacles(
    params: &Params,
    plan: &Plan,
    inputs: &Inputs,
    existing: &ExistingSchema,
    proposals: &mut [Proposal],
) -> Result<Vec<String>> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    let mut others = Vec::new();
    let target = |table: &TablePlan| (table.schema.clone(), table.name.clone());
    let is_tried = |place: usize| {
        let table = &plan.tables[place];
        // Tables that would become one table cannot be tried.
        let is_alone = plan.tables.iter().filter(|other| target(other) == target(table)).count() == 1;
        is_alone && (table.existing || proposals[place].conflicts.is_empty())
    };
    let has_triggers =
        |place: usize| existing.table(&plan.tables[place].source).is_some_and(|table| !table.triggers.is_empty());
    let scope = Scope { plan, files: &inputs.files, is_tried: &is_tried, has_triggers: &has_triggers };
    let found = rehearse::obstacles(&mut session, &scope)?;
    for obstacle in found {
        match obstacle.table.and_then(|table| proposals.get_mut(table)) {
            Some(proposal) => proposal.conflicts.push(obstacle.message),
            None => others.push(obstacle.message),
        }
    }
    Ok(others)
}

/// Expects the rows to be rejected whose values the target refuses, and describes these values. Notes rows that refer to
/// missing rows.
fn expect_refused(params: &Params, plan: &mut Plan, inputs: &Inputs, proposals: &mut [Proposal]) -> Result<()> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    session.execute("BEGIN")?;
    for (place, proposal) in proposals.iter_mut().enumerate().filter(|(_, proposal)| proposal.plan.existing) {
        if !proposal.conflicts.is_empty() {
            continue;
        }
        let found = refused::count(&mut session, plan, &proposal.plan, &inputs.files[&proposal.plan.file])?;
        proposal.rejected += found.rows;
        plan.tables[place].expected_rejects += found.rows;
        found.remarks.into_iter().for_each(|(column, remark)| proposal.column_notes[column].push(remark));
    }
    // They are not expected: the user decides whether these rows may be lost, and the server may compare in another way.
    for orphaned in orphaned::count(&mut session, plan, &inputs.files)? {
        let proposal = &mut proposals[orphaned.table];
        if proposal.conflicts.is_empty() {
            proposal.notes.push(orphaned.remark);
        }
    }
    session.execute("ROLLBACK")
}

/// Returns messages as differences that concern no table.
fn unassigned(messages: Vec<String>) -> impl Iterator<Item = serde_json::Value> {
    messages.into_iter().map(|message| json!({ "kind": "conflict", "message": message }))
}

/// Returns the reasons why a table of the plan cannot be loaded as differences.
fn conflicts(proposal: &Proposal) -> impl Iterator<Item = serde_json::Value> {
    let table = proposal.plan.shown_target();
    proposal
        .conflicts
        .iter()
        .map(move |conflict| json!({ "kind": "conflict", "table": table, "message": format!("{table}: {conflict}") }))
}

/// Names each input: a file by its own name, a snapshot by the name of its source.
fn name_files(inputs: &[String], context: &Context) -> Result<Vec<SourceFile>> {
    let mut files: Vec<SourceFile> = Vec::new();
    for text in inputs {
        let (wanted, path, snapshot) = match context.named_source(text) {
            Ok(chosen) if chosen.configured.is_some() || Path::new(text).exists() => {
                let Some(path) = chosen.source.file() else {
                    return Err(Error::usage(format!("'{}' is not an SQLite file", one_line(text))));
                };
                let name = match &chosen.configured {
                    Some(configured) => configured.name.to_string(),
                    None => path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                };
                (name, Some(crate::engine::sqlite::source::locate(path)?), None)
            }
            _ if text.contains('/') || text.ends_with(".db") || text.contains("://") => {
                return Err(
                    Error::unreachable(format!("cannot find the database {}", one_line(text))).hint("check the path")
                );
            }
            _ => {
                let listed =
                    context.open_catalog()?.find(text, &crate::snapshots::search::SnapshotFilter::default())?;
                (listed.id.source().to_string(), None, Some(listed.id.to_string()))
            }
        };
        if files.iter().any(|file| file.path == path && file.snapshot == snapshot) {
            return Err(Error::usage(format!("'{}' is named twice", one_line(text))));
        }
        let wanted = SourceName::derive(&wanted).map_or_else(|| "file".to_owned(), |name| name.to_string());
        let numbered = (2..).map(|number| format!("{wanted}-{number}"));
        let name =
            std::iter::once(wanted.clone()).chain(numbered).find(|name| files.iter().all(|file| file.name != *name));
        files.push(SourceFile { name: name.unwrap_or(wanted), path, snapshot });
    }
    Ok(files)
}

fn inspect(
    file: &SourceFile,
    path: &Path,
    existing: &ExistingSchema,
    zone: Tz,
    context: &Context,
) -> Result<Inspection> {
    let reader = Reader::open(path)?;
    reader.begin()?;
    let schema = reader.schema()?;
    context.progress.start(&format!("inspecting {}", one_line(&file.name)), 0);
    let inspect = |table: &TableFacts| {
        let found = existing.table(&table.name);
        let target = |column: &ColumnFacts| {
            let found = found?.column(&column.name).filter(|found| !found.is_generated)?;
            Some(adopt::target_of(found))
        };
        let targets: Vec<Option<ColumnTarget>> = table.columns.iter().map(target).collect();
        profile::profile(&reader, table, &targets, zone, &*context.progress)
    };
    let profiles: Result<Vec<TableProfile>> = schema.tables.iter().map(inspect).collect();
    context.progress.finish();
    reader.end()?;
    Ok(Inspection { file: file.clone(), schema, profiles: profiles? })
}

/// Lists the views and virtual tables of a file, which a plan cannot contain.
fn not_carried_over(schema: &SchemaFacts) -> Vec<String> {
    let views = schema.views.iter().map(|(name, _)| format!("the view {} is not carried over", one_line(name)));
    let tables =
        schema.virtual_tables.iter().map(|name| format!("the virtual table {} is not carried over", one_line(name)));
    views.chain(tables).collect()
}

fn local_time_columns(profile: &TableProfile) -> usize {
    profile.columns.iter().filter(|column| column.forms.local > 0).count()
}

/// Returns the tables that would become one table, and those with too many columns, and adds a note on each to the plan.
fn clashes(proposals: &mut [Proposal], inputs: &Inputs, zone: Tz) -> Result<Vec<serde_json::Value>> {
    let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for proposal in proposals.iter() {
        targets.entry(proposal.plan.shown_target()).or_default().push(proposal.plan.shown_source());
    }
    let mut found = Vec::new();
    for (target, sources) in targets.into_iter().filter(|(_, sources)| sources.len() > 1) {
        let same = proposals.iter().filter(|proposal| proposal.plan.shown_target() == target);
        let tables: Vec<MergedTable<'_>> =
            same.map(|one| MergedTable { plan: &one.plan, path: &inputs.files[&one.plan.file] }).collect();
        let collisions = match collisions::sentences(&tables, zone)?.join("; ") {
            none if none.is_empty() => "no rows have the same key".to_owned(),
            some => some,
        };
        let message = format!("{} would all become {target} (if they are merged: {collisions})", sources.join(", "));
        for proposal in proposals.iter_mut().filter(|proposal| proposal.plan.shown_target() == target) {
            proposal.notes.insert(0, format!("CONFLICT: {message}. Rename this table, or set 'merge = true' on each"));
        }
        found.push(json!({ "kind": "clash", "table": target, "sources": sources, "message": message }));
    }
    Ok(found)
}
