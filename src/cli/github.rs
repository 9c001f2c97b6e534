//! The output for GitHub Actions: annotations, outputs for later steps, and a summary of the job.
//!
//! Stdout is for the command's result; the lines that the runner reads go to stderr.
//! The formats are from <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::ops::watch::Ending;
use crate::platform::error::Result;
use crate::platform::secret::Secret;

/// Returns true inside a job of GitHub Actions.
#[must_use]
pub(super) fn is_here() -> bool {
    std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true")
}

/// Returns the lines that make the runner mask secrets in the logs of this step and later ones.
#[must_use]
pub(super) fn masks(secrets: &[Secret]) -> Vec<String> {
    let lines = secrets.iter().flat_map(|secret| secret.expose().lines());
    // Masking shorter values would also hide text that is not secret.
    lines.filter(|line| line.trim().len() > 3).map(|line| format!("::add-mask::{}", escape(line))).collect()
}

/// Returns the annotations of a run that failed.
#[must_use]
pub(super) fn annotations(command: &str, ending: &Ending<'_>) -> Vec<String> {
    if ending.code == 0 {
        return Vec::new();
    }
    let title = format!("lifeboat {command}");
    let line = |message: &str| format!("::error title={}::{}", escape_property(&title), escape(message));
    let mut lines: Vec<String> = failed_checks(ending.document)
        .map(|check| line(&format!("{}: {}", words(check, "name"), words(check, "message"))))
        .collect();
    if let Some(error) = ending.error {
        lines.push(line(&error.whole_with_hint()));
    }
    if lines.is_empty() {
        lines.push(line(&format!("exit code {}", ending.code)));
    }
    lines
}

/// Writes the outputs and the summary to the files that the runner names.
pub(super) fn write(command: &str, ending: &Ending<'_>) -> Result<()> {
    let file = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty());
    if let Some(path) = file("GITHUB_OUTPUT") {
        append(Path::new(&path), &outputs(ending))?;
    }
    if let Some(path) = file("GITHUB_STEP_SUMMARY") {
        append(Path::new(&path), &summary(command, ending))?;
    }
    Ok(())
}

fn append(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())?;
    Ok(())
}

/// Returns the outputs `ok`, `snapshot-id` (the first) and `snapshot-ids` (all, one per line).
fn outputs(ending: &Ending<'_>) -> String {
    let ids: Vec<&str> = snapshots(ending.document).map(|snapshot| words(snapshot, "id")).collect();
    let first = ids.first().copied().unwrap_or_default();
    // No snapshot id equals the delimiter END_OF_IDS.
    let ids: String = ids.iter().map(|id| format!("{id}\n")).collect();
    format!("ok={}\nsnapshot-id={first}\nsnapshot-ids<<END_OF_IDS\n{ids}END_OF_IDS\n", ending.code == 0)
}

/// Returns the summary, in Markdown.
fn summary(command: &str, ending: &Ending<'_>) -> String {
    let verdict = if ending.code == 0 { "✅ passed" } else { "❌ FAILED" };
    let mut text = format!("### lifeboat {command}: {verdict}\n\n");
    if let Some(error) = ending.error {
        text.push_str(&format!("**{}**\n\n", cell(&error.whole())));
        if let Some(hint) = &error.hint {
            text.push_str(&format!("{}\n\n", cell(hint)));
        }
    }
    let checks = list(ending.document, "checks");
    if !checks.is_empty() {
        text.push_str("| | check | found |\n| --- | --- | --- |\n");
        for check in checks {
            let mark = if check["ok"] == Value::Bool(true) { "✅" } else { "❌" };
            text.push_str(&format!(
                "| {mark} | {} | {} |\n",
                cell(words(check, "name")),
                cell(words(check, "message"))
            ));
        }
        text.push('\n');
    }
    let snapshots: Vec<&Value> = snapshots(ending.document).collect();
    if !snapshots.is_empty() {
        text.push_str("| snapshot | rows | bytes | proof |\n| --- | ---: | ---: | --- |\n");
        for snapshot in snapshots {
            let number = |field: &str| snapshot[field].as_u64().map(|number| number.to_string()).unwrap_or_default();
            let (rows, bytes) = (number("rows"), number("archive_bytes"));
            let (id, proof) = (cell(words(snapshot, "id")), cell(words(snapshot, "proof")));
            text.push_str(&format!("| `{id}` | {rows} | {bytes} | {proof} |\n"));
        }
        text.push('\n');
    }
    let rollback: Vec<&str> = list(ending.document, "rollback").iter().filter_map(Value::as_str).collect();
    if !rollback.is_empty() {
        // Text in a code block is shown unchanged, but a fence in it would end the block.
        let commands = rollback.join("\n").replace("```", "` ` `");
        text.push_str(&format!("To bring the data back:\n\n```sh\n{commands}\n```\n\n"));
    }
    text
}

fn list<'a>(document: &'a Value, field: &str) -> &'a [Value] {
    document[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn words<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn snapshots(document: &Value) -> impl Iterator<Item = &Value> {
    list(document, "snapshots").iter()
}

fn failed_checks(document: &Value) -> impl Iterator<Item = &Value> {
    list(document, "checks").iter().filter(|check| check["ok"] == Value::Bool(false))
}

/// Escapes a text for the data of a workflow command.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a text for a property of a workflow command.
fn escape_property(text: &str) -> String {
    escape(text).replace(':', "%3A").replace(',', "%2C")
}

/// Escapes a text for a table cell in Markdown. Names of tables may contain any character.
fn cell(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\\', "\\\\").replace('|', "\\|").replace('`', "\\`").replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::error::Error;

    #[test]
    fn what_the_runner_reads_is_escaped() {
        let document = json!({
            "checks": [{"name": "a|b", "ok": false, "message": "100%\nlost"}, {"name": "c", "ok": true, "message": ""}],
            "snapshots": [{"id": "x-1", "rows": 3}, {"id": "y-2"}],
            "rollback": ["lifeboat restore x-1"],
        });
        let error = Error::failed("no").hint("try");
        let ending = Ending { code: 3, error: Some(&error), document: &document };
        assert_eq!(
            annotations("postdeploy", &ending),
            ["::error title=lifeboat postdeploy::a|b: 100%25%0Alost", "::error title=lifeboat postdeploy::no (try)"]
        );
        assert_eq!(outputs(&ending), "ok=false\nsnapshot-id=x-1\nsnapshot-ids<<END_OF_IDS\nx-1\ny-2\nEND_OF_IDS\n");
        let summary = summary("postdeploy", &ending);
        assert!(summary.contains("| ❌ | a\\|b | 100% lost |\n"), "{summary}");
        assert!(summary.contains("| `x-1` | 3 |  |  |\n") && summary.contains("lifeboat restore x-1"), "{summary}");
        assert_eq!(masks(&[Secret::new("p%ss\nlong"), Secret::new("abc")]), ["::add-mask::p%25ss", "::add-mask::long"]);
    }
}
