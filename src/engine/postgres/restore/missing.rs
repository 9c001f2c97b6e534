//! Names the roles and tablespaces that a snapshot needs and a server lacks.

use crate::engine::postgres::restore::tablespaces;
use crate::engine::postgres::restore::target::Server;
use crate::engine::postgres::wire::params::Params;
use crate::platform::error::{Result, one_line};
use crate::snapshots::manifest::PostgresFacts;

/// Returns them, each with its kind in words.
pub(in crate::engine::postgres) fn missing(params: &Params, facts: &PostgresFacts) -> Result<Vec<String>> {
    let mut server = Server::connect(params)?;
    let roles = server.missing_roles(facts)?.into_iter().map(|name| format!("role {}", one_line(&name)));
    let spaces = tablespaces::missing(&mut server, facts)?;
    Ok(roles.chain(spaces.into_iter().map(|name| format!("tablespace {}", one_line(&name)))).collect())
}
