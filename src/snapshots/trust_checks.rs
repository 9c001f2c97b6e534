//! Compares the snapshots of a store with the rules of trust.
//!
//! [`Catalog::manifest`] fails with [`Reason::NotTrusted`] for a snapshot that is not trusted, and
//! [`Catalog::manifest_as_stored`] reads it all the same: to show it, to copy it, and to decide what is pruned.
//!
//! [`Reason::NotTrusted`]: crate::platform::error::Reason::NotTrusted

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::names::ENCRYPTED_ENDING;
use crate::snapshots::trust::{ALLOW_PLAINTEXT, ALLOW_UNSIGNED, Known, Plaintext, Trust};
use crate::store::{Names, StoreUrl};

/// The time for which it stays known that a source has no encrypted snapshot: an older one does not appear by itself.
const NONE_FOR: Duration = Duration::from_secs(3600);
/// The time for which it stays known that a store cannot be read.
const UNREAD_FOR: Duration = Duration::from_secs(60);

impl Catalog {
    /// Returns the catalog with other rules of trust.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Fails with [`Reason::NotTrusted`](crate::platform::error::Reason::NotTrusted) if a snapshot is not trusted.
    pub(super) fn require_trusted(&self, manifest: &Manifest, document: &[u8]) -> Result<()> {
        self.require_trusted_by(&self.trust, manifest, document)
    }

    /// Does the same as [`require_trusted`](Self::require_trusted), by these rules.
    pub(super) fn require_trusted_by(&self, trust: &Trust, manifest: &Manifest, document: &[u8]) -> Result<()> {
        self.require_encrypted(trust, &manifest.id, manifest.encrypted)?;
        self.require_signed(trust, &manifest.id, document)
    }

    /// Fails with [`Reason::NotTrusted`](crate::platform::error::Reason::NotTrusted) if an archive without a manifest is not trusted. `manifest` is the one in it.
    pub fn require_trusted_alone(&self, manifest: &Manifest, is_encrypted: bool) -> Result<()> {
        self.require_encrypted(&self.trust, &manifest.id, is_encrypted)?;
        match self.trust.required_keys() {
            Some(_) => Err(self.trust.archive_alone(&manifest.id.to_string())),
            None => Ok(()),
        }
    }

    /// Returns true if a snapshot is encrypted as it must be.
    #[must_use]
    pub fn trusts_encryption_of(&self, manifest: &Manifest) -> bool {
        self.require_encrypted(&self.trust, &manifest.id, manifest.encrypted).is_ok()
    }

