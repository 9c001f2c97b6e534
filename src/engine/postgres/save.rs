//! The save of a PostgreSQL database: its schema as SQL, its rows as COPY prints them.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use crate::engine::postgres::copy::large_objects;
use crate::engine::postgres::copy::reading::Reading;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::copy::script::Script;
use crate::engine::postgres::copy::selection::{Pattern, Selection};
use crate::engine::postgres::copy::snapshot::{Snapshot, SnapshotOptions};
use crate::engine::postgres::readme::readme;
use crate::engine::postgres::role_settings;
use crate::engine::postgres::schema::data::TableData;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::schema::restriction::Restriction;
use crate::engine::postgres::schema::{Item, Kind, require_sql};
use crate::engine::postgres::wire::params::{Params, is_this_machine};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::postgres::{layout, sql_files};
use crate::engine::saving::{Identity, SaveRequest, SavedContent, Saving};
use crate::platform::digest::RowDigest;
use crate::platform::entries::EntryWriter;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::progress::Progress;
use crate::platform::{json, text};
use crate::snapshots::manifest::{
    Column, GeneratedDigest, LargeObjectFacts, MIGRATION_NOTES, Origin, PostgresFacts, Relation, Table,
};

/// The entry in `left_out` of a snapshot without large objects.
pub(super) const LARGE_OBJECTS: &str = "large objects";

/// Returns the origin of a database. If it is reached through a socket or the loopback, its host is this machine.
pub(super) fn origin_of(params: &Params, host: &str) -> Origin {
    Origin {
        host: if is_this_machine(params.host()) { host.to_owned() } else { params.host().to_owned() },
        path: None,
        port: Some(params.port()),
        database: Some(params.database().to_owned()),
    }
}

/// Returns the options with which a database is read for a save.
pub(super) fn options_of(params: &Params, request: &SaveRequest, jobs: usize) -> SnapshotOptions {
    let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
    SnapshotOptions {
        jobs,
        lock_timeout: request.lock_timeout,
        selection: Selection {
            tables: patterns(&request.tables),
            exclude_tables: patterns(&request.exclude_tables),
            exclude_data: patterns(&request.exclude_data),
            schema_only: request.schema_only,
            without_large_objects: false,
        },
        allow_partial: request.allow_partial,
        provider: request.provider.or(params.provider),
    }
}

/// A database whose state is fixed by a transaction.
pub(super) struct DatabaseSaving {
    options: SnapshotOptions,
    /// The host by which the server is reached.
    reached_by: String,
    /// The role of the login. The session may act as another: `ALTER ROLE ... SET role`.
    login: String,
    snapshot: Snapshot,
}

impl DatabaseSaving {
    /// Begins a transaction.
    pub(super) fn begin(params: &Params, options: SnapshotOptions) -> Result<Self> {
        let snapshot = Snapshot::begin(params, &options)?;
        require_sql(&snapshot.schema.items)?;
        Ok(DatabaseSaving { options, reached_by: params.host().to_owned(), login: params.user().to_owned(), snapshot })
    }

    /// Uses a transaction that has begun. Fails if the rows of one of `tables` cannot be saved.
    pub(super) fn within(
        reading: Reading,
        tables: &[&Table],
        params: &Params,
        options: SnapshotOptions,
    ) -> Result<Self> {
        let snapshot = Snapshot::of(reading, &options)?;
        require_sql(&snapshot.schema.items)?;
        for relation in tables.iter().filter_map(|table| table.relation.as_ref()) {
            if !snapshot.tables.iter().any(|saved| (&saved.schema, &saved.name) == (&relation.schema, &relation.table))
            {
                let name = format!("table {}", one_line(&qualified(&relation.schema, &relation.table)));
                let reason = snapshot.refused.iter().find(|refused| refused.starts_with(&format!("{name}: ")));
                return Err(Error::failed(reason.cloned().unwrap_or(format!("{name}: it does not exist"))));
            }
        }
        Ok(DatabaseSaving { options, reached_by: params.host().to_owned(), login: params.user().to_owned(), snapshot })
    }

    /// Returns the session of the transaction.
    pub(super) fn into_session(self) -> Session {
        self.snapshot.reading.session
    }

