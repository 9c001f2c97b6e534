//! The columns of tables: the clauses for `CREATE TABLE`, and the settings that only `ALTER TABLE` can make.

use std::collections::HashMap;

use crate::engine::postgres::schema::object::{Address, catalogs};
use crate::engine::postgres::schema::options::{ObjectKind, is_settable};
use crate::engine::postgres::schema::relation::{foreign_options, letter, options};
use crate::engine::postgres::schema::{Reader, quote};
use crate::platform::error::Result;

/// One column. Dropped columns are not read.
#[derive(Debug)]
pub(super) struct Column {
    /// The name, unquoted.
    pub(super) name: String,
    pub(super) type_name: String,
    /// The collation, quoted, if it differs from the default collation of the type.
    pub(super) collation: Option<String>,
    /// True if the column is declared in this table itself, and not only inherited.
    pub(super) is_local: bool,
    /// The address and the expression of the default, or the generation expression.
    pub(super) default: Option<(Address, String)>,
    /// `s` for stored, `v` for virtual.
    pub(super) generated: Option<char>,
    pub(super) not_null: Option<NotNull>,
    statistics: Option<i32>,
    storage: char,
    type_storage: char,
    compression: Option<char>,
    options: Option<String>,
    foreign_options: Option<String>,
}

/// The `NOT NULL` constraint of a column.
#[derive(Debug)]
pub(super) struct NotNull {
    /// The address and the name. Before version 18, a `NOT NULL` constraint has neither.
    pub(super) named: Option<(Address, String)>,
    pub(super) is_local: bool,
    pub(super) no_inherit: bool,
}

impl NotNull {
    /// Returns the clause for a column's definition, or, with the column's quoted name, for a separate constraint.
    pub(super) fn clause(&self, column: Option<&str>) -> String {
        let name = self.named.as_ref().map(|(_, name)| format!("CONSTRAINT {} ", quote::ident(name)));
        let column = column.map(|column| format!(" {column}"));
        let suffix = if self.no_inherit { " NO INHERIT" } else { "" };
        format!("{}NOT NULL{}{suffix}", name.unwrap_or_default(), column.unwrap_or_default())
    }
}

impl Column {
    /// Returns the expression of the default. Returns `None` if the column is generated.
    pub(super) fn plain_default(&self) -> Option<&str> {
        self.default.as_ref().filter(|_| self.generated.is_none()).map(|(_, expression)| expression.as_str())
    }

    /// Returns `GENERATED ALWAYS AS (...)`. Returns `None` if the column is not generated.
    pub(super) fn generation(&self) -> Option<String> {
        let (_, expression) = self.default.as_ref()?;
        match self.generated? {
            's' => Some(format!("GENERATED ALWAYS AS ({expression}) STORED")),
            // A later version may add another letter. It is written as VIRTUAL too; the server reports an error if that
            // is wrong.
            _ => Some(format!("GENERATED ALWAYS AS ({expression}) VIRTUAL")),
        }
    }

    /// Returns the settings that only `ALTER ... ALTER COLUMN` can make: the part after the column's name. `parents`
    /// are the columns that this column is inherited from: their settings are copied when the table is created.
    pub(super) fn settings(&self, parents: &[&Column]) -> Vec<String> {
        let mut settings = Vec::new();
        if let Some(target) = self.statistics {
            settings.push(format!("SET STATISTICS {target}"));
        }
        let inherited = |is: fn(&Column) -> bool| parents.iter().any(|parent| is(parent));
        if self.storage != self.type_storage || inherited(|parent| parent.storage != parent.type_storage) {
            let word = match self.storage {
                'p' => "PLAIN",
                'e' => "EXTERNAL",
                'm' => "MAIN",
                _ => "EXTENDED",
            };
            settings.push(format!("SET STORAGE {word}"));
        }
        match self.compression {
            Some('p') => settings.push("SET COMPRESSION pglz".to_owned()),
            Some('l') => settings.push("SET COMPRESSION lz4".to_owned()),
            _ if inherited(|parent| parent.compression.is_some()) => {
                settings.push("SET COMPRESSION default".to_owned());
            }
            _ => {}
        }
        if let Some(options) = &self.options {
            settings.push(format!("SET ({options})"));
        }
        if let Some(options) = &self.foreign_options {
            settings.push(format!("OPTIONS ({options})"));
        }
        settings
    }
}

/// Reads the columns of all tables, views and materialized views, by the relation's oid.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<HashMap<u32, Vec<Column>>> {
    let named = reader.since(
        180_000,
        "(SELECT to_json(ARRAY[k.oid::text, k.conname::text, k.conislocal::text, k.connoinherit::text])
            FROM pg_catalog.pg_constraint k
           WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND k.convalidated)",
        "NULL",
    );
    let not_null = reader.since(180_000, "false", "a.attnotnull");
    let compression = reader.since(140_000, "nullif(a.attcompression, '')", "NULL");
    let rows = reader.rows(&format!(
        "SELECT a.attrelid AS table, a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
                a.attislocal AS is_local, nullif(a.attgenerated, '') AS generated, {not_null} AS not_null,
                {named} AS named_not_null, {compression} AS compression,
                nullif(a.attstattarget, -1) AS statistics, a.attstorage AS storage, t.typstorage AS type_storage,
                {} AS options, {} AS foreign_options,
                pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) AS collation,
                d.oid AS default_oid, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
           LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation AND a.attcollation <> t.typcollation
           LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
           LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
            AND c.relpersistence <> 't' AND {}
          ORDER BY a.attrelid, a.attnum",
        options("a.attoptions", "", &is_settable(ObjectKind::Column, reader.version())),
        foreign_options("a.attfdwoptions"),
        crate::engine::postgres::schema::USER_SCHEMAS,
    ))?;
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in &rows {
        let not_null = match row.list("named_not_null")?.as_slice() {
            [oid, name, is_local, no_inherit] => {
                let oid = oid.parse().unwrap_or_default();
                Some(NotNull {
                    named: Some((Address::new(catalogs::CONSTRAINT, oid), name.clone())),
                    is_local: is_local == "true",
                    no_inherit: no_inherit == "true",
                })
            }
            _ if row.flag("not_null")? => Some(NotNull { named: None, is_local: true, no_inherit: false }),
            _ => None,
        };
        let default = match row.owned("default")? {
            Some(text) => Some((Address::new(catalogs::ATTRDEF, row.number("default_oid")?), text)),
            None => None,
        };
        columns.entry(row.number("table")?).or_default().push(Column {
            name: row.text("name")?.to_owned(),
            type_name: row.text("type")?.to_owned(),
            collation: row.owned("collation")?,
            is_local: row.flag("is_local")?,
            default,
            generated: letter(row, "generated")?,
            not_null,
            statistics: row.get("statistics")?.and_then(|text| text.parse().ok()),
            storage: letter(row, "storage")?.unwrap_or('x'),
            type_storage: letter(row, "type_storage")?.unwrap_or('x'),
            compression: letter(row, "compression")?,
            options: row.owned("options")?,
            foreign_options: row.owned("foreign_options")?,
        });
    }
    Ok(columns)
}
