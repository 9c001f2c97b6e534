//! Compares two databases by their dumps.

use std::collections::BTreeMap;

use super::postgres::{SchemaDifferences, TestDatabase, schema_differences};

/// Returns the differences between the schemas of two databases in their dumps, except for secrets.
#[track_caller]
pub fn differences(source: &TestDatabase, target: &TestDatabase) -> SchemaDifferences {
    schema_differences(&as_restored(&dump(source)), &dump(target))
}

/// Dumps the schema, the settings of the database, and the definitions of the large objects. Tablespaces are left out,
/// because a restore does not set them.
#[track_caller]
pub fn dump(database: &TestDatabase) -> String {
    let varying = ["\\restrict ", "\\unrestrict ", "-- Dumped from ", "-- Dumped by "];
    let dump = database.pg_dump(&["--schema-only", "--create", "--blobs", "--no-tablespaces"]);
    let mut lines: Vec<&str> =
        dump.lines().filter(|line| !varying.iter().any(|start| line.starts_with(start))).collect();
    // pg_dump prints the settings of roles in the order of a catalog that all databases share. They are sorted here.
    let role =
        |line: &str| line.starts_with("ALTER ROLE ").then(|| line.split(" IN DATABASE ").next().unwrap().to_owned());
    for group in lines.chunk_by_mut(|a, b| role(a).is_some() && role(b).is_some()) {
        group.sort_by_key(|line| role(line));
    }
    (lines.join("\n") + "\n").replace(&database.name, "a_database")
}

/// Removes from a dump of the source what a restore leaves out: secrets, and the slots of subscriptions, which the
/// source continues to use.
pub fn as_restored(dump: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in dump.lines() {
        if line.trim_start().starts_with("password 'a secret") {
            // The password is the last option, so the line before ends with a comma that is removed too.
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

/// Returns the sorted rows of every table under the COPY statement that loads them, and the statements that set
/// sequences under the empty name. Large objects are not included; see [`large_objects`].
#[track_caller]
pub fn data(database: &TestDatabase) -> BTreeMap<String, Vec<String>> {
    let dump = database.pg_dump(&["--data-only", "--no-blobs"]);
    let mut data: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table: Option<String> = None;
    // `lines` would remove the carriage returns at the ends of rows.
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
            // A table name with a line break is on several lines, of which the last one serves as the key.
            table = Some(line.to_owned());
            data.entry(line.to_owned()).or_default();
        }
    }
    data.values_mut().for_each(|rows| rows.sort());
    data
}

/// Returns the hash, length, owner and privileges of every large object.
#[track_caller]
pub fn large_objects(database: &TestDatabase) -> Vec<Vec<String>> {
    database.query(
        "SELECT oid, md5(lo_get(oid)), length(lo_get(oid)), lomowner::regrole, lomacl
           FROM pg_largeobject_metadata ORDER BY oid",
    )
}

/// Requires that two databases have the same definitions, rows and large objects.
#[track_caller]
pub fn assert_equal(source: &TestDatabase, found: &TestDatabase, context: &str) {
    let schema = differences(source, found);
    assert!(schema.is_empty(), "{context}: the schemas differ\n{schema}");
    assert_equal_data(source, found, context);
}

/// Requires that two databases have the same rows, sequences and large objects.
#[track_caller]
pub fn assert_equal_data(source: &TestDatabase, found: &TestDatabase, context: &str) {
    let (expected, got) = (data(source), data(found));
    let names = |data: &BTreeMap<String, Vec<String>>| data.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&expected), "{context}: tables");
    for (name, rows) in &expected {
        let first = rows.iter().zip(&got[name]).find(|(a, b)| a != b);
        assert!(
            first.is_none() && rows.len() == got[name].len(),
            "{context}: {name}\n{} rows, {} expected; the first difference: {first:?}",
            got[name].len(),
            rows.len()
        );
    }
    assert_eq!(large_objects(found), large_objects(source), "{context}: large objects");
}
