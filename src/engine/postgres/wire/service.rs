//! The connection service file, `pg_service.conf`: named sets of parameters
//! (PostgreSQL's documentation, "The Connection Service File").

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::engine::postgres::wire::conninfo::{KEYWORDS, Pairs};
use crate::platform::error::{Error, Kind, Result};

/// Reads the service `name` from the first of `files` that has it. Missing files are skipped.
pub(in crate::engine::postgres) fn read(name: &str, files: &[PathBuf]) -> Result<Pairs> {
    for file in files {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => {
                return Err(
                    Error::new(Kind::Usage, format!("cannot read the service file {}", file.display())).because(error)
                );
            }
        };
        if let Some(pairs) = section(&text, name, file)? {
            return Ok(pairs);
        }
    }
    let searched: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(Error::usage(format!("the connection service '{name}' does not exist"))
        .hint(format!("add the section [{name}] to one of these files: {}", searched.join(", "))))
}

/// Returns the parameters under `[name]`, or `None` if there is no such section. The first value of a parameter counts.
fn section(text: &str, name: &str, file: &Path) -> Result<Option<Pairs>> {
    let mut found: Option<Pairs> = None;
    for (index, line) in text.lines().enumerate() {
        let bad =
            |reason: &str| Error::usage(format!("line {} of the service file {} {reason}", index + 1, file.display()));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if title.strip_suffix(']') == Some(name) {
                found = Some(Pairs::new());
            }
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        if line.starts_with("ldap") {
            return Err(bad("refers to an LDAP server, which lifeboat does not support"));
        }
        let (word, value) = line.split_once('=').ok_or_else(|| bad("has no '='"))?;
        if word == "service" || word == "servicefile" {
            return Err(bad("refers to another service, which is not allowed"));
        }
        if !KEYWORDS.iter().any(|(known, _)| *known == word) {
            return Err(bad("has a parameter that libpq does not know"));
        }
        if !pairs.iter().any(|(before, _)| before == word) {
            pairs.push((word.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FILE: &str = "# ours\n\n[first]\nhost=one\nport=1\n\n[prod]\n  host=db.example.org\nhost=second\npassword=a = b#c\n\n[other]\nbad\n";

    fn read_text(text: &str, name: &str) -> Result<Option<Pairs>> {
        section(text, name, Path::new("pg_service.conf"))
    }

    #[test]
    fn the_first_value_in_the_named_section_counts() {
        let pairs = read_text(FILE, "prod").unwrap().unwrap();
        assert_eq!(
            pairs,
            [("host".to_owned(), "db.example.org".to_owned()), ("password".to_owned(), "a = b#c".to_owned())]
        );
        assert!(read_text(FILE, "absent").unwrap().is_none());
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_not_quoted() {
        for (text, line) in [
            ("[x]\npasswordhunter2", "line 2"),
            ("[x]\nhost=a\nhunter2=1", "line 3"),
            ("[x]\nservice=y", "line 2"),
            ("[x]\nldap://hunter2", "line 2"),
        ] {
            let error = read_text(text, "x").unwrap_err();
            assert!(error.message.contains(line) && !format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn the_first_file_that_has_the_service_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "[a]\nhost=1\n").unwrap();
        fs::write(&two, "[a]\nhost=2\n[b]\nhost=3\n").unwrap();
        let files = [folder.path().join("absent"), one, two];
        assert_eq!(read("a", &files).unwrap()[0].1, "1");
        assert_eq!(read("b", &files).unwrap()[0].1, "3");
        let error = read("c", &files).unwrap_err();
        assert!(error.hint.unwrap().contains("absent"));
    }
}
