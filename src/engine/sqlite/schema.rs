//! The tables of a file: columns, keys, indexes and foreign keys, as SQLite reports them.

use rusqlite::{Connection, OptionalExtension, Row};

use super::connection::{explain, is_circumstance, sqlite_message};
use super::names::{Name, message_at, name_at, optional_message_at, optional_name_at};
use super::survey;
use crate::platform::error::{Result, one_line};

/// The whole schema of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct SchemaFacts {
    /// Ordinary tables, by name, without SQLite's own tables, virtual tables and shadow tables.
    pub tables: Vec<TableFacts>,
    /// Virtual tables, by name.
    pub virtual_tables: Vec<String>,
    /// The name and SQL of every view.
    pub views: Vec<(String, String)>,
    /// The name and table of every trigger.
    pub triggers: Vec<(String, String)>,
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct TableFacts {
    /// The name of the table.
    pub name: String,
    /// The statement that created it.
    pub sql: String,
    /// The columns in order, without hidden ones.
    pub columns: Vec<ColumnFacts>,
    /// The name by which statements access the rowid; `None` if the table has no rowid, or if columns use all of its
    /// names.
    pub rowid: Option<&'static str>,
    /// The largest rowid that was ever assigned; only for an AUTOINCREMENT table.
    pub sequence: Option<i64>,
    /// The indexes, including those of constraints.
    pub indexes: Vec<IndexFacts>,
    /// The foreign keys.
    pub foreign_keys: Vec<ForeignKeyFacts>,
}

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnFacts {
    /// The name of the column.
    pub name: String,
    /// The declared type; empty if there is none.
    pub declared: String,
    /// True if the column is NOT NULL.
    pub not_null: bool,
    /// The expression of the default value.
    pub default: Option<String>,
    /// The position in the primary key, from 1; 0 if the column is not part of it.
    pub key: u32,
    /// True if the column is generated from others.
    pub generated: bool,
}

/// An index.
#[derive(Clone, Debug)]
pub(crate) struct IndexFacts {
    /// The name of the index.
    pub name: String,
    /// True if the index is unique.
    pub unique: bool,
    /// `c` for CREATE INDEX, `u` for a UNIQUE constraint, `pk` for the primary key.
    pub origin: String,
    /// True if it is a partial index.
    pub partial: bool,
    /// Each column's name, and true if its order is descending; `None` as the name of an expression.
    pub columns: Vec<(Option<String>, bool)>,
    /// The collation of each column.
    pub collations: Vec<String>,
    /// The statement that created it; `None` for the index of a constraint.
    pub sql: Option<String>,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub(crate) struct ForeignKeyFacts {
    /// The referenced table.
    pub references: String,
    /// The columns in this table.
    pub columns: Vec<String>,
    /// The columns in the referenced table; empty for its primary key.
    pub referenced: Vec<String>,
    /// The action when a referenced row is deleted.
    pub on_delete: String,
    /// The action when the key of a referenced row changes.
    pub on_update: String,
    /// The number of rows that refer to rows that do not exist, or the reason why SQLite cannot check the key.
    pub orphans: std::result::Result<u64, String>,
}

impl TableFacts {
    /// Returns the columns of the primary key, in its order.
    #[must_use]
    pub(crate) fn primary_key(&self) -> Vec<&ColumnFacts> {
        let mut key: Vec<&ColumnFacts> = self.columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        key
    }

    /// Returns the column that is an alias for the rowid.
    #[must_use]
    pub(crate) fn rowid_column(&self) -> Option<&ColumnFacts> {
        match self.primary_key().as_slice() {
            // A primary key of this type has its own index only if it is not the rowid (as with an old `PRIMARY KEY
            // DESC`).
            [column]
                if column.declared.eq_ignore_ascii_case("integer")
                    && self.rowid.is_some()
                    && !self.indexes.iter().any(|index| index.origin == "pk") =>
            {
                Some(column)
            }
            _ => None,
        }
    }
}

/// Reads the schema of `main`.
pub(super) fn read(connection: &Connection) -> Result<SchemaFacts> {
    let cannot = |error| explain(error, "cannot read the schema");
    let mut facts = SchemaFacts::default();
    for (name, kind) in survey::list_tables(connection).map_err(cannot)? {
        match kind.as_str() {
            "virtual" => facts.virtual_tables.push(name),
            "table" if !name.starts_with("sqlite_") => facts.tables.push(table(connection, &name)?),
            _ => {}
        }
    }
    let pairs = |kind: &str, second: &str| -> rusqlite::Result<Vec<(String, String)>> {
        let sql = format!("SELECT name, {second} FROM main.sqlite_schema WHERE type = '{kind}' ORDER BY name");
        connection.prepare(&sql)?.query_map([], |row| Ok((name_at(row, 0)?, message_at(row, 1)?)))?.collect()
    };
    facts.views = pairs("view", "sql").map_err(cannot)?;
    facts.triggers = pairs("trigger", "tbl_name").map_err(cannot)?;
    Ok(facts)
}

fn table(connection: &Connection, name: &str) -> Result<TableFacts> {
    let read = || -> rusqlite::Result<TableFacts> {
        let columns = columns(connection, name)?;
        let (has_rowid, sql): (bool, String) = connection.query_row(
            "SELECT NOT l.wr, s.sql FROM pragma_table_list l JOIN main.sqlite_schema s ON s.name = l.name AND s.type = 'table'
              WHERE l.schema = 'main' AND l.name = ?1",
            [Name::of(name)],
            |row| Ok((row.get(0)?, message_at(row, 1)?)),
        )?;
        let is_free = |word: &&str| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(word));
        let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|word| has_rowid && is_free(word));
        let has_sequences =
            connection.query_row("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'", [], |_| Ok(()));
        let sequence = match has_sequences.optional()? {
            Some(()) => connection.query_row(
                "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1",
                [Name::of(name)],
                |row| row.get(0),
            )?,
            None => None,
        };
        let indexes = indexes(connection, name)?;
        let foreign_keys = foreign_keys(connection, name)?;
        Ok(TableFacts { name: name.to_owned(), sql, columns, rowid, sequence, indexes, foreign_keys })
    };
    read().map_err(|error| explain(error, &format!("cannot read the schema of the table {}", one_line(name))))
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<ColumnFacts>> {
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, 'main') \
               WHERE hidden <> 1 ORDER BY cid";
    let column = |row: &Row<'_>| {
        Ok(ColumnFacts {
            name: name_at(row, 0)?,
            declared: message_at(row, 1)?,
            not_null: row.get(2)?,
            default: optional_message_at(row, 3)?,
            key: row.get(4)?,
            generated: row.get::<_, i64>(5)? != 0,
        })
    };
    connection.prepare(sql)?.query_map([Name::of(table)], column)?.collect()
}

