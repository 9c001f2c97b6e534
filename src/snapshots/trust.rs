//! The rules by which snapshots are trusted. Whoever may write to a store can put a snapshot there, and encryption to a
//! public key says nothing about the sender.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::platform::error::{Error, Reason, Result};
use crate::platform::signature::{PublicKey, SigningKey};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::store::StoreUrl;

/// The rules by which snapshots are trusted.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The treatment of snapshots that are not encrypted.
    pub plaintext: Plaintext,
    /// The facts about sources that were found out already, for all catalogs with these rules.
    pub(super) first_encrypted: Arc<FirstEncrypted>,
    /// The stores that may have older snapshots of a source.
    pub(super) history: Arc<History>,
    /// The keys of which one must have signed; `None` if signatures are not checked.
    trusted: Option<Arc<Vec<PublicKey>>>,
    /// True if snapshots that are not signed are trusted all the same. This does not hold for proofs and leases.
    allows_unsigned: bool,
    /// The key that signs what is written.
    pub(super) signer: Signer,
    /// True if the command has options that use snapshots which are not trusted.
    takes_options: bool,
    /// Those of these options that were given.
    given_options: Vec<&'static str>,
}

/// The option that uses snapshots which are not encrypted.
pub const ALLOW_PLAINTEXT: &str = "--allow-plaintext";
/// The option that uses snapshots which are not signed.
pub const ALLOW_UNSIGNED: &str = "--allow-unsigned";

/// The stores in which older snapshots of a source are looked up, apart from the store of the snapshot itself.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The stores.
    pub(super) stores: Vec<StoreUrl>,
    /// True if they are listed, and a snapshot that is not encrypted is not trusted as long as one of them cannot be read.
    /// Otherwise only the facts count that are known already.
    pub(super) is_required: bool,
}

/// The key that signs snapshots, proofs and leases.
#[derive(Clone, Debug, Default)]
pub enum Signer {
    /// No key is set.
    #[default]
    None,
    /// This one.
    Key(Arc<SigningKey>),
    /// One is set, and cannot be used: the error. No snapshot is written without its signature.
    Unusable(Arc<Error>),
}

/// The treatment of snapshots that are not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// They are not trusted: the config encrypts.
    Refused,
    /// They are not trusted if an older snapshot of the same source is encrypted.
    #[default]
    RefusedAfterEncrypted,
    /// They are trusted: the user says so.
    Allowed,
}

impl Trust {
    /// Returns the rules with trust in every snapshot.
    #[must_use]
    pub fn of_every_snapshot(mut self) -> Self {
        (self.plaintext, self.allows_unsigned) = (Plaintext::Allowed, true);
        self
    }

    /// Requires signatures by one of these keys, or none if `keys` is `None`.
    #[must_use]
    pub fn with_trusted(mut self, keys: Option<Vec<PublicKey>>, allows_unsigned: bool) -> Self {
        (self.trusted, self.allows_unsigned) = (keys.map(Arc::new), allows_unsigned);
        self
    }

    /// Sets the key that signs.
    #[must_use]
    pub fn with_signer(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }

    /// Sets the stores that may have older encrypted snapshots of a source. If `is_required`, they are listed, and a snapshot
    /// that is not encrypted is not trusted as long as one of them cannot be read.
    #[must_use]
    pub fn with_history(mut self, stores: Vec<StoreUrl>, is_required: bool) -> Self {
        self.history = Arc::new(History { stores, is_required });
        self
    }

    /// Says that the command has options that use snapshots which are not trusted, and which of them were given.
    #[must_use]
    pub fn with_options(mut self, given: Vec<&'static str>) -> Self {
        (self.takes_options, self.given_options) = (true, given);
        self
    }

    /// Returns the given options that use snapshots which are not trusted, for printed commands.
    #[must_use]
    pub fn given_options(&self) -> &[&'static str] {
        &self.given_options
    }

