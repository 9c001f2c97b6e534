//! Notices and metrics have one result for each source and command: a source that was not saved is never called a
//! success, and one that was saved is not called a failure because another one failed.

use std::fs;

use serde_json::{Value, json};

use crate::support::web::{Web, answer};
use crate::support::{Sandbox, sample};

/// A machine with the sources `app` and `billing`, a metrics file, and a server that receives the notices.
struct Machine {
    sandbox: Sandbox,
    web: Web,
}

impl Machine {
    /// Takes a first snapshot of both sources. `more` is added to the config.
    fn new(more: &str) -> Self {
        let (sandbox, web) = (Sandbox::new(), Web::answering(&[answer("200 OK", "text/plain", "ok")]));
        for name in ["app.db", "billing.db"] {
            sample(sandbox.path(name), 3, "wal");
        }
        let machine = Machine { sandbox, web };
        machine.configure("./store", more);
        machine.sandbox.ok(&["init"]);
        machine.sandbox.ok(&["snapshot"]);
        machine
    }

    fn configure(&self, store: &str, more: &str) {
        let config = format!(
            "host = \"shop\"\nmetrics_file = \"m.prom\"\n[notify]\nwebhook = \"{}\"\non = \"recovery\"\nstate = \"state\"\n\
             [[store]]\nurl = \"{store}\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n[[source]]\nname = \"billing\"\n\
             url = \"billing.db\"\n{more}",
            self.web.url("/hook")
        );
        fs::write(self.sandbox.path("lifeboat.toml"), config).unwrap();
    }

    /// Moves the database of `billing` away, or back.
    fn hide_billing(&self, hide: bool) {
        let (from, to) = if hide { ("billing.db", "hidden") } else { ("hidden", "billing.db") };
        for ending in ["", "-wal", "-shm"] {
            let _ =
                fs::rename(self.sandbox.path(format!("{from}{ending}")), self.sandbox.path(format!("{to}{ending}")));
        }
    }

    /// Returns the value of a series of the metrics, such as `last_run_ok{source="app"}`.
    fn metric(&self, series: &str) -> Option<f64> {
        let text = fs::read_to_string(self.sandbox.path("m.prom")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("lifeboat_{series} ")));
        line.map(|value| value.parse().unwrap())
    }

    fn results(&self) -> [Option<f64>; 2] {
        ["app", "billing"].map(|source| self.metric(&format!("last_run_ok{{source=\"{source}\"}}")))
    }

    fn results_of(&self, command: &str) -> [Option<f64>; 2] {
        ["app", "billing"]
            .map(|source| self.metric(&format!("command_ok{{source=\"{source}\",command=\"{command}\"}}")))
    }

    /// Sets all times in the metrics to 1000.
    fn make_old(&self) {
        let text = fs::read_to_string(self.sandbox.path("m.prom")).unwrap();
        let old = |line: &str| match line.split_once("_timestamp_seconds{") {
            Some((name, rest)) if !line.starts_with('#') => {
                format!("{name}_timestamp_seconds{{{} 1000\n", rest.rsplit_once(' ').unwrap().0)
            }
            _ => format!("{line}\n"),
        };
        fs::write(self.sandbox.path("m.prom"), text.lines().map(old).collect::<String>()).unwrap();
    }

    fn last_success(&self, source: &str) -> Option<f64> {
        self.metric(&format!("last_success_timestamp_seconds{{source=\"{source}\"}}"))
    }

    /// Returns the events of the notices since the `seen` first ones, and the sources that each is about.
    fn notices(&self, seen: usize) -> Vec<(String, Value)> {
        let documents = self.web.requests().into_iter().skip(seen);
        let of = |document: Value| (document["event"].as_str().unwrap().to_owned(), document["sources"].clone());
        documents.map(|seen| of(serde_json::from_str(&seen.body).unwrap())).collect()
    }
}

const OK: Option<f64> = Some(1.0);
const FAILED: Option<f64> = Some(0.0);

