//! Translates SQLite's conditions to PostgreSQL's SQL if they have the same meaning there.
//!
//! A condition that may have another meaning is not carried over, and the reason is reported. A condition with a
//! slightly different meaning would be noticed only when it does harm.

use std::collections::HashMap;

use super::convert::Kind;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::sqlite::schema::IndexFacts;

/// A token of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare name or keyword.
    Word(String),
    /// A name in quotes of any kind, without the quotes.
    Quoted(String),
    /// A string literal, without its quotes.
    Text(String),
    /// A number.
    Number(String),
    /// Anything else.
    Mark(String),
}

/// Splits SQL into tokens, each with the offset of its first byte. Comments are left out.
pub(super) fn tokens(sql: &str) -> Vec<(usize, Token)> {
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

/// Returns the CHECK conditions of a CREATE TABLE, in their order.
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

/// Returns the condition of a partial index, in SQLite's SQL, if it can be found.
pub(super) fn condition_of(index: &IndexFacts) -> Option<String> {
    index.sql.as_deref().filter(|_| index.partial).and_then(index_condition)
}

/// Returns the WHERE condition of a CREATE INDEX, if any.
fn index_condition(sql: &str) -> Option<String> {
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

/// The properties of a column that matter for conditions.
#[derive(Clone, Debug)]
pub(super) struct ColumnProperties {
    /// The target's name.
    pub(super) name: String,
    /// The target's type.
    pub(super) kind: Kind,
    /// True if the file does not compare the column's texts byte by byte.
    pub(super) has_collation: bool,
    /// True if all its values are stored in the file as the target's type: none is a text that looks like a number or a
    /// boolean.
    pub(super) is_plain: bool,
    /// True if texts of the column become NULL.
    pub(super) gains_nulls: bool,
}

/// Columns by their names in lower case.
pub(super) type Columns = HashMap<String, ColumnProperties>;

/// Translates a condition to PostgreSQL's SQL, or returns the reason why this is not possible.
pub(super) fn condition(sql: &str, columns: &Columns) -> Result<String, String> {
    let tokens: Vec<Token> = tokens(sql).into_iter().map(|(_, token)| token).collect();
    let mut parser = Parser { tokens: &tokens, columns };
    let part = parser.disjunction()?;
    match parser.tokens.first() {
        None => part.into_condition(),
        Some(token) => Err(unsupported(token)),
    }
}

/// The type of a part of a condition in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// A boolean expression, as AND, OR and NOT take it.
    Condition,
    /// A boolean column.
    Boolean,
    Whole,
    Double,
    Decimal,
    Text,
    /// A column of another type.
    Other,
}

/// A part of a condition.
struct Part {
    sql: String,
    value_type: Type,
    /// True if its type is wide enough for arithmetic: small integers overflow in PostgreSQL, but not in SQLite.
    is_wide: bool,
    has_collation: bool,
    is_plain: bool,
    gains_nulls: bool,
}

impl Part {
    fn of(sql: String, value_type: Type) -> Self {
        Part { sql, value_type, is_wide: false, has_collation: false, is_plain: true, gains_nulls: false }
    }

    fn is_number(&self) -> bool {
        matches!(self.value_type, Type::Whole | Type::Double | Type::Decimal)
    }

    /// Returns its SQL if it is a boolean expression in PostgreSQL.
    fn into_condition(self) -> Result<String, String> {
        match self.value_type {
            Type::Condition => Ok(self.sql),
            Type::Boolean if self.is_plain => Ok(self.sql),
            Type::Boolean => Err(MIXED.to_owned()),
            _ => Err("PostgreSQL does not accept a value as a condition".to_owned()),
        }
    }
}

const MIXED: &str = "it refers to a column with values of several types";

fn unsupported(token: &Token) -> String {
    let (Token::Word(text) | Token::Quoted(text) | Token::Text(text) | Token::Number(text) | Token::Mark(text)) = token;
    format!("'{text}' may mean something else in PostgreSQL")
}

/// Parses a condition by SQLite's precedence, which is PostgreSQL's too for the operators that are carried over.
struct Parser<'a> {
    tokens: &'a [Token],
    columns: &'a Columns,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    /// Consumes the next tokens if they are these bare words.
    fn words(&mut self, words: &[&str]) -> bool {
        let is_word =
            |(token, word): (&Token, &&str)| matches!(token, Token::Word(is) if is.eq_ignore_ascii_case(word));
        let is_match = self.tokens.len() >= words.len() && self.tokens.iter().zip(words).all(is_word);
        if is_match {
            self.tokens = &self.tokens[words.len()..];
        }
        is_match
    }

    /// Consumes the next token if it is one of these marks.
    fn mark(&mut self, marks: &[&str]) -> Option<String> {
        match self.tokens.first() {
            Some(Token::Mark(mark)) if marks.contains(&mark.as_str()) => {
                self.tokens = &self.tokens[1..];
                Some(mark.clone())
            }
            _ => None,
        }
    }

    fn require_mark(&mut self, mark: &str) -> Result<(), String> {
        match self.mark(&[mark]) {
            Some(_) => Ok(()),
            None => Err(self.tokens.first().map_or("it ends too early".to_owned(), unsupported)),
        }
    }

    fn disjunction(&mut self) -> Result<Part, String> {
        let mut left = self.conjunction()?;
        while self.words(&["or"]) {
            let right = self.conjunction()?.into_condition()?;
            left = Part::of(format!("{} OR {right}", left.into_condition()?), Type::Condition);
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Part, String> {
        let mut left = self.negation()?;
        while self.words(&["and"]) {
            let right = self.negation()?.into_condition()?;
            left = Part::of(format!("{} AND {right}", left.into_condition()?), Type::Condition);
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Part, String> {
        if self.words(&["not"]) {
            return Ok(Part::of(format!("NOT {}", self.negation()?.into_condition()?), Type::Condition));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Part, String> {
        let left = self.sum()?;
        if let Some(mark) = self.mark(&["=", "==", "<>", "!=", "<", "<=", ">", ">="]) {
            let right = self.sum()?;
            return compare(left, if mark == "==" { "=" } else { &mark }, right);
        }
        let is_not_null =
            self.words(&["is", "not", "null"]) || self.words(&["notnull"]) || self.words(&["not", "null"]);
        if is_not_null || self.words(&["is", "null"]) || self.words(&["isnull"]) {
            if left.gains_nulls {
                return Err("it tests for NULL, and some texts of that column become NULL".to_owned());
            }
            if left.value_type == Type::Condition {
                return Err("it tests a condition for NULL".to_owned());
            }
            let word = if is_not_null { "IS NOT NULL" } else { "IS NULL" };
            return Ok(Part::of(format!("{} {word}", left.sql), Type::Condition));
        }
        let negated = |parser: &mut Self, word| {
            if parser.words(&["not", word]) { Some("NOT ") } else { parser.words(&[word]).then_some("") }
        };
        if let Some(not) = negated(self, "in") {
            self.require_mark("(")?;
            let mut values = Vec::new();
            loop {
                let value = self.sum()?;
                require_comparable(&left, &value)?;
                values.push(value.sql);
                if self.mark(&[","]).is_none() {
                    break;
                }
            }
            self.require_mark(")")?;
            return Ok(Part::of(format!("{} {not}IN ( {} )", left.sql, values.join(" , ")), Type::Condition));
        }
        if let Some(not) = negated(self, "between") {
            let least = self.sum()?;
            if !self.words(&["and"]) {
                return Err("it ends too early".to_owned());
            }
            let greatest = self.sum()?;
            require_comparable(&left, &least)?;
            require_comparable(&left, &greatest)?;
            let sql = format!("{} {not}BETWEEN {} AND {}", ordered(&left), least.sql, greatest.sql);
            return Ok(Part::of(sql, Type::Condition));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Part, String> {
        let mut left = self.product()?;
        while let Some(mark) = self.mark(&["+", "-"]) {
            left = arithmetic(&left, &mark, &self.product()?)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Part, String> {
        let mut left = self.value()?;
        while let Some(mark) = self.mark(&["*"]) {
            left = arithmetic(&left, &mark, &self.value()?)?;
        }
        Ok(left)
    }

    fn value(&mut self) -> Result<Part, String> {
        if let Some(sign) = self.mark(&["-", "+"]) {
            let value = self.value()?;
            if !value.is_number() || !value.is_plain {
                return Err("it calculates with a value that is not a number in PostgreSQL".to_owned());
            }
            return Ok(Part { sql: format!("{sign} {}", value.sql), ..value });
        }
        let token = self.next().ok_or("it ends too early")?;
        match &token {
            Token::Mark(mark) if mark == "(" => {
                let inner = self.disjunction()?;
                self.require_mark(")")?;
                Ok(Part { sql: format!("( {} )", inner.sql), ..inner })
            }
            Token::Text(text) => Ok(Part::of(literal(text), Type::Text)),
            Token::Number(number) => {
                let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                let value_type = if number.contains('.') { Type::Decimal } else { Type::Whole };
                if !is_plain || (value_type == Type::Whole && number.parse::<i64>().is_err()) {
                    return Err(format!("the number {number} is written differently in PostgreSQL"));
                }
                Ok(Part::of(number.clone(), value_type))
            }
            Token::Word(word) if self.mark(&["("]).is_some() => {
                let value = self.sum()?;
                self.require_mark(")")?;
                let sql = format!("{} ( {} )", word.to_lowercase(), value.sql);
                match word.to_lowercase().as_str() {
                    _ if !value.is_plain => Err(MIXED.to_owned()),
                    "length" if value.value_type == Type::Text => {
                        Ok(Part { sql, value_type: Type::Whole, has_collation: false, ..value })
                    }
                    "abs" if value.is_number() => Ok(Part { sql, ..value }),
                    "length" | "abs" => Err(format!("{word}() does not accept such a value in PostgreSQL")),
                    _ => Err(unsupported(&token)),
                }
            }
            Token::Word(word) | Token::Quoted(word) => {
                const KEYWORDS: [&str; 8] = ["and", "or", "not", "in", "between", "is", "isnull", "notnull"];
                let lower = word.to_ascii_lowercase();
                let is_keyword = matches!(token, Token::Word(_)) && KEYWORDS.contains(&lower.as_str());
                let Some(column) = self.columns.get(&lower).filter(|_| !is_keyword) else {
                    return Err(unsupported(&token));
                };
                let value_type = match column.kind {
                    Kind::Whole(_) => Type::Whole,
                    Kind::Double => Type::Double,
                    Kind::Numeric(_) => Type::Decimal,
                    Kind::Text => Type::Text,
                    Kind::Boolean => Type::Boolean,
                    _ => Type::Other,
                };
                Ok(Part {
                    is_wide: matches!(column.kind, Kind::Whole(64) | Kind::Double),
                    has_collation: column.has_collation && value_type == Type::Text,
                    is_plain: column.is_plain,
                    gains_nulls: column.gains_nulls,
                    ..Part::of(ident(&column.name), value_type)
                })
            }
            Token::Mark(_) => Err(unsupported(&token)),
        }
    }
}

/// Builds an arithmetic expression of whole numbers or of doubles. An expression with a decimal result is refused,
/// because SQLite computes it with doubles.
fn arithmetic(left: &Part, mark: &str, right: &Part) -> Result<Part, String> {
    let value_type = match (left.value_type, right.value_type) {
        (Type::Whole, Type::Whole) => Type::Whole,
        (Type::Double, Type::Whole | Type::Double | Type::Decimal) | (Type::Whole | Type::Decimal, Type::Double) => {
            Type::Double
        }
        _ => return Err("it calculates with types that PostgreSQL handles differently".to_owned()),
    };
    if !left.is_wide && !right.is_wide {
        return Err("it calculates with numbers that have a smaller range in PostgreSQL".to_owned());
    }
    let is_plain = left.is_plain && right.is_plain;
    let sql = format!("{} {mark} {}", left.sql, right.sql);
    let gains_nulls = left.gains_nulls || right.gains_nulls;
    Ok(Part { is_wide: true, is_plain, gains_nulls, ..Part::of(sql, value_type) })
}

/// Fails if two parts cannot be compared as in SQLite, which compares numbers with texts without an error. A column
/// that has become a time or a boolean no longer holds the values for which the condition was written.
fn require_comparable(left: &Part, right: &Part) -> Result<(), String> {
    let is_other = |part: &Part| matches!(part.value_type, Type::Condition | Type::Boolean | Type::Other);
    if left.value_type == Type::Condition || right.value_type == Type::Condition {
        return Err("it compares a condition with another value".to_owned());
    }
    if is_other(left) || is_other(right) {
        return Err("it refers to a column that has another type in the target".to_owned());
    }
    if (left.value_type == Type::Text) != (right.value_type == Type::Text) {
        return Err("it compares numbers with texts".to_owned());
    }
    if left.has_collation || right.has_collation {
        return Err("it compares texts with another collation than PostgreSQL".to_owned());
    }
    if !left.is_plain || !right.is_plain {
        return Err(MIXED.to_owned());
    }
    Ok(())
}

/// Returns the SQL of a part for comparison by order: texts are compared byte by byte, as SQLite does.
fn ordered(part: &Part) -> String {
    if part.value_type == Type::Text { format!("{} COLLATE \"C\"", part.sql) } else { part.sql.clone() }
}

fn compare(left: Part, mark: &str, right: Part) -> Result<Part, String> {
    let condition = |sql| Ok(Part::of(sql, Type::Condition));
    // 0 and 1 have become false and true.
    let flag = match (left.value_type, right.value_type) {
        (Type::Boolean, Type::Whole) => Some((&left, right.sql.as_str())),
        (Type::Whole, Type::Boolean) => Some((&right, left.sql.as_str())),
        _ => None,
    };
    if let Some((flag, number)) = flag.filter(|(flag, _)| flag.is_plain) {
        match (mark, number) {
            ("=", "1") | ("<>" | "!=", "0") => return condition(flag.sql.clone()),
            ("=", "0") | ("<>" | "!=", "1") => return condition(format!("NOT {}", flag.sql)),
            _ => {}
        }
    }
    require_comparable(&left, &right)?;
    let left = if matches!(mark, "=" | "<>" | "!=") { left.sql } else { ordered(&left) };
    condition(format!("{left} {mark} {}", right.sql))
}

/// Returns the collations of the columns in a CREATE TABLE, by the columns' names in lower case.
pub(super) fn collations(sql: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let (mut depth, mut column, mut expects_collation) = (0, None, false);
    for (_, token) in tokens(sql) {
        match token {
            Token::Mark(mark) if mark == "(" => depth += 1,
            Token::Mark(mark) if mark == ")" => depth -= 1,
            Token::Mark(mark) if mark == "," && depth == 1 => column = None,
            Token::Word(word) if depth == 1 && column.is_some() && word.eq_ignore_ascii_case("collate") => {
                expects_collation = true
            }
            Token::Word(name) | Token::Quoted(name) | Token::Text(name) if depth == 1 => {
                let column = column.get_or_insert_with(|| name.to_ascii_lowercase());
                if std::mem::take(&mut expects_collation) {
                    found.insert(column.clone(), name.to_uppercase());
                }
            }
            _ => {}
        }
    }
    found.retain(|_, collation| collation != "BINARY");
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn columns() -> Columns {
        let column = |name: &str, kind| {
            let properties = ColumnProperties {
                name: name.to_owned(),
                kind,
                has_collation: false,
                is_plain: true,
                gains_nulls: false,
            };
            (name.to_owned(), properties)
        };
        let with = |name: &str, kind, change: fn(&mut ColumnProperties)| {
            let (name, mut properties) = column(name, kind);
            change(&mut properties);
            (name, properties)
        };
        [
            with("nocase", Kind::Text, |column| column.has_collation = true),
            with("flag", Kind::Boolean, |column| column.is_plain = false),
            with("size", Kind::Double, |column| column.is_plain = false),
            with("late", Kind::Text, |column| column.gains_nulls = true),
            column("qty", Kind::Whole(64)),
            column("cost", Kind::Numeric(None)),
            column("side", Kind::Text),
            column("price", Kind::Double),
            column("on", Kind::Boolean),
            column("at", Kind::Instant),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn conditions_with_the_same_meaning_are_translated() {
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
        for (sql, carried) in [
            ("\"on\" = 1", "\"on\""),
            ("0 == \"on\" OR qty NOT NULL", "NOT \"on\" OR qty IS NOT NULL"),
            ("NOT \"on\" AND side ISNULL", "NOT \"on\" AND side IS NULL"),
            ("side >= 'a'", "side COLLATE \"C\" >= 'a'"),
            ("side NOT BETWEEN 'a' AND 'b'", "side COLLATE \"C\" NOT BETWEEN 'a' AND 'b'"),
            ("qty BETWEEN -1 AND 5 AND qty + 1 <> 3", "qty BETWEEN - 1 AND 5 AND qty + 1 <> 3"),
            ("(price * 0.5 > qty) OR abs(cost) < 1.5", "( price * 0.5 > qty ) OR abs ( cost ) < 1.5"),
            ("late = 'x' AND side NOT IN ('a')", "late = 'x' AND side NOT IN ( 'a' )"),
        ] {
            assert_eq!(condition(sql, &columns()).as_deref(), Ok(carried), "{sql}");
        }
        for sql in [
            "\"on\" IS 0",
            "(qty IS NULL) + (price IS NULL) = 1",
            "length(qty) = 10",
            "abs(side) = 1",
            "qty",
            "1",
            "qty AND price > 0",
            "NOT qty",
            "flag",
            "flag = 1",
            "size > 1",
            "nocase = 'a'",
            "nocase IN ('a')",
            "late IS NOT NULL",
            "cost + 0.1 > 1",
            "100000 * 100000 > qty",
            "length(side) * 100000 > 1",
            "qty > 9223372036854775808",
            "qty = 1 = 1",
            "qty > 0 IS NULL",
            "qty > 1e3",
            "qty >",
            "(qty > 1",
            "qty > 1)",
            "side = \"buy\"",
            "",
        ] {
            assert!(condition(sql, &columns()).is_err(), "{sql}: {:?}", condition(sql, &columns()));
        }
        let sql = "CREATE INDEX i ON t (side, (price) DESC) WHERE side == 'where' AND price IS NOT NULL";
        assert_eq!(index_condition(sql).unwrap(), "side == 'where' AND price IS NOT NULL");
    }

    #[test]
    fn collations_of_columns_are_found() {
        let sql = "CREATE TABLE t (a TEXT DEFAULT 'collate' NOT NULL COLLATE NOCASE, [b c] VARCHAR(10) DEFAULT ('x, y') COLLATE \"rtrim\" NOT NULL, \
                   d TEXT COLLATE BINARY, e, PRIMARY KEY (a COLLATE NOCASE, e))";
        let mut found: Vec<(String, String)> = collations(sql).into_iter().collect();
        found.sort();
        let pair = |column: &str, collation: &str| (column.to_owned(), collation.to_owned());
        assert_eq!(found, [pair("a", "NOCASE"), pair("b c", "RTRIM")]);
    }
}
