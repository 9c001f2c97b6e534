//! The options of gates that another lifeboat runs, and its answer for people.

use chrono::Duration;
use clap::Args;

use crate::cli::call::{Call, Text};
use crate::cli::checks::checks_table;
use crate::ops::Report as _;
use crate::ops::gate::remote::{Remote, RemoteReport};
use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result};
use crate::platform::http::Url;

#[derive(Args, Clone, Debug)]
pub(super) struct RemoteArgs {
    /// Let the 'lifeboat serve' at this URL do the work, for databases that cannot be reached from this machine; SOURCE
    /// is then a name from its config, and the token is read from LIFEBOAT_TOKEN
    #[arg(long, value_name = "URL")]
    remote: Option<Url>,
    /// The maximum time to wait for the result of --remote
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h", requires = "remote")]
    remote_timeout: Duration,
}

impl RemoteArgs {
    /// Returns the other lifeboat, if one is to do the work. Fails if an option is given that it cannot honour.
    pub(super) fn remote(&self, call: &Call) -> Result<Option<Remote>> {
        let Some(url) = self.remote.clone() else { return Ok(None) };
        let refused = |option: &str| {
            Error::usage(format!("{option} and --remote exclude each other"))
                .hint("the other lifeboat uses the stores and keys of its own config")
        };
        if call.context.stores_are_given {
            return Err(refused("--store"));
        }
        if call.context.passphrase.is_some() {
            return Err(refused("--passphrase-file"));
        }
        Ok(Some(Remote { url, timeout: self.remote_timeout }))
    }
}

impl Text for RemoteReport {
    fn text(&self) -> String {
        let summary = self.summary();
        let mut lines = checks_table(&summary.checks);
        let verdict = self.verdict();
        if let Some(verdict) = &verdict {
            lines.push_str(&format!("the other lifeboat says: {verdict}\n"));
        }
        let commands: String = summary.rollback.iter().map(|command| format!("  {command}\n")).collect();
        let failed = summary.checks.iter().filter(|check| !check.ok).count();
        if self.gate == "predeploy" {
            for snapshot in &summary.snapshots {
                lines.push_str(&format!("{} was taken\n", snapshot.id));
            }
            lines.push_str(match (self.code, commands.as_str()) {
                (0, "") => "the gate is open\n",
                (0, _) => {
                    "the gate is open; if the deploy damages the data, run this on the database's machine to restore \
                     it:\n"
                }
                _ => return lines + "the gate is CLOSED\n",
            });
            return lines + &commands;
        }
        for restored in &self.restored {
            lines.push_str(&format!("{} was restored to {}\n", restored.id, restored.target));
            if let Some(safety) = &restored.safety {
                lines.push_str(&format!("the state before that is in {safety}\n"));
            }
        }
        match (self.code, self.restored.as_slice()) {
            (0, _) if verdict.is_some() => {}
            (0, _) => lines.push_str("no check has found a loss beyond what the rules allow\n"),
            (_, []) if commands.is_empty() => lines.push_str(&format!("{failed} checks FAILED\n")),
            (_, []) => lines.push_str(&format!(
                "{failed} checks FAILED; to restore the data, add --rollback, or run this on the database's machine:\n"
            )),
            (_, restored) => {
                lines.push_str(&format!("{failed} checks FAILED; restored: {} sources\n", restored.len()));
                if !commands.is_empty() {
                    lines.push_str("to bring back the state before the rollback, on the database's machine:\n");
                }
            }
        }
        lines + &commands
    }
}
