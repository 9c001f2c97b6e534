//! Statements as text for psql: refused if psql would find something in them that it runs by itself.
//!
//! psql reads a file as a sequence of SQL statements and of its own commands. A command begins with a backslash, anywhere
//! outside of quotes and comments, and one of them starts a shell. The text of a statement comes from a server, which may
//! lie, or from an archive, which anybody may have written. So the text is read here as `psqlscan.l` reads it: strings,
//! quoted names, dollar quotes, nested comments, parentheses, and the bodies of SQL functions.
//!
//! The value of `standard_conforming_strings` changes where a string ends if it has a backslash, and a function that is
//! called while the file is loaded can change that setting. Such a string is written as `E'...'`, which has the same
//! meaning and the same end with either value.
//!
//! In the definition of a function, psql takes every `begin` outside of parentheses for the start of a body of statements.
//! PostgreSQL does not quote this word if it is a name, so it is quoted here: psql would not find the end of the statement.

use std::borrow::Cow;

/// The variables of psql whose values come from a server. psql inserts the value of a variable where `:NAME` is outside of
/// quotes, and reads it as if it were a part of the file.
const VARIABLES_OF_SERVER: &[&str] = &[
    "ENCODING",
    "ERROR",
    "LAST_ERROR_MESSAGE",
    "LAST_ERROR_SQLSTATE",
    "ROW_COUNT",
    "SERVER_VERSION_NAME",
    "SERVER_VERSION_NUM",
    "SQLSTATE",
];

/// Returns a statement as psql can read it, without the semicolon at its end. It has the same meaning. Returns the reason
/// if it is not one whole statement, or has a part that psql would not send to the server.
pub(crate) fn for_psql(statement: &str) -> Result<Cow<'_, str>, &'static str> {
    let mut text =
        Text { statement, at: 0, copied: 0, changed: String::new(), block: Block::default(), parentheses: 0 };
    text.read()?;
    if text.copied == 0 {
        return Ok(Cow::Borrowed(statement));
    }
    text.changed.push_str(&statement[text.copied..]);
    Ok(Cow::Owned(text.changed))
}

/// A statement that is being read.
struct Text<'a> {
    statement: &'a str,
    /// The position of the next byte.
    at: usize,
    /// The end of the text that is in `changed` already.
    copied: usize,
    /// The text with other strings, up to `copied`.
    changed: String,
    block: Block,
    /// The number of open parentheses.
    parentheses: usize,
}

