//! Restores a whole database: as a new one, into an empty one, or in the place of another.

use std::time::Instant;

use chrono::Utc;

use super::build::{Build, Built};
use super::create;
use super::fill::Filling;
use super::in_use::{self, without_login_triggers};
use super::plan::Plan;
use super::target::{self, Finish, Mark, Server};
use super::tied::{Rest, Tied};
use super::undo::{self, Exchange};
use crate::engine::postgres::layout;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{self, Item};
use crate::engine::postgres::wire::created::Created;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::restoring::{LeftOut, RestoreReport, RestoredTable};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Table;

impl Plan {
    pub(super) fn create(&self, report: &mut RestoreReport) -> Result<()> {
        let mut server = Server::connect(&self.params)?;
        warn_about_dropped(&server.drop_left_over(&self.context.host)?);
        let name = self.params.database();
        let scratch = target::scratch_name(&self.context.host)?;
        let mark = Mark::new("restore", &report.id, &self.context.host);
        server.create(&scratch, &self.facts.database, &mark)?;
        let mut limit = -1;
        let built = self
            .build(&self.params.with_database(&scratch), &self.items, Place::New(Some(&mark)), report)
            .and_then(|built| {
                limit = server.connection_limit(&scratch)?;
                server.finish(&scratch, name, self.finish(built.comment.as_deref(), &mark)).map(|()| built)
            });
        let built = built.map_err(|error| drop_failed(&mut server, &scratch, error))?;
        let left_out = self
            .create_after_rename(&mut server, &built, built.comment.as_deref(), limit)
            .map_err(|error| drop_failed(&mut server, name, error))?;
        add_left_out(report, left_out);
        report.undo = Some(in_use::drop_command(&self.params, &self.items));
        report.notes.extend(in_use::drop_notes(&self.items));
        Ok(())
    }

    /// Restores into an existing, empty database, which has a mark until the restore is done.
    pub(super) fn fill(&self, report: &mut RestoreReport) -> Result<()> {
        let id = self.snapshot.manifest().id.to_string();
        let (facts, comment) = (Some(&self.facts), self.comment.as_deref());
        let filling = Filling::begin(&self.params, &self.items, facts, comment, (&id, &self.context.host))?;
        match self.build(&self.params, filling.items(), Place::Existing(filling.created()), report) {
            Ok(_) => {
                self.warn_about_settings_left();
                filling.keep()
            }
            Err(error) => Err(filling.clear_after(error)),
        }
    }

