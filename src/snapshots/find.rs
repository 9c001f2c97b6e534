//! Finds the snapshot that a user means: by its id, by the start of it, or the newest one.

use chrono::{DateTime, Utc};

use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::snapshots::catalog::{CLOCK_SLACK, Catalog, Listed};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::Grouped;
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::Names;

/// The number of manifests in an archive tier after which the search for a readable one ends.
const MOST_ARCHIVED: u32 = 3;

/// The conditions that a snapshot must meet to be `latest`.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFilter {
    /// Only snapshots of this source.
    pub source: Option<SourceName>,
    /// Only snapshots with all of these tags.
    pub tags: Vec<String>,
    /// Only snapshots without this tag.
    pub without: Option<String>,
    /// Only snapshots taken before this time.
    pub before: Option<DateTime<Utc>>,
}

/// The snapshot that a user names.
#[derive(Clone, Debug)]
pub enum Named {
    /// One with a manifest.
    Snapshot(Listed),
    /// An archive that has no manifest.
    WithoutManifest(ArchiveWithoutManifest),
}

impl Named {
    fn id(&self) -> &SnapshotId {
        match self {
            Named::Snapshot(listed) => &listed.id,
            Named::WithoutManifest(archive) => &archive.id,
        }
    }
}

impl Catalog {
    /// Finds the snapshot that a user names by its id, a unique prefix of its id, or `latest`. An archive without a
    /// manifest is not found; see [`find_named`](Self::find_named).
    pub fn find(&self, wanted: &str, filter: &SnapshotFilter) -> Result<Listed> {
        match self.find_named(wanted, filter)? {
            Named::Snapshot(listed) => Ok(listed),
            Named::WithoutManifest(archive) => {
                let (id, location) = (&archive.id, one_line(&self.location()));
                Err(Error::not_found(format!("{id} in {location} is an archive without a manifest")).hint(format!(
                    "'lifeboat copy {id} --from STORE --to STORE' with this store as both reads the archive, and writes \
                     its manifest again"
                )))
            }
        }
    }

    /// Finds the snapshot that a user names by its id, a unique prefix of its id, or `latest`, or the archive without a
    /// manifest that has this id.
    pub fn find_named(&self, wanted: &str, filter: &SnapshotFilter) -> Result<Named> {
        if wanted == "latest" {
            return self.latest(filter).map(Named::Snapshot);
        }
        if !filter.tags.is_empty() || filter.before.is_some() {
            return Err(
                Error::usage("--tag and --before cannot be used with a snapshot id").hint("use them with 'latest'")
            );
        }
        self.by_prefix(wanted, filter)
    }

    fn by_prefix(&self, wanted: &str, filter: &SnapshotFilter) -> Result<Named> {
        if wanted.is_empty() {
            return Err(Error::usage("the snapshot argument is empty: give an id, the start of one, or 'latest'"));
        }
        let (listed, without_manifest) = self.matching(wanted, filter.source.as_ref())?;
        let named = listed.into_iter().map(Named::Snapshot);
        let mut found: Vec<Named> = named.chain(without_manifest.into_iter().map(Named::WithoutManifest)).collect();
        let is_exact = |named: &Named| named.id().to_string() == wanted;
        if found.iter().any(is_exact) {
            found.retain(is_exact);
        }
        match found.len() {
            0 => Err(Error::not_found(format!(
                "there is no snapshot {} in {}",
                one_line(wanted),
                one_line(&self.location())
            ))
            .hint("run 'lifeboat list' to see the snapshots")),
            1 => Ok(found.swap_remove(0)),
            count if found.iter().all(is_exact) => {
                Err(Error::usage(format!("{} has {count} archives, and no manifest", one_line(wanted)))
                    .hint("give the path of one of them"))
            }
            count => {
                let some: Vec<String> = found.iter().take(3).map(|named| named.id().to_string()).collect();
                Err(Error::usage(format!("'{}' is the start of {count} snapshot ids", one_line(wanted))).hint(format!(
                    "give more characters of the id: {}{}",
                    some.join(", "),
                    if count > 3 { ", ..." } else { "" }
                )))
            }
        }
    }

    /// Returns the snapshots, and the archives without a manifest, whose ids begin with `wanted`.
    pub(super) fn matching(&self, wanted: &str, only: Option<&SourceName>) -> Result<Grouped> {
        let could_be = |source: &SourceName| {
            let start = format!("{source}-");
            start.starts_with(wanted) || wanted.starts_with(&start)
        };
        let (mut listed, mut without_manifest) = (Vec::new(), Vec::new());
        for source in self.sources()?.iter().filter(|source| could_be(source)) {
            if only.is_none_or(|only| only == source) {
                let found = self.list_grouped(source, Names::StartingWith(wanted))?;
                listed.extend(found.0);
                without_manifest.extend(found.1);
            }
        }
        Ok((listed, without_manifest))
    }

