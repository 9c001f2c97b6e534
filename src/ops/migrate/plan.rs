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
use crate::engine::source::Source;
use crate::engine::sqlite::schema::SchemaFacts;
use crate::engine::sqlite::values::Reader;
use crate::migrate::plan::{FORMAT, Rejects, SourceFile};
use crate::migrate::profile::{self, TableProfile};
use crate::migrate::propose::{self, Names, Proposal, Surveyed, Wishes};
use crate::migrate::{Plan, run, write};
use crate::ops::Context;
use crate::ops::migrate::inputs::{Inputs, target_of};
use crate::ops::migrate::{MigrateReport, TableReport};
use crate::platform::disk::{shown, write_new_file};
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::snapshots::id::SourceName;

/// Options of [`run()`].
#[derive(Clone, Debug)]
pub(crate) struct PlanOptions {
    /// SQLite files, names of the config, or ids of snapshots
    pub inputs: Vec<String>,
    /// The target: a PostgreSQL URL, or a name of the config
    pub to: Option<String>,
    /// The target by an application's variables: TDX_DB_ for TDX_DB_HOST, _PORT, _NAME, _USER and _PASSWORD
    pub env_prefix: Option<String>,
    /// A file that may contain those variables, in addition to the environment
    pub env_file: PathBuf,
    /// The target's schema
    pub schema: String,
    /// The time zone of times without an offset, such as Asia/Shanghai
    pub zone: Option<Tz>,
    /// Propose only what the files contain: no hypertables, no further indexes
    pub no_proposals: bool,
    /// The plan's file; it must not exist yet
    pub output: PathBuf,
}

/// A file that was inspected.
struct Looked {
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
        return Err(is_there(&output));
    }
    let env_prefix = options.env_prefix.as_deref();
    let (target, params) = target_of(options.to.as_deref(), Some(&options.env_file), env_prefix, context)?;
    let server = look_at_target(&params)?;
    let files = name_files(&options.inputs, context)?;
    let inputs = Inputs::open(&files, context)?;
    let zone = options.zone.unwrap_or(Tz::UTC);
    let mut looked = Vec::new();
    for file in files {
        looked.push(look(&file, &inputs.files[&file.name], zone, context)?);
    }
    let wishes = Wishes {
        schema: options.schema.clone(),
        has_timescale: server.has_timescale,
        proposes: !options.no_proposals,
        is_utc: zone == Tz::UTC,
    };
    let mut names = Names::default();
    let mut proposals: Vec<Proposal> = Vec::new();
    for one in &looked {
        let file = Surveyed { name: &one.file.name, schema: &one.schema, profiles: &one.profiles };
        proposals.extend(propose::propose(&file, &wishes, &mut names));
    }
    let clashes = clashes(&mut proposals);
    let notes: Vec<(String, Vec<String>)> =
        looked.iter().map(|one| (one.file.name.clone(), not_carried(&one.schema))).collect();
    let plan = Plan {
        format: FORMAT,
        id: new_id()?,
        zone,
        rejects: Rejects::Table,
        target,
        files: looked.iter().map(|one| one.file.clone()).collect(),
        tables: proposals.iter().map(|proposal| proposal.plan.clone()).collect(),
    };
    let text = write::render(&plan, &proposals, &notes);
    if clashes.is_empty() {
        // The written plan must be readable, whatever the files contain.
        let read =
            Plan::parse(&text).map_err(|error| error.context("the plan that would be written cannot be followed"))?;
        if read != plan {
            return Err(Error::failed("the plan that would be written says something else than was meant"));
        }
    }
    let written = write_new_file(&output, 0o644, text.as_bytes());
    if !written.io(Kind::Failed, || format!("cannot write the plan {}", shown(&output)))? {
        return Err(is_there(&output));
    }
    let notes = all_notes(server.notes, &looked, notes, &proposals, options.zone.is_none());
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
    mut told: Vec<String>,
    looked: &[Looked],
    notes: Vec<(String, Vec<String>)>,
    proposals: &[Proposal],
    has_no_zone: bool,
) -> Vec<String> {
    let naive: usize = looked.iter().flat_map(|one| &one.profiles).map(naive_columns).sum();
    if naive > 0 && has_no_zone {
        told.push(format!(
            "{naive} columns have times without an offset, and are read as UTC: is that so? Else plan with --zone"
        ));
    }
    told.extend(
        notes.into_iter().flat_map(|(file, notes)| notes.into_iter().map(move |note| format!("{file}: {note}"))),
    );
    told.extend(
        proposals
            .iter()
            .flat_map(|proposal| proposal.notes.iter().map(|note| format!("{}: {note}", proposal.plan.shown_source()))),
    );
    told
}

