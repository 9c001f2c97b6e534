//! A snapshot of a PostgreSQL database: its schema as SQL, its rows as COPY prints them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::archive::{Compression, FORMAT, README_PATH};
use crate::engine::postgres::Params;
use crate::engine::postgres::copy::large_objects;
use crate::engine::postgres::copy::reading::Reading;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::copy::script::Script;
use crate::engine::postgres::copy::selection::{Pattern, Selection};
use crate::engine::postgres::copy::snapshot::{Snapshot, SnapshotOptions};
use crate::engine::postgres::schema::data::TableData;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::schema::{Item, Kind, Section, render, sequences};
use crate::engine::postgres::wire::params::is_this_machine;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::ops::destination::Destination;
use crate::ops::snapshot::draft::{Draft, Saved};
use crate::ops::snapshot::{Measure, SaveOptions, require_something, tell_losses};
use crate::ops::{Context, layout, readme};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{
    Column, LargeObjectFacts, Manifest, Origin, PostgresFacts, Relation, SnapshotKind, Table,
};

pub(super) fn save(
    params: &Params,
    options: &SaveOptions,
    measure: Option<&Measure>,
    mut destination: Destination<'_>,
    context: &Context,
) -> Result<Saved> {
    let origin = origin_of(params, &context.host);
    let name = match &options.name {
        Some(name) => name.clone(),
        None => SourceName::derive(params.database()).ok_or_else(|| {
            Error::usage(format!("no name for the source can be made of '{}'", one_line(params.database())))
                .hint("give it one with --name")
        })?,
    };
    let (previous, failures) = destination.previous(&name, &origin)?;
    let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
    let plan = Plan {
        params,
        name,
        origin,
        kind: SnapshotKind::Full,
        tags: options.tag.clone(),
        compression: options.compression.unwrap_or_default(),
        options: SnapshotOptions {
            jobs: context.jobs,
            lock_timeout: Duration::from_secs(options.lock_timeout),
            selection: Selection {
                tables: patterns(&options.table),
                exclude_tables: patterns(&options.exclude_table),
                exclude_data: patterns(&options.exclude_data),
                schema_only: options.schema_only,
                without_large_objects: false,
            },
            allow_partial: options.allow_partial,
        },
        allow_empty: options.allow_empty,
        previous,
        measure,
    };
    let mut saved = plan.run(&destination, context)?;
    saved.failures.extend(failures);
    Ok(saved)
}

/// The entry in `left_out` of a snapshot without large objects.
pub(crate) const LARGE_OBJECTS: &str = "large objects";

/// Returns the origin of a database. If it is reached through a socket or the loopback, its host is this machine.
pub(crate) fn origin_of(params: &Params, host: &str) -> Origin {
    Origin {
        host: if is_this_machine(params.host()) { host.to_owned() } else { params.host().to_owned() },
        path: None,
        port: Some(params.port()),
        database: Some(params.database().to_owned()),
    }
}

/// A snapshot to be taken.
pub(crate) struct Plan<'a> {
    pub(crate) params: &'a Params,
    pub(crate) name: SourceName,
    pub(crate) origin: Origin,
    pub(crate) kind: SnapshotKind,
    pub(crate) tags: Vec<String>,
    pub(crate) compression: Compression,
    pub(crate) options: SnapshotOptions,
    pub(crate) allow_empty: bool,
    /// The snapshot that this one follows, if any.
    pub(crate) previous: Option<Manifest>,
    /// The baseline that it is compared with, if any.
    pub(crate) measure: Option<&'a Measure>,
}

