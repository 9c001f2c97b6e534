//! Restores tables that do not exist in the target: in their own schema, or beside existing ones in a new schema.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::again;
use super::commit::commit;
use super::create::{self, Owners};
use super::existing;
use super::items::{attachment_of, names_of, parent_of};
use super::plan::Plan;
use super::replace;
use super::undo::sql_command_in;
use crate::engine::postgres::copy::as_owner::{self, Lent};
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::layout;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::schema::{Item, Kind, Section, sequences};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::engine::restoring::{LeftOut, RestoreReport};
use crate::platform::error::{Result, one_line};
use crate::snapshots::manifest::Relation;

impl Plan {
    pub(super) fn create_tables(&self, report: &mut RestoreReport) -> Result<()> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        // Foreign keys to existing tables lock those tables.
        session
            .execute(&format!("SET lock_timeout = {}", Duration::from_secs(self.settings.lock_timeout).as_millis()))?;
        let (mut created, mut left_out) = (Vec::new(), Vec::new());
        self.in_one_transaction(&mut session, report, |session| {
            let (items, attached_last) = self.items_of_tables(session)?;
            let (items, unpublished) = self.with_publications(items);
            let needed = self.create_needed(session, &items)?;
            let is_named = |item: &&&Item| item.kind != Kind::Extension;
            created = needed.iter().filter(is_named).map(|item| format!("the {}", create::shown(item))).collect();
            let needed: Vec<Item> = needed.into_iter().cloned().collect();
            create::create_section(session, &items, Section::Pre, self.owners)?;
            let mut copies: Vec<RowSource> = self.tables().iter().map(|table| RowSource::like(table)).collect();
            let lent = match self.owners {
                Owners::Keep => {
                    create::grant_for_code(session, &needed)?;
                    create::grant_for_code(session, &items)?;
                    as_owner::protect(session, &mut copies)?
                }
                Owners::Leave => Lent::default(),
            };
            let expected = self.load_chosen(session, &copies, false)?;
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
            // A foreign key to a table of a provider that the database lacks has no statements.
            let post = items.iter().filter(|item| item.section == Section::Post);
            let post = post.filter(|item| item.refers_to.is_none() || !item.create.is_empty());
            let (keys, post): (Vec<&Item>, Vec<&Item>) = post.partition(|item| item.kind == Kind::ForeignKey);
            self.create_post_data(session, post.into_iter())?;
            let (keys, lost) = self.keys_with_tables(session, &keys)?;
            left_out = [lost, unpublished].concat();
            self.create_post_data(session, keys.into_iter())?;
            self.create_post_data(session, attached_last.iter())?;
            lent.take_back(session)?;
            if self.owners == Owners::Keep {
                create::grant(session, &needed)?;
                create::grant(session, &items)?;
            }
            items
                .iter()
                .filter(|item| matches!(item.kind, Kind::CompressedChunks | Kind::Job))
                .try_for_each(|item| create::create_item(session, item, self.owners))?;
            self.warn_about_lost(session, &items)?;
            existing::warn_about_lacking(&[needed, items].concat());
            Ok((copies, expected))
        })?;
        if !created.is_empty() {
            report.notes.push(format!("also created, because the tables need them: {}", created.join(", ")));
        }
        report.left_out.extend(left_out);
        let names: Vec<&str> = self.tables().iter().map(|table| table.name.as_str()).collect();
        let undo = format!("DROP TABLE {}", names.join(", "));
        report.undo = Some(sql_command_in(&self.params, self.params.database(), &[undo]));
        Ok(())
    }

    /// Creates the objects that the tables need and that the database does not have: schemas, types, functions and extensions.
    /// Returns them.
    fn create_needed(&self, session: &mut Session, items: &[Item]) -> Result<Vec<&Item>> {
        let selected: BTreeSet<usize> = items.iter().map(|item| item.id).collect();
        let mut needed: BTreeSet<usize> = BTreeSet::new();
        let mut open: Vec<usize> = items.iter().flat_map(|item| item.needs.iter().copied()).collect();
        let schemas: HashMap<&str, usize> = self
            .items
            .iter()
            .filter(|item| item.kind == Kind::Schema)
            .map(|item| (item.name.as_str(), item.id))
            .collect();
        let schema_of = |item: &Item| item.schema.as_deref().and_then(|schema| schemas.get(schema)).copied();
        open.extend(items.iter().filter_map(schema_of));
        while let Some(id) = open.pop() {
            let item = &self.items[id];
            if is_needed_by_tables(item.kind) && !selected.contains(&id) && needed.insert(id) {
                open.extend(item.needs.iter().copied().chain(schema_of(item)));
            }
        }
        let mut created = Vec::new();
        for item in needed.into_iter().map(|id| &self.items[id]).filter(|item| !item.create.is_empty()) {
            session.execute("SAVEPOINT lifeboat_needed")?;
            match create::create_item(session, item, self.owners) {
                Ok(()) => {
                    session.execute("RELEASE SAVEPOINT lifeboat_needed")?;
                    created.push(item);
                }
                // It exists.
                Err(error) if sqlstate(&error).is_some_and(|state| DUPLICATES.contains(&state.as_str())) => {
                    session.execute("ROLLBACK TO SAVEPOINT lifeboat_needed")?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(created)
    }

    /// Returns those of the foreign keys whose tables exist, and the others as objects that are left out.
    fn keys_with_tables<'a>(&self, session: &mut Session, keys: &[&'a Item]) -> Result<(Vec<&'a Item>, Vec<LeftOut>)> {
        let (mut found, mut left_out) = (Vec::new(), Vec::new());
        for key in keys {
            let tables = key.needs.iter().map(|need| &self.items[*need]).filter(|item| item.kind == Kind::Table);
            let mut missing = None;
            for table in tables {
                if !exists(session, table)? {
                    missing = Some(table);
                }
            }
            let Some(missing) = missing else {
                found.push(*key);
                continue;
            };
            let name = |item: &Item| qualified(item.schema.as_deref().unwrap_or_default(), &item.name);
            left_out.push(self.left_out(key, format!("the table {}", one_line(&name(missing)))));
        }
        Ok((found, left_out))
    }

    /// Returns the items without those that add tables to publications which the database does not have, and these as objects
    /// that are left out.
    fn with_publications(&self, items: Vec<Item>) -> (Vec<Item>, Vec<LeftOut>) {
        let missing = |item: &Item| {
            let mut needs = item.needs.iter().map(|need| &self.items[*need]);
            needs.find(|need| need.kind == Kind::Publication && !need.exists)
        };
        let (mut found, mut left_out) = (Vec::new(), Vec::new());
        for item in items {
            match missing(&item) {
                Some(publication) => {
                    let what = format!("the publication {}", one_line(&ident(&publication.name)));
                    left_out.push(self.left_out(&item, what));
                }
                None => found.push(item),
            }
        }
        (found, left_out)
    }

    /// Returns an object that is left out because the database lacks what it needs.
    fn left_out(&self, item: &Item, lacking: String) -> LeftOut {
        let name = |item: &Item| qualified(item.schema.as_deref().unwrap_or_default(), &item.name);
        LeftOut {
            kind: item.kind.words(),
            name: item.name.clone(),
            table: item.table.map(|table| name(&self.items[table])).unwrap_or_default(),
            reason: format!("{lacking} does not exist in the database"),
            statements: item.create.clone(),
        }
    }

    /// Creates items after the rows. An item whose code fails is tried again after the others, and then with the settings of
    /// the database.
    fn create_post_data<'a>(&self, session: &mut Session, items: impl Iterator<Item = &'a Item>) -> Result<()> {
        let mut failed = Vec::new();
        for item in items {
            failed.extend(again::try_item(session, item, self.owners)?);
        }
        let failed = again::create_again(session, &self.items, self.owners, failed, &mut None)?;
        failed.into_iter().next().map_or(Ok(()), |failed| Err(failed.error))
    }

    pub(super) fn beside(&self, schema: &str, report: &mut RestoreReport) -> Result<()> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        self.in_one_transaction(&mut session, report, |session| {
            let mut copies = replace::create_beside(session, schema, &self.tables())?;
            let lent = as_owner::protect_copies(session, &mut copies, &self.owners_of_tables())?;
            let expected = self.load_chosen(session, &copies, false)?;
            lent.take_back(session)?;
            Ok((copies, expected))
        })?;
        let undo = format!("DROP SCHEMA {} CASCADE", ident(schema));
        report.undo = Some(sql_command_in(&self.params, self.params.database(), &[undo]));
        Ok(())
    }

    /// Returns the roles that owned the chosen tables.
    fn owners_of_tables(&self) -> Vec<Option<String>> {
        let items = self.items.iter().filter(|item| item.kind == Kind::Table);
        let owners: HashMap<(&str, &str), &String> =
            items.filter_map(|item| Some((names_of(item), item.owner.as_ref()?))).collect();
        let relations = self.tables().into_iter().map(|table| table.relation.as_ref());
        let owner = |relation: &Relation| owners.get(&(relation.schema.as_str(), relation.table.as_str())).copied();
        relations.map(|relation| relation.and_then(owner).cloned()).collect()
    }

    /// Returns the steps that create the chosen tables and the objects that belong to them and, separately, the steps
    /// that attach partitions to an existing table. Those must come last: a partition that is attached before it has
    /// its own indexes gets indexes from that table.
    pub(super) fn items_of_tables(&self, session: &mut Session) -> Result<(Vec<Item>, Vec<Item>)> {
        let wanted = self.relations();
        let is_wanted = |item: &Item| item.kind == Kind::Table && wanted.contains(&names_of(item));
        // The partitioned tables above them, if they do not exist either.
        let mut ancestors: BTreeSet<usize> = BTreeSet::new();
        for table in self.items.iter().filter(|item| is_wanted(item)) {
            let mut next = attachment_of(&self.items, table).and_then(|attach| parent_of(&self.items, attach));
            while let Some(parent) = next.filter(|parent| !ancestors.contains(&parent.id)) {
                if !exists(session, parent)? {
                    ancestors.insert(parent.id);
                }
                next = attachment_of(&self.items, parent).and_then(|attach| parent_of(&self.items, attach));
            }
        }
        let mut selected: BTreeSet<usize> = BTreeSet::new();
        for item in &self.items {
            let own = is_wanted(item) || ancestors.contains(&item.id);
            if own || item.table.is_some_and(|table| selected.contains(&table)) {
                selected.insert(item.id);
            }
        }
        // Sequences that defaults use are created with the tables if they do not exist either.
        let needed: BTreeSet<usize> = selected.iter().flat_map(|id| self.items[*id].needs.iter().copied()).collect();
        for id in needed {
            let item = &self.items[id];
            if item.kind == Kind::Sequence && !selected.contains(&id) && !exists(session, item)? {
                selected.insert(id);
            }
        }
        let attached_last = |item: &Item| match item.kind {
            Kind::AttachPartition => parent_of(&self.items, item).is_none_or(|parent| !selected.contains(&parent.id)),
            Kind::IndexAttach => item.needs.iter().any(|need| !selected.contains(need)),
            _ => false,
        };
        let items = self.items.iter().filter(|item| selected.contains(&item.id)).cloned();
        let (last, items): (Vec<Item>, Vec<Item>) = items.partition(|item| attached_last(item));
        Ok((items, last))
    }

    /// Warns about objects that depended on the tables and were dropped with them: foreign keys of other tables, views.
    fn warn_about_lost(&self, session: &mut Session, created: &[Item]) -> Result<()> {
        let created: BTreeSet<usize> = created.iter().map(|item| item.id).collect();
        let mut gone: BTreeSet<usize> = created.clone();
        let mut lost = Vec::new();
        for item in self.items.iter().filter(|item| !created.contains(&item.id)) {
            let schema = item.schema.as_deref().unwrap_or_default();
            let uses = item.needs.iter().any(|need| gone.contains(need));
            match item.kind {
                Kind::View | Kind::MaterializedView if uses && !exists(session, item)? => {
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
                "dropped with the tables, and not restored: {} ('lifeboat extract --entry {}' shows their definitions)",
                one_line(&lost.join(", ")),
                layout::POST_DATA
            );
        }
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
            error.context(format!("cannot restore {}; nothing was changed", self.snapshot.manifest().id))
        })?;
        commit(session, &self.params)
    }
}

/// The SQLSTATEs of objects that exist: schemas, functions, relations, others.
const DUPLICATES: [&str; 5] = ["42P06", "42723", "42P07", "42710", "23505"];

/// Returns true for objects without rows that tables may need.
fn is_needed_by_tables(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Schema
            | Kind::Language
            | Kind::Extension
            | Kind::Collation
            | Kind::ShellType
            | Kind::Type
            | Kind::Domain
            | Kind::Cast
            | Kind::Function
            | Kind::Procedure
            | Kind::Aggregate
            | Kind::Operator
            | Kind::OperatorFamily
            | Kind::OperatorClass
            | Kind::TextSearchParser
            | Kind::TextSearchTemplate
            | Kind::TextSearchDictionary
            | Kind::TextSearchConfiguration
    )
}

/// Returns true if a relation of that name exists in the database.
fn exists(session: &mut Session, relation: &Item) -> Result<bool> {
    let name = qualified(relation.schema.as_deref().unwrap_or_default(), &relation.name);
    let name = literal(&name);
    session.row(&format!("SELECT pg_catalog.to_regclass({name}) IS NOT NULL AS there"))?.flag("there")
}
