//! The statements that create hypertables and continuous aggregates. They call public functions of the extension, which
//! every version since 2.9 has.

use serde_json::Value;

use super::addresses::{hypertable_at, settings_at};
use super::jobs;
use super::{Aggregate, Dimension, EXTENSION, Hypertable, Timescale, aggregate_rows_table, json};
use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::options;
use crate::engine::postgres::schema::quote::{dollars, ident, literal, percent, qualified};
use crate::engine::postgres::schema::reader::Reader;
use crate::platform::error::{Result, one_line};

/// The address of the compression of a table's chunks.
fn compressed_at(table: u32) -> Address {
    Address { catalog: 0, oid: table, column: 13 }
}

/// The address of the table that an aggregate's rows are loaded into.
fn aggregate_rows_address(view: u32) -> Address {
    Address { catalog: 0, oid: view, column: 14 }
}

/// The address of the move of an aggregate's rows to their hypertable.
fn rows_at(view: u32) -> Address {
    Address { catalog: 0, oid: view, column: 15 }
}

/// Excludes the internal objects of the extension from the objects that are read: see [`Reader::members`].
pub(in crate::engine::postgres) fn exclude_internal(reader: &mut Reader<'_>, timescale: &Timescale) -> Result<()> {
    let oids: Vec<String> = timescale.internal.iter().map(u32::to_string).collect();
    let oids = format!("'{{{}}}'::pg_catalog.oid[]", oids.join(","));
    let Catalogs { class, constraint, trigger, policy, statistics, proc, publication } = CATALOGS;
    let rows = reader.rows(&format!(
        "WITH own AS MATERIALIZED (
             SELECT oid FROM unnest({oids}) AS oid
              UNION SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = ANY ({oids}))
         SELECT {class} AS catalog, oid FROM own
          UNION ALL SELECT {constraint}, k.oid FROM pg_catalog.pg_constraint k
                     WHERE k.conrelid IN (SELECT oid FROM own) OR k.confrelid IN (SELECT oid FROM own)
          UNION ALL SELECT {publication}, p.oid FROM pg_catalog.pg_publication_rel p WHERE p.prrelid IN (SELECT oid FROM own)
          UNION ALL SELECT {policy}, p.oid FROM pg_catalog.pg_policy p WHERE p.polrelid IN (SELECT oid FROM own)
          UNION ALL SELECT {statistics}, s.oid FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid IN (SELECT oid FROM own)
          -- This includes the triggers on hypertables that call a function of the extension.
          UNION ALL SELECT {trigger}, t.oid FROM pg_catalog.pg_trigger t
                     WHERE t.tgrelid IN (SELECT oid FROM own)
                        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                                    WHERE d.classid = {proc} AND d.objid = t.tgfoid AND d.deptype = 'e'
                                      AND d.refobjid = {})",
        timescale.extension
    ))?;
    for row in &rows {
        reader.members.insert(Address::new(row.number("catalog")?, row.number("oid")?));
    }
    // Objects that depend on the internal relations of an aggregate depend on the aggregate.
    for (view, aggregate) in &timescale.aggregates {
        let view = Address::new(catalogs::CLASS, *view);
        reader.aliases.insert(Address::new(catalogs::CLASS, aggregate.rows), aggregate_rows_address(view.oid));
        let Some(number) = aggregate.store.name.strip_prefix("_materialized_hypertable_") else { continue };
        let views = reader.rows(&format!(
            "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname ~ '^_timescaledb_' AND c.relname = ANY (ARRAY[{}, {}])",
            literal(&format!("_direct_view_{number}")),
            literal(&format!("_partial_view_{number}")),
        ))?;
        for row in &views {
            reader.aliases.insert(Address::new(catalogs::CLASS, row.number("oid")?), view);
        }
    }
    Ok(())
}

/// The oids of catalogs, for a query.
struct Catalogs {
    class: u32,
    constraint: u32,
    trigger: u32,
    policy: u32,
    statistics: u32,
    proc: u32,
    publication: u32,
}

