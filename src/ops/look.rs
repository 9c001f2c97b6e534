//! Looks at live databases: their integrity, the config's rules, and what was lost since a snapshot.

use std::collections::BTreeMap;

use chrono::Utc;

use crate::engine::Live;
use crate::engine::postgres::restore::target::Server;
use crate::engine::rules::{self, Demand, Rule, Verdict};
use crate::engine::source::Source;
use crate::ops::checks::{Checks, told};
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch, stores};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::{Catalog, Listed, Narrow};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, Manifest, Table};

/// A snapshot, and the store that it was found in.
pub(crate) struct Found {
    pub(crate) catalog: Catalog,
    pub(crate) listed: Listed,
    /// With all that it says inside, where a key opens it.
    pub(crate) manifest: Manifest,
}

impl Context {
    /// The newest full, undamaged snapshot that fits, in whatever store has it. A store that is out of reach is told of, and
    /// is the error where no other has one.
    pub(crate) fn newest(&self, narrow: &Narrow) -> Result<Option<Found>> {
        let (mut newest, mut unreachable): (Option<(Catalog, Listed)>, Option<Error>) = (None, None);
        for store in self.all_stores()? {
            let found = stores::open(store).and_then(|catalog| {
                let listed = catalog.find("latest", narrow)?;
                Ok((catalog, listed))
            });
            match found {
                Ok(found) => {
                    if newest.as_ref().is_none_or(|newest| newest.1.id.stamp() < found.1.id.stamp()) {
                        newest = Some(found);
                    }
                }
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    tracing::warn!("{}", told(&error));
                    unreachable = Some(error);
                }
            }
        }
        match (newest, unreachable) {
            (Some((catalog, listed)), _) => {
                let manifest = fetch::manifest(&catalog, &listed.id, self)?;
                Ok(Some(Found { catalog, listed, manifest }))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// The newest of a source that those after it may be held against.
    pub(crate) fn newest_measure(&self, source: &SourceName) -> Result<Option<Found>> {
        self.newest(&Narrow { source: Some(source.clone()), without: Some(SUSPECT.to_owned()), ..Narrow::default() })
    }

    /// The newest of one source.
    pub(crate) fn newest_of(&self, source: &SourceName) -> Result<Option<Found>> {
        self.newest(&Narrow { source: Some(source.clone()), ..Narrow::default() })
    }
}

/// What a look at a source showed.
#[derive(Default)]
pub(crate) struct Looked {
    /// What was found.
    pub(crate) checks: Checks,
    /// Whether something is wrong that a snapshot can put right: the database is gone or damaged, or rows of it are.
    pub(crate) is_lost: bool,
}

/// What is enough to fail a look at a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Damage: for a gate, which an app that breaks its own foreign keys may pass as it did before.
    Damage,
    /// Also that the tables of an encrypted snapshot cannot be compared: for who is to say that nothing was lost.
    Loss,
    /// Also rows without their parents, and indexes that are not valid.
    Complaints,
    /// The same of a database that may be there to be filled: one without tables passes.
    Trial,
}

/// Whether a database that cannot be opened is gone or damaged: one that is locked, or whose server is down, is neither, and
/// nothing may be restored over it. Nor over what is no database at all: somebody has put it there.
fn is_gone(source: &Source, error: &Error) -> bool {
    match source {
        Source::Sqlite(_) => is_absent(source) || error.kind == Kind::Problem,
        Source::Postgres(_) => is_absent(source),
    }
}

/// Whether there is no such file, or a server that answers and has no such database.
fn is_absent(source: &Source) -> bool {
    match source {
        Source::Sqlite(path) => {
            std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        }
        Source::Postgres(params) => {
            let look = || Server::connect(params)?.look(params.database());
            look().is_ok_and(|found| found.is_none())
        }
    }
}

/// Looks at a source: that it can be read and is sound, that the config's rules hold, and, where there is a snapshot to
/// compare it with, that nothing was lost since.
pub(crate) fn look(chosen: &Chosen, before: Option<&Manifest>, depth: Depth, strictness: Strictness) -> Result<Looked> {
    let name = chosen.name()?;
    let mut looked = Looked::default();
    let mut live = match live_of(&chosen.source) {
        Ok(live) => live,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            looked.is_lost = is_gone(&chosen.source, &error);
            looked.checks.add(format!("{name}: database"), false, told(&error));
            return Ok(looked);
        }
    };
    match live.integrity(depth) {
        Ok(found) => {
            looked.is_lost |= !found.damage.is_empty();
            let is_strict = matches!(strictness, Strictness::Complaints | Strictness::Trial);
            let faults: Vec<&String> = found.damage.iter().chain(&found.complaints).collect();
            let some: Vec<String> = faults.iter().take(3).map(|fault| one_line(fault)).collect();
            let more = faults.len().saturating_sub(3);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let ok = found.damage.is_empty() && (found.complaints.is_empty() || !is_strict);
            let message = if faults.is_empty() { "sound".to_owned() } else { some.join("; ") + &more };
            looked.checks.add(format!("{name}: integrity"), ok, message);
        }
        Err(error) => {
            looked.is_lost |= error.kind == Kind::Problem;
            looked.checks.note(format!("{name}: integrity"), Err(error))?;
        }
    }
    let now = Utc::now();
    for rule in chosen.rules().iter().filter(|rule| !matches!(rule.demand, Demand::MaxRowDrop(_))) {
        let verdict = rules::judge(rule, &mut *live, now);
        // Whether the snapshot is any better nobody knows: only what is seen to be lost is brought back.
        looked.checks.add(format!("{name}: {}", verdict.name), verdict.ok, verdict.message());
    }
    let tables = match live.tables() {
        Ok(tables) => tables,
        Err(error) => {
            looked.checks.note(format!("{name}: rows"), Err(error))?;
            return Ok(looked);
        }
    };
    let rows: u64 = tables.values().sum();
    match before {
        None => {
            let is_empty = tables.is_empty();
            let message = if is_empty { "it has no tables".to_owned() } else { counted(tables.len(), rows) };
            looked.checks.add(format!("{name}: rows"), !is_empty || strictness == Strictness::Trial, message);
        }
        Some(before) => compare(&name, before, &tables, chosen.rules(), strictness, &mut looked),
    }
    Ok(looked)
}

