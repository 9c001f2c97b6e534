//! Indexes that the triggers of restored tables keep: R-trees, as in a GeoPackage, and full-text indexes with rows of
//! their own. Triggers are off on the connections of this program, so that such an index is copied from the snapshot
//! together with its table, if it is certain that it depends on that table alone.

use rusqlite::{Connection, OptionalExtension};

use super::connection::{is_circumstance, sqlite_message};
use super::derived::{self, StoredRows};
use super::names::{Name, name_at, quote, readable_text};
use super::rows;
use super::tokens::tokens;
use crate::platform::error::one_line;

/// An index that triggers of one restored table keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TriggerIndex {
    /// The name of the virtual table.
    pub name: String,
    /// The restored table.
    table: String,
    /// The column with the rowids of the table.
    id: Vec<u8>,
    /// All columns, with the id.
    columns: Vec<u8>,
    /// The reason why it cannot be copied for certain.
    doubt: Option<String>,
}

/// Lists the indexes that triggers of these tables keep in the attached image. Call it before the tables are restored.
pub(super) fn list(connection: &Connection, tables: &[&str]) -> rusqlite::Result<Vec<TriggerIndex>> {
    let mut found: Vec<TriggerIndex> = Vec::new();
    let in_image = triggers(connection, "lifeboat_image")?;
    let in_target = triggers(connection, "main")?;
    let is_restored = |table: &str| tables.iter().any(|restored| restored.eq_ignore_ascii_case(table));
    for trigger in in_image.iter().filter(|trigger| is_restored(&trigger.table)) {
        for name in &trigger.writes {
            if found.iter().any(|index| index.name.eq_ignore_ascii_case(name)) || is_restored(name) {
                continue;
            }
            let Some(mut index) = read(connection, name, &trigger.table)? else { continue };
            let others = in_image.iter().chain(&in_target).filter(|other| {
                !other.table.eq_ignore_ascii_case(&trigger.table)
                    && other.writes.iter().any(|written| written.eq_ignore_ascii_case(name))
            });
            index.doubt = match others.map(|other| one_line(&other.name)).next() {
                Some(other) => Some(format!("the trigger {other} of another table writes to it too")),
                None => index.doubt(connection)?,
            };
            found.push(index);
        }
    }
    Ok(found)
}

struct Trigger {
    name: String,
    table: String,
    writes: Vec<String>,
}

fn triggers(connection: &Connection, schema: &str) -> rusqlite::Result<Vec<Trigger>> {
    let sql =
        format!("SELECT name, tbl_name, sql FROM {schema}.sqlite_schema WHERE type = 'trigger' AND sql IS NOT NULL");
    let mut statement = connection.prepare(&sql)?;
    let trigger = |row: &rusqlite::Row<'_>| {
        let writes = derived::written_by(&tokens(row.get_ref(2)?.as_bytes().unwrap_or_default()));
        Ok(Trigger { name: name_at(row, 0)?, table: name_at(row, 1)?, writes })
    };
    statement.query_map([], trigger)?.collect()
}

/// Reads the index of this name. Returns `None` if it is no virtual table of a known module, or differs between the image
/// and the target.
fn read(connection: &Connection, name: &str, table: &str) -> rusqlite::Result<Option<TriggerIndex>> {
    let statement = |schema: &str| {
        let sql = format!("SELECT sql FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE");
        let read = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec());
        connection.query_row(&sql, [Name::of(name)], read).optional()
    };
    let (Some(saved), Some(current)) = (statement("lifeboat_image")?, statement("main")?) else { return Ok(None) };
    let is_rtree = derived::is_rtree(&saved);
    // The language of a row (FTS4) is in a hidden column.
    let has_languages = tokens(&saved).iter().any(|token| token.is("languageid"));
    if saved != current || has_languages || !(is_rtree || derived::stored_rows(&saved) == StoredRows::InFullTextIndex) {
        return Ok(None);
    }
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid";
    let mut query = connection.prepare(sql)?;
    let mut columns: Vec<Vec<u8>> = query
        .query_map([Name::of(name)], |row| name_at(row, 0))?
        .map(|name| Ok(quote(&name?)))
        .collect::<rusqlite::Result<_>>()?;
    if !is_rtree {
        columns.insert(0, b"rowid".to_vec());
    }
    let Some(id) = columns.first().cloned() else { return Ok(None) };
    let (name, table) = (name.to_owned(), table.to_owned());
    Ok(Some(TriggerIndex { name, table, id, columns: columns.join(&b", "[..]), doubt: None }))
}

