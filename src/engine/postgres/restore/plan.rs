//! Plans the restore of a PostgreSQL snapshot: inspects the target, and decides what is done to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::choose::choose;
use super::contents::contents;
use super::create::Owners;
use super::equal::OtherValues;
use super::existing;
use super::in_use::InUse;
use super::items::{leave_out_items_of_missing_roles, read_items};
use super::new_roles::{self, NewRoles};
use super::replace;
use super::roles;
use super::tablespaces;
use super::target::{self, Existing, Mark, Server};
use super::tied::{self, Tied};
use super::undo;
use super::without::{leave_out, roles_without_acl};
use crate::engine::context::EngineContext;
use crate::engine::postgres::role_settings;
use crate::engine::postgres::save::LARGE_OBJECTS;
use crate::engine::postgres::schema::{Item, data, newer, provided};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::restoring::{
    RestoreCaller, RestorePlan, RestoreReport, RestoreSettings, RestoredTable, SavedSnapshot,
};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::text;
use crate::snapshots::manifest::{PostgresFacts, SnapshotKind, Table};

/// The ways to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    /// A new database.
    Create,
    /// An existing, empty database.
    Empty,
    /// The rows of existing tables.
    Replace,
    /// Missing tables, in an existing database.
    Tables,
    /// A new database that takes the place of another.
    Swap,
    /// Tables in another schema.
    Beside(String),
}

impl Mode {
    fn name(&self) -> &'static str {
        match self {
            Mode::Create => "create",
            Mode::Empty => "empty",
            Mode::Replace => "replace",
            Mode::Tables => "tables",
            Mode::Swap => "swap",
            Mode::Beside(_) => "beside",
        }
    }
}

/// The time window of the rows that are restored; its end is exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
}

impl Window {
    /// Returns the window in words: `from 2026-01-01 00:00:00+00 until 2026-02-01 00:00:00+00`.
    pub(super) fn shown(&self) -> String {
        let from = self.from.iter().map(|from| format!("from {from}"));
        let until = self.until.iter().map(|until| format!("until {until}"));
        from.chain(until).collect::<Vec<_>>().join(" ")
    }

    fn description(&self, of: &str) -> String {
        format!("{of} {}", self.shown())
    }
}

/// A plan of a restore, made before anything is changed.
pub(in crate::engine::postgres) struct Plan {
    pub(super) snapshot: Arc<dyn SavedSnapshot>,
    pub(super) settings: RestoreSettings,
    pub(super) context: EngineContext,
    pub(super) facts: PostgresFacts,
    pub(super) params: Params,
    mode: Mode,
    pub(super) owners: Owners,
    /// Indexes into the manifest's tables.
    chosen: Vec<usize>,
    /// The comment of the existing database.
    pub(super) comment: Option<String>,
    /// The steps that create the schema.
    pub(super) items: Vec<Item>,
    /// If set, only the rows of the chosen tables in this window are restored.
    pub(super) window: Option<Window>,
    /// True if hypertables and continuous aggregates are restored as ordinary tables.
    pub(super) plain: bool,
    /// The parts of the existing database that prevent its replacement, or stay with the old database.
    pub(super) in_use: InUse,
    /// The missing roles that the restore makes.
    new_roles: Vec<String>,
    /// The steps that need an extension which the server allows only in the database of the target's name. They are not
    /// among `items`.
    pub(super) after_rename: Vec<Item>,
    /// Notes about the objects that the options leave out.
    notes: Vec<String>,
    /// The extensions that are left out, because the server does not allow them in the target.
    pub(super) without: Vec<Tied>,
}

