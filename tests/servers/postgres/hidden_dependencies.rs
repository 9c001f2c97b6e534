//! Functions that need what the catalogs do not name: helpers that they find by search_path, other materialized views.

use super::helpers::{Setup, rows, shop};
use crate::support::compare::assert_equal;
use crate::support::postgres::{TestDatabase, server, servers, some_server};

/// Objects whose functions find `helper` by the search_path of the database.
const OBJECTS: &str = "
    CREATE SCHEMA app;
    CREATE FUNCTION app.helper(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i + 1';
    CREATE FUNCTION app.uses(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN helper(i); END';
    SET search_path = app;
    CREATE DOMAIN app.positive AS integer CHECK (app.uses(VALUE) > 0);
    CREATE TABLE app.indexed (i integer, d app.positive);
    INSERT INTO app.indexed VALUES (1, 1), (2, 2);
    CREATE UNIQUE INDEX by_helper ON app.indexed (app.uses(i)) WHERE app.uses(i) > 0;
    CREATE TABLE app.checked (i integer, CONSTRAINT by_helper CHECK (app.uses(i) > 0), EXCLUDE USING btree (app.uses(i) WITH =));
    INSERT INTO app.checked VALUES (1);
    CREATE TABLE app.generated (i integer, g integer GENERATED ALWAYS AS (app.uses(i)) STORED);
    INSERT INTO app.generated VALUES (1), (2);
    CREATE TABLE app.parts (i integer) PARTITION BY RANGE (app.uses(i));
    CREATE TABLE app.part PARTITION OF app.parts FOR VALUES FROM (0) TO (10);
    INSERT INTO app.parts VALUES (1);
    CREATE TABLE app.plain (i integer PRIMARY KEY);
    INSERT INTO app.plain SELECT generate_series(1, 10);
";

/// From 17 on, the server itself sets a safe search_path for indexes and materialized views.
const FUNCTIONS_FIND_BY_PATH: u32 = 16;

fn database(setup: &Setup, name: &str) -> TestDatabase {
    let source = setup.server.create_database(name);
    source.psql(format!("ALTER DATABASE {} SET search_path = app, public; {OBJECTS}", source.name));
    source.psql("CREATE MATERIALIZED VIEW app.view AS SELECT app.uses(i) AS u FROM app.plain");
    source
}

#[test]
#[ignore = "needs PostgreSQL"]
fn functions_that_find_helpers_by_the_search_path_of_the_database_are_restored() {
    let all = servers();
    let mut old = all.iter().filter(|server| server.major <= FUNCTIONS_FIND_BY_PATH);
    for server in [old.next(), old.next_back()].into_iter().flatten() {
        let setup = Setup::new(server);
        let source = database(&setup, "by_path");
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["drill", &id]);
        let new = setup.restore_new(&id, &[]);
        assert_equal(&source, &new, "by_path");
        new.psql("DELETE FROM app.part");
        setup.ok(&["restore", &id, "--to", &new.url(), "--replace", "--yes"]);
        assert_equal(&source, &new, "by_path, replaced");
        new.psql("DROP TABLE app.indexed, app.parts");
        setup.ok(&["restore", &id, "--to", &new.url(), "--table", "app.indexed", "--table", "app.parts"]);
        assert_equal(&source, &new, "by_path, tables");
        setup.ok(&["restore", &id, "--to", &new.url(), "--beside", "old", "--table", "app.indexed"]);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_object_whose_function_fails_is_named_and_left_out_only_if_that_is_allowed() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "fails");
        source.psql(
            "CREATE FUNCTION broken(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower($1); END';
             CREATE INDEX broken_index ON users (broken(name));
             ALTER TABLE users ADD CONSTRAINT broken_check CHECK (broken(name) <> '');
             CREATE MATERIALIZED VIEW broken_view AS SELECT broken(name) FROM users;
             CREATE OR REPLACE FUNCTION broken(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN missing($1); END'",
        );
        let id = setup.snapshot(&source, &[]);
        let new = server.reserve_database("fails_new");
        let url = new.url();
        let refused = setup.run(&["restore", &id, "--to", &url, "--create"]).code(1);
        for words in ["broken_index", "broken_check", "broken_view", "--allow-partial"] {
            assert!(refused.stderr().contains(words), "{words}\n{}", refused.transcript());
        }
        assert!(setup.databases_where(&format!("datname = '{}'", new.name)).is_empty());
        let allowed = setup.run(&["restore", &id, "--to", &url, "--create", "--allow-partial", "--json"]).code(3);
        let report = allowed.json();
        let names: Vec<&str> =
            report["left_out"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["public.broken_check", "public.broken_index", "public.broken_view"], "{report}");
        assert!(report["tables"].as_array().unwrap().iter().all(|table| table["ok"] == true));
        assert_eq!(rows(&new, "SELECT count(*) FROM pg_constraint WHERE conname = 'broken_check'"), ["0"]);
        assert_eq!(rows(&new, "SELECT count(*) FROM users"), rows(&source, "SELECT count(*) FROM users"));
        let text = setup.run(&["restore", &id, "--to", &url, "--swap", "--allow-partial", "--yes"]).code(3);
        let words = "the index public.broken_index of public.users was NOT created";
        assert!(text.stdout().contains(words), "{}", text.transcript());
        server.psql("postgres", "");
        for old in setup.databases_where(&format!("datname ~ '^{}_before'", new.name)) {
            server.psql("postgres", format!("DROP DATABASE \"{old}\""));
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn materialized_views_whose_functions_read_others_are_refreshed_after_them() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("views");
        source.psql(
            "CREATE TABLE t (a integer); INSERT INTO t VALUES (1);
             CREATE MATERIALIZED VIEW z AS SELECT * FROM t;
             CREATE FUNCTION fails() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM public.z); END';
             CREATE FUNCTION hides() RETURNS bigint LANGUAGE plpgsql STABLE AS
                 'BEGIN RETURN (SELECT count(*) FROM public.z); EXCEPTION WHEN others THEN RETURN -1; END';
             CREATE MATERIALIZED VIEW a AS SELECT public.fails() AS n;
             CREATE MATERIALIZED VIEW c AS SELECT public.hides() AS n;
             CREATE FUNCTION reads_c() RETURNS bigint LANGUAGE plpgsql STABLE AS
                 'BEGIN RETURN (SELECT n FROM public.c); EXCEPTION WHEN others THEN RETURN -2; END';
             CREATE MATERIALIZED VIEW b AS SELECT public.reads_c() AS n",
        );
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["drill", &id]);
        let new = setup.restore_new(&id, &[]);
        assert_eq!(rows(&new, "SELECT a.n, b.n, c.n FROM a, b, c"), ["1|1|1"]);
        setup.ok(&["restore", &id, "--to", &new.url(), "--replace", "--yes"]);
        assert_eq!(rows(&new, "SELECT a.n, b.n, c.n FROM a, b, c"), ["1|1|1"]);
    });
}

