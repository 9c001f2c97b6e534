//! Environment files, in the syntax that `docker compose`, dotenv and shells read: `NAME=value`, one per line.

use std::collections::BTreeMap;
use std::path::Path;

use crate::platform::disk::{self, shown};
use crate::platform::error::{Error, Result};

/// The maximum size of an environment file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads an environment file. Returns no variables if the file does not exist.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let cannot = |error: std::io::Error| {
        Error::usage(format!("cannot read the env_file {}", shown(path))).because(error).hint("check its permissions")
    };
    let bytes = match disk::read_bounded(path, MAX_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(cannot(error)),
        Ok(None) => return Err(Error::usage(format!("{} is too large for an env_file", shown(path)))),
        Ok(Some(bytes)) => bytes,
    };
    // The error of `from_utf8` contains the bytes, so it is not kept as the cause.
    let text = String::from_utf8(bytes).map_err(|_| Error::usage(format!("{} is not UTF-8", shown(path))))?;
    parse(&text).map_err(|(line, reason)| Error::usage(format!("{}:{line}: {reason}", shown(path))))
}

/// Parses the variables in a text. The error is the number of the first invalid line, and the reason. The reason never
/// contains a value, because values may be secret.
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
        let (name, value) = line.split_once('=').ok_or((number, "expected NAME=value".to_owned()))?;
        let name = name.trim_end();
        if !is_name(name) {
            let reason = "a variable name has only letters, digits and '_', and does not start with a digit";
            return Err((number, reason.to_owned()));
        }
        let untrimmed = value;
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut quoted = value[1..].to_owned();
                // A quoted value may have several lines.
                while closing_quote(&quoted, quote).is_none() {
                    let (_, more) = lines.next().ok_or((number, "a quote is not closed".to_owned()))?;
                    quoted.push('\n');
                    quoted.push_str(more);
                }
                let end = closing_quote(&quoted, quote).expect("the loop ends only at a closing quote");
                let rest = quoted[end + 1..].trim_start();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return Err((number, "there is text after the closing quote".to_owned()));
                }
                let inside = &quoted[..end];
                if quote == '"' { expand_quoted(inside, &variables) } else { inside.to_owned() }
            }
            _ => {
                // A '#' begins a comment only after a space or a tab, because a password may contain a '#'.
                let end = untrimmed.find(" #").or_else(|| untrimmed.find("\t#")).unwrap_or(untrimmed.len());
                expand(untrimmed[..end].trim(), &variables)
            }
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// Returns true if `name` is a valid name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the position of the first `quote` that is not escaped.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
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

/// Replaces the escapes of a text in double quotes, and expands the rest: `\${NAME}` stands for `${NAME}` itself.
fn expand_quoted(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(&expand(plain, known));
        let mut characters = escaped.chars();
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(other @ ('"' | '\\' | '$' | '`')) => out.push(other),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
        rest = characters.as_str();
    }
    out + &expand(rest, known)
}

/// Replaces `${NAME}` by its value, if NAME is set in the process's environment or by an earlier line. Any other '$' is
/// kept, because it may be part of a password.
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
                    E=p#ss$word\nF=\nI= # none\nJ=#x\nG=\"two\nlines\"\nH=${A}${NOT_SET_ANYWHERE}$A\n\
                    K=\"\\${A} ${A} \\\\${A} $\\{A} ${\\A}\"\nL=\"\\$A\"\n";
        let read = parse(text).expect("valid lines");
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
            ("K", "${A} 1 \\1 $\\{A} ${\\A}"),
            ("L", "$A"),
        ] {
            assert_eq!(read.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn an_invalid_line_is_reported_by_its_number_and_without_its_value() {
        for (text, line) in [("A=1\nhunter2", 2), ("1A=hunter2", 1), ("A=\"hunter2", 1), ("\nA='x' hunter2", 2)] {
            let (number, reason) = parse(text).expect_err(text);
            assert_eq!(number, line, "{text}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
