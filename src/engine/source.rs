//! Parses the names of sources and targets: an SQLite file, or a PostgreSQL database.

use std::path::{Path, PathBuf};

use crate::engine::postgres::restore::target::Server;
use crate::engine::postgres::wire::params::{self, Params};
use crate::engine::{Live, postgres, sqlite};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::id::SourceName;

/// A source or target as the user names it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    Sqlite(PathBuf),
    /// A database on a server.
    Postgres(Box<Params>),
}

impl Source {
    /// Returns true if the other source is the same place.
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

    /// The name that manifests have for the engine: `sqlite` or `postgres`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self {
            Source::Sqlite(_) => "sqlite",
            Source::Postgres(_) => "postgres",
        }
    }

    /// Returns the path, or the URL without its password.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Source::Sqlite(path) => path.display().to_string(),
            Source::Postgres(params) => params.shown(),
        }
    }

    /// Returns the database file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Source::Sqlite(path) => Some(path),
            Source::Postgres(_) => None,
        }
    }

    /// Returns the parameters of the connection, if the database is on a server.
    #[must_use]
    pub fn server(&self) -> Option<&Params> {
        match self {
            Source::Sqlite(_) => None,
            Source::Postgres(params) => Some(params),
        }
    }

    /// Returns a source name made from the name of the file or of the database.
    #[must_use]
    pub fn derived_name(&self) -> Option<SourceName> {
        match self {
            Source::Sqlite(path) => path.file_name().and_then(|name| SourceName::derive(&name.to_string_lossy())),
            Source::Postgres(params) => SourceName::derive(params.database()),
        }
    }

    /// Opens the database for inspection.
    pub fn open(&self) -> Result<Box<dyn Live>> {
        match self {
            Source::Sqlite(path) => sqlite::live::open(path),
            Source::Postgres(params) => postgres::live::open(params),
        }
    }

    /// Returns true if the file does not exist, or if the server answers and does not have the database.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Source::Sqlite(path) => {
                std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            }
            Source::Postgres(params) => {
                let look = || Server::connect(params)?.look(params.database());
                look().is_ok_and(|found| found.is_none())
            }
        }
    }

    /// Returns true if a database that could not be opened, with this error, is absent or damaged. A database that is
    /// locked, or whose server is down, is neither, and nothing may be restored over it. The same holds for a file that
    /// is not a database: somebody has put it there.
    #[must_use]
    pub fn is_absent_or_damaged(&self, error: &Error) -> bool {
        self.is_absent() || self.file().is_some() && error.kind == Kind::Problem
    }
}

/// Parses a source from the command line. Text with a colon but no slashes after it may be a file name there.
pub fn parse_source(text: &str) -> Result<Source> {
    if text.contains("://")
        && let Some(path) = sqlite_path(text)?
    {
        return Ok(Source::Sqlite(path));
    }
    parse_other(text)
}

/// Parses a source from a config or an application's variable. It also accepts `file:dev.db` and `sqlite:app.db`, the
/// forms of SQLite itself, Prisma and Rails.
pub fn parse_source_url(text: &str) -> Result<Source> {
    match sqlite_path(text)? {
        Some(path) => Ok(Source::Sqlite(path)),
        None => parse_other(text),
    }
}

fn parse_other(text: &str) -> Result<Source> {
    // 'host=x' may be the name of a file too.
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

/// Returns the file that an SQLite URL names, or `None` if the text is not an SQLite URL.
///
/// As in SQLAlchemy, three slashes start a relative path, four an absolute one, and a driver may follow a '+'. Without
/// slashes, the path is taken as it is.
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
        // On a command line, these are file names.
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
