//! Encrypted snapshots: what the stock tools open, what nobody learns without a key, and how damage and wrong keys are told.

use std::fs;
use std::path::Path;

use super::helpers::{Place, archive_in, big, files, one_error, sql, text, with};
use crate::support::postgres::server;
use crate::support::{Run, content, copy_folder, sample};

on_every_server! {
    the_stock_tools_open_what_the_store_has
    nothing_outside_the_ciphertext_names_a_table
    a_safety_snapshot_is_encrypted_to_the_same_key_and_undoes
    a_key_is_given_as_text_or_as_a_path
    without_a_key_the_ciphertext_is_proven
}

fn the_stock_tools_open_what_the_store_has(place: &Place) {
    sample(place.at("app.db"), 30, "delete");
    let (theirs, public) = place.age_key("theirs.txt");
    place.ok(&["keygen", "--output", "ours.txt"]);
    let ours = place.ok(&["keygen", "--public", "ours.txt"]).stdout().trim().to_owned();
    for codec in ["gzip", "zstd"] {
        let id = place.snapshot(
            "app.db",
            &place.store,
            &["--name", codec, "--compression", codec, "--encrypt-to", &public, "--encrypt-to", &ours],
        );
        place.json(&["copy", &id, "--from", &place.store, "--to", codec, "--create"]);
        let archive = archive_in(&place.sandbox.path(codec).join(codec)).to_str().unwrap().to_owned();
        assert!(archive.ends_with(".age"), "{archive}");
        let unpack = if codec == "gzip" { "-z" } else { "--zstd" };
        for key in [theirs.as_str(), "ours.txt"] {
            let names = place.paste(&format!("age -d -i {key} {archive} | tar {unpack} -t"));
            assert_eq!(String::from_utf8(names).unwrap(), "README.txt\ndata/app.db\nmanifest.json\n");
            let image = place.paste(&format!("age -d -i {key} {archive} | tar {unpack} -xO data/app.db"));
            assert!(image == fs::read(place.at("app.db")).unwrap());
            let target = format!("{codec}-{key}.db");
            place.ok(&["restore", &id, "--identity", key, "--to", &target, "--store", &place.store]);
            assert_eq!(content(place.at(&target)), content(place.at("app.db")));
        }
    }
}

/// Words that stand nowhere but in the database.
const WORDS: [&str; 4] = ["Zebracrossing", "quaggacolumn", "okapivalue", "ibexview"];

#[track_caller]
fn names_nothing(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    for word in WORDS {
        assert!(!text.contains(&word.to_lowercase()), "{what} names {word}:\n{text}");
    }
}

