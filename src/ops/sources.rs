//! The sources that a command works on: those that the command line names, or all sources of the config.

use std::path::{Path, PathBuf};

use crate::config::ConfiguredSource;
use crate::engine::source::{Source, parse_source};
use crate::ops::{Context, origin_path};
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
            Error::usage("no name for the source can be made of the file's")
                .hint("put it into lifeboat.toml, with a name")
        })
    }

    /// Returns the config's rules for it.
    pub(crate) fn rules(&self) -> &[crate::engine::rules::Rule] {
        self.configured.as_ref().map_or(&[], |configured| &configured.rules)
    }
}

impl Context {
    /// Returns the sources that are named: names of the config, files, or URLs. If none is named, returns all sources
    /// of the config. Fails if there is no source.
    pub(crate) fn sources(&self, named: &[String]) -> Result<Vec<Chosen>> {
        let Some(config) = self.config.as_ref().filter(|_| named.is_empty()) else {
            if named.is_empty() {
                return Err(Error::usage("no source is named").hint(
                    "name an SQLite file or a PostgreSQL URL; 'lifeboat init' writes a config, which names them all",
                ));
            }
            return named.iter().map(|text| self.named_source(text)).collect();
        };
        let sources = config.sources()?;
        if sources.is_empty() {
            let error = Error::usage(format!("{} has no source", crate::platform::disk::shown(&config.path)));
            return Err(error.hint("add a [[source]] with name and url, or name one"));
        }
        Ok(sources.iter().cloned().map(chosen).collect())
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
        Ok(Chosen { source: parse_source(text)?, configured: None, name: None })
    }

    /// Returns the source of the config that is this file, if there is one.
    pub(crate) fn source_at(&self, path: &Path) -> Result<Option<Chosen>> {
        let Some(config) = &self.config else { return Ok(None) };
        let file = Source::Sqlite(path.to_owned());
        let found = config.sources()?.iter().find(|configured| configured.source.is_same(&file));
        Ok(found.cloned().map(chosen))
    }

    /// Returns the source of the config that has the snapshot's source name and engine, if there is one.
    pub(crate) fn home_of(&self, manifest: &Manifest) -> Result<Option<Source>> {
        let Some(config) = &self.config else { return Ok(None) };
        let sources = match config.sources() {
            Ok(sources) => sources,
            // The sources of the config are invalid. The snapshot's origin is still known.
            Err(error) => {
                tracing::warn!("{}", error.whole());
                return Ok(None);
            }
        };
        let found = sources.iter().find(|configured| configured.name == manifest.source);
        Ok(found.map(|configured| configured.source.clone()).filter(|source| source.engine() == manifest.engine))
    }

    /// Returns the file of a snapshot's database: the config's, or else the snapshot's origin if that is on this
    /// machine.
    pub(crate) fn home_path(&self, manifest: &Manifest) -> Result<Option<PathBuf>> {
        let home = self.home_of(manifest)?;
        let file = home.as_ref().and_then(Source::file).map(Path::to_owned);
        Ok(file.or_else(|| origin_path(manifest, &self.host)))
    }
}

pub(crate) fn chosen(configured: ConfiguredSource) -> Chosen {
    Chosen { source: configured.source.clone(), configured: Some(configured), name: None }
}
