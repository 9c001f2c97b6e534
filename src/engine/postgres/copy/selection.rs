//! Selects tables: patterns match `schema.table` or the table name alone.

use wildmatch::WildMatch;

use crate::platform::error::{Error, Result, one_line};

/// One pattern with `*` and `?`; without a dot it matches the table's name in any schema.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    matcher: WildMatch,
}

impl Pattern {
    /// Builds a pattern from the user's text.
    #[must_use]
    pub(crate) fn new(text: &str) -> Self {
        Pattern { text: text.to_owned(), matcher: WildMatch::new(text) }
    }

    /// Builds a pattern for one table, by its name as this program shows it.
    #[must_use]
    pub(crate) fn exact(shown: &str) -> Self {
        Pattern { text: shown.to_owned(), matcher: WildMatch::new("\0") }
    }

    /// Returns true if the pattern matches a table. `shown` is its name as this program shows it, quoted if necessary.
    #[must_use]
    pub(crate) fn matches(&self, schema: &str, name: &str, shown: &str) -> bool {
        self.text == shown
            || self.matcher.matches(&format!("{schema}.{name}"))
            || (!self.text.contains('.') && self.matcher.matches(name))
            || self.text == name
    }

    /// Returns the user's text.
    #[must_use]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The tables that a snapshot saves, and those whose rows it saves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only these tables; empty for all.
    pub tables: Vec<Pattern>,
    /// The tables that are not saved.
    pub exclude_tables: Vec<Pattern>,
    /// The tables of which only the definition is saved.
    pub exclude_data: Vec<Pattern>,
    /// True if no rows are saved.
    pub schema_only: bool,
    /// True if large objects are not saved.
    pub without_large_objects: bool,
}

impl Selection {
    /// Returns true if large objects are saved. They are saved only with everything else, because no table says which
    /// of them it refers to.
    #[must_use]
    pub(crate) fn takes_large_objects(&self) -> bool {
        let all_rows = self.exclude_data.is_empty() && !self.schema_only;
        self.tables.is_empty() && self.exclude_tables.is_empty() && all_rows && !self.without_large_objects
    }

    /// Returns true if the rows of all tables are saved.
    #[must_use]
    pub(crate) fn is_all(&self) -> bool {
        self.tables.is_empty() && self.exclude_tables.is_empty() && self.exclude_data.is_empty() && !self.schema_only
    }

    /// Returns true if a table is saved.
    #[must_use]
    pub(crate) fn takes(&self, schema: &str, name: &str, shown: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(schema, name, shown));
        (self.tables.is_empty() || any(&self.tables)) && !any(&self.exclude_tables)
    }

    /// Returns true if a table's rows are saved.
    #[must_use]
    pub(crate) fn takes_rows(&self, schema: &str, name: &str, shown: &str) -> bool {
        !self.schema_only
            && self.takes(schema, name, shown)
            && !self.exclude_data.iter().any(|pattern| pattern.matches(schema, name, shown))
    }

    /// Fails with the first pattern that matches no table: a mistyped pattern must not save less or more than intended.
    pub(crate) fn require_matches<'a>(
        &self,
        tables: impl Iterator<Item = (&'a str, &'a str, &'a str)> + Clone,
    ) -> Result<()> {
        let all = self.tables.iter().chain(&self.exclude_tables).chain(&self.exclude_data);
        for pattern in all {
            if !tables.clone().any(|(schema, name, shown)| pattern.matches(schema, name, shown)) {
                return Err(Error::usage(format!("no table matches {}", one_line(pattern.text())))
                    .hint("write SCHEMA.TABLE, or a pattern with * and ?"));
            }
        }
        Ok(())
    }
}
