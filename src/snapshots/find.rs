//! Finds the snapshot that a user means: by its id, by the start of it, or the newest one.

use chrono::{DateTime, Utc};

use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::snapshots::catalog::{CLOCK_SLACK, Catalog, Listed, time_of};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::{Described, Grouped, in_parallel};
use crate::snapshots::manifest::{Manifest, Origin, SnapshotKind};
use crate::snapshots::search::{Flaw, MOST_UNTRUSTED, SnapshotFilter};
use crate::snapshots::trust::Trust;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::Names;

/// The word for the newest snapshot of a source that can be restored.
pub(crate) const LATEST: &str = "latest";

/// The number of manifests in an archive tier after which the search for a readable one ends.
const MOST_ARCHIVED: u32 = 3;
/// The number of the newest snapshots of another source that are read to find out whether it is the same database.
const MOST_OF_OTHERS: usize = 8;

/// The most manifests that are read to find an earlier full snapshot.
const MOST_READ: usize = 16;

/// The snapshot that a user names.
#[derive(Clone, Debug)]
pub enum Named {
    /// One with a manifest.
    Snapshot(Listed),
    /// An archive that has no manifest.
    WithoutManifest(ArchiveWithoutManifest),
}

impl Named {
    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> &SnapshotId {
        match self {
            Named::Snapshot(listed) => &listed.id,
            Named::WithoutManifest(archive) => &archive.id,
        }
    }

    /// Returns the time by which the order of snapshots is decided. See [`time_of`].
    pub(crate) fn time(&self) -> DateTime<Utc> {
        match self {
            Named::Snapshot(listed) => listed.time(),
            Named::WithoutManifest(archive) => time_of(&archive.id, Some(&archive.archive)),
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
        if wanted == LATEST {
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
        Ok((listed, self.only_without_manifest(without_manifest)?))
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
                .hint("name one with --source")
                .choices(names.into_iter().map(str::to_owned).collect()));
        }
        sources.pop().ok_or_else(|| {
            Error::not_found(format!("there is no snapshot in {}", one_line(&self.location())))
                .hint("take one with 'lifeboat snapshot'")
        })
    }

    /// Returns the newest full snapshots of the database at `origin` under other names than `name`, without their tables,
    /// at most [`MOST_OF_OTHERS`] of each name: the source was renamed. Lists the names, and reads one manifest of each that is of
    /// another database.
    pub(crate) fn under_other_names(&self, name: &SourceName, origin: &Origin) -> Result<Vec<(Listed, Manifest)>> {
        let others = self.sources()?.into_iter().filter(|other| other != name).collect();
        let of_one = |other: SourceName| -> Result<Vec<(Listed, Manifest)>> {
            let mut found = Vec::new();
            for listed in self.newest_first(&other, None).take(MOST_OF_OTHERS) {
                let listed = listed?;
                match self.manifest_without_tables(&listed) {
                    Ok((manifest, _)) if manifest.kind != SnapshotKind::Full => {}
                    Ok((manifest, _)) if manifest.origin != *origin => break,
                    Ok((manifest, _)) => found.push((listed, manifest)),
                    Err(error) if error.kind == Kind::Interrupted => return Err(error),
                    Err(error) if error.kind == Kind::Unreachable && error.reason.is_none() && !self.is_local() => {
                        return Err(error);
                    }
                    Err(error) => tracing::debug!("{} is passed over: {}", listed.id, error.full_message()),
                }
            }
            Ok(found)
        };
        Ok(in_parallel(others, of_one)?.into_iter().flatten().collect())
    }

