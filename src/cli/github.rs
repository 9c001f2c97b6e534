//! The output for GitHub Actions: annotations, outputs for later steps, and a summary of the job.
//!
//! Stdout is for the command's result; the lines that the runner reads go to stderr.
//! The formats are from <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::ops::summary::RunSummary;
use crate::ops::watch::Ending;
use crate::platform::error::Result;
use crate::platform::secret::Secret;

/// Returns true inside a job of GitHub Actions.
#[must_use]
pub(super) fn is_active() -> bool {
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
    let mut lines: Vec<String> = ending
        .summary
        .checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| line(&format!("{}: {}", check.name, check.message)))
        .collect();
    if let Some(error) = ending.error {
        lines.push(line(&error.full_message_with_hint()));
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
    let ids: Vec<&str> = ending.summary.snapshots.iter().map(|snapshot| &*snapshot.id).collect();
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
        text.push_str(&format!("**{}**\n\n", cell(&error.full_message())));
        if let Some(hint) = &error.hint {
            text.push_str(&format!("{}\n\n", cell(hint)));
        }
    }
    let RunSummary { checks, snapshots, rollback } = ending.summary;
    if !checks.is_empty() {
        text.push_str("| | check | found |\n| --- | --- | --- |\n");
        for check in checks {
            let mark = if check.ok { "✅" } else { "❌" };
            text.push_str(&format!("| {mark} | {} | {} |\n", cell(&check.name), cell(&check.message)));
        }
        text.push('\n');
    }
    if !snapshots.is_empty() {
        text.push_str("| snapshot | rows | bytes | proof |\n| --- | ---: | ---: | --- |\n");
        for snapshot in snapshots {
            let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            let (rows, bytes) = (number(snapshot.rows), number(snapshot.archive_bytes));
            let (id, proof) = (cell(&snapshot.id), snapshot.proof);
            text.push_str(&format!("| `{id}` | {rows} | {bytes} | {proof} |\n"));
        }
        text.push('\n');
    }
    if !rollback.is_empty() {
        // Text in a code block is shown unchanged, but a fence in it would end the block.
        let commands = rollback.join("\n").replace("```", "` ` `");
        text.push_str(&format!("To restore the data:\n\n```sh\n{commands}\n```\n\n"));
    }
    text
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
    use super::*;
    use crate::ops::summary::Check;
    use crate::ops::summary::SnapshotSummary;
    use crate::platform::error::Error;

    #[test]
    fn what_the_runner_reads_is_escaped() {
        let check = |name: &str, ok, message: &str| Check { name: name.into(), ok, message: message.into() };
        let snapshot = |id: &str, rows| SnapshotSummary { id: id.into(), rows, ..SnapshotSummary::default() };
        let run = RunSummary {
            checks: vec![check("a|b", false, "100%\nlost"), check("c", true, "")],
            snapshots: vec![snapshot("x-1", Some(3)), snapshot("y-2", None)],
            rollback: vec!["lifeboat restore x-1".to_owned()],
        };
        let error = Error::failed("no").hint("try");
        let ending = Ending { code: 3, error: Some(&error), summary: &run };
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
