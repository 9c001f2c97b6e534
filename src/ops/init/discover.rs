//! Finds databases to save and stores to save them in. It reads environment variables and `.env`, and searches for
//! SQLite files and mounted volumes.
//!
//! The value of a variable may be a secret: a URL or password is read, but never shown or written.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use crate::config::Variables;
use crate::engine::postgres::wire::params::Params;
use crate::engine::saving::SaveRequest;
use crate::engine::source::{parse_source_url, sqlite_file};
use crate::engine::sqlite::header::MAGIC;
use crate::ops::init::ENV_FILE;
use crate::ops::init::compose::{self, Setting};
use crate::ops::init::left_out::Project;
use crate::ops::init::prisma::{self, PrismaSchema};
use crate::ops::init::toml_text::{literal, quoted};
use crate::platform::disk::{open_plain, resolve_target, shown};
use crate::platform::error::{Kind, one_line};
use crate::snapshots::id::SourceName;

/// The maximum depth of folders below the config's folder that are searched for SQLite files.
const MAX_DEPTH: usize = 3;
/// The maximum number of files and folders that are inspected.
const MAX_NAMES: usize = 20_000;
/// The maximum number of SQLite files that are added as sources. If there are more, the user must choose.
const MAX_FILES: usize = 25;

/// Folders that hold no data of the application, and are not searched.
const EXCLUDED_FOLDERS: [&str; 8] =
    ["node_modules", "bower_components", "vendor", "target", "venv", "__pycache__", "site-packages", "lost+found"];

/// Endings of the names of variables that hold the URL of a database, the most likely first.
const URL_ENDINGS: [&str; 20] = [
    "DATABASE_URL",
    "DATABASE_URI",
    "DATABASE_DSN",
    "DB_URL",
    "DB_URI",
    "DB_DSN",
    "POSTGRES_URL",
    "POSTGRES_URI",
    "POSTGRES_DSN",
    "POSTGRESQL_URL",
    "POSTGRESQL_URI",
    "PG_URL",
    "PG_URI",
    "PG_DSN",
    "TIMESCALE_URL",
    "TIMESCALEDB_URL",
    "SQLITE_URL",
    "SQLITE_URI",
    "SQLITE_DSN",
    "SQL_URL",
];

/// Endings of the names of variables that hold the path of an SQLite file.
const PATH_ENDINGS: [&str; 7] =
    ["DATABASE_PATH", "DATABASE_FILE", "DB_PATH", "DB_FILE", "SQLITE_PATH", "SQLITE_FILE", "SQLITE_DB"];

/// Words in the names of variables that belong to services other than PostgreSQL.
const OTHER_SERVICES: [&str; 24] = [
    "REDIS",
    "VALKEY",
    "MYSQL",
    "MARIADB",
    "MSSQL",
    "ORACLE",
    "MONGO",
    "MONGODB",
    "SMTP",
    "MAIL",
    "EMAIL",
    "IMAP",
    "RABBITMQ",
    "AMQP",
    "KAFKA",
    "MQTT",
    "ELASTIC",
    "ELASTICSEARCH",
    "CLICKHOUSE",
    "INFLUXDB",
    "LDAP",
    "FTP",
    "SFTP",
    "SSH",
];

/// Variables that name a bucket.
const BUCKETS: [&str; 5] = ["LIFEBOAT_BUCKET", "S3_BUCKET", "AWS_S3_BUCKET", "S3_BUCKET_NAME", "BUCKET_NAME"];

/// Variables of AWS that show that S3 is in use.
const AWS: [&str; 6] =
    ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// A database that was found.
