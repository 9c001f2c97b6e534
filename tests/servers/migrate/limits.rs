//! Values and tables that PostgreSQL cannot hold, or not in the same way: each is said before it is loaded, and none ends
//! a run.

use super::helpers::Migration;
use crate::postgres::big::peak_memory_mib;

/// Creates a table `links` in `app.db` with ten short texts and one more.
fn links(migration: &Migration, columns: &str, text: &str) {
    let file = migration.file("app.db", &format!("CREATE TABLE links (id INTEGER PRIMARY KEY, {columns})"));
    for number in 0..10 {
        file.execute("INSERT INTO links (url) VALUES (?1)", [format!("https://example.org/{number}")]).unwrap();
    }
    file.execute("INSERT INTO links (url) VALUES (?1)", [text]).unwrap();
}

/// Returns a text without repetitions, which cannot be compressed.
fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(state >> 58) as usize])
    };
    std::iter::repeat_with(&mut letter).take(bytes).collect()
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn keys_that_are_too_long_for_an_index_are_found_by_the_plan() {
    let migration = Migration::new();
    links(&migration, "url TEXT UNIQUE, FOREIGN KEY (url) REFERENCES links (url)", &noise(9000));
    let file = migration
        .file("more.db", "CREATE TABLE pages (path TEXT PRIMARY KEY, text TEXT); CREATE INDEX by_text ON pages (text)");
    for (path, text) in [(noise(3000), noise(5000)), ("short".to_owned(), "x".to_owned())] {
        file.execute("INSERT INTO pages VALUES (?1, ?2)", [path, text]).unwrap();
    }
    let url = migration.target.url();
    let console = migration.migrate(&["plan", "app.db", "more.db", "--to", &url]).code(0).transcript();
    let plan = migration.plan_text();
    for line in [
        "app:links: a UNIQUE constraint (url) is too long for an index in 1 rows: url in row 11 has 9000 bytes",
        "a btree index of PostgreSQL holds at most 2704 bytes per row: a unique index on the md5 digests",
        "the foreign key (url) to links is not carried over: the referenced columns are not unique",
        "more:pages: the primary key (path) is too long for an index in 1 rows: path in row 1 has 3000 bytes",
        "more:pages: the index by_text (text) is too long for an index in 1 rows: text in row 1 has 5000 bytes",
    ] {
        assert!(console.contains(line), "{line} is not in\n{console}");
    }
    for line in [
        r#"{ name = "links_url_key", columns = ["url"], digest = ["url"], unique = true }"#,
        r#"{ name = "pages_key", columns = ["path"], digest = ["path"], unique = true }"#,
        r#"{ name = "by_text", columns = ["text"], using = "hash" }"#,
    ] {
        assert!(plan.contains(line), "{line} is not in\n{plan}");
    }
    let document = migration.json(0, &["run", "plan.toml"]);
    assert_eq!(document["notes"].to_string(), "[]");
    migration.json(0, &["verify", "plan.toml"]);
    // The digests keep the texts unique.
    let again = "DO $$ BEGIN INSERT INTO app.links (url) SELECT url FROM app.links WHERE id = 11; RAISE 'inserted';
                 EXCEPTION WHEN unique_violation THEN NULL; END $$";
    migration.target.psql(again);
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn the_plan_and_the_server_agree_on_the_longest_key() {
    // Compression makes long texts with repetitions short enough. Each text is made longer until the server refuses it.
    for kind in ["noise", "repeated", "mixed"] {
        let migration = Migration::new();
        let text = |bytes: usize| match kind {
            "noise" => noise(bytes),
            "repeated" => "https://example.org/path?".chars().cycle().take(bytes).collect(),
            _ => noise(bytes)
                .as_bytes()
                .chunks(40)
                .map(|part| format!("{}茅台ab", String::from_utf8_lossy(part)))
                .collect(),
        };
        let fits = |bytes: usize| {
            let sql = format!(
                "DO $$ BEGIN CREATE TEMP TABLE t ON COMMIT DROP AS SELECT '{}'::text AS v; CREATE UNIQUE INDEX ON t (v);
                 EXCEPTION WHEN program_limit_exceeded THEN RAISE EXCEPTION 'too long'; END $$",
                text(bytes)
            );
            migration.session().execute(&sql).is_ok()
        };
        let (mut most, mut least) = (100, 400_000);
        while most + 1 < least {
            let middle = usize::midpoint(most, least);
            if fits(middle) { most = middle } else { least = middle }
        }
        for (bytes, is_named) in [(most, false), (least, true)] {
            let _ = std::fs::remove_file(migration.sandbox.path("app.db"));
            let _ = std::fs::remove_file(migration.sandbox.path("plan.toml"));
            links(&migration, "url TEXT UNIQUE", &text(bytes));
            let plan = migration.plan(&["app.db"], &[]);
            assert_eq!(plan.contains("too long for an index"), is_named, "{kind} of {bytes} bytes\n{plan}");
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_run_does_not_end_because_a_key_of_the_plan_is_too_long() {
    let migration = Migration::new();
    links(&migration, "url TEXT UNIQUE", &noise(9000));
    migration.plan(&["app.db"], &[]);
    migration.edit_plan(
        r#"{ name = "links_url_key", columns = ["url"], digest = ["url"], unique = true }"#,
        r#"{ name = "links_url_key", columns = ["url"], unique = true }"#,
    );
    for _ in 0..2 {
        // The rows are loaded, but the plan is not fulfilled.
        let document = migration.json(3, &["run", "plan.toml"]);
        assert_eq!(document["tables"][0]["rows"], 11);
        let found = document["differences"].to_string();
        assert!(found.contains("links_url_key was not created: ") && found.contains("index row"), "{document}");
    }
    let document = migration.json(3, &["verify", "plan.toml"]);
    assert!(document["differences"].to_string().contains("app.links has no index links_url_key"), "{document:#}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn memory_is_bounded_by_the_longest_value_twice() {
    const MIB: u64 = 100;
    let migration = Migration::new();
    let file = migration.file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    let value =
        "a line of text with a tab\tand its end\n".chars().cycle().take((MIB as usize) << 20).collect::<String>();
    file.execute("INSERT INTO t (v) VALUES (?1), ('short')", [&value]).unwrap();
    drop(value);
    migration.plan(&["app.db"], &[]);
    for arguments in [vec!["run", "plan.toml", "--no-snapshot"], vec!["verify", "plan.toml"]] {
        let memory = peak_memory_mib(migration.command(&arguments));
        assert!(memory < 2 * MIB + 60, "{arguments:?} needs {memory} MiB for a value of {MIB} MiB");
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn values_beyond_the_limits_of_jsonb_are_rejected_by_name() {
    let migration = Migration::new();
    let file =
        migration.file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSON); INSERT INTO t VALUES (1, '{}')");
    file.execute("INSERT INTO t SELECT 2, '\"' || hex(zeroblob(135000000)) || '\"'", []).unwrap();
    migration.plan(&["app.db"], &["--no-proposals"]);
    let document = migration.json(3, &["run", "plan.toml", "--no-snapshot"]);
    assert_eq!((&document["tables"][0]["rows"], &document["tables"][0]["rejected"]), (&1.into(), &1.into()));
    assert_eq!(migration.rejects(), ["t 2 the server refuses it: string too long to represent as jsonb string"]);
    let row = migration.target.value("SELECT \"row\" FROM lifeboat_migrate.rejects");
    assert_eq!(row, "{\"j\": {\"omitted_bytes\": 270000002}, \"id\": 2}");
    // The only difference is that the plan did not expect the rejected row.
    let document = migration.json(3, &["verify", "plan.toml"]);
    assert_eq!(document["differences"].as_array().unwrap().len(), 1, "{document:#}");
    assert_eq!(document["differences"][0]["kind"], "reject", "{document:#}");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_table_with_too_many_columns_is_named_before_the_run() {
    let migration = Migration::new();
    let columns: Vec<String> = (0..1601).map(|number| format!("c{number} INTEGER")).collect();
    migration.file("app.db", &format!("CREATE TABLE wide ({})", columns.join(", ")));
    let document = migration.json(3, &["plan", "app.db", "--to", &migration.target.url()]);
    let message = "app:wide has 1601 columns, but a table in PostgreSQL has at most 1600 columns";
    let found = document["differences"][0]["message"].as_str().unwrap();
    assert!(found.contains(message), "{found}");
    migration.migrate(&["run", "plan.toml"]).code(2).says("it has 1601 columns");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn merged_tables_say_how_many_keys_collide_before_they_are_loaded() {
    let migration = Migration::new();
    for (name, first) in [("one.db", 1), ("two.db", 8)] {
        migration.file(
            name,
            &format!(
                "CREATE TABLE notes (id INTEGER PRIMARY KEY, t TEXT UNIQUE);
                 INSERT INTO notes SELECT value, 'note ' || (value % 9) FROM json_each('[{first}, {}, {}]')",
                first + 1,
                first + 2
            ),
        );
    }
    migration.file("three.db", "CREATE TABLE notes (id INTEGER PRIMARY KEY, t TEXT UNIQUE); INSERT INTO notes VALUES (8, 'x'), (1, NULL), (20, NULL)");
    let url = migration.target.url();
    let document = migration.json(3, &["plan", "one.db", "two.db", "three.db", "--to", &url]);
    let sentences = [
        "2 rows of three:notes have the key (id) of a row before them, so they would be rejected from app.notes",
        "1 rows of two:notes have the key (t) of a row before them, so they would be rejected from app.notes",
    ];
    let message = document["differences"][0]["message"].as_str().unwrap();
    for sentence in sentences {
        assert!(message.contains(sentence), "{sentence} is not in {message}");
    }
    migration.edit_plan("name = \"notes\"\ncolumns", "name = \"notes\"\nmerge = true\ncolumns");
    let document = migration.json(0, &["run", "plan.toml"]);
    for sentence in sentences {
        assert!(document["notes"].to_string().contains(sentence), "{sentence} is not in {document:#}");
    }
    let rejected = |place: usize| document["tables"][place]["rejected"].as_u64().unwrap();
    assert_eq!((rejected(0), rejected(1), rejected(2)), (0, 1, 2));
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn notes_of_a_migration_are_not_compared_as_data() {
    let migration = Migration::new();
    migration
        .file("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v JSON); INSERT INTO t VALUES (1, '{}'), (2, '{')");
    migration.plan(&["app.db"], &[]);
    migration.json(0, &["run", "plan.toml"]);
    let url = migration.target.url();
    let config = format!(
        "host = \"here\"\n[[store]]\nname = \"main\"\nurl = \"store\"\n[[source]]\nname = \"data\"\nurl = \"{url}\"\n"
    );
    std::fs::write(migration.sandbox.path("lifeboat.toml"), config).unwrap();
    let password = crate::support::postgres::server(15).password.clone();
    let run = |arguments: &[&str]| {
        let mut command = migration.sandbox.command(arguments);
        command.env("PGPASSWORD", &password);
        migration.sandbox.finish(command)
    };
    run(&["predeploy", "data"]).code(0);
    // The snapshot contains the notes.
    let shown = run(&["show", "latest", "--source", "data", "--json"]).code(0).json();
    assert!(shown["tables"].to_string().contains("lifeboat_migrate.rejects"), "{shown:#}");
    migration.target.psql("DELETE FROM lifeboat_migrate.rejects; DELETE FROM lifeboat_migrate.chunks");
    run(&["postdeploy", "data"]).code(0);
    migration.target.psql("DROP SCHEMA lifeboat_migrate CASCADE");
    run(&["postdeploy", "data"]).code(0);
    run(&["predeploy", "data"]).code(0);
    let diff = run(&["diff", "latest", &url, "--source", "data", "--json"]).code(0).json();
    let first =
        run(&["list", "--source", "data", "--json"]).code(0).json()["snapshots"][1]["id"].as_str().unwrap().to_owned();
    let diff_of_first = run(&["diff", &first, &url, "--json"]).code(0).json();
    for diff in [diff, diff_of_first] {
        assert!(!diff["tables"].to_string().contains("lifeboat_migrate"), "{diff:#}");
    }
    // Rows of the user are still missed.
    migration.target.psql("DELETE FROM app.t");
    run(&["postdeploy", "data"]).code(3);
}
