//! `drill`: snapshots are restored into a scratch file, checked, and the result is recorded.

use crate::helpers::{assert_has_fields, flip_bytes, silent};
use crate::support::{Sandbox, sample};

#[test]
fn a_drill_restores_the_snapshot_and_reports_the_time() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "wal");
    let id = sandbox.snapshot("app.db");
    let before = std::fs::read(sandbox.path("app.db")).unwrap();
    let document = sandbox.json(&["drill", &id, "--store", "backups"]);
    assert_eq!(document["ok"], true);
    let outcome = &document["snapshots"][0];
    assert_has_fields(outcome, &["id", "level", "ok", "problems", "seconds", "restore_seconds"]);
    assert_eq!(outcome["level"], "drilled");
    assert_eq!(std::fs::read(sandbox.path("app.db")).unwrap(), before);
    let run = silent(sandbox.ok(&["drill", "--store", "backups"]));
    assert!(run.stdout().contains("drilled") && run.stdout().contains("restored in"), "{}", run.transcript());
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["proof"], "drilled");
}

#[test]
fn a_drill_of_a_damaged_snapshot_fails_and_is_recorded() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    let id = sandbox.snapshot("app.db");
    flip_bytes(sandbox.path(format!("backups/app/{id}.tar.gz")), 500, 3);
    let run = sandbox.run(&["drill", &id, "--store", "backups"]).code(3);
    assert!(run.stdout().contains("DAMAGED"), "{}", run.transcript());
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["proof"], "damaged");
}