const CATALOGS: Catalogs = Catalogs {
    class: catalogs::CLASS,
    constraint: catalogs::CONSTRAINT,
    trigger: catalogs::TRIGGER,
    policy: catalogs::POLICY,
    statistics: catalogs::STATISTIC_EXT,
    proc: catalogs::PROC,
    publication: catalogs::PUBLICATION_REL,
};

/// Adds the objects that create hypertables and fill aggregates, and the jobs. The tables, and the aggregates
/// themselves, are read with the other tables and views.
pub(in crate::engine::postgres) fn read(reader: &mut Reader<'_>, timescale: &Timescale) -> Result<()> {
    reader.refused.extend(timescale.unsupported.iter().cloned());
    for (oid, table) in &timescale.hypertables {
        hypertable(reader, timescale, *oid, table)?;
        let settings = settings(reader, timescale, *oid, table, "TABLE", &table.qualified())?;
        compressed(reader, timescale, *oid, Address::new(catalogs::CLASS, *oid), table, settings);
    }
    for (view, aggregate) in &timescale.aggregates {
        rows(reader, timescale, *view, aggregate)?;
        indexes(reader, *view, aggregate)?;
        let (store, name) = (&aggregate.store, aggregate.qualified());
        let settings = settings(reader, timescale, *view, store, "MATERIALIZED VIEW", &name)?;
        compressed(reader, timescale, *view, Address::new(catalogs::CLASS, *view), store, settings);
    }
    jobs::read(reader, timescale)
}

/// Adds the object that turns a table into a hypertable, before it has rows.
fn hypertable(reader: &mut Reader<'_>, timescale: &Timescale, oid: u32, table: &Hypertable) -> Result<()> {
    let name = table.qualified();
    let address = Address::new(catalogs::CLASS, oid);
    let mut object = Object::new(hypertable_at(oid), Kind::Hypertable, Some(&table.schema), &table.name);
    object.table = Some(address);
    object.needs = vec![address];
    let (Some(time), rest) = (table.dimensions.first(), table.dimensions.get(1..).unwrap_or_default()) else {
        reader.refused.push(format!("table {}: TimescaleDB does not list its dimensions", one_line(&name)));
        return Ok(());
    };
    let schema = ident(&timescale.schema);
    object.create.push(create_hypertable(&schema, &name, time));
    object.create.extend(rest.iter().map(|dimension| add_dimension(&schema, &name, dimension)));
    for dimension in &table.dimensions {
        if let Some((schema, function)) = &dimension.function {
            need_function(reader, &mut object, Some(schema), function, None)?;
        }
        if let Some(function) = &dimension.integer_now {
            let found = need_function(reader, &mut object, None, function, Some(&dimension.type_name))?;
            match found {
                Some(found) => object.create.push(format!(
                    "SELECT {schema}.set_integer_now_func({}, {}::pg_catalog.regproc)",
                    class(&name),
                    literal(&found)
                )),
                None => reader.refused.push(format!(
                    "table {}: cannot determine which function {} returns its current time",
                    one_line(&name),
                    one_line(function)
                )),
            }
        }
    }
    if !table.tablespaces.is_empty() {
        reader.notes.push(format!(
            "hypertable {name} has the tablespaces {}: it is restored to the default tablespace",
            table.tablespaces.join(", ")
        ));
    }
    chunk_skipping(reader, &mut object, &schema, table)?;
    reader.add(object);
    Ok(())
}

/// Returns `'app.records'::regclass`.
fn class(qualified: &str) -> String {
    format!("{}::pg_catalog.regclass", literal(qualified))
}

/// Returns the statement that creates a hypertable. It uses the newer of two forms if the server has it, because the
/// older one may be removed.
fn create_hypertable(schema: &str, table: &str, time: &Dimension) -> String {
    let function = time.function.as_ref().map(|(schema, name)| literal(&qualified(schema, name)));
    let older = function.as_ref().map(|function| format!(", time_partitioning_func => {function}::pg_catalog.regproc"));
    let newer = function.map(|function| format!(", partition_func => {function}::pg_catalog.regproc"));
    let (column, interval) = (literal(&time.column), typed_interval(time));
    either(
        &format!("{schema}.by_range"),
        &format!(
            "{schema}.create_hypertable({}, {schema}.by_range({column}, {interval}{}), create_default_indexes => false)",
            class(table),
            newer.unwrap_or_default()
        ),
        &format!(
            "{schema}.create_hypertable({}, {column}, chunk_time_interval => {interval}, \
             create_default_indexes => false{})",
            class(table),
            older.unwrap_or_default()
        ),
    )
}