#[test]
fn a_source_that_was_not_saved_is_never_a_success() {
    let machine = Machine::new("");
    assert_eq!((machine.results(), machine.results_of("snapshot")), ([OK, OK], [OK, OK]));
    machine.make_old();
    machine.hide_billing(true);
    machine.sandbox.run(&["snapshot"]).code(5);
    assert_eq!((machine.results(), machine.results_of("snapshot")), ([OK, FAILED], [OK, FAILED]));
    assert!(machine.last_success("app") > Some(1000.0));
    let billing = |machine: &Machine| (machine.results()[1], machine.last_success("billing"));
    // A run of the other source, and runs of other commands, say nothing of the snapshots of this one.
    machine.sandbox.ok(&["snapshot", "app"]);
    assert_eq!(billing(&machine), (FAILED, Some(1000.0)));
    machine.make_old();
    for command in [&["verify", "--all"][..], &["drill"], &["check", "app"], &["list"], &["prune", "--keep-last", "9"]]
    {
        machine.sandbox.ok(command);
        assert_eq!(billing(&machine), (FAILED, Some(1000.0)), "{command:?}");
        assert_eq!(machine.last_success("app"), Some(1000.0), "{command:?}");
    }
    assert_eq!(machine.results_of("verify"), [OK, OK]);
    assert_eq!(machine.results_of("drill"), [OK, OK]);
    assert_eq!(machine.results_of("check"), [OK, None]);
    machine.hide_billing(false);
    machine.sandbox.ok(&["snapshot", "billing"]);
    assert_eq!((machine.results(), machine.last_success("app")), ([OK, OK], Some(1000.0)));
}

#[test]
fn notices_name_the_sources_that_failed_and_those_that_work_again() {
    let machine = Machine::new("");
    machine.hide_billing(true);
    machine.sandbox.run(&["snapshot"]).code(5);
    assert_eq!(machine.notices(0), [("failure".to_owned(), json!(["billing"]))]);
    let document: Value = serde_json::from_str(&machine.web.requests()[0].body).unwrap();
    assert_eq!(document["summary"], "lifeboat snapshot of billing on shop failed");
    assert_eq!((&document["results"][0]["source"], &document["results"][0]["ok"]), (&json!("billing"), &json!(false)));
    assert_eq!(document["results"][1], json!({"source": "app", "ok": true, "error": null}));
    assert!(document["snapshots"][0].as_str().unwrap().starts_with("app-"), "{document:#}");
    // Neither a success of the other source nor one of another command is a recovery.
    machine.sandbox.ok(&["snapshot", "app"]);
    machine.sandbox.ok(&["verify", "--all"]);
    assert_eq!(machine.notices(1), []);
    // Now the other source fails, and this one recovers: one notice of each.
    machine.hide_billing(false);
    fs::rename(machine.sandbox.path("app.db"), machine.sandbox.path("gone")).unwrap();
    machine.sandbox.run(&["snapshot"]).code(5);
    let expected = [("failure".to_owned(), json!(["app"])), ("recovery".to_owned(), json!(["billing"]))];
    assert_eq!(machine.notices(1), expected);
    fs::rename(machine.sandbox.path("gone"), machine.sandbox.path("app.db")).unwrap();
    machine.sandbox.ok(&["snapshot", "billing"]);
    assert_eq!(machine.notices(3), []);
    machine.sandbox.ok(&["snapshot"]);
    machine.sandbox.ok(&["snapshot"]);
    assert_eq!(machine.notices(3), [("recovery".to_owned(), json!(["app"]))]);
}

#[test]
fn a_snapshot_that_is_not_in_every_store_is_a_failure_of_its_source() {
    let machine = Machine::new("[[store]]\nurl = \"./second\"\n");
    assert_eq!(machine.results(), [OK, OK]);
    fs::rename(machine.sandbox.path("second"), machine.sandbox.path("unmounted")).unwrap();
    machine.sandbox.run(&["snapshot", "app"]).code(5);
    assert_eq!(machine.results(), [FAILED, OK], "it is in one store of two");
    assert_eq!(machine.notices(0), [("failure".to_owned(), json!(["app"]))]);
    machine.sandbox.run(&["snapshot"]).code(5);
    assert_eq!(machine.results(), [FAILED, FAILED]);
    let body = &machine.web.requests()[1].body;
    assert_eq!(body.matches("no such store").count().max(1), 1, "one failure of a store is told once: {body}");
}

