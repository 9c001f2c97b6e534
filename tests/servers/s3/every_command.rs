//! Every command with a store in S3, from the first snapshot to the last prune, with a check of each step.

use rusqlite::Connection;
use serde_json::Value;

use super::helpers::{Setup, id_of, one_error, sql, text, with};
use crate::support::postgres::{TestDatabase, server};
use crate::support::{content, integrity, open, sample};

on_every_server! {
    every_command_works_with_sqlite
    every_command_works_with_sqlite_encrypted_to_a_key
    sqlite_encrypted_with_a_passphrase_is_restored
    common_commands_work_with_postgres
    common_commands_work_with_postgres_encrypted_to_a_key
}

/// Creates a database in WAL mode. Some of its content is only in the WAL, where the returned connection keeps it. The
/// names of the folder and of a table have special characters.
fn odd_database(path: &std::path::Path) -> Connection {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    sample(path, 40, "wal");
    let connection = open(path);
    connection
        .execute_batch(
            "PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE \"odd \"\"name\"\".\u{fc} x\" (\"a b\" BLOB, \"select\" TEXT, \"\" REAL);
             INSERT INTO \"odd \"\"name\"\".\u{fc} x\" VALUES (x'00ff00', 'it''s', 1.5), (NULL, '', NULL), (randomblob(300000), 'z', -0.0);",
        )
        .unwrap();
    let wal = format!("{}-wal", path.display());
    assert!(std::fs::metadata(wal).unwrap().len() > 300_000);
    connection
}

/// Returns a field of every entry of a list in a document.
fn names(document: &Value, list: &str, field: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|one| text(&one[field])).collect()
}

fn every_command_works_with_sqlite(setup: &Setup) {
    run_every_command_with_sqlite(setup, &[], &[]);
}

fn every_command_works_with_sqlite_encrypted_to_a_key(setup: &Setup) {
    let (key, public) = setup.age_key("key.txt");
    run_every_command_with_sqlite(setup, &["--encrypt-to", &public], &["--identity", &key]);
}

