//! Full and read-only disks.

use crate::common::{
    Found, TargetKind, copy_folder, create_database, files_of, fingerprint, ids_in, leave_changes_in_wal, names_below,
    program, require_good_store, set_up_restore, transcript,
};
use crate::strace::{can_trace, run_with_injection};
use crate::support::{Sandbox, open, sample, skip_unless_ci};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A small file system in memory, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    /// Mounts a file system. Returns `None` if this user may not do so.
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&path).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Disk(path));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount a tmpfs: {mounted:?}");
        skip_unless_ci("only root can mount a file system, which this test needs");
        None
    }

    fn make_read_only(&self) {
        let output = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn make_writable(&self) {
        let output = Command::new("mount").args(["-o", "remount,rw"]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Fills the file system until `bytes` are free.
    fn leave_free(&self, bytes: u64) {
        let filler = self.0.join("filler");
        let _ = fs::remove_file(&filler);
        let state = rustix::fs::statvfs(&self.0).unwrap();
        let free = state.f_bavail * state.f_frsize;
        fs::write(filler, vec![1; usize::try_from(free.saturating_sub(bytes)).unwrap()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Requires the exit code, one line of error, and one hint that contains `hint`.
#[track_caller]
fn require_error(report: &str, output: &Output, code: i32, hint: &str) {
    assert_eq!(output.status.code(), Some(code), "{report}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let count = |start: &str| stderr.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("error: "), count("hint: ")), (1, 1), "not one error line and one hint: {report}");
    assert!(
        stderr.lines().all(|line| ["error: ", "hint: ", " WARN"].iter().any(|start| line.starts_with(start))),
        "{report}"
    );
    assert!(stderr.contains(hint), "the hint does not contain '{hint}': {report}");
}

#[test]
fn snapshot_into_a_full_store_fails_and_leaves_the_store_unchanged() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    create_database(&sandbox.path("app.db"), "wal", 30_000, 1);
    let arguments = ["snapshot", "app.db", "--store", "disk/backups"];
    let first = program(root, &arguments).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", root, &first));
    let archive_bytes = files_of(root, "disk/backups").values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let before = files_of(root, "disk/backups");
    let (mut failures, mut successes) = (0, 0);
    for step in 0..12 {
        disk.leave_free(archive_bytes * step / 8);
        let output = program(root, &arguments).output().unwrap();
        let report = transcript(&format!("{step}/8 of the archive's length is free"), root, &output);
        if output.status.success() {
            successes += 1;
            for (name, _) in files_of(root, "disk/backups").iter().filter(|(name, _)| !before.contains_key(*name)) {
                fs::remove_file(root.join(name)).unwrap();
            }
        } else {
            failures += 1;
            require_error(&report, &output, 1, "the disk is full");
        }
        assert_eq!(files_of(root, "disk/backups"), before, "{report}");
        let names = names_below(&sandbox.path("disk/backups"));
        assert!(!names.iter().any(|name| name.contains(".upload-")), "{report}");
    }
    assert!(failures >= 6 && successes >= 1, "{failures} failures, {successes} successes");
    let restored =
        program(root, &["restore", "latest", "--store", "disk/backups", "--to", "copy.db"]).output().unwrap();
    assert!(restored.status.success(), "{}", transcript("restore", root, &restored));
    assert_eq!(fingerprint(sandbox.path("copy.db")), fingerprint(sandbox.path("app.db")));
}

#[test]
fn first_snapshot_into_a_full_store_lists_nothing_and_a_retry_succeeds() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    create_database(&sandbox.path("app.db"), "delete", 30_000, 1);
    disk.leave_free(100_000);
    let output = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    require_error(&transcript("first", root, &output), &output, 1, "the disk is full");
    assert!(ids_in(&sandbox.path("disk/backups")).is_empty());
    assert_eq!(names_below(&sandbox.path("scratch")), Vec::<String>::new());
    disk.leave_free(4 << 20);
    let again = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    assert!(again.status.success(), "{}", transcript("again", root, &again));
}

#[test]
fn restore_to_a_disk_with_little_space_succeeds_or_leaves_the_target_unchanged() {
    let mut without_hint = Vec::new();
    for kind in [TargetKind::Absent, TargetKind::Wal, TargetKind::Delete, TargetKind::Damaged, TargetKind::OneTable] {
        let sandbox = Sandbox::new();
        let Some(disk) = Disk::mount(sandbox.path("disk"), "32m") else { return };
        let setup = set_up_restore(&sandbox, kind, 30_000);
        let image = 5 << 20;
        let (mut failures, mut successes) = (0, 0);
        for step in 0..14 {
            let folder = sandbox.path("run");
            copy_folder(&setup.template, &folder);
            let inside = sandbox.path("disk/inside");
            fs::create_dir(&inside).unwrap();
            for suffix in ["", "-wal"] {
                let name = format!("app.db{suffix}");
                if folder.join(&name).exists() {
                    fs::copy(folder.join(&name), inside.join(&name)).unwrap();
                    fs::remove_file(folder.join(&name)).unwrap();
                }
            }
            disk.leave_free(image * step / 8);
            let mut arguments = setup.arguments();
            let to = arguments.iter().position(|argument| *argument == "app.db").unwrap();
            arguments[to] = "../disk/inside/app.db";
            let before = files_of(&folder, "backups");
            let output = program(&folder, &arguments).output().unwrap();
            let report = format!(
                "{}{:?}",
                transcript(&format!("{kind:?}, {step}/8 of 5 MiB is free"), &folder, &output),
                names_below(&inside)
            );
            fs::remove_file(sandbox.path("disk/filler")).unwrap();
            let found = setup.inspect_target(kind, &inside, &report);
            if output.status.success() {
                successes += 1;
                assert_eq!(found, Found::New, "{report}");
            } else {
                failures += 1;
                assert_eq!(found, Found::Old, "{report}");
                assert_eq!(output.status.code(), Some(1), "{report}");
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{report}");
                if !stderr.contains("hint: ") || !stderr.contains("free some space") {
                    without_hint.push(report.clone());
                }
                let leftover = names_below(&inside)
                    .into_iter()
                    .find(|name| name.contains("lifeboat-") || name.contains(".damaged-"));
                assert_eq!(leftover, None, "{report}");
            }
            require_good_store(&folder, &before, &report);
            fs::remove_dir_all(&folder).unwrap();
            fs::remove_dir_all(&inside).unwrap();
        }
        eprintln!("{kind:?}: {failures} without enough space, {successes} with it");
        assert!(failures >= 2 && successes >= 2, "{kind:?}: {failures} failures, {successes} successes");
    }
    assert!(without_hint.is_empty(), "no hint about the full disk:\n{}", without_hint.join("\n"));
}

#[test]
fn command_with_a_full_scratch_folder_fails_with_nothing_changed_and_hints_at_the_option() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let setup = set_up_restore(&sandbox, TargetKind::Delete, 30_000);
    let folder = &setup.template;
    let state = |folder: &Path| -> BTreeMap<String, Vec<u8>> {
        files_of(folder, ".").into_iter().filter(|(name, _)| !name.ends_with("-shm")).collect()
    };
    let before = state(folder);
    disk.leave_free(1 << 20);
    let mut restore = setup.arguments();
    restore.extend(["--scratch", "../disk"]);
    let snapshot = ["snapshot", "app.db", "--name", "other", "--store", "backups", "--scratch", "../disk"];
    for arguments in [&snapshot[..], &restore[..]] {
        let output = program(folder, arguments).output().unwrap();
        let report = transcript(&arguments.join(" "), folder, &output);
        require_error(&report, &output, 1, "--scratch");
        assert_eq!(state(folder), before, "{report}");
        assert_eq!(names_below(&sandbox.path("disk")), ["filler"], "{report}");
        // TMPDIR has the same effect as the option.
        let plain: Vec<&str> = arguments[..arguments.len() - 2].to_vec();
        let output = program(folder, &plain).env("TMPDIR", sandbox.path("disk")).output().unwrap();
        let report = transcript(&plain.join(" "), folder, &output);
        require_error(&report, &output, 1, "--scratch");
        assert_eq!(state(folder), before, "{report}");
    }
    disk.leave_free(8 << 20);
    let output = program(folder, &restore).output().unwrap();
    let report = transcript("with enough space", folder, &output);
    if output.status.success() {
        assert_eq!(setup.inspect_target(TargetKind::Delete, folder, &report), Found::New, "{report}");
    }
    assert_eq!(names_below(&sandbox.path("disk")), ["filler"], "{report}");
}

#[test]
fn restore_fails_and_clears_its_scratch_folder_if_that_becomes_full() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let setup = set_up_restore(&sandbox, TargetKind::Delete, 30_000);
    // The file system reports enough space, and is full at the second write of the image.
    let run = run_with_injection(&setup.template, &setup.arguments, "write", "error=ENOSPC", "2+");
    let (output, _) = run.unwrap();
    let report = transcript("write fails", &setup.template, &output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(setup.inspect_target(TargetKind::Delete, &setup.template, &report), Found::Old);
    assert_eq!(names_below(&setup.template.join("scratch")), Vec::<String>::new(), "{report}");
}

#[test]
fn read_only_store_refuses_snapshots_and_still_restores() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    create_database(&sandbox.path("app.db"), "wal", 3_000, 1);
    let first = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", root, &first));
    disk.make_read_only();
    let before = files_of(root, "disk");
    let output = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    let report = transcript("snapshot", root, &output);
    assert_eq!(output.status.code(), Some(5), "{report}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "{report}"
    );
    let restored =
        program(root, &["restore", "latest", "--store", "disk/backups", "--to", "copy.db"]).output().unwrap();
    assert!(restored.status.success(), "{}", transcript("restore", root, &restored));
    assert_eq!(fingerprint(sandbox.path("copy.db")), fingerprint(sandbox.path("app.db")));
    // No safety snapshot can be written, so nothing is overwritten unless `--no-safety` is given.
    open(sandbox.path("app.db")).execute_batch("DELETE FROM logs").unwrap();
    let changed = fingerprint(sandbox.path("app.db"));
    let replace = ["restore", "latest", "--store", "disk/backups", "--to", "app.db", "--replace"];
    let output = program(root, &replace).output().unwrap();
    let report = transcript("replace", root, &output);
    assert!(!output.status.success(), "{report}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"), "{report}");
    assert_eq!(fingerprint(sandbox.path("app.db")), changed, "{report}");
    let mut without_safety = replace.to_vec();
    without_safety.push("--no-safety");
    let output = program(root, &without_safety).output().unwrap();
    assert!(output.status.success(), "{}", transcript("--no-safety", root, &output));
    assert_eq!(fingerprint(sandbox.path("app.db")), fingerprint(sandbox.path("copy.db")));
    assert_eq!(files_of(root, "disk"), before);
    assert_eq!(names_below(&sandbox.path("scratch")), Vec::<String>::new());
}

#[test]
fn read_only_store_can_be_listed_and_verified() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    create_database(&sandbox.path("app.db"), "wal", 3_000, 1);
    let first = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", root, &first));
    disk.make_read_only();
    for arguments in [["list", "--store", "disk/backups"].as_slice(), &["verify", "--all", "--store", "disk/backups"]] {
        let output = program(root, arguments).output().unwrap();
        assert!(output.status.success(), "{}", transcript(&arguments.join(" "), root, &output));
    }
}

#[test]
fn source_on_a_read_only_disk_is_saved_completely_or_refused() {
    for state in ["wal, clean", "wal, to be recovered", "delete", "delete, to be recovered"] {
        let sandbox = Sandbox::new();
        let Some(disk) = Disk::mount(sandbox.path("disk"), "32m") else { return };
        let (root, source) = (sandbox.root(), sandbox.path("disk/app.db"));
        create_database(&source, state.split(',').next().unwrap(), 20_000, 1);
        if state == "wal, to be recovered" {
            leave_changes_in_wal(&source, |db| db.execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap());
        }
        let mut expected = None;
        if state == "delete, to be recovered" {
            expected = Some(fingerprint(&source));
            let building = sandbox.path("disk/building");
            fs::rename(&source, &building).unwrap();
            let connection = open(&building);
            connection.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE logs SET body = 'gone'").unwrap();
            fs::copy(&building, &source).unwrap();
            fs::copy(sandbox.path("disk/building-journal"), sandbox.path("disk/app.db-journal")).unwrap();
            connection.execute_batch("ROLLBACK").unwrap();
            drop(connection);
            fs::remove_file(building).unwrap();
        }
        let expected = expected.unwrap_or_else(|| {
            // Opening the database would recover it, so a copy is opened.
            let copy = sandbox.path("aside");
            copy_folder(&sandbox.path("disk"), &copy);
            fingerprint(copy.join("app.db"))
        });
        let before: BTreeMap<_, _> = files_of(root, "disk");
        disk.make_read_only();
        let output = program(root, &["snapshot", "disk/app.db", "--store", "backups"]).output().unwrap();
        let report = transcript(state, root, &output);
        assert_eq!(files_of(root, "disk"), before, "{report}");
        if !state.ends_with("recovered") {
            assert!(output.status.success(), "{report}");
        }
        if output.status.success() {
            let restored =
                program(root, &["restore", "latest", "--store", "backups", "--to", "copy.db"]).output().unwrap();
            assert!(restored.status.success(), "{report}{}", transcript("restore", root, &restored));
            assert_eq!(fingerprint(sandbox.path("copy.db")), expected, "{report}");
        } else {
            require_error(&report, &output, 5, "");
            assert!(ids_in(&sandbox.path("backups")).is_empty(), "{report}");
        }
        // On a writable disk the database is recovered and saved completely.
        disk.make_writable();
        let output = program(root, &["snapshot", "disk/app.db", "--store", "backups"]).output().unwrap();
        let report = transcript(&format!("{state}, writable"), root, &output);
        assert!(output.status.success(), "{report}");
        let restored =
            program(root, &["restore", "latest", "--store", "backups", "--to", "again.db"]).output().unwrap();
        assert!(restored.status.success(), "{report}{}", transcript("restore", root, &restored));
        assert_eq!(fingerprint(sandbox.path("again.db")), expected, "{report}");
    }
}

#[test]
fn store_that_is_a_file_is_refused_and_unchanged() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 5, "wal");
    fs::write(sandbox.path("backups"), b"mine").unwrap();
    let before = sandbox.state();
    for arguments in
        [["snapshot", "app.db"].as_slice(), &["list"], &["verify", "--all"], &["restore", "latest", "--to", "copy.db"]]
    {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups"]);
        let output = program(sandbox.root(), &arguments).output().unwrap();
        let report = transcript(&arguments.join(" "), sandbox.root(), &output);
        require_error(&report, &output, 5, "");
        assert_eq!(sandbox.state(), before, "{report}");
    }
}

