//! Values that fit a type of the target, but would change there: each change is said, and none is silent.

use super::helpers::Migration;

/// Requires that a text contains each of these.
#[track_caller]
fn require(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// Returns the plan without the line breaks within comments.
fn comments(plan: &str) -> String {
    plan.lines().map(|line| line.trim_start().trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ")
}

/// Plans `app.db` in a zone, and returns what the console says and the comments of the plan.
#[track_caller]
fn plan_in(migration: &Migration, zone: &str) -> (String, String) {
    let run = migration.migrate(&["plan", "app.db", "--to", &migration.target.url(), "--zone", zone]).code(0);
    (run.transcript(), comments(&migration.plan_text()))
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn json_with_a_key_twice_becomes_json_and_is_counted_as_jsonb() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, payload JSON, clean JSON);
         INSERT INTO t VALUES (1, '{\"amount\": 100, \"amount\": 250}', '{\"a\": 1}'), (2, '{\"a\": {\"x\": 1, \"\\u0078\": 2}}', '[]');",
    );
    let (console, plan) = plan_in(&migration, "UTC");
    let repeated = "2 JSON values have an object with the same key twice (such as row 1: ";
    require(&console, &[repeated]);
    require(&plan, &[repeated, r#"source = "payload", type = "json" }"#, r#"source = "clean", type = "jsonb" }"#]);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT payload FROM app.t WHERE id = 1"), "{\"amount\": 100, \"amount\": 250}");
    assert_eq!(migration.json(0, &["verify", "plan.toml"])["notes"].to_string(), "[]");
    // A plan that insists on jsonb is followed, and run and verify say what is lost.
    migration.migrate(&["rollback", "plan.toml"]).code(0);
    migration.edit_plan(r#"source = "payload", type = "json""#, r#"source = "payload", type = "jsonb""#);
    let lost = "app:t: payload: 2 JSON values have an object with the same key twice: jsonb keeps only the last value";
    require(&migration.json(0, &["run", "plan.toml"])["notes"].to_string(), &[lost]);
    require(&migration.json(0, &["verify", "plan.toml"])["notes"].to_string(), &[lost]);
    // A run that has nothing left to do says it again.
    require(&migration.json(0, &["run", "plan.toml"])["notes"].to_string(), &[lost]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn local_times_that_occur_twice_or_never_are_counted() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME);
         INSERT INTO t VALUES (1, '2026-10-25 02:30:00'), (2, '2026-10-25 02:59:59'), (3, '2026-03-29 02:30:00'),
             (4, '2026-10-25 03:00:00'), (5, '2026-10-25T02:30:00+01:00'), (6, '2026-07-01 12:00:00.1234567'),
             (7, '2026-06-30 23:59:60+00:00');",
    );
    let (console, plan) = plan_in(&migration, "Europe/Berlin");
    let twice = "2 local times occur twice, because clocks in Europe/Berlin are put back: they are read as the earlier of the two \
                 instants";
    let never = "1 local times do not exist, because clocks in Europe/Berlin are put forward: they are read with the offset after \
                 the change";
    let finer = "1 times have digits beyond microseconds, which are cut off";
    let rows = "(such as row 1: '2026-10-25 02:30:00'; row 2: '2026-10-25 02:59:59')";
    let leap = "1 times are in a leap second (:60), which PostgreSQL does not have: they become the last microsecond before it";
    for text in [&console, &plan] {
        require(text, &[twice, never, finer, leap, rows, "(such as row 3: '2026-03-29 02:30:00')"]);
    }
    require(&plan, &["; from 2026-03-29 00:30:00+00 to 2026-10-25 02:00:00+00"]);
    for step in ["run", "verify"] {
        let notes = migration.json(0, &[step, "plan.toml"])["notes"].to_string();
        require(
            &notes,
            &[
                &format!("app:t: at: {twice}"),
                &format!("app:t: at: {never}"),
                &format!("app:t: at: {finer}"),
                &format!("app:t: at: {leap}"),
            ],
        );
    }
    let utc =
        |id: u32| migration.target.value(&format!("SELECT (at AT TIME ZONE 'UTC')::text FROM app.t WHERE id = {id}"));
    assert_eq!((utc(1).as_str(), utc(3).as_str()), ("2026-10-25 00:30:00", "2026-03-29 00:30:00"));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn times_of_other_epochs_are_asked_about_and_loaded_exactly_if_the_plan_names_them() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (ZTIMESTAMP TIMESTAMP, visit_time INTEGER, file_time INTEGER, ticks INTEGER, sent_date INTEGER, day INTEGER,
             made INTEGER);
         INSERT INTO t VALUES (786273645.25, 13424580845000123, 134245808451234567, 639156932451234567, 786273645123456789, 31, 1764580845),
             (700000000, 0, 133000000000000000, 638000000000000000, 700000000000000000, 1, 1764580845);",
    );
    let (console, plan) = plan_in(&migration, "UTC");
    for (column, epoch) in [
        ("ZTIMESTAMP", "apple"),
        ("visit_time", "webkit"),
        ("file_time", "filetime"),
        ("ticks", "dotnet"),
        ("sent_date", "apple_ns"),
    ] {
        assert!(!plan.contains(&format!("source = \"{column}\", type = \"timestamptz\"")), "{column} in {plan}");
        let line = console.lines().find(|line| line.contains(&format!(": {column}: as times since 1970"))).unwrap();
        require(line, &[&format!("epoch = \"{epoch}\" ("), "which is not plausible: it stays a number"]);
    }
    require(
        &plan,
        &["epoch = \"apple\" (seconds since 2001, as Apple's Core Data writes them): 2023-03-08 20:26:40+00 to"],
    );
    assert!(!console.contains(": day: "), "{console}");
    for (column, epoch, kind) in [
        ("ZTIMESTAMP", "apple", "double precision"),
        ("visit_time", "webkit", "bigint"),
        ("file_time", "filetime", "bigint"),
        ("ticks", "dotnet", "bigint"),
        ("sent_date", "apple_ns", "bigint"),
    ] {
        let name = if column == "ZTIMESTAMP" { "name = \"ztimestamp\", " } else { "" };
        migration.edit_plan(
            &format!("source = \"{column}\", {name}type = \"{kind}\""),
            &format!("source = \"{column}\", {name}type = \"timestamptz\", epoch = \"{epoch}\""),
        );
    }
    let notes = migration.json(0, &["run", "plan.toml"])["notes"].to_string();
    require(&notes, &["app:t: file_time: 1 times have digits beyond microseconds, which are cut off"]);
    let row = migration.target.value(
        "SELECT concat_ws(' | ', ztimestamp, visit_time, file_time, ticks, sent_date) FROM app.t WHERE day = 31",
    );
    let expected = "2025-12-01 09:20:45.25+00 | 2026-05-30 02:14:05.000123+00 | 2026-05-30 02:14:05.123456+00 | \
                    2026-05-29 23:14:05.123456+00 | 2025-12-01 09:20:45.123456+00";
    assert_eq!(row, expected);
    let verified = migration.json(0, &["verify", "plan.toml"]);
    require(&verified["notes"].to_string(), &["app:t: sent_date: 1 times have digits beyond microseconds"]);
}

const DEFAULTS: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY,
        ms DATETIME NOT NULL DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')),
        iso TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
        token TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
        loud TEXT NOT NULL DEFAULT (hex(randomblob(5))),
        uuid TEXT NOT NULL DEFAULT (lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2))) || '-4' ||
            substr(lower(hex(randomblob(2))),2) || '-' || substr('89ab',abs(random()) % 4 + 1, 1) ||
            substr(lower(hex(randomblob(2))),2) || '-' || lower(hex(randomblob(6)))),
        salt BLOB NOT NULL DEFAULT (randomblob(40)),
        tags JSON NOT NULL DEFAULT (json_array()),
        extra JSON NOT NULL DEFAULT (json_object()),
        seconds INTEGER NOT NULL DEFAULT (unixepoch()),
        millis INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
        julian REAL NOT NULL DEFAULT (julianday('now')),
        local_text TEXT NOT NULL DEFAULT (datetime('now','localtime')),
        local DATETIME NOT NULL DEFAULT (datetime('now','localtime')),
        noted INTEGER);
    INSERT INTO t (noted, iso, local, local_text, seconds, millis) VALUES (1, 'x', '2026-11-01 09:30:00', 'y', 5, 6);";

