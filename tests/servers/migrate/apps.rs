//! The tables of well-known applications, as the migrations of each make them in SQLite and in PostgreSQL. The statements
//! were written for these tests, by the facts of those schemas.

use super::helpers::Migration;

/// An application: its name, its statements for both databases, and the tables that its migrations fill in the target.
const APPS: [(&str, &str, &str, &str); 3] = [
    (
        "Django",
        include_str!("../../data/apps/django.sqlite.sql"),
        include_str!("../../data/apps/django.postgres.sql"),
        "django_migrations, auth_permission, django_content_type",
    ),
    (
        "Vaultwarden",
        include_str!("../../data/apps/vaultwarden.sqlite.sql"),
        include_str!("../../data/apps/vaultwarden.postgres.sql"),
        "__diesel_schema_migrations",
    ),
    (
        "Jellyseerr",
        include_str!("../../data/apps/jellyseerr.sqlite.sql"),
        include_str!("../../data/apps/jellyseerr.postgres.sql"),
        "migrations",
    ),
];

/// Migrates each application into the tables that it has made itself, and into new ones. No row is rejected, and a rollback
/// leaves the target as it was.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn known_applications_are_migrated_without_a_rejected_row_and_rolled_back() {
    for (name, file, target, filled) in APPS {
        let migration = Migration::new();
        migration.file("app.db", file);
        let url = migration.target.url();
        let plan = |code: i32, schema: &str| {
            let _ = std::fs::remove_file(migration.sandbox.path("plan.toml"));
            migration.json(code, &["plan", "app.db", "--to", &url, "--schema", schema])
        };
        migration.target.psql(format!("CREATE SCHEMA app; SET search_path = app; {target}"));
        // Rows of the target are never overwritten.
        let refused = plan(3, "app");
        assert_eq!(refused["differences"].as_array().unwrap().len(), filled.split(", ").count(), "{name}: {refused}");
        migration.target.psql(format!("SET search_path = app; TRUNCATE {filled} CASCADE"));
        for schema in ["app", "new"] {
            let before = migration.target.schema_dump();
            let planned = plan(0, schema);
            let tables = planned["tables"].as_array().unwrap();
            assert!(tables.iter().all(|table| table["rejected"] == 0), "{name}: {planned}");
            let run = migration.json(0, &["run", "plan.toml"]);
            for (planned, loaded) in tables.iter().zip(run["tables"].as_array().unwrap()) {
                assert_eq!((&planned["rows"], &loaded["rejected"]), (&loaded["rows"], &0.into()), "{name}: {loaded}");
            }
            migration.json(0, &["verify", "plan.toml"]);
            migration.json(0, &["rollback", "plan.toml"]);
            let after = migration.target.schema_dump();
            assert!(before == after, "{name}: the rollback has left or changed objects");
            for table in tables.iter().filter(|_| schema == "app") {
                let table = table["target"].as_str().unwrap().replace('.', ".\"") + "\"";
                assert_eq!(migration.target.value(&format!("SELECT count(*) FROM {table}")), "0", "{name}: {table}");
            }
        }
    }
}
