//! `show`: its arguments, and its result for people.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::cli::trust::TrustArgs;
use crate::ops::show::{self, DAMAGED, ShowOptions, ShowReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::manifest::Manifest;

/// Shows a snapshot's manifest, and the commands that restore it
#[derive(Args, Clone, Debug)]
pub(super) struct ShowArgs {
    /// A snapshot id, the start of one, 'latest', or the path of an archive
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<ShowArgs> for ShowOptions {
    fn from(args: ShowArgs) -> Self {
        ShowOptions { snapshot: args.snapshot, filter: args.filter.into() }
    }
}

impl Subcommand for ShowArgs {
    fn name(&self) -> &'static str {
        "show"
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&show::run(&self.clone().into(), &call.context)?)
    }

    fn fields_on_problem(&self) -> Vec<(&'static str, Value)> {
        vec![("id", json!(self.snapshot))]
    }
}

impl Text for ShowReport {
    fn text(&self) -> String {
        let manifest = &self.manifest;
        let proof = match self.proof.at {
            Some(at) => format!("{} at {}", self.proof.level.name(), text::time(at)),
            None => self.proof.level.name().to_owned(),
        };
        let mut lines = self.banner();
        lines += &format!(
            "snapshot  {}\nkind      {}\nfrom      {} ({} {})\ntaken     {} in {}\nsize      {} in {}\nsha256    {}\nproof     {proof}\n",
            manifest.id,
            manifest.kind.name(),
            manifest.origin,
            one_line(&manifest.engine),
            one_line(&manifest.server_version),
            text::time(manifest.created_at),
            text::seconds(manifest.seconds),
            text::bytes(manifest.raw_bytes),
            text::bytes(manifest.archive_bytes.unwrap_or(0)),
            manifest.sha256.map_or("not known without a manifest".to_owned(), |sha256| sha256.to_string()),
        );
        if let Some(seconds) = self.proof.restore_seconds {
            lines.push_str(&format!("restores  in {}, checks included\n", text::seconds(seconds)));
        }
        if !manifest.tags.is_empty() {
            lines.push_str(&format!("tags      {}\n", one_line(&manifest.tags.join(", "))));
        }
        lines.push_str(&engine_lines(manifest));
        let lacks_tables = manifest.lacks_tables();
        if manifest.encrypted {
            let key = if lacks_tables { ": use --identity FILE to show its tables" } else { "" };
            lines.push_str(&format!("encrypted with age{key}\n"));
        } else {
            lines.push_str("encrypted no\n");
        }
        if let Some(distrust) = &self.distrust {
            lines.push_str(&format!("NOT TRUSTED: {}\n", distrust.full_message_with_hint()));
        }
        lines.push('\n');
        let rows = manifest.tables.iter().map(|table| {
            let number = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
            let note = table.reason.as_deref().unwrap_or(if table.kind == "table" { "" } else { &table.kind });
            vec![one_line(&table.name), number(table.rows), number(table.bytes), note.to_owned()]
        });
        if !lacks_tables {
            lines.push_str(&text::table(&["TABLE", ">ROWS", ">BYTES", "NOTE"], rows));
            lines.push('\n');
        }
        let flaw = self.flaw.map(|flaw| format!(" (this snapshot is {flaw})")).unwrap_or_default();
        for (description, command) in &self.restore {
            lines.push_str(&format!("{description}{flaw}:\n  {command}\n"));
        }
        lines
    }
}

impl ShowReport {
    /// Returns the lines that come first if the snapshot should not be restored.
    fn banner(&self) -> String {
        let Some(flaw) = self.flaw else { return String::new() };
        let reason = if flaw == DAMAGED {
            "a test found that its bytes are not what was written, or its archive is missing"
        } else {
            "the database had lost rows, or a rule had failed, when it was taken"
        };
        let mut lines = format!("{}: {reason}\n", flaw.to_uppercase());
        match &self.last_good {
            Some((id, command)) => {
                lines += &format!("the last good snapshot is {id}\n");
                lines.extend(command.iter().map(|command| format!("  {command}\n")));
            }
            None => lines += "no good snapshot of this source is left in the store\n",
        }
        lines + "\n"
    }
}

/// Returns the lines that are specific to one engine.
fn engine_lines(manifest: &Manifest) -> String {
    let mut lines = String::new();
    if let Some(facts) = &manifest.sqlite {
        lines.push_str(&format!(
            "database  {} pages of {}, journal mode {}\n",
            facts.pages,
            facts.page_bytes,
            one_line(&facts.journal_mode)
        ));
        for fault in facts.health.iter().flat_map(|health| &health.integrity).take(5) {
            lines.push_str(&format!("fault     {}\n", one_line(fault)));
        }
        let unchecked = facts.health.iter().flat_map(|health| &health.unchecked);
        for reason in unchecked.take(5) {
            lines.push_str(&format!("unchecked {}\n", one_line(reason)));
        }
        for orphan in facts.health.iter().flat_map(|health| &health.orphans) {
            lines.push_str(&format!(
                "fault     {} rows of {} without a parent row in {}\n",
                orphan.rows,
                one_line(&orphan.table),
                one_line(&orphan.parent)
            ));
        }
    }
    if let Some(facts) = &manifest.postgres {
        let database = &facts.database;
        lines.push_str(&format!(
            "database  {}, {} {}, read by the role {}\n",
            one_line(&database.name),
            one_line(&database.encoding),
            one_line(&database.collate),
            one_line(&facts.role)
        ));
        let extensions: Vec<String> =
            facts.extensions.iter().map(|extension| format!("{} {}", extension.name, extension.version)).collect();
        let (roles, tablespaces) = (facts.roles.clone(), facts.tablespaces.clone());
        for (label, words) in [("needs", extensions), ("roles", roles), ("spaces", tablespaces)] {
            if !words.is_empty() {
                lines.push_str(&format!("{label:<10}{}\n", one_line(&words.join(", "))));
            }
        }
        if facts.large_objects.count > 0 {
            lines.push_str(&format!("objects   {} large objects\n", facts.large_objects.count));
        }
        if let Some(provider) = &facts.provider {
            lines.push_str(&format!("left out  {}\n", one_line(&provider.shown())));
        }
        for left_out in &facts.left_out {
            lines.push_str(&format!("left out  {}\n", one_line(left_out)));
        }
        for note in &facts.notes {
            lines.push_str(&format!("note      {}\n", one_line(note)));
        }
    }
    lines
}
