//! The answer of the other lifeboat. Nothing in it is trusted: ids are parsed, texts become one line, and what
//! contradicts itself is an error.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::ops::Report;
use crate::ops::gate::remote::errors::error_of;
use crate::ops::gate::remote::exchange::Ended;
use crate::ops::gate::remote::shell_words::own_command;
use crate::ops::summary::{Check, RunSummary, SnapshotSummary, proof_named};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::id::{SnapshotId, SourceName};

/// The answer of the other lifeboat.
#[derive(Debug)]
pub(crate) struct RemoteReport {
    /// The name of the gate.
    pub gate: &'static str,
    /// Its document.
    pub document: Value,
    /// The exit code that it reports.
    pub code: u8,
    /// The failures that it reports.
    pub failures: Vec<Error>,
    /// The restores that it reports.
    pub restored: Vec<RemoteRestore>,
    /// The checks, snapshots and commands in its document.
    summary: RunSummary,
}

/// A restore that the other lifeboat has made.
#[derive(Debug)]
pub(crate) struct RemoteRestore {
    /// The snapshot that was restored.
    pub id: SnapshotId,
    /// The database that it was restored to.
    pub target: String,
    /// The snapshot of the state before the restore.
    pub safety: Option<SnapshotId>,
}

impl Serialize for RemoteReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document.serialize(serializer)
    }
}

impl Report for RemoteReport {
    fn summary(&self) -> RunSummary {
        self.summary.clone()
    }

    fn errors(&self) -> &[Error] {
        &self.failures
    }

    fn exit_code(&self) -> u8 {
        self.code
    }
}

impl RemoteReport {
    /// Returns its verdict on one line, without the colon before its commands, which are for the other machine. Earlier
    /// versions send none.
    pub(crate) fn verdict(&self) -> Option<String> {
        let verdict = text(&self.document, "verdict");
        let verdict = verdict.trim().trim_end_matches(':');
        (!verdict.is_empty()).then(|| verdict.to_owned())
    }

    /// Reads the answer for a gate of these sources; none means all.
    pub(super) fn read(gate: &'static str, ended: Ended, sources: &[SourceName], other: &str) -> Result<Self> {
        let Ended { code, document } = ended;
        let mut summary = summary_of(&document)?;
        if code == 0
            && let Some(contradiction) = contradiction(&document, &summary, sources)
        {
            return Err(Error::failed(format!("{other} returns exit code 0, but {contradiction}"))
                .hint("see the log of the other lifeboat"));
        }
        // The first problem is the same as the error, if there is one, and the error has a hint.
        let error = error_of(&document["error"]);
        let others = list(&document, "problems").iter().filter_map(error_of).skip(usize::from(error.is_some()));
        let failures: Vec<Error> = error.into_iter().chain(others).collect();
        // The document has no result for each source.
        for source in summary.snapshots.iter().filter_map(|snapshot| snapshot.source.as_ref()) {
            match code {
                0 => summary.results.succeed(source),
                _ => summary.results.fail(source, failures.first()),
            }
        }
        let restored = list(&document, "restored").iter().map(restore_of).collect::<Result<_>>()?;
        Ok(RemoteReport { gate, document, code, failures, restored, summary })
    }
}

/// Returns the reason why a document cannot be that of a gate that is open.
fn contradiction(document: &Value, summary: &RunSummary, sources: &[SourceName]) -> Option<String> {
    if let Some(error) = error_of(&document["error"]) {
        return Some(format!("also an error: {}", error.full_message()));
    }
    let first: Vec<&str> = list(document, "first_deploy").iter().filter_map(Value::as_str).collect();
    if summary.snapshots.is_empty() && first.is_empty() {
        return Some("no snapshot".to_owned());
    }
    if let Some(check) = summary.checks.iter().find(|check| !check.ok) {
        return Some(format!("the check '{}' has failed", check.name));
    }
    let has = |source: &&SourceName| {
        let of_snapshots = summary.snapshots.iter().filter_map(|snapshot| snapshot.source.as_deref());
        of_snapshots.chain(first.iter().copied()).any(|name| name == source.as_str())
    };
    if let Some(source) = sources.iter().find(|source| !has(source)) {
        return Some(format!("no snapshot of {source}"));
    }
    (document["ok"] != Value::Bool(true)).then(|| "its document says that the gate is closed".to_owned())
}

fn list<'a>(document: &'a Value, field: &str) -> &'a [Value] {
    document[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value, field: &str) -> String {
    one_line(value[field].as_str().unwrap_or_default())
}

fn id(text: &str) -> Result<SnapshotId> {
    text.parse().map_err(|error: Error| {
        Error::failed("the other lifeboat reports a snapshot without a valid id").because(error)
    })
}

/// Reads the summary out of a document.
fn summary_of(document: &Value) -> Result<RunSummary> {
    let check = |check: &Value| Check {
        name: text(check, "name"),
        ok: check["ok"] == Value::Bool(true),
        message: text(check, "message"),
        source: None,
    };
    let snapshot = |snapshot: &Value| -> Result<SnapshotSummary> {
        let id = id(&text(snapshot, "id"))?;
        Ok(SnapshotSummary {
            source: Some(id.source().to_string()),
            id: id.to_string(),
            rows: snapshot["rows"].as_u64(),
            archive_bytes: snapshot["archive_bytes"].as_u64(),
            proof: proof_named(&text(snapshot, "proof")),
            problems: Vec::new(),
        })
    };
    let commands = list(document, "rollback").iter().filter_map(Value::as_str);
    Ok(RunSummary {
        checks: list(document, "checks").iter().map(check).collect(),
        snapshots: list(document, "snapshots").iter().map(snapshot).collect::<Result<_>>()?,
        rollback: commands.filter_map(own_command).collect(),
        ..RunSummary::default()
    })
}

fn restore_of(restored: &Value) -> Result<RemoteRestore> {
    let safety = restored["safety_snapshot"].as_str().map(id).transpose()?;
    Ok(RemoteRestore { id: id(&text(restored, "id"))?, target: text(restored, "target"), safety })
}