    pub(super) fn swap(&self, report: &mut RestoreReport) -> Result<()> {
        let mut server = Server::connect(&self.params)?;
        warn_about_dropped(&server.drop_left_over(&self.context.host)?);
        let name = self.params.database().to_owned();
        server.require_other_database(&name)?;
        let staying = self.in_use.warnings_about_swap(&self.items);
        staying.iter().for_each(|message| tracing::warn!("{message}"));
        // Check this now, not after an hour of building.
        let busy = server.find_database(&name)?.map_or(0, |existing| existing.sessions);
        if busy > 0 && !self.settings.disconnect {
            let sessions = if busy == 1 { "session is" } else { "sessions are" };
            return Err(Error::failed(format!(
                "{busy} other {sessions} connected to {}: a database in use cannot be exchanged",
                one_line(&self.params.shown())
            ))
            .hint("stop the programs that use it, or end their sessions with --disconnect; nothing was changed"));
        }
        let mut settings_now = database_settings(&self.params)?;
        // Until the names are exchanged, the mark is in the place of the comment.
        settings_now.retain(|item| item.name != "comment");
        let scratch = target::scratch_name(&self.context.host)?;
        let mark = Mark::new("restore", &report.id, &self.context.host);
        server.create(&scratch, &self.facts.database, &mark)?;
        let aside = format!("{}{}{}", cut(&name, 38), undo::BEFORE, Utc::now().format("%Y%m%dT%H%M%SZ"));
        let names = Exchange { aside: aside.clone(), scratch: scratch.clone() };
        let has_rest = !self.after_rename.is_empty();
        let undo = self.in_use.enclose_undo(undo::of_exchange(&self.params, &names, has_rest), &self.params, &aside);
        let marked = mark.after(names.clone());
        let new = self.params.with_database(&scratch);
        let mut limit = -1;
        let built = self
            .build(&new, &self.items, Place::New(None), report)
            .and_then(|built| {
                let mut session = Session::connect(&without_login_triggers(&new, &self.items))?;
                settings::pin(&mut session)?;
                create::apply_settings(&mut session, &settings_now).map(|()| built)
            })
            .and_then(|built| {
                limit = server.connection_limit(&scratch)?;
                if has_rest {
                    tracing::warn!(
                        "{} accepts no sessions until it is complete; if this run is killed before, its earlier state comes \
                         back with: {undo}",
                        one_line(&name)
                    );
                }
                let finish = self.finish(self.comment.as_deref(), &marked);
                server.exchange(&name, &names, finish, self.settings.disconnect).map(|()| built)
            });
        let built = built.map_err(|error| drop_failed(&mut server, &scratch, error))?;
        let left_out = self
            .create_after_rename(&mut server, &built, self.comment.as_deref(), limit)
            .map_err(|error| self.exchange_back(names, error, &undo))?;
        add_left_out(report, left_out);
        report.moved_aside.push(aside);
        report.undo = Some(undo);
        report.notes.extend(staying);
        Ok(())
    }

    /// Creates everything in an empty database, loads it and compares it. With a mark, the database's own settings are
    /// restored too, except its comment. The comment is returned, because the mark is in its place until all is done.
    fn build(&self, params: &Params, items: &[Item], place: Place<'_>, report: &mut RestoreReport) -> Result<Built> {
        let (mark, created) = match place {
            Place::New(mark) => (mark, None),
            Place::Existing(created) => (None, Some(created)),
        };
        let clock = Instant::now();
        let build = Build {
            snapshot: &*self.snapshot,
            items,
            owners: self.owners,
            params,
            context: &self.context,
            plain: self.plain,
            allow_partial: self.settings.allow_partial,
            other_values: self.other_values(),
            lacks_extensions: !self.after_rename.is_empty() || !self.without.is_empty(),
            created,
        };
        let mut built = build.run(mark)?;
        if let Some(error) = built.different.take() {
            return Err(error);
        }
        report.stream_seconds = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        build.compare(self.context.jobs, &mut built)?;
        for (table, error) in std::mem::take(&mut built.other_values) {
            if let Some(left_out) = self.other_values().accept(&table, error)? {
                built.left_out.push(left_out);
                built.unlike.insert(table);
            }
        }
        report.check_seconds = clock.elapsed().as_secs_f64();
        report.left_out = self.without.iter().map(Tied::left_out).chain(std::mem::take(&mut built.left_out)).collect();
        report.is_incomplete = !report.left_out.is_empty();
        let is_absent = |table: &Table| built.absent.contains(&table.name) && self.after_rename.is_empty();
        let is_like = |table: &Table| !built.unlike.contains(&table.name) && !is_absent(table);
        report.tables = self.tables().into_iter().map(|table| restored(table, is_like(table))).collect();
        Ok(built)
    }

    /// Returns the state in which the database gets its final name: with its comment if it is complete then.
    fn finish<'a>(&self, comment: Option<&'a str>, mark: &'a Mark) -> Finish<'a> {
        if self.after_rename.is_empty() { Finish::Complete(comment) } else { Finish::Incomplete(mark) }
    }

