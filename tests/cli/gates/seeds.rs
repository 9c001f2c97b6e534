//! `guard` on a new database with few rows, such as the first user: it is replaced if the snapshot has these rows too.

use super::helpers::App;
use crate::support::Run;

/// The tables of the new database.
const TABLES: &str = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE balances (id INTEGER PRIMARY KEY, account INTEGER, amount REAL, created_at TEXT);";

/// Saves an app in which `before` was run, replaces its database by a new one with `seed`, and runs the guard.
#[track_caller]
fn start_anew(app: &App, before: &str, seed: &str) -> Run {
    app.sql(before);
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    app.sql(&format!("{TABLES} {seed}"));
    app.sandbox.run(&["guard", "--", "touch", "started"])
}

#[track_caller]
fn restored(before: &str, seed: &str) {
    let app = App::new("");
    let run = start_anew(&app, before, seed).code(0).says("holds nothing that the snapshot lacks");
    assert!(run.stderr().contains("is saved as app-"), "{}", run.transcript());
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{}", run.transcript());
}

#[track_caller]
fn refused(before: &str, seed: &str, table: &str) {
    let app = App::new("");
    let run = start_anew(&app, before, seed).code(3);
    let words = format!("{table} may have rows that the snapshot lacks");
    assert!(run.stderr().contains(&words), "'{words}' is missing\n{}", run.transcript());
    assert!(!app.sandbox.path("started").exists());
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 0, "{}", run.transcript());
}

#[test]
fn a_new_database_with_rows_of_the_snapshot_is_replaced_by_it() {
    restored("", "INSERT INTO accounts VALUES (1, 'account 1')");
    restored(
        "",
        "INSERT INTO accounts VALUES (7, 'account 7'), (3, 'account 3'); ALTER TABLE accounts ADD COLUMN note",
    );
    restored("DELETE FROM accounts WHERE id > 10", "INSERT INTO accounts VALUES (1, 'account 1')");
    // A column with a default value is new.
    restored(
        "",
        "ALTER TABLE accounts ADD COLUMN state TEXT DEFAULT 'new'; INSERT INTO accounts VALUES (1, 'account 1', 'new')",
    );
    // The order of the columns is another one.
    restored(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INT);
         INSERT INTO users SELECT id, name, id FROM accounts",
        "CREATE TABLE users (name TEXT, age INT, id INTEGER PRIMARY KEY); INSERT INTO users VALUES ('account 2', 2, 2)",
    );
    restored(
        "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes SELECT name FROM accounts",
        "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('account 1')",
    );
}

#[test]
fn a_new_database_with_other_rows_is_not_replaced() {
    refused("", "INSERT INTO accounts VALUES (41, 'account 41')", "accounts");
    refused("", "INSERT INTO accounts VALUES (1, 'Account 1')", "accounts");
    refused("", "INSERT INTO accounts (name) VALUES ('account 1'); INSERT INTO accounts VALUES (99, 'x')", "accounts");
    // A column that the snapshot does not have holds a value.
    refused(
        "",
        "ALTER TABLE accounts ADD COLUMN email; INSERT INTO accounts VALUES (1, 'account 1', 'me@example.org')",
        "accounts",
    );
    // Equal rows are counted.
    refused(
        "CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('a'), ('b')",
        "CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('a'), ('a'), ('a')",
        "words",
    );
    refused("", "CREATE TABLE users (id); INSERT INTO users VALUES (1)", "users");
    // No column is the same.
    refused(
        "CREATE TABLE users (id); INSERT INTO users SELECT id FROM accounts",
        "CREATE TABLE users (key); INSERT INTO users VALUES (1)",
        "users",
    );
    refused(
        "CREATE VIRTUAL TABLE notes USING fts5(body, content=''); INSERT INTO notes (rowid, body) VALUES (1, 'old'), (2, 'b')",
        "CREATE VIRTUAL TABLE notes USING fts5(body, content=''); INSERT INTO notes (rowid, body) VALUES (7, 'new')",
        "notes",
    );
}

