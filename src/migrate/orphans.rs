//! Rejects loaded rows that refer to missing rows, or to rows that are rejected for that, before dropped foreign keys are
//! created again.

use std::collections::BTreeSet;

use super::foreign_key::{self, ForeignKey};
use super::load::Loader;
use super::state::{self, Chunk};
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// A table: schema and name.
type Name = (String, String);

/// Rejects all these rows in one transaction, and returns their number.
pub(super) fn reject(
    session: &mut Session,
    loader: &mut Loader<'_>,
    chunks: &[Chunk],
    keys: &[ForeignKey],
) -> Result<u64> {
    session.execute("BEGIN")?;
    let rejected = reject_all(session, loader, chunks, keys);
    if rejected.is_err() {
        session.defer_interrupts();
        let _ = session.execute("ROLLBACK");
    }
    let rejected = rejected?;
    session.execute("COMMIT")?;
    Ok(rejected)
}

fn reject_all(session: &mut Session, loader: &mut Loader<'_>, chunks: &[Chunk], keys: &[ForeignKey]) -> Result<u64> {
    // The triggers that fire for deleted rows may change others.
    state::note_transaction(session, &loader.plan().id)?;
    // Otherwise another program could insert a row, or a missing one, between two of the statements.
    let tables: BTreeSet<&Name> = keys.iter().flat_map(|key| [&key.table, &key.parent]).collect();
    let tables: Vec<String> = tables.into_iter().map(|(schema, name)| qualified(schema, name)).collect();
    session.execute(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", ")))?;
    let mut affected = collect(session, keys)?;
    // Referenced rows are deleted first: the triggers that fire for a deleted row may change the row that it refers to.
    let levels = foreign_key::levels(loader.plan(), keys.iter());
    let tables = loader.plan().tables.iter();
    let levels: BTreeSet<(usize, Name)> =
        levels.into_iter().zip(tables.map(|table| (table.schema.clone(), table.name.clone()))).collect();
    let mut deleted = Vec::new();
    for (_, table) in levels.into_iter().filter(|(_, table)| affected.remove(table)) {
        let rows = delete(session, &table)?;
        deleted.push((table, rows));
    }
    let mut sum = 0;
    for (table, deleted) in deleted {
        let keys: Vec<&ForeignKey> = keys.iter().filter(|key| key.table == table).collect();
        let rejected = reject_rows(session, loader, chunks, &keys)?;
        if rejected != deleted {
            return Err(Error::problem(format!(
                "{deleted} rows of {} violate foreign keys, but {rejected} of the loaded rows do",
                shown(&table)
            ))
            .hint(
                "another program writes to the table: stop it, run 'lifeboat migrate rollback', then run the plan again",
            ));
        }
        sum += rejected;
    }
    Ok(sum)
}

fn shown((schema, name): &Name) -> String {
    one_line(&format!("{schema}.{name}"))
}

/// Returns an expression that identifies a row among those of all tables.
fn id(row: &str) -> String {
    format!("({row}.tableoid::text || {row}.ctid::text)")
}

/// Collects the rows in the temporary table `lifeboat_orphans`, and returns their tables.
fn collect(session: &mut Session, keys: &[ForeignKey]) -> Result<BTreeSet<Name>> {
    session.execute("CREATE TEMPORARY TABLE lifeboat_orphans (id text PRIMARY KEY) ON COMMIT DROP")?;
    let mut affected: BTreeSet<Name> = BTreeSet::new();
    for key in keys {
        interrupt::check()?;
        let violated = key.is_violated(|name| Ok(format!("lifeboat_c.{}", ident(name))))?;
        let found = session.row(&format!(
            "WITH found AS (INSERT INTO pg_temp.lifeboat_orphans SELECT {} FROM {} lifeboat_c WHERE {violated}
                            ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) AS rows FROM found",
            id("lifeboat_c"),
            key.relation()
        ))?;
        if found.number::<u64>("rows")? > 0 {
            affected.insert(key.table.clone());
        }
    }
    let mut followed: Vec<&ForeignKey> = Vec::new();
    let is_next = |key: &&ForeignKey, affected: &BTreeSet<Name>, followed: &[&ForeignKey]| {
        affected.contains(&key.parent) && !followed.iter().any(|other| other.number == key.number)
    };
    while let Some(key) = keys.iter().find(|key| is_next(key, &affected, &followed)) {
        affected.insert(key.table.clone());
        followed.push(key);
    }
    if !followed.is_empty() {
        follow(session, &followed)?;
    }
    Ok(affected)
}