fn nothing_outside_the_ciphertext_names_a_table(place: &Place) {
    let (key, public) = place.age_key("key.txt");
    let tables = "CREATE TABLE \"Zebracrossing x\" (quaggacolumn text, n integer);
        INSERT INTO \"Zebracrossing x\" VALUES ('okapivalue', 1), ('okapivalue', 2);
        CREATE VIEW ibexview AS SELECT quaggacolumn FROM \"Zebracrossing x\";";
    sample(place.at("app.db"), 3, "wal");
    sql(place.at("app.db"), tables);
    let database = server(17).create_database("s3_words");
    database.psql(tables);
    // What is left out is named inside too.
    database.psql("CREATE TABLE \"Zebracrossing far\" AS SELECT 'okapivalue' AS quaggacolumn");
    let sealing = ["--encrypt-to", &public];
    let on = ["--store", &place.store, "--identity", &key];
    let first = place.snapshot("app.db", &place.store, &sealing);
    let url = database.url();
    let pg = ["--name", "pg", "--allow-partial", "--exclude-data", "*far"];
    let second = place.snapshot(&url, &place.store, &with(&pg, &sealing));
    place.json(&with(&["verify", "--all"], &on));
    place.json(&with(&["drill", &first], &on));
    sql(place.at("app.db"), "DELETE FROM \"Zebracrossing x\" WHERE n = 1");
    place.json(&with(&["restore", &first, "--replace", "--yes"], &on));
    // With the key it is all there.
    let shown = place.json(&with(&["show", &second], &on)).to_string();
    assert!(shown.contains("Zebracrossing") && shown.contains("quaggacolumn"), "{shown}");

    let objects = place.objects();
    assert_eq!(objects.iter().filter(|key| key.ends_with(".age")).count(), 3, "{objects:?}");
    for key in &objects {
        names_nothing(key, key.as_bytes());
        names_nothing(key, &place.object(key));
    }
    for arguments in [&["list"][..], &["show", &first], &["show", &second], &["verify", "--all"]] {
        for json in [&["--json"][..], &[]] {
            let run = place.ok(&[arguments, &["--store", &place.store], json].concat());
            names_nothing(&run.transcript(), &run.output.stdout);
            names_nothing(&run.transcript(), &run.output.stderr);
        }
    }

    // Nor what a test with the key leaves that finds damage, also where it lies in a block of rows.
    database.psql("INSERT INTO \"Zebracrossing x\" SELECT md5(g::text), g FROM generate_series(1, 20000) AS g");
    big(place.at("app.db"), 1);
    let third = place.snapshot(&url, &place.store, &with(&["--name", "pg"], &sealing));
    let fourth = place.snapshot("app.db", &place.store, &sealing);
    for id in [&first, &second, &third, &fourth] {
        place.json(&["copy", id, "--from", &place.store, "--to", "folder", "--create"]);
        let archive = place.sandbox.path("folder").join(id.rsplitn(3, '-').last().unwrap());
        let archive = archive.join(format!("{id}.tar.gz.age"));
        let length = fs::metadata(&archive).unwrap().len() as usize;
        damage(&archive, |bytes| bytes[length / 2] ^= 1);
        for command in ["verify", "drill"] {
            let mut run = place.command(&[command, id, "--store", "folder", "--identity", &key]);
            run.env("PGPASSWORD", &database.server.password);
            place.sandbox.finish(run).code(3);
        }
    }
    let left = files(&place.sandbox.path("folder"));
    assert_eq!(left.iter().filter(|(name, _)| name.contains(".proof-")).count(), 8);
    left.iter().for_each(|(name, bytes)| names_nothing(name, bytes));
}

fn a_safety_snapshot_is_encrypted_to_the_same_key_and_undoes(place: &Place) {
    sample(place.at("app.db"), 5, "wal");
    let (key, public) = place.age_key("my key.txt".replace(' ', "-").as_str());
    let id = place.snapshot("app.db", &place.store, &["--encrypt-to", &public]);
    let saved = content(place.at("app.db"));
    sql(place.at("app.db"), "DELETE FROM accounts");
    let harmed = content(place.at("app.db"));
    let arguments = ["restore", &id, "--replace", "--yes", "--store", &place.store];

    let by_file = place.json(&with(&arguments, &["--identity", &key]));
    assert_eq!(content(place.at("app.db")), saved);
    let undo = text(&by_file["undo"]);
    assert!(undo.contains(&format!("--identity {}", place.at(&key))), "{undo}");
    // From anywhere.
    place.paste(&format!("cd /; {undo}"));
    assert_eq!(content(place.at("app.db")), harmed);

    let secret = fs::read_to_string(place.at(&key)).unwrap();
    let mut command = place.command(&with(&arguments, &["--json"]));
    command.env("LIFEBOAT_IDENTITY", &secret);
    let by_text = place.sandbox.finish(command).code(0);
    assert!(!by_text.transcript().contains("AGE-SECRET-KEY"), "{}", by_text.transcript());
    assert_eq!(content(place.at("app.db")), saved);
    let undo = text(&by_text.json()["undo"]);
    place.paste(&format!("export LIFEBOAT_IDENTITY=$(cat {key}); {undo}"));
    assert_eq!(content(place.at("app.db")), harmed);

    // All that was made on the way is encrypted.
    let archives: Vec<String> = place.objects().into_iter().filter(|key| key.contains(".tar")).collect();
    assert!(archives.len() >= 5 && archives.iter().all(|key| key.ends_with(".age")), "{archives:?}");
    // The commands that show prints work, too.
    let shown = place.json(&["show", &id, "--store", &place.store, "--identity", &key]);
    for command in shown["restore"].as_array().unwrap() {
        place.paste(&text(command));
    }
    assert_eq!(content(place.at("app.db")), saved);
    assert_eq!(content(place.at("app-restored.db")), saved);
}

