//! What was made goes; nothing else does.

use crate::helpers::Migration;

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
    assert!(again.stdout().contains("nothing of this plan is there"), "{}", again.story());
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "2");
}

#[test]
fn what_others_made_stays() {
    let migration = migrated(
        "CREATE SCHEMA app; CREATE TABLE app.mine AS SELECT 7 AS n; CREATE SCHEMA other; CREATE TABLE other.a AS SELECT 1",
    );
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT n FROM app.mine"), "7");
    assert!(migration.has("other.a") && !migration.has("app.a"));
}

#[test]
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
fn a_table_that_was_there_is_emptied_and_stays() {
    let migration =
        migrated("CREATE SCHEMA app; CREATE TABLE app.a (id bigint PRIMARY KEY, t text, extra int DEFAULT 5)");
    assert_eq!(migration.target.value("SELECT sum(extra) FROM app.a"), "10");
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.a"), "0");
    assert!(!migration.has("app.b"));
}
