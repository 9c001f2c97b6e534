//! Creates a schema from its items.

use super::created;
use crate::engine::postgres::copy::as_owner;
use crate::engine::postgres::copy::plans;
use crate::engine::postgres::schema::option_text::{self, OptionText};
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{Item, Kind, Section, options};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::session::{INSUFFICIENT_PRIVILEGE, Session, sqlstate};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// The owners and grants of restored objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Owners and grants are set as in the source.
    Keep,
    /// All objects belong to the role that restores.
    Leave,
}

/// Creates the items of a section, one after the other.
pub(crate) fn create_section(session: &mut Session, items: &[Item], section: Section, owners: Owners) -> Result<()> {
    items.iter().filter(|item| item.section == section).try_for_each(|item| create_item(session, item, owners))
}

/// Creates one item: runs its statements, sets its owner, adds its comments.
pub(crate) fn create_item(session: &mut Session, item: &Item, owners: Owners) -> Result<()> {
    create_rest_of_item(session, item, owners, &mut 0, None)
}

/// Creates an item without the first `done` statements, which have been run, and adds those that it runs to `done`. With a
/// `search_path`, code that runs with the rights of the item's owner finds functions there.
pub(super) fn create_rest_of_item(
    session: &mut Session,
    item: &Item,
    owners: Owners,
    done: &mut usize,
    path: Option<&str>,
) -> Result<()> {
    interrupt::check()?;
    let unchecked = unchecked(session, item, owners)?;
    let create = unchecked.as_ref().map_or(&item.create, |(create, _)| create);
    let set_owner: &[String] = if owners == Owners::Keep { &item.set_owner } else { &[] };
    if let Some(tablespace) = &item.tablespace {
        session.execute(&format!("SET default_tablespace = {}", literal(tablespace)))?;
    }
    let mut run = || -> Result<()> {
        for statement in create.iter().chain(set_owner).chain(&item.comments).skip(*done) {
            let created = match code_owner(session, item, owners, statement)? {
                Some(owner) => execute_as_or_by_session(session, item, owner, path, statement),
                None => execute_again(session, item, statement),
            };
            match created {
                Err(error) if is_not_permitted(&error) && may_be_of_others(item) && !session.is_in_transaction() => {
                    warn_about_rights(item, &error);
                }
                created => created.map_err(|error| cannot_create(item, error))?,
            }
            *done += 1;
        }
        Ok(())
    };
    let created = run();
    // A transaction that has failed resets it by itself.
    if item.tablespace.is_some() && (created.is_ok() || !session.is_in_transaction()) {
        session.execute("SET default_tablespace = ''")?;
    }
    created?;
    if let (Some((_, statement)), Some(owner)) = (unchecked, &item.owner) {
        validate(session, item, owner, path, &statement)
            .map_err(|error| error.context(format!("cannot create the {}", shown(item))))?;
    }
    Ok(())
}

/// Returns the owner of an item if a statement that creates it runs code of the owner, who has fewer rights than the session.
/// The server evaluates the expression of a generated column when a table is created, and a check when it is added, if they
/// call functions with constant arguments.
fn code_owner<'a>(
    session: &mut Session,
    item: &'a Item,
    owners: Owners,
    statement: &str,
) -> Result<Option<&'a String>> {
    let runs_code = match item.kind {
        Kind::Table | Kind::ForeignTable => {
            statement.starts_with("CREATE ") && statement.contains(" GENERATED ALWAYS AS (")
                || statement.starts_with("ALTER ") && statement.contains(" CHECK (")
        }
        Kind::Check => statement.starts_with("ALTER DOMAIN "),
        _ => false,
    };
    match &item.owner {
        Some(owner) if runs_code && owners == Owners::Keep && as_owner::has_fewer_rights(session, owner)? => {
            Ok(Some(owner))
        }
        _ => Ok(None),
    }
}

/// Runs a statement with the rights of the item's owner. If these do not suffice, because it inherits from a table of another
/// role or uses a server of another role, the session itself runs it, unless that would run code of users.
fn execute_as_or_by_session(
    session: &mut Session,
    item: &Item,
    owner: &str,
    path: Option<&str>,
    statement: &str,
) -> Result<()> {
    let in_transaction = session.is_in_transaction();
    if in_transaction {
        session.execute("SAVEPOINT lifeboat_owner")?;
    }
    match execute_as(session, item, owner, path, statement) {
        Err(error) if is_not_permitted(&error) => {
            if in_transaction {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_owner")?;
            }
            if calls_only_the_server(session, statement)? {
                execute_again(session, item, statement)
            } else {
                Err(error)
            }
        }
        Ok(()) if in_transaction => session.execute("RELEASE SAVEPOINT lifeboat_owner"),
        done => done,
    }
}

