//! `list`: order, filters, the table and the document.

use chrono::{Duration, Utc};

use crate::helpers::{
    SNAPSHOT_FIELDS, assert_has_fields, copy_with_time, field_names, id_of, refused_by_the_parser, silent,
};
use crate::support::{Sandbox, sample};

fn ids(sandbox: &Sandbox, flags: &[&str]) -> Vec<String> {
    let mut arguments = vec!["list", "--store", "backups"];
    arguments.extend(flags);
    let document = sandbox.json(&arguments);
    document["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn list_shows_the_newest_first_across_sources() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("zebra.db"), 1, "delete");
    sample(sandbox.path("app.db"), 1, "delete");
    let mut expected = Vec::new();
    for source in ["zebra.db", "app.db", "zebra.db", "app.db"] {
        expected.insert(0, sandbox.snapshot(source));
    }
    assert_eq!(ids(&sandbox, &[]), expected);
    assert_eq!(ids(&sandbox, &["--limit", "3"]), expected[..3]);
    assert_eq!(ids(&sandbox, &["-n", "1"]), expected[..1]);
    assert_eq!(ids(&sandbox, &["-n", "0"]), expected[..0]);
    let of_app: Vec<_> = expected.iter().filter(|id| id.starts_with("app-")).cloned().collect();
    assert_eq!(ids(&sandbox, &["--source", "app"]), of_app);
    assert_eq!(ids(&sandbox, &["--source", "app", "-n", "1"]), of_app[..1]);
    sandbox
        .run(&["list", "--store", "backups", "--source", "none"])
        .code(2)
        .says("the store has the sources: app, zebra");
    let run = sandbox.ok(&["list", "--store", "backups", "-n", "1"]);
    assert!(run.stdout().contains("and 3 older"), "{}", run.transcript());
}

#[test]
fn list_can_be_limited_by_tags_and_time() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    let take = |tags: &[&str]| {
        let mut arguments = vec!["snapshot", "app.db", "--store", "backups"];
        tags.iter().for_each(|tag| arguments.extend(["--tag", tag]));
        id_of(&sandbox.json(&arguments))
    };
    let (plain, deploy, both) = (take(&[]), take(&["deploy"]), take(&["deploy", "v2"]));
    assert_eq!(ids(&sandbox, &["--tag", "deploy"]), [both.clone(), deploy.clone()]);
    assert_eq!(ids(&sandbox, &["--tag", "deploy", "--tag", "v2"]), std::slice::from_ref(&both));
    assert_eq!(ids(&sandbox, &["--tag", "deploy", "-n", "1"]), std::slice::from_ref(&both));
    assert!(ids(&sandbox, &["--tag", "dep"]).is_empty());
    let old = copy_with_time(&sandbox.path("backups"), &plain, Utc::now() - Duration::days(30));
    assert_eq!(ids(&sandbox, &["--before", "7d"]), std::slice::from_ref(&old));
    assert_eq!(ids(&sandbox, &[]), [both, deploy, plain, old]);
    refused_by_the_parser(&sandbox, &["list", "--before", "tomorrow", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["list", "--limit", "-3", "--store", "backups"]);
}

#[test]
fn list_documents_have_every_field_except_tables() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let id = sandbox.snapshot("app.db");
    let document = sandbox.json(&["list", "--store", "backups"]);
    let snapshot = &document["snapshots"][0];
    assert_has_fields(snapshot, SNAPSHOT_FIELDS);
    assert!(!field_names(snapshot).contains("tables"), "{snapshot:#}");
    assert_eq!(snapshot["id"], id.as_str());
    assert_eq!(snapshot["proof"], "none");
    sandbox.ok(&["verify", &id, "--store", "backups"]);
    assert_eq!(sandbox.json(&["list", "--store", "backups"])["snapshots"][0]["proof"], "verified");
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    let document = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["proof"], "drilled");
    assert!(document["snapshots"][0]["restore_seconds"].is_number(), "{document:#}");
}

