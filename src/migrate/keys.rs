//! The foreign keys between existing tables that a run fills. Rows arrive in no particular order, so a key that the role
//! may drop and create again is dropped before loading, and created again, as it was, after it. Rows that it refuses then
//! are rejected.

use std::collections::BTreeMap;

use super::foreign_key::{ForeignKey, between, dropped};
use super::load::Loader;
use super::plan::Plan;
use super::state::{self, Chunk, SCHEMA, Step, TAKEN_KEY, Unexpected};
use super::{orphans, retry};
use crate::engine::postgres::schema::quote::{ident, literal};
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
            reject_orphans(session, loader, chunks, &keys)?;
            is_checked = true;
        }
        session.execute("BEGIN")?;
        let created = keys.iter().try_for_each(|key| create(session, &plan, key));
        let Err(error) = created.and_then(|()| session.execute("COMMIT")) else { return Ok(()) };
        let _ = session.execute("ROLLBACK");
        if sqlstate(&error).as_deref() != Some("23503") || is_checked {
            return Err(error);
        }
        reject_orphans(session, loader, chunks, &keys)?;
        is_checked = true;
    }
}

/// Rejects the rows that violate dropped keys. Rows with the key of a rejected one, which came after it, are loaded then.
fn reject_orphans(session: &mut Session, loader: &mut Loader<'_>, chunks: &[Chunk], keys: &[ForeignKey]) -> Result<()> {
    while orphans::reject(session, loader, chunks, keys)? > 0 {
        if retry::load_once(session, loader, chunks.iter(), TAKEN_KEY)? == 0 {
            break;
        }
    }
    Ok(())
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
