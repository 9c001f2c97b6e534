//! Encrypted snapshots: age and tar can open them, nothing is readable without a key, and damage and wrong keys are
//! reported as such.

use std::fs;
use std::path::Path;

use super::helpers::{Setup, archive_in, big_database, files, one_error, sql, text, with};
use crate::support::postgres::server;
use crate::support::{Run, content, copy_folder, sample};

on_every_server! {
    age_and_tar_open_an_encrypted_archive
    nothing_outside_the_ciphertext_contains_names_or_values
    a_safety_snapshot_is_encrypted_to_the_same_key_and_can_be_restored
    the_identity_variable_holds_a_key_or_the_path_of_a_key_file
    verify_without_a_key_checks_the_ciphertext
}

fn age_and_tar_open_an_encrypted_archive(setup: &Setup) {
    sample(setup.at("app.db"), 30, "delete");
    let (age_key, public) = setup.age_key("theirs.txt");
    setup.ok(&["keygen", "--output", "ours.txt"]);
    let own_public = setup.ok(&["keygen", "--public", "ours.txt"]).stdout().trim().to_owned();
    for codec in ["gzip", "zstd"] {
        let id = setup.snapshot(
            "app.db",
            &setup.store,
            &["--name", codec, "--compression", codec, "--encrypt-to", &public, "--encrypt-to", &own_public],
        );
        setup.json(&["copy", &id, "--from", &setup.store, "--to", codec, "--create"]);
        let archive = archive_in(&setup.sandbox.path(codec).join(codec)).to_str().unwrap().to_owned();
        assert!(archive.ends_with(".age"), "{archive}");
        let unpack = if codec == "gzip" { "-z" } else { "--zstd" };
        for key in [age_key.as_str(), "ours.txt"] {
            let names = setup.paste(&format!("age -d -i {key} {archive} | tar {unpack} -t"));
            assert_eq!(String::from_utf8(names).unwrap(), "README.txt\ndata/app.db\nmanifest.json\n");
            let image = setup.paste(&format!("age -d -i {key} {archive} | tar {unpack} -xO data/app.db"));
            assert!(image == fs::read(setup.at("app.db")).unwrap());
            let target = format!("{codec}-{key}.db");
            setup.ok(&["restore", &id, "--identity", key, "--to", &target, "--store", &setup.store]);
            assert_eq!(content(setup.at(&target)), content(setup.at("app.db")));
        }
    }
}

/// Words that occur only in the databases: names of tables, columns and views, and a value.
const SECRET_WORDS: [&str; 4] = ["Zebracrossing", "quaggacolumn", "okapivalue", "ibexview"];

#[track_caller]
fn require_no_secret_words(description: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    for word in SECRET_WORDS {
        assert!(!text.contains(&word.to_lowercase()), "{description} contains {word}:\n{text}");
    }
}