pub(super) struct FoundSource {
    pub(super) name: SourceName,
    /// `sqlite` or `postgres`.
    pub(super) kind: &'static str,
    /// The variable, or the file's path as it is written in the config.
    pub(super) from: String,
    /// The keys and values of the source in the config. Variables appear as `${NAME}`; all other text is escaped.
    pub(super) keys: Vec<(&'static str, String)>,
    /// The SQLite file.
    pub(super) file: Option<PathBuf>,
    /// The variables that must be set wherever the program runs, as messages name them.
    pub(super) needs: String,
    /// Remarks for the user, which become comments in the config.
    pub(super) remarks: Vec<String>,
    /// True if it becomes a source of the config; otherwise it is only a comment there.
    pub(super) is_used: bool,
    /// A text that identifies the database: it is equal if two variables or files name the same database.
    identity: String,
}

/// A volume of the hosting platform.
pub(super) struct Volume {
    pub(super) variable: String,
    pub(super) path: PathBuf,
}

/// Everything that was found.
pub(super) struct Findings {
    pub(super) sources: Vec<FoundSource>,
    /// The bucket, and the variable that names it.
    pub(super) bucket: Option<(String, String)>,
    /// The variables of AWS that are set.
    pub(super) aws: Vec<String>,
    pub(super) volumes: Vec<Volume>,
    /// The state of the file `.env`: `None` if it does not exist, `Some(Err(..))` with the reason if it cannot be used.
    pub(super) env_file: Option<Result<(), String>>,
    /// Notes on variables and files that were found but cannot be used.
    pub(super) notes: Vec<String>,
    pub(super) variables: Variables,
    pub(super) mounts: Mounts,
}

/// Searches in and below `folder`, which is absolute, but never in the folders of `stores`.
pub(super) fn discover(folder: &Path, stores: &[PathBuf]) -> Findings {
    let env_path = folder.join(crate::ops::init::ENV_FILE);
    let (variables, env_file) = match std::fs::symlink_metadata(&env_path) {
        Err(_) => (Variables::default(), None),
        Ok(_) => match Variables::read(&env_path) {
            Ok(variables) => (variables, Some(Ok(()))),
            Err(error) => (Variables::default(), Some(Err(error.full_message()))),
        },
    };
    let all = variables.all();
    let volumes = volumes(&all);
    let bucket = BUCKETS.iter().find_map(|name| all.get(*name).filter(|bucket| is_bucket(bucket)).map(|b| (*name, b)));
    let mut search = Search { folder, tree: Tree::default(), sources: Vec::new(), notes: Vec::new() };
    search.tree.walk(folder, stores, volumes.iter().map(|volume| volume.path.as_path()));
    search.variables(&all);
    search.prefixes(&all);
    search.compose(&all);
    search.files();
    search.name_left_out();
    let Search { sources, notes, .. } = search;
    Findings {
        sources,
        bucket: bucket.map(|(name, bucket)| (name.to_owned(), bucket.clone())),
        aws: AWS.iter().filter(|name| all.contains_key(**name)).map(|name| (*name).to_owned()).collect(),
        volumes,
        env_file,
        notes,
        mounts: Mounts::read(&all),
        variables,
    }
}

/// The files that a search has found.
#[derive(Default)]
struct Tree {
    /// The SQLite files, those in the upper folders first.
    databases: Vec<PathBuf>,
    /// The schemas of Prisma.
    schemas: Vec<PrismaSchema>,
    /// The note that the search has stopped early.
    note: Option<String>,
}

struct Search<'a> {
    folder: &'a Path,
    tree: Tree,
    sources: Vec<FoundSource>,
    notes: Vec<String>,
}

