//! Random sequences of commands, compared with a model that predicts the result of each step.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::{Sandbox, content, open};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

type Content = BTreeMap<String, Vec<String>>;

/// One action of a user. A number selects one of the snapshots that exist, or seeds the changed data.
#[derive(Clone, Debug)]
enum Step {
    Insert(u8),
    Update(u8),
    Delete(u8),
    Schema(u8),
    Snapshot { zstd: bool, tagged: bool },
    RestoreNew(u8),
    RestoreOver { which: u8, safety: bool },
    RestoreLatest,
    Verify(u8),
    VerifyAll,
    Drill(u8),
    Damage(u8),
    Prune { last: u8, tag: bool },
    PlanPrune(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let number = any::<u8>;
    prop_oneof![
        3 => number().prop_map(Step::Insert),
        2 => number().prop_map(Step::Update),
        2 => number().prop_map(Step::Delete),
        1 => number().prop_map(Step::Schema),
        6 => (any::<bool>(), any::<bool>()).prop_map(|(zstd, tagged)| Step::Snapshot { zstd, tagged }),
        2 => number().prop_map(Step::RestoreNew),
        2 => (number(), any::<bool>()).prop_map(|(which, safety)| Step::RestoreOver { which, safety }),
        1 => Just(Step::RestoreLatest),
        1 => number().prop_map(Step::Verify),
        1 => Just(Step::VerifyAll),
        1 => number().prop_map(Step::Drill),
        1 => number().prop_map(Step::Damage),
        2 => (1..4u8, any::<bool>()).prop_map(|(last, tag)| Step::Prune { last, tag }),
        1 => (1..4u8).prop_map(Step::PlanPrune),
    ]
}

/// A snapshot as the model expects it.
#[derive(Clone, Debug)]
struct ExpectedSnapshot {
    id: String,
    kind: &'static str,
    tags: Vec<String>,
    content: Content,
    /// `none`, `verified`, `drilled` or `damaged`: the result of the newest test. Damage is never taken back.
    proof: &'static str,
    ever_drilled: bool,
    /// True if the archive is damaged, even if no command has reported it yet.
    is_damaged: bool,
    /// Its files in the store, without the proofs.
    files: BTreeMap<PathBuf, String>,
}

struct World {
    sandbox: Sandbox,
    /// Newest first.
    snapshots: Vec<ExpectedSnapshot>,
    /// The ids of the pruned snapshots.
    pruned: Vec<String>,
    /// The steps so far, for the failure message.
    log: Vec<String>,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        crate::support::sample(sandbox.path("app.db"), 2, "wal");
        World { sandbox, snapshots: Vec::new(), pruned: Vec::new(), log: Vec::new() }
    }

    /// Runs a command on the store, requires the exit code, and returns the JSON document.
    #[track_caller]
    fn run(&mut self, arguments: &[&str], code: i32) -> Value {
        self.log.push(arguments.join(" "));
        let mut all = arguments.to_vec();
        all.extend(["--store", "backups", "--json"]);
        let run = self.sandbox.run(&all);
        assert_eq!(run.exit(), code, "{}\n{}", self.transcript(), run.transcript());
        run.json()
    }

    fn transcript(&self) -> String {
        let expected =
            self.snapshots.iter().map(|s| format!("{} {} {} damaged: {}", s.id, s.kind, s.proof, s.is_damaged));
        format!("-- steps\n{}\n-- expected\n{}", self.log.join("\n"), expected.collect::<Vec<_>>().join("\n"))
    }

    fn live_content(&self) -> Content {
        content(self.sandbox.path("app.db"))
    }

    fn change(&mut self, sql: &str) {
        self.log.push(sql.to_owned());
        open(self.sandbox.path("app.db")).execute_batch(sql).unwrap();
    }

    fn pick(&self, which: u8) -> Option<usize> {
        (!self.snapshots.is_empty()).then(|| usize::from(which) % self.snapshots.len())
    }