    /// Returns the options with which a command uses a snapshot that is not trusted. `document` is its manifest as stored;
    /// `None` if it has none in the store.
    #[must_use]
    pub fn options_for(&self, manifest: &Manifest, is_encrypted: bool, document: Option<&[u8]>) -> Vec<&'static str> {
        let plaintext = self.require_encrypted(&self.trust, &manifest.id, is_encrypted).is_err();
        let unsigned = match document {
            Some(document) => self.require_signed(&self.trust, &manifest.id, document).is_err(),
            None => self.trust.required_keys().is_some(),
        };
        let options = [plaintext.then_some(ALLOW_PLAINTEXT), unsigned.then_some(ALLOW_UNSIGNED)];
        options.into_iter().flatten().collect()
    }

    /// Returns the error for which a snapshot is not trusted; `None` if it is, or if that cannot be found out.
    /// `document` is its manifest as stored.
    #[must_use]
    pub fn distrust_of(&self, manifest: &Manifest, document: &[u8]) -> Option<Error> {
        self.require_trusted(manifest, document).err().filter(Error::is_not_trusted)
    }

    /// Returns an encrypted snapshot of a source because of which a new one that is not encrypted is not trusted, if that is
    /// known without a request.
    #[must_use]
    pub fn expects_encryption_like(&self, source: &SourceName) -> Option<SnapshotId> {
        if self.trust.plaintext != Plaintext::RefusedAfterEncrypted {
            return None;
        }
        if self.is_local() {
            // The reader of the newest snapshot reports an error.
            let _ = self.first_encrypted(source);
        }
        let locations = std::iter::once(self.location()).chain(self.elsewhere().map(|(location, _)| location));
        locations.into_iter().find_map(|location| self.known_encrypted(location, source))
    }

    fn require_encrypted(&self, trust: &Trust, id: &SnapshotId, is_encrypted: bool) -> Result<()> {
        if is_encrypted {
            return Ok(());
        }
        match trust.plaintext {
            Plaintext::Allowed => Ok(()),
            Plaintext::Refused => Err(trust.plaintext_under_encryption(&id.to_string())),
            Plaintext::RefusedAfterEncrypted => match self.first_encrypted(id.source())? {
                Some(first) if first.stamp() < id.stamp() => {
                    Err(self.trust.plaintext_error(format!("{id} is not encrypted, but {first}, which is older, is")))
                }
                _ => self.require_no_older_elsewhere(id),
            },
        }
    }

    /// Fails if another store of the config has an older encrypted snapshot of the source: whoever may write to this store
    /// only cannot hide those.
    fn require_no_older_elsewhere(&self, id: &SnapshotId) -> Result<()> {
        for (location, url) in self.elsewhere() {
            let shown = one_line(&location);
            // Without a key in the config, a store that does not answer must not delay the use of another one.
            let first = match self.trust.history.is_required {
                true => self.first_encrypted_in(location, url, id.source()),
                false => Ok(self.known_encrypted(location, id.source())),
            };
            match first {
                Ok(Some(first)) if first.stamp() < id.stamp() => {
                    return Err(self.trust.plaintext_error(format!(
                        "{id} is not encrypted, but {first}, which is older and in {shown}, is"
                    )));
                }
                Ok(_) => {}
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    let cause = error.full_message();
                    return Err(self.trust.plaintext_error(format!(
                        "{id} is not encrypted, and it is not known whether an older snapshot in {shown} is ({cause})"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Returns the oldest encrypted snapshot of a source in the store at `location`, if it is known already.
    fn known_encrypted(&self, location: String, source: &SourceName) -> Option<SnapshotId> {
        let known = self.trust.first_encrypted.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(location, source.clone()))?.id.as_ref().ok()?.clone()
    }

    /// Returns the other stores that may have older snapshots, each with its location.
    fn elsewhere(&self) -> impl Iterator<Item = (String, &StoreUrl)> {
        let here = self.location().parse::<StoreUrl>();
        let others = self.trust.history.stores.iter();
        let others = others.filter(move |url| !here.as_ref().is_ok_and(|here| here.is_same_place(url)));
        others.map(|url| (url.absolute().map_or_else(|_| url.to_string(), |url| url.to_string()), url))
    }

    /// Returns the oldest encrypted snapshot of a source in another store, or `None` if there is none.
    fn first_encrypted_in(&self, location: String, url: &StoreUrl, source: &SourceName) -> Result<Option<SnapshotId>> {
        let list = || Catalog::open(url.open()?)?.list_first_encrypted(source);
        self.first_encrypted_at(location, source, list)
    }

    /// Returns the oldest encrypted snapshot of a source in this store, or `None` if there is none. Lists the source once.
    fn first_encrypted(&self, source: &SourceName) -> Result<Option<SnapshotId>> {
        self.first_encrypted_at(self.location(), source, || self.list_first_encrypted(source))
    }

    /// Returns the oldest encrypted snapshot of a source in the store at `location`, which `list` lists if it is not known.
    fn first_encrypted_at(
        &self,
        location: String,
        source: &SourceName,
        list: impl FnOnce() -> Result<Option<SnapshotId>>,
    ) -> Result<Option<SnapshotId>> {
        let key = (location, source.clone());
        let lock = || self.trust.first_encrypted.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lock().get(&key) {
            Some(Known { id: Ok(Some(id)), .. }) => return Ok(Some(id.clone())),
            // A store that is read here may be readable again.
            Some(Known { id: Err(_), .. }) if key.0 == self.location() => {}
            Some(Known { id, listed }) if listed.elapsed() < if id.is_ok() { NONE_FOR } else { UNREAD_FOR } => {
                return duplicate(id);
            }
            _ => {}
        }
        let listed = Instant::now();
        let first = list();
        lock().insert(key, Known { id: duplicate(&first), listed });
        first
    }

    fn list_first_encrypted(&self, source: &SourceName) -> Result<Option<SnapshotId>> {
        let archives = self.store.list(source.as_str(), Names::All)?.objects;
        let mut ids = archives.iter().filter_map(|archive| encrypted_id(archive.key.name()));
        // A safety snapshot is encrypted as soon as the command that restores has a key, whatever the config says.
        let is_safety = |id: &SnapshotId| {
            self.manifest_as_stored(id).is_ok_and(|(manifest, _)| manifest.kind == SnapshotKind::Safety)
        };
        Ok(ids.find(|id| id.source() == source && !is_safety(id)))
    }
}

fn duplicate(first: &Result<Option<SnapshotId>>) -> Result<Option<SnapshotId>> {
    match first {
        Ok(id) => Ok(id.clone()),
        Err(error) => Err(error.duplicate()),
    }
}

/// Returns the id of an encrypted archive with this name.
fn encrypted_id(name: &str) -> Option<SnapshotId> {
    let (id, _) = name.strip_suffix(ENCRYPTED_ENDING)?.rsplit_once(".tar.")?;
    id.parse().ok()
}
