//! As most people have it: a role that is no superuser; and databases with names that nobody should have chosen.

use crate::helpers::{Place, lasting, shop, text};
use crate::support::compare::{assert_equal_data, data};
use crate::support::postgres::{TestDatabase, each_server};

#[test]
fn a_role_that_owns_its_database_can_do_everything() {
    each_server(|server| {
        let place = Place::new(server);
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
        let id = text(&place.json(&["snapshot", &own])["snapshots"][0]["id"]);
        place.ok(&["restore", &id, "--to", &url(&other.name), "--create"]);
        assert_equal_data(&source, &other, "restored by its owner");
        let saved = data(&source);
        source.psql("DELETE FROM orders; UPDATE users SET name = 'x'");
        let tables = ["--table", "users", "--table", "orders", "--table", "own.*"];
        let replaced = place.json(&[&["restore", &id, "--replace", "--to", &own], &tables[..]].concat());
        assert_eq!(data(&source), saved);
        place.ok(&["restore", replaced["safety_snapshot"].as_str().unwrap(), "--replace", "--to", &own]);
        source.psql("DROP TABLE orders");
        place.ok(&["restore", &id, "--table", "orders", "--to", &own]);
        place.ok(&["restore", &id, "--beside", "old", "--to", &own]);
        place.ok(&["drill", &id]);
        let swapped = place.json(&["restore", &id, "--swap", "--to", &own]);
        drop(TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) });
        assert_eq!(source.value("SELECT to_regclass('old.users') IS NULL"), "t");
        drop((source, other));
        server.psql("postgres", format!("DROP ROLE {role}"));
    });
}

#[test]
fn a_drill_goes_without_roles_that_the_server_lacks_where_that_is_asked_for() {
    each_server(|server| {
        let place = Place::new(server);
        let role = format!("lifeboat_gone_{}_{}", std::process::id(), server.major);
        let source = shop(server, "without_roles");
        source.psql(format!("CREATE ROLE {role}; ALTER TABLE users OWNER TO {role}; GRANT SELECT ON orders TO {role}"));
        let id = place.snapshot(&source, &[]);
        source.psql(format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"));
        let run = place.run(&["drill", &id]).code(1);
        assert!(run.stderr().contains(&role), "{}", run.story());
        assert_eq!(place.json(&["show", &id])["proof"], "none");
        assert_eq!(place.json(&["drill", &id, "--no-owner"])["ok"], true);
        assert_eq!(place.json(&["show", &id])["proof"], "drilled");
    });
}

#[test]
fn databases_with_odd_names() {
    each_server(|server| {
        let place = Place::new(server);
        let shop = shop(server, "named");
        let odd = |word: &str| TestDatabase {
            server: server.clone(),
            name: format!("{word} 'q' é/.%?&=@: {}", std::process::id()),
        };
        let (source, new) = (odd("Odd"), odd("New"));
        let quote = |name: &str| name.replace('"', "\"\"");
        server.psql("postgres", format!("CREATE DATABASE \"{}\" TEMPLATE \"{}\"", quote(&source.name), shop.name));
        let id = place.snapshot(&source, &["--name", "odd"]);
        let created = place.json(&["restore", &id, "--to", &new.url(), "--create"]);
        assert_equal_data(&source, &new, "created");
        assert_eq!(place.json(&["diff", &id])["equal"], true);
        place.ok(&["drill", &id]);
        source.psql("DELETE FROM users");
        let (harmed, schema) = (data(&source), lasting(&source));
        let replaced = place.json(&["restore", &id, "--replace"]);
        assert_equal_data(&new, &source, "replaced");
        place.paste(&text(&replaced["undo"]));
        assert_eq!((data(&source), lasting(&source)), (harmed, schema));
        let swapped = place.json(&["restore", &id, "--swap"]);
        assert_equal_data(&new, &source, "swapped");
        let old = TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) };
        place.paste(&text(&swapped["undo"]));
        assert!(place.databases_like(&format!("datname = '{}'", old.name.replace('\'', "''"))).is_empty());
        let undo = text(&swapped["undo"]);
        let kept = undo.split("RENAME TO ").nth(1).unwrap().split(';').next().unwrap();
        drop(TestDatabase { server: server.clone(), name: kept.to_owned() });
        place.paste(&text(&created["undo"]));
        assert!(place.databases_like(&format!("datname = '{}'", new.name.replace('\'', "''"))).is_empty());
    });
}
