//! The check for archives without a manifest: nobody restores them by `latest`, and no retention counts them.

use std::time::{Duration, SystemTime};

use crate::ops::checks::Checks;
use crate::platform::error::{Result, one_line};
use crate::platform::interrupt;
use crate::platform::shell::quote_word;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// The age from which an archive of a local store does not belong to a snapshot that is being published. There, the
/// manifest follows at once.
const LOCAL_AGE: Duration = Duration::from_secs(60);
/// The maximum time to wait for a manifest that may follow.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The pause between two attempts to find it.
const PAUSE: Duration = Duration::from_millis(50);

/// Adds a check if a source has archives without a manifest, which are given newest first. It fails if one of them is
/// newer than `newest`, the newest snapshot of the source; otherwise it is only a remark. `is_settled` returns true for an
/// archive that does not belong to a snapshot that is being published.
pub(crate) fn check_archives(
    location: &str,
    name: &SourceName,
    archives: &[ArchiveWithoutManifest],
    newest: Option<&SnapshotId>,
    is_settled: impl FnOnce(&ArchiveWithoutManifest) -> bool,
    checks: &mut Checks,
) {
    let Some(first) = archives.first() else { return };
    let is_newest = newest.is_none_or(|newest| newest.stamp() < first.id.stamp());
    let (id, count, store) = (&first.id, archives.len(), quote_word(location));
    let which = if is_newest { ", and is the newest data of the source" } else { "" };
    let message = format!(
        "{count} without a manifest in {}; the newest is {id}{which}: 'lifeboat copy {id} --from {store} --to {store}' \
         writes its manifest again",
        one_line(location)
    );
    checks.add(format!("{name}: archives"), !(is_newest && is_settled(first)), message);
}

/// Returns true if an archive is too old to belong to a snapshot that is being published.
pub(crate) fn is_settled(archive: &ArchiveWithoutManifest, is_local: bool) -> bool {
    let age = SystemTime::now().duration_since(archive.archive.modified);
    archive.is_old() || (is_local && age.is_ok_and(|age| age > LOCAL_AGE))
}

/// Waits a little for the manifests of archives that may be about to get one, and returns the others.
pub(crate) fn wait_for_manifests(
    catalog: &Catalog,
    mut archives: Vec<ArchiveWithoutManifest>,
) -> Result<Vec<ArchiveWithoutManifest>> {
    let start = std::time::Instant::now();
    loop {
        let mut lacking = Vec::new();
        for archive in archives {
            if is_settled(&archive, catalog.is_local()) || !catalog.has(&archive.id)? {
                lacking.push(archive);
            }
        }
        if start.elapsed() >= LONGEST_WAIT || lacking.iter().all(|found| is_settled(found, catalog.is_local())) {
            return Ok(lacking);
        }
        archives = lacking;
        interrupt::sleep(PAUSE)?;
    }
}
