//! What was made goes; nothing else does.

use std::time::{Duration, Instant};

use super::helpers::Migration;

const FILE: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO a VALUES (1, 'x'), (2, 'y');
    CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id)); INSERT INTO b VALUES (1, 1);";

fn migrated(before: &str) -> Migration {
    let migration = Migration::new();
    migration.file("app.db", FILE);
    if !before.is_empty() {
        migration.target.psql(before);
    }
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn all_that_was_made_goes_and_may_be_made_again() {
    let migration = migrated("");
    let document = migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(document["tables"].as_array().unwrap().len(), 2);
    for name in ["app.a", "app.b", "lifeboat_migrate.plans"] {
        assert!(!migration.has(name), "{name}");
    }
    assert_eq!(
        migration.target.value("SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'lifeboat_migrate')"),
        "0"
    );
    let again = migration.migrate(&["rollback", "plan.toml"]).code(0);
    assert!(again.stdout().contains("nothing of this plan is there"), "{}", again.transcript());
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn what_others_made_stays() {
    let migration = migrated(
        "CREATE SCHEMA app; CREATE TABLE app.mine AS SELECT 7 AS n; CREATE SCHEMA other; CREATE TABLE other.a AS SELECT 1",
    );
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT n FROM app.mine"), "7");
    assert!(migration.has("other.a") && !migration.has("app.a"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_table_that_has_changed_or_is_used_is_not_taken_back() {
    let migration = migrated("");
    migration.target.psql("INSERT INTO app.a (t) VALUES ('written since')");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("app.a holds 3 rows, and 2 were loaded");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "3");
    migration.target.psql("DELETE FROM app.a WHERE t = 'written since'; CREATE VIEW public.v AS SELECT * FROM app.a");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("depends on a table");
    assert!(migration.has("app.a") && migration.has("app.b"));
    // Another table of that name is not the one that was made.
    migration.target.psql("DROP VIEW public.v; ALTER TABLE app.b RENAME TO kept; CREATE TABLE app.b (mine int)");
    let document = migration.json(1, &["rollback", "plan.toml"]);
    assert!(document["error"]["message"].as_str().is_some(), "{document}");
    migration.target.psql("ALTER TABLE app.kept DROP CONSTRAINT b_a_fkey");
    let document = migration.json(0, &["rollback", "plan.toml"]);
    assert!(document["notes"].to_string().contains("app.b is not the table that was made"), "{document}");
    assert!(migration.has("app.b") && migration.has("app.kept") && !migration.has("app.a"));
    let notes = document["notes"].to_string();
    assert!(notes.contains("the schema app holds other things"), "{notes}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_table_that_was_there_is_emptied_and_stays() {
    let migration =
        migrated("CREATE SCHEMA app; CREATE TABLE app.a (id bigint PRIMARY KEY, t text, extra int DEFAULT 5)");
    assert_eq!(migration.target.value("SELECT sum(extra) FROM app.a"), "10");
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "0");
    assert!(!migration.has("app.b"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_row_for_a_row_is_a_change_too() {
    let migration = migrated("");
    migration.target.psql("DELETE FROM app.b; INSERT INTO app.b (a) VALUES (2)");
    migration.migrate(&["rollback", "plan.toml"]).code(1).says("app.b holds other rows than those that were loaded");
    migration.target.psql("UPDATE app.b SET id = 1, a = 1");
    migration.json(0, &["rollback", "plan.toml"]);
    assert!(!migration.has("app.b"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_that_was_edited_is_taken_back_by_what_was_noted() {
    let migration = migrated("");
    let text = migration.text();
    // Without its first table, and with the other by another name.
    let second = text.rfind("[[table]]").unwrap();
    let first = text.find("[[table]]").unwrap();
    let edited = format!("{}{}", &text[..first], &text[second..]).replace("name = \"b\"", "name = \"c\"");
    assert!(edited.contains("name = \"c\""), "{edited}");
    std::fs::write(migration.sandbox.path("plan.toml"), edited).unwrap();
    migration.migrate(&["run", "plan.toml"]).code(2).says("the plan was changed since it was begun");
    let document = migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(document["tables"][0]["rows"].as_u64().unwrap() + document["tables"][1]["rows"].as_u64().unwrap(), 3);
    assert!(!migration.has("app.a") && !migration.has("app.b") && !migration.has("lifeboat_migrate.plans"));
}

/// Plans another file; the plan of the first is first.toml then.
fn plan_another(migration: &Migration) {
    let first = migration.text();
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    migration.file("other.db", "CREATE TABLE x (id INTEGER PRIMARY KEY); INSERT INTO x VALUES (1);");
    migration.plan(&["other.db"], &["--schema", "other"]);
    std::fs::write(migration.sandbox.path("first.toml"), first).unwrap();
}

/// Waits until so many wait for a lock in the target.
#[track_caller]
fn wait_for_waiting(migration: &Migration, count: usize) {
    let query = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                  WHERE NOT granted AND d.datname = current_database()";
    let clock = Instant::now();
    while migration.target.value(query) != count.to_string() {
        assert!(clock.elapsed() < Duration::from_secs(20), "nobody waits");
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn notes_of_a_plan_that_is_just_beginning_stay() {
    let migration = migrated("");
    plan_another(&migration);
    // A run that has noted that it begins, and waits for a table, so that nobody can see it yet.
    migration.target.psql("CREATE SCHEMA other; CREATE TABLE other.x (id bigint)");
    let mut holder = migration.session();
    holder.execute("BEGIN; LOCK TABLE other.x IN ACCESS EXCLUSIVE MODE").unwrap();
    let beginning = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
    wait_for_waiting(&migration, 1);
    let rolling = migration.sandbox.start_command(migration.command(&["rollback", "first.toml"]));
    wait_for_waiting(&migration, 2);
    holder.execute("COMMIT").unwrap();
    let (begun, rolled) = (beginning.finish(), rolling.finish());
    assert_eq!((begun.exit(), rolled.exit()), (0, 0), "{}\n{}", begun.transcript(), rolled.transcript());
    assert_eq!(migration.target.value("SELECT count(*) FROM lifeboat_migrate.plans"), "1");
    assert!(!migration.has("app.a"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_that_begins_while_the_last_is_taken_back_has_notes_of_its_own() {
    let migration = migrated("");
    plan_another(&migration);
    // A rollback that has come as far as the schema.
    let mut holder = migration.session();
    holder.execute("BEGIN; CREATE TABLE app.mine (n int)").unwrap();
    let rolling = migration.sandbox.start_command(migration.command(&["rollback", "first.toml"]));
    wait_for_waiting(&migration, 1);
    let beginning = migration.sandbox.start_command(migration.command(&["run", "plan.toml"]));
    wait_for_waiting(&migration, 2);
    holder.execute("ROLLBACK").unwrap();
    let (rolled, begun) = (rolling.finish(), beginning.finish());
    assert_eq!((rolled.exit(), begun.exit()), (0, 0), "{}\n{}", rolled.transcript(), begun.transcript());
    assert_eq!(migration.target.value("SELECT count(*) FROM lifeboat_migrate.plans"), "1");
    assert_eq!(migration.target.value("SELECT count(*) FROM other.x"), "1");
}
