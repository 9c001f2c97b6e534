//! The tokens of an SQL statement in a schema, as far as the names of tables in it need them.

use super::names::text_of;

/// A token; comments and spaces are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword or a name without quotes.
    Word(String),
    /// A name in quotes, or a string: SQLite accepts either in the place of the other.
    Quoted(String),
    /// Any other byte.
    Symbol(u8),
}

impl Token {
    /// Returns true for this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Returns the name that the token can be.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Token::Word(name) | Token::Quoted(name) => Some(name),
            Token::Symbol(_) => None,
        }
    }
}

/// Divides a statement into its tokens.
pub(super) fn tokens(sql: &[u8]) -> Vec<Token> {
    let (mut found, mut at) = (Vec::new(), 0);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80;
    while at < sql.len() {
        let rest = &sql[at..];
        at += match rest {
            [byte, ..] if byte.is_ascii_whitespace() => 1,
            [b'-', b'-', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => {
                rest.windows(2).skip(2).position(|pair| pair == b"*/").map_or(rest.len(), |length| length + 4)
            }
            [open @ (b'\'' | b'"' | b'`' | b'['), ..] => {
                let (text, length) = quoted(rest, if *open == b'[' { b']' } else { *open });
                found.push(Token::Quoted(text_of(&text)));
                length
            }
            [byte, ..] if is_word(*byte) => {
                let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                found.push(Token::Word(text_of(&rest[..length])));
                length
            }
            [byte, ..] => {
                found.push(Token::Symbol(*byte));
                1
            }
            [] => break,
        };
    }
    found
}

/// Returns the text in quotes at the start of `sql`, and the length of all of it. A quote within the text is doubled,
/// except in brackets.
fn quoted(sql: &[u8], close: u8) -> (Vec<u8>, usize) {
    let (mut text, mut at) = (Vec::new(), 1);
    while let Some(byte) = sql.get(at) {
        if *byte == close {
            if close == b']' || sql.get(at + 1) != Some(&close) {
                return (text, at + 1);
            }
            at += 1;
        }
        text.push(*byte);
        at += 1;
    }
    (text, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_all_kinds_of_quotes_and_not_in_comments() {
        let sql = b"a -- no 'b\n/* c */ \"d\"\"e\" [f g] `h` 'i''j' /**/k/l--m";
        let names: Vec<String> = tokens(sql).iter().filter_map(Token::name).map(str::to_owned).collect();
        assert_eq!(names, ["a", "d\"e", "f g", "h", "i'j", "k", "l"]);
        assert_eq!(tokens(b"'open"), [Token::Quoted("open".to_owned())]);
        assert_eq!(tokens(b"/*"), []);
        assert_eq!(tokens(b"/*/x*/y"), [Token::Word("y".to_owned())]);
    }
}
