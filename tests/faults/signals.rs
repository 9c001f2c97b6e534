//! Commands that SIGINT and SIGTERM interrupt.

use crate::common::{
    Found, Random, TargetKind, copy_folder, create_database, files_of, ids_in, measure, names_below, program,
    require_good_store, run_with_signal, set_up_restore, transcript,
};
use crate::support::Sandbox;
use rustix::process::Signal;
use std::fs;

#[test]
fn interrupted_snapshot_exits_130_and_leaves_the_store_unchanged() {
    let mut random = Random::new();
    for journal in ["wal", "delete"] {
        let sandbox = Sandbox::new();
        let built = sandbox.path("run");
        fs::create_dir(&built).unwrap();
        create_database(&built.join("app.db"), journal, 60_000, 1);
        let arguments = ["snapshot", "app.db", "--store", "backups", "-j", "2"];
        let first = program(&built, &arguments).output().unwrap();
        assert!(first.status.success(), "{}", transcript("first", &built, &first));
        let template = sandbox.path("template");
        fs::rename(built, &template).unwrap();
        let longest = measure(&sandbox, &template, &arguments);
        for signal in [Signal::INT, Signal::TERM] {
            let (mut interrupted, mut tried) = (0, 0);
            while interrupted < 4 {
                tried += 1;
                assert!(tried < 100, "{journal}: only {interrupted} runs were interrupted");
                let folder = sandbox.path("run");
                copy_folder(&template, &folder);
                let before = files_of(&folder, "backups");
                let wait = longest.mul_f64(random.next());
                let output = run_with_signal(&folder, &arguments, wait, signal);
                let context =
                    format!("seed {}, {signal:?} after {wait:?} of {longest:?}: {}", random.seed, arguments.join(" "));
                let report = transcript(&context, &folder, &output);
                match output.status.code() {
                    Some(0) => assert_eq!(ids_in(&folder.join("backups")).len(), 2, "{report}"),
                    Some(130) => {
                        interrupted += 1;
                        assert_eq!(files_of(&folder, "backups"), before, "{report}");
                        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{report}");
                    }
                    // The signal came before the program had installed its handlers.
                    None => assert_eq!(files_of(&folder, "backups"), before, "{report}"),
                    _ => panic!("{report}"),
                }
                if output.status.code().is_some() {
                    assert_eq!(names_below(&folder.join("scratch")), Vec::<String>::new(), "{report}");
                }
                require_good_store(&folder, &before, &context);
                fs::remove_dir_all(&folder).unwrap();
            }
        }
    }
}

#[test]
fn a_copy_that_is_interrupted_while_it_is_read_back_leaves_nothing_in_the_target() {
    let sandbox = Sandbox::new();
    create_database(&sandbox.path("app.db"), "delete", 200_000, 1);
    sandbox.ok(&["snapshot", "app.db", "--store", "near", "--compression", "zstd:1"]);
    let arguments = ["copy", "latest", "--from", "near", "--to", "far", "--create"];
    let has_archive = || names_below(&sandbox.path("far/app")).iter().any(|name| name.ends_with(".tar.zst"));
    let mut interrupted = 0;
    for _ in 0..50 {
        let _ = fs::remove_dir_all(sandbox.path("far"));
        let mut process = sandbox.start(&arguments);
        while !has_archive() && !process.has_ended() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        process.signal(Signal::TERM);
        let run = process.finish();
        match run.exit() {
            0 => assert_eq!(ids_in(&sandbox.path("far")).len(), 1, "{}", run.transcript()),
            _ => {
                let run = run.code(130);
                assert!(!has_archive(), "{}", run.transcript());
                interrupted += 1;
            }
        }
        if interrupted == 3 {
            return;
        }
    }
    panic!("only {interrupted} copies were interrupted");
}

#[test]
fn interrupted_restore_exits_130_with_the_target_unchanged_and_no_temporary_files() {
    let mut random = Random::new();
    for kind in [TargetKind::Absent, TargetKind::Wal, TargetKind::Delete, TargetKind::Damaged, TargetKind::OneTable] {
        let sandbox = Sandbox::new();
        let setup = set_up_restore(&sandbox, kind, 60_000);
        let arguments = setup.arguments();
        let longest = measure(&sandbox, &setup.template, &arguments);
        let before = files_of(&setup.template, "backups");
        let mut interrupted = 0;
        for signal in [Signal::INT, Signal::TERM] {
            for instant in 0..6 {
                let folder = sandbox.path("run");
                copy_folder(&setup.template, &folder);
                let wait = longest.mul_f64((f64::from(instant) + random.next()) / 6.0);
                let output = run_with_signal(&folder, &arguments, wait, signal);
                let context =
                    format!("seed {}, {signal:?} after {wait:?} of {longest:?}: {}", random.seed, arguments.join(" "));
                let report = transcript(&context, &folder, &output);
                let found = setup.inspect_target(kind, &folder, &report);
                match output.status.code() {
                    Some(0) => assert_eq!(found, Found::New, "{report}"),
                    Some(130) => {
                        interrupted += 1;
                        assert_eq!(found, Found::Old, "{report}");
                    }
                    None => assert_eq!(found, Found::Old, "{report}"),
                    _ => panic!("{report}"),
                }
                if output.status.code().is_some() {
                    assert_eq!(names_below(&folder.join("scratch")), Vec::<String>::new(), "{report}");
                    let leftover = names_below(&folder)
                        .into_iter()
                        .find(|name| name.contains("lifeboat-") || name.contains(".upload-"));
                    assert_eq!(leftover, None, "{report}");
                }
                require_good_store(&folder, &before, &context);
                fs::remove_dir_all(&folder).unwrap();
            }
        }
        eprintln!("{kind:?}: {interrupted} of 12 runs were interrupted");
        assert!(interrupted >= 2, "{kind:?}: only {interrupted} of 12 runs were interrupted");
    }
}

#[test]
fn a_second_signal_leaves_one_json_document() {
    let sandbox = Sandbox::new();
    create_database(&sandbox.path("app.db"), "delete", 10, 1);
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
    // The passphrase comes from a pipe into which nobody writes: the program waits, and does not notice a first signal.
    let pipe = sandbox.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for json in [&["--json"][..], &[]] {
        let arguments = [&["verify", "latest", "--store", "backups", "--passphrase-file", "pipe"][..], json].concat();
        let process = sandbox.start(&arguments);
        // A pipe can be opened for writing as soon as the program has opened it for reading.
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        let writer = loop {
            match rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()) {
                Ok(writer) => break writer,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        process.signal(Signal::TERM);
        process.signal(Signal::INT);
        let run = process.finish().code(130);
        drop(writer);
        if !json.is_empty() {
            assert_eq!(run.json()["error"]["kind"], "interrupted", "{}", run.transcript());
        }
    }
}
