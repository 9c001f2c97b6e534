//! A database whose transactions keep an invariant: the sum of all amounts, and a counter that is the number of rows in
//! a log. A mixture of two states breaks it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use crate::support::{Sandbox, integrity, open};

const ACCOUNTS: i64 = 200;
const TOTAL: i64 = ACCOUNTS * 1000;

/// Creates a database of about `ballast_kib`. Every transaction of a writer keeps the sum of the amounts, and keeps the
/// counter equal to the number of rows in the log. `generation` identifies the database in a test.
pub(crate) fn create_bank(path: &Path, journal: &str, page_bytes: u32, generation: &str, ballast_kib: u32) {
    let db = open(path);
    db.execute_batch(&format!("PRAGMA page_size = {page_bytes}; VACUUM")).unwrap();
    let mode: String = db.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| row.get(0)).unwrap();
    assert_eq!(mode, journal);
    db.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL);
         CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id INTEGER, to_id INTEGER, note TEXT);
         CREATE INDEX log_by_account ON log (from_id, to_id);
         CREATE TABLE counter (n INTEGER NOT NULL);
         CREATE TABLE generation (name TEXT NOT NULL);
         CREATE TABLE ballast (id INTEGER PRIMARY KEY, body BLOB);
         INSERT INTO counter VALUES (0);
         INSERT INTO generation VALUES ('{generation}');
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS}) INSERT INTO accounts SELECT i, 1000 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ballast_kib}) INSERT INTO ballast SELECT i, randomblob(900) FROM n;
         COMMIT;"
    ))
    .unwrap();
}

/// Reads generation and counter in one read transaction. The inner error describes a broken invariant.
pub(crate) fn read_bank(db: &Connection) -> rusqlite::Result<Result<(String, i64), String>> {
    // This is one statement, and therefore one transaction.
    let sql = "SELECT (SELECT name FROM generation), (SELECT n FROM counter), (SELECT count(*) FROM log), (SELECT sum(amount) FROM accounts)";
    db.query_row(sql, [], |row| {
        let (generation, counter, logged, sum): (String, i64, i64, i64) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(if counter == logged && sum == TOTAL {
            Ok((generation, counter))
        } else {
            Err(format!(
                "generation {generation}: the counter says {counter}, the log has {logged} rows, the sum is {sum}"
            ))
        })
    })
}

/// Requires that the database is intact and keeps the invariant. Returns generation and counter.
#[track_caller]
pub(crate) fn require_invariant(path: &Path, context: &str) -> (String, i64) {
    assert_eq!(integrity(path), "ok", "{context}");
    read_bank(&open(path)).unwrap().unwrap_or_else(|problem| panic!("{problem}\n{context}"))
}

/// Moves an amount between two accounts in one transaction. Returns the generation and the counter after it.
pub(crate) fn transfer(db: &Connection, step: i64) -> rusqlite::Result<(String, i64)> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let run_transaction = || {
        let (from, to, amount) = (step * 7 % ACCOUNTS + 1, step * 13 % ACCOUNTS + 1, step % 50);
        db.execute("UPDATE accounts SET amount = amount - ?1 WHERE id = ?2", (amount, from))?;
        db.execute(
            "INSERT INTO log (from_id, to_id, note) VALUES (?1, ?2, ?3)",
            (from, to, "x".repeat((step % 300) as usize)),
        )?;
        db.execute("UPDATE accounts SET amount = amount + ?1 WHERE id = ?2", (amount, to))?;
        db.execute("UPDATE counter SET n = n + 1", [])?;
        let state =
            db.query_row("SELECT name, n FROM generation, counter", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        db.execute_batch("COMMIT")?;
        Ok(state)
    };
    let result = run_transaction();
    if result.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    result
}

/// Shows that the check can fail.
#[test]
fn the_invariant_check_detects_a_changed_amount() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 10);
    let db = open(sandbox.path("app.db"));
    transfer(&db, 1).unwrap();
    assert_eq!(read_bank(&db).unwrap(), Ok(("a".to_owned(), 1)));
    db.execute_batch("UPDATE accounts SET amount = amount + 1 WHERE id = 1").unwrap();
    assert!(read_bank(&db).unwrap().is_err());
    let no_row = db.query_row("SELECT 1 FROM log WHERE id = 99", [], |_| Ok(())).optional().unwrap();
    assert!(no_row.is_none());
}
