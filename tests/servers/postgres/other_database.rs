//! Tables of a snapshot in another database than the one that they come from.

use super::helpers::{Setup, rows};
use crate::support::postgres::some_server;

#[test]
#[ignore = "needs PostgreSQL"]
fn a_table_is_restored_to_a_database_that_lacks_what_it_needs() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("here");
        source.psql(
            "CREATE SCHEMA shop; CREATE SCHEMA helpers; CREATE TYPE shop.state AS ENUM ('new', 'paid');
             CREATE FUNCTION helpers.slug(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(t)';
             CREATE DOMAIN shop.name AS text CHECK (helpers.slug(VALUE) <> '');
             CREATE TABLE shop.customers (id integer PRIMARY KEY);
             CREATE TABLE shop.orders (id serial PRIMARY KEY, customer integer REFERENCES shop.customers, state shop.state,
                 name shop.name, slug text GENERATED ALWAYS AS (helpers.slug(name)) STORED);
             CREATE FUNCTION helpers.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER touch BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION helpers.touch();
             INSERT INTO shop.customers VALUES (1); INSERT INTO shop.orders (customer, state, name) VALUES (1, 'paid', 'A'), (1, 'new', 'B')",
        );
        let id = setup.snapshot(&source, &[]);
        let other = server.create_database("there");
        other.psql("CREATE TABLE mine (id integer); INSERT INTO mine VALUES (7)");
        let report = setup.json(&["restore", &id, "--to", &other.url(), "--table", "shop.orders"]);
        assert_eq!(report["mode"], "tables");
        assert_eq!(report["left_out"][0]["kind"], "foreign key");
        assert!(report["left_out"][0]["reason"].as_str().unwrap().contains("shop.customers"), "{report}");
        for needed in ["schema shop", "type shop.state", "function helpers.slug", "domain shop.name"] {
            assert!(report["notes"].to_string().contains(needed), "{needed}: {report}");
        }
        let orders = "SELECT id, customer, state, slug FROM shop.orders ORDER BY id";
        assert_eq!(rows(&other, orders), rows(&source, orders));
        assert_eq!(other.value("SELECT nextval('shop.orders_id_seq')"), "3");
        // The objects that it needs are there by now.
        other.psql("DROP TABLE shop.orders");
        setup.ok(&["restore", &id, "--to", &other.url(), "--table", "shop.orders", "--table", "shop.customers"]);
        assert_eq!(rows(&other, orders), rows(&source, orders));
        assert_eq!(rows(&other, "SELECT id FROM mine"), ["7"]);
    });
}
