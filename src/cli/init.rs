//! `init`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::init::{self, InitOptions, InitReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;

/// Writes a commented lifeboat.toml from the databases, variables and volumes that it finds, and creates the stores; an
/// existing config is never changed
#[derive(Args, Clone, Debug)]
pub(super) struct InitArgs {
    /// Print the config that would be written; do not write or create anything
    #[arg(long)]
    dry_run: bool,
}

impl Subcommand for InitArgs {
    fn name(&self) -> &'static str {
        "init"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = InitOptions { dry_run: self.dry_run, config: call.config.clone(), host: call.host.clone() };
        call.finish(&init::run(&options, &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn reads_config(&self) -> bool {
        false
    }
}

impl Text for InitReport {
    fn text(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        let config = one_line(&self.config);
        if !self.created {
            return format!("{config} already exists, and was not changed\n");
        }
        let rows = self.found.iter().map(|found| vec![found.kind.clone(), found.name.clone(), one_line(&found.from)]);
        let mut lines = text::table(&["FOUND", "NAME", "IN"], rows);
        if !self.found.iter().any(|found| matches!(found.kind.as_str(), "sqlite" | "postgres")) {
            lines.push_str("no source was found: add one to the config\n");
        }
        lines.push_str(&format!("wrote {config}: review and edit it\n"));
        let option = &self.option;
        lines.push_str(&format!("next: lifeboat doctor{option}\n      lifeboat snapshot{option}\n"));
        lines
    }
}