/// Returns the sentence that says what the user must do next.
fn verdict(output: &Path, rejected: u64, clashes: usize) -> String {
    match clashes {
        0 if rejected > 0 => {
            format!("{} is written; up to {rejected} rows would be rejected: its comments say which", shown(output))
        }
        0 => format!("{} is written: look at it, then 'lifeboat migrate run'", shown(output)),
        clashes => {
            format!("{} is written, and cannot be run before {clashes} names are told apart in it", shown(output))
        }
    }
}

fn is_there(path: &Path) -> Error {
    Error::usage(format!("{} is there already", shown(path)))
        .hint("name another file with --output, or take that one away")
}

fn new_id() -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Error::failed("the system gives no random bytes").because(error))?;
    Ok(format!("{}-{}", Utc::now().format("%Y%m%dT%H%M%SZ"), hex::encode(random)))
}

/// The properties of the target server.
struct Server {
    has_timescale: bool,
    notes: Vec<String>,
}

fn look_at_target(params: &Params) -> Result<Server> {
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
            "TimescaleDB is there and not installed: CREATE EXTENSION timescaledb, and plan again, for hypertables"
                .to_owned(),
        );
    }
    if !row.flag("may_create")? {
        notes.push("the role may not create schemas there: GRANT CREATE ON DATABASE to it before 'run'".to_owned());
    }
    Ok(Server { has_timescale, notes })
}

/// Names each input: a file by its own name, a snapshot by the name of its source.
fn name_files(inputs: &[String], context: &Context) -> Result<Vec<SourceFile>> {
    let mut files: Vec<SourceFile> = Vec::new();
    for text in inputs {
        let (wanted, path, snapshot) = match context.named_source(text) {
            Ok(chosen) if chosen.configured.is_some() || Path::new(text).exists() => match &chosen.source {
                Source::Sqlite(path) => {
                    let name = match &chosen.configured {
                        Some(configured) => configured.name.to_string(),
                        None => path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                    };
                    let path = crate::engine::sqlite::source::locate(path)?;
                    (name, Some(path), None)
                }
                Source::Postgres(_) => {
                    return Err(Error::usage(format!("'{}' is no SQLite file", one_line(text))));
                }
            },
            _ if text.contains('/') || text.ends_with(".db") || text.contains("://") => {
                return Err(
                    Error::unreachable(format!("cannot find the database {}", one_line(text))).hint("check the path")
                );
            }
            _ => {
                let listed = context.open_catalog()?.find(text, &crate::snapshots::catalog::Narrow::default())?;
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

fn look(file: &SourceFile, path: &Path, zone: Tz, context: &Context) -> Result<Looked> {
    let reader = Reader::open(path)?;
    reader.begin()?;
    let schema = reader.schema()?;
    context.progress.start(&format!("looking at {}", one_line(&file.name)), 0);
    let profiles: Result<Vec<TableProfile>> =
        schema.tables.iter().map(|table| profile::profile(&reader, table, zone, &*context.progress)).collect();
    context.progress.finish();
    reader.end()?;
    Ok(Looked { file: file.clone(), schema, profiles: profiles? })
}

/// Lists the views and virtual tables of a file, which a plan cannot contain.
fn not_carried(schema: &SchemaFacts) -> Vec<String> {
    let views = schema.views.iter().map(|(name, _)| format!("the view {} is not carried", one_line(name)));
    let tables =
        schema.virtual_tables.iter().map(|name| format!("the virtual table {} is not carried", one_line(name)));
    views.chain(tables).collect()
}

fn naive_columns(profile: &TableProfile) -> usize {
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
            proposal
                .notes
                .insert(0, format!("TO BE DECIDED: {message}. Give it another name, or 'merge = true' to each"));
        }
        found.push(json!({ "kind": "clash", "table": target, "sources": sources, "message": message }));
    }
    found
}
