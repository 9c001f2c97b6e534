//! `list`: its arguments, and its result for people.

use chrono::{DateTime, Utc};
use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::{FilterArgs, parse_time};
use crate::cli::output::{self, Colour};
use crate::ops::list::{self, ListOptions, ListReport, ListedSnapshot};
use crate::ops::tags::SUSPECT;
use crate::platform::error::{Error, Reason, Result};
use crate::platform::text;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::list::{Described, LeftOut};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::names::ENCRYPTED_ENDING;
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::search::SnapshotFilter;

/// Lists snapshots, newest first
#[derive(Args, Clone, Debug)]
pub(super) struct ListArgs {
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// Only snapshots taken at this time or later, in the same forms
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
    /// The same as --before
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "before")]
    until: Option<DateTime<Utc>>,
    /// Show only the newest N snapshots
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Show times in UTC, and not in the zone of this machine (TZ)
    #[arg(long)]
    utc: bool,
}

impl From<ListArgs> for ListOptions {
    fn from(args: ListArgs) -> Self {
        let mut filter = SnapshotFilter::from(args.filter);
        filter.before = filter.before.or(args.until);
        ListOptions { filter, since: args.since, limit: args.limit, utc: args.utc }
    }
}

impl Subcommand for ListArgs {
    fn name(&self) -> &'static str {
        "list"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&list::run(&self.clone().into(), &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }
}

/// The word for a snapshot that is not trusted, among its tags.
const UNTRUSTED: &str = "NOT-TRUSTED";

/// The note on an encrypted snapshot.
const ENCRYPTED: &str = "encrypted";

/// Returns the notes on a snapshot: that it is not trusted, its kind unless it is full, that it is encrypted, and its tags.
fn notes(manifest: &Manifest, is_trusted: bool) -> String {
    let kind = Some(manifest.kind.name()).filter(|_| manifest.kind != SnapshotKind::Full);
    let facts =
        (!is_trusted).then_some(UNTRUSTED).into_iter().chain(kind).chain(manifest.encrypted.then_some(ENCRYPTED));
    // A safety snapshot has the tag of that name too.
    let tags = manifest.tags.iter().map(String::as_str).filter(|tag| Some(*tag) != kind);
    facts.chain(tags).collect::<Vec<_>>().join(",")
}

/// Returns true if a manifest was cut, emptied or overwritten, so that the one in the archive is used.
fn is_lost(error: &Error) -> bool {
    error.reason == Some(Reason::ManifestIsLost)
}

impl Text for ListReport {
    fn text(&self) -> String {
        let mut text = self.table();
        match self.left_out {
            LeftOut::Exactly(0) => {}
            LeftOut::Exactly(count) => {
                let all = count + self.snapshots.len();
                text.push_str(&format!("and {count} older: --limit {all} shows all\n"));
            }
            LeftOut::Unknown => text.push_str("there may be older ones: a higher --limit shows more\n"),
        }
        let distrusted = self.snapshots.iter().find_map(|listed| listed.distrust.as_ref());
        text.extend(distrusted.map(|distrust| format!("{}.\n", distrust.full_message_with_hint())));
        let described = || self.snapshots.iter().map(|listed| &listed.described);
        let has_lost_manifest = |described: &&Described| described.manifest.as_ref().err().is_some_and(is_lost);
        if let Some(first) = described().find(has_lost_manifest) {
            text.push_str(&format!(
                "A snapshot whose manifest is lost can be restored by its id if its archive is whole. 'lifeboat copy {} \
                 --from STORE --to STORE' writes its manifest again.\n",
                first.listed.id
            ));
        }
        if let Some(first) = self.without_manifest.first() {
            let id = &first.id;
            text.push_str(&format!(
                "An archive without manifest can be restored by its id. 'lifeboat copy {id} --from STORE --to STORE' \
                 writes its manifest again, 'lifeboat prune --without-manifest {id}' deletes it.\n"
            ));
            if self.without_manifest.iter().any(|found| !found.is_old()) {
                text.push_str("One that is younger than a day may belong to a snapshot that is being written.\n");
            }
        }
        text
    }
}

impl ListReport {
    /// Returns the table, as wide as the terminal. Damaged and suspect snapshots have a colour of their own there.
    fn table(&self) -> String {
        let now = Utc::now();
        let taken = |id: &SnapshotId| text::short_time(id.time(), now, self.in_utc);
        let mut colours = vec![None];
        let mut rows = Vec::new();
        for ListedSnapshot { described, distrust } in &self.snapshots {
            let id = &described.listed.id;
            let unknown = || "?".to_owned();
            let (size, count, notes) = match &described.manifest {
                Ok(manifest) => (
                    text::bytes(manifest.archive_bytes.unwrap_or(0)),
                    manifest.rows.to_string(),
                    notes(manifest, distrust.is_none()),
                ),
                Err(error) if error.is_newer_format() => (unknown(), unknown(), "newer".to_owned()),
                Err(error) if is_lost(error) => (unknown(), unknown(), "manifest lost".to_owned()),
                Err(_) => (unknown(), unknown(), String::new()),
            };
            let restore = described.proof.restore_seconds.map(text::seconds).unwrap_or_default();
            let level = described.proof.level;
            let is_suspect =
                described.manifest.as_ref().is_ok_and(|manifest| manifest.tags.iter().any(|tag| tag == SUSPECT));
            colours.push(match level {
                ProofLevel::Damaged => Some(Colour::Red),
                _ => (is_suspect || distrust.is_some()).then_some(Colour::Yellow),
            });
            let (age, level) = (text::age(id.time(), now), level.name().to_owned());
            rows.push(vec![id.to_string(), taken(id), age, size, count, level, restore, notes]);
        }
        for found in &self.without_manifest {
            let is_encrypted = found.archive.key.name().ends_with(ENCRYPTED_ENDING);
            let note = if is_encrypted { "without manifest,encrypted" } else { "without manifest" };
            let (id, age, size) = (&found.id, text::age(found.id.time(), now), text::bytes(found.archive.bytes));
            colours.push(Some(Colour::Yellow));
            rows.push(vec![
                id.to_string(),
                taken(id),
                age,
                size,
                "?".into(),
                String::new(),
                String::new(),
                note.into(),
            ]);
        }
        let headings = ["ID", "TAKEN", ">AGE", ">SIZE", ">ROWS", "PROOF", ">RESTORE", "NOTES"];
        let table = output::fitted_table(&headings, &rows, &[">RESTORE", ">ROWS", ">AGE", ">SIZE"]);
        if !output::has_colours() {
            return table;
        }
        let line = |(line, colour): (&str, Option<Colour>)| {
            colour.map_or(line.to_owned(), |colour| output::paint(line, colour))
        };
        table.lines().zip(colours).map(line).map(|line| line + "\n").collect()
    }
}