/// Adds the rows that refer to these rows by such keys, however many steps away.
fn follow(session: &mut Session, keys: &[&ForeignKey]) -> Result<()> {
    session.execute("CREATE TEMPORARY TABLE lifeboat_references (parent text, child text) ON COMMIT DROP")?;
    for key in keys {
        interrupt::check()?;
        session.execute(&format!(
            "INSERT INTO pg_temp.lifeboat_references SELECT {}, {} FROM {} lifeboat_p JOIN {} lifeboat_c ON {}",
            id("lifeboat_p"),
            id("lifeboat_c"),
            qualified(&key.parent.0, &key.parent.1),
            key.relation(),
            key.connects("lifeboat_p", "lifeboat_c")
        ))?;
    }
    // Each step of the recursion finds few rows: it must not read the whole table.
    session.execute(
        "CREATE INDEX ON pg_temp.lifeboat_references (parent);
         ANALYZE pg_temp.lifeboat_references;
         SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off",
    )?;
    session.execute(
        "WITH RECURSIVE found (id) AS (
             SELECT id FROM pg_temp.lifeboat_orphans
              UNION SELECT r.child FROM found f JOIN pg_temp.lifeboat_references r ON r.parent = f.id)
         INSERT INTO pg_temp.lifeboat_orphans SELECT id FROM found ON CONFLICT DO NOTHING",
    )?;
    session.execute("SET LOCAL enable_hashjoin = DEFAULT; SET LOCAL enable_mergejoin = DEFAULT")
}

/// Deletes the collected rows of a table, and returns their number.
fn delete(session: &mut Session, table: &Name) -> Result<u64> {
    interrupt::check()?;
    let is_orphan = format!("{} IN (SELECT id FROM pg_temp.lifeboat_orphans)", id("lifeboat_c"));
    require_no_references(session, table, &is_orphan)?;
    let deleted = session.row(&format!(
        "WITH deleted AS (DELETE FROM {} lifeboat_c WHERE {is_orphan} RETURNING 1) SELECT count(*) AS rows FROM deleted",
        qualified(&table.0, &table.1)
    ))?;
    deleted.number("rows")
}

/// Fails if rows of other tables refer to the collected rows of a table: these cannot be deleted, or not alone.
fn require_no_references(session: &mut Session, table: &Name, is_orphan: &str) -> Result<()> {
    for other in foreign_key::referring(session, table)? {
        let (table, child) = (shown(table), shown(&other.table));
        let count = format!(
            "SELECT count(*) AS rows FROM {} lifeboat_c JOIN {} lifeboat_d ON {} WHERE {is_orphan}",
            qualified(&other.parent.0, &other.parent.1),
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

/// Rejects the rows of a table that violate one of its keys, now that the rows which violate keys are deleted. Returns their
/// number.
fn reject_rows(session: &mut Session, loader: &mut Loader<'_>, chunks: &[Chunk], keys: &[&ForeignKey]) -> Result<u64> {
    let mut sum = 0;
    for chunk in chunks {
        let Some(sink) = loader.sink(chunk).filter(|sink| keys.iter().any(|key| key.is_of(&sink.plan))) else {
            continue;
        };
        interrupt::check()?;
        let staged = loader.stage(session, chunk)?;
        let mut rejected = 0;
        for key in keys {
            let violated = key.is_violated(|name| Ok(format!("s.{}", sink.typed(session, name)?)))?;
            let numbers = format!("SELECT lifeboat_n FROM pg_temp.lifeboat_stage s WHERE {violated}");
            rejected += staged.reject(session, &numbers, &key.reason())?;
        }
        staged.finish(session)?;
        state::move_to_rejected(session, &loader.plan().id, chunk, i64::try_from(rejected).unwrap_or(i64::MAX))?;
        sum += rejected;
    }
    Ok(sum)
}
