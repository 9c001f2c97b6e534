//! Plans for tables that the target has already, as an app's own migrations make them.

use serde_json::Value;

use super::helpers::Migration;

/// Returns a migration of a file into a target that was prepared with this SQL, in the schema `app`.
fn prepared(file: &str, target: &str) -> Migration {
    let migration = Migration::new();
    migration.file("app.db", file);
    migration.target.psql(format!("CREATE SCHEMA app; SET search_path = app; {target}"));
    migration
}

/// Runs `plan` for this target, and requires this exit code.
#[track_caller]
fn plan_for(migration: &Migration, url: &str, code: i32, more: &[&str]) -> Value {
    let _ = std::fs::remove_file(migration.sandbox.path("plan.toml"));
    migration.json(code, &[&["plan", "app.db", "--to", url], more].concat())
}

#[track_caller]
fn plan(migration: &Migration, code: i32, more: &[&str]) -> Value {
    plan_for(migration, &migration.target.url(), code, more)
}

/// Plans, runs and verifies without any difference.
#[track_caller]
fn migrate(migration: &Migration, url: &str) {
    plan_for(migration, url, 0, &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration.json(0, &["verify", "plan.toml"]);
}

/// The messages of a document's differences.
fn messages(document: &Value) -> String {
    let differences = document["differences"].as_array().unwrap();
    differences.iter().map(|one| one["message"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The definitions and comments of the target's foreign keys.
fn foreign_keys(migration: &Migration) -> Vec<Vec<String>> {
    migration.target.query(
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')
           FROM pg_constraint WHERE contype = 'f' AND connamespace = 'app'::regnamespace ORDER BY 1, 2",
    )
}

/// Every table refers to one that comes later in the file, to itself, or to one that refers back. The last people come in a
/// second chunk.
const REFERENCES: &str = "
    CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL);
    CREATE TABLE parents (id INTEGER PRIMARY KEY, favourite INTEGER);
    CREATE TABLE people (id INTEGER PRIMARY KEY, manager INTEGER);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO parents SELECT i, CASE WHEN i % 100 = 0 THEN 20001 - i END FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO children SELECT i, 20001 - i FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
        INSERT INTO people SELECT i, CASE WHEN i % 2000 < 4 AND i < 59000 THEN i + 1000 END FROM n;";

const REFERRED: &str = "
    CREATE TABLE parents (id bigint PRIMARY KEY, favourite bigint);
    CREATE TABLE children (id bigint PRIMARY KEY, parent bigint NOT NULL REFERENCES parents ON DELETE CASCADE);
    ALTER TABLE parents ADD CONSTRAINT fav FOREIGN KEY (favourite) REFERENCES children DEFERRABLE INITIALLY DEFERRED;
    COMMENT ON CONSTRAINT fav ON parents IS 'the one that is loved most';
    CREATE TABLE people (id bigint PRIMARY KEY, manager bigint REFERENCES people);
    CREATE INDEX ON children (parent); CREATE INDEX ON parents (favourite); CREATE INDEX ON people (manager);";

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rows_may_refer_to_rows_that_are_loaded_later() {
    let counts =
        "SELECT (SELECT count(*) FROM app.children), (SELECT count(*) FROM app.people WHERE manager IS NOT NULL)";
    for privileges in ["", "SELECT, INSERT, DELETE"] {
        // Two rows that refer to each other can be loaded only if a key is dropped.
        let favourite = if privileges.is_empty() { "THEN 20001 - i END" } else { "THEN i END" };
        let migration = prepared(&REFERENCES.replace("THEN 20001 - i END", favourite), REFERRED);
        let before = foreign_keys(&migration);
        // A role that owns no table cannot drop the keys.
        let url = if privileges.is_empty() { migration.target.url() } else { migration.role_with(privileges) };
        migrate(&migration, &url);
        assert_eq!(migration.rejects(), [""; 0]);
        assert_eq!(foreign_keys(&migration), before);
        assert_eq!(migration.target.query(counts), [["20000", "119"]]);
        migration.json(0, &["rollback", "plan.toml"]);
        assert_eq!(migration.target.query(counts), [["0", "0"]]);
        assert_eq!(foreign_keys(&migration), before);
        migrate(&migration, &url);
    }
}

/// The orphans are those that refer to no row, and those that refer to an orphan.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_row_that_refers_to_a_missing_row_is_rejected_and_the_run_says_so() {
    let file = "CREATE TABLE c (id INTEGER PRIMARY KEY, b INTEGER); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER);
        CREATE TABLE a (id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (10, 1), (11, 7), (12, NULL);
        INSERT INTO c VALUES (100, 10), (101, 11), (102, 12);";
    let target =
        "CREATE TABLE a (id bigint PRIMARY KEY); CREATE TABLE b (id bigint PRIMARY KEY, a bigint REFERENCES a);
        CREATE TABLE c (id bigint PRIMARY KEY, b bigint REFERENCES b ON DELETE CASCADE);";
    for privileges in ["", "SELECT, INSERT, DELETE"] {
        let migration = prepared(file, target);
        let before = foreign_keys(&migration);
        let url = if privileges.is_empty() { migration.target.url() } else { migration.role_with(privileges) };
        plan_for(&migration, &url, 0, &[]);
        let run = migration.json(3, &["run", "plan.toml"]);
        let found = messages(&run);
        for words in
            ["app.b: 1 rows of app:b were rejected, and the plan expects at most 0", "b_a_fkey", "row 11", "row 101"]
        {
            assert!(found.contains(words), "{words}: {found}");
        }
        assert_eq!(foreign_keys(&migration), before);
        assert_eq!(migration.target.query("SELECT id FROM app.c ORDER BY 1"), [["100"], ["102"]]);
        let verified = migration.json(3, &["verify", "plan.toml"]);
        assert_eq!(messages(&verified), found);
        // A plan that is complete loads nothing any more, although the missing row has arrived.
        migration.target.psql("INSERT INTO app.a VALUES (7)");
        let again = migration.json(3, &["run", "plan.toml"]);
        assert_eq!(messages(&again), found);
        assert!(again["notes"].to_string().contains("the plan was completed before"), "{again}");
        assert_eq!(migration.target.value("SELECT count(*) FROM app.b"), "2");
        migration.target.psql("DELETE FROM app.a WHERE id = 7");
        // Somebody has looked at these rows.
        migration.edit_plan("existing = true", "existing = true\nexpected_rejects = 1");
        migration.json(0, &["verify", "plan.toml"]);
        migration.json(0, &["run", "plan.toml"]);
        migration.json(0, &["rollback", "plan.toml"]);
        assert_eq!(migration.target.value("SELECT count(*) FROM app.b"), "0");
    }
}

/// A key of a partitioned table stays while rows are loaded. The orphans are `a` 2 and `b` 11, the other rows refer to them.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn rows_that_refer_to_a_rejected_row_by_a_key_that_stays_are_rejected_by_name() {
    let file = "CREATE TABLE z (id INTEGER PRIMARY KEY); CREATE TABLE a (id INTEGER PRIMARY KEY, z INTEGER);
        CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER); CREATE TABLE c (id INTEGER PRIMARY KEY, b INTEGER);
        INSERT INTO z VALUES (0); INSERT INTO a VALUES (1, 0), (2, 9); INSERT INTO b VALUES (10, 1), (11, 7), (12, 2);
        INSERT INTO c VALUES (100, 10), (101, 11), (102, 12), (103, NULL);";
    for action in ["CASCADE", "SET NULL", "NO ACTION"] {
        let target = format!(
            "CREATE TABLE z (id bigint PRIMARY KEY); CREATE TABLE a (id bigint PRIMARY KEY, z bigint REFERENCES z);
             CREATE TABLE b (id bigint PRIMARY KEY, a bigint REFERENCES a);
             CREATE TABLE c (id bigint PRIMARY KEY, b bigint REFERENCES b ON DELETE {action}) PARTITION BY RANGE (id);
             CREATE TABLE every PARTITION OF c DEFAULT;"
        );
        let migration = prepared(file, &target);
        let before = foreign_keys(&migration);
        plan(&migration, 0, &[]);
        migration.json(3, &["run", "plan.toml"]);
        let missing =
            |table: &str, parent: &str| format!("the foreign key {table}_{parent}_fkey finds no row in app.{parent}");
        let expected = [
            format!("a 2 {}", missing("a", "z")),
            format!("b 11 {}", missing("b", "a")),
            format!("b 12 {}", missing("b", "a")),
            format!("c 101 {}", missing("c", "b")),
            format!("c 102 {}", missing("c", "b")),
        ];
        assert_eq!(migration.rejects(), expected, "{action}");
        assert_eq!(
            migration.target.query("SELECT id, coalesce(b, 0) FROM app.c ORDER BY 1"),
            [["100", "10"], ["103", "0"]]
        );
        assert_eq!(foreign_keys(&migration), before);
        migration.json(0, &["rollback", "plan.toml"]);
    }
}

/// Rows of a table that is not in the plan would be deleted together with a rejected row.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_rejected_row_that_rows_of_others_refer_to_is_not_deleted() {
    let file = "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER);
        INSERT INTO a VALUES (1); INSERT INTO b VALUES (10, 1), (11, 7);";
    let target =
        "CREATE TABLE a (id bigint PRIMARY KEY); CREATE TABLE b (id bigint PRIMARY KEY, a bigint REFERENCES a);
        CREATE TABLE public.visits (b bigint REFERENCES b ON DELETE CASCADE);
        CREATE FUNCTION visit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            INSERT INTO public.visits VALUES (NEW.id); RETURN NULL; END$$;
        CREATE TRIGGER visit AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION visit();";
    let migration = prepared(file, target);
    plan(&migration, 0, &[]);
    let run = migration.migrate(&["run", "plan.toml"]).code(3);
    run.says("1 rows of public.visits refer to rows of app.b that violate a foreign key");
    assert_eq!(migration.target.value("SELECT count(*) FROM public.visits"), "2");
    migration.target.psql("DELETE FROM public.visits WHERE b = 11");
    migration.json(3, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM public.visits JOIN app.b ON b = id"), "1");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rejected_rows_that_the_plan_does_not_expect_fail_the_run_and_the_comparison() {
    let migration = prepared(
        "CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, n TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
             INSERT INTO tag SELECT i, 'longer ' || i, i FROM n; INSERT INTO tag VALUES (99, 'ok', 'no number')",
        "CREATE TABLE tag (id bigint PRIMARY KEY, name text CHECK (length(name) < 4), n integer)",
    );
    // The value that is no number is expected.
    let planned = plan(&migration, 0, &[]);
    assert_eq!(planned["tables"][0]["rejected"], 1);
    assert!(migration.plan_text().contains("expected_rejects = 1"), "{}", migration.plan_text());
    let run = migration.migrate(&["run", "plan.toml"]).code(3);
    for words in
        ["51 rows of app:tag were rejected", "at most 1", "tag_name_check", "first in row 1", "expected_rejects"]
    {
        assert!(run.stdout().contains(words), "{words}: {}", run.transcript());
    }
    migration.migrate(&["verify", "plan.toml"]).code(3);
    migration.edit_plan("expected_rejects = 1", "expected_rejects = 51");
    migration.json(0, &["verify", "plan.toml"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_takes_names_types_keys_and_nullability_from_the_target() {
    let migration = prepared(
        "CREATE TABLE MediaRequest (Id INTEGER PRIMARY KEY, requestedById INTEGER, is4k BOOLEAN, note TEXT NOT NULL, code TEXT,
             price REAL, at DATETIME, mood TEXT, doubled INTEGER);
         INSERT INTO MediaRequest VALUES (1, 2, 1, '', 'abc', 1.25, '2026-01-02 03:04:05.678', 'fine', 99),
             (2, 3, 0, 'x', 'too long', 1.5, '2026-01-02 03:04:05', 'fine', 99),
             (3, 4, 1, 'y', 'd', 1.125, '2026-01-02', 'fine', 99), (4, 5, 1, 'y', 'd', 1, '2026-01-02 00:00:00.0001', 'fine', 99);",
        "CREATE TYPE \"Mood\" AS ENUM ('fine');
         CREATE TABLE \"MediaRequest\" (\"Id\" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"requestedById\" integer UNIQUE,
             is4k boolean, note text, code varchar(3), price numeric(10, 2), at timestamp(3), mood \"Mood\", extra text DEFAULT 'e',
             doubled bigint GENERATED ALWAYS AS (\"requestedById\" * 2) STORED);
         CREATE FUNCTION helper() RETURNS text LANGUAGE sql AS $$SELECT 'by the trigger'$$;
         CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.extra := helper(); RETURN NEW; END$$;
         CREATE TRIGGER on_insert BEFORE INSERT ON \"MediaRequest\" FOR EACH ROW EXECUTE FUNCTION fires();",
    );
    migration.target.psql(format!("ALTER DATABASE {} SET search_path = app", migration.target.name));
    let planned = plan(&migration, 0, &[]);
    assert_eq!(planned["tables"][0]["target"], "app.MediaRequest");
    assert_eq!(planned["tables"][0]["rejected"], 3, "{planned}");
    let notes = planned["notes"].to_string();
    for words in ["on_insert", "get their defaults: extra", "the target computes doubled"] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    migration.json(0, &["run", "plan.toml"]);
    let rows = migration.target.query(
        "SELECT \"Id\", \"requestedById\", is4k, note = '', code, price, at, mood, extra, doubled FROM app.\"MediaRequest\"",
    );
    assert_eq!(rows, [["1", "2", "t", "t", "abc", "1.25", "2026-01-02 03:04:05.678", "fine", "by the trigger", "4"]]);
    migration.json(0, &["verify", "plan.toml"]);
    // The sequence goes on after the greatest number.
    migration.target.psql("INSERT INTO app.\"MediaRequest\" (code) VALUES ('n')");
    assert_eq!(migration.target.value("SELECT max(\"Id\") FROM app.\"MediaRequest\""), "2");
}

/// A trigger that leaves rows out would lose them. A key that checks new rows only still checks those that are loaded.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn rows_that_a_trigger_leaves_out_fail_the_run_and_a_key_that_is_not_valid_checks_new_rows() {
    let file = "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER); CREATE TABLE p (id INTEGER PRIMARY KEY);
        INSERT INTO p VALUES (1); INSERT INTO t VALUES (1, 1), (2, 2), (3, NULL);";
    let target = "CREATE TABLE p (id bigint PRIMARY KEY); CREATE TABLE t (id bigint PRIMARY KEY, p bigint);
        ALTER TABLE t ADD CONSTRAINT later FOREIGN KEY (p) REFERENCES p NOT VALID;
        CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            IF NEW.id = 3 THEN RETURN NULL; END IF; RETURN NEW; END$$;
        CREATE TRIGGER leave_out BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION leave_out();";
    let migration = prepared(file, target);
    let before = foreign_keys(&migration);
    plan(&migration, 0, &[]);
    migration.migrate(&["run", "plan.toml"]).code(3).says("only 2 were stored").says("a trigger");
    migration.target.psql("ALTER TABLE app.t DISABLE TRIGGER leave_out");
    let run = migration.json(3, &["run", "plan.toml"]);
    assert!(messages(&run).contains("the foreign key later finds no row in app.p (1, first in row 2)"), "{run}");
    assert_eq!(migration.target.query("SELECT id FROM app.t ORDER BY 1"), [["1"], ["3"]]);
    assert_eq!(foreign_keys(&migration), before);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn names_of_new_tables_keep_their_case_if_that_is_asked_for() {
    let migration = prepared(
        "CREATE TABLE MediaRequest (Id INTEGER PRIMARY KEY, requestedById INTEGER);
        INSERT INTO MediaRequest VALUES (1, 2); CREATE INDEX byWhom ON MediaRequest (requestedById);",
        "",
    );
    plan(&migration, 0, &["--keep-case"]);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT \"requestedById\" FROM app.\"MediaRequest\" WHERE \"Id\" = 1"), "2");
    assert!(migration.exists("app.\"byWhom\""));
    migration.json(0, &["verify", "plan.toml"]);
    migration.json(0, &["rollback", "plan.toml"]);
    plan(&migration, 0, &[]);
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT requestedbyid FROM app.mediarequest"), "2");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_names_everything_that_prevents_the_run_at_once() {
    let wide: Vec<String> = (0..1700).map(|number| format!("c{number} INTEGER")).collect();
    let file = format!(
        "CREATE TABLE held (id INTEGER PRIMARY KEY); CREATE TABLE seen (id INTEGER PRIMARY KEY);
         CREATE TABLE lacks (id INTEGER PRIMARY KEY, more TEXT, other TEXT); CREATE TABLE wide ({});
         CREATE TABLE fine (id INTEGER PRIMARY KEY);",
        wide.join(", ")
    );
    let target =
        "CREATE TABLE held (id bigint PRIMARY KEY); INSERT INTO held VALUES (1); CREATE VIEW seen AS SELECT 1 AS id;
        CREATE TABLE lacks (id bigint PRIMARY KEY, must text NOT NULL);";
    let migration = prepared(&file, target);
    let planned = plan(&migration, 3, &[]);
    let found = messages(&planned);
    for words in [
        "app.held already exists and has rows",
        "a view of that name",
        "no column for more: ALTER TABLE app.lacks ADD COLUMN more text",
        "no column for other",
        "column must is NOT NULL without a default",
        "at most 1600 columns",
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    assert!(!found.contains("app.fine"), "{found}");
    assert!(migration.plan_text().contains("# CONFLICT: "), "{}", migration.plan_text());
    assert!(!migration.exists("app.fine") && !migration.exists("lifeboat_migrate.plans"));

    migration.target.psql("ALTER TABLE app.lacks ALTER id ADD GENERATED BY DEFAULT AS IDENTITY");
    let url = migration.role_with("SELECT");
    let found = messages(&plan_for(&migration, &url, 3, &[]));
    for words in [
        "GRANT SELECT, UPDATE ON SEQUENCE app.lacks_id_seq",
        "GRANT INSERT, DELETE ON app.lacks",
        "permission denied for schema app",
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }

    // Names that an index would share with a table, an object of the target, or a primary key are not proposed.
    let file = "CREATE TABLE Users (id INTEGER PRIMARY KEY, n TEXT); CREATE INDEX users_pkey ON Users (n);
        CREATE INDEX taken ON Users (n, id); CREATE TABLE t2 (id INTEGER PRIMARY KEY);";
    let migration = prepared("", "CREATE SEQUENCE taken");
    let empty = plan(&migration, 3, &[]);
    assert!(messages(&empty).contains("no tables"), "{empty}");
    migration.file("app.db", file);
    migrate(&migration, &migration.target.url());
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn what_is_not_done_yet_may_be_edited_in_the_plan_of_an_interrupted_run() {
    let file = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT); CREATE INDEX t_a ON t (a);
        CREATE UNIQUE INDEX t_b ON t (b); INSERT INTO t VALUES (1, 'x', 'y');";
    let migration = prepared(file, "");
    plan(&migration, 0, &[]);
    // Another program makes an index of that name after the plan was tried, and while the run loads rows.
    let lock =
        "CREATE TABLE app.blocks (a int); CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'no index today'; END$$;
        CREATE EVENT TRIGGER stop ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.stop()";
    migration.target.psql(lock);
    migration.migrate(&["run", "plan.toml"]).code(1).says("no index today");
    migration.target.psql("DROP EVENT TRIGGER stop");
    migration.edit_plan("name = \"t_a\", columns = [\"a\"]", "name = \"t_other\", columns = [\"a\", \"b\"]");
    migration.json(0, &["run", "plan.toml"]);
    assert!(migration.exists("app.t_other") && migration.exists("app.t_b") && !migration.exists("app.t_a"));
    migration.json(0, &["verify", "plan.toml"]);
    // Steps that are done cannot be edited, and neither can columns.
    migration.edit_plan("columns = [\"a\", \"b\"]", "columns = [\"b\"]");
    migration.migrate(&["run", "plan.toml"]).code(2).says("the step 'index app.t t_other' is done");
    migration.edit_plan("columns = [\"b\"]", "columns = [\"a\", \"b\"]");
    migration.edit_plan("source = \"a\"", "source = \"b\"");
    migration.migrate(&["run", "plan.toml"]).code(2);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_leaves_and_names_what_others_have_made() {
    let file = "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);
        CREATE TABLE c (id INTEGER PRIMARY KEY, d INTEGER REFERENCES d); CREATE TABLE d (id INTEGER PRIMARY KEY, c INTEGER REFERENCES c);
        INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1); INSERT INTO c VALUES (1, 1); INSERT INTO d VALUES (1, 1);";
    let migration = prepared(file, "");
    plan(&migration, 0, &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration.target.psql(
        "CREATE VIEW public.v AS SELECT * FROM app.d; CREATE TABLE public.orders (b bigint REFERENCES app.b ON DELETE CASCADE);
         INSERT INTO public.orders VALUES (1)",
    );
    let notes = migration.json(0, &["rollback", "plan.toml"])["notes"].to_string();
    for words in [
        "app.b is kept with its rows: 1 rows of public.orders refer to it",
        "app.a is kept with its rows: 1 rows of app.b refer to it",
        "app.d is emptied and kept",
        "view public.v depends on table app.d",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    assert_eq!(migration.target.value("SELECT count(*) FROM public.orders JOIN app.b ON b = id"), "1");
    assert_eq!(migration.target.value("SELECT count(*) FROM public.v"), "0");
    assert!(!migration.exists("app.c"));
    // The notes about these tables are kept, and another rollback goes on.
    migration.migrate(&["run", "plan.toml"]).code(2).says("app.a was kept with its rows");
    let notes = migration.json(0, &["rollback", "plan.toml"])["notes"].to_string();
    assert!(notes.contains("app.b is kept with its rows"), "{notes}");
    migration.target.psql("DELETE FROM public.orders");
    let notes = migration.json(0, &["rollback", "plan.toml"])["notes"].to_string();
    assert!(notes.contains("app.b is emptied and kept") && notes.contains("app.d is emptied and kept"), "{notes}");
    // A plan whose tables are empty may be run.
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.query("SELECT count(*) FROM app.b, app.d"), [["1"]]);
    migration.target.psql("DROP TABLE public.orders; DROP VIEW public.v");
    migration.json(0, &["rollback", "plan.toml"]);
    assert!(!migration.exists("app.a") && !migration.exists("app.c") && !migration.exists("lifeboat_migrate.plans"));
}

/// A row with two values that do not fit is one row that is rejected, not two.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_row_is_expected_to_be_rejected_once() {
    let migration = prepared(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT, c INTEGER);
         INSERT INTO t VALUES (1, 'x', 'x', 1), (2, 'y', NULL, 1), (3, '1', '1', -1), (4, '1', '1', 1);",
        "CREATE TABLE t (id bigint PRIMARY KEY, a integer, b integer NOT NULL, c integer CHECK (c > 0))",
    );
    let planned = plan(&migration, 0, &[]);
    assert_eq!(planned["tables"][0]["rejected"], 2, "{planned}");
    let run = migration.json(3, &["run", "plan.toml"]);
    assert!(messages(&run).contains("3 rows of app:t were rejected, and the plan expects at most 2"), "{run}");
}

/// A cast to a domain, or by an operator of another type, changes values or compares them otherwise than the server does.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn domains_and_operators_of_keys_are_those_of_the_target() {
    let file = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, n REAL); INSERT INTO t VALUES (1, 'abc', 1.5), (2, 'abcdef', 1.2345);
        CREATE TABLE c (id INTEGER PRIMARY KEY, p TEXT); CREATE TABLE p (name TEXT PRIMARY KEY);
        INSERT INTO p VALUES ('Ann'); INSERT INTO c VALUES (1, 'ann'), (2, 'nobody');";
    let target = "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext;
        CREATE DOMAIN code AS varchar(3); CREATE DOMAIN amount AS numeric(5, 2);
        CREATE TABLE t (id bigint PRIMARY KEY, v code, n amount);
        CREATE TABLE p (name ext.citext PRIMARY KEY); CREATE TABLE c (id bigint PRIMARY KEY, p ext.citext REFERENCES p);";
    let migration = prepared(file, target);
    plan(&migration, 0, &[]);
    let run = migration.json(3, &["run", "plan.toml"]);
    assert_eq!(migration.target.query("SELECT id, v, n FROM app.t"), [["1", "abc", "1.50"]], "{run}");
    assert_eq!(migration.target.query("SELECT id, p FROM app.c"), [["1", "ann"]], "{run}");
}

