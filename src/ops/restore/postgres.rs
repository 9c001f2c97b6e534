//! Restores a PostgreSQL snapshot: as a new database, in place of an existing one, or only some of its tables.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use chrono::Utc;

use crate::archive::{Compression, Entry};
use crate::engine::postgres::copy::load;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::copy::selection::{Pattern, Selection};
use crate::engine::postgres::copy::snapshot::SnapshotOptions;
use crate::engine::postgres::restore::commit::commit;
use crate::engine::postgres::restore::create::{self, Owners};
use crate::engine::postgres::restore::replace::{self, Replacement};
use crate::engine::postgres::restore::target::{self, Existing, Mark, Server};
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::schema::{self, Item, Kind, Section, data, sequences};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::engine::postgres::{Params, timescale};
use crate::engine::source::Source;
use crate::ops::fetch::Opened;
use crate::ops::restore::build::{Build, Rows, require_equal};
use crate::ops::restore::{RestoreOptions, RestoreReport, RestoredTable};
use crate::ops::snapshot::{LARGE_OBJECTS, PostgresPlan, postgres_origin_of};
use crate::ops::{Context, layout};
use crate::platform::error::{Error, Kind as ErrorKind, Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::{Manifest, PostgresFacts, SequenceValue, SnapshotKind, Table};

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
struct Window {
    from: Option<String>,
    until: Option<String>,
}

impl Window {
    /// Returns the window in words: `from 2026-01-01 00:00:00+00 until 2026-02-01 00:00:00+00`.
    fn shown(&self) -> String {
        let from = self.from.iter().map(|from| format!("from {from}"));
        let until = self.until.iter().map(|until| format!("until {until}"));
        from.chain(until).collect::<Vec<_>>().join(" ")
    }

    fn told(&self, of: &str) -> String {
        format!("{of} {}", self.shown())
    }
}

/// A plan of a restore, made before anything is changed.
pub(super) struct Plan {
    catalog: Catalog,
    opened: Opened,
    facts: PostgresFacts,
    params: Params,
    mode: Mode,
    owners: Owners,
    /// Indexes into the manifest's tables.
    chosen: Vec<usize>,
    /// The comment of the existing database.
    comment: Option<String>,
    /// The steps that create the schema.
    items: Vec<Item>,
    /// If set, only the rows of the chosen tables in this window are restored.
    window: Option<Window>,
    /// True if hypertables and continuous aggregates are restored as ordinary tables.
    plain: bool,
}

impl Plan {
    /// Inspects the server and the database; changes nothing.
    pub(super) fn make(options: &RestoreOptions, catalog: Catalog, opened: Opened, context: &Context) -> Result<Self> {
        let manifest = &opened.manifest;
        let mut facts = manifest.postgres.clone().ok_or_else(|| Error::problem("its manifest is not of PostgreSQL"))?;
        let params =
            match options.to.as_deref().map(|to| context.named_source(to)).transpose()?.map(|chosen| chosen.source) {
                Some(Source::Postgres(params)) => *params,
                Some(Source::Sqlite(_)) => {
                    return Err(Error::usage(format!(
                        "{} is of a PostgreSQL database, and --to names a file",
                        manifest.id
                    ))
                    .hint("name a database with --to postgres://user@host/database"));
                }
                None => origin_params(&opened.manifest, context)?,
            };
        let name = params.database().to_owned();
        let shown = one_line(&params.shown());
        let items = opened.schema_items()?;
        let chosen = choose(&opened, &items, &options.table)?;
        let mut server = Server::connect(&params)?;
        let existing = server.look(&name)?;
        let owners = if options.no_owner { Owners::Leave } else { Owners::Keep };
        let mut items = items;
        if options.plain_tables {
            facts.extensions.retain(|extension| extension.name != timescale::EXTENSION);
            let left_out = timescale::plain::leave_out(&mut items);
            if !left_out.is_empty() {
                tracing::warn!("left out, as only TimescaleDB can have it: {}", left_out.join(", "));
            }
        }
        let obstacles = server.obstacles(&facts, owners)?;
        if owners == Owners::Leave {
            leave_out_strangers(&mut items, &server.missing_roles(&facts)?);
        }
        // Some servers accept only one session at a time.
        drop(server);
        if let Some(mark) = existing.as_ref().and_then(|existing| Mark::read(existing.comment.as_deref()?)) {
            return Err(unfinished(&mark, &shown, context));
        }
        let mode = mode(options, existing.as_ref(), &params)?;
        if matches!(mode, Mode::Create | Mode::Empty | Mode::Swap) && !obstacles.is_empty() {
            return Err(target::cannot_restore(&obstacles));
        }
        let comment = existing.and_then(|existing| existing.comment);
        let plain = options.plain_tables;
        let mut plan =
            Plan { catalog, opened, facts, params, mode, owners, chosen, comment, items, window: None, plain };
        plan.window = plan.window_of(options)?;
        plan.require_whole(options)?;
        plan.require_fit(options)?;
        Ok(plan)
    }

    /// Fails if an incomplete snapshot would replace a whole database, unless the options allow it.
    fn require_whole(&self, options: &RestoreOptions) -> Result<()> {
        for left_out in &self.facts.left_out {
            tracing::warn!("not in the snapshot: {}", one_line(left_out));
        }
        // A safety snapshot never contains large objects, and --replace checks by itself which tables exist.
        let is_safety = self.opened.manifest.kind == SnapshotKind::Safety;
        let is_lacking = match self.mode {
            Mode::Swap => self.facts.left_out.iter().any(|left_out| !(is_safety && left_out == LARGE_OBJECTS)),
            Mode::Replace => options.table.is_empty() && !is_safety && !self.facts.left_out.is_empty(),
            Mode::Create | Mode::Empty | Mode::Tables | Mode::Beside(_) => false,
        };
        if !is_lacking || options.allow_partial {
            return Ok(());
        }
        let shown: Vec<String> = self.facts.left_out.iter().take(10).map(|left_out| one_line(left_out)).collect();
        Err(Error::usage(format!("{} is not whole: it lacks {}", self.opened.manifest.id, shown.join(", ")))
            .hint("restore what it has with --table, or all the same with --allow-partial"))
    }

    /// Returns the time window of the rows to restore, or `None` for all rows.
    fn window_of(&self, options: &RestoreOptions) -> Result<Option<Window>> {
        if options.from.is_none() && options.until.is_none() {
            return Ok(None);
        }
        let mut kinds = BTreeSet::new();
        for table in self.tables() {
            let time = table.relation.as_ref().and_then(|relation| relation.time.as_ref());
            let column = time.and_then(|time| table.columns.iter().find(|column| column.name == *time));
            let Some(column) = column.filter(|_| table.kind == timescale::HYPERTABLE) else {
                return Err(Error::usage(format!(
                    "--from and --until go by the time of a hypertable, and {} is none that is cut by time",
                    one_line(&table.name)
                ))
                .hint("restore all of its rows, without --from and --until"));
            };
            kinds.insert(timescale::plain_type(&column.declared));
        }
        let mut session = self.look(options)?;
        let mut window = Window { from: options.from.clone(), until: options.until.clone() };
        for kind in kinds {
            for (flag, bound) in [("--from", &mut window.from), ("--until", &mut window.until)] {
                if let Some(text) = bound {
                    *text = timescale::bound(&mut session, text, &kind).map_err(|error| {
                        Error::usage(format!("{flag} {} is no {}", one_line(text), one_line(&kind))).because(error)
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
    fn look(&self, options: &RestoreOptions) -> Result<Session> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        session.execute(&format!("SET lock_timeout = {}", Duration::from_secs(options.lock_timeout).as_millis()))?;
        session.execute("BEGIN READ ONLY")?;
        Ok(session)
    }

    /// Fails if the restore is certain to fail, before anything is read or written.
    fn require_fit(&self, options: &RestoreOptions) -> Result<()> {
        if self.mode == Mode::Replace {
            if options.table.is_empty() && self.facts.large_objects.count > 0 {
                return Err(Error::usage(format!(
                    "{} has {} large objects, and --replace puts back rows only",
                    self.opened.manifest.id, self.facts.large_objects.count
                ))
                .hint("exchange the whole database with --swap, or name the tables to restore with --table"));
            }
            let mut session = self.look(options)?;
            replace::require_fit(&mut session, &self.tables(), options.table.is_empty())?;
        }
        if self.mode == Mode::Tables {
            let mut session = self.look(options)?;
            let live = data::tables(&mut session)?;
            let there: Vec<&str> = self
                .tables()
                .iter()
                .filter(|table| live.iter().any(|live| live.qualified == table.name))
                .map(|table| table.name.as_str())
                .collect();
            if !there.is_empty() {
                return Err(Error::usage(format!("in the way are the tables {}", one_line(&there.join(", ")))).hint(
                    "give them the snapshot's rows with --replace, or bring the snapshot's back beside with --beside SCHEMA",
                ));
            }
        }
        Ok(())
    }

    fn tables(&self) -> Vec<&Table> {
        self.chosen.iter().map(|index| &self.opened.manifest.tables[*index]).collect()
    }

    /// Warns about the database's own settings in the snapshot: a database that was filled keeps those that it has.
    fn tell_settings_left(&self) {
        let left: Vec<&str> = self
            .items
            .iter()
            .filter(|item| item.kind.is_of_database() && item.name != "owner")
            .map(|item| item.name.as_str())
            .collect();
        if !left.is_empty() {
            tracing::warn!(
                "{} keeps what it has of its own; the snapshot's {} was not set ('lifeboat extract --entry {}' shows it)",
                one_line(self.params.database()),
                one_line(&left.join(", ")),
                layout::POST_DATA
            );
        }
    }

    /// Returns the question to ask the user before data is overwritten, or `None` if nothing is overwritten.
    pub(super) fn question(&self) -> Option<String> {
        let manifest = &self.opened.manifest;
        let target = one_line(&self.params.shown());
        let age = text::age(manifest.created_at, Utc::now());
        let by = match &self.window {
            Some(window) => format!("those of {} ({age} old)", window.told(&manifest.id.to_string())),
            None => format!("{} ({age} old, {} rows)", manifest.id, manifest.rows),
        };
        let lacks = match self.facts.left_out.len() {
            0 => String::new(),
            some => format!(", which lacks {some} things that were not saved,"),
        };
        match self.mode {
            Mode::Replace => Some(format!(
                "Replace the rows of {} tables in {target} by {by}{lacks}? (Nobody can use these tables meanwhile.)",
                self.chosen.len()
            )),
            Mode::Swap => Some(format!("Put a new database made of {by}{lacks} in the place of {target}?")),
            Mode::Create | Mode::Empty | Mode::Tables | Mode::Beside(_) => None,
        }
    }

    /// Carries the plan out.
    pub(super) fn run(self, options: &RestoreOptions, context: &Context) -> Result<RestoreReport> {
        let clock = Instant::now();
        let mut report = RestoreReport::new(
            self.opened.manifest.id.to_string(),
            self.params.shown(),
            self.mode.name(),
            options.dry_run,
        );
        if options.dry_run {
            // The number of rows in the window is known only when they are read.
            let rows = |table: &Table| if self.window.is_some() { None } else { table.rows };
            let restored = |table: &Table| RestoredTable { name: table.name.clone(), rows: rows(table), ok: false };
            report.tables = self.tables().into_iter().map(restored).collect();
            report.window = self.window.as_ref().map(Window::shown);
            return Ok(report);
        }
        let _lease = self.catalog.lease(&self.opened.manifest.id);
        match &self.mode {
            Mode::Create => self.create(&mut report, context)?,
            Mode::Empty => self.fill(&mut report, context)?,
            Mode::Swap => self.swap(options, &mut report, context)?,
            Mode::Replace => self.replace(options, &mut report, context)?,
            Mode::Tables => self.make_tables(options, &mut report, context)?,
            Mode::Beside(schema) => self.beside(schema, &mut report, context)?,
        }
        if report.tables.is_empty() {
            let restored = |table: &Table| RestoredTable { name: table.name.clone(), rows: table.rows, ok: true };
            report.tables = self.tables().into_iter().map(restored).collect();
        }
        report.window = self.window.as_ref().map(Window::shown);
        for note in &self.facts.notes {
            tracing::warn!("{}", one_line(note));
        }
        report.seconds = clock.elapsed().as_secs_f64();
        Ok(report)
    }

    fn create(&self, report: &mut RestoreReport, context: &Context) -> Result<()> {
        let mut server = Server::connect(&self.params)?;
        tell_dropped(&server.drop_left_over(&context.host)?);
        let name = self.params.database();
        let scratch = target::scratch_name(&context.host)?;
        let mark = Mark::new("restore", &report.id, &context.host);
        server.create(&scratch, &self.facts.database, &mark)?;
        let built = self
            .build(&self.params.with_database(&scratch), Some(&mark), report, context)
            .and_then(|comment| server.finish(&scratch, name, comment.as_deref()));
        built.map_err(|error| drop_failed(&mut server, &scratch, error))?;
        report.undo = Some(sql_command(&self.params, &[format!("DROP DATABASE {}", ident(name))]));
        Ok(())
    }

    /// Restores into an existing, empty database, which has a mark until the restore is done.
    fn fill(&self, report: &mut RestoreReport, context: &Context) -> Result<()> {
        let mut server = Server::connect(&self.params)?;
        let name = self.params.database();
        let shown = one_line(&self.params.shown());
        // This session is opened at the start: a server whose disk is full accepts no new sessions ("could not write
        // init file"), and then all that remains is to remove what filled the disk.
        let mut caretaker = self.settling_session().ok();
        server.mark(name, &Mark::new(target::FILL, &report.id, &context.host))?;
        // If the server did not accept this session, it accepts no other besides the one that builds.
        let server = caretaker.is_some().then_some(server);
        let again = |server: Option<Server>| server.map_or_else(|| Server::connect_to_settle(&self.params), Ok);
        match self.build(&self.params, None, report, context) {
            Ok(_) => {
                self.tell_settings_left();
                drop(caretaker);
                again(server)?.unmark(name, self.comment.as_deref())
            }
            Err(error) => {
                let cleared = match caretaker.as_mut().map(|session| create::unmake(session, &self.items)) {
                    Some(Ok(())) => Ok(()),
                    // The session was ended meanwhile, or was never opened.
                    _ => self.settling_session().and_then(|mut session| create::unmake(&mut session, &self.items)),
                };
                drop(caretaker);
                let mut server = match again(server) {
                    Ok(server) => server,
                    Err(why) => {
                        tracing::warn!("the mark could not be taken away: {}", why.whole());
                        return Err(error.context(format!(
                            "the restore failed; {shown} is marked as incomplete by its comment: drop it"
                        )));
                    }
                };
                let cleared = cleared.and_then(|()| server.unmark(name, self.comment.as_deref()));
                Err(match cleared {
                    Ok(()) => error.context(format!("the restore failed; {shown} is empty again")),
                    Err(_) if matches!(server.look(name), Ok(None)) => {
                        error.context(format!("the restore failed; {shown} is no more: somebody has dropped it"))
                    }
                    Err(why) => {
                        tracing::warn!("what was made could not be taken away: {}", why.whole());
                        error.context(format!(
                            "the restore failed; {shown} is left incomplete, as its comment says: drop it"
                        ))
                    }
                })
            }
        }
    }

    /// Opens a session in the database that can clean up even after a signal has asked to stop.
    fn settling_session(&self) -> Result<Session> {
        let mut session = Session::connect_to_settle(&self.params)?;
        settings::pin(&mut session)?;
        Ok(session)
    }

    fn swap(&self, options: &RestoreOptions, report: &mut RestoreReport, context: &Context) -> Result<()> {
        let mut server = Server::connect(&self.params)?;
        tell_dropped(&server.drop_left_over(&context.host)?);
        let name = self.params.database().to_owned();
        // Check this now, not after an hour of building.
        let busy = server.look(&name)?.map_or(0, |existing| existing.sessions);
        if busy > 0 && !options.disconnect {
            return Err(Error::failed(format!(
                "{busy} sessions of others are in {}: a database in use cannot be exchanged",
                one_line(&self.params.shown())
            ))
            .hint("stop what uses it, or let this end their sessions with --disconnect; nothing was changed"));
        }
        let mut settings_now = database_settings(&self.params)?;
        // Until the names are exchanged, the mark is in the place of the comment.
        settings_now.retain(|item| item.name != "comment");
        let scratch = target::scratch_name(&context.host)?;
        let mark = Mark::new("restore", &report.id, &context.host);
        server.create(&scratch, &self.facts.database, &mark)?;
        let aside = format!("{}_before_{}", cut(&name, 38), Utc::now().format("%Y%m%dT%H%M%SZ"));
        let new = self.params.with_database(&scratch);
        let built = self
            .build(&new, None, report, context)
            .and_then(|_| {
                let mut session = Session::connect(&new)?;
                settings::pin(&mut session)?;
                create::apply_settings(&mut session, &settings_now)
            })
            .and_then(|()| server.exchange(&scratch, &name, &aside, self.comment.as_deref(), options.disconnect));
        built.map_err(|error| drop_failed(&mut server, &scratch, error))?;
        report.moved_aside.push(aside.clone());
        let undo = [
            format!("ALTER DATABASE {} RENAME TO {}", ident(&name), ident(&scratch)),
            format!("ALTER DATABASE {} RENAME TO {}", ident(&aside), ident(&name)),
        ];
        report.undo = Some(sql_command(&self.params, &undo));
        Ok(())
    }

    /// Creates everything in an empty database, loads it and compares it. With a mark, the database's own settings are
    /// restored too, except its comment. The comment is returned, because the mark is in its place until all is done.
    fn build(
        &self,
        params: &Params,
        mark: Option<&Mark>,
        report: &mut RestoreReport,
        context: &Context,
    ) -> Result<Option<String>> {
        let clock = Instant::now();
        let (opened, items, owners, plain) = (&self.opened, &self.items, self.owners, self.plain);
        let build = Build { opened, items, owners, params, context, plain };
        let comment = build.run(mark)?;
        report.stream_seconds = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        build.compare(context.jobs)?;
        report.check_seconds = clock.elapsed().as_secs_f64();
        Ok(comment)
    }

    fn replace(&self, options: &RestoreOptions, report: &mut RestoreReport, context: &Context) -> Result<()> {
        let whole = options.table.is_empty();
        let tables = self.tables();
        let lock_timeout = Duration::from_secs(options.lock_timeout);
        let is_owned = |value: &&SequenceValue| {
            whole || value.table.as_ref().is_some_and(|owner| tables.iter().any(|table| table.name == *owner))
        };
        let (sequences, others): (Vec<&SequenceValue>, Vec<&SequenceValue>) =
            self.facts.sequences.iter().partition(is_owned);
        let drawn_from = self.sequences_drawn_from();
        let is_shared = |value: &&&SequenceValue| drawn_from.contains(&(value.schema.as_str(), value.name.as_str()));
        let shared: Vec<&SequenceValue> = others.iter().filter(is_shared).copied().collect();
        let mut replacement = Replacement::begin(&self.params, &tables, &sequences, whole, lock_timeout)?;
        if !options.no_safety {
            // No other session can write to the tables any more: what is saved is what is overwritten.
            let safety;
            (safety, replacement) = self.save_safety(replacement, &tables, whole, context)?;
            let target = target_word(&self.opened.manifest, &self.params, context)?;
            let mut undo = vec!["restore", &safety, "--to", &target, "--replace"];
            let names: Vec<&str> = if whole { Vec::new() } else { tables.iter().map(|table| &*table.name).collect() };
            names.iter().for_each(|name| undo.extend(["--table", name]));
            report.undo = Some(context.command_line(&undo, &self.opened.manifest, &self.catalog.location()));
            report.safety_snapshot = Some(safety);
        }
        let mut work = || -> Result<()> {
            let clock = Instant::now();
            let (from, until) = self.bounds();
            replacement.empty(from, until)?;
            let copies: Vec<RowSource> = replacement.tables().to_vec();
            let expected = self.load_chosen(replacement.session(), &copies, whole, context)?;
            replacement.settle(&sequences, !whole)?;
            replacement.refresh(whole)?;
            self.compress_again(replacement.session())?;
            report.stream_seconds = clock.elapsed().as_secs_f64();
            let clock = Instant::now();
            self.compare_chosen(replacement.session(), &copies, &expected, report)?;
            report.check_seconds = clock.elapsed().as_secs_f64();
            replacement.move_forward(&shared)
        };
        let told =
            |error: Error| error.context(format!("cannot restore {}; nothing was changed", self.opened.manifest.id));
        work().map_err(told)?;
        replacement.commit().map_err(|error| match (&error.hint, &report.undo) {
            (None, Some(undo)) => error.hint(format!("what was there before comes back with: {undo}")),
            _ => error,
        })
    }

    /// Returns the schema and name of each chosen table.
    fn relations(&self) -> BTreeSet<(&str, &str)> {
        let relations = self.tables().into_iter().filter_map(|table| table.relation.as_ref());
        relations.map(|relation| (relation.schema.as_str(), relation.table.as_str())).collect()
    }

    /// Returns the schema and name of each sequence that the tables' defaults use, whichever table owns it.
    fn sequences_drawn_from(&self) -> BTreeSet<(&str, &str)> {
        let chosen = self.relations();
        let is_chosen = |item: &Item| item.kind == Kind::Table && chosen.contains(&names_of(item));
        let of_theirs = |item: &&Item| is_chosen(item) || item.table.is_some_and(|table| is_chosen(&self.items[table]));
        let needed = self.items.iter().filter(of_theirs).flat_map(|item| &item.needs).map(|need| &self.items[*need]);
        needed.filter(|item| item.kind == Kind::Sequence).map(names_of).collect()
    }

    fn make_tables(&self, options: &RestoreOptions, report: &mut RestoreReport, context: &Context) -> Result<()> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        // Foreign keys to existing tables lock those tables.
        session.execute(&format!("SET lock_timeout = {}", Duration::from_secs(options.lock_timeout).as_millis()))?;
        self.in_one_transaction(&mut session, report, |session| {
            let (items, attached_last) = self.items_of_tables(session)?;
            create::make(session, &items, Section::Pre, self.owners)?;
            let copies: Vec<RowSource> = self.tables().iter().map(|table| RowSource::like(table)).collect();
            let expected = self.load_chosen(session, &copies, false, context)?;
            for value in &self.facts.sequences {
                if items.iter().any(|item| {
                    item.kind == Kind::Sequence
                        && item.schema.as_ref() == Some(&value.schema)
                        && item.name == value.name
                }) || self.tables().iter().any(|table| value.table.as_ref() == Some(&table.name))
                {
                    session.rows(&sequences::statement(value))?;
                }
            }
            create::make(session, &items, Section::Post, self.owners)?;
            attached_last.iter().try_for_each(|item| create::make_one(session, item, self.owners))?;
            if self.owners == Owners::Keep {
                create::grant(session, &items)?;
            }
            items
                .iter()
                .filter(|item| matches!(item.kind, Kind::CompressedChunks | Kind::Job))
                .try_for_each(|item| create::make_one(session, item, self.owners))?;
            self.tell_lost(session, &items)?;
            Ok((copies, expected))
        })?;
        let names: Vec<&str> = self.tables().iter().map(|table| table.name.as_str()).collect();
        let undo = format!("DROP TABLE {}", names.join(", "));
        report.undo = Some(sql_command_in(&self.params, self.params.database(), &[undo]));
        Ok(())
    }

    /// Returns the steps that create the chosen tables and the objects that belong to them and, separately, the steps
    /// that attach partitions to an existing table. Those must come last: a partition that is attached before it has
    /// its own indexes gets indexes from that table.
    fn items_of_tables(&self, session: &mut Session) -> Result<(Vec<Item>, Vec<Item>)> {
        let wanted = self.relations();
        let is_wanted = |item: &Item| item.kind == Kind::Table && wanted.contains(&names_of(item));
        // The partitioned tables above them, if they do not exist either.
        let mut above: BTreeSet<usize> = BTreeSet::new();
        for table in self.items.iter().filter(|item| is_wanted(item)) {
            let mut next = attachment_of(&self.items, table).and_then(|attach| parent_of(&self.items, attach));
            while let Some(parent) = next.filter(|parent| !above.contains(&parent.id)) {
                if !is_there(session, parent)? {
                    above.insert(parent.id);
                }
                next = attachment_of(&self.items, parent).and_then(|attach| parent_of(&self.items, attach));
            }
        }
        let mut taken: BTreeSet<usize> = BTreeSet::new();
        for item in &self.items {
            let own = is_wanted(item) || above.contains(&item.id);
            if own || item.table.is_some_and(|table| taken.contains(&table)) {
                taken.insert(item.id);
            }
        }
        // Sequences that defaults use are created with the tables if they do not exist either.
        let needed: BTreeSet<usize> = taken.iter().flat_map(|id| self.items[*id].needs.iter().copied()).collect();
        for id in needed {
            let item = &self.items[id];
            if item.kind == Kind::Sequence && !taken.contains(&id) && !is_there(session, item)? {
                taken.insert(id);
            }
        }
        let attached_last = |item: &Item| match item.kind {
            Kind::AttachPartition => parent_of(&self.items, item).is_none_or(|parent| !taken.contains(&parent.id)),
            Kind::IndexAttach => item.needs.iter().any(|need| !taken.contains(need)),
            _ => false,
        };
        let items = self.items.iter().filter(|item| taken.contains(&item.id)).cloned();
        let (last, items): (Vec<Item>, Vec<Item>) = items.partition(|item| attached_last(item));
        Ok((items, last))
    }

    /// Warns about objects that depended on the tables and were dropped with them: foreign keys of other tables, views.
    fn tell_lost(&self, session: &mut Session, made: &[Item]) -> Result<()> {
        let made: BTreeSet<usize> = made.iter().map(|item| item.id).collect();
        let mut gone: BTreeSet<usize> = made.clone();
        let mut lost = Vec::new();
        for item in self.items.iter().filter(|item| !made.contains(&item.id)) {
            let schema = item.schema.as_deref().unwrap_or_default();
            let literal = schema::quote::literal;
            let uses = item.needs.iter().any(|need| gone.contains(need));
            match item.kind {
                Kind::View | Kind::MaterializedView if uses && !is_there(session, item)? => {
                    gone.insert(item.id);
                    lost.push(format!("the {} {}", item.kind.words(), qualified(schema, &item.name)));
                }
                Kind::ForeignKey if uses => {
                    let Some(table) = item.table.map(|table| &self.items[table]) else { continue };
                    let from = qualified(table.schema.as_deref().unwrap_or_default(), &table.name);
                    let there = session.row(&format!(
                        "SELECT pg_catalog.to_regclass({0}) IS NULL OR EXISTS (
                             SELECT FROM pg_catalog.pg_constraint
                              WHERE conrelid = pg_catalog.to_regclass({0}) AND conname = {1}) AS there",
                        literal(&from),
                        literal(&item.name)
                    ))?;
                    if !there.flag("there")? {
                        lost.push(format!("the foreign key {} of {from}", item.name));
                    }
                }
                _ => {}
            }
        }
        if !lost.is_empty() {
            tracing::warn!(
                "gone with the tables, and not made again: {} ('lifeboat extract --entry {}' shows how they were made)",
                one_line(&lost.join(", ")),
                layout::POST_DATA
            );
        }
        Ok(())
    }

    fn beside(&self, schema: &str, report: &mut RestoreReport, context: &Context) -> Result<()> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        self.in_one_transaction(&mut session, report, |session| {
            let copies = replace::make_beside(session, schema, &self.tables())?;
            let expected = self.load_chosen(session, &copies, false, context)?;
            Ok((copies, expected))
        })?;
        let undo = format!("DROP SCHEMA {} CASCADE", ident(schema));
        report.undo = Some(sql_command_in(&self.params, self.params.database(), &[undo]));
        Ok(())
    }

    /// Does the work in one transaction, compares the rows that it loaded, and commits only if they are equal.
    fn in_one_transaction(
        &self,
        session: &mut Session,
        report: &mut RestoreReport,
        work: impl FnOnce(&mut Session) -> Result<(Vec<RowSource>, Vec<RowSum>)>,
    ) -> Result<()> {
        let all = |session: &mut Session, report: &mut RestoreReport| -> Result<()> {
            session.execute("BEGIN")?;
            let clock = Instant::now();
            let (copies, expected) = work(session)?;
            report.stream_seconds = clock.elapsed().as_secs_f64();
            let clock = Instant::now();
            self.compare_chosen(session, &copies, &expected, report)?;
            report.check_seconds = clock.elapsed().as_secs_f64();
            Ok(())
        };
        all(session, report).map_err(|error| {
            error.context(format!("cannot restore {}; nothing was changed", self.opened.manifest.id))
        })?;
        commit(session, &self.params)
    }

    /// Loads the chosen tables in the session's transaction. Reads only their entries, unless all tables are wanted:
    /// then the whole archive is read, and hashed as a whole.
    fn load_serially(&self, session: &mut Session, copies: &[RowSource], whole: bool, context: &Context) -> Result<()> {
        let tables = self.tables();
        let sinks: Vec<(&Table, &RowSource)> = tables.iter().copied().zip(copies).collect();
        let total = tables.iter().filter_map(|table| table.bytes).sum();
        context.progress.start("restoring", total);
        let mut visitor = Rows::new(&sinks, context, |work| load::load(session, work).map(|_| true));
        let read = if whole {
            self.opened.walk(&mut visitor)
        } else {
            let entries = self.opened.reader.entries().iter();
            let wanted: Vec<&Entry> = entries.filter(|entry| visitor.wants(&entry.path)).collect();
            self.opened.reader.visit(&wanted, &mut visitor)
        };
        context.progress.finish();
        read
    }

    /// Returns the start and the end of the time window of the rows that are restored.
    fn bounds(&self) -> (Option<&str>, Option<&str>) {
        let window = self.window.as_ref();
        (window.and_then(|window| window.from.as_deref()), window.and_then(|window| window.until.as_deref()))
    }

    /// Loads the chosen tables in the session's transaction, or only their rows in the window. Returns a sum of each
    /// table's rows in the window; empty without a window.
    ///
    /// The server decides which rows are in the window, since it knows what their text means: all rows are loaded into
    /// temporary tables that the end of the transaction drops, and compared there as a whole. Then the rows of the
    /// window are copied from there.
    fn load_chosen(
        &self,
        session: &mut Session,
        copies: &[RowSource],
        whole: bool,
        context: &Context,
    ) -> Result<Vec<RowSum>> {
        if self.window.is_none() {
            self.load_serially(session, copies, whole, context)?;
            return Ok(Vec::new());
        }
        let (from, until) = self.bounds();
        let mut rooms = Vec::new();
        for (number, copy) in copies.iter().enumerate() {
            let mut room = copy.clone();
            room.qualified = format!("pg_temp.lifeboat_window_{number}");
            if let Some(span) = &mut room.span {
                span.relation.clone_from(&room.qualified);
            }
            session.execute(&format!(
                "CREATE TEMPORARY TABLE lifeboat_window_{number} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA",
                copy.columns.join(", "),
                copy.relation()
            ))?;
            rooms.push(room);
        }
        self.load_serially(session, &rooms, whole, context)?;
        let mut sums = Vec::new();
        for ((table, copy), room) in self.tables().iter().zip(copies).zip(&rooms) {
            require_equal(table, &room.sum(session)?)?;
            let columns = copy.columns.join(", ");
            session
                .execute(&format!(
                    "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {} {}",
                    copy.qualified,
                    room.qualified,
                    room.within(from, until)
                ))
                .map_err(|error| error.context(format!("cannot load rows into {}", one_line(&copy.qualified))))?;
            sums.push(room.sum_within(session, from, until)?);
        }
        Ok(sums)
    }

    /// Compares the restored rows with what was saved or, with a window, its rows with those that were loaded for it.
    fn compare_chosen(
        &self,
        session: &mut Session,
        copies: &[RowSource],
        expected: &[RowSum],
        report: &mut RestoreReport,
    ) -> Result<()> {
        if self.window.is_none() {
            return self
                .tables()
                .iter()
                .zip(copies)
                .try_for_each(|(table, copy)| require_equal(table, &copy.sum(session)?));
        }
        let (from, until) = self.bounds();
        for ((table, copy), expected) in self.tables().iter().zip(copies).zip(expected) {
            let found = copy.sum_within(session, from, until)?;
            let of_window = Table { rows: Some(expected.rows), digest: Some(expected.digest), ..(*table).clone() };
            require_equal(&of_window, &found)?;
            report.tables.push(RestoredTable { name: table.name.clone(), rows: Some(found.rows), ok: true });
        }
        Ok(())
    }

    /// Compresses the chunks of the chosen tables that were compressed. If the server cannot compress them, their rows
    /// are restored all the same, and a warning says so.
    fn compress_again(&self, session: &mut Session) -> Result<()> {
        let chosen = self.relations();
        let is_chosen = |item: &&Item| item.kind == Kind::CompressedChunks && chosen.contains(&names_of(item));
        for item in self.items.iter().filter(is_chosen) {
            session.execute("SAVEPOINT compressing")?;
            match create::make_one(session, item, self.owners) {
                Ok(()) => session.execute("RELEASE SAVEPOINT compressing")?,
                Err(error) if sqlstate(&error).is_some() => {
                    session.execute("ROLLBACK TO SAVEPOINT compressing")?;
                    tracing::warn!("the chunks of {} stay uncompressed: {}", one_line(&item.name), error.whole());
                }
                Err(error) => return Err(error),
            }
        }
        let names: Vec<&str> = self
            .items
            .iter()
            .filter(|item| item.kind == Kind::ContinuousAggregate && !chosen.contains(&names_of(item)))
            .filter(|item| item.needs.iter().any(|need| chosen.contains(&names_of(&self.items[*need]))))
            .map(|item| item.name.as_str())
            .collect();
        if !names.is_empty() {
            tracing::warn!(
                "the continuous aggregates {} show the rows that were there before until they are refreshed",
                one_line(&names.join(", "))
            );
        }
        Ok(())
    }

    /// Saves the data that is about to be overwritten, into the same store.
    fn save_safety(
        &self,
        replacement: Replacement,
        tables: &[&Table],
        whole: bool,
        context: &Context,
    ) -> Result<(String, Replacement)> {
        let patterns = |tables: &[&Table]| tables.iter().map(|table| Pattern::exact(&table.name)).collect();
        let plan = PostgresPlan {
            params: &self.params,
            name: self.opened.manifest.source.clone(),
            origin: postgres_origin_of(&self.params, &context.host),
            kind: SnapshotKind::Safety,
            tags: vec!["safety".to_owned()],
            compression: Compression::default(),
            options: SnapshotOptions {
                jobs: 1,
                lock_timeout: Duration::ZERO,
                selection: Selection {
                    tables: if whole { Vec::new() } else { patterns(tables) },
                    without_large_objects: true,
                    ..Selection::default()
                },
                allow_partial: true,
            },
            allow_empty: true,
            previous: None,
            measure: None,
        };
        let destination = self.opened.safety_destination(&self.catalog, context)?;
        let read = |reading| plan.run_within(reading, tables, &destination, context);
        let (saved, replacement) = replacement.read(read).map_err(|error| {
            let error = error.context("cannot save what would be overwritten; nothing was changed");
            if error.hint.is_none() { error.hint("--no-safety goes on without a way back") } else { error }
        })?;
        Ok((saved.manifest.id.to_string(), replacement))
    }
}

/// Returns the word for a database in a printed command: its name in the config, which has its password, or its URL.
pub(crate) fn target_word(manifest: &Manifest, params: &Params, context: &Context) -> Result<String> {
    Ok(match context.home_of(manifest)? {
        Some(Source::Postgres(home)) if home.shown() == params.shown() => manifest.source.to_string(),
        _ => params.shown(),
    })
}

/// Returns the database that a snapshot is restored to if no other is named: the one that the config has for its
/// source, or the origin of the snapshot, as far as this machine's environment can reach it.
pub(crate) fn origin_params(manifest: &Manifest, context: &Context) -> Result<Params> {
    if let Some(Source::Postgres(params)) = context.home_of(manifest)? {
        return Ok(*params);
    }
    let origin = &manifest.origin;
    let user = manifest.postgres.as_ref().map_or("", |facts| &facts.role);
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut words = vec![
        format!("dbname={}", quoted(origin.database.as_deref().unwrap_or_default())),
        format!("user={}", quoted(user)),
        format!("port={}", origin.port.unwrap_or(5432)),
    ];
    // The host is always set, with an empty hostaddr: the current environment may contain another address.
    words.push("hostaddr=''".to_owned());
    let reached_by = manifest.postgres.as_ref().map(|facts| facts.reached_by.as_str());
    match reached_by.filter(|_| origin.host == context.host) {
        Some(reached_by) => words.push(format!("host={}", quoted(reached_by))),
        None => words.push(format!("host={}", quoted(&origin.host))),
    }
    Params::parse(&words.join(" "))
}

/// Returns the tables that were asked for, as indexes into the manifest's tables; every pattern must match at least
/// one. A partitioned table stands for its partitions.
fn choose(opened: &Opened, items: &[Item], patterns: &[String]) -> Result<Vec<usize>> {
    let tables = &opened.manifest.tables;
    if patterns.is_empty() {
        return Ok((0..tables.len()).collect());
    }
    let mut parents: HashMap<(&str, &str), Vec<&Item>> = HashMap::new();
    for item in items.iter().filter(|item| item.kind == Kind::AttachPartition) {
        let mut above = Vec::new();
        let mut next = Some(item);
        while let Some(attach) = next {
            let parent = parent_of(items, attach);
            above.extend(parent);
            next = parent.and_then(|parent| attachment_of(items, parent));
        }
        if let Some(table) = item.table.map(|table| &items[table]) {
            parents.insert((table.schema.as_deref().unwrap_or_default(), table.name.as_str()), above);
        }
    }
    let mut chosen = BTreeSet::new();
    for text in patterns {
        let pattern = Pattern::new(text);
        let found: Vec<usize> = (0..tables.len())
            .filter(|index| {
                let table = &tables[*index];
                let Some(relation) = table.relation.as_ref() else { return false };
                let above = parents.get(&(relation.schema.as_str(), relation.table.as_str()));
                let by_parent = |parent: &&Item| {
                    let schema = parent.schema.as_deref().unwrap_or_default();
                    pattern.matches(schema, &parent.name, &qualified(schema, &parent.name))
                };
                pattern.matches(&relation.schema, &relation.table, &table.name)
                    || above.into_iter().flatten().any(by_parent)
            })
            .collect();
        if found.is_empty() {
            return Err(Error::usage(format!("the snapshot {} has no table {}", opened.manifest.id, one_line(text)))
                .hint(format!("'lifeboat show {}' lists its tables", opened.manifest.id)));
        }
        chosen.extend(found);
    }
    Ok(chosen.into_iter().collect())
}

/// Empties the items that cannot be created without a role that is missing, and warns about them. They stay in the
/// list, because other items refer to their indexes.
fn leave_out_strangers(items: &mut [Item], missing: &[String]) {
    for item in items.iter_mut().filter(|item| matches!(item.kind, Kind::Policy | Kind::UserMapping)) {
        let Some(role) = item.roles.iter().find(|role| missing.contains(role)) else { continue };
        tracing::warn!(
            "left out: the {} {}, which is for the role {}, and that is missing",
            item.kind.words(),
            one_line(if item.identity.is_empty() { &item.name } else { &item.identity }),
            one_line(role)
        );
        item.create.clear();
        item.comments.clear();
    }
}

/// Returns the schema and name of an item that has both.
fn names_of(item: &Item) -> (&str, &str) {
    (item.schema.as_deref().unwrap_or_default(), &item.name)
}

/// Returns the partitioned table that an item attaches a partition to.
fn parent_of<'a>(items: &'a [Item], attach: &Item) -> Option<&'a Item> {
    let others = attach.needs.iter().filter(|need| Some(**need) != attach.table).map(|need| &items[*need]);
    others.into_iter().find(|item| item.kind == Kind::Table)
}

/// Returns the item that attaches a table to the table that it is a partition of.
fn attachment_of<'a>(items: &'a [Item], table: &Item) -> Option<&'a Item> {
    items.iter().find(|item| item.kind == Kind::AttachPartition && item.table == Some(table.id))
}

