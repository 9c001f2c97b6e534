//! Proposes how a table of a file fills a table that the target has already: with its names, types, nullability and keys.

use chrono_tz::Tz;

use super::choose;
use super::convert::Kind;
use super::existing::{ExistingColumn, ExistingSchema, ExistingTable};
use super::plan::{ColumnPlan, Epoch, STAGING, TablePlan, UniquePlan};
use super::profile::{ColumnProfile, ColumnTarget, TableProfile};
use super::propose::{self, InspectedFile, Names, Proposal, ProposeOptions};
use super::remarks;
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::sqlite::schema::{ColumnFacts, TableFacts};
use crate::platform::error::one_line;

/// Returns what the type of an existing column says about its values.
pub(crate) fn target_of(column: &ExistingColumn) -> ColumnTarget {
    let name = &column.target_type;
    let kind = Kind::parse(name).unwrap_or(Kind::Other);
    ColumnTarget { kind, limits: kind.limits(name), not_null: column.not_null }
}

/// Proposes a table of the plan for each table of a file: the one of that name in the target, or a new one.
pub(crate) fn propose(
    file: &InspectedFile<'_>,
    options: &ProposeOptions,
    existing: &ExistingSchema,
    names: &mut Names,
) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    for (table, profile) in file.schema.tables.iter().zip(file.profiles) {
        let found = existing.table(&table.name);
        proposals.push(match found.map(|found| (found, found.other_kind)) {
            Some((found, None)) => adopt(file, table, profile, found, options),
            Some((_, Some(kind))) => {
                let mut new = propose::new_table(file, (table, profile), options, names);
                new.conflicts.push(format!("the target has {kind} of that name: rename one of them"));
                new
            }
            None => propose::new_table(file, (table, profile), options, names),
        });
    }
    propose::add_foreign_keys(&mut proposals, file, names);
    let targets: Vec<String> = proposals.iter().map(|proposal| proposal.plan.name.clone()).collect();
    for proposal in proposals.iter_mut().filter(|proposal| proposal.plan.existing) {
        let ancestors = existing.table(&proposal.plan.source).map_or(&[][..], |table| &table.ancestors);
        if let Some(parent) = ancestors.iter().find(|name| targets.contains(name)) {
            proposal.conflicts.push(format!(
                "its rows are rows of {} too, which the file fills as well: remove one of the two tables from the plan",
                one_line(&format!("{}.{parent}", proposal.plan.schema))
            ));
        }
    }
    proposals
}

/// Proposes a table of the plan for a table that exists.
fn adopt(
    file: &InspectedFile<'_>,
    facts: &TableFacts,
    profile: &TableProfile,
    table: &ExistingTable,
    options: &ProposeOptions,
) -> Proposal {
    let schema = options.schema.as_str();
    let plan = TablePlan {
        file: file.name.to_owned(),
        source: facts.name.clone(),
        schema: schema.to_owned(),
        name: table.name.clone(),
        merge: false,
        existing: true,
        expected_rejects: 0,
        columns: Vec::new(),
        primary_key: table.primary_key.clone(),
        uniques: Vec::new(),
        checks: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        hypertable: None,
    };
    let mut adopted = Proposal {
        plan,
        notes: vec![
            "the target has this table: its keys, indexes, defaults and triggers are left as they are".to_owned(),
        ],
        column_notes: Vec::new(),
        options: Vec::new(),
        conflicts: Vec::new(),
        rows: profile.rows,
        rejected: profile.unfit,
    };
    if !table.lacking.is_empty() {
        adopted.conflicts.push(format!(
            "the role lacks privileges on it: GRANT {} ON {} TO the role",
            table.lacking.join(", "),
            qualified(schema, &table.name)
        ));
    }
    for (column, profile) in facts.columns.iter().zip(&profile.columns) {
        adopt_column(&mut adopted, facts, column, profile, table, options.zone);
    }
    let loaded: Vec<&str> = adopted.plan.columns.iter().map(|column| column.target_name()).collect();
    let is_loaded = |name: &String| loaded.contains(&name.as_str());
    if !table.primary_key.iter().all(is_loaded) {
        adopted.plan.primary_key.clear();
    }
    let uniques = table.uniques.iter().filter(|(_, columns)| columns.iter().all(is_loaded));
    let uniques = uniques.map(|(name, columns)| UniquePlan { name: name.clone(), columns: columns.clone() }).collect();
    let own: Vec<&ExistingColumn> =
        table.columns.iter().filter(|column| !is_loaded(&column.name) && !column.is_generated).collect();
    note_others(&mut adopted, table, &own);
    adopted.plan.uniques = uniques;
    adopted
}

