//! The rows of a database, table by table, as gates, guards and snapshots count them.
//!
//! A table keeps rows if it is an ordinary table, or a virtual table that stores its rows in shadow tables (FTS5, FTS4,
//! R-tree). Shadow tables themselves are not counted: they are the storage of another table. A virtual table that shows
//! rows of other tables keeps none: an index with external content (the option `content`), a table without storage, and
//! one whose module is missing here, because SQLite then takes its storage for ordinary tables.

use std::collections::{BTreeMap, BTreeSet};

use crate::snapshots::manifest::Table;

/// The numbers of rows in the tables of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// The number of rows of each table that keeps rows.
    pub tables: BTreeMap<String, u64>,
    /// The tables that keep no rows, each with the name of the table or view whose rows it shows; `None` if that is not
    /// known.
    pub views_of: BTreeMap<String, Option<String>>,
    /// The tables whose rows cannot be counted here, each with the reason.
    pub uncounted: BTreeMap<String, String>,
}

impl RowCounts {
    /// Counts the rows of tables, as a manifest describes them.
    #[must_use]
    pub fn of(tables: &[Table]) -> Self {
        let shadows = Shadows::of(tables.iter().map(|table| (table.name.as_str(), table.kind.as_str())));
        let mut counts = RowCounts::default();
        for table in tables.iter().filter(|table| table.is_of_user()) {
            let name = table.name.clone();
            if table.kind == "virtual" && (table.content.is_some() || !shadows.has_rows_of(table)) {
                counts.views_of.insert(name, table.content.clone());
                continue;
            }
            match table.rows {
                Some(rows) => drop(counts.tables.insert(name, rows)),
                None => drop(counts.uncounted.insert(name, table.reason.clone().unwrap_or_default())),
            }
        }
        counts
    }

    /// Returns the number of all rows that were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.tables.values().sum()
    }

    /// Returns the number of tables.
    #[must_use]
    pub fn number_of_tables(&self) -> usize {
        self.tables.len() + self.views_of.len() + self.uncounted.len()
    }

    /// Returns true if there is a table of this name.
    #[must_use]
    pub fn has_table(&self, name: &str) -> bool {
        self.tables.contains_key(name) || self.views_of.contains_key(name) || self.uncounted.contains_key(name)
    }

    /// Returns true if every table was counted, and has no rows.
    #[must_use]
    pub fn is_without_rows(&self) -> bool {
        self.uncounted.is_empty() && self.tables.values().all(|rows| *rows == 0)
    }
}

impl From<BTreeMap<String, u64>> for RowCounts {
    fn from(tables: BTreeMap<String, u64>) -> Self {
        RowCounts { tables, ..RowCounts::default() }
    }
}

/// Returns the number of rows in ordinary tables and shadow tables: the total that manifests record (see
/// [`crate::snapshots::manifest::Manifest::rows`]). It stays comparable with the manifests of all versions.
#[must_use]
pub fn stored_rows(tables: &[Table]) -> u64 {
    tables.iter().filter(|table| is_storage(&table.name, &table.kind)).filter_map(|table| table.rows).sum()
}

/// Returns true if the rows of a table are part of [`stored_rows`].
#[must_use]
pub fn is_storage(name: &str, kind: &str) -> bool {
    kind != "virtual" && !name.starts_with("sqlite_")
}

/// The shadow tables of a database: the storage of its virtual tables.
#[derive(Debug, Default)]
pub struct Shadows(BTreeSet<String>);

impl Shadows {
    /// Collects the shadow tables of a list of names and kinds.
    pub fn of<'a>(tables: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Shadows(tables.filter(|(_, kind)| *kind == "shadow").map(|(name, _)| name.to_ascii_lowercase()).collect())
    }

    /// Returns true if a virtual table has storage. The name of a shadow table is that of its virtual table, an
    /// underscore, and a word.
    #[must_use]
    pub fn has_storage_of(&self, table: &str) -> bool {
        let start = format!("{}_", table.to_ascii_lowercase());
        let own = |name: &&String| name.strip_prefix(&start).is_some_and(|word| !word.contains('_'));
        self.0.range(start.clone()..).take_while(|name| name.starts_with(&start)).any(|name| own(&name))
    }

    /// Returns true if a virtual table has the shadow table whose name ends with this word.
    #[must_use]
    pub fn has(&self, table: &str, word: &str) -> bool {
        self.0.contains(&format!("{}_{word}", table.to_ascii_lowercase()))
    }

    /// Returns true if a virtual table of a manifest stores rows. A manifest of an earlier version does not say that the
    /// content of a full-text index is external. Such an index has no table for its content, but shows values; one
    /// without content (`content=''`) shows none.
    fn has_rows_of(&self, table: &Table) -> bool {
        let has = |word: &str| self.has(&table.name, word);
        let is_external =
            (has("idx") || has("segdir")) && !has("content") && table.bytes.is_some_and(|bytes| bytes > 0);
        self.has_storage_of(&table.name) && !is_external
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, kind: &str, rows: Option<u64>, bytes: u64, content: Option<&str>) -> Table {
        let (name, kind, content) = (name.to_owned(), kind.to_owned(), content.map(str::to_owned));
        Table { rows, bytes: Some(bytes), kind, content, ..Table::with_rows(&name, 0) }
    }

    #[test]
    fn a_virtual_table_is_counted_if_it_stores_rows() {
        let counts = RowCounts::of(&[
            table("docs", "table", Some(2), 9, None),
            table("sqlite_sequence", "table", Some(1), 9, None),
            table("Notes", "virtual", Some(3), 9, None),
            table("Notes_content", "shadow", Some(3), 9, None),
            table("Notes_idx", "shadow", Some(7), 9, None),
            table("boxes", "virtual", Some(4), 9, None),
            table("boxes_node", "shadow", Some(1), 9, None),
            table("contentless", "virtual", Some(5), 0, None),
            table("contentless_idx", "shadow", Some(1), 9, None),
            table("terms", "virtual", Some(80), 9, None),
            table("terms_of_2_data", "shadow", Some(80), 9, None),
            table("vectors", "virtual", None, 0, None),
            table("vectors_chunks", "table", Some(6), 0, None),
            table("odd", "virtual", None, 0, None),
            table("odd_docsize", "shadow", Some(6), 0, None),
        ]);
        let expected: BTreeMap<String, u64> =
            [("Notes", 3), ("boxes", 4), ("contentless", 5), ("docs", 2), ("vectors_chunks", 6)]
                .map(|(name, rows)| (name.to_owned(), rows))
                .into();
        assert_eq!(counts.tables, expected);
        assert_eq!(counts.views_of.keys().collect::<Vec<_>>(), ["terms", "vectors"]);
        assert_eq!(counts.uncounted.keys().collect::<Vec<_>>(), ["odd"]);
        assert!(!counts.is_without_rows() && counts.number_of_tables() == 8 && counts.total() == 20);
    }

    #[test]
    fn an_index_with_external_content_shows_the_rows_of_another_table() {
        for content in [None, Some("docs")] {
            let counts = RowCounts::of(&[
                table("docs_fts", "virtual", Some(2), 9, content),
                table("docs_fts_idx", "shadow", Some(1), 9, None),
            ]);
            assert!(counts.tables.is_empty(), "{counts:?}");
            assert_eq!(counts.views_of["docs_fts"].as_deref(), content);
        }
    }
}
