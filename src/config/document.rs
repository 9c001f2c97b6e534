//! A config's text, with what its variables stand for put in, read section by section; errors know file, line and key.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::variables::{Trouble, Variables};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result, one_line};

/// A part of a config that may not be usable, which only matters to whoever needs it.
#[derive(Debug)]
pub(super) enum Section<T> {
    /// As it is written.
    Ready(T),
    /// Why it cannot be used: a variable that is not set, a secret's file that cannot be read.
    Unusable(String, Option<String>),
}

impl<T> Section<T> {
    /// The section, for who needs it.
    pub(super) fn get(&self) -> Result<&T> {
        match self {
            Section::Ready(section) => Ok(section),
            Section::Unusable(message, hint) => {
                let error = Error::usage(message);
                Err(if let Some(hint) = hint { error.hint(hint) } else { error })
            }
        }
    }

    /// Makes something else of it. What cannot be reached (a variable, a file) is a matter for who needs it; anything else
    /// that is wrong is wrong at once.
    pub(super) fn and_then<U>(self, make: impl FnOnce(T) -> Result<U>) -> Result<Section<U>> {
        match self {
            Section::Unusable(message, hint) => Ok(Section::Unusable(message, hint)),
            Section::Ready(section) => match make(section) {
                Ok(made) => Ok(Section::Ready(made)),
                Err(error) if error.kind == crate::platform::error::Kind::Unreachable => {
                    Ok(Section::Unusable(error.whole(), error.hint.clone()))
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// A text in which a variable stood.
struct Expanded {
    section: String,
    span: Range<usize>,
    written: String,
    value: String,
}

/// A config that was parsed, and is taken apart.
pub(super) struct Document<'a> {
    path: PathBuf,
    text: &'a str,
    table: DeTable<'a>,
    expanded: Vec<Expanded>,
    /// By section: the first variable in it that is not set.
    unset: BTreeMap<String, (Range<usize>, String)>,
}

impl<'a> Document<'a> {
    /// Parses a config. Its variables are put in later, by [`Document::expand`].
    pub(super) fn parse(path: &Path, text: &'a str) -> Result<Self> {
        let document =
            |table| Document { path: path.to_owned(), text, table, expanded: Vec::new(), unset: BTreeMap::new() };
        match DeTable::parse(text) {
            Ok(table) => Ok(document(table.into_inner())),
            Err(error) => {
                let key = error.span().and_then(|span| text.get(span)).filter(|_| error.message() == "duplicate key");
                let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
                Err(document(DeTable::new()).wrong(error.span(), &format!("{key}{}", error.message())))
            }
        }
    }

    /// Fails for a section that there is not.
    pub(super) fn require_known(&self, known: &[&str]) -> Result<()> {
        match self.table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => {
                let message = format!("unknown key, expected one of {}", known.join(", "));
                Err(self.wrong(Some(key.span()), &message))
            }
        }
    }

    /// Puts in what the variables of one section stand for, or of all where none is named.
    pub(super) fn expand(&mut self, only: Option<&str>, variables: &Variables) -> Result<()> {
        let mut table = std::mem::take(&mut self.table);
        for (key, value) in table.iter_mut() {
            if only.is_none_or(|only| only == key.get_ref().as_ref()) {
                self.expand_value(key.get_ref(), value, variables)?;
            }
        }
        self.table = table;
        Ok(())
    }

    fn expand_value(&mut self, section: &str, value: &mut Spanned<DeValue<'a>>, variables: &Variables) -> Result<()> {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => match variables.expand(text) {
                Ok(None) => Ok(()),
                Ok(Some(expanded)) => {
                    let written = text.to_string();
                    self.expanded.push(Expanded {
                        section: section.to_owned(),
                        span,
                        written,
                        value: expanded.clone(),
                    });
                    *text = expanded.into();
                    Ok(())
                }
                Err(Trouble::Unset(name)) => {
                    self.unset.entry(section.to_owned()).or_insert((span, name));
                    Ok(())
                }
                Err(Trouble::Syntax(why)) => Err(self.wrong(Some(span), why)),
            },
            DeValue::Array(values) => {
                values.iter_mut().try_for_each(|value| self.expand_value(section, value, variables))
            }
            DeValue::Table(table) => {
                table.iter_mut().try_for_each(|(_, value)| self.expand_value(section, value, variables))
            }
            _ => Ok(()),
        }
    }

    /// Takes a section out; its default where it is not there.
    pub(super) fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<Section<T>> {
        if let Some((span, variable)) = self.unset.get(name) {
            let message = format!("{}: the variable {variable} is not set", self.place(Some(span.clone())));
            let hint = format!("set it, or give a default: ${{{variable}:-...}}");
            return Ok(Section::Unusable(message, Some(hint)));
        }
        let Some(value) = self.table.remove(name) else { return Ok(Section::Ready(T::default())) };
        let read = T::deserialize(toml::de::ValueDeserializer::from(value));
        read.map(Section::Ready).map_err(|error| self.wrong(error.span(), &in_our_words(error.message())))
    }

    /// Where a section is.
    pub(super) fn span(&self, name: &str) -> Option<Range<usize>> {
        self.table.get_key_value(name).map(|(key, _)| key.span())
    }

    /// True where a section is written as a table, `[name]`, and not as a list of them, `[[name]]`.
    pub(super) fn is_single(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| value.get_ref().is_table())
    }

