//! PostgreSQL as an engine: a database is on a server.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Once};

use crate::engine::context::EngineContext;
use crate::engine::database::{
    Contents, Database, DrillSettings, Drilled, Engine, OpenSnapshot, RowChanges, Source, TableFormat, TablePair,
};
use crate::engine::live::Live;
use crate::engine::postgres::copy::snapshot::Snapshot;
use crate::engine::postgres::restore::contents::contents;
use crate::engine::postgres::restore::drill::drill;
use crate::engine::postgres::restore::items::read_items;
use crate::engine::postgres::restore::missing::missing;
use crate::engine::postgres::restore::plan::Plan;
use crate::engine::postgres::restore::target::Server;
use crate::engine::postgres::save::{DatabaseSaving, options_of, origin_of, schema_digest, table_of};
use crate::engine::postgres::schema::provided;
use crate::engine::postgres::wire::params::{Environment, Params, is_this_machine};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::{compare_rows, layout, live, sql_files, table_rows};
use crate::engine::restoring::{RestorePlan, RestoreSettings, SavedSnapshot};
use crate::engine::saving::{SaveRequest, Saving};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::scratch::Scratch;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, Origin};

/// The name of the engine in manifests.
const NAME: &str = "postgres";

/// A database on a server.
#[derive(Clone, Debug)]
pub(crate) struct PostgresDatabase(pub(crate) Params);

impl Database for PostgresDatabase {
    fn engine(&self) -> &'static str {
        NAME
    }

    fn shown(&self) -> String {
        self.0.shown()
    }

    fn derived_name(&self) -> Option<SourceName> {
        SourceName::derive(self.0.database())
    }

    fn origin(&self, host: &str) -> Result<Origin> {
        Ok(origin_of(&self.0, host))
    }

    fn server(&self) -> Option<&Params> {
        Some(&self.0)
    }

    fn is_same(&self, other: &dyn Database) -> bool {
        let place = |params: &Params| (params.host().to_owned(), params.port(), params.database().to_owned());
        other.server().is_some_and(|other| place(&self.0) == place(other))
    }

    fn is_absent(&self) -> bool {
        let find = || Server::connect(&self.0)?.find_database(self.0.database());
        find().is_ok_and(|found| found.is_none())
    }

    fn open(&self, _: &Scratch) -> Result<Box<dyn Live>> {
        live::open(&self.0)
    }

    fn contents(&self, context: &EngineContext) -> Result<Contents> {
        let mut snapshot = Snapshot::begin(&self.0, &options_of(&self.0, &SaveRequest::default(), context.jobs))?;
        snapshot.read_rows(&mut |_| Ok(()))?;
        let tables =
            snapshot.tables.iter().zip(&snapshot.rows).map(|(table, rows)| table_of(table, &rows.sum)).collect();
        let schema = Some(schema_digest(&snapshot.schema.items));
        Ok(Contents { name: self.0.shown(), tables, schema })
    }

    fn missing_for(&self, manifest: &Manifest) -> Result<Vec<String>> {
        manifest.postgres.as_ref().map_or(Ok(Vec::new()), |facts| missing(&self.0, facts))
    }

    fn compare_rows(
        &self,
        snapshot: &dyn SavedSnapshot,
        pairs: &[TablePair],
        context: &EngineContext,
    ) -> Result<Vec<RowChanges>> {
        compare_rows::compare(&self.0, snapshot, pairs, context)
    }

    fn locate(&self, _: &SaveRequest) -> Result<Source> {
        Session::connect(&self.0)?;
        Ok(Source::new(self.clone()))
    }

    fn begin_save(&self, request: &SaveRequest, context: &EngineContext) -> Result<Box<dyn Saving>> {
        Ok(Box::new(DatabaseSaving::begin(&self.0, options_of(&self.0, request, context.jobs))?))
    }

    fn plan_restore(
        &self,
        snapshot: Arc<dyn SavedSnapshot>,
        settings: &RestoreSettings,
        context: &EngineContext,
    ) -> Result<Box<dyn RestorePlan>> {
        Ok(Box::new(Plan::make(&self.0, snapshot, settings, context)?))
    }

    fn plan_restore_in_place(
        &self,
        snapshot: Arc<dyn SavedSnapshot>,
        lock_timeout: u64,
        context: &EngineContext,
    ) -> Result<Box<dyn RestorePlan>> {
        let settings = RestoreSettings { lock_timeout, by_itself: true, ..RestoreSettings::default() };
        let plan = |settings: RestoreSettings| self.plan_restore(Arc::clone(&snapshot), &settings, context);
        if Server::connect(&self.0)?.find_database(self.0.database())?.is_none() {
            return plan(RestoreSettings { create: true, ..settings });
        }
        let mut session = Session::connect(&self.0)?;
        let provider = match &snapshot.manifest().postgres {
            Some(facts) => provided::of_target(&mut session, self.0.provider, facts)?,
            None => self.0.provider,
        };
        if contents(&mut session, provider)?.is_empty() {
            return plan(settings);
        }
        match plan(RestoreSettings { replace: true, ..settings.clone() }) {
            // The rows alone cannot be replaced, because the schema is not that of the snapshot.
            Err(refused) if matches!(refused.kind, Kind::Usage | Kind::Failed) => {
                let reason = refused.full_message();
                tracing::info!("exchanging the whole database, because its rows cannot be replaced: {reason}");
                plan(RestoreSettings { swap: true, disconnect: true, ..settings })
            }
            planned => planned,
        }
    }
}

