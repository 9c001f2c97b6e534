//! `completions`: prints the completion script for a shell.

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::cli::output;
use crate::platform::error::Result;

/// Prints the completion script for a shell
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

impl Subcommand for CompletionsArgs {
    fn name(&self) -> &'static str {
        "completions"
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn reads_config(&self) -> bool {
        false
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut (call.command_line)(), "lifeboat", &mut script);
        output::write_stdout(&script)?;
        Ok(0)
    }
}
