//! The foreign keys between existing tables that a run fills. Rows arrive in no particular order, so a key that the role
//! may drop and create again is dropped before loading, and created again, as it was, after it. Rows that it refuses then
//! are rejected.

use std::collections::BTreeMap;

use super::foreign_key::{self, ForeignKey, between, dropped};
use super::load::Loader;
use super::plan::Plan;
use super::state::{self, Chunk, SCHEMA, Step, Unexpected};
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// Drops the foreign keys between existing tables that the role may create again, and notes them. Must be called in a
/// transaction, before the plan has created keys of its own.
pub(super) fn drop_all(session: &mut Session, plan: &Plan) -> Result<()> {
    for (key, may_change) in between(session, plan)? {
        if !may_change {
            continue;
        }
        let json = |names: &[String]| literal(&serde_json::to_string(names).unwrap_or_default());
        session.execute(&format!(
            "INSERT INTO {SCHEMA}.keys (plan, schema, relation, parent_schema, parent, name, definition, comment, columns,
                                        referenced, operators, is_full)
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
            literal(&plan.id),
            literal(&key.table.0),
            literal(&key.table.1),
            literal(&key.parent.0),
            literal(&key.parent.1),
            literal(&key.name),
            literal(&key.definition),
            key.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal),
            json(&key.columns),
            json(&key.referenced),
            json(&key.operators),
            key.is_full
        ))?;
        session.execute(&format!("ALTER TABLE {} DROP CONSTRAINT {}", key.relation(), ident(&key.name)))?;
    }
    Ok(())
}

/// Creates the dropped keys again, in one transaction. Rows that they refuse are rejected first.
pub(super) fn create_again(session: &mut Session, loader: &mut Loader<'_>, chunks: &[Chunk]) -> Result<()> {
    let plan = loader.plan().id.clone();
    let mut is_checked = false;
    loop {
        let keys = dropped(session, &plan)?;
        if keys.is_empty() {
            return Ok(());
        }
        interrupt::check()?;
        // Such a key does not check the rows that are there, but it would have checked them when they came.
        if !is_checked && keys.iter().any(|key| key.definition.ends_with(" NOT VALID")) {
            while reject_violations(session, loader, chunks, &keys)? > 0 {}
            is_checked = true;
        }
        session.execute("BEGIN")?;
        let created = keys.iter().try_for_each(|key| create(session, &plan, key));
        let Err(error) = created.and_then(|()| session.execute("COMMIT")) else { return Ok(()) };
        let _ = session.execute("ROLLBACK");
        if sqlstate(&error).as_deref() != Some("23503") || is_checked {
            return Err(error);
        }
        while reject_violations(session, loader, chunks, &keys)? > 0 {}
        is_checked = true;
    }
}

/// The beginning of the names of steps whose notes are the reasons why a dropped key was not created again.
const STEP: &str = "dropped key ";

/// Creates a dropped key again. If others have changed its table so that this is impossible, a step notes that.
fn create(session: &mut Session, plan: &str, key: &ForeignKey) -> Result<()> {
    let remark = key.create(session).map_err(|error| {
        error
            .context(format!("cannot create the foreign key {} again", key.shown()))
            .hint("correct the cause, then run the plan again")
    })?;
    let Some(remark) = remark else { return Ok(()) };
    let (table, name) = (one_line(&format!("{}.{}", key.table.0, key.table.1)), one_line(&key.name));
    state::note_step(session, plan, &format!("{STEP}{table}\n{name}"), &Step { note: Some(remark), planned: None })
}

/// Takes the notes about keys that were not created again out of the steps.
pub(super) fn missing(steps: &mut BTreeMap<String, Step>) -> Vec<Unexpected> {
    let mut missing = Vec::new();
    steps.retain(|name, step| {
        let table = name.strip_prefix(STEP).and_then(|rest| rest.split('\n').next());
        let (Some(table), Some(message)) = (table, &step.note) else { return true };
        missing.push(Unexpected { table: table.to_owned(), message: message.clone() });
        false
    });
    missing
}

/// Adds to an error that ends a run the names of the keys that are dropped now, and the way to get them back.
pub(super) fn name_dropped(error: Error, dropped: &[ForeignKey]) -> Error {
    if dropped.is_empty() {
        return error;
    }
    let names: Vec<String> = dropped.iter().map(ForeignKey::shown).collect();
    let keys = format!(
        "dropped while rows are loaded, and created again when the plan is run to its end or rolled back with 'lifeboat migrate \
         rollback': the foreign key {}",
        names.join(", the foreign key ")
    );
    let hint = error.hint.as_ref().map_or_else(|| keys.clone(), |hint| format!("{hint}; {keys}"));
    error.hint(hint)
}

