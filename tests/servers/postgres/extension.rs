//! Configuration tables of an extension, in which some rows belong to the user.

use std::os::unix::fs::PermissionsExt as _;

use super::helpers::{Setup, rows};
use crate::support::postgres::servers;

const SCRIPT: &str = "
CREATE TABLE rules (id integer PRIMARY KEY, what text);
INSERT INTO rules VALUES (1, 'built in'), (2, 'built in too');
SELECT pg_catalog.pg_extension_config_dump('rules', 'WHERE id > 100');
CREATE TABLE own (v text);
SELECT pg_catalog.pg_extension_config_dump('own', '');
CREATE TABLE not_saved (v text);
CREATE SEQUENCE own_seq;
SELECT pg_catalog.pg_extension_config_dump('own_seq', '');
";

/// Needs PostgreSQL 18, because older servers do not look for extensions in a folder of the test.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_users_rows_of_an_extension_are_restored_and_its_own_rows_stay_unchanged() {
    for server in servers().iter().filter(|server| server.major >= 18) {
        let setup = Setup::new(server);
        let share = setup.sandbox.path("share");
        std::fs::create_dir_all(share.join("extension")).unwrap();
        std::fs::write(share.join("extension/lifeboat_rules.control"), "default_version = '1'\nrelocatable = true\n")
            .unwrap();
        std::fs::write(share.join("extension/lifeboat_rules--1.sql"), SCRIPT).unwrap();
        std::fs::set_permissions(setup.sandbox.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("extension_control_path='{}:$system'", share.display());
        let source = server.create_database("rules");
        source.psql(format!(
            "SET {path}; CREATE EXTENSION lifeboat_rules; INSERT INTO rules VALUES (101, 'mine'), (102, 'mine too');
             INSERT INTO own VALUES ('x'); INSERT INTO not_saved VALUES ('y'); SELECT setval('own_seq', 7);
             CREATE TABLE other (id integer)"
        ));
        let ok = |arguments: &[&str]| {
            let mut command = setup.command(arguments);
            command.env("PGOPTIONS", format!("-c {}", path.replace('\'', "")));
            setup.sandbox.finish(command).code(0)
        };
        let id = setup.snapshot(&source, &[]);
        let new = server.reserve_database("new_rules");
        ok(&["restore", &id, "--to", &new.url(), "--create"]);
        let all_rules = "SELECT id, what FROM rules ORDER BY id";
        assert_eq!(rows(&new, all_rules), rows(&source, all_rules));
        assert_eq!(rows(&new, "SELECT v FROM own"), ["x"]);
        assert_eq!(new.value("SELECT nextval('own_seq')"), "8");
        let before = rows(&source, all_rules);
        source.psql("DELETE FROM rules WHERE id = 101; UPDATE rules SET what = 'x' WHERE id = 102; UPDATE rules SET what = 'new default' WHERE id = 1");
        ok(&["restore", &id, "--to", &source.url(), "--replace"]);
        let after = rows(&source, all_rules);
        assert_eq!(after[1..], before[1..]);
        assert_eq!(after[0], "1|new default");
        assert_eq!(rows(&source, "SELECT v FROM not_saved"), ["y"]);
        ok(&["drill", &id]);
    }
}