/// The app or a person changes tables while a run is interrupted.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn tables_that_change_while_a_run_is_interrupted_are_noticed_and_their_keys_are_kept() {
    let file = "CREATE TABLE q (id INTEGER PRIMARY KEY, p INTEGER); CREATE TABLE p (id INTEGER PRIMARY KEY);
        CREATE TABLE z (id INTEGER PRIMARY KEY, q INTEGER); INSERT INTO p VALUES (1), (2); INSERT INTO q VALUES (1, 1), (2, 2);
        INSERT INTO z VALUES (1, NULL);";
    let target =
        "CREATE TABLE p (id bigint PRIMARY KEY); CREATE TABLE q (id bigint PRIMARY KEY, p bigint REFERENCES p);
        CREATE TABLE z (id bigint PRIMARY KEY, q bigint REFERENCES q);
        CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = '55000'; END$$;";
    let interrupted = || {
        let migration = prepared(file, target);
        let before = foreign_keys(&migration);
        plan(&migration, 0, &[]);
        // The plan would find a trigger that was there before.
        migration.target.psql("CREATE TRIGGER boom BEFORE INSERT ON app.z FOR EACH ROW EXECUTE FUNCTION app.boom()");
        let run = migration.migrate(&["run", "plan.toml", "-j", "1"]).code(1);
        run.says("boom").says("rolled back with 'lifeboat migrate rollback': the foreign key q_p_fkey of app.q");
        assert_eq!(foreign_keys(&migration).len(), 0);
        (migration, before)
    };
    // The table is dropped and created again: its rows are gone.
    let (migration, _) = interrupted();
    migration
        .target
        .psql("DROP TRIGGER boom ON app.z; DROP TABLE app.q; CREATE TABLE app.q (id bigint PRIMARY KEY, p bigint)");
    migration.migrate(&["run", "plan.toml"]).code(3).says("app.q is not the table that the run began with");
    migration.json(0, &["rollback", "plan.toml"]);
    // Its rows are deleted, or exchanged for as many others.
    let other = "DELETE FROM app.q WHERE id = 2; INSERT INTO app.q VALUES (3, 1)";
    for change in ["TRUNCATE app.q", "DELETE FROM app.q WHERE id = 2", "UPDATE app.q SET p = 2 WHERE id = 1", other] {
        let (migration, before) = interrupted();
        migration.target.psql(format!("DROP TRIGGER boom ON app.z; {change}"));
        let run = migration.migrate(&["run", "plan.toml"]).code(3);
        run.says("of the 2 rows that were loaded into app.q").says("rollback");
        let rows = migration.target.query("SELECT * FROM app.q ORDER BY 1");
        if !rows.is_empty() {
            migration.migrate(&["rollback", "plan.toml"]).code(1).says("app.q");
            assert_eq!(migration.target.query("SELECT * FROM app.q ORDER BY 1"), rows, "{change}");
        }
        migration.json(0, &["rollback", "plan.toml", "--even-changed"]);
        assert_eq!(foreign_keys(&migration), before);
        migration.json(0, &["run", "plan.toml"]);
    }
    // Rows of others refer to a row that a dropped key needs.
    let (migration, before) = interrupted();
    migration.target.psql("CREATE TABLE public.x (q bigint REFERENCES app.q); INSERT INTO public.x VALUES (1)");
    let notes = migration.json(0, &["rollback", "plan.toml"])["notes"].to_string();
    assert!(notes.contains("app.q is kept") && notes.contains("app.p is kept"), "{notes}");
    assert!(before.iter().all(|key| foreign_keys(&migration).contains(key)), "{before:?}");
    // The app has created the key itself, and the run goes on.
    let (migration, before) = interrupted();
    migration.target.psql(
        "DROP TRIGGER boom ON app.z; ALTER TABLE app.q ADD CONSTRAINT q_p_fkey FOREIGN KEY (p) REFERENCES app.p (id)",
    );
    let created = "the foreign key q_p_fkey of app.q was not created again: another program has created it";
    let run = migration.migrate(&["run", "plan.toml"]).code(3);
    assert!(run.stdout().contains(&format!("DIFFERENCE {created}")), "{}", run.transcript());
    assert!(messages(&migration.json(3, &["run", "plan.toml"])).contains(created));
    assert_eq!(foreign_keys(&migration), before);
    // The same before a rollback.
    let (migration, before) = interrupted();
    migration.target.psql("ALTER TABLE app.q ADD CONSTRAINT q_p_fkey FOREIGN KEY (p) REFERENCES app.p (id)");
    let notes = migration.json(0, &["rollback", "plan.toml"])["notes"].to_string();
    assert!(notes.contains("another program has created it"), "{notes}");
    assert_eq!(foreign_keys(&migration), before);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_rollback_whose_rows_a_trigger_keeps_fails_and_changes_nothing() {
    let file = "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2);";
    let target = "CREATE TABLE t (id bigint PRIMARY KEY, deleted boolean);
        CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            UPDATE app.t SET deleted = true WHERE id = OLD.id; RETURN NULL; END$$;
        CREATE TRIGGER soft BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION soft();";
    let migration = prepared(file, target);
    plan(&migration, 0, &[]);
    migration.json(0, &["run", "plan.toml"]);
    migration
        .migrate(&["rollback", "plan.toml"])
        .code(1)
        .says("still has rows")
        .says("DISABLE TRIGGER")
        .says("soft of app.t");
    migration.target.psql(
        "CREATE FUNCTION app.never() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'never'; END$$;
         CREATE TRIGGER never BEFORE DELETE ON app.t FOR EACH ROW EXECUTE FUNCTION app.never()",
    );
    let run = migration.migrate(&["rollback", "plan.toml"]).code(1);
    run.says("never").says("nothing was changed").says("DISABLE TRIGGER").says("never of app.t, soft of app.t");
    migration.target.psql("DROP TRIGGER never ON app.t");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t WHERE deleted IS NULL"), "2");
    migration.target.psql("ALTER TABLE app.t DISABLE TRIGGER soft");
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t"), "0");
}

