//! File systems that lack what a disk has: hard links, `RENAME_NOREPLACE`, synced folders, permissions. So do vfat, CIFS,
//! many FUSE file systems, and the shared folders of virtual machines.

use crate::common::names_below;
use crate::strace::{can_trace, start_with_effects};
use crate::support::{Run, Running, Sandbox, count, sample};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const NO_EXCLUSIVE_RENAME: &str = "renameat2:error=EINVAL";
const NO_LINKS: &str = "link,linkat:error=EPERM";

fn run(sandbox: &Sandbox, effects: &[&str], arguments: &[&str]) -> Run {
    start_with_effects(sandbox, effects, &[], arguments).finish()
}

/// Returns the names of temporary files and lock files.
fn leftovers(sandbox: &Sandbox) -> Vec<String> {
    let is_ours = |name: &String| name.contains(".lifeboat-") || name.contains(".upload-");
    names_below(sandbox.root()).into_iter().filter(is_ours).collect()
}

#[test]
fn stores_keys_configs_and_files_can_be_written_without_hard_links() {
    if !can_trace() {
        return;
    }
    for (rename, link) in [
        ("EINVAL", "EPERM"),
        ("ENOSYS", "EOPNOTSUPP"),
        ("EINVAL", "ENOSYS"),
        ("EOPNOTSUPP", "EIO"),
        ("EPERM", "EMLINK"),
        ("EIO", "EINVAL"),
    ] {
        let sandbox = Sandbox::new();
        sample(sandbox.path("app.db"), 3, "delete");
        let effects = [format!("renameat2:error={rename}"), format!("link,linkat:error={link}")];
        let effects = [effects[0].as_str(), effects[1].as_str()];
        let ok = |arguments: &[&str]| run(&sandbox, &effects, arguments).code(0);
        let created = ok(&["snapshot", "app.db", "--store", "backups"]);
        assert!(created.stderr().contains("a lock file keeps two writers"), "{}", created.transcript());
        // The missing guarantees are reported once, and not by every run of a cron job.
        let second = ok(&["snapshot", "app.db", "--store", "backups", "--quiet"]);
        assert_eq!(second.stderr(), "", "{}", second.transcript());
        let doctor = ok(&["doctor", "--store", "backups"]);
        assert!(doctor.stdout().contains("a lock file keeps two writers"), "{}", doctor.transcript());
        ok(&["restore", "latest", "--store", "backups", "--to", "new.db"]);
        assert_eq!(count(sandbox.path("new.db"), "accounts"), 3);
        ok(&["extract", "latest", "--store", "backups", "--entry", "manifest.json", "--to", "manifest.json"]);
        ok(&["keygen", "--output", "key.txt"]);
        let again = run(&sandbox, &effects, &["keygen", "--output", "key.txt"]).code(2);
        assert!(again.stderr().contains("already exists"), "{}", again.transcript());
        ok(&["init"]);
        let config = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
        ok(&["init"]);
        assert_eq!(fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap(), config);
        assert_eq!(leftovers(&sandbox), Vec::<String>::new());
        sandbox.ok(&["verify", "--all", "--store", "backups"]);
        assert_eq!(sandbox.ids().len(), 2);
    }
}

#[test]
fn of_two_writers_of_one_name_without_hard_links_one_is_refused() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    // Each waits between the check that the name is free and the rename.
    let effects = [NO_EXCLUSIVE_RENAME, NO_LINKS, "rename:delay_enter=300000"];
    for name in ["one.txt", "two.txt", "three.txt"] {
        let runs: Vec<Running> =
            (0..3).map(|_| start_with_effects(&sandbox, &effects, &[], &["keygen", "--output", name])).collect();
        let runs: Vec<Run> = runs.into_iter().map(Running::finish).collect();
        let made: Vec<&Run> = runs.iter().filter(|run| run.exit() == 0).collect();
        assert!(runs.iter().all(|run| matches!(run.exit(), 0 | 2)), "{}", runs[0].transcript());
        assert_eq!(made.len(), 1, "{}", runs[0].transcript());
        let key = sandbox.json(&["keygen", "--public", name]);
        let public = key["public_keys"][0].as_str().unwrap();
        assert!(made[0].stderr().contains(public), "{}", made[0].transcript());
    }
    assert_eq!(leftovers(&sandbox), Vec::<String>::new());
}