#[test]
#[ignore = "needs PostgreSQL 15"]
fn defaults_write_to_the_target_as_the_program_wrote_to_the_file() {
    let migration = Migration::new();
    let file = migration.file("app.db", DEFAULTS);
    let (console, plan) = plan_in(&migration, "Asia/Shanghai");
    assert!(!plan.contains("not carried over") && !console.contains("not carried over"), "{console}\n{plan}");
    // Of the two defaults of times, only one writes UTC.
    assert_eq!(plan.matches("its default writes UTC in SQLite").count(), 1, "{plan}");
    migration.json(0, &["run", "plan.toml"]);
    migration.target.psql("INSERT INTO app.t (noted) VALUES (2)");
    file.execute_batch("INSERT INTO t (noted) VALUES (2)").unwrap();
    // Digits become 9 and letters become a or A, so that the shapes of both rows can be compared.
    let shape = |text: String| -> String {
        let letter = |letter: char| match letter {
            '0'..='9' => '9',
            'a'..='f' => '9',
            'A'..='F' => '9',
            other => other,
        };
        text.chars().map(letter).collect()
    };
    for column in ["iso", "token", "loud", "uuid", "tags", "extra", "local_text"] {
        let query = format!("SELECT {column} FROM t WHERE noted = 2");
        let there: String = file.query_row(&query, [], |row| row.get(0)).unwrap();
        let here = migration.target.value(&format!("SELECT {column} FROM app.t WHERE noted = 2"));
        assert_eq!(shape(here.clone()), shape(there), "{column}: {here}");
    }
    let flag = |sql: &str| migration.target.value(&format!("SELECT {sql} FROM app.t WHERE noted = 2"));
    for (column, pattern) in
        [("token", "[0-9a-f]{32}"), ("loud", "[0-9A-F]{10}"), ("uuid", "[0-9a-f-]{14}4[0-9a-f]{3}-[89ab].*")]
    {
        assert_eq!(flag(&format!("{column} ~ '^{pattern}$'")), "t", "{column}");
    }
    assert_eq!(flag("length(salt)"), "40");
    assert_eq!(flag("abs(extract(epoch FROM now() - ms)) < 60 AND abs(extract(epoch FROM now() - local)) < 60"), "t");
    assert_eq!(flag("abs(seconds - extract(epoch FROM now())) < 60"), "t");
    assert_eq!(flag("abs(millis - extract(epoch FROM now()) * 1000) < 60000"), "t");
    assert_eq!(flag("abs((julian - 2440587.5) * 86400 - extract(epoch FROM now())::float8) < 60"), "t");
    assert_eq!(flag("abs(extract(epoch FROM now() - local_text::timestamp AT TIME ZONE 'Asia/Shanghai')) < 60"), "t");
    let other = Migration::new();
    other.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT NOT NULL DEFAULT (printf('%04d', 7)), free TEXT DEFAULT (printf('x')),
             made TEXT NOT NULL DEFAULT (datetime('now', 'localtime')));
         INSERT INTO t VALUES (1, 'a', 'b', 'c');",
    );
    let (console, plan) = plan_in(&other, "UTC");
    let lost = "code: the default printf('%04d', 7) is not carried over: it may mean something else in PostgreSQL. The column is NOT NULL";
    require(&console, &[lost, "made: the default", "plan with --zone"]);
    require(&plan, &["the default printf('x') is not carried over"]);
    assert!(!console.contains("free:"), "{console}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn defaults_that_calculate_do_not_fail_in_the_target() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL DEFAULT (30*24*60*60*1000), low INTEGER DEFAULT (7 - 2*5),
             code TEXT NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)))),
             loud TEXT DEFAULT (upper(hex(randomblob(2)))), pair TEXT DEFAULT (hex(randomblob(1)) || lower(hex(randomblob(1)))),
             huge REAL DEFAULT (4000000000 * 4000000000 * 4000000000));
         INSERT INTO t (id) VALUES (1);",
    );
    let (console, plan) = plan_in(&migration, "UTC");
    require(&plan, &["the default 4000000000 * 4000000000 * 4000000000 is not carried over"]);
    migration.json(0, &["run", "plan.toml"]);
    migration.target.psql("INSERT INTO app.t (id) VALUES (2)");
    let row = migration.target.value(
        "SELECT concat_ws('|', ttl, low, code ~ '^[0-9a-f]{8}-[0-9a-f]{4}$', loud ~ '^[0-9A-F]{4}$', pair ~ '^[0-9A-F]{2}[0-9a-f]{2}$')
           FROM app.t WHERE id = 2",
    );
    assert_eq!(row, "2592000000|-3|t|t|t", "{console}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn deep_json_is_compared_or_rejected() {
    let migration = Migration::new();
    let file = migration.file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSON, k JSON)");
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"b\":".repeat(depth), ",\"a\":2}".repeat(depth));
    for (id, j, k) in [
        (1, nested(200), objects(500)),
        (2, nested(2000), "{}".to_owned()),
        (3, nested(100_000), "{}".to_owned()),
        (4, "{}".to_owned(), "{}".to_owned()),
    ] {
        file.execute("INSERT INTO t VALUES (?1, ?2, ?3)", (id, j, k)).unwrap();
    }
    migration.plan(&["app.db"], &["--no-proposals"]);
    let document = migration.json(3, &["run", "plan.toml"]);
    assert_eq!(document["tables"][0]["rejected"], 1, "{document:#}");
    assert_eq!(migration.rejects(), ["t 3 the server refuses it: stack depth limit exceeded"]);
    // The only difference is that the plan did not expect the rejected row.
    let document = migration.json(3, &["verify", "plan.toml"]);
    assert_eq!(document["differences"].as_array().unwrap().len(), 1, "{document:#}");
    assert_eq!(document["differences"][0]["kind"], "reject", "{document:#}");
    migration.target.psql("UPDATE app.t SET k = jsonb_set(k, '{b,b,a}', '3') WHERE id = 1");
    let document = migration.json(3, &["verify", "plan.toml"]);
    assert_eq!(document["differences"].as_array().unwrap().len(), 2, "{document:#}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn printed_differences_show_spaces_and_the_place_of_the_difference() {
    let migration = Migration::new();
    let long = "x".repeat(1000);
    migration.file(
        "app.db",
        &format!("CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('a', 'b'), (' c ', NULL), ('d', '{long}1')"),
    );
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration
        .target
        .psql("UPDATE app.t SET v = CASE id WHEN 'a' THEN 'b ' WHEN 'd' THEN left(v, 1000) || '2' ELSE 'NULL' END");
    let found = migration.migrate(&["verify", "plan.toml"]).code(3).transcript();
    require(
        &found,
        &[
            "app.t: in the row ('a'), v is 'b ', but should be 'b'",
            "app.t: in the row (' c '), v is 'NULL', but should be NULL",
            "v is ...'xxxxxxxxxxxxxxxxxxxx2', but should be ...'xxxxxxxxxxxxxxxxxxxx1'",
        ],
    );
}

