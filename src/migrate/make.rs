//! Creates the schemas and tables of a plan, or accepts those that exist, before rows are loaded.

use std::collections::{BTreeMap, BTreeSet};

use super::existing::TYPE_OF_COLUMN;
use super::load::Sink;
use super::plan::{Plan, TablePlan};
use super::state::{self, Step};
use super::steps::{early_steps, unique_keys};
use super::{ddl, existing, keys};
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::Session;
use crate::engine::sqlite::values::{Range, Reader};
use crate::platform::error::{Error, Result, one_line};

/// The number of rows that are loaded in one transaction.
const CHUNK_ROWS: usize = 50_000;

/// Creates schemas and tables, and notes the chunks. Must be called in a transaction.
pub(super) fn make(session: &mut Session, plan: &Plan, sinks: &[Sink]) -> Result<()> {
    let id = &plan.id;
    require_free_names(session, plan)?;
    let existing = existing_part(session, plan)?;
    keys::drop_all(session, &existing)?;
    let mut made: BTreeSet<(String, String)> = BTreeSet::new();
    let mut extension = None;
    for (number, sink) in sinks.iter().enumerate() {
        let table = &sink.plan;
        let add_context =
            |error: Error| error.context(format!("cannot create {}; nothing was changed", table.shown_target()));
        if made.insert((table.schema.clone(), table.name.clone())) {
            make_schema(session, id, &table.schema).map_err(add_context)?;
            let is_made = make_table(session, id, table).map_err(add_context)?;
            if let Some(hypertable) = table.hypertable.as_ref().filter(|_| is_made) {
                if extension.is_none() {
                    extension = Some(existing::timescale(session)?.ok_or_else(|| {
                        Error::usage("the plan has hypertables, but the target has no TimescaleDB")
                            .hint("run CREATE EXTENSION timescaledb, or remove [table.hypertable] from the plan")
                    })?);
                }
                let functions = extension.as_deref().unwrap_or("public");
                let sql = ddl::create_hypertable(table, hypertable, functions);
                session.rows(&sql).map_err(add_context)?;
            }
            if is_made && sink.is_staged {
                for (step, sql) in early_steps(table) {
                    session.execute(&sql).map_err(add_context)?;
                    let done = Step { note: None, planned: Some(sql) };
                    state::note_step(session, id, &step, &done)?;
                }
            }
        }
        let ranges = Reader::open(&sink.path)?.ranges(&sink.facts, CHUNK_ROWS)?;
        let ranges: Vec<Option<Range>> = match ranges {
            Some(ranges) => ranges.into_iter().map(Some).collect(),
            None => vec![None],
        };
        let target = format!("{}::pg_catalog.regclass::pg_catalog.oid", literal(&ddl::target(table)));
        state::note_chunks(session, id, number, &target, &ranges)?;
    }
    Ok(())
}

