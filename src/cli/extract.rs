//! `extract`: its arguments, and its result for people.

use std::io::{self};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::cli::trust::TrustArgs;
use crate::engine::database::TableFormat;
use crate::ops::extract::{self, ExtractOptions, ExtractReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;

/// Extracts all files of an archive, one of them, or one table
#[derive(Args, Clone, Debug)]
pub(super) struct ExtractArgs {
    /// A snapshot id, the start of one, 'latest', or the path of an archive
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// The target: a new or empty folder for the whole archive, a new file for one entry or table, or - for stdout
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Extract only this entry of the archive, such as manifest.json
    #[arg(long, value_name = "PATH", conflicts_with = "table")]
    entry: Option<String>,
    /// Extract only this table, as text
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// The format of the table: sql (keeps every value) or csv; PostgreSQL: copy, the format of COPY
    #[arg(long, value_name = "FORMAT", requires = "table")]
    format: Option<FormatArg>,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<ExtractArgs> for ExtractOptions {
    fn from(args: ExtractArgs) -> Self {
        ExtractOptions {
            snapshot: args.snapshot,
            filter: args.filter.into(),
            to: args.to,
            entry: args.entry,
            table: args.table,
            format: args.format.map(FormatArg::format),
        }
    }
}

impl Subcommand for ExtractArgs {
    fn name(&self) -> &'static str {
        "extract"
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let report = extract::run(&self.clone().into(), call.json, &call.context, &mut io::stdout().lock())?;
        call.finish(&report)
    }

    fn fields_on_problem(&self) -> Vec<(&'static str, Value)> {
        vec![("id", json!(self.snapshot)), ("files", json!([]))]
    }
}

impl Text for ExtractReport {
    fn text(&self) -> String {
        self.files.iter().map(|file| format!("{}  {}\n", one_line(&file.path), text::bytes(file.bytes))).collect()
    }
}

/// The format of an extracted table.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormatArg {
    /// SQL statements that recreate the table (SQLite).
    Sql,
    /// Comma-separated values (SQLite).
    Csv,
    /// The text format of COPY (PostgreSQL).
    Copy,
}

impl FormatArg {
    fn format(self) -> TableFormat {
        match self {
            FormatArg::Sql => TableFormat::Sql,
            FormatArg::Csv => TableFormat::Csv,
            FormatArg::Copy => TableFormat::Copy,
        }
    }
}