impl Search<'_> {
    /// Adds the databases of variables that hold a URL or the path of a file.
    fn variables(&mut self, all: &BTreeMap<String, String>) {
        let rank =
            |name: &str| URL_ENDINGS.iter().position(|ending| ends_with_word(&name.to_ascii_uppercase(), ending));
        let mut urls: Vec<_> =
            all.iter().filter_map(|(name, value)| Some((rank(name)?, name.len(), name, value))).collect();
        urls.sort();
        for (_, _, name, value) in urls {
            self.url(name, value);
        }
        for (name, value) in all {
            let upper = name.to_ascii_uppercase();
            let file = self.folder.join(value);
            if PATH_ENDINGS.iter().any(|ending| ends_with_word(&upper, ending)) && is_sqlite(&file) {
                self.sqlite(name, PathBuf::from(value));
            }
        }
    }

    fn url(&mut self, variable: &str, value: &str) {
        if value.trim().is_empty() {
            return;
        }
        match parse_source_url(value) {
            Ok(source) => match source.server() {
                Some(params) => self.server(variable, params),
                None => self.file_of_url(variable, value, source.file().unwrap_or(Path::new(""))),
            },
            Err(_) => self.notes.push(format!("{variable} does not name a database that lifeboat supports")),
        }
    }

    /// Adds the database on a server that a variable names.
    fn server(&mut self, variable: &str, params: &Params) {
        let database = params.database();
        // If the password in the URL is not escaped, a part of it may be parsed as the name of the database. Such a
        // name must not be shown.
        let is_plain = !database.contains(['@', '/', ':', '?', '#']);
        let preferred = if is_plain { database } else { variable };
        let keys = vec![("url", format!("${{{variable}}}"))];
        let identity = server_identity(params.host(), &params.port().to_string(), database);
        self.add("postgres", variable.to_owned(), keys, preferred, None, identity);
    }

    /// Adds the SQLite file that a variable names with the URL or path `value`.
    fn file_of_url(&mut self, variable: &str, value: &str, path: &Path) {
        let is_memory = path.as_os_str() == ":memory:" || value.contains("mode=memory");
        let has_ending =
            ["db", "db3", "sqlite", "sqlite3"].iter().any(|ending| path.extension() == Some((*ending).as_ref()));
        if is_memory {
            self.notes.push(format!("{variable} is a database in memory: there is nothing to save"));
        } else if value.contains(':') || has_ending || is_sqlite(&self.folder.join(path)) {
            self.sqlite(variable, path.to_owned());
        } else {
            self.notes.push(format!("{variable} does not name a database that lifeboat supports"));
        }
    }

    /// Adds an SQLite file that a variable names.
    fn sqlite(&mut self, variable: &str, path: PathBuf) {
        let in_folder = self.folder.join(path.strip_prefix(".").unwrap_or(&path));
        let file = self.file_of_variable(variable, &path).unwrap_or_else(|| in_folder.clone());
        let preferred = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // The program that uses the variable may start at another folder than the config's.
        let text = (file != in_folder).then(|| crate::ops::init::path_in_config(self.folder, &file)).flatten();
        let url = text.as_ref().map_or_else(|| format!("${{{variable}}}"), |text| literal(text));
        let identity = file_identity(&file);
        let (from, keys) = (variable.to_owned(), vec![("url", url)]);
        if !self.add("sqlite", from, keys, &preferred, Some(file.clone()), identity) {
            return;
        }
        let source = self.sources.last_mut().expect("one was just added");
        if text.is_some() {
            let value = one_line(&path.display().to_string());
            source.remarks.push(format!("{variable} names it as {value}, from another folder than this file's"));
        }
        match std::fs::metadata(&file) {
            Err(_) => source
                .remarks
                .push("the file does not exist yet; a relative path begins in this file's folder".to_owned()),
            Ok(_) if !is_sqlite(&file) => {
                source.is_used = false;
                source.remarks.push("the file is not an SQLite database yet".to_owned());
            }
            Ok(_) => source.require_savable(&file),
        }
    }

    /// Returns the file that a variable with a relative path names, if it is certain that the path does not begin in the
    /// config's folder: Prisma's begin beside the schema. If there is no such file, it is the only one of that name that
    /// was found, as with Flask, whose paths begin in the folder `instance`, or in a repository of several projects.
    fn file_of_variable(&self, variable: &str, path: &Path) -> Option<PathBuf> {
        if path.is_absolute() {
            return None;
        }
        let schema = self.tree.schemas.iter().find(|schema| schema.variable == variable);
        let of_prisma = schema.map(|schema| clean(&schema.folder.join(path)));
        if let Some(file) = of_prisma.as_ref().filter(|file| is_sqlite(file)) {
            return Some(file.clone());
        }
        let in_folder = clean(&self.folder.join(path));
        if is_sqlite(&in_folder) {
            return None;
        }
        let end = clean(path);
        let mut same = self.tree.databases.iter().filter(|file| file.ends_with(&end));
        match (same.next(), same.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => of_prisma,
        }
    }

    /// Adds the databases that are defined by a group of variables: `TDX_DB_HOST`, `TDX_DB_NAME` and so on, or libpq's
    /// `PGHOST`, `PGDATABASE` and so on.
    fn prefixes(&mut self, all: &BTreeMap<String, String>) {
        let set = |name: String| all.get(&name).filter(|value| !value.is_empty());
        for name in all.keys().filter(|name| name.ends_with("HOST")) {
            let prefix = name.strip_suffix("HOST").expect("filtered just above");
            if !(prefix.ends_with('_') || prefix == "PG") || set(name.clone()).is_none() {
                continue;
            }
            let ending = |endings: &[&str]| endings.iter().find_map(|ending| set(format!("{prefix}{ending}")));
            let is_other = prefix.split('_').any(|word| OTHER_SERVICES.contains(&word))
                || ending(&["PORT"])
                    .is_some_and(|port| matches!(port.as_str(), "3306" | "1433" | "1521" | "27017" | "6379"))
                || ending(&["CONNECTION", "ENGINE", "DRIVER", "DIALECT", "TYPE"])
                    .is_some_and(|kind| !is_postgres_word(kind));
            let host = set(name.clone()).map(String::as_str).unwrap_or_default();
            match ending(&["NAME", "DBNAME", "DATABASE", "DB"]) {
                _ if is_other => {}
                Some(database) if prefix == "PG" || ending(&["USER", "USERNAME", "PASSWORD", "PASS"]).is_some() => {
                    let port = ending(&["PORT"]).map_or("5432", String::as_str);
                    let identity = server_identity(host, port, database);
                    let keys = vec![("env_prefix", prefix.to_owned())];
                    self.add("postgres", format!("{prefix}*"), keys, database, None, identity);
                }
                // If no database is named, libpq uses the user's name.
                None if prefix == "PG" && ending(&["USER"]).is_some() => {
                    let keys = vec![("host", "${PGHOST}".to_owned()), ("dbname", "${PGUSER}".to_owned())];
                    let user = ending(&["USER"]).map(String::as_str).unwrap_or_default();
                    let port = ending(&["PORT"]).map_or("5432", String::as_str);
                    self.add("postgres", "PG*".to_owned(), keys, user, None, server_identity(host, port, user));
                }
                _ => {}
            }
        }
        match (set("PGSERVICE".to_owned()), set("PGDATABASE".to_owned()), set("PGHOST".to_owned())) {
            (Some(service), _, None) => {
                let keys = vec![("service", "${PGSERVICE}".to_owned())];
                let identity = format!("service {service}");
                self.add("postgres", "PGSERVICE".to_owned(), keys, service, None, identity);
            }
            (None, Some(database), None) => {
                let keys = vec![("env_prefix", "PG".to_owned())];
                let port = set("PGPORT".to_owned()).map_or("5432", String::as_str);
                self.add("postgres", "PG*".to_owned(), keys, database, None, server_identity("socket", port, database));
            }
            _ => {}
        }
    }

    /// Adds the PostgreSQL servers of a compose file.
    fn compose(&mut self, all: &BTreeMap<String, String>) {
        for server in compose::servers(self.folder) {
            let value = |setting: &Setting| match setting {
                Setting::Text(text) => text.clone(),
                Setting::Variable(name, default) => {
                    all.get(name).cloned().or_else(|| default.clone()).unwrap_or_default()
                }
            };
            let written = |setting: &Setting| match setting {
                Setting::Text(text) => literal(text),
                Setting::Variable(name, Some(default)) if !default.contains(['}', '$']) => {
                    format!("${{{name}:-{default}}}")
                }
                Setting::Variable(name, _) => format!("${{{name}}}"),
            };
            let (port, database) = (server.port.as_ref().map(value), value(&server.database));
            let here = server_identity("localhost", port.as_deref().unwrap_or("5432"), &database);
            // A variable may name the same database by the name of the service.
            let there = server_identity(&server.service, "5432", &database);
            if self.sources.iter().any(|source| source.identity == here || source.identity == there) {
                continue;
            }
            let mut keys = vec![("host", "127.0.0.1".to_owned())];
            keys.extend(server.port.as_ref().map(|port| ("port", written(port))));
            keys.extend([("dbname", written(&server.database)), ("user", written(&server.user))]);
            keys.extend(server.password.as_ref().map(|variable| ("password", format!("${{{variable}}}"))));
            let from = format!("{}: {}", server.file, server.service);
            let preferred = if database.is_empty() { &server.service } else { &database };
            self.add("postgres", from, keys, preferred, None, here);
            let source = self.sources.last_mut().expect("one was just added");
            let is_missing = |setting: &&Setting| match setting {
                Setting::Text(_) | Setting::Variable(_, Some(_)) => None,
                Setting::Variable(name, None) => Some(name.clone()).filter(|name| !all.contains_key(name)),
            };
            let settings = [Some(&server.database), Some(&server.user), server.port.as_ref()];
            let mut missing: Vec<String> = settings.iter().flatten().filter_map(is_missing).collect();
            missing.extend(server.password.clone().filter(|name| all.get(name).is_none_or(String::is_empty)));
            source.needs = missing.join(", ");
            if server.port.is_none() {
                source.remarks.push(format!(
                    "the service {} publishes no port: publish 5432, or run lifeboat as a service beside it with host = {}",
                    server.service,
                    quoted(&server.service)
                ));
            }
            if !missing.is_empty() {
                let place = if server.has_plain_password { " to the value in the compose file" } else { "" };
                let names = missing.join(", ");
                source.remarks.push(format!("set {names}{place} in {ENV_FILE} or the environment, and remove the '#'"));
            }
            source.is_used = source.remarks.is_empty();
        }
    }

    /// Adds the SQLite files that were found by their content.
    fn files(&mut self) {
        self.notes.extend(self.tree.note.take());
        let project = Project::read(self.folder);
        for path in std::mem::take(&mut self.tree.databases) {
            let Some(text) = crate::ops::init::path_in_config(self.folder, &path) else {
                let path = shown(&path);
                self.notes.push(format!("{path} is a database whose name cannot be written into a config"));
                continue;
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let keys = vec![("url", literal(&text))];
            let identity = file_identity(&path);
            if self.add("sqlite", text, keys, &name, Some(path.clone()), identity) {
                let source = self.sources.last_mut().expect("one was just added");
                match project.reason(&path) {
                    Some(reason) => {
                        source.is_used = false;
                        source.remarks.push(reason);
                    }
                    None => source.require_savable(&path),
                }
            }
        }
    }

    /// Adds a note with the databases that are not made sources.
    fn name_left_out(&mut self) {
        for source in self.sources.iter().filter(|source| !source.is_used) {
            let reasons: Vec<String> = source.remarks.iter().map(|remark| one_line(remark)).collect();
            self.notes.push(format!("{} is not made a source: {}", one_line(&source.from), reasons.join("; ")));
        }
    }

    /// Adds a source with a name made from `preferred`. Returns false if the same database was already added.
    fn add(
        &mut self,
        kind: &'static str,
        from: String,
        keys: Vec<(&'static str, String)>,
        preferred: &str,
        file: Option<PathBuf>,
        identity: String,
    ) -> bool {
        if self.sources.iter().any(|source| source.identity == identity) {
            return false;
        }
        let parent = file.as_ref().and_then(|file| file.parent()?.file_name()?.to_str());
        let name = self.free_name(preferred, parent, kind);
        let needs = from.clone();
        let remarks = Vec::new();
        self.sources.push(FoundSource { name, kind, from, keys, file, needs, remarks, is_used: true, identity });
        true
    }

    /// Returns a name that no other source has. Upper and lower case count as equal, because some file systems ignore
    /// case.
    fn free_name(&self, preferred: &str, parent: Option<&str>, kind: &str) -> SourceName {
        let is_free = |name: &SourceName| {
            !self.sources.iter().any(|source| source.name.as_str().eq_ignore_ascii_case(name.as_str()))
        };
        // `derive` removes a file extension. The name of a PostgreSQL database has none, so an empty one is added.
        let plain = if kind == "postgres" { format!("{preferred}.") } else { preferred.to_owned() };
        let name = SourceName::derive(&plain);
        let with_parent =
            parent.filter(|_| name.is_some()).and_then(|parent| SourceName::derive(&format!("{parent}-{plain}")));
        if let Some(free) = name.iter().chain(&with_parent).find(|name| is_free(name)) {
            return free.clone();
        }
        let stem = name.as_ref().map_or(kind, SourceName::as_str);
        let stem = &stem[..stem.len().min(SourceName::MAX_BYTES - 6)];
        // The loop ends, because some number is not used by any source.
        (1..)
            .map(|number| if number == 1 { stem.to_owned() } else { format!("{stem}-{number}") })
            .filter_map(|name| name.parse().ok())
            .find(is_free)
            .expect("there are more numbers than sources")
    }
}

impl FoundSource {
    /// Makes the database only a comment if `snapshot` certainly refuses it, such as one without tables.
    fn require_savable(&mut self, file: &Path) {
        if let Err(error) = sqlite_file(file.to_owned()).locate(&SaveRequest::default())
            && matches!(error.kind, Kind::Usage | Kind::Problem)
        {
            self.is_used = false;
            self.remarks.push(error.full_message());
        }
    }
}

impl Tree {
    /// Finds the files below `folder` and on the volumes, those in the upper folders first.
    fn walk<'b>(&mut self, folder: &Path, stores: &[PathBuf], volumes: impl Iterator<Item = &'b Path>) {
        let mut queue: VecDeque<(PathBuf, usize)> = VecDeque::from([(folder.to_owned(), 0)]);
        queue.extend(volumes.filter(|volume| !volume.starts_with(folder)).map(|volume| (volume.to_owned(), 0)));
        let mut left = MAX_NAMES;
        while let Some((folder, depth)) = queue.pop_front() {
            // A folder that cannot be read is skipped: it does not belong to the application.
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut entries: Vec<_> = entries.flatten().take(left).collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                if left == 0 || self.databases.len() == MAX_FILES {
                    let (searched, files) = (MAX_NAMES - left, self.databases.len());
                    let place = shown(&folder);
                    self.note =
                        Some(format!("the search stopped in {place} after {searched} names and {files} databases"));
                    return;
                }
                left -= 1;
                let Ok(kind) = entry.file_type() else { continue };
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if kind.is_dir() && depth < MAX_DEPTH && !is_excluded(&path, &name, stores) {
                    queue.push_back((path, depth + 1));
                } else if kind.is_file() && name.ends_with(".prisma") {
                    self.schemas.extend(prisma::read(&path));
                } else if kind.is_file() && !name.starts_with(".lifeboat-") && is_sqlite(&path) {
                    self.databases.push(path);
                }
            }
        }
    }
}