#[test]
fn snapshot_fails_if_its_store_disappears_and_does_not_create_it_again() {
    for _ in 0..5 {
        let sandbox = Sandbox::new();
        let root = sandbox.root();
        create_database(&sandbox.path("app.db"), "wal", 60_000, 1);
        let first = program(root, &["snapshot", "app.db", "--store", "backups"]).output().unwrap();
        assert!(first.status.success(), "{}", transcript("first", root, &first));
        let before = files_of(root, "backups");
        let mut child =
            program(root, &["snapshot", "app.db", "--store", "backups", "--compression", "gzip:9"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !names_below(&sandbox.path("backups")).iter().any(|name| name.contains(".upload-")) {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the upload was not seen");
            std::thread::yield_now();
        }
        fs::rename(sandbox.path("backups"), sandbox.path("unplugged")).unwrap();
        let output = child.wait_with_output().unwrap();
        let report = transcript("store moved away", root, &output);
        assert!(!output.status.success(), "{report}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{report}"
        );
        assert!(!sandbox.path("backups").exists(), "{report}");
        fs::rename(sandbox.path("unplugged"), sandbox.path("backups")).unwrap();
        assert_eq!(ids_in(&sandbox.path("backups")).len(), 1, "{report}");
        require_good_store(root, &before, &report);
    }
}
