//! The tags that Lifeboat adds to snapshots itself.

/// The tag of a snapshot that has lost rows or fails a rule. It is not used as the baseline for later snapshots.
pub(crate) const SUSPECT: &str = "suspect";

/// The tag of a safety snapshot: the data that a restore is about to overwrite.
pub(crate) const SAFETY: &str = "safety";

/// The tag of the snapshots that `predeploy` takes.
pub(crate) const PREDEPLOY: &str = "predeploy";

/// The tag of snapshots that are taken before a migration.
pub(crate) const MIGRATE: &str = "migrate";

/// The tag of the snapshots that `guard` takes.
pub(crate) const GUARD: &str = "guard";

/// The tag of the snapshots that `postdeploy` takes after a deploy that has changed tables on purpose.
pub(crate) const POSTDEPLOY: &str = "postdeploy";