/// A role puts a function into a schema of the search_path, which fits better than the one that a function of the superuser
/// calls.
#[test]
#[ignore = "needs PostgreSQL"]
fn code_of_a_superuser_does_not_call_functions_of_others_that_it_finds_by_search_path() {
    let server = &server(15);
    let setup = Setup::new(server);
    let source = server.create_database("planted");
    let role = format!("planter_{}", source.name.rsplit('_').next().unwrap());
    server.psql("postgres", format!("CREATE ROLE {role}"));
    source.psql(format!(
        "GRANT CREATE ON SCHEMA public TO {role};
         CREATE FUNCTION helper(anyelement) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
         CREATE FUNCTION uses(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN helper(i); END';
         CREATE TABLE t (i integer); INSERT INTO t VALUES (1); CREATE INDEX by_helper ON t (uses(i));
         SET ROLE {role};
         CREATE FUNCTION helper(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
             IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
                 EXECUTE 'ALTER ROLE {role} SUPERUSER';
             END IF; RETURN 1; END$$"
    ));
    let id = setup.snapshot(&source, &[]);
    let drill = setup.run(&["drill", &id]).code(1);
    for words in ["by_helper", &role, "--allow-partial"] {
        assert!(drill.stderr().contains(words), "{words}\n{}", drill.transcript());
    }
    let new = server.reserve_database("planted_new");
    setup.run(&["restore", &id, "--to", &new.url(), "--create", "--allow-partial"]).code(3);
    setup.run(&["restore", &id, "--to", &new.url(), "--swap", "--allow-partial", "--no-owner", "--yes"]).code(3);
    let is_super = format!("SELECT rolsuper::text FROM pg_roles WHERE rolname = '{role}'");
    assert_eq!(server.value("postgres", &is_super), "false");
    for name in setup.databases_where(&format!("datname ~ '^{}' OR datname = '{}'", new.name, source.name)) {
        server.psql("postgres", format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
    }
    server.psql("postgres", format!("DROP ROLE {role}"));
}
