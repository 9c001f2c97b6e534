//! The page as a file.

use super::helpers::{app, sql};

#[test]
fn the_page_is_written_for_an_artifact_and_in_short_for_a_summary() {
    let sandbox = app();
    sandbox.ok(&["drill"]);
    let document = sandbox.json(&["report", "--html", "page.html", "--markdown", "page.md"]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert_eq!(document["files"].as_array().unwrap().len(), 2);
    let html = std::fs::read_to_string(sandbox.path("page.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("healthy") && html.contains("drilled"), "{html}");
    assert!(!html.contains("<a href=\"/") && !html.contains("http-equiv=\"refresh\""), "links lead nowhere in a file");
    let markdown = std::fs::read_to_string(sandbox.path("page.md")).unwrap();
    assert!(markdown.contains("| app | healthy | app-"), "{markdown}");
    let rows = markdown.lines().filter(|line| line.starts_with('|'));
    assert!(rows.into_iter().all(|row| row.matches('|').count() == 9), "{markdown}");

    sql(&sandbox, "app.db", "DELETE FROM accounts");
    let run = sandbox.run(&["report", "--markdown", "-"]).code(3);
    assert!(run.stdout().contains("**app: min\\_rows of accounts**: 0 rows"), "{}", run.stdout());
    let run = sandbox.run(&["report", "--html", "page.html"]).code(3);
    assert!(run.stdout().contains("wrote ") && run.stdout().contains("FAILED"), "{}", run.transcript());
    assert!(std::fs::read_to_string(sandbox.path("page.html")).unwrap().contains("UNHEALTHY"));
    sandbox.run(&["report"]).code(2);
    // A store that is down is in the report, and no reason to write none.
    std::fs::rename(sandbox.path("backups"), sandbox.path("away")).unwrap();
    sandbox.run(&["report", "--html", "down.html"]).code(3);
    assert!(std::fs::read_to_string(sandbox.path("down.html")).unwrap().contains("there is no store folder"));
}
