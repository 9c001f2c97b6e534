//! The inspection of a live database: its integrity, its tables, and values for the rules of the config.

use std::collections::BTreeMap;

use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Depth;
use crate::snapshots::row_counts::RowCounts;

/// A live database that is read and not changed.
pub trait Live {
    /// Returns the faults of the database.
    fn integrity(&mut self, depth: Depth) -> Result<Integrity>;

    /// Returns true if the database has no table, view or other relation of a user.
    fn is_empty(&mut self) -> Result<bool>;

    /// Returns the number of rows of every user table, by the names that manifests use.
    fn tables(&mut self) -> Result<RowCounts>;

    /// Returns the number of all rows as [`crate::snapshots::manifest::Manifest::rows`] counts them.
    fn stored_rows(&mut self) -> Result<u64> {
        Ok(self.tables()?.total())
    }

    /// Returns the columns of every user table, by the names that manifests use, and the views.
    fn shape(&mut self) -> Result<Shape>;

    /// Returns the number of rows of one table or view. Fails with [`crate::platform::error::Kind::Problem`] if it does
    /// not exist.
    fn rows(&mut self, table: &str) -> Result<u64>;

    /// Returns the newest value of a column, if the database itself can determine it.
    fn newest(&mut self, table: &str, column: &str) -> Result<Newest>;

    /// Passes every value of a column that is not NULL to `visit`, until it returns false.
    fn each(&mut self, table: &str, column: &str, visit: &mut dyn FnMut(&Value) -> bool) -> Result<()>;

    /// Returns true if a query returns exactly one value, which is true or a number other than 0.
    fn holds(&mut self, query: &str) -> Result<bool>;
}

/// The names in a schema, as manifests have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The columns of each table.
    pub columns: BTreeMap<String, Vec<String>>,
    /// The views.
    pub views: Vec<String>,
}

/// The faults of a database; each one on one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Damage: stored data is not what was written.
    pub damage: Vec<String>,
    /// Violations without damage: rows without their parents, invalid indexes.
    pub complaints: Vec<String>,
    /// Parts that could not be checked, with the reasons. A database with such parts is not known to be sound.
    pub unchecked: Vec<String>,
}

/// A value of a time column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// A text.
    Text(String),
    /// A value that is not a time.
    Other,
}

/// The newest value of a column, as far as the database can determine it.
#[derive(Clone, Debug, PartialEq)]
pub enum Newest {
    /// There is no value.
    None,
    /// The newest value.
    One(Value),
    /// The database does not order the values as times: each value must be read.
    Each,
}

/// Builds the error for a missing table or column, with similar names as a hint.
pub(super) fn missing<'a>(kind: &str, name: &str, existing: impl Iterator<Item = &'a str>) -> Error {
    let mut near: Vec<(usize, &str)> = existing.map(|other| (strsim::levenshtein(name, other), other)).collect();
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(3).map(|(_, name)| name).collect();
    let error = Error::problem(format!("there is no {kind} {}", one_line(name)));
    if near.is_empty() { error } else { error.hint(format!("similar names are {}", one_line(&near.join(", ")))) }
}

/// Returns true if the single value of a rule's query, given as text, is true.
pub(super) fn is_true(value: Option<&str>) -> Result<bool> {
    match value {
        Some("t" | "true") => Ok(true),
        None | Some("f" | "false") => Ok(false),
        Some(other) => match other.parse::<f64>() {
            Ok(number) => Ok(number != 0.0),
            Err(_) => Err(Error::problem(format!(
                "the query returned '{}', which is neither true nor false",
                one_line(other)
            ))
            .hint("write a comparison, such as: select count(*) > 0 from ...")),
        },
    }
}