/// Rejects the rows that refer to missing rows, in one transaction for each key. Returns their number. Rows that refer to
/// these are found the next time.
fn reject_violations(
    session: &mut Session,
    loader: &mut Loader<'_>,
    chunks: &[Chunk],
    keys: &[ForeignKey],
) -> Result<u64> {
    let mut rejected = 0;
    for key in keys {
        interrupt::check()?;
        session.execute("BEGIN")?;
        // The triggers that fire for deleted rows may change others.
        state::note_transaction(session, &loader.plan().id)?;
        let found = reject_violations_of(session, loader, chunks, key);
        if found.is_err() {
            let _ = session.execute("ROLLBACK");
        }
        rejected += found?;
        session.execute("COMMIT")?;
    }
    Ok(rejected)
}

fn reject_violations_of(
    session: &mut Session,
    loader: &mut Loader<'_>,
    chunks: &[Chunk],
    key: &ForeignKey,
) -> Result<u64> {
    // Otherwise another program could insert a row, or the missing one, between two of the statements.
    session.execute(&format!(
        "LOCK TABLE {}, {} IN SHARE ROW EXCLUSIVE MODE",
        key.relation(),
        qualified(&key.parent.0, &key.parent.1)
    ))?;
    let violated = key.is_violated(|name| Ok(format!("lifeboat_c.{}", ident(name))))?;
    let of_target = format!("{} lifeboat_c WHERE {violated}", key.relation());
    let count: u64 = session.row(&format!("SELECT count(*) AS rows FROM {of_target}"))?.number("rows")?;
    if count == 0 {
        return Ok(0);
    }
    let mut rejected = 0;
    for chunk in chunks {
        if !loader.sink(chunk).is_some_and(|sink| key.is_of(&sink.plan)) {
            continue;
        }
        let staged = loader.stage(session, chunk)?;
        let sink = loader.sink(chunk).ok_or_else(|| Error::failed("a table is not in the plan"))?;
        let violated = key.is_violated(|name| Ok(format!("s.{}", sink.typed(session, name)?)));
        let numbers = format!("SELECT lifeboat_n FROM pg_temp.lifeboat_stage s WHERE {}", violated?);
        let some = staged.reject(session, &numbers, &key.reason())?;
        state::move_to_rejected(session, &loader.plan().id, chunk, i64::try_from(some).unwrap_or(i64::MAX))?;
        rejected += some;
    }
    if rejected != count {
        return Err(Error::problem(format!(
            "{count} rows of {} violate the foreign key {}, but {rejected} of the loaded rows do",
            one_line(&format!("{}.{}", key.table.0, key.table.1)),
            one_line(&key.name)
        ))
        .hint(
            "another program writes to the table: stop it, run 'lifeboat migrate rollback', then run the plan again",
        ));
    }
    require_no_references(session, key, &violated)?;
    session.execute(&format!("DELETE FROM {of_target}"))?;
    Ok(rejected)
}

/// Fails if rows of other tables refer to rows that violate a key: these cannot be deleted, or not alone.
fn require_no_references(session: &mut Session, key: &ForeignKey, violated: &str) -> Result<()> {
    let shown = |(schema, name): &(String, String)| one_line(&format!("{schema}.{name}"));
    for other in foreign_key::referring(session, &key.table)? {
        let (table, child) = (shown(&key.table), shown(&other.table));
        let count = format!(
            "SELECT count(*) AS rows FROM {} lifeboat_c JOIN {} lifeboat_d ON {} WHERE {violated}",
            key.relation(),
            other.relation(),
            other.connects("lifeboat_c", "lifeboat_d")
        );
        let rows = session.row(&count).and_then(|row| row.number::<u64>("rows")).map_err(|error| {
            error
                .context(format!(
                    "cannot find out whether rows of {child} refer to rows of {table} that must be rejected"
                ))
                .hint(format!("the role needs SELECT on {child}"))
        })?;
        if rows > 0 {
            return Err(Error::problem(format!(
                "{rows} rows of {child} refer to rows of {table} that violate a foreign key and must be rejected"
            ))
            .hint(format!("delete these rows of {child}, then run the plan again")));
        }
    }
    Ok(())
}

/// Returns the level of each table of the plan: a table is loaded after those of lower levels, which it refers to. Tables
/// that refer to each other have the same level.
pub(super) fn levels<'a>(plan: &Plan, keys: impl Iterator<Item = &'a ForeignKey>) -> Vec<usize> {
    let mut levels: BTreeMap<(String, String), usize> = BTreeMap::new();
    let name = |(schema, name): &'_ (String, String)| (schema.clone(), name.clone());
    let edges = keys.filter(|key| key.table != key.parent).map(|key| (name(&key.table), name(&key.parent)));
    let edges: Vec<_> = edges.collect();
    // Longer chains than there are tables belong to a cycle, in which no order is right.
    for _ in 0..plan.tables.len() {
        let mut is_same = true;
        for (table, parent) in &edges {
            let above = levels.get(parent).copied().unwrap_or(0) + 1;
            let level = levels.entry(table.clone()).or_default();
            if *level < above && above < plan.tables.len() {
                (*level, is_same) = (above, false);
            }
        }
        if is_same {
            break;
        }
    }
    plan.tables
        .iter()
        .map(|table| levels.get(&(table.schema.clone(), table.name.clone())).copied().unwrap_or(0))
        .collect()
}
