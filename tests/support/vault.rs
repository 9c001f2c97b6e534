//! A store with one snapshot and a live database beside it, and the requirement that commands refuse a bad snapshot.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::craft::{self, Codec, File, Layout};
use crate::support::{LIFEBOAT, Sandbox, open};

/// The limit of the memory that a run may allocate, in KiB. A run that allocates memory by an unchecked number fails. It is
/// not a limit of the address space, of which the allocator reserves 64 MiB for each thread that happens to need it.
const MEMORY_KIB: u32 = 300 << 10;

/// A sandbox with a store that holds one snapshot, whose archive and manifest a test replaces by bad ones.
pub struct Vault {
    pub sandbox: Sandbox,
    pub codec: Codec,
    pub id: String,
    pub archive: PathBuf,
    pub manifest: PathBuf,
    /// The original archive.
    pub archive_bytes: Vec<u8>,
    /// The original manifest outside the archive.
    pub document: Vec<u8>,
}

impl Vault {
    /// Takes a snapshot of a database of about `megabytes`, and creates `live.db`, another database.
    pub fn new(codec: Codec, megabytes: u32) -> Self {
        let sandbox = Sandbox::new();
        create_source(&sandbox, "app.db", megabytes);
        crate::support::sample(sandbox.path("live.db"), 3, "delete");
        let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--compression", codec.name()]);
        let id = document["snapshots"][0]["id"].as_str().unwrap().to_owned();
        let archive = sandbox.path(format!("backups/app/{id}{}", codec.extension()));
        let manifest = sandbox.path(format!("backups/app/{id}.json"));
        // Removed, because a restore must not need the source.
        std::fs::remove_file(sandbox.path("app.db")).unwrap();
        let (archive_bytes, document) = (std::fs::read(&archive).unwrap(), std::fs::read(&manifest).unwrap());
        Vault { sandbox, codec, id, archive, manifest, archive_bytes, document }
    }

    /// Returns the original manifest outside the archive.
    pub fn outside_manifest(&self) -> Value {
        serde_json::from_slice(&self.document).unwrap()
    }

    /// Returns the files of the original archive, for building another one.
    pub fn files(&self) -> Vec<File> {
        craft::map(&self.archive_bytes).files
    }

    /// Writes an archive and a manifest into the store. Without an archive, removes the one that is there.
    pub fn put(&self, archive: Option<&[u8]>, manifest: &[u8]) {
        match archive {
            Some(bytes) => std::fs::write(&self.archive, bytes).unwrap(),
            None => std::fs::remove_file(&self.archive).unwrap(),
        }
        std::fs::write(&self.manifest, manifest).unwrap();
    }

    /// Writes an archive, and the original manifest with the archive's length and hash, into the store.
    pub fn put_with_manifest(&self, archive: &[u8]) {
        self.put(Some(archive), &manifest_for(self.outside_manifest(), archive));
    }

    /// Returns an archive of these files with a correct index. The manifest inside is the one in `files`.
    pub fn layout(&self, files: &[File]) -> Layout {
        Layout::of(self.codec, files, craft::BLOCK)
    }