    /// Writes the rows of all tables, and large objects. Returns their bytes.
    fn write_rows(&mut self, out: &mut dyn EntryWriter, script: &mut Script, progress: &dyn Progress) -> Result<u64> {
        let allow_partial = self.options.allow_partial;
        let snapshot = &mut self.snapshot;
        let relations: Vec<(String, String)> =
            snapshot.tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect();
        let sources = snapshot.rows.clone();
        let sinks: Vec<RowSource> =
            snapshot.tables.iter().map(|table| RowSource::like(&table_of(table, &RowSum::default()))).collect();
        let total: u64 = sources.iter().map(|table| table.bytes).sum();
        let mut pieces: HashMap<usize, u32> = HashMap::new();
        let accepts_any_bytes = settings::encoding(&snapshot.database.encoding) != "UTF8";
        let mut garbled: BTreeSet<usize> = BTreeSet::new();
        let mut raw_bytes = 0;
        progress.start(&format!("saving {}", one_line(&snapshot.database.name)), total);
        let read = snapshot.read_rows(&mut |piece| {
            if !piece.is_utf8 && !accepts_any_bytes && garbled.insert(piece.table) && !allow_partial {
                return Err(not_loadable(&sources[piece.table].qualified));
            }
            let number = pieces.entry(piece.table).or_default();
            *number += 1;
            let (schema, table) = &relations[piece.table];
            let path = layout::piece_path(schema, table, *number);
            progress.advance(piece.rows.len() as u64);
            raw_bytes += piece.rows.len() as u64;
            script.copy(&sinks[piece.table], &path);
            out.append(&path, &piece.rows)
        });
        progress.finish();
        read?;
        for table in garbled {
            let table = one_line(&sources[table].qualified);
            tracing::warn!("the rows of {table} were saved as they are, but a server will not accept all of them");
            snapshot.refused.push(format!("rows of {table} in a form that a server accepts: not all are valid text"));
        }
        let mut number = 0;
        let mut objects = std::mem::take(&mut snapshot.large_objects);
        large_objects::read(&mut snapshot.reading.session, &mut objects, &mut |rows| {
            number += 1;
            let path = layout::large_objects_path(number);
            raw_bytes += rows.len() as u64;
            script.large_objects(&path);
            out.append(&path, &rows)
        })?;
        snapshot.large_objects = objects;
        Ok(raw_bytes)
    }

    /// Returns the content as it is recorded in the manifest.
    fn content(&mut self, raw_bytes: u64) -> SavedContent {
        let snapshot = &mut self.snapshot;
        let about = snapshot.reading.session.about().clone();
        let selection = &self.options.selection;
        let mut tables: Vec<Table> =
            snapshot.tables.iter().zip(&snapshot.rows).map(|(table, rows)| table_of(table, &rows.sum)).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let mut left_out = snapshot.refused.clone();
        left_out.extend(snapshot.left_out.iter().map(|table| format!("rows of {}", table.qualified)));
        if !selection.takes_large_objects() {
            left_out.push(LARGE_OBJECTS.to_owned());
        }
        SavedContent {
            rows: tables.iter().filter_map(|table| table.rows).sum(),
            tables,
            raw_bytes,
            server_version: about.version.clone(),
            is_damaged: false,
            is_partial: !left_out.is_empty(),
            // A snapshot of selected tables says nothing about the whole database.
            has_all_tables: selection.is_all(),
            sqlite: None,
            postgres: Some(PostgresFacts {
                version_num: about.version_num,
                reached_by: self.reached_by.clone(),
                role: self.login.clone(),
                schema_digest: schema_digest(&snapshot.schema.items),
                large_objects: LargeObjectFacts {
                    count: snapshot.large_objects.oids.len() as u64,
                    rows: snapshot.large_objects.sum.rows,
                    digest: snapshot.large_objects.sum.digest,
                },
                extensions: std::mem::take(&mut snapshot.schema.extensions),
                roles: std::mem::take(&mut snapshot.schema.roles).into_iter().collect(),
                role_definitions: std::mem::take(&mut snapshot.schema.role_definitions),
                tablespaces: std::mem::take(&mut snapshot.schema.tablespaces).into_iter().collect(),
                sequences: std::mem::take(&mut snapshot.sequences),
                database: snapshot.database.clone(),
                left_out,
                provider: snapshot.provider.clone(),
                notes: std::mem::take(&mut snapshot.schema.notes),
            }),
        }
    }
}

impl Saving for DatabaseSaving {
    fn started(&self) -> DateTime<Utc> {
        self.snapshot.reading.started
    }

    fn max_bytes(&self) -> u64 {
        // The output of COPY is compressed, so it is almost never larger than the tables, unless the tables were
        // compressed by columns.
        let is_columnar = self.snapshot.schema.extensions.iter().any(|extension| extension.name == "timescaledb");
        let bytes = self.snapshot.database.bytes;
        bytes.saturating_mul(if is_columnar { 16 } else { 1 }).saturating_add(bytes / 4)
    }

    fn readme(&self, identity: Identity<'_>) -> String {
        readme(identity, self.started())
    }

