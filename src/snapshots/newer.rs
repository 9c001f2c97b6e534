//! Finds what a newer version of this program made. It is kept, since this version cannot judge it.

use std::collections::BTreeMap;

use crate::archive::require_known_format;
use crate::platform::error::{Error, Kind, Reason, Result};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::SnapshotId;
use crate::snapshots::list::{READERS, in_parallel};
use crate::snapshots::names::ENCRYPTED_ENDING;

impl Catalog {
    /// Returns the error of a manifest that a newer version of this program wrote, or `None` if there is none. Reads the
    /// manifests from the newest on.
    pub(super) fn newer_manifest(&self) -> Result<Option<Error>> {
        for source in self.sources()? {
            let mut ids = self.ids_with_manifest(&source)?;
            ids.reverse();
            for some in ids.chunks(8 * READERS) {
                let read = in_parallel(some.to_vec(), |id| match self.manifest_as_stored(&id) {
                    Err(error) if error.kind == Kind::Interrupted => Err(error),
                    read => Ok(read.err().filter(Error::is_newer_format)),
                })?;
                if let Some(newer) = read.into_iter().flatten().next() {
                    return Ok(Some(newer));
                }
            }
        }
        Ok(None)
    }

    /// Returns the snapshots of which it is not known that this version made their archives, each with the reason. A
    /// manifest of this version does not say so.
    ///
    /// The end of each archive is read. That of an encrypted archive cannot be read without a key, and one in an archive
    /// tier cannot be read at all: of these, the manifest decides.
    pub fn unknown_archives(&self, listed: &[&Listed]) -> Result<BTreeMap<SnapshotId, Error>> {
        let one = |listed: &Listed| -> Result<Option<(SnapshotId, Error)>> {
            let is_plain = |archive: &&crate::store::ObjectMeta| !archive.key.name().ends_with(ENCRYPTED_ENDING);
            let Some(archive) = listed.archive.as_ref().filter(is_plain) else { return Ok(None) };
            match self.store.open(&archive.key).and_then(|archive| require_known_format(&*archive)) {
                Ok(()) => Ok(None),
                Err(error) if error.reason == Some(Reason::ObjectIsArchived) => Ok(None),
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Problem) => Ok(None),
                Err(error) if error.is_newer_format() => Ok(Some((listed.id.clone(), error))),
                // In a local store, one file cannot be read. In a remote store, the whole service cannot.
                Err(error) if error.kind == Kind::Unreachable && self.is_local() => {
                    Ok(Some((listed.id.clone(), error)))
                }
                Err(error) => Err(error.context(format!("cannot read the archive of {}", listed.id))),
            }
        };
        Ok(in_parallel(listed.to_vec(), one)?.into_iter().flatten().collect())
    }
}
