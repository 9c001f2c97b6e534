//! Tables of every kind: ordinary, partitioned, partitions, inheriting, typed, unlogged, foreign.
//!
//! A partition is created as a separate table and attached afterwards, because its columns may be in another order.
//! This file does not read the sequences of identity columns, nor objects that are created after the rows are loaded.

use std::collections::{BTreeSet, HashMap};

use crate::engine::postgres::schema::columns::{self, Column};
use crate::engine::postgres::schema::object::{Address, Kind, Object, Stub, catalogs};
use crate::engine::postgres::schema::options::{ObjectKind, is_settable_by_method};
use crate::engine::postgres::schema::relation::{self, CALLS_A_FUNCTION, NAMES, USER_RELATIONS, letter, options};
use crate::engine::postgres::schema::{Reader, USER_SCHEMAS, grants, quote};
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// One table as it is in the catalogs.
struct Table {
    oid: u32,
    qualified: String,
    kind: char,
    is_unlogged: bool,
    is_partition: bool,
    columns: Vec<Column>,
    checks: Vec<Check>,
    /// The tables that it inherits from, or is a partition of, in order.
    parents: Vec<u32>,
}

/// A validated check constraint.
struct Check {
    address: Address,
    name: String,
    definition: String,
    is_local: bool,
    no_inherit: bool,
}

/// The parts of the statements that create a table.
#[derive(Default)]
struct Parts {
    /// The columns and constraints between the parentheses.
    inside: Vec<String>,
    /// The statements that follow `CREATE TABLE`.
    after: Vec<String>,
}

/// Reads all tables.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let is_settable = is_settable_by_method(ObjectKind::Table, reader.version());
    let rows = reader.rows(&format!(
        "SELECT {NAMES}, c.relkind AS kind, c.relpersistence = 'u' AS unlogged, c.relispartition AS is_partition,
                CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END AS of_type,
                CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key,
                pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound,
                pg_catalog.quote_ident(s.srvname) AS server, {} AS foreign_options, {} AS options, {} AS toast_options,
                CASE WHEN m.amname <> 'heap' THEN pg_catalog.quote_ident(m.amname) END AS access_method,
                c.relreplident AS replica_identity, c.relrowsecurity AS row_security,
                c.relforcerowsecurity AS force_row_security, p.spcname AS tablespace, {},
                (SELECT to_json(array_agg(i.inhparent::text ORDER BY i.inhseqno))
                   FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) AS parents
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_class toast ON toast.oid = c.reltoastrelid
           LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
           LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid
           LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver
           LEFT JOIN pg_catalog.pg_tablespace p ON p.oid = c.reltablespace
          -- And tables of extensions, from which others may inherit.
          WHERE c.relkind IN ('r', 'p', 'f') AND ({USER_RELATIONS} OR c.relhassubclass AND {USER_SCHEMAS})
          ORDER BY c.oid",
        relation::foreign_options("f.ftoptions"),
        options("c.reloptions", "", &is_settable),
        options("toast.reloptions", "toast.", &is_settable),
        grants::columns('r', "c.relacl", "c.relowner"),
    ))?;
    let mut columns = columns::read(reader)?;
    let mut checks = checks(reader)?;
    let mut needs = table_needs(reader)?;
    let column_grants = column_grants(reader)?;
    let mut tables: HashMap<u32, Table> = HashMap::new();
    for row in &rows {
        let oid = row.number("oid")?;
        tables.insert(
            oid,
            Table {
                oid,
                qualified: row.text("qualified")?.to_owned(),
                kind: letter(row, "kind")?.unwrap_or('r'),
                is_unlogged: row.flag("unlogged")?,
                is_partition: row.flag("is_partition")?,
                columns: columns.remove(&oid).unwrap_or_default(),
                checks: checks.remove(&oid).unwrap_or_default(),
                parents: row.list("parents")?.iter().filter_map(|oid| oid.parse().ok()).collect(),
            },
        );
    }
    for row in &rows {
        let Some(table) = tables.get(&row.number("oid")?) else { continue };
        if reader.is_member(Address::new(catalogs::CLASS, table.oid)) {
            continue;
        }
        let parents: Vec<&Table> = table.parents.iter().filter_map(|oid| tables.get(oid)).collect();
        let object = object(reader, row, table, &parents, &column_grants, needs.remove(&table.oid))?;
        reader.add(object);
        if table.is_partition {
            attach(reader, row, table, &parents)?;
        }
        if row.flag("row_security")? {
            row_security(reader, row, table)?;
        }
    }
    Ok(())
}

