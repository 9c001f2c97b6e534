//! An existing, empty database that is filled. While the work is not done, its comment has a mark; if the work fails, what
//! was restored is dropped again, and the database is as before. What other programs have created meanwhile is left.

use super::before::Before;
use super::configuration;
use super::contents::contents;
use super::drop_created::drop_created;
use super::existing::{self, session};
use super::target::{self, Mark, Server};
use crate::engine::postgres::schema::Item;
use crate::engine::postgres::wire::created::Created;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::PostgresFacts;

/// The state of a database after what was restored was dropped.
pub(super) enum State {
    Empty,
    /// It has only these objects of other programs.
    WithOthers(Vec<String>),
    /// Something that was restored may be left.
    Incomplete,
    /// Another session has dropped it.
    Gone,
}

impl State {
    /// Returns a sentence about a database in this state.
    pub(super) fn sentence(&self, shown: &str) -> String {
        match self {
            State::Empty => format!("{shown} is empty again"),
            State::WithOthers(others) => {
                let others = one_line(&others.join(", "));
                format!("nothing of it is left in {shown}, which has objects of other programs: {others}")
            }
            State::Incomplete => {
                format!("{shown} is left incomplete, and is marked so in its comment: drop it")
            }
            State::Gone => format!("{shown} was dropped by another session"),
        }
    }
}

/// A database that is being filled.
pub(super) struct Filling<'a> {
    params: &'a Params,
    /// The comment that the database had before.
    comment: Option<&'a str>,
    /// The objects that are created, without those that exist.
    items: Vec<Item>,
    /// The objects that were created.
    created: Created,
    /// The properties that the database had before.
    before: Before,
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
        let mut first = session(params, Session::connect)?;
        let items = existing::leave_alone(&mut first, items)?;
        if let Some(facts) = facts {
            existing::warn_about_extensions(&mut first, facts)?;
        }
        let before = Before::read(&mut first, &items)?;
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
        let created = Created::default();
        let mut filling = Filling { params, comment, items, created, before, server, cleanup };
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
            Some(session) => contents(session, self.params.provider)?,
            None => contents(&mut session(self.params, Session::connect)?, self.params.provider)?,
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

    /// Returns the list to which the sessions that build add what they create.
    pub(super) fn created(&self) -> &Created {
        &self.created
    }

    fn server(&mut self) -> Result<Server> {
        self.server.take().map_or_else(|| Server::connect_for_cleanup(self.params), Ok)
    }

    /// Removes the mark from the finished database.
    pub(super) fn keep(mut self) -> Result<()> {
        self.cleanup = None;
        self.server()?.unmark(self.params.database(), self.comment)
    }

    /// Drops everything that was restored, and removes the mark. Returns the state of the database, and the error
    /// if something that was restored is left.
    pub(super) fn clear(mut self) -> (State, Result<()>) {
        let cleanup = self.cleanup.take();
        let cleared = match cleanup.map(|mut session| self.undo(&mut session)) {
            Some(Ok(others)) => Ok(others),
            // The session was ended meanwhile, or was never opened.
            _ => session(self.params, Session::connect_for_cleanup).and_then(|mut session| self.undo(&mut session)),
        };
        let name = self.params.database();
        let mut server = match self.server() {
            Ok(server) => server,
            Err(why) => {
                tracing::warn!("cannot remove the mark: {}", why.full_message());
                return (State::Incomplete, Err(why));
            }
        };
        match cleared.and_then(|others| server.unmark(name, self.comment).map(|()| others)) {
            Ok(others) if others.is_empty() => (State::Empty, Ok(())),
            Ok(others) => (State::WithOthers(others), Ok(())),
            Err(why) if matches!(server.find_database(name), Ok(None)) => (State::Gone, Err(why)),
            Err(why) => {
                tracing::warn!("cannot drop the restored objects: {}", why.full_message());
                (State::Incomplete, Err(why))
            }
        }
    }

    /// Drops what was restored, and deletes the rows that were loaded into tables of extensions that exist. Returns the objects
    /// of others, in words.
    fn undo(&self, session: &mut Session) -> Result<Vec<String>> {
        let created = self.created.list();
        let left = drop_created(session, &self.items, &created)?;
        let changed: Vec<&Item> = created.iter().map(|one| &self.items[one.item]).collect();
        self.before.put_back(session, &self.items, &changed)?;
        configuration::delete_rows(session, self.params.provider)?;
        if !left.is_empty() {
            return Err(Error::failed(format!("these objects still exist: {}", left.join(", "))));
        }
        contents(session, self.params.provider)
    }

    /// Clears the database after the restore has failed, and adds its state to the error.
    pub(super) fn clear_after(self, error: Error) -> Error {
        let shown = one_line(&self.params.shown());
        let (state, _) = self.clear();
        error.context(format!("the restore failed; {}", state.sentence(&shown)))
    }
}

/// Locks the database against other runs that would fill it, until the session ends.
fn lock(session: &mut Session, params: &Params) -> Result<()> {
    let row = session.row(&format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK}) AS locked"))?;
    if row.flag("locked")? { Ok(()) } else { Err(target::incomplete(&one_line(&params.shown()))) }
}

/// The key of the advisory lock: the first letters of the program's name.
const LOCK: i64 = 0x6c69_6665_626f_6174;
