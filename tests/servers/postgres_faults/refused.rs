//! Targets that a restore must leave alone: not empty, changed since, in use, dropped meanwhile.

use super::common::{Mode, Scene, Target, Watcher, content, copying, require_told, session};
use crate::support::postgres::{oldest_and_newest, server};

#[test]
#[ignore = "needs PostgreSQL"]
fn database_with_anything_in_it_is_not_restored_into() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("in_the_way", 0);
    let id = scene.snapshot(&source.url());
    let things = [
        ("CREATE TABLE t (a int)", "table public.t"),
        ("CREATE VIEW v AS SELECT 1 AS one", "public.v"),
        ("CREATE SEQUENCE s", "public.s"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function"),
        ("CREATE TYPE e AS ENUM ('a')", "type"),
        ("CREATE DOMAIN d AS int", "domain"),
        ("CREATE COLLATION c (LOCALE = 'C')", "collation public.c"),
        ("CREATE PUBLICATION p", "publication p"),
        ("CREATE SCHEMA other", "schema other"),
        ("CREATE EXTENSION citext", "extension citext"),
        ("SELECT lo_from_bytea(4711, 'x')", "large object 4711"),
        ("CREATE SCHEMA \"a'b\"; CREATE TABLE \"a'b\".\"x\ny\" (a int)", "x\\ny"),
    ];
    for (sql, words) in things {
        let target = server.create_database("occupied");
        target.psql(sql);
        let before = content(&server, &target.name);
        scene.fails(2, &["restore", &id, "--to", &target.url()], &["is not empty", words, "--replace"]);
        assert_eq!(content(&server, &target.name), before, "{words}");
    }
    // Tables that are there already, and those that are not, are told by name.
    let target = Target::new(Mode::Replace, &source);
    let before = target.state();
    let url = target.database.url();
    scene.fails(2, &["restore", &id, "--to", &url, "--table", "log"], &["public.log", "--beside"]);
    scene.fails(2, &["restore", &id, "--to", &url, "--table", "nothing_such", "--replace"], &["nothing_such"]);
    scene.fails(
        1,
        &["restore", &id, "--to", &url, "--beside", "public", "--yes"],
        &["cannot create the schema public"],
    );
    assert_eq!(target.state(), before);
    scene.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn rows_are_not_put_in_place_where_the_schema_is_another() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("other_schema", 0);
    let id = scene.snapshot(&source.url());
    let changes = [
        ("ALTER TABLE accounts ADD COLUMN new int", "+new integer"),
        ("ALTER TABLE log DROP COLUMN note", "-note text"),
        ("ALTER TABLE accounts ALTER COLUMN amount TYPE bigint USING amount", "amount"),
        ("ALTER TABLE accounts ALTER COLUMN name DROP NOT NULL", "public.accounts"),
        ("ALTER TABLE log RENAME TO journal", "public.log is not there"),
        ("DROP TABLE events", "events_new is not there"),
        ("CREATE TABLE newer (a int)", "public.newer is not in the snapshot"),
    ];
    for (change, words) in changes {
        let target = Target::new(Mode::Replace, &source);
        target.database.psql(format!("DROP VIEW totals; DROP TRIGGER forbid ON accounts; {change}"));
        let before = target.state();
        let url = target.database.url();
        scene.fails(1, &target.arguments(&id, &url), &["cannot be put in place", words, "nothing was changed"]);
        assert_eq!(target.state(), before, "{change}");
    }
    // A table outside the set that refers to one inside.
    let target = Target::new(Mode::Replace, &source);
    let before = target.state();
    let url = target.database.url();
    let run = scene.run(&["restore", &id, "--to", &url, "--replace", "--yes", "--table", "accounts"]).code(1);
    require_told(&run, &["public.log, which is not restored, refers to rows of public.accounts"]);
    assert_eq!(target.state(), before);
    scene.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn database_in_use_is_exchanged_only_when_told_to() {
    oldest_and_newest(|server| {
        let scene = Scene::new(server);
        let source = scene.bank("in_use", 0);
        let id = scene.snapshot(&source.url());
        let target = Target::new(Mode::Swap, &source);
        let before = target.state();
        let mut other = session(server, &target.database.name, "worker");
        other.execute("BEGIN; UPDATE accounts SET amount = 5 WHERE id = 1").unwrap();
        let url = target.database.url();
        scene.fails(
            1,
            &target.arguments(&id, &url),
            &["1 sessions of others are in", "--disconnect", "nothing was changed"],
        );
        other.execute("ROLLBACK").unwrap();
        assert_eq!(target.state(), before);
        other.execute("UPDATE accounts SET amount = 5 WHERE id = 1").unwrap();
        let document = scene.json(&[target.arguments(&id, &url), vec!["--disconnect"]].concat());
        other.execute("SELECT 1").unwrap_err();
        assert_eq!(target.database.value("SELECT amount FROM accounts WHERE id = 1"), "10");
        // The old one is kept, with what was committed to the last moment.
        let aside = document["moved_aside"][0].as_str().unwrap();
        assert_eq!(server.value(aside, "SELECT amount FROM accounts WHERE id = 1"), "5");
        assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new());
        scene.require_store(&[id]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn database_dropped_under_a_restore_ends_it() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("dropped", 60);
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in [Mode::Empty, Mode::Replace, Mode::Beside] {
        let target = Target::new(mode, &source);
        let url = target.database.url();
        let mut arguments = target.arguments(&id, &url);
        if mode == Mode::Replace {
            arguments.push("--no-safety");
        }
        let mut running = scene.start(&arguments);
        assert!(watcher.until_or_end(&copying(&target.database.name, 1), &mut running), "too quick");
        server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", target.database.name));
        let run = scene.finish(running).code(5);
        require_told(&run, &[]);
        assert_eq!(target.state(), None);
    }
    scene.require_store(&[id]);
}
