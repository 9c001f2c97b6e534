//! SQLite's conditions and defaults in PostgreSQL's words, where both mean the same.
//!
//! What is not known to mean the same is not carried, and said so: a condition that came out slightly different would be
//! found only when it bites.

use std::collections::HashMap;

use super::convert::{Converter, Kind};
use crate::engine::postgres::catalog::quote::{ident, literal};
use crate::engine::sqlite::values::Cell;

/// Columns by their names in lower case: the target's name, and the type.
pub(super) type Meanings = HashMap<String, (String, Kind)>;

/// A word of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A bare name or keyword.
    Word(String),
    /// A name in quotes of any sort, without them.
    Quoted(String),
    /// A text, without its quotes.
    Text(String),
    /// A number.
    Number(String),
    /// Anything else.
    Mark(String),
}

/// The tokens of a piece of SQL, each with where it begins; comments are left out.
fn tokens(sql: &str) -> Vec<(usize, Token)> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            byte if byte.is_ascii_whitespace() => at += 1,
            b'-' if bytes[at..].starts_with(b"--") => {
                at += sql[at..].find('\n').unwrap_or(sql.len() - at);
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                at += sql[at..].find("*/").map_or(sql.len() - at, |end| end + 2);
            }
            quote @ (b'\'' | b'"' | b'`' | b'[') => {
                let close = if quote == b'[' { b']' } else { quote };
                let mut text = Vec::new();
                at += 1;
                while at < bytes.len() {
                    if bytes[at] == close {
                        if quote != b'[' && bytes.get(at + 1) == Some(&close) {
                            at += 1;
                        } else {
                            break;
                        }
                    }
                    text.push(bytes[at]);
                    at += 1;
                }
                at = (at + 1).min(bytes.len());
                let text = String::from_utf8_lossy(&text).into_owned();
                found.push((start, if quote == b'\'' { Token::Text(text) } else { Token::Quoted(text) }));
            }
            byte if byte.is_ascii_digit() || (byte == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)) => {
                while at < bytes.len() && (is_word(bytes[at]) || bytes[at] == b'.') {
                    at += 1;
                }
                found.push((start, Token::Number(sql[start..at].to_owned())));
            }
            byte if is_word(byte) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                found.push((start, Token::Word(sql[start..at].to_owned())));
            }
            _ => {
                let length = ["<=", ">=", "<>", "!=", "==", "||"].iter().find(|mark| sql[at..].starts_with(**mark));
                at += length.map_or(1, |mark| mark.len());
                found.push((start, Token::Mark(sql[start..at].to_owned())));
            }
        }
    }
    found
}