/// The server reads the text of each value too, and must find it equal in value and form.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn values_arrive_as_the_server_itself_would_read_their_texts() {
    let migration = Migration::new();
    let kinds = [
        (
            "n",
            "numeric",
            &["0", "-0.00", "+7", "1.50000", "-12345.678", "0.0001", "10000", "99990000.00009999", "1e-9", "2.5E3"][..],
        ),
        ("f", "numeric(18,4)", &["1.5", "-99999999999999.9999", "0", "0.0001", "1e3"]),
        ("d", "double precision", &["0.1", "-1e300", "5e-324", "NaN", "-Infinity", "12345678901234567890"]),
        ("r", "real", &["0.5", "-16777216", "Infinity"]),
        ("i", "bigint", &["-9223372036854775808", "9223372036854775807", "0"]),
        ("m", "integer", &["-2147483648", "2147483647"]),
        ("s", "smallint", &["-32768", "32767"]),
        ("b", "boolean", &["true", "f", "1", "no"]),
        (
            "t",
            "timestamptz",
            &[
                "0001-01-02 00:00:00Z",
                "1999-12-31 23:59:59.999999Z",
                "9999-12-31 00:00:00Z",
                "2026-11-26 09:30:00.5+08:00",
            ],
        ),
        ("l", "timestamp", &["0001-01-01 00:00:00", "2000-01-01 00:00:00", "1969-12-31 23:59:59.000001"]),
        ("a", "date", &["0001-01-01", "1999-12-31", "2000-01-01", "9999-12-31"]),
        ("j", "jsonb", &["{\"a\": [1, 2.50, \"\\u00e9\"]}", "[]", "\"x\\\\y\""]),
        ("k", "json", &["{\"a\": 1, \"a\": 2}", "  [1]"]),
        ("x", "text", &["", "a\tb\\N\nc", "贵州茅台", "'"]),
        ("u", "uuid", &["{550E8400-e29b-41d4-a716-446655440000}", "00000000000000000000000000000001"]),
    ];
    let mut number = 1_u64;
    let mut random = |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    let numbers: Vec<String> = (0..2000)
        .map(|_| {
            let (digits, exponent) = (random(30), random(40) as i64 - 20);
            let mut text: String =
                (0..=digits).map(|_| char::from(b'0' + random(10) as u8 * (random(3) > 0) as u8)).collect();
            text.insert(random(digits + 1) as usize, '.');
            format!("{}{text}e{exponent}", if random(2) == 0 { "-" } else { "" })
        })
        .collect();
    let (mut sql, mut target) = (String::new(), String::from("CREATE SCHEMA app;"));
    let long = format!("7.75{}", "0".repeat(70_000));
    sql.push_str(&format!("CREATE TABLE z (v TEXT); INSERT INTO z VALUES ('{long}'), ('12300'), ('-0');"));
    target.push_str("CREATE TABLE app.z (v numeric(18,4));");
    for (name, kind, texts) in kinds {
        // The values are copied in the binary format, the texts beside them as text.
        sql.push_str(&format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, v TEXT, t TEXT);"));
        target.push_str(&format!("CREATE TABLE app.{name} (id bigint PRIMARY KEY, v {kind}, t text);"));
        let numbers = numbers.iter().map(String::as_str).filter(|_| name == "n");
        for text in texts.iter().copied().chain(numbers) {
            let text = text.replace('\'', "''");
            sql.push_str(&format!("INSERT INTO {name} (v, t) VALUES ('{text}', '{text}');"));
        }
    }
    migration.file("app.db", &sql);
    migration.target.psql(&target);
    migration.plan(&["app.db"], &["--schema", "app"]);
    let loaded = migration.json(0, &["run", "plan.toml"]);
    assert!(migration.rejects().is_empty(), "{loaded}");
    let found: Vec<String> =
        migration.target.query("SELECT v::text FROM app.z z ORDER BY z.v").into_iter().flatten().collect();
    assert_eq!(found, ["0.0000", "7.7500", "12300.0000"]);
    for (name, kind, texts) in kinds {
        let kind = kind.split('(').next().unwrap();
        let rows = migration.target.value(&format!("SELECT count(*) FROM app.{name}"));
        assert!(rows.parse::<usize>().unwrap() >= texts.len(), "{name}: {rows}");
        let differs = if name == "f" { "v <> t::numeric" } else { "v::text <> (t::{kind})::text" };
        let differs = format!("SELECT v::text, t FROM app.{name} WHERE {}", differs.replace("{kind}", kind));
        assert_eq!(migration.target.query(&differs), Vec::<Vec<String>>::new(), "{name}");
    }
    migration.migrate(&["verify", "plan.toml"]).code(0);
}

