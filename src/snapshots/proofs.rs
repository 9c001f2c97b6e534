//! Proofs: the results of the tests of a snapshot, which are stored beside it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::check_version;
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{CLOCK_SLACK, Catalog, Listed};
use crate::snapshots::id::SnapshotId;
use crate::snapshots::names::key;
use crate::snapshots::signed;
use crate::snapshots::trust::Signer;
use crate::store::{Key, Names, Published, StoreExt};

const MAX_PROOF_BYTES: u64 = 1 << 20;

/// The result of a snapshot's tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofLevel {
    /// The snapshot was not tested.
    None,
    /// Every byte was read and its hash checked.
    Verified,
    /// The snapshot was restored and compared.
    Drilled,
    /// The snapshot is damaged; overrides all other levels.
    Damaged,
    /// A newer version of this program has tested the snapshot, and its result cannot be read. Never stored.
    #[serde(skip)]
    Unknown,
}

impl ProofLevel {
    /// Returns its name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProofLevel::None => "none",
            ProofLevel::Verified => "verified",
            ProofLevel::Drilled => "drilled",
            ProofLevel::Damaged => "damaged",
            ProofLevel::Unknown => "unknown",
        }
    }
}

/// The result of one test, as stored in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The snapshot.
    pub id: SnapshotId,
    /// The result of the test.
    pub level: ProofLevel,
    /// The time at which it ended.
    pub at: DateTime<Utc>,
    /// The machine that ran it.
    pub host: String,
    /// The duration of the test.
    pub seconds: f64,
    /// The duration of the restore in a drill, including checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_seconds: Option<f64>,
    /// The problems found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The summary of all tests of one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct ProofSummary {
    /// The newest test's level, or `Damaged` if any test found damage; `Unknown` if a newer version has tested it.
    pub level: ProofLevel,
    /// The time of the test that determines the level.
    pub at: Option<DateTime<Utc>>,
    /// True if any drill ever succeeded.
    pub drilled: bool,
    /// The time of the newest successful drill.
    pub drilled_at: Option<DateTime<Utc>>,
    /// The restore time that the newest successful drill measured.
    pub restore_seconds: Option<f64>,
    /// True if a newer version of this program has tested it: its result is not known here.
    pub has_newer: bool,
}

impl Default for ProofSummary {
    fn default() -> Self {
        ProofSummary {
            level: ProofLevel::None,
            at: None,
            drilled: false,
            drilled_at: None,
            restore_seconds: None,
            has_newer: false,
        }
    }
}

impl Proof {
    /// Returns true if it is dated in the future, by more than the clocks of machines differ.
    fn is_in_future(&self) -> bool {
        self.at > Utc::now() + CLOCK_SLACK
    }

    /// Parses a proof. A proof has no version number; one that has another version than this program's is that of a
    /// newer program.
    fn from_json(key: &Key, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            format: Option<Value>,
        }
        let unreadable = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::problem(format!("cannot parse the proof {key}")).because(cause)
        };
        if let Ok(Versioned { format: Some(format) }) = serde_json::from_slice(bytes) {
            match check_version(&format!("the proof {key}"), &format) {
                Err(error) if !error.is_newer_format() => return Err(unreadable(error.into())),
                checked => checked?,
            }
        }
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.into()))
    }
}

