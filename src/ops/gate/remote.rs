//! `predeploy --remote`: the `lifeboat serve` beside the database does the work of the gate.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::ops::Report;
use crate::ops::gate::predeploy::PredeployOptions;
use crate::ops::gate::{commit, wait_until};
use crate::ops::summary::Check;
use crate::ops::summary::{RunSummary, SnapshotSummary, proof_named};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::http::{Body, Client, Url};
use crate::platform::secret::Secret;
use crate::snapshots::id::SnapshotId;

/// The header with the exit code that the command would have had.
pub(crate) const EXIT_CODE: &str = "lifeboat-exit-code";
/// The environment variable that holds the token. It is not read by clap, which shows the values of variables.
const TOKEN: &str = "LIFEBOAT_TOKEN";
/// The maximum number of bytes that a document may have.
const MAX_BYTES: u64 = 64 << 20;

/// The answer of the other lifeboat.
#[derive(Debug)]
pub(crate) struct RemoteReport {
    /// Its document.
    pub document: Value,
    /// The exit code that it reports.
    pub code: u8,
    /// The failures that it reports.
    pub failures: Vec<Error>,
    /// The checks, snapshots and commands in its document.
    summary: RunSummary,
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

/// Runs the command on the other lifeboat.
pub(crate) fn run(options: &PredeployOptions, url: &Url, timeout: chrono::Duration) -> Result<RemoteReport> {
    let token = std::env::var(TOKEN).ok().filter(|token| !token.trim().is_empty());
    let token = token.ok_or_else(|| {
        Error::usage(format!("--remote needs a token in {TOKEN}"))
            .hint("use the token that the other lifeboat has under [serve] in its config")
    })?;
    let total = timeout.to_std().map_err(|error| Error::usage("the timeout is out of range").because(error))?;
    let client = Client::new(total).body_bytes(MAX_BYTES).bearer(Secret::new(token.trim())).interruptible();
    let wait = options.wait.to_std().unwrap_or_default();
    let request = json!({
        "gate": "predeploy",
        "sources": options.sources,
        "tags": options.tag,
        "commit": commit(options.commit.as_deref()),
        "wait_seconds": wait.as_secs(),
        "full_check": options.full_check,
    });
    let address = url.below("snapshots");
    // The status 409 means that another run is in progress: wait until it ends.
    let answer = wait_until(wait, || {
        let answer = client.post(&address, Body::Json(request.clone()))?;
        Ok((answer.status != 409, answer))
    })?;
    let document: Option<Value> = serde_json::from_slice(&answer.body).ok().filter(|_| answer.is_complete);
    let Some(document) = document.filter(Value::is_object) else {
        return Err(Error::failed(format!("{url} answers {}, and the answer is not from lifeboat", answer.status))
            .hint("give the address of 'lifeboat serve', without a path unless a proxy needs one"));
    };
    let code = answer.header(EXIT_CODE).and_then(|code| code.parse().ok());
    let error = error_of(&document);
    match (answer.status, code) {
        (_, Some(0)) if document["ok"] != Value::Bool(true) || document["snapshots"][0].is_null() => {
            Err(Error::failed(format!("the lifeboat at {url} returns exit code 0, but no snapshot")))
        }
        (_, Some(code)) => {
            Ok(RemoteReport { summary: summary_of(&document)?, document, code, failures: error.into_iter().collect() })
        }
        // The other lifeboat has refused to do anything.
        (status, None) => Err(error
            .unwrap_or_else(|| Error::failed(format!("it answers {status} without an exit code")))
            .context(format!("the lifeboat at {url} did nothing"))),
    }
}

/// Reads the summary out of a document. Nothing in it is trusted: texts become one line, and an id must be one.
fn summary_of(document: &Value) -> Result<RunSummary> {
    let list = |field: &str| document[field].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, field: &str| one_line(value[field].as_str().unwrap_or_default());
    let check = |check: &Value| Check {
        name: text(check, "name"),
        ok: check["ok"] == Value::Bool(true),
        message: text(check, "message"),
    };
    let snapshot = |snapshot: &Value| -> Result<SnapshotSummary> {
        let id: SnapshotId = text(snapshot, "id").parse().map_err(|error: Error| {
            Error::failed("the other lifeboat reports a snapshot without a valid id").because(error)
        })?;
        Ok(SnapshotSummary {
            source: Some(id.source().to_string()),
            id: id.to_string(),
            rows: snapshot["rows"].as_u64(),
            archive_bytes: snapshot["archive_bytes"].as_u64(),
            proof: proof_named(&text(snapshot, "proof")),
            problems: Vec::new(),
        })
    };
    Ok(RunSummary {
        checks: list("checks").iter().map(check).collect(),
        snapshots: list("snapshots").iter().map(snapshot).collect::<Result<_>>()?,
        rollback: list("rollback").iter().filter_map(Value::as_str).map(one_line).collect(),
    })
}

/// Returns the error in a document.
fn error_of(document: &Value) -> Option<Error> {
    let fields = document["error"].as_object()?;
    let text = |field: &str| fields.get(field).and_then(Value::as_str).map(one_line);
    let kinds = [Kind::Failed, Kind::Usage, Kind::Problem, Kind::NotFound, Kind::Unreachable, Kind::Interrupted];
    let kind = text("kind").and_then(|name| kinds.into_iter().find(|kind| kind.name() == name));
    let mut message = text("message").unwrap_or_default();
    for cause in fields.get("causes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        message.push_str(&format!(": {}", one_line(cause)));
    }
    let error = Error::new(kind.unwrap_or(Kind::Failed), message);
    Some(match text("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
