//! `init`: writes a commented config from what it finds, and creates the stores that are missing.

mod compose;
mod discover;
mod left_out;
mod prisma;
mod toml_text;
mod write;
mod yaml;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::config::{Config, FILE_NAME, VARIABLE};
use crate::ops::{Context, Problem, Report, host_name, stores};
use crate::platform::disk::{folder_of, shown, sync_folder, temporary_file};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::new_name::persist_new;
use crate::platform::shell::quote_path;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SourceName;
use crate::store::StoreUrl;

/// The file of variables beside the config.
const ENV_FILE: &str = ".env";

/// The store for snapshots if no other is named.
const DEFAULT_STORE: &str = "./backups";

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct InitOptions {
    /// Print the config that would be written, and write and create nothing
    pub dry_run: bool,
    /// The config that the command line names.
    pub config: Option<PathBuf>,
    /// The name of this machine that the command line gives.
    pub host: Option<String>,
}

/// Something that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// `sqlite`, `postgres`, `s3` or `volume`.
    pub kind: String,
    /// Its name in the config.
    pub name: String,
    /// The file, or the variable that names it; never the value of a variable.
    pub from: String,
}

/// A store of the config.
#[derive(Debug, Serialize)]
pub(crate) struct StoreState {
    /// Its location.
    pub store: String,
    /// True if this run created it.
    pub created: bool,
}

/// A report of what was found, written and created.
#[derive(Debug, Serialize)]
pub(crate) struct InitReport {
    /// The config's file.
    pub config: String,
    /// True if it was written; false if it existed already, or if nothing was to be written.
    pub created: bool,
    /// The findings that the config contains.
    pub found: Vec<Found>,
    /// The stores that exist now.
    pub stores: Vec<StoreState>,
    /// The config's text, if it was only to be printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The reasons why stores were not created; the first decides the exit code.
    #[serde(rename = "problems", skip_serializing_if = "Vec::is_empty", serialize_with = "as_problems")]
    failures: Vec<Error>,
    /// The option that names the config in a command; empty if commands find it without one.
    #[serde(skip)]
    pub option: String,
}

fn as_problems<S: Serializer>(failures: &[Error], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(failures.iter().map(|error| Problem::of(error.kind.name(), error)))
}

impl Report for InitReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

/// Writes the config and creates the stores.
pub(crate) fn run(options: &InitOptions, context: &Context) -> Result<InitReport> {
    let named = options.config.as_deref();
    let path = config_path(named)?;
    let exists = std::fs::symlink_metadata(&path).is_ok();
    let mut report = InitReport {
        config: path.display().to_string(),
        created: false,
        found: Vec::new(),
        stores: Vec::new(),
        text: None,
        failures: Vec::new(),
        option: option_for(named),
    };
    if exists && !options.dry_run {
        let config = Config::load(&path)?;
        report.make_stores(&chosen_stores(&config, context)?);
        return Ok(report);
    }
    let folder = folder_of(&path);
    if !folder.is_dir() {
        return Err(Error::usage(format!("the folder of {} does not exist", shown(&path))).hint("create it first"));
    }
    let given = context.stores.iter().map(|store| store_in_config(folder, store)).collect::<Result<Vec<_>>>()?;
    let findings = discover::discover(folder, &store_folders(folder, &context.stores)?);
    for note in &findings.notes {
        tracing::warn!("{note}");
    }
    if let Some(Err(reason)) = &findings.env_file {
        tracing::warn!("{ENV_FILE} is not used: {reason}");
    }
    let host = options.host.clone().or_else(|| findings.host_in_stores(folder, context));
    let host = host.unwrap_or_else(|| host_name(folder));
    if let Err(error) = host_name::require_permanent(&host) {
        tracing::warn!("{}: change host in {}", error.message, shown(&path));
    }
    let text = write::config(&findings, &write::Settings { folder, host: &host, stores: &given });
    report.found = findings.found();
    if options.dry_run {
        if exists {
            tracing::warn!("{} already exists: the text printed here is not its content", shown(&path));
        }
        report.text = Some(text);
        return Ok(report);
    }
    publish(&path, &text)?;
    report.created = true;
    match Config::load(&path).and_then(|config| config.stores().map(<[_]>::to_vec)) {
        Ok(stores) => report.make_stores(&stores.into_iter().map(|configured| configured.store).collect::<Vec<_>>()),
        Err(error) => report.failures.push(error),
    }
    Ok(report)
}

impl InitReport {
    /// Creates the stores that are missing. A store that cannot be reached does not stop the others.
    fn make_stores(&mut self, stores: &[StoreUrl]) {
        for store in stores {
            let was_there = stores::open(store).is_ok();
            match stores::open_or_create(store) {
                Ok(catalog) => self.stores.push(StoreState { store: catalog.location(), created: !was_there }),
                Err(error) => self.failures.push(error),
            }
        }
    }
}

