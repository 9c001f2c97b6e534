//! `diff`: shows the changes between two snapshots, or between a snapshot and a live database.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::archive::HOW_TO_GIVE_KEYS;
use crate::engine::postgres::copy::selection::Selection;
use crate::engine::postgres::copy::snapshot::{Snapshot, SnapshotOptions};
use crate::engine::postgres::wire::params::{self, Params};
use crate::engine::source::{Source, parse_source};
use crate::engine::sqlite::source;
use crate::engine::sqlite::survey::{self, OnDamage};
use crate::ops::restore::origin_params;
use crate::ops::snapshot::{schema_digest, table_of};
use crate::ops::{Context, Narrow, Report, fetch};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::{Manifest, Table};

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DiffOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: String,
    /// Another snapshot or a database file; by default the database that the snapshot came from
    pub other: Option<String>,
    /// Exit with 3 if there is a difference
    pub exit_code: bool,
    /// Filters for the snapshots to choose from
    pub narrow: Narrow,
}

/// The kind of change to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Rows and columns are equal.
    Same,
    /// Rows or columns differ.
    Changed,
    /// The table exists only afterwards.
    Added,
    /// The table existed only before.
    Removed,
}

/// One table on both sides.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TableDiff {
    /// Its name.
    pub name: String,
    /// The kind of change.
    pub status: Status,
    /// The number of rows before.
    pub rows_before: Option<u64>,
    /// The number of rows afterwards.
    pub rows_after: Option<u64>,
    /// True if the columns differ.
    pub columns_changed: bool,
    /// True if the rows could only be counted, not compared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_counted: bool,
}

/// The changes from before to after.
#[derive(Debug, Serialize)]
pub(crate) struct DiffReport {
    /// True if tables and schema are equal, and all rows could be compared.
    pub equal: bool,
    /// The name of the snapshot that is compared.
    pub before: String,
    /// The name of the snapshot or database that it is compared with.
    pub after: String,
    /// True if the definitions of tables, indexes, views and triggers are equal.
    pub schema_equal: bool,
    /// All tables that exist on either side.
    pub tables: Vec<TableDiff>,
    /// True if a difference makes the command exit with 3.
    #[serde(skip)]
    pub must_be_equal: bool,
}

impl Report for DiffReport {
    fn exit_code(&self) -> u8 {
        if self.must_be_equal && !self.equal { Kind::Problem.exit_code() } else { 0 }
    }
}

struct Side {
    name: String,
    tables: Vec<Table>,
    schema: Option<RowDigest>,
    /// The id of the snapshot, if this side is a PostgreSQL snapshot.
    postgres_snapshot: Option<SnapshotId>,
}

/// Runs the command.
pub(crate) fn run(options: &DiffOptions, context: &Context) -> Result<DiffReport> {
    let catalog = context.open_catalog()?;
    let before = catalog.find(&options.snapshot, &options.narrow)?;
    let before = fetch::manifest(&catalog, &before.id, context)?;
    let after = match &options.other {
        Some(other) => other_side(other, &catalog, options, context)?,
        None if before.engine == "postgres" => live_postgres(&origin_params(&before, context)?, context)?,
        None => {
            let path = context.home_path(&before)?.ok_or_else(|| {
                Error::usage(format!("{} came from another machine, {}", before.id, before.origin))
                    .hint("name what to compare it with")
            })?;
            live(&path)?
        }
    };
    let before = of_manifest(before)?;
    let tables = compare(&before.tables, &after.tables);
    let schema_equal = before.schema == after.schema || schemas_are_equal(&before, &after, &catalog, context)?;
    let equal = schema_equal && tables.iter().all(|table| table.status == Status::Same && !table.only_counted);
    let (before, after) = (before.name, after.name);
    Ok(DiffReport { equal, before, after, schema_equal, tables, must_be_equal: options.exit_code })
}

fn other_side(other: &str, catalog: &Catalog, options: &DiffOptions, context: &Context) -> Result<Side> {
    let looks_like_a_source =
        other.contains(['/', '\\']) || other.contains("://") || params::looks_like(other) || Path::new(other).exists();
    let chosen = context.named_source(other).ok().filter(|chosen| chosen.configured.is_some());
    if looks_like_a_source || chosen.is_some() {
        return match chosen.map_or_else(|| parse_source(other), |chosen| Ok(chosen.source))? {
            Source::Sqlite(path) => live(&path),
            Source::Postgres(params) => live_postgres(&params, context),
        };
    }
    let listed = catalog
        .find(other, &options.narrow)
        .map_err(|error| error.hint("name a snapshot ('lifeboat list' shows them) or a database file"))?;
    of_manifest(fetch::manifest(catalog, &listed.id, context)?)
}

