//! Reports of commands that fail or are interrupted when a part of their work is done.

use crate::common::copy_folder;
use crate::strace::{Group, Trace, can_trace, run_with_injection, start_with_effects};
use crate::support::{Sandbox, sample};
use serde_json::Value;
use std::fs;

fn ids(document: &Value, list: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// A store with four snapshots; returns their ids, newest first.
fn four() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    for _ in 0..4 {
        sandbox.snapshot("app.db");
    }
    let ids = sandbox.ids();
    (sandbox, ids)
}

#[test]
fn deletions_before_a_failure_are_reported() {
    if !can_trace() {
        return;
    }
    for n in 1..=6 {
        let effect = format!("unlink:error=EIO:when={n}+");
        let signal = format!("unlink:signal=TERM:when={n}");
        for effect in [effect.as_str(), signal.as_str()] {
            for is_prune in [true, false] {
                let (sandbox, all) = four();
                let delete = ["delete", &all[1], &all[2], &all[3], "--yes", "--store", "backups", "--json"];
                let prune = ["prune", "--keep-last", "1", "--yes", "--store", "backups", "--json"];
                let run =
                    start_with_effects(&sandbox, &[effect], &[], if is_prune { &prune } else { &delete }).finish();
                let left = sandbox.ids();
                let document = run.json();
                let transcript = format!("{effect}: {}", run.transcript());
                let gone: Vec<String> = all.iter().filter(|id| !left.contains(id)).cloned().collect();
                assert_eq!(ids(&document, "delete"), gone, "{transcript}");
                if run.exit() != 0 {
                    let kind = document["error"]["kind"].as_str().unwrap();
                    assert!(document["error"]["message"].is_string(), "{transcript}");
                    assert_eq!(kind == "interrupted", run.exit() == 130, "{transcript}");
                    if is_prune {
                        assert_eq!(ids(&document, "keep"), left, "{transcript}");
                    }
                } else {
                    assert_eq!(gone.len(), 3, "{transcript}");
                }
                assert_eq!(run.exit() == 0, effect == signal && gone.len() == 3, "{transcript}");
            }
        }
    }
}

#[test]
fn a_signal_ends_the_pruning_of_all_stores_and_what_was_pruned_is_reported() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let config = "[[store]]\nurl = \"one\"\n[[store]]\nurl = \"two\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n\
                  [retention]\nkeep_last = 1\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sample(sandbox.path("app.db"), 2, "delete");
    for _ in 0..3 {
        sandbox.ok(&["snapshot", "app.db", "--name", "app", "--store", "one", "--store", "two"]);
    }
    let listed = |store: &str| sandbox.json(&["list", "--store", store])["snapshots"].as_array().unwrap().len();
    // The signal comes while the first store is pruned.
    let effect = "unlink:signal=TERM:when=1";
    let run = start_with_effects(&sandbox, &[effect], &[], &["snapshot", "--prune", "--json"]).finish();
    let document = run.json();
    assert_eq!(run.exit(), 130, "{}", run.transcript());
    assert_eq!(document["error"]["kind"], "interrupted", "{}", run.transcript());
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1, "{}", run.transcript());
    assert_eq!(listed("two"), 4, "{}", run.transcript());
    assert_eq!(document["pruned"].as_array().unwrap().len(), 1, "{}", run.transcript());
    assert_eq!(document["pruned"][0]["delete"].as_array().unwrap().len() + listed("one"), 4, "{}", run.transcript());
    // The same with `prune` itself.
    let run = start_with_effects(&sandbox, &[effect], &[], &["prune", "--yes", "--json"]).finish();
    let document = run.json();
    assert_eq!((run.exit(), document["error"]["kind"].as_str()), (130, Some("interrupted")), "{}", run.transcript());
    assert_eq!(listed("two"), 4, "{}", run.transcript());
}

