//! `migrate rollback`: it removes what the run has created, and nothing else.

use std::time::{Duration, Instant};

use super::helpers::Migration;
use crate::support::proxy::{Proxy, Trouble};

const FILE: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO a VALUES (1, 'x'), (2, 'y');
    CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id)); INSERT INTO b VALUES (1, 1);";

/// Returns a migration whose plan has run, in a target that was prepared with this SQL.
fn migrated(preparation: &str) -> Migration {
    let migration = Migration::new();
    migration.file("app.db", FILE);
    if !preparation.is_empty() {
        migration.target.psql(preparation);
    }
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_removes_everything_and_the_plan_can_run_again() {
    let migration = migrated("");
    let document = migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(document["tables"].as_array().unwrap().len(), 2);
    for name in ["app.a", "app.b", "lifeboat_migrate.plans"] {
        assert!(!migration.exists(name), "{name}");
    }
    assert_eq!(
        migration.target.value("SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'lifeboat_migrate')"),
        "0"
    );
    let again = migration.migrate(&["rollback", "plan.toml"]).code(0);
    assert!(again.stdout().contains("there is nothing to roll back"), "{}", again.transcript());
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_keeps_objects_that_the_run_did_not_create() {
    let migration = migrated(
        "CREATE SCHEMA app; CREATE TABLE app.mine AS SELECT 7 AS n; CREATE SCHEMA other; CREATE TABLE other.a AS SELECT 1",
    );
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT n FROM app.mine"), "7");
    assert!(migration.exists("other.a") && !migration.exists("app.a"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_refuses_tables_that_have_changed_and_leaves_others() {
    let migration = migrated("");
    migration.target.psql("INSERT INTO app.a (t) VALUES ('written since')");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("app.a has 3 rows, but 2 were loaded");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "3");
    // A new table of the same name is not the table that the run has created.
    migration.target.psql(
        "DELETE FROM app.a WHERE t = 'written since'; ALTER TABLE app.b RENAME TO kept; CREATE TABLE app.b (mine int);
         ALTER TABLE app.kept DROP CONSTRAINT b_a_fkey",
    );
    let document = migration.json(0, &["rollback", "plan.toml"]);
    let renamed = "the table that the run loaded as app.b is app.kept now";
    assert!(document["notes"].to_string().contains(renamed), "{document}");
    assert!(migration.exists("app.b") && migration.exists("app.kept") && !migration.exists("app.a"));
    let notes = document["notes"].to_string();
    assert!(notes.contains("the schema app contains other objects"), "{notes}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_empties_a_table_that_existed_before_and_keeps_it() {
    let migration =
        migrated("CREATE SCHEMA app; CREATE TABLE app.a (id bigint PRIMARY KEY, t text, extra int DEFAULT 5)");
    assert_eq!(migration.target.value("SELECT sum(extra) FROM app.a"), "10");
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "0");
    assert!(!migration.exists("app.b"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_refuses_a_table_in_which_a_row_was_replaced() {
    let migration = migrated("");
    migration.target.psql("DELETE FROM app.b; INSERT INTO app.b (a) VALUES (2)");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("the rows of app.b differ from those that were loaded");
    // A row with the same values is another program's all the same.
    migration.target.psql("UPDATE app.b SET id = 1, a = 1");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("the rows of app.b differ from those that were loaded");
    migration.json(0, &["rollback", "plan.toml", "--even-changed"]);
    assert!(!migration.exists("app.b"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_of_an_edited_plan_uses_the_record_of_the_run() {
    let migration = migrated("");
    let text = migration.plan_text();
    // The edited plan lacks the first table, and the other table has another name.
    let second = text.rfind("[[table]]").unwrap();
    let first = text.find("[[table]]").unwrap();
    let edited = format!("{}{}", &text[..first], &text[second..]).replace("name = \"b\"", "name = \"c\"");
    assert!(edited.contains("name = \"c\""), "{edited}");
    std::fs::write(migration.sandbox.path("plan.toml"), edited).unwrap();
    migration.migrate(&["run", "plan.toml"]).code(2).says("the plan was changed after it was started");
    let document = migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(document["tables"][0]["rows"].as_u64().unwrap() + document["tables"][1]["rows"].as_u64().unwrap(), 3);
    assert!(!migration.exists("app.a") && !migration.exists("app.b") && !migration.exists("lifeboat_migrate.plans"));
}

/// Creates a plan for another file. The first plan is then in first.toml.
fn plan_another(migration: &Migration) {
    let first = migration.plan_text();
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    migration.file("other.db", "CREATE TABLE x (id INTEGER PRIMARY KEY); INSERT INTO x VALUES (1);");
    migration.plan(&["other.db"], &["--schema", "other"]);
    std::fs::write(migration.sandbox.path("first.toml"), first).unwrap();
}

/// Waits until this many sessions wait for a lock in the target.
#[track_caller]
fn wait_for_lock_waits(migration: &Migration, count: usize) {
    let query = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                  WHERE NOT granted AND d.datname = current_database()";
    let start = Instant::now();
    while migration.target.value(query) != count.to_string() {
        assert!(start.elapsed() < Duration::from_secs(20), "{count} sessions do not wait for a lock");
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_keeps_the_record_of_a_run_that_is_starting() {
    let migration = migrated("");
    plan_another(&migration);
    // The run has recorded that it starts, and waits for the lock on a table. Its record is not committed yet.
    migration.target.psql("CREATE SCHEMA other; CREATE TABLE other.x (id bigint)");
    let mut holder = migration.session();
    holder.execute("BEGIN; LOCK TABLE other.x IN ACCESS EXCLUSIVE MODE").unwrap();
    let migration_run = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
    wait_for_lock_waits(&migration, 1);
    let rollback = migration.sandbox.start_command(migration.command(&["rollback", "first.toml"]));
    wait_for_lock_waits(&migration, 2);
    holder.execute("COMMIT").unwrap();
    let (run, rolled_back) = (migration_run.finish(), rollback.finish());
    assert_eq!((run.exit(), rolled_back.exit()), (0, 0), "{}\n{}", run.transcript(), rolled_back.transcript());
    assert_eq!(migration.target.value("SELECT count(*) FROM lifeboat_migrate.plans"), "1");
    assert!(!migration.exists("app.a"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_migration_does_not_wait_for_another_one_that_is_loading() {
    let migration = migrated("");
    // The other one writes its notes. It is in no hurry.
    let mut other = migration.session();
    other.execute("BEGIN; UPDATE lifeboat_migrate.plans SET digest = digest WHERE false").unwrap();
    let notes = "SELECT string_agg(quote_ident(tablename), ', lifeboat_migrate.') FROM pg_tables WHERE schemaname = 'lifeboat_migrate'";
    let tables = migration.target.value(notes);
    other.execute(&format!("LOCK TABLE lifeboat_migrate.{tables} IN ROW EXCLUSIVE MODE")).unwrap();
    let start = Instant::now();
    plan_another(&migration);
    migration.json(0, &["run", "plan.toml"]);
    migration.json(0, &["rollback", "plan.toml"]);
    assert!(start.elapsed() < Duration::from_secs(30), "it has waited {:?}", start.elapsed());
    other.execute("COMMIT").unwrap();
    migration.json(0, &["rollback", "first.toml"]);
    assert!(!migration.exists("lifeboat_migrate.plans"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_run_that_starts_during_a_rollback_has_its_own_record() {
    let migration = migrated("");
    plan_another(&migration);
    // The rollback has removed the tables, and waits for the lock on the schema.
    let mut holder = migration.session();
    holder.execute("BEGIN; CREATE TABLE app.mine (n int)").unwrap();
    let rollback = migration.sandbox.start_command(migration.command(&["rollback", "first.toml"]));
    wait_for_lock_waits(&migration, 1);
    let migration_run = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
    wait_for_lock_waits(&migration, 2);
    holder.execute("ROLLBACK").unwrap();
    let (rolled_back, run) = (rollback.finish(), migration_run.finish());
    assert_eq!((rolled_back.exit(), run.exit()), (0, 0), "{}\n{}", rolled_back.transcript(), run.transcript());
    assert_eq!(migration.target.value("SELECT count(*) FROM lifeboat_migrate.plans"), "1");
    assert_eq!(migration.target.value("SELECT count(*) FROM other.x"), "1");
}

/// The connection is cut while the server commits the rollback. The URL also names the server itself, which is asked then.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_rollback_whose_reply_is_lost_says_what_has_happened() {
    for (knows_another_way, code) in [(true, 0), (false, 5)] {
        let migration = migrated("");
        plan_another(&migration);
        migration.json(0, &["run", "plan.toml"]);
        migration.target.psql(
            "CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 PERFORM pg_advisory_xact_lock(42); RETURN NULL; END$$;
             CREATE CONSTRAINT TRIGGER hold AFTER DELETE ON lifeboat_migrate.plans DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION public.hold()",
        );
        let mut holder = migration.session();
        holder.rows("SELECT pg_advisory_lock(42)").unwrap();
        let (url, port) = (migration.target.url(), migration.target.server.port);
        let proxy = Proxy::start(port, Trouble::Never);
        let (direct, cut) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", proxy.port));
        let to = url.replace(&direct, &if knows_another_way { format!("{cut},{direct}") } else { cut });
        let rollback = migration.sandbox.start_command(migration.command(&["rollback", "first.toml", "--to", &to]));
        wait_for_lock_waits(&migration, 1);
        drop(proxy);
        holder.rows("SELECT pg_advisory_unlock(42)").unwrap();
        let rollback = rollback.finish();
        assert_eq!(rollback.exit(), code, "{}", rollback.transcript());
        assert!(!migration.exists("app.a"));
        assert!(!rollback.transcript().contains("nothing was changed"), "{}", rollback.transcript());
        if code != 0 {
            rollback.says("it is unknown whether the server has committed it");
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_takes_no_row_that_inherits_or_that_a_trigger_at_truncate_writes() {
    let migration = Migration::new();
    migration.target.psql(
        "CREATE SCHEMA app; CREATE TABLE app.t (id bigint PRIMARY KEY, note text);
         CREATE TABLE app.seen (id int); INSERT INTO app.seen VALUES (1);
         CREATE FUNCTION app.forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM app.seen; RETURN NULL; END $$;
         CREATE TRIGGER forget AFTER TRUNCATE ON app.t EXECUTE FUNCTION app.forget();",
    );
    let rows = "CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    migration.file("app.db", rows);
    migration.plan(&["app.db"], &["--schema", "app"]);
    migration.json(0, &["run", "plan.toml"]);
    migration
        .target
        .psql("CREATE TABLE public.theirs () INHERITS (app.t); INSERT INTO public.theirs VALUES (100, 'x')");
    let document = migration.json(0, &["rollback", "plan.toml"]);
    let rows = |table: &str| migration.target.value(&format!("SELECT count(*) FROM ONLY {table}"));
    let found = ["app.t", "public.theirs", "app.seen"].map(rows);
    assert_eq!(found, ["0", "1", "1"], "{document:#}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rows_that_a_trigger_wrote_during_the_load_do_not_prevent_a_rollback() {
    let migration = Migration::new();
    migration.target.psql(
        "CREATE SCHEMA app; CREATE TABLE app.t (id bigint PRIMARY KEY, note text);
         CREATE FUNCTION app.double() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.id < 100 THEN INSERT INTO app.t VALUES (NEW.id + 100, NEW.note); END IF; RETURN NULL; END $$;
         CREATE TRIGGER double AFTER INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.double();",
    );
    migration
        .file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    migration.plan(&["app.db"], &["--schema", "app"]);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t"), "4");
    migration.target.psql("INSERT INTO app.t VALUES (500, 'since')");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("app.t has 5 rows, but 2 were loaded");
    migration.target.psql("DELETE FROM app.t WHERE id >= 500");
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t"), "0");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_row_for_which_a_trigger_raises_an_exception_is_rejected() {
    let migration = Migration::new();
    migration.target.psql(
        "CREATE SCHEMA app; CREATE TABLE app.t (id bigint PRIMARY KEY, amount int);
         CREATE FUNCTION app.positive() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.amount < 0 THEN RAISE EXCEPTION 'amount % is negative', NEW.amount; END IF; RETURN NEW; END $$;
         CREATE TRIGGER positive BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.positive();",
    );
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, amount INTEGER); INSERT INTO t VALUES (1, 5), (2, -5), (3, 7)",
    );
    migration.plan(&["app.db"], &["--schema", "app"]);
    migration.json(3, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t"), "2");
    assert_eq!(migration.rejects(), ["t 2 the server refuses it: amount -5 is negative"]);
}