fn nothing_outside_the_ciphertext_contains_names_or_values(setup: &Setup) {
    let (key, public) = setup.age_key("key.txt");
    let tables = "CREATE TABLE \"Zebracrossing x\" (quaggacolumn text, n integer);
        INSERT INTO \"Zebracrossing x\" VALUES ('okapivalue', 1), ('okapivalue', 2);
        CREATE VIEW ibexview AS SELECT quaggacolumn FROM \"Zebracrossing x\";";
    sample(setup.at("app.db"), 3, "wal");
    sql(setup.at("app.db"), tables);
    let database = server(17).create_database("s3_words");
    database.psql(tables);
    // The list of tables that are left out must be encrypted too.
    database.psql("CREATE TABLE \"Zebracrossing far\" AS SELECT 'okapivalue' AS quaggacolumn");
    let encryption = ["--encrypt-to", &public];
    let on = ["--store", &setup.store, "--identity", &key];
    let first = setup.snapshot("app.db", &setup.store, &encryption);
    let url = database.url();
    let pg = ["--name", "pg", "--allow-partial", "--exclude-data", "*far"];
    let second = setup.snapshot(&url, &setup.store, &with(&pg, &encryption));
    setup.json(&with(&["verify", "--all"], &on));
    setup.json(&with(&["drill", &first], &on));
    sql(setup.at("app.db"), "DELETE FROM \"Zebracrossing x\" WHERE n = 1");
    setup.json(&with(&["restore", &first, "--replace", "--yes"], &on));
    // With the key, show prints the names.
    let shown = setup.json(&with(&["show", &second], &on)).to_string();
    assert!(shown.contains("Zebracrossing") && shown.contains("quaggacolumn"), "{shown}");

    let objects = setup.objects();
    assert_eq!(objects.iter().filter(|key| key.ends_with(".age")).count(), 3, "{objects:?}");
    for key in &objects {
        require_no_secret_words(key, key.as_bytes());
        require_no_secret_words(key, &setup.object(key));
    }
    for arguments in [&["list"][..], &["show", &first], &["show", &second], &["verify", "--all"]] {
        for json in [&["--json"][..], &[]] {
            let run = setup.ok(&[arguments, &["--store", &setup.store], json].concat());
            require_no_secret_words(&run.transcript(), &run.output.stdout);
            require_no_secret_words(&run.transcript(), &run.output.stderr);
        }
    }

    // A verify or drill with the key that finds damage, also in a block of rows, stores a proof without these words.
    database.psql("INSERT INTO \"Zebracrossing x\" SELECT md5(g::text), g FROM generate_series(1, 20000) AS g");
    big_database(setup.at("app.db"), 1);
    let third = setup.snapshot(&url, &setup.store, &with(&["--name", "pg"], &encryption));
    let fourth = setup.snapshot("app.db", &setup.store, &encryption);
    for id in [&first, &second, &third, &fourth] {
        setup.json(&["copy", id, "--from", &setup.store, "--to", "folder", "--create"]);
        let archive = setup.sandbox.path("folder").join(id.rsplitn(3, '-').last().unwrap());
        let archive = archive.join(format!("{id}.tar.gz.age"));
        let length = fs::metadata(&archive).unwrap().len() as usize;
        change_file(&archive, |bytes| bytes[length / 2] ^= 1);
        for command in ["verify", "drill"] {
            let mut run = setup.command(&[command, id, "--store", "folder", "--identity", &key]);
            run.env("PGPASSWORD", &database.server.password);
            setup.sandbox.finish(run).code(3);
        }
    }
    let stored_files = files(&setup.sandbox.path("folder"));
    assert_eq!(stored_files.iter().filter(|(name, _)| name.contains(".proof-")).count(), 8);
    stored_files.iter().for_each(|(name, bytes)| require_no_secret_words(name, bytes));
}

fn a_safety_snapshot_is_encrypted_to_the_same_key_and_can_be_restored(setup: &Setup) {
    sample(setup.at("app.db"), 5, "wal");
    let (key, public) = setup.age_key("my key.txt".replace(' ', "-").as_str());
    let id = setup.snapshot("app.db", &setup.store, &["--encrypt-to", &public]);
    let saved = content(setup.at("app.db"));
    sql(setup.at("app.db"), "DELETE FROM accounts");
    let damaged_rows = content(setup.at("app.db"));
    let arguments = ["restore", &id, "--replace", "--yes", "--store", &setup.store];

    let with_file = setup.json(&with(&arguments, &["--identity", &key]));
    assert_eq!(content(setup.at("app.db")), saved);
    let undo = text(&with_file["undo"]);
    assert!(undo.contains(&format!("--identity {}", setup.at(&key))), "{undo}");
    // The undo command works in any folder.
    setup.paste(&format!("cd /; {undo}"));
    assert_eq!(content(setup.at("app.db")), damaged_rows);

    let secret = fs::read_to_string(setup.at(&key)).unwrap();
    let mut command = setup.command(&with(&arguments, &["--json"]));
    command.env("LIFEBOAT_IDENTITY", &secret);
    let with_text = setup.sandbox.finish(command).code(0);
    assert!(!with_text.transcript().contains("AGE-SECRET-KEY"), "{}", with_text.transcript());
    assert_eq!(content(setup.at("app.db")), saved);
    let undo = text(&with_text.json()["undo"]);
    setup.paste(&format!("export LIFEBOAT_IDENTITY=$(cat {key}); {undo}"));
    assert_eq!(content(setup.at("app.db")), damaged_rows);

    // All archives of these restores are encrypted.
    let archives: Vec<String> = setup.objects().into_iter().filter(|key| key.contains(".tar")).collect();
    assert!(archives.len() >= 5 && archives.iter().all(|key| key.ends_with(".age")), "{archives:?}");
    // The commands that show prints work too.
    let shown = setup.json(&["show", &id, "--store", &setup.store, "--identity", &key]);
    for command in shown["restore"].as_array().unwrap() {
        setup.paste(&text(command));
    }
    assert_eq!(content(setup.at("app.db")), saved);
    assert_eq!(content(setup.at("app-restored.db")), saved);
}

