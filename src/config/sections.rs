//! The sections of a config: the raw form as written in the file, and the parsed form.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chrono::{Duration, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::document::hide;
use super::values::{Age, Count, Flag, Form as FormWord, HttpUrl, Number, Occasion, Parsed, Proof, Size, Status, Text};
use super::variables::Variables;
use crate::archive::{Compression, Keys, Recipient, read_passphrase_file};
use crate::config::http_check::{HttpCheck, JsonField};
use crate::engine::postgres::Params;
use crate::engine::postgres::wire::params::Environment;
use crate::engine::rules::{Condition, Fresh, Rule, Share};
use crate::engine::source::{Source, parse_source_url, postgres_database, sqlite_file};
use crate::notify::{Event, Form, Notify, When};
use crate::platform::disk;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::http::Url;
use crate::platform::secret::Secret;
use crate::snapshots::id::SourceName;
use crate::snapshots::retention::Policy;
use crate::store::StoreUrl;
use crate::store::s3::AccessKey;

/// A store of the config.
#[derive(Clone, Debug)]
pub struct ConfiguredStore {
    /// The name by which `--store` can select it.
    pub name: Option<SourceName>,
    /// Its location.
    pub store: StoreUrl,
}

/// A source of the config.
#[derive(Clone, Debug)]
pub struct ConfiguredSource {
    /// Its name, here and in the stores.
    pub name: SourceName,
    /// Its location.
    pub source: Source,
    /// The compression of its snapshots, if the source sets one.
    pub compression: Option<Compression>,
    /// The tags of its snapshots, in addition to those of the command line.
    pub tags: Vec<String>,
    /// The rules that must hold for it.
    pub rules: Vec<Rule>,
}

/// The checks that run before anything else is done.
#[derive(Clone, Debug, Default)]
pub struct Preflight {
    /// Folders that must be mount points.
    pub mounts: Vec<PathBuf>,
    /// Folders that must be writable, in addition to the mount points.
    pub writable: Vec<PathBuf>,
    /// Bytes that must be free wherever something is written.
    pub min_free: Option<u64>,
    /// Endpoints that must answer.
    pub http: Vec<HttpCheck>,
    /// True if a mount may be a file system in memory.
    pub allow_tmpfs: bool,
}

/// The requirements for the backups.
#[derive(Clone, Debug)]
pub struct Backups {
    /// The maximum age of the newest backup.
    pub max_age: Option<Duration>,
    /// The maximum decrease in size or rows, compared with the backups before it.
    pub max_shrink: Share,
    /// The maximum age of the newest proof of a backup.
    pub proof_within: Option<Duration>,
    /// True if that proof must be a drill.
    pub proof_by_drill: bool,
}

/// The rules for keeping snapshots.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// The policy that says which snapshots are kept.
    pub policy: Policy,
    /// True if `snapshot` prunes after good snapshots without being asked to.
    pub after_snapshot: bool,
}

/// The settings of notices.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    /// The URL that notices are sent to.
    pub webhook: Option<Url>,
    /// The form of the notices.
    pub form: Form,
    /// The runs after which a notice is sent.
    pub on: When,
    /// The URLs that are pinged at start, success and failure, by command.
    pub pings: Vec<(String, Url)>,
    /// The file that failures are remembered in.
    pub state: Option<PathBuf>,
}

impl Notices {
    /// Returns the settings for the notices of one command.
    #[must_use]
    pub fn of(&self, command: &str) -> Notify {
        let ping = self.pings.iter().find(|(of, _)| of == command).map(|(_, url)| url.clone());
        let Notices { webhook, form, on, state, .. } = self.clone();
        Notify { webhook, form, ping, on, state }
    }

