//! `list`: its arguments, and its result for people.

use chrono::Utc;
use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::ops::list::{self, ListOptions, ListReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::list::LeftOut;

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

impl Text for ListReport {
    fn text(&self) -> String {
        let now = Utc::now();
        let rows = self.snapshots.iter().map(|described| {
            let id = &described.listed.id;
            let age = text::age(id.time(), now);
            let proof = described.proof.level.name().to_owned();
            match &described.manifest {
                Ok(manifest) => vec![
                    id.to_string(),
                    age,
                    manifest.kind.name().to_owned(),
                    text::bytes(manifest.archive_bytes.unwrap_or(0)),
                    manifest.rows.to_string(),
                    proof,
                    described.proof.restore_seconds.map(text::seconds).unwrap_or_default(),
                    one_line(&manifest.tags.join(",")),
                ],
                Err(error) => {
                    let kind = if error.is_newer_format() { "newer" } else { "?" };
                    vec![id.to_string(), age, kind.into(), "?".into(), "?".into(), proof, String::new(), String::new()]
                }
            }
        });
        let without = self.without_manifest.iter().map(|found| {
            let (id, age) = (found.id.to_string(), text::age(found.id.time(), now));
            let (size, note) = (text::bytes(found.archive.bytes), "without manifest".to_owned());
            vec![id, age, "archive".into(), size, "?".into(), String::new(), String::new(), note]
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