#[test]
fn check_says_that_a_database_is_not_compared_if_its_newest_snapshot_cannot_be_read() {
    let sandbox = Sandbox::new();
    fs::write(
        sandbox.path("lifeboat.toml"),
        "[[store]]\nurl = \"one\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n[[source.rule]]\nmax_row_drop = \"10%\"\n",
    )
    .unwrap();
    sample(sandbox.path("app.db"), 2, "delete");
    sandbox.ok(&["snapshot", "app.db", "--name", "app", "--store", "one"]);
    sandbox.ok(&["check", "--no-backups"]);
    fs::rename(sandbox.path("one"), sandbox.path("not-mounted")).unwrap();
    let run = sandbox.run(&["check", "--no-backups", "--json"]).code(3);
    let document = run.json();
    let failed: Vec<&Value> =
        document["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.len(), 1, "{}", run.transcript());
    assert_eq!(failed[0]["name"], "app: baseline", "{}", run.transcript());
    assert!(failed[0]["message"].as_str().unwrap().contains("is not compared"), "{}", run.transcript());
}

#[test]
fn a_proof_that_cannot_be_read_keeps_no_other_metrics_from_being_written() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let config = "metrics_file = \"metrics.prom\"\n[[store]]\nurl = \"s\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n\
                  [[source]]\nname = \"other\"\nurl = \"other.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    for name in ["app", "other"] {
        let file = format!("{name}.db");
        sample(sandbox.path(&file), 2, "delete");
        sandbox.ok(&["snapshot", &file, "--store", "./s"]);
    }
    sandbox.ok(&["verify", "--all", "--store", "./s"]);
    let proof = fs::read_dir(sandbox.path("s/app")).unwrap().flatten().map(|entry| entry.path());
    let proof = proof.into_iter().find(|path| path.to_string_lossy().contains(".proof-")).unwrap();
    let metrics = sandbox.path("metrics.prom");
    for n in 1..8 {
        let _ = fs::remove_file(&metrics);
        let effect = format!("openat:error=EIO:when={n}");
        let run = start_with_effects(&sandbox, &[&effect], &[&proof], &["verify", "--all"]).finish();
        let text = fs::read_to_string(&metrics).unwrap_or_else(|error| panic!("{error}: {}", run.transcript()));
        assert!(text.contains("\"app\"") && text.contains("\"other\""), "{text}{}", run.transcript());
    }
}

/// Sends SIGTERM in each step of commands with `--json`, and requires exactly one document each time. Steps that a command
/// has in common with one before it are left out.
#[test]
fn an_interrupted_command_prints_exactly_one_document() {
    if !can_trace() {
        return;
    }
    let (sandbox, all) = four();
    let (template, folder) = (sandbox.path("template"), sandbox.path("run"));
    fs::create_dir(&template).unwrap();
    for name in ["app.db", "backups"] {
        fs::rename(sandbox.path(name), template.join(name)).unwrap();
    }
    let newest = all[0].as_str();
    let commands: [&[&str]; 8] = [
        &["snapshot", "app.db", "--moved", "--store", "backups"],
        &["copy", "--all", "--from", "backups", "--to", "second", "--create"],
        &["verify", "--all", "--store", "backups"],
        &["drill", newest, "--store", "backups"],
        &["prune", "--keep-last", "1", "--yes", "--store", "backups"],
        &["delete", newest, &all[1], "--yes", "--store", "backups"],
        &["restore", newest, "--store", "backups", "--to", "new.db"],
        &["restore", newest, "--store", "backups", "--to", "app.db", "--replace"],
    ];
    let (mut interrupted, mut traces) = (0, Vec::new());
    for command in commands {
        let arguments: Vec<String> = command.iter().chain(&["--json"]).map(|&word| word.to_owned()).collect();
        copy_folder(&template, &folder);
        let trace = Trace::of(&folder, &arguments).without(&traces);
        fs::remove_dir_all(&folder).unwrap();
        for call in ["openat", "fsync", "unlink", "write"] {
            for n in trace.instants(call, Group::stops) {
                copy_folder(&template, &folder);
                let run = run_with_injection(&folder, &arguments, call, "signal=SIGTERM", &n);
                fs::remove_dir_all(&folder).unwrap();
                let Some((output, affected)) = run else { continue };
                // Each thread has an n-th call, and a second signal ends the program at once.
                if affected.iter().filter(|line| line.contains("--- SIG")).count() > 1 {
                    continue;
                }
                let stdout = String::from_utf8_lossy(&output.stdout);
                let stderr = String::from_utf8_lossy(&output.stderr);
                let context = format!("SIGTERM at {call} {n}: {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
                let Some(code) = output.status.code() else {
                    // The signal came before the program had started.
                    assert!(stdout.is_empty() && stderr.is_empty(), "{context}");
                    continue;
                };
                let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{context}"));
                match code {
                    0 => assert!(document.get("error").is_none(), "{context}"),
                    130 => {
                        interrupted += 1;
                        assert_eq!(document["error"]["kind"], "interrupted", "{context}");
                    }
                    _ => panic!("{context}"),
                }
            }
        }
        traces.push(trace);
    }
    eprintln!("{interrupted} interrupted runs");
    assert!(interrupted > 40, "only {interrupted} interrupted runs");
}
