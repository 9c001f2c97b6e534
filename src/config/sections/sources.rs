//! `[[source]]`: the databases, their rules and their settings.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::archive::Compression;
use crate::config::document::hide;
use crate::config::sections::reading::{ReadContext, filled};
use crate::config::sections::rules::RawRule;
use crate::config::values::{Parsed, Text};
use crate::config::variables::Variables;
use crate::engine::postgres::Params;
use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::wire::params::Environment;
use crate::engine::rules::Rule;
use crate::engine::source::{Source, parse_source_url, postgres_database, sqlite_file};
use crate::platform::error::{Error, Result};
use crate::snapshots::id::SourceName;

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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSource {
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
    provider: Option<Parsed<Provider>>,
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
    pub(in crate::config) fn position(&self) -> Option<std::ops::Range<usize>> {
        self.url.as_ref().or(self.env_prefix.as_ref()).map(Spanned::span)
    }

    pub(in crate::config) fn take_rules(&mut self) -> Vec<Spanned<RawRule>> {
        std::mem::take(&mut self.rule)
    }

    pub(in crate::config) fn read(self, rules: Vec<Rule>, context: &ReadContext<'_>) -> Result<ConfiguredSource> {
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
        let in_folder = |text: Option<Text>| context.path_text(text).map_err(with_source_name);
        // The word `system` stands for the certificates of the system.
        let sslrootcert = match filled(self.sslrootcert) {
            Some(system) if system == "system" => Some(Text(system)),
            file => in_folder(file.map(Text))?,
        };
        let keywords = [
            ("host", self.host),
            ("hostaddr", self.hostaddr),
            ("port", self.port),
            ("dbname", self.dbname),
            ("user", self.user),
            ("password", password),
            ("passfile", in_folder(self.passfile)?),
            ("service", self.service),
            ("sslmode", self.sslmode),
            ("sslrootcert", sslrootcert),
            ("sslcert", in_folder(self.sslcert)?),
            ("sslkey", in_folder(self.sslkey)?),
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
        let env = environment(context);
        let provider = self.provider.map(|provider| provider.0);
        let server = |params: Params| postgres_database(params.with_provider(provider));
        let source = match (filled(self.url.map(Spanned::into_inner)), pairs.is_empty()) {
            (Some(url), _) => match parse_source_url(&url).map_err(with_source_name)?.file() {
                Some(path) if pairs.is_empty() && provider.is_none() => sqlite_file(context.folder.join(clean(path))),
                Some(_) => {
                    return Err(with_source_name(Error::usage(
                        "keywords such as host and provider are only valid for PostgreSQL, but the url is an SQLite file",
                    )));
                }
                // The URL is parsed again, with the variables of the file; keywords take precedence over the URL.
                None => server(Params::parse_with(&url, &pairs, &env).map_err(with_source_name)?),
            },
            (None, false) => server(Params::parse_with("", &pairs, &env).map_err(with_source_name)?),
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

/// Returns the environment of the process, with PostgreSQL's variables of the file of variables.
fn environment(context: &ReadContext<'_>) -> Environment {
    let of_file = context.variables.of_file().into_iter().filter(|(variable, _)| variable.starts_with("PG"));
    of_file.fold(Environment::of_process(), |env, (variable, value)| env.with(&variable, &value))
}

fn clean(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}