/// Returns the object for the table itself.
fn object(
    reader: &mut Reader<'_>,
    row: &Row,
    table: &Table,
    parents: &[&Table],
    column_grants: &HashMap<u32, Vec<Row>>,
    needs: Option<Vec<Address>>,
) -> Result<Object> {
    let kind = if table.kind == 'f' { Kind::ForeignTable } else { Kind::Table };
    let mut object =
        Object::new(Address::new(catalogs::CLASS, table.oid), kind, Some(row.text("schema")?), row.text("name")?);
    let word = relation::word(table.kind);
    object.identity = format!("{word} {}", table.qualified);
    object.own(row.text("owner")?);
    grants::add(&mut reader.gone_roles, &mut object, row, "TABLE", &table.qualified)?;
    for row in column_grants.get(&table.oid).into_iter().flatten() {
        let owner = object.owner.clone().unwrap_or_default();
        let column = quote::ident(row.text("name")?);
        let target = grants::Target { word: "TABLE", name: &table.qualified, column: Some(&column), owner: &owner };
        let (acl, base) = (row.list("acl")?, row.list("acl_base")?);
        let statements = grants::statements(&mut reader.gone_roles, &mut object, &target, &acl, &base)?;
        object.grants.extend(statements);
    }
    for address in inlined(table) {
        reader.aliases.insert(address, object.address);
    }
    object.tablespace = row.owned("tablespace")?;
    let shape = Shape { row, table, parents, of_type: row.get("of_type")?, only: reader.only(table.oid) };
    object.create = shape.create(Form::Full)?;
    if !shape.in_order() && !shape.inherits_later() {
        reader.notes.push(format!(
            "table {}: its columns are restored in another order: those that it inherits from its parents come first",
            table.qualified
        ));
    }
    if table.columns.iter().any(|column| column.plain_default().is_some()) || !table.checks.is_empty() {
        let complete = shape.complete()?;
        object.stub = Some(Stub { create: shape.create(Form::First)?, needs: needs.unwrap_or_default(), complete });
    }
    Ok(object)
}

/// Returns the addresses of the defaults and constraints that are created with the table.
fn inlined(table: &Table) -> Vec<Address> {
    let defaults = table.columns.iter().filter_map(|column| column.default.as_ref().map(|(address, _)| *address));
    let not_nulls = table.columns.iter().filter_map(|column| Some(column.not_null.as_ref()?.named.as_ref()?.0));
    defaults.chain(not_nulls).chain(table.checks.iter().map(|check| check.address)).collect()
}

/// The form in which a table is created: in full, or at first without the parts that may depend on other objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Full,
    First,
}

/// The data that the statements for one table are made from.
struct Shape<'a> {
    row: &'a Row,
    table: &'a Table,
    parents: &'a [&'a Table],
    of_type: Option<&'a str>,
    /// The word before its name in a statement that alters this table alone.
    only: &'static str,
}

