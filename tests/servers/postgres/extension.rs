//! Configuration tables of an extension, in which some rows belong to the user.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::helpers::{Setup, rows, wait_until};
use crate::support::postgres::{TestRole, servers};

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

        // An administrator has created the extension in an empty database, for a role that drills there.
        let app = TestRole::create(server, "rules_app", "LOGIN");
        let prepared = server.create_database("rules_prepared");
        server.psql(
            "postgres",
            format!("ALTER ROLE {app} SET {path}; ALTER DATABASE \"{}\" OWNER TO {app}", prepared.name),
        );
        prepared.psql(format!(
            "SET {path}; CREATE EXTENSION lifeboat_rules; INSERT INTO rules VALUES (103, 'theirs');
             GRANT ALL ON rules, own TO {app}; GRANT ALL ON own_seq TO {app}"
        ));
        let url =
            prepared.socket_url().replacen(&format!("postgres://{}@", server.user), &format!("postgres://{app}@"), 1);
        let words = "rows in public.rules of the extension lifeboat_rules";
        setup.run(&["restore", &id, "--to", &url, "--no-owner"]).code(2).says("is not empty").says(words);
        prepared.psql("DELETE FROM rules WHERE id > 100");
        setup.ok(&["drill", &id, "--to", &url, "--no-owner"]);
        assert_eq!(rows(&prepared, all_rules), ["1|built in", "2|built in too"]);
        assert_eq!(rows(&prepared, "SELECT v FROM own"), Vec::<String>::new());
        // Another run fills it: the lock is that of Filling.
        let lock = "SELECT pg_advisory_lock(x'6c696665626f6174'::bigint); SELECT pg_sleep(60)";
        let mut holder = server.command(&server.psql, &prepared.name);
        let mut holder = holder.args(["-X", "-q", "-c", lock]).stdout(Stdio::null()).spawn().unwrap();
        let is_locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database =
                         (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait_until("the lock is held", || prepared.value(is_locked) == "1");
        setup.run(&["restore", &id, "--to", &url, "--no-owner"]).code(2).says("is incomplete");
        assert_eq!(rows(&prepared, "SELECT v FROM own"), Vec::<String>::new());
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
}