    fn write(
        &mut self,
        identity: Identity<'_>,
        out: &mut dyn EntryWriter,
        progress: &dyn Progress,
    ) -> Result<SavedContent> {
        for refused in &self.snapshot.refused {
            tracing::warn!("not saved: {}", one_line(refused));
        }
        let restriction = Restriction::new()?;
        let items = &self.snapshot.schema.items;
        out.append(layout::OBJECTS, &objects_json(items)?)?;
        let roles = &self.snapshot.schema.role_definitions;
        if !roles.is_empty() {
            out.append(layout::ROLE_SETTINGS, &role_settings::to_json(roles))?;
            out.append(layout::ROLES, sql_files::roles(roles, &restriction)?.as_bytes())?;
        }
        out.append(layout::PRE_DATA, sql_files::pre_data(items, &restriction)?.as_bytes())?;
        // To restore one table, only the blocks up to here and the table's own blocks are read.
        out.cut()?;
        let encoding = self.snapshot.database.encoding.clone();
        let mut script = Script::new(&identity.id.to_string(), &encoding, layout::PRE_DATA);
        let raw_bytes = self.write_rows(out, &mut script, progress)?;
        out.append(layout::SEQUENCES, sql_files::sequences(&self.snapshot.sequences, &restriction)?.as_bytes())?;
        let items = &self.snapshot.schema.items;
        out.append(layout::POST_DATA, sql_files::post_data(items, &restriction)?.as_bytes())?;
        let script = script.finish(&[layout::SEQUENCES, layout::POST_DATA]);
        out.append(layout::RESTORE, script.as_bytes())?;
        Ok(self.content(raw_bytes))
    }
}

/// Returns the error for rows that the server would not read back. The output of COPY is not always valid as its input:
/// before version 15, COPY prints a `"char"` above 127 as that one byte.
fn not_loadable(table: &str) -> Error {
    Error::failed(format!(
        "the rows of {} have bytes that are not valid in the database's encoding: no server would accept them",
        one_line(table)
    ))
    .hint("repair them, leave them out with --exclude-data, or save them as they are with --allow-partial")
}

/// Returns the steps that create the schema, as they are stored in the archive.
fn objects_json(items: &[Item]) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(items).expect("an item has only string keys");
    json.push(b'\n');
    if json.len() as u64 > layout::MAX_OBJECTS_BYTES || json::has_more_commas(&json, layout::MAX_OBJECTS_COMMAS) {
        let size = text::bytes(json.len() as u64);
        return Err(Error::failed(format!("the schema is too large: its {} objects take {size}", items.len()))
            .hint("save the database in several parts, with --table"));
    }
    Ok(json)
}

/// Returns the digest of a schema: equal for two schemas that are created by the same statements. The notes of a migration
/// are left out, as they are when rows are compared.
pub(super) fn schema_digest(items: &[Item]) -> RowDigest {
    let mut digest = RowDigest::default();
    // These items change as rows do: the list of compressed chunks, and the state of a continuous aggregate.
    let is_state = |item: &&Item| matches!(item.kind, Kind::AggregateRows | Kind::CompressedChunks);
    let is_note = |item: &&Item| item.schema.as_deref().unwrap_or(&item.name) == MIGRATION_NOTES;
    for item in items.iter().filter(|item| !is_state(item) && !item.provided && !is_note(item)) {
        let statements = [&item.create, &item.set_owner, &item.comments, &item.grants];
        let text = serde_json::to_vec(&(item.kind, &item.schema, &item.name, statements));
        digest.add(&text.expect("an item has only string keys"));
    }
    digest
}

/// Returns a saved table in the form of the manifest.
pub(super) fn table_of(data: &TableData, sum: &RowSum) -> Table {
    let columns = data.columns.iter().map(|column| Column {
        name: column.name.clone(),
        declared: column.type_name.clone(),
        generated: column.generated,
        not_null: column.not_null,
    });
    let stored = data.columns.iter().filter(|column| column.stored).map(|column| column.name.clone());
    Table {
        name: data.qualified.clone(),
        relation: Some(Relation {
            schema: data.schema.clone(),
            table: data.name.clone(),
            condition: data.extension_condition.clone().flatten(),
            time: data.chunked.as_ref().and_then(|chunked| chunked.time.clone()),
        }),
        rows: Some(sum.rows),
        bytes: Some(sum.bytes),
        digest: Some(sum.digest),
        with_generated: sum.with_generated.map(|digest| GeneratedDigest { columns: stored.collect(), digest }),
        reason: None,
        kind: data.chunked.as_ref().map_or("table", |chunked| chunked.kind).to_owned(),
        content: None,
        columns: columns.collect(),
    }
}
