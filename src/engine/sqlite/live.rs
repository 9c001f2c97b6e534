//! Reads a live SQLite database for checks and rules. Changes nothing in it, and blocks nobody for long.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::{STEPS_PER_CHECK, explain, is_circumstance, is_damage, must_stop, sqlite_message};
use super::names::{Name, name_at, quote};
use super::reading::Reading;
use super::rows::{self, Cell, Rows};
use super::{derived, health, source, stand_ins, survey};
use crate::engine::live::{Integrity, Live, Newest, Shape, Value, is_true, missing};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::scratch::Scratch;
use crate::snapshots::manifest::{Depth, OrphanRows};
use crate::snapshots::row_counts::{RowCounts, Shadows, is_storage};

/// The time limit of one rule.
const RULE_TIME_LIMIT: Duration = Duration::from_secs(600);

/// The extra time for a check of the whole database, which in effect has no limit.
const UNBOUNDED: Duration = Duration::from_secs(365 * 86_400);

struct Database {
    /// Checks and counts; it has stand-ins for missing collations and functions.
    connection: Connection,
    /// Runs the queries of rules, without stand-ins: they would give other results than in the database's own program.
    rules: Connection,
    /// The start time of the current rule; SQLite's progress handler reads it.
    begun: Arc<Mutex<Instant>>,
    shown: String,
    /// Dropped after the connections.
    reading: Reading,
}

/// Opens an existing database. A missing one is not created. If it cannot be read in place without a change, a copy in
/// `scratch` is read.
pub(crate) fn open(path: &Path, scratch: &Scratch) -> Result<Box<dyn Live>> {
    let path = source::locate(path)?;
    let reading = Reading::begin(&path, scratch)?;
    source::probe(&path, &reading)?;
    let shown = crate::platform::disk::shown(&path);
    let begun = Arc::new(Mutex::new(Instant::now()));
    let open = || -> Result<Connection> {
        let mut connection = reading.open()?;
        let clock = Arc::clone(&begun);
        let is_over = move || must_stop() || elapsed(&clock) > RULE_TIME_LIMIT;
        connection
            .progress_handler(STEPS_PER_CHECK, Some(is_over))
            .map_err(|error| explain(error, &format!("cannot open {shown}")))?;
        Ok(connection)
    };
    let (connection, rules) = (open()?, open()?);
    stand_ins::remove(&rules);
    Ok(Box::new(Database { connection, rules, begun, shown, reading }))
}

impl Database {
    /// Returns the name of a table or view as the schema has it; SQLite's names are case-insensitive.
    fn table(&self, name: &str) -> Result<String> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND substr(name, 1, 7) <> 'sqlite_'";
        let names = self.names(sql, [])?;
        let found = names.iter().find(|other| *other == name);
        let found = found.or_else(|| names.iter().find(|other| other.eq_ignore_ascii_case(name)));
        found.cloned().ok_or_else(|| missing("table", name, names.iter().map(String::as_str)))
    }

    fn column(&self, table: &str, name: &str) -> Result<String> {
        let names = self.names("SELECT name FROM pragma_table_xinfo(?1, 'main')", [Name::of(table)])?;
        let found = names.iter().find(|other| other.eq_ignore_ascii_case(name));
        found.cloned().ok_or_else(|| {
            missing("column", name, names.iter().map(String::as_str))
                .context(format!("in the table {}", one_line(table)))
        })
    }

    fn names(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<String>> {
        let read = || -> rusqlite::Result<Vec<String>> {
            self.connection.prepare(sql)?.query_map(parameters, |row| name_at(row, 0))?.collect()
        };
        read().map_err(|error| self.explain(error, "cannot read the schema of"))
    }

    fn explain(&self, error: rusqlite::Error, what: &str) -> Error {
        explain(error, &format!("{what} {}", self.shown))
    }

    fn cannot_read(&self, error: rusqlite::Error, column: &str, table: &str) -> Error {
        self.explain(error, &format!("cannot read {} of {} in", one_line(column), one_line(table)))
    }

    fn count(&self, connection: &Connection, table: &str) -> Result<u64> {
        rows::count(connection, table).map_err(|error| self.cannot_count(error, table))
    }

    fn cannot_count(&self, error: rusqlite::Error, table: &str) -> Error {
        self.explain(error, &format!("cannot count the rows of {} in", one_line(table)))
    }

    /// Lists the names and kinds of all tables.
    fn list(&self) -> Result<Vec<(String, String)>> {
        survey::list_tables(&self.connection).map_err(|error| self.explain(error, "cannot read the schema of"))
    }

    /// Runs work with the time limit of one rule.
    fn bounded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let done = work();
        crate::platform::interrupt::check()?;
        if done.is_err() && elapsed(&self.begun) > RULE_TIME_LIMIT {
            return Err(Error::problem(format!("it took longer than {} minutes", RULE_TIME_LIMIT.as_secs() / 60))
                .hint("an index may make it faster"));
        }
        done
    }
}