/// Reads the steps that set the current properties of the database itself.
fn database_settings(params: &Params) -> Result<Vec<Item>> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    session.execute("BEGIN READ ONLY")?;
    let schema = schema::read(&mut session)?;
    Ok(schema.items.into_iter().filter(|item| item.kind.is_of_database()).collect())
}

/// Chooses what a restore does to the target; fails if the options do not fit its state.
fn mode(options: &RestoreOptions, existing: Option<&Existing>, params: &Params) -> Result<Mode> {
    let shown = one_line(&params.shown());
    let absent = |hint: &str| Error::usage(format!("the database {shown} is not there")).hint(hint);
    match (existing, &options.beside) {
        (_, _) if options.create && existing.is_some() => {
            Err(Error::usage(format!("the database {shown} is there already"))
                .hint("restore to another name, overwrite its rows with --replace, or exchange it with --swap"))
        }
        (_, _) if (options.create || options.swap) && !options.table.is_empty() => {
            Err(Error::usage("--table goes into a database that stays")
                .hint("leave --create and --swap away, or restore everything"))
        }
        (None, _) if options.create => Ok(Mode::Create),
        (None, _) if options.swap || options.replace => Err(absent("make it with --create")),
        (None, _) => Err(absent("let it be made with --create, or name another with --to")),
        (Some(_), Some(schema)) => Ok(Mode::Beside(schema.clone())),
        (Some(_), _) if options.swap => Ok(Mode::Swap),
        (Some(_), _) if options.replace => Ok(Mode::Replace),
        (Some(_), _) if !options.table.is_empty() => Ok(Mode::Tables),
        (Some(Existing { comment: Some(comment), .. }), _) if Mark::read(comment).is_some() => Err(Error::usage(
            format!("the database {shown} is unfinished: a restore into it goes on, or has ended early"),
        )
        .hint("wait for it; or drop the database, and restore with --create")),
        (Some(_), _) => {
            let found = crate::engine::postgres::restore::contents::contents(&mut Session::connect(params)?)?;
            if !found.is_empty() {
                let found = one_line(&found.join(", "));
                return Err(Error::usage(format!("the database {shown} is not empty: it has {found}")).hint(
                    "overwrite the rows with --replace, exchange the whole database with --swap, bring tables \
                     back beside with --beside SCHEMA, or restore to a new database with --create",
                ));
            }
            Ok(Mode::Empty)
        }
    }
}

