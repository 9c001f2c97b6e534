//! Judges one source before CMD starts: may CMD start with the database as it is, must the database be restored first,
//! or must a person decide.

use std::path::Path;

use crate::config::OnDoubt;
use crate::engine::rules::Verdict;
use crate::engine::rules::migration_tables::is_of_migrations;
use crate::ops::Context;
use crate::ops::command_line::source_word;
use crate::ops::differences::{MOST_TABLES, differences, some};
use crate::ops::guard::comparison;
use crate::ops::guard::fresh::{has_few_rows, tables_beyond, tables_with_other_rows};
use crate::ops::guard::newest::{Newer, Remedy, Stored, taken};
use crate::ops::guard::older_state;
use crate::ops::inspect::{Found, compare_with, rules_about_missing_data};
use crate::ops::origin::require_same_database;
use crate::ops::restore_in_place::{restore_command, restore_latest};
use crate::ops::sources::Chosen;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::file_birth::FileBirth;
use crate::platform::restored;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::row_counts::RowCounts;

/// The advice to start the program with the database as it is.
pub(super) const START_HINT: &str = "on_doubt = \"start\" in [guard], or 'lifeboat guard --on-doubt start -- CMD', starts \
                                     the program with the database as it is";

/// The state of a database before CMD starts.
pub(super) enum Live {
    /// The file does not exist, or the server does not have the database.
    Missing,
    /// It can be read.
    There {
        /// The number of rows of each table.
        tables: RowCounts,
        /// The rules that say that data is missing.
        rules: Vec<Verdict>,
    },
}

impl Live {
    /// Inspects a source.
    pub(super) fn inspect(chosen: &Chosen, context: &Context) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut live = chosen.source.open(&context.scratch)?;
            let tables = live.tables()?;
            Ok(Live::There { tables, rules: rules_about_missing_data(&chosen.rules(), &mut *live) })
        };
        match read() {
            Err(error) if error.kind == Kind::Interrupted => Err(error),
            Err(_) if chosen.source.is_absent() => Ok(Live::Missing),
            Err(mut error) if chosen.source.is_absent_or_damaged(&error) => {
                error.kind = Kind::Problem;
                let command = restore_latest(chosen, context)?;
                Err(error.hint(match chosen.source.file().is_some_and(Path::is_dir) {
                    true => format!("move the folder away; then '{command}' restores the last good snapshot"),
                    false => {
                        format!("'{command}' replaces it with the last good snapshot, and moves the damaged file aside")
                    }
                }))
            }
            read => read,
        }
    }

    /// Returns true if it has no rows at all.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Live::Missing => true,
            Live::There { tables, .. } => tables.is_without_rows(),
        }
    }

    /// Returns true if it has rows.
    pub(super) fn has_rows(&self) -> bool {
        !self.is_empty()
    }

    /// Returns true if it has rows that are not only the record of a migration.
    fn has_data(&self) -> bool {
        match self {
            Live::Missing => false,
            Live::There { tables, .. } => {
                let has_rows = tables.tables.iter().any(|(name, rows)| *rows > 0 && !is_of_migrations(name));
                has_rows || !tables.uncounted.is_empty()
            }
        }
    }

    /// Returns true if nothing is known that speaks against the database: it has data, and the rules hold.
    pub(super) fn is_well(&self) -> bool {
        self.has_data() && self.failed_rules().is_empty()
    }

    /// Returns the rules that fail. A rule that cannot be evaluated may be about a table that CMD has yet to create.
    pub(super) fn failed_rules(&self) -> Vec<String> {
        let rules = match self {
            Live::Missing => &[],
            Live::There { rules, .. } => rules.as_slice(),
        };
        rules.iter().filter(|rule| !rule.ok && rule.evaluated).map(Verdict::description).collect()
    }
}

/// The decision on one source.
pub(super) enum Decision {
    /// CMD may start with the database as it is.
    Start,
    /// The candidate is restored. The text says why: the database "is missing".
    Restore(&'static str),
    /// CMD is not started.
    Refuse(Error),
}

/// The judgement of one source.
pub(super) struct Judgement {
    pub(super) decision: Decision,
    /// The facts that a person must know although CMD starts.
    pub(super) failures: Vec<Error>,
}

/// A source, and what is known of it.
pub(super) struct Case<'a> {
    pub(super) name: SourceName,
    pub(super) chosen: &'a Chosen,
    pub(super) live: &'a Live,
    pub(super) stored: &'a Stored,
    pub(super) restores: bool,
    pub(super) on_doubt: OnDoubt,
    pub(super) context: &'a Context,
}

