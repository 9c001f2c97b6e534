//! Snapshots while other clients change and lock the same tables.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Setup, Watcher, copying_condition, require_error, session};
use crate::support::postgres::{Server, server};

/// The number of rows in a table that is emptied and filled in one transaction, so that every reader sees all of them.
const REFILLED_ROWS: u32 = 500;

#[test]
#[ignore = "needs PostgreSQL"]
fn snapshots_of_changing_tables_are_consistent() {
    for major in [13, 18] {
        require_consistent_snapshots(&server(major));
    }
}

fn require_consistent_snapshots(server: &Server) {
    let setup = Setup::new(server);
    let source = setup.bank("changing", 0);
    source.psql(format!(
        "CREATE TABLE refilled (n int); INSERT INTO refilled SELECT generate_series(1, {REFILLED_ROWS});
         CREATE TABLE left_side (n int); CREATE TABLE right_side (n int);
         CREATE TABLE shape (n int PRIMARY KEY); INSERT INTO shape SELECT generate_series(1, 300);
         CREATE TABLE here (n int); INSERT INTO here VALUES (1);"
    ));
    let writers: [&[&str]; 3] = [
        &[
            "BEGIN; TRUNCATE refilled; INSERT INTO refilled SELECT generate_series(1, 500); COMMIT",
            "BEGIN; DELETE FROM refilled; TRUNCATE refilled; INSERT INTO refilled SELECT generate_series(1, 500); COMMIT",
        ],
        &[
            "BEGIN; INSERT INTO left_side VALUES (1); INSERT INTO right_side VALUES (1); COMMIT",
            "BEGIN; ALTER TABLE here RENAME TO there; COMMIT",
            "BEGIN; TRUNCATE left_side, right_side; COMMIT",
            "BEGIN; ALTER TABLE there RENAME TO here; COMMIT",
            "BEGIN; INSERT INTO right_side VALUES (1); INSERT INTO left_side VALUES (1); COMMIT",
        ],
        &[
            "CREATE TABLE comes (n int PRIMARY KEY); INSERT INTO comes VALUES (1)",
            "ALTER TABLE shape ALTER n TYPE bigint",
            "CREATE VIEW seen AS SELECT n FROM comes",
            "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "VACUUM FULL shape",
            "CREATE TYPE kind AS ENUM ('a'); CREATE SEQUENCE counted; CREATE SCHEMA passing",
            "DROP VIEW seen",
            "ALTER TABLE shape ALTER n TYPE int",
            "CREATE INDEX ON shape ((n + 1))",
            "DROP FUNCTION made; DROP TYPE kind; DROP SEQUENCE counted; DROP SCHEMA passing",
            "DROP INDEX shape_expr_idx",
            "DROP TABLE comes",
        ],
    ];
    let is_over = AtomicBool::new(false);
    let (mut succeeded, mut failed) = (0, 0);
    thread::scope(|scope| {
        for statements in writers {
            let is_over = &is_over;
            let mut writer = session(server, &source.name, "writer");
            scope.spawn(move || {
                for statement in statements.iter().cycle() {
                    if let Err(error) = writer.execute(statement) {
                        is_over.store(true, Ordering::Relaxed);
                        panic!("{statement}: {}", error.full_message());
                    }
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..10 {
                let run = setup.run(&["snapshot", &source.url(), "--lock-timeout", "20", "--jobs", "3"]);
                if run.exit() != 0 {
                    failed += 1;
                    assert_eq!(run.exit(), 1, "{}", run.transcript());
                    require_error(&run, &["no snapshot of"]);
                    eprintln!("{}", run.transcript());
                    continue;
                }
                succeeded += 1;
                let id = setup.ids().remove(0);
                let tables = setup.json(&["show", &id])["tables"].clone();
                let rows = |name: &str| {
                    let named =
                        tables.as_array().unwrap().iter().find(|table| table["name"] == format!("public.{name}"));
                    named.and_then(|table| table["rows"].as_u64())
                };
                assert_eq!(rows("refilled"), Some(REFILLED_ROWS.into()), "{}", run.transcript());
                assert_eq!(rows("left_side"), rows("right_side"), "{}", run.transcript());
                assert_eq!(rows("shape"), Some(300), "{}", run.transcript());
                assert_eq!(rows("here").or(rows("there")), Some(1), "{}", run.transcript());
                assert!(rows("here").is_none() || rows("there").is_none(), "{}", run.transcript());
                if number % 3 == 0 {
                    let restored = server.reserve_database("unchanged");
                    setup.ok(&["restore", &id, "--to", &restored.url(), "--create"]);
                    assert_eq!(restored.value("SELECT count(*) FROM refilled"), REFILLED_ROWS.to_string());
                    assert_eq!(restored.value("SELECT sum(n) FROM shape"), "45150");
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    eprintln!("PostgreSQL {}: {succeeded} snapshots were made, {failed} failed", server.version);
    assert!(succeeded >= 5, "only {succeeded} snapshots were made, {failed} failed");
    setup.require_store(&setup.ids());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_waits_for_a_lock_names_its_holder_and_blocks_no_other_client() {
    for major in [13, 18] {
        let server = server(major);
        let setup = Setup::new(&server);
        let source = setup.bank("locked", 0);
        let mut holder = session(&server, &source.name, "migration");
        holder.execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").unwrap();
        let pid = holder.pid();
        let url = source.url();
        let running = setup.start(&["snapshot", &url, "--lock-timeout", "3"]);
        let start = Instant::now();
        let waited = longest_wait(&server, &source.name, || start.elapsed() > Duration::from_secs(3));
        assert!(waited < Duration::from_secs(1), "another client waited for {waited:?}");
        let run = setup.finish(running).code(1);
        let took = start.elapsed();
        require_error(
            &run,
            &[
                &format!("process {pid} holds a lock on public.accounts, role postgres, application migration"),
                "cannot lock the tables within 3 s",
                "--lock-timeout",
            ],
        );
        assert!(took > Duration::from_secs(3) && took < Duration::from_secs(6), "it took {took:?}");
        // With a longer --lock-timeout, the snapshot waits until the lock is released.
        let running = setup.start(&["snapshot", &url, "--lock-timeout", "60"]);
        thread::sleep(Duration::from_millis(700));
        holder.execute("COMMIT").unwrap();
        setup.finish(running).code(0);
        setup.require_store(&setup.ids());
    }
}

/// Reads and alters another table again and again, and returns the longest time that a statement took.
fn longest_wait(server: &Server, database: &str, is_over: impl Fn() -> bool) -> Duration {
    let mut other = session(server, database, "other");
    let mut longest = Duration::ZERO;
    while !is_over() {
        for sql in [
            "SELECT count(*) FROM log",
            "ALTER TABLE log ALTER note SET DEFAULT 'new'",
            "INSERT INTO events VALUES ('2026-01-01')",
        ] {
            let start = Instant::now();
            other.execute(sql).unwrap_or_else(|error| panic!("{sql}: {}", error.full_message()));
            longest = longest.max(start.elapsed());
        }
    }
    longest
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_does_not_block_clients_while_a_migration_waits_for_a_lock() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("queued", 0);
    // A long transaction has read the table, a migration waits for it, and the snapshot would have to wait for the
    // migration.
    let mut reader = session(&server, &source.name, "report");
    reader.execute("BEGIN; SELECT count(*) FROM accounts").unwrap();
    let mut migration = session(&server, &source.name, "migration");
    let pid = migration.pid();
    thread::scope(|scope| {
        let migrated = scope.spawn(move || migration.execute("ALTER TABLE accounts ADD COLUMN new int"));
        let migration_waits = "SELECT count(*) > 0 FROM pg_stat_activity
                                WHERE wait_event_type = 'Lock' AND application_name = 'migration'";
        Watcher::new(&server).wait_until(migration_waits);
        let url = source.url();
        let running = setup.start(&["snapshot", &url, "--lock-timeout", "2"]);
        let start = Instant::now();
        let waited = longest_wait(&server, &source.name, || start.elapsed() > Duration::from_secs(2));
        assert!(waited < Duration::from_secs(1), "another client waited for {waited:?}");
        let run = setup.finish(running).code(1);
        require_error(&run, &[&format!("process {pid} waits for a lock on public.accounts"), "application migration"]);
        reader.execute("COMMIT").unwrap();
        migrated.join().unwrap().unwrap();
    });
    setup.snapshot(&source.url());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_migration_during_a_snapshot_waits_and_both_succeed() {
    for major in [13, 18] {
        let server = server(major);
        let setup = Setup::new(&server);
        let source = setup.bank("migrated", 30);
        // The table is large enough that several sessions read it, each a range of pages.
        source.psql(
            "CREATE TABLE wide (id int, body text);
             INSERT INTO wide SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 80000) g;
             CREATE INDEX wide_by_id ON wide (id); ANALYZE wide",
        );
        let url = source.url();
        let statements = [
            "ALTER TABLE accounts ADD COLUMN new int",
            "ALTER TABLE wide ADD COLUMN new int",
            "REINDEX INDEX wide_by_id",
            "DROP INDEX log_account_idx",
            "TRUNCATE log",
            "CREATE OR REPLACE VIEW totals AS SELECT mood, sum(amount) AS amount, 1 AS one FROM accounts GROUP BY mood",
        ];
        let mut running = setup.start(&["snapshot", &url, "--jobs", "3", "--lock-timeout", "5"]);
        assert!(
            Watcher::new(&server).wait_until_or_end(&copying_condition(&source.name, 1), &mut running),
            "it ended too early"
        );
        thread::scope(|scope| {
            let migrations: Vec<_> = statements
                .iter()
                .map(|sql| {
                    let mut migration = session(&server, &source.name, "migration");
                    scope.spawn(move || migration.execute(sql))
                })
                .collect();
            setup.finish(running).code(0);
            for (sql, migration) in statements.iter().zip(migrations) {
                migration.join().unwrap().unwrap_or_else(|error| panic!("{sql}: {}", error.full_message()));
            }
        });
        let ids = setup.ids();
        let restored = server.reserve_database("migrated_back");
        setup.ok(&["restore", &ids[0], "--to", &restored.url(), "--create"]);
        assert_eq!(restored.value("SELECT count(*) FROM log"), "3000");
        assert_eq!(restored.value("SELECT count(*) FROM wide"), "80000");
        setup.require_store(&ids);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn locked_indexes_views_and_sequences_cause_no_deadlock() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("held", 0);
    source.psql(
        "CREATE TABLE wide (id int, body text);
         INSERT INTO wide SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 80000) g;
         CREATE INDEX wide_by_id ON wide (id);",
    );
    let mut holder = session(&server, &source.name, "migration");
    let url = source.url();
    // The table can be read, but not by a query that the planner may run with its indexes.
    holder.execute("BEGIN; REINDEX INDEX wide_by_id").unwrap();
    setup.ok(&["snapshot", &url, "--jobs", "3", "--lock-timeout", "5"]);
    holder.execute("ROLLBACK").unwrap();
    let locks = [
        ("ALTER VIEW totals SET (security_barrier)", "public.totals"),
        ("ALTER SEQUENCE tickets INCREMENT 5", "public.tickets"),
    ];
    for (sql, object) in locks {
        holder.execute("BEGIN").unwrap();
        holder.execute(sql).unwrap();
        let start = Instant::now();
        let running = setup.start(&["snapshot", &url, "--lock-timeout", "2"]);
        let waited = longest_wait(&server, &source.name, || start.elapsed() > Duration::from_secs(2));
        // Other clients wait while the snapshot has locked all tables and waits for the view or the sequence.
        assert!(waited < Duration::from_secs(3), "{object}: another client waited for {waited:?}");
        let run = setup.finish(running);
        // If the server can read the locked object, the snapshot succeeds.
        if run.exit() != 0 {
            let run = run.code(1);
            require_error(&run, &["process", "application migration"]);
        }
        assert!(start.elapsed() < Duration::from_secs(6), "{object}: {:?}", start.elapsed());
        // The migration then locks a table that the snapshot may have locked. The server must not end the migration to
        // resolve a deadlock.
        let running = setup.start(&["snapshot", &url, "--lock-timeout", "10"]);
        thread::sleep(Duration::from_millis(400));
        holder
            .execute("ALTER TABLE accounts ALTER name SET DEFAULT 'x'")
            .unwrap_or_else(|error| panic!("{}", error.full_message()));
        holder.execute("COMMIT").unwrap();
        setup.finish(running).code(0);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_prepared_transaction_that_holds_a_lock_is_named() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("prepared", 0);
    source.psql("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'left behind'");
    let run = setup.run(&["snapshot", &source.url(), "--lock-timeout", "1"]);
    source.psql("ROLLBACK PREPARED 'left behind'");
    let run = run.code(1);
    require_error(&run, &["the prepared transaction 'left behind' holds a lock on public.accounts, role postgres"]);
}
