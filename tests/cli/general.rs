//! Rules that hold for every command: streams, exit codes, JSON documents, usage errors.

use std::process::Stdio;

use crate::helpers::{
    assert_has_fields, assert_one_error, copy_with_time, empty_store, error_document, flip_bytes, id_of, refused,
    refused_by_the_parser, silent,
};
use crate::support::{Sandbox, sample};

const COMMANDS: [&str; 13] = [
    "snapshot",
    "list",
    "show",
    "verify",
    "drill",
    "restore",
    "extract",
    "diff",
    "prune",
    "delete",
    "inventory",
    "completions",
    "man",
];

fn sandbox_with_a_snapshot() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 5, "delete");
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

#[test]
fn help_and_version_are_printed_on_stdout_with_exit_code_0() {
    let sandbox = Sandbox::new();
    let run = silent(sandbox.ok(&["--version"]));
    assert_eq!(run.stdout(), format!("lifeboat {}\n", env!("CARGO_PKG_VERSION")));
    let run = silent(sandbox.ok(&["--help"]));
    for command in COMMANDS {
        assert!(run.stdout().contains(command), "{command} is not in the help\n{}", run.transcript());
    }
    for flag in ["--store", "--json", "--quiet", "--verbose", "--jobs"] {
        assert!(run.stdout().contains(flag), "{flag} is not in the help\n{}", run.transcript());
    }
}

#[test]
fn every_command_has_help_that_names_its_flags() {
    let sandbox = Sandbox::new();
    let flags: [(&str, &[&str]); 13] = [
        ("snapshot", &["--name", "--tag", "--compression", "--allow-damaged", "--allow-empty", "--max-lock"]),
        ("list", &["--limit", "--tag", "--source", "--before"]),
        ("show", &["--tag", "--source", "--before"]),
        ("verify", &["--all", "--quick", "--source"]),
        ("drill", &["--source"]),
        ("restore", &["--to", "--create", "--replace", "--table", "--no-safety", "--dry-run", "--yes"]),
        ("extract", &["--to", "--entry", "--table", "--format"]),
        ("diff", &["--source"]),
        ("delete", &["--yes"]),
        (
            "prune",
            &[
                "--keep-last",
                "--keep-hourly",
                "--keep-daily",
                "--keep-weekly",
                "--keep-monthly",
                "--keep-yearly",
                "--keep-within",
                "--keep-tag",
                "--yes",
            ],
        ),
        ("inventory", &["--snapshot", "--watch", "--tag", "--allow-empty"]),
        ("completions", &[]),
        ("man", &[]),
    ];
    for (command, flags) in flags {
        let run = silent(sandbox.ok(&[command, "--help"]));
        for flag in flags.iter().chain(&["--json", "--store"]) {
            assert!(run.stdout().contains(flag), "{flag} is not in the help of {command}\n{}", run.transcript());
        }
        assert!(run.stdout().lines().all(|line| line.chars().count() <= 100), "{}", run.transcript());
    }
}

#[test]
fn an_invalid_command_line_is_exit_code_2() {
    let sandbox = Sandbox::new();
    refused_by_the_parser(&sandbox, &["frobnicate"]);
    refused_by_the_parser(&sandbox, &["list", "--store", "backups", "--frobnicate"]);
    refused_by_the_parser(&sandbox, &["snapshot", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["restore", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["list", "--store", ""]);
    refused_by_the_parser(&sandbox, &["list", "--store", "backups", "-q", "-v"]);
    for jobs in ["0", "257", "-1", "many", ""] {
        refused_by_the_parser(&sandbox, &["list", "--store", "backups", &format!("--jobs={jobs}")]);
    }
    let run = sandbox.run(&[]).code(2);
    assert_eq!(run.stdout(), "", "{}", run.transcript());
    assert!(run.stderr().contains("Usage"), "{}", run.transcript());
}

#[test]
fn an_invalid_command_line_with_json_is_one_error_document() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["frobnicate", "--json"][..],
        &["list", "--json", "--limit", "many"],
        &["--json", "restore"],
        &["snapshot", "--json", "--name", "a/b", "x.db", "--store", "backups"],
        &["list", "--json"],
    ] {
        let run = sandbox.run(arguments).code(2);
        error_document(&run, "usage");
        assert_one_error(&run);
    }
}

