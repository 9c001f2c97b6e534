//! Runs SQLite's own checks on a database, and compares the results with earlier ones.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::connection::{explain, is_circumstance, is_damage, sqlite_message, within};
use super::names::{quote, readable_text, text_of};
use super::rows::{Cell, Rows};
use super::stand_ins::{Functions, MISSING_HERE, Missing};
use super::survey::list_tables;
use crate::platform::error::{Result, one_line};
use crate::snapshots::manifest::{Depth, Health, OrphanRows};

/// Runs SQLite's integrity check and `foreign_key_check` on `main`.
///
/// Collations and functions that SQLite does not have are stood in for (see [`super::stand_ins`]), and the parts that
/// depend on them are named in `unchecked`. So are objects that cannot be checked at all; the rest is then checked
/// table by table.
pub(super) fn examine(connection: &Connection, check: Depth) -> Result<Health> {
    let mut health = Health { check, ..Health::default() };
    let mut functions = Functions::default();
    examine_integrity(connection, &mut functions, &mut health)?;
    examine_foreign_keys(connection, &mut functions, &mut health)?;
    Ok(health)
}

/// The number of instructions of SQLite's virtual machine that a check may run for each byte of the database, and beside
/// them. Ordinary checks need fewer than one hundred for a byte.
const STEPS_PER_BYTE: i64 = 1000;
const MORE_STEPS: i64 = 300_000_000;

/// Returns the number of instructions that a check of a database may run.
fn most_steps(connection: &Connection) -> i64 {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap_or(0);
    bytes.saturating_mul(STEPS_PER_BYTE).saturating_add(MORE_STEPS)
}

fn examine_integrity(connection: &Connection, functions: &mut Functions, health: &mut Health) -> Result<()> {
    let check = health.check;
    let cannot_run = |error| explain(error, "cannot run integrity_check");
    let all = Scope { check, table: None, max_reports: Health::MAX_FAULTS };
    let steps = std::cell::Cell::new(most_steps(connection));
    let mut capped = Vec::new();
    match functions.run(connection, || within(&steps, || integrity(connection, all))) {
        Ok(faults) => health.integrity = faults,
        Err(error) if is_damage(&error) => health.integrity = vec![readable(&error)],
        Err(error) if is_circumstance(&error) => return Err(cannot_run(error)),
        Err(_) => {
            let mut tables = list_tables(connection).map_err(|error| explain(error, "cannot read the schema"))?;
            // One table does not use up the share of the others.
            let most = most_steps(connection);
            let (share, mut reserve) = (most / 10, most);
            steps.set(share);
            // SQLite checks the list of free pages together with this table.
            tables.push(("sqlite_schema".to_owned(), String::new()));
            for (table, _) in tables {
                let scope = Scope { table: Some(&table), ..all };
                if steps.get() < share && reserve > 0 {
                    reserve -= share;
                    steps.set(share);
                }
                match functions.run(connection, || within(&steps, || integrity(connection, scope))) {
                    Ok(faults) => {
                        capped.extend((faults.len() >= Health::MAX_FAULTS).then(|| table.clone()));
                        health.integrity.extend(faults);
                    }
                    Err(error) if is_circumstance(&error) => return Err(cannot_run(error)),
                    Err(error) if is_damage(&error) => health.integrity.push(readable(&error)),
                    Err(error) => {
                        health.unchecked.push(format!("integrity of {}: {}", one_line(&table), readable(&error)))
                    }
                }
            }
        }
    }
    let missing = match Missing::read(connection, functions) {
        Ok(missing) => missing,
        Err(error) if is_circumstance(&error) => return Err(cannot_run(error)),
        // All reports count then: as far as is known, none comes from a stand-in.
        Err(error) => {
            health.integrity.truncate(Health::MAX_FAULTS);
            health.unchecked.push(format!("what the database needs from other programs: {}", readable(&error)));
            return Ok(());
        }
    };
    if missing.is_empty() {
        health.integrity.truncate(Health::MAX_FAULTS);
        return Ok(());
    }
    // SQLite stops after so many reports. If stand-ins caused some of them, it must go on behind them.
    let is_capped = health.integrity.len() >= Health::MAX_FAULTS;
    if is_capped && health.integrity.iter().any(|fault| missing.explains(fault)) {
        if health.unchecked.is_empty() && capped.is_empty() {
            let all = Scope { max_reports: i32::MAX as usize, ..all };
            steps.set(most_steps(connection));
            match within(&steps, || read_integrity(connection, all, &|fault| !missing.explains(fault))) {
                Ok(faults) => health.integrity = faults,
                Err(error) if is_damage(&error) => health.integrity.insert(0, readable(&error)),
                Err(error) => return Err(cannot_run(error)),
            }
        }
        let rest = |table: &String| format!("integrity of {}: it has too many reports", one_line(table));
        health.unchecked.extend(capped.iter().map(rest));
    }
    health.integrity.retain(|fault| !missing.explains(fault));
    health.integrity.truncate(Health::MAX_FAULTS);
    health.unchecked.extend(missing.reasons(check).iter().map(|reason| one_line(reason)));
    Ok(())
}