impl Plan {
    /// Inspects the server and the database; changes nothing.
    pub(in crate::engine::postgres) fn make(
        params: &Params,
        snapshot: Arc<dyn SavedSnapshot>,
        settings: &RestoreSettings,
        context: &EngineContext,
    ) -> Result<Self> {
        let manifest = snapshot.manifest();
        let not_postgres = || Error::problem("its manifest does not describe a PostgreSQL snapshot");
        let mut facts = manifest.postgres.clone().ok_or_else(not_postgres)?;
        let name = params.database().to_owned();
        let shown = one_line(&params.shown());
        let mut items = read_items(&*snapshot)?;
        let notes = leave_out(&mut items, settings.without);
        if settings.without.acl {
            facts.roles = roles_without_acl(&items);
        }
        let chosen = choose(manifest, &items, &settings.table)?;
        let mut server = Server::connect(params)?;
        server.require_primary()?;
        let params = &params.with_provider(provided::of_target(server.session(), params.provider, &facts)?);
        let existing = server.find_database(&name)?;
        let owners = if settings.no_owner { Owners::Leave } else { Owners::Keep };
        if settings.plain_tables {
            facts.extensions.retain(|extension| extension.name != timescale::EXTENSION);
            let left_out = timescale::plain::leave_out(&mut items);
            if !left_out.is_empty() {
                tracing::warn!("left out, because only TimescaleDB supports it: {}", left_out.join(", "));
            }
        }
        let new_roles = if settings.create_roles { new_roles::names(&mut server, &facts)? } else { Vec::new() };
        let lacking = if settings.no_tablespaces { Vec::new() } else { tablespaces::missing(&mut server, &facts)? };
        tablespaces::leave_out(&mut items, |name| settings.no_tablespaces || lacking.iter().any(|lacks| lacks == name));
        let tied = server.tied(&facts)?;
        if owners == Owners::Leave {
            leave_out_items_of_missing_roles(&mut items, &server.missing_roles(&facts)?);
        }
        let is_replaced = existing.is_some() && (settings.swap || settings.replace);
        let in_use = if is_replaced { server.in_use(&name)? } else { InUse::default() };
        if let Some(mark) = existing.as_ref().and_then(|existing| Mark::read(existing.comment.as_deref()?)) {
            return Err(unfinished(&mark, params, &context.host, &mut server)?);
        }
        // Some servers accept only one session at a time.
        drop(server);
        let mode = mode(settings, existing.as_ref(), params)?;
        let mut present = facts.clone();
        present.roles.retain(|role| !new_roles.contains(role));
        require_no_obstacles(params, &mode, &present, &items, settings)?;
        let (here, without): (Vec<Tied>, Vec<Tied>) = tied.into_iter().partition(|tied| tied.database == name);
        let mut after_rename = Vec::new();
        if matches!(mode, Mode::Create | Mode::Empty | Mode::Swap) {
            if let Some(first) = without.first().filter(|_| !settings.allow_partial) {
                return Err(Error::usage(format!("the snapshot cannot be restored to {shown}: {}", first.reason())).hint(
                    "name the database of that name with --to, or restore without the extension with --allow-partial",
                ));
            }
            tied::split_off(&mut items, &without.iter().collect::<Vec<_>>(), false);
            if mode != Mode::Empty {
                after_rename = tied::split_off(&mut items, &here.iter().collect::<Vec<_>>(), true);
            }
        }
        let comment = existing.and_then(|existing| existing.comment);
        let mut plan = Plan {
            settings: settings.clone(),
            context: context.clone(),
            params: params.clone(),
            snapshot,
            facts,
            mode,
            owners,
            chosen,
            comment,
            items,
            window: None,
            plain: settings.plain_tables,
            in_use,
            new_roles,
            after_rename,
            notes,
            without,
        };
        plan.window = plan.window_of()?;
        plan.require_complete()?;
        plan.require_fit()?;
        if plan.creates_objects() {
            tablespaces::warn_about(&lacking);
        }
        Ok(plan)
    }

