//! The requests that start a run, and the operations that they ask for.

use chrono::Duration;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ops::gate::intended::IntendedChanges;
use crate::ops::gate::postdeploy::{self, DEFAULT_LOCK_TIMEOUT, PostdeployOptions};
use crate::ops::gate::predeploy::{self, PredeployOptions};
use crate::ops::save::{self, SaveOptions};
use crate::ops::summary::RunSummary;
use crate::ops::{Context, Report};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::id::SourceName;

/// The maximum time that a gate waits, in seconds: no other run can start meanwhile.
const MAX_WAIT_SECONDS: u32 = 3600;

/// A request. A document without any field asks for snapshots of all sources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RunRequest {
    /// The gate; without it, snapshots are taken.
    gate: Option<String>,
    /// Names of sources in the config.
    sources: Vec<String>,
    /// Additional tags.
    tags: Vec<String>,
    /// The commit that is to be deployed, or that was deployed.
    commit: Option<String>,
    /// The maximum time that the gate waits for checks that do not pass yet, in seconds.
    wait_seconds: u32,
    /// True if SQLite's integrity_check is to run instead of quick_check.
    full_check: bool,
    /// For `postdeploy`: true if lost data is to be restored.
    rollback: bool,
    /// For `postdeploy`: true if a restore may take away rows that came after the snapshot.
    discard_new: bool,
    /// For `postdeploy`: the tables that the deploy drops.
    expect_dropped: Vec<String>,
    /// For `postdeploy`: the tables that the deploy renames, each as `OLD=NEW`.
    expect_renamed: Vec<String>,
    /// For `postdeploy`: the maximum time to wait for locks of PostgreSQL in a restore, in seconds.
    lock_timeout: Option<u64>,
}

/// The command that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Snapshot,
    Predeploy,
    Postdeploy,
}

/// The exit code, the document, the summary, and the first error of a run.
pub(super) type Outcome = (u8, Value, RunSummary, Option<Error>);

impl RunRequest {
    /// Reads a request. Sources must be names in the config; paths and URLs are refused.
    pub(super) fn read(body: &[u8], names: &[SourceName]) -> Result<RunRequest> {
        let is_empty = body.iter().all(u8::is_ascii_whitespace);
        let request: RunRequest = if is_empty {
            RunRequest::default()
        } else {
            serde_json::from_slice::<Map<String, Value>>(body)
                .and_then(|fields| serde_json::from_value(Value::Object(fields)))
                .map_err(|error| Error::usage("the body is not a valid JSON request").because(error))?
        };
        request.require_fields_of(request.command()?)?;
        for source in &request.sources {
            if !names.iter().any(|name| name.as_str() == source) {
                let known: Vec<&str> = names.iter().map(SourceName::as_str).collect();
                return Err(Error::usage(format!("the config has no source '{}'", one_line(source)))
                    .hint(format!("its sources are: {}", known.join(", "))));
            }
        }
        save::require_free_tags(&request.tags)?;
        save::require_free_tags(request.commit.as_slice())?;
        if request.wait_seconds > MAX_WAIT_SECONDS {
            return Err(Error::usage(format!("wait_seconds must be at most {MAX_WAIT_SECONDS}")));
        }
        Ok(request)
    }

    fn command(&self) -> Result<Command> {
        match self.gate.as_deref() {
            None => Ok(Command::Snapshot),
            Some("predeploy") => Ok(Command::Predeploy),
            Some("postdeploy") => Ok(Command::Postdeploy),
            Some(gate) => Err(Error::usage(format!("unknown gate '{}'", one_line(gate)))
                .hint("the gates are predeploy and postdeploy")),
        }
    }

    /// Fails if a field is set that the command does not use: it would be ignored.
    fn require_fields_of(&self, command: Command) -> Result<()> {
        let is_postdeploy = command == Command::Postdeploy;
        let fields = [
            ("tags", !self.tags.is_empty(), !is_postdeploy),
            ("full_check", self.full_check, !is_postdeploy),
            ("rollback", self.rollback, is_postdeploy),
            ("discard_new", self.discard_new, is_postdeploy && self.rollback),
            ("expect_dropped", !self.expect_dropped.is_empty(), is_postdeploy),
            ("expect_renamed", !self.expect_renamed.is_empty(), is_postdeploy),
            ("lock_timeout", self.lock_timeout.is_some(), is_postdeploy),
        ];
        match fields.into_iter().find(|(_, is_set, is_used)| *is_set && !is_used) {
            None => Ok(()),
            Some(("discard_new", ..)) if is_postdeploy => Err(Error::usage("discard_new needs rollback")),
            Some((field, ..)) => Err(Error::usage(format!("{field} is not for {}", command.name()))),
        }
    }

    /// Returns the names of the sources; none means all.
    pub(super) fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Returns the name of the command.
    pub(super) fn command_name(&self) -> &'static str {
        self.command().map_or("snapshot", Command::name)
    }

    /// Returns true if a run of the request can restore a database.
    pub(super) fn changes_data(&self) -> bool {
        self.rollback
    }

    /// Returns true if a run of the request that succeeds has taken a snapshot.
    pub(super) fn takes_snapshots(&self) -> bool {
        !matches!(self.command(), Ok(Command::Postdeploy))
    }

    /// Runs the command.
    pub(super) fn execute(&self, context: &Context) -> Result<Outcome> {
        match self.command()? {
            Command::Predeploy => {
                let options = PredeployOptions {
                    sources: self.sources.clone(),
                    commit: self.commit.clone(),
                    tag: self.tags.clone(),
                    wait: Duration::seconds(self.wait_seconds.into()),
                    full_check: self.full_check,
                };
                outcome_of(&predeploy::run(&options, context)?)
            }
            Command::Postdeploy => {
                let (dropped, renamed) = (self.expect_dropped.clone(), self.expect_renamed.clone());
                let options = PostdeployOptions {
                    sources: self.sources.clone(),
                    commit: self.commit.clone(),
                    wait: Duration::seconds(self.wait_seconds.into()),
                    intended: IntendedChanges { dropped, renamed },
                    rollback: self.rollback,
                    discard_new: self.discard_new,
                    lock_timeout: self.lock_timeout.unwrap_or(DEFAULT_LOCK_TIMEOUT),
                };
                outcome_of(&postdeploy::run(&options, context)?)
            }
            Command::Snapshot => {
                let mut tag = self.tags.clone();
                tag.extend(self.commit.clone());
                let sources = self.sources.clone();
                let options = SaveOptions { sources, tag, full_check: self.full_check, ..SaveOptions::default() };
                outcome_of(&save::run(&options, context)?)
            }
        }
    }
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Command::Snapshot => "snapshot",
            Command::Predeploy => "predeploy",
            Command::Postdeploy => "postdeploy",
        }
    }
}

fn outcome_of(report: &impl Report) -> Result<Outcome> {
    let document = serde_json::to_value(report)
        .map_err(|error| Error::failed("cannot convert the report to JSON").because(error))?;
    Ok((report.exit_code(), document, report.summary(), report.errors().first().map(Error::duplicate)))
}
