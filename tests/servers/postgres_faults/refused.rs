//! Targets to which a restore is refused or fails: not empty, with another schema, in use, or dropped meanwhile.

use super::common::{Mode, Setup, Target, Watcher, content, copying_condition, require_error, session};
use crate::support::postgres::{oldest_and_newest, server};

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_into_a_database_that_is_not_empty_is_refused() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("in_the_way", 0);
    let id = setup.snapshot(&source.url());
    let occupants = [
        ("CREATE TABLE t (a int)", "table public.t"),
        ("CREATE VIEW v AS SELECT 1 AS one", "public.v"),
        ("CREATE SEQUENCE s", "public.s"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function"),
        ("CREATE TYPE e AS ENUM ('a')", "type"),
        ("CREATE DOMAIN d AS int", "domain"),
        ("CREATE COLLATION c (LOCALE = 'C')", "collation public.c"),
        ("CREATE PUBLICATION p", "publication p"),
        ("CREATE SCHEMA other", "schema other"),
        ("SELECT lo_from_bytea(4711, 'x')", "large object 4711"),
        ("CREATE SCHEMA \"a'b\"; CREATE TABLE \"a'b\".\"x\ny\" (a int)", "x\\ny"),
    ];
    for (sql, words) in occupants {
        let target = server.create_database("occupied");
        target.psql(sql);
        let before = content(&server, &target.name);
        setup.fails(2, &["restore", &id, "--to", &target.url()], &["is not empty", words, "--replace"]);
        assert_eq!(content(&server, &target.name), before, "{words}");
    }
    // The error names the tables that exist already, and the tables that the snapshot does not have.
    let target = Target::new(Mode::Replace, &source);
    let before = target.state();
    let url = target.database.url();
    setup.fails(2, &["restore", &id, "--to", &url, "--table", "log"], &["public.log", "--beside"]);
    setup.fails(2, &["restore", &id, "--to", &url, "--table", "nothing_such", "--replace"], &["nothing_such"]);
    setup.fails(
        1,
        &["restore", &id, "--to", &url, "--beside", "public", "--yes"],
        &["cannot create the schema public"],
    );
    assert_eq!(target.state(), before);
    setup.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn replace_is_refused_if_the_schema_has_changed() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("other_schema", 0);
    let id = setup.snapshot(&source.url());
    let changes = [
        ("ALTER TABLE accounts ADD COLUMN new int", "+new integer"),
        ("ALTER TABLE log DROP COLUMN note", "-note text"),
        ("ALTER TABLE accounts ALTER COLUMN amount TYPE bigint USING amount", "amount"),
        ("ALTER TABLE accounts ALTER COLUMN name DROP NOT NULL", "public.accounts"),
        ("ALTER TABLE log RENAME TO journal", "public.log does not exist"),
        ("DROP TABLE events", "events_new does not exist"),
        ("CREATE TABLE newer (a int)", "public.newer is not in the snapshot"),
    ];
    for (change, words) in changes {
        let target = Target::new(Mode::Replace, &source);
        target.database.psql(format!("DROP VIEW totals; DROP TRIGGER forbid ON accounts; {change}"));
        let before = target.state();
        let url = target.database.url();
        setup.fails(1, &target.arguments(&id, &url), &["cannot be replaced in place", words, "nothing was changed"]);
        assert_eq!(target.state(), before, "{change}");
    }
    // A table that is not replaced refers to a table that is replaced.
    let target = Target::new(Mode::Replace, &source);
    let before = target.state();
    let url = target.database.url();
    let run = setup.run(&["restore", &id, "--to", &url, "--replace", "--yes", "--table", "accounts"]).code(1);
    require_error(&run, &["public.log, which is not restored, refers to rows of public.accounts"]);
    assert_eq!(target.state(), before);
    setup.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_database_in_use_is_swapped_only_with_disconnect() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = setup.bank("in_use", 0);
        let id = setup.snapshot(&source.url());
        let target = Target::new(Mode::Swap, &source);
        let before = target.state();
        let mut other = session(server, &target.database.name, "worker");
        other.execute("BEGIN; UPDATE accounts SET amount = 5 WHERE id = 1").unwrap();
        let url = target.database.url();
        setup.fails(
            1,
            &target.arguments(&id, &url),
            &["1 other session is connected to", "--disconnect", "nothing was changed"],
        );
        other.execute("ROLLBACK").unwrap();
        assert_eq!(target.state(), before);
        other.execute("UPDATE accounts SET amount = 5 WHERE id = 1").unwrap();
        let document = setup.json(&[target.arguments(&id, &url), vec!["--disconnect"]].concat());
        other.execute("SELECT 1").unwrap_err();
        assert_eq!(target.database.value("SELECT amount FROM accounts WHERE id = 1"), "10");
        // The old database is kept, with everything that was committed before the swap.
        let old_name = document["moved_aside"][0].as_str().unwrap();
        assert_eq!(server.value(old_name, "SELECT amount FROM accounts WHERE id = 1"), "5");
        assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new());
        setup.require_store(&[id]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_fails_if_its_database_is_dropped() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("dropped", 60);
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in [Mode::Empty, Mode::Replace, Mode::Beside] {
        let target = Target::new(mode, &source);
        let url = target.database.url();
        let mut arguments = target.arguments(&id, &url);
        if mode == Mode::Replace {
            arguments.push("--no-safety");
        }
        let mut running = setup.start(&arguments);
        let copying = copying_condition(&target.database.name, 1);
        assert!(watcher.wait_until_or_end(&copying, &mut running), "it ended too early");
        server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", target.database.name));
        let run = setup.finish(running).code(5);
        require_error(&run, &[]);
        assert_eq!(target.state(), None);
    }
    setup.require_store(&[id]);
}
