//! `--no-acl`, `--no-comments`, `--no-publications`, `--no-subscriptions`: what a restore leaves out because the user says so.

use super::helpers::{Setup, rows, shop};
use crate::support::postgres::{TestDatabase, oldest_and_newest};

const KINDS: [(&str, &str); 4] = [
    ("--no-acl", "SELECT relacl FROM pg_class WHERE relacl IS NOT NULL AND oid >= 16384"),
    (
        "--no-comments",
        "SELECT description FROM pg_description WHERE objoid >= 16384 UNION ALL SELECT shobj_description(oid, 'pg_database') FROM pg_database
          WHERE datname = current_database() AND shobj_description(oid, 'pg_database') IS NOT NULL",
    ),
    ("--no-publications", "SELECT pubname FROM pg_publication"),
    ("--no-subscriptions", "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"),
];

#[test]
#[ignore = "needs PostgreSQL"]
fn kinds_of_objects_are_left_out_on_request_and_the_report_says_so() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "kinds");
        source.psql(format!(
            "CREATE PUBLICATION shop_publication FOR TABLE users; COMMENT ON DATABASE {} IS 'the shop';
             CREATE SUBSCRIPTION shop_subscription CONNECTION 'host=127.0.0.1 dbname=none' PUBLICATION p
                 WITH (connect = false, enabled = false, slot_name = NONE, create_slot = false);
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO lifeboat_reader",
            source.name
        ));
        for (_, query) in KINDS {
            assert!(!rows(&source, query).is_empty(), "{query}");
        }
        let id = setup.snapshot(&source, &[]);
        for (option, query) in KINDS {
            let new = server.reserve_database("without");
            let report = setup.json(&["restore", &id, "--to", &new.url(), "--create", option]);
            let notes = report["notes"].to_string();
            assert!(notes.contains(option), "{notes}");
            assert_eq!(rows(&new, query), Vec::<String>::new(), "{option}");
            for (other, query) in KINDS.iter().filter(|(other, _)| *other != option) {
                assert_eq!(sorted(&new, query), sorted(&source, query), "{other} with {option}");
            }
        }
        let options = KINDS.map(|(option, _)| option);
        setup.ok(&[&["drill", &id], &options[..]].concat());
    });
}

fn sorted(database: &TestDatabase, query: &str) -> Vec<String> {
    let mut found = rows(database, query);
    found.sort();
    found
}
