//! Rolls back a run, and changes nothing else. Removes the tables that the run created, and the rows that it loaded
//! into existing tables, if the tables are the same and have exactly these rows. Then removes the run's empty schemas
//! and the records about the run.

use super::foreign_key::{self, ForeignKey};
use super::loaded;
use super::plan::Plan;
use super::state::{self, Made, SCHEMA};
use crate::engine::postgres::Params;
use crate::engine::postgres::restore::commit::commit;
use crate::engine::postgres::schema::quote::ident;
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
/// `even_changed` is set. Tables that rows or objects of others depend on are kept, and named.
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
    let outcome = outcome.map_err(|error| error.context("cannot roll back the plan; nothing was changed"))?;
    commit(&mut session, params).map_err(|error| error.context("cannot roll back the plan"))?;
    Ok(outcome)
}

fn undo(session: &mut Session, plan: &Plan, even_changed: bool) -> Result<RollbackOutcome> {
    let mut outcome = RollbackOutcome { was_run: true, ..RollbackOutcome::default() };
    // This lock comes first: a run that begins a plan takes it before it inspects any table.
    state::lock_notes(session)?;
    // A record that an older version has made lacks some tables.
    state::make_tables(session)?;
    let made = state::made(session, &plan.id)?;
    let mut loaded: Vec<Made> = Vec::new();
    for one in made.iter().filter(|one| one.is_table()) {
        if loaded::is_same(session, one)? {
            require_as_loaded(session, plan, one, even_changed, &mut outcome)?;
            loaded.push(one.clone());
            continue;
        }
        let name = one.shown();
        let fate = match loaded::new_name(session, one)? {
            Some(now) => format!("is {now} now"),
            None => "was dropped".to_owned(),
        };
        outcome.notes.push(format!("the table that the run loaded as {name} {fate}: it is not rolled back"));
    }
    let dropped = foreign_key::dropped(session, &plan.id)?;
    let referenced = keep_referenced(session, &mut loaded, &dropped, &mut outcome)?;
    empty(session, &loaded)?;
    for key in dropped {
        outcome.notes.extend(key.create(session)?);
    }
    let new: Vec<&Made> = loaded.iter().filter(|one| one.kind == "table").collect();
    let emptied = drop_tables(session, &new, &mut outcome)?;
    match referenced.is_empty() && emptied.is_empty() {
        true => state::forget(session, &plan.id)?,
        false => state::keep_tables(session, &plan.id, &referenced, &emptied)?,
    }
    for one in made.iter().rev().filter(|one| one.kind == "schema") {
        drop_schema(session, &one.name, &mut outcome)?;
    }
    let others = session.row(&format!("SELECT EXISTS (SELECT FROM {SCHEMA}.plans) AS others"))?;
    if !others.flag("others")? {
        let tables: Vec<String> = state::tables().rev().map(|table| format!("{SCHEMA}.{table}")).collect();
        session.execute(&format!("DROP TABLE {}", tables.join(", ")))?;
        drop_schema(session, SCHEMA, &mut outcome)?;
    }
    Ok(outcome)
}