/// Returns true if the columns of a table that is created name nothing but objects of the server, and if no cast of the
/// database calls a function of a user: these are not shown in expressions.
fn calls_only_the_server(session: &mut Session, statement: &str) -> Result<bool> {
    let is_created = statement.starts_with("CREATE TABLE ") || statement.starts_with("CREATE FOREIGN TABLE ");
    let Some((_, columns)) = statement.split_once(" (").filter(|_| is_created) else { return Ok(false) };
    // The names of the parents have dots. A text in a column could look like the start of their list.
    let (columns, parents) = columns.rsplit_once("\nINHERITS (").unwrap_or((columns, ""));
    if columns.contains('.') || [" GENERATED ", " CHECK ("].iter().any(|code| parents.contains(code)) {
        return Ok(false);
    }
    session
        .row("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_cast WHERE castfunc::pg_catalog.oid >= 16384) AS is")?
        .flag("is")
}

/// Runs a statement with the rights of the item's owner, who gets the privileges that this takes for that time.
fn execute_as(session: &mut Session, item: &Item, owner: &str, path: Option<&str>, statement: &str) -> Result<()> {
    in_one_transaction(session, |session| {
        // The owner may not be allowed to use the tablespace.
        if item.tablespace.is_some() {
            session.execute("SET default_tablespace = ''")?;
        }
        let lent = as_owner::lend_for_creation(session, owner, item.schema.as_deref().unwrap_or_default())?;
        match path {
            Some(path) => as_owner::run_in_path(session, owner, path, statement)?,
            None => as_owner::run(session, owner, statement)?,
        }
        created::record(session, item, statement)?;
        if let Some(tablespace) = item.tablespace.as_ref().filter(|_| statement.starts_with("CREATE TABLE ")) {
            session.execute(&format!("ALTER {} SET TABLESPACE {}", item.identity, ident(tablespace)))?;
        }
        lent.take_back(session)
    })
}

/// Returns the error for an item that cannot be created.
fn cannot_create(item: &Item, error: Error) -> Error {
    let needs_administrator = item.kind == Kind::Extension && is_not_permitted(&error);
    let error = error.context(format!("cannot create the {}", shown(item)));
    match item.kind {
        Kind::Extension if item.name == timescale::EXTENSION => error.hint(WITHOUT_TIMESCALE),
        Kind::Extension if needs_administrator => error.hint(WITH_ADMINISTRATOR),
        _ => error,
    }
}

/// The hint for an extension that the role may not create.
const WITH_ADMINISTRATOR: &str = "let an administrator create the extension in an empty database, and restore (or drill) with \
     --to that database: extensions that exist are left as they are";

fn is_not_permitted(error: &Error) -> bool {
    sqlstate(error).as_deref() == Some(INSUFFICIENT_PRIVILEGE)
}

/// Returns true for what a restore finds in a new database, which may belong to another role there: a role that is no
/// superuser sets its properties as far as it may.
fn may_be_of_others(item: &Item) -> bool {
    match item.kind {
        Kind::SystemPrivileges => true,
        Kind::DatabaseSetting => item.name != "owner",
        Kind::Schema => item.exists || item.name == "public",
        _ => item.exists,
    }
}

fn warn_about_rights(item: &Item, error: &Error) {
    tracing::warn!(
        "not set, because the role may not: a property of the {} ({})",
        shown(item),
        one_line(&error.message)
    );
}