fn add_dimension(schema: &str, table: &str, dimension: &Dimension) -> String {
    let (class, column) = (class(table), literal(&dimension.column));
    let function = dimension.function.as_ref().map(|(schema, name)| literal(&qualified(schema, name)));
    let newer = function.as_ref().map(|name| format!(", partition_func => {name}::pg_catalog.regproc"));
    let older = function.map(|name| format!(", partitioning_func => {name}::pg_catalog.regproc")).unwrap_or_default();
    let newer = newer.unwrap_or_default();
    match dimension.partitions {
        Some(count) => either(
            &format!("{schema}.by_hash"),
            &format!("{schema}.add_dimension({class}, {schema}.by_hash({column}, {count}{newer}))"),
            &format!("{schema}.add_dimension({class}, {column}, number_partitions => {count}{older})"),
        ),
        None => {
            let interval = typed_interval(dimension);
            either(
                &format!("{schema}.by_range"),
                &format!("{schema}.add_dimension({class}, {schema}.by_range({column}, {interval}{newer}))"),
                &format!("{schema}.add_dimension({class}, {column}, chunk_time_interval => {interval}{older})"),
            )
        }
    }
}

/// Returns the interval as the functions accept it: a number is cast to bigint, which holds every value.
fn typed_interval(dimension: &Dimension) -> String {
    if dimension.interval.starts_with("INTERVAL") {
        dimension.interval.clone()
    } else {
        format!("{}::pg_catalog.int8", dimension.interval)
    }
}

/// Returns a statement that runs one call if a function exists, and another one if not.
fn either(function: &str, call: &str, otherwise: &str) -> String {
    let body = format!(
        "BEGIN IF pg_catalog.to_regproc({}) IS NULL THEN PERFORM {otherwise}; ELSE PERFORM {call}; END IF; END",
        literal(function)
    );
    format!("DO {}", dollars(&body))
}

/// Finds a function by its name, and records the dependency. Returns the function's name as statements write it, if
/// exactly one function has that name.
fn need_function(
    reader: &mut Reader<'_>,
    object: &mut Object,
    schema: Option<&str>,
    name: &str,
    without_arguments_for: Option<&str>,
) -> Result<Option<String>> {
    let schema = schema.map_or_else(|| "true".to_owned(), |schema| format!("n.nspname = {}", literal(schema)));
    let signature = without_arguments_for.map_or_else(
        || "true".to_owned(),
        |kind| format!("p.pronargs = 0 AND p.prorettype = pg_catalog.to_regtype({})", literal(kind)),
    );
    let rows = reader.rows(&format!(
        "SELECT p.oid, n.nspname AS schema FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
          WHERE p.proname = {} AND {schema} AND {signature}",
        literal(name)
    ))?;
    let [row] = rows.as_slice() else { return Ok(None) };
    object.needs.push(Address::new(catalogs::PROC, row.number("oid")?));
    Ok(Some(qualified(row.text("schema")?, name)))
}

