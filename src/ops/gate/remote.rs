//! `predeploy --remote`: the `lifeboat serve` beside the database does the work of the gate.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::ops::Report;
use crate::ops::gate::predeploy::PredeployOptions;
use crate::ops::gate::{commit, wait_until};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::http::{Body, Client, Url};
use crate::platform::secret::Secret;

/// The header with the exit code that the command would have had.
pub(crate) const EXIT_CODE: &str = "lifeboat-exit-code";
/// The environment variable that holds the token. It is not read by clap, which shows the values of variables.
const TOKEN: &str = "LIFEBOAT_TOKEN";
/// The most bytes that a document may have.
const MOST_BYTES: u64 = 64 << 20;

/// The answer of the other lifeboat.
#[derive(Debug)]
pub(crate) struct RemoteReport {
    /// Its document.
    pub document: Value,
    /// The exit code that it reports.
    pub code: u8,
    /// The failures that it reports.
    pub failures: Vec<Error>,
}

impl Serialize for RemoteReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document.serialize(serializer)
    }
}

impl Report for RemoteReport {
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
            .hint("it is what the other lifeboat's config has as token under [serve]")
    })?;
    let total = timeout.to_std().map_err(|error| Error::usage("no such time").because(error))?;
    let client = Client::new(total).body_bytes(MOST_BYTES).bearer(Secret::new(token.trim())).heeds_signals();
    let wait = options.wait.to_std().unwrap_or_default();
    let asked = json!({
        "gate": "predeploy",
        "sources": options.sources,
        "tags": options.tag,
        "commit": commit(options.commit.as_deref()),
        "wait_seconds": wait.as_secs(),
        "full_check": options.full_check,
    });
    let place = url.below("snapshots");
    // The status 409 means that another run is in progress: wait until it ends.
    let answer = wait_until(wait, || {
        let answer = client.post(&place, Body::Json(asked.clone()))?;
        Ok((answer.status != 409, answer))
    })?;
    let document: Option<Value> = serde_json::from_slice(&answer.body).ok().filter(|_| answer.whole);
    let Some(document) = document.filter(Value::is_object) else {
        return Err(Error::failed(format!("{url} answers {}, which is no answer of lifeboat's", answer.status))
            .hint("name the address of 'lifeboat serve', without a path unless a proxy has one"));
    };
    let code = answer.header(EXIT_CODE).and_then(|code| code.parse().ok());
    let said = error_of(&document);
    match (answer.status, code) {
        (_, Some(0)) if document["ok"] != Value::Bool(true) || document["snapshots"][0].is_null() => {
            Err(Error::failed(format!("the lifeboat at {url} names no snapshot that it took")))
        }
        (_, Some(code)) => Ok(RemoteReport { document, code, failures: said.into_iter().collect() }),
        // The other lifeboat has refused to do anything.
        (status, None) => Err(said
            .unwrap_or_else(|| Error::failed(format!("it answers {status}, and names no exit code")))
            .context(format!("the lifeboat at {url} did nothing"))),
    }
}

/// Returns the error in a document.
fn error_of(document: &Value) -> Option<Error> {
    let said = document["error"].as_object()?;
    let words = |field: &str| said.get(field).and_then(Value::as_str).map(one_line);
    let kinds = [Kind::Failed, Kind::Usage, Kind::Problem, Kind::NotFound, Kind::Unreachable, Kind::Interrupted];
    let kind = words("kind").and_then(|name| kinds.into_iter().find(|kind| kind.name() == name));
    let mut message = words("message").unwrap_or_default();
    for cause in said.get("causes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        message.push_str(&format!(": {}", one_line(cause)));
    }
    let error = Error::new(kind.unwrap_or(Kind::Failed), message);
    Some(match words("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
