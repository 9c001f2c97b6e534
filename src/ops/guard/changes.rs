//! Saves the sources that have changed. Where nothing has changed since the newest snapshot, nothing is stored.

use std::collections::BTreeMap;

use crate::engine::database::ChangeMark;
use crate::ops::guard::foreign::Foreign;
use crate::ops::save::{self, SaveOptions, SnapshotReport};
use crate::ops::sources::Chosen;
use crate::ops::{Context, tags};
use crate::platform::error::{Kind, Result};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::MissingPeriod;

/// The sources, and the states of them that the newest snapshots hold.
pub(super) struct Changes {
    chosen: Vec<Chosen>,
    foreign: Foreign,
    /// The sources that were restored to an older state, each with the period whose rows it lacks.
    missing_periods: BTreeMap<SourceName, MissingPeriod>,
    saved: BTreeMap<SourceName, (ChangeMark, SnapshotId)>,
}

impl Changes {
    pub(super) fn new(
        chosen: Vec<Chosen>,
        foreign: Foreign,
        missing_periods: BTreeMap<SourceName, MissingPeriod>,
    ) -> Self {
        Changes { chosen, foreign, missing_periods, saved: BTreeMap::new() }
    }

    /// Takes a snapshot of each source for which `is_due`, unless its newest snapshot has the same content.
    pub(super) fn save(&mut self, is_due: impl Fn(&Chosen) -> bool, context: &Context) -> Result<SnapshotReport> {
        let (mut unchanged, mut changed, mut marks) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut doubts = BTreeMap::new();
        for chosen in self.chosen.iter().filter(|chosen| is_due(chosen)) {
            let name = chosen.name()?;
            // Noted before the database is read: a write during the save makes the next one read it again.
            let mark = chosen.source.change_mark();
            if let Some(reason) = self.foreign.find(chosen, context)? {
                doubts.insert(name.clone(), reason);
            }
            let known = self.saved.get(&name).filter(|(before, _)| mark.as_ref() == Some(before));
            match known.map(|(_, id)| id) {
                Some(id) if is_still_newest(id, context)? => unchanged.push(id.clone()),
                _ => {
                    marks.insert(name, mark);
                    changed.push(chosen.clone());
                }
            }
        }
        let tag = vec![tags::GUARD.to_owned()];
        let missing_periods = self.missing_periods.clone();
        let options = SaveOptions { tag, only_changes: true, missing_periods, doubts, ..SaveOptions::default() };
        let mut report = save::take(&options, &changed, context)?;
        for id in report.snapshots.iter().map(|saved| &saved.manifest.id).chain(&report.unchanged) {
            self.foreign.add_own(id);
            self.saved.remove(id.source());
            if let Some(mark) = marks.remove(id.source()).flatten() {
                self.saved.insert(id.source().clone(), (mark, id.clone()));
            }
        }
        unchanged.iter().for_each(|id| report.results.succeed(id.source()));
        report.unchanged.extend(unchanged);
        Ok(report)
    }

    /// Returns the sources.
    pub(super) fn sources(&self) -> &[Chosen] {
        &self.chosen
    }
}

/// Returns true if the snapshot is still the newest one in every store. If that cannot be determined, the save of the
/// source reports the reason.
fn is_still_newest(id: &SnapshotId, context: &Context) -> Result<bool> {
    match save::is_newest_everywhere(id, context) {
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        found => Ok(found.unwrap_or(false)),
    }
}
