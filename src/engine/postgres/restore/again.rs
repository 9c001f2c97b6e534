//! Creates objects again whose code has failed: once other objects are there, and then with the settings that the database
//! has for its own sessions.
//!
//! Functions of indexes, checks and materialized views may need objects that the catalogs do not name: another
//! materialized view, a helper that they find by `search_path`.

use crate::engine::postgres::copy::retry::may_succeed_later;
use crate::engine::postgres::restore::create::{Owners, create_rest_of_item, runs_as, runs_as_owner, shown};
use crate::engine::postgres::restore::own_settings::{OwnSettings, Settings};
use crate::engine::postgres::schema::Item;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};

/// An object that is not created, because its code has failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// Its place in the list of items.
    pub(super) item: usize,
    /// The number of its statements that have been run.
    done: usize,
    /// The reason.
    pub(super) error: Error,
}

/// Creates an item. Returns it if its code has failed; then it may be tried again.
pub(super) fn try_item(session: &mut Session, item: &Item, owners: Owners) -> Result<Option<Failed>> {
    let mut done = 0;
    match attempt(session, item, owners, &mut done, None)? {
        Some(error) => {
            tracing::debug!("creating it later: {}", error.full_message());
            Ok(Some(Failed { item: item.id, done, error }))
        }
        None => Ok(None),
    }
}

/// Tries to create the items, again and again while the number of those that fail becomes smaller. `own` has the settings
/// of the database, once they were needed. Returns the items that fail.
pub(super) fn create_again(
    session: &mut Session,
    items: &[Item],
    owners: Owners,
    mut failed: Vec<Failed>,
    own: &mut Option<OwnSettings>,
) -> Result<Vec<Failed>> {
    failed.sort_by_key(|failed| failed.item);
    while !failed.is_empty() {
        let before = failed.len();
        let mut rest = Vec::new();
        for one in failed {
            rest.extend(again(session, items, owners, one, own)?);
        }
        failed = rest;
        if failed.len() == before {
            break;
        }
    }
    Ok(failed)
}

fn again(
    session: &mut Session,
    items: &[Item],
    owners: Owners,
    mut failed: Failed,
    own: &mut Option<OwnSettings>,
) -> Result<Option<Failed>> {
    let item = &items[failed.item];
    match attempt(session, item, owners, &mut failed.done, None)? {
        Some(error) => failed.error = error,
        None => return Ok(None),
    }
    let own = match own {
        Some(own) => own,
        None => own.insert(OwnSettings::read(session, items)?),
    };
    let role = runs_as(session, item, owners)?;
    for settings in own.of(item.owner.as_deref().unwrap_or(&role)) {
        if let Some(other) = settings.obstacle(session, &role, item.owner.as_deref(), items, owners)? {
            tracing::warn!(
                "the {} is not created with search_path = {}: functions of {} would run with the rights of {}",
                shown(item),
                one_line(&settings.path()),
                one_line(&other),
                one_line(&role)
            );
            continue;
        }
        match attempt(session, item, owners, &mut failed.done, Some(&settings))? {
            Some(error) => failed.error = error,
            None => {
                tracing::info!("the {} is created with search_path = {}", shown(item), one_line(&settings.path()));
                return Ok(None);
            }
        }
    }
    Ok(Some(failed))
}

/// Runs the statements of an item that have not been run. Returns the reason if its code has failed.
fn attempt(
    session: &mut Session,
    item: &Item,
    owners: Owners,
    done: &mut usize,
    settings: Option<&Settings>,
) -> Result<Option<Error>> {
    let in_transaction = session.is_in_transaction();
    let before = *done;
    if in_transaction {
        session.execute("SAVEPOINT lifeboat_item")?;
    }
    let created = match settings {
        Some(settings) => {
            let in_session = !runs_as_owner(session, item, owners)?;
            let path = settings.path();
            settings.run(session, in_session, |session| create_rest_of_item(session, item, owners, done, Some(&path)))
        }
        None => create_rest_of_item(session, item, owners, done, None),
    };
    match created {
        Ok(()) if in_transaction => session.execute("RELEASE SAVEPOINT lifeboat_item").map(|()| None),
        Ok(()) => Ok(None),
        Err(error) if may_succeed_later(&error) => {
            if in_transaction {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_item")?;
                *done = before;
            }
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}