impl Shape<'_> {
    /// Returns the statements that create the table.
    fn create(&self, form: Form) -> Result<Vec<String>> {
        let table = self.table;
        let later = self.inherits_later();
        let mut parts = Parts::default();
        for column in &table.columns {
            self.column(column, form, later, &mut parts);
        }
        for check in self.local_checks().filter(|_| form == Form::Full) {
            parts.inside.push(format!("CONSTRAINT {} {}", quote::ident(&check.name), check.definition));
        }
        // Partitioned tables store no rows. Version 18 refuses UNLOGGED for them; it never had an effect.
        let unlogged = if table.is_unlogged && table.kind != 'p' { "UNLOGGED " } else { "" };
        let mut sql = format!("CREATE {unlogged}{} {}", relation::word(table.kind), table.qualified);
        if let Some(of_type) = self.of_type {
            sql.push_str(&format!(" OF {of_type}"));
        }
        if !parts.inside.is_empty() {
            sql.push_str(&format!(" (\n    {}\n)", parts.inside.join(",\n    ")));
        } else if self.of_type.is_none() {
            sql.push_str(" (\n)");
        }
        let inherits = !table.is_partition && !self.parents.is_empty();
        if inherits && !later {
            let parents: Vec<&str> = self.parents.iter().map(|parent| parent.qualified.as_str()).collect();
            sql.push_str(&format!("\nINHERITS ({})", parents.join(", ")));
        }
        if let Some(key) = self.row.get("partition_key")? {
            sql.push_str(&format!("\nPARTITION BY {key}"));
        }
        if let Some(server) = self.row.get("server")? {
            sql.push_str(&format!("\nSERVER {server}"));
        }
        if let Some(method) = self.row.get("access_method")? {
            sql.push_str(&format!("\nUSING {method}"));
        }
        let options: Vec<&str> =
            [self.row.get("options")?, self.row.get("toast_options")?].into_iter().flatten().collect();
        if !options.is_empty() {
            sql.push_str(&format!("\nWITH ({})", options.join(", ")));
        }
        if let Some(options) = self.row.get("foreign_options")? {
            sql.push_str(&format!("\nOPTIONS ({options})"));
        }
        let mut statements = vec![sql];
        if inherits && later {
            for parent in self.parents {
                statements.push(format!("{} INHERIT {}", self.alter(), parent.qualified));
            }
        }
        statements.extend(parts.after);
        match letter(self.row, "replica_identity")?.filter(|_| table.kind != 'f') {
            Some('n') => statements.push(format!("{} REPLICA IDENTITY NOTHING", self.alter())),
            Some('f') => statements.push(format!("{} REPLICA IDENTITY FULL", self.alter())),
            _ => {}
        }
        if self.row.flag("force_row_security")? {
            statements.push(format!("{} FORCE ROW LEVEL SECURITY", self.alter()));
        }
        Ok(statements)
    }

    /// Returns the statements that complete the first form.
    fn complete(&self) -> Result<Vec<String>> {
        let mut statements = Vec::new();
        for column in &self.table.columns {
            if let Some(default) = column.plain_default() {
                statements.push(self.alter_column(column, &format!("SET DEFAULT {default}")));
            } else if column.generated.is_none() && self.inherits_default(column) {
                statements.push(self.alter_column(column, "DROP DEFAULT"));
            }
        }
        for check in self.local_checks() {
            // Without ONLY: tables that inherit already need the constraint too.
            let (word, table) = (relation::word(self.table.kind), &self.table.qualified);
            let name = quote::ident(&check.name);
            statements.push(format!("ALTER {word} {table} ADD CONSTRAINT {name} {}", check.definition));
        }
        Ok(statements)
    }

    /// Adds one column: its clause in `CREATE TABLE`, and the statements after it.
    fn column(&self, column: &Column, form: Form, later: bool, parts: &mut Parts) {
        let table = self.table;
        let name = quote::ident(&column.name);
        let parents = self.inherited_from(column);
        let inside = column.is_local || table.is_partition || later;
        let mut clauses = Vec::new();
        if let Some(generation) = column.generation() {
            // Versions before 16 refuse an expression for a child's column, and an inherited one need not be written.
            let inherited = parents.iter().any(|parent| parent.generated.is_some());
            let same = parents.iter().all(|parent| parent.generation().as_ref() == Some(&generation));
            if table.is_partition || !inherited || !same || later {
                clauses.push(generation);
            }
        } else if form == Form::Full {
            let inherits = self.inherits_default(column);
            match (column.plain_default(), inside) {
                (Some(default), true) => clauses.push(format!("DEFAULT {default}")),
                (Some(default), false) => {
                    parts.after.push(self.alter_column(column, &format!("SET DEFAULT {default}")));
                }
                (None, true) if inherits && !later => clauses.push("DEFAULT NULL".to_owned()),
                (None, false) if inherits => parts.after.push(self.alter_column(column, "DROP DEFAULT")),
                (None, _) => {}
            }
        }
        if let Some(not_null) = &column.not_null {
            let named = not_null.named.is_some();
            let inherited = parents.iter().any(|parent| parent.not_null.is_some());
            let own = if named { not_null.is_local } else { !inherited };
            match (own || table.is_partition || later, inside) {
                (true, true) => clauses.push(not_null.clause(None)),
                (true, false) if named => parts.inside.push(not_null.clause(Some(&name))),
                (true, false) => parts.after.push(self.alter_column(column, "SET NOT NULL")),
                (false, _) => {}
            }
        }
        if inside {
            let mut definition = name;
            if self.of_type.is_none() {
                definition.push_str(&format!(" {}", column.type_name));
                if let Some(collation) = &column.collation {
                    definition.push_str(&format!(" COLLATE {collation}"));
                }
            }
            for clause in &clauses {
                definition.push_str(&format!(" {clause}"));
            }
            // The type defines the rest.
            if self.of_type.is_none() || !clauses.is_empty() {
                parts.inside.push(definition);
            }
        }
        let copied: &[&Column] = if table.is_partition || later { &[] } else { &parents };
        for setting in column.settings(copied) {
            parts.after.push(self.alter_column(column, &setting));
        }
    }

    /// Returns the columns of the same name in the parents.
    fn inherited_from(&self, column: &Column) -> Vec<&Column> {
        let all = self.parents.iter().flat_map(|parent| &parent.columns);
        all.filter(|parent| parent.name == column.name).collect()
    }

    /// Returns true if a parent's default is copied when the table is created.
    fn inherits_default(&self, column: &Column) -> bool {
        let with_default = |parent: &&Column| parent.plain_default().is_some();
        !self.table.is_partition && self.inherited_from(column).iter().any(with_default)
    }

    /// Returns the checks that are written for this table. A partition has all its checks written, because they must
    /// match the parent's when it is attached.
    fn local_checks(&self) -> impl Iterator<Item = &Check> {
        self.table.checks.iter().filter(|check| check.is_local || self.table.is_partition)
    }

    /// Returns true if the parents are set by `ALTER TABLE ... INHERIT`. This is so if everything is declared in this
    /// table too and `INHERITS` would put the columns into another order.
    fn inherits_later(&self) -> bool {
        let table = self.table;
        if table.is_partition || self.parents.is_empty() || self.of_type.is_some() {
            return false;
        }
        let own_columns = table
            .columns
            .iter()
            .all(|column| column.is_local && column.not_null.as_ref().is_none_or(|not_null| not_null.is_local));
        let own_checks = self
            .parents
            .iter()
            .flat_map(|parent| &parent.checks)
            .filter(|check| !check.no_inherit)
            .all(|inherited| table.checks.iter().any(|check| check.name == inherited.name && check.is_local));
        !self.in_order() && own_columns && own_checks
    }

    /// Returns true if `INHERITS` results in the order that the columns have.
    fn in_order(&self) -> bool {
        let table = self.table;
        if table.is_partition {
            return true;
        }
        let mut names: Vec<&str> = Vec::new();
        let inherited = self.parents.iter().flat_map(|parent| &parent.columns);
        for column in inherited.chain(&table.columns) {
            if !names.contains(&column.name.as_str()) {
                names.push(&column.name);
            }
        }
        names.iter().eq(table.columns.iter().map(|column| &column.name))
    }

    fn alter(&self) -> String {
        format!("ALTER {} {}{}", relation::word(self.table.kind), self.only, self.table.qualified)
    }

    fn alter_column(&self, column: &Column, change: &str) -> String {
        format!("{} ALTER COLUMN {} {change}", self.alter(), quote::ident(&column.name))
    }
}