/// Adds the columns that chunk skipping is enabled for: the extension stores the range of their values in each chunk.
/// No public view has them.
fn chunk_skipping(reader: &mut Reader<'_>, object: &mut Object, schema: &str, table: &Hypertable) -> Result<()> {
    let has_columns = reader.session.row(
        "SELECT count(*) = 3 AS there FROM pg_catalog.pg_attribute
          WHERE attrelid = pg_catalog.to_regclass('_timescaledb_catalog.chunk_column_stats')
            AND attname IN ('hypertable_id', 'chunk_id', 'column_name')",
    )?;
    if !has_columns.flag("there")? {
        return Ok(());
    }
    let rows = reader.rows(&format!(
        "SELECT DISTINCT s.column_name AS name FROM _timescaledb_catalog.chunk_column_stats s
           JOIN _timescaledb_catalog.hypertable h ON h.id = s.hypertable_id
          WHERE h.schema_name = {} AND h.table_name = {} ORDER BY 1",
        literal(&table.schema),
        literal(&table.name)
    ))?;
    for row in &rows {
        let body = format!(
            "BEGIN IF pg_catalog.to_regproc({}) IS NULL THEN RAISE WARNING 'this version cannot pass over chunks'; \
             ELSE PERFORM pg_catalog.set_config('timescaledb.enable_chunk_skipping', 'on', true); \
             PERFORM {schema}.enable_chunk_skipping({}, {}); END IF; END",
            literal(&format!("{schema}.enable_chunk_skipping")),
            class(&table.qualified()),
            literal(row.text("name")?)
        );
        object.create.push(format!("DO {}", dollars(&body)));
    }
    Ok(())
}

/// Adds the compression settings of a hypertable or of an aggregate's rows. Returns true if there are any.
fn settings(
    reader: &mut Reader<'_>,
    timescale: &Timescale,
    oid: u32,
    table: &Hypertable,
    word: &str,
    name: &str,
) -> Result<bool> {
    if !table.has_compression {
        return Ok(false);
    }
    let rows = reader.rows(&format!(
        "SELECT attname AS name, segmentby_column_index AS segment, orderby_column_index AS place,
                coalesce(orderby_asc, true) AS ascending, coalesce(orderby_nullsfirst, false) AS nulls_first
           FROM timescaledb_information.compression_settings
          WHERE hypertable_schema = {} AND hypertable_name = {}
          ORDER BY segmentby_column_index, orderby_column_index",
        literal(&table.schema),
        literal(&table.name)
    ))?;
    let (mut segments, mut places) = (Vec::new(), Vec::new());
    for row in &rows {
        let column = ident(row.text("name")?);
        if row.get("segment")?.is_some() {
            segments.push(column);
        } else if row.get("place")?.is_some() {
            let direction = if row.flag("ascending")? { "ASC" } else { "DESC" };
            let nulls = if row.flag("nulls_first")? { "FIRST" } else { "LAST" };
            places.push(format!("{column} {direction} NULLS {nulls}"));
        }
    }
    let mut options = vec!["timescaledb.compress = true".to_owned()];
    for (option, values) in [("compress_segmentby", segments), ("compress_orderby", places)] {
        if !values.is_empty() {
            options.push(format!("timescaledb.{option} = {}", literal(&values.join(", "))));
        }
    }
    if let Some(interval) = other_settings(reader, table)? {
        options.push(format!("timescaledb.compress_chunk_time_interval = {}", literal(&interval)));
    }
    let kind = if timescale.hypertables.contains_key(&oid) { Kind::Hypertable } else { Kind::ContinuousAggregate };
    let (schema, plain) = match timescale.aggregates.get(&oid) {
        Some(aggregate) => (&aggregate.schema, &aggregate.name),
        None => (&table.schema, &table.name),
    };
    let mut object = Object::new(settings_at(oid), Kind::CompressionSettings, Some(schema), plain).at(Section::Post);
    object.create = vec![format!("ALTER {word} {name} SET ({})", options.join(", "))];
    let table = Address::new(catalogs::CLASS, oid);
    object.table = Some(table);
    object.needs = vec![table];
    // The indexes and keys that the settings are checked against are created before it.
    if kind == Kind::Hypertable {
        object.needs.push(hypertable_at(oid));
        let of_table =
            |made: &&Object| made.table == Some(table) && matches!(made.kind, Kind::Constraint | Kind::Index);
        object.needs.extend(reader.objects.iter().filter(of_table).map(|made| made.address));
    }
    reader.add(object);
    Ok(true)
}

