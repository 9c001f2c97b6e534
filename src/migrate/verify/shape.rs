//! Compares the structure of a target with its plan: columns, keys, indexes, foreign keys, identity columns,
//! hypertables.

use std::collections::BTreeMap;

use super::Difference;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::Session;
use crate::migrate::existing::{self, TYPE_OF_COLUMN, timescale};
use crate::migrate::plan::{IndexPlan, Plan, TablePlan};
use crate::migrate::{ddl, state, steps};
use crate::platform::error::{Result, one_line};

/// Returns the differences between a table and its plan. Appends remarks that are not differences to `notes`.
pub(super) fn compare(
    session: &mut Session,
    plan: &Plan,
    table: &TablePlan,
    notes: &mut Vec<String>,
) -> Result<Vec<Difference>> {
    let shown = table.shown_target();
    let mut found = Vec::new();
    let mut add = |message: String| {
        found.push(Difference { table: shown.clone(), kind: "shape", message, ..Difference::default() });
    };
    let name = literal(&ddl::target(table));
    let made = state::made(session, &plan.id)?;
    let is_filled =
        made.iter().any(|one| one.kind == "filled" && (&one.schema, &one.name) == (&table.schema, &table.name));
    let mut nullable = Vec::new();
    columns(session, table, &name, &mut add, &mut nullable)?;
    identities(session, table, &mut add)?;
    if is_filled {
        notes.extend(nullable);
        notes.push(format!("{shown} existed before: its keys and indexes are not compared"));
        return Ok(found);
    }
    nullable.into_iter().for_each(&mut add);
    let noted = state::steps(session, &plan.id)?;
    keys(session, table, &name, &mut add)?;
    // The run has said that such an index, which only makes queries faster, could not be created.
    let is_noted = |index: &IndexPlan| {
        !index.unique && noted.get(&steps::index_step(table, index)).is_some_and(|step| step.note.is_some())
    };
    for index in indexes(session, table, &name, &mut add)? {
        let message = format!("{shown} has no index {}", one_line(&index.name));
        match is_noted(index) {
            true => notes.push(format!("{message}, as the run has noted")),
            false => add(message),
        }
    }
    foreign_keys(session, table, &name, &mut add, notes)?;
    if let Some(hypertable) = &table.hypertable {
        let is_hypertable = match timescale(session)? {
            None => false,
            Some(_) => {
                let row = session.row(&format!(
                    "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables
                       WHERE hypertable_schema = {} AND hypertable_name = {}) AS there",
                    literal(&table.schema),
                    literal(&table.name)
                ))?;
                row.flag("there")?
            }
        };
        if !is_hypertable {
            add(format!("{shown} is not a hypertable, but should be partitioned by {}", one_line(&hypertable.time)));
        }
    }
    Ok(found)
}

/// Compares the indexes that exist, and returns those that do not.
fn indexes<'a>(
    session: &mut Session,
    table: &'a TablePlan,
    name: &str,
    add: &mut dyn FnMut(String),
) -> Result<Vec<&'a IndexPlan>> {
    let (shown, mut missing) = (table.shown_target(), Vec::new());
    for index in &table.indexes {
        let path = literal(&format!("{}.{}", ident(&table.schema), ident(&index.name)));
        let rows = session.rows(&format!(
            "SELECT i.indisvalid AS valid, i.indisunique AS is_unique, m.amname AS method, i.indpred IS NOT NULL AS partial,
                    to_json(ARRAY(SELECT a.attname FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS c(number, place)
                                    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = c.number
                                   ORDER BY c.place)) AS columns
               FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
               JOIN pg_catalog.pg_am m ON m.oid = c.relam
              WHERE i.indexrelid = pg_catalog.to_regclass({path}) AND i.indrelid = {name}::pg_catalog.regclass"
        ))?;
        let index_name = one_line(&index.name);
        let Some(row) = rows.first() else {
            missing.push(index);
            continue;
        };
        if !row.flag("valid")? {
            add(format!("the index {index_name} of {shown} is not valid"));
        }
        // An expression, such as a digest, has no column.
        let of_values = index.columns.iter().filter(|name| !index.digest.contains(name));
        let is_same = row.flag("is_unique")? == index.unique
            && row.text("method")? == index.using.as_deref().unwrap_or("btree")
            && row.flag("partial")? == index.condition.is_some()
            && row.list("columns")?.iter().eq(of_values);
        if !is_same {
            add(format!("the index {index_name} of {shown} differs from the plan"));
        }
    }
    Ok(missing)
}

