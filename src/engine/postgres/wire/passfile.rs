//! The password file, `~/.pgpass`: lines of `host:port:database:user:password`
//! (PostgreSQL's documentation, "The Password File").

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::platform::secret::Secret;

/// Returns the password for a connection from `file`. As in libpq, a file that others may read is ignored with a
/// warning, and a missing file is ignored without one.
pub(in crate::engine::postgres) fn password(
    file: &Path,
    host: &str,
    port: u16,
    database: &str,
    user: &str,
) -> Option<Secret> {
    match fs::metadata(file) {
        Ok(metadata) if !metadata.is_file() => {
            // Users set /dev/null to have no password file.
            if file != Path::new("/dev/null") {
                tracing::warn!("the password file {} is not a regular file and is ignored", file.display());
            }
            return None;
        }
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            tracing::warn!(
                "the password file {} may be read by others and is ignored; run 'chmod 600 {0}'",
                file.display()
            );
            return None;
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("cannot read the password file {}: {error}", file.display());
            return None;
        }
    }
    match fs::read(file) {
        Ok(bytes) => find(&String::from_utf8_lossy(&bytes), [host, &port.to_string(), database, user]),
        Err(error) => {
            tracing::warn!("cannot read the password file {}: {error}", file.display());
            None
        }
    }
}

/// Returns the password of the first line whose four fields match.
fn find(text: &str, wanted: [&str; 4]) -> Option<Secret> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for want in wanted {
            rest = match_field(rest, want)?;
        }
        // A colon ends the password too, unless it is escaped.
        let (password, _) = field(rest);
        Some(Secret::new(password))
    })
}

/// Returns the text after the first field of `line` and its colon, if that field is `want` or `*`.
fn match_field<'a>(line: &'a str, want: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (text, rest) = field(line);
    rest.filter(|_| text == want)
}

/// Returns the first field of `line` without its backslashes, and the text after its colon.
fn field(line: &str) -> (String, Option<&str>) {
    let mut text = String::new();
    let mut characters = line.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => text.push(characters.next().map_or('\\', |(_, escaped)| escaped)),
            ':' => return (text, Some(&line[index + 1..])),
            other => text.push(other),
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn found(text: &str, wanted: [&str; 4]) -> Option<String> {
        find(text, wanted).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn lines_match_as_libpq_matches_them() {
        let connection = ["db", "5432", "app", "alice"];
        for (line, password) in [
            ("db:5432:app:alice:pw", Some("pw")),
            ("*:*:*:*:pw", Some("pw")),
            ("db:*:app:*:pw", Some("pw")),
            ("db:5433:app:alice:pw", None),
            ("d*:5432:app:alice:pw", None),
            (r"\*:5432:app:alice:pw", None),
            ("# db:5432:app:alice:pw", None),
            ("db:5432:app:alice", None),
            ("db:5432:app:alice:", Some("")),
            (r"db:5432:app:alice:a\:b\\c", Some(r"a:b\c")),
            ("db:5432:app:alice:a:b", Some("a")),
            ("other:5432:app:alice:no\ndb:5432:app:alice:yes\n*:*:*:*:late", Some("yes")),
            ("db:5432:app:alice:pw\r\n", Some("pw")),
            ("", None),
        ] {
            assert_eq!(found(line, connection).as_deref(), password, "{line}");
        }
        assert_eq!(found(r"\:\:1:5432:a\:b:c:pw", ["::1", "5432", "a:b", "c"]).as_deref(), Some("pw"));
        assert_eq!(found(r"*:*:*:\*:pw", ["h", "1", "d", "*"]).as_deref(), Some("pw"));
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgpass");
        fs::write(&file, "*:*:*:*:pw\n").unwrap();
        for (mode, is_used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(&file, "h", 1, "d", "u").is_some(), is_used, "{mode:o}");
        }
        assert!(password(&folder.path().join("absent"), "h", 1, "d", "u").is_none());
        assert!(password(folder.path(), "h", 1, "d", "u").is_none());
    }
}
