//! The sources that a command works on: those that the command line names, or all sources of the config.

use std::path::Path;

use crate::config::{Config, ConfiguredSource};
use crate::engine::rules::Rule;
use crate::engine::source::{Source, engine_named, parse_source, sqlite_file};
use crate::ops::Context;
use crate::platform::error::{Error, Result};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Manifest;

/// A source that a command works on.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Its database file or connection parameters.
    pub(crate) source: Source,
    /// Its section of the config, if it has one.
    pub(crate) configured: Option<ConfiguredSource>,
    /// The name that it was given when it was found by a search, if it was.
    pub(crate) name: Option<SourceName>,
    /// The rules of the command line, in addition to those of the config.
    pub(crate) rules: Vec<Rule>,
}

impl Chosen {
    /// Returns its name in the stores: the config's, or one made from the name of the file or database.
    pub(crate) fn name(&self) -> Result<SourceName> {
        if let Some(configured) = &self.configured {
            return Ok(configured.name.clone());
        }
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        self.source.derived_name().ok_or_else(|| {
            Error::usage("no name for the source can be derived from its file name")
                .hint("add the source to lifeboat.toml with a name")
        })
    }

    /// Returns the rules for it: those of the config, and those of the command line.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let configured = self.configured.iter().flat_map(|configured| &configured.rules);
        configured.chain(&self.rules).cloned().collect()
    }
}

impl Context {
    /// Returns the sources that are named: names of the config, files, or URLs. If none is named, returns all sources
    /// of the config. Fails if there is no source.
    pub(crate) fn sources(&self, named: &[String]) -> Result<Vec<Chosen>> {
        let Some(config) = self.config.as_ref().filter(|_| named.is_empty()) else {
            if named.is_empty() {
                return Err(Error::usage("no source is named").hint(
                    "name an SQLite file or a PostgreSQL URL; 'lifeboat init' writes a config that lists them all",
                ));
            }
            return named.iter().map(|text| self.existing_or_configured(text)).collect();
        };
        let sources = config.sources()?;
        if sources.is_empty() {
            let error = Error::usage(format!("{} has no source", crate::platform::disk::shown(&config.path)));
            return Err(error.hint("add a [[source]] with name and url, or name a source on the command line"));
        }
        Ok(sources.iter().cloned().map(chosen).collect())
    }

    /// Returns the source that a person names. Fails if it looks like the name of a source that the config does not have, and is
    /// no file: a mistyped name must not look like a database that is not there yet.
    fn existing_or_configured(&self, text: &str) -> Result<Chosen> {
        let chosen = self.named_source(text)?;
        let names = self.config.as_ref().map(Config::source_names).unwrap_or_default();
        let is_name = !text.contains(['.', '/', '\\']) && text.parse::<SourceName>().is_ok();
        let is_unknown = chosen.configured.is_none() && chosen.source.file().is_some_and(|file| !file.exists());
        if names.is_empty() || !is_name || !is_unknown {
            return Ok(chosen);
        }
        let names: Vec<&str> = names.iter().map(SourceName::as_str).collect();
        Err(Error::usage(format!("no source '{text}' in the config; there are: {}", names.join(", ")))
            .hint(format!("write one of these names, or './{text}' for a file that is not there yet")))
    }

    /// Returns the source that a person names. A name of the config is preferred to a file of that name (which is
    /// `./NAME`).
    pub(crate) fn named_source(&self, text: &str) -> Result<Chosen> {
        if let (Some(config), Ok(name)) = (&self.config, text.parse::<SourceName>())
            // If the sources of the config are invalid, it has no names.
            && let Ok(sources) = config.sources()
            && let Some(configured) = sources.iter().find(|configured| configured.name == name)
        {
            return Ok(chosen(configured.clone()));
        }
        Ok(Chosen { source: parse_source(text)?, configured: None, name: None, rules: Vec::new() })
    }

    /// Returns the source of the config that is this file, if there is one.
    pub(crate) fn source_at(&self, path: &Path) -> Result<Option<Chosen>> {
        let Some(config) = &self.config else { return Ok(None) };
        let file = sqlite_file(path.to_owned());
        let found = config.sources()?.iter().find(|configured| configured.source.is_same(&*file));
        Ok(found.cloned().map(chosen))
    }

    /// Returns the source of the config that has the snapshot's source name and engine, if there is one.
    pub(crate) fn configured_source(&self, manifest: &Manifest) -> Result<Option<Source>> {
        let Some(config) = &self.config else { return Ok(None) };
        let sources = match config.sources() {
            Ok(sources) => sources,
            // The sources of the config are invalid. The snapshot's origin is still known.
            Err(error) => {
                tracing::warn!("{}", error.full_message());
                return Ok(None);
            }
        };
        let found = sources.iter().find(|configured| configured.name == manifest.source);
        Ok(found.map(|configured| configured.source.clone()).filter(|source| source.engine() == manifest.engine))
    }

    /// Returns the database of a snapshot: the one that the config has for its source, or else the snapshot's origin if
    /// this machine can reach it.
    pub(crate) fn configured_source_or_origin(&self, manifest: &Manifest) -> Result<Option<Source>> {
        match self.configured_source(manifest)? {
            Some(source) => Ok(Some(source)),
            None => engine_named(&manifest.engine)?.origin_of(manifest, &self.host),
        }
    }
}

/// Returns a source of the config as one that a command works on.
pub(crate) fn chosen(configured: ConfiguredSource) -> Chosen {
    Chosen { source: configured.source.clone(), configured: Some(configured), name: None, rules: Vec::new() }
}