/// Returns the interval to which compressed chunks are merged, if one is set. Settings that cannot be saved are
/// reported.
fn other_settings(reader: &mut Reader<'_>, table: &Hypertable) -> Result<Option<String>> {
    let has_view = reader.session.row(
        "SELECT pg_catalog.to_regclass('timescaledb_information.hypertable_compression_settings') IS NOT NULL AS there",
    )?;
    if !has_view.flag("there")? {
        return Ok(None);
    }
    let name = table.qualified();
    let rows = reader.rows(&format!(
        "SELECT pg_catalog.to_jsonb(s) AS settings FROM timescaledb_information.hypertable_compression_settings s
          WHERE s.hypertable = {}",
        class(&name)
    ))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let settings = json(row, "settings")?;
    let of_user = |index: &Value| index.get("source").and_then(Value::as_str).is_some_and(|source| source != "default");
    if settings.get("index").and_then(Value::as_array).is_some_and(|list| list.iter().any(of_user)) {
        reader.refused.push(format!("table {}: the sparse indexes of its compressed chunks", one_line(&name)));
    }
    Ok(settings.get("compress_interval_length").and_then(Value::as_str).map(str::to_owned))
}

/// Adds the object that compresses the chunks that were compressed in the source, after all rows are loaded.
fn compressed(
    reader: &mut Reader<'_>,
    timescale: &Timescale,
    oid: u32,
    address: Address,
    table: &Hypertable,
    has_settings: bool,
) {
    let ranges = merged(table);
    if ranges.is_empty() || !has_settings {
        return;
    }
    let (schema, name) = match timescale.aggregates.get(&oid) {
        Some(aggregate) => (&aggregate.schema, &aggregate.name),
        None => (&table.schema, &table.name),
    };
    let mut object = Object::new(compressed_at(oid), Kind::CompressedChunks, Some(schema), name).at(Section::Last);
    let is_aggregate = timescale.aggregates.contains_key(&oid);
    let body = compress_sql(&ident(&timescale.schema), schema, name, is_aggregate, table, &ranges);
    object.create = vec![format!("DO {}", dollars(&body))];
    object.table = Some(address);
    object.needs = vec![address, settings_at(oid)];
    if is_aggregate {
        object.needs.push(rows_at(oid));
    }
    reader.add(object);
}

/// Returns the ranges of the compressed chunks. Adjacent ranges are merged.
fn merged(table: &Hypertable) -> Vec<(String, String)> {
    let mut ranges: Vec<(String, String)> = Vec::new();
    for chunk in table.chunks.iter().filter(|chunk| chunk.is_compressed) {
        match ranges.last_mut() {
            // Chunks of the same range that are partitioned by another dimension.
            Some(last) if last.1 == chunk.end => {}
            Some(last) if last.1 == chunk.start => last.1.clone_from(&chunk.end),
            _ => ranges.push((chunk.start.clone(), chunk.end.clone())),
        }
    }
    ranges
}

/// Returns the statement that compresses the chunks in the ranges.
fn compress_sql(
    functions: &str,
    schema: &str,
    name: &str,
    is_aggregate: bool,
    table: &Hypertable,
    ranges: &[(String, String)],
) -> String {
    let time = table.time().cloned().unwrap_or_default();
    let (columns, cast) = if time.interval.starts_with("INTERVAL") {
        (("range_start", "range_end"), "pg_catalog.timestamptz")
    } else {
        (("range_start_integer", "range_end_integer"), "pg_catalog.int8")
    };
    // The extension treats a time without time zone as UTC.
    let zone = if cast == "pg_catalog.timestamptz" && !time.type_name.contains("with time zone") { "+00" } else { "" };
    let bound = |text: &String| match text.as_str() {
        "infinity" | "-infinity" => literal(text),
        _ if time.type_name == "date" => literal(&format!("{text} 00:00:00{zone}")),
        _ => literal(&format!("{text}{zone}")),
    };
    let rows: Vec<String> =
        ranges.iter().map(|(start, end)| format!("({}::{cast}, {}::{cast})", bound(start), bound(end))).collect();
    let hypertable = if is_aggregate {
        format!(
            "(SELECT a.materialization_hypertable_schema, a.materialization_hypertable_name \
              FROM timescaledb_information.continuous_aggregates a WHERE a.view_schema = {} AND a.view_name = {})",
            literal(schema),
            literal(name)
        )
    } else {
        format!("({}, {})", literal(schema), literal(name))
    };
    let (first, end) = columns;
    format!(
        "DECLARE part record; BEGIN FOR part IN SELECT pg_catalog.format('%I.%I', k.chunk_schema, k.chunk_name) AS name \
         FROM timescaledb_information.chunks k WHERE (k.hypertable_schema, k.hypertable_name) = {hypertable} \
         AND NOT k.is_compressed AND EXISTS (SELECT FROM (VALUES {}) AS was (first, until) \
         WHERE k.{first} >= was.first AND k.{end} <= was.until) ORDER BY k.{first} \
         LOOP PERFORM {functions}.compress_chunk(part.name::pg_catalog.regclass, true); END LOOP; END",
        rows.join(", ")
    )
}