    /// Returns the options with which a command uses an archive that is not in a store.
    #[must_use]
    pub fn options_for_archive(&self, is_encrypted: bool) -> Vec<&'static str> {
        let plaintext = (self.plaintext == Plaintext::Refused && !is_encrypted).then_some(ALLOW_PLAINTEXT);
        plaintext.into_iter().chain(self.required_keys().map(|_| ALLOW_UNSIGNED)).collect()
    }

    /// Returns the keys of which one must have signed a proof or a lease; `None` if signatures are not checked.
    #[must_use]
    pub fn trusted(&self) -> Option<&[PublicKey]> {
        self.trusted.as_ref().map(|keys| keys.as_slice())
    }

    /// Returns the keys of which one must have signed a snapshot; `None` if its signature is not checked.
    pub(super) fn required_keys(&self) -> Option<&[PublicKey]> {
        self.trusted().filter(|_| !self.allows_unsigned)
    }

    /// Returns true if what is written here is trusted here: signatures are not checked, or the key that signs is one of those
    /// that are trusted.
    #[must_use]
    pub fn signs_for_itself(&self) -> bool {
        let is_trusted = |keys: &[PublicKey]| match &self.signer {
            Signer::Key(key) => keys.contains(&key.public()),
            Signer::None | Signer::Unusable(_) => false,
        };
        self.trusted().is_none_or(is_trusted)
    }

    /// Returns the key that signs.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Sets the treatment of snapshots that are not encrypted.
    #[must_use]
    pub fn with_plaintext(mut self, plaintext: Plaintext) -> Self {
        self.plaintext = plaintext;
        self
    }

    /// Returns the rules without those that need a listing of all snapshots of a source.
    #[must_use]
    pub fn without_history(mut self) -> Self {
        if self.plaintext == Plaintext::RefusedAfterEncrypted {
            self.plaintext = Plaintext::Allowed;
        }
        self
    }

    /// Fails if an archive that is not in a store is not trusted. `name` names it in messages.
    pub fn require_archive(&self, name: &str, is_encrypted: bool) -> Result<()> {
        match self.plaintext {
            Plaintext::Refused if !is_encrypted => Err(self.plaintext_under_encryption(name)),
            _ if self.required_keys().is_some() => Err(self.archive_alone(name)),
            _ => Ok(()),
        }
    }

    /// Returns the error for an archive that is not encrypted, although the config encrypts.
    pub(super) fn plaintext_under_encryption(&self, name: &str) -> Error {
        self.plaintext_error(format!("{name} is not encrypted, but the config encrypts snapshots"))
    }

    /// Returns the error for an archive without its manifest, which is what is signed.
    pub(super) fn archive_alone(&self, name: &str) -> Error {
        self.unsigned(format!(
            "{name} is not trusted: it is an archive without its manifest, and only manifests are signed"
        ))
    }

    /// Returns the error for a snapshot that no trusted key has signed.
    pub(super) fn unsigned(&self, message: String) -> Error {
        let option = match self.takes_options {
            true => "'lifeboat restore' with --allow-unsigned uses it, and ",
            false => "",
        };
        Error::problem(message).reason(Reason::NotTrusted).hint(format!(
            "if you know where it comes from, {option}'ssh-keygen -Y sign -f KEY -n lifeboat-manifest ID.json' signs its \
             manifest"
        ))
    }

    /// Returns the error for an archive that is not encrypted, although it should be.
    pub(super) fn plaintext_error(&self, message: String) -> Error {
        let option = match self.takes_options {
            true => "'lifeboat restore' with --allow-plaintext uses it, and ",
            false => "",
        };
        Error::problem(format!(
            "{message}: it is not trusted, because anybody who may write to the store can have made it"
        ))
        .reason(Reason::NotTrusted)
        .hint(format!(
            "if it is yours, {option}allow_plaintext = true under [encryption] trusts all snapshots that are not \
                 encrypted; or take a new snapshot"
        ))
    }
}

/// The first encrypted snapshot of each source, as far as it is known, by the location of the store and the name.
#[derive(Debug, Default)]
pub(super) struct FirstEncrypted(pub(super) Mutex<BTreeMap<(String, SourceName), Known>>);

/// The first encrypted snapshot of a source in a store.
#[derive(Debug)]
pub(super) struct Known {
    /// Its id; `None` if there is none. The error if the store could not be read.
    pub(super) id: Result<Option<SnapshotId>>,
    /// The time at which the source was listed.
    pub(super) listed: Instant,
}
