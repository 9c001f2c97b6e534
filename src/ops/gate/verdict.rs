//! The sentences about what is known of lost data after a deploy. They say no more than what was compared.

use crate::ops::differences::some;
use crate::ops::inspect::{Compared, Inspection};
use crate::snapshots::id::{SnapshotId, SourceName};

/// The limit of every comparison of a gate.
const NOT_COMPARED: &str = "values were not compared";

/// The facts about one source after a deploy.
pub(super) struct Known {
    name: SourceName,
    /// The snapshot from before the deploy; `None` if this is the first deploy.
    before: Option<SnapshotId>,
    /// True if a rollback restores it.
    is_lost: bool,
    compared: Compared,
    /// The losses that the rules allow; empty if there are none.
    allowed: String,
    /// The tables whose rows cannot be counted.
    uncounted: Vec<String>,
    /// The columns and views that are gone; empty if there are none.
    gone: String,
    /// A sentence about a good snapshot that is newer than the one from before the deploy, if that must be known.
    pub(super) newer: Option<String>,
}

impl Known {
    pub(super) fn new(name: SourceName, before: Option<SnapshotId>, is_lost: bool, found: &Inspection) -> Self {
        let (compared, allowed, gone) = (found.compared, found.allowed_losses.clone(), found.gone.clone());
        let uncounted = found.uncounted.clone();
        Known { name, before, is_lost, compared, allowed, uncounted, gone, newer: None }
    }

    /// Describes what is known of lost rows.
    fn sentence(&self) -> String {
        let Known { name, before, allowed, .. } = self;
        let Some(before) = before else {
            return format!("{name} has no snapshot from before its first deploy to compare with");
        };
        match self.compared {
            Compared::Nothing => {
                format!(
                    "it is not known if data of {name} was lost: the rows of {name} were not compared with {before}, \
                     because they cannot be read"
                )
            }
            Compared::Total { now, before: was } => format!(
                "only the total number of rows of {name} was compared, because {before} is encrypted and no key here \
                 opens it: {now} rows now, {was} in the snapshot"
            ),
            Compared::Tables => {
                let start = match self.uncounted.is_empty() {
                    true => format!("no table of {name}"),
                    false => format!(
                        "it is not known if data of {name} was lost, because the rows of {} could not be counted; no \
                         other table",
                        some(self.uncounted.iter())
                    ),
                };
                format!("{start} has fewer rows than in {before}{} ({NOT_COMPARED})", except(allowed))
            }
        }
    }

    /// Returns true if all of it was compared, and no table has fewer rows.
    fn is_clear(&self) -> bool {
        self.compared == Compared::Tables && self.allowed.is_empty() && self.uncounted.is_empty()
    }

    /// Returns the sentences about a source.
    fn sentences(&self) -> impl Iterator<Item = String> {
        let gone = Some(self.gone.clone()).filter(|gone| !gone.is_empty());
        [Some(self.sentence()), self.newer.clone(), gone].into_iter().flatten()
    }
}

/// Returns the part of a sentence that names losses that the rules allow.
fn except(allowed: &str) -> String {
    if allowed.is_empty() { String::new() } else { format!(", except as allowed: {allowed}") }
}

/// Returns the verdict on a deploy whose checks have all passed.
pub(super) fn passed(known: &[Known]) -> String {
    let allowed = known.iter().filter(|known| !known.allowed.is_empty());
    let allowed: Vec<String> = allowed.map(|known| format!("{}: {}", known.name, known.allowed)).collect();
    if known.iter().all(|known| known.before.is_none()) {
        return "the first deploy passed".to_owned();
    }
    let no_table = match known.iter().all(|known| known.uncounted.is_empty()) {
        true => "no table",
        false => "no table that could be counted",
    };
    let allowed = except(&allowed.join("; "));
    let mut parts = vec![format!("{no_table} has fewer rows than before the deploy{allowed} ({NOT_COMPARED})")];
    let is_limited = |known: &&Known| known.before.is_none() || !known.uncounted.is_empty();
    parts.extend(known.iter().filter(is_limited).map(Known::sentence));
    parts.extend(known.iter().filter_map(|known| known.newer.clone()));
    parts.extend(known.iter().map(|known| known.gone.clone()).filter(|gone| !gone.is_empty()));
    parts.join("; ")
}

/// Returns the verdict on a deploy with failed checks, after which no source can be restored by a rollback.
pub(super) fn failed(failed: usize, known: &[Known], rolls_back: bool) -> String {
    let sentences: Vec<String> = known.iter().flat_map(Known::sentences).collect();
    let what = if rolls_back { "nothing was restored" } else { "no rollback is proposed" };
    format!("{failed} checks FAILED; {what}: {}", sentences.join("; "))
}

/// Returns the sentences that limit what another verdict says, each after a semicolon: about the sources that are not lost
/// and were not compared completely, or have fewer rows, and about newer snapshots.
pub(super) fn limits(known: &[Known]) -> String {
    let of = |known: &Known| {
        let sentence = Some(known).filter(|known| !known.is_lost && !known.is_clear()).map(Known::sentence);
        [sentence, known.newer.clone()]
    };
    known.iter().flat_map(of).flatten().map(|sentence| format!("; {sentence}")).collect()
}
