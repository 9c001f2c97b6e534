//! Views and materialized views, and the refreshes that fill materialized views.

use std::collections::{HashMap, HashSet};

use crate::engine::postgres::schema::columns::{self, Column};
use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, Stub, catalogs};
use crate::engine::postgres::schema::options::{ObjectKind, is_settable, is_settable_by_method};
use crate::engine::postgres::schema::relation::{self, NAMES, USER_RELATIONS, options};
use crate::engine::postgres::schema::{Reader, grants, quote, tables};
use crate::engine::postgres::timescale::definitions;
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// Reads the views and materialized views.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let version = reader.version();
    // The check option has a separate clause.
    let is_settable = format!(
        "CASE c.relkind WHEN 'v' THEN o.option_name <> 'check_option' AND {} ELSE {} END",
        is_settable(ObjectKind::View, version),
        is_settable_by_method(ObjectKind::Table, version)
    );
    let rows = reader.rows(&format!(
        "SELECT {NAMES}, c.relkind AS kind, c.relispopulated AS populated, pg_catalog.pg_get_viewdef(c.oid) AS definition,
                {} AS options, {} AS toast_options, p.spcname AS tablespace, c.relreplident AS replica_identity, {},
                (SELECT upper(o.option_value) FROM pg_catalog.pg_options_to_table(c.reloptions) o
                  WHERE o.option_name = 'check_option') AS check_option,
                CASE WHEN m.amname <> 'heap' THEN pg_catalog.quote_ident(m.amname) END AS access_method
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_class toast ON toast.oid = c.reltoastrelid
           LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
           LEFT JOIN pg_catalog.pg_tablespace p ON p.oid = c.reltablespace
          WHERE c.relkind IN ('v', 'm') AND {USER_RELATIONS}
          ORDER BY c.oid",
        options("c.reloptions", "", &is_settable),
        options("toast.reloptions", "toast.", &is_settable),
        grants::columns('r', "c.relacl", "c.relowner"),
    ))?;
    let columns = columns::read(reader)?;
    let column_grants = tables::column_grants(reader)?;
    let mut populated = Vec::new();
    let mut stubs: HashMap<u32, Vec<Address>> = stub_needs(reader)?;
    for row in &rows {
        let oid: u32 = row.number("oid")?;
        let columns = columns.get(&oid).map(Vec::as_slice).unwrap_or_default();
        let qualified = row.text("qualified")?;
        let is_view = row.text("kind")? == "v";
        let (kind, word) = if is_view { (Kind::View, "VIEW") } else { (Kind::MaterializedView, "MATERIALIZED VIEW") };
        let address = Address::new(catalogs::CLASS, oid);
        let mut object = Object::new(address, kind, Some(row.text("schema")?), row.text("name")?);
        object.identity = format!("{word} {qualified}");
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, row, "TABLE", qualified)?;
        for row in column_grants.get(&oid).into_iter().flatten() {
            let (owner, column) = (object.owner.clone().unwrap_or_default(), quote::ident(row.text("name")?));
            let (acl, base) = (row.list("acl")?, row.list("acl_base")?);
            let target = grants::Target { word: "TABLE", name: qualified, column: Some(&column), owner: &owner };
            let statements = grants::statements(&mut reader.gone_roles, &mut object, &target, &acl, &base)?;
            object.grants.extend(statements);
        }
        let aggregates = reader.timescale.as_ref().map(|timescale| &timescale.aggregates);
        if let Some(aggregate) = aggregates.and_then(|all| all.get(&oid)).cloned() {
            let default_indexes = definitions::has_default_indexes(reader, &aggregate)?;
            if let Some(timescale) = &reader.timescale {
                definitions::aggregate(timescale, oid, &mut object, default_indexes);
            }
            reader.add(object);
        } else if is_view {
            object.create = vec![view(row, "CREATE VIEW")?];
            object.stub = Some(Stub {
                create: vec![first_form(qualified, columns)],
                needs: stubs.remove(&oid).unwrap_or_default(),
                complete: vec![view(row, "CREATE OR REPLACE VIEW")?],
            });
            reader.add(object);
            defaults(reader, row, address, columns)?;
        } else {
            object.create = materialized(row, columns)?;
            object.tablespace = row.owned("tablespace")?;
            if row.flag("populated")? {
                populated.push(row);
            }
            reader.add(object);
        }
    }
    refreshes(reader, &rows, &populated)
}

