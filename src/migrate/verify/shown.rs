//! Formats values for messages: on one line, shortened, and so that spaces at their ends are visible.

use super::canon::{Canon, Column};
use crate::migrate::convert::Kind;
use crate::platform::error::one_line;

/// The greatest number of characters of a value that are shown.
const MAX_CHARS: usize = 80;

/// The number of characters shown before the first difference of two long values.
const BEFORE: usize = 20;

/// A part of a value.
struct Part {
    begins: bool,
    text: String,
    ends: bool,
}

impl Part {
    /// Returns the characters of a text from one on, as many as are shown.
    fn of(text: &str, first: usize) -> Self {
        let mut letters = text.chars().skip(first);
        let shown: String = letters.by_ref().take(MAX_CHARS).collect();
        Part { begins: first == 0, text: one_line(&shown), ends: letters.next().is_none() }
    }

    fn dots(&self) -> (&'static str, &'static str) {
        (if self.begins { "" } else { "..." }, if self.ends { "" } else { "..." })
    }

    fn plain(&self) -> String {
        let (before, behind) = self.dots();
        format!("{before}{}{behind}", self.text)
    }

    fn quoted(&self) -> String {
        let (before, behind) = self.dots();
        format!("{before}'{}'{behind}", self.text)
    }
}

/// A value in both forms: alone, and as it stands in a sentence.
pub(super) struct Shown {
    pub(super) plain: String,
    pub(super) in_sentence: String,
}

fn shown_part(column: &Column, value: &Canon, part: &Part) -> Shown {
    let is_text = matches!(column.kind, Kind::Text | Kind::Character | Kind::Json | Kind::Jsonb | Kind::Other);
    let plain = part.plain();
    let in_sentence = if is_text && value.is_some() { part.quoted() } else { plain.clone() };
    Shown { plain, in_sentence }
}

/// Formats a value.
pub(super) fn one(column: &Column, value: &Canon) -> Shown {
    shown_part(column, value, &Part::of(&column.shown(value), 0))
}

/// Formats two values that differ. Of long values, the parts around the first difference are shown.
pub(super) fn both(column: &Column, source: &Canon, target: &Canon) -> (Shown, Shown) {
    let (one, other) = (column.shown(source), column.shown(target));
    let is_long = one.chars().nth(MAX_CHARS).is_some() || other.chars().nth(MAX_CHARS).is_some();
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let first = if is_long { same.saturating_sub(BEFORE) } else { 0 };
    (shown_part(column, source, &Part::of(&one, first)), shown_part(column, target, &Part::of(&other, first)))
}
