//! `snapshot`: its arguments, and its result for people.

use clap::Args;

use crate::archive::{Compression, Recipient};
use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::snapshot::{self, SaveOptions, SnapshotReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::id::SourceName;

/// Takes a snapshot of each SOURCE
#[derive(Args, Clone, Debug)]
pub(super) struct SnapshotArgs {
    /// Names of the config, SQLite files, or URLs such as sqlite:///data/app.db and postgres://user@host/database; by default
    /// all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The source's name in the store; by default made of the file's
    #[arg(long, value_name = "NAME")]
    name: Option<SourceName>,
    /// Words to find the snapshot by (repeatable)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// gzip[:1-9] opens everywhere, zstd[:1-19] is faster; by default what the config says, or gzip:6
    #[arg(long, value_name = "CODEC")]
    compression: Option<Compression>,
    /// Encrypt: whoever has the secret half of this key of age can restore (repeatable); or with --passphrase-file
    #[arg(long, value_name = "age1...")]
    encrypt_to: Vec<Recipient>,
    /// Save a database that is damaged, as kind 'damaged', which is never 'latest'
    #[arg(long)]
    allow_damaged: bool,
    /// Save a database that holds nothing
    #[arg(long)]
    allow_empty: bool,
    /// The longest that writers may be locked out, in seconds (only without WAL)
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    max_lock: u64,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    #[arg(long)]
    full_check: bool,
    /// PostgreSQL: only these tables, by SCHEMA.TABLE or name, with * and ? (repeatable)
    #[arg(long, value_name = "PATTERN")]
    table: Vec<String>,
    /// PostgreSQL: all but these tables (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// PostgreSQL: of these tables only the definition (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude_data: Vec<String>,
    /// PostgreSQL: no rows at all
    #[arg(long)]
    schema_only: bool,
    /// PostgreSQL: go on without what cannot be saved, as kind 'partial', which is never 'latest'
    #[arg(long)]
    allow_partial: bool,
    /// PostgreSQL: the longest to wait for others' locks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lock_timeout: u64,
    /// Prune by the config's retention afterwards, if every snapshot was made
    #[arg(long)]
    prune: bool,
    /// Take what is there for right: rows and tables that are gone are no loss, and those after it are compared with this one
    #[arg(long)]
    accept: bool,
}

impl From<SnapshotArgs> for SaveOptions {
    fn from(args: SnapshotArgs) -> Self {
        SaveOptions {
            sources: args.sources,
            name: args.name,
            tag: args.tag,
            compression: args.compression,
            encrypt_to: args.encrypt_to,
            allow_damaged: args.allow_damaged,
            allow_empty: args.allow_empty,
            max_lock: args.max_lock,
            full_check: args.full_check,
            table: args.table,
            exclude_table: args.exclude_table,
            exclude_data: args.exclude_data,
            schema_only: args.schema_only,
            allow_partial: args.allow_partial,
            lock_timeout: args.lock_timeout,
            prune: args.prune,
            accept: args.accept,
        }
    }
}

impl Subcommand for SnapshotArgs {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&snapshot::run(&self.clone().into(), &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }
}

impl Text for SnapshotReport {
    fn text(&self) -> String {
        let lines = self.snapshots.iter().map(|saved| {
            let manifest = &saved.manifest;
            let rate = text::bytes((manifest.raw_bytes as f64 / manifest.seconds.max(0.001)) as u64);
            let mut line = format!(
                "{}  {} tables, {} rows, {} in {} ({rate}/s, {})\n",
                manifest.id,
                manifest.tables.len(),
                manifest.rows,
                text::bytes(manifest.raw_bytes),
                text::bytes(manifest.archive_bytes.unwrap_or(0)),
                text::seconds(manifest.seconds),
            );
            for left_out in manifest.postgres.iter().flat_map(|facts| &facts.left_out) {
                line.push_str(&format!("  not saved: {}\n", one_line(left_out)));
            }
            if let Some(facts) = &manifest.sqlite {
                if facts.journal_mode != "wal" && facts.health.is_some() {
                    line.push_str(&format!("  writers were locked out for {}\n", text::seconds(facts.locked_seconds)));
                }
                if facts.wal_growth_bytes > 0 {
                    line.push_str(&format!("  the WAL grew by {} meanwhile\n", text::bytes(facts.wal_growth_bytes)));
                }
            }
            // With only one store its name is not needed.
            for store in saved.stores.iter().filter(|_| saved.stores.len() + saved.failures.len() > 1) {
                line.push_str(&format!("  in {}\n", one_line(store)));
            }
            line
        });
        let lines: String = lines.collect();
        lines + &self.pruned.iter().map(Text::text).collect::<String>()
    }
}