/// The engine of PostgreSQL snapshots.
pub(crate) struct PostgresEngine;

impl Engine for PostgresEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn title(&self) -> &'static str {
        "PostgreSQL"
    }

    fn origin_of(&self, manifest: &Manifest, host: &str) -> Result<Option<Source>> {
        let origin = &manifest.origin;
        let facts = manifest.postgres.as_ref();
        let user = facts.map_or("", |facts| &facts.role);
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let mut words = vec![
            format!("dbname={}", quoted(origin.database.as_deref().unwrap_or_default())),
            format!("user={}", quoted(user)),
            format!("port={}", origin.port.unwrap_or(5432)),
        ];
        // The host is always set, with an empty hostaddr: the current environment may contain another address.
        words.push("hostaddr=''".to_owned());
        let reached_by = facts.map(|facts| facts.reached_by.as_str()).filter(|_| origin.host == host);
        let server = reached_by.unwrap_or(&origin.host);
        words.push(format!("host={}", quoted(server)));
        let mut env = Environment::of_process();
        if !is_this_machine(server) && !env.names_host(server) {
            for variable in ["PGPASSWORD", "PGSERVICE"].into_iter().filter(|variable| env.remove(variable)) {
                static TOLD: Once = Once::new();
                let server = one_line(server);
                let warn = || {
                    tracing::warn!(
                        "{variable} is not used for {server}, which only the snapshot names: set PGHOST too, or name the \
                         server"
                    );
                };
                TOLD.call_once(warn);
            }
        }
        Ok(Some(Source::new(PostgresDatabase(Params::parse_in(&words.join(" "), &env)?))))
    }

    fn check_layout(&self, manifest: &Manifest, entries: &[(&str, u64)]) -> Result<()> {
        let wrong = |what: &str| Error::problem(format!("its archive does not match its manifest: {what}"));
        let mut first = vec![layout::OBJECTS, layout::PRE_DATA];
        // Snapshots of older versions, and of databases that need no roles, do not have these entries.
        if manifest.postgres.as_ref().is_some_and(|facts| !facts.role_definitions.is_empty()) {
            first.splice(1..1, [layout::ROLE_SETTINGS, layout::ROLES]);
        }
        let last = [layout::SEQUENCES, layout::POST_DATA, layout::RESTORE];
        let middle = entries.len().checked_sub(first.len() + last.len()).ok_or_else(|| wrong("entries are missing"))?;
        let (head, rest) = entries.split_at(first.len());
        let (data, tail) = rest.split_at(middle);
        let are = |found: &[(&str, u64)], expected: &[&str]| found.iter().map(|(path, _)| path).eq(expected);
        if !are(head, &first) || !are(tail, &last) {
            return Err(wrong("the entries of the schema are missing or out of order"));
        }
        let mut pieces: HashMap<String, u32> = HashMap::new();
        for table in &manifest.tables {
            let relation = table.relation.as_ref().ok_or_else(|| wrong("a table has no name"))?;
            pieces.insert(layout::table_folder(&relation.schema, &relation.table), 0);
        }
        pieces.insert(layout::LARGE_OBJECTS.to_owned(), 0);
        for (path, _) in data {
            let (folder, name) = path.rsplit_once('/').ok_or_else(|| wrong("an entry belongs to no table"))?;
            let count = pieces.get_mut(&format!("{folder}/")).ok_or_else(|| wrong("an entry belongs to no table"))?;
            *count += 1;
            if name != format!("{count:06}.copy") {
                return Err(wrong("a piece of a table is missing or out of order"));
            }
        }
        if data.iter().map(|(_, bytes)| bytes).sum::<u64>() != manifest.raw_bytes {
            return Err(wrong("the length of the rows differs"));
        }
        Ok(())
    }

    fn schema_digest(&self, open: &OpenSnapshot<'_>) -> Result<Option<RowDigest>> {
        Ok(Some(schema_digest(&read_items(&*open()?)?)))
    }

    fn restore_commands(
        &self,
        manifest: &Manifest,
        target: Option<&Source>,
        target_word: &dyn Fn(&str) -> Result<String>,
    ) -> Result<Vec<(&'static str, Vec<String>)>> {
        let Some(params) = target.and_then(|target| target.server()) else { return Ok(Vec::new()) };
        let database = manifest.origin.database.as_deref().unwrap_or_default();
        let new = params.with_database(&format!("{database}_restored")).shown();
        let (id, same) = (manifest.id.to_string(), target_word(&params.shown())?);
        let words = |to: &str, rest: &[&str]| {
            ["restore", &id, "--to", to].iter().chain(rest).map(|word| (*word).to_owned()).collect()
        };
        Ok(vec![
            ("as a new database", words(&new, &["--create"])),
            ("the rows of one table", words(&same, &["--replace", "--table", "SCHEMA.TABLE"])),
            ("all rows, in place", words(&same, &["--replace"])),
            ("the whole database, replaced by a new one", words(&same, &["--swap"])),
        ])
    }

    fn drill(
        &self,
        snapshot: &dyn SavedSnapshot,
        settings: &DrillSettings,
        context: &EngineContext,
    ) -> Result<Drilled> {
        let target = settings.to.as_ref().and_then(|to| to.server());
        let params = target.ok_or_else(|| {
            Error::usage("--to names a file, but the snapshot is of a PostgreSQL database")
                .hint("name a server with --to postgres://user@host/database")
        })?;
        Ok(match drill(snapshot, params, settings, context)? {
            Some(error) => Drilled::Different(error),
            None => Drilled::Equal,
        })
    }

    fn made_anew(&self, snapshot: &dyn SavedSnapshot) -> Result<Vec<(&'static str, Vec<u8>)>> {
        sql_files::made_anew(snapshot)
    }

    fn write_table(
        &self,
        snapshot: &dyn SavedSnapshot,
        table: &str,
        format: Option<TableFormat>,
        _: &EngineContext,
        out: &mut dyn Write,
    ) -> Result<()> {
        if !matches!(format, None | Some(TableFormat::Copy)) {
            return Err(Error::usage("a table of a PostgreSQL snapshot can be written only in the COPY format")
                .hint("omit --format"));
        }
        table_rows::write(snapshot, table, out)
    }
}
