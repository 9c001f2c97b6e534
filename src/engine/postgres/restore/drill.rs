//! Tries the restore of a snapshot in a database that is empty again, or gone, afterwards: one that this program creates and
//! drops, or an empty one that the user has named.

use super::build::Build;
use super::contents::contents;
use super::create::Owners;
use super::equal::OtherValues;
use super::existing;
use super::fill::{Filling, State};
use super::items::{leave_out_items_of_missing_roles, read_items};
use super::tablespaces;
use super::target::{self, Mark, Server};
use super::tied;
use super::whole::warn_about_dropped;
use super::without::{leave_out, roles_without_acl};
use crate::engine::context::EngineContext;
use crate::engine::database::DrillSettings;
use crate::engine::postgres::schema::{Item, provided};
use crate::engine::postgres::wire::created::Created;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::restoring::SavedSnapshot;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::manifest::PostgresFacts;

/// Restores a snapshot, compares it, and drops what was restored.
///
/// If the rows differ from those that were saved, returns the difference as `Some(error)`: it is not damage of the
/// archive, every byte of which was hashed while it was read.
pub(in crate::engine::postgres) fn drill(
    snapshot: &dyn SavedSnapshot,
    params: &Params,
    settings: &DrillSettings,
    context: &EngineContext,
) -> Result<Option<Error>> {
    let owners = if settings.no_owner { Owners::Leave } else { Owners::Keep };
    let not_postgres = || Error::problem("its manifest does not describe a PostgreSQL snapshot");
    let facts = snapshot.manifest().postgres.as_ref().ok_or_else(not_postgres)?;
    let mut server = Server::connect(params)?;
    server.require_primary()?;
    let params = &params.with_provider(provided::of_target(server.session(), params.provider, facts)?);
    warn_about_dropped(&server.drop_left_over(&context.host)?);
    let mut items = read_items(snapshot)?;
    for note in leave_out(&mut items, settings.without) {
        tracing::info!("{note}");
    }
    let mut facts = facts.clone();
    if settings.without.acl {
        facts.roles = roles_without_acl(&items);
    }
    let facts = &facts;
    let uses_named = settings.is_named && uses_named_database(&mut server, params, facts)?;
    if !uses_named && !server.may_create_databases()? {
        return Err(cannot_create_databases(&server, params));
    }
    let created = if uses_named {
        let mut session = existing::session(params, Session::connect)?;
        existing::require_same_schemas(&mut session, facts)?;
        items = existing::leave_alone(&mut session, &items)?;
        drop(session);
        if existing::leave_out_changes(&mut items) {
            tracing::warn!(
                "the drill leaves out default privileges, and privileges on the schema public, on extensions and on system \
                 objects: they would remain in the database"
            );
        }
        items.clone()
    } else {
        existing::without_provider(&items)
    };
    let obstacles = server.obstacles(facts, &created, owners, !uses_named)?;
    if !obstacles.is_empty() {
        return Err(target::cannot_restore(&obstacles, "create the roles"));
    }
    if owners == Owners::Leave {
        leave_out_items_of_missing_roles(&mut items, &server.missing_roles(facts)?);
    }
    tablespaces::leave_out(&mut items, |_| true);
    let mut tied = server.tied(facts)?;
    tied.retain(|tied| !uses_named || tied.database != params.database());
    for tied in &tied {
        let extension = one_line(&tied.extension);
        tracing::warn!("the drill does without the extension {extension} and all that needs it: {}", tied.reason());
    }
    let lacks_extensions = !tied::split_off(&mut items, &tied.iter().collect::<Vec<_>>(), false).is_empty();
    let drill = Drill { snapshot, items: &items, owners, context, lacks_extensions };
    if uses_named { drill.in_named_database(server, params) } else { drill.in_scratch_database(server, params, facts) }
}

/// A drill whose requirements are met.
struct Drill<'a> {
    snapshot: &'a dyn SavedSnapshot,
    items: &'a [Item],
    owners: Owners,
    context: &'a EngineContext,
    /// True if the server does not allow an extension of the snapshot in this database.
    lacks_extensions: bool,
}