impl Case<'_> {
    /// Decides. Changes nothing.
    pub(super) fn judge(&self) -> Result<Judgement> {
        if let Some(foreign) = self.foreign()? {
            return Ok(self.unless_started(foreign));
        }
        if let Some(renamed) = self.renamed()? {
            return Ok(renamed);
        }
        let Live::There { tables, .. } = self.live else { return self.restore("is missing") };
        let Some((before, location)) = self.stored.baseline() else {
            let is_first = self.stored.is_first_start();
            return match tables.number_of_tables() == 0 || !(is_first || self.live.has_data()) {
                true => self.restore("is empty"),
                false if !is_first && !self.live.failed_rules().is_empty() => self.restore("fails a rule"),
                false => Ok(self.without_baseline()),
            };
        };
        let is_emptied = || -> Result<bool> {
            // Rules can allow that all rows are gone.
            let verdicts = compare_with(before, tables, self.total(tables, before)?, &self.chosen.rules());
            Ok(self.live.is_empty() && has_rows(before) && !verdicts.iter().all(|verdict| verdict.ok))
        };
        if tables.number_of_tables() == 0 || is_emptied()? {
            return self.restore("is empty");
        }
        self.compare(tables, before, &location)
    }

    /// Returns an error if one of the snapshots that could be restored is of another database.
    fn foreign(&self) -> Result<Option<Error>> {
        let candidate = self.stored.candidate.iter().map(|found| &found.manifest);
        let newer = self.stored.newer.iter().filter(|newer| matches!(newer.remedy, Remedy::Accept | Remedy::Key));
        let mut all: Vec<&Manifest> = candidate.chain(newer.filter_map(|newer| newer.manifest.as_ref())).collect();
        all.sort_by_key(|manifest| manifest.created_at);
        let newest = all.iter().rev().find(|manifest| manifest.kind == SnapshotKind::Full).copied();
        for manifest in &all {
            let checked = require_same_database(manifest, &self.chosen.source, || Ok(newest.cloned()), self.context);
            match checked {
                Ok(()) => {}
                Err(error) if error.kind == Kind::Usage => return Ok(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Decides on a database that is there, if no store has a snapshot that it can be compared with.
    fn without_baseline(&self) -> Judgement {
        let mut failures = self.unread();
        if failures.is_empty() && self.stored.newer.is_empty() {
            for rule in self.live.failed_rules() {
                tracing::warn!("{}: {rule}; there is no snapshot to restore", self.name);
            }
        }
        let others = self.stored.newer.iter().filter(|newer| newer.remedy != Remedy::Distrust);
        failures.extend(
            others.map(|newer| {
                Error::problem(format!("{} is not compared with {}", self.name, self.describe(newer, None)))
            }),
        );
        Judgement { decision: Decision::Start, failures }
    }

    /// Returns the stores that could not be read, and the newer snapshots that are not trusted, each as a failure.
    pub(super) fn unread(&self) -> Vec<Error> {
        let failure = |error: &Error| {
            error.duplicate().context(format!("{} is not compared with the snapshots of every store", self.name))
        };
        let distrusted = self.stored.newer.iter().filter(|newer| newer.remedy == Remedy::Distrust);
        let distrusted = distrusted.take(MOST_TABLES).map(|newer| {
            let location = one_line(&newer.location);
            Error::problem(format!("{} is not compared with a snapshot in {location}: {}", self.name, newer.reason))
        });
        self.stored.failures.iter().map(failure).chain(distrusted).collect()
    }

    /// Decides on a database that has rows, by the snapshot `before` of the store at `location`.
    fn compare(&self, tables: &RowCounts, before: &Manifest, location: &str) -> Result<Judgement> {
        let describe = |verdicts: Vec<Verdict>| -> Vec<String> {
            verdicts.iter().filter(|verdict| !verdict.ok && verdict.evaluated).map(Verdict::description).collect()
        };
        let total = self.total(tables, before)?;
        let verdicts = compare_with(before, tables, total, &self.chosen.rules());
        let lost = describe(verdicts.clone());
        let rules = self.live.failed_rules();
        let mut failures = self.unread();
        if lost.is_empty() && (rules.is_empty() || !self.stored.has_good()) {
            comparison::log(&self.name, before, total, &verdicts);
            // No snapshot has ever passed such a rule, so no restore could help.
            failures.extend(rules.iter().map(|rule| Error::problem(format!("{}: {rule}", self.name))));
            failures.extend(self.lost_since_newer(tables));
            failures.extend(self.older_state(tables, before)?);
            return Ok(Judgement { decision: Decision::Start, failures });
        }
        let reasons = some_of(lost.into_iter().chain(rules.iter().cloned()).collect());
        let since = format!("{}, {}", before.id, taken(before.created_at));
        let suspect = self.stored.newer.iter().find(|newer| newer.remedy == Remedy::Accept);
        if let Some((newer, manifest)) = suspect.and_then(|newer| Some((newer, newer.manifest.as_ref()?)))
            && rules.is_empty()
            && describe(compare_with(manifest, tables, tables.total(), &self.chosen.rules())).is_empty()
        {
            // The rows were already lost when that snapshot was taken, and this was reported. Nothing is newer. The program
            // may have deleted them, so they must not come back.
            let id = &newer.id;
            failures.push(
                Error::problem(format!("{} has fewer rows than {since}, as {id} already had: {reasons}", self.name))
                    .hint(format!("if the rows were deleted on purpose, run '{}'", self.accept()?)),
            );
            return Ok(Judgement { decision: Decision::Start, failures });
        }
        let mut beyond = String::new();
        let is_same_file = self.is_same_file(before);
        if let Some(id) = self.restored_from() {
            beyond = format!("; it was restored from {id}, which is older: the rows were left out then");
        } else if is_same_file == Some(true) {
            beyond =
                "; it is still the file that the snapshot was taken of, so a program has deleted the rows".to_owned();
        } else if is_same_file == Some(false) || has_few_rows(&tables.tables, &RowCounts::of(&before.tables).tables) {
            match self.tables_with_other_rows(before)?.as_slice() {
                [] if self.restores => return self.restore("holds nothing that the snapshot lacks"),
                [] => {}
                names => beyond = format!("; {} may have rows that the snapshot lacks", some(names.iter())),
            }
        }
        let newer = suspect.map(|newer| format!("; newer is {}", self.describe(newer, self.stored.candidate.as_ref())));
        let restore = restore_command(before, location, Some(self.chosen), &["--replace"], self.context);
        let error = Error::problem(format!(
            "{} is not as it was in {since}: {reasons}{beyond}{}",
            self.name,
            newer.unwrap_or_default()
        ))
        .hint(format!(
            "'{restore}' restores the snapshot, and first saves what is there; if the change is intended, run '{}'; {}",
            self.accept()?,
            START_HINT
        ));
        let mut judgement = self.unless_started(error);
        judgement.failures.splice(0..0, failures);
        Ok(judgement)
    }

    /// Returns true if the database is the file that the snapshot was taken of, and no new one in its place, which an image
    /// or an empty volume brings. Returns `None` if this is not known.
    fn is_same_file(&self, before: &Manifest) -> Option<bool> {
        let birth = before.sqlite.as_ref()?.file_birth?;
        Some(FileBirth::at(self.chosen.source.file()?)? == birth)
    }

    /// Returns the older snapshot that a person has restored the database from, if one has.
    fn restored_from(&self) -> Option<SnapshotId> {
        restored::from(self.chosen.source.file()?)?.parse().ok()
    }

    /// Returns the total number of rows as the manifest counts it with which they are compared.
    pub(super) fn total(&self, tables: &RowCounts, before: &Manifest) -> Result<u64> {
        match before.lacks_tables() {
            true => self.chosen.source.open(&self.context.scratch)?.stored_rows(),
            false => Ok(tables.total()),
        }
    }

    /// Returns the tables of the database that have rows that the snapshot `before` lacks, or may have.
    fn tables_with_other_rows(&self, before: &Manifest) -> Result<Vec<String>> {
        let now = self.chosen.source.contents(&self.context.for_engine())?.tables;
        let beyond = tables_beyond(&now, &before.tables);
        match self.stored.candidate.as_ref().filter(|found| found.manifest.id == before.id && !beyond.is_empty()) {
            Some(found) => tables_with_other_rows(&beyond, found, self.chosen, self.context),
            None => Ok(beyond.into_iter().map(|table| table.name.clone()).collect()),
        }
    }

    /// Returns a failure if the database is as an older snapshot was, and not as `before`, the newest one.
    fn older_state(&self, tables: &RowCounts, before: &Manifest) -> Result<Option<Error>> {
        let newest = self.stored.candidate.as_ref().filter(|found| found.manifest.id == before.id);
        let Some(newest) = newest.filter(|_| self.restores) else { return Ok(None) };
        let Some(older) = older_state::find(self.chosen, tables.total(), newest, self.context)? else {
            return Ok(None);
        };
        let location = newest.catalog.location();
        let restore = restore_command(before, &location, Some(self.chosen), &["--replace"], self.context);
        let message = format!(
            "{} has exactly the rows of {}, {}, and not those of {}, {}: an older state has taken its place",
            self.name,
            older.id,
            taken(older.created_at),
            before.id,
            taken(before.created_at)
        );
        Ok(Some(Error::problem(message).hint(format!(
            "'{restore}' restores the newer one; if the older state was restored on purpose, nothing is to be done"
        ))))
    }

    /// Returns a failure if the newest snapshot, which is suspect, has more rows than the database, although the last
    /// good one has not.
    fn lost_since_newer(&self, tables: &RowCounts) -> Option<Error> {
        let newer = self.stored.newer.iter().find(|newer| newer.remedy == Remedy::Accept)?;
        let manifest = newer.manifest.as_ref()?;
        let verdicts = compare_with(manifest, tables, tables.total(), &self.chosen.rules());
        let lost: Vec<String> = verdicts.iter().filter(|verdict| !verdict.ok).map(Verdict::description).collect();
        (!lost.is_empty()).then(|| {
            Error::problem(format!(
                "{} has fewer rows than {}, {}, which is newer than the last good snapshot: {}",
                self.name,
                newer.id,
                taken(manifest.created_at),
                some_of(lost)
            ))
        })
    }

    /// Decides on a database that must be restored. `why` says what is wrong with it.
    pub(super) fn restore(&self, why: &'static str) -> Result<Judgement> {
        let Stored { candidate, newer, skipped, failures, .. } = self.stored;
        let doubts: Vec<&Newer> = newer.iter().filter(|newer| !self.is_covered(newer)).collect();
        for covered in newer.iter().filter(|newer| self.is_covered(newer)) {
            tracing::warn!("{}: passing over {}", self.name, self.describe(covered, candidate.as_ref()));
        }
        if doubts.is_empty() && failures.is_empty() && *skipped == 0 {
            let decision = match candidate {
                Some(_) if self.restores => Decision::Restore(why),
                Some(found) => {
                    tracing::warn!("{}", self.not_restored(why, found));
                    Decision::Start
                }
                None => {
                    tracing::info!("{} {why} and has no snapshot: this is its first start", self.name);
                    Decision::Start
                }
            };
            return Ok(Judgement { decision, failures: Vec::new() });
        }
        let error = self.doubt(why, &doubts)?;
        match (self.on_doubt, candidate) {
            (OnDoubt::RestoreOlder, Some(_)) if self.restores => {
                Ok(Judgement { decision: Decision::Restore(why), failures: vec![error] })
            }
            _ => Ok(self.unless_started(error)),
        }
    }

    /// Builds the error for a database that must be restored, while the newest state cannot be.
    fn doubt(&self, why: &str, doubts: &[&Newer]) -> Result<Error> {
        let Stored { candidate, skipped, failures, .. } = self.stored;
        let name = &self.name;
        let mut message = match candidate {
            Some(found) => {
                let manifest = &found.manifest;
                format!(
                    "{name} {why}, and {}, {}, with {} rows, is perhaps not its newest state",
                    manifest.id,
                    taken(manifest.created_at),
                    manifest.rows
                )
            }
            None => format!("{name} {why}, and no snapshot of it can be restored"),
        };
        for newer in doubts.iter().take(MOST_TABLES) {
            let word = if candidate.is_some() { "newer is" } else { "there is" };
            message.push_str(&format!("; {word} {}", self.describe(newer, candidate.as_ref())));
        }
        if doubts.len() > MOST_TABLES {
            message.push_str(&format!("; and {} more", doubts.len() - MOST_TABLES));
        }
        if *skipped > 0 {
            message.push_str(&format!("; {skipped} more suspect snapshots were not read"));
        }
        let store_hint = failures.first().and_then(|failure| failure.hint.clone());
        let (mut hints, kind) = (
            Vec::from_iter(store_hint),
            if doubts.is_empty() && *skipped == 0 { Kind::Unreachable } else { Kind::Problem },
        );
        if let Some(newer) = doubts.iter().find(|newer| newer.remedy == Remedy::Distrust) {
            hints.extend(newer.advice.clone());
            let id = &newer.id;
            let delete = self.context.command_line_without_keys(&["delete", &id.to_string()], &newer.location);
            hints.push(format!("if somebody else has made {id}, '{delete}' deletes it"));
        }
        if let Some((newer, manifest)) = doubts.iter().find_map(|newer| Some((newer, newer.manifest.as_ref()?))) {
            hints.extend(self.advice_on(newer, manifest)?);
        }
        if let Some(found) = candidate {
            let id = &found.manifest.id;
            hints.push(format!(
                "on_doubt = \"restore-older\" in [guard], or --on-doubt restore-older, starts the program with {id}, \
                 without the newer rows"
            ));
        }
        hints.push(START_HINT.to_owned());
        let error = Error::new(kind, message).hint(hints.join("; "));
        Ok(match failures.first() {
            Some(failure) => error.because(failure.duplicate()),
            None => error,
        })
    }

    /// Returns the commands that use a newer snapshot or settle the doubt about it, if there are any.
    fn advice_on(&self, newer: &Newer, manifest: &Manifest) -> Result<Option<String>> {
        let options: &[&str] = if matches!(self.live, Live::Missing) { &[] } else { &["--replace"] };
        let (id, location) = (&newer.id, &newer.location);
        let restore = || restore_command(manifest, location, Some(self.chosen), options, self.context);
        Ok(Some(match newer.remedy {
            Remedy::Accept => {
                let accept = self.accept()?;
                format!("'{}' and then '{accept}' make {id} the state to start with", restore())
            }
            Remedy::Copy => {
                let words = ["copy", &manifest.id.to_string(), "--from", location, "--to", location];
                let command = self.context.command_line(&words, manifest, None);
                format!("'{command}' writes the manifest of {id} again")
            }
            Remedy::Restore => format!("'{}' restores {id}", restore()),
            Remedy::Key => {
                "'lifeboat guard --identity FILE -- CMD', or identity_file in [encryption], opens it with a key"
                    .to_owned()
            }
            Remedy::Delete => {
                let delete = self.context.command_line(&["delete", &id.to_string()], manifest, Some(location));
                format!(
                    "'{}' restores {id}; if a wrong clock has dated it, and nobody needs it, '{delete}' deletes it",
                    restore()
                )
            }
            Remedy::Distrust | Remedy::Unknown => return Ok(None),
        }))
    }

    /// Returns true if the candidate has all rows of a newer snapshot, so that nothing is lost without it.
    fn is_covered(&self, newer: &Newer) -> bool {
        let candidate = self.stored.candidate.as_ref().map(|found| &found.manifest);
        match (&newer.manifest, candidate) {
            (Some(manifest), Some(candidate)) if !manifest.lacks_tables() && !candidate.lacks_tables() => {
                newer.remedy == Remedy::Accept && tables_beyond(&manifest.tables, &candidate.tables).is_empty()
            }
            _ => false,
        }
    }

    /// Describes a newer snapshot: its id, its age, the reason why it is not restored, and the rows that it has beyond
    /// the older one.
    fn describe(&self, newer: &Newer, older: Option<&Found>) -> String {
        let mut text = newer.id.to_string();
        if let Some(manifest) = &newer.manifest {
            text.push_str(&format!(", {}", taken(manifest.created_at)));
        }
        text.push_str(&format!(" (in {}): {}", one_line(&newer.location), newer.reason));
        let rows = match (&newer.manifest, older.map(|older| &older.manifest)) {
            (None, _) => "its rows are not known".to_owned(),
            (Some(newer), Some(older)) if !newer.lacks_tables() && !older.lacks_tables() => differences(newer, older),
            (Some(newer), Some(older)) => format!("it has {} rows, {} has {}", newer.rows, older.id, older.rows),
            (Some(newer), None) => format!("it has {} rows", newer.rows),
        };
        text + "; " + &rows
    }

    /// Returns the command that makes the current state the baseline.
    fn accept(&self) -> Result<String> {
        let words = ["snapshot".to_owned(), source_word(self.chosen), "--accept".to_owned()];
        self.context.gate_command_line(&words)
    }

    /// Refuses the start with this error, or reports it only, if the settings say so.
    pub(super) fn unless_started(&self, error: Error) -> Judgement {
        match self.on_doubt {
            OnDoubt::Start => {
                let error = error.context("the program is started all the same, because on_doubt is \"start\"");
                Judgement { decision: Decision::Start, failures: vec![error] }
            }
            _ => Judgement { decision: Decision::Refuse(error), failures: Vec::new() },
        }
    }
}

/// Returns true if a snapshot has rows.
fn has_rows(manifest: &Manifest) -> bool {
    match manifest.lacks_tables() {
        true => manifest.rows > 0,
        false => !RowCounts::of(&manifest.tables).is_without_rows(),
    }
}

pub(super) fn some_of(reasons: Vec<String>) -> String {
    let more = reasons.len().saturating_sub(MOST_TABLES);
    let mut text: Vec<String> = reasons.into_iter().take(MOST_TABLES).collect();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join("; ")
}
