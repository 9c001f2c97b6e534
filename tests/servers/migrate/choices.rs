//! What looks like a time, a truth or a condition of PostgreSQL's, and is none.

use super::helpers::Migration;

/// Requires every line to be in a plan.
#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// Runs the plan, requires that no row is rejected, and compares.
#[track_caller]
fn arrives(migration: &Migration) {
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert!(migration.rejects().is_empty(), "{:#?}", migration.rejects());
    migration.migrate(&["verify", "plan.toml"]).code(0);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn numbers_whose_digits_spell_a_time_are_not_counted_since_1970() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, trade_time INTEGER, jd_at REAL, trade_date REAL, seen_at REAL, mixed_at INTEGER);
         INSERT INTO t VALUES (1, 20240102093000, 2460311.75, 20240102.0, 1704159000.25, 20240102093000),
             (2, 20240103093000, 2460312.75, 20240103.0, 1704159001.5, 1704159000);",
    );
    let text = migration.plan(&["app.db"], &[]);
    has(
        &text,
        &[
            r#"{ source = "trade_time", type = "timestamptz" }"#,
            r#"{ source = "jd_at", type = "timestamptz" }"#,
            r#"{ source = "trade_date", type = "date" }"#,
            r#"{ source = "seen_at", type = "timestamptz", epoch = "s" }"#,
            r#"{ source = "mixed_at", type = "timestamptz" }"#,
        ],
    );
    arrives(&migration);
    let value = |column: &str| {
        migration.target.value(&format!("SELECT ({column} AT TIME ZONE 'UTC')::text FROM app.t WHERE id = 1"))
    };
    assert_eq!(value("trade_time"), "2024-01-02 01:30:00");
    assert_eq!(value("jd_at"), "2024-01-02 06:00:00");
    assert_eq!(value("seen_at"), "2024-01-02 01:30:00.25");
    assert_eq!(migration.target.value("SELECT trade_date FROM app.t WHERE id = 1"), "2024-01-02");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn numbers_that_no_program_noted_as_a_time_stay_numbers() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (exec_time REAL, time TEXT, hm_time TEXT, opt TEXT, code_date TEXT, uid TEXT, day TEXT, at TEXT);
         INSERT INTO t VALUES
             (0.5, '20240102093500000', '202401020930', '10004567', '20241399', '1704159000', '20240102', '1704159000'),
             (1.5, '20240103093500000', '202401030930', '10004568', '20241398', '1704159001', '20240103', '1704159001');",
    );
    let text = migration.plan(&["app.db"], &[]);
    has(
        &text,
        &[
            r#"{ source = "exec_time", type = "double precision" }"#,
            r#"{ source = "time", type = "text" }"#,
            r#"{ source = "hm_time", type = "text" }"#,
            r#"{ source = "opt", type = "text" }"#,
            r#"{ source = "code_date", type = "text" }"#,
            r#"{ source = "uid", type = "text" }"#,
            r#"{ source = "day", type = "date" }"#,
            r#"{ source = "at", type = "timestamptz", epoch = "s" }"#,
        ],
    );
    arrives(&migration);
    // A date is one by its column's name only.
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    migration.file("codes.db", "CREATE TABLE c (opt TEXT); INSERT INTO c VALUES ('20240102'), ('20240103')");
    has(&migration.plan(&["codes.db"], &[]), &[r#"{ source = "opt", type = "text" }"#]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_day_that_begins_late_is_the_day_that_is_written() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, at TEXT);
         INSERT INTO t VALUES (1, '2018-11-04', '2018-11-04 00:30:00'), (2, '2018-11-05', '2018-11-05 00:30:00')",
    );
    migration.plan(&["app.db"], &[]);
    migration.edit("zone = \"Asia/Shanghai\"", "zone = \"America/Sao_Paulo\"");
    migration.edit(r#"source = "at", type = "timestamptz""#, r#"source = "at", type = "timestamp""#);
    arrives(&migration);
    let row = "SELECT day || ' ' || at FROM app.t WHERE id = 1";
    assert_eq!(migration.target.value(row), "2018-11-04 2018-11-04 00:30:00");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn texts_that_differ_do_not_become_the_same_truth() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (status TEXT, flag VARCHAR(5), yn TEXT, mixed TEXT, open BOOLEAN, sure BOOLEAN, whole INTEGER, free,
             both);
         INSERT INTO t VALUES ('N', 'true', 'yes', 'true', 'true', 'y', 'true', 'y', 'y'),
             ('F', 'False', 'no', '1', '0', 'T', 'false', 'n', 't'), ('N', 'TRUE', 'no', 'false', 1, 'y', 1, 'y', 'n');",
    );
    let text = migration.plan(&["app.db"], &[]);
    has(
        &text,
        &[
            r#"{ source = "status", type = "text" }"#,
            r#"{ source = "flag", type = "boolean" }"#,
            r#"{ source = "yn", type = "text" }"#,
            r#"{ source = "mixed", type = "text" }"#,
            r#"{ source = "open", type = "boolean" }"#,
            r#"{ source = "sure", type = "text" }"#,
            r#"{ source = "whole", type = "boolean" }"#,
            r#"{ source = "free", type = "boolean" }"#,
            r#"{ source = "both", type = "text" }"#,
        ],
    );
    arrives(&migration);
    assert_eq!(migration.target.value("SELECT count(DISTINCT status) FROM app.t"), "2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn conditions_that_the_server_would_refuse_are_left_out_and_told() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, phone INTEGER, name TEXT, nick TEXT COLLATE NOCASE UNIQUE, deleted INTEGER,
             active INTEGER, is_latest BOOLEAN, big REAL DEFAULT 9e999, noted INTEGER DEFAULT (strftime('%s', 'now')),
             CHECK (length(phone) = 10), CHECK ((name IS NULL) + (nick IS NULL) = 1), CHECK (active), CHECK (name < 'x'),
             CHECK (nick IN ('A', 'B')), CHECK (phone NOT NULL));
         CREATE INDEX kept ON t (phone) WHERE deleted IS 0;
         CREATE INDEX latest ON t (phone) WHERE is_latest = 1;
         CREATE UNIQUE INDEX by_name ON t (name COLLATE NOCASE);
         INSERT INTO t (phone, name, nick, deleted, active, is_latest) VALUES (1234567890, 'B', NULL, 0, 1, 1),
             (1234567891, NULL, 'a', 0, 1, 0);",
    );
    let text = migration.plan(&["app.db"], &[]);
    has(
        &text,
        &[
            "CHECK (length(phone) = 10) is not carried: length() takes no such value in PostgreSQL",
            "CHECK ((name IS NULL) + (nick IS NULL) = 1) is not carried",
            "CHECK (active) is not carried: a value is no condition",
            "CHECK (nick IN ('A', 'B')) is not carried: it compares texts by another collation",
            r#"expression = "name COLLATE \"C\" < 'x'""#,
            r#"expression = "phone IS NOT NULL""#,
            "the index kept is not carried: 'IS' may mean something else",
            r#"where = "is_latest""#,
            "the default 9e999 is not carried: it is out of range",
            r#"default = "floor(extract(epoch FROM now()))::bigint""#,
            "COLLATE NOCASE is not carried: here texts are compared as they are",
            "a UNIQUE constraint goes by COLLATE NOCASE",
            "the index by_name goes by COLLATE NOCASE",
        ],
    );
    arrives(&migration);
    // Whose clock says .9 is not a second ahead.
    migration.target.value("INSERT INTO app.t (phone) VALUES (1) RETURNING id");
    assert_eq!(migration.target.value("SELECT noted <= extract(epoch FROM now()) FROM app.t WHERE phone = 1"), "t");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn columns_whose_names_the_server_does_not_take_are_renamed() {
    let migration = Migration::new();
    let long = "n".repeat(70);
    migration.file(
        "app.db",
        &format!(
            "CREATE TABLE t (xmin INTEGER, xmin_ INTEGER, CTID TEXT, {long}a INTEGER, {long}b INTEGER, UNIQUE (ctid));
             INSERT INTO t VALUES (1, 2, 'x', 3, 4);"
        ),
    );
    let text = migration.plan(&["app.db"], &[]);
    let (first, second) = ("n".repeat(63), format!("{}_2", "n".repeat(61)));
    has(
        &text,
        &[
            r#"{ source = "xmin", name = "xmin__2", type = "bigint" }"#,
            r#"{ source = "xmin_", type = "bigint" }"#,
            r#"{ source = "CTID", name = "ctid_", type = "text" }"#,
            r#"columns = ["ctid_"]"#,
            &format!("name = \"{first}\""),
            &format!("name = \"{second}\""),
            "renamed: a column of PostgreSQL's own has that name",
            "its name is cut: PostgreSQL's names have no more than 63 bytes",
        ],
    );
    arrives(&migration);
    assert_eq!(migration.target.value(&format!("SELECT xmin__2 + xmin_ + {first} + {second} FROM app.t")), "10");
}