fn of_manifest(manifest: Manifest) -> Result<Side> {
    if manifest.encrypted && manifest.sqlite.is_none() && manifest.postgres.is_none() {
        return Err(Error::usage(format!("{} is encrypted: its tables cannot be compared without a key", manifest.id))
            .hint(HOW_TO_GIVE_KEYS));
    }
    if let Some(facts) = manifest.postgres {
        let (name, schema) = (manifest.id.to_string(), Some(facts.schema_digest));
        return Ok(Side { name, tables: manifest.tables, schema, postgres_snapshot: Some(manifest.id) });
    }
    let facts = manifest.sqlite.filter(|facts| facts.health.is_some());
    let facts =
        facts.ok_or_else(|| Error::usage(format!("{} holds raw bytes, and has no tables to compare", manifest.id)))?;
    let (name, schema) = (manifest.id.to_string(), facts.schema_digest);
    Ok(Side { name, tables: manifest.tables, schema, postgres_snapshot: None })
}

fn live(path: &Path) -> Result<Side> {
    let path = source::locate(path)?;
    let survey = survey::survey_live(&path, OnDamage::Fail)?;
    let (name, schema) = (path.display().to_string(), survey.schema_digest);
    Ok(Side { name, tables: survey.tables, schema, postgres_snapshot: None })
}

fn live_postgres(params: &Params, context: &Context) -> Result<Side> {
    let reading = SnapshotOptions {
        jobs: context.jobs,
        lock_timeout: Duration::from_secs(30),
        selection: Selection::default(),
        allow_partial: false,
    };
    let mut snapshot = Snapshot::begin(params, &reading)?;
    snapshot.read_rows(&mut |_| Ok(()))?;
    let tables = snapshot.tables.iter().zip(&snapshot.rows).map(|(table, rows)| table_of(table, &rows.sum)).collect();
    let schema = Some(schema_digest(&snapshot.schema.items));
    Ok(Side { name: params.shown(), tables, schema, postgres_snapshot: None })
}

/// Compares the schemas of PostgreSQL databases whose recorded digests differ. The digests of earlier versions included
/// options that the server sets for its own use, so the digests of snapshots are computed again from their archives.
fn schemas_are_equal(before: &Side, after: &Side, catalog: &Catalog, context: &Context) -> Result<bool> {
    let anew = |side: &Side| -> Result<Option<RowDigest>> {
        match &side.postgres_snapshot {
            Some(id) => Ok(Some(schema_digest(&fetch::open(catalog, id, context)?.schema_items()?))),
            None => Ok(side.schema),
        }
    };
    if before.postgres_snapshot.is_none() && after.postgres_snapshot.is_none() {
        return Ok(false);
    }
    match anew(before).and_then(|before| Ok(before == anew(after)?)) {
        Err(error) if error.kind != Kind::Interrupted => {
            tracing::warn!("the schemas are compared by their recorded digests only: {}", error.whole());
            Ok(false)
        }
        compared => compared,
    }
}

pub(crate) fn compare(before: &[Table], after: &[Table]) -> Vec<TableDiff> {
    let find = |tables: &[Table], name: &str| tables.iter().find(|table| table.name == name).cloned();
    let mut names: Vec<&String> = before.iter().chain(after).map(|table| &table.name).collect();
    names.sort();
    names.dedup();
    let one = |name: &String| {
        let (old, new) = (find(before, name), find(after, name));
        let columns_changed = matches!((&old, &new), (Some(old), Some(new)) if old.columns != new.columns);
        // The content of a virtual table is in its shadow tables, which are compared themselves.
        let hidden = |table: &Table| table.digest.is_none() && table.kind != "virtual";
        let only_counted = matches!((&old, &new), (Some(old), Some(new)) if hidden(old) || hidden(new));
        let status = match (&old, &new) {
            (None, _) => Status::Added,
            (_, None) => Status::Removed,
            (Some(old), Some(new)) if old.rows == new.rows && old.digest == new.digest && !columns_changed => {
                Status::Same
            }
            _ => Status::Changed,
        };
        TableDiff {
            name: name.clone(),
            status,
            rows_before: old.and_then(|table| table.rows),
            rows_after: new.and_then(|table| table.rows),
            columns_changed,
            only_counted,
        }
    };
    names.into_iter().map(one).collect()
}