/// Returns true if the session itself runs the code of an item with the rights of its owner.
pub(super) fn runs_as_owner(session: &mut Session, item: &Item, owners: Owners) -> Result<bool> {
    if unchecked(session, item, owners)?.is_some() {
        return Ok(true);
    }
    for statement in &item.create {
        if code_owner(session, item, owners, statement)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the role with whose rights the server runs the code of an item that is created: the functions in indexes and
/// materialized views run with those of their owner.
pub(super) fn runs_as(session: &mut Session, item: &Item, owners: Owners) -> Result<String> {
    let by_server =
        matches!(item.kind, Kind::Index | Kind::IndexAttach | Kind::Constraint | Kind::ForeignKey | Kind::Refresh);
    Ok(match &item.owner {
        Some(owner) if owners == Owners::Keep && by_server => owner.clone(),
        Some(owner) if runs_as_owner(session, item, owners)? => owner.clone(),
        _ => session.about().user.clone(),
    })
}

/// Returns the statements that create a check or a foreign key without applying it to the rows, and the statement that then
/// does so. Returns `None` if it may be applied with the rights of the session: that calls no functions of a role with fewer.
fn unchecked(session: &mut Session, item: &Item, owners: Owners) -> Result<Option<(Vec<String>, String)>> {
    let (Owners::Keep, Some(owner), [statement]) = (owners, &item.owner, &item.create[..]) else { return Ok(None) };
    let name = ident(&item.name);
    let Some(table) = item.identity.strip_prefix(&format!("CONSTRAINT {name} ON ")) else { return Ok(None) };
    let is_applied = match item.kind {
        Kind::Check => statement.starts_with("ALTER TABLE ") && statement.contains(" CHECK ("),
        // Servers before version 18 always apply the key of a partitioned table.
        Kind::ForeignKey => statement.starts_with("ALTER TABLE ONLY "),
        _ => false,
    };
    if !is_applied || statement.ends_with(" NOT VALID") || statement.ends_with(" NOT ENFORCED") {
        return Ok(None);
    }
    if !as_owner::has_fewer_rights(session, owner)? {
        return Ok(None);
    }
    // The rows of both tables are read by a query.
    if item.kind == Kind::ForeignKey && plans::tables_with_code(session)?.is_empty() {
        return Ok(None);
    }
    Ok(Some((vec![format!("{statement} NOT VALID")], format!("ALTER TABLE {table} VALIDATE CONSTRAINT {name}"))))
}

/// Applies a check or a foreign key to the rows with the rights of the table's owner.
fn validate(session: &mut Session, item: &Item, owner: &str, path: Option<&str>, statement: &str) -> Result<()> {
    let run = |session: &mut Session| match path {
        Some(path) => as_owner::run_in_path(session, owner, path, statement),
        None => as_owner::run(session, owner, statement),
    };
    if item.kind != Kind::ForeignKey {
        return run(session);
    }
    // The query names the other table with its schema.
    in_one_transaction(session, |session| {
        let lent = as_owner::lend_for_creation(session, owner, "")?;
        run(session)?;
        lent.take_back(session)
    })
}

/// Runs some work in a transaction: in that of the session, if it has one.
fn in_one_transaction(session: &mut Session, work: impl FnOnce(&mut Session) -> Result<()>) -> Result<()> {
    if session.is_in_transaction() {
        return work(session);
    }
    session.execute("BEGIN")?;
    match work(session) {
        Ok(()) => session.execute("COMMIT"),
        Err(error) => {
            let _ = session.execute("ROLLBACK");
            Err(error)
        }
    }
}

/// Drops a check or a foreign key that was created, but that the rows were not tested against because its code fails.
pub(super) fn drop_unchecked(session: &mut Session, item: &Item) -> Result<()> {
    let name = ident(&item.name);
    match item.identity.strip_prefix(&format!("CONSTRAINT {name} ON ")) {
        Some(table) if matches!(item.kind, Kind::Check | Kind::ForeignKey) && !table.starts_with("DOMAIN ") => {
            session.execute(&format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}"))
        }
        _ => Ok(()),
    }
}

/// The SQLSTATE deadlock_detected.
const DEADLOCK: &str = "40P01";
/// The number of times that a statement is run if it is the victim of a deadlock.
const MOST_ATTEMPTS: u32 = 5;

/// Runs a statement of an item, again if it was the victim of a deadlock. Objects are created on several sessions at a
/// time, and autovacuum works beside them; the other side of a deadlock goes on, so that the next attempt can succeed.
fn execute_again(session: &mut Session, item: &Item, statement: &str) -> Result<()> {
    let mut attempt = 1;
    loop {
        match execute(session, item, statement) {
            Err(error)
                if sqlstate(&error).as_deref() == Some(DEADLOCK)
                    && attempt < MOST_ATTEMPTS
                    && !session.is_in_transaction() =>
            {
                tracing::debug!("{}: trying again", error.full_message());
                attempt += 1;
            }
            done => return done,
        }
    }
}

/// Runs a statement of an item. If the server rejects an option that it sets, the statement is run without that option
/// and a warning is logged: options tune a database, and its rows do not depend on them.
fn execute(session: &mut Session, item: &Item, statement: &str) -> Result<()> {
    if item.kind == Kind::DatabaseSetting {
        return execute_setting(session, item, statement);
    }
    if !options::has_options(item.kind) || option_text::options(statement).is_empty() {
        return created::execute(session, item, statement);
    }
    // Inside a transaction, a failed statement aborts everything before it, unless there is a savepoint.
    let in_transaction = session.is_in_transaction();
    if in_transaction {
        session.execute("SAVEPOINT lifeboat_option")?;
    }
    let mut statement = statement.to_owned();
    while let Err(error) = created::execute(session, item, &statement) {
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

/// Runs a statement that sets a property of the database. A setting that the server does not know, or whose value it does
/// not accept, is left out with a warning: another major version or another build of the server may have had it.
fn execute_setting(session: &mut Session, item: &Item, statement: &str) -> Result<()> {
    let error = match session.execute(statement) {
        Err(error) if !session.is_in_transaction() && item.name.starts_with("settings") => error,
        done => return done,
    };
    match sqlstate(&error).as_deref() {
        Some(UNDEFINED_OBJECT | INVALID_NAME | INVALID_PARAMETER) => {
            let message = one_line(&error.message);
            tracing::warn!("the {} are restored without one, which the server does not accept: {message}", item.name);
            Ok(())
        }
        _ => Err(error),
    }
}

/// The SQLSTATE undefined_object, also of a setting.
const UNDEFINED_OBJECT: &str = "42704";
/// The SQLSTATE invalid_name: an extension that is loaded has no such setting.
const INVALID_NAME: &str = "42602";

/// The SQLSTATE invalid_parameter_value: an unknown option, or a value that the option does not accept.
const INVALID_PARAMETER: &str = "22023";

/// Returns the options of a statement that the server rejected: those that its error message names. The message is in
/// the server's language, but names are not translated.
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

/// A server may have the extension installed, but not loaded.
const WITHOUT_TIMESCALE: &str =
    "add it to shared_preload_libraries of the server, or restore ordinary tables instead with --plain-tables";

/// Runs the grants of the items.
///
/// The server only warns about privileges that the role may not grant or revoke. One warning of this program counts these.
pub(crate) fn grant(session: &mut Session, items: &[Item]) -> Result<()> {
    let _ = session.take_notices();
    let mut notices = Vec::new();
    let granted = grant_each(session, items, &mut notices);
    warn_about_privileges(&notices);
    granted
}

/// Runs the grants of the items, and adds what the server says about them to `notices`.
fn grant_each(session: &mut Session, items: &[Item], notices: &mut Vec<String>) -> Result<()> {
    for item in items {
        let mut as_grantor = false;
        for statement in &item.grants {
            match session.execute(statement) {
                Err(error) if is_not_permitted(&error) && may_be_of_others(item) && !session.is_in_transaction() => {
                    warn_about_rights(item, &error);
                    // The statements after it would be granted by the wrong role.
                    break;
                }
                done => {
                    done.map_err(|error| error.context(format!("cannot set the privileges of the {}", shown(item))))?
                }
            }
            as_grantor = statement.starts_with("SET ROLE ") || as_grantor && statement != RESET_ROLE;
        }
        if as_grantor {
            session.execute(RESET_ROLE)?;
        }
        notices.extend(session.take_notices().iter().map(|notice| format!("{}: {}", shown(item), one_line(notice))));
    }
    Ok(())
}

/// Warns about privileges that were not set: the first ones by name, and the number of all. An extension may have hundreds.
fn warn_about_privileges(notices: &[String]) {
    const NAMED: usize = 3;
    let Some(rest) = notices.len().checked_sub(NAMED) else {
        notices.iter().for_each(|notice| tracing::warn!("while privileges were set: {notice}"));
        return;
    };
    let more = if rest > 0 { format!("; and {rest} more, which -v shows") } else { String::new() };
    tracing::warn!("while privileges were set: {}{more}", notices[..NAMED].join("; "));
    notices[NAMED..].iter().for_each(|notice| tracing::info!("while privileges were set: {notice}"));
}

const RESET_ROLE: &str = "RESET ROLE";

/// Runs those grants that the code of tables may need while it runs with the rights of their owners: it may call functions and
/// read tables of others. All privileges are set at the end, where these grants are run again.
pub(crate) fn grant_for_code(session: &mut Session, items: &[Item]) -> Result<()> {
    let has_code = items.iter().any(|item| matches!(item.kind, Kind::Function | Kind::Procedure | Kind::Aggregate));
    if !has_code || !as_owner::is_superuser(session)? {
        return Ok(());
    }
    for item in items.iter().filter(|item| item.section == Section::Pre && !item.kind.is_of_database()) {
        // The order of a list of privileges is kept. It would change if the owner's own were taken away after these.
        let is_reordered =
            |statement: &String| statement.starts_with("REVOKE ") && !statement.ends_with(" FROM PUBLIC");
        if item.kind == Kind::LargeObject || item.grants.iter().any(is_reordered) {
            continue;
        }
        // Those of other grantors need their order.
        let own = item.grants.iter().take_while(|statement| !statement.starts_with("SET ROLE "));
        for statement in own.filter(|statement| statement.starts_with("GRANT ")) {
            session
                .execute(statement)
                .map_err(|error| error.context(format!("cannot set the privileges of the {}", shown(item))))?;
        }
    }
    Ok(())
}

/// Creates the items that set the properties of the database itself.
pub(crate) fn apply_settings(session: &mut Session, items: &[Item]) -> Result<()> {
    items.iter().try_for_each(|item| create_item(session, item, Owners::Keep))?;
    grant(session, items)
}

/// Returns the kind and the name of an item, for messages.
pub(in crate::engine::postgres) fn shown(item: &Item) -> String {
    let name = match &item.schema {
        Some(schema) => format!("{schema}.{}", item.name),
        None => item.name.clone(),
    };
    format!("{} {}", item.kind.words(), one_line(&name))
}
