//! Extensions that a server allows in one database only, whose name is in its configuration, such as pg_cron. A database is
//! built under another name, so they are created once it has its own.

use std::collections::BTreeSet;

use crate::engine::context::EngineContext;
use crate::engine::postgres::copy::as_owner::{self, Lent};
use crate::engine::postgres::copy::compared;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::restore::commit::commit;
use crate::engine::postgres::restore::create::{self, Owners};
use crate::engine::postgres::restore::equal::{OtherValues, compare_rows};
use crate::engine::postgres::restore::reload::{self, Pending, Reload};
use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::schema::{Item, Kind, Section, sequences};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::restoring::{LeftOut, SavedSnapshot};
use crate::platform::error::{Error, Kind as ErrorKind, Result, one_line};
use crate::snapshots::manifest::{PostgresFacts, SequenceValue, Table};

/// The extensions, each with the setting that names its database.
const TIED: [(&str, &str); 1] = [("pg_cron", "cron.database_name")];

/// An extension that the server allows in one database only.
#[derive(Clone, Debug)]
pub(super) struct Tied {
    /// Its name.
    pub(super) extension: String,
    /// The setting of the server.
    setting: &'static str,
    /// The database that the setting names.
    pub(super) database: String,
}

impl Tied {
    /// Returns the reason why another database cannot have the extension.
    pub(super) fn reason(&self) -> String {
        let (extension, database) = (one_line(&self.extension), one_line(&self.database));
        format!("the server allows the extension {extension} only in the database {database} ({})", self.setting)
    }

    /// Returns the entry of a report on a restore without the extension.
    pub(super) fn left_out(&self) -> LeftOut {
        LeftOut {
            kind: "extension".to_owned(),
            name: self.extension.clone(),
            table: self.extension.clone(),
            reason: self.reason(),
            statements: Vec::new(),
        }
    }
}

/// Returns the extensions of a snapshot that the server allows in one database only.
pub(super) fn find(session: &mut Session, facts: &PostgresFacts) -> Result<Vec<Tied>> {
    let mut found = Vec::new();
    for (name, setting) in TIED {
        if !facts.extensions.iter().any(|extension| extension.name == name) {
            continue;
        }
        // The setting is there if the server has loaded the extension, and if the role may read it.
        let rows =
            session.rows(&format!("SELECT setting FROM pg_catalog.pg_settings WHERE name = {}", literal(setting)))?;
        for row in &rows {
            found.push(Tied { extension: name.to_owned(), setting, database: row.text("setting")?.to_owned() });
        }
    }
    Ok(found)
}

/// Splits the items off that need one of these extensions; empty ones stay in their places. Event triggers are split off
/// with them if `with_event_triggers` is true: they would react to the creation of the others.
pub(super) fn split_off(items: &mut [Item], extensions: &[&Tied], with_event_triggers: bool) -> Vec<Item> {
    let mut ids: BTreeSet<usize> = BTreeSet::new();
    for item in items.iter() {
        let is_extension = item.kind == Kind::Extension && extensions.iter().any(|tied| tied.extension == item.name);
        if is_extension || item.needs.iter().chain(&item.table).any(|need| ids.contains(need)) {
            ids.insert(item.id);
        }
    }
    if with_event_triggers && !ids.is_empty() {
        ids.extend(items.iter().filter(|item| item.kind == Kind::EventTrigger).map(|item| item.id));
    }
    let split: Vec<Item> = ids.iter().map(|id| items[*id].clone()).collect();
    for id in ids {
        let item = &mut items[id];
        for statements in [&mut item.create, &mut item.set_owner, &mut item.comments, &mut item.grants] {
            statements.clear();
        }
    }
    split
}

