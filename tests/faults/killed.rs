//! Commands that are killed at random times (`kill -9`).

use crate::common::{
    Found, KillTimes, TargetKind, copy_folder, create_database, files_of, fingerprint, ids_in, leave_changes_in_wal,
    measure, names_below, program, require_good_store, run_with_signal, scratch_files, set_up_restore, transcript,
};
use crate::support::{Sandbox, open};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Takes snapshots and kills each at a random instant of its run.
fn kill_snapshots(journal: &str, compression: &str, kills: u32) {
    let sandbox = Sandbox::new();
    // The first snapshot is taken in the folder of the later runs, because a source is identified by its path.
    let template = sandbox.path("run");
    fs::create_dir(&template).unwrap();
    create_database(&template.join("app.db"), journal, 30_000, 1);
    let arguments = ["snapshot", "app.db", "--store", "backups", "-j", "2", "--compression", compression];
    let first = program(&template, &arguments).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", &template, &first));
    let older = ids_in(&template.join("backups"));
    if journal == "wal" {
        leave_changes_in_wal(&template.join("app.db"), |db| {
            db.execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap()
        });
    } else {
        open(template.join("app.db")).execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap();
    }
    let restored =
        program(&template, &["restore", "latest", "--store", "backups", "--to", "older.db"]).output().unwrap();
    assert!(restored.status.success(), "{}", transcript("older", &template, &restored));
    let older_bytes = fs::read(template.join("older.db")).unwrap();
    fs::remove_file(template.join("older.db")).unwrap();
    let source = files_of(&template, ".")
        .into_iter()
        .filter(|(name, _)| name.starts_with("./app.db") && !name.ends_with("-shm"));
    let source: BTreeMap<_, _> = source.collect();
    let (built, template) = (template, sandbox.path("template"));
    fs::rename(built, &template).unwrap();
    let mut kill_times = KillTimes::new(measure(&sandbox, &template, &arguments), kills);

    let folder = sandbox.path("run");
    copy_folder(&template, &folder);
    let before = files_of(&folder, "backups");
    while let Some(wait) = kill_times.next() {
        let output = run_with_signal(&folder, &arguments, wait, Signal::KILL);
        let context = format!("{}: {}", kill_times.transcript(wait), arguments.join(" "));
        kill_times.count(wait, !output.status.success());
        for (name, bytes) in &source {
            assert!(
                &fs::read(folder.join(name)).unwrap() == bytes,
                "{}",
                transcript(&format!("{context}: {name} has changed"), &folder, &output)
            );
        }
        let listed = program(&folder, &["list", "--store", "backups", "--json"]).output().unwrap();
        assert!(listed.status.success(), "{}", transcript(&context, &folder, &listed));
        for id in ids_in(&folder.join("backups")) {
            let archive = names_below(&folder.join("backups/app"))
                .into_iter()
                .find(|name| name.starts_with(&format!("{id}.tar.")));
            assert!(archive.is_some(), "{}", transcript(&format!("{context}: {id} has no archive"), &folder, &output));
        }
        if kill_times.tried.is_multiple_of(5) || kill_times.killed == kills {
            require_good_store(&folder, &before, &context);
        }
        if kill_times.tried.is_multiple_of(20) || kill_times.killed == kills {
            let restored =
                program(&folder, &["restore", &older[0], "--store", "backups", "--to", "older.db"]).output().unwrap();
            assert!(restored.status.success(), "{}", transcript(&context, &folder, &restored));
            assert!(
                fs::read(folder.join("older.db")).unwrap() == older_bytes,
                "{context}: the older snapshot restores to other bytes"
            );
            fs::remove_file(folder.join("older.db")).unwrap();
        }
    }
    eprintln!("{journal}, {compression}: {} of {} were killed", kill_times.killed, kill_times.tried);
    // A later run removes what the killed runs left in the scratch folder.
    let last = program(&folder, &arguments).output().unwrap();
    assert!(last.status.success(), "{}", transcript("last", &folder, &last));
    if journal != "wal" {
        let context = transcript("the scratch folder is not empty", &folder, &last);
        assert_eq!(scratch_files(&folder), Vec::<String>::new(), "{context}");
    }
    let newest = program(&folder, &["restore", "latest", "--store", "backups", "--to", "newest.db"]).output().unwrap();
    assert!(newest.status.success(), "{}", transcript("newest", &folder, &newest));
    assert_eq!(fingerprint(folder.join("newest.db")), fingerprint(folder.join("app.db")));
}

