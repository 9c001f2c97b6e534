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
use crate::engine::sqlite::schema::SchemaFacts;
use crate::engine::sqlite::values::Reader;
use crate::migrate::plan::{FORMAT, Rejects, SourceFile};
use crate::migrate::profile::{self, TableProfile};
use crate::migrate::propose::{self, InspectedFile, Names, Proposal, ProposeOptions};
use crate::migrate::{Plan, run, write};
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
    let server = inspect_target(&params)?;
    let files = name_files(&options.inputs, context)?;
    let inputs = Inputs::open(&files, context)?;
    let zone = options.zone.unwrap_or(Tz::UTC);
    let mut inspected = Vec::new();
    for file in files {
        inspected.push(inspect(&file, &inputs.files[&file.name], zone, context)?);
    }
    let propose_options = ProposeOptions {
        schema: options.schema.clone(),
        has_timescale: server.has_timescale,
        proposes: !options.no_proposals,
        is_utc: zone == Tz::UTC,
    };
    let mut names = Names::default();
    let mut proposals: Vec<Proposal> = Vec::new();
    for one in &inspected {
        let file = InspectedFile { name: &one.file.name, schema: &one.schema, profiles: &one.profiles };
        proposals.extend(propose::propose(&file, &propose_options, &mut names));
    }
    let clashes = clashes(&mut proposals);
    let notes: Vec<(String, Vec<String>)> =
        inspected.iter().map(|one| (one.file.name.clone(), not_carried_over(&one.schema))).collect();
    let plan = Plan {
        format: FORMAT,
        id: new_id()?,
        zone,
        rejects: Rejects::Table,
        target,
        files: inspected.iter().map(|one| one.file.clone()).collect(),
        tables: proposals.iter().map(|proposal| proposal.plan.clone()).collect(),
    };
    let text = write::render(&plan, &proposals, &notes);
    if clashes.is_empty() {
        // The written plan must be readable, whatever the files contain.
        let read = Plan::parse(&text).map_err(|error| error.context("the generated plan is not valid"))?;
        if read != plan {
            return Err(Error::failed("the generated plan differs from the proposed one"));
        }
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
    let verdict = verdict(&output, rejected, clashes.len());
    Ok(MigrateReport {
        step: "plan",
        ok: clashes.is_empty(),
        plan: output,
        tables: tables.collect(),
        differences: clashes,
        notes,
        snapshots: Vec::new(),
        seconds: clock.elapsed().as_secs_f64(),
        load_seconds: None,
        verdict,
    })
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
fn verdict(output: &Path, rejected: u64, clashes: usize) -> String {
    match clashes {
        0 if rejected > 0 => {
            format!("wrote {}: up to {rejected} rows would be rejected, see the comments in it", shown(output))
        }
        0 => format!("wrote {}: review it, then run 'lifeboat migrate run'", shown(output)),
        clashes => {
            format!("wrote {}: it cannot be run until you resolve {clashes} name conflicts in it", shown(output))
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
    notes: Vec<String>,
}

fn inspect_target(params: &Params) -> Result<Server> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    let has_timescale = run::timescale(&mut session)?.is_some();
    let row = session.row(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'timescaledb') AS available,
                pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create",
    )?;
    let mut notes = Vec::new();
    if !has_timescale && row.flag("available")? {
        notes.push(
            "TimescaleDB is available but not installed: for hypertables, CREATE EXTENSION timescaledb and plan again"
                .to_owned(),
        );
    }
    if !row.flag("may_create")? {
        notes.push("the role may not create schemas in the target: GRANT CREATE ON DATABASE to it first".to_owned());
    }
    Ok(Server { has_timescale, notes })
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

fn inspect(file: &SourceFile, path: &Path, zone: Tz, context: &Context) -> Result<Inspection> {
    let reader = Reader::open(path)?;
    reader.begin()?;
    let schema = reader.schema()?;
    context.progress.start(&format!("inspecting {}", one_line(&file.name)), 0);
    let profiles: Result<Vec<TableProfile>> =
        schema.tables.iter().map(|table| profile::profile(&reader, table, zone, &*context.progress)).collect();
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

/// Returns the tables that would become one table, and adds a note on each to the plan.
fn clashes(proposals: &mut [Proposal]) -> Vec<serde_json::Value> {
    let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for proposal in proposals.iter() {
        targets.entry(proposal.plan.shown_target()).or_default().push(proposal.plan.shown_source());
    }
    let mut found = Vec::new();
    for (target, sources) in targets.into_iter().filter(|(_, sources)| sources.len() > 1) {
        let message = format!("{} would all become {target}", sources.join(", "));
        for proposal in proposals.iter_mut().filter(|proposal| proposal.plan.shown_target() == target) {
            proposal.notes.insert(0, format!("CONFLICT: {message}. Rename this table, or set 'merge = true' on each"));
        }
        found.push(json!({ "kind": "clash", "table": target, "sources": sources, "message": message }));
    }
    found
}
