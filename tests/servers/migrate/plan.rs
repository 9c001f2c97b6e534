//! `migrate plan`: the types and indexes that it proposes, and the plans that are refused.

use super::helpers::Migration;

const RECORDS: &str = "
    CREATE TABLE Records (
        id INTEGER PRIMARY KEY AUTOINCREMENT, code VARCHAR(10) NOT NULL, price REAL CHECK (price >= 0), cost DECIMAL(18,4),
        is_open BOOLEAN DEFAULT 1, noted_at TEXT, epoch_ms INTEGER, day DATE, detail TEXT, raw BLOB, side TEXT,
        made DATETIME DEFAULT (datetime('now')), CHECK (side IN ('buy', 'sell')), UNIQUE (code, noted_at));
    CREATE INDEX by_side ON Records (side, id DESC);
    CREATE INDEX by_buy ON Records (id) WHERE side = 'buy';
    CREATE INDEX by_expression ON Records (lower(code));
    CREATE VIEW expensive AS SELECT * FROM Records WHERE price > 10;
    CREATE TRIGGER touched AFTER UPDATE ON Records BEGIN SELECT 1; END;
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)
    INSERT INTO Records (code, price, cost, is_open, noted_at, epoch_ms, day, detail, raw, side, made)
    SELECT printf('%06d', n % 40), n / 3.0, n / 4.0, CASE n % 3 WHEN 0 THEN 'true' WHEN 1 THEN 0 ELSE '1' END,
        CASE n % 3 WHEN 0 THEN datetime(1795700818 + n, 'unixepoch')
            WHEN 1 THEN strftime('%Y-%m-%dT%H:%M:%S+08:00', 1795700818 + n, 'unixepoch') ELSE '1795' || (700818 + n) END,
        1795700818000 + n, date(1795700818 + n * 3600, 'unixepoch'), json_object('n', n, '名', '茅台'), x'00ff',
        CASE n % 2 WHEN 0 THEN 'buy' ELSE 'sell' END, datetime(1795700818 + n * 60, 'unixepoch') FROM n;";

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_chooses_types_from_all_values_and_shows_the_evidence() {
    let migration = Migration::new();
    migration.file("app.db", RECORDS);
    let text = migration.plan(&["app.db"], &[]);
    for line in [
        r#"{ source = "id", type = "bigint", identity = true }"#,
        r#"{ source = "code", type = "text", not_null = true }"#,
        r#"{ source = "price", type = "double precision" }"#,
        r#"{ source = "cost", type = "numeric(18, 4)" }"#,
        r#"{ source = "is_open", type = "boolean", default = "true" }"#,
        r#"{ source = "noted_at", type = "timestamptz", epoch = "s" }"#,
        r#"{ source = "epoch_ms", type = "timestamptz", epoch = "ms" }"#,
        r#"{ source = "day", type = "date" }"#,
        r#"{ source = "detail", type = "jsonb" }"#,
        r#"{ source = "raw", type = "bytea" }"#,
        r#"{ source = "made", type = "timestamptz", default = "now()" }"#,
        r#"name = "records""#,
        r#"expression = "side IN ( 'buy' , 'sell' )""#,
        r#"{ name = "by_side", columns = ["side", "id"], descending = ["id"] }"#,
        r#"{ name = "by_buy", columns = ["id"], where = "side = 'buy'" }"#,
        r#"using = "gin", operator_class = "jsonb_path_ops""#,
        r#"columns = ["code", "epoch_ms"], descending = ["epoch_ms"]"#,
        "# the index by_expression is not carried over: it uses an expression",
        "# the view expensive is not carried over",
        "# the trigger touched is not carried over",
        "2000 texts, 666 times without an offset, 667 times with an offset",
        "its default writes UTC in SQLite",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // --no-proposals leaves out indexes that the file does not have.
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    let text = migration.plan(&["app.db"], &["--no-proposals"]);
    assert!(!text.contains("using =") && text.contains("by_side"), "{text}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_names_the_rows_that_cannot_be_converted() {
    let migration = Migration::new();
    let file = migration.file("app.db", RECORDS);
    file.execute_batch(
        "UPDATE Records SET noted_at = 'yesterday' WHERE id = 17; UPDATE Records SET noted_at = 'None' WHERE id = 18;
         UPDATE Records SET detail = '{broken' WHERE id = 19; UPDATE Records SET detail = '' WHERE id IN (20, 21);
         UPDATE Records SET side = x'00' WHERE 0;",
    )
    .unwrap();
    let document = migration.json(0, &["plan", "app.db", "--to", &migration.target.url(), "--zone", "Asia/Shanghai"]);
    assert_eq!(document["tables"][0]["source"], "app:Records");
    assert_eq!(document["tables"][0]["target"], "app.records");
    assert_eq!(document["tables"][0]["rows"], 2000);
    assert_eq!(document["tables"][0]["rejected"], 2);
    let text = migration.plan_text();
    assert!(text.contains("row 17: 'yesterday', it is not a time"), "{text}");
    assert!(text.contains("row 19: '{broken', it is not valid JSON"), "{text}");
    assert!(text.contains(r#"nulls = ["None"]"#) && text.contains("texts that become NULL: '' (2)"), "{text}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_contains_no_password_and_can_name_an_env_file() {
    let migration = Migration::new();
    migration.file("app.db", RECORDS);
    let url = url::with_password(&migration.target.url(), "s3cret-word");
    let run = migration.migrate(&["plan", "app.db", "--to", &url]);
    assert!(!run.transcript().contains("s3cret-word") || run.exit() != 0, "{}", run.transcript());
    let server = crate::support::postgres::server(15);
    let database = &migration.target.name;
    std::fs::write(
        migration.sandbox.path(".env"),
        format!(
            "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={}\nTDX_DB_NAME={database}\nTDX_DB_USER={}\nTDX_DB_PASSWORD={}\n",
            server.port, server.user, server.password
        ),
    )
    .unwrap();
    let mut command = migration.command(&["plan", "app.db", "--env-prefix", "TDX_DB_", "--output", "other.toml"]);
    command.env_remove("PGPASSWORD");
    migration.sandbox.finish(command).code(0);
    let text = std::fs::read_to_string(migration.sandbox.path("other.toml")).unwrap();
    assert!(text.contains("env_prefix = \"TDX_DB_\"") && !text.contains(&server.password), "{text}");
    let mut command = migration.command(&["run", "other.toml"]);
    command.env_remove("PGPASSWORD");
    migration.sandbox.finish(command).code(0);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.records"), "2000");
}

mod url {
    /// Returns the URL with another password.
    pub(crate) fn with_password(url: &str, password: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (user, address) = rest.split_once('@').unwrap();
        format!("{scheme}://{}:{password}@{address}", user.split(':').next().unwrap())
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn tables_of_two_files_with_the_same_target_are_reported_and_not_loaded() {
    let migration = Migration::new();
    for name in ["one.db", "two.db"] {
        migration.file(
            name,
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO notes VALUES (1, 'a'), (2, 'b')",
        );
    }
    let url = migration.target.url();
    let document = migration.json(3, &["plan", "one.db", "two.db", "--to", &url]);
    assert_eq!(document["ok"], false);
    assert_eq!(document["differences"][0]["kind"], "clash");
    migration.migrate(&["run", "plan.toml"]).code(2).says("would both become app.notes");
    assert!(!migration.exists("app.notes") && !migration.exists("lifeboat_migrate.plans"));
    // With merge, both are loaded into one table. A row with a key that exists already is rejected.
    migration.edit_plan("name = \"notes\"\ncolumns", "name = \"notes\"\nmerge = true\ncolumns");
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!((&document["tables"][0]["rows"], &document["tables"][0]["rejected"]), (&2.into(), &0.into()));
    assert_eq!((&document["tables"][1]["rows"], &document["tables"][1]["rejected"]), (&0.into(), &2.into()));
    assert_eq!(migration.rejects()[0], "notes 1 another row has the same key (id)");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn an_invalid_plan_is_refused_with_the_line_or_the_name() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT); INSERT INTO t VALUES (1, '2026-01-01 10:00:00')",
    );
    migration.plan(&["app.db"], &[]);
    let original = migration.plan_text();
    let cases = [
        ("primary_key = [\"id\"]", "primary_key = [\"nope\"]", "it has no column nope"),
        ("format = 1", "format = 2", "it has format 2"),
        ("rejects = \"table\"", "rejects = \"guess\"", "line "),
        ("zone = \"Asia/Shanghai\"", "zone = \"Asia/Nowhere\"", "line "),
        ("source = \"t\"", "source = \"u\"", "there is no table app:u"),
        (
            "primary_key = [\"id\"]",
            "primary_key = [\"id\"]\nhypertable = { time = \"at\", interval = \"1 day\" }",
            "cannot keep (id) unique",
        ),
        (
            "primary_key = [\"id\"]",
            "primary_key = [\"id\", \"at\"]\nhypertable = { time = \"at\", interval = \"1 day\" }",
            "has no TimescaleDB",
        ),
        ("schema = \"app\"", "schema = \"\"", "cannot be a name"),
        ("source = \"id\"", "sauce = \"id\"", "line "),
    ];
    for (from, to, message) in cases {
        migration.edit_plan(from, to);
        migration.migrate(&["run", "plan.toml"]).code(2).says(message);
        assert!(!migration.exists("app.t"), "{to}");
        std::fs::write(migration.sandbox.path("plan.toml"), &original).unwrap();
    }
    // An existing plan is never overwritten.
    migration.migrate(&["plan", "app.db", "--to", &migration.target.url()]).code(2).says("plan.toml already exists");
    migration.migrate(&["plan", "gone.db", "--to", &migration.target.url(), "--output", "p"]).code(5);
    migration.migrate(&["plan", "app.db", "--output", "p"]).code(2).says("no target is named");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_default_that_fails_in_the_target_is_found_by_the_plan() {
    let migration = Migration::new();
    migration.file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT DEFAULT (substr('abc', 3000000000)))");
    let document = migration.json(3, &["plan", "app.db", "--to", &migration.target.url()]);
    let found = document["differences"].to_string();
    assert!(found.contains("the default of its column v cannot be computed: substr('abc'"), "{found}");
    assert!(found.contains("integer out of range"), "{found}");
}

/// Returns the messages of the differences of a plan that cannot be run.
#[track_caller]
fn conflicts(migration: &Migration, arguments: &[&str]) -> String {
    let _ = std::fs::remove_file(migration.sandbox.path("plan.toml"));
    let document = migration.json(3, &[&["plan"], arguments].concat());
    let messages = document["differences"].as_array().unwrap().iter().map(|one| one["message"].as_str().unwrap());
    messages.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn require(found: &str, parts: &[&str]) {
    for part in parts {
        assert!(found.contains(part), "{part} is not in\n{found}");
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_finds_what_the_target_would_refuse_only_while_rows_are_loaded() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted VALUES (40000); DELETE FROM counted;
         CREATE TABLE raises (id INTEGER PRIMARY KEY); INSERT INTO raises VALUES (1), (2);
         CREATE TABLE silent (id INTEGER PRIMARY KEY); INSERT INTO silent VALUES (1);
         CREATE TABLE works (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO works VALUES (1, 'x');
         CREATE TABLE ruled (id INTEGER PRIMARY KEY); CREATE TABLE staged (id INTEGER PRIMARY KEY, lifeboat_n TEXT);
         CREATE TABLE whole (id INTEGER PRIMARY KEY, k INTEGER); CREATE TABLE part (id INTEGER PRIMARY KEY, k INTEGER);
         CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER); CREATE TABLE p (id INTEGER PRIMARY KEY);",
    );
    migration.target.psql(
        "CREATE SCHEMA app; SET search_path = app; CREATE TABLE counted (id smallserial PRIMARY KEY);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not on Tuesdays'; END$$;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
         CREATE FUNCTION fine() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.v := upper(NEW.v); RETURN NEW; END$$;
         CREATE TABLE raises (id bigint PRIMARY KEY); CREATE TABLE silent (id bigint PRIMARY KEY);
         CREATE TABLE works (id bigint PRIMARY KEY, v text);
         CREATE TRIGGER t AFTER INSERT ON raises FOR EACH ROW EXECUTE FUNCTION no();
         CREATE TRIGGER t BEFORE INSERT ON silent FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE TRIGGER t BEFORE INSERT ON works FOR EACH ROW EXECUTE FUNCTION fine();
         CREATE TABLE ruled (id bigint PRIMARY KEY); CREATE RULE away AS ON INSERT TO ruled DO INSTEAD NOTHING;
         CREATE TABLE staged (id bigint PRIMARY KEY, lifeboat_n text);
         CREATE TABLE whole (id bigint, k bigint, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         CREATE TABLE part PARTITION OF whole FOR VALUES IN (1);
         CREATE TABLE p (id bigint PRIMARY KEY); CREATE TABLE c (id bigint PRIMARY KEY, p bigint REFERENCES p);
         CREATE FUNCTION no_change() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
             IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE schema_name = 'app') THEN RAISE EXCEPTION 'no changes here'; END IF; END$$;
         CREATE EVENT TRIGGER no_change ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION no_change();",
    );
    let url = migration.target.url();
    let found = conflicts(&migration, &["app.db", "--to", &url]);
    require(
        &found,
        &[
            "app.counted: the file has counted id up to 40000, but the sequence app.counted_id_seq ends at 32767",
            "app.raises: a trigger refuses its first row (not on Tuesdays",
            "app.silent: a trigger leaves out its first row",
            "app.ruled: its rules for INSERT change what is loaded: ALTER TABLE app.ruled DISABLE RULE away",
            "app.staged: the tables through which rows are loaded have a column named lifeboat_n too",
            "app.part: its rows are rows of app.whole too, which the file fills as well",
            "app.c: cannot drop the foreign key c_p_fkey and create it again: no changes here",
        ],
    );
    assert_eq!(found.lines().count(), 7, "{found}");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.works"), "0");
    // Tables that would become one table do not keep the others from being tried.
    migration.file("two.db", "CREATE TABLE works (id INTEGER PRIMARY KEY, v TEXT)");
    let found = conflicts(&migration, &["app.db", "two.db", "--to", &url]);
    require(&found, &["would all become app.works", "app.raises: a trigger refuses its first row"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_finds_the_privileges_that_loading_needs() {
    let migration = Migration::new();
    migration.file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    migration.target.psql(format!(
        "CREATE SCHEMA app; SET search_path = app; CREATE SEQUENCE numbers;
         CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT nextval('numbers'));
         REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC",
        migration.target.name
    ));
    let url = migration.role_with("SELECT, INSERT, DELETE");
    let found = conflicts(&migration, &["app.db", "--to", &url]);
    require(&found, &["GRANT USAGE ON SEQUENCE app.numbers TO the role", "GRANT TEMPORARY ON DATABASE"]);
    assert_eq!(found.lines().count(), 2, "{found}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn sequences_of_defaults_are_moved_and_unusual_names_are_told_apart() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (5, 50), (7, NULL);
         CREATE TABLE fresh (lifeboat_n INTEGER PRIMARY KEY, É TEXT, é INTEGER); INSERT INTO fresh VALUES (1, 'A', 2);
         CREATE TABLE Én (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE én (id INTEGER PRIMARY KEY, other TEXT);
         CREATE TABLE child (id INTEGER PRIMARY KEY, a REFERENCES Én, b REFERENCES én);
         INSERT INTO Én VALUES (1, 'x'); INSERT INTO én VALUES (2, 'y'); INSERT INTO child VALUES (1, 1, 2);",
    );
    migration.target.psql(
        "CREATE SCHEMA app; SET search_path = app; CREATE SEQUENCE ids; CREATE SEQUENCE numbers;
         CREATE TABLE t (id bigint PRIMARY KEY DEFAULT nextval('ids'), n bigint DEFAULT nextval('numbers'));
         CREATE TABLE én (id bigint PRIMARY KEY, other text)",
    );
    migration.json(0, &["plan", "app.db", "--to", &migration.target.url()]);
    migration.json(0, &["run", "plan.toml"]);
    migration.json(0, &["verify", "plan.toml"]);
    migration.target.psql("INSERT INTO app.t DEFAULT VALUES");
    assert_eq!(migration.target.query("SELECT id, n FROM app.t WHERE id > 7"), [["8", "51"]]);
    let row = migration.target.query("SELECT lifeboat_n_, \"É\", é FROM app.fresh");
    assert_eq!(row, [["1", "A", "2"]]);
    assert_eq!(migration.target.query("SELECT v, other FROM app.\"Én\", app.én"), [["x", "y"]]);
    migration.target.psql("SELECT setval('app.ids', 6)");
    let verified = migration.json(3, &["verify", "plan.toml"]);
    require(&verified["differences"].to_string(), &["the next number of id is already used"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_column_that_a_trigger_fills_needs_no_default() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE filled (id INTEGER PRIMARY KEY); INSERT INTO filled VALUES (1);
         CREATE TABLE empty (id INTEGER PRIMARY KEY); INSERT INTO empty VALUES (1);",
    );
    migration.target.psql(
        "CREATE SCHEMA app; SET search_path = app; CREATE TABLE filled (id bigint PRIMARY KEY, must text NOT NULL);
         CREATE TABLE empty (id bigint PRIMARY KEY, must text NOT NULL);
         CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.must := 'x'; RETURN NEW; END$$;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
         CREATE TRIGGER t BEFORE INSERT ON filled FOR EACH ROW EXECUTE FUNCTION fill();
         CREATE TRIGGER t BEFORE INSERT ON empty FOR EACH ROW EXECUTE FUNCTION nothing();",
    );
    let url = migration.target.url();
    let found = conflicts(&migration, &["app.db", "--to", &url]);
    require(&found, &["app.empty: its first row is refused (null value in column \"must\"", "give it a default"]);
    assert_eq!(found.lines().count(), 1, "{found}");
    // The notes of a migration are not a part of the database that it fills.
    let environment = |arguments: &[&str]| {
        let mut command = migration.sandbox.command(arguments);
        command.args(["--store", "store"]).env("PGPASSWORD", &migration.target.server.password);
        migration.sandbox.finish(command)
    };
    migration.target.psql("ALTER TABLE app.empty ALTER must SET DEFAULT 'y'");
    let saved = environment(&["snapshot", &url, "--json"]).code(0).json();
    let id = saved["snapshots"][0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_file(migration.sandbox.path("plan.toml")).unwrap();
    migration.json(0, &["plan", "app.db", "--to", &url]);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(
        migration.target.query("SELECT must FROM app.filled UNION SELECT must FROM app.empty ORDER BY 1"),
        [["x"], ["y"]]
    );
    let compared = environment(&["diff", &id, &url, "--json"]).json();
    assert_eq!((&compared["schema_equal"], &compared["equal"]), (&true.into(), &false.into()), "{compared}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rows_of_an_existing_table_are_counted_to_the_end_and_by_what_happens_to_them() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, at TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO t SELECT i, 'not a number', '2026-01-01 10:00:00.1234567' FROM n;
         UPDATE t SET n = '5' WHERE id <= 10;",
    );
    migration.target.psql("CREATE SCHEMA app; CREATE TABLE app.t (id bigint PRIMARY KEY, n integer, at timestamptz)");
    let planned = migration.json(0, &["plan", "app.db", "--to", &migration.target.url()]);
    assert_eq!(planned["tables"][0]["rejected"], 2990, "{planned}");
    require(&planned["notes"].to_string(), &["at: 10 times have digits beyond microseconds"]);
    let run = migration.json(0, &["run", "plan.toml"]);
    require(&run["notes"].to_string(), &["at: 10 times have digits beyond microseconds"]);
    migration.json(0, &["verify", "plan.toml"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_partial_index_is_judged_by_the_rows_that_it_has() {
    let migration = Migration::new();
    migration.file(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, kind INTEGER);
         INSERT INTO t VALUES (1, hex(randomblob(9000)), 1), (2, 'short', 2);
         CREATE INDEX all_rows ON t (v); CREATE INDEX some_rows ON t (v) WHERE kind = 2; CREATE INDEX long_row ON t (v) WHERE kind = 1;",
    );
    let text = migration.plan(&["app.db"], &[]);
    require(&text, &["the index all_rows (v) is too long", "the index long_row (v) is too long"]);
    require(&text, &[r#"{ name = "some_rows", columns = ["v"], where = "kind = 2" }"#]);
    migration.json(0, &["run", "plan.toml"]);
    migration.json(0, &["verify", "plan.toml"]);
}
