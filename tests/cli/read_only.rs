//! Databases that may only be read: on a disk mounted read-only, or of another user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::companions::{Files, MORE_ROWS, ROWS, hot, wal};
use crate::helpers::query_value;
use crate::support::{LIFEBOAT, Run, Sandbox, have, skip_unless_ci};

/// A folder that this process may only read, as long as this value lives.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(folder: &Path) -> Self {
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for file in fs::read_dir(folder).unwrap() {
            set(&file.unwrap().path(), 0o444);
        }
        set(folder, 0o555);
        ReadOnly(folder.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755));
    }
}

/// Runs the program without root's right to write everywhere.
fn run(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search", LIFEBOAT]);
            command
        }
        false => Command::new(LIFEBOAT),
    };
    command.args(arguments).current_dir(sandbox.root());
    sandbox.finish(command)
}

fn can_run() -> bool {
    !rustix::process::geteuid().is_root() || have(&["setpriv"])
}

/// Names, bytes and times of all files in a folder.
fn state(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut state: Vec<_> = paths
        .map(|path| {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            (path.clone(), fs::read(&path).unwrap(), modified)
        })
        .collect();
    state.sort();
    state
}

/// Requires that a snapshot of `data/app.db` has these rows, in the manifest and after a restore, and changes nothing.
fn require_rows(sandbox: &Sandbox, what: &str, rows: &str) {
    let before = state(&sandbox.path("data"));
    let run = run(sandbox, &["snapshot", "data/app.db", "--store", "backups", "--json"]).code(0);
    assert_eq!(run.json()["snapshots"][0]["rows"].to_string(), rows, "{what}\n{}", run.transcript());
    assert_eq!(state(&sandbox.path("data")), before, "{what}: the files have changed");
    sandbox.ok(&["restore", "latest", "--to", "copy.db", "--store", "backups"]);
    assert_eq!(query_value(sandbox.path("copy.db"), "SELECT count(*) FROM t"), rows, "{what}");
    fs::remove_file(sandbox.path("copy.db")).unwrap();
    fs::remove_dir_all(sandbox.path("backups")).unwrap();
}

/// Kinds of files that a program which no longer runs may leave, and the number of their rows.
type Left = (&'static str, fn(&Path) -> Files, &'static str);

const LEFT: [Left; 3] = [
    ("a file in WAL mode", |folder| wal(folder, ROWS, ""), "1000"),
    ("a WAL of a killed program", |folder| wal(folder, ROWS, MORE_ROWS), "1050"),
    (
        "a hot journal of a killed program",
        |folder| hot(folder, ROWS, "UPDATE t SET a = a || 'y'; DELETE FROM t"),
        "1000",
    ),
];

#[test]
fn a_user_who_may_only_read_saves_every_row_and_changes_nothing() {
    if !can_run() {
        return;
    }
    for (what, make, rows) in LEFT {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path("data")).unwrap();
        make(sandbox.root()).write(&sandbox.path("data/app.db"));
        let _read_only = ReadOnly::new(&sandbox.path("data"));
        require_rows(&sandbox, what, rows);
    }
}

/// Requires that every command which inspects `data/app.db` succeeds without a change. The store has a snapshot of it.
fn require_inspected(sandbox: &Sandbox, what: &str, rows: &str) {
    let before = state(&sandbox.path("data"));
    for command in [
        &["check", "data/app.db", "--store", "backups"][..],
        &["diff", "latest", "data/app.db", "--store", "backups"],
        &["doctor", "data/app.db", "--store", "backups"],
        &["predeploy", "data/app.db", "--store", "backups"],
        &["inventory", "data", "--json"],
        &["inventory", "data", "--watch", "0s"],
        &["restore", "latest", "--to", "data/app.db", "--replace", "--dry-run", "--store", "backups"],
    ] {
        let run = run(sandbox, command);
        assert_eq!(run.exit(), 0, "{what}\n{}", run.transcript());
        assert!(state(&sandbox.path("data")) == before, "{what}: the files have changed\n{}", run.transcript());
        if command.contains(&"--json") {
            assert_eq!(run.json()["databases"][0]["rows"].to_string(), rows, "{what}\n{}", run.transcript());
        }
    }
}

#[test]
fn a_user_who_may_only_read_inspects_every_row_and_changes_nothing() {
    if !can_run() {
        return;
    }
    // The folder may be written to by others only, or also by this user.
    for mode in [0o555, 0o755] {
        for (what, make, rows) in LEFT {
            let sandbox = Sandbox::new();
            fs::create_dir(sandbox.path("data")).unwrap();
            make(sandbox.root()).write(&sandbox.path("data/app.db"));
            let _read_only = ReadOnly::new(&sandbox.path("data"));
            fs::set_permissions(sandbox.path("data"), fs::Permissions::from_mode(mode)).unwrap();
            run(&sandbox, &["snapshot", "data/app.db", "--store", "backups"]).code(0);
            require_inspected(&sandbox, what, rows);
        }
    }
}

#[test]
fn on_a_disk_mounted_read_only_every_row_is_saved() {
    for (what, make, rows) in LEFT {
        let sandbox = Sandbox::new();
        for folder in ["real", "data"] {
            fs::create_dir(sandbox.path(folder)).unwrap();
        }
        make(sandbox.root()).write(&sandbox.path("real/app.db"));
        let (real, data) = (sandbox.path("real"), sandbox.path("data"));
        let mount = |arguments: &[&str]| {
            Command::new("mount").args(arguments).arg(&data).output().is_ok_and(|output| output.status.success())
        };
        if !mount(&["--bind", real.to_str().unwrap()]) {
            return skip_unless_ci("mounting needs root");
        }
        let is_read_only = mount(&["-o", "remount,ro,bind"]);
        let tried = std::panic::catch_unwind(|| {
            assert!(is_read_only, "the mount cannot be made read-only");
            require_rows(&sandbox, what, rows);
            sandbox.ok(&["snapshot", "data/app.db", "--store", "backups"]);
            require_inspected(&sandbox, what, rows);
        });
        assert!(Command::new("umount").arg(&data).status().unwrap().success());
        tried.unwrap();
    }
}

#[test]
fn files_that_change_while_they_are_copied_are_copied_again_or_refused() {
    if !can_run() {
        return;
    }
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).unwrap();
    let path = sandbox.path("data/app.db");
    wal(sandbox.root(), ROWS, MORE_ROWS).write(&path);
    // Opened before it becomes read-only. A byte behind the last frame of a WAL means nothing to SQLite.
    let mut wal_file = fs::File::options().append(true).open(sandbox.path("data/app.db-wal")).unwrap();
    let _read_only = ReadOnly::new(&sandbox.path("data"));
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        while !flag.load(Ordering::Relaxed) {
            std::io::Write::write_all(&mut wal_file, b"x").unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    // If the writer gets no processor for a while, the copy is of one state, and is right to be taken.
    let snapshot = || run(&sandbox, &["snapshot", "data/app.db", "--store", "backups"]);
    let refused = (0..10).map(|_| snapshot()).find(|taken| taken.exit() != 0);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let refused = refused.expect("no snapshot was refused").code(5).says("other programs write to it");
    assert!(refused.stderr().contains("hint: "), "{}", refused.transcript());
    run(&sandbox, &["snapshot", "data/app.db", "--store", "backups"]).code(0);
}