#[test]
fn success_is_silent_on_stderr_and_never_shows_progress_on_a_pipe() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let commands: [&[&str]; 14] = [
        &["snapshot", "app.db"],
        &["backup", "app.db"],
        &["list"],
        &["show", &id],
        &["verify", &id],
        &["verify", "--all"],
        &["verify", "--quick"],
        &["drill", &id],
        &["restore", &id, "--to", "copy.db"],
        &["restore", &id, "--to", "copy.db", "--replace"],
        &["restore", &id, "--to", "copy.db", "--dry-run", "--replace"],
        &["extract", &id, "--to", "folder"],
        &["diff", &id],
        &["prune", "--keep-last", "100"],
    ];
    for arguments in commands {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups"]);
        let run = silent(sandbox.ok(&arguments));
        assert!(!run.stdout().is_empty(), "{}", run.transcript());
        assert!(!run.stdout().contains(['\r', '\u{1b}']), "{}", run.transcript());
        assert!(!run.stdout().lines().any(|line| line.ends_with(' ')), "trailing spaces\n{}", run.transcript());
    }
}

#[test]
fn text_output_fits_80_columns() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    sandbox.ok(&["snapshot", "app.db", "--tag", "nightly", "--store", "backups"]);
    let commands: [&[&str]; 6] = [
        &["list"],
        &["verify", "--all"],
        &["drill", &id],
        &["diff", &id],
        &["prune", "--keep-last", "1"],
        &["restore", &id, "--to", "copy.db", "--dry-run"],
    ];
    for arguments in commands {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups"]);
        let run = sandbox.ok(&arguments);
        // Lines with a path may be longer.
        let is_too_wide = run.stdout().lines().any(|line| !line.contains('/') && line.chars().count() > 80);
        assert!(!is_too_wide, "{}", run.transcript());
    }
}

#[test]
fn the_creation_of_a_store_is_reported_once() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    let run = sandbox.ok(&["snapshot", "app.db", "--store", "backups"]).says("created a new store in ").says("backups");
    assert_eq!(run.stderr().lines().count(), 1, "{}", run.transcript());
    silent(sandbox.ok(&["snapshot", "app.db", "--store", "backups"]));
}

#[test]
fn json_is_exactly_one_document_on_stdout() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let commands: [(&[&str], &[&str]); 10] = [
        (&["snapshot", "app.db"], &["snapshots"]),
        (&["list"], &["snapshots"]),
        (&["show", &id], &["id", "tables"]),
        (&["verify", &id], &["ok", "snapshots"]),
        (&["verify", "--all", "--quick"], &["ok", "snapshots"]),
        (&["drill", &id], &["ok", "snapshots"]),
        (
            &["restore", &id, "--to", "copy.db"],
            &["id", "target", "mode", "safety_snapshot", "undo", "tables", "seconds"],
        ),
        (&["extract", &id, "--to", "folder"], &["id", "files"]),
        (&["diff", &id], &["equal", "tables"]),
        (&["prune", "--keep-last", "5"], &["dry_run", "keep", "delete", "freed_bytes"]),
    ];
    for (arguments, names) in commands {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups", "--json"]);
        let run = silent(sandbox.ok(&arguments));
        assert_has_fields(&run.json(), names);
        assert!(run.stdout().ends_with("}\n"), "{}", run.transcript());
    }
}

