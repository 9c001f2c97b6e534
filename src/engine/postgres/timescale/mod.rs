//! TimescaleDB: hypertables and continuous aggregates, as the extension's public views tell of them.
//!
//! A hypertable is saved as an ordinary table and what makes it one, with all its rows as one table's; a continuous
//! aggregate as its query, and its materialized rows as a table's, since what they were computed of may be gone. What
//! the extension keeps for itself (chunks, compressed chunks, views and tables behind an aggregate) is never saved.
//!
//! - here: what there is; `definitions` is how it is made again, `jobs` the policies, [`plain`] what becomes of it on a
//!   server without the extension.
//!
//! The views have changed from version to version, and may again: a row is read as JSON where not every version has
//! all of its columns.

mod addresses;
pub(super) mod definitions;
pub(super) mod jobs;
pub mod plain;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::{Error, Result, one_line};

/// The extension's name.
pub const EXTENSION: &str = "timescaledb";

/// What a manifest calls a hypertable.
pub const HYPERTABLE: &str = "hypertable";

/// What a manifest calls the materialized rows of a continuous aggregate.
pub const AGGREGATE: &str = "continuous aggregate";

/// What TimescaleDB has in a database.
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
    /// Relations that the extension has made for its own use, by oid.
    pub internal: HashSet<u32>,
    /// What could not be made sense of.
    pub strange: Vec<String>,
}

/// A table that is cut into chunks.
#[derive(Clone, Debug)]
pub struct Hypertable {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// How it is cut; the first by time.
    pub dimensions: Vec<Dimension>,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
    /// Whether compression is enabled.
    pub has_compression: bool,
    /// The tablespaces that its chunks go to.
    pub tablespaces: Vec<String>,
}

/// One way in which a hypertable is cut.
#[derive(Clone, Debug, Default)]
pub struct Dimension {
    /// The column, unquoted.
    pub column: String,
    /// The type by which it is cut: the column's, or that of a function of it.
    pub type_name: String,
    /// Whether it is cut into so many parts by a hash, not by ranges.
    pub partitions: Option<u32>,
    /// How long a range is, as SQL: `INTERVAL '7 days'`, or a number.
    pub interval: String,
    /// The function that says what now is, where the type is a number: its name alone.
    pub integer_now: Option<String>,
    /// The user's own function of the column by which it is cut: schema and name.
    pub function: Option<(String, String)>,
}

/// A part of a hypertable.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The oid in pg_class.
    pub oid: u32,
    /// Its range by time, as text of the column's type.
    pub start: String,
    /// The end of it, not included.
    pub end: String,
    /// Whether it is compressed.
    pub is_compressed: bool,
    /// What pg_table_size says of it, with compressed rows left out.
    pub bytes: u64,
}

/// A view whose rows are computed ahead and kept.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// Whether it shows only what was computed ahead.
    pub is_materialized_only: bool,
    /// Whether its rows are final values; those of before 2.7 were not.
    pub is_finalized: bool,
    /// The query.
    pub query: String,
    /// What its query reads: the oid of a hypertable, or of the view of another aggregate.
    pub reads: u32,
    /// The hypertable of its rows: oid, schema and name.
    pub rows: u32,
    /// That hypertable.
    pub store: Hypertable,
    /// Up to where it is computed, as text of the type of its time; None where nothing is.
    pub watermark: Option<String>,
    /// The newest time among its rows, in the same form.
    pub newest: Option<String>,
    /// The oldest time of what it is computed of, in the same form.
    pub raw_start: Option<String>,
    /// Whether there is some raw data of its newest rows, or older.
    pub has_raw_data: bool,
}

impl Timescale {
    /// Whether the rows of an aggregate are computed of a table's, or are themselves meant.
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
    /// The dimension by time.
    #[must_use]
    pub fn time(&self) -> Option<&Dimension> {
        self.dimensions.first()
    }

    /// Schema and name as statements write them.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

impl Dimension {
    /// Whether parts of it can be asked for by comparing the column with a time or a number.
    #[must_use]
    pub fn is_comparable(&self) -> bool {
        let simple = is_time(&self.type_name) || is_integer(&self.type_name);
        simple && self.function.is_none() && self.partitions.is_none()
    }
}

impl Aggregate {
    /// Whether its newest rows are of a time from which no raw data is left.
    #[must_use]
    pub fn lacks_newest_raw_data(&self) -> bool {
        self.watermark.is_some() && !self.has_raw_data
    }