#[test]
fn list_shows_the_time_age_size_rows_proof_restore_time_and_notes() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--tag", "nightly", "--store", "backups"]));
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    let text = list_with(&sandbox, ("COLUMNS", "120"), &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for heading in ["ID", "TAKEN", "AGE", "SIZE", "ROWS", "PROOF", "RESTORE", "NOTES"] {
        assert!(lines[0].contains(heading), "{text}");
    }
    for word in [&id[..], "drilled", "nightly", "KiB"] {
        assert!(lines[1].contains(word), "{word}\n{text}");
    }
    // Without a terminal, columns may be left out, but no note is cut.
    let run = silent(sandbox.ok(&["list", "--store", "backups"]));
    assert!(run.stdout().contains("nightly"), "{}", run.transcript());
}

/// Returns the output of `list` with an environment variable.
fn list_with(sandbox: &Sandbox, variable: (&str, &str), flags: &[&str]) -> String {
    let mut command = sandbox.command(&["list", "--store", "backups"]);
    command.args(flags).env(variable.0, variable.1);
    sandbox.finish(command).code(0).stdout()
}

#[test]
fn times_are_those_of_the_zone_or_of_utc() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let id = sandbox.snapshot("app.db");
    let at = Utc::now() - Duration::days(3);
    let old = copy_with_time(&sandbox.path("backups"), &id, at);
    let older = copy_with_time(&sandbox.path("backups"), &id, at - Duration::days(700));
    let line = |text: String, id: &str| text.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    let in_zone = |zone: chrono_tz::Tz| at.with_timezone(&zone).format("  %b %d %H:%M  ").to_string();
    let shanghai = list_with(&sandbox, ("TZ", "Asia/Shanghai"), &[]);
    assert!(line(shanghai.clone(), &old).contains(&in_zone(chrono_tz::Asia::Shanghai)), "{shanghai}");
    let utc = list_with(&sandbox, ("TZ", "Asia/Shanghai"), &["--utc"]);
    assert!(line(utc.clone(), &old).contains(&in_zone(chrono_tz::UTC)), "{utc}");
    let year = (at - Duration::days(700)).format("%b %d  %Y").to_string();
    assert!(line(utc.clone(), &older).contains(&year), "{utc}");
    // Times on the command line are read as they are shown.
    let shown =
        (at + Duration::minutes(1)).with_timezone(&chrono_tz::Asia::Shanghai).format("%Y-%m-%d %H:%M").to_string();
    let before = |zone: &str| list_with(&sandbox, ("TZ", zone), &["--before", &shown, "--since", "4d"]);
    assert!(before("Asia/Shanghai").contains(&old) && !before("Asia/Shanghai").contains(&id));
    assert!(!before("Pacific/Kiritimati").contains(&old));
    assert_eq!(ids(&sandbox, &["--since", "4d"]), [id.clone(), old.clone()]);
    assert_eq!(ids(&sandbox, &["--since", "4d", "--until", "1d"]), std::slice::from_ref(&old));
    assert_eq!(ids(&sandbox, &["--since", "4d", "-n", "1"]), std::slice::from_ref(&id));
    let limited = sandbox.ok(&["list", "--store", "backups", "--since", "4d", "-n", "1"]);
    assert!(limited.stdout().contains("and 1 older: --limit 2 shows all"), "{}", limited.transcript());
    refused_by_the_parser(&sandbox, &["list", "--store", "backups", "--until", "1d", "--before", "1d"]);
}

#[test]
fn a_list_fits_the_width_of_the_terminal() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("billing1.db"), 20_000, "delete");
    let tags = ["--tag", "nightly", "--tag", "before-the-great-move", "--tag", "夜间备份"];
    sandbox.json(&[&["snapshot", "billing1.db", "--store", "backups"], &tags[..]].concat());
    sandbox.ok(&["drill", "--store", "backups"]);
    let whole = list_with(&sandbox, ("COLUMNS", "200"), &[]);
    assert!(whole.contains("夜间备份") && whole.contains("RESTORE"), "{whole}");
    for width in [100, 80, 60] {
        let text = list_with(&sandbox, ("COLUMNS", &width.to_string()), &[]);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width && text.lines().count() == 2, "{width}\n{text}");
        assert!(text.contains("TAKEN") && text.contains("drilled") && text.contains('…'), "{width}\n{text}");
    }
}

