//! The tags that Lifeboat itself adds to snapshots.

/// The tag of a snapshot that is not used as the baseline for later snapshots.
pub(crate) const SUSPECT: &str = "suspect";

/// The tag of the snapshots that a gate takes.
pub(crate) const PREDEPLOY: &str = "predeploy";

/// The tag of snapshots that are taken before a migration.
pub(crate) const MIGRATE: &str = "migrate";
