//! Names in a schema. SQLite stores them as bytes, and old programs wrote them in other encodings than UTF-8.
//!
//! This program handles names as text. A name in UTF-8 is its own text. In the text of any other name, `\xHH` stands
//! for each byte that is not part of UTF-8, and `\x5C` for each backslash: the column that Windows programs call `Größe`
//! is `Gr\xF6\xDFe`. So each text stands for exactly one name. A name in UTF-8 that contains `\xHH` itself is written
//! in the same way.

use std::borrow::Cow;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::snapshots::manifest::{Column, Table};

/// Returns the text of a name.
pub(super) fn text_of(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !has_escape(text) => text.to_owned(),
        _ => escape(name, true),
    }
}

/// Returns any text that SQLite stores, for people: `\xHH` stands for each byte that is not part of UTF-8.
pub(super) fn readable_text(text: &[u8]) -> String {
    escape(text, false)
}

fn escape(bytes: &[u8], with_backslashes: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        match with_backslashes {
            true => text.push_str(&chunk.valid().replace('\\', "\\x5C")),
            false => text.push_str(chunk.valid()),
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

/// Returns the name that a text stands for.
pub(super) fn bytes_of(text: &str) -> Cow<'_, [u8]> {
    if !has_escape(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let (bytes, mut name) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while at < bytes.len() {
        match escaped_byte(&bytes[at..]) {
            Some(byte) => {
                name.push(byte);
                at += 4;
            }
            None => {
                name.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(name)
}

fn has_escape(text: &str) -> bool {
    text.as_bytes().windows(4).any(|window| escaped_byte(window).is_some())
}

/// Returns the byte of the `\xHH` that `bytes` begin with.
fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'\\', b'x', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// Quotes a name as an SQL identifier, in the bytes that it has in the database.
pub(super) fn quote(name: &str) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in bytes_of(name).iter() {
        if *byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    quoted
}

/// A name as the parameter of a statement.
pub(super) struct Name<'a>(Cow<'a, [u8]>);

impl<'a> Name<'a> {
    /// Takes the text of a name.
    pub(super) fn of(text: &'a str) -> Self {
        Name(bytes_of(text))
    }
}

impl ToSql for Name<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// Reads the text of a name from a column of a row; empty if it is NULL.
pub(super) fn name_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(optional_name_at(row, column)?.unwrap_or_default())
}

/// Reads the text of a name from a column of a row; `None` if it is NULL.
pub(super) fn optional_name_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(text_of(bytes)),
        _ => None,
    })
}

/// Reads a message of SQLite from a column of a row: `\xHH` stands for each byte that is not part of UTF-8.
pub(super) fn message_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(optional_message_at(row, column)?.unwrap_or_default())
}

/// Reads a message of SQLite, or a part of a statement, from a column of a row; `None` if it is NULL.
pub(super) fn optional_message_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(readable_text(bytes)),
        _ => None,
    })
}

/// The match of a name in a manifest with a name that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// They are the same name.
    Same,
    /// They can be the same name: the manifest is of a version that replaced the bytes that are not UTF-8, and asked
    /// SQLite for a column that does not exist.
    Replaced,
    /// They are two names.
    Different,
}

/// Compares a name in a manifest, which may be of an earlier version, with a name that was found.
pub(super) fn match_names(expected: &str, found: &str) -> Match {
    if expected == found {
        return Match::Same;
    }
    let name = bytes_of(found);
    match String::from_utf8_lossy(&name) {
        // Earlier versions wrote every name in UTF-8 as it is.
        Cow::Borrowed(text) if text == expected => Match::Same,
        Cow::Owned(text) if text == expected => Match::Replaced,
        _ => Match::Different,
    }
}

/// Compares the columns of a table in a manifest with the columns that were found.
pub(super) fn match_columns(expected: &Table, found: &[Column]) -> Match {
    let mut all = if expected.columns.len() == found.len() { Match::Same } else { Match::Different };
    for (expected, found) in expected.columns.iter().zip(found) {
        let same_facts = (expected.generated, expected.not_null) == (found.generated, found.not_null);
        let declared = match_names(&expected.declared, &found.declared) != Match::Different;
        match match_names(&expected.name, &found.name) {
            Match::Same if same_facts && declared => {}
            Match::Replaced if same_facts && declared && all != Match::Different => all = Match::Replaced,
            _ => all = Match::Different,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_the_way_to_its_text_and_back() {
        let names: [&[u8]; 8] =
            [b"plain", "Größe".as_bytes(), b"Gr\xF6\xDFe", b"Gr\xF6\\e", b"a\\xF6", b"a\\x5C", b"a\\x5CxF6", b""];
        for name in names {
            assert_eq!(bytes_of(&text_of(name)), name, "{}", text_of(name));
            for other in names {
                assert_eq!(text_of(name) == text_of(other), name == other);
            }
        }
        assert_eq!(text_of(b"Gr\xF6\xDFe"), "Gr\\xF6\\xDFe");
        assert_eq!(text_of(b"C:\\x"), "C:\\x");
        assert_eq!(quote("a\"\\xF6"), b"\"a\"\"\xF6\"");
    }

    #[test]
    fn names_of_earlier_manifests_are_recognized() {
        assert_eq!(match_names("a", "a"), Match::Same);
        assert_eq!(match_names("Gr\u{fffd}e", "Gr\\xF6e"), Match::Replaced);
        assert_eq!(match_names("a\\xF6", "a\\x5CxF6"), Match::Same);
        assert_eq!(match_names("Gr\\xF7e", "Gr\\xF6e"), Match::Different);
    }
}