impl Plan<'_> {
    /// Takes the snapshot and publishes it; on failure nothing new is in any store.
    pub(crate) fn run(&self, destination: &Destination<'_>, context: &Context) -> Result<Saved> {
        let clock = Instant::now();
        let snapshot = Snapshot::begin(self.params, &self.options)?;
        Ok(self.save(snapshot, clock, destination, context)?.0)
    }

    /// Takes the snapshot in a transaction that has begun, and returns its session. Fails if the rows of one of
    /// `tables` cannot be saved.
    pub(crate) fn run_within(
        &self,
        reading: Reading,
        tables: &[&Table],
        destination: &Destination<'_>,
        context: &Context,
    ) -> Result<(Saved, Session)> {
        let clock = Instant::now();
        let snapshot = Snapshot::of(reading, &self.options)?;
        for relation in tables.iter().filter_map(|table| table.relation.as_ref()) {
            if !snapshot.tables.iter().any(|saved| (&saved.schema, &saved.name) == (&relation.schema, &relation.table))
            {
                let name = format!("table {}", one_line(&qualified(&relation.schema, &relation.table)));
                let why = snapshot.refused.iter().find(|refused| refused.starts_with(&format!("{name}: ")));
                return Err(Error::failed(why.cloned().unwrap_or(format!("{name}: it is not there"))));
            }
        }
        self.save(snapshot, clock, destination, context)
    }

    fn save(
        &self,
        mut snapshot: Snapshot,
        clock: Instant,
        destination: &Destination<'_>,
        context: &Context,
    ) -> Result<(Saved, Session)> {
        for refused in &snapshot.refused {
            tracing::warn!("not saved: {}", one_line(refused));
        }
        let started = snapshot.reading.started;
        // The output of COPY is compressed, so it is almost never larger than the tables, unless the tables were
        // compressed by columns.
        let is_columnar = snapshot.schema.extensions.iter().any(|extension| extension.name == "timescaledb");
        let most_bytes = snapshot.database.bytes.saturating_mul(if is_columnar { 16 } else { 1 });
        let most_bytes = most_bytes.saturating_add(snapshot.database.bytes / 4);
        let mut draft = Draft::start(destination, &self.name, started, self.compression, most_bytes, context)?;
        let readme = readme::postgres(&draft.id, &self.origin, started, &draft.name());
        draft.archive.append(README_PATH, readme.as_bytes())?;
        draft.archive.append(layout::OBJECTS, &objects_json(&snapshot.schema.items))?;
        draft.archive.append(layout::PRE_DATA, render(&snapshot.schema.items, Section::Pre, true).as_bytes())?;
        // To restore one table, only the blocks up to here and the table's own blocks are read.
        draft.archive.cut()?;
        let mut script = Script::new(&draft.id.to_string(), &snapshot.database.encoding, layout::PRE_DATA);
        let raw_bytes = self.save_rows(&mut snapshot, &mut draft, &mut script, context)?;
        draft.archive.append(layout::SEQUENCES, sequences::render(&snapshot.sequences).as_bytes())?;
        let items = &snapshot.schema.items;
        let post_data = render(items, Section::Post, true) + &render(items, Section::Last, true);
        draft.archive.append(layout::POST_DATA, post_data.as_bytes())?;
        let script = script.finish(&[layout::SEQUENCES, layout::POST_DATA]);
        draft.archive.append(layout::RESTORE, script.as_bytes())?;
        let (mut manifest, session) = self.manifest(&draft, snapshot, raw_bytes, clock);
        // A snapshot of selected tables says nothing about the whole database.
        let is_all = self.options.selection.is_all();
        if !self.allow_empty && is_all {
            require_something(&manifest.tables, self.previous.as_ref())?;
        }
        if let Some(previous) = self.previous.as_ref().filter(|_| is_all) {
            tell_losses(&manifest.tables, previous);
        }
        let measure = self.measure.filter(|_| is_all);
        manifest.tags.extend(measure.and_then(|measure| measure.tag(&manifest.tables)));
        Ok((draft.publish(manifest)?, session))
    }

    /// Saves the rows of all tables, and large objects. Returns their bytes.
    fn save_rows(
        &self,
        snapshot: &mut Snapshot,
        draft: &mut Draft<'_>,
        script: &mut Script,
        context: &Context,
    ) -> Result<u64> {
        let relations: Vec<(String, String)> =
            snapshot.tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect();
        let sources = snapshot.rows.clone();
        let sinks: Vec<RowSource> =
            snapshot.tables.iter().map(|table| RowSource::like(&table_of(table, &RowSum::default()))).collect();
        let total: u64 = sources.iter().map(|table| table.bytes).sum();
        let mut pieces: HashMap<usize, u32> = HashMap::new();
        let takes_any_bytes = settings::encoding(&snapshot.database.encoding) != "UTF8";
        let mut garbled: BTreeSet<usize> = BTreeSet::new();
        let mut raw_bytes = 0;
        context.progress.start(&format!("saving {}", one_line(&snapshot.database.name)), total);
        let read = snapshot.read_rows(&mut |piece| {
            if !piece.is_utf8 && !takes_any_bytes && garbled.insert(piece.table) && !self.options.allow_partial {
                return Err(not_to_be_loaded(&sources[piece.table].qualified));
            }
            let number = pieces.entry(piece.table).or_default();
            *number += 1;
            let (schema, table) = &relations[piece.table];
            let path = layout::piece_path(schema, table, *number);
            context.progress.advance(piece.rows.len() as u64);
            raw_bytes += piece.rows.len() as u64;
            script.copy(&sinks[piece.table], &path);
            draft.archive.append(&path, &piece.rows)
        });
        context.progress.finish();
        read?;
        for table in garbled {
            let table = one_line(&sources[table].qualified);
            tracing::warn!("saved as they are, the server would not take them back: the rows of {table}");
            snapshot.refused.push(format!("rows of {table} in a form that a server takes back: they are not all text"));
        }
        let mut number = 0;
        let mut objects = std::mem::take(&mut snapshot.large_objects);
        large_objects::read(&mut snapshot.reading.session, &mut objects, &mut |rows| {
            number += 1;
            let path = layout::large_objects_path(number);
            raw_bytes += rows.len() as u64;
            script.large_objects(&path);
            draft.archive.append(&path, &rows)
        })?;
        snapshot.large_objects = objects;
        Ok(raw_bytes)
    }

    fn manifest(&self, draft: &Draft<'_>, snapshot: Snapshot, raw_bytes: u64, clock: Instant) -> (Manifest, Session) {
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
        let is_whole = left_out.is_empty();
        let manifest = Manifest {
            format: FORMAT,
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
            id: draft.id.clone(),
            source: self.name.clone(),
            origin: self.origin.clone(),
            kind: if is_whole || self.kind != SnapshotKind::Full { self.kind } else { SnapshotKind::Partial },
            engine: "postgres".to_owned(),
            created_at: snapshot.reading.started,
            tags: self.tags.clone(),
            archive: draft.name(),
            archive_bytes: None,
            raw_bytes,
            sha256: None,
            codec: self.compression.codec().name().to_owned(),
            encrypted: draft.is_sealed(),
            server_version: about.version.clone(),
            rows: tables.iter().filter_map(|table| table.rows).sum(),
            tables,
            seconds: clock.elapsed().as_secs_f64(),
            sqlite: None,
            postgres: Some(PostgresFacts {
                version_num: about.version_num,
                reached_by: self.params.host().to_owned(),
                role: about.user,
                schema_digest: schema_digest(&snapshot.schema.items),
                large_objects: LargeObjectFacts {
                    count: snapshot.large_objects.oids.len() as u64,
                    rows: snapshot.large_objects.sum.rows,
                    digest: snapshot.large_objects.sum.digest,
                },
                extensions: snapshot.schema.extensions,
                roles: snapshot.schema.roles.into_iter().collect(),
                sequences: snapshot.sequences,
                database: snapshot.database,
                left_out,
                notes: snapshot.schema.notes,
            }),
        };
        (manifest, snapshot.reading.session)
    }
}

