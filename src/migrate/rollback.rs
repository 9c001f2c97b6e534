//! Rolls back a run, and changes nothing else. Removes the tables that the run created, and the rows that it loaded
//! into existing tables, if the tables are the same and have exactly these rows. Then removes the run's empty schemas
//! and the records about the run.

use super::plan::Plan;
use super::run;
use super::state::{self, Made, SCHEMA};
use crate::engine::postgres::Params;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Result, one_line};

/// The result of a rollback.
#[derive(Clone, Debug, Default)]
pub(crate) struct RollbackOutcome {
    /// True if the target had a record that the plan was run.
    pub was_run: bool,
    /// Tables that were dropped or emptied, with the number of rows that were in them.
    pub tables: Vec<(String, u64)>,
    /// Objects that stay, with the reasons.
    pub notes: Vec<String>,
}

/// Rolls back a plan in one transaction. Fails and changes nothing if tables have other rows than were loaded, unless
/// `even_changed` is set, or if other objects depend on them.
pub(crate) fn rollback(plan: &Plan, params: &Params, even_changed: bool) -> Result<RollbackOutcome> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    state::lock(&mut session, &plan.id)?;
    if state::find(&mut session, &plan.id)?.is_none() {
        return Ok(RollbackOutcome::default());
    }
    session.execute("BEGIN")?;
    let outcome = undo(&mut session, plan, even_changed);
    if outcome.is_err() {
        let _ = session.execute("ROLLBACK");
    }
    outcome.map_err(|error| error.context("cannot roll back the plan; nothing was changed"))
}

fn undo(session: &mut Session, plan: &Plan, even_changed: bool) -> Result<RollbackOutcome> {
    let mut outcome = RollbackOutcome { was_run: true, ..RollbackOutcome::default() };
    // This lock comes first: a run that begins a plan takes it before it inspects any table.
    state::lock_notes(session)?;
    let made = state::made(session, &plan.id)?;
    let (mut drop, mut empty): (Vec<&Made>, Vec<&Made>) = (Vec::new(), Vec::new());
    for one in made.iter().filter(|one| one.kind == "table" || one.kind == "filled") {
        let name = one_line(&format!("{}.{}", one.schema, one.name));
        if !is_same(session, one)? {
            outcome
                .notes
                .push(format!("the table that the run loaded as {name} was dropped or renamed: it is not rolled back"));
            continue;
        }
        session.execute(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", qualified(&one.schema, &one.name)))?;
        let found = session.row(&format!(
            "SELECT count(*) AS rows, {} AS digest FROM {} lifeboat_row",
            state::rows_digest(),
            qualified(&one.schema, &one.name)
        ))?;
        let rows: u64 = found.number("rows")?;
        let loaded = state::rows_loaded(session, &plan.id, one)?;
        let hint =
            "rows were added, deleted or changed since: save them elsewhere, or use --even-changed to discard them";
        if rows != loaded && !even_changed {
            return Err(Error::failed(format!("{name} has {rows} rows, but {loaded} were loaded")).hint(hint));
        }
        match &one.rows_digest {
            Some(digest) if digest != found.text("digest")? && !even_changed => {
                return Err(Error::failed(format!("the rows of {name} differ from those that were loaded")).hint(hint));
            }
            None if rows > 0 && !even_changed => {
                outcome.notes.push(format!("{name}: the run was not complete, so only the number of rows was compared"))
            }
            _ => {}
        }
        outcome.tables.push((name, rows));
        if one.kind == "table" { drop.push(one) } else { empty.push(one) }
    }
    if !drop.is_empty() {
        let names: Vec<String> = drop.iter().map(|one| qualified(&one.schema, &one.name)).collect();
        drop_tables(session, &names)?;
    }
    for one in empty {
        session.execute(&format!("DELETE FROM {}", qualified(&one.schema, &one.name)))?;
    }
    session.execute(&format!("DELETE FROM {SCHEMA}.plans WHERE id = {}", literal(&plan.id)))?;
    for one in made.iter().rev().filter(|one| one.kind == "schema") {
        drop_schema(session, &one.name, &mut outcome)?;
    }
    let others = session.row(&format!("SELECT EXISTS (SELECT FROM {SCHEMA}.plans) AS others"))?;
    if !others.flag("others")? {
        session.execute(&format!(
            "DROP TABLE {SCHEMA}.rejects, {SCHEMA}.steps, {SCHEMA}.chunks, {SCHEMA}.made, {SCHEMA}.plans"
        ))?;
        drop_schema(session, SCHEMA, &mut outcome)?;
    }
    session.execute("COMMIT")?;
    Ok(outcome)
}

/// Returns true if the object with this name is the one that was created (same OID).
fn is_same(session: &mut Session, made: &Made) -> Result<bool> {
    let name = literal(&qualified(&made.schema, &made.name));
    let row = session.row(&format!(
        "SELECT coalesce(pg_catalog.to_regclass({name})::pg_catalog.oid = {}, false) AS same",
        made.oid
    ))?;
    row.flag("same")
}

/// Drops tables that may reference one another. Fails if another object depends on them. Hypertables are dropped one by
/// one.
fn drop_tables(session: &mut Session, names: &[String]) -> Result<()> {
    let dependent = |error: Error| match sqlstate(&error).as_deref() {
        Some("2BP01") => error
            .context("an object that lifeboat did not create depends on a table")
            .hint("drop your views, continuous aggregates or foreign keys on the table first"),
        _ => error,
    };
    if run::timescale(session)?.is_none() {
        return session.execute(&format!("DROP TABLE {}", names.join(", "))).map_err(dependent);
    }
    // Referencing tables are dropped before the tables that they reference. If a round drops nothing, its error is
    // returned.
    let mut left: Vec<&String> = names.iter().rev().collect();
    while !left.is_empty() {
        let before = left.len();
        let mut failed = None;
        let mut kept = Vec::new();
        for name in left {
            session.execute("SAVEPOINT lifeboat_drop")?;
            match session.execute(&format!("DROP TABLE {name}")) {
                Ok(()) => session.execute("RELEASE SAVEPOINT lifeboat_drop")?,
                Err(error) if sqlstate(&error).as_deref() == Some("2BP01") => {
                    session.execute("ROLLBACK TO SAVEPOINT lifeboat_drop")?;
                    failed = Some(error);
                    kept.push(name);
                }
                Err(error) => return Err(error),
            }
        }
        left = kept;
        if let Some(error) = failed.filter(|_| left.len() == before) {
            return Err(dependent(error));
        }
    }
    Ok(())
}

/// Drops a schema if it is empty. If it is not, it stays, and a note says so.
fn drop_schema(session: &mut Session, name: &str, outcome: &mut RollbackOutcome) -> Result<()> {
    session.execute("SAVEPOINT lifeboat_schema")?;
    match session.execute(&format!("DROP SCHEMA {}", ident(name))) {
        Ok(()) => session.execute("RELEASE SAVEPOINT lifeboat_schema"),
        Err(error) if matches!(sqlstate(&error).as_deref(), Some("2BP01" | "3F000")) => {
            session.execute("ROLLBACK TO SAVEPOINT lifeboat_schema")?;
            outcome.notes.push(format!("the schema {} contains other objects and is kept", one_line(name)));
            Ok(())
        }
        Err(error) => Err(error),
    }
}
