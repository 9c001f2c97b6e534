//! The facts that copying rows needs about the tables that store rows.
//!
//! These are ordinary tables, the leaves of partitioned tables, and the tables of an inheritance tree, each by itself
//! (`ONLY`). Partitioned tables store no rows, foreign tables store theirs elsewhere, the rows of materialized views
//! are computed from other tables, and temporary tables are dropped at the end of their session. Of the tables of an
//! extension, only those that it declares as configuration tables are included.

use std::collections::{BTreeSet, HashMap};

use crate::engine::postgres::schema::quote;
use crate::engine::postgres::schema::relation::letter;
use crate::engine::postgres::timescale::{self, Aggregate, Hypertable, Timescale};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// One table that stores rows.
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
    /// The `relkind` of pg_class; always `r` at present.
    pub kind: char,
    /// True if the table is unlogged.
    pub is_unlogged: bool,
    /// Set for a configuration table of an extension: the condition (`WHERE ...`) on the rows to save, `None` for all
    /// rows.
    pub extension_condition: Option<Option<String>>,
    /// True if the role may read every column and use the schema.
    pub readable: bool,
    /// True if row security is enabled on the table.
    pub has_rls: bool,
    /// True if row security would hide rows from the connected role.
    pub rls_applies: bool,
    /// The role that owns it, unquoted.
    pub owner: String,
    /// The tables that it is a partition of or inherits from, in order. Partitioned tables are included.
    pub parents: Vec<u32>,
    /// True if the table is a partition.
    pub is_partition: bool,
    /// The tables that its foreign keys reference. For a partitioned table, its partitions are included.
    pub references: Vec<u32>,
    /// The table access method, usually `heap`.
    pub access_method: String,
    /// True if a column is `GENERATED ALWAYS AS IDENTITY`.
    pub identity_always: bool,
    /// Set for a hypertable, and for the rows of a continuous aggregate.
    pub chunked: Option<Chunked>,
}

/// A hypertable, or the rows of a continuous aggregate.
#[derive(Clone, Debug)]
pub struct Chunked {
    /// The kind of table, as a manifest names it.
    pub kind: &'static str,
    /// The relation that the rows are read from, as statements write it.
    pub relation: String,
    /// The time column, unquoted, if the rows can be read in ranges of its values.
    pub time: Option<String>,
    /// Its chunks.
    pub chunks: Vec<u32>,
    /// The values at which chunks begin, as text of the time column's type, each with the bytes in the chunks that
    /// begin there.
    pub starts: Vec<(String, u64)>,
}

/// The size in bytes that is assumed for a compressed chunk when work is divided: its real size is not known.
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

    /// Returns the sum of the bytes of all chunks.
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
    /// True if the column is `NOT NULL`.
    pub not_null: bool,
    /// True if the column is generated, stored or virtual. `COPY` cannot write to it.
    pub generated: bool,
    /// True if the column is generated and its values are stored.
    pub stored: bool,
    /// `a` for `GENERATED ALWAYS AS IDENTITY`, `d` for `BY DEFAULT`.
    pub identity: Option<char>,
    /// The collation as statements write it, if it differs from the default collation of the type.
    pub collation: Option<String>,
    /// The default or the generation expression.
    pub default: Option<String>,
}

/// Returns the tables that store rows, by schema and name.
///
/// Sets `search_path` to the empty string for the transaction. The server takes an `ACCESS SHARE` lock on each table to
/// determine its size.
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
                  JOIN pg_catalog.pg_extension owning ON owning.oid = d.refobjid
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
                // The quoting does not depend on the server: each version has other keywords.
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

/// Marks the hypertables, gives the rows of an aggregate the name of the aggregate, and leaves out the internal tables
/// of TimescaleDB.
fn with_timescale(tables: Vec<TableData>, timescale: &Timescale) -> Vec<TableData> {
    let by_rows: HashMap<u32, &Aggregate> =
        timescale.aggregates.values().filter(|found| found.is_finalized).map(|found| (found.rows, found)).collect();
    let saved = tables.into_iter().filter_map(|mut table| {
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
    let mut saved: Vec<TableData> = saved.collect();
    saved.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    saved
}

/// Reads the columns of every table, by the table's oid.
fn columns(session: &mut Session) -> Result<HashMap<u32, Vec<ColumnData>>> {
    let rows = session.rows(
        "SELECT a.attrelid AS oid, a.attname AS name,
                pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
                a.attgenerated <> '' AS generated, a.attgenerated = 's' AS stored, nullif(a.attidentity, '') AS identity,
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
            stored: row.flag("stored")?,
            identity: letter(row, "identity")?,
            collation: row.owned("collation")?,
            default: row.owned("default")?,
        });
    }
    Ok(columns)
}

/// Reads the direct parents of every table that has parents, in order.
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

/// Reads the tables that each table's foreign keys reference, with their partitions.
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
        // A foreign key references only the table that it names, unless that table is partitioned.
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
