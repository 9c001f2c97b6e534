//! TimescaleDB: hypertables and continuous aggregates, as the extension's public views show them.
//!
//! A hypertable is saved as an ordinary table, with the statements that turn it into a hypertable, and all its rows as
//! the rows of one table. A continuous aggregate is saved as its query, and its materialized rows as the rows of a
//! table, because the data that they were computed from may be gone. The internal relations of the extension (chunks,
//! compressed chunks, views and tables of an aggregate) are never saved.
//!
//! This file reads the objects from the database. `definitions` writes the statements that create them again, `jobs`
//! saves the policies, and [`plain`] turns them into ordinary tables for a server without the extension.
//!
//! The views have changed between versions, and may change again: a row is read as JSON if not every version has all
//! its columns.

mod addresses;
pub(super) mod definitions;
pub(super) mod jobs;
pub(crate) mod plain;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::{Error, Result, one_line};

/// The extension's name.
pub(crate) const EXTENSION: &str = "timescaledb";

/// The name for a hypertable in a manifest.
pub(crate) const HYPERTABLE: &str = "hypertable";

/// The name for the materialized rows of a continuous aggregate in a manifest.
pub(crate) const AGGREGATE: &str = "continuous aggregate";

/// The hypertables, aggregates and internal relations of TimescaleDB in a database.
#[derive(Clone, Debug, Default)]
pub struct Timescale {
    /// The schema of the extension's functions, unquoted.
    pub schema: String,
    /// The oid of the extension.
    pub extension: u32,
    /// The hypertables of users, by oid.
    pub hypertables: BTreeMap<u32, Hypertable>,
    /// The continuous aggregates, by the oid of the view that users see.
    pub aggregates: BTreeMap<u32, Aggregate>,
    /// The relations that the extension created for internal use, by oid.
    pub internal: HashSet<u32>,
    /// The objects that cannot be saved, each with the reason.
    pub unsupported: Vec<String>,
}

/// A table that is partitioned into chunks.
#[derive(Clone, Debug)]
pub struct Hypertable {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// The dimensions that it is partitioned by. The first one is time.
    pub dimensions: Vec<Dimension>,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
    /// True if compression is enabled.
    pub has_compression: bool,
    /// The tablespaces of its chunks.
    pub tablespaces: Vec<String>,
}

/// One dimension that a hypertable is partitioned by.
#[derive(Clone, Debug, Default)]
pub struct Dimension {
    /// The column, unquoted.
    pub column: String,
    /// The type of the partitioning values: the type of the column, or of the function that is applied to it.
    pub type_name: String,
    /// The number of partitions, if the dimension is partitioned by hash and not by ranges.
    pub partitions: Option<u32>,
    /// The length of a range, as SQL: `INTERVAL '7 days'`, or a number.
    pub interval: String,
    /// The function that returns the current time if the type is an integer: its name without schema.
    pub integer_now: Option<String>,
    /// The user-defined partitioning function that is applied to the column: schema and name.
    pub function: Option<(String, String)>,
}

/// A part of a hypertable.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The oid in pg_class.
    pub oid: u32,
    /// The start of its time range, as text of the column's type.
    pub start: String,
    /// The end of its time range, exclusive.
    pub end: String,
    /// True if it is compressed.
    pub is_compressed: bool,
    /// The result of pg_table_size, without compressed rows.
    pub bytes: u64,
}

/// A view whose rows are computed in advance and stored.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// True if it shows only materialized rows.
    pub is_materialized_only: bool,
    /// True if its rows are final values. Before version 2.7, they were not.
    pub is_finalized: bool,
    /// The query.
    pub query: String,
    /// The relation that its query reads: the oid of a hypertable, or of the view of another aggregate.
    pub reads: u32,
    /// The oid of the hypertable that stores its rows.
    pub rows: u32,
    /// The hypertable that stores its rows.
    pub store: Hypertable,
    /// The end of the range that is computed, as text of its time type. `None` if nothing is computed.
    pub watermark: Option<String>,
    /// The newest time among its rows, in the same form.
    pub newest: Option<String>,
    /// The oldest time of the data that it is computed from, in the same form.
    pub raw_start: Option<String>,
    /// True if there is raw data for its newest rows, or older raw data.
    pub has_raw_data: bool,
}

