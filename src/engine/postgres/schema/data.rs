//! What copying rows needs to know about the tables that have rows of their own.
//!
//! These are ordinary tables, the leaves of partitioned ones, and the tables of an inheritance tree, each for itself
//! (`ONLY`). Partitioned tables have no rows of their own, those of foreign tables and materialized views come from
//! elsewhere, and temporary tables end with their session. Of an extension's tables only those that it declared as
//! configuration count.

use std::collections::{BTreeSet, HashMap};

use crate::engine::postgres::schema::quote;
use crate::engine::postgres::timescale::{self, Aggregate, Hypertable, Timescale};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::Result;

/// One table with rows of its own.
#[derive(Clone, Debug)]
pub struct TableData {
    /// The oid in pg_class.
    pub oid: u32,
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// Schema and name as statements write them.
    pub qualified: String,
    /// The columns in the table's order, without dropped ones.
    pub columns: Vec<ColumnData>,
    /// The size of the main fork: without indexes and TOAST.
    pub bytes: u64,
    /// pg_class.relkind; `r` for all that are listed today.
    pub kind: char,
    /// Whether it is unlogged.
    pub is_unlogged: bool,
    /// Set for a configuration table of an extension: the condition (`WHERE ...`) on the rows to save, None for all.
    pub extension_condition: Option<Option<String>>,
    /// Whether the role may read every column (and use the schema).
    pub readable: bool,
    /// Whether row security is enabled on it.
    pub has_rls: bool,
    /// Whether row security would hide rows from the connected role.
    pub rls_applies: bool,
    /// The role that owns it, unquoted.
    pub owner: String,
    /// The tables it is a partition of or inherits from, in order; partitioned ones included.
    pub parents: Vec<u32>,
    /// Whether it is a partition.
    pub is_partition: bool,
    /// The tables that its foreign keys point at; where that is a partitioned table, its partitions too.
    pub references: Vec<u32>,
    /// The table access method, `heap` mostly.
    pub access_method: String,
    /// Whether a column is `GENERATED ALWAYS AS IDENTITY`.
    pub identity_always: bool,
    /// What TimescaleDB makes of it, where it does.
    pub chunked: Option<Chunked>,
}

/// A hypertable, or the rows of a continuous aggregate.
#[derive(Clone, Debug)]
pub struct Chunked {
    /// What a manifest calls it.
    pub kind: &'static str,
    /// What its rows are read from, as statements write it.
    pub relation: String,
    /// The column of time by whose values parts of it can be asked for, unquoted.
    pub time: Option<String>,
    /// Its chunks.
    pub chunks: Vec<u32>,
    /// Where chunks begin, as text of that column's type, each with how much is in the chunks that begin there.
    pub starts: Vec<(String, u64)>,
}

/// How much a compressed chunk counts for when work is shared out: what it holds is not known.
const COMPRESSED_BYTES: u64 = 32 << 20;

impl Chunked {
    fn of(kind: &'static str, table: &Hypertable) -> Self {
        let time = table.time().filter(|time| time.is_comparable()).map(|time| time.column.clone());
        let mut starts: Vec<(String, u64)> = Vec::new();
        for chunk in &table.chunks {
            let bytes = if chunk.is_compressed { COMPRESSED_BYTES } else { chunk.bytes };
            match starts.last_mut() {
                Some(last) if last.0 == chunk.start => last.1 += bytes,
                _ => starts.push((chunk.start.clone(), bytes)),
            }
        }
        let chunks = table.chunks.iter().map(|chunk| chunk.oid).collect();
        Chunked { kind, relation: table.qualified(), time, chunks, starts }
    }