    /// Fails if an incomplete snapshot would replace a whole database, unless the options allow it.
    fn require_complete(&self) -> Result<()> {
        for left_out in &self.facts.left_out {
            tracing::warn!("not in the snapshot: {}", one_line(left_out));
        }
        // A safety snapshot never contains large objects, and --replace checks by itself which tables exist.
        let is_safety = self.snapshot.manifest().kind == SnapshotKind::Safety;
        let lacks_objects = match self.mode {
            Mode::Swap if self.facts.provider.is_some() => true,
            Mode::Swap => self.facts.left_out.iter().any(|left_out| !(is_safety && left_out == LARGE_OBJECTS)),
            Mode::Replace => self.settings.table.is_empty() && !is_safety && !self.facts.left_out.is_empty(),
            Mode::Create | Mode::Empty | Mode::Tables | Mode::Beside(_) => false,
        };
        if !lacks_objects || self.settings.allow_partial {
            return Ok(());
        }
        let provider = self.facts.provider.iter().map(|provider| one_line(&provider.shown()));
        let left_out = self.facts.left_out.iter().map(|left_out| one_line(left_out));
        let shown: Vec<String> = provider.chain(left_out).take(10).collect();
        let id = &self.snapshot.manifest().id;
        Err(Error::usage(format!("{id} is incomplete: it does not contain {}", shown.join(", ")))
            .hint("restore single tables with --table, or the incomplete snapshot with --allow-partial"))
    }

    /// Returns the time window of the rows to restore, or `None` for all rows.
    fn window_of(&self) -> Result<Option<Window>> {
        if self.settings.from.is_none() && self.settings.until.is_none() {
            return Ok(None);
        }
        let mut kinds = BTreeSet::new();
        for table in self.tables() {
            let time = table.relation.as_ref().and_then(|relation| relation.time.as_ref());
            let column = time.and_then(|time| table.columns.iter().find(|column| column.name == *time));
            let Some(column) = column.filter(|_| table.kind == timescale::HYPERTABLE) else {
                return Err(Error::usage(format!(
                    "--from and --until need a hypertable that is partitioned by time, but {} is not one",
                    one_line(&table.name)
                ))
                .hint("restore all of its rows, without --from and --until"));
            };
            kinds.insert(timescale::plain_type(&column.declared));
        }
        let mut session = self.read_only_session()?;
        let mut window = Window { from: self.settings.from.clone(), until: self.settings.until.clone() };
        for kind in kinds {
            for (flag, bound) in [("--from", &mut window.from), ("--until", &mut window.until)] {
                if let Some(text) = bound {
                    *text = timescale::bound(&mut session, text, &kind).map_err(|error| {
                        let (text, kind) = (one_line(text), one_line(&kind));
                        Error::usage(format!("{flag} {text} is not a valid {kind}")).because(error)
                    })?;
                }
            }
            if let (Some(from), Some(until)) = (&window.from, &window.until)
                && !timescale::is_before(&mut session, from, until, &kind)?
            {
                return Err(Error::usage(format!("--from {from} is not before --until {until}")));
            }
        }
        Ok(Some(window))
    }

