//! Finds the inputs of a migration as files on this machine, and finds its target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Variables, prefixed};
use crate::engine::postgres::wire::params::{Environment, Params};
use crate::engine::source::parse_source;
use crate::engine::sqlite::fetch::fetch_image;
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

/// The SQLite files of a plan, on this machine.
#[derive(Default)]
pub(super) struct Inputs {
    /// The path of each file, by its name in the plan.
    pub(super) files: BTreeMap<String, PathBuf>,
    /// The manifests of the files that come from snapshots, by their names in the plan.
    pub(super) manifests: BTreeMap<String, Manifest>,
    /// The files fetched from snapshots. They are deleted when this value is dropped.
    _images: Vec<(ImageFile, ScratchFolder)>,
}

impl Inputs {
    /// Finds the files. The database files of snapshots are fetched from the store.
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

/// Fetches the database file of a snapshot into a new scratch folder. Every byte of it is verified.
fn fetch_snapshot(id: &str, context: &Context) -> Result<(ImageFile, Manifest, ScratchFolder)> {
    let catalog = context.open_catalog()?;
    let listed = catalog.find(id, &crate::snapshots::search::SnapshotFilter::default())?;
    let opened = fetch::open(&catalog, &listed.id, context)?;
    if opened.manifest.engine != "sqlite" {
        return Err(Error::usage(format!("{} is not a snapshot of an SQLite file", opened.manifest.id)));
    }
    let folder = context.scratch.folder(opened.manifest.raw_bytes)?;
    let fetched = fetch_image(&opened, folder.path("image.db"), &*context.progress)?;
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

/// Reads the state of the tables of a file, if no snapshot of it is taken.
pub(super) fn state_of_file(path: &Path, context: &Context) -> Result<SourceState> {
    let survey = survey::survey_live(path, OnDamage::Fail, &context.scratch)?;
    let tables = survey
        .tables
        .iter()
        .filter_map(|table| Some((table.name.clone(), TableState { rows: table.rows?, digest: table.digest? })));
    Ok(SourceState { snapshot: None, tables: tables.collect() })
}

/// Returns the connection parameters of a plan's target, with the password, which a plan never contains.
pub(super) fn params_of(plan: &Plan, given: Option<&str>, context: &Context) -> Result<Params> {
    match given {
        Some(text) => params(&target_of(Some(text), None, None, context)?.0, context, Some(text)),
        None => params(&plan.target, context, None),
    }
}

/// Returns the target that the command line names, in the form in which a plan contains it, and its connection
/// parameters.
pub(super) fn target_of(
    to: Option<&str>,
    env_file: Option<&Path>,
    env_prefix: Option<&str>,
    context: &Context,
) -> Result<(Target, Params)> {
    let target = match (to, env_prefix) {
        (Some(_), Some(_)) => {
            return Err(Error::usage("--to and --env-prefix both name the target").hint("use only one of them"));
        }
        (None, None) => {
            return Err(Error::usage("no target is named").hint(
                "name it with --to postgres://USER@HOST/DATABASE, or --env-prefix TDX_DB_ for variables such as TDX_DB_HOST",
            ));
        }
        (None, Some(prefix)) => {
            let file = env_file.unwrap_or(Path::new(".env"));
            let file = std::path::absolute(file)
                .map_err(|error| Error::usage("cannot find the absolute path of the env file").because(error))?;
            Target { env_file: Some(file), env_prefix: Some(prefix.to_owned()), ..Target::default() }
        }
        (Some(text), None) => match context.named_source(text)?.configured {
            Some(configured) => Target { source: Some(configured.name.to_string()), ..Target::default() },
            None => {
                let source = parse_source(text)?;
                if source.server().is_none() {
                    return Err(Error::usage(format!("'{}' is not a PostgreSQL database", one_line(text)))
                        .hint("name it as postgres://USER@HOST/DATABASE"));
                }
                Target { url: Some(source.shown()), ..Target::default() }
            }
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
        let mut env = Environment::of_process();
        for (variable, value) in variables.of_file() {
            if variable.starts_with("PG") {
                env = env.with(&variable, &value);
            }
        }
        return Params::parse_with("", &prefixed(&variables, prefix)?, &env);
    }
    let text = given.or(target.source.as_deref()).or(target.url.as_deref()).ok_or_else(|| {
        Error::usage("the plan's [target] does not name a database").hint("set url, source or env_prefix there")
    })?;
    let source = context.named_source(text)?.source;
    source
        .server()
        .cloned()
        .ok_or_else(|| Error::usage(format!("the target '{}' is not a PostgreSQL database", one_line(text))))
}