/// Types, with texts that they hold exactly in this or another notation, and texts that the server would cut, round or guess.
const TYPES: [(&str, &[&str], &[&str]); 21] = [
    ("varchar(3)", &["abc", "a ", "é日a"], &["abc  ", "abcd"]),
    ("char(3)", &["abc", "ab", "ab ", "abc  "], &["abcd"]),
    ("name", &["short"], &["nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"]),
    ("\"char\"", &["x"], &["xyz"]),
    ("money", &["1.25", "-3", "$1,000.50"], &["1.234", "0.001"]),
    ("interval(2)", &["1 day 2 hours", "00:00:01.25", "90 minutes"], &["00:00:01.255", "1000000", "0.1234 years"]),
    ("interval year to month", &["1 year", "14 months"], &["1 day"]),
    ("time(3)", &["10:00", "10:00:00.125", "09:30:00.1000"], &["10:00:00.1234", "10:00+08", "10:00:60", "now"]),
    ("timetz(0)", &["10:00:00+08", "10:00:00+08:00", "10:00Z"], &["10:00:00.5+08", "10:00"]),
    ("oid", &["7", "007"], &["-1"]),
    ("point", &["(1,2)", "1, 2", "(1.50,2)"], &["(1.00000000000000000001,2)"]),
    ("comp", &["(abc,1.25)"], &["(abc  ,1.25)", "(abc,1.254)"]),
    ("hstore", &["\"a\"=>\"1\""], &["\"a\"=>\"1\", \"a\"=>\"2\""]),
    ("bit(3)", &["101"], &["1011", "10"]),
    ("varchar(3)[]", &["{abc,\"a \"}", "{abc, NULL}"], &["{\"abc  \"}"]),
    ("numeric(5,2)[]", &["{1.25, 2}", "{}"], &["{1.254}"]),
    ("code", &["abc"], &["abc  ", "abcd"]),
    ("inet", &["10.0.0.1", "10.0.0.1/32", "10.0.0.0/8"], &["10.0.0"]),
    ("int4range", &["[1,5]", "(0, 6)"], &["[5,1]"]),
    ("mood", &["fine"], &["sad"]),
    ("even[]", &["{2, 4}"], &["{2, 3}"]),
];

