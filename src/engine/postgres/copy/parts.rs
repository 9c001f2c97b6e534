//! Divides the reading of tables into parts, so that all sessions are busy until the end.

use crate::engine::postgres::copy::row_source::{Range, RowSource};
use crate::platform::error::Result;

/// The size from which several sessions read a table in parts.
const SPLIT_BYTES: u64 = 32 << 20;

/// One part of a table, for one session to read.
#[derive(Clone, Debug)]
pub(in crate::engine::postgres) struct Part {
    pub(in crate::engine::postgres) table: usize,
    pub(in crate::engine::postgres) range: Range,
}

/// Returns the parts to read the tables in, largest first. A table is divided only if one session would still read it
/// while the others are idle: reading by ranges costs the server about 10% more, and evicts other pages from its cache.
pub(in crate::engine::postgres) fn cut(
    tables: &[RowSource],
    jobs: usize,
    mut may_cut: impl FnMut(&RowSource) -> Result<bool>,
) -> Result<Vec<Part>> {
    let total: u64 = tables.iter().map(|table| table.bytes).sum();
    let share = total / jobs as u64;
    let step_bytes = (share / 6).max(SPLIT_BYTES);
    let whole = tables.iter().enumerate().map(|(index, table)| (table.bytes, Part { table: index, range: Range::All }));
    let mut parts: Vec<(u64, Part)> = whole.collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.0));
    let mut kept_whole = 0;
    // Parts of divided tables go behind all others, where this loop does not reach them.
    for _ in 0..tables.len() {
        if jobs < 2 || busiest(&parts, jobs) <= share + step_bytes {
            break;
        }
        let index = parts[kept_whole].1.table;
        let table = &tables[index];
        let pieces = table.bytes.div_ceil(step_bytes).min(table.pages);
        let slices = table.span.as_ref().map(|span| by_time(&span.starts, step_bytes)).unwrap_or_default();
        let can_be_cut = table.condition.is_none() && !table.columns.is_empty();
        if !can_be_cut || pieces.max(slices.len() as u64) < 2 || !may_cut(table)? {
            kept_whole += 1;
            continue;
        }
        parts.remove(kept_whole);
        if !slices.is_empty() {
            parts.extend(slices.into_iter().map(|(bytes, range)| (bytes, Part { table: index, range })));
            continue;
        }
        let step = table.pages.div_ceil(pieces);
        let mut first = 0;
        while first < table.pages {
            let end = (first + step < table.pages).then_some(first + step);
            parts.push((table.bytes / pieces, Part { table: index, range: Range::Pages(first, end) }));
            first += step;
        }
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.0));
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

/// Returns slices of time of about equal size. They begin at the starts of chunks, so that each chunk is read once. The
/// first slice always has no lower bound, the last has no upper bound, and each other slice ends where the next begins.
fn by_time(starts: &[(String, u64)], step_bytes: u64) -> Vec<(u64, Range)> {
    let mut slices: Vec<(u64, Range)> = Vec::new();
    let (mut from, mut bytes) = (None, 0);
    for (index, (start, chunk_bytes)) in starts.iter().enumerate() {
        if index > 0 && bytes >= step_bytes {
            slices.push((bytes, Range::Times(from, Some(start.clone()))));
            (from, bytes) = (Some(start.clone()), 0);
        }
        bytes += chunk_bytes;
    }
    slices.push((bytes, Range::Times(from, None)));
    slices
}

