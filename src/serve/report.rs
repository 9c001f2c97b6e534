//! `report`: the page that `serve` shows, as a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use serde::Serialize;

use crate::ops::sources::Chosen;
use crate::ops::summary::Check;
use crate::ops::{Context, Report};
use crate::platform::disk::{replace_file, shown};
use crate::platform::error::{IoContext, Kind, Result, one_line};
use crate::serve::page::Status;
use crate::serve::status::history::read_all;
use crate::serve::status::{Reading, assemble, inspect_source, min_free_bytes, view};
use crate::snapshots::id::SourceName;

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportOptions {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config.
    pub sources: Vec<String>,
    /// The file to write the page to, as HTML.
    pub html: Option<PathBuf>,
    /// The file to write the short form to, as Markdown; `-` is stdout.
    pub markdown: Option<PathBuf>,
}

/// The files that were written, and the results that they show.
#[derive(Debug, Serialize)]
pub(crate) struct ReportReport {
    /// True if all sources and stores are healthy.
    pub ok: bool,
    /// The results of all checks.
    pub checks: Vec<Check>,
    /// The files that were written.
    pub files: Vec<String>,
    /// The short form, if it goes to stdout.
    #[serde(skip)]
    pub stdout: Option<String>,
}

impl Report for ReportReport {
    fn is_ok(&self) -> bool {
        self.ok
    }
}

/// Runs the command.
pub(crate) fn run(options: &ReportOptions, context: &Context) -> Result<ReportReport> {
    let chosen = context.sources(&options.sources)?;
    let names: Vec<SourceName> = chosen.iter().map(Chosen::name).collect::<Result<_>>()?;
    let mut stores = Vec::new();
    for store in context.all_stores()? {
        let begun = Instant::now();
        let contents = read_all(store, &names, context)?;
        stores.push((one_line(&store.to_string()), reading(contents, begun)));
    }
    let min_free_bytes = min_free_bytes(context)?;
    let mut sources = Vec::new();
    for (chosen, name) in chosen.iter().zip(&names) {
        let begun = Instant::now();
        let baselines =
            stores.iter().filter_map(|(_, store)| store.last.as_ref()?.sources.get(name)?.summary.baseline.clone());
        let baseline = baselines.max_by_key(|manifest| manifest.created_at);
        let inspection = inspect_source(chosen, baseline.as_deref(), min_free_bytes, &context.scratch)?;
        sources.push((chosen, reading(inspection, begun)));
    }
    let status = assemble(sources, stores, context)?;
    let page = view::overview(&status, &[], false, context);
    let mut report = ReportReport {
        ok: status.status() == Status::Good,
        checks: status.checks().checks,
        files: Vec::new(),
        stdout: None,
    };
    if let Some(path) = &options.html {
        report.write(path, &page.html()?)?;
    }
    match &options.markdown {
        Some(path) if path.as_os_str() == "-" => report.stdout = Some(page.markdown()?),
        Some(path) => report.write(path, &page.markdown()?)?,
        None => {}
    }
    Ok(report)
}

fn reading<T>(result: T, begun: Instant) -> Reading<T> {
    Reading { last: Some(Arc::new(result)), at: Some(Utc::now()), seconds: begun.elapsed().as_secs_f64(), late: None }
}

impl ReportReport {
    fn write(&mut self, path: &std::path::Path, text: &str) -> Result<()> {
        replace_file(path, 0o644, text.as_bytes()).io(Kind::Failed, || format!("cannot write {}", shown(path)))?;
        self.files.push(path.display().to_string());
        Ok(())
    }
}