/// Creates a continuous aggregate, without its rows. `object` is the view that users see, with its names and owner.
pub(in crate::engine::postgres) fn aggregate(
    timescale: &Timescale,
    view: u32,
    object: &mut Object,
    default_indexes: bool,
) {
    let Some(aggregate) = timescale.aggregates.get(&view) else { return };
    let name = aggregate.qualified();
    object.kind = Kind::ContinuousAggregate;
    object.section = Section::Post;
    object.stub = None;
    object.create = vec![format!(
        "CREATE MATERIALIZED VIEW {name} WITH (timescaledb.continuous, timescaledb.materialized_only = {}, \
         timescaledb.create_group_indexes = {default_indexes}) AS\n{}\n  WITH NO DATA",
        aggregate.is_materialized_only, aggregate.query
    )];
    object.set_owner =
        object.set_owner.iter().map(|sql| sql.replacen("ALTER VIEW ", "ALTER MATERIALIZED VIEW ", 1)).collect();
    object.needs.push(Address::new(catalogs::CLASS, aggregate.reads));
    if timescale.hypertables.contains_key(&aggregate.reads) {
        object.needs.push(hypertable_at(aggregate.reads));
    } else {
        // It is computed from the other aggregate's rows. Its own rows are added after those.
        object.needs.push(Address::new(catalogs::CLASS, aggregate.reads));
    }
    if let Some(time) = aggregate.store.time() {
        let body = format!(
            "DECLARE store text; BEGIN {} PERFORM {}.set_chunk_time_interval(store::pg_catalog.regclass, {}); END",
            find_store(aggregate),
            ident(&timescale.schema),
            typed_interval(time)
        );
        object.create.push(format!("DO {}", dollars(&body)));
    }
}

/// Returns statements that set the variable `store` of a block to the name that the hypertable of an aggregate's rows
/// has on this server.
fn find_store(aggregate: &Aggregate) -> String {
    format!(
        "SELECT pg_catalog.format('%I.%I', a.materialization_hypertable_schema, a.materialization_hypertable_name) \
         INTO STRICT store FROM timescaledb_information.continuous_aggregates a \
         WHERE a.view_schema = {} AND a.view_name = {};",
        literal(&aggregate.schema),
        literal(&aggregate.name)
    )
}

