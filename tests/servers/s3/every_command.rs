//! Everything that a person does with a store in S3, from the first snapshot to the last prune, each step looked at.

use rusqlite::Connection;
use serde_json::Value;

use super::helpers::{Place, id_of, one_error, sql, text, with};
use crate::support::postgres::{TestDatabase, server};
use crate::support::{content, integrity, open, sample};

on_every_server! {
    sqlite_goes_out_and_comes_back
    sqlite_goes_out_and_comes_back_encrypted_to_a_key
    sqlite_goes_out_and_comes_back_encrypted_with_a_passphrase
    postgres_goes_out_and_comes_back
    postgres_goes_out_and_comes_back_encrypted
}

/// A database in WAL mode of whose content some is only in the WAL, in a folder and with tables of odd names. The
/// connection keeps it there.
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

/// The names in a document's list.
fn names(document: &Value, list: &str, field: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|one| text(&one[field])).collect()
}

fn sqlite_goes_out_and_comes_back(place: &Place) {
    whole_way_of_sqlite(place, &[], &[]);
}

fn sqlite_goes_out_and_comes_back_encrypted_to_a_key(place: &Place) {
    let (key, public) = place.age_key("key.txt");
    whole_way_of_sqlite(place, &["--encrypt-to", &public], &["--identity", &key]);
}

fn whole_way_of_sqlite(place: &Place, sealing: &[&str], keys: &[&str]) {
    let is_sealed = !sealing.is_empty();
    let file = place.sandbox.path("my data/app's \u{fc}.db");
    let source = file.to_str().unwrap();
    let held = odd_database(&file);
    let saved = content(&file);
    // With all the settings that a person would write out.
    let store = format!("{}&path_style=true", place.store);
    let on = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        all.extend(["--store", &store].into_iter().chain(keys.iter().copied()).map(str::to_owned));
        all
    };
    let json = |arguments: &[&str]| {
        let arguments = on(arguments);
        place.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let taken = place.json(&with(&["snapshot", source, "--name", "app", "--tag", "first", "--store", &store], sealing));
    let id = id_of(&taken);
    let snapshot = &taken["snapshots"][0];
    assert_eq!((&snapshot["kind"], &snapshot["encrypted"]), (&"full".into(), &is_sealed.into()), "{taken:#}");
    assert_eq!(snapshot["stores"], serde_json::json!([store]));
    assert_eq!(snapshot["rows"], 40 + 400 + 400 + 3);
    let archive = format!("{id}.tar.gz{}", if is_sealed { ".age" } else { "" });
    assert_eq!(snapshot["archive"], archive.as_str());
    assert_eq!(place.objects(), ["app/".to_owned() + &id + ".json", format!("app/{archive}"), "lifeboat.json".into()]);
    let stored = place.object(&format!("app/{archive}"));
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

    // Whole, to a new path: every row, and every byte once the WAL is written into the source's file.
    let made = json(&["restore", &id, "--to", "new.db"]);
    assert_eq!((&made["mode"], &made["safety_snapshot"]), (&"create".into(), &Value::Null));
    assert_eq!(content(place.at("new.db")), saved);
    assert_eq!(integrity(place.at("new.db")), "ok");
    json(&["extract", &id, "--to", "files"]);
    held.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let image = std::fs::read_dir(place.at("files/data")).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read(&image).unwrap() == std::fs::read(&file).unwrap(), "the image is the database");
    let rows = on(&["extract", &id, "--table", "accounts", "--format", "csv", "--to", "-"]);
    let rows = place.ok(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(rows.stdout().lines().count(), 41, "{}", rows.transcript());

    // Over the live database, which another connection has open, and back.
    let same = json(&["diff", &id]);
    assert_eq!(same["equal"], true, "{same:#}");
    sql(&file, "DELETE FROM accounts WHERE id > 10; UPDATE balances SET amount = 0; CREATE TABLE later (x)");
    let harmed = content(&file);
    let differs = on(&["diff", &id, "--exit-code", "--json"]);
    let differs = place.run(&differs.iter().map(String::as_str).collect::<Vec<_>>()).code(3).json();
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
    assert_eq!((&safety["kind"], &safety["encrypted"]), (&"safety".into(), &is_sealed.into()));
    place.paste(&text(&replaced["undo"]));
    assert_eq!(content(&file), harmed);

    // Two tables only.
    let tables = json(&["restore", &id, "--table", "accounts", "--table", "balances", "--replace", "--yes"]);
    assert_eq!(tables["mode"], "tables");
    let now = content(&file);
    assert_eq!((&now["accounts"], &now["balances"]), (&saved["accounts"], &saved["balances"]));
    assert!(now.contains_key("later"));

    // Somewhere else, and from there.
    let copied = json(&["copy", &id, "--to", "folder", "--create"]);
    assert_eq!(copied["snapshots"][0]["was_there"], false);
    assert!(std::fs::read(place.at(&format!("folder/app/{archive}"))).unwrap() == stored);
    place.ok(&with(&["restore", &id, "--to", "from-folder.db", "--store", "folder"], keys));
    assert_eq!(content(place.at("from-folder.db")), saved);

    // And away: the older full one; safety snapshots have their own time.
    let second = place.snapshot(source, &store, &with(&["--name", "app"], sealing));
    let plan = json(&["prune", "--keep-last", "1"]);
    assert_eq!(
        (&plan["dry_run"], names(&plan, "delete", "id")),
        (&true.into(), vec![]),
        "the drilled one stays: {plan:#}"
    );
    assert_eq!(json(&["drill", &second])["ok"], true);
    let done = json(&["prune", "--keep-last", "1", "--keep-others", "0s", "--yes"]);
    assert!(names(&done, "delete", "id").contains(&id), "{done:#}");
    assert!(done["freed_bytes"].as_u64().unwrap() >= stored.len() as u64);
    assert_eq!(place.ids(&store), std::slice::from_ref(&second));
    let left = place.objects();
    assert!(left.iter().all(|key| key.contains(&second) || key == "lifeboat.json"), "{left:?}");
    let run = on(&["restore", &id, "--to", "gone.db"]);
    one_error(&place.run(&run.iter().map(String::as_str).collect::<Vec<_>>()).code(4));
    json(&["restore", "latest", "--to", "last.db"]);
    assert_eq!(content(place.at("last.db")), now);
}

