//! The sources that a command works on: those that the command line names, or all of the config.

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
    /// Where it is.
    pub(crate) source: Source,
    /// What the config says of it, where it is one of the config's.
    pub(crate) configured: Option<ConfiguredSource>,
    /// The name that whoever found it has given it.
    pub(crate) name: Option<SourceName>,
}

impl Chosen {
    /// Its name in the stores: the config's, or one made of the file's or database's.
    pub(crate) fn name(&self) -> Result<SourceName> {
        if let Some(configured) = &self.configured {
            return Ok(configured.name.clone());
        }
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let derived = match &self.source {
            Source::Sqlite(path) => path.file_name().and_then(|name| SourceName::derive(&name.to_string_lossy())),
            Source::Postgres(params) => SourceName::derive(params.database()),
        };
        derived.ok_or_else(|| {
            Error::usage("no name for the source can be made of the file's")
                .hint("put it into lifeboat.toml, with a name")
        })
    }

    /// What the config demands of it.
    pub(crate) fn rules(&self) -> &[crate::engine::rules::Rule] {
        self.configured.as_ref().map_or(&[], |configured| &configured.rules)
    }
}

impl Context {
    /// The sources that are named: names of the config, files, URLs. Where none is, all of the config; there is at least one.
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

    /// What a person means by a source: a name of the config goes before a file of that name (which is `./NAME`).
    pub(crate) fn named_source(&self, text: &str) -> Result<Chosen> {
        if let (Some(config), Ok(name)) = (&self.config, text.parse::<SourceName>())
            // A config whose sources cannot be used knows no names.
            && let Ok(sources) = config.sources()
            && let Some(configured) = sources.iter().find(|configured| configured.name == name)
        {
            return Ok(chosen(configured.clone()));
        }
        Ok(Chosen { source: parse_source(text)?, configured: None, name: None })
    }

    /// The source of the config that is this file, if there is one.
    pub(crate) fn source_at(&self, path: &Path) -> Result<Option<Chosen>> {
        let Some(config) = &self.config else { return Ok(None) };
        let file = Source::Sqlite(path.to_owned());
        let found = config.sources()?.iter().find(|configured| configured.source.is_same(&file));
        Ok(found.cloned().map(chosen))
    }

    /// Where a snapshot's database is by the config: the source of its name and engine.
    pub(crate) fn home_of(&self, manifest: &Manifest) -> Result<Option<Source>> {
        let Some(config) = &self.config else { return Ok(None) };
        let sources = match config.sources() {
            Ok(sources) => sources,
            // It says nothing that can be used: where the snapshot came from is known all the same.
            Err(error) => {
                tracing::warn!("{}", error.whole());
                return Ok(None);
            }
        };
        let found = sources.iter().find(|configured| configured.name == manifest.source);
        Ok(found.map(|configured| configured.source.clone()).filter(|source| match source {
            Source::Sqlite(_) => manifest.engine == "sqlite",
            Source::Postgres(_) => manifest.engine == "postgres",
        }))
    }

    /// The file that a snapshot is of: as the config says, or where it came from on this machine.
    pub(crate) fn home_path(&self, manifest: &Manifest) -> Result<Option<PathBuf>> {
        Ok(match self.home_of(manifest)? {
            Some(Source::Sqlite(path)) => Some(path),
            _ => origin_path(manifest, &self.host),
        })
    }
}

pub(crate) fn chosen(configured: ConfiguredSource) -> Chosen {
    Chosen { source: configured.source.clone(), configured: Some(configured), name: None }
}
