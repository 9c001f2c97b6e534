//! Which tables are meant: patterns over `schema.table`, or over the bare name.

use wildmatch::WildMatch;

use crate::platform::error::{Error, Result, one_line};

/// One pattern with `*` and `?`; without a dot it goes for the table's name in any schema.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: WildMatch,
}

impl Pattern {
    /// Makes a pattern of what a person wrote.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Pattern { text: text.to_owned(), matcher: WildMatch::new(text) }
    }

    /// A pattern for one table, by its name as this program shows it.
    #[must_use]
    pub fn exact(shown: &str) -> Self {
        Pattern { text: shown.to_owned(), matcher: WildMatch::new("\0") }
    }

    /// Whether a table is meant. `shown` is its name as this program shows it: quoted where it has to be.
    #[must_use]
    pub fn matches(&self, schema: &str, name: &str, shown: &str) -> bool {
        self.text == shown
            || self.matcher.matches(&format!("{schema}.{name}"))
            || (!self.text.contains('.') && self.matcher.matches(name))
            || self.text == name
    }

    /// What the person wrote.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Which tables, and of which of them the rows, a snapshot saves.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these; empty for all.
    pub tables: Vec<Pattern>,
    /// Not these.
    pub exclude_tables: Vec<Pattern>,
    /// Of these the definition only.
    pub exclude_data: Vec<Pattern>,
    /// No rows at all.
    pub schema_only: bool,
    /// No large objects, though all else.
    pub without_large_objects: bool,
}

impl Selection {
    /// Whether large objects are saved: only with everything, since no table says which of them it refers to.
    #[must_use]
    pub fn takes_large_objects(&self) -> bool {
        let all_rows = self.exclude_data.is_empty() && !self.schema_only;
        self.tables.is_empty() && self.exclude_tables.is_empty() && all_rows && !self.without_large_objects
    }

    /// True where the rows of all tables are saved.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.tables.is_empty() && self.exclude_tables.is_empty() && self.exclude_data.is_empty() && !self.schema_only
    }

    /// Whether a table is saved.
    #[must_use]
    pub fn takes(&self, schema: &str, name: &str, shown: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(schema, name, shown));
        (self.tables.is_empty() || any(&self.tables)) && !any(&self.exclude_tables)
    }

    /// Whether a table's rows are saved.
    #[must_use]
    pub fn takes_rows(&self, schema: &str, name: &str, shown: &str) -> bool {
        !self.schema_only
            && self.takes(schema, name, shown)
            && !self.exclude_data.iter().any(|pattern| pattern.matches(schema, name, shown))
    }

    /// Fails with the first pattern that means no table at all: a mistyped one must not save less, or more, than meant.
    pub fn require_matches<'a>(&self, tables: impl Iterator<Item = (&'a str, &'a str, &'a str)> + Clone) -> Result<()> {
        let all = self.tables.iter().chain(&self.exclude_tables).chain(&self.exclude_data);
        for pattern in all {
            if !tables.clone().any(|(schema, name, shown)| pattern.matches(schema, name, shown)) {
                return Err(Error::usage(format!("no table is called {}", one_line(pattern.text())))
                    .hint("name one as SCHEMA.TABLE, or with * and ?"));
            }
        }
        Ok(())
    }
}
