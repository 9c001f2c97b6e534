//! `predeploy`: its arguments, and its result for people.

use chrono::Duration;
use clap::Args;
use serde_json::Value;

use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::gate::predeploy::{self, PredeployOptions};
use crate::ops::gate::remote::{self, RemoteReport};
use crate::platform::duration::parse_duration;
use crate::platform::error::{Result, one_line};
use crate::platform::http::Url;
use crate::platform::text;

/// Lets a deploy go on only where the data is as it should be: checks, compares with the last good snapshot, then takes a new one and reads it back
#[derive(Args, Clone, Debug)]
pub(super) struct PredeployArgs {
    /// Names of the config, SQLite files, or URLs; by default all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The commit that is to be deployed: the snapshots carry it as a tag; in GitHub Actions by default the workflow's
    #[arg(long, value_name = "COMMIT")]
    commit: Option<String>,
    /// More words to find the snapshots by (repeatable)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// How long to wait for what is not yet as it should be, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    wait: Duration,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    #[arg(long)]
    full_check: bool,
    /// Let the 'lifeboat serve' at this address do the work, beside databases that cannot be reached from here: SOURCE is a
    /// name of its config; the token is taken from LIFEBOAT_TOKEN
    #[arg(long, value_name = "URL")]
    remote: Option<Url>,
    /// How long to wait for its answer
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h", requires = "remote")]
    remote_timeout: Duration,
}

impl From<PredeployArgs> for PredeployOptions {
    fn from(args: PredeployArgs) -> Self {
        PredeployOptions {
            sources: args.sources,
            commit: args.commit,
            tag: args.tag,
            wait: args.wait,
            full_check: args.full_check,
        }
    }
}

impl Subcommand for PredeployArgs {
    fn name(&self) -> &'static str {
        "predeploy"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = self.clone().into();
        match &self.remote {
            Some(url) => call.finish(&remote::run(&options, url, self.remote_timeout)?),
            None => call.finish(&predeploy::run(&options, &call.context)?),
        }
    }

    fn is_gate(&self) -> bool {
        true
    }
}

impl Text for RemoteReport {
    fn text(&self) -> String {
        let words = |value: &Value, field: &str| one_line(value[field].as_str().unwrap_or_default());
        let list = |field: &str| self.document[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |check: &Value| {
            let ok = check["ok"] == Value::Bool(true);
            vec![if ok { "ok" } else { "FAILED" }.to_owned(), words(check, "name"), words(check, "message")]
        };
        let mut lines = text::table(&["", "CHECK", "FOUND"], list("checks").iter().map(row));
        for snapshot in list("snapshots") {
            lines.push_str(&format!("{} was taken\n", words(snapshot, "id")));
        }
        if self.code != 0 {
            lines.push_str("the gate is CLOSED\n");
            return lines;
        }
        lines.push_str(
            "the gate is open; should the deploy go wrong, this, run beside the database, brings the data back:\n",
        );
        for command in list("rollback").iter().filter_map(Value::as_str) {
            lines.push_str(&format!("  {}\n", one_line(command)));
        }
        lines
    }
}
