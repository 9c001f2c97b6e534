//! The output for GitHub Actions: annotations, outputs for later steps, and a summary of the job.
//!
//! Stdout is for the command's result; the lines that the runner reads go to stderr.
//! The formats are from <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::ops::summary::RunSummary;
use crate::ops::watch::Ending;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::secret::Secret;
use crate::snapshots::id::SnapshotId;

/// Returns true inside a job of GitHub Actions.
#[must_use]
pub(super) fn is_active() -> bool {
    std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true")
}

/// Returns a text for people so that the runner finds no command in it. It reads `::` at the start of a line, and `##[`
/// anywhere. A program in a container does not know whether the runner reads its output, so `::` is never at the start of
/// a line.
#[must_use]
pub(super) fn disarm(text: &str) -> Cow<'_, str> {
    let text = match is_active() && text.contains("##[") {
        true => Cow::Owned(text.replace("##[", "# #[")),
        false => Cow::Borrowed(text),
    };
    if !text.contains("::") {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive(['\n', '\r']) {
        let rest = line.trim_start();
        safe.push_str(&line[..line.len() - rest.len()]);
        safe.push_str(if rest.starts_with("::") { ": " } else { "" });
        safe.push_str(rest.strip_prefix(':').filter(|_| rest.starts_with("::")).unwrap_or(rest));
    }
    Cow::Owned(safe)
}

/// Returns a JSON document so that the runner finds no command in it; the document has the same meaning.
#[must_use]
pub(super) fn disarm_json(document: &str) -> Cow<'_, str> {
    // These characters occur only inside texts, and no line of a document begins with "::".
    if is_active() && document.contains("##[") {
        return Cow::Owned(document.replace("##[", "#\\u0023["));
    }
    Cow::Borrowed(document)
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
        append(Path::new(&path), &outputs(ending, &random_delimiter()?))?;
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

/// Returns the outputs `ok`, `snapshot-id` (the first) and `snapshot-ids` (all, one per line). `delimiter` ends the ids.
/// Texts that are not ids of snapshots are left out.
fn outputs(ending: &Ending<'_>, delimiter: &str) -> String {
    let ids: Vec<&str> = ending.summary.snapshots.iter().map(|snapshot| &*snapshot.id).collect();
    let ids: Vec<&str> = ids.into_iter().filter(|id| id.parse::<SnapshotId>().is_ok()).collect();
    let first = ids.first().copied().unwrap_or_default();
    let ids: String = ids.iter().map(|id| format!("{id}\n")).collect();
    format!("ok={}\nsnapshot-id={first}\nsnapshot-ids<<{delimiter}\n{ids}{delimiter}\n", ending.code == 0)
}

/// Returns a delimiter that nobody can know before it is written.
fn random_delimiter() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Error::failed("cannot get random numbers from the system").because(error.to_string()))?;
    Ok(format!("lifeboat-{}", hex::encode(random)))
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
    let RunSummary { checks, snapshots, rollback, .. } = ending.summary;
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
            let (id, proof) = (cell(&snapshot.id), proof_cell(snapshot.proof));
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

/// Returns a proof with a mark: only a snapshot that a test has proven gets a green one.
fn proof_cell(proof: &str) -> &'static str {
    match proof {
        "verified" => "✅ verified",
        "drilled" => "✅ drilled",
        "damaged" => "❌ damaged",
        "none" => "none",
        _ => "",
    }
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
    let text = one_line(&text.replace(['\r', '\n'], " "));
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut cell = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '|' | '`' | '[' | ']' | '*' | '~' | '!') {
            cell.push('\\');
        }
        cell.push(character);
    }
    // GitHub makes links of addresses and of names of users.
    cell.replace("://", ":&#47;/").replace('@', "&#64;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::summary::Check;
    use crate::ops::summary::SnapshotSummary;

    #[test]
    fn what_the_runner_reads_is_escaped() {
        let check =
            |name: &str, ok, message: &str| Check { name: name.into(), ok, message: message.into(), source: None };
        let snapshot = |id: &str, rows| SnapshotSummary { id: id.into(), rows, ..SnapshotSummary::default() };
        let run = RunSummary {
            checks: vec![check("a|b", false, "100%\nlost"), check("c", true, "")],
            snapshots: vec![snapshot("x-1", Some(3)), snapshot("y-2", None)],
            rollback: vec!["lifeboat restore x-1".to_owned()],
            ..RunSummary::default()
        };
        let error = Error::failed("no").hint("try");
        let ending = Ending { code: 3, error: Some(&error), summary: &run };
        assert_eq!(
            annotations("postdeploy", &ending),
            ["::error title=lifeboat postdeploy::a|b: 100%25%0Alost", "::error title=lifeboat postdeploy::no (try)"]
        );
        assert_eq!(outputs(&ending, "END"), "ok=false\nsnapshot-id=\nsnapshot-ids<<END\nEND\n", "these are no ids");
        let summary = summary("postdeploy", &ending);
        assert!(summary.contains("| ❌ | a\\|b | 100% lost |\n"), "{summary}");
        assert!(summary.contains("| `x-1` | 3 |  |  |\n") && summary.contains("lifeboat restore x-1"), "{summary}");
        assert_eq!(masks(&[Secret::new("p%ss\nlong"), Secret::new("abc")]), ["::add-mask::p%25ss", "::add-mask::long"]);
    }
}
