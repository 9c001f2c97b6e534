//! What a server has that the code does not know: options that users can set, options that the server keeps for itself,
//! and columns of the catalogs. A minor release may bring any of them. Whoever sees this fail decides whether a snapshot
//! must carry what is new, and then adds it to the list: `catalog::options`, or `tests/data/postgres/catalog_columns.txt`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lifeboat::engine::postgres::schema::options::{Holder, SERVERS_OWN, known};

use super::helpers::rows;
use crate::support::postgres::{Server, TestDatabase, each_server, servers};

/// Statements that set an option, each with the kind of object that has it. They stand in a `format`.
const SETTING: [(&str, Holder); 10] = [
    ("ALTER TABLE probe SET (%I)", Holder::Table),
    ("ALTER VIEW probe_view SET (%I)", Holder::View),
    ("ALTER TABLE probe ALTER a SET (%I)", Holder::Column),
    ("ALTER INDEX probe_btree SET (%I)", Holder::Index),
    ("ALTER INDEX probe_hash SET (%I)", Holder::Index),
    ("ALTER INDEX probe_gin SET (%I)", Holder::Index),
    ("ALTER INDEX probe_gist SET (%I)", Holder::Index),
    ("ALTER INDEX probe_spgist SET (%I)", Holder::Index),
    ("ALTER INDEX probe_brin SET (%I)", Holder::Index),
    ("ALTER TABLESPACE pg_default SET (%I)", Holder::Tablespace),
];

