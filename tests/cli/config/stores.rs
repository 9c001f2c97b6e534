//! Stores and sources of the config, through the commands that use them.

use std::fs;

use super::{lifeboat, ready, saved, with_config};
use crate::support::{count, open, sample};

#[test]
fn one_snapshot_writes_to_every_store_and_to_one_by_its_name() {
    let sandbox = with_config(
        "[[store]]\nurl = \"near\"\n[[store]]\nname = \"far\"\nurl = \"far-away\"\n[[source]]\nname = \"shop\"\nurl = \"app.db\"\n",
    );
    sample(sandbox.path("app.db"), 3, "delete");
    ready(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "--json"], &[]).code(0);
    assert_eq!(saved(&run), ["shop"]);
    let id = run.json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    for store in ["near", "far", "far-away"] {
        let run = lifeboat(&sandbox, &["list", "--json", "--store", store], &[]).code(0);
        assert_eq!(run.json()["snapshots"][0]["id"], id.as_str(), "{}", run.transcript());
    }
    lifeboat(&sandbox, &["snapshot", "shop", "--store", "far"], &[]).code(0);
    assert_eq!(saved(&lifeboat(&sandbox, &["list", "--json"], &[])).len(), 1);
    assert_eq!(saved(&lifeboat(&sandbox, &["list", "--json", "--store", "far"], &[])).len(), 2);
    assert!(!sandbox.path("far").exists(), "a name is no folder");
}

#[test]
fn a_store_whose_disk_is_not_mounted_is_told_and_nothing_is_made_there() {
    let sandbox =
        with_config("[[store]]\nname = \"disk\"\nurl = \"mnt\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    ready(&sandbox, &[]);
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
            let left = fs::read_dir(sandbox.path("mnt")).map_or(0, Iterator::count);
            assert_eq!((left, sandbox.path("mnt").exists()), (0, is_empty_folder), "{}", run.transcript());
        }
        ready(&sandbox, &[]);
    }
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
}

#[test]
fn one_store_out_of_reach_does_not_keep_the_other_from_its_snapshot() {
    let sandbox = with_config(
        "[[store]]\nurl = \"gone\"\n[[store]]\nurl = \"there\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    ready(&sandbox, &[]);
    fs::remove_dir_all(sandbox.path("gone")).unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(5).says("gone");
    assert!(!sandbox.path("gone").exists());
    assert_eq!(saved(&lifeboat(&sandbox, &["list", "--json", "--store", "there"], &[]).code(0)), ["app"]);
    // What reads takes the one that is there, and says so.
    let run = lifeboat(&sandbox, &["list", "--json"], &[]).code(0).says("there");
    assert_eq!(saved(&run), ["app"]);
}

#[test]
fn paths_begin_in_the_configs_folder() {
    let sandbox = with_config("");
    fs::create_dir_all(sandbox.path("etc/data")).unwrap();
    sample(sandbox.path("etc/data/app.db"), 4, "delete");
    fs::write(
        sandbox.path("etc/my.toml"),
        "env_file = \"vars\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"sqlite:///./data/app.db\"\n",
    )
    .unwrap();
    let here = ["--config", "etc/my.toml"];
    lifeboat(&sandbox, &[&["init"], &here[..]].concat(), &[]).code(0);
    lifeboat(&sandbox, &[&["snapshot"], &here[..]].concat(), &[]).code(0);
    assert!(sandbox.path("etc/backups/app").is_dir() && !sandbox.path("backups").exists());
    fs::remove_file(sandbox.path("etc/data/app.db")).unwrap();
    lifeboat(&sandbox, &["restore", "latest", "--yes"], &[("LIFEBOAT_CONFIG", "etc/my.toml")]).code(0);
    assert_eq!(count(sandbox.path("etc/data/app.db"), "accounts"), 4);
    // What is printed to be copied names the config.
    let shown = lifeboat(&sandbox, &[&["show", "latest"], &here[..]].concat(), &[]).code(0);
    assert!(shown.stdout().contains("etc/my.toml"), "{}", shown.transcript());
}

#[test]
fn a_name_goes_before_a_file_of_that_name() {
    let sandbox = with_config("[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"real.db\"\n");
    sample(sandbox.path("real.db"), 2, "delete");
    open(sandbox.path("app")).execute_batch("CREATE TABLE other (a); INSERT INTO other VALUES (1)").unwrap();
    ready(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "app", "--json"], &[]).code(0).json();
    assert_eq!(run["snapshots"][0]["rows"], 42);
    let run = lifeboat(&sandbox, &["snapshot", "./app", "--name", "file", "--json"], &[]).code(0).json();
    assert_eq!(run["snapshots"][0]["rows"], 1);
    lifeboat(&sandbox, &["snapshot", "nobody"], &[]).code(5);
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
    ready(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "--tag", "mine", "--json"], &[]).code(0).json();
    let facts = |at: usize| (run["snapshots"][at]["codec"].to_string(), run["snapshots"][at]["tags"].to_string());
    assert!(facts(0).0.contains("zstd") && facts(1).0.contains("gzip"), "{run:#}");
    assert_eq!(facts(0).1, "[\"mine\",\"gold\",\"plain\"]");
    assert_eq!(facts(1).1, "[\"mine\"]");
    let run = lifeboat(&sandbox, &["snapshot", "one", "--compression", "gzip", "--json"], &[]).code(0).json();
    assert!(run["snapshots"][0]["codec"].to_string().contains("gzip"), "{run:#}");
    // The command line's own source has the config's codec, and no tags.
    let run = lifeboat(&sandbox, &["snapshot", "./two.db", "--name", "three", "--json"], &[]).code(0).json();
    assert!(run["snapshots"][0]["codec"].to_string().contains("zstd"), "{run:#}");
}

#[test]
fn one_host_name_for_containers_whose_names_change() {
    let sandbox =
        with_config("host = \"shop\"\n[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    ready(&sandbox, &[]);
    let run = lifeboat(&sandbox, &["snapshot", "--json"], &[]).code(0).json();
    assert_eq!(run["snapshots"][0]["origin"]["host"], "shop");
    // What the process is told outdoes it, and then it is another origin.
    lifeboat(&sandbox, &["snapshot"], &[("LIFEBOAT_HOST", "other")]).code(2);
}