/// The trigger of a child looks for its parent, whose table comes later in the file and whose key is dropped.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn triggers_find_the_rows_that_a_row_refers_to() {
    let file = "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER); CREATE TABLE parent (id INTEGER PRIMARY KEY, n INTEGER);
        INSERT INTO parent VALUES (1, 0), (2, 0); INSERT INTO child VALUES (10, 1), (11, 1), (12, NULL);";
    let target = "CREATE TABLE parent (id bigint PRIMARY KEY, n bigint, children bigint DEFAULT 0);
        CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent);
        CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            UPDATE app.parent SET children = children + 1 WHERE id = NEW.parent; RETURN NULL; END$$;
        CREATE TRIGGER counted AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION counted();";
    let migration = prepared(file, target);
    migrate(&migration, &migration.target.url());
    let children = "SELECT children FROM app.parent ORDER BY id";
    assert_eq!(migration.target.query(children), [["2"], ["0"]]);
    // A block with EXCEPTION has a transaction of its own.
    migration.json(0, &["rollback", "plan.toml"]);
    migration.target.psql(
        "CREATE OR REPLACE FUNCTION app.counted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             UPDATE app.parent SET children = children + 1 WHERE id = NEW.parent; RETURN NULL;
             EXCEPTION WHEN division_by_zero THEN RETURN NULL; END$$",
    );
    let run = migration.migrate(&["run", "plan.toml"]).code(3);
    run.says("1 of the 2 rows that were loaded into app.parent are gone, or were changed")
        .says("a block with EXCEPTION");
    migration.json(0, &["rollback", "plan.toml", "--even-changed"]);
    migration.target.psql("ALTER TABLE app.child DISABLE TRIGGER counted");
    migration.json(0, &["run", "plan.toml"]);
    assert_eq!(migration.target.query(children), [["0"], ["0"]]);
}