/// Returns true if a relation of that name exists in the database.
fn is_there(session: &mut Session, relation: &Item) -> Result<bool> {
    let name = qualified(relation.schema.as_deref().unwrap_or_default(), &relation.name);
    let name = schema::quote::literal(&name);
    session.row(&format!("SELECT pg_catalog.to_regclass({name}) IS NOT NULL AS there"))?.flag("there")
}

/// Returns the error for a database that a restore began to fill and has not finished.
fn unfinished(mark: &Mark, shown: &str, context: &Context) -> Error {
    let (id, since) = (one_line(&mark.snapshot), mark.since.format("%Y-%m-%d %H:%M:%SZ"));
    if mark.may_be_at_work(&context.host) {
        let (process, host) = (mark.process, one_line(&mark.host));
        return Error::failed(format!("{shown} is being restored to, from {id}, by process {process} on {host}"))
            .hint("wait for its end; where it has died, drop the database, and make it anew with --create");
    }
    Error::failed(format!("{shown} is half of {id}: the restore that began at {since} has died"))
        .hint("drop the database, and make it anew with --create")
}

fn tell_dropped(dropped: &[String]) {
    for name in dropped {
        tracing::warn!("dropped {}: a run that has died left it unfinished", one_line(name));
    }
}

fn drop_failed(server: &mut Server, scratch: &str, error: Error) -> Error {
    if let Err(why) = server.drop(scratch) {
        tracing::warn!("the unfinished database {scratch} is left behind: {}", why.whole());
    }
    error.context("the restore failed; what was there before is as it was")
}

