//! Values and constraints that look like times, booleans or constraints of PostgreSQL, but are not.

use super::helpers::Migration;

/// Requires that a plan contains each of these texts.
#[track_caller]
fn require_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// Runs the plan, requires that no row is rejected, and verifies the result.
#[track_caller]
fn require_migrated(migration: &Migration) {
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert!(migration.rejects().is_empty(), "{:#?}", migration.rejects());
    migration.migrate(&["verify", "plan.toml"]).code(0);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn numbers_whose_digits_are_a_time_are_not_read_as_unix_time() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, trade_time INTEGER, jd_at REAL, trade_date REAL, seen_at REAL, mixed_at INTEGER);
         INSERT INTO t VALUES (1, 20240102093000, 2460311.75, 20240102.0, 1704159000.25, 20240102093000),
             (2, 20240103093000, 2460312.75, 20240103.0, 1704159001.5, 1704159000);",
    );
    let text = migration.plan(&["app.db"], &[]);
    require_lines(
        &text,
        &[
            r#"{ source = "trade_time", type = "timestamptz" }"#,
            r#"{ source = "jd_at", type = "timestamptz" }"#,
            r#"{ source = "trade_date", type = "date" }"#,
            r#"{ source = "seen_at", type = "timestamptz", epoch = "s" }"#,
            r#"{ source = "mixed_at", type = "timestamptz" }"#,
        ],
    );
    require_migrated(&migration);
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
fn values_that_only_look_like_times_are_not_converted() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (exec_time REAL, time TEXT, hm_time TEXT, opt TEXT, code_date TEXT, uid TEXT, day TEXT, at TEXT);
         INSERT INTO t VALUES
             (0.5, '20240102093500000', '202401020930', '10004567', '20241399', '1704159000', '20240102', '1704159000'),
             (1.5, '20240103093500000', '202401030930', '10004568', '20241398', '1704159001', '20240103', '1704159001');",
    );
    let text = migration.plan(&["app.db"], &[]);
    require_lines(
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
    require_migrated(&migration);
    // Such a text is a date only if the name of the column says so.
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    migration.file("codes.db", "CREATE TABLE c (opt TEXT); INSERT INTO c VALUES ('20240102'), ('20240103')");
    require_lines(&migration.plan(&["codes.db"], &[]), &[r#"{ source = "opt", type = "text" }"#]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_date_whose_midnight_does_not_exist_in_the_zone_is_kept() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, at TEXT);
         INSERT INTO t VALUES (1, '2018-11-04', '2018-11-04 00:30:00'), (2, '2018-11-05', '2018-11-05 00:30:00')",
    );
    migration.plan(&["app.db"], &[]);
    migration.edit_plan("zone = \"Asia/Shanghai\"", "zone = \"America/Sao_Paulo\"");
    migration.edit_plan(r#"source = "at", type = "timestamptz""#, r#"source = "at", type = "timestamp""#);
    require_migrated(&migration);
    let row = "SELECT day || ' ' || at FROM app.t WHERE id = 1";
    assert_eq!(migration.target.value(row), "2018-11-04 2018-11-04 00:30:00");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn texts_become_booleans_only_if_different_texts_stay_different() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (status TEXT, flag VARCHAR(5), yn TEXT, mixed TEXT, open BOOLEAN, sure BOOLEAN, whole INTEGER, free,
             both);
         INSERT INTO t VALUES ('N', 'true', 'yes', 'true', 'true', 'y', 'true', 'y', 'y'),
             ('F', 'False', 'no', '1', '0', 'T', 'false', 'n', 't'), ('N', 'TRUE', 'no', 'false', 1, 'y', 1, 'y', 'n');",
    );
    let text = migration.plan(&["app.db"], &[]);
    require_lines(
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
    require_migrated(&migration);
    assert_eq!(migration.target.value("SELECT count(DISTINCT status) FROM app.t"), "2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn constraints_that_postgres_does_not_accept_are_left_out_and_named() {
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
    require_lines(
        &text,
        &[
            "CHECK (length(phone) = 10) is not carried over: length() does not accept such a value in PostgreSQL",
            "CHECK ((name IS NULL) + (nick IS NULL) = 1) is not carried over",
            "CHECK (active) is not carried over: PostgreSQL does not accept a value as a condition",
            "CHECK (nick IN ('A', 'B')) is not carried over: it compares texts with another collation",
            r#"expression = "name COLLATE \"C\" < 'x'""#,
            r#"expression = "phone IS NOT NULL""#,
            "the index kept is not carried over: 'IS' may mean something else",
            r#"where = "is_latest""#,
            "the default 9e999 is not carried over: it is out of range",
            r#"default = "floor(extract(epoch FROM now()))::bigint""#,
            "COLLATE NOCASE is not carried over: the target compares texts exactly",
            "a UNIQUE constraint uses COLLATE NOCASE",
            "the index by_name uses COLLATE NOCASE",
        ],
    );
    require_migrated(&migration);
    // The default rounds the time down to a second, so it is never in the future.
    migration.target.value("INSERT INTO app.t (phone) VALUES (1) RETURNING id");
    assert_eq!(migration.target.value("SELECT noted <= extract(epoch FROM now()) FROM app.t WHERE phone = 1"), "t");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn columns_whose_names_postgres_does_not_accept_are_renamed() {
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
    require_lines(
        &text,
        &[
            r#"{ source = "xmin", name = "xmin__2", type = "bigint" }"#,
            r#"{ source = "xmin_", type = "bigint" }"#,
            r#"{ source = "CTID", name = "ctid_", type = "text" }"#,
            r#"columns = ["ctid_"]"#,
            &format!("name = \"{first}\""),
            &format!("name = \"{second}\""),
            "renamed: PostgreSQL has a system column of that name",
            "its name is shortened: names in PostgreSQL have at most 63 bytes",
        ],
    );
    require_migrated(&migration);
    assert_eq!(migration.target.value(&format!("SELECT xmin__2 + xmin_ + {first} + {second} FROM app.t")), "10");
}
