//! Tables and columns that a file has and its plan does not: they were removed from the plan, or added to the file since.

use super::plan::{Plan, TablePlan};
use crate::engine::sqlite::schema::SchemaFacts;
use crate::platform::error::one_line;

/// Returns a note for each table, and for each column of a table of the plan.
#[must_use]
pub(super) fn notes(plan: &Plan, file: &str, schema: &SchemaFacts) -> Vec<String> {
    let mut notes = Vec::new();
    for facts in &schema.tables {
        let of_table = |table: &&TablePlan| table.file == file && table.source == facts.name;
        let shown = one_line(&format!("{file}:{}", facts.name));
        let Some(table) = plan.tables.iter().find(of_table) else {
            notes.push(format!("{shown} is not in the plan: it is not loaded"));
            continue;
        };
        let is_planned = |name: &str| table.columns.iter().any(|column| column.source == name);
        let missing: Vec<String> = facts
            .columns
            .iter()
            .map(|column| &column.name)
            .filter(|name| !is_planned(name))
            .map(|name| one_line(name))
            .collect();
        if !missing.is_empty() {
            notes.push(format!(
                "{shown}: these columns are not in the plan, and are not loaded: {}",
                missing.join(", ")
            ));
        }
    }
    notes
}