    /// Returns the paths and states of the two files of a snapshot.
    fn files_of(&self, id: &str) -> BTreeMap<PathBuf, String> {
        let mut files = self.sandbox.state();
        files.retain(|path, _| {
            let path = path.to_string_lossy();
            path.contains(id) && !path.contains(".proof-")
        });
        files
    }

    fn add_snapshot(&mut self, id: &str, kind: &'static str, tags: &[&str], content: Content) {
        let files = self.files_of(id);
        assert_eq!(files.len(), 2, "{}\n{files:?}", self.transcript());
        self.snapshots.insert(
            0,
            ExpectedSnapshot {
                id: id.to_owned(),
                kind,
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                content,
                proof: "none",
                ever_drilled: false,
                is_damaged: false,
                files,
            },
        );
    }

    /// Returns the snapshot that `latest` selects: the newest full one that is not known to be damaged.
    fn latest(&self) -> Option<usize> {
        self.snapshots.iter().position(|snapshot| snapshot.kind == "full" && snapshot.proof != "damaged")
    }

    /// Restores over the live database. Requires that its content is replaced, or unchanged if the snapshot is damaged.
    fn restore_over(&mut self, argument: &str, index: usize, safety: bool) {
        let before = self.live_content();
        let (wanted, is_damaged) = (self.snapshots[index].content.clone(), self.snapshots[index].is_damaged);
        let mut arguments = vec!["restore", argument, "--to", "app.db", "--replace", "--yes"];
        if !safety {
            arguments.push("--no-safety");
        }
        let document = self.run(&arguments, if is_damaged { 3 } else { 0 });
        if is_damaged {
            assert_eq!(self.live_content(), before, "{}", self.transcript());
            return;
        }
        assert_eq!(self.live_content(), wanted, "{}", self.transcript());
        match document["safety_snapshot"].as_str() {
            Some(id) => {
                assert!(safety);
                self.add_snapshot(id, "safety", &["safety"], before);
            }
            None => assert!(!safety, "{}", self.transcript()),
        }
    }

    /// Returns the ids that a policy of `last`, and of a tag if one is given, keeps, newest first.
    fn kept(&self, last: u8, tag: Option<&str>) -> Vec<String> {
        let counts = |snapshot: &&ExpectedSnapshot| snapshot.kind == "full" && snapshot.proof != "damaged";
        let newest: Vec<&str> = self.snapshots.iter().filter(counts).take(last.into()).map(|s| s.id.as_str()).collect();
        let drilled = self.snapshots.iter().filter(counts).find(|s| s.ever_drilled).map(|s| s.id.as_str());
        let keep = |snapshot: &&ExpectedSnapshot| {
            newest.contains(&snapshot.id.as_str())
                || drilled == Some(&snapshot.id)
                || tag.is_some_and(|tag| snapshot.tags.iter().any(|other| other == tag))
                // Safety and damaged snapshots are not counted by the policy; they are kept while they are young.
                || !counts(snapshot)
        };
        self.snapshots.iter().filter(keep).map(|snapshot| snapshot.id.clone()).collect()
    }

    fn test(&mut self, command: &str, index: usize) {
        let (id, is_damaged) = (self.snapshots[index].id.clone(), self.snapshots[index].is_damaged);
        let document = self.run(&[command, &id], if is_damaged { 3 } else { 0 });
        assert_eq!(document["ok"], !is_damaged, "{}", self.transcript());
        self.record_test(index, if command == "drill" { "drilled" } else { "verified" });
    }