#[test]
fn rows_in_tables_whose_names_are_not_utf8_are_compared() {
    let sandbox = crate::support::Sandbox::new();
    let create = |rows: &str| {
        let path = sandbox.path("app.db");
        let _ = std::fs::remove_file(&path);
        let connection = crate::support::open(&path);
        let sql = [
            &b"CREATE TABLE \"Gr\xF6\xDFe\" (id INTEGER PRIMARY KEY, \"Stra\xDFe\" TEXT); "[..],
            b"INSERT INTO \"Gr\xF6\xDFe\" ",
            rows.as_bytes(),
        ]
        .concat();
        // SAFETY: SQLite reads the bytes up to their end and does not require UTF-8 in names.
        let text = unsafe { String::from_utf8_unchecked(sql) };
        connection.execute_batch(&text).unwrap();
    };
    std::fs::write(
        sandbox.path("lifeboat.toml"),
        "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n",
    )
    .unwrap();
    sandbox.ok(&["init"]);
    create(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i, 'Weg ' || i FROM n",
    );
    sandbox.ok(&["snapshot"]);
    create("VALUES (3, 'Weg 4')");
    sandbox.run(&["guard", "--", "true"]).code(3).says("may have rows that the snapshot lacks");
    create("VALUES (3, 'Weg 3')");
    sandbox.ok(&["guard", "--", "true"]).says("holds nothing that the snapshot lacks");
}

#[test]
fn rows_are_not_compared_with_a_snapshot_that_no_key_here_opens() {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    app.sql(&format!("{TABLES} INSERT INTO accounts VALUES (1, 'account 1')"));
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
    assert!(!app.sandbox.path("started").exists(), "{}", run.transcript());
    app.sandbox.ok(&["guard", "--identity", "key.txt", "--", "touch", "started"]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
}

/// The values of a row have changed, and not the number of rows.
#[test]
fn an_older_state_in_the_place_of_the_newest_is_reported() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let older = app.ids()[0].clone();
    app.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let image = std::fs::read(app.sandbox.path("app/app.db")).unwrap();
    app.sql("UPDATE accounts SET name = 'my own name' WHERE id = 1");
    // Ids have a resolution of one second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    app.sandbox.ok(&["snapshot"]);
    let newest = app.ids()[0].clone();
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    assert!(!run.stderr().contains("an older state"), "{}", run.transcript());
    app.remove_database();
    std::fs::write(app.sandbox.path("app/app.db"), image).unwrap();
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    let words = format!("app has exactly the rows of {older}, ");
    assert!(run.stderr().contains(&words), "'{words}' is missing\n{}", run.transcript());
    assert!(run.stderr().contains(&format!("and not those of {newest}, ")), "{}", run.transcript());
    // A database with a new row is no older state.
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    assert!(!run.stderr().contains("an older state"), "{}", run.transcript());
}

/// Rows that the program has deleted must not come back.
#[test]
fn a_database_that_is_as_its_newest_snapshot_is_never_replaced() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql(
        "CREATE TABLE schema_migrations (version); INSERT INTO schema_migrations VALUES (1); DELETE FROM balances;
             DELETE FROM accounts WHERE id > 1",
    );
    app.sandbox.run(&["snapshot"]).code(3);
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 0, "{}", run.transcript());
    assert!(run.stderr().contains("has fewer rows than app-"), "{}", run.transcript());
}

#[test]
fn a_database_whose_tables_may_lose_all_rows_is_neither_restored_nor_refused() {
    let all = |table: &str| format!("[[source.rule]]\ntable = \"{table}\"\nmax_row_drop = \"100%\"\n");
    let app = App::new(&all("balances"));
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    let config = config.replace("table = \"accounts\"\nmin_rows = 1", "table = \"accounts\"\nmax_row_drop = \"100%\"");
    std::fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM accounts; DELETE FROM balances");
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 0, "{}", run.transcript());
    assert!(!run.stderr().contains("was not taken"), "{}", run.transcript());
    app.passes(&["predeploy"]);
}