impl discover::Findings {
    /// Returns the name that this machine has in the snapshots that a store already has of one of the files: under
    /// another name, the next snapshot would be refused.
    fn host_in_stores(&self, folder: &Path, context: &Context) -> Option<String> {
        let default = folder.join(DEFAULT_STORE.trim_start_matches("./"));
        let default: Vec<StoreUrl> = default.to_str().and_then(|folder| folder.parse().ok()).into_iter().collect();
        let urls = if context.stores.is_empty() { &default } else { &context.stores };
        // A store that cannot be opened may not exist yet, and one in a bucket may not be reachable from here.
        let catalogs: Vec<_> =
            urls.iter().filter(|url| url.folder().is_some()).filter_map(|url| stores::open(url).ok()).collect();
        let files = self.sources.iter().filter(|source| source.is_used).filter_map(|source| {
            let real = source.file.as_ref()?.canonicalize().ok()?;
            Some((&source.name, real.to_str()?.to_owned()))
        });
        let newest = files.flat_map(|(name, path)| {
            let of = |catalog: &Catalog| catalog.newest_full(name).ok().flatten().map(|newest| newest.origin);
            catalogs.iter().filter_map(of).filter(move |origin| origin.path.as_ref() == Some(&path)).collect::<Vec<_>>()
        });
        newest.map(|origin| origin.host).find(|host| !host_name::is_generated(host))
    }

    fn found(&self) -> Vec<Found> {
        let sources = self.sources.iter().filter(|source| source.is_used).map(|source| Found {
            kind: source.kind.to_owned(),
            name: source.name.to_string(),
            from: source.from.clone(),
        });
        let bucket = self.bucket.iter().map(|(variable, bucket)| Found {
            kind: "s3".to_owned(),
            name: bucket.clone(),
            from: variable.clone(),
        });
        let volumes = self.volumes.iter().map(|volume| Found {
            kind: "volume".to_owned(),
            name: volume.path.display().to_string(),
            from: volume.variable.clone(),
        });
        sources.chain(bucket).chain(volumes).collect()
    }
}

/// Returns the absolute path of the config.
fn config_path(named: Option<&Path>) -> Result<PathBuf> {
    let variable = std::env::var_os(VARIABLE).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let path = named.map(Path::to_owned).or(variable).unwrap_or_else(|| PathBuf::from(FILE_NAME));
    let absolute = std::path::absolute(&path)
        .map_err(|error| Error::usage(format!("cannot find {}", shown(&path))).because(error))?;
    Ok(absolute.components().collect())
}

/// Returns the option that later commands need to find the config.
fn option_for(named: Option<&Path>) -> String {
    match named {
        Some(path) if path != Path::new(FILE_NAME) => format!(" --config {}", quote_path(path)),
        _ => String::new(),
    }
}

/// Returns the stores of an existing config, or only those that the command line names.
fn chosen_stores(config: &Config, context: &Context) -> Result<Vec<StoreUrl>> {
    if context.stores.is_empty() {
        return Ok(config.stores()?.iter().map(|configured| configured.store.clone()).collect());
    }
    context.stores.iter().map(|given| config.store_named(given)).collect()
}

/// Returns the folders that are stores, or will be.
fn store_folders(folder: &Path, stores: &[StoreUrl]) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.join(DEFAULT_STORE.trim_start_matches("./"))];
    for store in stores {
        folders.extend(store.absolute()?.folder().map(Path::to_owned));
    }
    Ok(folders)
}

/// Returns a store of the command line as it is written in the config, where paths begin in the config's folder.
fn store_in_config(folder: &Path, store: &StoreUrl) -> Result<String> {
    let store = store.absolute()?;
    match store.folder() {
        Some(path) => path_in_config(folder, path).ok_or_else(|| {
            Error::usage(format!("a config cannot contain the name {}", shown(path))).hint("name another folder")
        }),
        None => Ok(store.to_string()),
    }
}

/// Returns a path as it is written in the config: relative if it lies in the config's folder. Returns `None` if the
/// path is not UTF-8.
fn path_in_config(folder: &Path, path: &Path) -> Option<String> {
    match path.strip_prefix(folder) {
        Ok(below) => below.to_str().map(|below| format!("./{below}")),
        Err(_) => path.to_str().map(str::to_owned),
    }
}

/// Returns a name for this machine that stays the same: that of the project's folder.
fn host_name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    // `derive` removes an ending. The name of a folder has none, so one is added.
    let name = folder.file_name().and_then(|name| SourceName::derive(&format!("{}.", name.to_string_lossy())));
    name.map_or_else(|| "app".to_owned(), |name| name.to_string())
}

/// Writes a new config (0600): whole, durable and readable, or not at all. An existing file is not changed.
fn publish(path: &Path, text: &str) -> Result<()> {
    let message = || format!("cannot write the config {}", shown(path));
    let folder = folder_of(path);
    let mut temp = temporary_file(folder, ".lifeboat-init-", "").io(Kind::Failed, message)?;
    temp.write_all(text.as_bytes()).io(Kind::Failed, message)?;
    temp.as_file().sync_all().io(Kind::Failed, message)?;
    // The new config must be readable, whatever was found.
    Config::load(temp.path()).map_err(|error| {
        let error = Error::failed(error.full_message()).context("the config that would be written cannot be read");
        error.hint("'lifeboat init --dry-run' prints it")
    })?;
    match persist_new(temp, path) {
        Ok(_) => sync_folder(folder).io(Kind::Failed, message),
        Err(refused) if refused.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::usage(format!("{} was just created by another process, and was not changed", shown(path))))
        }
        Err(refused) => Err(refused).io(Kind::Failed, message),
    }
}
