//! Archives of every released format version can be restored on every server version.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::helpers::{Setup, rows, shop};
use crate::support::postgres::{TestDatabase, each_server, servers};
use crate::support::{copy_folder, samples};

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/postgres")
}

/// The queries whose results must be the same after a restore of the sample.
const QUERIES: &[&str] = &[
    "SELECT u::text FROM users u ORDER BY id",
    "SELECT o::text FROM orders o ORDER BY id",
    "SELECT n::text FROM \"Odd \"\"name\"\"\" n ORDER BY \"a b\"",
    "SELECT p.tableoid::regclass || p::text FROM parts p ORDER BY id",
    "SELECT t::text FROM totals t ORDER BY user_id",
    "SELECT n::text FROM names n ORDER BY id",
    "SELECT nextval('users_id_seq'), nextval('orders_id_seq')",
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN ('p', 'u', 'f', 'c') AND connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text, conname",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname",
    "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname",
    "SELECT encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata ORDER BY 1",
    "SELECT has_table_privilege('lifeboat_reader', 'users', 'SELECT'), has_table_privilege('lifeboat_reader', 'totals', 'SELECT'),
            has_column_privilege('lifeboat_writer', 'users', 'note', 'UPDATE WITH GRANT OPTION'),
            has_table_privilege('lifeboat_reader', 'orders', 'SELECT')",
];

fn query_results(database: &TestDatabase) -> Map<String, Value> {
    QUERIES.iter().map(|query| ((*query).to_owned(), json!(rows(database, query)))).collect()
}

/// Creates `tests/data/v1/postgres`; see `tests/data/README.md`. It uses the oldest server, because newer servers must
/// be able to restore the sample.
#[test]
#[ignore = "writes tests/data/v1/postgres, once"]
fn generate_sample() {
    assert!(!sample().exists(), "{} exists already, and samples are never changed", sample().display());
    let server = servers()[0].clone();
    assert_eq!(server.major, 13);
    let setup = Setup::new(&server);
    let source = shop(&server, "sample");
    source.psql(
        "CREATE TABLE parts (id integer PRIMARY KEY, at date, what text CHECK (what <> '')) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
         INSERT INTO parts VALUES (1, '0044-03-15 BC', 'one'), (100, 'infinity', E'tab\\there'), (101, NULL, NULL);
         SELECT lo_from_bytea(0, '\\x00ff10');",
    );
    let document = setup.json(&["snapshot", &source.url(), "--name", "shop", "--host", "example", "--tag", "sample"]);
    copy_folder(&setup.sandbox.path("backups"), &sample());
    let expected = json!({"id": document["snapshots"][0]["id"], "seen": query_results(&source)});
    fs::write(sample().with_extension("json"), serde_json::to_vec_pretty(&expected).unwrap()).unwrap();
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_sample_of_format_1_can_be_restored_on_every_server() {
    let expected: Value = serde_json::from_slice(&fs::read(sample().with_extension("json")).unwrap()).unwrap();
    let id = expected["id"].as_str().unwrap();
    each_server(|server| {
        samples::create_roles(server);
        let setup = Setup::new(server);
        copy_folder(&sample(), &setup.sandbox.path("backups"));
        assert_eq!(setup.json(&["list"])["snapshots"][0]["id"], id);
        assert_eq!(setup.json(&["verify", id])["ok"], true);
        let new = setup.restore_new(id, &[]);
        let found = query_results(&new);
        for (query, rows) in expected["seen"].as_object().unwrap() {
            assert_eq!(&found[query], rows, "PostgreSQL {}: {query}", server.version);
        }
        new.psql("UPDATE users SET note = 'changed'; DELETE FROM parts");
        let tables = ["--table", "public.users", "--table", "public.orders", "--table", "public.parts*"];
        setup.ok(&[&["restore", id, "--replace", "--to", &new.url()], &tables[..]].concat());
        let query = QUERIES[0];
        assert_eq!(json!(rows(&new, query)), expected["seen"][query]);
        assert_eq!(setup.json(&["drill", id, "--to", &server.url("postgres")])["ok"], true);
    });
}