    /// Schema and name as statements write them.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// The types of time that the extension keeps as moments.
fn is_time(type_name: &str) -> bool {
    matches!(type_name, "timestamp with time zone" | "timestamp without time zone" | "date")
}

/// The types of whole numbers.
fn is_integer(type_name: &str) -> bool {
    matches!(type_name, "smallint" | "integer" | "bigint")
}

/// The name of the table that an aggregate's rows are loaded into, and stay in where the server takes them nowhere
/// else. It is in the aggregate's schema.
#[must_use]
pub fn waiting_room(aggregate: &str) -> String {
    let name = format!("lifeboat_rows_of_{aggregate}");
    if name.len() <= 63 {
        return name;
    }
    let digest = crate::platform::digest::Sha256::of(aggregate.as_bytes()).to_string();
    format!("{}_{}", &name[..name.floor_char_boundary(54)], &digest[..8])
}

/// The schema of the extension's functions, where the database has the extension.
pub fn schema_of(session: &mut Session) -> Result<Option<(u32, String)>> {
    let rows = session.rows(&format!(
        "SELECT e.oid, n.nspname AS schema FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = '{EXTENSION}'"
    ))?;
    rows.first().map(|row| Ok((row.number("oid")?, row.text("schema")?.to_owned()))).transpose()
}

/// Reads what there is; None where the database has not the extension. The transaction's `search_path` is empty, and its
/// time zone UTC.
pub fn read(session: &mut Session) -> Result<Option<Timescale>> {
    let Some((extension, schema)) = schema_of(session)? else { return Ok(None) };
    let mut timescale = Timescale { schema, extension, ..Timescale::default() };
    timescale.internal = internal(session)?;
    let mut stores = hypertables(session)?;
    aggregates(session, &mut timescale, &mut stores)?;
    timescale.hypertables = stores.into_iter().filter(|(oid, _)| !timescale.internal.contains(oid)).collect();
    for table in timescale.hypertables.values().chain(timescale.aggregates.values().map(|found| &found.store)) {
        timescale.internal.extend(table.chunks.iter().map(|chunk| chunk.oid));
    }
    // Were a hypertable not among those that the views tell of, its chunks would be passed over in silence.
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
                .strange
                .push(format!("table {name}: it has chunks, and the extension does not tell how it is cut"));
        }
    }
    Ok(Some(timescale))
}

/// Everything in the extension's own schemas.
fn internal(session: &mut Session) -> Result<HashSet<u32>> {
    let rows = session.rows(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname ~ '^_timescaledb_'",
    )?;
    rows.iter().map(|row| row.number("oid")).collect()
}

/// The oid of what a view names by schema and name, joined as `c`.
fn relation_of(schema: &str, name: &str) -> String {
    format!(
        "JOIN pg_catalog.pg_namespace n ON n.nspname = {schema} \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = {name}"
    )
}

/// All hypertables by their oid, those behind aggregates too.
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
    // The views give moments for every type of time: those of types without a zone are UTC's.
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

/// One row of the view of dimensions.
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

/// Schema and name of functions, by schema and name of a table and a column of it.
type Functions = HashMap<(String, String, String), (String, String)>;

/// The functions by which columns are cut: by schema and name of the table and the column. No public view has them.
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