    /// Opens a read-only session that waits for locks no longer than the options allow.
    fn read_only_session(&self) -> Result<Session> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        newer::require_known(&mut session)?;
        session
            .execute(&format!("SET lock_timeout = {}", Duration::from_secs(self.settings.lock_timeout).as_millis()))?;
        session.execute("BEGIN READ ONLY")?;
        Ok(session)
    }

    /// Fails if the restore is certain to fail, before anything is read or written.
    fn require_fit(&mut self) -> Result<()> {
        if self.mode == Mode::Swap {
            let shown = one_line(&self.params.shown());
            self.in_use.require_exchangeable(&shown, self.settings.disconnect)?;
            self.in_use.add_event_triggers(&mut self.read_only_session()?)?;
        }
        if self.mode == Mode::Replace {
            if self.settings.table.is_empty() && self.facts.large_objects.count > 0 {
                return Err(Error::usage(format!(
                    "{} has {} large objects, but --replace restores only rows",
                    self.snapshot.manifest().id,
                    self.facts.large_objects.count
                ))
                .hint("replace the whole database with --swap, or name the tables to restore with --table"));
            }
            let mut session = self.read_only_session()?;
            self.in_use.add_event_triggers(&mut session)?;
            let all = self.settings.table.is_empty();
            replace::require_fit(&mut session, &self.tables(), all, self.params.provider)?;
        }
        if self.mode == Mode::Tables {
            let mut session = self.read_only_session()?;
            let live = data::tables(&mut session)?;
            let existing: Vec<&str> = self
                .tables()
                .iter()
                .filter(|table| live.iter().any(|live| live.qualified == table.name))
                .map(|table| table.name.as_str())
                .collect();
            if !existing.is_empty() {
                let names = one_line(&existing.join(", "));
                return Err(Error::usage(format!("these tables already exist in the database: {names}")).hint(
                    "replace their rows with --replace, or restore them into a new schema with --beside SCHEMA",
                ));
            }
            self.items = existing::leave_alone(&mut session, &self.items)?;
            // Only the roles that the chosen tables need are made.
            let (items, _) = self.items_of_tables(&mut session)?;
            let needed: BTreeSet<&String> = items.iter().flat_map(|item| &item.roles).collect();
            self.new_roles.retain(|role| needed.contains(role));
        }
        Ok(())
    }

    /// Returns true if the restore creates tables with their owners, grants and tablespaces.
    fn creates_objects(&self) -> bool {
        matches!(self.mode, Mode::Create | Mode::Empty | Mode::Swap | Mode::Tables)
    }

    /// Carries the plan out, without roles.
    fn restore(&self, report: &mut RestoreReport, caller: &dyn RestoreCaller) -> Result<()> {
        match &self.mode {
            Mode::Create => self.create(report),
            Mode::Empty => self.fill(report),
            Mode::Swap => self.swap(report),
            Mode::Replace => self.replace(report, caller),
            Mode::Tables => self.create_tables(report),
            Mode::Beside(schema) => self.beside(schema, report),
        }
    }

    /// Makes the missing roles, and carries the plan out. If that fails, the roles are dropped again.
    fn restore_with_roles(&self, report: &mut RestoreReport, caller: &dyn RestoreCaller) -> Result<()> {
        if self.new_roles.is_empty() || !self.creates_objects() {
            return self.restore(report, caller);
        }
        let definitions = role_settings::definitions(&*self.snapshot, &self.facts)?;
        let acting = roles::required_names(&self.items);
        let mut server = Server::connect(&self.params)?;
        let missing = new_roles::names(&mut server, &self.facts)?;
        let wanted: Vec<String> = self.new_roles.iter().filter(|role| missing.contains(role)).cloned().collect();
        let made = NewRoles::create(&mut server, &definitions, &wanted, &acting)?;
        drop(server);
        self.restore(report, caller).inspect_err(|_| match Server::connect_for_cleanup(&self.params) {
            Ok(mut server) => made.drop(&mut server),
            Err(error) => tracing::warn!("the new roles are left on the server: {}", error.full_message()),
        })?;
        report.notes.extend(made.notes());
        Ok(())
    }

    /// Returns true if the tables are restored into a new schema.
    pub(super) fn is_beside(&self) -> bool {
        matches!(self.mode, Mode::Beside(_))
    }

    /// Returns the treatment of generated columns that have other values.
    pub(super) fn other_values(&self) -> OtherValues {
        match (self.settings.allow_partial, self.settings.by_itself) {
            (true, _) => OtherValues::LeaveOut,
            (false, true) => OtherValues::Warn,
            (false, false) => OtherValues::Refuse,
        }
    }

    pub(super) fn tables(&self) -> Vec<&Table> {
        self.chosen.iter().map(|index| &self.snapshot.manifest().tables[*index]).collect()
    }
}

