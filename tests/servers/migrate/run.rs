//! `migrate run`: every row is loaded unchanged and once, or is rejected with the reason.

use std::time::{Duration, Instant};

use super::helpers::Migration;
use crate::support::postgres::server;

const DIRTY: &str = "
    CREATE TABLE trades (id INTEGER PRIMARY KEY AUTOINCREMENT, code TEXT NOT NULL, price REAL, qty INTEGER, at TEXT, meta TEXT,
        ok BOOLEAN, note TEXT, CHECK (qty < 1000000));
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 130000)
    INSERT INTO trades (code, price, qty, at, meta, ok, note) SELECT printf('%06d', n % 300), n * 0.1, n,
        datetime(1795700818 + n, 'unixepoch'), '{\"n\": ' || n || '}', n % 2, '中文 ' || n FROM n;
    UPDATE trades SET at = '' WHERE id = 10; UPDATE trades SET at = 'None' WHERE id = 11; UPDATE trades SET at = 'soon' WHERE id = 12;
    UPDATE trades SET meta = '{\"n\":' WHERE id = 60001; UPDATE trades SET meta = '{\"a\": \"\\u0000\"}' WHERE id = 60002;
    UPDATE trades SET note = x'ff00' WHERE id = 90000; UPDATE trades SET note = 'a' || char(0) WHERE id = 90001;
    UPDATE trades SET note = 'tab' || char(9) || 'line' || char(10) || '\\N \\. \"q\"' WHERE id = 90002;
    UPDATE trades SET price = 0.30000000000000004 WHERE id = 5; UPDATE trades SET price = 9e999 WHERE id = 6;
    UPDATE trades SET qty = 999999 WHERE id = 7; UPDATE trades SET ok = 'true' WHERE id = 8;
    INSERT INTO trades (id, code) VALUES (9000000000, 'x'); DELETE FROM trades WHERE id = 9000000000;
    CREATE TABLE pairs (a TEXT, b TEXT, v REAL, PRIMARY KEY (a, b)) WITHOUT ROWID;
    INSERT INTO pairs VALUES ('x', 'y', 1.5), ('x', 'z', NULL);
    CREATE TABLE times (at TEXT PRIMARY KEY, v INTEGER);
    INSERT INTO times VALUES ('2026-01-01 10:00:00', 1), ('2026-01-01T10:00:00', 2), ('2026-01-01 10:00:01', 3), (NULL, 4);";

