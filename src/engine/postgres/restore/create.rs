//! Makes a schema of its items, and unmakes it.

use crate::engine::postgres::schema::option_text::{self, OptionText};
use crate::engine::postgres::schema::{Item, Kind, Section, options};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::platform::error::{self, Error, Result, one_line};
use crate::platform::interrupt;

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
        execute(session, item, statement).map_err(|error| {
            let error = error.context(format!("cannot make the {}", shown(item)));
            let is_timescale = item.kind == Kind::Extension && item.name == timescale::EXTENSION;
            if is_timescale { error.hint(WITHOUT_TIMESCALE) } else { error }
        })?;
    }
    Ok(())
}

/// Runs a statement of an item. If the server rejects an option that it sets, it is run without that option, and a warning
/// says so: options tune a database, and its rows do not depend on them.
fn execute(session: &mut Session, item: &Item, statement: &str) -> Result<()> {
    if !options::has_options(item.kind) || option_text::options(statement).is_empty() {
        return session.execute(statement);
    }
    // Inside a transaction, a statement that fails takes everything before it along, unless there is a savepoint.
    let in_transaction = session.is_in_transaction();
    if in_transaction {
        session.execute("SAVEPOINT lifeboat_option")?;
    }
    let mut statement = statement.to_owned();
    while let Err(error) = session.execute(&statement) {
        let rejected = rejected_options(&statement, &error);
        if rejected.is_empty() {
            return Err(error);
        }
        if in_transaction {
            session.execute("ROLLBACK TO SAVEPOINT lifeboat_option")?;
        }
        let names: Vec<String> = rejected.iter().map(OptionText::full_name).collect();
        tracing::warn!(
            "the {} is restored without the option {}, which the server does not accept: {}",
            shown(item),
            one_line(&names.join(", ")),
            one_line(&error.message)
        );
        match option_text::without(&statement, |option| names.contains(&option.full_name())) {
            Some(rest) => statement = rest,
            None => break,
        }
    }
    if in_transaction { session.execute("RELEASE SAVEPOINT lifeboat_option") } else { Ok(()) }
}

/// The SQLSTATE invalid_parameter_value: an unknown option, or a value that the option does not take.
const INVALID_PARAMETER: &str = "22023";

/// The options of a statement that a server rejected: those that its message names. The message is in the server's
/// language, but names stay as they are.
fn rejected_options(statement: &str, error: &Error) -> Vec<OptionText> {
    if sqlstate(error).as_deref() != Some(INVALID_PARAMETER) {
        return Vec::new();
    }
    let is_part_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let is_named = |name: &str| {
        error.message.match_indices(name).any(|(at, _)| {
            let (before, after) = (&error.message[..at], &error.message[at + name.len()..]);
            !before.ends_with(is_part_of_name) && !after.starts_with(is_part_of_name)
        })
    };
    let is_rejected = |option: &OptionText| is_named(&option.name) || option.namespace.as_deref().is_some_and(is_named);
    option_text::options(statement).into_iter().filter(is_rejected).collect()
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
    let left = crate::engine::postgres::restore::contents::contents(session)?;
    if left.is_empty() { Ok(()) } else { Err(Error::failed(format!("still there: {}", left.join(", ")))) }
}

/// An item as messages name it.
pub(in crate::engine::postgres) fn shown(item: &Item) -> String {
    let name = match &item.schema {
        Some(schema) => format!("{schema}.{}", item.name),
        None => item.name.clone(),
    };
    format!("{} {}", item.kind.words(), one_line(&name))
}
