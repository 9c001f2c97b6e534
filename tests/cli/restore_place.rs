//! A restore and a drill whose target only the snapshot names: whoever may write to the store chooses what it says.

use std::fs;
use std::path::Path;

use crate::helpers::sql;
use crate::support::Sandbox;

/// Creates a database with one row, and takes a snapshot of it as the source `app`.
fn snapshot(sandbox: &Sandbox, file: &str, store: &str, row: &str) -> String {
    sql(sandbox.path(file), &format!("CREATE TABLE t (x); INSERT INTO t VALUES ('{row}')"));
    let run = sandbox.ok(&["snapshot", file, "--name", "app", "--host", "vm", "--store", store, "--json"]);
    run.json()["snapshots"][0]["id"].as_str().unwrap().to_owned()
}

/// Puts the snapshots of one store beside those of another, as whoever may write to it can.
fn plant(sandbox: &Sandbox, from: &str, to: &str) {
    for file in fs::read_dir(sandbox.path(from).join("app")).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, sandbox.path(to).join("app").join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_snapshot_of_another_place_than_the_earlier_ones_is_not_restored_there() {
    let sandbox = Sandbox::new();
    let first = snapshot(&sandbox, "app.db", "backups", "good");
    fs::create_dir(sandbox.path("home")).unwrap();
    // Ids have a resolution of one second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let planted = snapshot(&sandbox, "home/keys", "theirs", "evil");
    plant(&sandbox, "theirs", "backups");
    fs::write(sandbox.path("home/keys"), "a text that was never a database\n").unwrap();

    let restore = ["restore", "latest", "--source", "app", "--store", "backups", "--host", "vm", "--replace", "--yes"];
    let run = sandbox.run(&restore).code(2);
    run.says(&format!("{planted} is of vm:")).says(&first).says("--to");
    assert_eq!(fs::read_to_string(sandbox.path("home/keys")).unwrap(), "a text that was never a database\n");
    // The earlier one is still restored, and the other one by whoever names the place.
    sandbox.ok(&["restore", &first, "--store", "backups", "--host", "vm", "--replace", "--yes"]);
    sandbox.ok(&["restore", &planted, "--store", "backups", "--to", "other.db"]);
}

#[test]
fn a_file_that_is_no_database_is_not_replaced_where_only_the_snapshot_names_it() {
    let sandbox = Sandbox::new();
    snapshot(&sandbox, "app.db", "backups", "good");
    fs::write(sandbox.path("app.db"), "a text that was never a database\n").unwrap();
    let restore = ["restore", "latest", "--source", "app", "--store", "backups", "--host", "vm", "--replace", "--yes"];
    sandbox.run(&restore).code(2).says("was never a database").says("--to");
    assert_eq!(fs::read_to_string(sandbox.path("app.db")).unwrap(), "a text that was never a database\n");
    sandbox.ok(&[&restore[..], &["--to", "app.db"]].concat());
}

#[test]
fn a_moved_database_is_restored_where_the_user_says() {
    let sandbox = Sandbox::new();
    snapshot(&sandbox, "app.db", "backups", "good");
    fs::rename(sandbox.path("app.db"), sandbox.path("moved.db")).unwrap();
    let moved = ["snapshot", "moved.db", "--name", "app", "--host", "vm", "--moved", "--store", "backups"];
    std::thread::sleep(std::time::Duration::from_millis(1100));
    sandbox.ok(&moved);
    let restore = ["restore", "latest", "--source", "app", "--store", "backups", "--host", "vm", "--replace", "--yes"];
    sandbox.run(&restore).code(2).says("which is older, is of vm:").says("--to");
    sandbox.ok(&[&restore[..], &["--to", "moved.db"]].concat());
    // A second snapshot from there confirms the first.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let again: Vec<&str> = moved.into_iter().filter(|word| *word != "--moved").collect();
    sandbox.ok(&again);
    sandbox.ok(&restore);
}

#[test]
fn the_password_of_the_environment_is_not_sent_to_a_server_that_only_the_snapshot_names() {
    let sandbox = Sandbox::new();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/postgres");
    let drill = |host: Option<&str>| {
        let store = sample.to_str().unwrap();
        let mut command = sandbox.command(&["drill", "latest", "--store", store, "--host", "elsewhere"]);
        command.env("PGPASSWORD", "a-secret").env("PGCONNECT_TIMEOUT", "2").env_remove("PGHOST");
        command.envs(host.map(|host| ("PGHOST", host)));
        let run = sandbox.finish(command);
        assert!(!run.transcript().contains("a-secret"), "{}", run.transcript());
        run.stderr()
    };
    let warning = "PGPASSWORD is not used for example, which only the snapshot names";
    assert!(drill(None).contains(warning), "{}", drill(None));
    assert!(drill(Some("other")).contains(warning), "{}", drill(Some("other")));
    assert!(!drill(Some("example")).contains(warning));
}
