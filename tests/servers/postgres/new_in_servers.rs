//! Finds what is new in a server: options that users can set, internal options of the server, and columns of the
//! catalogs. A minor release may add any of them. If a test here fails, decide whether a snapshot must include what is
//! new, and then add it to the list: `schema::options`, `schema::newer`, or `src/engine/postgres/schema/catalog_columns.txt`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lifeboat::engine::postgres::schema::options::{INTERNAL_OPTIONS, ObjectKind, known};

use super::helpers::rows;
use crate::support::postgres::{Server, TestDatabase, each_server, servers};

/// Statements that set an option, each with the kind of object that has it. `format` of SQL inserts the option's name.
const STATEMENTS: [(&str, ObjectKind); 10] = [
    ("ALTER TABLE probe SET (%I)", ObjectKind::Table),
    ("ALTER VIEW probe_view SET (%I)", ObjectKind::View),
    ("ALTER TABLE probe ALTER a SET (%I)", ObjectKind::Column),
    ("ALTER INDEX probe_btree SET (%I)", ObjectKind::Index),
    ("ALTER INDEX probe_hash SET (%I)", ObjectKind::Index),
    ("ALTER INDEX probe_gin SET (%I)", ObjectKind::Index),
    ("ALTER INDEX probe_gist SET (%I)", ObjectKind::Index),
    ("ALTER INDEX probe_spgist SET (%I)", ObjectKind::Index),
    ("ALTER INDEX probe_brin SET (%I)", ObjectKind::Index),
    ("ALTER TABLESPACE pg_default SET (%I)", ObjectKind::Tablespace),
];

#[test]
#[ignore = "needs PostgreSQL"]
fn servers_have_no_option_that_is_not_known() {
    each_server(|server| {
        let database = create_probes(server);
        let candidates = possible_option_names(&server.bin.join("postgres"));
        let mut changes = Vec::new();
        for kind in ObjectKind::ALL {
            let known: BTreeSet<String> = known(kind, server.major).map(str::to_owned).collect();
            let statements: Vec<&str> =
                STATEMENTS.iter().filter(|(_, of)| *of == kind).map(|(statement, _)| *statement).collect();
            let settable: BTreeSet<String> = settable(&database, &statements, &candidates);
            let new = settable.difference(&known).filter(|name| !INTERNAL_OPTIONS.contains(&name.as_str()));
            changes.extend(new.map(|name| format!("{kind:?} has the new option {name}")));
            let gone = known.difference(&settable);
            changes.extend(gone.map(|name| format!("{kind:?} does not have the option {name}")));
        }
        let sql = "SELECT DISTINCT o.option_name FROM (SELECT attoptions FROM pg_attribute UNION ALL SELECT reloptions FROM
                    pg_class UNION ALL SELECT spcoptions FROM pg_tablespace) AS all_options (list), pg_options_to_table(list) o";
        let is_known = |name: &String| {
            INTERNAL_OPTIONS.contains(&name.as_str())
                || ObjectKind::ALL.iter().any(|kind| known(*kind, server.major).any(|known| known == name))
        };
        let internal = rows(&database, sql).into_iter().filter(|name| !is_known(name));
        changes.extend(internal.map(|name| format!("the server has the internal option {name}")));
        assert!(changes.is_empty(), "new in PostgreSQL {}: {}", server.version, changes.join(", "));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn servers_have_no_catalog_column_that_is_not_known() {
    let text = std::fs::read_to_string(list_path()).unwrap();
    each_server(|server| {
        let known: BTreeSet<String> = text.lines().filter_map(|line| column_of(line, server.major)).collect();
        let found = columns(server);
        let new = found.difference(&known).map(|name| format!("{name} is new"));
        let gone = known.difference(&found).map(|name| format!("{name} is gone"));
        let changes: Vec<String> = new.chain(gone).collect();
        assert!(changes.is_empty(), "new in the catalogs of PostgreSQL {}: {}", server.version, changes.join(", "));
    });
}

/// Writes the list of columns again from the running servers. The changes are then visible in `git diff`.
#[test]
#[ignore = "writes src/engine/postgres/schema/catalog_columns.txt; see its first lines"]
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
    std::fs::write(list_path(), text).unwrap();
}

fn list_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/postgres/schema/catalog_columns.txt")
}

/// Returns the column in a line of the list, if this major version has it.
fn column_of(line: &str, major: u32) -> Option<String> {
    let (name, majors) = line.split_once(' ').filter(|_| !line.starts_with('#'))?;
    majors.split(' ').any(|listed| listed == major.to_string()).then(|| name.to_owned())
}

/// Returns the columns of the catalogs of a server, as `catalog.column`.
fn columns(server: &Server) -> BTreeSet<String> {
    let found = server.query(
        "postgres",
        "SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND c.oid < 16384 AND a.attnum > 0",
    );
    found.into_iter().flatten().collect()
}

/// Creates a database with one object of each kind that has options.
fn create_probes(server: &Server) -> TestDatabase {
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

/// Returns the candidates that one of the statements accepts as options. Each statement is rolled back.
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

/// Returns the strings in a program that could be names of options.
fn possible_option_names(program: &Path) -> BTreeSet<String> {
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
        // A linker stores a string that is the end of another string only once: `parallel_workers` is found only as the
        // end of `max_parallel_workers`.
        while let Some((_, end)) = word.split_once('_') {
            word = end;
            words.insert(word.to_owned());
        }
    }
    words.retain(|word| word.len() > 3);
    words
}
