//! Environment files, in the syntax that `docker compose`, dotenv and shells read: `NAME=value`, one per line.

use std::collections::BTreeMap;
use std::path::Path;

use crate::platform::disk::{self, shown};
use crate::platform::error::{Error, Result};
use crate::platform::exposed::{self, Content};
use crate::platform::secret_file;

/// The maximum size of an environment file, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The maximum size of all values that are put in the places of variables in one file, in bytes. Each line can double the
/// value of the line before it.
pub(super) const MAX_EXPANDED_BYTES: usize = 1 << 20;
/// The reason why a file with larger values is refused.
pub(super) const TOO_LARGE: &str = "the values of variables are too large: together, more than 1 MiB";

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
    let invalid = |(line, reason)| Error::usage(format!("{}:{line}: {reason}", shown(path)));
    let variables = parse(&text).map_err(invalid)?;
    let has_secret = variables.iter().any(|(name, value)| is_secret(name, value));
    exposed::warn(path, "env_file", if has_secret { Content::Secrets } else { Content::Instructions });
    Ok(variables)
}

/// Words in the names of variables with secrets. A word of which another name is made, such as PGPASSWORD, is at its end.
const SECRET_WORDS: [&str; 24] = [
    "PASS",
    "PASSWD",
    "PASSWORD",
    "PASSPHRASE",
    "PASSCODE",
    "PW",
    "PWD",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "KEY",
    "KEYS",
    "APIKEY",
    "CRED",
    "CREDS",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTH",
    "JWT",
    "WEBHOOK",
    "DSN",
    "IDENTITY",
    "PRIVATE",
    "PRIVATEKEY",
];
/// The ends of words such as PGPASSWORD and DBPASS.
const SECRET_ENDS: [&str; 5] = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "DBPASS"];
/// The last words of names whose values are paths.
const PATH_WORDS: [&str; 5] = ["FILE", "PATH", "DIR", "FOLDER", "DIRECTORY"];
/// The beginnings of public keys.
const PUBLIC_KEYS: [&str; 5] = ["age1", "ssh-ed25519 ", "ssh-rsa ", "ecdsa-sha2-", "-----BEGIN PUBLIC KEY"];

/// Returns true if a variable has a secret, as far as its name and its value show.
fn is_secret(name: &str, value: &str) -> bool {
    let value = value.trim();
    if value.is_empty() || PUBLIC_KEYS.iter().any(|start| value.starts_with(start)) {
        return false;
    }
    if secret_file::holds_key(value) || has_password(value) {
        return true;
    }
    let name = name.to_ascii_uppercase();
    let words: Vec<&str> = name.split('_').collect();
    let is_path = words.len() > 1 && words.last().is_some_and(|word| PATH_WORDS.contains(word));
    // These are compiled into pages that every visitor reads.
    let is_public = words.contains(&"PUBLIC") || name.starts_with("VITE_") || name.starts_with("REACT_APP_");
    let is_secret = |word: &&str| SECRET_WORDS.contains(word) || SECRET_ENDS.iter().any(|end| word.ends_with(end));
    !is_path && !is_public && !is_reference(value) && (words.iter().any(is_secret) || name.contains("PING_URL"))
}

/// Returns true if a value only names another variable: `${NAME}`.
fn is_reference(value: &str) -> bool {
    value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(is_name)
}

/// Returns true if a value is a URL with a password, or has the keyword `password`, as connection strings do.
fn has_password(value: &str) -> bool {
    let is_filled = |password: &str| !password.is_empty() && !is_reference(password);
    let login = value.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit_once('@'));
    if login.and_then(|(login, _)| login.split_once(':')).is_some_and(|(_, password)| is_filled(password)) {
        return true;
    }
    value.split(['?', '&', ';', ' ']).filter_map(|part| part.split_once('=')).any(|(keyword, password)| {
        ["password", "pwd"].iter().any(|known| keyword.trim().eq_ignore_ascii_case(known)) && is_filled(password.trim())
    })
}