impl Timescale {
    /// Returns true if an aggregate is computed from the relation, or stores its rows in it.
    #[must_use]
    pub fn is_read_by_an_aggregate(&self, relation: &str) -> bool {
        let reads = |found: &Aggregate| {
            let raw = self.hypertables.get(&found.reads).is_some_and(|raw| raw.qualified() == relation);
            raw || found.store.qualified() == relation
        };
        self.aggregates.values().any(reads)
    }
}

impl Hypertable {
    /// Returns the time dimension.
    #[must_use]
    pub fn time(&self) -> Option<&Dimension> {
        self.dimensions.first()
    }

    /// Returns schema and name as statements write them.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

impl Dimension {
    /// Returns true if a range of it can be selected by comparing the column with a time or a number.
    #[must_use]
    pub fn is_comparable(&self) -> bool {
        let simple = is_time(&self.type_name) || is_integer(&self.type_name);
        simple && self.function.is_none() && self.partitions.is_none()
    }
}

impl Aggregate {
    /// Returns true if no raw data is left for its newest rows.
    #[must_use]
    pub fn lacks_newest_raw_data(&self) -> bool {
        self.watermark.is_some() && !self.has_raw_data
    }

    /// Returns schema and name as statements write them.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Returns true for the types of time that the extension stores as timestamps.
fn is_time(type_name: &str) -> bool {
    matches!(type_name, "timestamp with time zone" | "timestamp without time zone" | "date")
}

/// Returns true for the integer types.
fn is_integer(type_name: &str) -> bool {
    matches!(type_name, "smallint" | "integer" | "bigint")
}

/// Returns the name of the table that an aggregate's rows are loaded into. They stay in it if the server does not allow
/// moving them. The table is in the aggregate's schema.
#[must_use]
pub(crate) fn aggregate_rows_table(aggregate: &str) -> String {
    let name = format!("lifeboat_rows_of_{aggregate}");
    if name.len() <= 63 {
        return name;
    }
    let digest = crate::platform::digest::Sha256::of(aggregate.as_bytes()).to_string();
    format!("{}_{}", &name[..name.floor_char_boundary(54)], &digest[..8])
}

/// Returns the oid of the extension and the schema of its functions, if the database has the extension.
pub(crate) fn schema_of(session: &mut Session) -> Result<Option<(u32, String)>> {
    let rows = session.rows(&format!(
        "SELECT e.oid, n.nspname AS schema FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = '{EXTENSION}'"
    ))?;
    rows.first().map(|row| Ok((row.number("oid")?, row.text("schema")?.to_owned()))).transpose()
}

/// Reads the hypertables and aggregates. Returns `None` if the database does not have the extension. The transaction's
/// `search_path` must be empty, and its time zone UTC.
pub(crate) fn read(session: &mut Session) -> Result<Option<Timescale>> {
    let Some((extension, schema)) = schema_of(session)? else { return Ok(None) };
    let mut timescale = Timescale { schema, extension, ..Timescale::default() };
    timescale.internal = internal(session)?;
    let mut stores = hypertables(session)?;
    aggregates(session, &mut timescale, &mut stores)?;
    timescale.hypertables = stores.into_iter().filter(|(oid, _)| !timescale.internal.contains(oid)).collect();
    for table in timescale.hypertables.values().chain(timescale.aggregates.values().map(|found| &found.store)) {
        timescale.internal.extend(table.chunks.iter().map(|chunk| chunk.oid));
    }
    // If the views did not list a hypertable, its chunks would be left out without a message.
    let orphans = session.rows(
        "SELECT DISTINCT i.inhparent AS parent, i.inhparent::pg_catalog.regclass::text AS name
           FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname ~ '^_timescaledb_' AND c.relkind IN ('r', 'f')",
    )?;
    for row in &orphans {
        let parent: u32 = row.number("parent")?;
        if !timescale.hypertables.contains_key(&parent) && !timescale.internal.contains(&parent) {
            let name = one_line(row.text("name")?);
            timescale
                .unsupported
                .push(format!("table {name}: it has chunks, but TimescaleDB does not list its dimensions"));
        }
    }
    Ok(Some(timescale))
}

/// Reads all relations in the schemas of the extension.
fn internal(session: &mut Session) -> Result<HashSet<u32>> {
    let rows = session.rows(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname ~ '^_timescaledb_'",
    )?;
    rows.iter().map(|row| row.number("oid")).collect()
}

/// Returns a join that finds the relation with a schema and a name from a view, as `c`.
fn relation_of(schema: &str, name: &str) -> String {
    format!(
        "JOIN pg_catalog.pg_namespace n ON n.nspname = {schema} \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = {name}"
    )
}

/// Reads all hypertables by oid, including those that store the rows of aggregates.
fn hypertables(session: &mut Session) -> Result<BTreeMap<u32, Hypertable>> {
    let mut tables: BTreeMap<u32, Hypertable> = BTreeMap::new();
    let functions = partitioning_functions(session)?;
    let dimensions = session.rows(&format!(
        "SELECT c.oid, d.hypertable_schema AS schema, d.hypertable_name AS name, pg_catalog.to_jsonb(d) AS dimension
           FROM timescaledb_information.dimensions d {}
          ORDER BY c.oid, d.dimension_number",
        relation_of("d.hypertable_schema", "d.hypertable_name")
    ))?;
    for row in &dimensions {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let mut dimension = dimension(&json(row, "dimension")?);
        dimension.function = functions
            .get(&(schema.to_owned(), name.to_owned(), dimension.column.clone()))
            .filter(|(schema, _)| !schema.starts_with("_timescaledb_"))
            .cloned();
        let table = tables.entry(row.number("oid")?).or_insert_with(|| Hypertable {
            schema: schema.to_owned(),
            name: name.to_owned(),
            dimensions: Vec::new(),
            chunks: Vec::new(),
            has_compression: false,
            tablespaces: Vec::new(),
        });
        table.dimensions.push(dimension);
    }
    let facts = session.rows(&format!(
        "SELECT c.oid, h.compression_enabled AS compressed, pg_catalog.to_jsonb(h.tablespaces) AS tablespaces
           FROM timescaledb_information.hypertables h {}",
        relation_of("h.hypertable_schema", "h.hypertable_name")
    ))?;
    for row in &facts {
        let Some(table) = tables.get_mut(&row.number("oid")?) else { continue };
        table.has_compression = row.flag("compressed")?;
        if row.get("tablespaces")?.is_some() {
            let names = json(row, "tablespaces")?;
            table.tablespaces =
                names.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        }
    }
    // The views return timestamps with time zone for every type of time. For types without time zone they are in UTC.
    let bound = |end: &str| {
        format!(
            "CASE k.primary_dimension_type::text
                  WHEN 'timestamp without time zone' THEN (k.{end} AT TIME ZONE 'UTC')::text
                  WHEN 'date' THEN (k.{end} AT TIME ZONE 'UTC')::pg_catalog.date::text
                  ELSE coalesce(k.{end}::text, k.{end}_integer::text) END"
        )
    };
    let chunks = session.rows(&format!(
        "SELECT t.oid AS table, c.oid, {} AS first, {} AS end, k.is_compressed AS compressed,
                coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes
           FROM timescaledb_information.chunks k
           JOIN pg_catalog.pg_namespace tn ON tn.nspname = k.hypertable_schema
           JOIN pg_catalog.pg_class t ON t.relnamespace = tn.oid AND t.relname = k.hypertable_name {}
          ORDER BY t.oid, k.range_start, k.range_start_integer, c.oid",
        bound("range_start"),
        bound("range_end"),
        relation_of("k.chunk_schema", "k.chunk_name"),
    ))?;
    for row in &chunks {
        let Some(table) = tables.get_mut(&row.number("table")?) else { continue };
        table.chunks.push(Chunk {
            oid: row.number("oid")?,
            start: row.text("first")?.to_owned(),
            end: row.text("end")?.to_owned(),
            is_compressed: row.flag("compressed")?,
            bytes: row.number("bytes")?,
        });
    }
    Ok(tables)
}

/// Parses one row of the view of dimensions.
fn dimension(row: &Value) -> Dimension {
    let text = |column: &str| row.get(column).and_then(Value::as_str).map(str::to_owned);
    let partitions = row.get("num_partitions").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
    let interval = match text("time_interval") {
        Some(interval) => format!("INTERVAL '{interval}'"),
        None => row.get("integer_interval").map(ToString::to_string).unwrap_or_default(),
    };
    Dimension {
        column: text("column_name").unwrap_or_default(),
        type_name: text("column_type").unwrap_or_default(),
        partitions,
        interval,
        integer_now: text("integer_now_func"),
        function: None,
    }
}

/// The schema and name of functions, by the schema and name of a table and one of its columns.
type Functions = HashMap<(String, String, String), (String, String)>;

/// Reads the partitioning functions, by the schema and name of the table and the column. No public view has them.
fn partitioning_functions(session: &mut Session) -> Result<Functions> {
    let has_them = session.row(
        "SELECT count(*) = 2 AS there FROM pg_catalog.pg_attribute
          WHERE attrelid = pg_catalog.to_regclass('_timescaledb_catalog.dimension')
            AND attname IN ('partitioning_func', 'partitioning_func_schema')",
    )?;
    if !has_them.flag("there")? {
        return Ok(HashMap::new());
    }
    let rows = session.rows(
        "SELECT h.schema_name AS schema, h.table_name AS name, d.column_name AS column,
                d.partitioning_func_schema AS function_schema, d.partitioning_func AS function
           FROM _timescaledb_catalog.dimension d JOIN _timescaledb_catalog.hypertable h ON h.id = d.hypertable_id
          WHERE d.partitioning_func IS NOT NULL",
    )?;
    let text = |row: &Row, column: &str| row.text(column).map(str::to_owned);
    rows.iter()
        .map(|row| {
            Ok((
                (text(row, "schema")?, text(row, "name")?, text(row, "column")?),
                (text(row, "function_schema")?, text(row, "function")?),
            ))
        })
        .collect()
}

/// Reads the continuous aggregates. Removes the hypertables of their rows from `stores`.
fn aggregates(session: &mut Session, timescale: &mut Timescale, stores: &mut BTreeMap<u32, Hypertable>) -> Result<()> {
    let rows = session.rows(&format!(
        "SELECT c.oid, pg_catalog.to_jsonb(a) AS aggregate, s.oid AS rows, t.oid AS reads
           FROM timescaledb_information.continuous_aggregates a {}
           JOIN pg_catalog.pg_namespace sn ON sn.nspname = a.materialization_hypertable_schema
           JOIN pg_catalog.pg_class s ON s.relnamespace = sn.oid AND s.relname = a.materialization_hypertable_name
           JOIN pg_catalog.pg_namespace tn ON tn.nspname = a.hypertable_schema
           JOIN pg_catalog.pg_class t ON t.relnamespace = tn.oid AND t.relname = a.hypertable_name
          ORDER BY c.oid",
        relation_of("a.view_schema", "a.view_name")
    ))?;
    for row in &rows {
        let facts = json(row, "aggregate")?;
        let text = |column: &str| facts.get(column).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |column: &str, otherwise: bool| facts.get(column).and_then(Value::as_bool).unwrap_or(otherwise);
        let rows: u32 = row.number("rows")?;
        let mut store = stores.remove(&rows).ok_or_else(|| {
            Error::failed(format!(
                "TimescaleDB does not list the hypertable that stores the rows of {}",
                one_line(&text("view_name"))
            ))
        })?;
        store.has_compression = flag("compression_enabled", false);
        timescale.internal.insert(rows);
        let aggregate = Aggregate {
            schema: text("view_schema"),
            name: text("view_name"),
            is_materialized_only: flag("materialized_only", true),
            is_finalized: flag("finalized", true),
            query: text("view_definition").trim().trim_end_matches(';').to_owned(),
            reads: row.number("reads")?,
            rows,
            store,
            watermark: None,
            newest: None,
            raw_start: None,
            has_raw_data: false,
        };
        timescale.aggregates.insert(row.number("oid")?, aggregate);
    }
    // For an aggregate of an aggregate, the view names the hypertable of the other one's rows.
    let views: HashMap<u32, u32> = timescale.aggregates.iter().map(|(view, found)| (found.rows, *view)).collect();
    for aggregate in timescale.aggregates.values_mut() {
        aggregate.reads = views.get(&aggregate.reads).copied().unwrap_or(aggregate.reads);
    }
    Ok(())
}

/// Returns the function that reads the watermark of an aggregate. No public function does.
fn watermark_function(session: &mut Session) -> Result<Option<String>> {
    let row = session.row(
        "SELECT coalesce(pg_catalog.to_regprocedure('_timescaledb_functions.cagg_watermark(integer)'),
                         pg_catalog.to_regprocedure('_timescaledb_internal.cagg_watermark(integer)'))::pg_catalog.regproc::text
                AS name",
    )?;
    row.owned("name")
}

/// Reads the watermark of each aggregate, and the range of the data that it is computed from.
pub(super) fn read_watermarks(session: &mut Session, timescale: &mut Timescale) -> Result<()> {
    let watermark = watermark_function(session)?;
    let stores = timescale.aggregates.iter().map(|(view, found)| (*view, &found.store));
    let raws = timescale.hypertables.iter().map(|(oid, table)| (*oid, table)).chain(stores);
    let raws: HashMap<u32, (String, Dimension)> =
        raws.filter_map(|(oid, table)| Some((oid, (table.qualified(), table.time()?.clone())))).collect();
    for aggregate in timescale.aggregates.values_mut() {
        read_watermark(session, aggregate, watermark.as_deref())?;
        let Some((table, time)) = raws.get(&aggregate.reads).filter(|(_, time)| time.is_comparable()) else { continue };
        let row = session.row(&format!("SELECT min({})::text AS oldest FROM {table}", ident(&time.column)))?;
        aggregate.raw_start = row.owned("oldest")?;
        if let (Some(start), Some(end)) = (&aggregate.raw_start, &aggregate.watermark) {
            aggregate.has_raw_data = is_before(session, start, end, &time.type_name)?;
        }
    }
    Ok(())
}

fn read_watermark(session: &mut Session, aggregate: &mut Aggregate, watermark: Option<&str>) -> Result<()> {
    let Some(time) = aggregate.store.time() else { return Ok(()) };
    let (column, table) = (ident(&time.column), aggregate.store.qualified());
    let row = session.row(&format!("SELECT max({column})::text AS newest FROM {table}"))?;
    aggregate.newest = row.owned("newest")?;
    let number = aggregate.store.name.rsplit('_').next().and_then(|number| number.parse::<u32>().ok());
    let (Some(watermark), Some(number), Some(_)) = (watermark, number, &aggregate.newest) else { return Ok(()) };
    // The value is in microseconds, or in the units of the column.
    let value = match time.type_name.as_str() {
        "timestamp with time zone" => {
            "('epoch'::pg_catalog.timestamptz + w.value * INTERVAL '1 microsecond')::text".to_owned()
        }
        "timestamp without time zone" => {
            "('epoch'::pg_catalog.timestamp + w.value * INTERVAL '1 microsecond')::text".to_owned()
        }
        "date" => {
            "('epoch'::pg_catalog.timestamp + w.value * INTERVAL '1 microsecond')::pg_catalog.date::text".to_owned()
        }
        _ => "w.value::text".to_owned(),
    };
    let row = session.row(&format!("SELECT {value} AS value FROM (SELECT {watermark}({number}) AS value) w"))?;
    aggregate.watermark = row.owned("value")?;
    Ok(())
}

/// Returns a type without its precision: `timestamp with time zone` for `timestamp(3) with time zone`.
#[must_use]
pub(crate) fn plain_type(declared: &str) -> String {
    match (declared.find('('), declared.find(')')) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &declared[..start], &declared[end + 1..]),
        _ => declared.to_owned(),
    }
}