    fn record_test(&mut self, index: usize, level: &'static str) {
        let snapshot = &mut self.snapshots[index];
        if snapshot.is_damaged {
            snapshot.proof = "damaged";
        } else if snapshot.proof != "damaged" {
            snapshot.proof = level;
            snapshot.ever_drilled |= level == "drilled";
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Insert(n) => self.change(&format!(
                "INSERT INTO accounts (name) VALUES ('new {n}');
                 INSERT INTO balances (account_id, amount, created_at) SELECT id, {n} / 7.0, 'now {n}' FROM accounts;
                 INSERT INTO logs VALUES ('{n}', printf('%.*c', {n} * 40, 'x'))"
            )),
            Step::Update(n) => {
                self.change(&format!("UPDATE balances SET amount = amount * 1.5 + {n} WHERE id % 3 = {n} % 3"))
            }
            Step::Delete(n) => self.change(&format!(
                "DELETE FROM balances WHERE id % 5 = {n} % 5; DELETE FROM accounts WHERE id = {n} % 9"
            )),
            Step::Schema(n) => self.change(&format!(
                "CREATE TABLE IF NOT EXISTS \"extra {}\" (a, b); INSERT INTO \"extra {}\" VALUES ({n}, x'00{n:02x}')",
                n % 3,
                n % 3
            )),
            Step::Snapshot { zstd, tagged } => {
                let content = self.live_content();
                let mut arguments = vec!["snapshot", "app.db", "--compression", if *zstd { "zstd" } else { "gzip:1" }];
                let tags: &[&str] = if *tagged { &["kept"] } else { &[] };
                for tag in tags {
                    arguments.extend(["--tag", tag]);
                }
                let document = self.run(&arguments, 0);
                self.add_snapshot(document["snapshots"][0]["id"].as_str().unwrap(), "full", tags, content);
            }
            Step::RestoreNew(which) => {
                let Some(index) = self.pick(*which) else { return };
                let ExpectedSnapshot { id, content: wanted, is_damaged, .. } = self.snapshots[index].clone();
                self.run(&["restore", &id, "--to", "new.db"], if is_damaged { 3 } else { 0 });
                let new = self.sandbox.path("new.db");
                assert_eq!(new.exists(), !is_damaged, "{}", self.transcript());
                if !is_damaged {
                    assert_eq!(content(&new), wanted, "{}", self.transcript());
                    fs::remove_file(new).unwrap();
                }
            }
            Step::RestoreOver { which, safety } => {
                let Some(index) = self.pick(*which) else { return };
                let id = self.snapshots[index].id.clone();
                self.restore_over(&id, index, *safety);
            }
            Step::RestoreLatest => match self.latest() {
                Some(index) => self.restore_over("latest", index, true),
                None => {
                    drop(self.run(&["restore", "latest", "--to", "new.db"], if self.store_exists() { 4 } else { 5 }))
                }
            },
            Step::Verify(which) | Step::Drill(which) => {
                let Some(index) = self.pick(*which) else { return };
                self.test(if matches!(step, Step::Drill(_)) { "drill" } else { "verify" }, index);
            }
            Step::VerifyAll => {
                let any_damaged = self.snapshots.iter().any(|snapshot| snapshot.is_damaged);
                let code = match (self.store_exists(), self.snapshots.is_empty()) {
                    (false, _) => 5,
                    (true, true) => 4,
                    (true, false) => i32::from(any_damaged) * 3,
                };
                self.run(&["verify", "--all"], code);
                for index in 0..self.snapshots.len() {
                    self.record_test(index, "verified");
                }
            }
            Step::Damage(which) => {
                let Some(index) = self.pick(*which) else { return };
                let snapshot = &mut self.snapshots[index];
                let archive =
                    snapshot.files.keys().find(|path| path.extension().is_none_or(|ext| ext != "json")).unwrap();
                let archive = self.sandbox.path(archive);
                let mut bytes = fs::read(&archive).unwrap();
                // Only once, because flipping the same bit again would repair the archive.
                if !snapshot.is_damaged {
                    let at = bytes.len() * usize::from(*which) / 256;
                    bytes[at] ^= 0x20;
                    fs::write(&archive, bytes).unwrap();
                    snapshot.is_damaged = true;
                    let id = snapshot.id.clone();
                    self.log.push(format!("# byte {at} of {id} flipped"));
                    self.snapshots[index].files = self.files_of(&id);
                }
            }
            Step::Prune { last, tag } => {
                if !self.store_exists() {
                    return;
                }
                let kept = self.kept(*last, tag.then_some("kept"));
                let last = last.to_string();
                let mut arguments = vec!["prune", "--keep-last", &last, "--yes"];
                if *tag {
                    arguments.extend(["--keep-tag", "kept"]);
                }
                let document = self.run(&arguments, 0);
                self.check_plan(&document, &kept);
                let (remaining, deleted): (Vec<_>, Vec<_>) =
                    self.snapshots.drain(..).partition(|snapshot| kept.contains(&snapshot.id));
                self.snapshots = remaining;
                self.pruned.extend(deleted.into_iter().map(|snapshot| snapshot.id));
            }
            Step::PlanPrune(last) => {
                if self.store_exists() {
                    let kept = self.kept(*last, None);
                    let document = self.run(&["prune", "--keep-last", &last.to_string()], 0);
                    self.check_plan(&document, &kept);
                }
            }
        }
    }