#[test]
#[ignore = "needs PostgreSQL 15"]
fn values_are_held_exactly_or_rejected_whatever_the_type_of_an_existing_column() {
    let migration = Migration::new();
    migration.target.psql(
        "CREATE SCHEMA app; SET search_path = app; CREATE EXTENSION hstore; CREATE TYPE mood AS ENUM ('fine', 'good');
         CREATE TYPE comp AS (a varchar(3), b numeric(5,2)); CREATE DOMAIN code AS varchar(3);
         CREATE FUNCTION half(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n / 2';
         CREATE FUNCTION is_even(n int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN half(n) * 2 = n; END$$;
         CREATE DOMAIN even AS int CHECK (is_even(VALUE));",
    );
    migration.target.psql(format!("ALTER DATABASE {} SET search_path = app", migration.target.name));
    let mut lost = 0;
    for (number, (name, exact, cut)) in TYPES.iter().enumerate() {
        migration
            .target
            .psql(format!("SET search_path = app; CREATE TABLE t{number} (id bigint PRIMARY KEY, v {name})"));
        let file = migration.file("app.db", &format!("CREATE TABLE t{number} (id INTEGER PRIMARY KEY, v TEXT)"));
        for value in exact.iter().chain(*cut) {
            file.execute(&format!("INSERT INTO t{number} (v) VALUES (?1)"), [value]).unwrap();
        }
        lost += cut.len();
    }
    let planned = migration.json(0, &["plan", "app.db", "--to", &migration.target.url()]);
    for (number, (name, _, cut)) in TYPES.iter().enumerate() {
        let tables = planned["tables"].as_array().unwrap();
        let planned = tables.iter().find(|table| table["source"] == format!("app:t{number}")).unwrap();
        assert_eq!(planned["rejected"], cut.len(), "{name}: {planned}");
    }
    let run = migration.json(0, &["run", "plan.toml"]);
    let (mut wrong, rejects) = (Vec::new(), migration.rejects());
    for (number, (name, exact, cut)) in TYPES.iter().enumerate() {
        let ids: Vec<String> = migration.target.query(&format!("SELECT id FROM app.t{number} ORDER BY id")).concat();
        let expected: Vec<String> = (1..=exact.len()).map(|id| id.to_string()).collect();
        if ids != expected {
            wrong.push(format!("{name}: of {exact:?} and {cut:?}, the rows {ids:?} are there"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{rejects:#?}\n{run}", wrong.join("\n"));
    assert_eq!(rejects.len(), lost, "{rejects:#?}");
    let about = |table: &str| rejects.iter().find(|reject| reject.starts_with(table)).unwrap();
    require(about("t0 "), &["t0 4 v: 'abc  ': it has more characters than the column holds"]);
    require(about("t4 "), &["t4 4 v: the type money does not hold this value exactly as it is written"]);
    migration.json(0, &["verify", "plan.toml"]);
    // A value that was cut later differs.
    migration.target.psql("UPDATE app.t4 SET v = 1.26 WHERE id = 1; UPDATE app.t7 SET v = '10:00:00.5' WHERE id = 1");
    let verified = migration.json(3, &["verify", "plan.toml"]).to_string();
    require(&verified, &["v is '$1.26', but should be '$1.25'", "v is '10:00:00.5', but should be '10:00:00'"]);
}