fn sqlite_goes_out_and_comes_back_encrypted_with_a_passphrase(place: &Place) {
    sample(place.at("app.db"), 5, "delete");
    std::fs::write(place.at("words"), "correct horse battery st\u{e4}ple\n").unwrap();
    let words = ["--passphrase-file", "words"];
    let id = place.snapshot("app.db", &place.store, &words);
    let saved = content(place.at("app.db"));
    sql(place.at("app.db"), "DELETE FROM logs");
    let arguments = ["restore", &id, "--replace", "--yes", "--store", &place.store];
    one_error(&place.run(&arguments).code(2).says("passphrase"));
    place.json(&with(&arguments, &words));
    assert_eq!(content(place.at("app.db")), saved);
}

/// A few tables with a key between them, and names that SQL must quote.
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

fn postgres_goes_out_and_comes_back(place: &Place) {
    whole_way_of_postgres(place, &[], &[]);
}

fn postgres_goes_out_and_comes_back_encrypted(place: &Place) {
    let (key, public) = place.age_key("key.txt");
    whole_way_of_postgres(place, &["--encrypt-to", &public], &["--identity", &key]);
}

fn whole_way_of_postgres(place: &Place, sealing: &[&str], keys: &[&str]) {
    use crate::support::compare::{assert_equal, data};

    let source = database("s3_source");
    let url = source.url();
    let on = [&["--store", &place.store][..], keys].concat();
    let taken = place.json(&with(&["snapshot", &url, "--name", "shop", "--store", &place.store], sealing));
    let id = id_of(&taken);
    assert_eq!((&taken["snapshots"][0]["engine"], &taken["snapshots"][0]["rows"]), (&"postgres".into(), &2052.into()));
    assert!(!taken.to_string().contains(&source.server.password));
    assert_eq!(place.json(&with(&["verify"], &on))["ok"], true);
    // As the sessions of a person do: the password comes from the environment, the place from the snapshot.
    let mut drill = place.command(&with(&["drill", "--json"], &on));
    drill.env("PGPASSWORD", &source.server.password);
    assert_eq!(place.sandbox.finish(drill).code(0).json()["snapshots"][0]["level"], "drilled");

    let new = source.server.reserve_database("s3_new");
    let made = place.json(&with(&["restore", &id, "--to", &new.url(), "--create"], &on));
    assert_eq!(made["mode"], "create");
    assert_equal(&source, &new, "restored from S3");

    let saved = data(&source);
    source.psql("DELETE FROM orders WHERE id > 100; INSERT INTO users (name) VALUES ('later')");
    let harmed = data(&source);
    let replaced =
        place.json(&with(&["restore", &id, "--to", &url, "--replace", "--table", "public.orders", "--yes"], &on));
    assert_eq!(replaced["tables"].as_array().unwrap().len(), 1, "{replaced:#}");
    assert_eq!(source.value("SELECT count(*) FROM orders"), "2000");
    assert_eq!(source.value("SELECT count(*) FROM users"), "51");
    let orders = saved.keys().find(|name| name.contains("orders")).unwrap();
    assert_eq!(data(&source)[orders], saved[orders]);
    let safety = place.json(&with(&["show", &text(&replaced["safety_snapshot"])], &on));
    assert_eq!(safety["encrypted"], !sealing.is_empty());
    place.paste(&format!("export PGPASSWORD={}; {}", source.server.password, text(&replaced["undo"])));
    assert_eq!(data(&source)[orders], harmed[orders]);
}