/// The conditions in a CREATE TABLE, in their order.
pub(super) fn checks(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let mut found = Vec::new();
    for (number, (_, token)) in tokens.iter().enumerate() {
        let is_check = matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("check"));
        let Some((open, Token::Mark(mark))) = tokens.get(number + 1).filter(|_| is_check) else { continue };
        if mark != "(" {
            continue;
        }
        let mut depth = 0;
        for (at, token) in &tokens[number + 1..] {
            match token {
                Token::Mark(mark) if mark == "(" => depth += 1,
                Token::Mark(mark) if mark == ")" => {
                    depth -= 1;
                    if depth == 0 {
                        found.push(sql[open + 1..*at].trim().to_owned());
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// The condition of a CREATE INDEX.
pub(super) fn index_condition(sql: &str) -> Option<String> {
    let tokens = tokens(sql);
    let mut depth = 0;
    for (at, token) in &tokens {
        match token {
            Token::Mark(mark) if mark == "(" => depth += 1,
            Token::Mark(mark) if mark == ")" => depth -= 1,
            Token::Word(word) if depth == 0 && word.eq_ignore_ascii_case("where") => {
                return Some(sql[at + word.len()..].trim().to_owned());
            }
            _ => {}
        }
    }
    None
}

/// A condition in PostgreSQL's words, or why there is none.
pub(super) fn condition(sql: &str, columns: &Meanings) -> Result<String, String> {
    const WORDS: [&str; 8] = ["and", "or", "not", "in", "between", "is", "null", "notnull"];
    const FUNCTIONS: [&str; 2] = ["length", "abs"];
    const MARKS: [&str; 13] = ["(", ")", ",", "=", "<>", "!=", "<", "<=", ">", ">=", "+", "-", "*"];
    let mut out = String::new();
    let (mut clause, mut is_between) = (Clause::default(), false);
    for (_, token) in tokens(sql) {
        if !out.is_empty() {
            out.push(' ');
        }
        match token {
            Token::Word(word) | Token::Quoted(word) => {
                let lower = word.to_lowercase();
                if let Some((name, kind)) = columns.get(&lower) {
                    clause.column(*kind);
                    out.push_str(&ident(name));
                } else if WORDS.contains(&lower.as_str()) {
                    if lower == "or" || (lower == "and" && !std::mem::take(&mut is_between)) {
                        std::mem::take(&mut clause).require_same_meaning()?;
                    }
                    is_between |= lower == "between";
                    clause.tests_null |= lower.ends_with("null");
                    out.push_str(&lower.to_uppercase());
                } else if FUNCTIONS.contains(&lower.as_str()) {
                    clause.has_length |= lower == "length";
                    out.push_str(&lower);
                } else {
                    return Err(format!("'{word}' may mean something else in PostgreSQL"));
                }
            }
            Token::Text(text) => {
                clause.has_text = true;
                out.push_str(&literal(&text));
            }
            Token::Number(number) => {
                clause.has_number = true;
                if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    return Err(format!("the number {number} is written otherwise in PostgreSQL"));
                }
                out.push_str(&number);
            }
            Token::Mark(mark) if mark == "==" => out.push('='),
            Token::Mark(mark) if MARKS.contains(&mark.as_str()) => out.push_str(&mark),
            Token::Mark(mark) => return Err(format!("'{mark}' may mean something else in PostgreSQL")),
        }
    }
    clause.require_same_meaning()?;
    Ok(out)
}

/// What one comparison speaks of.
#[derive(Default)]
struct Clause {
    texts: usize,
    numbers: usize,
    others: usize,
    has_text: bool,
    has_number: bool,
    has_length: bool,
    tests_null: bool,
}

impl Clause {
    fn column(&mut self, kind: Kind) {
        match kind {
            Kind::Text => self.texts += 1,
            Kind::Whole(_) | Kind::Double | Kind::Numeric(_) => self.numbers += 1,
            _ => self.others += 1,
        }
    }

    /// SQLite compares a number with a text without a word; and a column that has become a time or a truth is compared
    /// with nothing that the file's condition knew.
    fn require_same_meaning(self) -> Result<(), String> {
        let compares = self.has_text || self.has_number;
        if self.others > 0 && (compares || !self.tests_null || self.others + self.texts + self.numbers > 1) {
            return Err("it speaks of a column that has another type now".to_owned());
        }
        let mixes = self.texts > 0 && self.numbers > 0;
        let compares_otherwise =
            (self.texts > 0 && self.has_number && !self.has_length) || (self.numbers > 0 && self.has_text);
        if mixes || compares_otherwise {
            return Err("it compares numbers with texts".to_owned());
        }
        Ok(())
    }
}

/// A default in PostgreSQL's words; None where it is NULL, and why not where there is none.
pub(super) fn default(sql: &str, kind: Kind) -> Result<Option<String>, String> {
    let mut sql = sql.trim();
    while let Some(inner) = sql.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        sql = inner.trim();
    }
    let tokens: Vec<Token> = tokens(sql).into_iter().map(|(_, token)| token).collect();
    let bare: String = sql.chars().filter(|letter| !letter.is_whitespace()).collect::<String>().to_lowercase();
    let no_way = || Err("it may mean something else in PostgreSQL".to_owned());
    match tokens.as_slice() {
        [Token::Word(word)] if word.eq_ignore_ascii_case("null") => return Ok(None),
        [Token::Word(word)] if word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false") => {
            let is_true = word.eq_ignore_ascii_case("true");
            return fitting(Cell::Integer(i64::from(is_true)), kind);
        }
        [Token::Text(text)] | [Token::Quoted(text)] => return fitting(Cell::Text(text.as_bytes()), kind),
        [Token::Number(number)] => return numeric(number, kind),
        [Token::Mark(sign), Token::Number(number)] if sign == "-" || sign == "+" => {
            return numeric(&format!("{sign}{number}"), kind);
        }
        _ => {}
    }
    let in_utc = |form: &str| Ok(Some(format!("to_char(now() AT TIME ZONE 'UTC', '{form}')")));
    match bare.as_str() {
        "current_timestamp" | "datetime('now')" | "strftime('%y-%m-%d%h:%m:%s','now')" | "datetime()" => match kind {
            Kind::Instant => Ok(Some("now()".to_owned())),
            Kind::Text => in_utc("YYYY-MM-DD HH24:MI:SS"),
            _ => no_way(),
        },
        "datetime('now','localtime')" => match kind {
            Kind::Instant => Ok(Some("now()".to_owned())),
            _ => no_way(),
        },
        "current_date" | "date('now')" | "date()" => match kind {
            Kind::Date => Ok(Some("(now() AT TIME ZONE 'UTC')::date".to_owned())),
            Kind::Instant => Ok(Some("date_trunc('day', now(), 'UTC')".to_owned())),
            Kind::Text => in_utc("YYYY-MM-DD"),
            _ => no_way(),
        },
        "strftime('%s','now')" | "unixepoch()" | "unixepoch('now')" | "cast(strftime('%s','now')asinteger)" => {
            match kind {
                Kind::Instant => Ok(Some("now()".to_owned())),
                Kind::Whole(_) => Ok(Some("extract(epoch FROM now())::bigint".to_owned())),
                _ => no_way(),
            }
        }
        _ => no_way(),
    }
}

fn numeric(text: &str, kind: Kind) -> Result<Option<String>, String> {
    match text.parse::<i64>() {
        Ok(number) => fitting(Cell::Integer(number), kind),
        Err(_) => match text.parse::<f64>() {
            Ok(number) => fitting(Cell::Real(number), kind),
            Err(_) => Err("it is written otherwise in PostgreSQL".to_owned()),
        },
    }
}

/// A value as a default of a type, where it can be one.
fn fitting(cell: Cell<'_>, kind: Kind) -> Result<Option<String>, String> {
    let mut out = Vec::new();
    if kind.is_time() {
        return Err("a fixed time is no default".to_owned());
    }
    Converter::of(kind, chrono_tz::UTC).write(cell, &mut out).map_err(|reason| reason.0.to_owned())?;
    let text = String::from_utf8_lossy(&out).into_owned();
    Ok(Some(match kind {
        Kind::Boolean => if text == "t" { "true" } else { "false" }.to_owned(),
        Kind::Whole(_) | Kind::Numeric(_) => text,
        // What COPY would read is escaped; the text itself is wanted.
        Kind::Text | Kind::Jsonb | Kind::Json => match cell {
            Cell::Text(text) => literal(&String::from_utf8_lossy(text)),
            _ => literal(&text),
        },
        Kind::Double => text,
        _ => return Err("it is no default of that type".to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn columns() -> Meanings {
        let column = |name: &str, kind| (name.to_owned(), (name.to_owned(), kind));
        [
            column("side", Kind::Text),
            column("price", Kind::Double),
            column("on", Kind::Boolean),
            column("at", Kind::Instant),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn conditions_that_mean_the_same_are_carried() {
        let sql = "CREATE TABLE t (side TEXT CHECK (side IN ('buy','sell', 'it''s')), -- CHECK (not this)\n price REAL, \"on\" \
                   BOOLEAN CHECK(\"on\" IN (0,1)), CHECK (price >= 0 AND length(side) < 9))";
        let found = checks(sql);
        assert_eq!(found, ["side IN ('buy','sell', 'it''s')", "\"on\" IN (0,1)", "price >= 0 AND length(side) < 9"]);
        assert_eq!(condition(&found[0], &columns()).unwrap(), "side IN ( 'buy' , 'sell' , 'it''s' )");
        assert!(condition(&found[1], &columns()).unwrap_err().contains("another type"));
        assert_eq!(condition(&found[2], &columns()).unwrap(), "price >= 0 AND length ( side ) < 9");
        assert_eq!(condition("at IS NOT NULL", &columns()).unwrap(), "at IS NOT NULL");
        for sql in
            ["side LIKE 'a%'", "side > 1", "price = 'x'", "side GLOB 'x'", "other = 1", "price % 2 = 0", "at > 5"]
        {
            assert!(condition(sql, &columns()).is_err(), "{sql}");
        }
        let sql = "CREATE INDEX i ON t (side, (price) DESC) WHERE side == 'where' AND price IS NOT NULL";
        assert_eq!(index_condition(sql).unwrap(), "side == 'where' AND price IS NOT NULL");
    }

    #[test]
    fn defaults_that_mean_the_same_are_carried() {
        let carried = |sql: &str, kind| default(sql, kind).unwrap().unwrap();
        assert_eq!(carried("datetime('now')", Kind::Instant), "now()");
        assert_eq!(carried("( CURRENT_TIMESTAMP )", Kind::Instant), "now()");
        assert_eq!(carried("strftime('%s', 'now')", Kind::Whole(64)), "extract(epoch FROM now())::bigint");
        assert_eq!(carried("1", Kind::Boolean), "true");
        assert_eq!(carried("'it''s'", Kind::Text), "'it''s'");
        assert_eq!(carried("'{}'", Kind::Jsonb), "'{}'");
        assert_eq!(carried("-1.5", Kind::Numeric(None)), "-1.5");
        assert_eq!(default("NULL", Kind::Text), Ok(None));
        for (sql, kind) in [("'x'", Kind::Whole(64)), ("random()", Kind::Whole(64)), ("''", Kind::Instant)] {
            assert!(default(sql, kind).is_err(), "{sql}");
        }
    }
}