fn run_every_command_with_sqlite(setup: &Setup, encryption: &[&str], keys: &[&str]) {
    let is_encrypted = !encryption.is_empty();
    let file = setup.sandbox.path("my data/app's \u{fc}.db");
    let source = file.to_str().unwrap();
    let connection = odd_database(&file);
    let saved = content(&file);
    // The URL has a setting in addition to the endpoint.
    let store = format!("{}&path_style=true", setup.store);
    let with_store = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        all.extend(["--store", &store].into_iter().chain(keys.iter().copied()).map(str::to_owned));
        all
    };
    let json = |arguments: &[&str]| {
        let arguments = with_store(arguments);
        setup.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let document =
        setup.json(&with(&["snapshot", source, "--name", "app", "--tag", "first", "--store", &store], encryption));
    let id = id_of(&document);
    let snapshot = &document["snapshots"][0];
    assert_eq!((&snapshot["kind"], &snapshot["encrypted"]), (&"full".into(), &is_encrypted.into()), "{document:#}");
    assert_eq!(snapshot["stores"], serde_json::json!([store]));
    assert_eq!(snapshot["rows"], 40 + 400 + 400 + 3);
    let archive = format!("{id}.tar.gz{}", if is_encrypted { ".age" } else { "" });
    assert_eq!(snapshot["archive"], archive.as_str());
    assert_eq!(setup.objects(), ["app/".to_owned() + &id + ".json", format!("app/{archive}"), "lifeboat.json".into()]);
    let stored = setup.object(&format!("app/{archive}"));
    assert_eq!(snapshot["archive_bytes"], stored.len());
    assert_eq!(snapshot["sha256"], lifeboat::platform::digest::Sha256::of(&stored).to_string());

    let listed = json(&["list"]);
    assert_eq!(names(&listed, "snapshots", "id"), std::slice::from_ref(&id));
    assert_eq!((&listed["snapshots"][0]["proof"], &listed["snapshots"][0]["rows"]), (&"none".into(), &843.into()));
    let shown = json(&["show", "latest", "--tag", "first"]);
    assert_eq!(shown["id"], id.as_str());
    assert!(names(&shown, "tables", "name").contains(&"odd \"name\".\u{fc} x".to_owned()), "{shown:#}");
    assert_eq!(json(&["verify", "--quick"])["snapshots"][0]["level"], "none");
    let verified = json(&["verify"]);
    assert_eq!((&verified["ok"], &verified["snapshots"][0]["level"]), (&true.into(), &"verified".into()));
    let drilled = json(&["drill", &id[..id.len() - 2]]);
    assert_eq!((&drilled["ok"], &drilled["snapshots"][0]["level"]), (&true.into(), &"drilled".into()));
    assert_eq!(json(&["list"])["snapshots"][0]["proof"], "drilled");

    // Restores everything to a new path. All rows are equal. After a checkpoint, the file of the source is equal to the
    // extracted file.
    let restored = json(&["restore", &id, "--to", "new.db"]);
    assert_eq!((&restored["mode"], &restored["safety_snapshot"]), (&"create".into(), &Value::Null));
    assert_eq!(content(setup.at("new.db")), saved);
    assert_eq!(integrity(setup.at("new.db")), "ok");
    json(&["extract", &id, "--to", "files"]);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let image = std::fs::read_dir(setup.at("files/data")).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read(&image).unwrap() == std::fs::read(&file).unwrap(), "the extracted file differs");
    let rows = with_store(&["extract", &id, "--table", "accounts", "--format", "csv", "--to", "-"]);
    let rows = setup.ok(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(rows.stdout().lines().count(), 41, "{}", rows.transcript());

    // Replaces the live database while another connection has it open, and undoes that.
    let same = json(&["diff", &id]);
    assert_eq!(same["equal"], true, "{same:#}");
    sql(&file, "DELETE FROM accounts WHERE id > 10; UPDATE balances SET amount = 0; CREATE TABLE later (x)");
    let damaged = content(&file);
    let differs = with_store(&["diff", &id, "--exit-code", "--json"]);
    let differs = setup.run(&differs.iter().map(String::as_str).collect::<Vec<_>>()).code(3).json();
    let status = |name: &str| {
        let tables = differs["tables"].as_array().unwrap().clone();
        text(&tables.iter().find(|table| table["name"] == name).unwrap()["status"])
    };
    assert_eq!(
        (status("accounts"), status("balances"), status("later")),
        ("changed".into(), "changed".into(), "added".into())
    );
    let replaced = json(&["restore", &id, "--replace", "--yes"]);
    assert_eq!(content(&file), saved);
    let safety = text(&replaced["safety_snapshot"]);
    let safety = json(&["show", &safety]);
    assert_eq!((&safety["kind"], &safety["encrypted"]), (&"safety".into(), &is_encrypted.into()));
    setup.paste(&text(&replaced["undo"]));
    assert_eq!(content(&file), damaged);

    // Restores two tables only.
    let tables = json(&["restore", &id, "--table", "accounts", "--table", "balances", "--replace", "--yes"]);
    assert_eq!(tables["mode"], "tables");
    let now = content(&file);
    assert_eq!((&now["accounts"], &now["balances"]), (&saved["accounts"], &saved["balances"]));
    assert!(now.contains_key("later"));

    // Copies the snapshot to another store, and restores it from there.
    let copied = json(&["copy", &id, "--to", "folder", "--create"]);
    assert_eq!(copied["snapshots"][0]["was_there"], false);
    assert!(std::fs::read(setup.at(&format!("folder/app/{archive}"))).unwrap() == stored);
    setup.ok(&with(&["restore", &id, "--to", "from-folder.db", "--store", "folder"], keys));
    assert_eq!(content(setup.at("from-folder.db")), saved);

    // Prunes the older snapshot. Safety snapshots have a retention period of their own.
    let second = setup.snapshot(source, &store, &with(&["--name", "app"], encryption));
    let plan = json(&["prune", "--keep-last", "1"]);
    assert_eq!(
        (&plan["dry_run"], names(&plan, "delete", "id")),
        (&true.into(), vec![]),
        "the newest drilled snapshot must be kept: {plan:#}"
    );
    assert_eq!(json(&["drill", &second])["ok"], true);
    let pruned = json(&["prune", "--keep-last", "1", "--keep-others", "0s", "--yes"]);
    assert!(names(&pruned, "delete", "id").contains(&id), "{pruned:#}");
    assert!(pruned["freed_bytes"].as_u64().unwrap() >= stored.len() as u64);
    assert_eq!(setup.ids(&store), std::slice::from_ref(&second));
    let remaining = setup.objects();
    assert!(remaining.iter().all(|key| key.contains(&second) || key == "lifeboat.json"), "{remaining:?}");
    let run = with_store(&["restore", &id, "--to", "gone.db"]);
    one_error(&setup.run(&run.iter().map(String::as_str).collect::<Vec<_>>()).code(4));
    json(&["restore", "latest", "--to", "last.db"]);
    assert_eq!(content(setup.at("last.db")), now);
}

