//! `report`: the status page as a file.

use super::helpers::{app, sql};

#[test]
fn report_writes_the_page_as_html_and_a_summary_as_markdown() {
    let sandbox = app();
    sandbox.ok(&["drill"]);
    let document = sandbox.json(&["report", "--html", "page.html", "--markdown", "page.md"]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert_eq!(document["files"].as_array().unwrap().len(), 2);
    let html = std::fs::read_to_string(sandbox.path("page.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("healthy") && html.contains("drilled"), "{html}");
    assert!(
        !html.contains("<a href=\"/") && !html.contains("http-equiv=\"refresh\""),
        "a file must not contain links to the server"
    );
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
    // If a store cannot be read, the report is still written and says so.
    std::fs::rename(sandbox.path("backups"), sandbox.path("away")).unwrap();
    sandbox.run(&["report", "--html", "down.html"]).code(3);
    assert!(std::fs::read_to_string(sandbox.path("down.html")).unwrap().contains("does not exist"));
}