/// Returns the bytes of the busiest session, if each free session takes the largest part that is left.
fn busiest(parts: &[(u64, Part)], jobs: usize) -> u64 {
    let mut sizes: Vec<u64> = parts.iter().map(|(bytes, _)| *bytes).collect();
    sizes.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
    let mut loads = vec![0; jobs];
    for bytes in sizes {
        if let Some(load) = loads.iter_mut().min() {
            *load += bytes;
        }
    }
    loads.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::postgres::copy::rows::RowSum;

    const MIB: u64 = 1 << 20;

    fn table(name: &str, bytes: u64, pages: u64) -> RowSource {
        let (qualified, columns) = (name.to_owned(), vec!["id".to_owned()]);
        RowSource {
            qualified,
            columns,
            generated: Vec::new(),
            condition: None,
            bytes,
            pages,
            span: None,
            sum: RowSum::default(),
            owned: None,
        }
    }

    /// Returns the number of parts of each table, after checking that the parts cover the whole table exactly once.
    fn parts_of(tables: &[RowSource], jobs: usize, may_cut: &dyn Fn(&RowSource) -> bool) -> Vec<usize> {
        let parts = cut(tables, jobs, |table| Ok(may_cut(table))).unwrap();
        let of_table = |index: usize| {
            let own = parts.iter().filter(|part| part.table == index);
            let mut pages: Vec<Range> = own.map(|part| part.range.clone()).collect();
            if pages == [Range::All] {
                return 1;
            }
            pages.sort();
            let mut next = Some(0);
            for range in &pages {
                let Range::Pages(first, end) = range else { panic!("{range:?}") };
                assert_eq!(next, Some(*first), "{pages:?}");
                next = *end;
            }
            assert!(next.is_none() && pages.len() > 1, "the last one is open-ended: {pages:?}");
            pages.len()
        };
        (0..tables.len()).map(of_table).collect()
    }

    #[test]
    fn tables_are_cut_only_if_that_balances_the_work() {
        let large = |name: &str, mib: u64| table(name, mib * MIB, mib * 128);
        let always = |_: &RowSource| true;
        assert_eq!(parts_of(&[large("a", 600)], 2, &always), [12]);
        assert_eq!(parts_of(&[large("a", 600)], 1, &always), [1]);
        // One session reads the smaller table; the larger table is divided to keep both sessions busy.
        assert_eq!(parts_of(&[large("a", 600), large("b", 300)], 2, &always), [8, 1]);
        assert_eq!(parts_of(&[large("a", 300), large("b", 300)], 2, &always), [1, 1]);
        assert_eq!(parts_of(&[large("a", 30), large("b", 1)], 2, &always), [1, 1]);
        assert_eq!(parts_of(&[], 2, &always), [0; 0]);
    }

    #[test]
    fn tables_that_cannot_be_cut_are_read_whole_and_no_row_twice() {
        let always = |_: &RowSource| true;
        // Most of it is in TOAST: the table itself has one page, and so cannot be divided.
        let blobs = table("blobs", 1000 * MIB, 1);
        assert_eq!(
            parts_of(&[blobs.clone(), table("events", 200 * MIB, 25600), table("small", 1, 1)], 2, &always),
            [1, 2, 1]
        );
        assert_eq!(parts_of(&[table("two", 1000 * MIB, 2)], 4, &always), [2]);
        // Another session holds a lock on its indexes.
        assert_eq!(parts_of(&[table("held", 600 * MIB, 76800), blobs], 2, &|table| table.qualified != "held"), [1, 1]);
    }

    #[test]
    fn slices_of_time_leave_no_row_out() {
        let starts: Vec<(String, u64)> = (0..10).map(|day| (format!("2026-01-1{day}"), 10 * MIB)).collect();
        let slices: Vec<Range> = by_time(&starts, 32 * MIB).into_iter().map(|(_, range)| range).collect();
        let day = |day: &str| Some(format!("2026-01-1{day}"));
        let expected = [Range::Times(None, day("4")), Range::Times(day("4"), day("8")), Range::Times(day("8"), None)];
        assert_eq!(slices, expected);
        assert_eq!(by_time(&starts[..2], 32 * MIB), [(20 * MIB, Range::Times(None, None))]);
        assert_eq!(by_time(&[], 1), [(0, Range::Times(None, None))]);
    }
}
