//! The SQLite databases of Prisma. Their URLs are relative to the folder of the schema, not to that of the project
//! (<https://www.prisma.io/docs/orm/overview/databases/sqlite>).

use std::path::{Path, PathBuf};

use crate::platform::disk::read_bounded;

/// The maximum size of a schema that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A schema whose database is an SQLite file that a variable names.
pub(super) struct PrismaSchema {
    /// The folder of the schema's file, where the paths of its URL begin.
    pub(super) folder: PathBuf,
    /// The variable that holds the URL.
    pub(super) variable: String,
}

/// Reads the schema at `path`. Returns `None` if its database is not an SQLite file, or not named by a variable: such
/// a file is found by its content. The schemas of Prisma 7 have no URL.
pub(super) fn read(path: &Path) -> Option<PrismaSchema> {
    let text = String::from_utf8(read_bounded(path, MAX_BYTES).ok()??).ok()?;
    let variable = variable_of(&text)?;
    Some(PrismaSchema { folder: path.parent()?.to_owned(), variable })
}

/// Returns the variable with the URL of the datasource, if that is an SQLite file.
fn variable_of(schema: &str) -> Option<String> {
    let lines = schema.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    let mut lines = lines.skip_while(|line| !line.starts_with("datasource "));
    let (mut is_sqlite, mut variable) = (false, None);
    for line in lines.by_ref().take_while(|line| !line.starts_with('}')) {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key.trim() {
            "provider" => is_sqlite = value.trim().trim_matches('"') == "sqlite",
            "url" => {
                let inside = value.trim().strip_prefix("env(").and_then(|rest| rest.strip_suffix(')'));
                variable = inside.map(|name| name.trim().trim_matches(['"', '\'']).to_owned());
            }
            _ => {}
        }
    }
    variable.filter(|name| is_sqlite && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_variable_of_an_sqlite_datasource_is_returned() {
        let schema = |provider: &str, url: &str| {
            format!(
                "// datasource x {{\ngenerator client {{\n  provider = \"a\"\n}}\n\ndatasource db {{\n  provider = {provider}\n  {url}\n}}\n"
            )
        };
        let with = |provider: &str, url: &str| variable_of(&schema(provider, url));
        assert_eq!(with("\"sqlite\" // a file", "url = env(\"DB\")").as_deref(), Some("DB"));
        assert_eq!(with("\"postgresql\"", "url = env(\"DB\")"), None);
        assert_eq!(with("\"sqlite\"", "url = \"file:./dev.db\""), None);
        assert_eq!(with("\"sqlite\"", ""), None);
        assert_eq!(variable_of("model A {\n}"), None);
    }
}
