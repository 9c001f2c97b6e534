//! Stored generated columns: their values are not in the archive, but they are part of what is compared.

use serde_json::json;

use super::helpers::{Setup, rows};
use crate::support::postgres::{TestDatabase, oldest_and_newest, some_server};

/// The functions read tables that are loaded after the tables whose columns they compute, a setting of the database, and the
/// time zone of the session.
const TABLES: &str = "
    CREATE TABLE zz_rate (currency text PRIMARY KEY, rate numeric);
    INSERT INTO zz_rate VALUES ('eur', 2);
    CREATE FUNCTION rate(c text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN RETURN (SELECT rate FROM public.zz_rate WHERE currency = c); END';
    CREATE TABLE z_doubled (id integer PRIMARY KEY, currency text, n numeric GENERATED ALWAYS AS (public.rate(currency) * 2) STORED);
    INSERT INTO z_doubled SELECT i, 'eur' FROM generate_series(1, 20) AS i;
    CREATE FUNCTION doubled(i integer) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN RETURN (SELECT n FROM public.z_doubled WHERE id = i); END';
    CREATE TABLE invoice (id integer, note text, total numeric GENERATED ALWAYS AS (public.doubled(id % 20 + 1) + id) STORED,
        word text, constant numeric GENERATED ALWAYS AS (public.rate('eur')) STORED, long text);
    INSERT INTO invoice (id, note, word, long) SELECT i, E'tab\\t' || i, 'line' || E'\\n', repeat('x', 200) FROM generate_series(1, 200) AS i;
    CREATE FUNCTION local_time(t timestamptz) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN t::text; END';
    CREATE FUNCTION factor() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
        $$BEGIN RETURN current_setting('shop.factor')::integer; END$$;
    CREATE TABLE settings (at timestamptz, local text GENERATED ALWAYS AS (public.local_time(at)) STORED,
        f integer GENERATED ALWAYS AS (public.factor()) STORED);
    CREATE TABLE only_generated (one integer GENERATED ALWAYS AS (1) STORED);
    INSERT INTO only_generated DEFAULT VALUES; INSERT INTO only_generated DEFAULT VALUES;
";

fn database(setup: &Setup) -> TestDatabase {
    let source = setup.server.create_database("generated");
    let name = &source.name;
    source.psql(format!(
        "ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'; ALTER DATABASE {name} SET shop.factor = '7';
         SET timezone = 'Asia/Tokyo'; SET shop.factor = '7'; {TABLES}"
    ));
    source.psql("INSERT INTO settings VALUES ('2026-01-01 12:00+00'), (NULL)");
    if setup.server.major >= 18 {
        source.psql("CREATE TABLE computed (a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL); INSERT INTO computed VALUES (1)");
    }
    source
}

/// Returns the values of all generated columns.
fn values(database: &TestDatabase) -> Vec<String> {
    let mut found = rows(database, "SELECT id, total, constant, note, word FROM invoice ORDER BY id");
    found.extend(rows(database, "SELECT id, n FROM z_doubled ORDER BY id"));
    found.extend(rows(database, "SELECT local, f, count(*) FROM settings, only_generated GROUP BY 1, 2 ORDER BY 1"));
    found
}

#[test]
#[ignore = "needs PostgreSQL"]
fn generated_columns_come_back_although_their_functions_read_tables_that_are_loaded_later() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = database(&setup);
        let expected = values(&source);
        assert!(expected.contains(&"1|5|2|tab\t1|line\n".to_owned()), "{expected:?}");
        let id = setup.snapshot(&source, &[]);
        let tables = setup.json(&["show", &id])["tables"].clone();
        let invoice = tables.as_array().unwrap().iter().find(|table| table["name"] == "public.invoice").unwrap();
        assert_eq!(invoice["with_generated"]["columns"], json!(["total", "constant"]));
        let computed = tables.as_array().unwrap().iter().find(|table| table["name"] == "public.computed");
        assert!(computed.is_none_or(|table| table["with_generated"].is_null()));

        setup.ok(&["drill", &id, "-j", "1"]);
        let new = setup.restore_new(&id, &["-j", "1"]);
        assert_eq!(values(&new), expected);
        assert_eq!(setup.json(&["diff", &id, &new.url()])["equal"], true);
        new.psql("UPDATE zz_rate SET rate = 3; UPDATE invoice SET id = id; DELETE FROM z_doubled WHERE id > 10");
        setup.ok(&["restore", &id, "--to", &new.url(), "--replace", "--yes"]);
        assert_eq!(values(&new), expected);
        setup.ok(&["restore", &id, "--to", &new.url(), "--beside", "old", "--table", "settings"]);
        new.psql("DROP TABLE invoice, z_doubled");
        setup.ok(&["restore", &id, "--to", &new.url(), "--table", "invoice", "--table", "z_doubled"]);
        assert_eq!(values(&new), expected);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_fails_where_the_server_computes_other_values_and_names_table_and_column() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("other_values");
        source.psql(
            "CREATE FUNCTION f(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
             CREATE TABLE t (i integer, g integer GENERATED ALWAYS AS (public.f(i)) STORED);
             INSERT INTO t VALUES (1), (2); CREATE TABLE u (i integer); INSERT INTO u VALUES (1);
             CREATE OR REPLACE FUNCTION f(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i * 3'",
        );
        let id = setup.snapshot(&source, &[]);
        let drill = setup.run(&["drill", &id]).code(3);
        assert!(drill.stdout().contains("the generated column g of the table public.t"), "{}", drill.transcript());
        assert_eq!(setup.json(&["show", &id])["proof"], "none", "this is no damage");
        let new = server.reserve_database("other_values_new");
        let url = new.url();
        let refused = setup.run(&["restore", &id, "--to", &url, "--create"]).code(3);
        for words in ["the generated column g of the table public.t", "--allow-partial"] {
            assert!(refused.stderr().contains(words), "{}", refused.transcript());
        }
        assert!(setup.databases_where(&format!("datname = '{}'", new.name)).is_empty());
        let allowed = setup.run(&["restore", &id, "--to", &url, "--create", "--allow-partial", "--json"]).code(3);
        let report = allowed.json();
        assert_eq!(report["is_incomplete"], true);
        assert_eq!(report["left_out"][0]["table"], "public.t");
        let of = |name: &str| {
            report["tables"].as_array().unwrap().iter().find(|table| table["name"] == name).unwrap().clone()
        };
        assert_eq!((&of("public.t")["ok"], &of("public.u")["ok"]), (&json!(false), &json!(true)));
        assert_eq!(rows(&new, "SELECT i, g FROM t ORDER BY i"), ["1|3", "2|6"]);
        // The rows are the same, but not the generated values.
        let diff = setup.run(&["diff", &id, &url, "--json"]).json();
        assert_eq!(diff["equal"], false);
    });
}