/// Reads the continuous aggregates; takes the hypertables of their rows out of `stores`.
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
        let told = json(row, "aggregate")?;
        let text = |column: &str| told.get(column).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |column: &str, otherwise: bool| told.get(column).and_then(Value::as_bool).unwrap_or(otherwise);
        let rows: u32 = row.number("rows")?;
        let mut store = stores.remove(&rows).ok_or_else(|| {
            Error::failed(format!(
                "the extension does not tell how the rows of {} are kept",
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
    // An aggregate of an aggregate is told to read the hypertable of its rows.
    let views: HashMap<u32, u32> = timescale.aggregates.iter().map(|(view, found)| (found.rows, *view)).collect();
    for aggregate in timescale.aggregates.values_mut() {
        aggregate.reads = views.get(&aggregate.reads).copied().unwrap_or(aggregate.reads);
    }
    Ok(())
}

/// The function that says up to where an aggregate is computed. No public one does.
fn watermark_function(session: &mut Session) -> Result<Option<String>> {
    let row = session.row(
        "SELECT coalesce(pg_catalog.to_regprocedure('_timescaledb_functions.cagg_watermark(integer)'),
                         pg_catalog.to_regprocedure('_timescaledb_internal.cagg_watermark(integer)'))::pg_catalog.regproc::text
                AS name",
    )?;
    row.owned("name")
}

/// Finds out how far the aggregates are computed.
pub(super) fn reach(session: &mut Session, timescale: &mut Timescale) -> Result<()> {
    let watermark = watermark_function(session)?;
    let stores = timescale.aggregates.iter().map(|(view, found)| (*view, &found.store));
    let raws = timescale.hypertables.iter().map(|(oid, table)| (*oid, table)).chain(stores);
    let raws: HashMap<u32, (String, Dimension)> =
        raws.filter_map(|(oid, table)| Some((oid, (table.qualified(), table.time()?.clone())))).collect();
    for aggregate in timescale.aggregates.values_mut() {
        reach_of(session, aggregate, watermark.as_deref())?;
        let Some((table, time)) = raws.get(&aggregate.reads).filter(|(_, time)| time.is_comparable()) else { continue };
        let row = session.row(&format!("SELECT min({})::text AS oldest FROM {table}", ident(&time.column)))?;
        aggregate.raw_start = row.owned("oldest")?;
        if let (Some(start), Some(end)) = (&aggregate.raw_start, &aggregate.watermark) {
            aggregate.has_raw_data = is_before(session, start, end, &time.type_name)?;
        }
    }
    Ok(())
}

fn reach_of(session: &mut Session, aggregate: &mut Aggregate, watermark: Option<&str>) -> Result<()> {
    let Some(time) = aggregate.store.time() else { return Ok(()) };
    let (column, table) = (ident(&time.column), aggregate.store.qualified());
    let row = session.row(&format!("SELECT max({column})::text AS newest FROM {table}"))?;
    aggregate.newest = row.owned("newest")?;
    let number = aggregate.store.name.rsplit('_').next().and_then(|number| number.parse::<u32>().ok());
    let (Some(watermark), Some(number), Some(_)) = (watermark, number, &aggregate.newest) else { return Ok(()) };
    // In microseconds, or in the numbers of the column.
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

/// A type without what it says of precision: `timestamp with time zone` of `timestamp(3) with time zone`.
#[must_use]
pub fn plain_type(declared: &str) -> String {
    match (declared.find('('), declared.find(')')) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &declared[..start], &declared[end + 1..]),
        _ => declared.to_owned(),
    }
}

/// A time, or a number, that a person wrote, as text of a column's type. A time without a zone is UTC's.
pub fn bound(session: &mut Session, text: &str, type_name: &str) -> Result<String> {
    // The type is what an archive says, and becomes part of a statement.
    if !is_time(type_name) && !is_integer(type_name) {
        return Err(Error::problem(format!("a hypertable cannot be cut by the type {}", one_line(type_name))));
    }
    let text = literal(text);
    // A type without a zone would pass over the one that is said.
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

/// Whether one value of a type comes before another.
pub fn is_before(session: &mut Session, first: &str, second: &str, type_name: &str) -> Result<bool> {
    let (first, second) = (literal(first), literal(second));
    session.row(&format!("SELECT {first}::{type_name} < {second}::{type_name} AS before"))?.flag("before")
}

/// A column that holds JSON.
fn json(row: &Row, column: &str) -> Result<Value> {
    serde_json::from_str(row.text(column)?)
        .map_err(|error| Error::failed("the server's answer is no JSON").because(error))
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
    fn a_waiting_room_has_a_name_that_the_server_keeps_whole() {
        assert_eq!(waiting_room("hourly"), "lifeboat_rows_of_hourly");
        let (one, other) = (waiting_room(&"小时".repeat(9)), waiting_room(&format!("{}x", "小时".repeat(9))));
        assert!(one.len() <= 63 && other.len() <= 63 && one != other, "{one} {other}");
    }

    #[test]
    fn a_type_is_compared_without_its_precision() {
        assert_eq!(plain_type("timestamp(3) with time zone"), "timestamp with time zone");
        assert_eq!(plain_type("bigint"), "bigint");
    }
}
