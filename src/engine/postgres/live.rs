//! Inspects a live PostgreSQL database for checks and rules: in one read-only transaction with time limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Params;
use super::timescale;
use crate::engine::live::{Integrity, Live, Newest, Shape, Value, is_true, missing};
use crate::engine::postgres::schema::provided;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::manifest::{Depth, is_migration_note};
use crate::snapshots::row_counts::RowCounts;

/// The time limit for one query.
const QUERY_TIME_LIMIT: Duration = Duration::from_secs(600);

/// The time limit for comparing all indexes with their tables.
const AMCHECK_TIME_LIMIT: Duration = Duration::from_secs(60);

struct Database {
    session: Session,
    /// The schemas of the server's provider, which are ignored.
    provided: BTreeSet<String>,
}

/// A table, a view, or another relation that has rows.
struct Relation {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    readable: bool,
    /// True if it is a hypertable.
    is_hypertable: bool,
}

impl Relation {
    fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Connects, and begins the transaction.
pub(crate) fn open(params: &Params) -> Result<Box<dyn Live>> {
    let mut session = Session::connect(params)?;
    // The owner of a database can set the path in which functions and operators are found.
    session.execute("SET search_path = ''")?;
    session.execute(&format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {};
         SET LOCAL lock_timeout = '30s'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL TimeZone = 'UTC';
         SET LOCAL row_security = off; SET LOCAL extra_float_digits = 3; SET LOCAL client_encoding = {}",
        QUERY_TIME_LIMIT.as_millis(),
        literal(crate::engine::postgres::wire::settings::encoding(&session.about().server_encoding)),
    ))?;
    let provided = provided::schemas(&mut session, params.provider)?;
    Ok(Box::new(Database { session, provided }))
}

impl Database {
    /// Runs queries in a savepoint. The state of the transaction is the same afterwards, even if they fail.
    fn ask<T>(&mut self, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        self.session.execute("SAVEPOINT look")?;
        let done = work(&mut self.session);
        // Success is rolled back too: this releases the locks on the tables that were read, so that no ALTER TABLE
        // waits for the rest.
        let end = "ROLLBACK TO look; RELEASE look";
        match (done, self.session.execute(end)) {
            (Ok(done), ended) => ended.map(|()| done),
            (Err(error), _) => Err(error),
        }
    }

