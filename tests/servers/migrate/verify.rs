//! `migrate verify`: it finds every difference between a file and the loaded tables, and reports it exactly.

use serde_json::Value;

use super::helpers::Migration;

const FILE: &str = "
    CREATE TABLE trades (id INTEGER PRIMARY KEY, code TEXT NOT NULL, price REAL, cost DECIMAL(18,4), at TEXT, ms INTEGER, day DATE,
        meta TEXT, ok BOOLEAN, raw BLOB, note TEXT);
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 30000)
    INSERT INTO trades SELECT n, printf('%06d', n % 300), n * 0.1, n / 4.0,
        CASE n % 3 WHEN 0 THEN datetime(1795700818 + n, 'unixepoch') WHEN 1 THEN
            strftime('%Y-%m-%dT%H:%M:%f+08:00', 1795700818.25 + n, 'unixepoch') ELSE '' || (1795700818 + n) END,
        1795700818000 + n, date(1795700818 + n * 60, 'unixepoch'), '{\"n\": ' || n || ', \"x\": [1.50, \"\\u8305台\"]}', n % 2,
        CAST('raw' || n AS BLOB), '中文 ' || n || char(10) || '\\' FROM n;
    UPDATE trades SET at = '' WHERE id = 10; UPDATE trades SET at = 'soon' WHERE id = 12; UPDATE trades SET meta = '{' WHERE id = 13;
    CREATE TABLE bag (v TEXT, w REAL); INSERT INTO bag VALUES ('a', 1), ('a', 1), ('b', 2), ('b', NULL), ('', 3);
    CREATE TABLE pairs (a TEXT, b INTEGER, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID; INSERT INTO pairs VALUES ('x', 1, 'p'), ('x', 2, 'q');";

/// Returns a migration whose plan has run.
fn migrated() -> Migration {
    let migration = Migration::new();
    migration.file("app.db", FILE);
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration
}

/// Runs a verify that must find differences, and returns each as `KIND|KEY|COLUMN|SOURCE|TARGET`.
#[track_caller]
fn differences(migration: &Migration, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["verify", "plan.toml"];
    arguments.extend(more);
    let document = migration.json(3, &arguments);
    assert_eq!(document["ok"], false);
    let word = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), str::to_owned);
    let line = |entry: &Value| ["kind", "key", "column", "source", "target"].map(|field| word(&entry[field])).join("|");
    document["differences"].as_array().unwrap().iter().map(line).collect()
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn verify_finds_no_difference_after_a_run() {
    let migration = migrated();
    let document = migration.json(0, &["verify", "plan.toml"]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert_eq!(document["tables"][2]["source"], "app:trades");
    assert_eq!((&document["tables"][2]["rows"], &document["tables"][2]["rejected"]), (&29_998.into(), &2.into()));
    migration.json(0, &["verify", "plan.toml", "--sample", "50"]);
    // Equal values in another notation are equal.
    migration.target.psql("UPDATE app.trades SET meta = '{\"x\": [1.5, \"茅台\"], \"n\": 77.0}' WHERE id = 77");
    migration.json(0, &["verify", "plan.toml"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn verify_reports_every_difference_with_its_row_and_column() {
    let migration = migrated();
    let changes = [
        ("UPDATE app.trades SET at = at + interval '1 microsecond' WHERE id = 100", "differs|100|at|"),
        ("UPDATE app.trades SET price = 10.1 WHERE id = 101", "differs|101|price|10.100000000000001|10.1"),
        ("UPDATE app.trades SET cost = cost + 0.0001 WHERE id = 102", "differs|102|cost|25.5|25.5001"),
        ("UPDATE app.trades SET meta = jsonb_set(meta, '{n}', '7') WHERE id = 103", "differs|103|meta|"),
        ("UPDATE app.trades SET ok = NOT ok WHERE id = 104", "differs|104|ok|f|t"),
        ("UPDATE app.trades SET raw = '\\x00' WHERE id = 105", "differs|105|raw|"),
        ("UPDATE app.trades SET note = note || ' ' WHERE id = 106", "differs|106|note|"),
        ("UPDATE app.trades SET note = NULL WHERE id = 107", "differs|107|note|"),
        ("UPDATE app.trades SET day = day + 1 WHERE id = 108", "differs|108|day|"),
        ("UPDATE app.trades SET at = '-infinity' WHERE id = 109", "differs|109|at|"),
        ("DELETE FROM app.trades WHERE id = 110", "missing|110|-|"),
        ("INSERT INTO app.trades (id, code) VALUES (40000, 'x')", "unexpected|40000|-|"),
        ("UPDATE app.trades SET code = '1' WHERE id = 111", "differs|111|code|000111|1"),
        ("UPDATE app.pairs SET v = 'P' WHERE b = 1", "differs|x, 1|v|p|P"),
        ("INSERT INTO app.bag VALUES ('b', 2)", "unexpected|b, 2.0|-|"),
        ("DELETE FROM app.bag WHERE ctid = (SELECT min(ctid) FROM app.bag WHERE v = 'a')", "missing|a, 1.0|-|"),
        ("UPDATE app.bag SET v = NULL WHERE v = ''", "unexpected|NULL, 3.0|-|"),
    ];
    for (sql, _) in changes {
        migration.target.psql(sql);
    }
    let found = differences(&migration, &[]);
    for (sql, expected) in changes {
        let is_found = found.iter().any(|line| line.starts_with(expected));
        assert!(is_found, "{sql}: {expected} is not in\n{}", found.join("\n"));
    }
    // Each change gives one difference. There are two more: the row with the empty text is missing, and the sequence is
    // behind. The number of rows does not differ, because as many rows were added as deleted.
    assert_eq!(found.len(), changes.len() + 2, "{}", found.join("\n"));
    assert!(found.iter().any(|line| line.starts_with("missing|, 3.0|")), "{}", found.join("\n"));
    assert!(found.iter().any(|line| line.starts_with("shape|")), "{}", found.join("\n"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn verify_finds_exchanged_values_and_missing_rows() {
    let migration = migrated();
    migration.target.psql(
        "UPDATE app.trades SET note = CASE id WHEN 1 THEN (SELECT note FROM app.trades WHERE id = 2)
            ELSE (SELECT note FROM app.trades WHERE id = 1) END WHERE id IN (1, 2)",
    );
    assert_eq!(differences(&migration, &[]).len(), 2);
    migration.target.psql("DELETE FROM app.trades WHERE id > 20000");
    let found = differences(&migration, &["--most", "5"]);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].starts_with("count|-|-|29998|19998"), "{found:?}");
    // A verify of a sample also finds missing rows, and compares the number of all rows.
    let found = differences(&migration, &["--sample", "30"]);
    assert!(
        found[0].starts_with("count|") && found.iter().filter(|line| line.starts_with("missing|")).count() >= 5,
        "{found:?}"
    );
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn verify_checks_rejected_rows_too() {
    let migration = migrated();
    // Somebody has inserted a corrected row, which is now in the table and among the rejected rows.
    migration.target.psql("INSERT INTO app.trades (id, code) VALUES (12, '000012')");
    let found = differences(&migration, &[]);
    assert!(found.iter().any(|line| line.starts_with("unexpected|12|")), "{found:?}");
    migration
        .target
        .psql("DELETE FROM app.trades WHERE id = 12; DELETE FROM lifeboat_migrate.rejects WHERE rowid = 13");
    let found = differences(&migration, &[]);
    assert!(found.iter().any(|line| line.starts_with("reject|")), "{found:?}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn verify_reports_a_target_with_other_definitions() {
    let migration = migrated();
    migration.target.psql(
        "ALTER TABLE app.trades DROP CONSTRAINT trades_pkey; ALTER TABLE app.pairs ALTER b TYPE integer; DROP TABLE app.bag;
         SELECT setval('app.trades_id_seq', 5)",
    );
    let document = migration.json(3, &["verify", "plan.toml"]);
    let differences_text = document["differences"].to_string();
    for words in [
        "app.trades has no primary key (id)",
        "the column b is integer, but should be bigint",
        "app.bag does not exist",
        "the next number of id is already used",
    ] {
        assert!(differences_text.contains(words), "{words} is not in {differences_text}");
    }
    let other = Migration::new();
    other.file("app.db", FILE);
    other.plan(&["app.db"], &[]);
    other.migrate(&["verify", "plan.toml"]).code(3).says("this plan was not run");
}