#[test]
fn a_closed_gate_has_saved_nothing_and_a_check_fails_for_its_source() {
    let machine = Machine::new("");
    machine.configure("./store", "[[source.rule]]\ntable = \"accounts\"\nmin_rows = 4\n");
    // The snapshot is suspect: the rule of billing fails.
    machine.sandbox.run(&["snapshot"]).code(3);
    assert_eq!(machine.results(), [OK, FAILED]);
    assert_eq!(machine.notices(0), [("failure".to_owned(), json!(["billing"]))]);
    machine.sandbox.run(&["check", "--no-backups"]).code(3);
    assert_eq!((machine.results_of("check"), machine.results()), ([OK, FAILED], [OK, FAILED]));
    machine.sandbox.run(&["predeploy"]).code(3);
    assert_eq!(machine.results(), [FAILED, FAILED], "the gate was closed, so that nothing was saved");
    machine.sandbox.ok(&["predeploy", "app"]);
    assert_eq!(machine.results(), [OK, FAILED]);
    machine.sandbox.run(&["postdeploy", "app"]).code(0);
    assert_eq!(machine.results_of("postdeploy"), [OK, None]);
    // A failure of the machine concerns all sources.
    machine.configure("./store", "[preflight]\nmounts = [\"./no-mount\"]\n");
    machine.sandbox.run(&["predeploy", "app"]).code(3);
    assert_eq!(machine.results_of("predeploy"), [FAILED, FAILED]);
}

#[test]
fn settings_that_cannot_be_used_are_reported_as_failures() {
    let machine = Machine::new("");
    machine.configure("${NO_SUCH_BUCKET_VARIABLE}", "");
    machine.sandbox.run(&["snapshot"]).code(2);
    assert_eq!(machine.results(), [FAILED, FAILED]);
    assert_eq!(machine.notices(0), [("failure".to_owned(), json!(["app", "billing"]))]);
    machine.configure("./store", "");
    machine.sandbox.ok(&["snapshot"]);
    assert_eq!(machine.results(), [OK, OK]);
    // The url of a third source needs a variable that is not set: no source can be saved.
    machine.configure("./store", "[[source]]\nname = \"third\"\nurl = \"${NO_SUCH_URL_VARIABLE}\"\n");
    machine.sandbox.run(&["snapshot"]).code(2);
    assert_eq!(machine.results(), [FAILED, FAILED]);
    assert_eq!(machine.metric("last_run_ok{source=\"third\"}"), FAILED);
    // A name that the config does not have says nothing of those that it has.
    machine.configure("./store", "");
    machine.sandbox.ok(&["snapshot"]);
    machine.sandbox.run(&["snapshot", "./no-such.db"]).code(5);
    assert_eq!(machine.results(), [OK, OK]);
}

#[test]
fn damage_found_by_a_test_is_a_failure_of_the_source_of_that_snapshot() {
    let machine = Machine::new("");
    let archive = fs::read_dir(machine.sandbox.path("store/billing")).unwrap().flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz")).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    machine.sandbox.run(&["drill"]).code(3);
    machine.sandbox.run(&["verify", "--all"]).code(3);
    assert_eq!((machine.results_of("drill"), machine.results_of("verify")), ([OK, FAILED], [OK, FAILED]));
    assert_eq!(machine.results(), [OK, OK], "the snapshots themselves were taken");
    machine.sandbox.run(&["copy", "--all", "--from", "./store", "--to", "./other", "--create"]).code(3);
    assert_eq!(machine.results_of("copy"), [OK, FAILED]);
    let about_billing = json!(["billing"]);
    assert!(machine.notices(0).iter().all(|(event, sources)| event == "failure" && *sources == about_billing));
    assert_eq!(machine.notices(0).len(), 3);
}

#[test]
fn the_last_snapshot_of_a_guard_has_one_result_for_each_source() {
    let machine = Machine::new("");
    machine.sandbox.run(&["guard", "--", "sh", "-c", "mv billing.db hidden; exit 4"]).code(4);
    assert_eq!((machine.results(), machine.results_of("guard")), ([OK, FAILED], [OK, FAILED]));
    assert_eq!(machine.notices(0), [("failure".to_owned(), json!(["billing"]))]);
}