    /// Sends a notice and every ping as a test. Returns warnings about those that could not be sent.
    #[must_use]
    pub fn trial(&self) -> Vec<String> {
        let event = |command: &str| Event {
            command: command.to_owned(),
            key: "trial".to_owned(),
            ok: true,
            exit_code: 0,
            error: None,
            checks: Vec::new(),
            snapshots: Vec::new(),
            sources: Vec::new(),
            host: "a test by lifeboat doctor".to_owned(),
            at: Utc::now(),
            seconds: 0.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let webhook = Notify { ping: None, on: When::Always, ..self.of("doctor") };
        let ping = |(command, _): &(String, Url)| Notify { webhook: None, ..self.of(command) }.ended(&event(command));
        let mut warnings = webhook.ended(&event("doctor"));
        warnings.extend(self.pings.iter().flat_map(ping));
        warnings
    }
}

/// The keys that snapshots are encrypted to, and the keys that decrypt them.
#[derive(Clone, Default)]
pub struct Encryption {
    /// The public keys that new snapshots are encrypted to.
    pub recipients: Vec<Recipient>,
    /// The secret key that decrypts them, if it is given as text.
    pub identity: Option<Secret>,
    /// The files of secret keys that decrypt them.
    pub identity_files: Vec<PathBuf>,
    /// A file whose first line is the passphrase that encrypts and decrypts them.
    pub passphrase_file: Option<PathBuf>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encryption({} recipients)", self.recipients.len())
    }
}

impl Encryption {
    /// Reads the passphrase from its file.
    pub fn passphrase(&self) -> Result<Option<Secret>> {
        self.passphrase_file.as_deref().map(read_passphrase_file).transpose()
    }

    /// Adds the keys that decrypt snapshots, and the passphrase. Missing identity files are skipped: a machine that
    /// only saves does not need them.
    pub fn add_to(&self, keys: &mut Keys) -> Result<()> {
        if let Some(identity) = &self.identity {
            keys.add_identity(identity.expose(), "encryption.identity").map_err(|error| {
                // A text that is not a key is taken for the name of a file, and is in the message.
                if error.full_message().contains(identity.expose().trim()) {
                    return Error::usage(
                        "encryption.identity is not an age secret key, and not the path of a readable file",
                    );
                }
                error
            })?;
        }
        for path in &self.identity_files {
            if path.exists() {
                keys.add_identity_file(path)?;
            } else {
                tracing::info!("the identity file {} does not exist", crate::platform::disk::shown(path));
            }
        }
        if let Some(passphrase) = self.passphrase()? {
            keys.add_passphrase(passphrase);
        }
        Ok(())
    }
}

/// The settings of `guard`.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The time that the platform allows from the signal to stop to the end of everything.
    pub grace: Duration,
    /// The part of the grace that is reserved for the last snapshot.
    pub reserve: Option<Duration>,
    /// True if a database that is missing or empty is restored.
    pub restore_if_missing: bool,
    /// True if a last snapshot is taken.
    pub snapshot_at_end: bool,
}

impl Default for Guard {
    fn default() -> Self {
        // The time that `docker stop` allows.
        Guard { grace: Duration::seconds(10), reserve: None, restore_if_missing: true, snapshot_at_end: true }
    }
}

/// The settings of `serve`.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The address that it listens on.
    pub listen: SocketAddr,
    /// The time from the end of one inspection of a source or store to the start of the next.
    pub every: Duration,
    /// The time after which an unfinished inspection makes its source or store count as not answering.
    pub timeout: Duration,
    /// The token that permits everything: reading, and taking snapshots.
    pub token: Option<Secret>,
    /// The name and password that permit reading.
    pub login: Option<(String, Secret)>,
    /// True if everybody may read, even if there is a token or a login.
    pub public: bool,
}

impl Default for Serve {
    fn default() -> Self {
        Serve {
            listen: SocketAddr::from(([127, 0, 0, 1], 8700)),
            every: Duration::seconds(15),
            timeout: Duration::seconds(60),
            token: None,
            login: None,
            public: false,
        }
    }
}

impl Default for Backups {
    fn default() -> Self {
        let half = "50%".parse().unwrap_or_else(|_| unreachable!("a half is a share"));
        Backups { max_age: None, max_shrink: half, proof_within: None, proof_by_drill: false }
    }
}

/// The folder and the variables that sections are read with.
pub(super) struct ReadContext<'a> {
    /// The folder that relative paths start from.
    pub(super) folder: &'a Path,
    /// The variables and their values.
    pub(super) variables: &'a Variables,
}

impl ReadContext<'_> {
    fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text.strip_prefix("./").unwrap_or(text))
    }

    fn secret_file(&self, path: &str) -> Result<Secret> {
        let path = self.path(path);
        let shown = crate::platform::disk::shown(&path);
        let read = disk::read_bounded(&path, MAX_SECRET_BYTES)
            .map_err(|error| Error::unreachable(format!("cannot read the secret in {shown}")).because(error))?;
        let bytes = read.ok_or_else(|| Error::unreachable(format!("{shown} is too large for a secret")))?;
        // The error of `from_utf8` contains the bytes, so it is not kept as the cause.
        let text =
            String::from_utf8(bytes).map_err(|_| Error::unreachable(format!("the secret in {shown} is not UTF-8")))?;
        Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
    }
}

