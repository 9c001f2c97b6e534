//! Finds and removes options in the text of statements: the `WITH (name='value', ...)` of a table, view or index, the
//! `SET (name='value', ...)` of a column, and the `class (name='value', ...)` of an operator class in an index.
//!
//! The statements are those that Lifeboat and the server's `pg_get_*def` functions write: there is no space around the
//! equals sign of an option. The option lists of publications, subscriptions and TimescaleDB have spaces there, and are
//! not changed.

use std::ops::Range;

/// One option in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionText {
    /// The part before the dot of `toast.fillfactor`, unquoted.
    pub namespace: Option<String>,
    /// The name, unquoted.
    pub name: String,
    /// True if it is an option of an operator class.
    pub of_class: bool,
    /// The range of `name='value'` in the statement, in bytes.
    place: Range<usize>,
}

impl OptionText {
    /// Returns the name as it is written: `toast.fillfactor`.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.namespace.iter().map(|namespace| format!("{namespace}.")).collect::<String>() + &self.name
    }
}

/// A list of options in parentheses.
struct List {
    /// The range from the white space before its keyword to the end of its closing parenthesis, in bytes.
    place: Range<usize>,
    keyword: Keyword,
    options: Vec<OptionText>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keyword {
    With,
    Set,
    /// The list follows the name of an operator class.
    None,
}

/// Returns the options that a statement sets.
#[must_use]
pub fn options(statement: &str) -> Vec<OptionText> {
    lists(statement).into_iter().flat_map(|list| list.options).collect()
}

/// Returns the statement without the options for which `is_removed` returns true. Returns `None` if it sets nothing
/// else.
#[must_use]
pub fn without(statement: &str, is_removed: impl Fn(&OptionText) -> bool) -> Option<String> {
    let mut text = String::with_capacity(statement.len());
    let mut copied = 0;
    for list in lists(statement) {
        let kept: Vec<&OptionText> = list.options.iter().filter(|option| !is_removed(option)).collect();
        if kept.len() == list.options.len() {
            continue;
        }
        if kept.is_empty() && list.keyword == Keyword::Set {
            return None;
        }
        if kept.is_empty() {
            text.push_str(&statement[copied..list.place.start]);
        } else {
            let texts: Vec<&str> = kept.iter().map(|option| &statement[option.place.clone()]).collect();
            text.push_str(&statement[copied..list.options[0].place.start]);
            text.push_str(&texts.join(", "));
            text.push(')');
        }
        copied = list.place.end;
    }
    text.push_str(&statement[copied..]);
    Some(text)
}

/// Finds the lists of options in a statement. Text in quotes or dollar quotes is skipped.
fn lists(statement: &str) -> Vec<List> {
    let bytes = statement.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => at = quoted_end(bytes, at, is_escape_string(bytes, at)),
            b'$' => at = dollar_quoted_end(statement, at),
            b'(' if at > 1 && bytes[at - 1] == b' ' && (is_word(bytes[at - 2]) || bytes[at - 2] == b'"') => {
                let found_list = list(statement, at + 1).filter(|_| begins_with_a_string(statement, at + 1));
                let Some((mut options, end)) = found_list else {
                    at += 1;
                    continue;
                };
                options.iter_mut().for_each(|option| option.of_class = true);
                found.push(List { place: at - 1..end, keyword: Keyword::None, options });
                at = end;
            }
            byte if is_word(byte) => {
                let end = word_end(bytes, at);
                let keyword = match &statement[at..end] {
                    "WITH" => Some(Keyword::With),
                    "SET" => Some(Keyword::Set),
                    _ => None,
                };
                let keyword = keyword.filter(|_| bytes[end..].starts_with(b" ("));
                let found_list = keyword.and_then(|keyword| Some((keyword, list(statement, end + 2)?)));
                if let Some((keyword, (options, list_end))) = found_list {
                    let start = statement[..at].trim_end().len();
                    found.push(List { place: start..list_end, keyword, options });
                    at = list_end;
                } else {
                    at = end;
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// Parses `name=value, name=value)` from `at` on. Returns the options, and the position after the parenthesis. Returns
/// `None` if the text has another form.
fn list(statement: &str, mut at: usize) -> Option<(Vec<OptionText>, usize)> {
    let bytes = statement.as_bytes();
    let mut options = Vec::new();
    loop {
        let start = at;
        let (mut name, mut end) = identifier(statement, at)?;
        let mut namespace = None;
        if bytes.get(end) == Some(&b'.') {
            let (second, second_end) = identifier(statement, end + 1)?;
            namespace = Some(std::mem::replace(&mut name, second));
            end = second_end;
        }
        if bytes.get(end) != Some(&b'=') {
            return None;
        }
        at = value_end(bytes, end + 1)?;
        options.push(OptionText { namespace, name, of_class: false, place: start..at });
        match bytes.get(at)? {
            b')' => return Some((options, at + 1)),
            b',' if bytes.get(at + 1) == Some(&b' ') => at += 2,
            _ => return None,
        }
    }
}

/// Returns true if the value of the first option from a position on is a string, as the server writes the options of
/// operator classes.
fn begins_with_a_string(statement: &str, at: usize) -> bool {
    let value = statement[at..].split_once('=').map_or("", |(_, value)| value);
    value.starts_with('\'') || value.starts_with("E'")
}

/// Returns the identifier at a position, unquoted, and the position after it.
fn identifier(statement: &str, at: usize) -> Option<(String, usize)> {
    let bytes = statement.as_bytes();
    if bytes.get(at) == Some(&b'"') {
        let end = quoted_end(bytes, at, false);
        let inner = statement.get(at + 1..end - 1).filter(|_| bytes[end - 1] == b'"' && end > at + 1)?;
        return Some((inner.replace("\"\"", "\""), end));
    }
    let end = word_end(bytes, at);
    (end > at).then(|| (statement[at..end].to_owned(), end))
}

/// Returns the position after the value that begins at a position: a string, a word or a number. Returns `None` if no
/// value begins there.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'\'', _) => Some(quoted_end(bytes, at, false)),
        (b'E', Some(b'\'')) => Some(quoted_end(bytes, at + 1, true)),
        _ => {
            let length = bytes[at..].iter().take_while(|byte| is_word(**byte) || b"+-.".contains(byte)).count();
            (length > 0).then_some(at + length)
        }
    }
}

/// Returns the position after the quoted text that begins at `at`, or the end of the statement if the quote is not
/// closed.
fn quoted_end(bytes: &[u8], at: usize, with_escapes: bool) -> usize {
    let quote = bytes[at];
    let mut next = at + 1;
    while next < bytes.len() {
        if bytes[next] == b'\\' && with_escapes {
            next += 2;
        } else if bytes[next] != quote {
            next += 1;
        } else if bytes.get(next + 1) == Some(&quote) {
            next += 2;
        } else {
            return next + 1;
        }
    }
    bytes.len()
}

/// Returns true if the string whose quote is at `at` is written as `E'...'`. In such a string, a backslash escapes the
/// next byte.
fn is_escape_string(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|place| bytes[place]);
    bytes[at] == b'\'' && matches!(before(1), Some(b'E' | b'e')) && !before(2).is_some_and(is_word)
}

/// Returns the position after the dollar-quoted text that begins at `at`, or after the dollar sign if no such text
/// begins there.
fn dollar_quoted_end(statement: &str, at: usize) -> usize {
    let bytes = statement.as_bytes();
    let tag_end = word_end(bytes, at + 1);
    if bytes.get(tag_end) != Some(&b'$') || bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        return at + 1;
    }
    let tag = &statement[at..=tag_end];
    statement[tag_end + 1..].find(tag).map_or(bytes.len(), |place| tag_end + 1 + place + tag.len())
}