/// Returns at most `most` bytes of a name.
fn cut(name: &str, most: usize) -> &str {
    &name[..name.floor_char_boundary(most)]
}

/// Returns a command that runs statements in one transaction, from the database `postgres`.
fn sql_command(params: &Params, statements: &[String]) -> String {
    sql_command_in(params, "postgres", statements)
}

fn sql_command_in(params: &Params, database: &str, statements: &[String]) -> String {
    let sql = match statements {
        [one] => one.clone(),
        many => format!("BEGIN; {}; COMMIT", many.join("; ")),
    };
    let quote = crate::engine::sqlite::target::quote_word;
    format!("psql {} -c {}", quote(&params.with_database(database).shown()), quote(&sql))
}

/// Restores a snapshot into a database that this program creates, compares it, and drops it.
///
/// If the rows differ from those that were saved, returns the difference as `Some(error)`: it is not damage of the
/// archive, every byte of which was hashed while it was read.
pub(crate) fn drill(opened: &Opened, to: Option<&str>, owners: Owners, context: &Context) -> Result<Option<Error>> {
    let params = match to.map(|to| context.named_source(to)).transpose()?.map(|chosen| chosen.source) {
        Some(Source::Postgres(params)) => *params,
        Some(Source::Sqlite(_)) => {
            return Err(Error::usage("--to names a file, and the snapshot is of a PostgreSQL database")
                .hint("name a server with --to postgres://user@host/database"));
        }
        None => origin_params(&opened.manifest, context)?,
    };
    let facts = opened.manifest.postgres.as_ref().ok_or_else(|| Error::problem("its manifest is not of PostgreSQL"))?;
    let mut server = Server::connect(&params)?;
    tell_dropped(&server.drop_left_over(&context.host)?);
    let obstacles = server.obstacles(facts, owners)?;
    if !obstacles.is_empty() {
        return Err(target::cannot_restore(&obstacles));
    }
    let mut items = opened.schema_items()?;
    if owners == Owners::Leave {
        leave_out_strangers(&mut items, &server.missing_roles(facts)?);
    }
    let scratch = target::scratch_name(&context.host)?;
    let mark = Mark::new("drill", &opened.manifest.id.to_string(), &context.host);
    server.create(&scratch, &facts.database, &mark)?;
    let new = params.with_database(&scratch);
    let build = Build { opened, items: &items, owners, params: &new, context, plain: false };
    let drilled = build.run(Some(&mark)).and_then(|_| match build.compare(context.jobs) {
        Err(error) if error.kind == ErrorKind::Problem => Ok(Some(error)),
        other => other.map(|()| None),
    });
    let dropped = server.drop(&scratch);
    drilled.and_then(|different| dropped.map(|()| different))
}
