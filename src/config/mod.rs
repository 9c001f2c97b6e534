//! `lifeboat.toml`: stores, sources, and the settings of everything that is done with them.
//!
//! A config is read once, at the start. An error in its form makes every command fail at once. A variable that is not
//! set, or a missing file of a secret, only makes a command fail that needs that section.

mod document;
mod env_file;
mod http_check;
mod sections;
mod values;
mod variables;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;

use self::document::{Document, Section};
use self::sections::{
    RawBackups, RawEncryption, RawGuard, RawNotices, RawPreflight, RawRetention, RawServe, RawSigning, RawSource,
    RawStore, ReadContext, on_one_line,
};
use self::values::{Parsed, Text};
use crate::archive::Compression;
use crate::platform::disk::{read_bounded, shown};
use crate::platform::error::{Error, Result};
use crate::platform::exposed;
use crate::platform::secret::Secret;
use crate::snapshots::id::SourceName;
use crate::store::StoreUrl;

pub use self::http_check::{HttpCheck, JsonField};
pub use self::sections::{
    Backups, ConfiguredSource, ConfiguredStore, Encryption, Guard, Hosts, Notices, OnDoubt, OnOverlap, Preflight,
    Retention, Serve, Signing, WATCHED, parse_listen, prefixed,
};
pub use self::variables::Variables;

/// The file that is used if none is named.
pub const FILE_NAME: &str = "lifeboat.toml";

/// The environment variable that names the config.
pub const VARIABLE: &str = "LIFEBOAT_CONFIG";

/// The maximum size of a config, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A config that was read.
#[derive(Debug)]
pub struct Config {
    /// The absolute path of its file.
    pub path: PathBuf,
    host: Section<Option<Text>>,
    compression: Section<Option<Parsed<Compression>>>,
    metrics_file: Section<Option<Text>>,
    stores: Section<Vec<ConfiguredStore>>,
    source_names: Vec<SourceName>,
    sources: Section<Vec<ConfiguredSource>>,
    preflight: Section<Preflight>,
    backups: Section<Backups>,
    retention: Section<Retention>,
    notices: Section<Notices>,
    encryption: Section<Encryption>,
    signing: Section<Signing>,
    guard: Section<Guard>,
    serve: Section<Serve>,
}

/// The keys at the top level.
const KNOWN: [&str; 14] = [
    "env_file",
    "host",
    "compression",
    "metrics_file",
    "store",
    "source",
    "preflight",
    "backups",
    "retention",
    "notify",
    "encryption",
    "signing",
    "guard",
    "serve",
];

/// Returns the path of the config: the one named, or the one in `LIFEBOAT_CONFIG` (none if that is empty), or
/// `lifeboat.toml` in the current folder if it exists. A broken symbolic link counts as existing: it is not an
/// intentionally absent config.
pub fn discover(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    match std::env::var_os(VARIABLE) {
        Some(named) => Some(PathBuf::from(named)).filter(|named| !named.as_os_str().is_empty()),
        None => Some(PathBuf::from(FILE_NAME)).filter(|path| std::fs::symlink_metadata(path).is_ok()),
    }
}

