//! Creates the indexes and triggers of a table that is restored into an existing database.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use super::connection::{is_circumstance, is_damage, sqlite_message, with_old_strings};
use super::names::{Name, name_at, quote, readable_text};
use super::rows;
use crate::engine::restoring::LeftOut;
use crate::platform::error::one_line;

/// An index or a trigger in the schema of the image.
struct Object {
    /// `index` or `trigger`.
    kind: String,
    name: String,
    sql: Vec<u8>,
}

/// Creates the indexes and triggers that a table has in the attached image. Returns those that cannot be created: a
/// table that was renamed keeps the names of its indexes and triggers, and an index may need a collation or a function
/// that only the program of the database has.
pub(super) fn create_all(connection: &Connection, table: &str) -> rusqlite::Result<Vec<LeftOut>> {
    let sql = "SELECT type, name, sql FROM lifeboat_image.sqlite_schema \
               WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('index', 'trigger') AND sql IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let object = |row: &rusqlite::Row<'_>| {
        Ok(Object { kind: row.get(0)?, name: name_at(row, 1)?, sql: row.get_ref(2)?.as_bytes()?.to_vec() })
    };
    let objects: Vec<Object> = statement.query_map([Name::of(table)], object)?.collect::<rusqlite::Result<_>>()?;
    let mut left_out = Vec::new();
    for object in objects {
        left_out.extend(create(connection, table, object)?);
    }
    Ok(left_out)
}

fn create(connection: &Connection, table: &str, object: Object) -> rusqlite::Result<Option<LeftOut>> {
    let mut statements = vec![terminated(&object.sql)];
    let reason = match owner_of_name(connection, &object)? {
        Some((kind, owner)) if kind == object.kind => {
            let drop = format!("DROP {} {};", kind.to_uppercase(), readable_text(&quote(&object.name)));
            statements.insert(0, drop);
            format!("its name belongs to the {kind} of {}", one_line(&owner))
        }
        Some((kind, _)) => format!("its name belongs to a {kind}; give it another name"),
        None => match run(connection, table, &object)? {
            Ok(()) => return Ok(None),
            Err(reason) => reason,
        },
    };
    Ok(Some(LeftOut { kind: object.kind, name: object.name, table: table.to_owned(), reason, statements }))
}

/// Returns type and table of the object of `main` that has the name. Triggers have names of their own.
fn owner_of_name(connection: &Connection, object: &Object) -> rusqlite::Result<Option<(String, String)>> {
    let sql = "SELECT type, tbl_name FROM main.sqlite_schema \
               WHERE name = ?1 COLLATE NOCASE AND (type = 'trigger') = (?2 = 'trigger')";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, name_at(row, 1)?));
    connection.query_row(sql, (Name::of(&object.name), &object.kind), read).optional()
}

/// Creates an object. Returns the reason if the object itself prevents it, or if every write to its table would fail;
/// then nothing is changed.
fn run(connection: &Connection, table: &str, object: &Object) -> rusqlite::Result<Result<(), String>> {
    rows::run(connection, b"SAVEPOINT lifeboat_object")?;
    let mut done = Ok(());
    let mut missing = None;
    let configured = with_old_strings(connection, || {
        let is_trigger = object.kind == "trigger";
        let before = if is_trigger { missing_for_writes(connection, table) } else { None };
        done = rows::run(connection, &object.sql);
        missing = missing_for_writes(connection, table).filter(|now| is_trigger && before.as_ref() != Some(now));
        Ok(())
    });
    let done = match done {
        Err(error) if is_circumstance(&error) || is_damage(&error) => return Err(error),
        Err(error) => Err(one_line(&sqlite_message(&error))),
        Ok(()) => match missing {
            Some(missing) => {
                let table = one_line(table);
                Err(format!(
                    "with it, programs could not write to {table}, because there is {missing}; restore that too"
                ))
            }
            None => configured.map_err(|error| error.full_message()),
        },
    };
    if done.is_err() {
        rows::run(connection, b"ROLLBACK TO lifeboat_object")?;
    }
    rows::run(connection, b"RELEASE lifeboat_object")?;
    Ok(done)
}

/// Returns the object that the triggers of a table need and that does not exist, in SQLite's words, such as `no such table:
/// main.log`.
fn missing_for_writes(connection: &Connection, table: &str) -> Option<String> {
    let name = quote(table);
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0";
    let mut query = connection.prepare(sql).ok()?;
    let columns: Vec<Vec<u8>> = query
        .query_map([Name::of(table)], |row| name_at(row, 0))
        .ok()?
        .flatten()
        .map(|column| quote(&column))
        .collect();
    let same: Vec<Vec<u8>> = columns.iter().map(|column| [&column[..], b" = ", column].concat()).collect();
    let statements = [
        [b"INSERT INTO main.", &name[..], b" DEFAULT VALUES"].concat(),
        [b"UPDATE main.", &name[..], b" SET ", &same.join(&b", "[..])].concat(),
        [b"DELETE FROM main.", &name[..]].concat(),
    ];
    let set = |value| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, value);
    set(true).ok()?;
    // The statements are prepared, which reads the triggers, and never run.
    let failed = |sql: &Vec<u8>| rows::Rows::query(connection, sql).err().map(|error| sqlite_message(&error));
    let is_missing = |message: &String| message.contains("no such table") || message.contains("no such column");
    let found = statements.iter().filter_map(failed).find(is_missing);
    let reset = set(false);
    found.filter(|_| reset.is_ok()).map(|message| one_line(&message))
}

/// Returns a statement with a semicolon that no comment hides.
fn terminated(sql: &[u8]) -> String {
    let mut text = readable_text(sql);
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    text.push_str(if last_line.contains("--") { "\n;" } else { ";" });
    text
}
