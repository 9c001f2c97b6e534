//! Whether one database holds what another one does, as pg_dump tells them.

use std::collections::BTreeMap;

use super::postgres::{SchemaDifferences, TestDatabase, schema_differences};

/// How the schema of one database differs from that of another, as pg_dump tells them; secrets aside.
#[track_caller]
pub fn differences(source: &TestDatabase, target: &TestDatabase) -> SchemaDifferences {
    schema_differences(&as_restored(&dump(source)), &dump(target))
}

/// What pg_dump says of the schema, the database's own settings, and the large objects (not of their contents). In
/// which tablespace something is is noted, not restored.
#[track_caller]
pub fn dump(database: &TestDatabase) -> String {
    let varies = ["\\restrict ", "\\unrestrict ", "-- Dumped from ", "-- Dumped by "];
    let dump = database.pg_dump(&["--schema-only", "--create", "--blobs", "--no-tablespaces"]);
    let mut lines: Vec<&str> =
        dump.lines().filter(|line| !varies.iter().any(|start| line.starts_with(start))).collect();
    // It tells the settings of roles as they happen to lie in a catalog that all databases share.
    let role =
        |line: &str| line.starts_with("ALTER ROLE ").then(|| line.split(" IN DATABASE ").next().unwrap().to_owned());
    for group in lines.chunk_by_mut(|a, b| role(a).is_some() && role(b).is_some()) {
        group.sort_by_key(|line| role(line));
    }
    (lines.join("\n") + "\n").replace(&database.name, "a_database")
}

/// A dump of the source without what is left out on purpose: secrets, and the slots of subscriptions, which the
/// source goes on using.
pub fn as_restored(dump: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in dump.lines() {
        if line.trim_start().starts_with("password 'a secret") {
            // It is the last option.
            if let Some(before) = lines.last_mut().filter(|before| before.ends_with(',')) {
                before.pop();
            }
            continue;
        }
        let mut line = line.to_owned();
        if line.starts_with("CREATE SUBSCRIPTION ") {
            for secret in [" password=''a secret of the publisher''", " password=x"] {
                line = line.replace(secret, "");
            }
            if let Some(start) = line.find("slot_name = '") {
                let value = start + "slot_name = ".len();
                let end = value + 1 + line[value + 1..].find('\'').unwrap();
                line.replace_range(value..=end, "NONE");
            }
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// The rows of every table in sorted order, by the COPY that loads them, and all other statements that load data
/// (sequences' values) under the name ``; large objects are left to [`large_objects`].
#[track_caller]
pub fn data(database: &TestDatabase) -> BTreeMap<String, Vec<String>> {
    let dump = database.pg_dump(&["--data-only", "--no-blobs"]);
    let mut data: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table: Option<String> = None;
    // Not `lines`, which would drop the carriage returns at the ends of rows.
    for line in dump.split('\n') {
        match &table {
            Some(_) if line == "\\." => table = None,
            Some(name) => data.entry(name.clone()).or_default().push(line.to_owned()),
            None if line.starts_with("SELECT pg_catalog.setval") => {
                data.entry(String::new()).or_default().push(line.to_owned());
            }
            None => {}
        }
        if table.is_none() && line.ends_with(" FROM stdin;") {
            // A name with a line's end in it stands on several lines; its last one will do.
            table = Some(line.to_owned());
            data.entry(line.to_owned()).or_default();
        }
    }
    data.values_mut().for_each(|rows| rows.sort());
    data
}

/// Content, owner and privileges of every large object.
#[track_caller]
pub fn large_objects(database: &TestDatabase) -> Vec<Vec<String>> {
    database.query(
        "SELECT oid, md5(lo_get(oid)), length(lo_get(oid)), lomowner::regrole, lomacl
           FROM pg_largeobject_metadata ORDER BY oid",
    )
}

/// Requires that the second database holds what the first one does: definitions, rows, large objects.
#[track_caller]
pub fn assert_equal(source: &TestDatabase, found: &TestDatabase, what: &str) {
    let schema = differences(source, found);
    assert!(schema.is_empty(), "{what}: the schemas differ\n{schema}");
    assert_equal_data(source, found, what);
}

/// Requires the same rows, sequences and large objects.
#[track_caller]
pub fn assert_equal_data(source: &TestDatabase, found: &TestDatabase, what: &str) {
    let (expected, got) = (data(source), data(found));
    let names = |data: &BTreeMap<String, Vec<String>>| data.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&expected), "{what}: tables");
    for (name, rows) in &expected {
        let first = rows.iter().zip(&got[name]).find(|(a, b)| a != b);
        assert!(
            first.is_none() && rows.len() == got[name].len(),
            "{what}: {name}\n{} rows, {} expected; the first difference: {first:?}",
            got[name].len(),
            rows.len()
        );
    }
    assert_eq!(large_objects(found), large_objects(source), "{what}: large objects");
}