impl Plan {
    /// Returns the report of a restore that has not begun.
    fn report(&self, dry_run: bool) -> RestoreReport {
        let id = self.snapshot.manifest().id.to_string();
        RestoreReport::new(id, self.params.shown(), self.mode.name(), dry_run)
    }
}

impl RestorePlan for Plan {
    fn question(&self) -> Option<String> {
        let manifest = self.snapshot.manifest();
        let target = one_line(&self.params.shown());
        let age = text::age_with("old", manifest.created_at, Utc::now());
        let snapshot = match &self.window {
            Some(window) => format!("{} ({age})", window.description(&manifest.id.to_string())),
            None => format!("{} ({age}, {} rows)", manifest.id, manifest.rows),
        };
        let left_out = match self.facts.left_out.len() {
            0 => String::new(),
            some => format!(", which does not contain {some} objects that were not saved"),
        };
        match self.mode {
            Mode::Replace => {
                let tables = match self.tables().as_slice() {
                    [table] => format!("the table {}", one_line(&table.name)),
                    tables => format!("{} tables", tables.len()),
                };
                Some(format!(
                    "Replace the rows of {tables} in {target} with those of {snapshot}{left_out}? (Other sessions \
                     cannot use these tables meanwhile.)"
                ))
            }
            Mode::Swap => Some(format!("Replace the database {target} with a new one made from {snapshot}{left_out}?")),
            Mode::Create | Mode::Empty | Mode::Tables | Mode::Beside(_) => None,
        }
    }

    fn preview(&self) -> Result<RestoreReport> {
        let mut report = self.report(true);
        // The number of rows in the window is known only when they are read.
        let rows = |table: &Table| if self.window.is_some() { None } else { table.rows };
        let restored = |table: &Table| RestoredTable { name: table.name.clone(), rows: rows(table), ok: false };
        report.tables = self.tables().into_iter().map(restored).collect();
        report.window = self.window.as_ref().map(Window::shown);
        if !self.new_roles.is_empty() && self.creates_objects() {
            let names: Vec<String> = self.new_roles.iter().map(|name| one_line(name)).collect();
            report.notes.push(format!("the roles {} would be made, which cannot log in", names.join(", ")));
        }
        if self.mode == Mode::Swap {
            report.notes.extend(self.in_use.warnings_about_swap(&self.items));
        }
        Ok(report)
    }

    fn run(&self, caller: &dyn RestoreCaller) -> Result<RestoreReport> {
        if self.settings.dry_run {
            return self.preview();
        }
        let clock = Instant::now();
        let mut report = self.report(false);
        self.restore_with_roles(&mut report, caller)?;
        if report.tables.is_empty() {
            let restored = |table: &Table| RestoredTable { name: table.name.clone(), rows: table.rows, ok: true };
            report.tables = self.tables().into_iter().map(restored).collect();
        }
        report.window = self.window.as_ref().map(Window::shown);
        report.notes.extend(self.notes.iter().cloned());
        for note in &self.facts.notes {
            tracing::warn!("{}", one_line(note));
        }
        report.seconds = clock.elapsed().as_secs_f64();
        Ok(report)
    }
}

