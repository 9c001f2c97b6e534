//! Databases: how a consistent snapshot of one is read, and how one is put back.
//!
//! An engine reads a source into plain bytes and facts, and writes a target from plain bytes. It knows
//! nothing of archives or stores, and says of what it reads only what it has seen.

pub mod postgres;
pub mod rules;
pub mod source;
pub mod sqlite;

use std::collections::BTreeMap;

use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Depth;

/// A database that is looked at, and not changed.
pub trait Live {
    /// What is not sound.
    fn integrity(&mut self, depth: Depth) -> Result<Integrity>;

    /// The rows of every table of its own, by the names that manifests use.
    fn tables(&mut self) -> Result<BTreeMap<String, u64>>;

    /// The rows of one table or view; [`crate::platform::error::Kind::Problem`] where there is none of that name.
    fn rows(&mut self, table: &str) -> Result<u64>;

    /// The newest value of a column, where the database itself can tell.
    fn newest(&mut self, table: &str, column: &str) -> Result<Newest>;

    /// Shows every value of a column that is not NULL, until `see` gives false.
    fn each(&mut self, table: &str, column: &str, see: &mut dyn FnMut(&Value) -> bool) -> Result<()>;

    /// Whether a query gives exactly one value, which is true or a number that is not 0.
    fn holds(&mut self, query: &str) -> Result<bool>;
}

/// What is not sound in a database; each fault on one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Damage: what is stored is not what was written.
    pub damage: Vec<String>,
    /// What breaks rules, or does not work, with nothing damaged: rows without their parents, indexes that are not valid.
    pub complaints: Vec<String>,
}

/// A value of a column of times.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// A text.
    Text(String),
    /// Something that is no time.
    Other,
}

/// What a database says of a column's newest value.
#[derive(Clone, Debug, PartialEq)]
pub enum Newest {
    /// There is no value.
    None,
    /// This one.
    One(Value),
    /// It orders the values otherwise than times are: each must be looked at.
    Each,
}

/// An error that says that there is no such table or column, with names that are near.
fn not_there<'a>(what: &str, name: &str, there: impl Iterator<Item = &'a str>) -> Error {
    let mut near: Vec<(usize, &str)> = there.map(|other| (distance(name, other), other)).collect();
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(3).map(|(_, name)| name).collect();
    let error = Error::problem(format!("there is no {what} {}", one_line(name)));
    if near.is_empty() { error } else { error.hint(format!("there is {}", one_line(&near.join(", ")))) }
}

/// How many letters are to be changed to make one of the other (Levenshtein's).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], number + 1);
        for (at, other) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The one value that a rule's query gave, as text: whether it is true.
fn is_true(value: Option<&str>) -> Result<bool> {
    match value {
        Some("t" | "true") => Ok(true),
        None | Some("f" | "false") => Ok(false),
        Some(other) => match other.parse::<f64>() {
            Ok(number) => Ok(number != 0.0),
            Err(_) => {
                Err(Error::problem(format!("the query gave '{}', which is neither true nor false", one_line(other)))
                    .hint("compare something: select count(*) > 0 from ..."))
            }
        },
    }
}