impl Text<'_> {
    fn read(&mut self) -> Result<(), &'static str> {
        while let Some(byte) = self.byte(0) {
            match byte {
                0 => return Err("it has a NUL character"),
                b'\\' => return Err("it has a backslash outside of quotes, which begins a command of psql"),
                b'\'' => self.string(self.at, StringKind::Plain)?,
                b'"' => self.quoted_name()?,
                b'$' => self.dollar()?,
                b':' => self.colon()?,
                b'-' if self.byte(1) == Some(b'-') => self.line_comment()?,
                b'/' if self.byte(1) == Some(b'*') => self.block_comment()?,
                b'0'..=b'9' => self.number()?,
                byte if begins_word(byte) => self.word()?,
                b'(' => self.step(|text| text.parentheses += 1),
                b')' if self.parentheses == 0 => return Err("it closes a parenthesis that it does not open"),
                b')' => self.step(|text| text.parentheses -= 1),
                b';' if self.parentheses == 0 && self.block.depth == 0 => {
                    return Err("it has a semicolon outside of quotes, so it is more than one statement");
                }
                b';' => self.step(|text| text.block.is_first = true),
                _ => self.at += 1,
            }
        }
        if self.parentheses > 0 || self.block.depth > 0 {
            return Err("it opens a parenthesis or a block that it does not close");
        }
        Ok(())
    }

    fn step(&mut self, change: impl FnOnce(&mut Self)) {
        self.at += 1;
        change(self);
    }

    /// Returns the byte at a distance from the current position.
    fn byte(&self, distance: usize) -> Option<u8> {
        self.statement.as_bytes().get(self.at + distance).copied()
    }

    /// Moves past all bytes that `belongs` accepts, and returns them.
    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &str {
        let start = self.at;
        while self.byte(0).is_some_and(&belongs) {
            self.at += 1;
        }
        &self.statement[start..self.at]
    }

    /// Reads a string whose quote is at the current position. `start` is the position of its prefix.
    fn string(&mut self, start: usize, kind: StringKind) -> Result<(), &'static str> {
        let open = self.at;
        self.at += 1;
        let mut has_backslash = false;
        loop {
            match self.byte(0).ok_or("it has a string that does not end")? {
                b'\'' if self.byte(1) == Some(b'\'') => self.at += 2,
                b'\'' => break,
                b'\\' => {
                    has_backslash = true;
                    self.at += if kind == StringKind::Escape { 2 } else { 1 };
                }
                0 => return Err("it has a NUL character"),
                _ => self.at += 1,
            }
        }
        let content = open + 1..self.at;
        self.at += 1;
        match kind {
            StringKind::Other if has_backslash => return Err("it has a backslash in an unusual kind of string"),
            StringKind::Plain if has_backslash => {
                let escaped = self.statement[content].replace('\\', "\\\\");
                self.changed.push_str(&self.statement[self.copied..start]);
                // A word that is directly before the string would become one with the letter.
                self.changed.push_str(&format!(" E'{escaped}'"));
                self.copied = self.at;
            }
            _ => {}
        }
        self.white_space()?;
        if self.byte(0) == Some(b'\'') { Err("it has a string in two parts") } else { Ok(()) }
    }

    /// Moves past white space and comments.
    fn white_space(&mut self) -> Result<(), &'static str> {
        loop {
            self.take(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            match (self.byte(0), self.byte(1)) {
                (Some(b'-'), Some(b'-')) => self.line_comment()?,
                (Some(b'/'), Some(b'*')) => self.block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn quoted_name(&mut self) -> Result<(), &'static str> {
        self.at += 1;
        self.take(|byte| byte != b'"');
        self.byte(0).ok_or("it has a quoted name that does not end")?;
        // Two quotes in a name are read as the end of one name and the start of another, which ends at the same place.
        self.at += 1;
        Ok(())
    }

    /// Reads a dollar-quoted string, a parameter such as `$1`, or a single dollar sign.
    fn dollar(&mut self) -> Result<(), &'static str> {
        let start = self.at;
        self.at += 1;
        if self.byte(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.take(|byte| byte.is_ascii_digit());
            return self.end_of_number();
        }
        self.take(|byte| begins_word(byte) || byte.is_ascii_digit());
        if self.byte(0) != Some(b'$') {
            self.at = start + 1;
            return Ok(());
        }
        self.at += 1;
        let tag = &self.statement[start..self.at];
        let rest = &self.statement[self.at..];
        self.at += rest.find(tag).ok_or("it has a dollar-quoted string that does not end")? + tag.len();
        Ok(())
    }

    /// Reads a cast, or the place of a variable of psql. The bounds of an array slice have the form of such a place.
    fn colon(&mut self) -> Result<(), &'static str> {
        self.at += 1;
        if self.byte(0) == Some(b':') {
            self.at += 1;
            return Ok(());
        }
        let name = self.take(|byte| begins_word(byte) || byte.is_ascii_digit());
        if VARIABLES_OF_SERVER.contains(&name) {
            return Err("it has a variable of psql outside of quotes");
        }
        Ok(())
    }

    fn line_comment(&mut self) -> Result<(), &'static str> {
        self.take(|byte| !matches!(byte, b'\n' | b'\r'));
        self.byte(0).map(drop).ok_or("it ends in a comment")
    }

    fn block_comment(&mut self) -> Result<(), &'static str> {
        let mut depth = 0;
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'/'), Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                (Some(b'*'), Some(b'/')) => (depth, self.at) = (depth - 1, self.at + 2),
                (Some(_), _) => self.at += 1,
                (None, _) => return Err("it has a comment that does not end"),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn number(&mut self) -> Result<(), &'static str> {
        let digits = self.take(|byte| byte.is_ascii_digit());
        if digits == "0" && matches!(self.byte(0), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
            self.at += 1;
            self.take(|byte| byte.is_ascii_hexdigit());
        } else {
            if self.byte(0) == Some(b'.') {
                self.at += 1;
                self.take(|byte| byte.is_ascii_digit());
            }
            let sign = usize::from(matches!(self.byte(1), Some(b'+' | b'-')));
            let has_exponent = self.byte(1 + sign).is_some_and(|byte| byte.is_ascii_digit());
            if matches!(self.byte(0), Some(b'e' | b'E')) && has_exponent {
                self.at += 1 + sign;
                self.take(|byte| byte.is_ascii_digit());
            }
        }
        self.end_of_number()
    }

    /// Fails if a number is followed by a word or a dollar sign: versions of psql differ in what they read there.
    fn end_of_number(&self) -> Result<(), &'static str> {
        match self.byte(0) {
            Some(byte) if begins_word(byte) || byte == b'$' => Err("it has a number that is followed by a word"),
            _ => Ok(()),
        }
    }

    /// Reads a word, or a string or name with a prefix.
    fn word(&mut self) -> Result<(), &'static str> {
        let start = self.at;
        let word = self.take(|byte| begins_word(byte) || byte.is_ascii_digit() || byte == b'$').to_ascii_lowercase();
        match (word.as_str(), self.byte(0), self.byte(1)) {
            ("e", Some(b'\''), _) => self.string(start, StringKind::Escape),
            ("n" | "b" | "x", Some(b'\''), _) => self.string(start, StringKind::Other),
            ("u", Some(b'&'), Some(b'\'')) => {
                self.at += 1;
                self.string(start, StringKind::Other)
            }
            ("u", Some(b'&'), Some(b'"')) => {
                self.at += 1;
                self.quoted_name()
            }
            _ => {
                let is_body = !self.block.has_body && self.is_before_atomic();
                if self.block.add(&word, self.parentheses, is_body)? == Word::Name {
                    self.quote(start);
                }
                Ok(())
            }
        }
    }

    /// Returns true if the word `ATOMIC` is next.
    fn is_before_atomic(&self) -> bool {
        let rest = self.statement[self.at..].trim_ascii_start().as_bytes();
        let ends = rest.get(6).is_none_or(|&byte| !begins_word(byte) && !byte.is_ascii_digit() && byte != b'$');
        rest.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"atomic")) && ends
    }

    /// Quotes the word that begins at `start` and ends at the current position.
    fn quote(&mut self, start: usize) {
        let bytes = self.statement.as_bytes();
        // A quote next to it would make one name of both, and `U&` would become a prefix.
        let before = if start > 0 && matches!(bytes[start - 1], b'"' | b'&') { " " } else { "" };
        let after = if self.byte(0) == Some(b'"') { " " } else { "" };
        let word = self.statement[start..self.at].to_ascii_lowercase();
        self.changed.push_str(&self.statement[self.copied..start]);
        self.changed.push_str(&format!("{before}\"{word}\"{after}"));
        self.copied = self.at;
    }
}

