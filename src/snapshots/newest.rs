//! Lists the snapshots of a source from the newest on, and lists no more than the caller takes. A remote store is
//! listed in steps: the last hour first, then the last day, and so on.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use crate::platform::error::Result;
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::find::Named;
use crate::snapshots::id::SourceName;
use crate::snapshots::names::first_name;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::Names;

/// The periods, in hours, that are listed step by step for the newest snapshots; the last step has no limit.
const STEPS_HOURS: [i64; 5] = [1, 24, 8 * 24, 64 * 24, 512 * 24];

impl Catalog {
    /// Iterates over the snapshots of one source, newest first. The store is listed only as far as the caller takes
    /// them. With `before`, only snapshots up to and including its second.
    pub(super) fn newest_first(&self, source: &SourceName, before: Option<DateTime<Utc>>) -> NewestFirst<'_> {
        let mut starts: Vec<Option<String>> = vec![None];
        if !self.store.is_local() {
            let newest = before.unwrap_or_else(Utc::now);
            let start = |hours: &i64| {
                let start = newest.checked_sub_signed(chrono::Duration::hours(*hours));
                start.map(|start| first_name(source, start))
            };
            starts.extend(STEPS_HOURS.iter().rev().map(start).filter(Option::is_some));
        }
        let second = chrono::Duration::seconds(1);
        let until = before.and_then(|before| before.checked_add_signed(second)).map(|end| first_name(source, end));
        let found = Vec::new().into_iter();
        NewestFirst { catalog: self, source: source.clone(), starts, until, found, without_manifest: Vec::new() }
    }
}

impl Catalog {
    /// Iterates over the snapshots of one source and the archives without a manifest, newest first. The store is listed
    /// only as far as the caller takes them.
    pub(crate) fn newest_data(&self, source: &SourceName) -> NewestData<'_> {
        NewestData { snapshots: self.newest_first(source, None), next: None, archives: VecDeque::new() }
    }
}

/// See [`Catalog::newest_data`].
pub(crate) struct NewestData<'a> {
    snapshots: NewestFirst<'a>,
    /// The next snapshot.
    next: Option<Listed>,
    /// The archives without a manifest in the listings made so far, newest first.
    archives: VecDeque<ArchiveWithoutManifest>,
}

impl Iterator for NewestData<'_> {
    type Item = Result<Named>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next.is_none() {
            self.next = match self.snapshots.next().transpose() {
                Ok(next) => next,
                Err(error) => return Some(Err(error)),
            };
            self.archives.extend(self.snapshots.take_without_manifest());
        }
        let is_newer = |archive: &ArchiveWithoutManifest| {
            self.next.as_ref().is_none_or(|next| next.id.stamp() < archive.id.stamp())
        };
        if self.archives.front().is_some_and(is_newer) {
            return self.archives.pop_front().map(|archive| Ok(Named::WithoutManifest(archive)));
        }
        self.next.take().map(|listed| Ok(Named::Snapshot(listed)))
    }
}

/// See [`Catalog::newest_first`].
pub(super) struct NewestFirst<'a> {
    catalog: &'a Catalog,
    source: SourceName,
    /// The start names of the remaining listings, the next one last; `None` is the start of the folder.
    starts: Vec<Option<String>>,
    /// The start name of the previous listing, or the end set by `before`.
    until: Option<String>,
    found: std::vec::IntoIter<Listed>,
    /// The archives whose manifest was not in the listings made so far.
    without_manifest: Vec<ArchiveWithoutManifest>,
}

impl NewestFirst<'_> {
    /// Takes the archives whose manifest was not in the listings made so far.
    pub(super) fn take_without_manifest(&mut self) -> Vec<ArchiveWithoutManifest> {
        std::mem::take(&mut self.without_manifest)
    }

    /// Returns true if everything was listed and taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.starts.is_empty() && self.found.as_slice().is_empty()
    }
}

impl Iterator for NewestFirst<'_> {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(listed) = self.found.next() {
                return Some(Ok(listed));
            }
            let start = self.starts.pop()?;
            let names = match (&start, &self.until) {
                (None, None) => Names::All,
                (start, until) => Names::Between(start.as_deref().unwrap_or(""), until.as_deref()),
            };
            match self.catalog.list_grouped(&self.source, names) {
                Ok((found, without_manifest)) => {
                    self.found = found.into_iter();
                    self.without_manifest.extend(without_manifest);
                }
                Err(error) => {
                    self.starts.clear();
                    return Some(Err(error));
                }
            }
            self.until = start;
        }
    }
}