#[test]
fn killed_snapshot_of_a_wal_database_lists_no_incomplete_snapshot() {
    kill_snapshots("wal", "gzip", 60);
}

#[test]
fn killed_snapshot_of_a_rollback_journal_database_lists_no_incomplete_snapshot() {
    kill_snapshots("delete", "gzip", 60);
}

fn kill_restores(kind: TargetKind, kills: u32) {
    let sandbox = Sandbox::new();
    let setup = set_up_restore(&sandbox, kind, 30_000);
    let arguments = setup.arguments();
    let mut kill_times = KillTimes::new(measure(&sandbox, &setup.template, &arguments), kills);
    let before = files_of(&setup.template, "backups");
    let (mut left_old, mut left_new) = (0, 0);
    while let Some(wait) = kill_times.next() {
        let folder = sandbox.path("run");
        copy_folder(&setup.template, &folder);
        let output = run_with_signal(&folder, &arguments, wait, Signal::KILL);
        let context = format!("{}: {}", kill_times.transcript(wait), arguments.join(" "));
        let context = transcript(&context, &folder, &output);
        kill_times.count(wait, !output.status.success());
        match setup.inspect_target(kind, &folder, &context) {
            Found::New => left_new += 1,
            Found::Old => {
                left_old += 1;
                assert!(!output.status.success(), "exit code 0, but the target is unchanged: {context}");
            }
        }
        require_good_store(&folder, &before, &context);
        // Another run succeeds, whatever files the killed one left.
        if kill_times.tried.is_multiple_of(3) {
            let again = program(&folder, &arguments).output().unwrap();
            let report = transcript(&format!("{context}\nagain:"), &folder, &again);
            // The killed run may have created the target already, which a restore without --replace refuses.
            let exists_already =
                kind == TargetKind::Absent && folder.join("app.db").exists() && !again.status.success();
            assert!(again.status.success() || exists_already, "{report}");
            assert_eq!(setup.inspect_target(kind, &folder, &report), Found::New, "{report}");
            assert_eq!(scratch_files(&folder), Vec::<String>::new(), "{report}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    let (killed, tried) = (kill_times.killed, kill_times.tried);
    eprintln!("{kind:?}: {killed} of {tried} were killed; {left_old} left the old content, {left_new} the new");
}

#[test]
fn killed_restore_to_a_new_path_leaves_no_database_or_a_complete_one() {
    kill_restores(TargetKind::Absent, 40);
}

#[test]
fn killed_restore_over_a_wal_database_leaves_the_old_or_the_new_content() {
    kill_restores(TargetKind::Wal, 50);
}

#[test]
fn killed_restore_over_a_rollback_journal_database_leaves_the_old_or_the_new_content() {
    kill_restores(TargetKind::Delete, 50);
}

#[test]
fn killed_restore_over_another_page_size_leaves_the_old_or_the_new_content() {
    kill_restores(TargetKind::OtherPageSize, 30);
}

#[test]
fn killed_restore_over_a_damaged_database_leaves_the_old_or_the_new_content() {
    kill_restores(TargetKind::Damaged, 40);
}

#[test]
fn killed_restore_of_a_table_leaves_the_old_or_the_new_content() {
    kill_restores(TargetKind::OneTable, 40);
}

#[test]
fn temporary_file_of_a_killed_restore_is_removed_by_the_next_restore() {
    let sandbox = Sandbox::new();
    let setup = set_up_restore(&sandbox, TargetKind::Absent, 30_000);
    let deadline = Instant::now() + Duration::from_secs(60);
    let folder = sandbox.path("run");
    copy_folder(&setup.template, &folder);
    let temporary_file = || names_below(&folder).into_iter().find(|name| name.starts_with(".lifeboat-"));
    // Repeated until a restore is killed while its temporary file exists.
    while temporary_file().is_none() {
        assert!(Instant::now() < deadline, "no restore was killed while its temporary file existed");
        let mut child = program(&folder, &setup.arguments()).spawn().unwrap();
        while temporary_file().is_none() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        let _ = fs::remove_file(folder.join("app.db"));
    }
    let again = program(&folder, &setup.arguments()).output().unwrap();
    assert!(again.status.success(), "{}", transcript("again", &folder, &again));
    let context = "the temporary file of a killed restore is not removed";
    assert_eq!(temporary_file(), None, "{}", transcript(context, &folder, &again));
}
