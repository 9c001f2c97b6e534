//! A store with one snapshot, a live database beside it, and what it means that a bad snapshot is refused.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::craft::{self, Codec, File, Layout};
use crate::support::{LIFEBOAT, Sandbox, open};

/// The most address space that a run may have, in KiB: an allocation by an unchecked number ends it.
const MEMORY_KIB: u32 = 400 << 10;

pub struct Vault {
    pub sandbox: Sandbox,
    pub codec: Codec,
    pub id: String,
    pub archive: PathBuf,
    pub manifest: PathBuf,
    /// As they were.
    pub archive_bytes: Vec<u8>,
    pub document: Vec<u8>,
}

impl Vault {
    /// One snapshot of a database of about `megabytes`, and `live.db`, another database.
    pub fn new(codec: Codec, megabytes: u32) -> Self {
        let sandbox = Sandbox::new();
        source(&sandbox, "app.db", megabytes);
        crate::support::sample(sandbox.path("live.db"), 3, "delete");
        let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--compression", codec.name()]);
        let id = document["snapshots"][0]["id"].as_str().unwrap().to_owned();
        let archive = sandbox.path(format!("backups/app/{id}{}", codec.extension()));
        let manifest = sandbox.path(format!("backups/app/{id}.json"));
        // Gone, as sources are when snapshots are needed.
        std::fs::remove_file(sandbox.path("app.db")).unwrap();
        let (archive_bytes, document) = (std::fs::read(&archive).unwrap(), std::fs::read(&manifest).unwrap());
        Vault { sandbox, codec, id, archive, manifest, archive_bytes, document }
    }

    /// The manifest outside.
    pub fn outside(&self) -> Value {
        serde_json::from_slice(&self.document).unwrap()
    }

    /// The files of the archive, to make another of.
    pub fn files(&self) -> Vec<File> {
        craft::map(&self.archive_bytes).files
    }

    /// Puts archive and manifest in place; None leaves the archive out.
    pub fn put(&self, archive: Option<&[u8]>, manifest: &[u8]) {
        match archive {
            Some(bytes) => std::fs::write(&self.archive, bytes).unwrap(),
            None => std::fs::remove_file(&self.archive).unwrap(),
        }
        std::fs::write(&self.manifest, manifest).unwrap();
    }

    /// Puts an archive in place with a manifest outside that names its length and hash.
    pub fn put_fitting(&self, archive: &[u8]) {
        self.put(Some(archive), &fitting(self.outside(), archive));
    }

    /// An archive of these files, all its numbers right; the manifest inside is theirs.
    pub fn layout(&self, files: &[File]) -> Layout {
        Layout::of(self.codec, files, craft::BLOCK)
    }

    /// Runs `lifeboat ARGUMENTS --store backups --json` with little memory.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let plain = self.sandbox.command(&["unused"]);
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("ulimit -v {MEMORY_KIB} && exec \"$0\" \"$@\"")).arg(LIFEBOAT).args(arguments);
        command.args(["--store", "backups", "--json", "--jobs", "2"]).current_dir(self.sandbox.root());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Finished { what: arguments.join(" "), output: command.output().unwrap() }
    }

    /// All that is in the sandbox but proofs, which every test of a snapshot may leave.
    pub fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut state = self.sandbox.state();
        state.retain(|path, _| !path.to_string_lossy().contains(".proof-"));
        let scratch = std::fs::read_dir(self.sandbox.path("scratch")).unwrap();
        state.extend(scratch.flatten().map(|entry| (entry.path(), "left in scratch".to_owned())));
        state
    }

    pub fn forget_proofs(&self) {
        for entry in std::fs::read_dir(self.archive.parent().unwrap()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().contains(".proof-") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// What of the promises for bad snapshots is broken for what is in the store now: nothing, one hopes.
    ///
    /// `verify`, `drill`, `restore` (to a new path, and over a database) and `extract` must each end with exit code 3
    /// and change nothing. `words` must be in what `verify` says.
    pub fn broken_promises(&self, label: &str, words: &str) -> String {
        self.broken_promises_of(label, words, &["verify", "drill", "create", "replace", "extract"])
    }

    pub fn broken_promises_of(&self, label: &str, words: &str, commands: &[&str]) -> String {
        let mut broken = String::new();
        let _ = self.run(&["list"]);
        let before = self.state();
        for command in commands {
            self.forget_proofs();
            let id = self.id.as_str();
            let run = self.run(&match *command {
                "verify" => vec!["verify", id],
                "drill" => vec!["drill", id],
                "create" => vec!["restore", id, "--to", "new.db"],
                "replace" => vec!["restore", id, "--to", "live.db", "--replace", "--yes"],
                "extract" => vec!["extract", id, "--to", "folder"],
                _ => unreachable!(),
            });
            let mut complain = |what: String| {
                let _ = writeln!(broken, "=== {}, {label}: {command}: {what}\n{}", self.codec.name(), run.transcript());
            };
            if run.code() != 3 {
                complain(format!("exit code {} instead of 3", run.code()));
            }
            if matches!(*command, "verify" | "drill") && run.code() == 3 {
                match serde_json::from_slice::<Value>(&run.output.stdout) {
                    Ok(document) => {
                        let problems = &document["snapshots"][0]["problems"];
                        let told = problems.as_array().is_some_and(|problems| {
                            !problems.is_empty() && problems.iter().all(|problem| problem["message"].is_string())
                        });
                        if document["ok"] != false || document["snapshots"][0]["ok"] != false || !told {
                            complain("the document does not tell".to_owned());
                        } else if *command == "verify" && !problems.to_string().contains(words) {
                            complain(format!("no word of '{words}'"));
                        }
                    }
                    Err(error) => complain(format!("no JSON document: {error}")),
                }
            }
            let after = self.state();
            if after != before {
                let changed: Vec<_> = after.iter().filter(|(path, what)| before.get(*path) != Some(what)).collect();
                let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
                complain(format!("changed {changed:?}, gone {gone:?}"));
                // For what comes next.
                let _ = std::fs::remove_file(self.sandbox.path("new.db"));
                let _ = std::fs::remove_dir_all(self.sandbox.path("folder"));
                return broken;
            }
        }
        broken
    }
}

/// A manifest with the length and hash of that archive.
pub fn fitting(mut manifest: Value, archive: &[u8]) -> Vec<u8> {
    manifest["archive_bytes"] = archive.len().into();
    manifest["sha256"] = craft::sha256(archive).into();
    manifest.to_string().into_bytes()
}

/// A database of rows that compress well, but not to nothing.
fn source(sandbox: &Sandbox, name: &str, megabytes: u32) {
    let connection = open(sandbox.path(name));
    connection
        .execute_batch(&format!(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
             CREATE TABLE small (a, b);
             INSERT INTO small VALUES (1, 'one'), (2, x'00ff'), (NULL, 2.5);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO notes SELECT i, printf('note %d %d ', i, i * 7919 % 65537) || printf('%.*c', 900, 'x') FROM n",
            // About a kilobyte a row.
            (megabytes * 1000).max(4)
        ))
        .unwrap();
}

pub struct Finished {
    what: String,
    pub output: Output,
}

impl Finished {
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.output.status.code().unwrap_or_else(|| 128 + self.output.status.signal().unwrap_or(0))
    }

    pub fn transcript(&self) -> String {
        let cut = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        format!(
            "$ lifeboat {}\nexit {}\n-- stdout\n{}\n-- stderr\n{}",
            self.what,
            self.code(),
            cut(&self.output.stdout),
            cut(&self.output.stderr)
        )
    }
}
