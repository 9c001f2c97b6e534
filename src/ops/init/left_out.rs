//! The reasons why a database that was found by its content is not made a source.

use std::path::{Component, Path};

use crate::ops::init::yaml::{self, Node};
use crate::platform::disk::read_bounded;

/// Parts of the names of files that are copies.
const COPIES: [&str; 7] = [".bak", ".old", ".orig", ".backup", ".tmp", ".copy", ".damaged-"];

/// The names of folders that hold the data of tests.
const TEST_FOLDERS: [&str; 10] =
    ["test", "tests", "spec", "specs", "__tests__", "testdata", "test-data", "fixtures", "e2e", "cypress"];

/// The maximum size of a file that describes databases, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The files of a project that say which of its databases matter.
pub(super) struct Project<'a> {
    folder: &'a Path,
    rails: Option<Rails>,
    is_laravel: bool,
}

/// The roles of Rails' databases that hold no data of the application.
const OTHER_ROLES: [&str; 3] = ["cache", "queue", "cable"];

/// The databases of a Rails application (<https://guides.rubyonrails.org/configuring.html#configuring-a-database>).
struct Rails {
    /// The environment, the role and the path of each database in `config/database.yml`.
    databases: Vec<(String, String, String)>,
    has_production: bool,
}

impl<'a> Project<'a> {
    /// Reads the files of a project.
    pub(super) fn read(folder: &'a Path) -> Self {
        let text = read_bounded(&folder.join("config/database.yml"), MAX_BYTES).ok().flatten();
        let rails = text.map(|text| Rails::read(folder, &String::from_utf8_lossy(&text)));
        Project { folder, rails, is_laravel: folder.join("artisan").is_file() }
    }

    /// Returns the reason why the database at `path` is not a source, if there is one.
    pub(super) fn reason(&self, path: &Path) -> Option<String> {
        let name = path.file_name()?.to_string_lossy();
        if name.ends_with('~') || COPIES.iter().any(|word| name.contains(word)) {
            return Some("it looks like a copy of a database".to_owned());
        }
        let below = path.strip_prefix(self.folder).unwrap_or(path);
        let mut folders = below.parent()?.components();
        let is_test_folder = |part: Component<'_>| {
            part.as_os_str().to_str().is_some_and(|part| TEST_FOLDERS.contains(&part.to_ascii_lowercase().as_str()))
        };
        if folders.any(is_test_folder) {
            return Some("it is in a folder of tests".to_owned());
        }
        if self.is_laravel && matches!(&*name, "testing.sqlite" | "test.sqlite") {
            return Some("it is Laravel's database for tests".to_owned());
        }
        self.rails.as_ref()?.reason(below)
    }
}

impl Rails {
    fn read(folder: &Path, text: &str) -> Self {
        let root = yaml::parse(text);
        let mut databases = Vec::new();
        for environment in &root.children {
            let mut add = |role: &str, node: &Node| {
                if let Some(path) = node.get("database") {
                    let path = path.value.trim_start_matches("./").to_owned();
                    databases.push((environment.key.clone(), role.to_owned(), path));
                }
            };
            add("primary", environment);
            environment.children.iter().for_each(|child| add(&child.key, child));
        }
        let of_production = |(environment, role, path): &(String, String, String)| {
            environment == "production" && !OTHER_ROLES.contains(&role.as_str()) && folder.join(path).is_file()
        };
        let by_name = ["storage", "db"].iter().any(|part| folder.join(part).join("production.sqlite3").is_file());
        let has_production = by_name || databases.iter().any(of_production);
        Rails { databases, has_production }
    }

    fn reason(&self, below: &Path) -> Option<String> {
        let text = below.to_str()?;
        let of_file = self.databases.iter().filter(|(.., path)| path == text);
        let mut known: Vec<(String, String)> = of_file.map(|(env, role, _)| (env.clone(), role.clone())).collect();
        if known.is_empty() {
            known.push(Self::by_name(below)?);
        }
        // A file of several environments has the data of the most important one.
        let is_production = known.iter().any(|(environment, _)| environment == "production");
        let (environment, role) =
            known.iter().find(|(environment, _)| environment == "production").or(known.first())?.clone();
        match (environment.as_str(), role.as_str()) {
            (_, role) if OTHER_ROLES.contains(&role) => Some(format!("it is Rails' {role} of {environment}")),
            ("test", _) => Some("it is Rails' database for tests".to_owned()),
            ("development", _) if self.has_production && !is_production => {
                Some("it is Rails' database for development, and there is one for production".to_owned())
            }
            _ => None,
        }
    }

    /// Returns the environment and the role that a name such as `production_cache.sqlite3` says.
    fn by_name(below: &Path) -> Option<(String, String)> {
        let stem = below.file_name()?.to_str()?.split('.').next()?;
        let words: Vec<&str> = stem.split(['_', '-']).collect();
        let of = |known: &[&str]| words.iter().find(|word| known.contains(word)).map(|word| (*word).to_owned());
        let environment = of(&["production", "development", "test", "staging"]);
        let role = of(&OTHER_ROLES);
        (environment.is_some() || role.is_some()).then(|| {
            (environment.unwrap_or_else(|| "unknown".to_owned()), role.unwrap_or_else(|| "primary".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_rails_are_known_by_the_config_and_by_their_names() {
        let text = "default: &default\n  adapter: sqlite3\n\ndevelopment:\n  <<: *default\n  database: storage/development.sqlite3\n\
                    test:\n  <<: *default\n  database: data/checks.sqlite3\nproduction:\n  primary:\n    <<: *default\n    \
                    database: storage/production.sqlite3\n  cache:\n    database: data/entries.sqlite3\n";
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("storage")).expect("a folder");
        let left_out = |rails: &Rails, path: &str| rails.reason(Path::new(path)).is_some();
        let rails = Rails::read(folder.path(), text);
        for path in
            ["data/checks.sqlite3", "data/entries.sqlite3", "storage/test.sqlite3", "storage/production_queue.sqlite3"]
        {
            assert!(left_out(&rails, path), "{path}");
        }
        for path in ["storage/production.sqlite3", "storage/development.sqlite3", "data/own.sqlite3"] {
            assert!(!left_out(&rails, path), "{path}");
        }
        std::fs::write(folder.path().join("storage/production.sqlite3"), "").expect("written");
        assert!(left_out(&Rails::read(folder.path(), text), "storage/development.sqlite3"));
    }
}
