//! `diff`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::cli::trust::TrustArgs;
use crate::ops::diff::{self, DiffOptions, DiffReport, Status, TableDiff};
use crate::platform::error::{Result, one_line};
use crate::platform::text;

/// Compares a snapshot with another one, or with a live database
#[derive(Args, Clone, Debug)]
pub(super) struct DiffArgs {
    /// A snapshot id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Another snapshot, a source name from the config, an SQLite file, or a URL; default: the database that the
    /// snapshot was taken from
    #[arg(value_name = "SNAPSHOT|SOURCE")]
    other: Option<String>,
    /// Exit with 3 if there is a difference
    #[arg(long)]
    exit_code: bool,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<DiffArgs> for DiffOptions {
    fn from(args: DiffArgs) -> Self {
        DiffOptions {
            snapshot: args.snapshot,
            other: args.other,
            exit_code: args.exit_code,
            filter: args.filter.into(),
        }
    }
}

impl Subcommand for DiffArgs {
    fn name(&self) -> &'static str {
        "diff"
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&diff::run(&self.clone().into(), &call.context)?)
    }
}

impl Text for DiffReport {
    fn text(&self) -> String {
        let mut lines = format!("{} -> {}\n", self.before, one_line(&self.after));
        for missing in &self.missing {
            lines.push_str(&format!("missing on the server: {missing}\n"));
        }
        if self.equal {
            lines.push_str(&format!("no difference in {} tables\n", self.tables.len()));
            return lines;
        }
        let changed = self.tables.iter().filter(|table| table.status != Status::Same || table.only_counted);
        let number = |rows: Option<u64>| rows.map_or("-".to_owned(), |rows| rows.to_string());
        let rows = changed.map(|table| {
            let status = match table.status {
                Status::Same if table.only_counted => "not comparable",
                Status::Same => "same",
                Status::Changed if table.columns_changed => "changed (columns)",
                Status::Changed => "changed",
                Status::Added => "added",
                Status::Removed => "removed",
            };
            let delta = match (table.rows_before, table.rows_after) {
                (Some(before), Some(after)) => format!("{:+}", i128::from(after) - i128::from(before)),
                _ => String::new(),
            };
            vec![one_line(&table.name), status.to_owned(), number(table.rows_before), number(table.rows_after), delta]
        });
        lines.push_str(&text::table(&["TABLE", "STATUS", ">BEFORE", ">AFTER", ">NET"], rows));
        let is_changed = |table: &TableDiff| table.status == Status::Changed && !table.columns_changed;
        if self.tables.iter().any(is_changed) {
            lines.push_str(
                "NET is the difference of the numbers of rows: more rows may be lost, added or
changed, which numbers cannot tell
",
            );
        }
        if !self.schema_equal {
            lines.push_str("the schema differs\n");
        }
        lines
    }
}
