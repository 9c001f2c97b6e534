//! `diff`: shows the changes between two snapshots, or between a snapshot and a live database.

use std::path::Path;

use serde::Serialize;

use crate::archive::HOW_TO_GIVE_KEYS;
use crate::engine::database::Contents;
use crate::engine::postgres::wire::params;
use crate::engine::source::{Source, engine_named, parse_source};
use crate::ops::{Context, Report, SnapshotFilter, fetch};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::find::LATEST;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::{Manifest, Table, by_name, is_migration_note};

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DiffOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: String,
    /// Another snapshot, a source name from the config, an SQLite file, or a URL; default: the database that the
    /// snapshot was taken from
    pub other: Option<String>,
    /// Exit with 3 if there is a difference
    pub exit_code: bool,
    /// The filters for the snapshots to choose from
    pub filter: SnapshotFilter,
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
    /// The roles and tablespaces that the snapshot needs and the server of the database lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// All tables that exist on either side.
    pub tables: Vec<TableDiff>,
    /// True if a difference makes the command exit with 3.
    #[serde(skip)]
    pub must_be_equal: bool,
}

impl Report for DiffReport {
    fn is_ok(&self) -> bool {
        self.equal || !self.must_be_equal
    }
}

struct Side {
    /// The roles and tablespaces that the snapshot on the other side needs and the server of this side lacks.
    missing: Vec<String>,
    name: String,
    tables: Vec<Table>,
    schema: Option<RowDigest>,
    /// The id and the engine of the snapshot, if this side is one.
    snapshot: Option<(SnapshotId, String)>,
}

/// Runs the command.
pub(crate) fn run(options: &DiffOptions, context: &Context) -> Result<DiffReport> {
    let catalog = context.open_catalog()?;
    let before = catalog.find(&options.snapshot, &filter_for(options, context))?;
    let before = fetch::manifest(&catalog, &before.id, context)?;
    let after = match &options.other {
        Some(other) => other_side(other, &before, &catalog, options, context)?,
        None => {
            let source = context.configured_source_or_origin(&before)?.ok_or_else(|| {
                Error::usage(format!("{} is from another machine, {}", before.id, before.origin))
                    .hint("name the snapshot or database to compare it with")
            })?;
            live_side(&source, &before, context)?
        }
    };
    let before = snapshot_side(before)?;
    let tables = compare(&before.tables, &after.tables);
    let schema_equal = before.schema == after.schema || schemas_are_equal(&before, &after, &catalog, context)?;
    let equal = schema_equal && tables.iter().all(|table| table.status == Status::Same && !table.only_counted);
    let (before, after, missing) = (before.name, after.name, after.missing);
    Ok(DiffReport { equal, before, after, schema_equal, missing, tables, must_be_equal: options.exit_code })
}

/// Returns the filter for the snapshot. 'latest', compared with a source of the config, is that source's.
fn filter_for(options: &DiffOptions, context: &Context) -> SnapshotFilter {
    let mut filter = options.filter.clone();
    let named = || {
        let other = options.other.as_deref().filter(|_| options.snapshot == LATEST)?;
        context.named_source(other).ok()?.configured.map(|configured| configured.name)
    };
    filter.source = filter.source.or_else(named);
    filter
}

fn other_side(
    other: &str,
    before: &Manifest,
    catalog: &Catalog,
    options: &DiffOptions,
    context: &Context,
) -> Result<Side> {
    let looks_like_a_source =
        other.contains(['/', '\\']) || other.contains("://") || params::looks_like(other) || Path::new(other).exists();
    let chosen = context.named_source(other).ok().filter(|chosen| chosen.configured.is_some());
    if looks_like_a_source || chosen.is_some() {
        let source = chosen.map_or_else(|| parse_source(other), |chosen| Ok(chosen.source))?;
        return live_side(&source, before, context);
    }
    let listed = catalog
        .find(other, &options.filter)
        .map_err(|error| error.hint("name a snapshot ('lifeboat list' shows them) or a database file"))?;
    snapshot_side(fetch::manifest(catalog, &listed.id, context)?)
}

fn snapshot_side(manifest: Manifest) -> Result<Side> {
    if manifest.lacks_tables() {
        return Err(Error::usage(format!("{} is encrypted: its tables cannot be compared without a key", manifest.id))
            .hint(HOW_TO_GIVE_KEYS));
    }
    if manifest.is_raw() {
        return Err(Error::usage(format!("{} contains only raw bytes: there are no tables to compare", manifest.id)));
    }
    Ok(Side {
        missing: Vec::new(),
        name: manifest.id.to_string(),
        schema: manifest.schema_digest(),
        tables: manifest.tables,
        snapshot: Some((manifest.id, manifest.engine)),
    })
}

fn live_side(source: &Source, before: &Manifest, context: &Context) -> Result<Side> {
    let Contents { name, tables, schema } = source.contents(&context.for_engine())?;
    // Some servers have no other database to connect to: the comparison does not need it.
    let missing = source.missing_for(before).unwrap_or_else(|error| {
        tracing::warn!("cannot find out which roles the server lacks: {}", error.full_message());
        Vec::new()
    });
    Ok(Side { missing, name, tables, schema, snapshot: None })
}

/// Compares the schemas of databases whose recorded digests differ. An engine may compute the digest of a snapshot
/// again from its archive, because the digests of earlier versions covered more.
fn schemas_are_equal(before: &Side, after: &Side, catalog: &Catalog, context: &Context) -> Result<bool> {
    let recomputed = |side: &Side| -> Result<Option<RowDigest>> {
        let Some((id, engine)) = &side.snapshot else { return Ok(side.schema) };
        let digest = engine_named(engine)?.schema_digest(&|| {
            let opened = fetch::open(catalog, id, context)?;
            Ok(Box::new(opened))
        })?;
        Ok(digest.or(side.schema))
    };
    if before.snapshot.is_none() && after.snapshot.is_none() {
        return Ok(false);
    }
    match recomputed(before).and_then(|before| Ok(before == recomputed(after)?)) {
        Err(error) if error.kind != Kind::Interrupted => {
            tracing::warn!("the schemas are compared by their recorded digests only: {}", error.full_message());
            Ok(false)
        }
        compared => compared,
    }
}

/// Compares the tables of two sides by name.
pub(crate) fn compare(before: &[Table], after: &[Table]) -> Vec<TableDiff> {
    let (old_tables, new_tables) = (by_name(before), by_name(after));
    let mut names: Vec<&String> = before.iter().chain(after).map(|table| &table.name).collect();
    names.retain(|name| !is_migration_note(name));
    names.sort();
    names.dedup();
    let table_diff = |name: &String| {
        let (old, new) = (old_tables.get(name.as_str()), new_tables.get(name.as_str()));
        let columns_changed = matches!((&old, &new), (Some(old), Some(new)) if old.columns != new.columns);
        // The content of a virtual table is in its shadow tables, which are compared themselves.
        let lacks_digest = |table: &Table| table.digest.is_none() && table.kind != "virtual";
        let is_same = |old: &Table, new: &Table| {
            old.rows == new.rows && old.digest == new.digest && !old.has_other_generated_values(new)
        };
        let only_counted = matches!((&old, &new), (Some(old), Some(new)) if lacks_digest(old) || lacks_digest(new));
        let status = match (&old, &new) {
            (None, _) => Status::Added,
            (_, None) => Status::Removed,
            (Some(old), Some(new)) if is_same(old, new) && !columns_changed => Status::Same,
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
    names.into_iter().map(table_diff).collect()
}
