//! Others change and lock what is being saved.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Scene, Watcher, copying, require_told, session};
use crate::support::postgres::{Server, server};

/// Rows that always are in the table that is emptied and filled in one transaction.
const FULL: u32 = 500;

#[test]
#[ignore = "needs PostgreSQL"]
fn snapshots_under_changing_tables_are_of_one_instant() {
    for major in [13, 18] {
        under_changes(&server(major));
    }
}

fn under_changes(server: &Server) {
    let scene = Scene::new(server);
    let source = scene.bank("changing", 0);
    source.psql(format!(
        "CREATE TABLE refilled (n int); INSERT INTO refilled SELECT generate_series(1, {FULL});
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
    let (mut whole, mut failed) = (0, 0);
    thread::scope(|scope| {
        for statements in writers {
            let is_over = &is_over;
            let mut writer = session(server, &source.name, "writer");
            scope.spawn(move || {
                for statement in statements.iter().cycle() {
                    if let Err(error) = writer.execute(statement) {
                        is_over.store(true, Ordering::Relaxed);
                        panic!("{statement}: {}", error.whole());
                    }
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..10 {
                let run = scene.run(&["snapshot", &source.url(), "--lock-timeout", "20", "--jobs", "3"]);
                if run.exit() != 0 {
                    failed += 1;
                    assert_eq!(run.exit(), 1, "{}", run.transcript());
                    require_told(&run, &["no snapshot of"]);
                    eprintln!("{}", run.transcript());
                    continue;
                }
                whole += 1;
                let id = scene.ids().remove(0);
                let tables = scene.json(&["show", &id])["tables"].clone();
                let rows = |name: &str| {
                    let named =
                        tables.as_array().unwrap().iter().find(|table| table["name"] == format!("public.{name}"));
                    named.and_then(|table| table["rows"].as_u64())
                };
                assert_eq!(rows("refilled"), Some(FULL.into()), "{}", run.transcript());
                assert_eq!(rows("left_side"), rows("right_side"), "{}", run.transcript());
                assert_eq!(rows("shape"), Some(300), "{}", run.transcript());
                assert_eq!(rows("here").or(rows("there")), Some(1), "{}", run.transcript());
                assert!(rows("here").is_none() || rows("there").is_none(), "{}", run.transcript());
                if number % 3 == 0 {
                    let back = server.reserve_database("unchanged");
                    scene.ok(&["restore", &id, "--to", &back.url(), "--create"]);
                    assert_eq!(back.value("SELECT count(*) FROM refilled"), FULL.to_string());
                    assert_eq!(back.value("SELECT sum(n) FROM shape"), "45150");
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    eprintln!("PostgreSQL {}: {whole} snapshots were made, {failed} failed", server.version);
    assert!(whole >= 5, "only {whole} snapshots were made, {failed} failed");
    scene.require_store(&scene.ids());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn lock_in_the_way_is_waited_for_and_its_holder_named_and_nobody_else_waits() {
    for major in [13, 18] {
        let server = server(major);
        let scene = Scene::new(&server);
        let source = scene.bank("locked", 0);
        let mut holder = session(&server, &source.name, "migration");
        holder.execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").unwrap();
        let pid = holder.pid();
        let url = source.url();
        let running = scene.start(&["snapshot", &url, "--lock-timeout", "3"]);
        let clock = Instant::now();
        let longest = others_wait(&server, &source.name, || clock.elapsed() > Duration::from_secs(3));
        assert!(longest < Duration::from_secs(1), "somebody waited for {longest:?}");
        let run = scene.finish(running).code(1);
        let took = clock.elapsed();
        require_told(
            &run,
            &[
                &format!("process {pid} holds public.accounts, role postgres, application migration"),
                "cannot lock the tables within 3 s",
                "--lock-timeout",
            ],
        );
        assert!(took > Duration::from_secs(3) && took < Duration::from_secs(6), "it took {took:?}");
        // It was asked for, and goes on waiting as long as it may.
        let running = scene.start(&["snapshot", &url, "--lock-timeout", "60"]);
        thread::sleep(Duration::from_millis(700));
        holder.execute("COMMIT").unwrap();
        scene.finish(running).code(0);
        scene.require_store(&scene.ids());
    }
}

/// Reads and alters another table, over and over; the longest that one statement took.
fn others_wait(server: &Server, database: &str, is_over: impl Fn() -> bool) -> Duration {
    let mut other = session(server, database, "other");
    let mut longest = Duration::ZERO;
    while !is_over() {
        for sql in [
            "SELECT count(*) FROM log",
            "ALTER TABLE log ALTER note SET DEFAULT 'new'",
            "INSERT INTO events VALUES ('2026-01-01')",
        ] {
            let clock = Instant::now();
            other.execute(sql).unwrap_or_else(|error| panic!("{sql}: {}", error.whole()));
            longest = longest.max(clock.elapsed());
        }
    }
    longest
}

#[test]
#[ignore = "needs PostgreSQL"]
fn migration_that_waits_itself_is_not_joined_in_its_queue() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("queued", 0);
    // A long transaction has read the table; a migration waits for it; the snapshot would wait for the migration.
    let mut reader = session(&server, &source.name, "report");
    reader.execute("BEGIN; SELECT count(*) FROM accounts").unwrap();
    let mut migration = session(&server, &source.name, "migration");
    let pid = migration.pid();
    thread::scope(|scope| {
        let migrated = scope.spawn(move || migration.execute("ALTER TABLE accounts ADD COLUMN new int"));
        Watcher::new(&server).until("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'migration'");
        let url = source.url();
        let running = scene.start(&["snapshot", &url, "--lock-timeout", "2"]);
        let clock = Instant::now();
        let longest = others_wait(&server, &source.name, || clock.elapsed() > Duration::from_secs(2));
        assert!(longest < Duration::from_secs(1), "somebody waited for {longest:?}");
        let run = scene.finish(running).code(1);
        require_told(&run, &[&format!("process {pid} waits for public.accounts"), "application migration"]);
        reader.execute("COMMIT").unwrap();
        migrated.join().unwrap().unwrap();
    });
    scene.snapshot(&source.url());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn migration_that_comes_during_a_snapshot_waits_and_both_come_through() {
    for major in [13, 18] {
        let server = server(major);
        let scene = Scene::new(&server);
        let source = scene.bank("migrated", 30);
        // Large enough to be read by several sessions, by ranges of pages.
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
        let mut running = scene.start(&["snapshot", &url, "--jobs", "3", "--lock-timeout", "5"]);
        assert!(Watcher::new(&server).until_or_end(&copying(&source.name, 1), &mut running), "too quick");
        thread::scope(|scope| {
            let migrations: Vec<_> = statements
                .iter()
                .map(|sql| {
                    let mut migration = session(&server, &source.name, "migration");
                    scope.spawn(move || migration.execute(sql))
                })
                .collect();
            scene.finish(running).code(0);
            for (sql, migration) in statements.iter().zip(migrations) {
                migration.join().unwrap().unwrap_or_else(|error| panic!("{sql}: {}", error.whole()));
            }
        });
        let ids = scene.ids();
        let back = server.reserve_database("migrated_back");
        scene.ok(&["restore", &ids[0], "--to", &back.url(), "--create"]);
        assert_eq!(back.value("SELECT count(*) FROM log"), "3000");
        assert_eq!(back.value("SELECT count(*) FROM wide"), "80000");
        scene.require_store(&ids);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn index_view_and_sequence_that_somebody_holds_are_no_deadlock() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("held", 0);
    source.psql(
        "CREATE TABLE wide (id int, body text);
         INSERT INTO wide SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 80000) g;
         CREATE INDEX wide_by_id ON wide (id);",
    );
    let mut holder = session(&server, &source.name, "migration");
    let url = source.url();
    // The table can be read, only not by a query that is planned with its indexes.
    holder.execute("BEGIN; REINDEX INDEX wide_by_id").unwrap();
    scene.ok(&["snapshot", &url, "--jobs", "3", "--lock-timeout", "5"]);
    holder.execute("ROLLBACK").unwrap();
    let held = [
        ("ALTER VIEW totals SET (security_barrier)", "public.totals"),
        ("ALTER SEQUENCE tickets INCREMENT 5", "public.tickets"),
    ];
    for (sql, what) in held {
        holder.execute("BEGIN").unwrap();
        holder.execute(sql).unwrap();
        let clock = Instant::now();
        let running = scene.start(&["snapshot", &url, "--lock-timeout", "2"]);
        let longest = others_wait(&server, &source.name, || clock.elapsed() > Duration::from_secs(2));
        // For as long as it takes to come to the views: all tables are locked then.
        assert!(longest < Duration::from_secs(3), "{what}: somebody waited for {longest:?}");
        let run = scene.finish(running);
        // What can be read all the same is.
        if run.exit() != 0 {
            let run = run.code(1);
            require_told(&run, &["process", "application migration"]);
        }
        assert!(clock.elapsed() < Duration::from_secs(6), "{what}: {:?}", clock.elapsed());
        // It goes on to a table that the snapshot may have locked, and is not chosen to die for it.
        let running = scene.start(&["snapshot", &url, "--lock-timeout", "10"]);
        thread::sleep(Duration::from_millis(400));
        holder
            .execute("ALTER TABLE accounts ALTER name SET DEFAULT 'x'")
            .unwrap_or_else(|error| panic!("{}", error.whole()));
        holder.execute("COMMIT").unwrap();
        scene.finish(running).code(0);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn prepared_transaction_in_the_way_is_named() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("prepared", 0);
    source.psql("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'left behind'");
    let run = scene.run(&["snapshot", &source.url(), "--lock-timeout", "1"]);
    source.psql("ROLLBACK PREPARED 'left behind'");
    let run = run.code(1);
    require_told(&run, &["the prepared transaction 'left behind' holds public.accounts, role postgres"]);
}