/// Returns a path without `.` and `..`, as far as its own parts can stand for `..`.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

/// Returns true if `name` is `ending`, or ends with it after a `_`.
fn ends_with_word(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending)
        .is_some_and(|before| (before.is_empty() || before.ends_with('_')) && !before.starts_with("LIFEBOAT_"))
}

fn is_postgres_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ["postgres", "pgsql", "postgis", "timescale", "psycopg", "asyncpg"].iter().any(|known| word.contains(known))
        || word == "pg"
}

fn server_identity(host: &str, port: &str, database: &str) -> String {
    let host = if matches!(host, "127.0.0.1" | "::1") { "localhost" } else { host };
    format!("server {host}:{port}/{database}").to_ascii_lowercase()
}

fn file_identity(path: &Path) -> String {
    let real = resolve_target(path).unwrap_or_else(|_| path.to_owned());
    format!("file {}", real.display())
}

fn is_bucket(name: &str) -> bool {
    (3..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Returns true if a folder is not searched: it holds programs, a cache or a store, or belongs to the kernel.
fn is_excluded(path: &Path, name: &str, stores: &[PathBuf]) -> bool {
    name.starts_with('.')
        || name.starts_with("lifeboat-scratch-")
        || EXCLUDED_FOLDERS.contains(&name)
        // Python's virtual environments may have any name.
        || path.join("pyvenv.cfg").exists()
        || ["/proc", "/sys", "/dev"].iter().any(|system| path == Path::new(system))
        || stores.iter().any(|store| store == path)
        || path.join("lifeboat.json").exists()
}

/// Returns true if the content of a file is an SQLite database. Links are not followed.
pub(super) fn is_sqlite(path: &Path) -> bool {
    let Ok(file) = open_plain(path, OFlags::RDONLY) else { return false };
    if !file.metadata().is_ok_and(|facts| facts.is_file()) {
        return false;
    }
    let mut start = Vec::with_capacity(MAGIC.len());
    file.take(MAGIC.len() as u64).read_to_end(&mut start).is_ok() && start == MAGIC
}

/// Returns the volumes that the hosting platform has mounted, according to its variables.
fn volumes(all: &BTreeMap<String, String>) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for (variable, value) in all {
        let words: Vec<&str> = variable.split('_').collect();
        let has = |options: &[&str]| options.iter().any(|option| words.contains(option));
        let is_mount = has(&["VOLUME", "DISK", "STORAGE", "PERSISTENT"]) && has(&["MOUNT", "PATH", "DIR", "MOUNTPATH"]);
        let path = Path::new(value);
        let path: PathBuf = path.components().collect();
        if is_mount && path.is_absolute() && path != Path::new("/") && !volumes.iter().any(|known| known.path == path) {
            volumes.push(Volume { variable: variable.clone(), path });
        }
    }
    volumes
}

/// The mounts of this machine. If this machine is a container, the next deploy deletes all files that are not on a
/// volume.
pub(super) struct Mounts {
    is_container: bool,
    /// Mount points and their file systems.
    points: Vec<(PathBuf, String)>,
}

impl Mounts {
    fn read(all: &BTreeMap<String, String>) -> Self {
        let variables = ["RAILWAY_ENVIRONMENT", "FLY_APP_NAME", "RENDER_SERVICE_ID", "KUBERNETES_SERVICE_HOST", "DYNO"];
        let files = ["/.dockerenv", "/run/.containerenv"];
        let is_container = files.iter().any(|file| Path::new(file).exists())
            || variables.iter().any(|name| all.contains_key(*name))
            || all.get("container").is_some_and(|kind| !kind.is_empty());
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = text.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            Some((PathBuf::from(unescape(left.split(' ').nth(4)?)), right.split(' ').next()?.to_owned()))
        });
        Mounts { is_container, points: points.collect() }
    }

    /// Returns the reason why a file at `path` will be lost, or `None` if it will be kept.
    pub(super) fn reason_for_loss(&self, path: &Path, volumes: &[Volume]) -> Option<String> {
        let path = resolve_target(path).unwrap_or_else(|_| path.to_owned());
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let below = volumes.iter().find(|volume| path.starts_with(real(&volume.path)));
        if let (Some(first), None) = (volumes.first(), below) {
            let place = shown(&first.path);
            return Some(format!("it is not below {place} ({}): the next deploy deletes it", first.variable));
        }
        if !self.is_container {
            return None;
        }
        let (point, kind) = self
            .points
            .iter()
            .filter(|(point, _)| path.starts_with(point))
            .max_by_key(|(point, _)| point.components().count())?;
        let is_of_container = point == Path::new("/") || ["overlay", "tmpfs", "ramfs", "aufs"].contains(&kind.as_str());
        is_of_container.then(|| match below {
            Some(volume) => format!("nothing is mounted in {} ({}) yet", shown(&volume.path), volume.variable),
            None => "it is in the container itself, not on a volume: the next deploy deletes it".to_owned(),
        })
    }

    /// Returns the mount point of the volume that a file is on, if this machine is a container. Otherwise, or if the
    /// file is not on a volume, returns `None`.
    pub(super) fn volume_of(&self, path: &Path) -> Option<&Path> {
        if !self.is_container || self.reason_for_loss(path, &[]).is_some() {
            return None;
        }
        let path = resolve_target(path).ok()?;
        let points = self.points.iter().map(|(point, _)| point.as_path()).filter(|point| path.starts_with(point));
        points.max_by_key(|point| point.components().count()).filter(|point| point.is_dir() && *point != Path::new("/"))
    }
}

/// Decodes a path from the kernel's list of mounts, in which a space is written as `\040`, for example.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_databases_are_recognized_by_whole_words() {
        for (name, ending, expected) in [
            ("DATABASE_URL", "DATABASE_URL", true),
            ("SHOP_DATABASE_URL", "DATABASE_URL", true),
            ("MONGODB_URL", "DB_URL", false),
            ("SQLALCHEMY_DATABASE_URI", "DATABASE_URI", true),
            ("LIFEBOAT_DATABASE_URL", "DATABASE_URL", false),
        ] {
            assert_eq!(ends_with_word(name, ending), expected, "{name}");
        }
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/a\\"), "/a\\");
    }
}