/// Returns the statement that creates a view.
fn view(row: &Row, verb: &str) -> Result<String> {
    let options = row.get("options")?.map(|options| format!(" WITH ({options})"));
    let check = row.get("check_option")?.map(|option| format!("\n  WITH {option} CHECK OPTION"));
    Ok(format!(
        "{verb} {}{} AS\n{}{}",
        row.text("qualified")?,
        options.unwrap_or_default(),
        query(row)?,
        check.unwrap_or_default()
    ))
}

/// Returns a view's query without the semicolon.
fn query(row: &Row) -> Result<&str> {
    Ok(row.text("definition")?.trim_end().trim_end_matches(';'))
}

/// Returns the statement for a view with the same columns that depends only on their types.
fn first_form(qualified: &str, columns: &[Column]) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|column| {
            let collation = column.collation.as_ref().map(|collation| format!(" COLLATE {collation}"));
            let collation = collation.unwrap_or_default();
            format!("\n    NULL::{}{collation} AS {}", column.type_name, quote::ident(&column.name))
        })
        .collect();
    format!("CREATE VIEW {qualified} AS\nSELECT{}", columns.join(","))
}

/// Adds the defaults that a view's columns have for `INSERT`.
fn defaults(reader: &mut Reader<'_>, row: &Row, view: Address, columns: &[Column]) -> Result<()> {
    for column in columns {
        let Some((address, expression)) = &column.default else { continue };
        let name = format!("{} {}", row.text("name")?, column.name);
        let mut object = Object::new(*address, Kind::Default, Some(row.text("schema")?), &name);
        object.create = vec![format!(
            "ALTER TABLE ONLY {} ALTER COLUMN {} SET DEFAULT {expression}",
            row.text("qualified")?,
            quote::ident(&column.name)
        )];
        object.owner = row.owned("owner")?;
        object.needs = vec![view];
        reader.add(object);
    }
    Ok(())
}

/// Returns the statements that create a materialized view, without its rows.
fn materialized(row: &Row, columns: &[Column]) -> Result<Vec<String>> {
    let qualified = row.text("qualified")?;
    let mut sql = format!("CREATE MATERIALIZED VIEW {qualified}");
    if let Some(method) = row.get("access_method")? {
        sql.push_str(&format!("\nUSING {method}"));
    }
    let options: Vec<&str> = [row.get("options")?, row.get("toast_options")?].into_iter().flatten().collect();
    if !options.is_empty() {
        sql.push_str(&format!("\nWITH ({})", options.join(", ")));
    }
    let mut statements = vec![format!("{sql} AS\n{}\n  WITH NO DATA", query(row)?)];
    for column in columns {
        for setting in column.settings(&[]) {
            let name = quote::ident(&column.name);
            statements.push(format!("ALTER TABLE ONLY {qualified} ALTER COLUMN {name} {setting}"));
        }
    }
    match relation::letter(row, "replica_identity")? {
        Some('n') => statements.push(format!("ALTER TABLE ONLY {qualified} REPLICA IDENTITY NOTHING")),
        Some('f') => statements.push(format!("ALTER TABLE ONLY {qualified} REPLICA IDENTITY FULL")),
        _ => {}
    }
    Ok(statements)
}