/// Returns the position after the word that begins at a position, or the position itself if no word begins there.
fn word_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| is_word(**byte)).count()
}

/// Returns true if a byte may be part of an unquoted identifier. The bytes of letters beyond ASCII may be.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(statement: &str) -> Vec<String> {
        options(statement).iter().map(OptionText::full_name).collect()
    }

    #[track_caller]
    fn removes(statement: &str, name: &str, expected: Option<&str>) {
        assert_eq!(without(statement, |option| option.full_name() == name).as_deref(), expected, "{statement}");
    }

    #[test]
    fn options_are_found_where_statements_set_them() {
        assert_eq!(
            names("ALTER TABLE ONLY a.t ALTER COLUMN b SET (pg_attver='7', n_distinct='5')"),
            ["pg_attver", "n_distinct"]
        );
        assert_eq!(
            names("CREATE TABLE t (\n    a integer\n)\nWITH (fillfactor='70', toast.vacuum_truncate='off')"),
            ["fillfactor", "toast.vacuum_truncate"]
        );
        assert_eq!(
            names("CREATE INDEX i ON t USING gist (a) WITH (buffering=auto, fillfactor='70') WHERE (a > 1)"),
            ["buffering", "fillfactor"]
        );
        assert_eq!(
            names("ALTER TABLE t ADD CONSTRAINT u UNIQUE (a) WITH (fillfactor='70') DEFERRABLE"),
            ["fillfactor"]
        );
        assert_eq!(
            names(
                "CREATE INDEX i ON t USING gist (a c.\"Ops\" (pg_x='3', siglen='8'), b ops (siglen='9')) WITH (buffering=auto)"
            ),
            ["pg_x", "siglen", "siglen", "buffering"]
        );
        assert_eq!(names("ALTER TABLE t ALTER COLUMN a SET (\"Odd \"\"name\"=E'a\\'b')"), ["Odd \"name"]);
    }

    #[test]
    fn text_that_only_looks_like_options_is_ignored() {
        for statement in [
            "CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')",
            "CREATE INDEX i ON t (a) WHERE (b = ' WITH (fillfactor=''70'')'::text)",
            "CREATE INDEX i ON t (a) WHERE (b = E'\\' WITH (fillfactor=70)'::text)",
            "COMMENT ON TABLE \" SET (a=b)\" IS 'x'",
            "CREATE FUNCTION f() RETURNS text AS $x$ SELECT 1 WITH (a='b') $x$ LANGUAGE sql",
            "ALTER TABLE t ADD EXCLUDE USING gist (a WITH &&)",
            "CREATE TABLE t (a timestamp(3) with time zone)",
            "UPDATE t SET (a, b) = (1, 2)",
            "CREATE INDEX i ON t ((a = 'b'::text), (a || 'c (d=''e'')'::text))",
            "CREATE INDEX i ON t (f(a => 'b'::text)) WHERE (a=b)",
            "ALTER TABLE t ALTER COLUMN a SET (n_distinct='5'",
            "ALTER TABLE t ALTER COLUMN a SET (",
            "ALTER TABLE t ALTER COLUMN a SET (n_distinct=",
            "SELECT '",
            "SELECT $a$",
            "SELECT \"",
            "SET (\"=1)",
        ] {
            assert_eq!(names(statement), [""; 0], "{statement}");
            assert_eq!(without(statement, |_| true).as_deref(), Some(statement));
        }
    }

    #[test]
    fn an_option_list_that_becomes_empty_is_removed() {
        let column = "ALTER TABLE ONLY a.t ALTER COLUMN b SET (pg_attver='7', n_distinct='5')";
        removes(column, "pg_attver", Some("ALTER TABLE ONLY a.t ALTER COLUMN b SET (n_distinct='5')"));
        removes(column, "n_distinct", Some("ALTER TABLE ONLY a.t ALTER COLUMN b SET (pg_attver='7')"));
        removes(column, "fillfactor", Some(column));
        removes("ALTER TABLE ONLY a.t ALTER COLUMN b SET (pg_attver='7')", "pg_attver", None);
        let table = "CREATE TABLE ä.\"T\" (\n    a integer\n)\nWITH (x='1')\nOPTIONS (a 'b')";
        removes(table, "x", Some("CREATE TABLE ä.\"T\" (\n    a integer\n)\nOPTIONS (a 'b')"));
        let view = "CREATE VIEW v WITH (a='1', toast.b='2', c='3') AS\nSELECT 1";
        removes(view, "toast.b", Some("CREATE VIEW v WITH (a='1', c='3') AS\nSELECT 1"));
        let index = "CREATE INDEX i ON t USING gist (a int4_ops (pg_attver='3'), b ops (pg_attver='3', x='1'))";
        removes(index, "pg_attver", Some("CREATE INDEX i ON t USING gist (a int4_ops, b ops (x='1'))"));
        let twice = "ALTER TABLE t ADD EXCLUDE USING gist (a WITH =) WITH (x='1'), ADD UNIQUE (a) WITH (x='1', y='2')";
        removes(twice, "x", Some("ALTER TABLE t ADD EXCLUDE USING gist (a WITH =), ADD UNIQUE (a) WITH (y='2')"));
    }
}
