//! `[preflight] mounts`: where volumes are demanded, databases and stores must lie on them.

use std::os::unix::fs::symlink;

use super::helpers::{App, assert_one_failed, failed_checks};
use crate::preflight::Mounted;

/// Writes a config with the database and the store at these paths, and with `volume` as the mount.
fn write_config(app: &App, database: &str, store: &str, more: &str) {
    let config = format!(
        "host = \"test\"\n[[store]]\nurl = \"{store}\"\n[[source]]\nname = \"app\"\nurl = \"{database}\"\n\
         [preflight]\nmounts = [\"./volume\"]\nallow_tmpfs = true\n{more}"
    );
    std::fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
}

/// Returns the failed checks of `doctor`.
#[track_caller]
fn doctor(app: &App, code: i32) -> Vec<String> {
    failed_checks(&app.sandbox.run(&["doctor", "--json"]).code(code).json())
}

#[test]
fn a_database_and_a_store_must_lie_on_a_mount_by_any_path() {
    let app = App::new("");
    let volume = app.sandbox.path("volume");
    let Some(_volume) = Mounted::tmpfs(&volume, "size=64m") else { return };
    write_config(&app, "./app/app.db", "./volume/store", "");
    app.sandbox.ok(&["init"]);
    // The program writes beside the volume, into the container.
    for failed in [app.fails(&["predeploy"]).0, doctor(&app, 3)] {
        assert_one_failed(&failed, &["app: mount", "app/app.db", volume.to_str().unwrap(), "outside_mounts"]);
    }
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
    assert!(run.stderr().contains("app: mount"), "{}", run.transcript());
    assert!(!app.sandbox.path("started").exists());
    // A link on the volume leads to a file that is not on it, and the other way around.
    symlink("../app/app.db", app.sandbox.path("volume/link.db")).unwrap();
    write_config(&app, "./volume/link.db", "./volume/store", "");
    assert_one_failed(&doctor(&app, 3), &["app: mount", "app/app.db"]);
    std::fs::create_dir(app.sandbox.path("volume/data")).unwrap();
    symlink("volume/data", app.sandbox.path("linked")).unwrap();
    write_config(&app, "./linked/new.db", "./volume/store", "");
    app.passes(&["predeploy"]);
    // The store is in the container.
    write_config(&app, "./linked/new.db", "./backups", "");
    for failed in [app.fails(&["predeploy"]).0, doctor(&app, 3)] {
        assert!(failed.iter().any(|line| line.contains("store ") && line.contains("backups: mount")), "{failed:#?}");
    }
    // Both are named as exceptions.
    write_config(&app, "./app/app.db", "./backups", "outside_mounts = [\"./app/app.db\", \"./backups\"]\n");
    app.passes(&["predeploy"]);
    assert_eq!(doctor(&app, 0), Vec::<String>::new());
    // A store of the command line is checked too, and a database on a server is not.
    let run = app.sandbox.run(&["predeploy", "--store", "./elsewhere"]);
    assert!(run.exit() != 0, "{}", run.transcript());
    write_config(&app, "postgres://u@127.0.0.1:1/app", "./volume/store", "");
    let failed = app.fails(&["predeploy"]).0;
    assert_one_failed(&failed, &["app: database"]);
}

#[test]
fn a_volatile_mount_inside_a_volume_is_not_the_volume() {
    let app = App::new("");
    let Some(_volume) = Mounted::tmpfs(&app.sandbox.path("volume"), "size=64m") else { return };
    let _inner = Mounted::tmpfs(&app.sandbox.path("volume/cache"), "size=64m").unwrap();
    write_config(&app, "./volume/cache/app.db", "./volume/store", "");
    app.sandbox.ok(&["init"]);
    // Both are in memory here, and that is allowed.
    app.passes(&["predeploy"]);
}