/// Chooses what a restore does to the target; fails if the options do not fit its state.
fn mode(settings: &RestoreSettings, existing: Option<&Existing>, params: &Params) -> Result<Mode> {
    let shown = one_line(&params.shown());
    let absent = |hint: &str| Error::usage(format!("the database {shown} does not exist")).hint(hint);
    match (existing, &settings.beside) {
        (_, _) if settings.create && existing.is_some() => {
            Err(Error::usage(format!("the database {shown} already exists"))
                .hint("restore to another name, replace its rows with --replace, or replace the database with --swap"))
        }
        (_, _) if (settings.create || settings.swap) && !settings.table.is_empty() => {
            Err(Error::usage("--table restores into an existing database: it cannot be used with --create or --swap")
                .hint("omit --create and --swap, or omit --table to restore everything"))
        }
        (None, _) if settings.create => Ok(Mode::Create),
        (None, _) if settings.swap || settings.replace => Err(absent("create it with --create")),
        (None, _) => Err(absent("create it with --create, or name another database with --to")),
        (Some(_), Some(schema)) => Ok(Mode::Beside(schema.clone())),
        (Some(_), _) if settings.swap => Ok(Mode::Swap),
        (Some(_), _) if settings.replace => Ok(Mode::Replace),
        (Some(_), _) if !settings.table.is_empty() => Ok(Mode::Tables),
        (Some(Existing { comment: Some(comment), .. }), _) if Mark::read(comment).is_some() => {
            Err(target::incomplete(&shown))
        }
        (Some(_), _) => {
            let found = contents(&mut Session::connect(params)?, params.provider)?;
            if !found.is_empty() {
                let found = one_line(&found.join(", "));
                return Err(Error::usage(format!("the database {shown} is not empty: it has {found}")).hint(
                    "replace the rows with --replace, replace the whole database with --swap, restore tables \
                     into a new schema with --beside SCHEMA, or restore to a new database with --create",
                ));
            }
            Ok(Mode::Empty)
        }
    }
}

/// Fails if the server lacks something that the restore of a whole database needs.
fn require_no_obstacles(
    params: &Params,
    mode: &Mode,
    facts: &PostgresFacts,
    items: &[Item],
    settings: &RestoreSettings,
) -> Result<()> {
    let owners = if settings.no_owner { Owners::Leave } else { Owners::Keep };
    let created = match mode {
        // A new database has no schema of a provider.
        Mode::Create | Mode::Swap => existing::without_provider(items),
        Mode::Empty => {
            let mut session = existing::session(params, Session::connect)?;
            existing::require_same_schemas(&mut session, facts)?;
            existing::leave_alone(&mut session, items)?
        }
        Mode::Replace | Mode::Tables | Mode::Beside(_) => return Ok(()),
    };
    let lacking = existing::lacking(&created);
    if let (Some(provider), false, false) = (&facts.provider, lacking.is_empty(), settings.allow_partial) {
        return Err(Error::usage(format!(
            "the database lacks objects of the provider {} that others use: {}",
            one_line(&provider.name),
            lacking.join(", ")
        ))
        .hint(
            "restore into an empty database of the provider; or, with --allow-partial, with empty stand-ins for them and \
             without the foreign keys to them",
        ));
    }
    let obstacles = Server::connect(params)?.obstacles(facts, &created, owners, *mode == Mode::Create)?;
    if obstacles.is_empty() {
        Ok(())
    } else {
        Err(target::cannot_restore(&obstacles, "create the roles, also with --create-roles"))
    }
}

/// Returns the error for a database that a restore began to fill and has not finished.
fn unfinished(mark: &Mark, params: &Params, host: &str, server: &mut Server) -> Result<Error> {
    let shown = one_line(&params.shown());
    let (id, since) = (one_line(&mark.snapshot), mark.since.format("%Y-%m-%d %H:%M:%SZ"));
    let again = match mark.exchange.as_ref().filter(|names| names.is_of(params.database())) {
        Some(names) => format!(
            "the database that it replaces is named {} now, and gets its name back with: {}",
            one_line(&names.aside),
            server.in_use(&names.aside)?.enclose_undo(undo::of_exchange(params, names, true), params, &names.aside)
        ),
        None => "drop the database, and restore with --create".to_owned(),
    };
    if mark.may_be_running(host) {
        let (process, host) = (mark.process, one_line(&mark.host));
        return Ok(Error::failed(format!("process {process} on {host} is restoring {id} to {shown}"))
            .hint(format!("wait until it ends; if it has died: {again}")));
    }
    let died = format!("{shown} has only a part of {id}: the restore that began at {since} has died");
    Ok(Error::failed(died).hint(again))
}