impl Config {
    /// Reads a config.
    pub fn load(path: &Path) -> Result<Self> {
        let cannot = |error: std::io::Error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "check --config and LIFEBOAT_CONFIG; 'lifeboat init' writes one",
                _ => "name a file that this user can read",
            };
            Error::usage(format!("cannot read the config {}", shown(path))).hint(hint).because(error)
        };
        let path = std::path::absolute(path).map_err(cannot)?;
        let path: PathBuf = path.components().collect();
        let bytes = read_bounded(&path, MAX_BYTES)
            .map_err(cannot)?
            .ok_or_else(|| Error::usage(format!("{} is too large for a config", shown(&path))))?;
        let text =
            String::from_utf8(bytes).map_err(|_| Error::usage(format!("the config {} is not UTF-8", shown(&path))))?;
        let config = Config::parse(path, &text)?;
        let content = match config.has_secrets(&text) {
            true => exposed::Content::Secrets,
            false => exposed::Content::Instructions,
        };
        exposed::warn(&config.path, "config", content);
        Ok(config)
    }

    /// Returns true if a secret is in the text of the config itself, and not in a variable or in another file.
    fn has_secrets(&self, text: &str) -> bool {
        let is_in_text = |secret: &str| secret.len() > 1 && text.contains(secret);
        let notices = self.notices().ok();
        let pings = notices.iter().flat_map(|notices| notices.pings.iter().map(|(_, url)| url));
        let mut urls = notices.iter().filter_map(|notices| notices.webhook.as_ref()).chain(pings);
        urls.any(|url| is_in_text(url.expose_path())) || self.secrets().iter().any(|secret| is_in_text(secret.expose()))
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut document = Document::parse(&path, text)?;
        document.require_known(&KNOWN)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        document.expand(Some("env_file"), &Variables::default())?;
        let env_file: Section<Option<Text>> = document.section("env_file")?;
        let file = match &env_file.get()? {
            Some(file) if !file.0.is_empty() => env_file::read(&folder.join(&file.0))?,
            _ => Default::default(),
        };
        let variables = Variables::new(file);
        document.expand(None, &variables)?;
        let context = ReadContext { folder: &folder, variables: &variables };
        for name in ["store", "source"] {
            if let Some(span) = document.span(name).filter(|_| document.is_single(name)) {
                let error = document.error_at(Some(span), "must be an array of tables");
                return Err(error.hint(format!("write [[{name}]], with two brackets")));
            }
        }
        let stores: Section<Vec<Spanned<RawStore>>> = document.section("store")?;
        let stores = stores.and_then(|raw| {
            let mut stores: Vec<ConfiguredStore> = Vec::new();
            for raw in raw {
                let span = raw.span();
                let raw = raw.into_inner();
                let at = raw.position().unwrap_or(span);
                let store = raw.read(&context).map_err(|error| document.locate_error("store", at.clone(), error))?;
                if let Some(name) =
                    store.name.as_ref().filter(|name| stores.iter().any(|other| other.name.as_ref() == Some(*name)))
                {
                    let error = Error::usage(format!("two stores have the name {name}"));
                    return Err(document.locate_error("store", at, error));
                }
                stores.push(store);
            }
            Ok(stores)
        })?;
        let source_names = document.texts("source", "name");
        let source_names = source_names.iter().filter_map(|name| name.parse().ok()).collect();
        let sources: Section<Vec<Spanned<RawSource>>> = document.section("source")?;
        let sources = sources.and_then(|raw| {
            let mut sources: Vec<ConfiguredSource> = Vec::new();
            for raw in raw {
                let span = raw.span();
                let source = read_source(raw, &document, &context)?;
                if sources.iter().any(|other| other.name == source.name) {
                    let error = Error::usage(format!("two sources have the name {}", source.name));
                    return Err(document.locate_error("source", span, error));
                }
                if let Some(other) = sources.iter().find(|other| other.source.is_same(&*source.source)) {
                    let error = Error::usage(format!("{} and {} are the same database", other.name, source.name));
                    return Err(document.locate_error("source", span, error.hint("give each source its own url")));
                }
                sources.push(source);
            }
            Ok(sources)
        })?;
        let document = &mut document;
        Ok(Config {
            host: document.section("host")?,
            compression: document.section("compression")?,
            metrics_file: section(document, "metrics_file", |file: Option<Text>| {
                let absolute = |file: Text| Text(folder.join(&file.0).display().to_string());
                Ok(file.filter(|file| !file.0.is_empty()).map(absolute))
            })?,
            preflight: section(document, "preflight", |raw: RawPreflight| raw.read(&context))?,
            backups: section(document, "backups", RawBackups::read)?,
            retention: section(document, "retention", RawRetention::read)?,
            notices: section(document, "notify", |raw: RawNotices| raw.read(&context))?,
            encryption: section(document, "encryption", |raw: RawEncryption| raw.read(&context))?,
            signing: section(document, "signing", |raw: RawSigning| raw.read(&context))?,
            guard: section(document, "guard", RawGuard::read)?,
            serve: section(document, "serve", |raw: RawServe| raw.read(&context))?,
            stores,
            source_names,
            sources,
            path,
        })
    }

    /// Returns the name that the machine has in origins, if the config gives one.
    pub fn host(&self) -> Result<Option<&str>> {
        Ok(self.host.get()?.as_ref().map(|host| host.0.as_str()).filter(|host| !host.is_empty()))
    }

    /// Returns the compression of snapshots whose source does not set one.
    pub fn compression(&self) -> Result<Option<Compression>> {
        Ok(self.compression.get()?.as_ref().map(|compression| compression.0))
    }

    /// Returns the path of the metrics file, if there is one.
    pub fn metrics_file(&self) -> Result<Option<PathBuf>> {
        Ok(self.metrics_file.get()?.as_ref().map(|file| PathBuf::from(&file.0)))
    }

    /// Returns the stores.
    pub fn stores(&self) -> Result<&[ConfiguredStore]> {
        self.stores.get().map(Vec::as_slice)
    }

    /// Returns the store that the user names: a store of the config by its name, or another one by its location. If the
    /// config's stores have names, a single word that is neither one of them nor an existing path is an error.
    pub fn store_named(&self, given: &StoreUrl) -> Result<StoreUrl> {
        let text = given.to_string();
        if text.parse::<SourceName>().is_err() {
            // The config may have the access key of the store.
            let stores = self.stores().unwrap_or_default().iter();
            let configured = stores.map(|configured| &configured.store).find(|store| store.is_same_place(given));
            return Ok(configured.map_or_else(|| given.clone(), |configured| given.with_key_of(configured)));
        }
        let has_name = |store: &&ConfiguredStore| store.name.as_ref().is_some_and(|name| text == name.as_str());
        if let Some(named) = self.stores()?.iter().find(has_name) {
            return Ok(named.store.clone());
        }
        let names = self.stores()?.iter().filter_map(|store| store.name.as_ref());
        let names: Vec<&str> = names.map(SourceName::as_str).collect();
        if names.is_empty() || Path::new(&text).exists() {
            return Ok(given.clone());
        }
        Err(Error::usage(format!("the config has no store {text}"))
            .hint(format!("its stores are {}; to use a folder, write ./{text}", names.join(", "))))
    }

    /// Returns the sources.
    pub fn sources(&self) -> Result<&[ConfiguredSource]> {
        self.sources.get().map(Vec::as_slice)
    }

    /// Returns the names of all sources, also if the sources cannot be used because a variable is not set.
    #[must_use]
    pub fn source_names(&self) -> &[SourceName] {
        &self.source_names
    }

    /// Returns the secrets in the config that other programs may print.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for source in self.sources().unwrap_or_default() {
            if let Some(params) = source.source.server() {
                secrets.extend(params.password().cloned());
            }
        }
        for store in self.stores().unwrap_or_default() {
            secrets.extend(store.store.secrets());
        }
        if let Ok(encryption) = self.encryption() {
            secrets.extend(encryption.identity.clone());
        }
        if let Ok(serve) = self.serve() {
            secrets.extend(serve.token.clone());
            secrets.extend(serve.login.as_ref().map(|(_, password)| password.clone()));
        }
        secrets
    }

    /// Returns the checks that run before anything else is done.
    pub fn preflight(&self) -> Result<&Preflight> {
        self.preflight.get()
    }

    /// Returns the requirements for the backups.
    pub fn backups(&self) -> Result<&Backups> {
        self.backups.get()
    }

    /// Returns the rules for keeping snapshots.
    pub fn retention(&self) -> Result<&Retention> {
        self.retention.get()
    }

    /// Returns the settings of notices.
    pub fn notices(&self) -> Result<&Notices> {
        self.notices.get()
    }

    /// Returns the settings of encryption.
    pub fn encryption(&self) -> Result<&Encryption> {
        self.encryption.get()
    }

    /// Returns the settings of signatures.
    pub fn signing(&self) -> Result<&Signing> {
        self.signing.get()
    }

    /// Returns the settings of `guard`.
    pub fn guard(&self) -> Result<&Guard> {
        self.guard.get()
    }

    /// Returns the settings of `serve`.
    pub fn serve(&self) -> Result<&Serve> {
        self.serve.get()
    }
}

/// Reads a section. Errors name its position in the file.
fn section<Raw: DeserializeOwned + Default, T>(
    document: &mut Document<'_>,
    name: &str,
    read: impl FnOnce(Raw) -> Result<T>,
) -> Result<Section<T>> {
    let span = document.span(name);
    let section = document.section::<Raw>(name)?;
    section.and_then(|raw| {
        read(raw).map_err(|error| match span {
            Some(span) => document.locate_error(name, span, error),
            None => error,
        })
    })
}

fn read_source(
    raw: Spanned<RawSource>,
    document: &Document<'_>,
    context: &ReadContext<'_>,
) -> Result<ConfiguredSource> {
    let span = raw.span();
    let mut raw = raw.into_inner();
    let mut rules = Vec::new();
    for rule in raw.take_rules() {
        let span = rule.span();
        rules.extend(rule.into_inner().read().map_err(|error| document.locate_error("source", span, error))?);
    }
    let at = raw.position().unwrap_or(span);
    raw.read(rules, context).map_err(|error| document.locate_error("source", at, on_one_line(&error)))
}
