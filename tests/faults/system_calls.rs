//! Commands of which each system call fails, or at each of which a signal arrives.

use crate::common::{
    Found, RestoreSetup, TargetKind, copy_folder, create_database, files_of, fingerprint, ids_in, leave_changes_in_wal,
    names_below, program, require_good_store, set_up_restore, transcript,
};
use crate::strace::{Group, Trace, can_trace, run_with_injection};
use crate::support::Sandbox;
use std::fs;
use std::path::Path;
use std::process::Output;

/// System calls that a disk can fail, the error, and true if temporary files may remain after the failure.
const CALLS: [(&str, &str, bool); 16] = [
    ("fsync", "EIO", false),
    ("fdatasync", "EIO", false),
    ("write", "ENOSPC", false),
    ("pwrite64", "ENOSPC", false),
    ("pwrite64", "EIO", false),
    ("renameat2", "EIO", false),
    ("rename", "EIO", false),
    ("linkat", "EIO", false),
    ("ftruncate", "EIO", false),
    ("fallocate", "ENOSPC", false),
    ("mkdir", "ENOSPC", false),
    ("read", "EIO", true),
    ("pread64", "EIO", false),
    ("openat", "ENOSPC", true),
    ("unlink", "EIO", true),
    ("unlinkat", "EIO", true),
];

/// Traces a run in a copy of `template`.
fn trace(template: &Path, folder: &Path, arguments: &[String]) -> Trace {
    copy_folder(template, folder);
    let trace = Trace::of(folder, arguments);
    fs::remove_dir_all(folder).unwrap();
    trace
}

/// Traces the restore of `setup`. All restores begin in the same way, so those of other kinds leave out the system calls
/// that the one over a WAL database has too: its own test makes these fail.
fn trace_restore(sandbox: &Sandbox, kind: TargetKind, setup: &RestoreSetup) -> Trace {
    let traced = trace(&setup.template, &sandbox.path("run"), &setup.arguments);
    if kind == TargetKind::Wal {
        return traced;
    }
    let sandbox = Sandbox::new();
    let setup = set_up_restore(&sandbox, TargetKind::Wal, 30);
    traced.without(&[trace(&setup.template, &sandbox.path("run"), &setup.arguments)])
}