/// Converts a time or a number that a user wrote to text of a column's type. A time without time zone is in UTC.
pub(crate) fn bound(session: &mut Session, text: &str, type_name: &str) -> Result<String> {
    // The type comes from an archive and becomes part of a statement.
    if !is_time(type_name) && !is_integer(type_name) {
        return Err(Error::problem(format!("a hypertable cannot be partitioned by the type {}", one_line(type_name))));
    }
    let text = literal(text);
    // A type without time zone would ignore the zone that the text contains.
    let value = match type_name {
        "timestamp without time zone" => format!("({text}::pg_catalog.timestamptz AT TIME ZONE 'UTC')"),
        "date" => format!("({text}::pg_catalog.timestamptz AT TIME ZONE 'UTC')::pg_catalog.date"),
        _ => format!("{text}::{type_name}"),
    };
    session.execute("SAVEPOINT bound")?;
    match session.row(&format!("SELECT {value}::text AS value")) {
        Ok(row) => {
            session.execute("RELEASE SAVEPOINT bound")?;
            Ok(row.text("value")?.to_owned())
        }
        Err(error) => {
            session.execute("ROLLBACK TO SAVEPOINT bound")?;
            Err(error)
        }
    }
}

/// Returns true if one value of a type is less than another.
pub(crate) fn is_before(session: &mut Session, first: &str, second: &str, type_name: &str) -> Result<bool> {
    let (first, second) = (literal(first), literal(second));
    session.row(&format!("SELECT {first}::{type_name} < {second}::{type_name} AS before"))?.flag("before")
}