/// Compares the columns. Appends those that allow NULL, but should not, to `nullable`.
fn columns(
    session: &mut Session,
    table: &TablePlan,
    name: &str,
    add: &mut dyn FnMut(String),
    nullable: &mut Vec<String>,
) -> Result<()> {
    let shown = table.shown_target();
    let rows = session.rows(&format!(
        "SELECT a.attname AS name, pg_catalog.format_type(b.oid, NULL) AS type,
                pg_catalog.format_type(b.oid, b.modifier) AS whole, a.attnotnull AS not_null
           FROM pg_catalog.pg_attribute a CROSS JOIN {TYPE_OF_COLUMN}
          WHERE a.attrelid = {name}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped"
    ))?;
    let mut existing = BTreeMap::new();
    for row in &rows {
        let (base, full_type) = (row.text("type")?.to_owned(), row.text("whole")?.to_owned());
        existing.insert(row.text("name")?.to_owned(), (base, full_type, row.flag("not_null")?));
    }
    for column in &table.columns {
        let wanted = session.row(&format!(
            "SELECT pg_catalog.format_type(b.oid, NULL) AS type, b.oid <> a.atttypid AS is_domain
               FROM (SELECT {}::pg_catalog.regtype::pg_catalog.oid AS atttypid, -1 AS atttypmod) a CROSS JOIN {TYPE_OF_COLUMN}",
            literal(&column.target_type)
        ))?;
        let (is_domain, wanted) = (wanted.flag("is_domain")?, wanted.text("type")?);
        let column_name = one_line(column.target_name());
        match existing.get(column.target_name()) {
            None => add(format!("{shown} has no column {column_name}")),
            Some((base, full_type, _))
                if base != wanted || (!is_domain && bounds(full_type) != bounds(&column.target_type)) =>
            {
                add(format!("{shown}: the column {column_name} is {full_type}, but should be {}", column.target_type));
            }
            Some((_, _, false)) if ddl::refuses_null(table, column) => {
                nullable.push(format!("{shown}: the column {column_name} allows NULL, but should not"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Returns the length or precision in a type's parentheses.
fn bounds(name: &str) -> String {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
    let bounds: String = inside.chars().filter(|letter| !letter.is_whitespace()).collect();
    // A precision alone means scale 0.
    bounds.strip_suffix(",0").map_or(bounds.clone(), str::to_owned)
}

fn identities(session: &mut Session, table: &TablePlan, add: &mut dyn FnMut(String)) -> Result<()> {
    for column in table.columns.iter().filter(|column| column.identity || table.existing) {
        let name = column.target_name();
        let Some(sequence) = existing::sequence_of(session, table, name)? else {
            if !column.identity {
                continue;
            }
            add(format!("{}: the column {} is not an identity column", table.shown_target(), one_line(name)));
            continue;
        };
        let row = session.row(&format!(
            "SELECT coalesce((SELECT max({}) FROM {}), 0) > CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS behind
               FROM {sequence}",
            ident(name),
            ddl::target(table)
        ))?;
        if row.flag("behind")? {
            add(format!("{}: the next number of {} is already used", table.shown_target(), one_line(name)));
        }
    }
    Ok(())
}

fn keys(session: &mut Session, table: &TablePlan, name: &str, add: &mut dyn FnMut(String)) -> Result<()> {
    let rows = session.rows(&format!(
        "SELECT k.contype AS kind, to_json(ARRAY(
                    SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY AS c(number, place)
                      JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number ORDER BY c.place)) AS columns
           FROM pg_catalog.pg_constraint k WHERE k.conrelid = {name}::pg_catalog.regclass AND k.contype IN ('p', 'u')"
    ))?;
    let mut existing = Vec::new();
    for row in &rows {
        existing.push((row.text("kind")?.to_owned(), row.list("columns")?));
    }
    let primary = Some(&table.primary_key).filter(|key| !key.is_empty()).map(|key| ("p", "primary key", key));
    let uniques = table.uniques.iter().map(|unique| ("u", "unique constraint", &unique.columns));
    for (kind, word, columns) in primary.into_iter().chain(uniques) {
        if !existing.iter().any(|(found, names)| found == kind && names == columns) {
            add(format!("{} has no {word} ({})", table.shown_target(), one_line(&columns.join(", "))));
        }
    }
    Ok(())
}

fn foreign_keys(
    session: &mut Session,
    table: &TablePlan,
    name: &str,
    add: &mut dyn FnMut(String),
    notes: &mut Vec<String>,
) -> Result<()> {
    for key in &table.foreign_keys {
        let rows = session.rows(&format!(
            "SELECT k.convalidated AS valid, k.confrelid = pg_catalog.to_regclass({})::pg_catalog.oid AS same
               FROM pg_catalog.pg_constraint k
              WHERE k.conrelid = {name}::pg_catalog.regclass AND k.contype = 'f' AND k.conname = {}",
            literal(&qualified(key.schema.as_deref().unwrap_or(&table.schema), &key.references)),
            literal(&key.name)
        ))?;
        let key_name = format!("the foreign key {} of {}", one_line(&key.name), table.shown_target());
        match rows.first() {
            None => add(format!("{key_name} does not exist")),
            Some(row) if !row.flag("same")? => add(format!("{key_name} references another table than planned")),
            Some(row) if row.flag("valid")? => {}
            Some(_) if key.validate => add(format!("existing rows violate {key_name}: only new rows are checked")),
            Some(_) => notes.push(format!("{key_name} is checked only for new rows, as planned")),
        }
    }
    Ok(())
}
