//! The signatures of manifests. `<id>.json.sig` is the SSH signature of the bytes of `<id>.json`, which name the snapshot and
//! hold the SHA-256 of its archive. So `ssh-keygen -Y verify` checks it by hand.
//!
//! It is written before the manifest, and deleted after it: a snapshot exists if and only if its manifest does.

use crate::platform::error::{Error, Kind, Result};
use crate::platform::signature::{MAX_SIGNATURE_BYTES, is_of, verify};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::names::signature_key;
use crate::snapshots::trust::{Signer, Trust};
use crate::store::{Published, StoreExt};

/// The namespace of the signatures of manifests.
const MANIFEST: &str = "lifeboat-manifest";

/// The signature that a snapshot is published with.
#[derive(Clone, Debug)]
pub enum Signing {
    /// A new one, if there is a key.
    New,
    /// This one, or none: the manifest is that of another store.
    Keep(Option<Vec<u8>>),
}

impl Catalog {
    /// Fails with [`Reason::NotTrusted`](crate::platform::error::Reason::NotTrusted) if no trusted key has signed a manifest.
    /// Costs a request only if keys are trusted.
    pub(super) fn require_signed(&self, trust: &Trust, id: &SnapshotId, document: &[u8]) -> Result<()> {
        let Some(keys) = trust.required_keys() else { return Ok(()) };
        let checked = match self.signature(id) {
            Ok(Some(signature)) => verify(&signature, MANIFEST, document, keys),
            Ok(None) => return Err(trust.unsigned(format!("{id} is not trusted: it is not signed"))),
            Err(error) if error.kind == Kind::Problem => Err(error),
            Err(error) => return Err(error.context(format!("cannot read the signature of {id}"))),
        };
        checked.map_err(|error| trust.unsigned(format!("{id} is not trusted: {}", error.full_message())))
    }

    /// Reads the signature of a manifest; `None` if there is none.
    pub fn signature(&self, id: &SnapshotId) -> Result<Option<Vec<u8>>> {
        match self.store.read(&signature_key(id)?, MAX_SIGNATURE_BYTES) {
            Ok(signature) => Ok(Some(signature)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the signature of a manifest if it is one of these bytes, whoever has made it.
    pub fn signature_of(&self, id: &SnapshotId, document: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.signature(id) {
            Ok(found) => Ok(found.filter(|signature| is_of(signature, MANIFEST, document))),
            Err(error) if error.kind == Kind::Problem => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns true if only signed snapshots are trusted.
    #[must_use]
    pub fn requires_signatures(&self) -> bool {
        self.trust.required_keys().is_some()
    }

    /// Returns the key that signs what is written.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        self.trust.signer()
    }

    /// Returns true if there is a key that signs, or if signatures are checked.
    #[must_use]
    pub fn uses_signatures(&self) -> bool {
        self.trust.trusted().is_some() || !matches!(self.trust.signer(), Signer::None)
    }

    /// Returns true if a key that is trusted here, or our own, has signed a manifest.
    pub fn is_signed_by_ours(&self, id: &SnapshotId, document: &[u8]) -> Result<bool> {
        let mut keys = self.trust.trusted().unwrap_or_default().to_vec();
        if let Signer::Key(key) = self.trust.signer() {
            keys.push(key.public());
        }
        let signature = self.signature_of(id, document)?;
        Ok(signature.is_some_and(|signature| verify(&signature, MANIFEST, document, &keys).is_ok()))
    }

    /// Writes the signature of a manifest that is about to be written. Returns true if there is one. Fails if there must be
    /// one, and its key cannot be used.
    pub(super) fn write_signature(&self, id: &SnapshotId, document: &[u8], signing: &Signing) -> Result<bool> {
        if matches!(signing, Signing::New) && !self.trust.signs_for_itself() {
            tracing::warn!(
                "{id} is not trusted here: no key in trusted of [signing] signs it (set key_file to one of these keys, or restore it \
                 on a machine with --allow-unsigned)"
            );
        }
        let signature = match (signing, self.trust.signer()) {
            (Signing::Keep(None), _) | (Signing::New, Signer::None) => return Ok(false),
            (Signing::Keep(Some(signature)), _) => signature.clone(),
            (Signing::New, Signer::Key(key)) => key.sign(MANIFEST, document)?.into_bytes(),
            (Signing::New, Signer::Unusable(error)) => {
                return Err(error.duplicate().context("the snapshot must be signed"));
            }
        };
        self.put_signature(id, &signature)?;
        Ok(true)
    }

    /// Puts a signature into the place of one that is not the same.
    pub fn put_signature(&self, id: &SnapshotId, signature: &[u8]) -> Result<()> {
        let key = signature_key(id)?;
        for _ in 0..2 {
            let error = match self.store.write(&key, signature) {
                Ok(Published::Created) => return Ok(()),
                Ok(Published::AlreadyExists) => Error::failed(format!("{key} already exists")),
                Err(error) => error,
            };
            match self.signature(id) {
                // The reply was lost, or it was there.
                Ok(Some(stored)) if stored == signature => return Ok(()),
                Ok(Some(_)) => self.store.delete(&key)?,
                Err(problem) if problem.kind == Kind::Problem => self.store.delete(&key)?,
                Ok(None) | Err(_) => return Err(error),
            }
        }
        Err(Error::failed(format!("another process writes {key} at the same time")))
    }

    /// Deletes the signature of a manifest that is not written after all.
    pub(super) fn delete_signature(&self, id: &SnapshotId) -> Result<()> {
        self.store.delete(&signature_key(id)?)
    }
}