#[test]
#[ignore = "needs PostgreSQL"]
fn servers_have_no_option_that_is_not_known() {
    each_server(|server| {
        let database = probe(server);
        let candidates = words_of(&server.bin.join("postgres"));
        let mut news = Vec::new();
        for holder in Holder::ALL {
            let known: BTreeSet<String> = known(holder, server.major).map(str::to_owned).collect();
            let statements: Vec<&str> =
                SETTING.iter().filter(|(_, of)| *of == holder).map(|(statement, _)| *statement).collect();
            let settable: BTreeSet<String> = settable(&database, &statements, &candidates);
            let new = settable.difference(&known).filter(|name| !SERVERS_OWN.contains(&name.as_str()));
            news.extend(new.map(|name| format!("{holder:?} has the new option {name}")));
            news.extend(known.difference(&settable).map(|name| format!("{holder:?} does not have the option {name}")));
        }
        let kept = "SELECT DISTINCT o.option_name FROM (SELECT attoptions FROM pg_attribute UNION ALL SELECT reloptions FROM
                    pg_class UNION ALL SELECT spcoptions FROM pg_tablespace) AS all_options (list), pg_options_to_table(list) o";
        let is_known = |name: &String| {
            SERVERS_OWN.contains(&name.as_str())
                || Holder::ALL.iter().any(|holder| known(*holder, server.major).any(|known| known == name))
        };
        let kept = rows(&database, kept).into_iter().filter(|name| !is_known(name));
        news.extend(kept.map(|name| format!("the server keeps the option {name} for itself")));
        assert!(news.is_empty(), "new in PostgreSQL {}: {}", server.version, news.join(", "));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn servers_have_no_catalog_column_that_is_not_known() {
    let text = std::fs::read_to_string(list()).unwrap();
    each_server(|server| {
        let known: BTreeSet<String> = text.lines().filter_map(|line| column_of(line, server.major)).collect();
        let found = columns(server);
        let new = found.difference(&known).map(|name| format!("{name} is new"));
        let gone = known.difference(&found).map(|name| format!("{name} is gone"));
        let news: Vec<String> = new.chain(gone).collect();
        assert!(news.is_empty(), "new in the catalogs of PostgreSQL {}: {}", server.version, news.join(", "));
    });
}

/// Writes the list of columns anew from the servers at hand; what has changed is then seen in the diff.
#[test]
#[ignore = "writes tests/data/postgres/catalog_columns.txt; see its first lines"]
fn generate_list_of_catalog_columns() {
    let all = servers();
    let found: Vec<(u32, BTreeSet<String>)> = all.iter().map(|server| (server.major, columns(server))).collect();
    let names: BTreeSet<&String> = found.iter().flat_map(|(_, columns)| columns).collect();
    let mut text = String::from(
        "# The columns of PostgreSQL's catalogs, with the majors that have them. To write it anew from servers of all majors:\n\
         #   scripts/servers run 13 14 15 16 17 18 -- cargo test --test servers -- --ignored generate_list_of_catalog_columns\n",
    );
    for name in names {
        let majors: Vec<String> =
            found.iter().filter(|(_, columns)| columns.contains(name)).map(|(major, _)| major.to_string()).collect();
        writeln!(text, "{name} {}", majors.join(" ")).unwrap();
    }
    std::fs::write(list(), text).unwrap();
}

fn list() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/postgres/catalog_columns.txt")
}

/// The column in a line of the list, if this major has it.
fn column_of(line: &str, major: u32) -> Option<String> {
    let (name, majors) = line.split_once(' ').filter(|_| !line.starts_with('#'))?;
    majors.split(' ').any(|listed| listed == major.to_string()).then(|| name.to_owned())
}

/// The columns of the catalogs that a server has, as `catalog.column`.
fn columns(server: &Server) -> BTreeSet<String> {
    let found = server.query(
        "postgres",
        "SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND c.oid < 16384 AND a.attnum > 0",
    );
    found.into_iter().flatten().collect()
}

/// A database with one object of each kind that has options.
fn probe(server: &Server) -> TestDatabase {
    let database = server.create_database("probe");
    database.psql(
        "CREATE TABLE probe (a integer, b int4range, c integer[]);
         CREATE VIEW probe_view AS SELECT a FROM probe;
         CREATE INDEX probe_btree ON probe USING btree (a);
         CREATE INDEX probe_hash ON probe USING hash (a);
         CREATE INDEX probe_gin ON probe USING gin (c);
         CREATE INDEX probe_gist ON probe USING gist (b);
         CREATE INDEX probe_spgist ON probe USING spgist (b);
         CREATE INDEX probe_brin ON probe USING brin (a);",
    );
    database
}

/// The names among the candidates that one of the statements takes for options. Nothing is set.
fn settable(database: &TestDatabase, statements: &[&str], candidates: &BTreeSet<String>) -> BTreeSet<String> {
    let array = |texts: &mut dyn Iterator<Item = &str>| {
        let quoted: Vec<String> = texts.map(|text| format!("'{text}'")).collect();
        format!("ARRAY[{}]", quoted.join(","))
    };
    let script = format!(
        "SET client_min_messages = error;
         CREATE TEMPORARY TABLE found (name text);
         DO $$
         DECLARE statement text; name text; names text[] := '{{}}';
         BEGIN
             FOREACH statement IN ARRAY {} LOOP
                 FOREACH name IN ARRAY {} LOOP
                     BEGIN
                         EXECUTE format(statement, name);
                         RAISE EXCEPTION 'taken back';
                     EXCEPTION WHEN others THEN
                         IF SQLERRM NOT LIKE 'unrecognized parameter \"%' THEN names := names || name; END IF;
                     END;
                 END LOOP;
             END LOOP;
             INSERT INTO found SELECT DISTINCT unnest(names);
         END $$;
         \\pset tuples_only on
         \\pset format unaligned
         SELECT f.name FROM found f;",
        array(&mut statements.iter().copied()),
        array(&mut candidates.iter().map(String::as_str)),
    );
    database.psql(script).lines().map(str::to_owned).collect()
}

/// The strings in a program that could be names of options.
fn words_of(program: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(program).unwrap();
    let is_name = |text: &&[u8]| {
        (4..=63).contains(&text.len())
            && text[0].is_ascii_lowercase()
            && text.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_')
    };
    let mut words = BTreeSet::new();
    for text in bytes.split(|byte| *byte == 0).filter(is_name) {
        let mut word = std::str::from_utf8(text).unwrap();
        words.insert(word.to_owned());
        // A linker keeps a string that another one ends with only there: `parallel_workers` in `max_parallel_workers`.
        while let Some((_, end)) = word.split_once('_') {
            word = end;
            words.insert(word.to_owned());
        }
    }
    words.retain(|word| word.len() > 3);
    words
}