#[test]
fn failures_are_one_document_with_kind_message_hint_and_causes() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["list", "--store", "nowhere"], 5, "unreachable"),
        (&["snapshot", "missing.db", "--store", "backups"], 5, "unreachable"),
        (&["show", "app-20200101T000000Z-0000", "--store", "backups"], 4, "not_found"),
        (&["restore", &id, "--to", "app.db", "--store", "backups"], 2, "usage"),
        (&["extract", &id, "--store", "backups"], 2, "usage"),
        (&["restore", &id, "--to", "no/such/folder/x.db", "--store", "backups"], 5, "unreachable"),
    ];
    for (arguments, code, kind) in cases {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let run = sandbox.run(&arguments).code(code);
        let error = error_document(&run, kind);
        assert!(error["hint"].is_string(), "{}", run.transcript());
        assert_one_error(&run);
    }
}

#[test]
fn damage_is_reported_in_the_document_of_the_command() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let archive = sandbox.path(format!("backups/app/{id}.tar.gz"));
    flip_bytes(&archive, 40, 4);
    for command in ["verify", "drill"] {
        let run = sandbox.run(&[command, &id, "--store", "backups", "--json"]).code(3);
        let document = run.json();
        assert_eq!(document["ok"], false, "{}", run.transcript());
        let outcome = &document["snapshots"][0];
        assert_has_fields(outcome, &["id", "level", "ok", "problems", "seconds"]);
        assert_eq!((&outcome["ok"], &outcome["level"]), (&false.into(), &"damaged".into()), "{}", run.transcript());
        assert_has_fields(&outcome["problems"][0], &["kind", "message"]);
    }
}

#[test]
fn a_failed_source_does_not_prevent_snapshots_of_the_others() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    sample(sandbox.path("other.db"), 1, "delete");
    let run = sandbox.run(&["snapshot", "app.db", "missing.db", "other.db", "--store", "backups", "--json"]).code(5);
    error_document(&run, "unreachable");
    assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 2, "{}", run.transcript());
    assert_eq!(sandbox.ids().len(), 2);
}

#[test]
fn a_closed_pipe_is_not_a_failure() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let commands: [&[&str]; 10] = [
        &["list", "--store", "backups"],
        &["list", "--store", "backups", "--json"],
        &["show", &id, "--store", "backups"],
        &["extract", &id, "--to", "-", "--store", "backups"],
        &["extract", &id, "--table", "logs", "--store", "backups"],
        &["extract", &id, "--entry", "README.txt", "--store", "backups"],
        &["verify", &id, "--store", "backups"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = sandbox.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}

#[test]
fn quiet_verbose_and_jobs_do_not_change_the_result() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let plain = sandbox.ok(&["show", &id, "--store", "backups"]).stdout();
    for flags in [&["-q"][..], &["--quiet"], &["-v"], &["-vv"], &["-j", "1"], &["--jobs", "7"]] {
        let mut arguments = vec!["show", id.as_str(), "--store", "backups"];
        arguments.extend(flags);
        assert_eq!(sandbox.ok(&arguments).stdout(), plain, "{flags:?}");
    }
    silent(sandbox.ok(&["snapshot", "app.db", "--store", "backups", "-q"]));
    silent(sandbox.ok(&["snapshot", "app.db", "--store", "backups", "-j", "1"]));
    silent(sandbox.ok(&["restore", "latest", "--store", "backups", "-j", "1", "--to", "one.db"]));
    assert_eq!(std::fs::read(sandbox.path("one.db")).unwrap(), std::fs::read(sandbox.path("app.db")).unwrap());
}

#[test]
fn global_flags_are_accepted_before_the_command() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let document = sandbox.ok(&["--store", "backups", "--json", "list"]).json();
    assert_eq!(id_of(&document), id);
}

#[test]
fn backup_is_an_alias_of_snapshot() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    let document = sandbox.json(&["backup", "app.db", "--store", "backups"]);
    assert_eq!(sandbox.ids(), [id_of(&document)]);
}

