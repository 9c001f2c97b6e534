//! Restores into an existing empty database: its own settings are not changed, and a message names the settings of the
//! snapshot that are not applied.

use super::helpers::{Setup, shop};
use crate::support::compare::assert_equal_data;
use crate::support::postgres::some_server;

#[test]
#[ignore = "needs PostgreSQL"]
fn settings_that_are_not_restored_into_an_existing_database_are_named() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "settings");
        source.psql(format!(
            "ALTER DATABASE \"{0}\" SET work_mem TO '7MB'; COMMENT ON DATABASE \"{0}\" IS 'the shop';
             ALTER DATABASE \"{0}\" CONNECTION LIMIT 77",
            source.name
        ));
        let id = setup.snapshot(&source, &[]);
        let empty = server.create_database("settings_filled");
        let run = setup.ok(&["restore", &id, "--to", &empty.url()]);
        for word in ["connection limit", "comment", "settings", &empty.name] {
            assert!(run.stderr().contains(word), "stderr lacks '{word}'\n{}", run.transcript());
        }
        assert_equal_data(&source, &empty, "filled");
        assert_eq!(empty.value("SELECT current_setting('work_mem') <> '7MB'"), "t");
        // The source has no such settings, so there is no message.
        let plain = shop(server, "no_settings");
        let id = setup.snapshot(&plain, &[]);
        let empty = server.create_database("no_settings_filled");
        let run = setup.ok(&["restore", &id, "--to", &empty.url()]);
        assert!(!run.stderr().contains("keeps its own settings"), "{}", run.transcript());
        let objects = setup.ok(&["extract", &id, "--entry", "schema/objects.json"]);
        assert!(!objects.stdout().contains("information_schema"), "the snapshot has default privileges");
        // A new database gets all settings.
        let id = setup.snapshot(&source, &[]);
        let new = setup.restore_new(&id, &[]);
        assert_eq!(new.value("SELECT current_setting('work_mem')"), "7MB");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restored_database_has_statistics_for_the_planner() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "analyzed");
        let id = setup.snapshot(&source, &[]);
        let new = setup.restore_new(&id, &["-j", "2"]);
        for (table, rows) in [("users", "20"), ("orders", "200")] {
            assert_eq!(new.value(&format!("SELECT reltuples FROM pg_class WHERE relname = '{table}'")), rows);
            assert_ne!(new.value(&format!("SELECT count(*) FROM pg_stats WHERE tablename = '{table}'")), "0");
        }
    });
}
