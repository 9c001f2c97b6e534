//! The last snapshot, after CMD has ended, and the log of what a snapshot has saved.

use crate::ops::guard::changes::Changes;
use crate::ops::save::{Comparison, Saved, SnapshotReport};
use crate::ops::sources::Chosen;
use crate::ops::summary::RunSummary;
use crate::ops::{Context, Report as _};
use crate::platform::error::{Error, Kind, one_line};
use crate::snapshots::id::SourceName;

/// The name of this snapshot in messages.
const WHICH: &str = "the last snapshot";

/// The result of the last snapshot. Failures do not change CMD's exit code.
#[derive(Default)]
pub(super) struct Last {
    /// The snapshots that were taken.
    pub(super) summary: RunSummary,
    pub(super) failures: Vec<Error>,
    /// The sources whose newest state is in no store.
    pub(super) unsaved: Vec<SourceName>,
}

/// Takes the last snapshot.
pub(super) fn save(mut changes: Changes, context: &Context) -> Last {
    let saved = changes.save(|_| true, context);
    let sources = changes.sources();
    let exists = |chosen: &&Chosen| !chosen.source.is_absent();
    match saved {
        Ok(taken) => {
            log(WHICH, &taken, sources.iter());
            let missing = sources.iter().filter(|chosen| !is_saved(chosen, &taken)).filter(exists);
            let unsaved = missing.filter_map(|chosen| chosen.name().ok()).collect();
            Last { summary: taken.summary(), failures: taken.failures, unsaved }
        }
        Err(error) => {
            tracing::error!("{WHICH} was not taken: {}", error.full_message_with_hint());
            let unsaved = sources.iter().filter(exists).filter_map(|chosen| chosen.name().ok()).collect();
            Last { summary: RunSummary::default(), failures: vec![error], unsaved }
        }
    }
}

/// Logs what was saved, what was not saved, and the failures. `which` names the snapshot.
pub(super) fn log<'a>(which: &str, taken: &SnapshotReport, sources: impl Iterator<Item = &'a Chosen>) {
    for saved in &taken.snapshots {
        let id = &saved.manifest.id;
        tracing::info!("saved {id}: {} rows", saved.manifest.rows);
        let notes = taken.compared.get(id).map(Comparison::notes).unwrap_or_default();
        notes.iter().for_each(|note| tracing::info!("{id}: {note}"));
    }
    for id in &taken.unchanged {
        tracing::info!("{}: nothing changed since {id}", id.source());
    }
    let failures: Vec<&Error> = taken.failures.iter().filter(|error| error.kind != Kind::Interrupted).collect();
    let is_partly_saved = !taken.snapshots.is_empty() || !taken.unchanged.is_empty();
    for error in &failures {
        match is_partly_saved {
            true => tracing::error!("{which}: {}", error.full_message_with_hint()),
            false => tracing::error!("{which} was not taken: {}", error.full_message_with_hint()),
        }
    }
    if failures.is_empty() || !is_partly_saved {
        return;
    }
    let missing: Vec<String> = sources.filter(|chosen| !is_saved(chosen, taken)).map(name_of).collect();
    let saved = |saved: &Saved| format!("{} in {}", saved.manifest.id, one_line(&saved.stores.join(" and ")));
    let unchanged = taken.unchanged.iter().map(|id| format!("{id}, which was there"));
    let saved: Vec<String> = taken.snapshots.iter().map(saved).chain(unchanged).collect();
    let missing = if missing.is_empty() { String::new() } else { format!("; not saved: {}", missing.join(", ")) };
    tracing::warn!("{which} is not complete; saved: {}{missing}", saved.join(", "));
}

/// Returns true if a store has the newest state of a source.
fn is_saved(chosen: &Chosen, taken: &SnapshotReport) -> bool {
    let mut ids = taken.snapshots.iter().map(|saved| &saved.manifest.id).chain(&taken.unchanged);
    chosen.name().is_ok_and(|name| ids.any(|id| *id.source() == name))
}

fn name_of(chosen: &Chosen) -> String {
    chosen.name().map_or_else(|_| one_line(&chosen.source.shown()), |name| name.to_string())
}