/// Makes every distinct system call in [`CALLS`] of a run fail, alone and together with all later ones, and runs `check`
/// after each run.
fn fail_every_call(
    trace: &Trace,
    sandbox: &Sandbox,
    template: &Path,
    arguments: &[String],
    check: impl Fn(&Path, &Output, &str, &[String]) -> std::result::Result<(), String>,
) {
    let mut wrong = Vec::new();
    let mut failures = 0;
    let folder = sandbox.path("run");
    for (call, error, may_leave_files) in CALLS {
        for when in trace.instants(call, Group::failures) {
            copy_folder(template, &folder);
            let run = run_with_injection(&folder, arguments, call, &format!("error={error}"), &when);
            if let Some((output, failed)) = &run {
                failures += 1;
                let context = format!("{call} {error} {when}: {}", arguments.join(" "));
                let report = format!("{}-- failed\n{}\n", transcript(&context, &folder, output), failed.join("\n"));
                let mut checked = check(&folder, output, &report, failed);
                let leftovers: Vec<String> = names_below(&folder)
                    .into_iter()
                    .filter(|name| name.contains("lifeboat-") || name.contains(".upload-"))
                    .collect();
                if !leftovers.is_empty() && !may_leave_files && checked.is_ok() {
                    checked = Err(format!("left {leftovers:?}: {report}"));
                }
                if let Err(problem) = checked {
                    wrong.push(problem);
                }
            }
            fs::remove_dir_all(&folder).unwrap();
        }
    }
    eprintln!("{failures} failures of system calls");
    assert!(failures > 20, "only {failures} failures of system calls");
    assert!(wrong.is_empty(), "{} of {failures} went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Returns true if only writes to stdout and stderr failed.
fn only_output_failed(failed: &[String]) -> bool {
    failed.iter().all(|line| line.contains(" write(1,") || line.contains(" write(2,"))
}

fn failing_snapshots(journal: &str) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let built = sandbox.path("run");
    fs::create_dir(&built).unwrap();
    create_database(&built.join("app.db"), journal, 30, 1);
    let arguments = ["snapshot", "app.db", "--store", "backups", "-j", "1"];
    let first = program(&built, &arguments).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", &built, &first));
    if journal == "wal" {
        leave_changes_in_wal(&built.join("app.db"), |db| {
            db.execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap()
        });
    }
    let template = sandbox.path("template");
    fs::rename(built, &template).unwrap();
    // Opening the database would recover it, so a copy is opened.
    let copy = sandbox.path("aside");
    copy_folder(&template, &copy);
    let expected = fingerprint(copy.join("app.db"));
    let older = ids_in(&template.join("backups"));
    let before = files_of(&template, "backups");
    let source: Vec<_> = ["app.db", "app.db-wal"].map(|name| (name, fs::read(template.join(name)).ok())).into();
    let arguments: Vec<String> = arguments.map(str::to_owned).into();
    let trace = trace(&template, &sandbox.path("run"), &arguments);
    fail_every_call(&trace, &sandbox, &template, &arguments, |folder, output, report, failed| {
        for (name, bytes) in &source {
            if &fs::read(folder.join(name)).ok() != bytes {
                return Err(format!("{name} has changed: {report}"));
            }
        }
        for (name, bytes) in &before {
            if fs::read(folder.join(name)).ok().as_ref() != Some(bytes) {
                return Err(format!("{name} has changed: {report}"));
            }
        }
        let listed_ids = ids_in(&folder.join("backups"));
        let is_listed = listed_ids != older;
        if output.status.success() && !is_listed {
            return Err(format!("exit code 0, but no snapshot is listed: {report}"));
        }
        if !output.status.success() && is_listed && !only_output_failed(failed) {
            return Err(format!("the command failed, but its snapshot is listed: {report}"));
        }
        if is_listed {
            let verified = program(folder, &["verify", "--all", "--store", "backups"]).output().unwrap();
            let restored =
                program(folder, &["restore", "latest", "--store", "backups", "--to", "new.db"]).output().unwrap();
            if !verified.status.success() || !restored.status.success() {
                return Err(format!(
                    "{}{}{report}",
                    transcript("verify", folder, &verified),
                    transcript("restore", folder, &restored)
                ));
            }
            if fingerprint(folder.join("new.db")) != expected {
                return Err(format!("the snapshot has other content: {report}"));
            }
        }
        Ok(())
    });
}

#[test]
fn failing_system_call_never_leaves_an_incomplete_snapshot_of_a_wal_database() {
    failing_snapshots("wal");
}

#[test]
fn failing_system_call_never_leaves_an_incomplete_snapshot_of_a_rollback_journal_database() {
    failing_snapshots("delete");
}

fn failing_restores(kind: TargetKind) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let setup = set_up_restore(&sandbox, kind, 30);
    let before = files_of(&setup.template, "backups");
    let trace = trace_restore(&sandbox, kind, &setup);
    fail_every_call(&trace, &sandbox, &setup.template, &setup.arguments, |folder, output, report, _| {
        for (name, bytes) in &before {
            if fs::read(folder.join(name)).ok().as_ref() != Some(bytes) {
                return Err(format!("{name} has changed: {report}"));
            }
        }
        // This panics if the target is neither the old nor the new database.
        let found = setup.inspect_target(kind, folder, report);
        if output.status.success() && found != Found::New {
            return Err(format!("exit code 0, but the target is unchanged: {report}"));
        }
        for id in ids_in(&folder.join("backups")) {
            let archive = folder.join(format!("backups/app/{id}.tar.gz"));
            if !archive.exists() {
                return Err(format!("{id} is listed without an archive: {report}"));
            }
        }
        Ok(())
    });
}

#[test]
fn failing_system_call_never_leaves_an_incomplete_new_database() {
    failing_restores(TargetKind::Absent);
}

#[test]
fn failing_system_call_never_leaves_an_incomplete_restore_over_a_wal_database() {
    failing_restores(TargetKind::Wal);
}

#[test]
fn failing_system_call_never_leaves_an_incomplete_restore_over_a_rollback_journal_database() {
    failing_restores(TargetKind::Delete);
}

#[test]
fn failing_system_call_never_leaves_an_incomplete_restore_over_a_damaged_database() {
    failing_restores(TargetKind::Damaged);
}

