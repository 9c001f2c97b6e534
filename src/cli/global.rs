//! The options that every subcommand has, and the context that operations get from them.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::archive::{Keys, read_passphrase_file};
use crate::cli::call::Subcommand;
use crate::cli::output::Bars;
use crate::config::{self, Config};
use crate::ops::Context;
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result};
use crate::platform::progress::{Progress, Silent};
use crate::platform::scratch::Scratch;
use crate::platform::secret::Secret;
use crate::store::StoreUrl;

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
    /// Store: a folder, s3://bucket/prefix, or a store name from the config ('snapshot' accepts several)
    #[arg(long, global = true, value_name = "STORE")]
    pub(super) store: Vec<StoreUrl>,
    /// The config file; default: the file that LIFEBOAT_CONFIG names, or lifeboat.toml in the current folder
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A file with secret age keys that decrypt snapshots (repeatable); the variable LIFEBOAT_IDENTITY can hold such
    /// keys, or the name of such a file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// A file whose first line is the passphrase to encrypt and decrypt snapshots with
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Print exactly one JSON document on stdout
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print only the result, warnings and errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Print informational messages (-vv: also debug messages)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Threads that compress and decompress, with 8 to 16 MiB of memory each; default: one per core, at most 8
    #[arg(long, short, global = true, value_name = "JOBS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// The file to write metrics to, for Prometheus' node_exporter; default: metrics_file in the config
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) metrics_file: Option<PathBuf>,
    /// The folder for temporary files; default: the system's temporary folder
    #[arg(long, global = true, value_name = "DIR", env = "LIFEBOAT_SCRATCH")]
    pub(super) scratch: Option<PathBuf>,
    /// This machine's name, as recorded in snapshots; set it in containers, because their host names change
    #[arg(long, global = true, value_name = "NAME", env = "LIFEBOAT_HOST")]
    pub(super) host: Option<String>,
    /// PostgreSQL: use servers of newer major versions than those that lifeboat is tested with, if they have nothing that
    /// lifeboat does not know
    #[arg(long, global = true)]
    pub(super) allow_newer_server: bool,
}

/// Returns the value, or a default if there is an error. The first error is kept in `failed`.
fn usable<T: Default>(value: Result<T>, failed: &mut Option<Error>) -> T {
    value.unwrap_or_else(|error| {
        failed.get_or_insert(error);
        T::default()
    })
}

/// Returns the name that the machine has by itself.
fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The environment variable for keys that open snapshots. It is not declared to clap, because clap's help shows the
/// values of variables.
const IDENTITY: &str = "LIFEBOAT_IDENTITY";

/// The maximum number of threads by default: each one needs memory.
const DEFAULT_JOBS: usize = 8;

impl GlobalArgs {
    /// Returns the context of a run, and the first error of the settings that cannot be used. Then the command cannot
    /// run, but notices and metrics still report that it failed.
    pub(super) fn context(&self, command: &dyn Subcommand) -> Result<(Context, Option<Error>)> {
        let progress: Arc<dyn Progress> = if Bars::would_show() && !self.quiet && !self.json && command.shows_progress()
        {
            Arc::new(Bars::default())
        } else {
            Arc::new(Silent)
        };
        let config = match config::discover(self.config.as_deref()).filter(|_| command.reads_config()) {
            Some(path) => Some(Config::load(&path)?),
            None => None,
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_JOBS);
        let mut failed = None;
        let passphrase = self.passphrase_file.as_deref().map(read_passphrase_file).transpose();
        let passphrase = usable(passphrase, &mut failed);
        let keys = match (command.opens_archives(), command.compares_archives()) {
            (true, _) => self.keys(passphrase.clone(), config.as_ref()),
            (false, true) => Ok(self.usable_keys(passphrase.clone(), config.as_ref())),
            (false, false) => Ok(Keys::new()),
        };
        let host = usable(self.host(config.as_ref()), &mut failed);
        let stores = usable(self.stores(config.as_ref(), command), &mut failed);
        let context = Context {
            trust: command.trust().trust(config.as_ref(), &stores),
            stores,
            stores_are_given: !self.store.is_empty(),
            keys: usable(keys, &mut failed),
            passphrase,
            key_flags: usable(self.key_flags(), &mut failed),
            host: host.unwrap_or_else(machine_name),
            host_is_given: self.host.is_some(),
            config,
            jobs: self.jobs.map_or_else(cores, usize::from),
            scratch: Scratch::new(self.scratch.clone()),
            progress,
        };
        Ok((context, failed))
    }

