//! Counts the rows of a file that refer to missing rows by the foreign keys of existing tables, before they are loaded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::foreign_key;
use super::plan::{Plan, TablePlan};
use crate::engine::postgres::wire::session::Session;
use crate::engine::sqlite::values::{Reader, Reference};
use crate::platform::error::{Result, one_line};

/// Rows of a table that would be rejected, because a foreign key finds no row.
#[derive(Clone, Debug)]
pub(crate) struct Orphaned {
    /// The place of the table in the plan.
    pub table: usize,
    /// A remark with their number and the key.
    pub remark: String,
}

/// Counts these rows for every key between two tables of one file. Rows of other files, and those that refer to rejected rows,
/// are not counted.
pub(crate) fn count(session: &mut Session, plan: &Plan, files: &BTreeMap<String, PathBuf>) -> Result<Vec<Orphaned>> {
    let mut found = Vec::new();
    for (key, _) in foreign_key::between(session, plan)? {
        let of = |(schema, name): &(String, String)| {
            let is_of = |(_, table): &(usize, &TablePlan)| (&table.schema, &table.name) == (schema, name);
            let mut tables = plan.tables.iter().enumerate().filter(is_of);
            tables.next().filter(|_| tables.next().is_none())
        };
        let (Some((place, child)), Some((_, parent))) = (of(&key.table), of(&key.parent)) else { continue };
        let sources = |table: &TablePlan, names: &[String]| -> Option<Vec<String>> {
            names.iter().map(|name| table.column(name).map(|column| column.source.clone())).collect()
        };
        let (Some(columns), Some(referenced)) = (sources(child, &key.columns), sources(parent, &key.referenced)) else {
            continue;
        };
        if child.file != parent.file {
            continue;
        }
        let nulls =
            key.columns.iter().filter_map(|name| child.column(name)).map(|column| column.nulls.clone()).collect();
        let reference = Reference { table: &child.source, columns, parent: &parent.source, referenced, nulls };
        let rows = Reader::open(&files[&child.file])?.orphans(&reference)?;
        if rows > 0 {
            let (name, parent) = (one_line(&key.name), one_line(&parent.source));
            let remark = format!(
                "{rows} rows refer to missing rows of {parent}, so the foreign key {name} refuses them: they would be rejected, and \
                 the run would exit with 3; correct them, or add their number to expected_rejects"
            );
            found.push(Orphaned { table: place, remark });
        }
    }
    Ok(found)
}
