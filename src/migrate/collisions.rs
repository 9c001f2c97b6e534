//! Counts the rows of merged tables that have a key of a row before them. Such rows are rejected when they are loaded.

use std::collections::HashSet;
use std::path::Path;

use chrono_tz::Tz;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::convert::Converter;
use super::ddl;
use super::plan::TablePlan;
use crate::engine::sqlite::schema::TableFacts;
use crate::engine::sqlite::values::{Cell, Reader};
use crate::platform::error::{Result, one_line};
use crate::platform::interrupt;

/// The number of keys that are kept in memory at once. With more rows, the tables are read several times, each time for
/// a part of the keys.
const KEYS_IN_MEMORY: u64 = 2_000_000;

/// A table that shares its target with others.
pub(crate) struct MergedTable<'a> {
    /// The table in the plan.
    pub plan: &'a TablePlan,
    /// The path of its file.
    pub path: &'a Path,
}

/// Returns a sentence for each table and key with rows that collide with rows of the tables before it, or with earlier
/// rows of its own. `tables` have the same target, and are in the order in which they are loaded.
pub(crate) fn sentences(tables: &[MergedTable<'_>], zone: Tz) -> Result<Vec<String>> {
    let Some(first) = tables.first() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for key in first.plan.keys() {
        let mut sources = Vec::new();
        for table in tables {
            sources.push(Source::open(table, key, zone)?);
        }
        // A table without the key's columns cannot be merged.
        let sources: Vec<Source> = sources.into_iter().flatten().collect();
        let counts = count(&sources)?;
        for (source, count) in sources.iter().zip(counts).filter(|(_, count)| *count > 0) {
            found.push(format!(
                "{count} rows of {} have the key ({}) of a row before them, so they would be rejected from {}",
                source.shown,
                one_line(&key.join(", ")),
                first.plan.shown_target()
            ));
        }
    }
    Ok(found)
}

struct Source {
    shown: String,
    reader: Reader,
    facts: TableFacts,
    /// The positions and the converters of the key's columns.
    columns: Vec<(usize, Converter)>,
    rows: u64,
}

impl Source {
    fn open(table: &MergedTable<'_>, key: &[String], zone: Tz) -> Result<Option<Self>> {
        let reader = Reader::open(table.path)?;
        let Some(facts) = reader.schema()?.tables.into_iter().find(|facts| facts.name == table.plan.source) else {
            return Ok(None);
        };
        let mut columns = Vec::new();
        for name in key {
            let Some(column) = table.plan.column(name) else { return Ok(None) };
            let place = facts.columns.iter().position(|one| one.name == column.source);
            let Some(place) = place else { return Ok(None) };
            columns.push((place, Converter::new(column, zone, ddl::refuses_null(table.plan, column))?));
        }
        let rows = reader.count(&facts)?;
        Ok(Some(Source { shown: table.plan.shown_source(), reader, facts, columns, rows }))
    }
}

/// Returns for each table the number of its rows whose key an earlier row has.
fn count(sources: &[Source]) -> Result<Vec<u64>> {
    let parts = sources.iter().map(|source| source.rows).sum::<u64>().div_ceil(KEYS_IN_MEMORY);
    let mut counts = vec![0u64; sources.len()];
    let mut text = Vec::new();
    for part in 0..parts {
        let mut seen: HashSet<u128> = HashSet::new();
        for (source, count) in sources.iter().zip(&mut counts) {
            let (mut rows, mut number) = (source.reader.rows(&source.facts, None)?, 0u64);
            'rows: while rows.step()? {
                number += 1;
                if number.is_multiple_of(4096) {
                    interrupt::check()?;
                }
                text.clear();
                for (place, converter) in &source.columns {
                    let start = text.len();
                    let cell = rows.cell(*place)?;
                    // NULL equals nothing, and a row that cannot be converted is rejected for that.
                    if matches!(cell, Cell::Null)
                        || converter.write(cell, &mut text).is_err()
                        || text[start..] == *b"\\N"
                    {
                        continue 'rows;
                    }
                    text.push(b'\t');
                }
                if xxh3_64(&text) % parts == part && !seen.insert(xxh3_128(&text)) {
                    *count += 1;
                }
            }
        }
    }
    Ok(counts)
}