    fn latest(&self, filter: &SnapshotFilter) -> Result<Listed> {
        let source = match &filter.source {
            Some(source) => source.clone(),
            None => self.only_source()?,
        };
        let search = self.search(&source, filter, &|_, _| Ok(None))?;
        let (mut newer, mut skipped, mut distrusted) = (None, None, None);
        for passed_over in search.passed_over {
            // A snapshot of another kind is not meant to be the latest.
            if matches!(passed_over.flaw, Flaw::Kind(_)) {
                continue;
            }
            tracing::warn!("skipping {}: {}", passed_over.listed.id, passed_over.flaw.message());
            match passed_over.flaw {
                Flaw::Unreadable(error) => newer = newer.or_else(|| error.is_newer_format().then_some(error)),
                Flaw::Tag(tag) => skipped = Some(tag),
                Flaw::Untrusted(error) => distrusted = distrusted.or(Some(error)),
                _ => {}
            }
        }
        if let Some((listed, _)) = search.found {
            return Ok(listed);
        }
        if let Some(error) = distrusted {
            let location = self.location();
            return Err(
                error.context(format!("{} has no other snapshot of {source} that matches", one_line(&location)))
            );
        }
        if let Some(error) = newer {
            let location = self.location();
            return Err(
                error.context(format!("{} has no other snapshot of {source} that matches", one_line(&location)))
            );
        }
        if !self.sources()?.contains(&source) {
            self.require_source(&source)?;
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

    /// Returns the newest snapshot of a source, good or bad. Passes over safety and partial snapshots, which are not
    /// steps in the source's history, and over those that are dated in the future.
    pub fn newest_in_history(&self, source: &SourceName) -> Result<Option<Described>> {
        let now = Utc::now();
        for listed in self.newest_first(source, None) {
            let listed = listed?;
            if listed.id.time() > now + CLOCK_SLACK {
                continue;
            }
            let Some(described) = self.describe(vec![listed])?.pop() else { continue };
            let is_beside = |manifest: &Manifest| matches!(manifest.kind, SnapshotKind::Safety | SnapshotKind::Partial);
            if !described.manifest.as_ref().is_ok_and(is_beside) {
                return Ok(Some(described));
            }
        }
        Ok(None)
    }

    /// Returns the full snapshot before this one, and the oldest one of its source, if they are among the first few that
    /// can be read from there.
    pub fn earlier(&self, manifest: &Manifest) -> Result<Vec<Manifest>> {
        let is_earlier = |id: &SnapshotId| id.stamp() < manifest.id.stamp();
        let read = |id: &SnapshotId| match self.manifest(id) {
            Ok((manifest, _)) => Ok(Some(manifest).filter(|manifest| manifest.kind == SnapshotKind::Full)),
            Err(error) if matches!(error.kind, Kind::Interrupted | Kind::Unreachable) => Err(error),
            Err(_) => Ok(None),
        };
        let mut earlier = Vec::new();
        for listed in self.newest_first(&manifest.source, Some(manifest.created_at)).take(MOST_READ) {
            let id = listed?.id;
            if is_earlier(&id)
                && let Some(before) = read(&id)?
            {
                earlier.push(before);
                break;
            }
        }
        for id in self.ids_with_manifest(&manifest.source)?.iter().filter(|id| is_earlier(id)).take(MOST_READ) {
            if earlier.iter().any(|before| before.id == *id) {
                break;
            }
            if let Some(oldest) = read(id)? {
                earlier.push(oldest);
                break;
            }
        }
        Ok(earlier)
    }

    /// Returns the newest readable and trusted manifest of a full snapshot of `source`, damaged or not; `None` if there is
    /// none.
    pub fn newest_full(&self, source: &SourceName) -> Result<Option<Manifest>> {
        Ok(self.newest_full_by(source, &self.trust)?.0)
    }

    /// Does the same as [`newest_full`](Self::newest_full), but returns the newest manifest that is not trusted if there is
    /// no other: to find out which database has the name of a source. Of the rules of trust, those count that need no
    /// listing.
    /// Also returns true if it is trusted by them.
    pub fn newest_full_or_untrusted(&self, source: &SourceName) -> Result<Option<(Manifest, bool)>> {
        let (trusted, untrusted) = self.newest_full_by(source, &self.trust.clone().without_history())?;
        let trusted = trusted.map(|manifest| (manifest, true));
        Ok(trusted.or_else(|| untrusted.map(|manifest| (manifest, false))))
    }

    /// Returns the newest full manifest that is trusted, and the newest that is not, if it is newer.
    fn newest_full_by(&self, source: &SourceName, trust: &Trust) -> Result<(Option<Manifest>, Option<Manifest>)> {
        let (mut archived, mut distrusted, mut untrusted) = (0, 0, None);
        for listed in self.newest_first(source, None) {
            let read = self.manifest_as_stored(&listed?.id);
            let checked =
                read.and_then(|(manifest, document)| match self.require_trusted_by(trust, &manifest, &document) {
                    Err(error) if error.is_not_trusted() => {
                        if manifest.kind == SnapshotKind::Full {
                            untrusted.get_or_insert(manifest);
                        }
                        Err(error)
                    }
                    checked => checked.map(|()| manifest),
                });
            match checked {
                Ok(manifest) if manifest.kind == SnapshotKind::Full => return Ok((Some(manifest), untrusted)),
                Err(error) if error.is_not_trusted() => {
                    distrusted += 1;
                    if distrusted == MOST_UNTRUSTED {
                        break;
                    }
                }
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                // Older ones were probably moved too: trying all of them would cost a request each.
                Err(error) if error.reason == Some(Reason::ObjectIsArchived) => {
                    archived += 1;
                    if archived == MOST_ARCHIVED {
                        tracing::warn!("the newest snapshots of {source} cannot be compared: {}", error.full_message());
                        return Ok((None, untrusted));
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
        Ok((None, untrusted))
    }
}
