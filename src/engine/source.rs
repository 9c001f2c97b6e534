//! Lists the database engines, and reads the names of sources and targets: an SQLite file, or a PostgreSQL database.

use std::path::{Path, PathBuf};

use crate::engine::database::Engine;
use crate::engine::postgres::database::{PostgresDatabase, PostgresEngine};
use crate::engine::postgres::wire::params::{self, Params};
use crate::engine::sqlite::database::{SqliteEngine, SqliteFile};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::home;

pub use crate::engine::database::Source;

/// All engines.
static ENGINES: [&dyn Engine; 2] = [&SqliteEngine, &PostgresEngine];

/// Returns the engine of that name, as manifests have it.
pub(crate) fn engine_named(name: &str) -> Result<&'static dyn Engine> {
    ENGINES.into_iter().find(|engine| engine.name() == name).ok_or_else(|| {
        Error::problem(format!("the database engine '{}' is not supported by this version of lifeboat", one_line(name)))
            .hint("use a newer version of lifeboat")
    })
}

/// Makes a source of an SQLite file.
pub(crate) fn sqlite_file(path: PathBuf) -> Source {
    Source::new(SqliteFile(path))
}

/// Makes a source of a PostgreSQL database.
pub(crate) fn postgres_database(params: Params) -> Source {
    Source::new(PostgresDatabase(params))
}

/// Parses a source from the command line. Text with a colon but no slashes after it may be a file name there.
pub fn parse_source(text: &str) -> Result<Source> {
    if text.contains("://")
        && let Some(path) = sqlite_path(text)?
    {
        return Ok(sqlite_file(path));
    }
    parse_other(text)
}

/// Parses a source from a config or an application's variable. It also accepts `file:dev.db` and `sqlite:app.db`, the
/// forms of SQLite itself, Prisma and Rails.
pub fn parse_source_url(text: &str) -> Result<Source> {
    match sqlite_path(text)? {
        Some(path) => Ok(sqlite_file(path)),
        None => parse_other(text),
    }
}

fn parse_other(text: &str) -> Result<Source> {
    // 'host=x' may be the name of a file too.
    if params::looks_like(text) && (text.contains("://") || !Path::new(text).exists()) {
        return Ok(postgres_database(Params::parse(text)?));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Error::usage(format!("sources of the type {}:// are not supported", one_line(scheme)))
            .hint("name an SQLite file or a PostgreSQL URL"));
    }
    if text.is_empty() {
        return Err(Error::usage("a source has an empty name").hint("name an SQLite file or a PostgreSQL URL"));
    }
    require_expanded(text)?;
    Ok(sqlite_file(PathBuf::from(text)))
}

/// Fails for a path that a shell would have expanded.
fn require_expanded(path: &str) -> Result<()> {
    home::refuse(path, "write the full path; a shell expands '~' only at the start of a word that is not in quotes")
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
        return Err(Error::usage(format!("'{}' does not name a file", one_line(text)))
            .hint("write sqlite:///relative.db or sqlite:////absolute.db"));
    }
    require_expanded(path)?;
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
            let read = parse_source_url(text).unwrap_or_else(|error| panic!("{text}: {}", error.full_message()));
            assert!(read.file() == Some(Path::new(path)), "{text}: {read:?}");
        }
        for text in ["sqlite://", "sqlite:///", "sqlite:", "file:", "mysql://host/db", ""] {
            assert!(parse_source_url(text).is_err(), "{text}");
        }
        // On a command line, these are file names.
        for text in ["file:x?mode=memory", "sqlite:app.db", "a:b"] {
            assert!(parse_source(text).is_ok_and(|read| read.file() == Some(Path::new(text))), "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_server_is_read() {
        let spellings = ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "postgresql+psycopg"];
        for scheme in spellings {
            let read = parse_source(&format!("{scheme}://u:p@h:5433/d"));
            assert!(
                read.is_ok_and(|read| read.server().is_some() && read.shown() == "postgres://u@h:5433/d"),
                "{scheme}"
            );
        }
    }
}
