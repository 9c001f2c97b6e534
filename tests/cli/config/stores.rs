//! Stores and sources of the config, tested through the commands that use them.

use std::fs;

use super::{create_stores, lifeboat, snapshot_sources, with_config};
use crate::support::{count, open, sample};

#[test]
fn a_snapshot_is_written_to_every_store_or_to_the_named_one() {
    let sandbox = with_config(
        "[[store]]\nurl = \"near\"\n[[store]]\nname = \"far\"\nurl = \"far-away\"\n[[source]]\nname = \"shop\"\nurl = \"app.db\"\n",
    );
    sample(sandbox.path("app.db"), 3, "delete");
    create_stores(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "--json"], &[]).code(0);
    assert_eq!(snapshot_sources(&run), ["shop"]);
    let id = run.json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    for store in ["near", "far", "far-away"] {
        let run = lifeboat(&sandbox, &["list", "--json", "--store", store], &[]).code(0);
        assert_eq!(run.json()["snapshots"][0]["id"], id.as_str(), "{}", run.transcript());
    }
    lifeboat(&sandbox, &["snapshot", "shop", "--store", "far"], &[]).code(0);
    assert_eq!(snapshot_sources(&lifeboat(&sandbox, &["list", "--json"], &[])).len(), 1);
    assert_eq!(snapshot_sources(&lifeboat(&sandbox, &["list", "--json", "--store", "far"], &[])).len(), 2);
    assert!(!sandbox.path("far").exists(), "the name of a store was used as a path");
}

#[test]
fn a_store_on_an_unmounted_disk_is_an_error_and_nothing_is_created() {
    let sandbox =
        with_config("[[store]]\nname = \"disk\"\nurl = \"mnt\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    let mut arguments =
        vec![vec!["snapshot"], vec!["snapshot", "--store", "disk"], vec!["list"], vec!["prune", "--keep-last", "1"]];
    arguments.push(vec!["show", "latest"]);
    arguments.push(vec!["restore", "latest", "--yes"]);
    for is_empty_folder in [true, false] {
        fs::remove_dir_all(sandbox.path("mnt")).unwrap();
        if is_empty_folder {
            fs::create_dir(sandbox.path("mnt")).unwrap();
        }
        for arguments in &arguments {
            let run = lifeboat(&sandbox, arguments, &[]).code(5);
            let entries = fs::read_dir(sandbox.path("mnt")).map_or(0, Iterator::count);
            assert_eq!((entries, sandbox.path("mnt").exists()), (0, is_empty_folder), "{}", run.transcript());
        }
        create_stores(&sandbox, &[]);
    }
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
}

#[test]
fn a_missing_store_does_not_prevent_the_snapshot_in_another_store() {
    let sandbox = with_config(
        "[[store]]\nurl = \"gone\"\n[[store]]\nurl = \"there\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    fs::remove_dir_all(sandbox.path("gone")).unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(5).says("gone");
    assert!(!sandbox.path("gone").exists());
    assert_eq!(snapshot_sources(&lifeboat(&sandbox, &["list", "--json", "--store", "there"], &[]).code(0)), ["app"]);
    // A command that only reads uses the store that exists, and prints its name.
    let run = lifeboat(&sandbox, &["list", "--json"], &[]).code(0).says("there");
    assert_eq!(snapshot_sources(&run), ["app"]);
}

#[test]
fn paths_are_relative_to_the_folder_of_the_config() {
    let sandbox = with_config("");
    fs::create_dir_all(sandbox.path("etc/data")).unwrap();
    sample(sandbox.path("etc/data/app.db"), 4, "delete");
    fs::write(
        sandbox.path("etc/my.toml"),
        "env_file = \"vars\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"sqlite:///./data/app.db\"\n",
    )
    .unwrap();
    let config = ["--config", "etc/my.toml"];
    lifeboat(&sandbox, &[&["init"], &config[..]].concat(), &[]).code(0);
    lifeboat(&sandbox, &[&["snapshot"], &config[..]].concat(), &[]).code(0);
    assert!(sandbox.path("etc/backups/app").is_dir() && !sandbox.path("backups").exists());
    fs::remove_file(sandbox.path("etc/data/app.db")).unwrap();
    lifeboat(&sandbox, &["restore", "latest", "--yes"], &[("LIFEBOAT_CONFIG", "etc/my.toml")]).code(0);
    assert_eq!(count(sandbox.path("etc/data/app.db"), "accounts"), 4);
    // The commands that `show` prints name the config.
    let run = lifeboat(&sandbox, &[&["show", "latest"], &config[..]].concat(), &[]).code(0);
    assert!(run.stdout().contains("etc/my.toml"), "{}", run.transcript());
}

#[test]
fn certificates_of_a_source_are_relative_to_the_folder_of_the_config() {
    let sandbox = with_config("");
    fs::create_dir(sandbox.path("etc")).unwrap();
    // The files are read before the program connects. They exist, but hold no certificate.
    for name in ["root.pem", "own.pem"] {
        fs::write(sandbox.path("etc").join(name), "x").unwrap();
    }
    let own = "sslmode = \"require\"\nsslcert = \"own.pem\"\nsslkey = \"own.key\"\n";
    for (settings, read) in [("sslmode = \"verify-full\"\nsslrootcert = \"root.pem\"\n", "root.pem"), (own, "own.pem")]
    {
        let source = "[[source]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = 1\ndbname = \"shop\"\n";
        fs::write(sandbox.path("etc/my.toml"), format!("{source}{settings}")).unwrap();
        let run = lifeboat(&sandbox, &["check", "--config", "etc/my.toml", "--no-backups"], &[]);
        let file = sandbox.path("etc").canonicalize().unwrap().join(read);
        let message = format!("{} contains no certificate", file.display());
        assert!(run.exit() != 0 && run.transcript().contains(&message), "{message}: {}", run.transcript());
    }
}

#[test]
fn the_name_of_a_source_takes_precedence_over_a_file() {
    let sandbox = with_config("[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"real.db\"\n");
    sample(sandbox.path("real.db"), 2, "delete");
    open(sandbox.path("app")).execute_batch("CREATE TABLE other (a); INSERT INTO other VALUES (1)").unwrap();
    create_stores(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "app", "--json"], &[]).code(0).json();
    assert_eq!(run["snapshots"][0]["rows"], 42);
    let run = lifeboat(&sandbox, &["snapshot", "./app", "--name", "file", "--json"], &[]).code(0).json();
    assert_eq!(run["snapshots"][0]["rows"], 1);
    lifeboat(&sandbox, &["snapshot", "nobody"], &[]).code(2).says("no source 'nobody' in the config; there are: app");
}

#[test]
fn sources_have_their_own_tags_and_compression() {
    let sandbox = with_config(
        "compression = \"zstd:3\"\n[[store]]\nurl = \"b\"\n\
         [[source]]\nname = \"one\"\nurl = \"app.db\"\ntags = [\"gold\", \"${EXTRA:-plain}\"]\n\
         [[source]]\nname = \"two\"\nurl = \"two.db\"\ncompression = \"gzip:1\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    sample(sandbox.path("two.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "--tag", "mine", "--json"], &[]).code(0).json();
    let codec = |index: usize| run["snapshots"][index]["codec"].to_string();
    let tags = |index: usize| run["snapshots"][index]["tags"].to_string();
    assert!(codec(0).contains("zstd") && codec(1).contains("gzip"), "{run:#}");
    assert_eq!(tags(0), "[\"mine\",\"gold\",\"plain\"]");
    assert_eq!(tags(1), "[\"mine\"]");
    let run = lifeboat(&sandbox, &["snapshot", "one", "--compression", "gzip", "--json"], &[]).code(0).json();
    assert!(run["snapshots"][0]["codec"].to_string().contains("gzip"), "{run:#}");
    // A source that only the command line names is compressed as the config says.
    let run = lifeboat(&sandbox, &["snapshot", "./two.db", "--name", "three", "--json"], &[]).code(0).json();
    assert!(run["snapshots"][0]["codec"].to_string().contains("zstd"), "{run:#}");
}

