//! The messages about a comparison that finds no loss beyond what the rules allow. The program starts, but "nothing was
//! lost" would say more than is known.

use crate::engine::rules::Verdict;
use crate::ops::guard::newest::taken;
use crate::ops::inspect::allowed_losses;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Manifest;

/// Logs what the rules let pass, and that only a total was compared. `rows` is the number of rows of the database.
///
/// Losses that a rule on the table itself allows are no warning. All others are, because they add up: each start is
/// compared with a snapshot of the state after the last loss.
pub(super) fn log(name: &SourceName, before: &Manifest, rows: u64, verdicts: &[Verdict]) {
    let since = format!("{}, {}", before.id, taken(before.created_at));
    if before.lacks_tables() {
        tracing::warn!(
            "{name}: only the total number of rows was compared with {since}, because it is encrypted and no key here \
             opens it: {rows} rows now, {} in the snapshot; a table that has lost rows is not noticed if others have grown",
            before.rows
        );
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.evaluated) {
        tracing::warn!("{name} is not compared completely with {since}: {}", verdict.description());
    }
    let (intended, others): (Vec<Verdict>, Vec<Verdict>) =
        verdicts.iter().cloned().partition(|verdict| verdict.is_intended);
    let (intended, others) = (allowed_losses(&intended), allowed_losses(&others));
    if !others.is_empty() {
        tracing::warn!("{name} has fewer rows than {since}, within the tolerance: {others}");
    }
    if !intended.is_empty() {
        tracing::info!("{name} has fewer rows than {since}, as its rules allow: {intended}");
    }
}