/// Adds the table that an aggregate's rows are loaded into, and the statements that move them to their hypertable.
///
/// A later refresh must give the right result too. The extension keeps a log of the ranges that must be computed again,
/// and for a new aggregate this log covers everything. A range whose raw data exists may be computed once more without
/// harm. But if the raw data is gone, a refresh would delete the saved rows. So the range before the oldest raw data is
/// refreshed once, from no raw data, which removes it from the log. Then the rows are replaced with the saved ones.
///
/// A refresh that changes rows also moves the watermark, up to which the aggregate shows its materialized rows, to the
/// newest of these rows. So the newest rows are inserted before the refresh, with a copy of them at a time before all
/// other rows. The refresh deletes this copy.
fn rows(reader: &mut Reader<'_>, timescale: &Timescale, view: u32, aggregate: &Aggregate) -> Result<()> {
    let (schema, name) = (&aggregate.schema, aggregate.qualified());
    if !aggregate.is_finalized {
        reader.refused.push(format!(
            "continuous aggregate {}: it has the format of TimescaleDB before 2.7; convert it with cagg_migrate()",
            one_line(&name)
        ));
        return Ok(());
    }
    let columns = reader.rows(&format!(
        "SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
                (SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
                   FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
                   JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                  WHERE co.oid = a.attcollation AND a.attcollation <> t.typcollation) AS collation
           FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        aggregate.rows
    ))?;
    let (mut definitions, mut names) = (Vec::new(), Vec::new());
    for column in &columns {
        let quoted = ident(column.text("name")?);
        let collation = column.get("collation")?.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        definitions.push(format!("{quoted} {}{collation}", column.text("type")?));
        names.push(quoted);
    }
    if !aggregate.is_materialized_only && aggregate.newest.is_some() && aggregate.lacks_newest_raw_data() {
        reader.notes.push(format!(
            "continuous aggregate {}: the raw data of its newest rows is gone; TimescaleDB before 2.17 does not show \
             rows without raw data unless the aggregate is set to materialized_only",
            one_line(&name)
        ));
    }
    let table_name = aggregate_rows_table(&aggregate.name);
    let rows_table = qualified(schema, &table_name);
    let mut table = Object::new(aggregate_rows_address(view), Kind::Table, Some(schema), &table_name);
    table.identity = format!("TABLE {rows_table}");
    // The original hypertable is in a schema of the extension. This table is not.
    table.needs_not = vec![Address::new(catalogs::EXTENSION, timescale.extension)];
    table.create = vec![format!("CREATE TABLE {rows_table} (\n    {}\n)", definitions.join(",\n    "))];
    let namespace =
        reader.rows(&format!("SELECT c.relnamespace AS schema FROM pg_catalog.pg_class c WHERE c.oid = {view}"))?;
    for row in &namespace {
        table.needs.push(Address::new(catalogs::NAMESPACE, row.number("schema")?));
    }
    reader.add(table);

    let mut object = Object::new(rows_at(view), Kind::AggregateRows, Some(schema), &aggregate.name).at(Section::Last);
    object.table = Some(Address::new(catalogs::CLASS, view));
    object.needs = vec![Address::new(catalogs::CLASS, view), aggregate_rows_address(view)];
    if timescale.aggregates.contains_key(&aggregate.reads) {
        object.needs.push(rows_at(aggregate.reads));
    }
    object.create = fill(&ident(&timescale.schema), aggregate, &rows_table, &names);
    reader.add(object);
    Ok(())
}