fn a_key_is_given_as_text_or_as_a_path(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let (key, public) = place.age_key("key.txt");
    let (other, _) = place.age_key("other.txt");
    place.snapshot("app.db", &place.store, &["--encrypt-to", &public]);
    let secret = fs::read_to_string(place.at(&key)).unwrap();
    let line = secret.lines().last().unwrap();
    let both = fs::read_to_string(place.at(&other)).unwrap() + &secret;
    for (number, value) in
        [secret.as_str(), line, &format!("{line}\n"), &both, &key, &place.at(&key)].iter().enumerate()
    {
        let target = format!("{number}.db");
        let mut command = place.command(&["restore", "latest", "--to", &target, "--store", &place.store]);
        command.env("LIFEBOAT_IDENTITY", value);
        let run = place.sandbox.finish(command).code(0);
        assert!(!run.transcript().contains("AGE-SECRET"), "{}", run.transcript());
        assert_eq!(content(place.at(&target)), content(place.at("app.db")));
    }
    // Several files; the one that fits counts.
    place.ok(&["verify", "--identity", &other, "--identity", &key, "--store", &place.store]);
}

fn without_a_key_the_ciphertext_is_proven(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let (key, public) = place.age_key("key.txt");
    let id = place.snapshot("app.db", &place.store, &["--encrypt-to", &public]);
    let on = ["--store", &place.store];
    let verified = place.json(&with(&["verify"], &on));
    assert_eq!((&verified["ok"], &verified["snapshots"][0]["level"]), (&true.into(), &"verified".into()));
    assert_eq!(place.json(&with(&["list"], &on))["snapshots"][0]["proof"], "verified");
    let shown = place.json(&with(&["show"], &on));
    assert_eq!((&shown["id"], &shown["encrypted"], &shown["rows"]), (&id.as_str().into(), &true.into(), &63.into()));
    let words = place.ok(&with(&["show"], &on)).stdout();
    assert!(words.contains("--identity"), "{words}");
    assert_eq!(place.json(&with(&["verify", "--quick"], &on))["ok"], true);
    let before = place.objects();
    for arguments in [
        &["diff", &id][..],
        &["restore", &id, "--to", "new.db"],
        &["restore", &id, "--replace", "--yes"],
        &["restore", &id, "--table", "logs", "--yes"],
        &["extract", &id, "--to", "files"],
        &["extract", &id, "--entry", "README.txt", "--to", "-"],
        &["drill", &id],
    ] {
        let run = place.run(&with(arguments, &on)).code(2).says("--identity");
        one_error(&run);
        assert!(run.stderr().contains("encrypted"), "{}", run.transcript());
        assert_eq!(run.stdout(), "", "{}", run.transcript());
    }
    assert_eq!(place.objects(), before, "nothing was taken or noted");
    assert!(!place.sandbox.path("new.db").exists() && !place.sandbox.path("files").exists());
    assert!(place.ok(&with(&["diff", &id, "--identity", &key], &on)).stdout().contains("no difference"));
    // Of one object other bytes: verify without a key sees it.
    let archive = format!("app/{id}.tar.gz.age");
    let mut bytes = place.object(&archive);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    place.put(&archive, &bytes);
    let found = place.run(&with(&["verify", "--json"], &on)).code(3).json();
    assert_eq!((&found["ok"], &found["snapshots"][0]["level"]), (&false.into(), &"damaged".into()));
    one_error(&place.run(&with(&["restore", &id, "--to", "new.db", "--identity", &key], &on)).code(3));
    assert!(!place.sandbox.path("new.db").exists());
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A place whose server no command here asks for anything.
fn folder_place() -> Place {
    Place::new(&crate::support::s3::s3_servers()[0].name)
}

#[test]
#[ignore = "needs S3 servers"]
fn damage_in_any_part_of_the_ciphertext_is_told_as_damage() {
    let place = folder_place();
    sample(place.at("app.db"), 200, "delete");
    let (key, public) = place.age_key("key.txt");
    let id = place.snapshot("app.db", "backups", &["--encrypt-to", &public]);
    let whole = archive_in(&place.sandbox.path("backups/app"));
    let name = whole.file_name().unwrap();
    let length = fs::metadata(&whole).unwrap().len() as usize;
    let header = fs::read(&whole).unwrap().windows(4).position(|bytes| bytes == b"\n---").unwrap();
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let flip = |at: usize| -> Change { Box::new(move |bytes| bytes[at] ^= 1) };
    let cases: Vec<(&str, Change)> = vec![
        ("the first byte", flip(0)),
        ("the recipient", flip(30)),
        ("the wrapped key", flip(header - 10)),
        ("the header's MAC", flip(header + 10)),
        ("the nonce", flip(header + 55)),
        ("the first chunk", flip(header + 200)),
        ("the middle", flip(length / 2)),
        ("the last byte", flip(length - 1)),
        ("cut by one", Box::new(move |bytes| bytes.truncate(length - 1))),
        ("cut in half", Box::new(move |bytes| bytes.truncate(length / 2))),
        ("cut to the header", Box::new(move |bytes| bytes.truncate(header))),
        ("empty", Box::new(Vec::clear)),
        ("one more byte", Box::new(|bytes| bytes.push(0))),
        ("twice", Box::new(|bytes| bytes.extend(bytes.clone()))),
    ];
    let before = content(place.at("app.db"));
    let mut wrong = Vec::new();
    for (number, (what, change)) in cases.iter().enumerate() {
        let store = format!("damaged-{number}");
        copy_folder(&place.sandbox.path("backups"), &place.sandbox.path(&store));
        damage(&place.sandbox.path(&store).join("app").join(name), |bytes| change(bytes));
        let mut check = |expected: &[i32], run: Run| {
            if !expected.contains(&run.exit()) || run.stderr().contains("panicked") {
                wrong.push(format!(
                    "== {what}: not {expected:?}\n{}",
                    run.transcript().split("-- files").next().unwrap()
                ));
            }
        };
        check(&[3], place.run(&["verify", &id, "--store", &store]));
        check(&[3], place.run(&["verify", &id, "--store", &store, "--identity", &key, "--json"]));
        let with_key = ["--store", &store, "--identity", &key];
        // Where the key's own stanza is damaged, the key fits no more, and that is all that can be told without a hash of all.
        let told: &[i32] = if matches!(*what, "the recipient" | "the wrapped key") { &[2, 3] } else { &[3] };
        check(told, place.run(&with(&["restore", &id, "--to", "new.db"], &with_key)));
        check(told, place.run(&with(&["restore", &id, "--replace", "--yes"], &with_key)));
        check(told, place.run(&with(&["extract", &id, "--to", "files"], &with_key)));
        check(told, place.run(&with(&["drill", &id], &with_key)));
        assert!(!place.sandbox.path("new.db").exists() && !place.sandbox.path("files").exists(), "{what}");
        assert_eq!(content(place.at("app.db")), before, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "needs S3 servers"]
fn wrong_keys_are_told_from_damage() {
    let place = folder_place();
    sample(place.at("app.db"), 3, "delete");
    let (key, public) = place.age_key("key.txt");
    let (other, _) = place.age_key("other.txt");
    fs::write(place.at("words"), "one\n").unwrap();
    fs::write(place.at("other-words"), "two\n").unwrap();
    let id = place.snapshot("app.db", "backups", &["--encrypt-to", &public]);
    let secret = place.snapshot("app.db", "backups", &["--passphrase-file", "words", "--name", "words"]);
    for (id, flag, wrong) in [
        (&id, "--identity", &other[..]),
        (&secret, "--passphrase-file", "other-words"),
        (&id, "--passphrase-file", "words"),
        (&secret, "--identity", &key),
    ] {
        for arguments in [
            &["restore", id, "--to", "new.db"][..],
            &["verify", id],
            &["drill", id],
            &["diff", id],
            &["extract", id, "--to", "files"],
        ] {
            let run = place.run(&with(arguments, &["--store", "backups", flag, wrong])).code(2);
            one_error(&run);
            let error = run.stderr().lines().find(|line| line.starts_with("error: ")).unwrap().to_owned();
            assert!(!error.contains("damaged"), "{}", run.transcript());
        }
    }
    let proofs = files(&place.sandbox.path("backups")).into_iter().filter(|(name, _)| name.contains("proof")).count();
    assert_eq!(proofs, 0, "a wrong key proves nothing");
    place.ok(&["verify", &secret, "--store", "backups", "--passphrase-file", "words"]);
    assert_eq!(place.json(&["verify", "--all", "--store", "backups"])["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
#[ignore = "needs S3 servers"]
fn no_output_holds_a_secret() {
    let place = folder_place();
    sample(place.at("app.db"), 3, "delete");
    let (key, public) = place.age_key("key.txt");
    let file = fs::read_to_string(place.at(&key)).unwrap();
    let secret = file.lines().last().unwrap().to_owned();
    let middle = &secret[20..40];
    place.snapshot("app.db", "backups", &["--encrypt-to", &public]);
    let silent = |run: &Run, part: &str| {
        let story = run.stdout() + &run.stderr();
        assert!(!story.to_uppercase().contains(&part.to_uppercase()), "a secret is shown\n{}", run.transcript());
    };
    let lower = secret.to_lowercase();
    for given in [secret.as_str(), &lower, &secret[..60], &format!(" {secret}"), &format!("{secret}x")] {
        for json in [&["--json"][..], &["-vv"]] {
            let store = ["--store", "backups"];
            let to = place.run(&[&["snapshot", "app.db", "--encrypt-to", given], &store[..], json].concat()).code(2);
            silent(&to, middle);
            let by = place.run(&[&["verify", "--identity", given], &store[..], json].concat()).code(2);
            silent(&by, middle);
            let by = place.run(&[&["verify", "--passphrase-file", given], &store[..], json].concat()).code(2);
            silent(&by, middle);
        }
    }
    for (value, code) in [
        (secret[..60].to_owned(), 2),
        (format!("{secret}x"), 2),
        (secret.replace('1', "l"), 2),
        (format!("{file}\ngarbage {secret}"), 2),
        (format!("\"{secret}\""), 2),
        (format!("KEY={secret}"), 2),
        (format!("export KEY={secret}"), 2),
        // A pipeline's secret that is not set.
        (String::new(), 0),
        (public.clone(), 2),
        (secret.clone(), 0),
        (lower.clone(), 0),
        (file.replace('\n', "\r\n"), 0),
    ] {
        for json in [&["--json"][..], &["-vv"]] {
            let mut command = place.command(&[&["verify", "--store", "backups"], json].concat());
            command.env("LIFEBOAT_IDENTITY", &value);
            let run = place.sandbox.finish(command);
            silent(&run, middle);
            run.code(code);
        }
    }
    // Nor does the help, nor does the manual, say what a variable holds.
    for arguments in [&["verify", "--help"][..], &["man"], &["--help"]] {
        let mut command = place.command(arguments);
        command.env("LIFEBOAT_IDENTITY", &secret);
        silent(&place.sandbox.finish(command).code(0), middle);
    }
    // A file with a flaw in it.
    fs::write(place.at("flawed.txt"), &secret[..70]).unwrap();
    silent(&place.run(&["verify", "--store", "backups", "--identity", "flawed.txt"]).code(2), middle);
    // What the service is told is no secret either, but for its own keys.
    let run = place.ok(&["snapshot", "app.db", "--store", &place.store, "-vv", "--encrypt-to", &public]);
    silent(&run, &place.server.secret_key);
}

#[test]
#[ignore = "needs S3 servers"]
fn keys_and_a_passphrase_together_are_refused() {
    let place = folder_place();
    sample(place.at("app.db"), 3, "delete");
    let (_, public) = place.age_key("key.txt");
    fs::write(place.at("words"), "one\n").unwrap();
    let both = ["snapshot", "app.db", "--store", "backups", "--encrypt-to", &public, "--passphrase-file", "words"];
    one_error(&place.run(&both).code(2).says("--passphrase-file"));
    assert!(!place.sandbox.path("backups").exists());
    for not_a_key in ["age1", "", "ssh-ed25519 AAAA", &public[..61], &public.to_uppercase().replace("AGE1", "age1")] {
        let run = place.run(&["snapshot", "app.db", "--store", "backups", "--encrypt-to", not_a_key]).code(2);
        assert!(run.stderr().starts_with("error: "), "{}", run.transcript());
        assert!(!place.sandbox.path("backups").exists(), "{}", run.transcript());
    }
    fs::write(place.at("empty"), "\n").unwrap();
    one_error(&place.run(&["snapshot", "app.db", "--store", "backups", "--passphrase-file", "empty"]).code(2));
    one_error(&place.run(&["snapshot", "app.db", "--store", "backups", "--passphrase-file", "nowhere"]).code(2));
    assert!(!place.sandbox.path("backups").exists());
}
