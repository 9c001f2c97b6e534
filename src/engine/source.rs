//! What a person calls a source or a target: an SQLite file, or a PostgreSQL database.

use std::path::{Path, PathBuf};

use crate::engine::postgres::wire::params::{self, Params};
use crate::platform::error::{Error, Result, one_line};

/// A source or target as a person names it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    Sqlite(PathBuf),
    /// A database on a server.
    Postgres(Box<Params>),
}

impl Source {
    /// Whether another names the same place.
    #[must_use]
    pub fn is_same(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Sqlite(one), Source::Sqlite(other)) => {
                let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
                real(one) == real(other)
            }
            (Source::Postgres(one), Source::Postgres(other)) => {
                (one.host(), one.port(), one.database()) == (other.host(), other.port(), other.database())
            }
            _ => false,
        }
    }
}

/// Reads what a person calls a source on the command line. What has a colon and no slashes behind it may be a file there.
pub fn parse_source(text: &str) -> Result<Source> {
    if text.contains("://")
        && let Some(path) = sqlite_path(text)?
    {
        return Ok(Source::Sqlite(path));
    }
    parse_other(text)
}

/// Reads what a config or an application's variable calls a source: also `file:dev.db` and `sqlite:app.db`, as SQLite itself,
/// Prisma and Rails write them.
pub fn parse_source_url(text: &str) -> Result<Source> {
    match sqlite_path(text)? {
        Some(path) => Ok(Source::Sqlite(path)),
        None => parse_other(text),
    }
}

fn parse_other(text: &str) -> Result<Source> {
    // 'host=x' may be a file's name all the same.
    if params::looks_like(text) && (text.contains("://") || !Path::new(text).exists()) {
        return Ok(Source::Postgres(Box::new(Params::parse(text)?)));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Error::usage(format!("this lifeboat knows no sources of the kind {}://", one_line(scheme)))
            .hint("name an SQLite file or a PostgreSQL URL"));
    }
    if text.is_empty() {
        return Err(Error::usage("a source has an empty name").hint("name an SQLite file or a PostgreSQL URL"));
    }
    Ok(Source::Sqlite(PathBuf::from(text)))
}

/// The file that a URL of SQLite's names; None where it is no such URL.
///
/// As SQLAlchemy reads it: three slashes start a relative path, four an absolute one, and a driver may stand behind a '+'.
/// Without slashes the path is as it is written.
fn sqlite_path(text: &str) -> Result<Option<PathBuf>> {
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
    let scheme = scheme.to_ascii_lowercase();
    let base = scheme.split('+').next().unwrap_or(&scheme);
    let path = match (base, rest.strip_prefix("//")) {
        ("file", Some(rest)) => rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest),
        ("sqlite" | "sqlite3", Some(rest)) => rest.strip_prefix('/').unwrap_or(rest),
        ("sqlite" | "sqlite3" | "file", None) => rest,
        _ => return Ok(None),
    };
    let path = path.split('?').next().unwrap_or(path);
    if path.is_empty() {
        return Err(Error::usage(format!("'{}' names no file", one_line(text)))
            .hint("write sqlite:///relative.db or sqlite:////absolute.db"));
    }
    Ok(Some(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_file_is_read() {
        for (text, path) in [
            ("data/app.db", "data/app.db"),
            ("sqlite:///./data/app.db", "./data/app.db"),
            ("sqlite:////abs/app.db", "/abs/app.db"),
            ("sqlite:///app.db?timeout=5", "app.db"),
            ("sqlite+aiosqlite:///app.db", "app.db"),
            ("sqlite+pysqlite:////abs/app.db", "/abs/app.db"),
            ("SQLite:///app.db", "app.db"),
            ("sqlite://app.db", "app.db"),
            ("sqlite:app.db", "app.db"),
            ("sqlite3:db/app.sqlite3", "db/app.sqlite3"),
            ("file:./dev.db?mode=ro", "./dev.db"),
            ("file:///abs/app.db", "/abs/app.db"),
            ("file://localhost/abs/app.db", "/abs/app.db"),
            ("a:b.db", "a:b.db"),
        ] {
            let read = parse_source_url(text).unwrap_or_else(|error| panic!("{text}: {}", error.whole()));
            assert!(matches!(&read, Source::Sqlite(read) if read == Path::new(path)), "{text}: {read:?}");
        }
        for text in ["sqlite://", "sqlite:///", "sqlite:", "file:", "mysql://host/db", ""] {
            assert!(parse_source_url(text).is_err(), "{text}");
        }
        // On a command line these are files.
        for text in ["file:x?mode=memory", "sqlite:app.db", "a:b"] {
            assert!(matches!(parse_source(text), Ok(Source::Sqlite(path)) if path == Path::new(text)), "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_server_is_read() {
        let spellings = ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "postgresql+psycopg"];
        for scheme in spellings {
            let read = parse_source(&format!("{scheme}://u:p@h:5433/d"));
            assert!(
                matches!(read, Ok(Source::Postgres(params)) if params.shown() == "postgres://u@h:5433/d"),
                "{scheme}"
            );
        }
    }
}