impl Drill<'_> {
    fn in_scratch_database(&self, mut server: Server, params: &Params, facts: &PostgresFacts) -> Result<Option<Error>> {
        let scratch = target::scratch_name(&self.context.host)?;
        let mark = Mark::new("drill", &self.snapshot.manifest().id.to_string(), &self.context.host);
        server.create(&scratch, &facts.database, &mark)?;
        let drilled = self.build(&params.with_database(&scratch), self.items, Some(&mark), None);
        let dropped = server.drop(&scratch);
        drilled.and_then(|different| dropped.map(|()| different))
    }

    fn in_named_database(&self, mut server: Server, params: &Params) -> Result<Option<Error>> {
        let comment = server.find_database(params.database())?.and_then(|existing| existing.comment);
        // Some servers accept only one session at a time.
        drop(server);
        let id = self.snapshot.manifest().id.to_string();
        let facts = self.snapshot.manifest().postgres.as_ref();
        let filling = Filling::begin(params, self.items, facts, comment.as_deref(), (&id, &self.context.host))?;
        match self.build(params, filling.items(), None, Some(filling.created())) {
            Ok(different) => {
                let (state, cleared) = filling.clear();
                let sentence = state.sentence(&one_line(&params.shown()));
                if cleared.is_ok() && !matches!(state, State::Empty) {
                    tracing::warn!("the drill is done; {sentence}");
                }
                cleared.map(|()| different).map_err(|error| error.context(format!("the drill is done, but {sentence}")))
            }
            Err(error) => Err(filling.clear_after(error)),
        }
    }

    /// Restores into a database, and compares it with what was saved.
    fn build(
        &self,
        params: &Params,
        items: &[Item],
        mark: Option<&Mark>,
        created: Option<&Created>,
    ) -> Result<Option<Error>> {
        let Drill { snapshot, owners, context, lacks_extensions, .. } = *self;
        let (plain, allow_partial) = (false, false);
        let other_values = OtherValues::Refuse;
        let build = Build {
            snapshot,
            items,
            owners,
            params,
            context,
            plain,
            allow_partial,
            other_values,
            lacks_extensions,
            created,
        };
        let mut built = build.run(mark)?;
        if let Some(error) = built.different.take() {
            return Ok(Some(error));
        }
        match build.compare(context.jobs, &mut built) {
            Err(error) if error.kind == Kind::Problem => Ok(Some(error)),
            other => other.map(|()| None),
        }
    }
}

/// Returns true if the drill uses the database that the user has named: it is empty, and the role may not create a database,
/// or an administrator has created extensions of the snapshot in it.
fn uses_named_database(server: &mut Server, params: &Params, facts: &PostgresFacts) -> Result<bool> {
    if server.is_superuser() {
        return Ok(false);
    }
    let may_create = server.may_create_databases()?;
    let Some(existing) = server.find_database(params.database())? else { return Ok(false) };
    if existing.comment.as_deref().and_then(Mark::read).is_some() {
        return if may_create { Ok(false) } else { Err(target::incomplete(&one_line(&params.shown()))) };
    }
    let mut session = Session::connect(params)?;
    let is_prepared = {
        let rows = session.rows("SELECT extname AS name FROM pg_catalog.pg_extension")?;
        let names: Vec<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
        facts.extensions.iter().any(|extension| names.contains(&extension.name.as_str()))
    };
    Ok((is_prepared || !may_create) && contents(&mut session, params.provider)?.is_empty())
}

fn cannot_create_databases(server: &Server, params: &Params) -> Error {
    let url = one_line(&params.shown());
    Error::usage(format!("the role {} may not create a database for the drill on {url}", one_line(server.user()))).hint(
        "name an empty database with --to postgres://user@host/database: the drill restores into it, and empties it again; \
         or let an administrator run ALTER ROLE ... CREATEDB",
    )
}