    fn store_exists(&self) -> bool {
        self.sandbox.path("backups").exists()
    }

    fn check_plan(&self, document: &Value, kept: &[String]) {
        let ids = |field: &str| -> Vec<String> {
            document[field].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids("keep"), kept, "{}\n{document}", self.transcript());
        let deleted: Vec<String> =
            self.snapshots.iter().map(|s| s.id.clone()).filter(|id| !kept.contains(id)).collect();
        assert_eq!(ids("delete"), deleted, "{}\n{document}", self.transcript());
    }

    /// Requires what must hold after every step.
    fn check(&mut self) {
        if !self.store_exists() {
            assert!(self.snapshots.is_empty());
            return;
        }
        let document = self.run(&["list"], 0);
        self.log.pop();
        let listed: Vec<_> = document["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
                (text("id"), text("kind"), text("proof"), one["tags"].clone())
            })
            .collect();
        let expected: Vec<_> = self
            .snapshots
            .iter()
            .map(|s| (s.id.clone(), s.kind.to_owned(), s.proof.to_owned(), Value::from(s.tags.clone())))
            .collect();
        assert_eq!(listed, expected, "{}", self.transcript());
        // The files of a snapshot never change, and a pruned snapshot leaves no file.
        let state = self.sandbox.state();
        for snapshot in &self.snapshots {
            for (path, expected) in &snapshot.files {
                assert_eq!(state.get(path), Some(expected), "{} {}", path.display(), self.transcript());
            }
        }
        for path in state.keys() {
            let path = path.to_string_lossy();
            let is_pruned = self.pruned.iter().any(|id| path.contains(id.as_str()));
            assert!(!is_pruned, "{path} was not removed\n{}", self.transcript());
            let is_known = ["app.db", "backups", "scratch"].iter().any(|name| path.starts_with(name));
            assert!(is_known && !path.contains(".lifeboat-"), "{path} was not removed\n{}", self.transcript());
        }
        assert_eq!(fs::read_dir(self.sandbox.path("scratch")).unwrap().count(), 0, "{}", self.transcript());
    }

    /// Requires, at the end, that every kept snapshot can be restored and every pruned one is unknown.
    fn finish(&mut self) {
        for which in 0..self.snapshots.len() {
            self.step(&Step::RestoreNew(u8::try_from(which).unwrap()));
        }
        for id in self.pruned.clone() {
            self.run(&["restore", &id, "--to", "new.db"], 4);
            self.run(&["show", &id], 4);
        }
        self.check();
    }
}

#[test]
fn random_sequences_of_commands_match_the_model() {
    let config = Config { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 20..60);
    let result = TestRunner::new(config).run(&steps, |steps| {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.finish();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn repeated_snapshots_and_prunes_keep_exactly_what_the_policy_says() {
    let mut world = World::new();
    for round in 0..12u8 {
        world.step(&Step::Insert(round));
        world.step(&Step::Snapshot { zstd: round % 2 == 0, tagged: round % 5 == 0 });
        if round % 4 == 1 {
            world.step(&Step::Drill(0));
        }
        if round % 3 == 2 {
            world.step(&Step::Prune { last: 2, tag: true });
        }
        world.check();
    }
    assert!(world.pruned.len() >= 5, "{}", world.transcript());
    world.finish();
}