    /// Creates what the database can have only now that it has its name. Nobody else can use it until all of it is there;
    /// then it gets its comment and its limit of sessions. Returns what is left out.
    fn create_after_rename(
        &self,
        server: &mut Server,
        built: &Built,
        comment: Option<&str>,
        limit: i32,
    ) -> Result<Vec<LeftOut>> {
        if self.after_rename.is_empty() {
            return Ok(Vec::new());
        }
        let rest = Rest {
            snapshot: &*self.snapshot,
            all: &self.items,
            items: &self.after_rename,
            owners: self.owners,
            context: &self.context,
            tables: &built.absent,
            sequences: &built.absent_sequences,
            other_values: self.other_values(),
        };
        let name = ident(self.params.database());
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let opened = format!(
            "COMMENT ON DATABASE {name} IS {comment};
             ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT {limit}"
        );
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        server.close_to_others(self.params.database(), session.pid())?;
        rest.create(&mut session, &server.params(), &opened)
    }

    /// Gives the old database its name back, and drops the new one. This works after Ctrl-C too.
    fn exchange_back(&self, names: Exchange, error: Error, undo: &str) -> Error {
        let Exchange { aside, scratch } = names;
        let back = Exchange { aside: scratch.clone(), scratch: aside.clone() };
        let finish = Finish::Complete(self.comment.as_deref());
        let exchanged = Server::connect_for_cleanup(&self.params).and_then(|mut server| {
            server.exchange(self.params.database(), &back, finish, true)?;
            Ok(server)
        });
        match exchanged {
            Ok(mut server) => drop_failed(&mut server, &scratch, error),
            Err(why) => {
                tracing::warn!("cannot undo the exchange: {}", why.full_message());
                let (new, old) = (one_line(self.params.database()), one_line(&aside));
                error
                    .context(format!(
                        "the restore failed; {new} is incomplete, and the old database is named {old} now"
                    ))
                    .hint(format!("give the old one its name back with: {undo}"))
            }
        }
    }

    /// Warns about the database's own settings in the snapshot: a database that was filled keeps those that it has.
    fn warn_about_settings_left(&self) {
        let left: Vec<&str> = self
            .items
            .iter()
            .filter(|item| item.kind.is_of_database() && item.name != "owner")
            .map(|item| item.name.as_str())
            .collect();
        if !left.is_empty() {
            tracing::warn!(
                "{} keeps its own settings; the snapshot's {} was not set ('lifeboat extract --entry {}' shows it)",
                one_line(self.params.database()),
                one_line(&left.join(", ")),
                layout::POST_DATA
            );
        }
    }
}

/// Adds what was left out after the rest of the database was complete.
fn add_left_out(report: &mut RestoreReport, left_out: Vec<LeftOut>) {
    for table in report.tables.iter_mut() {
        table.ok &= !left_out.iter().any(|one| one.table == table.name);
    }
    report.is_incomplete |= !left_out.is_empty();
    report.left_out.extend(left_out);
}

/// The database that is built.
enum Place<'a> {
    /// One that this program has created, with the mark that it has.
    New(Option<&'a Mark>),
    /// One that was there, with the list of the objects that are created in it.
    Existing(&'a Created),
}

fn restored(table: &Table, ok: bool) -> RestoredTable {
    RestoredTable { name: table.name.clone(), rows: table.rows, ok }
}

/// Reads the steps that set the current properties of the database itself.
fn database_settings(params: &Params) -> Result<Vec<Item>> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    session.execute("BEGIN READ ONLY")?;
    let schema = schema::read(&mut session)?;
    Ok(schema.items.into_iter().filter(|item| item.kind.is_of_database()).collect())
}

pub(super) fn warn_about_dropped(dropped: &[String]) {
    for name in dropped {
        tracing::warn!("dropped {}, an incomplete database of a run that has died", one_line(name));
    }
}

fn drop_failed(server: &mut Server, scratch: &str, error: Error) -> Error {
    if let Err(why) = server.drop(scratch) {
        tracing::warn!("the incomplete database {scratch} is left on the server: {}", why.full_message());
    }
    error.context("the restore failed; the existing data is unchanged")
}

/// Returns at most `most` bytes of a name.
fn cut(name: &str, most: usize) -> &str {
    &name[..name.floor_char_boundary(most)]
}