/// Returns the statements that restore an aggregate's rows and watermark.
fn fill(functions: &str, aggregate: &Aggregate, rows_table: &str, columns: &[String]) -> Vec<String> {
    let (name, all) = (literal(&aggregate.qualified()), columns.join(", "));
    let time = aggregate.store.time().cloned().unwrap_or_default();
    let value = |text: &str| format!("{}::{}", literal(text), time.type_name);
    let block = |work: &str| {
        // If the rows may not be inserted there, they stay in their table, and a warning is raised.
        let body = format!(
            "DECLARE store text; BEGIN {} {work} EXCEPTION WHEN insufficient_privilege OR feature_not_supported THEN \
             RAISE WARNING 'the rows of % stay in %: %', {name}, {}, SQLERRM; END",
            find_store(aggregate),
            literal(rows_table)
        );
        format!("DO {}", dollars(&body))
    };
    let Some(newest) = &aggregate.newest else { return vec![format!("DROP TABLE {rows_table}")] };
    let mut statements = Vec::new();
    let (first, end) = (value(newest), value(aggregate.watermark.as_ref().unwrap_or(newest)));
    let refresh =
        |from: &str, until: &str| format!("CALL {functions}.refresh_continuous_aggregate({name}, {from}, {until})");
    let (raw_before_newest, raw_before_end) = match &aggregate.raw_start {
        Some(start) => (format!("least({}, {first})", value(start)), format!("least({}, {end})", value(start))),
        None => (first.clone(), end.clone()),
    };
    if first != end {
        let bucket = ident(&time.column);
        let kind = &time.type_name;
        let oldest = format!("(SELECT min({bucket}) FROM {rows_table})");
        // A time before all existing rows, whatever the length of a bucket.
        let long_ago = format!("(least({oldest}, {raw_before_newest}) - 3 * ({end} - {first}))::{kind}");
        let of_newest = format!("FROM {rows_table} WHERE {bucket} = {first}");
        let copied: Vec<&str> =
            columns.iter().map(|column| if *column == bucket { &*long_ago } else { column }).collect();
        let copied = copied.join(", ");
        statements.push(block(&format!(
            "EXECUTE pg_catalog.format({}, store); EXECUTE pg_catalog.format({}, store);",
            literal(&format!("INSERT INTO %s ({0}) SELECT {0} {1}", percent(&all), percent(&of_newest))),
            literal(&format!("INSERT INTO %s ({}) SELECT {} {}", percent(&all), percent(&copied), percent(&of_newest))),
        )));
    }
    statements.push(refresh("NULL", &raw_before_newest));
    if first != end {
        // Versions before 2.17 move the watermark only if a refresh computes a range: the one before the newest rows.
        let body = format!(
            "BEGIN IF (SELECT pg_catalog.split_part(x.extversion, '.', 1) = '2' AND \
             pg_catalog.split_part(x.extversion, '.', 2)::pg_catalog.int4 < 17 FROM pg_catalog.pg_extension x \
             WHERE x.extname = '{EXTENSION}') THEN {}; END IF; END",
            refresh(&format!("({first} - 3 * ({end} - {first}))::{}", time.type_name), &first)
        );
        statements.push(format!("DO {}", dollars(&body)));
    }
    if raw_before_newest != raw_before_end {
        statements.push(refresh("NULL", &raw_before_end));
    }
    statements.push(block(&format!(
        "EXECUTE pg_catalog.format('DELETE FROM %s', store); EXECUTE pg_catalog.format({}, store); \
         DROP TABLE {rows_table};",
        literal(&format!("INSERT INTO %s ({0}) SELECT {0} FROM {1}", percent(&all), percent(rows_table)))
    )));
    statements
}

/// Returns true if an aggregate has the default indexes on the columns that it groups by.
pub(in crate::engine::postgres) fn has_default_indexes(reader: &mut Reader<'_>, aggregate: &Aggregate) -> Result<bool> {
    let own = format!("{}_", aggregate.store.name);
    let rows = reader.rows(&format!(
        "SELECT x.relname AS name, i.indnkeyatts AS keys FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
          WHERE i.indrelid = {} AND pg_catalog.starts_with(x.relname, {})",
        aggregate.rows,
        literal(&own)
    ))?;
    for row in &rows {
        if row.number::<u32>("keys")? > 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds the indexes that users created on an aggregate.
fn indexes(reader: &mut Reader<'_>, view: u32, aggregate: &Aggregate) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT x.oid, x.relname AS name, pg_catalog.pg_get_indexdef(x.oid) AS definition, {} AS unsettable
           FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
           LEFT JOIN pg_catalog.pg_am m ON m.oid = x.relam
          WHERE i.indrelid = {} AND NOT pg_catalog.starts_with(x.relname, {}) AND i.indisvalid",
        options::unsettable_of_index("x.reloptions", reader.version()),
        aggregate.rows,
        literal(&format!("{}_", aggregate.store.name))
    ))?;
    for row in &rows {
        let name = row.text("name")?;
        let address = Address { catalog: 0, oid: row.number("oid")?, column: 16 };
        let store = aggregate.store.qualified();
        let definition = options::only_settable(row.text("definition")?, &row.list("unsettable")?);
        let definition = definition.replacen(&format!(" ON {store} "), &format!(" ON {} ", aggregate.qualified()), 1);
        if !definition.contains(&aggregate.qualified()) {
            reader.refused.push(format!("index {} of {}", one_line(name), one_line(&aggregate.qualified())));
            continue;
        }
        let mut object = Object::new(address, Kind::AggregateIndex, Some(&aggregate.schema), name).at(Section::Post);
        object.create = vec![definition];
        object.table = Some(Address::new(catalogs::CLASS, view));
        object.needs = vec![Address::new(catalogs::CLASS, view)];
        reader.add(object);
    }
    Ok(())
}