/// The row 1 of the first file refers to no row, so that of the second file is loaded.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_rejected_row_does_not_take_the_key_of_a_row_of_another_file() {
    let target = "CREATE TABLE parents (id bigint PRIMARY KEY); CREATE TABLE notes (id bigint PRIMARY KEY, p bigint REFERENCES parents);";
    for privileges in ["", "SELECT, INSERT, DELETE"] {
        let first =
            "CREATE TABLE parents (id INTEGER PRIMARY KEY); CREATE TABLE notes (id INTEGER PRIMARY KEY, p INTEGER);
            INSERT INTO parents VALUES (1), (2), (3); INSERT INTO notes VALUES (1, 9), (2, 2), (3, 9), (4, 9);";
        let migration = prepared(first, target);
        migration.file(
            "two.db",
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, p INTEGER); INSERT INTO notes VALUES (1, 1), (2, 3), (3, 8), (4, NULL);",
        );
        migration.file(
            "three.db",
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, p INTEGER); INSERT INTO notes VALUES (1, 3), (3, 3);",
        );
        let url = if privileges.is_empty() { migration.target.url() } else { migration.role_with(privileges) };
        migration.json(3, &["plan", "app.db", "two.db", "three.db", "--to", &url]);
        migration.edit_plan("name = \"notes\"\n", "name = \"notes\"\nmerge = true\n");
        migration.json(3, &["run", "plan.toml"]);
        let rows = [["1", "1"], ["2", "2"], ["3", "3"], ["4", "0"]];
        assert_eq!(
            migration.target.query("SELECT id, coalesce(p, 0) FROM app.notes ORDER BY 1"),
            rows,
            "{:#?}",
            migration.rejects()
        );
        let rejects = migration.target.query("SELECT file, rowid, state FROM lifeboat_migrate.rejects ORDER BY 1, 2");
        let (orphans, taken): (Vec<_>, Vec<_>) = rejects.into_iter().partition(|row| row[2] != "23505");
        let names = |rows: Vec<Vec<String>>| rows.iter().map(|row| row[..2].join(" ")).collect::<Vec<_>>();
        assert_eq!(names(orphans), ["app 1", "app 3", "app 4", "two 3"]);
        assert_eq!(names(taken), ["three 1", "two 2"]);
        let verified = migration.json(3, &["verify", "plan.toml"]);
        assert!(verified["differences"].as_array().unwrap().iter().all(|one| one["kind"] == "reject"), "{verified}");
        migration.json(0, &["rollback", "plan.toml"]);
    }
}