    /// How much is in all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.starts.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// One column.
#[derive(Clone, Debug)]
pub struct ColumnData {
    /// The name, unquoted.
    pub name: String,
    /// The type as statements write it, qualified unless it is in `pg_catalog`.
    pub type_name: String,
    /// Whether it refuses NULL.
    pub not_null: bool,
    /// Whether it is generated from others, stored or virtual: nothing can be copied into it.
    pub generated: bool,
    /// `a` for `GENERATED ALWAYS AS IDENTITY`, `d` for `BY DEFAULT`.
    pub identity: Option<char>,
    /// The collation as statements write it, where it is not the type's own.
    pub collation: Option<String>,
    /// The default or the generating expression.
    pub default: Option<String>,
}

/// The tables that have rows of their own, by schema and name.
///
/// Empties `search_path` for the transaction. The server takes an `ACCESS SHARE` lock on each table for its size.
pub fn tables(session: &mut Session) -> Result<Vec<TableData>> {
    session.execute("SET LOCAL search_path = ''")?;
    let mut columns = columns(session)?;
    let parents = parents(session)?;
    let references = references(session, &parents)?;
    let timescale = timescale::read(session)?.unwrap_or_default();
    let rows = session.rows(
        "SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
                coalesce(pg_catalog.pg_relation_size(c.oid), 0) AS bytes,
                c.relpersistence = 'u' AS unlogged, c.relispartition AS is_partition,
                e.oid IS NOT NULL AS is_configuration, e.condition,
                pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                    AND (pg_catalog.has_table_privilege(c.oid, 'SELECT')
                        OR (SELECT coalesce(
                                       bool_and(pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')), false)
                              FROM pg_catalog.pg_attribute a
                             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                               AND a.attgenerated = '')) AS readable,
                c.relrowsecurity AS has_rls, pg_catalog.row_security_active(c.oid) AS rls_applies,
                pg_catalog.pg_get_userbyid(c.relowner) AS owner, m.amname AS access_method
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
           LEFT JOIN (SELECT u.oid, min(nullif(u.condition, '')) AS condition
                        FROM pg_catalog.pg_extension x, unnest(x.extconfig, x.extcondition) AS u(oid, condition)
                       GROUP BY u.oid) e ON e.oid = c.oid
          WHERE c.relkind = 'r' AND c.relpersistence <> 't'
            AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND (e.oid IS NOT NULL OR NOT EXISTS (
                SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
                   AND d.deptype = 'e'))
          ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"",
    )?;
    let tables = rows
        .iter()
        .map(|row| {
            let oid = row.number("oid")?;
            let columns: Vec<ColumnData> = columns.remove(&oid).unwrap_or_default();
            let condition = row.owned("condition")?;
            Ok(TableData {
                oid,
                schema: row.text("schema")?.to_owned(),
                name: row.text("name")?.to_owned(),
                // Not as the server quotes it: what is a keyword differs from version to version.
                qualified: quote::qualified(row.text("schema")?, row.text("name")?),
                bytes: row.number("bytes")?,
                kind: letter(row, "kind")?.unwrap_or('r'),
                is_unlogged: row.flag("unlogged")?,
                extension_condition: row.flag("is_configuration")?.then_some(condition),
                readable: row.flag("readable")?,
                has_rls: row.flag("has_rls")?,
                rls_applies: row.flag("rls_applies")?,
                owner: row.text("owner")?.to_owned(),
                parents: parents.get(&oid).cloned().unwrap_or_default(),
                is_partition: row.flag("is_partition")?,
                references: references.get(&oid).map(|set| set.iter().copied().collect()).unwrap_or_default(),
                access_method: row.owned("access_method")?.unwrap_or_default(),
                identity_always: columns.iter().any(|column| column.identity == Some('a')),
                columns,
                chunked: None,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(with_timescale(tables, &timescale))
}

/// Tells hypertables from other tables, gives the rows of an aggregate its name, and leaves out what TimescaleDB keeps
/// for itself.
fn with_timescale(tables: Vec<TableData>, timescale: &Timescale) -> Vec<TableData> {
    let by_rows: HashMap<u32, &Aggregate> =
        timescale.aggregates.values().filter(|found| found.is_finalized).map(|found| (found.rows, found)).collect();
    let told = tables.into_iter().filter_map(|mut table| {
        if let Some(found) = timescale.hypertables.get(&table.oid) {
            table.chunked = Some(Chunked::of(timescale::HYPERTABLE, found));
        } else if let Some(found) = by_rows.get(&table.oid) {
            table.chunked = Some(Chunked::of(timescale::AGGREGATE, &found.store));
            table.schema.clone_from(&found.schema);
            table.name.clone_from(&found.name);
            table.qualified = found.qualified();
        } else if timescale.internal.contains(&table.oid) {
            return None;
        }
        Some(table)
    });
    let mut told: Vec<TableData> = told.collect();
    told.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    told
}

/// The columns of every table, by its oid.
fn columns(session: &mut Session) -> Result<HashMap<u32, Vec<ColumnData>>> {
    let rows = session.rows(
        "SELECT a.attrelid AS oid, a.attname AS name,
                pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
                a.attgenerated <> '' AS generated, nullif(a.attidentity, '') AS identity,
                pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) AS collation,
                pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
           LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation AND a.attcollation <> t.typcollation
           LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
           LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
            AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          ORDER BY a.attrelid, a.attnum",
    )?;
    let mut columns: HashMap<u32, Vec<ColumnData>> = HashMap::new();
    for row in &rows {
        columns.entry(row.number("oid")?).or_default().push(ColumnData {
            name: row.text("name")?.to_owned(),
            type_name: row.text("type")?.to_owned(),
            not_null: row.flag("not_null")?,
            generated: row.flag("generated")?,
            identity: letter(row, "identity")?,
            collation: row.owned("collation")?,
            default: row.owned("default")?,
        });
    }
    Ok(columns)
}

/// The direct parents of every table that has some, in order.
fn parents(session: &mut Session) -> Result<HashMap<u32, Vec<u32>>> {
    let rows = session.rows(
        "SELECT i.inhrelid AS child, i.inhparent AS parent
           FROM pg_catalog.pg_inherits i
           JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f')
          ORDER BY i.inhrelid, i.inhseqno",
    )?;
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    for row in &rows {
        parents.entry(row.number("child")?).or_default().push(row.number("parent")?);
    }
    Ok(parents)
}

/// The tables that each table's foreign keys point at, with their partitions.
fn references(session: &mut Session, parents: &HashMap<u32, Vec<u32>>) -> Result<HashMap<u32, BTreeSet<u32>>> {
    let rows = session.rows(
        "SELECT DISTINCT k.conrelid AS source, k.confrelid AS target, c.relkind = 'p' AS partitioned
           FROM pg_catalog.pg_constraint k
           JOIN pg_catalog.pg_class c ON c.oid = k.confrelid
          WHERE k.contype = 'f'",
    )?;
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (child, parents) in parents {
        for parent in parents {
            children.entry(*parent).or_default().push(*child);
        }
    }
    let mut references: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for row in &rows {
        let set = references.entry(row.number("source")?).or_default();
        let target = row.number("target")?;
        // A foreign key sees only the table it names, unless that one is partitioned.
        if !row.flag("partitioned")? {
            set.insert(target);
            continue;
        }
        let mut open = vec![target];
        while let Some(table) = open.pop() {
            if set.insert(table) {
                open.extend(children.get(&table).into_iter().flatten());
            }
        }
    }
    Ok(references)
}

/// The one letter in a column, None for NULL.
fn letter(row: &Row, column: &str) -> Result<Option<char>> {
    Ok(row.get(column)?.and_then(|text| text.chars().next()))
}
