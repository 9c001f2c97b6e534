//! Roles that are not superusers, and unusual names of databases, tables and columns.

use super::helpers::{Setup, definitions_and_oids, rows, shop, text};
use crate::support::compare::{assert_equal_data, data};
use crate::support::postgres::{TestDatabase, each_server, servers, some_server};

#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_without_superuser_rights_can_save_and_restore_its_database() {
    each_server(|server| {
        let setup = Setup::new(server);
        let role = format!("lifeboat_plain_{}_{}", std::process::id(), server.major);
        server.psql("postgres", format!("CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{}'", server.password));
        let source = server.create_database_with("plain", &format!("OWNER {role}"));
        source.psql(format!(
            "SET SESSION AUTHORIZATION {role};
             CREATE TABLE users (id serial PRIMARY KEY, name text);
             CREATE TABLE orders (id serial PRIMARY KEY, user_id integer REFERENCES users) ; CREATE SCHEMA own;
             CREATE TABLE own.parts (id integer PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE own.parts_1 PARTITION OF own.parts FOR VALUES FROM (0) TO (100);
             CREATE FUNCTION own.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER note AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION own.note();
             INSERT INTO users (name) VALUES ('a'), ('b'); INSERT INTO orders (user_id) VALUES (1), (2);
             INSERT INTO own.parts VALUES (1); SELECT lo_from_bytea(0, 'x')"
        ));
        let url = |name: &str| server.url(name).replacen("//postgres:", &format!("//{role}:"), 1);
        let (own, other) = (url(&source.name), server.reserve_database("plain_new"));
        let id = text(&setup.json(&["snapshot", &own])["snapshots"][0]["id"]);
        setup.ok(&["restore", &id, "--to", &url(&other.name), "--create"]);
        assert_equal_data(&source, &other, "restored by its owner");
        let saved = data(&source);
        source.psql("DELETE FROM orders; UPDATE users SET name = 'x'");
        let tables = ["--table", "users", "--table", "orders", "--table", "own.*"];
        let replaced = setup.json(&[&["restore", &id, "--replace", "--to", &own], &tables[..]].concat());
        assert_eq!(data(&source), saved);
        setup.ok(&["restore", replaced["safety_snapshot"].as_str().unwrap(), "--replace", "--to", &own]);
        source.psql("DROP TABLE orders");
        setup.ok(&["restore", &id, "--table", "orders", "--to", &own]);
        setup.ok(&["restore", &id, "--beside", "old", "--to", &own]);
        setup.ok(&["drill", &id]);
        let swapped = setup.json(&["restore", &id, "--swap", "--to", &own]);
        drop(TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) });
        assert_eq!(source.value("SELECT to_regclass('old.users') IS NULL"), "t");
        drop((source, other));
        server.psql("postgres", format!("DROP ROLE {role}"));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_needs_no_owner_if_the_server_lacks_a_role() {
    some_server(|server| {
        let setup = Setup::new(server);
        let role = format!("lifeboat_gone_{}_{}", std::process::id(), server.major);
        let source = shop(server, "without_roles");
        source.psql(format!("CREATE ROLE {role}; ALTER TABLE users OWNER TO {role}; GRANT SELECT ON orders TO {role}"));
        let id = setup.snapshot(&source, &[]);
        source.psql(format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"));
        let run = setup.run(&["drill", &id]).code(1);
        assert!(run.stderr().contains(&role), "{}", run.transcript());
        assert_eq!(setup.json(&["show", &id])["proof"], "none");
        assert_eq!(setup.json(&["drill", &id, "--no-owner"])["ok"], true);
        assert_eq!(setup.json(&["show", &id])["proof"], "drilled");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn databases_with_special_characters_in_their_names_can_be_saved_and_restored() {
    some_server(|server| {
        let setup = Setup::new(server);
        let shop = shop(server, "named");
        let database_with_odd_name = |word: &str| TestDatabase {
            server: server.clone(),
            name: format!("{word} 'q' é/.%?&=@: {}", std::process::id()),
        };
        let (source, new) = (database_with_odd_name("Odd"), database_with_odd_name("New"));
        let quote = |name: &str| name.replace('"', "\"\"");
        server.psql("postgres", format!("CREATE DATABASE \"{}\" TEMPLATE \"{}\"", quote(&source.name), shop.name));
        let id = setup.snapshot(&source, &["--name", "odd"]);
        let created = setup.json(&["restore", &id, "--to", &new.url(), "--create"]);
        assert_equal_data(&source, &new, "created");
        assert_eq!(setup.json(&["diff", &id])["equal"], true);
        setup.ok(&["drill", &id]);
        source.psql("DELETE FROM users");
        let (damaged, schema) = (data(&source), definitions_and_oids(&source));
        let replaced = setup.json(&["restore", &id, "--replace"]);
        assert_equal_data(&new, &source, "replaced");
        setup.paste(&text(&replaced["undo"]));
        assert_eq!((data(&source), definitions_and_oids(&source)), (damaged, schema));
        let swapped = setup.json(&["restore", &id, "--swap"]);
        assert_equal_data(&new, &source, "swapped");
        let old = TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) };
        drop(setup.undo_swap(&swapped));
        assert!(setup.databases_where(&format!("datname = '{}'", old.name.replace('\'', "''"))).is_empty());
        setup.paste(&text(&created["undo"]));
        assert!(setup.databases_where(&format!("datname = '{}'", new.name.replace('\'', "''"))).is_empty());
    });
}

/// The set of names that must be quoted depends on the version of the server. The names in a snapshot do not.
#[test]
#[ignore = "needs PostgreSQL"]
fn tables_named_by_a_keyword_of_a_newer_server_can_be_restored_there() {
    let servers = servers();
    let (old, new) = (&servers[0], &servers[servers.len() - 1]);
    let setup = Setup::new(old);
    let source = old.create_database("keywords");
    source.psql(
        "CREATE SCHEMA json_scalar;
         CREATE TABLE system_user (system_user serial, json_table text, merge_action integer DEFAULT 1);
         CREATE TABLE json_scalar.json_table (id integer, system_user integer) PARTITION BY RANGE (id);
         CREATE TABLE json_scalar.json_query PARTITION OF json_scalar.json_table FOR VALUES FROM (0) TO (10);
         CREATE SEQUENCE json_exists; SELECT nextval('json_exists');
         COMMENT ON COLUMN system_user.json_table IS 'a word'; GRANT SELECT (json_table) ON system_user TO PUBLIC;
         INSERT INTO system_user (json_table) VALUES ('a'), ('b'); INSERT INTO json_scalar.json_table VALUES (1, 1), (2, 2)",
    );
    let id = setup.snapshot(&source, &[]);
    let names = |id: &str| -> Vec<String> {
        let shown = setup.json(&["show", id]);
        shown["tables"].as_array().unwrap().iter().map(|table| text(&table["name"])).collect()
    };
    assert_eq!(names(&id), ["\"json_scalar\".\"json_query\"", "public.\"system_user\""]);
    let restored = new.reserve_database("keywords_new");
    setup.ok(&["restore", &id, "--to", &restored.url(), "--create"]);
    let again = setup.snapshot(&restored, &["--name", "again"]);
    assert_eq!(names(&again), names(&id));
    let difference = setup.json(&["diff", &id, &again]);
    let status = |table: &serde_json::Value| (text(&table["status"]), table["columns_changed"] == true);
    let found: Vec<_> = difference["tables"].as_array().unwrap().iter().map(status).collect();
    assert_eq!(found, [("same".to_owned(), false), ("same".to_owned(), false)], "{difference:#}");
    restored.psql("DELETE FROM public.\"system_user\"; DELETE FROM \"json_scalar\".\"json_query\"");
    let replaced = setup.json(&["restore", &id, "--replace", "--to", &restored.url()]);
    assert_eq!(restored.value("SELECT count(*) FROM public.\"system_user\""), "2");
    setup.paste(&text(&replaced["undo"]));
    assert_eq!(restored.value("SELECT count(*) FROM public.\"system_user\""), "0");
    for name in ["system_user", "public.\"system_user\"", "json_scalar.json_table"] {
        setup.ok(&["restore", &id, "--replace", "--table", name, "--to", &restored.url()]);
    }
    assert_eq!(restored.value("SELECT sum(\"system_user\") FROM \"json_scalar\".\"json_table\""), "3");
    assert_eq!(restored.value("SELECT nextval('public.\"json_exists\"')"), "2");
}

/// Without quotes, such a name in a definition would be a keyword or a syntax error on the newer server.
#[test]
#[ignore = "needs PostgreSQL"]
fn definitions_with_a_keyword_of_a_newer_server_have_the_same_meaning_there() {
    let servers = servers();
    let (old, new) = (&servers[0], &servers[servers.len() - 1]);
    let setup = Setup::new(old);
    let source = old.create_database("meanings");
    source.psql(
        "CREATE TABLE t (id integer, system_user text PRIMARY KEY CHECK (system_user <> ''), json_table integer,
                         twice integer GENERATED ALWAYS AS (json_table * 2) STORED);
         CREATE INDEX by_word ON t (json_table DESC, lower(system_user)) WHERE system_user > 'a';
         CREATE TABLE refers (merge_action text REFERENCES t (system_user));
         CREATE VIEW seen AS SELECT system_user, json_table AS json_scalar FROM t WHERE system_user < 'z';
         CREATE TYPE json_exists AS ENUM ('a'); CREATE TABLE typed (a json_exists DEFAULT 'a', b json_exists[]);
         CREATE FUNCTION json_value(json_array integer, json_query json_exists DEFAULT 'a') RETURNS integer
             LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE uses (id integer DEFAULT json_value(7), CHECK (json_value(id) > 0));
         CREATE TABLE parts (system_user integer, day date) PARTITION BY RANGE (system_user, (json_value(system_user)));
         CREATE TABLE part PARTITION OF parts DEFAULT;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER note BEFORE UPDATE OF system_user ON t FOR EACH ROW WHEN (new.system_user <> old.system_user)
             EXECUTE FUNCTION note();
         CREATE POLICY mine ON t USING (system_user = current_user);
         COMMENT ON COLUMN t.system_user IS 'who'; COMMENT ON FUNCTION json_value IS 'what';
         COMMENT ON CONSTRAINT t_pkey ON t IS 'key'; COMMENT ON TRIGGER note ON t IS 'notes'; COMMENT ON POLICY mine ON t IS 'own';
         INSERT INTO t VALUES (1, 'me', 2), (2, 'you', 3); INSERT INTO refers VALUES ('me'); INSERT INTO typed DEFAULT VALUES;
         INSERT INTO uses DEFAULT VALUES; INSERT INTO parts VALUES (1, '2026-01-01')",
    );
    let id = setup.snapshot(&source, &[]);
    let restored = new.reserve_database("meanings_new");
    setup.ok(&["restore", &id, "--to", &restored.url(), "--create"]);
    let expected = rows(&source, "SELECT * FROM seen ORDER BY 1");
    assert_eq!(expected, ["me|2", "you|3"]);
    assert_eq!(rows(&restored, "SELECT * FROM seen ORDER BY 1"), expected);
    let unquoted = restored.query(
        "SELECT definition FROM (
             SELECT pg_get_viewdef('seen'::regclass) UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint
             UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid >= 16384
             UNION ALL SELECT pg_get_partkeydef('parts'::regclass) UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
             UNION ALL SELECT pg_get_expr(polqual, polrelid) FROM pg_policy) AS d (definition)
          WHERE definition ~ '(^|[^\"])(SYSTEM_USER|system_user)($|[^\"])'",
    );
    assert_eq!(unquoted, Vec::<Vec<String>>::new());
    let count = "SELECT count(*) FROM pg_description WHERE objoid >= 16384";
    assert_eq!(restored.value(count), source.value(count));
    assert_eq!(restored.value("INSERT INTO uses DEFAULT VALUES RETURNING id"), "7");
    setup.ok(&["restore", &id, "--replace", "--table", "t", "--table", "refers", "--to", &restored.url()]);
    // Names that need no quotes are not quoted.
    let plain = shop(old, "plain_names");
    let script = setup.ok(&["extract", &setup.snapshot(&plain, &[]), "--entry", "schema/pre-data.sql"]).stdout();
    assert!(script.contains("CREATE TABLE public.users"), "{script}");
}
