//! Restores a whole database: as a new one, into an empty one, or in the place of another.

use std::time::Instant;

use chrono::Utc;

use super::build::{Build, Built};
use super::create;
use super::fill::Filling;
use super::holders::{self, without_login_triggers};
use super::plan::Plan;
use super::target::{self, Mark, Server};
use super::tied::{Rest, Tied};
use super::undo::sql_command;
use crate::engine::postgres::layout;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{self, Item};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::restoring::{RestoreReport, RestoredTable};
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
        let built =
            self.build(&self.params.with_database(&scratch), &self.items, Some(&mark), report).and_then(|built| {
                let mark = mark.text();
                let comment = if self.after_rename.is_empty() { built.comment.as_deref() } else { Some(mark.as_str()) };
                server.finish(&scratch, name, comment).map(|()| built)
            });
        let built = built.map_err(|error| drop_failed(&mut server, &scratch, error))?;
        if !self.after_rename.is_empty() {
            self.create_after_rename(&built)
                .and_then(|()| server.unmark(name, built.comment.as_deref()))
                .map_err(|error| drop_failed(&mut server, name, error))?;
        }
        report.undo = Some(holders::drop_command(&self.params, &self.items));
        Ok(())
    }

    /// Restores into an existing, empty database, which has a mark until the restore is done.
    pub(super) fn fill(&self, report: &mut RestoreReport) -> Result<()> {
        let (comment, host) = (self.comment.as_deref(), &self.context.host);
        let filling = Filling::begin(&self.params, &self.items, comment, self.snapshot.manifest(), host)?;
        match self.build(&self.params, filling.items(), None, report) {
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
        let staying = self.holders.stay_behind(&self.items);
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
        let aside = format!("{}_before_{}", cut(&name, 38), Utc::now().format("%Y%m%dT%H%M%SZ"));
        let new = self.params.with_database(&scratch);
        let built = self
            .build(&new, &self.items, None, report)
            .and_then(|built| {
                let mut session = Session::connect(&without_login_triggers(&new, &self.items))?;
                settings::pin(&mut session)?;
                create::apply_settings(&mut session, &settings_now).map(|()| built)
            })
            .and_then(|built| {
                let mark = mark.text();
                let comment = if self.after_rename.is_empty() { self.comment.as_deref() } else { Some(mark.as_str()) };
                server.exchange(&scratch, &name, &aside, comment, self.settings.disconnect).map(|()| built)
            });
        let built = built.map_err(|error| drop_failed(&mut server, &scratch, error))?;
        if !self.after_rename.is_empty() {
            let created = self.create_after_rename(&built).and_then(|()| server.unmark(&name, self.comment.as_deref()));
            if let Err(error) = created {
                // The old database gets its name back.
                server.exchange(&aside, &name, &scratch, self.comment.as_deref(), true).map_err(|why| {
                    tracing::warn!("cannot undo the exchange: {}", why.full_message());
                    error.duplicate().context(format!("the old database is {}", one_line(&aside)))
                })?;
                return Err(drop_failed(&mut server, &scratch, error));
            }
        }
        report.moved_aside.push(aside.clone());
        let end_sessions =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}", literal(&name));
        // The extension keeps a session in the database.
        let first = (!self.after_rename.is_empty()).then_some(end_sessions);
        let undo = [
            format!("ALTER DATABASE {} RENAME TO {}", ident(&name), ident(&scratch)),
            format!("ALTER DATABASE {} RENAME TO {}", ident(&aside), ident(&name)),
        ];
        let undo: Vec<String> = first.into_iter().chain(undo).collect();
        report.undo = Some(self.holders.enclose_undo(sql_command(&self.params, &undo), &self.params, &aside));
        report.notes.extend(staying);
        Ok(())
    }

    /// Creates everything in an empty database, loads it and compares it. With a mark, the database's own settings are
    /// restored too, except its comment. The comment is returned, because the mark is in its place until all is done.
    fn build(&self, params: &Params, items: &[Item], mark: Option<&Mark>, report: &mut RestoreReport) -> Result<Built> {
        let clock = Instant::now();
        let build = Build {
            snapshot: &*self.snapshot,
            items,
            owners: self.owners,
            params,
            context: &self.context,
            plain: self.plain,
            allow_partial: self.settings.allow_partial,
            lacks_extensions: !self.after_rename.is_empty() || !self.without.is_empty(),
        };
        let mut built = build.run(mark)?;
        if let Some(error) = built.different.take() {
            return Err(error);
        }
        report.stream_seconds = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        build.compare(self.context.jobs, &built)?;
        report.check_seconds = clock.elapsed().as_secs_f64();
        report.left_out = self.without.iter().map(Tied::left_out).chain(std::mem::take(&mut built.left_out)).collect();
        report.is_incomplete = !report.left_out.is_empty();
        let is_absent = |table: &Table| built.absent.contains(&table.name) && self.after_rename.is_empty();
        let is_like = |table: &Table| !built.unlike.contains(&table.name) && !is_absent(table);
        report.tables = self.tables().into_iter().map(|table| restored(table, is_like(table))).collect();
        Ok(built)
    }

    /// Creates what the database can have only now that it has its name.
    fn create_after_rename(&self, built: &Built) -> Result<()> {
        let rest = Rest {
            snapshot: &*self.snapshot,
            all: &self.items,
            items: &self.after_rename,
            owners: self.owners,
            context: &self.context,
            tables: &built.absent,
            sequences: &built.absent_sequences,
        };
        rest.create(&self.params)
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