/// Two rows of `times` are rejected: one has NULL as its key, as the plan has counted, and one has the same time as another.
fn expect_rejects(migration: &Migration) {
    migration.edit_plan("expected_rejects = 1", "expected_rejects = 2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rows_are_loaded_unchanged_and_invalid_rows_are_rejected() {
    let migration = Migration::new();
    migration.file("app.db", DIRTY);
    let text = migration.plan(&["app.db"], &[]);
    // A condition that one row violates. Only the server can find that, and it is tried row by row.
    assert!(text.contains("expression = \"qty < 1000000\""), "{text}");
    migration.edit_plan("qty < 1000000", "qty < 1000000 AND (note IS NULL OR length(note) <= 12)");
    migration.edit_plan("expected_rejects = 5", "expected_rejects = 6");
    expect_rejects(&migration);
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!(document["ok"], true);
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(document["tables"][2]["source"], "app:trades");
    assert_eq!(document["tables"][2]["rejected"], 6, "{:#?}", migration.rejects());
    assert_eq!(document["tables"][2]["rows"], 130_000 - 6);
    let rejects = migration.rejects();
    let reasons = [
        "times - at: NULL: NULL is not allowed",
        "times 2 another row has the same key (at)",
        "trades 12 at: 'soon': it is not a time",
        "trades 60001 meta: '{\"n\":': it is not valid JSON",
        "trades 60002 meta: '{\"a\": \"\\u0000\"}': it is JSON with a character",
        "trades 90000 note: x'ff00': it is a BLOB, not text",
        "trades 90001 note: 'a\\u{0}': it is text with a NUL",
        "trades 90002 the server refuses it: new row for relation \"trades\" violates check constraint \"trades_check1\"",
    ];
    assert_eq!(rejects.len(), reasons.len(), "{rejects:#?}");
    for reason in &reasons[1..] {
        assert!(rejects.iter().any(|found| found.starts_with(reason)), "{reason} is not in {rejects:#?}");
    }
    let target = &migration.target;
    assert_eq!(target.value("SELECT count(*) || ' ' || count(DISTINCT id) FROM app.trades"), "129994 129994");
    assert_eq!(
        target.value("SELECT at FROM app.trades WHERE id = 1"),
        target.value("SELECT to_timestamp(1795700819) - interval '8h'")
    );
    assert_eq!(target.value("SELECT count(*) FROM app.trades WHERE at IS NULL"), "2");
    assert_eq!(target.value("SELECT price::text FROM app.trades WHERE id = 5"), "0.30000000000000004");
    assert_eq!(target.value("SELECT price::text FROM app.trades WHERE id = 6"), "Infinity");
    assert_eq!(target.value("SELECT ok FROM app.trades WHERE id = 8"), "t");
    assert_eq!(target.value("SELECT note FROM app.trades WHERE id = 9"), "中文 9");
    assert_eq!(target.value("SELECT code FROM app.trades WHERE id = 1"), "000001");
    assert_eq!(target.value("SELECT meta ->> 'n' FROM app.trades WHERE id = 77"), "77");
    // The next generated id is higher than every id that the file has ever used.
    assert_eq!(target.value("INSERT INTO app.trades (code) VALUES ('new') RETURNING id"), "9000000001");
    // The whole row is kept among the rejected rows.
    let row = "SELECT \"row\" ->> 'note' FROM lifeboat_migrate.rejects WHERE rowid = 90000";
    assert_eq!(target.value(row), r#"{"blob": "ff00"}"#);
    assert_eq!(target.value("SELECT count(*) FROM app.times"), "2");
    assert_eq!(target.value("SELECT string_agg(b, '' ORDER BY b) FROM app.pairs"), "yz");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_run_with_rejects_stop_fails_at_an_invalid_row_and_records_no_rejects() {
    let migration = Migration::new();
    migration.file("app.db", DIRTY);
    migration.plan(&["app.db"], &[]);
    migration.edit_plan("rejects = \"table\"", "rejects = \"stop\"");
    let run = migration.migrate(&["run", "plan.toml"]).code(3);
    assert!(run.stderr().contains("cannot be converted") || run.stderr().contains("same key"), "{}", run.transcript());
    assert_eq!(migration.target.value("SELECT count(*) FROM lifeboat_migrate.rejects"), "0");
    // The hint names a way that works.
    run.says("set rejects = \"table\" in the plan").says("and run it again");
    migration.edit_plan("rejects = \"stop\"", "rejects = \"table\"");
    expect_rejects(&migration);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.rejects().len(), 7);
    migration.migrate(&["rollback", "plan.toml"]).code(0);
    assert!(!migration.exists("app.trades") && !migration.exists("lifeboat_migrate.plans"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_killed_run_can_be_continued_and_loads_no_row_twice() {
    let migration = Migration::new();
    migration.file("app.db", DIRTY);
    migration.plan(&["app.db"], &[]);
    expect_rejects(&migration);
    let mut kills = 0;
    for wait_ms in (0..20).map(|round| 20 + round * 40) {
        let mut running = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(wait_ms) && !running.has_ended() {
            std::thread::yield_now();
        }
        let ended = running.has_ended();
        running.signal(rustix::process::Signal::KILL);
        running.finish();
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills > 3, "only {kills} runs could be killed before they ended");
    // The server may need a moment to notice that the killed program has ended.
    let start = Instant::now();
    while migration.migrate(&["run", "plan.toml"]).exit() != 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(migration.target.value("SELECT count(*) || ' ' || count(DISTINCT id) FROM app.trades"), "129995 129995");
    assert_eq!(migration.rejects().len(), 7);
    // Another run has nothing left to do.
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!(document["tables"][2]["rows"], 129_995);
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 0);
    assert_eq!(migration.rejects().len(), 7);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_write_to_the_file_during_a_run_fails_the_run() {
    let migration = Migration::new();
    let file = migration.file("app.db", DIRTY);
    migration.plan(&["app.db"], &[]);
    expect_rejects(&migration);
    // The run waits for this lock before it loads rows, so that the write always happens during the run.
    let server = server(15);
    let mut table_lock = TableLock { session: migration.session() };
    let running = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
    let start = Instant::now();
    while table_lock.lock().is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the table was not created");
        std::thread::yield_now();
    }
    file.execute("UPDATE trades SET note = 'changed' WHERE id = 129999", []).unwrap();
    table_lock.release();
    let run = running.finish();
    assert_eq!(run.exit(), 3, "{}", run.transcript());
    assert!(
        run.stderr().contains("written to meanwhile") || run.stderr().contains("differ from the rows that were saved"),
        "{}",
        run.transcript()
    );
    drop(server);
    // A later run is refused too, because the file differs from the snapshot.
    let again = migration.migrate(&["run", "plan.toml"]);
    assert_eq!(again.exit(), 3, "{}", again.transcript());
    migration.migrate(&["rollback", "plan.toml"]).code(0);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT note FROM app.trades WHERE id = 129999"), "changed");
}

/// A session that locks the table when it exists.
struct TableLock {
    session: lifeboat::engine::postgres::wire::session::Session,
}

impl TableLock {
    fn lock(&mut self) -> Result<(), ()> {
        self.session.execute("BEGIN").unwrap();
        self.session
            .execute("LOCK TABLE app.trades IN SHARE MODE")
            .map_err(|_| self.session.execute("ROLLBACK").unwrap())
    }

    fn release(&mut self) {
        self.session.execute("COMMIT").unwrap();
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_snapshot_can_be_migrated_without_its_file() {
    let migration = Migration::new();
    let file = migration.file("app.db", DIRTY);
    let id = migration.sandbox.json(&["snapshot", "app.db", "--store", "store"])["snapshots"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    drop(file);
    std::fs::remove_file(migration.sandbox.path("app.db")).unwrap();
    let text = migration.plan(&[&id], &[]);
    assert!(text.contains(&format!("snapshot = \"{id}\"")), "{text}");
    expect_rejects(&migration);
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 0);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.trades"), "129995");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn existing_rows_are_not_overwritten_and_concurrent_runs_load_every_row_once() {
    let migration = Migration::new();
    migration.file("app.db", DIRTY);
    migration.plan(&["app.db"], &[]);
    expect_rejects(&migration);
    migration.target.psql(
        "CREATE SCHEMA app; CREATE TABLE app.pairs (a text, b text, v text); INSERT INTO app.pairs VALUES ('mine')",
    );
    migration.migrate(&["run", "plan.toml"]).code(2).says("app.pairs already exists and has rows");
    migration.target.psql("DELETE FROM app.pairs");
    let message = "its column v has the type text; the plan requires double precision";
    migration.migrate(&["run", "plan.toml"]).code(2).says(message);
    assert!(!migration.exists("app.trades"));
    migration.target.psql("ALTER TABLE app.pairs ALTER v TYPE double precision USING NULL");
    // Without a store, the run does not start, because the files must be saved first.
    let mut command = migration.sandbox.command(&["migrate", "run", "plan.toml"]);
    command.env("PGPASSWORD", server(15).password);
    migration.sandbox.finish(command).code(2).says("no store is named");
    let running = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
    let other = migration.migrate(&["run", "plan.toml"]);
    let first = running.finish();
    let codes = (first.exit(), other.exit());
    assert!(matches!(codes, (0, 0 | 1) | (1, 0)), "{codes:?}\n{}\n{}", first.transcript(), other.transcript());
    assert_eq!(migration.target.value("SELECT count(*) || ' ' || count(DISTINCT id) FROM app.trades"), "129995 129995");
    // A plan must not be changed after its run has started.
    migration.edit_plan("zone = \"Asia/Shanghai\"", "zone = \"UTC\"");
    migration.migrate(&["run", "plan.toml"]).code(2).says("the plan was changed after it was started");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn foreign_keys_with_violating_rows_are_created_not_valid() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE portfolios (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
         CREATE TABLE positions (id INTEGER PRIMARY KEY, portfolio_id INTEGER REFERENCES portfolios(id) ON DELETE CASCADE);
         CREATE TABLE lots (id INTEGER PRIMARY KEY, position INTEGER NOT NULL REFERENCES positions);
         INSERT INTO portfolios VALUES (1, 'a'), (2, 'b'); INSERT INTO positions VALUES (1, 1), (2, 9); INSERT INTO lots VALUES (1, 2);",
    );
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    let query = "SELECT conrelid::regclass || ' ' || convalidated || ' ' || confdeltype::text FROM pg_constraint WHERE contype = 'f' \
                 AND connamespace = 'app'::regnamespace ORDER BY 1";
    let keys: Vec<String> = migration.target.query(query).into_iter().flatten().collect();
    assert_eq!(keys, ["app.lots true a", "app.positions false c"]);
    let new = "INSERT INTO app.positions (portfolio_id) VALUES (77)";
    let refused =
        format!("DO $$ BEGIN {new}; EXCEPTION WHEN foreign_key_violation THEN RAISE NOTICE 'refused'; END $$");
    migration.target.psql(refused);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.positions"), "2");
    // Such a key may be edited in the plan.
    migration.edit_plan("on_delete = \"CASCADE\"", "on_delete = \"SET NULL\"");
    migration.json(0, &["run", "plan.toml"]);
    let keys = || migration.target.query(query).into_iter().flatten().collect::<Vec<String>>();
    assert_eq!(keys(), ["app.lots true a", "app.positions false n"]);
    migration.edit_plan(", validate = false", "");
    for _ in 0..2 {
        let notes = migration.json(0, &["run", "plan.toml"])["notes"].to_string();
        assert!(notes.contains("only new rows are checked"), "{notes}");
        assert_eq!(keys(), ["app.lots true a", "app.positions false n"]);
    }
}

const SMALL: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO a VALUES (1, 'x'), (2, 'y'), (9, 'z');
    CREATE TABLE b (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO b VALUES (1, 'x');";

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_file_that_has_changed_fails_the_next_run() {
    for change in
        ["UPDATE a SET t = 'new' WHERE id = 1", "DELETE FROM a WHERE id = 2", "INSERT INTO a VALUES (77, 'new')"]
    {
        let migration = Migration::new();
        let file = migration.file("app.db", SMALL);
        migration.plan(&["app.db"], &[]);
        migration.json(0, &["run", "plan.toml"]);
        file.execute(change, []).unwrap();
        migration.migrate(&["run", "plan.toml"]).code(3).says("app:a was changed after");
        // This is also so if the first run was killed just before its end.
        migration.target.psql("UPDATE lifeboat_migrate.plans SET finished_at = NULL");
        migration.migrate(&["run", "plan.toml"]).code(3).says("app:a was changed after");
        migration.migrate(&["rollback", "plan.toml"]).code(0);
        migration.json(0, &["run", "plan.toml"]);
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_chunk_that_another_process_has_loaded_is_not_loaded_again() {
    let migration = Migration::new();
    migration.file("app.db", SMALL);
    migration.plan(&["app.db"], &[]);
    // The trigger imitates another run, which started because the server had lost the connection of this run.
    migration.target.psql(
        "CREATE SCHEMA app; CREATE TABLE app.a (id bigint PRIMARY KEY, t text);
         CREATE FUNCTION app.meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE lifeboat_migrate.chunks SET rows = 3, rejected = 0, digest = '', done_at = now() WHERE source_table = 0;
             RETURN NULL; END $$;
         CREATE TRIGGER meanwhile BEFORE INSERT ON app.a EXECUTE FUNCTION app.meanwhile()",
    );
    migration.migrate(&["run", "plan.toml"]).code(1).says("another process has loaded");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "0");
    migration.target.psql("DROP TRIGGER meanwhile ON app.a");
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "3");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn index_names_that_are_in_use_are_reported_before_anything_is_loaded() {
    let migration = Migration::new();
    migration.file("two.db", "CREATE TABLE u (id INTEGER PRIMARY KEY, code TEXT); CREATE INDEX idx_code ON u (code);");
    migration.plan(&["two.db"], &["--schema", "app"]);
    migration.target.psql("CREATE SCHEMA app; CREATE TABLE app.t (code text); CREATE INDEX idx_code ON app.t (code)");
    let run = migration.migrate(&["run", "plan.toml"]).code(2);
    run.says("the name idx_code of an index or constraint of app.u is also used by an existing object in that schema");
    assert!(!migration.exists("app.u"));
    migration.edit_plan("\"idx_code\"", "\"idx_code_2\"");
    migration.json(0, &["run", "plan.toml"]);
    assert!(migration.exists("app.idx_code_2"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn tables_whose_long_names_begin_alike_get_different_primary_keys() {
    let migration = Migration::new();
    let long = "n".repeat(60);
    migration.file(
        "app.db",
        &format!(
            "CREATE TABLE {long}_1 (id INTEGER PRIMARY KEY); CREATE TABLE {long}_2 (id INTEGER PRIMARY KEY);
             INSERT INTO {long}_1 VALUES (1); INSERT INTO {long}_2 VALUES (1);"
        ),
    );
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND connamespace = 'app'::regnamespace";
    assert_eq!(migration.target.value(keys), "2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn an_index_that_cannot_be_created_is_reported_and_the_rest_is_created() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, code TEXT); CREATE INDEX idx_body ON t (body);
         CREATE INDEX idx_code ON t (code); INSERT INTO t VALUES (1, hex(randomblob(9000)), 'x');",
    );
    migration.plan(&["app.db"], &[]);
    // The plan proposes a hash index, which holds values of any length.
    migration.edit_plan(r#"columns = ["body"], using = "hash""#, r#"columns = ["body"]"#);
    for _ in 0..2 {
        let document = migration.json(0, &["run", "plan.toml"]);
        let notes = document["notes"].to_string();
        assert!(notes.contains("the index app.t idx_body was not created: index row "), "{notes}");
    }
    assert!(migration.exists("app.idx_code") && migration.exists("app.t_pkey") && !migration.exists("app.idx_body"));
    let verified = migration.json(0, &["verify", "plan.toml"]);
    assert!(verified["notes"].to_string().contains("app.t has no index idx_body, as the run has noted"), "{verified}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn an_existing_table_that_would_round_values_is_refused() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, price REAL, label TEXT); INSERT INTO t VALUES (1, 1.23456, 'x');",
    );
    let text = migration.plan(&["app.db"], &[]);
    let planned = r#"{ source = "price", type = "double precision" }"#;
    assert!(text.contains(planned), "{text}");
    migration.edit_plan(planned, r#"{ source = "price", type = "numeric" }"#);
    migration.target.psql("CREATE SCHEMA app; CREATE TABLE app.t (id bigint, price numeric(10,2), label text)");
    let message = "its column price has the type numeric(10,2); the plan requires numeric";
    migration.migrate(&["run", "plan.toml"]).code(2).says(message);
    migration.edit_plan("type = \"numeric\"", "type = \"numeric(12, 4)\"");
    migration.migrate(&["run", "plan.toml"]).code(2).says("numeric(10,2); the plan requires numeric(12,4)");
    // A type that stores more digits than the planned one is accepted.
    migration.target.psql("ALTER TABLE app.t ALTER price TYPE numeric");
    migration.edit_plan("type = \"numeric(12, 4)\"", "type = \"numeric(12, 5)\"");
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT price FROM app.t"), "1.23456");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn an_empty_table_of_another_plan_is_refused() {
    let migration = Migration::new();
    migration.file("app.db", SMALL);
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    // A table looks like this while a run of the other plan has created it, and has not committed any rows yet.
    migration.target.psql("DELETE FROM app.a; DELETE FROM app.b");
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    let url = migration.target.url();
    let planned = migration.json(3, &["plan", "app.db", "--to", &url]);
    assert!(planned["differences"].to_string().contains("app.a already exists: the plan "), "{planned}");
    migration.migrate(&["run", "plan.toml"]).code(2).says("app.a already exists: the plan ");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "0");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn identity_columns_do_not_generate_used_numbers_again() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT); INSERT INTO a VALUES (1, 'x'), (5, 'y');
         CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT); INSERT INTO b VALUES (1, 'x'), (5, 'y');",
    );
    migration.plan(&["app.db"], &[]);
    migration.target.psql(
        "CREATE SCHEMA app; CREATE TABLE app.a (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, t text);
         SELECT setval('app.a_id_seq', 500)",
    );
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT nextval('app.a_id_seq')"), "501");
    assert_eq!(migration.target.value("SELECT nextval('app.b_id_seq')"), "6");
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT nextval('app.b_id_seq')"), "7");
}