/// Parses a column that contains JSON.
fn json(row: &Row, column: &str) -> Result<Value> {
    serde_json::from_str(row.text(column)?)
        .map_err(|error| Error::failed("the server returned invalid JSON").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `timescaledb_information.dimensions`, the same in 2.11.2 and 2.23.1.
    #[test]
    fn dimensions_of_recorded_versions_are_read() {
        let read = |recorded: &str| dimension(&serde_json::from_str(recorded).expect("a row"));
        let at = read(
            r#"{"column_name": "at", "column_type": "timestamp with time zone", "time_interval": "1 day", "dimension_type": "Time", "num_partitions": null, "hypertable_name": "records", "dimension_number": 1, "integer_interval": null, "integer_now_func": null, "hypertable_schema": "app"}"#,
        );
        assert_eq!((at.column.as_str(), at.interval.as_str(), at.partitions), ("at", "INTERVAL '1 day'", None));
        assert!(at.is_comparable());
        let seq = read(
            r#"{"column_name": "seq", "column_type": "bigint", "time_interval": null, "dimension_type": "Time", "num_partitions": null, "hypertable_name": "ticks", "dimension_number": 1, "integer_interval": 1000, "integer_now_func": "ticks_now", "hypertable_schema": "app"}"#,
        );
        assert_eq!((seq.interval.as_str(), seq.integer_now.as_deref()), ("1000", Some("ticks_now")));
        let device = read(
            r#"{"column_name": "device", "column_type": "integer", "time_interval": null, "dimension_type": "Space", "num_partitions": 3, "hypertable_name": "ticks", "dimension_number": 2, "integer_interval": null, "integer_now_func": null, "hypertable_schema": "app"}"#,
        );
        assert_eq!(device.partitions, Some(3));
        assert!(!device.is_comparable());
    }

    #[test]
    fn the_name_of_an_aggregate_rows_table_is_not_too_long_for_the_server() {
        assert_eq!(aggregate_rows_table("hourly"), "lifeboat_rows_of_hourly");
        let (one, other) =
            (aggregate_rows_table(&"小时".repeat(9)), aggregate_rows_table(&format!("{}x", "小时".repeat(9))));
        assert!(one.len() <= 63 && other.len() <= 63 && one != other, "{one} {other}");
    }

    #[test]
    fn a_type_is_compared_without_its_precision() {
        assert_eq!(plain_type("timestamp(3) with time zone"), "timestamp with time zone");
        assert_eq!(plain_type("bigint"), "bigint");
    }
}
