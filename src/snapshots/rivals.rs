//! Decides which of several databases gets the name of a source, if hosts begin a source of the same name at once.
//!
//! A store has no lock. So each process looks for snapshots of another database right before it writes its manifest, and
//! again after that. Of two processes that have both written, at least the later sees the other:
//!
//! - One whose snapshot was taken later withdraws, if the other is still there.
//! - One whose snapshot was taken earlier waits, because the other withdraws if it sees this one. If that takes too long,
//!   the other was complete before this one was written, or its process was killed. Then this one withdraws.
//!
//! So one of them stays, and never both. The order of the times decides only between processes that see each other; it
//! need not be that of the writes, and the clocks of the hosts may be wrong.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::interrupt;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{STAMP_BYTES, SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, Origin, SnapshotKind};
use crate::snapshots::names::first_name;
use crate::store::Names;

/// The maximum time to wait for another process to withdraw.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The pause between two listings while waiting.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest time that the upload of a snapshot is assumed to take.
const LONGEST_UPLOAD: chrono::Duration = chrono::Duration::days(8);

/// The hint for a copy of a snapshot whose source has the name of another database.
pub(crate) const SEPARATE_STORE: &str = "copy it into a separate store";

/// Returns the error for a source name that another database has.
#[must_use]
pub(crate) fn name_is_taken(name: &SourceName, by: &Origin) -> Error {
    Error::usage(format!("the store already has a source {name}, from {by}")).hint(
        "give this one another name with --name; or, if it is the same database in a new place, run 'lifeboat snapshot \
         --moved' once",
    )
}

/// The treatment of snapshots that other databases have under the name of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rivals {
    /// They are no concern of this snapshot.
    Ignore,
    /// They make the publication fail, also if they appear at the same time.
    Refuse,
}

impl Rivals {
    /// Returns the treatment of rivals of a snapshot. A safety snapshot is of the target of a restore, which may be any
    /// database.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        if manifest.kind == SnapshotKind::Safety { Rivals::Ignore } else { Rivals::Refuse }
    }
}

impl Catalog {
    /// Returns the newest full snapshot that another database has under the name of a snapshot's source, or `None`.
    fn other_database(&self, manifest: &Manifest) -> Result<Option<Manifest>> {
        let newest = self.newest_full_or_untrusted(&manifest.source)?.map(|(newest, _)| newest);
        Ok(newest.filter(|newest| !newest.is_of_same_database(manifest)))
    }

    /// Fails with [`Kind::Usage`] if a snapshot cannot be copied into this store, because another database has the name
    /// of its source there.
    pub(crate) fn require_same_database(&self, manifest: &Manifest) -> Result<()> {
        if Rivals::of(manifest) == Rivals::Ignore {
            return Ok(());
        }
        match self.other_database(manifest)? {
            Some(other) => Err(Error::usage(format!(
                "{} has a source {} from {}",
                one_line(&self.location()),
                manifest.source,
                other.origin
            ))
            .hint(SEPARATE_STORE)),
            None => Ok(()),
        }
    }

    /// Fails with [`Kind::Usage`] if the newest full snapshot of the source is of another database. Returns the ids of
    /// the source's snapshots.
    pub(super) fn require_no_rival(&self, manifest: &Manifest) -> Result<BTreeSet<SnapshotId>> {
        let there = self.ids_since(manifest)?;
        match self.other_database(manifest)? {
            Some(rival) => Err(name_is_taken(&manifest.source, &rival.origin)),
            None => Ok(there),
        }
    }

    /// Looks for snapshots of another database that have appeared since `before`, which
    /// [`require_no_rival`](Self::require_no_rival) has returned. Fails if the snapshot of `manifest`, which was just
    /// written, must be withdrawn. Other errors are logged only, since the snapshot is complete.
    pub(super) fn settle_rivals(&self, manifest: &Manifest, before: &BTreeSet<SnapshotId>) -> Result<()> {
        let start = Instant::now();
        loop {
            let rivals = match self.rivals(manifest, before) {
                Ok(rivals) => rivals,
                Err(error) => {
                    let id = &manifest.id;
                    tracing::warn!("cannot check for another database with the name of {id}: {}", error.full_message());
                    return Ok(());
                }
            };
            let Some(rival) = rivals.first() else { return Ok(()) };
            let is_first = rivals.iter().all(|rival| order(manifest) < order(rival));
            if !is_first || start.elapsed() >= LONGEST_WAIT {
                return Err(name_is_taken(&manifest.source, &rival.origin));
            }
            tracing::debug!("waiting for {} to be withdrawn", rival.id);
            interrupt::sleep(PAUSE)?;
        }
    }

    /// Returns the manifests of the full snapshots of other databases that have appeared since `before`.
    fn rivals(&self, manifest: &Manifest, before: &BTreeSet<SnapshotId>) -> Result<Vec<Manifest>> {
        let mut rivals = Vec::new();
        for id in self.ids_since(manifest)?.difference(before).filter(|id| **id != manifest.id) {
            match self.manifest_as_stored(id) {
                Ok((other, _)) if other.kind == SnapshotKind::Full && !other.is_of_same_database(manifest) => {
                    rivals.push(other);
                }
                Ok(_) => {}
                // It was withdrawn, or it is no snapshot that this version can read.
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Problem | Kind::Usage) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rivals)
    }

    /// Returns the ids of the snapshots of the source that another process can be publishing at this moment, among
    /// others.
    fn ids_since(&self, manifest: &Manifest) -> Result<BTreeSet<SnapshotId>> {
        // A copy of an old snapshot meets copies of any age.
        let is_copy = Utc::now() - manifest.created_at > LONGEST_UPLOAD;
        let oldest = manifest.created_at.checked_sub_signed(LONGEST_UPLOAD).filter(|_| !is_copy && !self.is_local());
        let start = oldest.map(|oldest| first_name(&manifest.source, oldest));
        let names = start.as_deref().map_or(Names::All, |start| Names::Between(start, None));
        let objects = self.store.list(manifest.source.as_str(), names)?.objects;
        let id = |name: &str| {
            let id_bytes = manifest.source.as_str().len() + 1 + STAMP_BYTES;
            let (id, ending) = name.split_at_checked(id_bytes)?;
            id.parse::<SnapshotId>().ok().filter(|_| ending == ".json")
        };
        Ok(objects.iter().filter_map(|object| id(object.key.name())).collect())
    }
}

fn order(manifest: &Manifest) -> (DateTime<Utc>, &SnapshotId) {
    (manifest.created_at, &manifest.id)
}