    /// Returns the source of a store that has snapshots of one source only.
    fn only_source(&self) -> Result<SourceName> {
        let mut sources = self.sources()?;
        if sources.len() > 1 {
            // A folder without a snapshot (empty, or with data of a crashed writer) is not a source.
            let mut with_snapshots = Vec::new();
            for source in sources {
                if self.newest_first(&source, None).next().transpose()?.is_some() {
                    with_snapshots.push(source);
                }
            }
            sources = with_snapshots;
        }
        if sources.len() > 1 {
            let names: Vec<&str> = sources.iter().map(SourceName::as_str).collect();
            return Err(Error::usage(format!("the store has snapshots of several sources: {}", names.join(", ")))
                .hint("name one with --source"));
        }
        sources.pop().ok_or_else(|| {
            Error::not_found(format!("there is no snapshot in {}", one_line(&self.location())))
                .hint("take one with 'lifeboat snapshot'")
        })
    }

    fn latest(&self, filter: &SnapshotFilter) -> Result<Listed> {
        let source = match &filter.source {
            Some(source) => source.clone(),
            None => self.only_source()?,
        };
        let now = Utc::now();
        let (mut newer, mut skipped) = (None, None);
        for listed in self.newest_first(&source, filter.before) {
            let listed = listed?;
            // The listing includes the second of `before`.
            if filter.before.is_some_and(|before| listed.id.time() >= before) {
                continue;
            }
            if listed.id.time() > now + CLOCK_SLACK {
                tracing::warn!("skipping {}: it is dated in the future, so a clock was or is wrong", listed.id);
                continue;
            }
            // One at a time: nearly always the first one matches.
            let Some(described) = self.describe(vec![listed])?.pop() else { continue };
            if described.proof.level == ProofLevel::Damaged {
                tracing::warn!("skipping {}: it is damaged", described.listed.id);
                continue;
            }
            let manifest = match described.manifest {
                Ok(manifest) => manifest,
                Err(error) if error.kind != Kind::Problem && !error.is_newer_format() && !self.is_local() => {
                    let id = &described.listed.id;
                    return Err(error.context(format!("cannot determine whether {id} is the latest snapshot")));
                }
                Err(error) => {
                    tracing::warn!("skipping {}: {}", described.listed.id, error.full_message());
                    newer = newer.or_else(|| error.is_newer_format().then_some(error));
                    continue;
                }
            };
            let matches = manifest.kind == SnapshotKind::Full
                && filter.tags.iter().all(|tag| manifest.tags.contains(tag))
                && filter.before.is_none_or(|before| manifest.created_at < before);
            match filter.without.as_ref().filter(|tag| manifest.tags.contains(tag)) {
                Some(tag) if matches => {
                    tracing::warn!("skipping {}: it has the tag '{tag}'", described.listed.id);
                    skipped = Some(tag.clone());
                }
                None if matches => return Ok(described.listed),
                _ => {}
            }
        }
        if let Some(error) = newer {
            let location = self.location();
            return Err(
                error.context(format!("{} has no other snapshot of {source} that matches", one_line(&location)))
            );
        }
        let error = Error::not_found(format!(
            "no full, undamaged snapshot of {source} in {} matches the request",
            one_line(&self.location())
        ));
        Err(match skipped {
            Some(tag) => error.hint(format!("name one by its id, or use --tag {tag}: all others have this tag")),
            None => error.hint("run 'lifeboat list' to see the snapshots"),
        })
    }

    /// Returns the newest readable manifest of a full snapshot of `source`, damaged or not; `None` if there is none.
    pub fn newest_full(&self, source: &SourceName) -> Result<Option<Manifest>> {
        let mut archived = 0;
        for listed in self.newest_first(source, None) {
            match self.manifest(&listed?.id) {
                Ok((manifest, _)) if manifest.kind == SnapshotKind::Full => return Ok(Some(manifest)),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                // Older ones were probably moved too: trying all of them would cost a request each.
                Err(error) if error.reason == Some(Reason::ObjectIsArchived) => {
                    archived += 1;
                    if archived == MOST_ARCHIVED {
                        tracing::warn!("the newest snapshots of {source} cannot be compared: {}", error.full_message());
                        return Ok(None);
                    }
                }
                Err(error) if error.is_newer_format() => {
                    tracing::warn!("not compared with the new snapshot: {}", error.full_message());
                }
                // In a local store, skip one unreadable file. In a remote store, the whole service is unreachable.
                Err(error) if error.kind == Kind::Unreachable && !self.is_local() => return Err(error),
                Err(error) if error.kind == Kind::Unreachable => tracing::warn!("{}", error.full_message()),
                _ => {}
            }
        }
        if archived > 0 {
            tracing::warn!("no snapshot of {source} can be compared: all manifests are in an archive tier");
        }
        Ok(None)
    }
}
