//! Finds the inputs of a migration, as files on this machine, and its target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Variables, prefixed};
use crate::engine::postgres::wire::params::{Params, Surroundings};
use crate::engine::source::{Source, parse_source};
use crate::engine::sqlite::image::ImageFile;
use crate::engine::sqlite::source::locate;
use crate::engine::sqlite::survey::{self, OnDamage};
use crate::migrate::Plan;
use crate::migrate::plan::{SourceFile, Target};
use crate::migrate::state::{SourceState, TableState};
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::scratch::ScratchFolder;
use crate::snapshots::manifest::Manifest;

/// The files of a plan, as paths that can be read.
#[derive(Default)]
pub(super) struct Inputs {
    /// By their names in the plan.
    pub(super) files: BTreeMap<String, PathBuf>,
    /// The manifests of those that are snapshots.
    pub(super) manifests: BTreeMap<String, Manifest>,
    /// The images of snapshots, which are kept as long as this value lives.
    _images: Vec<(ImageFile, ScratchFolder)>,
}

impl Inputs {
    /// Finds the files, and fetches the images of snapshots from the store.
    pub(super) fn open(files: &[SourceFile], context: &Context) -> Result<Self> {
        let mut inputs = Inputs::default();
        for file in files {
            if let Some(path) = &file.path {
                inputs.files.insert(file.name.clone(), locate(path)?);
                continue;
            }
            let id = file.snapshot.as_deref().unwrap_or_default();
            let (image, manifest, folder) = fetch_snapshot(id, context)?;
            inputs.files.insert(file.name.clone(), image.path().to_owned());
            inputs.manifests.insert(file.name.clone(), manifest);
            inputs._images.push((image, folder));
        }
        Ok(inputs)
    }
}

/// Fetches the image of a snapshot into a folder of its own; every byte of it is compared with what was saved.
fn fetch_snapshot(id: &str, context: &Context) -> Result<(ImageFile, Manifest, ScratchFolder)> {
    let catalog = context.open_catalog()?;
    let listed = catalog.find(id, &crate::snapshots::catalog::Narrow::default())?;
    let opened = fetch::open(&catalog, &listed.id, context)?;
    if opened.manifest.engine != "sqlite" {
        return Err(Error::usage(format!("{} is no snapshot of an SQLite file", opened.manifest.id)));
    }
    let folder = context.scratch.folder(opened.manifest.raw_bytes)?;
    let fetched = opened.fetch_image(folder.path("image.db"), context)?;
    Ok((fetched.image, opened.manifest, folder))
}

/// Returns the state of the tables according to a snapshot's manifest.
pub(super) fn state_of(manifest: &Manifest) -> SourceState {
    let tables = manifest
        .tables
        .iter()
        .filter_map(|table| Some((table.name.clone(), TableState { rows: table.rows?, digest: table.digest? })));
    SourceState { snapshot: Some(manifest.id.to_string()), tables: tables.collect() }
}

/// Reads the state of the tables of a file of which no snapshot is taken.
pub(super) fn state_of_file(path: &Path) -> Result<SourceState> {
    let survey = survey::survey_live(path, OnDamage::Fail)?;
    let tables = survey
        .tables
        .iter()
        .filter_map(|table| Some((table.name.clone(), TableState { rows: table.rows?, digest: table.digest? })));
    Ok(SourceState { snapshot: None, tables: tables.collect() })
}

/// Returns how to connect to a plan's target, with the password, which a plan never contains.
pub(super) fn params_of(plan: &Plan, given: Option<&str>, context: &Context) -> Result<Params> {
    match given {
        Some(text) => params(&target_of(Some(text), None, None, context)?.0, context, Some(text)),
        None => params(&plan.target, context, None),
    }
}

/// Returns the target that the command line names, as it is written in a plan, and how to connect to it.
pub(super) fn target_of(
    to: Option<&str>,
    env_file: Option<&Path>,
    env_prefix: Option<&str>,
    context: &Context,
) -> Result<(Target, Params)> {
    let target = match (to, env_prefix) {
        (Some(_), Some(_)) => {
            return Err(Error::usage("--to and --env-prefix both name the target").hint("leave one of them away"));
        }
        (None, None) => {
            return Err(Error::usage("no target is named").hint(
                "name it with --to postgres://USER@HOST/DATABASE, or --env-prefix TDX_DB_ for variables such as TDX_DB_HOST",
            ));
        }
        (None, Some(prefix)) => {
            let file = env_file.unwrap_or(Path::new(".env"));
            let file = std::path::absolute(file)
                .map_err(|error| Error::usage("the env_file has no absolute path").because(error))?;
            Target { env_file: Some(file), env_prefix: Some(prefix.to_owned()), ..Target::default() }
        }
        (Some(text), None) => match context.named_source(text)?.configured {
            Some(configured) => Target { source: Some(configured.name.to_string()), ..Target::default() },
            None => match parse_source(text)? {
                Source::Postgres(params) => Target { url: Some(params.shown()), ..Target::default() },
                Source::Sqlite(_) => {
                    return Err(Error::usage(format!("'{}' is no PostgreSQL database", one_line(text)))
                        .hint("name it as postgres://USER@HOST/DATABASE"));
                }
            },
        },
    };
    let params = params(&target, context, to)?;
    Ok((target, params))
}

fn params(target: &Target, context: &Context, given: Option<&str>) -> Result<Params> {
    if let Some(prefix) = &target.env_prefix {
        let variables = match &target.env_file {
            Some(path) => Variables::read(path)?,
            None => Variables::default(),
        };
        let mut around = Surroundings::of_process();
        for (variable, value) in variables.of_file() {
            if variable.starts_with("PG") {
                around = around.with(&variable, &value);
            }
        }
        return Params::parse_with("", &prefixed(&variables, prefix)?, &around);
    }
    let text = given.or(target.source.as_deref()).or(target.url.as_deref()).ok_or_else(|| {
        Error::usage("the plan's [target] names no database").hint("give it url, source, or env_prefix")
    })?;
    match context.named_source(text)?.source {
        Source::Postgres(params) => Ok(*params),
        Source::Sqlite(_) => Err(Error::usage(format!("the target '{}' is no PostgreSQL database", one_line(text)))),
    }
}