    /// An error on what stands there. What a variable holds is told by the variable's name.
    pub(super) fn wrong(&self, span: Option<Range<usize>>, message: &str) -> Error {
        let within = |expanded: &Expanded| {
            span.as_ref().is_none_or(|span| span.start <= expanded.span.end && expanded.span.start <= span.end)
        };
        let message = self.without_values(message, within);
        Error::usage(format!("{}: {}", self.place(span), one_line(&message)))
    }

    /// An error of ours on a section, at what stands there; its hint and kind are kept. It may tell of anything in the section.
    pub(super) fn refuse(&self, section: &str, span: Range<usize>, error: Error) -> Error {
        let of_section = |expanded: &Expanded| expanded.section == section;
        let message = self.without_values(&error.whole(), of_section);
        let mut told = self.wrong(Some(span), &message);
        told.hint = error.hint.map(|hint| self.without_values(&hint, of_section));
        told.kind = error.kind;
        told
    }

    fn without_values(&self, message: &str, meant: impl Fn(&Expanded) -> bool) -> String {
        let mut message = message.to_owned();
        for expanded in self.expanded.iter().filter(|expanded| meant(expanded)) {
            message = hide(&message, &expanded.value, &expanded.written);
        }
        message
    }

    /// `FILE:LINE: key.path`.
    fn place(&self, span: Option<Range<usize>>) -> String {
        let file = shown(&self.path);
        let Some(span) = span else { return file };
        let line = self.text[..span.start.min(self.text.len())].matches('\n').count() + 1;
        let mut key = String::new();
        // The tree that is taken apart lacks what was taken.
        if let Ok(table) = DeTable::parse(self.text) {
            find(table.get_ref(), &span, &mut key);
        }
        if key.is_empty() { format!("{file}:{line}") } else { format!("{file}:{line}: {}", one_line(&key)) }
    }
}

/// Puts `written` wherever `value` stands in a message. A short one is only taken for the value where it stands alone: a "1" is
/// in many a number.
pub(super) fn hide(message: &str, value: &str, written: &str) -> String {
    if value.is_empty() {
        return message.to_owned();
    }
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(value) {
        let (before, behind) = (&rest[..at], &rest[at + value.len()..]);
        out.push_str(before);
        let touches = out.ends_with(char::is_alphanumeric) || behind.starts_with(char::is_alphanumeric);
        out.push_str(if touches && value.len() < 6 { value } else { written });
        rest = behind;
    }
    out + rest
}

/// What the library says of a value of a wrong type, without the value, which may be a secret, and without our types' names.
fn in_our_words(message: &str) -> String {
    let Some((what, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let what = what.split([' ', '"', '`']).next().unwrap_or_default();
    let what = match what {
        "string" => "a text",
        "map" => "a table",
        "sequence" => "a list",
        "integer" => "a number",
        "boolean" => "a truth value",
        "floating" => "a number with a fraction",
        _ => "something else",
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "a table",
        "a string" => "a text",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("here stands {what}, expected {expected}")
}

/// Appends the path of the innermost key or value that holds `span`.
fn find(table: &DeTable<'_>, span: &Range<usize>, path: &mut String) -> bool {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        let before = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key.get_ref());
        if find_in(value, span, path) || holds(key.span()) || holds(value.span()) {
            return true;
        }
        path.truncate(before);
    }
    false
}

fn find_in(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut String) -> bool {
    match value.get_ref() {
        DeValue::Table(table) => find(table, span, path),
        DeValue::Array(values) => values.iter().any(|value| {
            let outer = value.span();
            // A table of a list has its header for a span.
            find_in(value, span, path) || (outer.start <= span.start && span.end <= outer.end)
        }),
        _ => false,
    }
}