fn sqlite_encrypted_with_a_passphrase_is_restored(setup: &Setup) {
    sample(setup.at("app.db"), 5, "delete");
    std::fs::write(setup.at("words"), "correct horse battery st\u{e4}ple\n").unwrap();
    let words = ["--passphrase-file", "words"];
    let id = setup.snapshot("app.db", &setup.store, &words);
    let saved = content(setup.at("app.db"));
    sql(setup.at("app.db"), "DELETE FROM logs");
    let arguments = ["restore", &id, "--replace", "--yes", "--store", &setup.store];
    one_error(&setup.run(&arguments).code(2).says("passphrase"));
    setup.json(&with(&arguments, &words));
    assert_eq!(content(setup.at("app.db")), saved);
}

/// Creates a database with a few tables, a foreign key, and names that SQL must quote.
fn database(name: &str) -> TestDatabase {
    let database = server(17).create_database(name);
    database.psql(
        "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL);
         CREATE TABLE orders (id bigint PRIMARY KEY, user_id integer REFERENCES users, total numeric(10, 2), note text);
         CREATE SCHEMA \"Odd schema\"; CREATE TABLE \"Odd schema\".\"Zebra \"\"crossing\"\"\" (\"a b\" integer, c bytea);
         INSERT INTO users (name) SELECT 'user ' || g FROM generate_series(1, 50) AS g;
         INSERT INTO orders SELECT g, g % 50 + 1, g / 3.0, md5(g::text) FROM generate_series(1, 2000) AS g;
         INSERT INTO \"Odd schema\".\"Zebra \"\"crossing\"\"\" VALUES (1, '\\x00ff'), (2, NULL);
         CREATE VIEW totals AS SELECT user_id, sum(total) FROM orders GROUP BY 1;",
    );
    database
}

fn common_commands_work_with_postgres(setup: &Setup) {
    run_common_commands_with_postgres(setup, &[], &[]);
}

fn common_commands_work_with_postgres_encrypted_to_a_key(setup: &Setup) {
    let (key, public) = setup.age_key("key.txt");
    run_common_commands_with_postgres(setup, &["--encrypt-to", &public], &["--identity", &key]);
}

fn run_common_commands_with_postgres(setup: &Setup, encryption: &[&str], keys: &[&str]) {
    use crate::support::compare::{assert_equal, data};

    let source = database("s3_source");
    let url = source.url();
    let store = [&["--store", &setup.store][..], keys].concat();
    let document = setup.json(&with(&["snapshot", &url, "--name", "shop", "--store", &setup.store], encryption));
    let id = id_of(&document);
    let snapshot = &document["snapshots"][0];
    assert_eq!((&snapshot["engine"], &snapshot["rows"]), (&"postgres".into(), &2052.into()));
    assert!(!document.to_string().contains(&source.server.password));
    assert_eq!(setup.json(&with(&["verify"], &store))["ok"], true);
    // The password comes from the environment, the server from the snapshot.
    let mut drill = setup.command(&with(&["drill", "--json"], &store));
    drill.env("PGPASSWORD", &source.server.password);
    assert_eq!(setup.sandbox.finish(drill).code(0).json()["snapshots"][0]["level"], "drilled");

    let new = source.server.reserve_database("s3_new");
    let restored = setup.json(&with(&["restore", &id, "--to", &new.url(), "--create"], &store));
    assert_eq!(restored["mode"], "create");
    assert_equal(&source, &new, "restored from S3");

    let saved = data(&source);
    source.psql("DELETE FROM orders WHERE id > 100; INSERT INTO users (name) VALUES ('later')");
    let damaged = data(&source);
    let replaced =
        setup.json(&with(&["restore", &id, "--to", &url, "--replace", "--table", "public.orders", "--yes"], &store));
    assert_eq!(replaced["tables"].as_array().unwrap().len(), 1, "{replaced:#}");
    assert_eq!(source.value("SELECT count(*) FROM orders"), "2000");
    assert_eq!(source.value("SELECT count(*) FROM users"), "51");
    let orders = saved.keys().find(|name| name.contains("orders")).unwrap();
    assert_eq!(data(&source)[orders], saved[orders]);
    let safety = setup.json(&with(&["show", &text(&replaced["safety_snapshot"])], &store));
    assert_eq!(safety["encrypted"], !encryption.is_empty());
    setup.paste(&format!("export PGPASSWORD={}; {}", source.server.password, text(&replaced["undo"])));
    assert_eq!(data(&source)[orders], damaged[orders]);
}
