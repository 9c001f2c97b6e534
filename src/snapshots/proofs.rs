//! Proofs: the results of the tests of a snapshot, which are stored beside it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::check_version;
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::SnapshotId;
use crate::snapshots::names::key;
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
    /// The newest test's level, or `Damaged` if any test found damage.
    pub level: ProofLevel,
    /// The time of the test that determines the level.
    pub at: Option<DateTime<Utc>>,
    /// True if any drill ever succeeded.
    pub drilled: bool,
    /// The time of the newest successful drill.
    pub drilled_at: Option<DateTime<Utc>>,
    /// The restore time that the newest successful drill measured.
    pub restore_seconds: Option<f64>,
}

impl Default for ProofSummary {
    fn default() -> Self {
        ProofSummary { level: ProofLevel::None, at: None, drilled: false, drilled_at: None, restore_seconds: None }
    }
}

impl Proof {
    /// Parses a proof. A proof has no version number; one that has another version than this program's is that of a
    /// newer program.
    fn from_json(key: &Key, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            format: Option<Value>,
        }
        let unreadable = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::unreachable(format!("cannot parse the proof {key}"))
                .because(cause)
                .hint("inspect it, delete it if it is unusable, then run 'lifeboat verify' for the snapshot")
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
    /// Reads a snapshot's proofs and returns their summary.
    pub fn proof(&self, listed: &Listed) -> Result<ProofSummary> {
        let mut summary = ProofSummary::default();
        if listed.archive.is_none() {
            summary.level = ProofLevel::Damaged;
        }
        for key in &listed.proofs {
            let proof = match self.store.read(key, MAX_PROOF_BYTES) {
                Ok(bytes) => Some(Proof::from_json(key, &bytes)?),
                // The proof was deleted after the listing.
                Err(error) if error.kind == Kind::NotFound => None,
                Err(error) => return Err(error),
            };
            let Some(proof) = proof.filter(|proof| proof.id == listed.id) else { continue };
            if proof.level == ProofLevel::Drilled {
                summary.drilled = true;
                summary.drilled_at = Some(proof.at);
                summary.restore_seconds = proof.restore_seconds;
            }
            if summary.level != ProofLevel::Damaged {
                (summary.level, summary.at) = (proof.level, Some(proof.at));
            }
        }
        Ok(summary)
    }

    /// Fails if a newer version of this program has tested a snapshot: its result cannot be read, so this program must
    /// not add another one.
    pub fn require_known_proofs(&self, listed: &Listed) -> Result<()> {
        match self.proof(listed) {
            Err(error) if error.is_newer_format() => Err(error.context(format!("{} is not tested", listed.id))),
            _ => Ok(()),
        }
    }

    /// Deletes the proofs of a snapshot that newer ones of the same level supersede, so that a listing does not cost more
    /// requests with every test. Of the proofs of damage, the first one is kept too. What [`proof`](Self::proof)
    /// returns stays the same.
    fn clear_superseded(&self, id: &SnapshotId) -> Result<()> {
        let start = format!("{id}.proof-");
        let mut of_level: Vec<(ProofLevel, Vec<Key>)> = Vec::new();
        // The names sort by time.
        for object in self.store.list(id.source().as_str(), Names::StartingWith(&start))?.objects {
            let bytes = self.store.read(&object.key, MAX_PROOF_BYTES)?;
            let Ok(proof) = Proof::from_json(&object.key, &bytes) else { continue };
            if proof.id != *id {
                continue;
            }
            match of_level.iter_mut().find(|(level, _)| *level == proof.level) {
                Some((_, keys)) => keys.push(object.key),
                None => of_level.push((proof.level, vec![object.key])),
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
                Err(error) if error.kind == Kind::NotFound => None,
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
        let document = serde_json::to_vec_pretty(proof).expect("a proof has only string keys");
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
