//! `list`: its arguments, and its result for people.

use chrono::Utc;
use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::ops::list::{self, ListOptions, ListReport, ListedSnapshot};
use crate::platform::error::{Error, Reason, Result, one_line};
use crate::platform::text;
use crate::snapshots::list::{Described, LeftOut};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::ENCRYPTED_ENDING;

/// Lists snapshots, newest first
#[derive(Args, Clone, Debug)]
pub(super) struct ListArgs {
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// Show only the newest N snapshots
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
}

impl From<ListArgs> for ListOptions {
    fn from(args: ListArgs) -> Self {
        ListOptions { filter: args.filter.into(), limit: args.limit }
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

/// Returns the kind of a snapshot, and how it is encrypted.
fn kind(name: &str, is_encrypted: bool) -> String {
    if is_encrypted { format!("{name}, age") } else { name.to_owned() }
}

fn tags(manifest: &Manifest) -> impl Iterator<Item = &str> {
    manifest.tags.iter().map(String::as_str)
}

/// Returns true if a manifest was cut, emptied or overwritten, so that the one in the archive is used.
fn is_lost(error: &Error) -> bool {
    error.reason == Some(Reason::ManifestIsLost)
}

impl Text for ListReport {
    fn text(&self) -> String {
        let now = Utc::now();
        let rows = self.snapshots.iter().map(|ListedSnapshot { described, distrust }| {
            let id = &described.listed.id;
            let age = text::age(id.time(), now);
            let proof = described.proof.level.name().to_owned();
            match &described.manifest {
                Ok(manifest) => vec![
                    id.to_string(),
                    age,
                    kind(manifest.kind.name(), manifest.encrypted),
                    text::bytes(manifest.archive_bytes.unwrap_or(0)),
                    manifest.rows.to_string(),
                    proof,
                    described.proof.restore_seconds.map(text::seconds).unwrap_or_default(),
                    one_line(&distrust.iter().map(|_| UNTRUSTED).chain(tags(manifest)).collect::<Vec<_>>().join(",")),
                ],
                Err(error) => {
                    let kind = if error.is_newer_format() { "newer" } else { "?" };
                    let note = if is_lost(error) { "manifest lost" } else { "" };
                    let unknown = || "?".to_owned();
                    let id = id.to_string();
                    vec![id, age, kind.into(), unknown(), unknown(), proof, String::new(), note.into()]
                }
            }
        });
        let without = self.without_manifest.iter().map(|found| {
            let (id, age) = (found.id.to_string(), text::age(found.id.time(), now));
            let (size, note) = (text::bytes(found.archive.bytes), "without manifest".to_owned());
            let kind = kind("archive", found.archive.key.name().ends_with(ENCRYPTED_ENDING));
            vec![id, age, kind, size, "?".into(), String::new(), String::new(), note]
        });
        let headings = ["ID", ">AGE", "KIND", ">SIZE", ">ROWS", "PROOF", ">RESTORE", "TAGS"];
        let mut text = text::table(&headings, rows.chain(without));
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