impl TriggerIndex {
    /// Returns the reason why the rows of the index may depend on more than the table; `None` if each of them stands for
    /// a row of the table, in the image and in the target.
    fn doubt(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let checked = || -> rusqlite::Result<Option<String>> {
            if self.is_empty(connection)? {
                return Ok(Some("it has no rows in the snapshot".to_owned()));
            }
            if self.has_other_ids(connection, b"lifeboat_image.")? {
                return Ok(Some("in the snapshot, it has rows that stand for no row of the table".to_owned()));
            }
            let sql = "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
            let exists = connection.query_row(sql, [Name::of(&self.table)], |_| Ok(())).optional()?.is_some();
            if exists && self.has_other_ids(connection, b"main.")? {
                return Ok(Some("it has rows that stand for no row of the table".to_owned()));
            }
            Ok(None)
        };
        match checked() {
            Err(error) if is_circumstance(&error) => Err(error),
            Err(error) => Ok(Some(one_line(&sqlite_message(&error)))),
            checked => checked,
        }
    }

    fn is_empty(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let sql = [b"SELECT NOT EXISTS (SELECT 1 FROM lifeboat_image.", &quote(&self.name)[..], b")"].concat();
        rows::number(connection, &sql).map(|empty| empty == 1)
    }

    /// Returns true if the index has a row whose id is no rowid of the table.
    fn has_other_ids(&self, connection: &Connection, schema: &[u8]) -> rusqlite::Result<bool> {
        let parts: [&[u8]; 9] = [
            b"SELECT EXISTS (SELECT 1 FROM ",
            schema,
            &quote(&self.name),
            b" WHERE ",
            &self.id,
            b" NOT IN (SELECT rowid FROM ",
            schema,
            &quote(&self.table),
            b"))",
        ];
        rows::number(connection, &parts.concat()).map(|found| found == 1)
    }

    /// Gives the index exactly the rows that it has in the attached image. Returns the reason if that is not certain to be
    /// right, or not possible here; then the index is as before.
    pub(super) fn copy(&self, connection: &Connection) -> rusqlite::Result<Result<(), String>> {
        if let Some(doubt) = &self.doubt {
            return Ok(Err(doubt.clone()));
        }
        rows::run(connection, b"SAVEPOINT lifeboat_copy")?;
        let copied = rows::run(connection, &self.delete())
            .and_then(|()| rows::run(connection, &self.insert("lifeboat_image")))
            .and_then(|()| self.is_copied(connection));
        let done = match copied {
            Ok(true) => Ok(()),
            Ok(false) => Err("it differs from the snapshot after that".to_owned()),
            Err(error) if is_circumstance(&error) => return Err(error),
            Err(error) => Err(one_line(&sqlite_message(&error))),
        };
        if done.is_err() {
            rows::run(connection, b"ROLLBACK TO lifeboat_copy")?;
        }
        rows::run(connection, b"RELEASE lifeboat_copy")?;
        Ok(done)
    }

    fn delete(&self) -> Vec<u8> {
        [b"DELETE FROM main.", &quote(&self.name)[..]].concat()
    }

    fn insert(&self, from: &str) -> Vec<u8> {
        let name = quote(&self.name);
        let parts: [&[u8]; 9] = [
            b"INSERT INTO main.",
            &name,
            b" (",
            &self.columns,
            b") SELECT ",
            &self.columns,
            b" FROM ",
            from.as_bytes(),
            &[b".", &name[..]].concat(),
        ];
        parts.concat()
    }

    fn is_copied(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let rows_of = |schema: &[u8]| [b"SELECT ", &self.columns[..], b" FROM ", schema, &quote(&self.name)].concat();
        let (saved, own) = (rows_of(b"lifeboat_image."), rows_of(b"main."));
        let differ = |left: &[u8], right: &[u8]| {
            let sql = [b"SELECT EXISTS (", left, b" EXCEPT ", right, b")"].concat();
            rows::number(connection, &sql).map(|found| found == 1)
        };
        Ok(!differ(&saved, &own)? && !differ(&own, &saved)?)
    }

    /// Returns the statements that copy the index from a restored snapshot that is attached as `snapshot`.
    pub(super) fn copy_statements(&self) -> String {
        let (delete, insert) = (readable_text(&self.delete()), readable_text(&self.insert("snapshot")));
        format!("ATTACH 'NEW.db' AS snapshot; {delete}; {insert};")
    }
}
