//! `[backups]`: the requirements for the backups.

use chrono::Duration;
use serde::Deserialize;

use crate::config::values::{Age, Parsed, Proof};
use crate::engine::rules::Share;
use crate::platform::error::{Error, Result};

/// The requirements for the backups.
#[derive(Clone, Debug)]
pub struct Backups {
    /// The maximum age of the newest backup.
    pub max_age: Option<Duration>,
    /// The maximum decrease in size or rows, compared with the backups before it.
    pub max_shrink: Share,
    /// The maximum age of the newest proof of a backup.
    pub proof_within: Option<Duration>,
    /// True if that proof must be a drill.
    pub proof_by_drill: bool,
}

impl Default for Backups {
    fn default() -> Self {
        let half = "50%".parse().unwrap_or_else(|_| unreachable!("a half is a share"));
        Backups { max_age: None, max_shrink: half, proof_within: None, proof_by_drill: false }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawBackups {
    max_age: Option<Parsed<Age>>,
    max_shrink: Option<Parsed<Share>>,
    proof: Option<Parsed<Proof>>,
    proof_within: Option<Parsed<Age>>,
}

impl RawBackups {
    pub(in crate::config) fn read(self) -> Result<Backups> {
        let default = Backups::default();
        let proof_by_drill = self.proof.as_ref().is_some_and(|proof| proof.0.0 == "drilled");
        if self.proof.is_some() && self.proof_within.is_none() {
            return Err(Error::usage("proof needs proof_within").hint("write proof_within = \"8d\""));
        }
        Ok(Backups {
            max_age: self.max_age.map(|age| age.0.0),
            max_shrink: self.max_shrink.map_or(default.max_shrink, |share| share.0),
            proof_within: self.proof_within.map(|age| age.0.0),
            proof_by_drill,
        })
    }
}