impl Catalog {
    /// Reads a snapshot's proofs and returns their summary. A proof of a newer version only makes the result unknown: the
    /// manifest says whether this version can read the snapshot. One that cannot be parsed, is not trusted, or is dated in
    /// the future, is ignored with a warning: whoever may write to the store may have put it there.
    pub fn proof(&self, listed: &Listed) -> Result<ProofSummary> {
        let mut summary = ProofSummary::default();
        if listed.archive.is_none() {
            summary.level = ProofLevel::Damaged;
        }
        let mut proofs = Vec::new();
        for key in &listed.proofs {
            match self.read_proof(key) {
                Ok(proof) if proof.id != listed.id => {}
                Ok(proof) if proof.is_in_future() => {
                    tracing::warn!("the proof {key} is ignored: it is dated in the future ({})", proof.at);
                }
                Ok(proof) => proofs.push(proof),
                // The proof was deleted after the listing.
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) if error.is_newer_format() => summary.has_newer = true,
                Err(error) if error.is_not_trusted() => tracing::warn!("{}", error.full_message()),
                Err(error) if error.kind == Kind::Problem => {
                    tracing::warn!("the proof {key} is ignored: {}", error.full_message());
                }
                Err(error) => return Err(error),
            }
        }
        // A name may have another time than its proof.
        proofs.sort_by_key(|proof| proof.at);
        for proof in proofs {
            if proof.level == ProofLevel::Drilled {
                summary.drilled = true;
                summary.drilled_at = Some(proof.at);
                summary.restore_seconds = proof.restore_seconds;
            }
            if summary.level != ProofLevel::Damaged {
                (summary.level, summary.at) = (proof.level, Some(proof.at));
            }
        }
        if summary.has_newer && summary.level != ProofLevel::Damaged {
            (summary.level, summary.at) = (ProofLevel::Unknown, None);
        }
        Ok(summary)
    }

    /// Reads a proof. Fails with [`Reason::NotTrusted`] if it must be signed by a trusted key, and is not: whoever may write
    /// to the store could make a good snapshot look damaged, or a damaged one look tested.
    ///
    /// [`Reason::NotTrusted`]: crate::platform::error::Reason::NotTrusted
    fn read_proof(&self, key: &Key) -> Result<Proof> {
        let document = signed::trusted_part(self.store.read(key, MAX_PROOF_BYTES)?, signed::PROOF, &self.trust)
            .map_err(|error| error.context(format!("the proof {key} is not trusted, and decides nothing")))?;
        Proof::from_json(key, &document)
    }

    /// Fails if a newer version of this program has tested a snapshot: its result cannot be read, so this program must
    /// not add another one.
    pub fn require_known_proofs(&self, listed: &Listed) -> Result<()> {
        for key in &listed.proofs {
            if let Some(error) = self.read_proof(key).err().filter(Error::is_newer_format) {
                return Err(error.context(format!("{} is not tested", listed.id)));
            }
        }
        Ok(())
    }

    /// Deletes the proofs of a snapshot that newer ones of the same level supersede, so that a listing does not cost more
    /// requests with every test. Of the proofs of damage, the first one is kept too. What [`proof`](Self::proof)
    /// returns stays the same.
    fn clear_superseded(&self, id: &SnapshotId) -> Result<()> {
        let start = format!("{id}.proof-");
        let mut found = Vec::new();
        for object in self.store.list(id.source().as_str(), Names::StartingWith(&start))?.objects {
            match self.read_proof(&object.key) {
                Ok(proof) if proof.id == *id && !proof.is_in_future() => found.push((proof, object.key)),
                // One that does not count supersedes none.
                Ok(_) => {}
                Err(error) if matches!(error.kind, Kind::Problem | Kind::NotFound) || error.is_newer_format() => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|(proof, _)| proof.at);
        let mut of_level: Vec<(ProofLevel, Vec<Key>)> = Vec::new();
        for (proof, key) in found {
            match of_level.iter_mut().find(|(level, _)| *level == proof.level) {
                Some((_, keys)) => keys.push(key),
                None => of_level.push((proof.level, vec![key])),
            }
        }
        let mut superseded = Vec::new();
        for (level, mut keys) in of_level {
            keys.pop();
            if level == ProofLevel::Damaged && !keys.is_empty() {
                keys.remove(0);
            }
            superseded.extend(keys);
        }
        if superseded.is_empty() { Ok(()) } else { self.store.delete_all(&superseded) }
    }

    /// Deletes the proofs that found a snapshot damaged: its archive has been replaced by a whole one.
    pub fn forget_damage(&self, listed: &Listed) -> Result<()> {
        for key in &listed.proofs {
            let found = match self.store.read(key, MAX_PROOF_BYTES) {
                Ok(bytes) => Proof::from_json(key, &bytes).ok(),
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Problem) => None,
                Err(error) => return Err(error),
            };
            if found.is_some_and(|proof| proof.id == listed.id && proof.level == ProofLevel::Damaged) {
                self.store.delete(key)?;
            }
        }
        Ok(())
    }

    /// Stores a test's result.
    pub fn record_proof(&self, proof: &Proof) -> Result<()> {
        let mut document = serde_json::to_vec_pretty(proof).expect("a proof has only string keys");
        match self.signer() {
            Signer::Key(key) => document = signed::sign(&document, signed::PROOF, key)?,
            Signer::Unusable(error) => tracing::warn!("a proof is not signed: {}", error.full_message()),
            Signer::None => {}
        }
        let mut at = proof.at;
        for _ in 0..100 {
            let name = format!("{}/{}.proof-{}.json", proof.id.source(), proof.id, at.format("%Y%m%dT%H%M%S%3fZ"));
            let key = key(&name)?;
            if self.store.write(&key, &document)? == Published::Created {
                // The proof is stored; proofs that are not needed any more only cost requests.
                if let Err(error) = self.clear_superseded(&proof.id) {
                    tracing::debug!("older proofs of {} remain: {}", proof.id, error.full_message());
                }
                return Ok(());
            }
            at += chrono::Duration::milliseconds(1);
        }
        Err(Error::failed(format!("cannot record the proof of {}", proof.id)))
    }
}