fn elapsed(begun: &Mutex<Instant>) -> Duration {
    begun.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
}

fn value(value: Cell<'_>) -> Value {
    match value {
        Cell::Integer(number) => Value::Integer(number),
        Cell::Real(number) => Value::Real(number),
        Cell::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        Cell::Null | Cell::Blob(_) => Value::Other,
    }
}

impl Live for Database {
    fn integrity(&mut self, depth: Depth) -> Result<Integrity> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + UNBOUNDED;
        let health = health::examine(&self.connection, depth)?;
        let damage: Vec<String> = health::damage(&health).into_iter().map(str::to_owned).collect();
        let orphan = |orphan: &OrphanRows| {
            format!("{} rows of {} refer to rows of {} that do not exist", orphan.rows, orphan.table, orphan.parent)
        };
        let rest = health.integrity.iter().filter(|fault| !damage.contains(fault)).cloned();
        let emptied = derived::emptied_indexes(&self.connection);
        let emptied = emptied.map_err(|error| self.explain(error, "cannot read the full-text indexes of"))?;
        let emptied = emptied.iter().map(|(index, content)| {
            let (index, content) = (one_line(index), one_line(content));
            format!(
                "the full-text index {index} is empty, but {content} has rows: INSERT INTO {index} ({index}) VALUES \
                 ('rebuild') fills it"
            )
        });
        let complaints = rest.chain(health.orphans.iter().map(orphan)).chain(emptied).collect();
        self.reading.require_unchanged()?;
        Ok(Integrity { damage, complaints, unchecked: health.unchecked })
    }

    fn is_empty(&mut self) -> Result<bool> {
        let read = || -> rusqlite::Result<bool> {
            let tables = survey::list_tables(&self.connection)?;
            Ok(tables.iter().all(|(name, _)| name.starts_with("sqlite_"))
                && survey::list_views(&self.connection)?.is_empty())
        };
        read().map_err(|error| self.explain(error, "cannot read the schema of"))
    }

    fn tables(&mut self) -> Result<RowCounts> {
        let list = self.list()?;
        let shadows = Shadows::of(list.iter().map(|(name, kind)| (name.as_str(), kind.as_str())));
        let contents = derived::external_contents(&self.connection);
        let mut contents = contents.map_err(|error| self.explain(error, "cannot read the schema of"))?;
        let mut counts = RowCounts::default();
        for (name, kind) in list.into_iter().filter(|(name, kind)| kind != "shadow" && !name.starts_with("sqlite_")) {
            let content = contents.remove(&name);
            if kind == "virtual" && (content.is_some() || !shadows.has_storage_of(&name)) {
                counts.views_of.insert(name, content);
                continue;
            }
            // The rows of a full-text index are counted many times faster in the table that stores them.
            let counted = match kind == "virtual" && shadows.has(&name, "content") {
                true => rows::count(&self.connection, &format!("{name}_content")),
                false => survey::count(&self.connection, &name, &kind),
            };
            match counted {
                Ok(rows) => drop(counts.tables.insert(name, rows)),
                Err(error) if kind == "virtual" && !is_circumstance(&error) => {
                    counts.uncounted.insert(name, one_line(&sqlite_message(&error)));
                }
                Err(error) => return Err(self.cannot_count(error, &name)),
            }
        }
        self.reading.require_unchanged().map(|()| counts)
    }

    fn stored_rows(&mut self) -> Result<u64> {
        let stored = self.list()?.into_iter().filter(|(name, kind)| is_storage(name, kind));
        let total: Result<u64> = stored.map(|(name, _)| self.count(&self.connection, &name)).sum();
        self.reading.require_unchanged().and(total)
    }

    fn shape(&mut self) -> Result<Shape> {
        let read = || -> rusqlite::Result<Shape> {
            let names = survey::list_tables(&self.connection)?.into_iter().map(|(name, _)| name);
            // The columns of a virtual table whose module is missing here are not known.
            let columns_of = |name: String| match survey::columns(&self.connection, &name) {
                Ok(columns) => Some(Ok((name, columns.into_iter().map(|column| column.name).collect()))),
                Err(error) if is_circumstance(&error) || is_damage(&error) => Some(Err(error)),
                Err(_) => None,
            };
            let columns = names.filter_map(columns_of).collect::<rusqlite::Result<_>>()?;
            Ok(Shape { columns, views: survey::list_views(&self.connection)? })
        };
        read().map_err(|error| self.explain(error, "cannot read the schema of"))
    }

    fn rows(&mut self, table: &str) -> Result<u64> {
        let table = self.table(table)?;
        // The rows of a view can depend on a collation, those of a table cannot.
        let views = survey::list_views(&self.connection);
        let is_view = views.map_err(|error| self.explain(error, "cannot read the schema of"))?.contains(&table);
        self.bounded(|| self.count(if is_view { &self.rules } else { &self.connection }, &table))
    }

    fn newest(&mut self, table: &str, column: &str) -> Result<Newest> {
        let table = self.table(table)?;
        let column = self.column(&table, column)?;
        let quoted = quote(&column);
        let sql = [
            b"SELECT max(",
            &quoted[..],
            b"), count(",
            &quoted,
            b"), count(CASE WHEN typeof(",
            &quoted,
            b") IN ('integer', 'real') THEN 1 END) FROM main.",
            &quote(&table),
        ];
        let read = || -> rusqlite::Result<Newest> {
            let mut rows = Rows::query(&self.rules, &sql.concat())?;
            if !rows.step()? {
                return Err(rusqlite::Error::QueryReturnedNoRows);
            }
            Ok(match (rows.cell(1)?, rows.cell(2)?) {
                (Cell::Integer(0), _) => Newest::None,
                (values, numbers) if values == numbers => Newest::One(value(rows.cell(0)?)),
                _ => Newest::Each,
            })
        };
        self.bounded(|| read().map_err(|error| self.cannot_read(error, &column, &table)))
    }

    fn each(&mut self, table: &str, column: &str, visit: &mut dyn FnMut(&Value) -> bool) -> Result<()> {
        let table = self.table(table)?;
        let column = self.column(&table, column)?;
        let quoted = quote(&column);
        // Each text once: even a large table has few distinct days.
        let sql =
            [b"SELECT DISTINCT ", &quoted[..], b" FROM main.", &quote(&table), b" WHERE ", &quoted, b" IS NOT NULL"];
        let mut read = || -> rusqlite::Result<()> {
            let mut rows = Rows::query(&self.rules, &sql.concat())?;
            while rows.step()? {
                if !visit(&value(rows.cell(0)?)) {
                    break;
                }
            }
            Ok(())
        };
        self.bounded(|| read().map_err(|error| self.cannot_read(error, &column, &table)))
    }

    fn holds(&mut self, query: &str) -> Result<bool> {
        let read = || -> rusqlite::Result<Vec<Option<String>>> {
            let mut statement = self.rules.prepare(query)?;
            if statement.column_count() != 1 {
                return Ok(Vec::new());
            }
            let mut rows = statement.query([])?;
            let mut values = Vec::new();
            while let Some(row) = rows.next()? {
                values.push(match value(row.get_ref(0)?.into()) {
                    Value::Integer(number) => Some(number.to_string()),
                    Value::Real(number) => Some(number.to_string()),
                    Value::Text(text) => Some(text),
                    Value::Other => None,
                });
                if values.len() > 1 {
                    break;
                }
            }
            Ok(values)
        };
        self.bounded(|| {
            let values =
                read().map_err(|error| Error::problem("the query cannot be run").because(sqlite_message(&error)))?;
            match values.as_slice() {
                [value] => is_true(value.as_deref()),
                _ => {
                    Err(Error::problem("the query does not return exactly one value")
                        .hint("select one value of one row"))
                }
            }
        })
    }
}
