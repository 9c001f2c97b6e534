//! An extracted archive can be restored with psql alone, as its README says.

use super::helpers::{fill, ok, snapshot, state};
use crate::support::Sandbox;
use crate::support::timescale::take_databases;

#[test]
#[ignore = "needs TimescaleDB"]
fn an_extracted_archive_can_be_loaded_with_psql() {
    let sandbox = Sandbox::new();
    let [source, target] = take_databases();
    fill(&source);
    let id = snapshot(&sandbox, &source);
    ok(&sandbox, &["extract", &id, "--to", "out"]);
    target.psql_file(&sandbox.path("out/restore.sql"));
    let (before, after) = (state(&source), state(&target));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}
