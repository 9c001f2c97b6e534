//! `man`: prints the manual page.

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::cli::output;
use crate::platform::error::Result;

/// Prints the manual page
#[derive(Args, Debug)]
pub(super) struct ManArgs {}

impl Subcommand for ManArgs {
    fn name(&self) -> &'static str {
        "man"
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn reads_config(&self) -> bool {
        false
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let mut page = Vec::new();
        let mut root = (call.command_line)();
        root.build();
        clap_mangen::Man::new(root.clone()).render(&mut page)?;
        for command in root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
            let name = format!("lifeboat-{}", command.get_name());
            clap_mangen::Man::new(command.clone().name(name)).render(&mut page)?;
        }
        output::write_stdout(&page)?;
        Ok(0)
    }
}
