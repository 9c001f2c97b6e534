//! A database whose file was destroyed or replaced is lost: a rollback restores it, and a guard prints the command that
//! does. One that cannot be read is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::helpers::App;
use crate::helpers::{flip_bytes, run_without_root, shell_ok};

type Destruction = (&'static str, fn(&Path));

/// The ways to destroy a file after which its bytes are of use to somebody.
const DESTROYED: [Destruction; 4] = [
    ("a header of noise", |path| flip_bytes(path, 0, 100)),
    ("a first page of zeros", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[..4096].fill(0);
        fs::write(path, bytes).unwrap();
    }),
    ("a file of text", |path| fs::write(path, "what the editor saved\n".repeat(500)).unwrap()),
    ("a short text", |path| fs::write(path, "oops").unwrap()),
];

/// The ways after which nothing is left.
const EMPTIED: [Destruction; 2] = [
    ("a file of 0 bytes", |path| fs::write(path, "").unwrap()),
    ("a link whose file is gone", |path| fs::remove_file(path.canonicalize().unwrap()).unwrap()),
];

impl App {
    fn database(&self) -> std::path::PathBuf {
        self.sandbox.path("app/app.db")
    }

    /// Returns the files that a restore has moved aside.
    fn moved_aside(&self) -> Vec<std::path::PathBuf> {
        let names = fs::read_dir(self.sandbox.path("app")).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_string_lossy().contains(".damaged-")).collect()
    }

    fn balances(&self) -> i64 {
        self.integer("SELECT count(*) FROM balances")
    }
}

#[test]
fn a_rollback_restores_a_destroyed_database_and_keeps_its_file() {
    for (description, destroy) in DESTROYED.iter().chain(&EMPTIED) {
        let app = App::new("");
        if description.contains("link") {
            fs::rename(app.database(), app.sandbox.path("app/real.db")).unwrap();
            symlink("real.db", app.database()).unwrap();
        }
        app.passes(&["predeploy"]);
        destroy(&app.database());
        let bytes = fs::read(app.database()).unwrap_or_default();
        let (_, document) = app.fails(&["postdeploy"]);
        let command = document["rollback"][0].as_str().unwrap_or_default();
        assert!(command.contains("postdeploy --rollback"), "{description}\n{document:#}");
        let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
        assert!(run.stdout().contains("the lost data was restored"), "{description}\n{}", run.transcript());
        assert_eq!(app.balances(), 200, "{description}");
        if DESTROYED.iter().any(|(name, _)| name == description) {
            assert_eq!(fs::read(&app.moved_aside()[0]).unwrap(), bytes, "{description}");
        }
    }
}

#[test]
fn a_guard_does_not_start_on_a_destroyed_file_and_prints_the_command_that_restores_it() {
    for (description, destroy) in DESTROYED {
        let app = App::new("");
        app.sandbox.ok(&["snapshot"]);
        destroy(&app.database());
        let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
        assert!(!app.sandbox.path("started").exists(), "{description}\n{}", run.transcript());
        let stderr = run.stderr();
        let command = stderr.split('\'').find(|part| part.starts_with("lifeboat restore")).unwrap_or_default();
        assert!(command.contains("--replace"), "{description}\n{stderr}");
        shell_ok(&app.sandbox, command);
        assert_eq!((app.balances(), app.moved_aside().len()), (200, 1), "{description}");
        app.sandbox.ok(&["guard", "--", "true"]);
    }
}

#[test]
fn a_folder_in_the_place_of_a_database_must_be_moved_away_first() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.remove_database();
    fs::create_dir(app.database()).unwrap();
    let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
    assert!(!run.stdout().contains("no data was lost"), "{}", run.transcript());
    assert!(run.stderr().contains("move the folder away first"), "{}", run.transcript());
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
    assert!(!app.sandbox.path("started").exists(), "{}", run.transcript());
    let stderr = run.stderr();
    let command = stderr.split('\'').find(|part| part.starts_with("lifeboat restore")).unwrap_or_default();
    fs::rename(app.database(), app.sandbox.path("app/folder")).unwrap();
    shell_ok(&app.sandbox, command);
    assert_eq!(app.balances(), 200, "{command}");
}

#[test]
fn a_database_that_may_not_be_read_is_not_called_lost_or_whole() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    let everything = "chmod -R a+rX . && chmod 777 scratch && chmod 000 app/app.db";
    shell_ok(&app.sandbox, everything);
    let before = fs::metadata(app.database()).unwrap().modified().unwrap();
    let run = run_without_root(&app.sandbox, &["postdeploy", "--rollback"]).code(3);
    assert!(run.stdout().contains("it is not known if data of app was lost"), "{}", run.transcript());
    assert!(run.stdout().contains("nothing was restored"), "{}", run.transcript());
    fs::set_permissions(app.database(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!((app.balances(), app.moved_aside().len()), (200, 0));
    assert_eq!(fs::metadata(app.database()).unwrap().modified().unwrap(), before);
}
