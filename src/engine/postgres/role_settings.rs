//! The settings of the roles of a snapshot. They may be secrets, so they are in the archive, which may be encrypted, and not
//! in the manifest, which never is.

use std::collections::BTreeMap;

use crate::engine::postgres::layout;
use crate::engine::restoring::SavedSnapshot;
use crate::platform::error::{Error, Result};
use crate::platform::json;
use crate::snapshots::manifest::{PostgresFacts, RoleFacts};

/// Returns the settings of all roles that have some, as they are stored in the archive.
pub(super) fn to_json(roles: &[RoleFacts]) -> Vec<u8> {
    let settings: BTreeMap<&String, &Vec<String>> =
        roles.iter().filter(|role| !role.settings.is_empty()).map(|role| (&role.name, &role.settings)).collect();
    let mut json = serde_json::to_vec_pretty(&settings).expect("the names of roles are strings");
    json.push(b'\n');
    json
}

/// Returns the definitions of the roles of a snapshot, with their settings.
pub(super) fn definitions(snapshot: &dyn SavedSnapshot, facts: &PostgresFacts) -> Result<Vec<RoleFacts>> {
    let mut roles = facts.role_definitions.clone();
    if roles.is_empty() {
        return Ok(roles);
    }
    let bytes = snapshot.read(layout::ROLE_SETTINGS, layout::MAX_ROLE_SETTINGS_BYTES)?;
    let mut settings: BTreeMap<String, Vec<String>> = json::parse(&bytes, layout::MAX_ROLE_SETTINGS_COMMAS)
        .map_err(|error| Error::problem("cannot parse the settings of the roles").because(error))?;
    for role in &mut roles {
        role.settings = settings.remove(&role.name).unwrap_or_default();
    }
    Ok(roles)
}