fn examine_foreign_keys(connection: &Connection, functions: &mut Functions, health: &mut Health) -> Result<()> {
    let cannot_run = |error| explain(error, "cannot run foreign_key_check");
    match functions.run(connection, || orphans(connection, None)) {
        Ok(found) => health.orphans = found,
        Err(error) if is_damage(&error) => health.unchecked.push(format!("foreign keys: {}", readable(&error))),
        Err(error) if is_circumstance(&error) => return Err(cannot_run(error)),
        Err(_) => {
            let tables = list_tables(connection).map_err(|error| explain(error, "cannot read the schema"))?;
            for (table, _) in tables {
                match functions.run(connection, || orphans(connection, Some(&table))) {
                    Ok(found) => health.orphans.extend(found),
                    Err(error) if is_circumstance(&error) => return Err(cannot_run(error)),
                    Err(error) => {
                        let reason = format!("foreign keys of {}: {}", one_line(&table), readable(&error));
                        health.unchecked.push(reason);
                    }
                }
            }
        }
    }
    if health.orphans.is_empty() {
        return Ok(());
    }
    let missing = Missing::read(connection, functions).map_err(cannot_run)?;
    let mut certain = Vec::new();
    for orphan in std::mem::take(&mut health.orphans) {
        if missing.explains_orphans(connection, &orphan).map_err(cannot_run)? {
            let reason =
                format!("the foreign key of {} to {}: a collation {MISSING_HERE}", orphan.table, orphan.parent);
            health.unchecked.push(one_line(&reason));
        } else {
            certain.push(orphan);
        }
    }
    health.orphans = certain;
    Ok(())
}

fn readable(error: &rusqlite::Error) -> String {
    one_line(&sqlite_message(error))
}

/// The extent of an integrity check.
#[derive(Clone, Copy)]
struct Scope<'a> {
    check: Depth,
    /// The only table to check.
    table: Option<&'a str>,
    /// The number of reports after which SQLite stops. SQLite ignores it if there is a table.
    max_reports: usize,
}

fn integrity(connection: &Connection, scope: Scope<'_>) -> rusqlite::Result<Vec<String>> {
    read_integrity(connection, scope, &|_| true)
}

/// Returns the first faults that `is_wanted` accepts.
fn read_integrity(
    connection: &Connection,
    scope: Scope<'_>,
    is_wanted: &dyn Fn(&str) -> bool,
) -> rusqlite::Result<Vec<String>> {
    let check: &[u8] = match scope.check {
        Depth::Quick => b"quick_check",
        Depth::Full => b"integrity_check",
    };
    let argument = scope.table.map_or_else(|| scope.max_reports.to_string().into_bytes(), quote);
    let sql = [b"PRAGMA main.", check, b"(", &argument, b")"].concat();
    let mut rows = Rows::query(connection, &sql)?;
    let mut faults = Vec::new();
    while faults.len() < Health::MAX_FAULTS && rows.step()? {
        let Cell::Text(report) = rows.cell(0)? else { continue };
        // One report of damage to a b-tree can have many lines, and begins with the name of the database.
        let report = readable_text(report);
        let lines = report.lines().filter(|line| *line != "ok" && !line.starts_with("*** in database "));
        faults.extend(lines.map(one_line).filter(|line| is_wanted(line)));
    }
    faults.truncate(Health::MAX_FAULTS);
    Ok(faults)
}

