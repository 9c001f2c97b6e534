//! The tags that Lifeboat itself gives to snapshots.

/// The tag of a snapshot that is no measure.
pub(crate) const SUSPECT: &str = "suspect";

/// The tag of the snapshots that a gate takes.
pub(crate) const PREDEPLOY: &str = "predeploy";

/// The tag of snapshots that are taken before a migration.
pub(crate) const MIGRATE: &str = "migrate";