#[test]
fn kill_at_a_rename_without_hard_links_lists_nothing_and_blocks_nobody() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let effects = [NO_EXCLUSIVE_RENAME, NO_LINKS];
    run(&sandbox, &effects, &["snapshot", "app.db", "--store", "backups"]).code(0);
    for rename in 1.. {
        let before = sandbox.ids();
        let kill = format!("rename:signal=KILL:when={rename}");
        let killed = run(&sandbox, &[effects[0], effects[1], &kill], &["snapshot", "app.db", "--store", "backups"]);
        if killed.exit() == 0 {
            assert!(rename > 2, "{}", killed.transcript());
            break;
        }
        // A kill when the manifest was renamed already leaves a snapshot that is whole.
        assert!(sandbox.ids().len() - before.len() <= 1, "{}", killed.transcript());
        sandbox.ok(&["verify", "--all", "--store", "backups"]);
        run(&sandbox, &effects, &["snapshot", "app.db", "--store", "backups"]).code(0);
    }
    // A lock file for the same name is taken over when it is old.
    let kill = [effects[0], effects[1], "rename:signal=KILL"];
    assert_eq!(run(&sandbox, &kill, &["keygen", "--output", "key.txt"]).exit(), 137);
    let locks =
        || leftovers(&sandbox).into_iter().filter(|name| name.starts_with(".lifeboat-") && name.ends_with(".lock"));
    assert_eq!(locks().count(), 1, "{:?}", leftovers(&sandbox));
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let lock = sandbox.path(locks().next().unwrap());
    fs::File::options().write(true).open(lock).unwrap().set_modified(hour_ago).unwrap();
    run(&sandbox, &effects, &["keygen", "--output", "key.txt"]).code(0);
    assert_eq!(locks().count(), 0);
    // One in a store is removed with other data of processes that were killed.
    let left = sandbox.path("backups/app/.lifeboat-0123456789abcdef.lock");
    fs::write(&left, "").unwrap();
    let two_days_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    fs::File::options().write(true).open(&left).unwrap().set_modified(two_days_ago).unwrap();
    sandbox.ok(&["prune", "--keep-last", "100", "--yes", "--store", "backups"]);
    assert!(!left.exists());
}

#[test]
fn folders_that_cannot_be_synced_and_files_without_permissions_are_no_failure() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let no_modes = "chmod,fchmod,fchmodat:error=EPERM";
    for code in ["EINVAL", "EOPNOTSUPP", "EPERM", "EBADF"] {
        let sync = format!("fsync:error={code}");
        let store = format!("store-{code}");
        // Of the calls of fsync, only those for these folders fail.
        let traced = |folders: &[&str], arguments: &[&str]| {
            let folders: Vec<PathBuf> = folders.iter().map(|folder| sandbox.path(folder)).collect();
            let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
            start_with_effects(&sandbox, &[&sync, no_modes], &folders, arguments).finish().code(0)
        };
        fs::create_dir_all(sandbox.path(format!("{store}/app"))).unwrap();
        fs::remove_dir(sandbox.path(format!("{store}/app"))).unwrap();
        let inner = format!("{store}/app");
        let created = traced(&[&store, &inner, ""], &["snapshot", "app.db", "--store", &store]);
        assert!(created.stderr().contains("cannot be synced"), "{}", created.transcript());
        let key = format!("key-{code}.txt");
        traced(&[""], &["keygen", "--output", &key]);
        traced(&[""], &["restore", "latest", "--store", &store, "--to", &format!("{code}.db")]);
        sandbox.ok(&["verify", "--all", "--store", &store]);
    }
    // All calls that set a mode fail.
    run(&sandbox, &[no_modes], &["keygen", "--output", "key.txt"]).code(0);
    run(&sandbox, &[no_modes], &["restore", "latest", "--store", "store-EPERM", "--to", "new.db"]).code(0);
    assert_eq!(count(sandbox.path("new.db"), "accounts"), 3);
    // The error of a disk is a failure.
    let failed = run(&sandbox, &["fsync:error=EIO"], &["snapshot", "app.db", "--store", "store-EPERM"]);
    assert!(matches!(failed.exit(), 1 | 5), "{}", failed.transcript());
    assert_eq!(sandbox.json(&["list", "--store", "store-EPERM"])["snapshots"].as_array().unwrap().len(), 1);
    assert!(failed.stderr().contains("os error 5"), "{}", failed.transcript());
}

#[test]
fn folder_with_files_of_the_system_only_can_become_a_store() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let names = [
        "lost+found/",
        "@eaDir/",
        "#recycle/",
        ".snapshot/",
        ".snapshots/",
        ".zfs/",
        ".stfolder/",
        ".Trash-1000/",
        "System Volume Information/",
        "$RECYCLE.BIN/",
        ".gitkeep",
        ".gitignore",
        ".DS_Store",
        "._app",
        "Thumbs.db",
        "desktop.ini",
        ".nfs000000000000000100000001",
    ];
    let fill = |folder: &str| {
        for name in names {
            let path = sandbox.path(folder).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match name.ends_with('/') {
                true => fs::create_dir_all(path).unwrap(),
                false => fs::write(path, "x").unwrap(),
            }
        }
    };
    fill("backups");
    sandbox.snapshot("app.db");
    fill("backups/app");
    sandbox.snapshot("app.db");
    assert_eq!(sandbox.ids().len(), 2);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    sandbox.ok(&["prune", "--keep-last", "1", "--yes", "--store", "backups"]);
    assert_eq!(sandbox.ids().len(), 1);
    assert!(sandbox.path("backups/app/Thumbs.db").exists() && sandbox.path("backups/lost+found").exists());
    fill("out");
    sandbox.ok(&["extract", "latest", "--store", "backups", "--to", "out"]);
    // A file of anyone else says that the folder is used for something else.
    fs::create_dir(sandbox.path("photos")).unwrap();
    fs::write(sandbox.path("photos/holiday.jpg"), "x").unwrap();
    sandbox.run(&["snapshot", "app.db", "--store", "photos"]).code(2).says("holiday.jpg");
}
