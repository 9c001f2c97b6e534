//! Into a database that is there and empty: what it has of its own stays, and what is not set is named.

use super::helpers::{Place, shop};
use crate::support::compare::assert_equal_data;
use crate::support::postgres::some_server;

#[test]
#[ignore = "needs PostgreSQL"]
fn what_an_existing_database_keeps_of_its_own_is_named() {
    some_server(|server| {
        let place = Place::new(server);
        let source = shop(server, "settings");
        source.psql(format!(
            "ALTER DATABASE \"{0}\" SET work_mem TO '7MB'; COMMENT ON DATABASE \"{0}\" IS 'the shop';
             ALTER DATABASE \"{0}\" CONNECTION LIMIT 77",
            source.name
        ));
        let id = place.snapshot(&source, &[]);
        let empty = server.create_database("settings_filled");
        let run = place.ok(&["restore", &id, "--to", &empty.url()]);
        for word in ["connection limit", "comment", "settings", &empty.name] {
            assert!(run.stderr().contains(word), "'{word}' is not said\n{}", run.transcript());
        }
        assert_equal_data(&source, &empty, "filled");
        assert_eq!(empty.value("SELECT current_setting('work_mem') <> '7MB'"), "t");
        // Nothing to be named: nothing is said.
        let plain = shop(server, "no_settings");
        let id = place.snapshot(&plain, &[]);
        let empty = server.create_database("no_settings_filled");
        let run = place.ok(&["restore", &id, "--to", &empty.url()]);
        assert!(!run.stderr().contains("of its own"), "{}", run.transcript());
        let objects = place.ok(&["extract", &id, "--entry", "schema/objects.json"]);
        assert!(!objects.stdout().contains("information_schema"), "what nobody has granted is not granted again");
        // A new database gets it all.
        let id = place.snapshot(&source, &[]);
        let new = place.restore_new(&id, &[]);
        assert_eq!(new.value("SELECT current_setting('work_mem')"), "7MB");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restored_database_is_known_to_the_planner() {
    some_server(|server| {
        let place = Place::new(server);
        let source = shop(server, "analyzed");
        let id = place.snapshot(&source, &[]);
        let new = place.restore_new(&id, &["-j", "2"]);
        for (table, rows) in [("users", "20"), ("orders", "200")] {
            assert_eq!(new.value(&format!("SELECT reltuples FROM pg_class WHERE relname = '{table}'")), rows);
            assert_ne!(new.value(&format!("SELECT count(*) FROM pg_stats WHERE tablename = '{table}'")), "0");
        }
    });
}