/// Parses the variables in a text. The error is the number of the first invalid line, and the reason. The reason never
/// contains a value, because values may be secret.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut variables = BTreeMap::new();
    let mut left = MAX_EXPANDED_BYTES;
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
                if quote == '"' { expand_quoted(inside, &variables, &mut left) } else { Some(inside.to_owned()) }
            }
            _ => {
                // A '#' begins a comment only after a space or a tab, because a password may contain a '#'.
                let end = untrimmed.find(" #").or_else(|| untrimmed.find("\t#")).unwrap_or(untrimmed.len());
                expand(untrimmed[..end].trim(), &variables, &mut left)
            }
        };
        variables.insert(name.to_owned(), value.ok_or_else(|| (number, TOO_LARGE.to_owned()))?);
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
/// Returns `None` if the values have more bytes than are `left`.
fn expand_quoted(text: &str, known: &BTreeMap<String, String>, left: &mut usize) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(&expand(plain, known, left)?);
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
    Some(out + &expand(rest, known, left)?)
}

/// Replaces `${NAME}` by its value, if NAME is set in the process's environment or by an earlier line. Any other '$' is
/// kept, because it may be part of a password. Returns `None` if the values have more bytes than are `left`.
fn expand(text: &str, known: &BTreeMap<String, String>, left: &mut usize) -> Option<String> {
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
                *left = left.checked_sub(value.len())?;
                out.push_str(&value);
                rest = &inside[end + 1..];
            }
            _ => {
                out.push_str("${");
                rest = inside;
            }
        }
    }
    Some(out + rest)
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
    fn variables_with_secrets_are_recognized() {
        for (name, value, expected) in [
            ("PGPASSWORD", "x", true),
            ("api_token", "x", true),
            ("PGPASSWORD", "", false),
            ("DATABASE_URL", "postgres://me:pw@db/app", true),
            ("DATABASE_URL", "postgres://me@db/app?x=a:b@c", false),
            ("DATABASE_URL", "file:./dev.db", false),
            ("PORT", "80", false),
            ("BACKUP_KEY", "age1qqq", false),
            ("DEPLOY_KEY", "ssh-ed25519 AAAA me", false),
            ("DEPLOY_KEY", "ssh-rsa AAAA", false),
            ("PASSWORD_FILE", "/run/secrets/x", false),
            ("SECRETS_DIR", "/run/secrets", false),
            ("KEY_PATH", "x", false),
            ("MONKEY", "x", false),
            ("KEYBOARD", "x", false),
            ("TOKENIZER", "x", false),
            ("MAX_TOKENS", "100", false),
            ("COMPASS", "x", false),
            ("PASSENGER_MODE", "x", false),
            ("NEXT_PUBLIC_MAPS_KEY", "x", false),
            ("A", "postgres://u:@h/db", false),
            ("A", "postgres://u:${PW}@h/db", false),
            ("API_KEY", "${OTHER}", false),
            ("A", "AGE-SECRET-KEY-1QQ", true),
            ("A", "-----BEGIN RSA PRIVATE KEY-----\nx", true),
            ("A", "postgres://h/db?password=abc", true),
            ("A", "postgres://h/db?sslmode=x&password=abc", true),
            ("CONN", "host=h password=abc", true),
            ("CONN", "Server=h;User=u;Password=y", true),
            ("CONN", "Server=h;Password=", false),
            ("JWT", "x", true),
            ("HEALTH_PING_URL", "https://x", true),
            ("SLACK_WEBHOOK", "x", true),
            ("SLACK_WEBHOOK_URL", "x", true),
            ("SECRET_KEY_BASE", "x", true),
            ("DB_PASS", "x", true),
        ] {
            assert_eq!(is_secret(name, value), expected, "{name} {value}");
        }
    }

    #[test]
    fn values_that_double_in_each_line_are_refused() {
        for quote in ["", "\""] {
            let line = |number: usize| format!("A{}={quote}\\t${{A{number}}}${{A{number}}}{quote}\n", number + 1);
            let lines = |count| "A0=x\n".to_owned() + &(0..count).map(line).collect::<String>();
            assert!(parse(&lines(15)).is_ok());
            assert!(parse(&lines(40)).expect_err("too large").1.contains("1 MiB"));
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