/// An image whose seed has full lookup tables lacks only the rows of its users.
#[test]
fn a_new_file_with_lookup_tables_of_the_snapshot_is_replaced_by_it() {
    let app = App::new("");
    let currencies = "CREATE TABLE currencies (id INTEGER PRIMARY KEY, name TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        INSERT INTO currencies SELECT i, 'currency ' || i FROM n;
        CREATE TABLE countries AS SELECT * FROM currencies; CREATE TABLE zones AS SELECT * FROM currencies;";
    let run = start_anew(&app, currencies, currencies).code(0).says("holds nothing that the snapshot lacks");
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{}", run.transcript());
    // One row of its own prevents the restore.
    let app = App::new("");
    let seed = format!("{currencies} INSERT INTO zones VALUES (501, 'of the image')");
    let run = start_anew(&app, currencies, &seed).code(3).says("zones may have rows that the snapshot lacks");
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 0, "{}", run.transcript());
}

/// Nobody has brought a new file: the program itself has deleted the rows, and was killed before the next snapshot.
#[test]
fn rows_that_were_deleted_from_the_file_of_the_snapshot_do_not_come_back_unasked() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM balances WHERE id > 5; DELETE FROM accounts WHERE id > 2");
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
    assert!(run.stderr().contains("it is still the file that the snapshot was taken of"), "{}", run.transcript());
    assert!(run.stderr().contains("restore app-"), "{}", run.transcript());
    assert!(!app.sandbox.path("started").exists());
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 5);
    // Also after the file was compacted, or moved with its folder.
    app.sql("VACUUM");
    std::fs::rename(app.sandbox.path("app"), app.sandbox.path("moved")).unwrap();
    std::fs::rename(app.sandbox.path("moved"), app.sandbox.path("app")).unwrap();
    app.sandbox.run(&["guard", "--", "true"]).code(3).says("it is still the file");
    // A copy of it is a new file.
    std::fs::copy(app.sandbox.path("app/app.db"), app.sandbox.path("copy")).unwrap();
    app.remove_database();
    std::fs::rename(app.sandbox.path("copy"), app.sandbox.path("app/app.db")).unwrap();
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
}

/// The newest snapshot has rows that a person does not want, and has restored an older one.
#[test]
fn a_restore_of_an_older_snapshot_is_not_undone() {
    for is_damaged in [false, true] {
        let app = App::new("");
        app.sandbox.ok(&["snapshot"]);
        let wanted = app.ids()[0].clone();
        app.sql("INSERT INTO balances SELECT id + 1000, account, amount, created_at FROM balances");
        app.sandbox.ok(&["snapshot"]);
        app.remove_database();
        if is_damaged {
            std::fs::write(app.sandbox.path("app/app.db"), vec![1; 8192]).unwrap();
        }
        let replace: &[&str] = if is_damaged { &["--replace", "--yes"] } else { &[] };
        app.sandbox.ok(&[&["restore", &wanted][..], replace].concat());
        let run = app.sandbox.run(&["guard", "--", "true"]).code(3);
        let words = format!("it was restored from {wanted}, which is older: the rows were left out");
        assert!(run.stderr().contains(&words), "{}", run.transcript());
        assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{}", run.transcript());
        // The command that the message names settles it.
        assert!(run.stderr().contains("--accept"), "{}", run.transcript());
        app.sandbox.ok(&["snapshot", "--accept"]);
        app.sandbox.ok(&["guard", "--", "true"]);
        assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
        // A restore of the newest one leaves no mark.
        app.sandbox.ok(&["restore", "latest", "--replace", "--yes"]);
        let mut value = [0; 100];
        let marked = rustix::fs::getxattr(app.sandbox.path("app/app.db"), "user.lifeboat.restored_from", &mut value);
        assert!(marked.is_err());
    }
}

/// The config names a link, and the file is elsewhere.
#[test]
fn a_restore_through_a_link_is_not_undone_either() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let wanted = app.ids()[0].clone();
    app.sql("INSERT INTO balances SELECT id + 1000, account, amount, created_at FROM balances");
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    std::fs::create_dir(app.sandbox.path("volume")).unwrap();
    std::os::unix::fs::symlink("../volume/app.db", app.sandbox.path("app/app.db")).unwrap();
    app.sandbox.ok(&["restore", &wanted, "--to", "volume/app.db"]);
    let run = app.sandbox.run(&["guard", "--", "true"]);
    assert_ne!(run.exit(), 0, "{}", run.transcript());
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{}", run.transcript());
}