    /// Reads all relations of users that have rows.
    fn relations(&mut self) -> Result<Vec<Relation>> {
        let rows = self.ask(|session| {
            session.rows(
                "SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
                        pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                            AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
                    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          JOIN pg_catalog.pg_extension owning ON owning.oid = d.refobjid
                         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                           AND d.objsubid = 0 AND d.deptype = 'e')
                  ORDER BY n.nspname, c.relname",
            )
        })?;
        let timescale = self.ask(timescale::read)?.unwrap_or_default();
        let read = |row: &Row| {
            let oid = row.number("oid")?;
            Ok(Relation {
                oid,
                is_hypertable: timescale.hypertables.contains_key(&oid),
                schema: row.text("schema")?.to_owned(),
                name: row.text("name")?.to_owned(),
                kind: row.text("kind")?.to_owned(),
                readable: row.flag("readable")?,
            })
        };
        let relations: Vec<Relation> = rows.iter().map(read).collect::<Result<_>>()?;
        let is_ignored = |relation: &Relation| {
            timescale.internal.contains(&relation.oid) || self.provided.contains(&relation.schema)
        };
        Ok(relations.into_iter().filter(|relation| !is_ignored(relation)).collect())
    }

    /// Returns the table or view that a rule names: `schema.table`, or a name without schema if only one schema has it,
    /// or else the one in the schema public.
    fn relation(&mut self, name: &str) -> Result<Relation> {
        let relations = self.relations()?;
        let names: Vec<String> =
            relations.iter().map(|relation| format!("{}.{}", relation.schema, relation.name)).collect();
        let is_exact = |relation: &Relation| {
            relation.qualified() == name || format!("{}.{}", relation.schema, relation.name) == name
        };
        let mut exact: Vec<usize> = (0..relations.len()).filter(|at| is_exact(&relations[*at])).collect();
        if exact.is_empty() {
            exact = (0..relations.len()).filter(|at| relations[*at].name == name).collect();
            if exact.len() > 1 {
                let public: Vec<usize> = exact.iter().copied().filter(|at| relations[*at].schema == "public").collect();
                if public.is_empty() {
                    return Err(Error::problem(format!("several schemas have a table {}", one_line(name)))
                        .hint("add the schema to the name: schema.table"));
                }
                exact = public;
            }
        }
        match exact.first() {
            Some(at) => {
                let relation =
                    relations.into_iter().nth(*at).ok_or_else(|| Error::failed("the table was not found"))?;
                if !relation.readable {
                    return Err(Error::problem(format!("the role may not read {}", one_line(name)))
                        .hint("grant it SELECT on the table, and USAGE on its schema"));
                }
                Ok(relation)
            }
            None => {
                // Names that differ only in the schema are suggested first.
                let near = relations.iter().map(|relation| relation.name.as_str());
                Err(missing("table", name, near.chain(names.iter().map(String::as_str))))
            }
        }
    }

    /// Returns the name of a column, and the kind of its type.
    fn column(&mut self, relation: &Relation, name: &str) -> Result<(String, String)> {
        let sql = format!(
            "SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, NULL) AS type, t.typcategory AS category
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            relation.oid
        );
        let rows = self.ask(|session| session.rows(&sql))?;
        let mut names = Vec::new();
        for row in &rows {
            if row.text("name")? == name {
                let kind = match (row.text("category")?, row.text("type")?) {
                    ("D", "timestamp with time zone") => "moment",
                    ("D", _) => "time",
                    ("N", _) => "number",
                    _ => "text",
                };
                return Ok((ident(name), kind.to_owned()));
            }
            names.push(row.text("name")?);
        }
        Err(missing("column", name, names.into_iter())
            .context(format!("in the table {}", one_line(&relation.qualified()))))
    }

    fn count(&mut self, relation: &Relation) -> Result<u64> {
        let only = if relation.is_hypertable { "" } else { "ONLY " };
        let sql = format!("SELECT count(*) AS rows FROM {only}{}", relation.qualified());
        self.ask(|session| session.row(&sql)?.number("rows"))
    }

    fn amcheck(&mut self, faults: &mut Vec<String>) -> Result<()> {
        let started = Instant::now();
        let find_amcheck = "SELECT n.nspname AS schema FROM pg_catalog.pg_extension e
                     JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
        let Some(row) = self.ask(|session| session.rows(find_amcheck))?.into_iter().next() else { return Ok(()) };
        let check = format!("{}.bt_index_check", ident(row.text("schema")?));
        let indexes = self.ask(|session| {
            session.rows(
                "SELECT i.indexrelid AS oid, n.nspname AS schema, c.relname AS name
                   FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   JOIN pg_catalog.pg_am m ON m.oid = c.relam
                  WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid
                    AND n.nspname !~ '^pg_' ORDER BY c.relpages",
            )
        })?;
        for (number, index) in indexes.iter().enumerate() {
            if started.elapsed() > AMCHECK_TIME_LIMIT {
                tracing::info!(
                    "compared {number} of {} indexes with their tables: the time limit of {} s was reached",
                    indexes.len(),
                    AMCHECK_TIME_LIMIT.as_secs()
                );
                break;
            }
            let sql = format!("SELECT {check}({}::pg_catalog.oid::pg_catalog.regclass)", index.number::<u32>("oid")?);
            match self.ask(|session| session.rows(&sql)) {
                Ok(_) => {}
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    let (name, reason) = (qualified(index.text("schema")?, index.text("name")?), error.full_message());
                    if reason.contains("permission denied") {
                        tracing::info!("indexes are not compared with their tables: {reason}");
                        break;
                    }
                    faults.push(one_line(&format!("index {name}: {reason}")));
                }
            }
        }
        Ok(())
    }
}