/// Counts the orphan rows of one table or of all tables, per foreign key.
pub(super) fn orphans(connection: &Connection, table: Option<&str>) -> rusqlite::Result<Vec<OrphanRows>> {
    let sql = match table {
        Some(table) => [b"PRAGMA main.foreign_key_check(", &quote(table)[..], b")"].concat(),
        None => b"PRAGMA main.foreign_key_check".to_vec(),
    };
    let mut rows = Rows::query(connection, &sql)?;
    let name = |cell: Cell<'_>| match cell {
        Cell::Text(name) => text_of(name),
        _ => String::new(),
    };
    let mut sums: BTreeMap<(String, String, i64), u64> = BTreeMap::new();
    while rows.step()? {
        let Cell::Integer(key) = rows.cell(3)? else { continue };
        *sums.entry((name(rows.cell(0)?), name(rows.cell(2)?), key)).or_default() += 1;
    }
    Ok(sums.into_iter().map(|((table, parent, key), rows)| OrphanRows { table, parent, key, rows }).collect())
}

/// Returns true for a line of `integrity_check` that reports values that violate the schema's constraints, not damage
/// to the file.
fn violates_a_constraint(fault: &str) -> bool {
    [
        // A full-text index that lacks the newest text; the text itself is in a table.
        "malformed inverted index for ",
        "unable to validate the inverted index for ",
        "NULL value in ",
        "CHECK constraint failed in ",
        "TEXT value in ",
        "NUMERIC value in ",
        "non-INTEGER value in ",
        "non-BLOB value in ",
        "non-TEXT value in ",
        "non-REAL value in ",
        "non-INT value in ",
    ]
    .iter()
    .any(|start| fault.starts_with(start))
}

/// Returns the lines of `integrity_check` that mean damage to the file.
#[must_use]
pub(crate) fn damage(health: &Health) -> Vec<&str> {
    health.integrity.iter().map(String::as_str).filter(|fault| !violates_a_constraint(fault)).collect()
}

/// Returns true for a line that only a full check finds: an index and its table disagree. The rows are not affected.
fn concerns_an_index(fault: &str) -> bool {
    fault.contains(" missing from index ")
        || fault.contains(" stores an imprecise floating-point value ")
        || fault.starts_with("wrong # of entries in index ")
        || fault.starts_with("non-unique entry in index ")
        || fault.contains(" values differ from index ")
        || fault.starts_with("rowid not at end-of-record ")
}

/// Faults that did not exist when the snapshot was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NewFaults {
    /// Faults that certainly did not exist.
    pub faults: Vec<String>,
    /// Faults that were not checked when the snapshot was taken: indexes that disagree with their tables, or that
    /// cannot be checked here.
    pub unknown: Vec<String>,
}

/// Returns the faults in `now` that are not in `before`, the check when the snapshot was taken. Older faults do not
/// come from the restore.
#[must_use]
pub(crate) fn new_faults(before: &Health, now: &Health) -> NewFaults {
    // A list that was truncated cannot be compared line by line.
    let comparable = before.integrity.len() < Health::MAX_FAULTS;
    let old = |fault: &String| before.integrity.contains(fault) || !comparable;
    // An earlier version could not run every check that this one can.
    let was_unchecked = |what: &str| before.unchecked.iter().any(|reason| reason.starts_with(what));
    let some_unchecked = was_unchecked("integrity of ");
    let (mut unknown, mut faults): (Vec<String>, Vec<String>) =
        now.integrity.iter().filter(|fault| !old(fault)).cloned().partition(|fault| {
            (before.check == Depth::Quick && concerns_an_index(fault))
                || (some_unchecked && violates_a_constraint(fault))
        });
    for reason in now.unchecked.iter().filter(|reason| !before.unchecked.contains(reason)) {
        let fault = format!("not checked: {reason}");
        // The deeper check needs more (for example, an index's functions) than the check at the time of the snapshot
        // did, and earlier versions did not report everything that is missing.
        match before.check == now.check && !reason.ends_with(MISSING_HERE) {
            true => faults.push(fault),
            false => unknown.push(fault),
        }
    }
    let (unchecked, checked): (Vec<OrphanRows>, Vec<OrphanRows>) = now
        .orphans
        .iter()
        .cloned()
        .partition(|orphan| was_unchecked(&format!("foreign keys of {}:", one_line(&orphan.table))));
    unknown.extend(new_orphans(&before.orphans, &unchecked));
    faults.extend(new_orphans(&before.orphans, &checked));
    NewFaults { faults, unknown }
}