#[test]
fn failing_system_call_never_leaves_an_incompletely_restored_table() {
    failing_restores(TargetKind::OneTable);
}

/// System calls at which a signal is sent: those that change files, and those that open them.
const CALLS_FOR_SIGNALS: [&str; 12] = [
    "fsync",
    "fdatasync",
    "write",
    "pwrite64",
    "mkdir",
    "ftruncate",
    "renameat2",
    "rename",
    "linkat",
    "unlink",
    "unlinkat",
    "openat",
];

/// Sends a signal at every distinct one of these system calls, and inspects the target after each run.
fn signal_at_every_call(kind: TargetKind, signal: &str) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let setup = set_up_restore(&sandbox, kind, 30);
    let before = files_of(&setup.template, "backups");
    let (mut signals, mut wrong) = (0, Vec::new());
    let folder = sandbox.path("run");
    let trace = trace_restore(&sandbox, kind, &setup);
    for call in CALLS_FOR_SIGNALS {
        for n in trace.instants(call, if signal == "SIGKILL" { Group::kills } else { Group::stops }) {
            copy_folder(&setup.template, &folder);
            let run = run_with_injection(&folder, &setup.arguments, call, &format!("signal={signal}"), &n);
            if let Some((output, affected)) = &run {
                signals += 1;
                // Each thread has an n-th call, so several signals may be sent. The second one ends the program at
                // once, and temporary files may remain.
                let is_second_signal = affected.iter().filter(|line| line.contains("--- SIG")).count() > 1;
                let context = format!("{signal} at {call} {n}: {}", setup.arguments.join(" "));
                let report = transcript(&context, &folder, output);
                // This panics if the target is neither the old nor the new database.
                let found = setup.inspect_target(kind, &folder, &report);
                let is_expected = match output.status.code() {
                    Some(0) => found == Found::New,
                    Some(130) => found == Found::Old,
                    // The program was killed, or the signal came before it had installed its handlers.
                    None => signal == "SIGKILL" || found == Found::Old,
                    _ => false,
                };
                let leftover = names_below(&folder)
                    .into_iter()
                    .find(|name| name.contains("lifeboat-") || name.contains(".upload-"));
                if !is_expected {
                    wrong.push(format!("the target is {found:?}: {report}"));
                } else if output.status.code().is_some() && !is_second_signal && leftover.is_some() {
                    wrong.push(format!("left {leftover:?}: {report}"));
                }
                require_good_store(&folder, &before, &report);
            }
            fs::remove_dir_all(&folder).unwrap();
        }
    }
    eprintln!("{signal} at {signals} system calls");
    assert!(signals > 5, "{signal} at only {signals} system calls");
    assert!(wrong.is_empty(), "{} of {signals} went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn kill_at_any_system_call_of_a_restore_over_a_wal_database_leaves_the_old_or_the_new_content() {
    signal_at_every_call(TargetKind::Wal, "SIGKILL");
}

#[test]
fn kill_at_any_system_call_of_a_restore_over_a_rollback_journal_database_leaves_the_old_or_the_new_content() {
    signal_at_every_call(TargetKind::Delete, "SIGKILL");
}

#[test]
fn kill_at_any_system_call_of_a_restore_over_a_damaged_database_leaves_the_old_or_the_new_content() {
    signal_at_every_call(TargetKind::Damaged, "SIGKILL");
}

#[test]
fn kill_at_any_system_call_of_a_restore_to_a_new_path_leaves_no_database_or_a_complete_one() {
    signal_at_every_call(TargetKind::Absent, "SIGKILL");
}

#[test]
fn sigterm_at_any_system_call_of_a_replacement_exits_130_with_the_old_or_0_with_the_new_content() {
    signal_at_every_call(TargetKind::Wal, "SIGTERM");
}

#[test]
fn sigterm_at_any_system_call_of_a_table_restore_exits_130_with_the_old_or_0_with_the_new_content() {
    signal_at_every_call(TargetKind::OneTable, "SIGTERM");
}

#[test]
fn sigterm_at_any_system_call_of_a_restore_to_a_new_path_exits_130_without_or_0_with_the_database() {
    signal_at_every_call(TargetKind::Absent, "SIGTERM");
}
