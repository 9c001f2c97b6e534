//! An existing, empty database that is filled. While the work is not done, its comment has a mark; if the work fails, what
//! was restored is dropped again, and the database is as empty as before.

use super::contents::contents;
use super::create;
use super::existing::{self, session};
use super::target::{self, Mark, Server};
use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::schema::{Item, provided};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::PostgresFacts;

/// A database that is being filled.
pub(super) struct Filling<'a> {
    params: &'a Params,
    /// The comment that the database had before.
    comment: Option<&'a str>,
    /// The objects that are created, without those that exist.
    items: Vec<Item>,
    /// The provider whose objects the database may have.
    provider: Option<Provider>,
    /// The session that marks the database.
    server: Option<Server>,
    /// The session that drops what was restored.
    cleanup: Option<Session>,
}

impl<'a> Filling<'a> {
    /// Marks the database for a snapshot that this host restores. Fails if it is not empty, or if another run fills it.
    pub(super) fn begin(
        params: &'a Params,
        items: &[Item],
        facts: Option<&PostgresFacts>,
        comment: Option<&'a str>,
        (snapshot, host): (&str, &str),
    ) -> Result<Self> {
        let provider = facts.and_then(provided::of);
        let mut first = session(params, Session::connect)?;
        let items = existing::leave_alone(&mut first, items)?;
        if let Some(facts) = facts {
            existing::warn_about_extensions(&mut first, facts)?;
        }
        drop(first);
        let mut server = Server::connect(params)?;
        // This session is opened at the start: a server whose disk is full accepts no new sessions ("could not write
        // init file"), and then all that remains is to remove what filled the disk.
        let mut cleanup = session(params, Session::connect_for_cleanup).ok();
        // If the server did not accept this session, it accepts no other besides the one that builds.
        if let Some(session) = &mut cleanup {
            lock(session, params)?;
        }
        server.mark(params.database(), &Mark::new(target::FILL, snapshot, host))?;
        let server = cleanup.is_some().then_some(server);
        let mut filling = Filling { params, comment, items, provider, server, cleanup };
        match filling.require_empty() {
            Ok(()) => Ok(filling),
            Err(error) => {
                filling.keep()?;
                Err(error)
            }
        }
    }

    /// Fails if the database has got contents since it was inspected.
    fn require_empty(&mut self) -> Result<()> {
        let found = match &mut self.cleanup {
            Some(session) => contents(session, self.provider)?,
            None => contents(&mut session(self.params, Session::connect)?, self.provider)?,
        };
        if found.is_empty() {
            return Ok(());
        }
        let (shown, found) = (one_line(&self.params.shown()), one_line(&found.join(", ")));
        Err(Error::usage(format!("the database {shown} is not empty any more: it has {found}"))
            .hint("another program uses it; name a database that nothing else uses"))
    }

    /// Returns the objects that are to be created.
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    fn server(&mut self) -> Result<Server> {
        self.server.take().map_or_else(|| Server::connect_for_cleanup(self.params), Ok)
    }

    /// Removes the mark from the finished database.
    pub(super) fn keep(mut self) -> Result<()> {
        self.cleanup = None;
        self.server()?.unmark(self.params.database(), self.comment)
    }

    /// Drops everything that was restored, and removes the mark. Returns a sentence about the state of the database, and
    /// the error if it is not empty.
    pub(super) fn clear(mut self) -> (String, Result<()>) {
        let shown = one_line(&self.params.shown());
        let cleared = match self.cleanup.as_mut().map(|session| create::drop_items(session, &self.items, self.provider))
        {
            Some(Ok(())) => Ok(()),
            // The session was ended meanwhile, or was never opened.
            _ => session(self.params, Session::connect_for_cleanup)
                .and_then(|mut session| create::drop_items(&mut session, &self.items, self.provider)),
        };
        self.cleanup = None;
        let incomplete = format!("{shown} is left incomplete, and is marked so in its comment: drop it");
        let name = self.params.database();
        let mut server = match self.server() {
            Ok(server) => server,
            Err(why) => {
                tracing::warn!("cannot remove the mark: {}", why.full_message());
                return (incomplete, Err(why));
            }
        };
        match cleared.and_then(|()| server.unmark(name, self.comment)) {
            Ok(()) => (format!("{shown} is empty again"), Ok(())),
            Err(why) if matches!(server.find_database(name), Ok(None)) => {
                (format!("{shown} was dropped by another session"), Err(why))
            }
            Err(why) => {
                tracing::warn!("cannot drop the restored objects: {}", why.full_message());
                (incomplete, Err(why))
            }
        }
    }

    /// Clears the database after the restore has failed, and adds its state to the error.
    pub(super) fn clear_after(mut self, error: Error) -> Error {
        // An object that existed already is that of another program.
        if sqlstate(&error).is_some_and(|code| DUPLICATES.contains(&code.as_str())) {
            let message = error.full_message();
            let failed = |item: &&mut Item| message.contains(&format!("cannot create the {}: ", create::shown(item)));
            self.items.iter_mut().filter(failed).for_each(|item| item.identity.clear());
        }
        let (state, _) = self.clear();
        error.context(format!("the restore failed; {state}"))
    }
}

/// The SQLSTATEs of statements that fail because an object exists: duplicate_table, duplicate_object, duplicate_function,
/// duplicate_schema, and unique_violation in a catalog.
const DUPLICATES: [&str; 5] = ["42P07", "42710", "42723", "42P06", "23505"];

/// Locks the database against other runs that would fill it, until the session ends.
fn lock(session: &mut Session, params: &Params) -> Result<()> {
    let row = session.row(&format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK}) AS locked"))?;
    if row.flag("locked")? { Ok(()) } else { Err(target::incomplete(&one_line(&params.shown()))) }
}

/// The key of the advisory lock: the first letters of the program's name.
const LOCK: i64 = 0x6c69_6665_626f_6174;