fn the_identity_variable_holds_a_key_or_the_path_of_a_key_file(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let (key, public) = setup.age_key("key.txt");
    let (other, _) = setup.age_key("other.txt");
    setup.snapshot("app.db", &setup.store, &["--encrypt-to", &public]);
    let secret = fs::read_to_string(setup.at(&key)).unwrap();
    let line = secret.lines().last().unwrap();
    let both = fs::read_to_string(setup.at(&other)).unwrap() + &secret;
    for (number, value) in
        [secret.as_str(), line, &format!("{line}\n"), &both, &key, &setup.at(&key)].iter().enumerate()
    {
        let target = format!("{number}.db");
        let mut command = setup.command(&["restore", "latest", "--to", &target, "--store", &setup.store]);
        command.env("LIFEBOAT_IDENTITY", value);
        let run = setup.sandbox.finish(command).code(0);
        assert!(!run.transcript().contains("AGE-SECRET"), "{}", run.transcript());
        assert_eq!(content(setup.at(&target)), content(setup.at("app.db")));
    }
    // Of several key files, the one that fits is used.
    setup.ok(&["verify", "--identity", &other, "--identity", &key, "--store", &setup.store]);
}

fn verify_without_a_key_checks_the_ciphertext(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let (key, public) = setup.age_key("key.txt");
    let id = setup.snapshot("app.db", &setup.store, &["--encrypt-to", &public]);
    let on = ["--store", &setup.store];
    let verified = setup.json(&with(&["verify"], &on));
    assert_eq!((&verified["ok"], &verified["snapshots"][0]["level"]), (&true.into(), &"verified".into()));
    assert_eq!(setup.json(&with(&["list"], &on))["snapshots"][0]["proof"], "verified");
    let shown = setup.json(&with(&["show"], &on));
    assert_eq!((&shown["id"], &shown["encrypted"], &shown["rows"]), (&id.as_str().into(), &true.into(), &63.into()));
    let words = setup.ok(&with(&["show"], &on)).stdout();
    assert!(words.contains("--identity"), "{words}");
    assert_eq!(setup.json(&with(&["verify", "--quick"], &on))["ok"], true);
    let before = setup.objects();
    for arguments in [
        &["diff", &id][..],
        &["restore", &id, "--to", "new.db"],
        &["restore", &id, "--replace", "--yes"],
        &["restore", &id, "--table", "logs", "--yes"],
        &["extract", &id, "--to", "files"],
        &["extract", &id, "--entry", "README.txt", "--to", "-"],
        &["drill", &id],
    ] {
        let run = setup.run(&with(arguments, &on)).code(2).says("--identity");
        one_error(&run);
        assert!(run.stderr().contains("encrypted"), "{}", run.transcript());
        assert_eq!(run.stdout(), "", "{}", run.transcript());
    }
    assert_eq!(setup.objects(), before, "no object may be written");
    assert!(!setup.sandbox.path("new.db").exists() && !setup.sandbox.path("files").exists());
    assert!(setup.ok(&with(&["diff", &id, "--identity", &key], &on)).stdout().contains("no difference"));
    // verify without a key finds a changed byte in an archive.
    let archive = format!("app/{id}.tar.gz.age");
    let mut bytes = setup.object(&archive);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    setup.put(&archive, &bytes);
    let found = setup.run(&with(&["verify", "--json"], &on)).code(3).json();
    assert_eq!((&found["ok"], &found["snapshots"][0]["level"]), (&false.into(), &"damaged".into()));
    one_error(&setup.run(&with(&["restore", &id, "--to", "new.db", "--identity", &key], &on)).code(3));
    assert!(!setup.sandbox.path("new.db").exists());
}

