//! Searches for the newest snapshot of a source that meets conditions, and names the newer ones that it passes over.

use chrono::{DateTime, Utc};

use crate::platform::error::{Error, Kind, Result};
use crate::platform::text;
use crate::snapshots::catalog::{CLOCK_SLACK, Catalog, Listed};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

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

/// The reason why a snapshot is passed over.
#[derive(Debug)]
pub enum Flaw {
    /// It is dated in the future.
    Future,
    /// It was dated in the future when the store received it at this time. Since then, an older id has newer data.
    WasFuture(DateTime<Utc>),
    /// A test has found that it is damaged.
    Damaged,
    /// Its manifest cannot be read: it is damaged, or was made by a newer version.
    Unreadable(Error),
    /// It is not trusted.
    Untrusted(Error),
    /// It has the tag that it must not have.
    Tag(String),
    /// It is not a full snapshot.
    Kind(SnapshotKind),
    /// The caller refuses it.
    Refused(Error),
}

impl Flaw {
    /// Returns the reason as a text that follows the snapshot's id and a colon.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Flaw::Future => "it is dated in the future, so a clock was or is wrong".to_owned(),
            Flaw::WasFuture(received) => format!(
                "it was dated in the future, so a clock was wrong: the store has it since {}",
                text::time(*received)
            ),
            Flaw::Damaged => "it is damaged".to_owned(),
            Flaw::Unreadable(error) | Flaw::Untrusted(error) | Flaw::Refused(error) => error.full_message(),
            Flaw::Tag(tag) => format!("it has the tag '{tag}'"),
            Flaw::Kind(kind) => format!("it is of the kind '{}'", kind.name()),
        }
    }
}

/// A snapshot that is passed over, although it is newer than the one that was found.
#[derive(Debug)]
pub struct PassedOver {
    /// The snapshot.
    pub listed: Listed,
    /// The reason.
    pub flaw: Flaw,
}

/// The result of a search.
#[derive(Debug)]
pub struct Search {
    /// The newest snapshot that meets the conditions, and its manifest without the tables.
    pub found: Option<(Listed, Manifest)>,
    /// The newer ones, newest first. Those whose tags or times do not match the filter are left out.
    pub passed_over: Vec<PassedOver>,
    /// The number of snapshots between the newest suspect ones and the good one that they were compared with, which were
    /// not read.
    pub skipped: usize,
    /// The archives without a manifest that are newer than the snapshot that was found, newest first.
    pub without_manifest: Vec<ArchiveWithoutManifest>,
}

impl Catalog {
    /// Finds the newest full, undamaged snapshot that matches the filter and that `refuse` does not refuse. One that was
    /// dated in the future when it was stored is as old as the store says.
    pub fn search(
        &self,
        source: &SourceName,
        filter: &SnapshotFilter,
        refuse: &dyn Fn(&Listed, &Manifest) -> Result<Option<Error>>,
    ) -> Result<Search> {
        let now = Utc::now();
        let mut search = Search { found: None, passed_over: Vec::new(), skipped: 0, without_manifest: Vec::new() };
        let mut newest_first = self.newest_first(source, filter.before);
        let (mut suspects, mut untrusted) = (Suspects::default(), 0);
        for listed in newest_first.by_ref() {
            let listed = listed?;
            // The listing includes the second of `before`.
            if filter.before.is_some_and(|before| listed.id.time() >= before) {
                continue;
            }
            if search.found.as_ref().is_some_and(|(found, _)| found.time() >= listed.id.time()) {
                break;
            }
            if listed.id.time() > now + CLOCK_SLACK {
                search.passed_over.push(PassedOver { listed, flaw: Flaw::Future });
                continue;
            }
            if suspects.skip(&listed.id) {
                search.skipped += 1;
                continue;
            }
            match self.judge(listed, filter, refuse)? {
                Judged::Ignored => {}
                Judged::Flawed(PassedOver { listed, flaw }, manifest) => {
                    if let (Flaw::Tag(_), Some(manifest)) = (&flaw, manifest) {
                        suspects.add(&manifest);
                    }
                    untrusted += usize::from(matches!(flaw, Flaw::Untrusted(_)));
                    search.passed_over.push(PassedOver { listed, flaw });
                    if untrusted == MOST_UNTRUSTED {
                        break;
                    }
                }
                Judged::Good(listed, manifest) => {
                    if search.take(listed, *manifest) {
                        break;
                    }
                }
            }
        }
        search.without_manifest = newest_first.take_without_manifest();
        search.finish();
        Ok(search)
    }