/// Locks a table. Fails if it has other rows than were loaded, unless `even_changed` is set.
fn require_as_loaded(
    session: &mut Session,
    plan: &Plan,
    one: &Made,
    even_changed: bool,
    outcome: &mut RollbackOutcome,
) -> Result<()> {
    let name = one.shown();
    session.execute(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", one.quoted()))?;
    let (now, loaded) = (loaded::rows_now(session, &plan.id, one)?, state::rows_loaded(session, &plan.id, one)?);
    let rows = now.rows;
    let hint = "rows were added, deleted or changed since: save them elsewhere, or use --even-changed to discard them";
    // Triggers of the table may have written more rows in the transactions of the run.
    let are_all_own = rows > loaded && now.is_known && now.own == rows;
    if rows != loaded && !are_all_own && !even_changed {
        return Err(Error::failed(format!("{name} has {rows} rows, but {loaded} were loaded")).hint(hint));
    }
    if !now.are_as_loaded(one.rows_digest.as_deref()) && !even_changed {
        return Err(Error::failed(format!("the rows of {name} differ from those that were loaded")).hint(hint));
    }
    outcome.tables.push((name, rows));
    Ok(())
}

/// Removes the tables from the list to which rows of other tables refer, and returns their OIDs: they would be deleted or
/// changed with these, or prevent it. Notes name them.
fn keep_referenced(
    session: &mut Session,
    loaded: &mut Vec<Made>,
    dropped: &[ForeignKey],
    outcome: &mut RollbackOutcome,
) -> Result<Vec<u32>> {
    let mut kept = Vec::new();
    while let Some((parent, why)) = find_referenced(session, loaded, dropped)? {
        for one in loaded.iter().filter(|one| one.oid == parent) {
            let name = one.shown();
            outcome.tables.retain(|(table, _)| *table != name);
            outcome.notes.push(format!("{name} is kept with its rows: {why}, then roll back again"));
        }
        loaded.retain(|one| one.oid != parent);
        kept.push(parent);
    }
    Ok(kept)
}

/// Returns the OID of a table to which rows of tables that are not in the list refer, or may refer, with the reason and the way
/// out.
fn find_referenced(session: &mut Session, loaded: &[Made], dropped: &[ForeignKey]) -> Result<Option<(u32, String)>> {
    let oids: Vec<String> = loaded.iter().map(|one| one.oid.to_string()).collect();
    let list = if oids.is_empty() { "0".to_owned() } else { oids.join(", ") };
    let keys = session.rows(&format!(
        "SELECT k.confrelid AS parent, k.conrelid::pg_catalog.regclass::text AS child,
                pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
                    AND pg_catalog.has_table_privilege(k.conrelid, 'SELECT') AS is_readable,
                (SELECT pg_catalog.string_agg(pg_catalog.format('%I IS NOT NULL', a.attname), ' AND ')
                   FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)) AS refers
           FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
          WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid IN ({list}) AND k.conrelid NOT IN ({list})
            -- A chunk of a hypertable has keys of its own.
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = k.conrelid AND i.inhparent IN ({list}))
          ORDER BY 2"
    ))?;
    for key in &keys {
        let child = key.text("child")?;
        let why = match key.flag("is_readable")? {
            true => rows_that_refer(session, child, key.text("refers")?)?,
            false => Some(format!("{child} refers to it, which the role cannot read. Run GRANT SELECT ON {child}")),
        };
        if let Some(why) = why {
            return Ok(Some((key.number("parent")?, why)));
        }
    }
    // A key that the run has dropped, and that a table which is kept needs again.
    let oid_of = |(schema, name): &(String, String)| {
        loaded.iter().find(|one| (&one.schema, &one.name) == (schema, name)).map(|one| one.oid)
    };
    for key in dropped.iter().filter(|key| oid_of(&key.table).is_none()) {
        let Some(parent) = oid_of(&key.parent) else { continue };
        let refers: Vec<String> = key.columns.iter().map(|name| format!("{} IS NOT NULL", ident(name))).collect();
        if !state::relation_exists(session, &key.relation())? {
            continue;
        }
        if let Some(why) = rows_that_refer(session, &key.relation(), &refers.join(" AND "))? {
            return Ok(Some((parent, why)));
        }
    }
    Ok(None)
}

/// Returns a text about the rows of a table that refer to another one, if there are any.
fn rows_that_refer(session: &mut Session, child: &str, refers: &str) -> Result<Option<String>> {
    let row = session.row(&format!("SELECT count(*) AS rows FROM {child} WHERE {refers}"))?;
    let rows: u64 = row.number("rows")?;
    Ok((rows > 0).then(|| format!("{rows} rows of {} refer to it. Delete these", one_line(child))))
}