/// Returns the tables, by their names in the manifest, and the sequences that do not exist without those items.
pub(super) fn absent(
    session: &mut Session,
    tables: &[RowSource],
    saved: &[&Table],
    values: &[SequenceValue],
) -> Result<(BTreeSet<String>, Vec<SequenceValue>)> {
    let mut exists = |name: &str| {
        session.row(&format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL AS there", literal(name)))?.flag("there")
    };
    let mut absent = BTreeSet::new();
    for (table, saved) in tables.iter().zip(saved) {
        if !exists(&table.qualified)? {
            absent.insert(saved.name.clone());
        }
    }
    let mut absent_values = Vec::new();
    for value in values {
        if !exists(&crate::engine::postgres::schema::quote::qualified(&value.schema, &value.name))? {
            absent_values.push(value.clone());
        }
    }
    Ok((absent, absent_values))
}

/// The part of a database that can be created only under its own name.
pub(super) struct Rest<'a> {
    pub(super) snapshot: &'a dyn SavedSnapshot,
    pub(super) all: &'a [Item],
    pub(super) items: &'a [Item],
    pub(super) owners: Owners,
    pub(super) context: &'a EngineContext,
    /// The tables that are not loaded yet.
    pub(super) tables: &'a BTreeSet<String>,
    /// The sequences that are not set yet.
    pub(super) sequences: &'a [SequenceValue],
    /// The treatment of generated columns that have other values.
    pub(super) other_values: OtherValues,
}

impl Rest<'_> {
    /// Creates and loads it in one transaction, compares the rows, and runs the last statements. If the outcome of the
    /// transaction is not known, the server is asked over a connection with `params`. Returns what is left out.
    pub(super) fn create(&self, session: &mut Session, params: &Params, last: &str) -> Result<Vec<LeftOut>> {
        session.execute("BEGIN")?;
        create::create_section(session, self.items, Section::Pre, self.owners)?;
        let saved: Vec<&Table> =
            self.snapshot.manifest().tables.iter().filter(|table| self.tables.contains(&table.name)).collect();
        let mut copies: Vec<RowSource> = saved.iter().map(|table| RowSource::like(table)).collect();
        let lent = match self.owners {
            Owners::Keep => as_owner::protect(session, &mut copies)?,
            Owners::Leave => Lent::default(),
        };
        self.load(session, &saved, &copies)?;
        for value in self.sequences {
            session.rows(&sequences::statement(value))?;
        }
        create::create_section(session, self.items, Section::Post, self.owners)?;
        lent.take_back(session)?;
        if self.owners == Owners::Keep {
            create::grant(session, self.items)?;
        }
        create::create_section(session, self.items, Section::Last, self.owners)?;
        let mut left_out = Vec::new();
        for (table, copy) in saved.iter().zip(&copies) {
            let found = compared::sum(session, &copy.clone().with_generated(table))?;
            if let Some(error) = compare_rows(table, &found)? {
                left_out.extend(self.other_values.accept(&table.name, error)?);
            }
        }
        session.execute(last)?;
        commit(session, params).map(|()| left_out)
    }

    fn load(&self, session: &mut Session, saved: &[&Table], copies: &[RowSource]) -> Result<()> {
        let last = reload::in_order_of_keys(session, copies)?;
        let first = (0..copies.len()).filter(|table| !last.contains(table));
        let pending = first.chain(last.iter().copied()).map(|table| Pending { table, error: None }).collect();
        let tables = saved.iter().copied().zip(copies).collect();
        let (snapshot, progress) = (self.snapshot, &*self.context.progress);
        let reload = Reload { snapshot, items: self.all, owners: self.owners, progress, tables, has_generated: true };
        // The comparison finds other values of generated columns again, and names them.
        let is_accepted = |error: &Error| error.kind == ErrorKind::Problem && self.other_values != OtherValues::Refuse;
        let failed = reload.run(session, pending)?.into_iter();
        let mut errors = failed.map(|one| one.error.unwrap_or_else(|| Error::failed("rows cannot be loaded")));
        errors.find(|error| !is_accepted(error)).map_or(Ok(()), Err)
    }
}