/// The maximum size of the file of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 16;

/// Refuses a path that starts with `~`: a shell expands it, but Lifeboat does not.
fn refuse_tilde(path: &str) -> Result<()> {
    if path == "~" || path.starts_with("~/") {
        return Err(Error::usage("'~' is not expanded here").hint("write the full path, or ${HOME}/..."));
    }
    Ok(())
}

/// Returns the value of a flag, or the default if it has none.
fn is_on(flag: Option<Parsed<Flag>>, default: bool) -> bool {
    flag.and_then(|flag| flag.0.0).unwrap_or(default)
}

/// Returns the text, or `None` if it is blank: a variable that is not set may give an empty text.
fn filled(text: Option<Text>) -> Option<String> {
    text.map(|text| text.0).filter(|text| !text.trim().is_empty())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStore {
    url: Option<Spanned<Text>>,
    name: Option<Parsed<SourceName>>,
    access_key_id: Option<Text>,
    secret_access_key: Option<Text>,
    secret_access_key_file: Option<Text>,
    session_token: Option<Text>,
    endpoint: Option<Text>,
    region: Option<Text>,
    path_style: Option<Text>,
    profile: Option<Text>,
    credentials_file: Option<Text>,
    storage_class: Option<Text>,
    sse: Option<Text>,
    kms_key: Option<Text>,
    object_lock: Option<Text>,
    object_lock_days: Option<Text>,
    checksums: Option<Text>,
    timeout: Option<Text>,
    retries: Option<Text>,
    part_size: Option<Text>,
}

impl RawStore {
    /// Returns the position of its url.
    pub(super) fn position(&self) -> Option<std::ops::Range<usize>> {
        self.url.as_ref().map(Spanned::span)
    }

    pub(super) fn read(self, context: &ReadContext<'_>) -> Result<ConfiguredStore> {
        let mut url = filled(self.url.map(Spanned::into_inner))
            .ok_or_else(|| Error::usage("a store has no url").hint("name a folder, or s3://bucket/prefix"))?;
        refuse_tilde(&url)?;
        let is_s3 = url.starts_with("s3://");
        let settings = [
            ("endpoint", self.endpoint),
            ("region", self.region),
            ("path_style", self.path_style),
            ("profile", self.profile),
            ("credentials_file", self.credentials_file),
            ("storage_class", self.storage_class),
            ("sse", self.sse),
            ("kms_key", self.kms_key),
            ("object_lock", self.object_lock),
            ("object_lock_days", self.object_lock_days),
            ("checksums", self.checksums),
            ("timeout", self.timeout),
            ("retries", self.retries),
            ("part_size", self.part_size),
        ];
        for (name, value) in settings {
            let Some(mut value) = filled(value) else { continue };
            if !is_s3 {
                return Err(Error::usage(format!("'{name}' is only valid for a store in S3, but the url is a folder")));
            }
            if name == "credentials_file" {
                value = context.path(&value).display().to_string();
            }
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC)));
        }
        let mut store: StoreUrl = url.parse()?;
        let id = filled(self.access_key_id);
        let mut secret = filled(self.secret_access_key).map(Secret::new);
        if let Some(path) = filled(self.secret_access_key_file) {
            secret = Some(context.secret_file(&path)?);
        }
        match &mut store {
            StoreUrl::Folder(path) => {
                if id.is_some() || secret.is_some() {
                    return Err(Error::usage("access keys are only valid for a store in S3, but the url is a folder"));
                }
                *path = context.folder.join(&*path).components().collect();
            }
            StoreUrl::S3(settings) => {
                let token = filled(self.session_token).map(Secret::new);
                settings.key = match (id, secret) {
                    (Some(id), Some(secret)) => Some(AccessKey { id, secret, token }),
                    (None, None) => None,
                    _ => return Err(Error::usage("access_key_id and secret_access_key must be set together")),
                };
                complete_s3(settings, context.variables);
            }
        }
        Ok(ConfiguredStore { name: self.name.map(|name| name.0), store })
    }
}

