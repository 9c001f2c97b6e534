//! The destination of a snapshot: the stores that it is written to, and the keys that it is encrypted to.

use std::path::Path;

use chrono::{DateTime, Utc};

use crate::archive::EncryptWith;
use crate::ops::origin::only_host_differs;
use crate::ops::tags::SUSPECT;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, Origin};
use crate::snapshots::rivals::name_is_taken;

/// The stores that a snapshot is written to, and the keys that it is encrypted to.
#[derive(Clone)]
pub(crate) struct Destination<'a> {
    /// The stores.
    pub(crate) catalogs: Vec<&'a Catalog>,
    /// The keys that can open the archive; `None` if the archive is not encrypted.
    pub(crate) encrypt_with: Option<EncryptWith>,
    /// The newest full snapshot of the source that is trusted, once [`previous`](Self::previous) has found it.
    pub(crate) predecessor: Option<SnapshotId>,
}

/// The treatment of a source whose earlier snapshots are from another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherOrigin {
    /// It is another database, and is refused.
    Refuse,
    /// The user accepts the current state: it is the same database if it is on the same machine, and the old file is
    /// gone.
    AcceptIfGone,
    /// The user says that the database has moved.
    Moved,
}

impl OtherOrigin {
    fn allows(self, old: &Origin, new: &Origin) -> bool {
        match self {
            OtherOrigin::Refuse => false,
            OtherOrigin::AcceptIfGone => {
                let is_gone = |path: &String| Path::new(path).try_exists().is_ok_and(|exists| !exists);
                old.host == new.host && new.path.is_some() && old.path.as_ref().is_some_and(is_gone)
            }
            OtherOrigin::Moved => true,
        }
    }
}

/// Adds the cause to the error of a name that is taken, if the database is at the same path and only the name of the
/// machine differs.
fn with_host(error: Error, old: &Origin, new: &Origin) -> Error {
    let Some(old) = only_host_differs(old, new) else { return error };
    let new = one_line(&new.host);
    error.hint(format!(
        "only the machine's name differs: it was {old} and is {new} now; if it is the same machine, set host = \"{old}\" in \
         lifeboat.toml (or --host), or run 'lifeboat snapshot --moved' once; if it is another one, give the source another \
         name with --name, or in lifeboat.toml"
    ))
}

/// Returns the id of a snapshot, or of the one that it was compared with if it is suspect.
fn newest_good(newest: &Manifest) -> Option<SnapshotId> {
    match newest.has_tag(SUSPECT) {
        true => newest.compared_with.as_ref().map(|compared| compared.id.clone()),
        false => Some(newest.id.clone()),
    }
}

impl Destination<'_> {
    /// Returns the newest full snapshot of a source in any of the stores. Fails if a store has a source of this name
    /// from another origin, unless `other_origin` allows it. A store that cannot be read is removed from the list, and
    /// its error is returned.
    pub(crate) fn previous(
        &mut self,
        name: &SourceName,
        origin: &Origin,
        other_origin: OtherOrigin,
    ) -> Result<(Option<Manifest>, Vec<Error>)> {
        let (mut previous, mut failures): (Option<Manifest>, Vec<Error>) = (None, Vec::new());
        let (mut usable, mut earlier) = (Vec::new(), Vec::new());
        for catalog in self.catalogs.drain(..) {
            let (found, is_trusted) = match catalog.newest_full_or_untrusted(name) {
                Ok(found) => found.map_or((None, false), |(found, is_trusted)| (Some(found), is_trusted)),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    failures.push(error.context(format!("nothing was saved in {}", one_line(&catalog.location()))));
                    continue;
                }
            };
            if let Some(other) = found.as_ref().filter(|found| found.origin != *origin) {
                if !other_origin.allows(&other.origin, origin) {
                    return Err(with_host(name_is_taken(name, &other.origin), &other.origin, origin));
                }
                earlier.extend(other.moves_to(origin));
                tracing::warn!("{name} is recorded as moved from {} to {origin}", one_line(&other.origin.to_string()));
            }
            let found_encrypted = found.as_ref().filter(|found| found.encrypted).map(|found| found.id.clone());
            if self.encrypt_with.is_none()
                && let Some(encrypted) = catalog.expects_encryption_like(name).or(found_encrypted)
            {
                tracing::warn!(
                    "{encrypted} is encrypted, but the new snapshot of the same source is not: unless allow_plaintext = true \
                     is set under [encryption], it is not trusted"
                );
            }
            // Whoever may write to the store may have made one that is not trusted.
            let found = found.map(|found| {
                match found.moved_from.is_empty() || (is_trusted && catalog.trusts_encryption_of(&found)) {
                    true => found,
                    false => Manifest { moved_from: Vec::new(), ..found },
                }
            });
            let predecessor = found.as_ref().filter(|_| is_trusted).and_then(newest_good);
            self.predecessor = self.predecessor.take().max(predecessor);
            previous = previous.into_iter().chain(found).max_by_key(|manifest| manifest.created_at);
            usable.push(catalog);
        }
        // The stores may have snapshots from different places.
        if let Some(previous) = &mut previous {
            earlier.retain(|origin| *origin != previous.origin && !previous.moved_from.contains(origin));
            previous.moved_from.splice(0..0, earlier);
        }
        self.catalogs = usable;
        if self.catalogs.is_empty() {
            return Err(failures.into_iter().next().unwrap_or_else(|| Error::failed("there is no store to write to")));
        }
        Ok((previous, failures))
    }

    /// Returns an id that none of the stores has.
    pub(crate) fn new_id(&self, source: &SourceName, time: DateTime<Utc>) -> Result<SnapshotId> {
        let (first, others) = self.catalogs.split_first().expect("there is a store");
        loop {
            let id = first.new_id(source, time)?;
            // A store that cannot be read here fails when it is written to.
            if !others.iter().any(|other| other.has(&id).unwrap_or(false)) {
                return Ok(id);
            }
        }
    }
}