    /// Runs `lifeboat ARGUMENTS --store backups --json` with limited memory.
    pub fn run(&self, arguments: &[&str]) -> LimitedRun {
        // This command is never run: only its environment is used.
        let template = self.sandbox.command(&["unused"]);
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("ulimit -d {MEMORY_KIB} && exec \"$0\" \"$@\"")).arg(LIFEBOAT).args(arguments);
        command.args(["--store", "backups", "--json", "--jobs", "2"]).current_dir(self.sandbox.root());
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        LimitedRun { arguments: arguments.join(" "), output: command.output().unwrap() }
    }

    /// Returns the state of the sandbox without proofs, which `verify` and `drill` may write.
    pub fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut state = self.sandbox.state();
        state.retain(|path, _| !path.to_string_lossy().contains(".proof-"));
        let scratch = std::fs::read_dir(self.sandbox.path("scratch")).unwrap();
        state.extend(scratch.flatten().map(|entry| (entry.path(), "left in scratch".to_owned())));
        state
    }

    /// Deletes the proofs in the store.
    pub fn delete_proofs(&self) {
        for entry in std::fs::read_dir(self.archive.parent().unwrap()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().contains(".proof-") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Runs every command on the bad snapshot that is in the store now. Returns a description of each violation of the
    /// rules for bad snapshots, or an empty text.
    ///
    /// `verify`, `drill`, `restore` (to a new path, and over a database) and `extract` must each end with exit code 3
    /// and change nothing. The problems that `verify` prints must contain `words`.
    pub fn violations(&self, label: &str, words: &str) -> String {
        self.violations_of(label, words, &["verify", "drill", "create", "replace", "extract"])
    }

    /// Does the same as [`violations`](Self::violations) for some of the commands.
    pub fn violations_of(&self, label: &str, words: &str, commands: &[&str]) -> String {
        let mut violations = String::new();
        let _ = self.run(&["list"]);
        let before = self.state();
        for command in commands {
            self.delete_proofs();
            let id = self.id.as_str();
            let run = self.run(&arguments(command, id));
            let mut add = |problem: String| {
                let codec = self.codec.name();
                let _ = writeln!(violations, "=== {codec}, {label}: {command}: {problem}\n{}", run.transcript());
            };
            if run.code() != 3 {
                add(format!("exit code {} instead of 3", run.code()));
            }
            if matches!(*command, "verify" | "drill") && run.code() == 3 {
                match serde_json::from_slice::<Value>(&run.output.stdout) {
                    Ok(document) => {
                        let problems = &document["snapshots"][0]["problems"];
                        let has_messages = problems.as_array().is_some_and(|problems| {
                            !problems.is_empty() && problems.iter().all(|problem| problem["message"].is_string())
                        });
                        if document["ok"] != false || document["snapshots"][0]["ok"] != false || !has_messages {
                            add("the JSON document does not report the damage".to_owned());
                        } else if *command == "verify" && !problems.to_string().contains(words) {
                            add(format!("no problem contains '{words}'"));
                        }
                    }
                    Err(error) => add(format!("no JSON document: {error}")),
                }
            }
            let after = self.state();
            if after != before {
                let changed: Vec<_> = after.iter().filter(|(path, state)| before.get(*path) != Some(state)).collect();
                let removed: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
                add(format!("changed {changed:?}, removed {removed:?}"));
                // Clean up for the next case.
                let _ = std::fs::remove_file(self.sandbox.path("new.db"));
                let _ = std::fs::remove_dir_all(self.sandbox.path("folder"));
                return violations;
            }
        }
        violations
    }
}

impl Vault {
    /// Runs every command on a snapshot of a newer version that is in the store now. Each must end with exit code 2, say
    /// that a newer program made it, change nothing and record nothing. Returns the violations.
    pub fn newer_violations(&self, label: &str) -> String {
        let mut violations = String::new();
        self.delete_proofs();
        let before = self.sandbox.state();
        for command in ["verify", "drill", "create", "replace", "extract"] {
            let run = self.run(&arguments(command, &self.id));
            let mut add = |problem: String| {
                let codec = self.codec.name();
                let _ = writeln!(violations, "=== {codec}, {label}: {command}: {problem}\n{}", run.transcript());
            };
            if run.code() != 2 {
                add(format!("exit code {} instead of 2", run.code()));
            }
            if !String::from_utf8_lossy(&run.output.stdout).contains("made by a newer lifeboat") {
                add("the JSON document does not say that a newer lifeboat made it".to_owned());
            }
            if self.sandbox.state() != before {
                add("something has changed".to_owned());
                return violations;
            }
        }
        violations
    }
}

/// Returns the arguments of one of the commands that read a snapshot.
fn arguments<'a>(command: &str, id: &'a str) -> Vec<&'a str> {
    match command {
        "verify" => vec!["verify", id],
        "drill" => vec!["drill", id],
        "create" => vec!["restore", id, "--to", "new.db"],
        "replace" => vec!["restore", id, "--to", "live.db", "--replace", "--yes"],
        "extract" => vec!["extract", id, "--to", "folder"],
        _ => unreachable!(),
    }
}

/// Returns the text of a manifest with the length and hash of this archive.
pub fn manifest_for(mut manifest: Value, archive: &[u8]) -> Vec<u8> {
    manifest["archive_bytes"] = archive.len().into();
    manifest["sha256"] = craft::sha256(archive).into();
    manifest.to_string().into_bytes()
}

/// Creates a database of rows that compress well, but not to almost nothing.
fn create_source(sandbox: &Sandbox, name: &str, megabytes: u32) {
    let connection = open(sandbox.path(name));
    connection
        .execute_batch(&format!(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
             CREATE TABLE small (a, b);
             INSERT INTO small VALUES (1, 'one'), (2, x'00ff'), (NULL, 2.5);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO notes SELECT i, printf('note %d %d ', i, i * 7919 % 65537) || printf('%.*c', 900, 'x') FROM n",
            // A row takes about a kilobyte.
            (megabytes * 1000).max(4)
        ))
        .unwrap();
}

/// A finished run of the program with limited memory.
pub struct LimitedRun {
    arguments: String,
    pub output: Output,
}

impl LimitedRun {
    /// Returns the exit code, or 128 plus the number of the signal that ended the program.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.output.status.code().unwrap_or_else(|| 128 + self.output.status.signal().unwrap_or(0))
    }

    /// Returns the command, the exit code, and the first 4,000 bytes of both streams.
    pub fn transcript(&self) -> String {
        let cut = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        format!(
            "$ lifeboat {}\nexit {}\n-- stdout\n{}\n-- stderr\n{}",
            self.arguments,
            self.code(),
            cut(&self.output.stdout),
            cut(&self.output.stderr)
        )
    }
}