/// Applies AWS variables from the file of variables as if they were in the process's environment.
fn complete_s3(settings: &mut crate::store::s3::S3Settings, variables: &Variables) {
    let file = variables.of_file();
    let get = |name: &str| file.get(name).filter(|value| !value.is_empty());
    let is_named = settings.profile.is_some() || settings.credentials_file.is_some() || settings.key.is_some();
    if let (false, Some(id), Some(secret)) = (is_named, get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"))
        && std::env::var_os("AWS_ACCESS_KEY_ID").is_none()
    {
        let token = get("AWS_SESSION_TOKEN").map(|token| Secret::new(token.as_str()));
        settings.key = Some(AccessKey { id: id.clone(), secret: Secret::new(secret.as_str()), token });
    }
    if settings.region.is_none() {
        settings.region = get("AWS_REGION").or(get("AWS_DEFAULT_REGION")).cloned();
    }
    if settings.endpoint.is_none() {
        settings.endpoint = get("AWS_ENDPOINT_URL_S3").or(get("AWS_ENDPOINT_URL")).cloned();
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSource {
    name: Option<Parsed<SourceName>>,
    url: Option<Spanned<Text>>,
    env_prefix: Option<Spanned<Text>>,
    host: Option<Text>,
    hostaddr: Option<Text>,
    port: Option<Text>,
    dbname: Option<Text>,
    user: Option<Text>,
    password: Option<Text>,
    password_file: Option<Text>,
    passfile: Option<Text>,
    service: Option<Text>,
    sslmode: Option<Text>,
    sslrootcert: Option<Text>,
    sslcert: Option<Text>,
    sslkey: Option<Text>,
    channel_binding: Option<Text>,
    connect_timeout: Option<Text>,
    options: Option<Text>,
    application_name: Option<Text>,
    target_session_attrs: Option<Text>,
    compression: Option<Parsed<Compression>>,
    tags: Vec<String>,
    rule: Vec<Spanned<RawRule>>,
}

/// The endings of an application's variables, and the keyword for each.
const PREFIXED: [(&str, &str); 11] = [
    ("HOST", "host"),
    ("PORT", "port"),
    ("NAME", "dbname"),
    ("DBNAME", "dbname"),
    ("DATABASE", "dbname"),
    // The PostgreSQL image uses it: POSTGRES_DB.
    ("DB", "dbname"),
    ("USER", "user"),
    ("USERNAME", "user"),
    ("PASSWORD", "password"),
    ("PASS", "password"),
    ("SSLMODE", "sslmode"),
];

/// Returns the keywords from an application's variables, whose names begin with `prefix`.
pub fn prefixed(variables: &Variables, prefix: &str) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (ending, keyword) in PREFIXED {
        let value = variables.get(&format!("{prefix}{ending}")).filter(|value| !value.is_empty());
        if let Some(value) = value.filter(|_| !pairs.iter().any(|(known, _)| known == keyword)) {
            pairs.push((keyword.to_owned(), value));
        }
    }
    if !pairs.iter().any(|(keyword, _)| keyword == "dbname") {
        return Err(Error::unreachable(format!("the variable {prefix}NAME is not set"))
            .hint(format!("set {prefix}HOST, {prefix}NAME, {prefix}USER and so on, or check env_prefix")));
    }
    Ok(pairs)
}

impl RawSource {
    /// Returns the position of its url or its env_prefix.
    pub(super) fn position(&self) -> Option<std::ops::Range<usize>> {
        self.url.as_ref().or(self.env_prefix.as_ref()).map(Spanned::span)
    }

    pub(super) fn take_rules(&mut self) -> Vec<Spanned<RawRule>> {
        std::mem::take(&mut self.rule)
    }

    pub(super) fn read(self, rules: Vec<Rule>, context: &ReadContext<'_>) -> Result<ConfiguredSource> {
        let name = self.name.ok_or_else(|| {
            Error::usage("a source has no name").hint("set 'name': stores and commands refer to the source by it")
        })?;
        let prefix = filled(self.env_prefix.map(Spanned::into_inner));
        // Values of the variables are replaced with the variables' names.
        let with_source_name = |error: Error| {
            let mut message = error.full_message_with_hint();
            if let Some(prefix) = &prefix {
                for (variable, value) in PREFIXED.iter().filter_map(|(ending, _)| {
                    let variable = format!("{prefix}{ending}");
                    context.variables.get(&variable).map(|value| (variable, value))
                }) {
                    message = hide(&message, &value, &format!("${{{variable}}}"));
                }
            }
            Error::new(error.kind, format!("the source {}: {message}", name.0))
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        if let Some(prefix) = &prefix {
            pairs = prefixed(context.variables, prefix).map_err(with_source_name)?;
        }
        let password = match filled(self.password_file) {
            Some(path) => Some(Text(context.secret_file(&path).map_err(with_source_name)?.expose().to_owned())),
            None => self.password,
        };
        let in_folder = |text: Option<Text>| filled(text).map(|path| Text(context.path(&path).display().to_string()));
        // The word `system` stands for the certificates of the system.
        let sslrootcert = match filled(self.sslrootcert) {
            Some(system) if system == "system" => Some(Text(system)),
            file => in_folder(file.map(Text)),
        };
        let keywords = [
            ("host", self.host),
            ("hostaddr", self.hostaddr),
            ("port", self.port),
            ("dbname", self.dbname),
            ("user", self.user),
            ("password", password),
            ("passfile", in_folder(self.passfile)),
            ("service", self.service),
            ("sslmode", self.sslmode),
            ("sslrootcert", sslrootcert),
            ("sslcert", in_folder(self.sslcert)),
            ("sslkey", in_folder(self.sslkey)),
            ("channel_binding", self.channel_binding),
            ("connect_timeout", self.connect_timeout),
            ("options", self.options),
            ("application_name", self.application_name),
            ("target_session_attrs", self.target_session_attrs),
        ];
        for (keyword, value) in keywords {
            if let Some(value) = filled(value) {
                pairs.retain(|(known, _)| known != keyword);
                pairs.push((keyword.to_owned(), value));
            }
        }
        let mut env = Environment::of_process();
        for (variable, value) in context.variables.of_file() {
            if variable.starts_with("PG") {
                env = env.with(&variable, &value);
            }
        }
        let source = match (filled(self.url.map(Spanned::into_inner)), pairs.is_empty()) {
            (Some(url), _) => match parse_source_url(&url).map_err(with_source_name)?.file() {
                Some(path) if pairs.is_empty() => sqlite_file(context.folder.join(clean(path))),
                Some(_) => {
                    return Err(with_source_name(Error::usage(
                        "keywords such as host are only valid for PostgreSQL, but the url is an SQLite file",
                    )));
                }
                // The URL is parsed again, with the variables of the file; keywords take precedence over the URL.
                None => postgres_database(Params::parse_with(&url, &pairs, &env).map_err(with_source_name)?),
            },
            (None, false) => postgres_database(Params::parse_with("", &pairs, &env).map_err(with_source_name)?),
            (None, true) => {
                return Err(with_source_name(
                    Error::usage("it has no url")
                        .hint("name an SQLite file, a PostgreSQL URL, or give host, port, dbname, user and password"),
                ));
            }
        };
        let compression = self.compression.map(|compression| compression.0);
        Ok(ConfiguredSource { name: name.0, source, compression, tags: self.tags, rules })
    }
}

fn clean(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRule {
    table: Option<String>,
    min_rows: Option<Parsed<Number>>,
    fresh: Option<RawFresh>,
    max_row_drop: Option<Parsed<Share>>,
    query: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFresh {
    column: String,
    within: Parsed<Age>,
    #[serde(default)]
    zone: Option<Parsed<Zone>>,
}

#[derive(Clone, Copy)]
struct Zone(chrono_tz::Tz);

impl std::str::FromStr for Zone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Zone).map_err(|_| {
            Error::usage(format!("'{text}' is not a time zone")).hint("write a name such as UTC or Asia/Shanghai")
        })
    }
}

impl RawRule {
    /// Returns the rules in a `[[source.rule]]` table: one for each condition.
    pub(super) fn read(self) -> Result<Vec<Rule>> {
        let Some(table) = self.table.clone() else {
            if self.min_rows.is_some() || self.fresh.is_some() {
                return Err(Error::usage("the rule has no table").hint("add table = \"...\""));
            }
            return self.conditions(None);
        };
        if self.query.is_some() {
            return Err(
                Error::usage("a rule with a query must not have a table").hint("remove table, or write two rules")
            );
        }
        self.conditions(Some(table))
    }

    fn conditions(self, table: Option<String>) -> Result<Vec<Rule>> {
        let zone = |fresh: &RawFresh| fresh.zone.as_ref().map_or(chrono_tz::UTC, |zone| zone.0.0);
        let conditions = [
            self.min_rows.map(|rows| Condition::MinRows(rows.0.0)),
            self.fresh.map(|fresh| {
                let zone = zone(&fresh);
                Condition::Fresh(Fresh { column: fresh.column, within: fresh.within.0.0, zone })
            }),
            self.max_row_drop.map(|share| Condition::MaxRowDrop(share.0)),
            self.query.map(Condition::Query),
        ];
        let rules: Vec<Rule> =
            conditions.into_iter().flatten().map(|condition| Rule { table: table.clone(), condition }).collect();
        if rules.is_empty() {
            return Err(Error::usage("the rule has no condition").hint("set min_rows, fresh, max_row_drop or query"));
        }
        Ok(rules)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPreflight {
    mounts: Vec<String>,
    writable: Vec<String>,
    min_free: Option<Parsed<Size>>,
    http: Vec<RawEndpoint>,
    allow_tmpfs: Option<Parsed<Flag>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    url: Parsed<HttpUrl>,
    #[serde(default)]
    status: Option<Parsed<Status>>,
    #[serde(default)]
    json: Option<String>,
    #[serde(default)]
    equals: Option<Text>,
    #[serde(default)]
    contains: Option<String>,
    #[serde(default)]
    timeout: Option<Parsed<Age>>,
}

impl RawPreflight {
    pub(super) fn read(self, context: &ReadContext<'_>) -> Result<Preflight> {
        let paths = |texts: Vec<String>| texts.iter().map(|text| context.path(text)).collect();
        let endpoint = |raw: RawEndpoint| {
            if raw.url.0.0.is_empty() {
                return Err(Error::usage("the url of an endpoint is empty"));
            }
            let mut check = HttpCheck::new(raw.url.0.0.parse()?);
            if let Some(status) = raw.status {
                check.status = status.0.0;
            }
            if let Some(timeout) = raw.timeout {
                check.timeout = timeout.0.0.to_std().map_err(|_| Error::usage("the timeout is invalid"))?;
            }
            check.contains = raw.contains;
            check.json = match (raw.json, raw.equals) {
                (Some(path), Some(expected)) => Some(JsonField { path, expected: expected.0 }),
                (None, None) => None,
                _ => {
                    return Err(Error::usage("json and equals must be set together")
                        .hint("write json = \"status\", equals = \"ok\""));
                }
            };
            Ok(check)
        };
        Ok(Preflight {
            mounts: paths(self.mounts),
            writable: paths(self.writable),
            min_free: self.min_free.map(|size| size.0.0),
            http: self.http.into_iter().map(endpoint).collect::<Result<_>>()?,
            allow_tmpfs: is_on(self.allow_tmpfs, false),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBackups {
    max_age: Option<Parsed<Age>>,
    max_shrink: Option<Parsed<Share>>,
    proof: Option<Parsed<Proof>>,
    proof_within: Option<Parsed<Age>>,
}

impl RawBackups {
    pub(super) fn read(self) -> Result<Backups> {
        let default = Backups::default();
        let proof_by_drill = self.proof.as_ref().is_some_and(|proof| proof.0.0 == "drilled");
        if self.proof.is_some() && self.proof_within.is_none() {
            return Err(Error::usage("proof needs proof_within").hint("write proof_within = \"8d\""));
        }
        Ok(Backups {
            max_age: self.max_age.map(|age| age.0.0),
            max_shrink: self.max_shrink.map_or(default.max_shrink, |share| share.0),
            proof_within: self.proof_within.map(|age| age.0.0),
            proof_by_drill,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetention {
    keep_last: Option<Parsed<Count>>,
    keep_hourly: Option<Parsed<Count>>,
    keep_daily: Option<Parsed<Count>>,
    keep_weekly: Option<Parsed<Count>>,
    keep_monthly: Option<Parsed<Count>>,
    keep_yearly: Option<Parsed<Count>>,
    keep_within: Option<Parsed<Age>>,
    keep_tags: Vec<String>,
    keep_others: Option<Parsed<Age>>,
    after_snapshot: Option<Parsed<Flag>>,
}

impl RawRetention {
    pub(super) fn read(self) -> Result<Retention> {
        let default = Policy::default();
        let count = |count: Option<Parsed<Count>>| count.map_or(0, |count| count.0.0);
        let policy = Policy {
            last: count(self.keep_last),
            hourly: count(self.keep_hourly),
            daily: count(self.keep_daily),
            weekly: count(self.keep_weekly),
            monthly: count(self.keep_monthly),
            yearly: count(self.keep_yearly),
            within: self.keep_within.map(|age| age.0.0),
            tags: self.keep_tags,
            others_within: self.keep_others.map_or(default.others_within, |age| age.0.0),
        };
        let after_snapshot = is_on(self.after_snapshot, false);
        if after_snapshot && policy.is_empty() {
            return Err(Error::usage("the policy keeps nothing").hint("set keep_last, keep_daily, ..."));
        }
        Ok(Retention { policy, after_snapshot })
    }
}

/// The commands that notices are sent for.
pub const WATCHED: [&str; 8] = ["snapshot", "check", "predeploy", "postdeploy", "guard", "drill", "verify", "prune"];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNotices {
    webhook: Option<Parsed<HttpUrl>>,
    webhook_file: Option<Text>,
    form: Option<Parsed<FormWord>>,
    on: Option<Parsed<Occasion>>,
    ping: Option<Pings>,
    state: Option<Text>,
}

/// The URLs of pings, by command.
struct Pings(Vec<(String, HttpUrl)>);

impl<'de> Deserialize<'de> for Pings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a table with a URL for each command")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pings, E> {
                let url = text.parse().map_err(|error: Error| de::Error::custom(error.full_message_with_hint()))?;
                // The job that a ping watches is the backup.
                Ok(Pings(vec![("snapshot".to_owned(), url)]))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pings, A::Error> {
                let mut pings = Vec::new();
                while let Some((command, url)) = map.next_entry::<String, Parsed<HttpUrl>>()? {
                    if !WATCHED.contains(&command.as_str()) {
                        let known = WATCHED.join(", ");
                        return Err(de::Error::custom(format!("unknown command '{command}': must be one of {known}")));
                    }
                    pings.push((command, url.0));
                }
                Ok(Pings(pings))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl RawNotices {
    pub(super) fn read(self, context: &ReadContext<'_>) -> Result<Notices> {
        let mut webhook = self.webhook.map(|url| url.0);
        if let Some(path) = filled(self.webhook_file) {
            let parsed = context.secret_file(&path)?.expose().parse();
            webhook = Some(parsed.map_err(|error: Error| error.context("webhook_file"))?);
        }
        let is_slack = self.form.is_some_and(|form| form.0.0 == "slack");
        let pings = self.ping.map(|pings| pings.0).unwrap_or_default();
        Ok(Notices {
            webhook: webhook.filter(|url| !url.0.is_empty()).map(|url| url.0.parse()).transpose()?,
            form: if is_slack { Form::Slack } else { Form::Json },
            on: match self.on.as_ref().map(|on| on.0.0.as_str()) {
                Some("recovery") => When::Recovery,
                Some("always") => When::Always,
                _ => When::Failure,
            },
            pings: pings
                .into_iter()
                .filter(|(_, url)| !url.0.is_empty())
                .map(|(command, url)| Ok((command, url.0.parse()?)))
                .collect::<Result<_>>()?,
            state: filled(self.state).map(|path| context.path(&path)),
        })
    }
}

/// A public key; `None` if the text is empty.
struct MaybeRecipient(Option<Recipient>);

impl std::str::FromStr for MaybeRecipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            Ok(MaybeRecipient(None))
        } else {
            text.trim().parse().map(|key| MaybeRecipient(Some(key)))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEncryption {
    recipients: Vec<Parsed<MaybeRecipient>>,
    identity: Option<Text>,
    identity_file: Option<Text>,
    identity_files: Vec<String>,
    passphrase_file: Option<Text>,
}

impl RawEncryption {
    pub(super) fn read(self, context: &ReadContext<'_>) -> Result<Encryption> {
        // In many pipelines, a secret that is not set is empty. A snapshot that should be encrypted must not be saved
        // unencrypted because of that.
        let is_written = !self.recipients.is_empty() || self.passphrase_file.is_some();
        let recipients: Vec<Recipient> = self.recipients.into_iter().filter_map(|recipient| recipient.0.0).collect();
        let passphrase_file = filled(self.passphrase_file).map(|path| context.path(&path));
        if is_written && recipients.is_empty() && passphrase_file.is_none() {
            return Err(Error::unreachable("recipients or passphrase_file is set, but empty")
                .hint("set the variables that they use, or remove both to save snapshots without encryption"));
        }
        if !recipients.is_empty() && passphrase_file.is_some() {
            return Err(Error::usage("an archive is encrypted to keys or with a passphrase, not both")
                .hint("remove recipients or passphrase_file"));
        }
        let files = filled(self.identity_file).into_iter().chain(self.identity_files);
        Ok(Encryption {
            recipients,
            identity: filled(self.identity).map(Secret::new),
            identity_files: files.map(|path| context.path(&path)).collect(),
            passphrase_file,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGuard {
    grace: Option<Parsed<Age>>,
    reserve: Option<Parsed<Age>>,
    restore_if_missing: Option<Parsed<Flag>>,
    snapshot_at_end: Option<Parsed<Flag>>,
}

impl RawGuard {
    pub(super) fn read(self) -> Result<Guard> {
        let default = Guard::default();
        let grace = self.grace.map_or(default.grace, |age| age.0.0);
        let reserve = self.reserve.map(|age| age.0.0);
        if reserve.is_some_and(|reserve| reserve >= grace) {
            return Err(Error::usage("the reserve for the last snapshot must be shorter than the grace")
                .hint("grace is the time that the platform allows from SIGTERM to SIGKILL"));
        }
        Ok(Guard {
            grace,
            reserve,
            restore_if_missing: is_on(self.restore_if_missing, true),
            snapshot_at_end: is_on(self.snapshot_at_end, true),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServe {
    listen: Option<Text>,
    every: Option<Parsed<Age>>,
    timeout: Option<Parsed<Age>>,
    token: Option<Text>,
    token_file: Option<Text>,
    user: Option<Text>,
    password: Option<Text>,
    password_file: Option<Text>,
    public: Option<Parsed<Flag>>,
}

impl RawServe {
    pub(super) fn read(self, context: &ReadContext<'_>) -> Result<Serve> {
        let default = Serve::default();
        let secret = |text: Option<Text>, file: Option<Text>| match filled(file) {
            Some(path) => context.secret_file(&path).map(Some),
            None => Ok(filled(text).map(Secret::new)),
        };
        let token = secret(self.token, self.token_file)?;
        if token.as_ref().is_some_and(|token| token.expose().len() < SHORTEST_TOKEN) {
            return Err(Error::usage(format!("the token has fewer than {SHORTEST_TOKEN} characters"))
                .hint("create one with 'openssl rand -hex 32'"));
        }
        let login = match (filled(self.user), secret(self.password, self.password_file)?) {
            (Some(user), Some(_)) if user.contains(':') => {
                return Err(Error::usage("the user name must not contain a colon"));
            }
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => return Err(Error::usage("user and password must be set together")),
        };
        let listen = match filled(self.listen) {
            Some(text) => parse_listen(&text)?,
            None => default.listen,
        };
        let every = self.every.map_or(default.every, |age| age.0.0);
        let timeout = self.timeout.map_or(default.timeout, |age| age.0.0);
        if every < Duration::seconds(1) || timeout < Duration::seconds(1) {
            return Err(Error::usage("'every' and 'timeout' must be at least 1s"));
        }
        Ok(Serve { listen, every, timeout, token, login, public: is_on(self.public, false) })
    }
}

/// The minimum length of a token: a shorter one can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Parses an address to listen on: an IP address of this machine, and a port.
pub fn parse_listen(text: &str) -> Result<SocketAddr> {
    text.trim().parse().map_err(|_| {
        Error::usage(format!("'{}' is not an address to listen on", crate::platform::error::one_line(text)))
            .hint("write an address and a port: 127.0.0.1:8700, or 0.0.0.0:8700 for all addresses of this machine")
    })
}

/// Returns an error with its causes and its hint in one message; its kind is `Unreachable` or else `Usage`.
pub(super) fn on_one_line(error: &Error) -> Error {
    let kind = if error.kind == Kind::Unreachable { Kind::Unreachable } else { Kind::Usage };
    Error::new(kind, error.full_message_with_hint())
}