impl Live for Database {
    fn integrity(&mut self, _: Depth) -> Result<Integrity> {
        let mut found = Integrity::default();
        // An index that is being built is not valid yet. This is not a fault.
        let invalid = self.ask(|session| {
            session.rows(
                "SELECT n.nspname AS schema, c.relname AS name
                   FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i' AND n.nspname !~ '^pg_'
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = c.oid)
                  ORDER BY 1, 2",
            )
        })?;
        for row in &invalid {
            let name = qualified(row.text("schema")?, row.text("name")?);
            found.complaints.push(one_line(&format!("index {name} is invalid: REINDEX it, or drop it")));
        }
        let failures = self.ask(|session| {
            session.rows(
                "SELECT coalesce(checksum_failures, 0) AS failures FROM pg_catalog.pg_stat_database
                  WHERE datname = pg_catalog.current_database()",
            )
        })?;
        for row in &failures {
            let count: u64 = row.number("failures")?;
            if count > 0 {
                found.damage.push(format!("{count} pages failed their checksum since the statistics were reset"));
            }
        }
        self.amcheck(&mut found.complaints)?;
        Ok(found)
    }

    fn is_empty(&mut self) -> Result<bool> {
        Ok(self.relations()?.is_empty())
    }

    fn tables(&mut self) -> Result<RowCounts> {
        let mut tables = BTreeMap::new();
        for relation in self.relations()?.iter().filter(|relation| relation.kind == "r") {
            let name = relation.qualified();
            if is_migration_note(&name) {
                continue;
            }
            if !relation.readable {
                return Err(Error::problem(format!("the role may not read {}", one_line(&name)))
                    .hint("grant it SELECT on the table, and USAGE on its schema"));
            }
            let rows = self.count(relation)?;
            tables.insert(name, rows);
        }
        Ok(tables.into())
    }

    fn shape(&mut self) -> Result<Shape> {
        let relations = self.relations()?;
        let rows = self.ask(|session| {
            session.rows(
                "SELECT a.attrelid AS oid, a.attname AS name
                   FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                  WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum",
            )
        })?;
        let mut columns: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for row in &rows {
            columns.entry(row.number("oid")?).or_default().push(row.text("name")?.to_owned());
        }
        let mut shape = Shape::default();
        for relation in relations {
            match relation.kind.as_str() {
                "r" => {
                    let columns = columns.remove(&relation.oid).unwrap_or_default();
                    shape.columns.insert(relation.qualified(), columns);
                }
                "v" => shape.views.push(relation.qualified()),
                _ => {}
            }
        }
        Ok(shape)
    }

    fn rows(&mut self, table: &str) -> Result<u64> {
        let relation = self.relation(table)?.qualified();
        let sql = format!("SELECT count(*) AS rows FROM {relation}");
        self.ask(|session| session.row(&sql)?.number("rows"))
    }

    fn newest(&mut self, table: &str, column: &str) -> Result<Newest> {
        let relation = self.relation(table)?;
        let (column, kind) = self.column(&relation, column)?;
        if kind == "text" {
            return Ok(Newest::Each);
        }
        let sql = format!("SELECT max({column})::pg_catalog.text AS newest FROM {}", relation.qualified());
        let newest = self.ask(|session| session.row(&sql)?.owned("newest"))?;
        Ok(match newest {
            None => Newest::None,
            Some(text) => Newest::One(value(text, &kind)),
        })
    }

    fn each(&mut self, table: &str, column: &str, visit: &mut dyn FnMut(&Value) -> bool) -> Result<()> {
        let relation = self.relation(table)?;
        let (column, kind) = self.column(&relation, column)?;
        // The values are fetched in portions, because a table may have more of them than fit into memory.
        self.ask(|session| {
            session.execute(&format!(
                "DECLARE look_values NO SCROLL CURSOR FOR SELECT DISTINCT {column}::pg_catalog.text AS value FROM {} \
                 WHERE {column} IS NOT NULL",
                relation.qualified()
            ))?;
            loop {
                let rows = session.rows("FETCH 10000 FROM look_values")?;
                for row in &rows {
                    if !visit(&value(row.text("value")?.to_owned(), &kind)) {
                        return session.execute("CLOSE look_values");
                    }
                }
                if rows.is_empty() {
                    return session.execute("CLOSE look_values");
                }
            }
        })
    }

    fn holds(&mut self, query: &str) -> Result<bool> {
        // The query is run as one statement, with or without a semicolon at its end.
        let query = query.trim().trim_end_matches(';');
        let sql = format!("SELECT pg_catalog.to_jsonb(rule) AS value FROM (\n{query}\n) AS rule LIMIT 2");
        // The query names tables as in other programs, but functions of the server are found before all others.
        let path = "SELECT pg_catalog.set_config('search_path',
                           pg_catalog.concat_ws(', ', 'pg_catalog', nullif(pg_catalog.btrim(s.reset_val), '')), true)
                      FROM pg_catalog.pg_settings s WHERE s.name = 'search_path'";
        let in_path = |session: &mut Session| {
            session.rows(path)?;
            session.rows(&sql)
        };
        let rows = self.ask(in_path).map_err(|error| {
            if error.kind == Kind::Interrupted {
                error
            } else {
                Error::problem("the query cannot be run").because(error)
            }
        })?;
        let not_one_value =
            || Error::problem("the query does not return exactly one value").hint("select one value of one row");
        let [row] = rows.as_slice() else { return Err(not_one_value()) };
        let value: serde_json::Value = serde_json::from_str(row.text("value")?)
            .map_err(|error| Error::failed("the server returned invalid JSON").because(error))?;
        let fields: Vec<&serde_json::Value> =
            value.as_object().into_iter().flat_map(|fields| fields.values()).collect();
        let [value] = fields.as_slice() else { return Err(not_one_value()) };
        match value {
            serde_json::Value::Null => Ok(false),
            serde_json::Value::String(text) => is_true(Some(text)),
            value => is_true(Some(&value.to_string())),
        }
    }
}

fn value(text: String, kind: &str) -> Value {
    match kind {
        // The text contains the time zone, which is UTC.
        "moment" | "time" | "text" => Value::Text(text),
        _ => match text.parse::<i64>() {
            Ok(number) => Value::Integer(number),
            Err(_) => text.parse::<f64>().map_or(Value::Other, Value::Real),
        },
    }
}
