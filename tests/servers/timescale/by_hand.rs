//! What an archive says of how to restore it with psql alone holds.

use super::helpers::{everything, fill, ok, snapshot};
use crate::support::Sandbox;
use crate::support::timescale::take;

#[test]
#[ignore = "needs TimescaleDB"]
fn an_extracted_archive_is_loaded_with_psql() {
    let place = Sandbox::new();
    let [source, target] = take();
    fill(&source);
    let id = snapshot(&place, &source);
    ok(&place, &["extract", &id, "--to", "out"]);
    target.psql_file(&place.path("out/restore.sql"));
    let (before, after) = (everything(&source), everything(&target));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}