#[test]
fn a_missing_store_is_an_error_and_not_an_empty_store() {
    let sandbox = Sandbox::new();
    let commands: [&[&str]; 9] = [
        &["list"],
        &["show", "latest"],
        &["verify"],
        &["verify", "--all"],
        &["drill"],
        &["restore", "latest", "--to", "x.db"],
        &["extract", "--to", "folder"],
        &["diff", "latest"],
        &["prune", "--keep-last", "3"],
    ];
    std::fs::create_dir(sandbox.path("scratch")).unwrap();
    std::fs::create_dir(sandbox.path("bare")).unwrap();
    std::fs::write(sandbox.path("file"), "x").unwrap();
    for arguments in commands {
        for store in ["nowhere", "bare", "file", "file/below"] {
            let mut arguments = arguments.to_vec();
            arguments.extend(["--store", store]);
            refused(&sandbox, &arguments, 5);
        }
        refused(&sandbox, arguments, 2).says("--store");
    }
}

#[test]
fn an_empty_store_has_nothing_to_verify_or_restore() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("scratch")).unwrap();
    empty_store(&sandbox.path("backups"));
    let commands: [&[&str]; 7] = [
        &["show", "latest"],
        &["verify"],
        &["verify", "--all"],
        &["drill"],
        &["restore", "latest", "--to", "x.db"],
        &["extract", "--to", "folder"],
        &["diff", "latest"],
    ];
    for arguments in commands {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups"]);
        refused(&sandbox, &arguments, 4);
    }
    assert_eq!(sandbox.ids(), Vec::<String>::new());
    silent(sandbox.ok(&["list", "--store", "backups"]));
    silent(sandbox.ok(&["prune", "--keep-last", "1", "--yes", "--store", "backups"]));
}

#[test]
fn unsupported_stores_and_sources_are_refused_by_name() {
    let (sandbox, _) = sandbox_with_a_snapshot();
    refused_by_the_parser(&sandbox, &["list", "--store", "gs://bucket/prefix"]).says("gs://");
    refused(&sandbox, &["snapshot", "postgres://user:secret@host.invalid/db", "--store", "backups"], 5)
        .says("postgres://user@host.invalid");
    refused(&sandbox, &["snapshot", "postgre://user:secret@host/db", "--store", "backups"], 2).says("postgre://");
    refused(&sandbox, &["snapshot", "mysql://host/db", "--store", "backups"], 2).says("mysql://");
    refused(&sandbox, &["restore", "latest", "--to", "postgres://host/db", "--store", "backups"], 2);
    for url in
        ["postgres://user:secret@host.invalid/db", "postgre://user:secret@host/db", "mysql://user:secret@host/db"]
    {
        let run = sandbox.run(&["snapshot", url, "--store", "backups", "-vv"]);
        assert!(!run.transcript().split("-- stdout").nth(1).unwrap().contains("secret"), "{}", run.transcript());
    }
}

#[test]
fn a_store_can_be_named_by_a_file_url() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let url = format!("file://{}", sandbox.path("backups").display());
    let document = sandbox.json(&["list", "--store", &url]);
    assert_eq!(id_of(&document), id);
}

#[test]
fn latest_needs_a_source_if_there_are_several() {
    let (sandbox, _) = sandbox_with_a_snapshot();
    sample(sandbox.path("other.db"), 1, "delete");
    let other = sandbox.snapshot("other.db");
    for command in ["show", "verify", "drill", "diff"] {
        refused(&sandbox, &[command, "latest", "--store", "backups"], 2).says("--source");
    }
    refused(&sandbox, &["restore", "latest", "--to", "x.db", "--store", "backups"], 2).says("app, other");
    let shown = sandbox.json(&["show", "latest", "--source", "other", "--store", "backups"]);
    assert_eq!(shown["id"], other.as_str());
}

#[test]
fn a_prefix_must_match_exactly_one_snapshot() {
    let (sandbox, first) = sandbox_with_a_snapshot();
    let second = sandbox.snapshot("app.db");
    refused(&sandbox, &["show", "app-2", "--store", "backups"], 2).says("2 snapshot ids");
    refused(&sandbox, &["restore", "app-2", "--to", "x.db", "--store", "backups"], 2).says(&first);
    refused(&sandbox, &["show", "", "--store", "backups"], 2);
    for unknown in ["app-1", "nope", &format!("{second}x"), "../app", "app/", "*", "line\nbreak"] {
        refused(&sandbox, &["show", unknown, "--store", "backups"], 4);
    }
    for prefix in [&second[..], &second[..second.len() - 1]] {
        assert_eq!(sandbox.json(&["show", prefix, "--store", "backups"])["id"], second.as_str());
    }
}

