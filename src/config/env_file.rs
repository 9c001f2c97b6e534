//! Files of variables as `docker compose`, dotenv and shells read them: `NAME=value`, one per line.

use std::collections::BTreeMap;
use std::path::Path;

use crate::platform::disk::{self, shown};
use crate::platform::error::{Error, Result};

/// The maximum size of such a file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file of variables. Returns no variables if the file does not exist.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let cannot = |error: std::io::Error| {
        Error::usage(format!("cannot read the env_file {}", shown(path))).because(error).hint("check its rights")
    };
    let bytes = match disk::read_bounded(path, MAX_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(cannot(error)),
        Ok(None) => return Err(Error::usage(format!("{} is too large for a file of variables", shown(path)))),
        Ok(Some(bytes)) => bytes,
    };
    // The error of `from_utf8` contains the bytes, so it is not kept as the cause.
    let text = String::from_utf8(bytes).map_err(|_| Error::usage(format!("{} is not UTF-8", shown(path))))?;
    parse(&text).map_err(|(line, why)| Error::usage(format!("{}:{line}: {why}", shown(path))))
}

/// Parses the variables in a text. Fails with the number of the first invalid line, and the reason. The reason never
/// contains a value.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut variables = BTreeMap::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=').ok_or((number, "a line is NAME=value".to_owned()))?;
        let name = name.trim_end();
        if !is_name(name) {
            return Err((number, "the name of a variable has letters, digits and '_'".to_owned()));
        }
        let written = value;
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut quoted = value[1..].to_owned();
                // A quoted value may have several lines.
                while closing(&quoted, quote).is_none() {
                    let (_, more) = lines.next().ok_or((number, "a quote is not closed".to_owned()))?;
                    quoted.push('\n');
                    quoted.push_str(more);
                }
                let end = closing(&quoted, quote).expect("looked for just above");
                let rest = quoted[end + 1..].trim_start();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return Err((number, "something stands behind the closing quote".to_owned()));
                }
                let inside = &quoted[..end];
                if quote == '"' { expand(&unescape(inside), &variables) } else { inside.to_owned() }
            }
            _ => {
                // A comment begins after a space or a tab: a password may contain a '#'.
                let end = written.find(" #").or_else(|| written.find("\t#")).unwrap_or(written.len());
                expand(written[..end].trim(), &variables)
            }
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// Returns true if this is a valid name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the position of the closing quote.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(other @ ('"' | '\\' | '$' | '`')) => out.push(other),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            (character, _) => out.push(character),
        }
    }
    out
}

/// Expands `${NAME}` if the process or an earlier line sets it. Any other '$' is kept: it may be part of a password.
fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}');
        let value = end
            .map(|end| &inside[..end])
            .filter(|name| is_name(name))
            .and_then(|name| std::env::var(name).ok().or_else(|| known.get(name).cloned()));
        match (end, value) {
            (Some(end), Some(value)) => {
                out.push_str(&value);
                rest = &inside[end + 1..];
            }
            _ => {
                out.push_str("${");
                rest = inside;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_shells_and_compose_read_them() {
        let text = "\u{feff}# a comment\n\nA=1\nexport B = two words # not this\nC='$x #y \\n'\nD=\"a\\\"b\\n${A}\" # c\n\
                    E=p#ss$word\nF=\nI= # none\nJ=#x\nG=\"two\nlines\"\nH=${A}${NOT_SET_ANYWHERE}$A\n";
        let read = parse(text).expect("sound");
        for (name, value) in [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$x #y \\n"),
            ("D", "a\"b\n1"),
            ("E", "p#ss$word"),
            ("F", ""),
            ("I", ""),
            ("J", "#x"),
            ("G", "two\nlines"),
            ("H", "1${NOT_SET_ANYWHERE}$A"),
        ] {
            assert_eq!(read.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_line_and_without_its_value() {
        for (text, line) in [("A=1\nhunter2", 2), ("1A=hunter2", 1), ("A=\"hunter2", 1), ("\nA='x' hunter2", 2)] {
            let (number, why) = parse(text).expect_err(text);
            assert_eq!(number, line, "{text}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