/// Changes the bytes of a file.
fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Returns a setup on any server. The tests below use stores in folders.
fn any_setup() -> Setup {
    Setup::new(&crate::support::s3::s3_servers()[0].name)
}

#[test]
#[ignore = "needs S3 servers"]
fn damage_in_any_part_of_the_ciphertext_is_reported_as_damage() {
    let setup = any_setup();
    sample(setup.at("app.db"), 200, "delete");
    let (key, public) = setup.age_key("key.txt");
    let id = setup.snapshot("app.db", "backups", &["--encrypt-to", &public]);
    let archive = archive_in(&setup.sandbox.path("backups/app"));
    let name = archive.file_name().unwrap();
    let length = fs::metadata(&archive).unwrap().len() as usize;
    let header = fs::read(&archive).unwrap().windows(4).position(|bytes| bytes == b"\n---").unwrap();
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
    let before = content(setup.at("app.db"));
    let mut failures = Vec::new();
    for (number, (label, change)) in cases.iter().enumerate() {
        let store = format!("damaged-{number}");
        copy_folder(&setup.sandbox.path("backups"), &setup.sandbox.path(&store));
        change_file(&setup.sandbox.path(&store).join("app").join(name), |bytes| change(bytes));
        let mut check = |expected: &[i32], run: Run| {
            if !expected.contains(&run.exit()) || run.stderr().contains("panicked") {
                failures.push(format!(
                    "== {label}: not {expected:?}\n{}",
                    run.transcript().split("-- files").next().unwrap()
                ));
            }
        };
        check(&[3], setup.run(&["verify", &id, "--store", &store]));
        check(&[3], setup.run(&["verify", &id, "--store", &store, "--identity", &key, "--json"]));
        let with_key = ["--store", &store, "--identity", &key];
        // If the recipient stanza is damaged, the key does not fit. Without a hash of the whole file, this cannot be
        // distinguished from a wrong key.
        let codes: &[i32] = if matches!(*label, "the recipient" | "the wrapped key") { &[2, 3] } else { &[3] };
        check(codes, setup.run(&with(&["restore", &id, "--to", "new.db"], &with_key)));
        check(codes, setup.run(&with(&["restore", &id, "--replace", "--yes"], &with_key)));
        check(codes, setup.run(&with(&["extract", &id, "--to", "files"], &with_key)));
        check(codes, setup.run(&with(&["drill", &id], &with_key)));
        assert!(!setup.sandbox.path("new.db").exists() && !setup.sandbox.path("files").exists(), "{label}");
        assert_eq!(content(setup.at("app.db")), before, "{label}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
#[ignore = "needs S3 servers"]
fn a_wrong_key_is_not_reported_as_damage() {
    let setup = any_setup();
    sample(setup.at("app.db"), 3, "delete");
    let (key, public) = setup.age_key("key.txt");
    let (other, _) = setup.age_key("other.txt");
    fs::write(setup.at("words"), "one\n").unwrap();
    fs::write(setup.at("other-words"), "two\n").unwrap();
    let id = setup.snapshot("app.db", "backups", &["--encrypt-to", &public]);
    let secret = setup.snapshot("app.db", "backups", &["--passphrase-file", "words", "--name", "words"]);
    for (id, flag, wrong_key) in [
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
            let run = setup.run(&with(arguments, &["--store", "backups", flag, wrong_key])).code(2);
            one_error(&run);
            let error = run.stderr().lines().find(|line| line.starts_with("error: ")).unwrap().to_owned();
            assert!(!error.contains("damaged"), "{}", run.transcript());
        }
    }
    let proofs = files(&setup.sandbox.path("backups")).into_iter().filter(|(name, _)| name.contains("proof")).count();
    assert_eq!(proofs, 0, "a wrong key proves nothing");
    setup.ok(&["verify", &secret, "--store", "backups", "--passphrase-file", "words"]);
    assert_eq!(setup.json(&["verify", "--all", "--store", "backups"])["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
#[ignore = "needs S3 servers"]
fn no_output_contains_a_secret() {
    let setup = any_setup();
    sample(setup.at("app.db"), 3, "delete");
    let (key, public) = setup.age_key("key.txt");
    let file = fs::read_to_string(setup.at(&key)).unwrap();
    let secret = file.lines().last().unwrap().to_owned();
    let middle = &secret[20..40];
    setup.snapshot("app.db", "backups", &["--encrypt-to", &public]);
    let require_absent = |run: &Run, part: &str| {
        let output = run.stdout() + &run.stderr();
        let has_secret = output.to_uppercase().contains(&part.to_uppercase());
        assert!(!has_secret, "the output contains a secret\n{}", run.transcript());
    };
    let lower = secret.to_lowercase();
    for given in [secret.as_str(), &lower, &secret[..60], &format!(" {secret}"), &format!("{secret}x")] {
        for json in [&["--json"][..], &["-vv"]] {
            let store = ["--store", "backups"];
            let to = setup.run(&[&["snapshot", "app.db", "--encrypt-to", given], &store[..], json].concat()).code(2);
            require_absent(&to, middle);
            let by = setup.run(&[&["verify", "--identity", given], &store[..], json].concat()).code(2);
            require_absent(&by, middle);
            let by = setup.run(&[&["verify", "--passphrase-file", given], &store[..], json].concat()).code(2);
            require_absent(&by, middle);
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
        // CI systems set the variable of a missing secret to the empty string.
        (String::new(), 0),
        (public.clone(), 2),
        (secret.clone(), 0),
        (lower.clone(), 0),
        (file.replace('\n', "\r\n"), 0),
    ] {
        for json in [&["--json"][..], &["-vv"]] {
            let mut command = setup.command(&[&["verify", "--store", "backups"], json].concat());
            command.env("LIFEBOAT_IDENTITY", &value);
            let run = setup.sandbox.finish(command);
            require_absent(&run, middle);
            run.code(code);
        }
    }
    // The help and the manual do not print the value of a variable.
    for arguments in [&["verify", "--help"][..], &["man"], &["--help"]] {
        let mut command = setup.command(arguments);
        command.env("LIFEBOAT_IDENTITY", &secret);
        require_absent(&setup.sandbox.finish(command).code(0), middle);
    }
    // A key file that is malformed.
    fs::write(setup.at("flawed.txt"), &secret[..70]).unwrap();
    require_absent(&setup.run(&["verify", "--store", "backups", "--identity", "flawed.txt"]).code(2), middle);
    // The log of requests to the service does not contain its secret key.
    let run = setup.ok(&["snapshot", "app.db", "--store", &setup.store, "-vv", "--encrypt-to", &public]);
    require_absent(&run, &setup.server.secret_key);
}

#[test]
#[ignore = "needs S3 servers"]
fn keys_with_a_passphrase_and_malformed_keys_are_refused() {
    let setup = any_setup();
    sample(setup.at("app.db"), 3, "delete");
    let (_, public) = setup.age_key("key.txt");
    fs::write(setup.at("words"), "one\n").unwrap();
    let both = ["snapshot", "app.db", "--store", "backups", "--encrypt-to", &public, "--passphrase-file", "words"];
    one_error(&setup.run(&both).code(2).says("--passphrase-file"));
    assert!(!setup.sandbox.path("backups").exists());
    for not_a_key in ["age1", "", "ssh-ed25519 AAAA", &public[..61], &public.to_uppercase().replace("AGE1", "age1")] {
        let run = setup.run(&["snapshot", "app.db", "--store", "backups", "--encrypt-to", not_a_key]).code(2);
        assert!(run.stderr().starts_with("error: "), "{}", run.transcript());
        assert!(!setup.sandbox.path("backups").exists(), "{}", run.transcript());
    }
    fs::write(setup.at("empty"), "\n").unwrap();
    one_error(&setup.run(&["snapshot", "app.db", "--store", "backups", "--passphrase-file", "empty"]).code(2));
    one_error(&setup.run(&["snapshot", "app.db", "--store", "backups", "--passphrase-file", "nowhere"]).code(2));
    assert!(!setup.sandbox.path("backups").exists());
}