#[test]
fn latest_skips_a_snapshot_from_the_future_with_a_warning() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let time = chrono::Utc::now() + chrono::Duration::days(400);
    let future = copy_with_time(&sandbox.path("backups"), &id, time);
    assert_eq!(sandbox.ids()[0], future);
    let run = sandbox.ok(&["restore", "latest", "--to", "x.db", "--store", "backups", "--json"]);
    let run = run.says(&future).says("future");
    assert_eq!(run.json()["id"], id.as_str(), "{}", run.transcript());
    std::fs::remove_file(sandbox.path(format!("backups/app/{id}.json"))).unwrap();
    let run = refused(&sandbox, &["show", "latest", "--store", "backups"], 4);
    drop(run.says("future"));
}

#[test]
fn latest_can_be_limited_by_tag_and_time() {
    let (sandbox, plain) = sandbox_with_a_snapshot();
    let tagged = id_of(&sandbox.json(&["snapshot", "app.db", "--tag", "deploy", "--store", "backups"]));
    let newest = sandbox.snapshot("app.db");
    let show = |flags: &[&str]| {
        let mut arguments = vec!["show", "latest", "--store", "backups"];
        arguments.extend(flags);
        sandbox.json(&arguments)["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(show(&[]), newest);
    assert_eq!(show(&["--tag", "deploy"]), tagged);
    assert_eq!(show(&["--source", "app", "--tag", "deploy"]), tagged);
    let old = copy_with_time(&sandbox.path("backups"), &plain, chrono::Utc::now() - chrono::Duration::days(9));
    assert_eq!(show(&["--before", "24h"]), old);
    let day = (chrono::Utc::now() - chrono::Duration::days(1)).format("%Y-%m-%d").to_string();
    assert_eq!(show(&["--before", &day]), old);
    refused(&sandbox, &["show", "latest", "--tag", "nope", "--store", "backups"], 4);
    refused(&sandbox, &["show", "latest", "--before", "2001-01-01", "--store", "backups"], 4);
    refused(&sandbox, &["show", "latest", "--source", "nope", "--store", "backups"], 4);
    refused_by_the_parser(&sandbox, &["show", "latest", "--before", "yesterday-ish", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["show", "latest", "--source", "../x", "--store", "backups"]);
}

#[test]
fn a_missing_scratch_folder_is_an_error() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    let run = refused(&sandbox, &["drill", &id, "--store", "backups", "--scratch", "no/such"], 5);
    drop(run.says("no/such").says("--scratch"));
    std::fs::create_dir(sandbox.path("mine")).unwrap();
    sandbox.ok(&["drill", &id, "--store", "backups", "--scratch", "mine"]);
    assert_eq!(std::fs::read_dir(sandbox.path("mine")).unwrap().count(), 0, "scratch files were left behind");
}

#[test]
fn no_command_leaves_scratch_files_behind() {
    let (sandbox, id) = sandbox_with_a_snapshot();
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    sandbox.ok(&["extract", &id, "--table", "logs", "--store", "backups"]);
    sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    sandbox.ok(&["restore", &id, "--to", "app.db", "--table", "logs", "--replace", "--store", "backups"]);
    flip_bytes(sandbox.path(format!("backups/app/{id}.tar.gz")), 60, 10);
    sandbox.run(&["drill", &id, "--store", "backups"]).code(3);
    sandbox.run(&["restore", &id, "--to", "y.db", "--store", "backups"]).code(3);
    let remaining: Vec<_> = std::fs::read_dir(sandbox.path("scratch")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(remaining.is_empty(), "{remaining:?}");
}

#[test]
fn a_name_in_the_output_is_no_command_for_a_runner_or_a_terminal() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("app.db");
    let names = ["::warning::a", "\u{1b}[31mb", "c\n::error::d", "e\u{202e}f"];
    for name in names {
        crate::support::open(&path).execute(&format!("CREATE TABLE \"{name}\" (i)"), []).unwrap();
    }
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
    let run = sandbox.ok(&["show", "latest", "--store", "backups"]);
    let shown = run.stdout();
    assert!(shown.contains(": :warning::a") && shown.contains("\\u{1b}[31mb"), "{shown}");
    for line in shown.lines().chain(run.stderr().lines()) {
        assert!(!line.trim_start().starts_with("::"), "{line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line}");
    }
}

/// Creates two databases with a snapshot each, and a config of both.
fn two_sources() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut config = "[[store]]\nurl = \"backups\"\n".to_owned();
    for name in ["app", "shop"] {
        sample(sandbox.path(format!("{name}.db")), 5, "delete");
        config += &format!("[[source]]\nname = \"{name}\"\nurl = \"{name}.db\"\n");
        sandbox.snapshot(&format!("{name}.db"));
    }
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox
}

#[test]
fn with_several_sources_the_error_has_the_commands_to_type() {
    let sandbox = two_sources();
    std::fs::create_dir(sandbox.path("a b")).unwrap();
    for command in ["show", "verify", "drill", "diff", "restore", "extract"] {
        let mut arguments = vec![command, "latest"];
        match command {
            "extract" => arguments.extend(["--to", "a b"]),
            "restore" => arguments.extend(["--to", "a copy.db"]),
            _ => {}
        }
        let run = sandbox.run(&arguments).code(2).says("several sources: app, shop");
        let hint = run.stderr().lines().find_map(|line| line.strip_prefix("hint: run '")).unwrap().to_owned();
        let typed: Vec<&str> = hint.trim_end_matches('\'').split("' or '").collect();
        assert_eq!(typed.len(), 2, "{}", run.transcript());
        assert!(typed[0].ends_with("--source app") && typed[1].ends_with("--source shop"), "{}", run.transcript());
        crate::helpers::shell_ok(&sandbox, typed[0]);
    }
}

#[test]
fn a_mistyped_source_is_never_a_database_that_is_not_there_yet() {
    let sandbox = two_sources();
    for command in [&["snapshot", "shopp"][..], &["predeploy", "shopp"], &["postdeploy", "shopp"], &["check", "shopp"]]
    {
        let run = sandbox.run(command).code(2).says("no source 'shopp' in the config; there are: app, shop");
        assert!(!run.stderr().contains("mounted"), "{}", run.transcript());
    }
    // A path is a database that may be created later.
    let first = sandbox.run(&["predeploy", "./shopp"]).code(0);
    assert!(first.stdout().contains("first deploy"), "{}", first.transcript());
    for command in [&["restore", "latest"][..], &["show", "latest"], &["verify"]] {
        let run = sandbox.run(&[command, &["--source", "shopp"]].concat()).code(4);
        assert!(run.stderr().contains("the store has the sources: app, shop"), "{}", run.transcript());
    }
}

#[test]
fn options_that_people_try_lead_to_those_that_exist() {
    let sandbox = Sandbox::new();
    for (arguments, words) in [
        (&["prune", "--keep", "7"][..], "--keep-last N"),
        (&["restore", "latest", "--at", "2026-11-21"], "--before TIME"),
        (&["restore", "latest", "--overwrite"], "--replace"),
        (&["show", "--since", "1d"], "list --since"),
    ] {
        let run = sandbox.run(arguments).code(2).says(words);
        assert!(!run.stderr().contains("similar argument"), "{}", run.transcript());
        let document = sandbox.run(&[arguments, &["--json"]].concat()).code(2).json();
        assert!(document["error"]["hint"].as_str().unwrap().contains(words), "{document:#}");
    }
}