/// Returns the error for rows that the server would not read back. The output of COPY is not always valid as its input:
/// before version 15, COPY prints a `"char"` above 127 as that one byte.
fn not_to_be_loaded(table: &str) -> Error {
    Error::failed(format!(
        "the rows of {} hold bytes that are no text of the database's encoding: the server would not take them back",
        one_line(table)
    ))
    .hint("repair them, leave them out with --exclude-data, or save them as they are with --allow-partial")
}

/// Returns the steps that create the schema, as they are stored in the archive.
fn objects_json(items: &[Item]) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(items).expect("an item has only string keys");
    json.push(b'\n');
    json
}

/// Returns the digest of a schema: equal for two schemas that are created by the same statements.
pub(crate) fn schema_digest(items: &[Item]) -> RowDigest {
    let mut digest = RowDigest::default();
    // These items change as rows do: the list of compressed chunks, and the state of a continuous aggregate.
    for item in items.iter().filter(|item| !matches!(item.kind, Kind::AggregateRows | Kind::CompressedChunks)) {
        let statements = [&item.create, &item.set_owner, &item.comments, &item.grants];
        let text = serde_json::to_vec(&(item.kind, &item.schema, &item.name, statements));
        digest.add(&text.expect("an item has only string keys"));
    }
    digest
}

/// Returns a saved table in the form of the manifest.
pub(crate) fn table_of(data: &TableData, sum: &RowSum) -> Table {
    let columns = data.columns.iter().map(|column| Column {
        name: column.name.clone(),
        declared: column.type_name.clone(),
        generated: column.generated,
        not_null: column.not_null,
    });
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
        reason: None,
        kind: data.chunked.as_ref().map_or("table", |chunked| chunked.kind).to_owned(),
        columns: columns.collect(),
    }
}