/// Lists the foreign keys that have more orphan rows than before. If there are several counts for one key, the largest
/// counts.
pub(super) fn new_orphans(before: &[OrphanRows], now: &[OrphanRows]) -> Vec<String> {
    let key = |orphan: &OrphanRows| (orphan.table.to_lowercase(), orphan.parent.to_lowercase(), orphan.key);
    let count = |orphan: &OrphanRows| {
        let old = before.iter().filter(|old| key(old) == key(orphan)).map(|old| old.rows).max();
        orphan.rows.saturating_sub(old.unwrap_or(0))
    };
    let more = now.iter().map(|orphan| (orphan, count(orphan))).filter(|(_, rows)| *rows > 0);
    more.map(|(orphan, rows)| {
        one_line(&format!("{rows} rows of {} refer to rows of {} that do not exist", orphan.table, orphan.parent))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_faults_count() {
        let orphan = |rows| OrphanRows { table: "a".into(), parent: "b".into(), key: 0, rows };
        let before = Health {
            check: Depth::Full,
            integrity: vec!["row 1 missing from index i".into()],
            orphans: vec![orphan(2)],
            ..Health::default()
        };
        assert_eq!(new_faults(&before, &before), NewFaults::default());
        assert_eq!(new_faults(&before, &Health::default()), NewFaults::default());
        assert_eq!(new_faults(&Health { check: Depth::Full, ..Health::default() }, &before).faults.len(), 2);
        let worse = Health { orphans: vec![orphan(3)], ..before.clone() };
        assert_eq!(new_faults(&before, &worse).faults, ["1 rows of a refer to rows of b that do not exist"]);
    }

    #[test]
    fn index_faults_that_a_quick_check_does_not_find_are_not_new() {
        let now = Health {
            check: Depth::Full,
            integrity: vec!["row 1 missing from index i".into(), "Page 7: never used".into()],
            ..Health::default()
        };
        let new = new_faults(&Health::default(), &now);
        assert_eq!(
            (new.faults, new.unknown),
            (vec!["Page 7: never used".to_owned()], vec!["row 1 missing from index i".to_owned()])
        );
    }

    #[test]
    fn parts_that_an_earlier_version_could_not_check_are_not_new_faults() {
        let orphans = vec![OrphanRows { table: "a".into(), parent: "b".into(), key: 0, rows: 1 }];
        let before = Health {
            unchecked: vec![
                "integrity of a: no such collation sequence: x".into(),
                "foreign keys of a: no such collation sequence: x".into(),
            ],
            ..Health::default()
        };
        let now = Health {
            integrity: vec!["CHECK constraint failed in a".into()],
            orphans: orphans.clone(),
            unchecked: vec![format!("the constraints of the table a: the collation x {MISSING_HERE}")],
            ..Health::default()
        };
        let new = new_faults(&before, &now);
        assert_eq!((new.faults.len(), new.unknown.len()), (0, 3));
        assert_eq!(new_faults(&Health::default(), &now).faults.len(), 2);
        let damaged = Health { integrity: vec!["Tree 2 page 2: btreeInitPage() returns error code 11".into()], ..now };
        assert_eq!(new_faults(&before, &damaged).faults.len(), 1);
    }

    #[test]
    fn violated_constraints_are_not_damage() {
        let health = Health {
            integrity: vec![
                "NULL value in t.c".into(),
                "CHECK constraint failed in t".into(),
                "wrong # of entries in index i".into(),
            ],
            ..Health::default()
        };
        assert_eq!(damage(&health), ["wrong # of entries in index i"]);
    }
}