    /// Returns the stores that the command line gives, by location or by name in the config, or else the config's
    /// stores.
    fn stores(&self, config: Option<&Config>, command: &dyn Subcommand) -> Result<Vec<StoreUrl>> {
        let Some(config) = config else { return Ok(self.store.clone()) };
        if self.store.is_empty() {
            return match command.uses_stores_of_config() {
                true => Ok(config.stores()?.iter().map(|configured| configured.store.clone()).collect()),
                false => Ok(Vec::new()),
            };
        }
        self.store.iter().map(|given| config.store_named(given)).collect()
    }

    /// Returns the machine's name that the command line or the config gives.
    fn host(&self, config: Option<&Config>) -> Result<Option<String>> {
        match &self.host {
            Some(host) => Ok(Some(host.clone())),
            None => Ok(config.map(Config::host).transpose()?.flatten().map(str::to_owned)),
        }
    }

    /// Returns the flags that gave the keys, with absolute paths, so that printed commands work from any folder.
    fn key_flags(&self) -> Result<Vec<String>> {
        let identities = self.identity.iter().map(|path| ("--identity", path));
        let flags = identities.chain(self.passphrase_file.iter().map(|path| ("--passphrase-file", path)));
        let mut words = Vec::new();
        for (flag, path) in flags {
            let path = std::path::absolute(path)
                .map_err(|error| Error::usage(format!("cannot find {}", shown(path))).because(error))?;
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        // The variable may hold a secret key itself, which is never printed, or the name of a file.
        if let Some(path) = std::env::var_os(IDENTITY).map(PathBuf::from).filter(|path| path.is_file())
            && let Ok(path) = std::path::absolute(path)
        {
            words.extend(["--identity".to_owned(), path.display().to_string()]);
        }
        Ok(words)
    }

    /// Returns the keys for a command that compares encrypted snapshots more exactly with a key. A key file of the config
    /// may be absent, because a machine that only saves needs none.
    fn usable_keys(&self, passphrase: Option<Secret>, config: Option<&Config>) -> Keys {
        let mut keys = self.given_keys(passphrase).unwrap_or_else(|error| {
            tracing::warn!("encrypted snapshots are compared by their totals: {}", error.full_message());
            Keys::new()
        });
        if let Some(Err(error)) = config.map(|config| config.encryption().and_then(|found| found.add_to(&mut keys))) {
            tracing::info!("encrypted snapshots are compared by their totals: {}", error.full_message());
        }
        keys
    }

    fn keys(&self, passphrase: Option<Secret>, config: Option<&Config>) -> Result<Keys> {
        let mut keys = self.given_keys(passphrase)?;
        if let Some(config) = config {
            match config.encryption() {
                // An invalid key is only a warning, since snapshots that are not encrypted need no key.
                Ok(encryption) => {
                    if let Err(error) = encryption.add_to(&mut keys) {
                        tracing::warn!("encrypted snapshots cannot be opened: {}", error.full_message());
                    }
                }
                Err(error) => tracing::info!("{}", error.full_message()),
            }
        }
        Ok(keys)
    }

    /// Returns the keys of the environment and of the command line.
    fn given_keys(&self, passphrase: Option<Secret>) -> Result<Keys> {
        let mut keys = Keys::new();
        // In many pipelines a secret that is not set is an empty string.
        if let Some(text) = std::env::var_os(IDENTITY) {
            let text = text.to_str().ok_or_else(|| Error::usage(format!("{IDENTITY} is not UTF-8")))?;
            if !text.trim().is_empty() {
                keys.add_identity(text, IDENTITY)?;
            }
        }
        self.identity.iter().try_for_each(|path| keys.add_identity_file(path))?;
        passphrase.into_iter().for_each(|passphrase| keys.add_passphrase(passphrase));
        Ok(keys)
    }
}
