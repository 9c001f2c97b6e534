//! Every command that the README shows is run, in its order, by a shell.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use support::{LIFEBOAT, Sandbox, content, sample};

/// The content of the fenced blocks that start with "```" and `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn every_command_in_the_readme_works() {
    let readme = include_str!("../README.md");
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 10, "wal");
    let before = content(sandbox.path("data/app.db"));
    let path = format!("{}:{}", Path::new(LIFEBOAT).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let blocks = blocks(readme, "sh");
    assert!(blocks.len() >= 7, "the README has lost its commands");
    for command in blocks.iter().flat_map(|block| block.lines()) {
        // The day in the README is long past; here all snapshots are of today.
        let command = &command.replace("2026-11-21T18:00", "2099-01-01");
        let run =
            Command::new("sh").args(["-c", command]).current_dir(sandbox.root()).env("PATH", &path).output().unwrap();
        assert!(
            run.status.success(),
            "$ {command}\n{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
    }
    assert_eq!(content(sandbox.path("data/app.db")), before);
    for copy in ["copy.db", "older.db", "files/data/app.db"] {
        assert_eq!(content(sandbox.path(copy)), before, "{copy}");
    }
    assert!(std::fs::read_to_string(sandbox.path("balances.sql")).unwrap().contains("INSERT INTO"));
}

#[test]
fn every_script_in_the_readme_is_there() {
    let readme = include_str!("../README.md");
    for command in blocks(readme, "text").iter().flat_map(|block| block.lines()) {
        let script = command.split_whitespace().next().unwrap();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(script).exists(), "{script}");
    }
}