fn indexes(connection: &Connection, table: &str) -> rusqlite::Result<Vec<IndexFacts>> {
    let sql = "SELECT l.name, l.\"unique\", l.origin, l.partial, s.sql FROM pragma_index_list(?1, 'main') l \
               LEFT JOIN main.sqlite_schema s ON s.type = 'index' AND s.name = l.name ORDER BY l.seq DESC";
    let mut found: Vec<IndexFacts> = connection
        .prepare(sql)?
        .query_map([Name::of(table)], |row| {
            Ok(IndexFacts {
                name: name_at(row, 0)?,
                unique: row.get(1)?,
                origin: row.get(2)?,
                partial: row.get(3)?,
                sql: optional_message_at(row, 4)?,
                columns: Vec::new(),
                collations: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let sql =
        "SELECT name, \"desc\", coalesce(coll, 'BINARY') FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno";
    for index in &mut found {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([Name::of(&index.name)])?;
        while let Some(row) = rows.next()? {
            index.columns.push((optional_name_at(row, 0)?, row.get(1)?));
            index.collations.push(name_at(row, 2)?);
        }
    }
    Ok(found)
}

fn foreign_keys(connection: &Connection, table: &str) -> rusqlite::Result<Vec<ForeignKeyFacts>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\", on_delete, on_update FROM pragma_foreign_key_list(?1, 'main') \
               ORDER BY id DESC, seq";
    let mut found: Vec<(i64, ForeignKeyFacts)> = Vec::new();
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([Name::of(table)])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if found.last().is_none_or(|(last, _)| *last != id) {
            let key = ForeignKeyFacts {
                references: name_at(row, 1)?,
                columns: Vec::new(),
                referenced: Vec::new(),
                on_delete: row.get(4)?,
                on_update: row.get(5)?,
                orphans: Ok(0),
            };
            found.push((id, key));
        }
        let Some((_, key)) = found.last_mut() else { continue };
        key.columns.push(name_at(row, 2)?);
        key.referenced.extend(optional_name_at(row, 3)?);
    }
    if !found.is_empty() {
        let sql = "SELECT fkid, count(*) FROM pragma_foreign_key_check(?1, 'main') GROUP BY 1";
        let counted = connection.prepare(sql).and_then(|mut statement| {
            statement.query_map([Name::of(table)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?.collect()
        });
        let counted: std::result::Result<Vec<(i64, i64)>, String> = match counted {
            Ok(counted) => Ok(counted),
            Err(error) if is_circumstance(&error) => return Err(error),
            // The parent has no such key, for example.
            Err(error) => Err(one_line(&sqlite_message(&error))),
        };
        for (id, key) in &mut found {
            let of_key = |counted: &Vec<(i64, i64)>| {
                counted.iter().filter(|(other, _)| other == id).map(|(_, rows)| rows.unsigned_abs()).sum()
            };
            key.orphans = counted.as_ref().map(of_key).map_err(Clone::clone);
        }
    }
    Ok(found.into_iter().map(|(_, key)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_of_a_key_that_sqlite_cannot_check_are_unknown() {
        let connection = Connection::open_in_memory().expect("memory");
        connection
            .execute_batch(
                "PRAGMA foreign_keys = OFF;
                 CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE unusual (id INTEGER REFERENCES parent(name));
                 CREATE TABLE usual (id INTEGER REFERENCES parent(id), other INTEGER REFERENCES parent(id));
                 INSERT INTO parent VALUES (1, 'a');
                 INSERT INTO unusual VALUES (1);
                 INSERT INTO usual VALUES (1, 2), (3, 4);",
            )
            .expect("valid");
        let orphans = |table: &str| -> Vec<std::result::Result<u64, String>> {
            foreign_keys(&connection, table).expect("readable").into_iter().map(|key| key.orphans).collect()
        };
        assert!(
            matches!(&orphans("unusual")[..], [Err(reason)] if reason.contains("mismatch")),
            "{:?}",
            orphans("unusual")
        );
        assert_eq!(orphans("usual").into_iter().map(std::result::Result::unwrap).sum::<u64>(), 3);
    }
}