/// Attaches a partition to its parent.
fn attach(reader: &mut Reader<'_>, row: &Row, table: &Table, parents: &[&Table]) -> Result<()> {
    let name = row.text("name")?;
    let (Some(parent), Some(bound)) = (parents.first(), row.get("bound")?) else {
        reader.refused.push(format!("table {}: it is a partition of a table that is not saved", table.qualified));
        return Ok(());
    };
    let mut object = Object::new(
        Address::new(catalogs::INHERITS, table.oid),
        Kind::AttachPartition,
        Some(row.text("schema")?),
        name,
    );
    object.create = vec![format!("ALTER TABLE ONLY {} ATTACH PARTITION {} {bound}", parent.qualified, table.qualified)];
    object.owner = row.owned("owner")?;
    object.needs = vec![Address::new(catalogs::CLASS, parent.oid), Address::new(catalogs::CLASS, table.oid)];
    object.table = Some(Address::new(catalogs::CLASS, table.oid));
    // pg_depend records that the partition depends on its parent. Only the attachment depends on it.
    if let Some(table) = reader.objects.iter_mut().rev().find(|known| known.address == object.needs[1]) {
        table.needs_not.push(object.needs[0]);
    }
    reader.add(object);
    Ok(())
}

/// Enables row security.
fn row_security(reader: &mut Reader<'_>, row: &Row, table: &Table) -> Result<()> {
    let address = relation::row_security_at(table.oid);
    let mut object = Object::new(address, Kind::RowSecurity, Some(row.text("schema")?), row.text("name")?)
        .at(crate::engine::postgres::schema::Section::Post);
    object.create = vec![format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY", table.qualified)];
    object.owner = row.owned("owner")?;
    object.needs = vec![Address::new(catalogs::CLASS, table.oid)];
    object.table = Some(object.needs[0]);
    reader.add(object);
    Ok(())
}

/// Reads the check constraints of every table that can be created before the rows are loaded: those that are validated
/// and that depend on nothing but the row.
fn checks(reader: &mut Reader<'_>) -> Result<HashMap<u32, Vec<Check>>> {
    let rows = reader.rows(&format!(
        "SELECT k.oid, k.conrelid AS table, k.conname AS name, pg_catalog.pg_get_constraintdef(k.oid) AS definition,
                k.conislocal AS is_local, k.connoinherit AS no_inherit
           FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
          WHERE k.contype = 'c' AND k.convalidated AND k.oid >= 16384 AND NOT {CALLS_A_FUNCTION}
          ORDER BY k.conrelid, k.conname COLLATE \"C\""
    ))?;
    let mut checks: HashMap<u32, Vec<Check>> = HashMap::new();
    for row in &rows {
        checks.entry(row.number("table")?).or_default().push(Check {
            address: Address::new(catalogs::CONSTRAINT, row.number("oid")?),
            name: row.text("name")?.to_owned(),
            definition: row.text("definition")?.to_owned(),
            is_local: row.flag("is_local")?,
            no_inherit: row.flag("no_inherit")?,
        });
    }
    Ok(checks)
}

/// Reads the dependencies of the first form of each table: those that pg_depend records for the table and its columns,
/// but not for their defaults and constraints.
fn table_needs(reader: &mut Reader<'_>) -> Result<HashMap<u32, Vec<Address>>> {
    let rows = reader.rows(
        "SELECT DISTINCT d.objid AS table, d.refclassid, coalesce(e.typrelid, d.refobjid) AS refobjid,
                e.typrelid IS NOT NULL AS is_row
           FROM pg_catalog.pg_depend d
           JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'f')
           LEFT JOIN (SELECT t.oid, coalesce(nullif(t.typrelid, 0), item.typrelid) AS typrelid
                        FROM pg_catalog.pg_type t
                        LEFT JOIN pg_catalog.pg_type item ON item.typarray = t.oid
                        JOIN pg_catalog.pg_class r ON r.oid = coalesce(nullif(t.typrelid, 0), item.typrelid)
                         AND r.relkind <> 'c') e
                  ON d.refclassid = 1247 AND e.oid = d.refobjid
          WHERE d.classid = 1259 AND d.refobjid >= 16384
            AND (d.deptype = 'n' OR d.deptype = 'a' AND NOT c.relispartition)",
    )?;
    let items = reader.rows("SELECT typarray AS array, oid AS item FROM pg_catalog.pg_type WHERE typarray >= 16384")?;
    let items: HashMap<u32, u32> =
        items.iter().map(|row| Ok((row.number("array")?, row.number("item")?))).collect::<Result<_>>()?;
    let mut needs: HashMap<u32, BTreeSet<Address>> = HashMap::new();
    for row in &rows {
        let table: u32 = row.number("table")?;
        let oid: u32 = row.number("refobjid")?;
        let address = match row.number("refclassid")? {
            catalogs::TYPE if row.flag("is_row")? => Address::new(catalogs::CLASS, oid),
            catalogs::TYPE => Address::new(catalogs::TYPE, items.get(&oid).copied().unwrap_or(oid)),
            catalog => Address::new(catalog, oid),
        };
        if address != Address::new(catalogs::CLASS, table) {
            needs.entry(table).or_default().insert(address);
        }
    }
    Ok(needs.into_iter().map(|(table, set)| (table, set.into_iter().collect())).collect())
}

/// Reads the privileges on single columns, by table.
pub(super) fn column_grants(reader: &mut Reader<'_>) -> Result<HashMap<u32, Vec<Row>>> {
    let rows = reader.rows(
        "SELECT a.attrelid AS table, a.attname AS name, to_json(a.attacl::text[]) AS acl, '[]' AS acl_base
           FROM pg_catalog.pg_attribute a
          WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND a.attrelid >= 16384
          ORDER BY a.attrelid, a.attnum",
    )?;
    let mut grants: HashMap<u32, Vec<Row>> = HashMap::new();
    for row in rows {
        grants.entry(row.number("table")?).or_default().push(row);
    }
    Ok(grants)
}