/// Returns true if a byte may begin a word. The bytes of letters beyond ASCII may.
fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StringKind {
    Plain,
    /// `E'...'`.
    Escape,
    /// `N'...'`, `B'...'`, `X'...'` or `U&'...'`.
    Other,
}

/// The blocks `BEGIN ATOMIC ... END` in the body of an SQL function. A semicolon in a block does not end the statement.
struct Block {
    /// The first words, by their initial letters, as far as they may belong to `CREATE OR REPLACE FUNCTION`.
    initials: Vec<u8>,
    /// True until the first word of a statement is read.
    is_first: bool,
    /// The number of open blocks.
    depth: usize,
    /// True once `BEGIN ATOMIC` is read. A function has one body.
    has_body: bool,
}

/// The meaning of a word outside of quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It stays as it is.
    Plain,
    /// It is a name that psql would take for the start of a block.
    Name,
}

impl Default for Block {
    fn default() -> Self {
        Block { initials: Vec::new(), is_first: true, depth: 0, has_body: false }
    }
}

impl Block {
    /// Adds a word inside `parentheses`. `is_body` tells whether a `begin` at this place would start the body.
    fn add(&mut self, word: &str, parentheses: usize, is_body: bool) -> Result<Word, &'static str> {
        if std::mem::take(&mut self.is_first) && word == "copy" {
            // psql would read the lines after it as rows, up to a line with a backslash and a point.
            return Err("it is a COPY");
        }
        if self.initials.len() < 4 {
            let is_known = ["create", "function", "procedure", "or", "replace"].contains(&word);
            self.initials.push(if is_known { word.as_bytes()[0] } else { 0 });
        }
        let is_routine = matches!(self.initials[..], [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p']);
        if !is_routine || parentheses > 0 {
            return Ok(Word::Plain);
        }
        match word {
            "begin" if !is_body => return Ok(Word::Name),
            "begin" => (self.depth, self.has_body) = (self.depth + 1, true),
            "case" if self.depth > 0 => self.depth += 1,
            "end" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Ok(Word::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(statement: &str) {
        assert_eq!(for_psql(statement).as_deref(), Ok(statement));
    }

    #[track_caller]
    fn refused(statement: &str) {
        assert!(for_psql(statement).is_err(), "{statement:?} was accepted as {:?}", for_psql(statement));
    }

    #[test]
    fn statements_of_servers_are_not_changed() {
        for statement in [
            "",
            "CREATE FUNCTION f(a text DEFAULT E'x\\\\y') RETURNS int AS $_$ \\! touch x $$ ' $_$ LANGUAGE plpgsql",
            "CREATE VIEW v AS SELECT \"a\\b\"\"c\", 'it''s', 1.5e-3, 2e5, 0x1F, a[1:2], b[c:d], (x)::text FROM t",
            "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql\nBEGIN ATOMIC\n INSERT INTO t VALUES (CASE WHEN true THEN 1 END);\n SELECT 1;\nEND",
            "CREATE PROCEDURE p(IN $1 integer) LANGUAGE sql BEGIN ATOMIC SELECT ($1 + 1) AS begin$;\nEND",
            "CREATE RULE r AS ON UPDATE TO t DO ALSO ( DELETE FROM a; INSERT INTO b VALUES (1); )",
            "COMMENT ON TABLE t IS E'a\\'; \\! touch x\n--'",
            "CREATE TABLE t (\n    a integer -- \\! in a comment\n) /* and /* nested */ \\q */",
            "ALTER TABLE ONLY s.copy ADD CONSTRAINT \"e\" CHECK ((a OPERATOR(pg_catalog.<>) ':SQLSTATE'))",
            "CREATE OPERATOR @-> (FUNCTION = f)",
            // psql counts no words in parentheses, and looks for blocks in functions alone.
            "CREATE OR REPLACE FUNCTION public.ranges() RETURNS TABLE(begin date, \"end\" date) LANGUAGE sql AS $$select$$",
            "CREATE FUNCTION public.f(begin integer, INOUT a public.begin) LANGUAGE sql AS $$select 1$$",
            "CREATE FUNCTION f() LANGUAGE sql RETURN XMLELEMENT(NAME begin, CASE WHEN true THEN 1 END)",
            "CREATE FUNCTION f() LANGUAGE sql BEGIN ATOMIC SELECT f(CASE WHEN (s).begin THEN ev.begin END) AS a;\nEND",
            "CREATE VIEW v AS SELECT ev.begin AS begin, CASE WHEN true THEN 1 END FROM public.begin ev",
            "U&\"a\" CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END",
            "CREATE SCHEMA begin",
            "ALTER FUNCTION begin.begin(begin begin) OWNER TO begin",
        ] {
            same(statement);
        }
    }

    #[test]
    fn a_name_that_psql_takes_for_a_block_is_quoted() {
        for (statement, expected) in [
            (
                "CREATE OR REPLACE FUNCTION begin.begin(begin begin)\n RETURNS SETOF begin.begin\n AS $$begin$$",
                "CREATE OR REPLACE FUNCTION \"begin\".\"begin\"(begin begin)\n RETURNS SETOF \"begin\".\"begin\"\n AS $$begin$$",
            ),
            ("CREATE PROCEDURE Begin() AS $$a$$", "CREATE PROCEDURE \"begin\"() AS $$a$$"),
            ("CREATE FUNCTION f(s t) RETURN (s).begin", "CREATE FUNCTION f(s t) RETURN (s).\"begin\""),
            (
                "CREATE FUNCTION f() BEGIN ATOMIC\n SELECT ev.begin AS begin, CASE WHEN ev.begin THEN 1 END FROM begin atomic;\nEND",
                "CREATE FUNCTION f() BEGIN ATOMIC\n SELECT ev.\"begin\" AS \"begin\", CASE WHEN ev.\"begin\" THEN 1 END FROM \"begin\" atomic;\nEND",
            ),
            (
                "CREATE FUNCTION f() BEGIN ATOMIC SELECT begin.x AS b, '\\' AS begin FROM t begin; END",
                "CREATE FUNCTION f() BEGIN ATOMIC SELECT \"begin\".x AS b,  E'\\\\' AS \"begin\" FROM t \"begin\"; END",
            ),
            ("CREATE FUNCTION f() RETURN \"a\"begin\"b\"", "CREATE FUNCTION f() RETURN \"a\" \"begin\" \"b\""),
        ] {
            assert_eq!(for_psql(statement).as_deref(), Ok(expected), "{statement}");
        }
    }

    #[test]
    fn a_string_with_a_backslash_has_the_same_end_with_any_setting() {
        assert_eq!(for_psql("SELECT 'a\\''b', type'\\'").as_deref(), Ok("SELECT  E'a\\\\''b', type E'\\\\'"));
    }

    #[test]
    fn commands_of_psql_are_refused() {
        for statement in [
            "\\! touch x",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1';\n\\! touch x\n",
            "SELECT 1 \\gexec",
            "SELECT 1 \\; SELECT 2",
            // Each of these seems to be quoted for a simpler reader.
            "SELECT E'\\'' \\! touch x\n'",
            "SELECT 'a' -- '\n\\! touch x\n-- '",
            "SELECT /* ' */ 1 \\! touch x /* ' */",
            "SELECT /* /* */ \\q */ 1 */ \\! touch x",
            "SELECT a$b$ \\! touch x\n$b$",
            "SELECT 1$b$ \\! touch x\n$b$",
            "SELECT $1a$ \\! touch x\n$1a$",
            "SELECT :e'\\' \\! touch x\n'",
            "SELECT type'\\' \\! touch x\n'",
            "SELECT E'a'\n'\\' \\! touch x\n'",
            "SELECT U&'\\' \\! touch x\n'",
            "SELECT N'\\' \\! touch x\n'",
            "SELECT \"a\" \\! touch \"x\"",
            "SELECT :LAST_ERROR_MESSAGE",
        ] {
            refused(statement);
        }
    }

    #[test]
    fn text_that_changes_the_meaning_of_what_follows_is_refused() {
        for statement in [
            "COPY t FROM stdin",
            "/* x */ copy t FROM stdin",
            "SELECT 1; COPY t FROM stdin;\n'\n\\.\n\\! touch x\n'",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; COPY t FROM stdin; END",
            "CREATE VIEW v AS SELECT 1; SET standard_conforming_strings = off",
            "CREATE TABLE create_function (a int) begin; SELECT 1",
            "SELECT 'a",
            "SELECT E'a\\'",
            "SELECT \"a",
            "SELECT $a$ $b$",
            "SELECT 1 -- a",
            "SELECT 1 /* a /* */",
            "SELECT (1",
            "SELECT 1)",
            "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;",
            "CREATE FUNCTION f() RETURNS begin; SELECT 1",
            "CREATE FUNCTION f() RETURNS begin_atomic BEGIN SELECT 1; END",
            "CREATE FUNCTION f(begin int); SELECT 1 AS end",
            "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END; SELECT 2",
            "SELECT 'a' 'b'",
            "SELECT \0",
        ] {
            refused(statement);
        }
    }
}