#[test]
fn the_host_in_the_config_replaces_the_name_of_the_machine() {
    let sandbox =
        with_config("host = \"shop\"\n[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "--json"], &[]).code(0).json();
    assert_eq!(run["snapshots"][0]["origin"]["host"], "shop");
    // LIFEBOAT_HOST overrides the config. The database then has another origin, so the snapshot is refused.
    lifeboat(&sandbox, &["snapshot"], &[("LIFEBOAT_HOST", "other")]).code(2);
}

#[test]
fn doctor_fails_for_a_store_of_the_config_that_is_absent() {
    let sandbox =
        with_config("[[store]]\nname = \"disk\"\nurl = \"mnt\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    // A mount point whose disk is not mounted.
    fs::create_dir(sandbox.path("mnt")).unwrap();
    for flags in [&[][..], &["--store", "disk"]] {
        let run = lifeboat(&sandbox, &[&["doctor", "--json"], flags].concat(), &[]).code(3);
        let document = run.json();
        let checks = document["checks"].as_array().unwrap();
        let store = checks.iter().find(|check| check["name"] == "store").unwrap();
        let message = store["message"].as_str().unwrap();
        assert!(store["ok"] == false && message.contains("no store exists yet"), "{}", run.transcript());
        assert!(message.contains("lifeboat init") && message.contains("mounted"), "{}", run.transcript());
    }
    assert_eq!(fs::read_dir(sandbox.path("mnt")).unwrap().count(), 0, "doctor left something in the folder");
    create_stores(&sandbox, &[]);
    lifeboat(&sandbox, &["doctor"], &[]).code(0);
    // A snapshot would create a store that the command line names.
    lifeboat(&sandbox, &["doctor", "--store", "other"], &[]);
}