/// Adds the refreshes of the populated materialized views, each after those of the materialized views that it reads.
fn refreshes(reader: &mut Reader<'_>, all: &[Row], populated: &[&Row]) -> Result<()> {
    let edges = reader.rows(
        "SELECT DISTINCT r.ev_class AS view, d.refobjid AS reads
           FROM pg_catalog.pg_rewrite r
           JOIN pg_catalog.pg_depend d ON d.classid = 2618 AND d.objid = r.oid AND d.refclassid = 1259
                AND d.refobjid <> r.ev_class
           JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
           JOIN pg_catalog.pg_class t ON t.oid = d.refobjid AND t.relkind IN ('v', 'm')
          WHERE r.rulename = '_RETURN'",
    )?;
    let mut reads: HashMap<u32, Vec<u32>> = HashMap::new();
    for edge in &edges {
        reads.entry(edge.number("view")?).or_default().push(edge.number("reads")?);
    }
    let mut materialized: HashSet<u32> = HashSet::new();
    for row in all.iter().filter(|row| row.get("kind").is_ok_and(|kind| kind == Some("m"))) {
        materialized.insert(row.number("oid")?);
    }
    let mut needs: HashMap<u32, Vec<u32>> = HashMap::new();
    for row in populated {
        let view: u32 = row.number("oid")?;
        let (mut visited, mut open) = (HashSet::new(), vec![view]);
        while let Some(next) = open.pop() {
            for read in reads.get(&next).into_iter().flatten().filter(|read| visited.insert(**read)) {
                if materialized.contains(read) {
                    needs.entry(view).or_default().push(*read);
                } else {
                    open.push(*read);
                }
            }
        }
    }
    // A view cannot be refreshed if it reads a view that is not populated now, even if it was populated when the rows
    // were computed.
    let mut filled: HashSet<u32> = populated.iter().map(|row| row.number("oid")).collect::<Result<_>>()?;
    loop {
        let before = filled.len();
        let full = filled.clone();
        filled.retain(|view| needs.get(view).into_iter().flatten().all(|need| full.contains(need)));
        if filled.len() == before {
            break;
        }
    }
    for row in populated {
        let (oid, qualified) = (row.number("oid")?, row.text("qualified")?);
        if !filled.contains(&oid) {
            reader.notes.push(format!(
                "materialized view {qualified} is restored without rows: it reads a materialized view that has not \
                 been populated"
            ));
            continue;
        }
        let mut object =
            Object::new(relation::refresh_at(oid), Kind::Refresh, Some(row.text("schema")?), row.text("name")?)
                .at(Section::Last);
        object.create = vec![format!("REFRESH MATERIALIZED VIEW {qualified}")];
        object.owner = row.owned("owner")?;
        object.needs = vec![Address::new(catalogs::CLASS, oid)];
        object.needs.extend(needs.get(&oid).into_iter().flatten().map(|view| relation::refresh_at(*view)));
        object.table = Some(object.needs[0]);
        reader.add(object);
    }
    Ok(())
}

/// Reads the types and collations of every view's columns.
fn stub_needs(reader: &mut Reader<'_>) -> Result<HashMap<u32, Vec<Address>>> {
    let rows = reader.rows(
        "SELECT DISTINCT a.attrelid AS view, a.attcollation AS collation,
                coalesce(nullif(t.typelem, 0), t.oid) AS type, coalesce(nullif(t.typrelid, 0), item.typrelid, 0) AS row
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'v'
           JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
           LEFT JOIN pg_catalog.pg_type item ON item.oid = t.typelem
          WHERE a.attnum > 0 AND NOT a.attisdropped AND (a.atttypid >= 16384 OR a.attcollation >= 16384)",
    )?;
    let mut needs: HashMap<u32, Vec<Address>> = HashMap::new();
    for row in &rows {
        let needs = needs.entry(row.number("view")?).or_default();
        for (catalog, column) in
            [(catalogs::TYPE, "type"), (catalogs::COLLATION, "collation"), (catalogs::CLASS, "row")]
        {
            needs.push(Address::new(catalog, row.number(column)?));
        }
    }
    Ok(needs)
}