/// Each row refers to the next one, and the last one to none. The rows of two tables refer to each other.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_long_chain_of_rows_that_ends_in_a_missing_row_is_rejected_at_once() {
    let file = "CREATE TABLE people (id INTEGER PRIMARY KEY, boss INTEGER, friend INTEGER);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
            INSERT INTO people SELECT i, i + 1, CASE WHEN i > 1 THEN i - 1 END FROM n;
        INSERT INTO people VALUES (70000, 70001, NULL), (70001, NULL, 70000), (70002, 70000, 3);
        CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
            INSERT INTO a SELECT i, i FROM n;
        INSERT INTO b SELECT id, id + 1 FROM a; INSERT INTO a VALUES (9000, 9000); INSERT INTO b VALUES (9000, 9000);";
    let target = "CREATE TABLE people (id bigint PRIMARY KEY, boss bigint REFERENCES people ON DELETE CASCADE,
            friend integer REFERENCES people);
        CREATE TABLE a (id bigint PRIMARY KEY, b bigint); CREATE TABLE b (id bigint PRIMARY KEY, a integer REFERENCES a);
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;";
    let migration = prepared(file, target);
    let before = foreign_keys(&migration);
    plan(&migration, 0, &[]);
    let run = migration.json(3, &["run", "plan.toml"]);
    let rejected: Vec<u64> =
        run["tables"].as_array().unwrap().iter().map(|one| one["rejected"].as_u64().unwrap()).collect();
    assert_eq!(rejected, [5000, 5000, 60001], "{run}");
    assert_eq!(migration.target.query("SELECT id FROM app.people ORDER BY 1"), [["70000"], ["70001"]]);
    assert_eq!(foreign_keys(&migration), before);
    migration.json(3, &["verify", "plan.toml"]);
    migration.json(0, &["rollback", "plan.toml"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn rollback_keeps_a_table_that_an_unreadable_table_refers_to_and_says_so() {
    let file = "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2);";
    let migration = prepared(file, "CREATE TABLE t (id bigint PRIMARY KEY)");
    migrate(&migration, &migration.role_with("SELECT, INSERT, DELETE"));
    migration.target.psql("CREATE SCHEMA secret; CREATE TABLE secret.visits (t bigint REFERENCES app.t)");
    let notes = migration.json(0, &["rollback", "plan.toml"])["notes"].to_string();
    let note = "app.t is kept with its rows: secret.visits refers to it, which the role cannot read. Run GRANT SELECT ON secret.visits";
    assert!(notes.contains(note), "{notes}");
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t"), "2");
    migration.target.psql("DROP TABLE secret.visits");
    migration.json(0, &["rollback", "plan.toml"]);
    assert_eq!(migration.target.value("SELECT count(*) FROM app.t"), "0");
}

/// The server makes the codes that the rows refer to.
#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_key_to_a_column_that_is_not_loaded_is_left_to_the_server() {
    let file = "CREATE TABLE people (id INTEGER PRIMARY KEY, boss INTEGER); INSERT INTO people VALUES (1, NULL), (2, 77), (3, NULL);";
    let target = "CREATE TABLE people (id bigint PRIMARY KEY, code bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE,
            boss bigint REFERENCES people (code));";
    for privileges in ["", "SELECT, INSERT, DELETE"] {
        let migration = prepared(file, target);
        let url = if privileges.is_empty() { migration.target.url() } else { migration.role_with(privileges) };
        plan_for(&migration, &url, 0, &[]);
        migration.json(3, &["run", "plan.toml"]);
        assert!(
            migration.target.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM app.people").starts_with("1 3")
        );
        let rejects = migration.rejects();
        assert!(rejects.len() == 1 && rejects[0].contains("people_boss_fkey"), "{rejects:?}");
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_plan_names_the_rows_that_refer_to_missing_ones() {
    let file = "CREATE TABLE p (a INTEGER, b TEXT, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 'x'), (2, 'y');
        CREATE TABLE c (id INTEGER PRIMARY KEY, a INTEGER, b TEXT);
        INSERT INTO c VALUES (1, 1, 'x'), (2, 1, 'y'), (3, NULL, 'z'), (4, 7, 'x'), (5, 2, 'y'), (6, 9, NULL);
        CREATE TABLE node (id INTEGER PRIMARY KEY, parent INTEGER); INSERT INTO node VALUES (1, NULL), (2, 1), (3, 9)";
    let target = "CREATE TABLE p (a bigint, b text, PRIMARY KEY (a, b));
        CREATE TABLE c (id bigint PRIMARY KEY, a bigint, b text, FOREIGN KEY (a, b) REFERENCES p);
        CREATE TABLE node (id bigint PRIMARY KEY, parent bigint REFERENCES node)";
    let migration = prepared(file, target);
    let document = plan(&migration, 0, &[]);
    let notes = document["notes"].to_string();
    assert!(notes.contains("2 rows refer to missing rows of p, so the foreign key c_a_b_fkey refuses them"), "{notes}");
    assert!(notes.contains("1 rows refer to missing rows of node"), "{notes}");
    // The user decides whether they may be lost.
    let run = migration.json(3, &["run", "plan.toml"]);
    assert_eq!(migration.rejects().len(), 3, "{run:#}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn what_was_added_to_the_file_after_the_plan_is_named() {
    let migration = Migration::new();
    let file =
        migration.file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x')");
    migration.plan(&["app.db"], &[]);
    file.execute_batch("ALTER TABLE t ADD COLUMN b TEXT; UPDATE t SET b = 'y'; CREATE TABLE more (id INTEGER)")
        .unwrap();
    for step in ["run", "verify"] {
        let notes = migration.json(0, &[step, "plan.toml"])["notes"].to_string();
        let column = "app:t: these columns are not in the plan, and are not loaded: b";
        assert!(notes.contains(column) && notes.contains("app:more is not in the plan: it is not loaded"), "{notes}");
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_session_that_uses_a_table_is_not_waited_for_without_an_end() {
    let file = "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER);
        INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1)";
    let target =
        "CREATE TABLE p (id bigint PRIMARY KEY); CREATE TABLE c (id bigint PRIMARY KEY, p bigint REFERENCES p)";
    let migration = prepared(file, target);
    plan(&migration, 0, &[]);
    let mut idle = migration.session();
    idle.execute("BEGIN; SELECT FROM app.c").unwrap();
    let run = migration.migrate(&["run", "plan.toml"]).code(1);
    run.says("lock timeout").says("idle in transaction");
    idle.execute("ROLLBACK").unwrap();
    assert_eq!(foreign_keys(&migration).len(), 1);
    migration.json(0, &["run", "plan.toml"]);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn row_level_security_is_named_with_a_way_out() {
    let migration = prepared(
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)",
        "CREATE TABLE t (id bigint PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    );
    let url = migration.role_with("ALL");
    let document = plan_for(&migration, &url, 3, &[]);
    assert!(messages(&document).contains("BYPASSRLS"), "{document:#}");
}
