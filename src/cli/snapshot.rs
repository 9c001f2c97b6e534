//! `snapshot`: its arguments, and its result for people.

use clap::Args;

use crate::archive::{Compression, Recipient};
use crate::cli::call::{Call, Subcommand, Text};
use crate::engine::postgres::provider::Provider;
use crate::ops::save::{self, Comparison, SaveOptions, SnapshotReport};
use crate::ops::watch::Asked;
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::id::SourceName;

/// Takes a snapshot of each SOURCE
#[derive(Args, Clone, Debug)]
pub(super) struct SnapshotArgs {
    /// Source names from the config, SQLite files, or URLs such as sqlite:///data/app.db and
    /// postgres://user@host/database; default: all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The source's name in the store; default: derived from the file or database name
    #[arg(long, value_name = "NAME")]
    name: Option<SourceName>,
    /// A tag to find the snapshot by (repeatable)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// gzip[:1-9], which every system can decompress, or zstd[:1-19], which is faster; default: the source's
    /// compression in the config, or gzip:6
    #[arg(long, value_name = "CODEC")]
    compression: Option<Compression>,
    /// Encrypt for this public age key: only its secret key can decrypt the snapshot (repeatable); to encrypt with a
    /// passphrase, use --passphrase-file
    #[arg(long, value_name = "age1...")]
    encrypt_to: Vec<Recipient>,
    /// Save a damaged database too, as kind 'damaged', which is never 'latest'
    #[arg(long)]
    allow_damaged: bool,
    /// Save an empty database too
    #[arg(long)]
    allow_empty: bool,
    /// The maximum time that writers may be locked out, in seconds (only without WAL)
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    max_lock: u64,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    #[arg(long)]
    full_check: bool,
    /// PostgreSQL: save only these tables: SCHEMA.TABLE or a name, with * and ? (repeatable)
    #[arg(long, value_name = "PATTERN")]
    table: Vec<String>,
    /// PostgreSQL: save all tables except these (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// PostgreSQL: save only the definition of these tables, and no rows (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude_data: Vec<String>,
    /// PostgreSQL: save the schema, and no rows
    #[arg(long)]
    schema_only: bool,
    /// PostgreSQL: leave out what cannot be saved, and save the rest as kind 'partial', which is never 'latest'
    #[arg(long)]
    allow_partial: bool,
    /// PostgreSQL: leave out what the provider of the server owns: supabase, neon, rds, cloudsql or azure; default: the
    /// source's provider in the config
    #[arg(long, value_name = "NAME")]
    provider: Option<Provider>,
    /// PostgreSQL: the maximum time to wait for locks of other sessions, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lock_timeout: u64,
    /// Prune by the config's retention afterwards, if every snapshot was taken
    #[arg(long)]
    prune: bool,
    /// Accept the current state: missing rows and tables are intended, and later snapshots are compared with this one;
    /// and if the file that the source was in is gone, this one takes its place
    #[arg(long)]
    accept: bool,
    /// The database has moved from another host or path: continue its history in the store. Give this once, and only if
    /// nothing writes to the old place any more
    #[arg(long)]
    moved: bool,
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
            provider: args.provider,
            lock_timeout: args.lock_timeout,
            prune: args.prune,
            accept: args.accept,
            moved: args.moved,
            only_changes: false,
            missing_periods: std::collections::BTreeMap::new(),
            doubts: std::collections::BTreeMap::new(),
        }
    }
}

impl Subcommand for SnapshotArgs {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn asked(&self) -> Asked {
        Asked::of(&self.sources)
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&save::run(&self.clone().into(), &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn compares_archives(&self) -> bool {
        true
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
            for note in self.compared.get(&manifest.id).map(Comparison::notes).unwrap_or_default() {
                line.push_str(&format!("  {note}\n"));
            }
            for provider in manifest.postgres.iter().filter_map(|facts| facts.provider.as_ref()) {
                line.push_str(&format!("  left out: {}\n", one_line(&provider.shown())));
            }
            for left_out in manifest.postgres.iter().flat_map(|facts| &facts.left_out) {
                line.push_str(&format!("  not saved: {}\n", one_line(left_out)));
            }
            if let Some(facts) = &manifest.sqlite {
                if facts.journal_mode != "wal" && facts.health.is_some() {
                    line.push_str(&format!("  writers were locked out for {}\n", text::seconds(facts.locked_seconds)));
                }
                if facts.wal_growth_bytes > 0 {
                    let growth = text::bytes(facts.wal_growth_bytes);
                    line.push_str(&format!("  the WAL grew by {growth} during the snapshot\n"));
                }
            }
            // With only one store its name is not needed.
            for store in saved.stores.iter().filter(|_| saved.stores.len() + saved.failures.len() > 1) {
                line.push_str(&format!("  in {}\n", one_line(store)));
            }
            line
        });
        let nothing = self.nothing_yet.iter().map(|(name, state)| format!("{name}: {}\n", one_line(state)));
        let lines: String = lines.chain(nothing).collect();
        lines + &self.pruned.iter().map(Text::text).collect::<String>()
    }
}
