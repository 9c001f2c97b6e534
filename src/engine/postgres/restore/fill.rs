//! An existing, empty database that is filled. While the work is not done, its comment has a mark; if the work fails, what
//! was restored is dropped again, and the database is as empty as before.

use super::create;
use super::existing;
use super::target::{self, Mark, Server};
use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::schema::{Item, provided};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Manifest;

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
    /// Marks the database.
    pub(super) fn begin(
        params: &'a Params,
        items: &[Item],
        comment: Option<&'a str>,
        snapshot: &Manifest,
        host: &str,
    ) -> Result<Self> {
        let provider = snapshot.postgres.as_ref().and_then(provided::of);
        let items = existing::leave_alone(&mut session(params, Session::connect)?, items)?;
        let mut server = Server::connect(params)?;
        // This session is opened at the start: a server whose disk is full accepts no new sessions ("could not write
        // init file"), and then all that remains is to remove what filled the disk.
        let cleanup = session(params, Session::connect_for_cleanup).ok();
        server.mark(params.database(), &Mark::new(target::FILL, &snapshot.id.to_string(), host))?;
        // If the server did not accept this session, it accepts no other besides the one that builds.
        let server = cleanup.is_some().then_some(server);
        Ok(Filling { params, comment, items, provider, server, cleanup })
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
    pub(super) fn clear_after(self, error: Error) -> Error {
        let (state, _) = self.clear();
        error.context(format!("the restore failed; {state}"))
    }
}

/// Opens a session in the database.
fn session(params: &Params, connect: impl Fn(&Params) -> Result<Session>) -> Result<Session> {
    let mut session = connect(params)?;
    settings::pin(&mut session)?;
    Ok(session)
}
