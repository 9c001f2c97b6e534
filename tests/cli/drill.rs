use crate::helpers::{flip, has_fields, silent};
use crate::support::{Sandbox, sample};

#[test]
fn drill_restores_compares_and_measures() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "wal");
    let id = sandbox.snapshot("app.db");
    let before = std::fs::read(sandbox.path("app.db")).unwrap();
    let document = sandbox.json(&["drill", &id, "--store", "backups"]);
    assert_eq!(document["ok"], true);
    let outcome = &document["snapshots"][0];
    has_fields(outcome, &["id", "level", "ok", "problems", "seconds", "restore_seconds"]);
    assert_eq!(outcome["level"], "drilled");
    assert_eq!(std::fs::read(sandbox.path("app.db")).unwrap(), before);
    let run = silent(sandbox.ok(&["drill", "--store", "backups"]));
    assert!(run.stdout().contains("drilled") && run.stdout().contains("restored in"), "{}", run.transcript());
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["proof"], "drilled");
}

#[test]
fn drill_of_a_damaged_snapshot_fails_and_is_remembered() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    let id = sandbox.snapshot("app.db");
    flip(sandbox.path(format!("backups/app/{id}.tar.gz")), 500, 3);
    let run = sandbox.run(&["drill", &id, "--store", "backups"]).code(3);
    assert!(run.stdout().contains("DAMAGED"), "{}", run.transcript());
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["proof"], "damaged");
}