/// The values come from functions of the server alone, so they are not computed again before the comparison.
#[test]
#[ignore = "needs PostgreSQL"]
fn other_values_of_the_server_itself_can_be_accepted() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("other_words");
        source.psql(
            "CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
             CREATE TABLE t (i text, g tsvector GENERATED ALWAYS AS (to_tsvector('public.words'::regconfig, i)) STORED);
             INSERT INTO t VALUES ('running'), ('dogs'); CREATE TABLE u (i integer); INSERT INTO u VALUES (1);
             ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH english_stem",
        );
        let id = setup.snapshot(&source, &[]);
        let drill = setup.run(&["drill", &id]).code(3);
        assert!(drill.stdout().contains("the generated column g of the table public.t"), "{}", drill.transcript());
        let new = server.reserve_database("other_words_new");
        let url = new.url();
        let refused = setup.run(&["restore", &id, "--to", &url, "--create"]).code(3);
        assert!(refused.stderr().contains("--allow-partial"), "{}", refused.transcript());
        let ways: [&[&str]; 4] = [&["--create"], &["--replace", "--yes"], &["--swap", "--yes"], &["--table", "t"]];
        for way in ways {
            if way[0] == "--table" {
                new.psql("DROP TABLE t");
            }
            let restore = [&["restore", &id, "--to", &url, "--allow-partial", "--json"], way].concat();
            let report = setup.run(&restore).code(3).json();
            assert_eq!(report["is_incomplete"], true, "{way:?}: {report}");
            assert_eq!(report["left_out"][0]["kind"], "generated values", "{way:?}: {report}");
            assert_eq!(report["left_out"][0]["table"], "public.t", "{way:?}: {report}");
            assert_eq!(rows(&new, "SELECT i, g FROM t ORDER BY i"), ["dogs|'dog':1", "running|'run':1"], "{way:?}");
            if way[0] == "--swap" {
                drop(setup.undo_swap(&report));
            }
        }
        new.psql("CREATE TABLE other (i integer)");
        setup.ok(&["restore", &id, "--to", &url, "--beside", "old", "--table", "t"]);
    });
}
