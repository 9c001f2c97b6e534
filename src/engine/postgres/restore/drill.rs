//! Tries the restore of a snapshot in a database that this program creates and drops again.

use super::build::Build;
use super::create::Owners;
use super::items::{leave_out_items_of_missing_roles, read_items};
use super::target::{self, Mark, Server};
use super::whole::warn_about_dropped;
use crate::engine::context::EngineContext;
use crate::engine::postgres::wire::params::Params;
use crate::engine::restoring::SavedSnapshot;
use crate::platform::error::{Error, Kind, Result};

/// Restores a snapshot into a database that this program creates, compares it, and drops it.
///
/// If the rows differ from those that were saved, returns the difference as `Some(error)`: it is not damage of the
/// archive, every byte of which was hashed while it was read.
pub(in crate::engine::postgres) fn drill(
    snapshot: &dyn SavedSnapshot,
    params: &Params,
    owners: Owners,
    context: &EngineContext,
) -> Result<Option<Error>> {
    let manifest = snapshot.manifest();
    let not_postgres = || Error::problem("its manifest does not describe a PostgreSQL snapshot");
    let facts = manifest.postgres.as_ref().ok_or_else(not_postgres)?;
    let mut server = Server::connect(params)?;
    warn_about_dropped(&server.drop_left_over(&context.host)?);
    let obstacles = server.obstacles(facts, owners)?;
    if !obstacles.is_empty() {
        return Err(target::cannot_restore(&obstacles));
    }
    let mut items = read_items(snapshot)?;
    if owners == Owners::Leave {
        leave_out_items_of_missing_roles(&mut items, &server.missing_roles(facts)?);
    }
    let scratch = target::scratch_name(&context.host)?;
    let mark = Mark::new("drill", &manifest.id.to_string(), &context.host);
    server.create(&scratch, &facts.database, &mark)?;
    let new = params.with_database(&scratch);
    let build = Build { snapshot, items: &items, owners, params: &new, context, plain: false };
    let drilled = build.run(Some(&mark)).and_then(|_| match build.compare(context.jobs) {
        Err(error) if error.kind == Kind::Problem => Ok(Some(error)),
        other => other.map(|()| None),
    });
    let dropped = server.drop(&scratch);
    drilled.and_then(|different| dropped.map(|()| different))
}
