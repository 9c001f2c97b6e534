//! Indexes that belong to no constraint, and the attachments of indexes to the indexes of partitioned tables.

use std::collections::HashMap;

use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::relation::{TABLE_NAMES, USER_RELATIONS};
use crate::engine::postgres::schema::{Reader, options, quote};
use crate::platform::error::Result;

/// The settings of an index, or of a constraint's index, that are made after its creation.
pub(super) struct Settings {
    is_clustered: bool,
    is_replica_identity: bool,
    /// Numbers of columns with their statistics targets.
    statistics: Vec<String>,
}

impl Settings {
    /// Returns the statements that apply the settings to the index `index` of a table. `only` precedes the table's
    /// name.
    pub(super) fn statements(&self, only: &str, table: &str, index: &str, qualified: &str) -> Vec<String> {
        let mut statements = Vec::new();
        let index = quote::ident(index);
        if self.is_clustered {
            statements.push(format!("ALTER TABLE {table} CLUSTER ON {index}"));
        }
        for column in &self.statistics {
            statements.push(format!("ALTER INDEX {qualified} ALTER COLUMN {column}"));
        }
        if self.is_replica_identity {
            statements.push(format!("ALTER TABLE {only}{table} REPLICA IDENTITY USING INDEX {index}"));
        }
        statements
    }
}

/// Reads the settings of all indexes that have any.
pub(super) fn settings(reader: &mut Reader<'_>) -> Result<HashMap<u32, Settings>> {
    let rows = reader.rows(
        "SELECT i.indexrelid AS oid, i.indisclustered AS clustered, i.indisreplident AS replica_identity,
                (SELECT to_json(array_agg(a.attnum || ' SET STATISTICS ' || a.attstattarget ORDER BY a.attnum))
                   FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0) AS statistics
           FROM pg_catalog.pg_index i
          WHERE i.indexrelid >= 16384",
    )?;
    let mut settings = HashMap::new();
    for row in &rows {
        settings.insert(
            row.number("oid")?,
            Settings {
                is_clustered: row.flag("clustered")?,
                is_replica_identity: row.flag("replica_identity")?,
                statistics: row.list("statistics")?,
            },
        );
    }
    Ok(settings)
}

/// Reads the indexes and the attachments.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let settings = settings(reader)?;
    let rows = reader.rows(&format!(
        "SELECT x.oid, x.relname AS name, pg_catalog.pg_get_indexdef(x.oid) AS definition, i.indisvalid AS valid,
                i.indisready AS ready, i.indisexclusion AS excludes, k.oid AS constraint, {TABLE_NAMES},
                pg_catalog.pg_get_userbyid(c.relowner) AS owner, p.spcname AS tablespace, {} AS unsettable,
                pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(x.relname) AS qualified,
                parent.oid AS parent, pk.oid AS parent_constraint,
                pg_catalog.quote_ident(pn.nspname) || '.' || pg_catalog.quote_ident(parent.relname) AS parent_qualified
           FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
           JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_constraint k
                ON k.conrelid = c.oid AND k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')
           LEFT JOIN pg_catalog.pg_am m ON m.oid = x.relam
           LEFT JOIN pg_catalog.pg_tablespace p ON p.oid = x.reltablespace
           LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = x.oid
           LEFT JOIN pg_catalog.pg_class parent ON parent.oid = h.inhparent
           LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = parent.relnamespace
           LEFT JOIN pg_catalog.pg_constraint pk ON pk.conindid = parent.oid AND pk.contype IN ('p', 'u', 'x')
          WHERE c.relkind IN ('r', 'p', 'm') AND {USER_RELATIONS}
          ORDER BY x.oid",
        options::unsettable_of_index("x.reloptions", reader.version()),
    ))?;
    for row in &rows {
        let (name, qualified) = (row.text("name")?, row.text("qualified")?);
        let oid: u32 = row.number("oid")?;
        let address = Address::new(catalogs::CLASS, oid);
        let table = Address::new(catalogs::CLASS, row.number("table_oid")?);
        if row.get("constraint")?.is_none() {
            let usable = row.flag("ready")? && (row.flag("valid")? || row.text("table_kind")? == "p");
            if !usable {
                // The index gets a separate address: otherwise its dependencies in pg_depend would be added to the
                // table. As a member, it is not reported as missing.
                reader.aliases.insert(address, address);
                reader.members.insert(address);
                reader.notes.push(format!(
                    "index {qualified} is left out: it is invalid, because CREATE INDEX CONCURRENTLY failed or is \
                     still running"
                ));
                continue;
            }
            let mut object = Object::new(address, Kind::Index, Some(row.text("schema")?), name).at(Section::Post);
            object.identity = format!("INDEX {qualified}");
            object.create = vec![options::only_settable(row.text("definition")?, &row.list("unsettable")?)];
            if let Some(settings) = settings.get(&oid) {
                let (only, on) = (reader.only(table.oid), row.text("table_qualified")?);
                object.create.extend(settings.statements(only, on, name, qualified));
            }
            object.owner = row.owned("owner")?;
            object.table = Some(table);
            object.needs = vec![table];
            object.tablespace = row.owned("tablespace")?;
            if row.get("parent")?.is_some() {
                // pg_depend records a dependency on the parent's index. Only the attachment needs that index.
                object.needs_not.push(index_at(row, "parent_constraint", "parent")?);
            }
            reader.add(object);
        }
        if row.get("parent")?.is_some() && !row.flag("excludes")? {
            let mut object =
                Object::new(Address::new(catalogs::INHERITS, oid), Kind::IndexAttach, Some(row.text("schema")?), name)
                    .at(Section::Post);
            object.create = vec![format!("ALTER INDEX {} ATTACH PARTITION {qualified}", row.text("parent_qualified")?)];
            object.owner = row.owned("owner")?;
            object.table = Some(table);
            object.needs = vec![index_at(row, "constraint", "oid")?, index_at(row, "parent_constraint", "parent")?];
            reader.add(object);
        }
    }
    Ok(())
}

/// Returns the address of the object that creates an index: the constraint if there is one, or else the index itself.
fn index_at(row: &crate::engine::postgres::wire::session::Row, constraint: &str, index: &str) -> Result<Address> {
    match row.get(constraint)? {
        Some(_) => Ok(Address::new(catalogs::CONSTRAINT, row.number(constraint)?)),
        None => Ok(Address::new(catalogs::CLASS, row.number(index)?)),
    }
}
