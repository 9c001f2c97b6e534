//! Reads a live SQLite database for checks and rules. Changes nothing in it, and blocks nobody for long.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::{self, Purpose, explain, sqlite_message};
use super::names::{Name, name_at, quote};
use super::rows::{self, Cell, Rows};
use super::{health, source, stand_ins, survey, unlocked};
use crate::engine::live::{Integrity, Live, Newest, Value, is_true, missing};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::{Depth, OrphanRows};

/// The time limit of one rule.
const RULE_TIME_LIMIT: Duration = Duration::from_secs(600);

/// The extra time for a check of the whole database, which in effect has no limit.
const UNBOUNDED: Duration = Duration::from_secs(365 * 86_400);

/// The number of virtual machine instructions between two checks of the time limit.
const STEPS_PER_CHECK: i32 = 100_000;

struct Database {
    /// Checks and counts; it has stand-ins for missing collations and functions.
    connection: Connection,
    /// Runs the queries of rules, without stand-ins: they would give other results than in the database's own program.
    rules: Connection,
    /// The start time of the current rule; SQLite's progress handler reads it.
    begun: Arc<Mutex<Instant>>,
    shown: String,
}

/// Opens an existing database. A missing one is not created.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Live>> {
    let path = source::locate(path)?;
    source::probe(&path)?;
    let purpose = if unlocked::is_frozen(&path) { Purpose::Image } else { Purpose::Source };
    let shown = crate::platform::disk::shown(&path);
    let begun = Arc::new(Mutex::new(Instant::now()));
    let open = || -> Result<Connection> {
        let mut connection = connection::open(&path, purpose)?;
        let clock = Arc::clone(&begun);
        let is_over = move || crate::platform::interrupt::check().is_err() || elapsed(&clock) > RULE_TIME_LIMIT;
        connection
            .progress_handler(STEPS_PER_CHECK, Some(is_over))
            .map_err(|error| explain(error, &format!("cannot open {shown}")))?;
        Ok(connection)
    };
    let (connection, rules) = (open()?, open()?);
    stand_ins::remove(&rules);
    Ok(Box::new(Database { connection, rules, begun, shown }))
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
        rows::count(connection, table)
            .map_err(|error| self.explain(error, &format!("cannot count the rows of {} in", one_line(table))))
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
        let complaints = rest.chain(health.orphans.iter().map(orphan)).collect();
        Ok(Integrity { damage, complaints, unchecked: health.unchecked })
    }

    fn tables(&mut self) -> Result<BTreeMap<String, u64>> {
        let list =
            survey::list_tables(&self.connection).map_err(|error| self.explain(error, "cannot read the schema of"))?;
        let own = list.into_iter().filter(|(name, kind)| kind == "table" && !name.starts_with("sqlite_"));
        own.map(|(name, _)| self.count(&self.connection, &name).map(|rows| (name, rows))).collect()
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