#[test]
fn an_encrypted_snapshot_is_marked_and_no_colour_is_used_for_a_file() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 100, "delete");
    sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--encrypt-to", &public]);
    let text = list_with(&sandbox, ("NO_COLOR", "1"), &[]);
    assert!(text.lines().nth(1).unwrap().ends_with("  encrypted"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn list_shows_a_snapshot_that_cannot_be_read_as_damaged() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let (older, newer) = (sandbox.snapshot("app.db"), sandbox.snapshot("app.db"));
    std::fs::write(sandbox.path(format!("backups/app/{newer}.json")), "{").unwrap();
    std::fs::remove_file(sandbox.path(format!("backups/app/{older}.tar.gz"))).unwrap();
    let document = sandbox.json(&["list", "--store", "backups"]);
    let proofs: Vec<_> = document["snapshots"].as_array().unwrap().iter().map(|snapshot| &snapshot["proof"]).collect();
    assert_eq!(proofs, ["damaged", "damaged"], "{document:#}");
    let run = sandbox.ok(&["list", "--store", "backups"]);
    assert_eq!(run.stdout().matches("damaged").count(), 2, "{}", run.transcript());
}

#[test]
fn list_ignores_files_that_are_not_snapshots() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let id = sandbox.snapshot("app.db");
    for name in ["backups/app/notes.txt", "backups/app/.upload-abc", "backups/stray.json", "backups/app/x.json"] {
        std::fs::write(sandbox.path(name), "hello").unwrap();
    }
    std::fs::create_dir(sandbox.path("backups/lost+found")).unwrap();
    std::fs::create_dir(sandbox.path("backups/empty")).unwrap();
    std::fs::write(sandbox.path("backups/app/app-20200101T000000Z-0000.tar.gz"), "half").unwrap();
    assert_eq!(ids(&sandbox, &[]), [id]);
}

#[test]
fn unusual_tags_do_not_break_the_table() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    let tag = "line\nbreak \u{1b}[31m,\"quoted\" ünïcode";
    sandbox.ok(&["snapshot", "app.db", "--tag", tag, "--store", "backups"]);
    let document = sandbox.json(&["list", "--store", "backups", "--tag", tag]);
    assert_eq!(document["snapshots"][0]["tags"], serde_json::json!([tag]));
    for arguments in [&["list", "--store", "backups"][..], &["prune", "--keep-tag", tag, "--store", "backups"]] {
        let run = sandbox.ok(arguments);
        assert!(!run.stdout().contains('\u{1b}'), "{}", run.transcript());
        assert!(!run.stdout().lines().any(|line| line.trim_start().starts_with("break")), "{}", run.transcript());
    }
}

#[test]
fn a_hundred_snapshots_keep_their_order() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    let newest = sandbox.snapshot("app.db");
    let now = Utc::now();
    // The multiples of 37 modulo the prime 101 are the numbers from 1 to 100 in a mixed order.
    let hours: Vec<i64> = (1..=100).map(|n| n * 37 % 101).collect();
    let mut expected: Vec<(i64, String)> = hours
        .iter()
        .map(|hour| (*hour, copy_with_time(&sandbox.path("backups"), &newest, now - Duration::hours(*hour))))
        .collect();
    expected.sort();
    expected.insert(0, (0, newest));
    let expected: Vec<String> = expected.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids(&sandbox, &[]), expected);
    assert_eq!(ids(&sandbox, &["-n", "7"]), expected[..7]);
    let run = sandbox.ok(&["list", "--store", "backups"]);
    assert_eq!(run.stdout().lines().count(), 102, "{}", run.transcript());
}
