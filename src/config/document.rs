//! The text of a config, with its variables expanded, read section by section. Errors name the file, line and key.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::env_file::MAX_EXPANDED_BYTES;
use super::variables::{ExpandError, Variables};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result, one_line};

/// A section of a config. If it is unusable, only commands that need it fail.
#[derive(Debug)]
pub(super) enum Section<T> {
    /// It can be used.
    Ready(T),
    /// It cannot be used, because a variable is not set or a secret's file cannot be read: the message and the hint.
    Unusable(String, Option<String>),
}

impl<T> Section<T> {
    /// Returns the section, or an error if it is unusable.
    pub(super) fn get(&self) -> Result<&T> {
        match self {
            Section::Ready(section) => Ok(section),
            Section::Unusable(message, hint) => {
                let error = Error::usage(message);
                Err(if let Some(hint) = hint { error.hint(hint) } else { error })
            }
        }
    }

    /// Converts the section with `make`. If a variable or a file cannot be reached ([`Kind::Unreachable`]), the section
    /// becomes unusable; any other error is returned at once.
    ///
    /// [`Kind::Unreachable`]: crate::platform::error::Kind::Unreachable
    pub(super) fn and_then<U>(self, make: impl FnOnce(T) -> Result<U>) -> Result<Section<U>> {
        match self {
            Section::Unusable(message, hint) => Ok(Section::Unusable(message, hint)),
            Section::Ready(section) => match make(section) {
                Ok(made) => Ok(Section::Ready(made)),
                Err(error) if error.kind == crate::platform::error::Kind::Unreachable => {
                    Ok(Section::Unusable(error.full_message(), error.hint.clone()))
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// A text that contained a variable.
struct Expanded {
    section: String,
    span: Range<usize>,
    written: String,
    value: String,
}

/// A parsed config, whose sections are taken out one by one.
pub(super) struct Document<'a> {
    path: PathBuf,
    text: &'a str,
    table: DeTable<'a>,
    expanded: Vec<Expanded>,
    /// The passwords of URLs in the text, as they are written.
    passwords: Vec<&'a str>,
    /// The number of bytes that the values of variables may still have.
    left: usize,
    /// The first variable that is not set, by section.
    unset: BTreeMap<String, (Range<usize>, String)>,
}

impl<'a> Document<'a> {
    /// Parses a config. Its variables are expanded later, by [`Document::expand`].
    pub(super) fn parse(path: &Path, text: &'a str) -> Result<Self> {
        let document = |table| Document {
            path: path.to_owned(),
            text,
            table,
            expanded: Vec::new(),
            passwords: passwords(text),
            left: MAX_EXPANDED_BYTES,
            unset: BTreeMap::new(),
        };
        match DeTable::parse(text) {
            Ok(table) => Ok(document(table.into_inner())),
            Err(error) => {
                let key = error.span().and_then(|span| text.get(span)).filter(|_| error.message() == "duplicate key");
                let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
                Err(document(DeTable::new()).error_at(error.span(), &format!("{key}{}", error.message())))
            }
        }
    }

    /// Fails if the config has a top-level key that is not in `known`.
    pub(super) fn require_known(&self, known: &[&str]) -> Result<()> {
        match self.table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => {
                let message = format!("unknown key, expected one of {}", known.join(", "));
                Err(self.error_at(Some(key.span()), &message))
            }
        }
    }

    /// Expands the variables of one section, or of all sections if `only` is `None`.
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
            DeValue::String(text) => match variables.expand(text, &mut self.left) {
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
                Err(ExpandError::Unset(name)) => {
                    self.unset.entry(section.to_owned()).or_insert((span, name));
                    Ok(())
                }
                Err(ExpandError::Invalid(reason)) => Err(self.error_at(Some(span), reason)),
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

    /// Takes a section out. Returns its default if it is absent.
    pub(super) fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<Section<T>> {
        if let Some((span, variable)) = self.unset.get(name) {
            let message = format!("{}: the variable {variable} is not set", self.position(Some(span.clone())));
            let hint = format!("set it, or give a default: ${{{variable}:-...}}");
            return Ok(Section::Unusable(message, Some(hint)));
        }
        let Some(value) = self.table.remove(name) else { return Ok(Section::Ready(T::default())) };
        let read = T::deserialize(toml::de::ValueDeserializer::from(value));
        read.map(Section::Ready).map_err(|error| self.error_at(error.span(), &describe_type_error(error.message())))
    }

    /// Returns the texts of a key in an array of tables, such as the names of all sources.
    pub(super) fn texts(&self, name: &str, key: &str) -> Vec<String> {
        let tables = self.table.get(name).and_then(|value| value.get_ref().as_array());
        let text = |table: &Spanned<DeValue<'_>>| table.get_ref().get(key)?.get_ref().as_str().map(str::to_owned);
        tables.into_iter().flatten().filter_map(text).collect()
    }

    /// Returns the position of a section, or `None` if it is absent.
    pub(super) fn span(&self, name: &str) -> Option<Range<usize>> {
        self.table.get_key_value(name).map(|(key, _)| key.span())
    }

    /// Returns true if a section is written as a table, `[name]`, and not as an array of tables, `[[name]]`.
    pub(super) fn is_single(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| value.get_ref().is_table())
    }

    /// Returns an error about the text at `span`. Values of variables there are replaced with the text that names them.
    pub(super) fn error_at(&self, span: Option<Range<usize>>, message: &str) -> Error {
        let within = |expanded: &Expanded| {
            span.as_ref().is_none_or(|span| span.start <= expanded.span.end && expanded.span.start <= span.end)
        };
        let message = self.without_values(message, within);
        Error::usage(format!("{}: {}", self.position(span), one_line(&message)))
    }

    /// Returns `error` with the position `span`; its hint and kind are kept. Values of all variables in the section are
    /// replaced, because the error may mention any of them.
    pub(super) fn locate_error(&self, section: &str, span: Range<usize>, error: Error) -> Error {
        let of_section = |expanded: &Expanded| expanded.section == section;
        let message = self.without_values(&error.full_message(), of_section);
        let mut located = self.error_at(Some(span), &message);
        located.hint = error.hint.map(|hint| self.without_values(&hint, of_section));
        located.kind = error.kind;
        located
    }

    fn without_values(&self, message: &str, is_affected: impl Fn(&Expanded) -> bool) -> String {
        let mut message = message.to_owned();
        for expanded in self.expanded.iter().filter(|expanded| is_affected(expanded)) {
            message = hide(&message, &expanded.value, &expanded.written);
        }
        self.without_passwords(message)
    }

    /// Replaces the passwords of URLs. A URL may be written in place of a number or a name, which an error quotes.
    fn without_passwords(&self, message: String) -> String {
        self.passwords.iter().fold(message, |message, password| hide(&message, password, "..."))
    }

    /// Returns `FILE:LINE: key.path`.
    fn position(&self, span: Option<Range<usize>>) -> String {
        let file = shown(&self.path);
        let Some(span) = span else { return file };
        let line = self.text[..span.start.min(self.text.len())].matches('\n').count() + 1;
        let mut key = String::new();
        // The text is parsed again, because `self.table` lacks the sections that were taken out.
        if let Ok(table) = DeTable::parse(self.text) {
            find(table.get_ref(), &span, &mut key);
        }
        if key.is_empty() {
            format!("{file}:{line}")
        } else {
            format!("{file}:{line}: {}", one_line(&self.without_passwords(key)))
        }
    }
}

/// Returns the passwords of all URLs in a text: of each `//NAME:PASSWORD@`, the part between colon and at sign.
fn passwords(text: &str) -> Vec<&str> {
    let of_url = |rest: &'_ str| -> Option<Range<usize>> {
        let end = rest.find(|char: char| char.is_whitespace() || "\"'`/?#".contains(char)).unwrap_or(rest.len());
        let at = rest[..end].rfind('@')?;
        let colon = rest[..at].find(':')?;
        Some(colon + 1..at)
    };
    text.split("//").skip(1).filter_map(|rest| of_url(rest).map(|range| &rest[range])).collect()
}

/// Replaces `value` with `written` in a message. A value of fewer than 6 bytes is only replaced if no letter or
/// digit is next to it: a "1" occurs in many numbers.
pub(super) fn hide(message: &str, value: &str, written: &str) -> String {
    if value.is_empty() {
        return message.to_owned();
    }
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(value) {
        let (before, after) = (&rest[..at], &rest[at + value.len()..]);
        out.push_str(before);
        let touches = out.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        out.push_str(if touches && value.len() < 6 { value } else { written });
        rest = after;
    }
    out + rest
}

/// Rewrites the library's message about a value of a wrong type: without the value, which may be a secret, and without
/// the names of Rust types.
fn describe_type_error(message: &str) -> String {
    let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let found = found.split([' ', '"', '`']).next().unwrap_or_default();
    let found = match found {
        "string" => "a string",
        "map" => "a table",
        "sequence" => "an array",
        "integer" => "an integer",
        "boolean" => "a boolean",
        "floating" => "a float",
        _ => "another type",
    };
    let expected = match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("found {found}, expected {expected}")
}

/// Appends the path of the innermost key or value that contains `span`. Returns false if there is none.
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
            // The span of a table in an array is the span of its header.
            find_in(value, span, path) || (outer.start <= span.start && span.end <= outer.end)
        }),
        _ => false,
    }
}
