//! Runs SQLite's own checks on a database, and compares the results with earlier ones.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::connection::{explain, is_circumstance, is_damage, quote, sqlite_message};
use super::survey::list_tables;
use crate::platform::error::{Result, one_line};
use crate::snapshots::manifest::{Depth, Health, OrphanRows};

/// Runs SQLite's integrity check and `foreign_key_check` on `main`.
///
/// Objects that cannot be checked (for example, an index with a missing collation) are named in `unchecked`; the rest
/// is checked table by table.
pub(super) fn examine(connection: &Connection, check: Depth) -> Result<Health> {
    let mut health = Health { check, ..Health::default() };
    match integrity(connection, check, None) {
        Ok(faults) => health.integrity = faults,
        Err(error) if is_damage(&error) => health.integrity = vec![one_line(&sqlite_message(&error))],
        Err(error) if is_circumstance(&error) => return Err(explain(error, "cannot run integrity_check")),
        Err(_) => {
            let tables = list_tables(connection).map_err(|error| explain(error, "cannot read the schema"))?;
            for (table, _) in tables {
                match integrity(connection, check, Some(&table)) {
                    Ok(faults) => health.integrity.extend(faults),
                    Err(error) if is_circumstance(&error) => return Err(explain(error, "cannot run integrity_check")),
                    Err(error) => {
                        let reason = format!("integrity of {table}: {}", sqlite_message(&error));
                        health.unchecked.push(one_line(&reason));
                    }
                }
            }
            health.integrity.truncate(Health::MAX_FAULTS);
        }
    }
    match orphans(connection, None) {
        Ok(found) => health.orphans = found,
        Err(error) if is_damage(&error) => {
            health.unchecked.push(one_line(&format!("foreign keys: {}", sqlite_message(&error))));
        }
        Err(error) if is_circumstance(&error) => return Err(explain(error, "cannot run foreign_key_check")),
        Err(_) => {
            let tables = list_tables(connection).map_err(|error| explain(error, "cannot read the schema"))?;
            for (table, _) in tables {
                match orphans(connection, Some(&table)) {
                    Ok(found) => health.orphans.extend(found),
                    Err(error) if is_circumstance(&error) => {
                        return Err(explain(error, "cannot run foreign_key_check"));
                    }
                    Err(error) => {
                        let reason = format!("foreign keys of {table}: {}", sqlite_message(&error));
                        health.unchecked.push(one_line(&reason));
                    }
                }
            }
        }
    }
    Ok(health)
}

fn integrity(connection: &Connection, check: Depth, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let check = match check {
        Depth::Quick => "quick_check",
        Depth::Full => "integrity_check",
    };
    let argument = table.map_or_else(|| Health::MAX_FAULTS.to_string(), quote);
    let sql = format!("PRAGMA main.{check}({argument})");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut faults = Vec::new();
    for row in rows {
        // One report of damage to a b-tree can have many lines.
        faults.extend(row?.lines().filter(|line| *line != "ok").map(one_line));
    }
    faults.truncate(Health::MAX_FAULTS);
    Ok(faults)
}

/// Counts the orphan rows of one table or of all tables, per foreign key.
pub(super) fn orphans(connection: &Connection, table: Option<&str>) -> rusqlite::Result<Vec<OrphanRows>> {
    let sql = match table {
        Some(table) => format!("PRAGMA main.foreign_key_check({})", quote(table)),
        None => "PRAGMA main.foreign_key_check".to_owned(),
    };
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut sums: BTreeMap<(String, String, i64), u64> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        *sums.entry((row.get(0)?, row.get(2)?, row.get(3)?)).or_default() += 1;
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
    let (mut unknown, mut faults): (Vec<String>, Vec<String>) = now
        .integrity
        .iter()
        .filter(|fault| !old(fault))
        .cloned()
        .partition(|fault| before.check == Depth::Quick && concerns_an_index(fault));
    let unchecked = now.unchecked.iter().filter(|reason| !before.unchecked.contains(reason));
    let unchecked = unchecked.map(|reason| format!("not checked: {reason}"));
    // The deeper check needs more (for example, an index's functions) than the check at the time of the snapshot did.
    if before.check == now.check {
        faults.extend(unchecked);
    } else {
        unknown.extend(unchecked);
    }
    faults.extend(new_orphans(&before.orphans, &now.orphans));
    NewFaults { faults, unknown }
}

/// Lists the foreign keys that have more orphan rows than before. If there are several counts for one key, the largest
/// counts.
pub(super) fn new_orphans(before: &[OrphanRows], now: &[OrphanRows]) -> Vec<String> {
    let key = |orphan: &OrphanRows| (orphan.table.clone(), orphan.parent.clone(), orphan.key);
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
            unchecked: vec![],
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