    /// Compares one snapshot with the conditions of a search.
    fn judge(
        &self,
        listed: Listed,
        filter: &SnapshotFilter,
        refuse: &dyn Fn(&Listed, &Manifest) -> Result<Option<Error>>,
    ) -> Result<Judged> {
        // One at a time: nearly always the first one matches.
        let Some(described) = self.describe_as_stored(vec![listed])?.pop() else { return Ok(Judged::Ignored) };
        let distrust = described.distrust;
        let listed = described.listed;
        let matches = |manifest: &Manifest| {
            filter.tags.iter().all(|tag| manifest.tags.contains(tag))
                && filter.before.is_none_or(|before| manifest.created_at < before)
        };
        if let (Some(error), Ok(manifest)) = (distrust, &described.manifest) {
            return Ok(match matches(manifest) {
                true => Judged::Flawed(PassedOver { listed, flaw: Flaw::Untrusted(error) }, None),
                false => Judged::Ignored,
            });
        }
        if described.proof.level == ProofLevel::Damaged {
            return Ok(Judged::Flawed(PassedOver { listed, flaw: Flaw::Damaged }, None));
        }
        let manifest = match described.manifest {
            Ok(manifest) => manifest,
            Err(error) if error.kind != Kind::Problem && !error.is_newer_format() && !self.is_local() => {
                let id = &listed.id;
                return Err(error.context(format!("cannot determine whether {id} is the latest snapshot")));
            }
            Err(error) => return Ok(Judged::Flawed(PassedOver { listed, flaw: Flaw::Unreadable(error) }, None)),
        };
        if !matches(&manifest) {
            return Ok(Judged::Ignored);
        }
        let flaw = match filter.without.as_ref().filter(|tag| manifest.tags.contains(tag)) {
            _ if manifest.kind != SnapshotKind::Full => Some(Flaw::Kind(manifest.kind)),
            Some(tag) => Some(Flaw::Tag(tag.clone())),
            None => refuse(&listed, &manifest)?.map(Flaw::Refused),
        };
        Ok(match flaw {
            Some(flaw) => Judged::Flawed(PassedOver { listed, flaw }, Some(Box::new(manifest))),
            None => Judged::Good(listed, Box::new(manifest)),
        })
    }
}

/// The result of the comparison of a snapshot with the conditions of a search.
enum Judged {
    /// It was deleted meanwhile, or its tags or its time do not match the filter.
    Ignored,
    /// It is passed over. Its manifest, if it can be read.
    Flawed(PassedOver, Option<Box<Manifest>>),
    /// It meets the conditions.
    Good(Listed, Box<Manifest>),
}

impl Search {
    /// Takes a snapshot that meets the conditions, if it is newer than the one that was found before. Returns true if no
    /// other one can be newer.
    fn take(&mut self, listed: Listed, manifest: Manifest) -> bool {
        let is_newer = self.found.as_ref().is_none_or(|(found, _)| found.time() < listed.time());
        let is_certain = listed.time() == listed.id.time();
        if is_newer && let Some((future, _)) = self.found.replace((listed, manifest)) {
            let flaw = Flaw::WasFuture(future.time());
            self.passed_over.push(PassedOver { listed: future, flaw });
        }
        is_certain
    }

    /// Leaves only what is newer than the snapshot that was found, newest first.
    fn finish(&mut self) {
        if let Some((found, _)) = &self.found {
            self.passed_over.retain(|passed_over| passed_over.listed.id.stamp() > found.id.stamp());
            self.without_manifest.retain(|archive| archive.id.stamp() > found.id.stamp());
        }
        self.passed_over.sort_by(|a, b| b.listed.id.stamp().cmp(a.listed.id.stamp()));
        self.without_manifest.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
    }
}

/// The suspect snapshots that were read in a search. A program that fails again and again may leave any number of them;
/// each names the good snapshot that it was compared with, so that those between need not be read.
#[derive(Default)]
pub(crate) struct Suspects {
    count: usize,
    /// The good snapshot that the last one was compared with.
    compared_with: Option<SnapshotId>,
}

/// The number of snapshots that are not trusted after which a search ends: anybody may have put any number of them there.
pub(super) const MOST_UNTRUSTED: usize = 64;

/// The number of suspect snapshots that are read before others are skipped.
const MOST_SUSPECTS: usize = 32;

impl Suspects {
    /// Notes a suspect snapshot.
    pub(crate) fn add(&mut self, manifest: &Manifest) {
        self.count += 1;
        self.compared_with = manifest.compared_with.as_ref().map(|compared| compared.id.clone());
    }

    /// Returns true if the next older snapshot lies between the suspect ones and the good one.
    pub(crate) fn skip(&self, id: &SnapshotId) -> bool {
        self.count >= MOST_SUSPECTS && self.compared_with.as_ref().is_some_and(|compared| compared.stamp() < id.stamp())
    }
}