/// Adds what columns that the file does not have, rules and triggers mean for a load.
fn note_others(adopted: &mut Proposal, table: &ExistingTable, own: &[&ExistingColumn]) {
    for column in own.iter().filter(|column| column.not_null && !column.has_default) {
        let name = ident(&column.name);
        // A trigger may fill it, as the trial of the first row shows.
        if table.fills_rows {
            continue;
        }
        adopted.conflicts.push(format!(
            "its column {name} is NOT NULL without a default, and the file has no such column: ALTER TABLE {} ALTER \
             COLUMN {name} SET DEFAULT ..., or DROP NOT NULL",
            qualified(&adopted.plan.schema, &table.name)
        ));
    }
    for sequence in own.iter().filter_map(|column| column.sequence.as_ref()).filter(|sequence| !sequence.may_be_used) {
        let name = one_line(&sequence.name);
        adopted.conflicts.push(format!(
            "the role may not use the sequence of a default: GRANT USAGE ON SEQUENCE {name} TO the role"
        ));
    }
    if !table.rules.is_empty() {
        let rules: Vec<String> = table.rules.iter().map(|rule| ident(rule)).collect();
        adopted.conflicts.push(format!(
            "its rules for INSERT change what is loaded: ALTER TABLE {} DISABLE RULE {}, and enable it after the migration",
            qualified(&adopted.plan.schema, &table.name),
            one_line(&rules.join(", "))
        ));
    }
    if !own.is_empty() {
        let names: Vec<String> = own.iter().map(|column| one_line(&column.name)).collect();
        adopted.notes.push(format!("columns that the file does not have get their defaults: {}", names.join(", ")));
    }
    if !table.triggers.is_empty() {
        adopted
            .notes
            .push(format!("triggers that fire for every loaded row: {}", one_line(&table.triggers.join(", "))));
    }
}

fn adopt_column(
    adopted: &mut Proposal,
    facts: &TableFacts,
    column: &ColumnFacts,
    profile: &ColumnProfile,
    table: &ExistingTable,
    zone: Tz,
) {
    let kind = table.column(&column.name).map_or(Kind::Text, |target| target_of(target).kind);
    let mut notes = vec![remarks::evidence(column, profile, kind, zone)];
    let is_rowid = facts.rowid_column().is_some_and(|rowid| rowid.name == column.name);
    let Some(target) = table.column(&column.name) else {
        let proposed = choose::written(choose::choose(column, profile, is_rowid).kind);
        let name = ident(&column.name);
        adopted.conflicts.push(format!(
            "it has no column for {}: ALTER TABLE {} ADD COLUMN {name} {proposed}, or remove the column from the plan",
            one_line(&column.name),
            qualified(&adopted.plan.schema, &table.name)
        ));
        adopted.plan.columns.push(plain(column, proposed));
        adopted.column_notes.push(notes);
        return;
    };
    if target.is_generated {
        let note = format!("the target computes {}: its values are not loaded", one_line(&target.name));
        adopted.notes.push(note);
        return;
    }
    if STAGING.contains(&target.name.as_str()) {
        adopted.conflicts.push(format!(
            "the tables through which rows are loaded have a column named {} too: rename that column",
            target.name
        ));
    }
    if let Some(sequence) = &target.sequence {
        let (sequence_name, name) = (one_line(&sequence.name), one_line(&target.name));
        if !sequence.may_be_moved {
            adopted.conflicts.push(format!(
                "the role may not move the sequence of {name} past the loaded numbers: GRANT SELECT, UPDATE ON SEQUENCE \
                 {sequence_name} TO the role"
            ));
        }
        if let Some(ever) = facts.sequence.filter(|ever| is_rowid && *ever > sequence.greatest) {
            adopted.conflicts.push(format!(
                "the file has counted {name} up to {ever}, but the sequence {sequence_name} ends at {}: make the column and \
                 the sequence a bigint",
                sequence.greatest
            ));
        }
    }
    let mut warnings = remarks::changes(profile, kind, zone);
    warnings.extend(choose::epoch_question(column, profile, kind).filter(|_| kind.is_time()));
    adopted.notes.extend(warnings.iter().map(|warning| format!("{}: {warning}", one_line(&column.name))));
    notes.append(&mut warnings);
    let trial = profile.trial(kind);
    let mut plan = plain(column, target.target_type.clone());
    plan.name = (target.name != column.name).then(|| target.name.clone());
    plan.not_null = target.not_null && target.sequence.is_none();
    plan.identity = target.not_null && target.sequence.is_some();
    plan.epoch = if kind.is_time() { choose::unit(profile) } else { Epoch::Auto };
    if let Some(trial) = trial {
        plan.nulls = trial.nulls.keys().cloned().collect();
        notes.extend(remarks::null_texts(trial));
        notes.extend(remarks::failures(trial));
    }
    let nulls = profile.nulls + trial.map_or(0, |trial| trial.nulls.values().sum());
    if target.not_null && nulls > 0 {
        notes
            .push(format!("{nulls} values are NULL or mean NULL, but the column is NOT NULL: their rows are rejected"));
    }
    adopted.plan.columns.push(plan);
    adopted.column_notes.push(notes);
}

/// Returns a column without anything but its name in the file and its type.
fn plain(column: &ColumnFacts, target_type: String) -> ColumnPlan {
    ColumnPlan {
        source: column.name.clone(),
        name: None,
        target_type,
        zone: None,
        epoch: Epoch::Auto,
        nulls: Vec::new(),
        not_null: false,
        identity: false,
        default: None,
    }
}