/// Removes the rows of all tables in one statement, because they may refer to one another. They are truncated if no trigger
/// of users fires for deleted rows or at TRUNCATE, and the role may do that: without an index on the columns of a foreign key, each deleted
/// row would be looked up in the whole referencing table.
fn empty(session: &mut Session, loaded: &[Made]) -> Result<()> {
    if loaded.is_empty() {
        return Ok(());
    }
    let oids: Vec<String> = loaded.iter().map(|one| one.oid.to_string()).collect();
    let triggers = session.rows(&format!(
        "SELECT pg_catalog.format('%I of %s', tgname, tgrelid::pg_catalog.regclass) AS name, tgtype & 8 <> 0 AS at_delete
           FROM pg_catalog.pg_trigger
          WHERE tgrelid IN ({}) AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & (8 | 32) <> 0 ORDER BY 1",
        oids.join(", ")
    ))?;
    let can_truncate = triggers.is_empty();
    let mut at_delete = Vec::new();
    for trigger in &triggers {
        if trigger.flag("at_delete")? {
            at_delete.push(one_line(trigger.text("name")?));
        }
    }
    let triggers = at_delete.join(", ");
    let names = loaded.iter().map(|one| loaded::own_rows(session, one)).collect::<Result<Vec<_>>>()?;
    if can_truncate {
        session.execute("SAVEPOINT lifeboat_empty")?;
        match session.execute(&format!("TRUNCATE {}", names.join(", "))) {
            Ok(()) => return session.execute("RELEASE SAVEPOINT lifeboat_empty"),
            // The role lacks the privilege, or a foreign key of an empty table of others refers to one of these.
            Err(error) if sqlstate(&error).is_some() => {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_empty; RELEASE SAVEPOINT lifeboat_empty")?;
            }
            Err(error) => return Err(error),
        }
    }
    let (first, rest) = (&names[0], &names[1..]);
    let one = |(number, name): (usize, &String)| format!("lifeboat_{number} AS (DELETE FROM {name})");
    let with: Vec<String> = rest.iter().enumerate().map(one).collect();
    let with = if with.is_empty() { String::new() } else { format!("WITH {} ", with.join(", ")) };
    // A table with checks to come can be changed no more in this transaction.
    let disable = format!(
        "disable the triggers that fire for deleted rows with ALTER TABLE ... DISABLE TRIGGER, roll back, and enable them again: \
         {triggers}"
    );
    let delete = format!("{with}DELETE FROM {first}; SET CONSTRAINTS ALL IMMEDIATE");
    session.execute(&delete).map_err(|error| match triggers.is_empty() || sqlstate(&error).is_none() {
        true => error,
        false => error.context("cannot delete the rows that were loaded").hint(&disable),
    })?;
    for (one, name) in loaded.iter().zip(&names) {
        if session.row(&format!("SELECT EXISTS (SELECT FROM {name}) AS rows"))?.flag("rows")? {
            return Err(Error::failed(format!("{} still has rows after they were deleted", one.shown()))
                .hint(format!("a trigger keeps or inserts rows: {disable}")));
        }
    }
    Ok(())
}

/// Drops empty tables that may refer to one another: first the foreign keys between them, then one table after the other,
/// because TimescaleDB drops no hypertable together with others. A table that objects of others depend on is kept, and a
/// note names these. Returns the OIDs of these tables.
fn drop_tables(session: &mut Session, tables: &[&Made], outcome: &mut RollbackOutcome) -> Result<Vec<u32>> {
    let mut kept = Vec::new();
    let oids: Vec<String> = tables.iter().map(|one| one.oid.to_string()).collect();
    if oids.is_empty() {
        return Ok(kept);
    }
    let keys = session.rows(&format!(
        "SELECT k.conrelid::pg_catalog.regclass::text AS relation, k.conname AS name FROM pg_catalog.pg_constraint k
          WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid IN ({list}) AND k.confrelid IN ({list})",
        list = oids.join(", ")
    ))?;
    for key in &keys {
        session.execute(&format!(
            "ALTER TABLE {} DROP CONSTRAINT {}",
            key.text("relation")?,
            ident(key.text("name")?)
        ))?;
    }
    for one in tables {
        session.execute("SAVEPOINT lifeboat_drop")?;
        match session.execute(&format!("DROP TABLE {}", one.quoted())) {
            Ok(()) => session.execute("RELEASE SAVEPOINT lifeboat_drop")?,
            Err(error) if sqlstate(&error).as_deref() == Some("2BP01") => {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_drop; RELEASE SAVEPOINT lifeboat_drop")?;
                outcome.notes.push(format!(
                    "{} is emptied and kept, because objects that lifeboat did not create depend on it: {}",
                    one.shown(),
                    one_line(&error.causes().join(": "))
                ));
                kept.push(one.oid);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
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
