//! Root works in the folder of another user, who plants links, hard links and pipes, and exchanges folders for links:
//! nothing elsewhere is read, written, or given away.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::helpers::query_value;
use crate::ownership::is_root;
use crate::support::{Run, Sandbox, sample};

const OTHER: u32 = 12345;

/// Creates `data/app.db` of another user in a folder of that user, and takes a snapshot of it. Creates the folder
/// `private` of root, with `app.db`, `text` and an empty folder `sub`.
fn sandbox_with_two_users(journal: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["data", "private", "private/sub"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
    }
    sample(sandbox.path("data/app.db"), 3, journal);
    for name in ["data", "data/app.db"] {
        chown(sandbox.path(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    let id = sandbox.snapshot("data/app.db");
    sample(sandbox.path("private/app.db"), 7, journal);
    fs::write(sandbox.path("private/text"), "a secret of root\n").unwrap();
    for name in ["private/app.db", "private/text"] {
        fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    (sandbox, id)
}

/// Creates a link of the other user.
fn plant(sandbox: &Sandbox, target: &str, link: &str) {
    symlink(sandbox.path(target), sandbox.path(link)).unwrap();
    lchown(sandbox.path(link), Some(OTHER), Some(OTHER)).unwrap();
}

/// Returns the names, owners, modes, link counts and contents of the files of root.
fn private(sandbox: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["private", "private/sub"] {
        for entry in fs::read_dir(sandbox.path(folder)).unwrap().flatten() {
            let facts = entry.metadata().unwrap();
            let content = if facts.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            found.push(format!("{:?} {} {:o} {content:?}", entry.path(), facts.uid(), facts.mode()));
        }
    }
    found.sort();
    found
}

#[track_caller]
fn assert_names_the_link(run: Run) {
    let is_named = (run.stderr() + &run.stdout()).contains("symbolic link of the user 12345");
    assert!(is_named && matches!(run.exit(), 2 | 3), "{}", run.transcript());
}

#[test]
fn root_does_not_follow_a_link_of_another_user_to_a_file_of_root() {
    if !is_root() {
        return;
    }
    let (sandbox, id) = sandbox_with_two_users("delete");
    let before = private(&sandbox);
    plant(&sandbox, "private/app.db", "data/link.db");
    plant(&sandbox, "private/new.db", "data/dangling.db");
    plant(&sandbox, "private", "data/folder");
    plant(&sandbox, "private/text", "data/page.html");
    plant(&sandbox, "private/missing/folder", "data/nowhere");
    for source in ["data/link.db", "data/folder/app.db"] {
        assert_names_the_link(sandbox.run(&["snapshot", source, "--store", "backups"]));
        assert_names_the_link(sandbox.run(&["check", source, "--store", "backups"]));
    }
    for target in ["data/link.db", "data/dangling.db", "data/folder/app.db", "data/folder/new.db"] {
        for flags in [&["--replace", "--yes"][..], &[]] {
            let arguments = [&["restore", &id, "--to", target, "--store", "backups"], flags].concat();
            assert_names_the_link(sandbox.run(&arguments));
        }
    }
    assert_names_the_link(sandbox.run(&["report", "data/app.db", "--html", "data/page.html", "--store", "backups"]));
    assert_names_the_link(sandbox.run(&["keygen", "--output", "data/folder/key"]));
    assert_names_the_link(sandbox.run(&["extract", &id, "--to", "data/folder/sub", "--store", "backups"]));
    assert_names_the_link(sandbox.run(&["extract", &id, "--to", "data/folder/new", "--store", "backups"]));
    for store in ["data/folder/sub", "data/folder/store"] {
        assert_names_the_link(sandbox.run(&["snapshot", "data/app.db", "--store", store]));
    }
    sandbox.run(&["snapshot", "data/app.db", "--store", "data/nowhere"]).code(5);
    assert_eq!(private(&sandbox), before);
}

#[test]
fn root_follows_links_of_root_and_links_of_a_user_to_the_files_of_that_user() {
    if !is_root() {
        return;
    }
    let (sandbox, id) = sandbox_with_two_users("wal");
    plant(&sandbox, "data/app.db", "own.db");
    plant(&sandbox, "data", "own");
    symlink(sandbox.path("data"), sandbox.path("by_root")).unwrap();
    for source in ["own.db", "own/app.db", "by_root/app.db"] {
        let run = sandbox.run(&["check", source, "--store", "backups"]);
        assert!(run.stdout().contains("integrity     sound"), "{}", run.transcript());
        sandbox.ok(&["restore", &id, "--to", source, "--replace", "--yes", "--store", "backups"]);
    }
    plant(&sandbox, "data/new.db", "own_new.db");
    sandbox.ok(&["restore", &id, "--to", "own_new.db", "--store", "backups"]);
    assert_eq!(query_value(sandbox.path("data/new.db"), "SELECT count(*) FROM accounts"), "3");
}

#[test]
fn root_does_not_write_to_a_file_that_another_user_has_planted_beside_a_database() {
    if !is_root() {
        return;
    }
    for journal in ["wal", "delete"] {
        let (sandbox, id) = sandbox_with_two_users(journal);
        let before = private(&sandbox);
        for suffix in ["-wal", "-shm", "-journal"] {
            let planted = sandbox.path(format!("data/app.db{suffix}"));
            let run = || {
                sandbox.run(&["snapshot", "data/app.db", "--store", "damaged", "--allow-damaged"]);
                assert_eq!(private(&sandbox), before, "{suffix}");
                for arguments in [
                    &["snapshot", "data/app.db", "--store", "backups"][..],
                    &["check", "data/app.db", "--store", "backups"],
                    &["restore", &id, "--replace", "--yes", "--store", "backups"],
                ] {
                    let run = sandbox.run(arguments);
                    let is_named = (run.stderr() + &run.stdout()).contains(&format!("app.db{suffix} "));
                    assert!(is_named && matches!(run.exit(), 2 | 3), "{}", run.transcript());
                    assert_eq!(private(&sandbox), before, "{suffix}: {}", run.transcript());
                }
                fs::remove_file(&planted).unwrap();
            };
            fs::hard_link(sandbox.path("private/text"), &planted).unwrap();
            run();
            plant(&sandbox, "private/text", &format!("data/app.db{suffix}"));
            run();
            plant(&sandbox, "private/new", &format!("data/app.db{suffix}"));
            run();
            rustix::fs::mknodat(CWD, &planted, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
            run();
        }
        sandbox.ok(&["restore", &id, "--replace", "--yes", "--store", "backups"]);
    }
}

#[test]
fn root_does_not_use_a_hard_link_or_a_pipe_in_the_place_of_a_database() {
    if !is_root() {
        return;
    }
    let (sandbox, id) = sandbox_with_two_users("delete");
    let before = private(&sandbox);
    let config =
        "host = \"vm\"\nstore = [{ url = \"backups\" }]\nsource = [{ name = \"app\", url = \"data/app.db\" }]\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    fs::remove_file(sandbox.path("data/app.db")).unwrap();
    fs::hard_link(sandbox.path("private/app.db"), sandbox.path("data/app.db")).unwrap();
    for arguments in [
        &["snapshot", "data/app.db", "--store", "backups", "--allow-damaged"][..],
        &["restore", &id, "--replace", "--yes", "--store", "backups"],
        &["guard", "--", "true"],
    ] {
        let run = sandbox.run(arguments).says("another name (a hard link)");
        assert_ne!(run.exit(), 0, "{}", run.transcript());
        assert_eq!(private(&sandbox), before);
    }
    fs::remove_file(sandbox.path("data/app.db")).unwrap();
    let path = sandbox.path("data/app.db");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
    for arguments in [
        &["snapshot", "data/app.db", "--store", "backups", "--allow-damaged"][..],
        &["restore", &id, "--replace", "--yes", "--store", "backups"],
    ] {
        sandbox.run(arguments).code(2).says("not a regular file");
    }
}

/// Exchanges a folder and a link again and again until this is dropped.
struct Exchange<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn exchange(one: &Path, other: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
        // Both states must last long enough for a few steps of a command.
        std::thread::sleep(std::time::Duration::from_micros(300));
    }
}

#[test]
fn nothing_is_written_elsewhere_when_a_folder_is_exchanged_for_a_link_meanwhile() {
    if !is_root() {
        return;
    }
    let (sandbox, id) = sandbox_with_two_users("wal");
    fs::create_dir(sandbox.path("data/place")).unwrap();
    fs::rename(sandbox.path("data/app.db"), sandbox.path("data/place/app.db")).unwrap();
    chown(sandbox.path("data/place"), Some(OTHER), Some(OTHER)).unwrap();
    plant(&sandbox, "private", "data/link");
    fs::remove_file(sandbox.path("private/app.db")).unwrap();
    let before = private(&sandbox);
    let stop = AtomicBool::new(false);
    let (place, link) = (sandbox.path("data/place"), sandbox.path("data/link"));
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&place, &link, &stop));
        let _exchange = Exchange { stop: &stop };
        for attempt in 0..12 {
            let new = format!("data/place/new{attempt}.db");
            let folder = format!("data/place/folder{attempt}");
            for arguments in [
                &["restore", &id, "--to", &new, "--store", "backups"][..],
                &["restore", &id, "--to", "data/place/app.db", "--replace", "--yes", "--store", "backups"],
                &["extract", &id, "--to", &folder, "--store", "backups"],
                &["snapshot", "data/place/app.db", "--store", "data/place/store", "--name", "app"],
                &["report", "data/place/app.db", "--html", "data/place/text", "--store", "backups"],
                &["keygen", "--output", "data/place/key"],
            ] {
                let run = sandbox.run(arguments);
                assert_eq!(private(&sandbox), before, "{}", run.transcript());
            }
        }
    });
}
