//! Makes a schema of its items, and unmakes it.

use super::catalog::{Item, Kind, Section};
use super::session::Session;
use super::timescale;
use crate::error::{self, Error, Result, one_line};
use crate::interrupt;

/// Whether owners and grants are set as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As they were.
    Keep,
    /// All belongs to the role that restores.
    Leave,
}

/// Makes the items of a section, one after the other.
pub fn make(session: &mut Session, items: &[Item], section: Section, owners: Owners) -> Result<()> {
    items.iter().filter(|item| item.section == section).try_for_each(|item| make_one(session, item, owners))
}

/// Makes one item: its statements, its owner, its comments.
pub fn make_one(session: &mut Session, item: &Item, owners: Owners) -> Result<()> {
    interrupt::check()?;
    let set_owner: &[String] = if owners == Owners::Keep { &item.set_owner } else { &[] };
    for statement in item.create.iter().chain(set_owner).chain(&item.comments) {
        session.execute(statement).map_err(|error| {
            let error = error.context(format!("cannot make the {}", shown(item)));
            let is_timescale = item.kind == Kind::Extension && item.name == timescale::EXTENSION;
            if is_timescale { error.hint(WITHOUT_TIMESCALE) } else { error }
        })?;
    }
    Ok(())
}

/// Whoever has the extension installed may yet not have it loaded.
const WITHOUT_TIMESCALE: &str =
    "let the server load it (shared_preload_libraries), or make ordinary tables of what needs it with --plain-tables";

/// Grants what the items grant.
pub fn grant(session: &mut Session, items: &[Item]) -> Result<()> {
    for item in items {
        for statement in &item.grants {
            session
                .execute(statement)
                .map_err(|error| error.context(format!("cannot set the privileges of the {}", shown(item))))?;
        }
    }
    Ok(())
}

/// Makes the items that set what belongs to the database itself.
pub fn apply_settings(session: &mut Session, items: &[Item]) -> Result<()> {
    items.iter().try_for_each(|item| make_one(session, item, Owners::Keep))?;
    grant(session, items)
}

/// Takes away what a failed restore has made in a database that was empty; an error where something is left.
pub fn unmake(session: &mut Session, items: &[Item]) -> Result<()> {
    for item in items.iter().rev() {
        let statement = match item.kind {
            Kind::LargeObject => format!("SELECT pg_catalog.lo_unlink({})", item.oid),
            Kind::Schema if item.name == "public" => continue,
            _ if item.identity.is_empty() || item.identity.contains(" ON ") => continue,
            // Not made yet, or gone with what it hung on: what is left is looked for at the end.
            _ => format!("DROP {} CASCADE", item.identity),
        };
        if let Err(error) = session.execute(&statement) {
            // Nobody answers any more, or there is no time for it.
            if matches!(error.kind, error::Kind::Unreachable | error::Kind::Interrupted) {
                return Err(error);
            }
            tracing::debug!("{}", error.whole());
        }
    }
    let left = super::target::contents(session)?;
    if left.is_empty() { Ok(()) } else { Err(Error::failed(format!("still there: {}", left.join(", ")))) }
}

/// An item as messages name it.
pub(super) fn shown(item: &Item) -> String {
    let name = match &item.schema {
        Some(schema) => format!("{schema}.{}", item.name),
        None => item.name.clone(),
    };
    format!("{} {}", item.kind.words(), one_line(&name))
}