fn counted(tables: usize, rows: u64) -> String {
    format!("{tables} tables, {rows} rows")
}

/// Compares rows with a snapshot's, table by table; of an encrypted one that no key opens only all together.
fn compare(
    name: &SourceName,
    before: &Manifest,
    now: &BTreeMap<String, u64>,
    rules: &[Rule],
    strictness: Strictness,
    looked: &mut Looked,
) {
    let rows: u64 = now.values().sum();
    let is_sealed = is_sealed(before);
    let verdicts = since(before, now, rules);
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.ok).collect();
    for verdict in &failed {
        looked.is_lost |= verdict.judged;
        looked.checks.add(format!("{name}: {}", verdict.name), false, verdict.message());
    }
    if is_sealed {
        // A table may be gone, and another have grown.
        let message = format!(
            "{} is encrypted, and no key here opens it: its tables cannot be compared, only the sum of all rows, {rows} \
             where it had {} (give a key with --identity, or identity_file in the config)",
            before.id, before.rows
        );
        looked.checks.add(format!("{name}: tables"), strictness != Strictness::Loss, message);
    } else if failed.is_empty() {
        let message = format!("{}; nothing lost since {}", counted(now.len(), rows), before.id);
        looked.checks.add(format!("{name}: rows"), true, message);
    }
}

/// Whether of a snapshot only the sum of all rows is known.
fn is_sealed(before: &Manifest) -> bool {
    before.encrypted && before.tables.is_empty()
}

/// What became of the rows of a snapshot, table by table, or all together where no more is known of it.
fn since(before: &Manifest, now: &BTreeMap<String, u64>, rules: &[Rule]) -> Vec<Verdict> {
    if is_sealed(before) {
        return rules::compare_totals(before.rows, now.values().sum(), rules);
    }
    let ordinary = |table: &&Table| table.is_ordinary();
    rules::compare(&rows_of(before.tables.iter().filter(ordinary)), now, rules)
}

/// What a glance at a source shows: a look without the integrity of what is stored, for that reads all of it.
#[derive(Debug, Default)]
pub(crate) struct Glance {
    /// Why it cannot be read.
    pub(crate) error: Option<String>,
    /// How the config's rules were judged.
    pub(crate) rules: Vec<Verdict>,
    /// What became of the rows of the snapshot that it was compared with.
    pub(crate) since: Vec<Verdict>,
    /// The snapshot.
    pub(crate) compared_with: Option<String>,
    /// Whether only the sum of all rows could be compared.
    pub(crate) only_sums: bool,
    /// The rows of its tables.
    pub(crate) tables: BTreeMap<String, u64>,
}

/// Glances at a source. Only a signal is an error.
pub(crate) fn glance(chosen: &Chosen, before: Option<&Manifest>) -> Result<Glance> {
    let mut glance = Glance::default();
    let seen = live_of(&chosen.source).and_then(|mut live| {
        let now = Utc::now();
        let rules = chosen.rules().iter().filter(|rule| !matches!(rule.demand, Demand::MaxRowDrop(_)));
        glance.rules = rules.map(|rule| rules::judge(rule, &mut *live, now)).collect();
        crate::platform::interrupt::check()?;
        live.tables()
    });
    match seen {
        Ok(tables) => glance.tables = tables,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            glance.error = Some(told(&error));
            return Ok(glance);
        }
    }
    if let Some(before) = before {
        glance.since = since(before, &glance.tables, chosen.rules());
        glance.compared_with = Some(before.id.to_string());
        glance.only_sums = is_sealed(before);
    }
    Ok(glance)
}

/// The rows of tables that can be counted, by name.
pub(crate) fn rows_of<'a>(tables: impl Iterator<Item = &'a Table>) -> BTreeMap<String, u64> {
    tables.filter_map(|table| Some((table.name.clone(), table.rows?))).collect()
}

/// Opens a database to look at it.
pub(crate) fn live_of(source: &Source) -> Result<Box<dyn Live>> {
    match source {
        Source::Sqlite(path) => crate::engine::sqlite::live::open(path),
        Source::Postgres(params) => crate::engine::postgres::live::open(params),
    }
}

/// How many tables and rows a database has; None where it is not there.
pub(crate) fn count(source: &Source) -> Result<Option<(usize, u64)>> {
    match live_of(source) {
        Ok(mut live) => {
            let tables = live.tables()?;
            Ok(Some((tables.len(), tables.values().sum())))
        }
        Err(error) if error.kind != Kind::Interrupted && is_absent(source) => Ok(None),
        Err(error) => Err(error),
    }
}