/// Returns the plan with only those tables that exist already.
pub(super) fn existing_part(session: &mut Session, plan: &Plan) -> Result<Plan> {
    let mut existing = plan.clone();
    let mut failed = None;
    existing.tables.retain(|table| {
        state::relation_exists(session, &ddl::target(table)).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    failed.map_or(Ok(existing), Err)
}

/// Fails if the name of an index or constraint is taken. The conflict would otherwise appear only when all rows are
/// loaded.
fn require_free_names(session: &mut Session, plan: &Plan) -> Result<()> {
    let (mut targets, mut taken) = (BTreeSet::new(), BTreeMap::new());
    let mut exists = |schema: &str, name: &str| state::relation_exists(session, &qualified(schema, name));
    let mut tables = Vec::new();
    for table in &plan.tables {
        // Existing tables keep the indexes that they have.
        if targets.insert((&table.schema, &table.name)) && !exists(&table.schema, &table.name)? {
            taken.insert((&table.schema, table.name.clone()), "a table of the plan".to_owned());
            tables.push(table);
        }
    }
    for table in tables {
        let shown = table.shown_target();
        let clash = |name: &str, other: &str| {
            Error::usage(format!(
                "the name {} of an index or constraint of {shown} is also used by {other}; nothing was changed",
                one_line(name)
            ))
            .hint("change one of the names in the plan; the name of a primary key follows from the table's name")
        };
        let keys = unique_keys(table).into_iter().map(|(name, ..)| name);
        let constraints = keys.clone().chain(table.checks.iter().map(|check| check.name.clone()));
        let mut own = BTreeSet::new();
        for name in constraints.chain(table.foreign_keys.iter().map(|key| key.name.clone())) {
            if !own.insert(name.clone()) {
                return Err(clash(&name, "another constraint of that table"));
            }
        }
        for name in keys.chain(table.indexes.iter().map(|index| index.name.clone())) {
            if exists(&table.schema, &name)? {
                return Err(clash(&name, "an existing object in that schema"));
            }
            if let Some(other) = taken.insert((&table.schema, name.clone()), format!("an index of {shown}")) {
                return Err(clash(&name, &other));
            }
        }
    }
    Ok(())
}

fn make_schema(session: &mut Session, plan: &str, schema: &str) -> Result<()> {
    if state::schema_exists(session, schema)? {
        return Ok(());
    }
    session.execute(&format!("CREATE SCHEMA {}", ident(schema)))?;
    let oid = format!("{}::pg_catalog.regnamespace::pg_catalog.oid", literal(&ident(schema)));
    state::note_made(session, plan, "schema", schema, schema, &oid)
}

/// Returns a query for the types of a table's columns; `name` is an SQL expression.
fn types_of(name: &str) -> String {
    format!(
        "SELECT a.attname, a.attnum, b.oid, b.modifier FROM pg_catalog.pg_attribute a CROSS JOIN {TYPE_OF_COLUMN}
          WHERE a.attrelid = {name}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped"
    )
}

/// Creates a table and returns true, or accepts an existing table that is empty and has these columns, and returns
/// false.
fn make_table(session: &mut Session, plan: &str, table: &TablePlan) -> Result<bool> {
    let name = literal(&ddl::target(table));
    let oid = format!("{name}::pg_catalog.regclass::pg_catalog.oid");
    if !state::relation_exists(session, &ddl::target(table))? {
        if table.existing {
            return Err(Error::usage(format!("the plan fills {}, which does not exist", table.shown_target()))
                .hint("create it, or make a new plan with 'lifeboat migrate plan'"));
        }
        session.execute(&ddl::create_table(table))?;
        state::note_made(session, plan, "table", &table.schema, &table.name, &oid)?;
        return Ok(true);
    }
    existing::require_empty(session, plan, table)?;
    // Only the server knows what a type's name means, including its precision. A temporary table with these types shows
    // it.
    session
        .execute(&format!("CREATE TEMPORARY TABLE lifeboat_types ({}) ON COMMIT DROP", ddl::typed_columns(table)))?;
    let wanted = session.rows(&format!(
        "SELECT w.attname AS name, pg_catalog.format_type(w.oid, w.modifier) AS wanted,
                pg_catalog.format_type(t.oid, t.modifier) AS found,
                coalesce(t.oid = w.oid AND t.modifier IN (-1, w.modifier), false) AS fits
           FROM ({}) w LEFT JOIN ({}) t ON t.attname = w.attname ORDER BY w.attnum",
        types_of("'pg_temp.lifeboat_types'"),
        types_of(&name)
    ))?;
    session.execute("DROP TABLE pg_temp.lifeboat_types")?;
    for column in &wanted {
        if !column.flag("fits")? {
            let found = column.get("found")?.map_or("is missing".to_owned(), |found| format!("has the type {found}"));
            return Err(Error::usage(format!(
                "{} already exists, but its column {} {found}; the plan requires {}",
                table.shown_target(),
                one_line(column.text("name")?),
                column.text("wanted")?
            ))
            .hint("give the table another name or schema in the plan, or give the column the type of the plan"));
        }
    }
    state::note_made(session, plan, "filled", &table.schema, &table.name, &oid)?;
    Ok(false)
}
