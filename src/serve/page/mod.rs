//! The page for people: it shows sources, snapshots and stores, as HTML and as Markdown.
//!
//! This module does not read a database or a store: the caller provides everything that is shown. The templates escape
//! every text that comes from outside. The page has no script, and its one style sheet is part of the page.

mod calendar;
mod markdown;
mod plot;

use askama::Template;
use aws_smithy_types::base64;
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use crate::platform::error::{Error, Result};
use crate::platform::text;

pub(crate) use crate::serve::page::calendar::{Calendar, DAYS, Day};
pub(crate) use crate::serve::page::plot::{Plot, Unit};

/// The style of every page.
const STYLE: &str = include_str!("templates/style.css");

/// Returns the Content-Security-Policy of a page: the browser may use the page's own style, and load nothing else.
#[must_use]
pub(crate) fn policy() -> String {
    let digest = base64::encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// The health of a source, a store or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is healthy.
    Good,
    /// It is unhealthy.
    Bad,
    /// It was not inspected yet.
    Unknown,
}

impl Status {
    /// Returns the CSS class.
    fn class(self) -> &'static str {
        match self {
            Status::Good => "good",
            Status::Bad => "bad",
            Status::Unknown => "unknown",
        }
    }

    /// Returns the word for people.
    fn word(self) -> &'static str {
        match self {
            Status::Good => "healthy",
            Status::Bad => "UNHEALTHY",
            Status::Unknown => "not checked yet",
        }
    }

    /// Returns `Good` if all are good, otherwise the worst; `Bad` is worse than `Unknown`.
    #[must_use]
    pub(crate) fn of_all(all: impl IntoIterator<Item = Status>) -> Status {
        all.into_iter().fold(Status::Good, |one, other| match (one, other) {
            (Status::Bad, _) | (_, Status::Bad) => Status::Bad,
            (Status::Unknown, _) | (_, Status::Unknown) => Status::Unknown,
            _ => Status::Good,
        })
    }
}

/// The overview page.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    /// The machine's name.
    pub host: String,
    /// The time at which its contents were collected.
    pub at: DateTime<Utc>,
    /// The databases.
    pub sources: Vec<SourceView>,
    /// The stores that hold their snapshots.
    pub stores: Vec<StoreView>,
    /// True if snapshots have pages that can be linked to, and the browser is to reload this page regularly.
    pub served: bool,
}

/// The result of one check.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The name of the check.
    pub name: String,
    /// True if the check passed.
    pub ok: bool,
    /// The finding, as text.
    pub message: String,
}

/// A store.
#[derive(Clone, Debug)]
pub(crate) struct StoreView {
    /// Its location.
    pub location: String,
    /// Its status: good if it answers.
    pub status: Status,
    /// A summary of its contents, or the problem.
    pub message: String,
}

/// A database.
#[derive(Clone, Debug)]
pub(crate) struct SourceView {
    /// Its name.
    pub name: String,
    /// Its location, without secrets.
    pub location: String,
    /// Its status.
    pub status: Status,
    /// The time of the last check.
    pub checked_at: Option<DateTime<Utc>>,
    /// The results of the checks.
    pub findings: Vec<Finding>,
    /// The newest good snapshot.
    pub newest: Option<SnapshotRow>,
    /// The calendar of the last days.
    pub calendar: Calendar,
    /// Size, rows and duration over time.
    pub plots: Vec<Plot>,
    /// The growth of tables, fastest first.
    pub growth: Vec<Growth>,
    /// The times of the two snapshots between which the growth was calculated.
    pub growth_span: String,
    /// The duration of a restore, as measured by the newest drill.
    pub restore: Option<String>,
    /// The snapshots that the retention plan removes next.
    pub removals: Vec<Removal>,
    /// The newest snapshots.
    pub snapshots: Vec<SnapshotRow>,
    /// The number of all snapshots.
    pub total: usize,
    /// The number of snapshots that are still to be read.
    pub unread: usize,
}

/// The growth of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Its name.
    pub table: String,
    /// Its rows in the older snapshot.
    pub before: u64,
    /// Its rows in the newer snapshot.
    pub after: u64,
    /// The growth per day, with a sign.
    pub rows_per_day: String,
}

/// A snapshot that the retention plan will remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Its id.
    pub id: String,
    /// The time of the removal, as text.
    pub when: String,
}

/// A snapshot in a row of a table.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotRow {
    /// Its id.
    pub id: String,
    /// The time at which it was taken.
    pub at: DateTime<Utc>,
    /// Its age.
    pub age: String,
    /// Its kind; `?` if its manifest cannot be read.
    pub kind: String,
    /// The size of its archive.
    pub size: String,
    /// Its rows.
    pub rows: String,
    /// The time that it took.
    pub duration: String,
    /// The result of its tests.
    pub proof: String,
    /// Its status: bad if it should not be restored from, and good only if a test has proven it.
    pub status: Status,
    /// Its tags.
    pub tags: String,
}

/// The page of one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotPage {
    /// The snapshot.
    pub row: SnapshotRow,
    /// Facts about it, as pairs of name and value.
    pub facts: Vec<(String, String)>,
    /// The snapshot that its tables are compared with.
    pub compared_with: Option<String>,
    /// Its tables, and those that were removed since the snapshot that it is compared with.
    pub tables: Vec<TableRow>,
    /// A note if no tables, or not all of them, are shown.
    pub tables_note: Option<String>,
    /// The commands that restore it, as pairs of description and command.
    pub commands: Vec<(String, String)>,
}

/// A table of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRow {
    /// Its name.
    pub name: String,
    /// `same`, `changed`, `added` or `removed`; empty if there is nothing to compare with.
    pub status: String,
    /// Its rows in the snapshot that it is compared with.
    pub before: String,
    /// Its rows.
    pub rows: String,
    /// The change in rows, with a sign.
    pub change: String,
    /// The bytes of its values.
    pub bytes: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewHtml<'a> {
    style: &'static str,
    policy: String,
    status: Status,
    page: &'a Overview,
}

#[derive(Template)]
#[template(path = "snapshot.html")]
struct SnapshotHtml<'a> {
    style: &'static str,
    policy: String,
    page: &'a SnapshotPage,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessageHtml<'a> {
    style: &'static str,
    policy: String,
    title: &'a str,
    message: &'a str,
}

#[derive(Template)]
#[template(path = "overview.md")]
struct OverviewMarkdown<'a> {
    status: Status,
    page: &'a Overview,
}

impl Overview {
    /// Returns the worst status of all sources and stores.
    #[must_use]
    pub(crate) fn status(&self) -> Status {
        let sources = self.sources.iter().map(|source| source.status);
        Status::of_all(sources.chain(self.stores.iter().map(|store| store.status)))
    }

    /// Renders the whole page as HTML.
    pub(crate) fn html(&self) -> Result<String> {
        rendered(&OverviewHtml { style: STYLE, policy: policy(), status: self.status(), page: self })
    }

    /// Renders a short form as Markdown, for the summary of a job.
    pub(crate) fn markdown(&self) -> Result<String> {
        rendered(&OverviewMarkdown { status: self.status(), page: self })
    }
}

impl SnapshotPage {
    /// Renders the whole page as HTML.
    pub(crate) fn html(&self) -> Result<String> {
        rendered(&SnapshotHtml { style: STYLE, policy: policy(), page: self })
    }
}

/// Renders a page that shows one message.
pub(crate) fn message(title: &str, message: &str) -> Result<String> {
    rendered(&MessageHtml { style: STYLE, policy: policy(), title, message })
}

fn rendered(template: &impl Template) -> Result<String> {
    template.render().map_err(|error| Error::failed("cannot render the page").because(error))
}

/// Formats a time for the templates.
fn shown_time(time: &DateTime<Utc>) -> String {
    text::time(*time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</title><script>alert(1)</script>\"'`|<img src=x onerror=alert(2)>";

    fn row(id: &str) -> SnapshotRow {
        SnapshotRow {
            id: id.to_owned(),
            at: DateTime::from_timestamp(1_800_000_000, 0).expect("a time"),
            age: "1h".to_owned(),
            kind: HOSTILE.to_owned(),
            size: "1 KiB".to_owned(),
            rows: "3".to_owned(),
            duration: "1s".to_owned(),
            proof: HOSTILE.to_owned(),
            status: Status::Good,
            tags: HOSTILE.to_owned(),
        }
    }

    fn hostile() -> Overview {
        let at = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let text = HOSTILE.to_owned();
        let source = SourceView {
            name: text.clone(),
            location: text.clone(),
            status: Status::Bad,
            checked_at: Some(at),
            findings: vec![Finding { name: text.clone(), ok: false, message: text.clone() }],
            newest: Some(row(HOSTILE)),
            calendar: Calendar::new(at.date_naive(), &[]),
            plots: vec![Plot::new(&text, Unit::Bytes, &[(at, 1.0), (at, 2.0)])],
            growth: vec![Growth { table: text.clone(), before: 1, after: 2, rows_per_day: "+1".to_owned() }],
            growth_span: text.clone(),
            restore: Some(text.clone()),
            removals: vec![Removal { id: text.clone(), when: text.clone() }],
            snapshots: vec![row(HOSTILE)],
            total: 1,
            unread: 0,
        };
        let store = StoreView { location: text.clone(), status: Status::Bad, message: text.clone() };
        Overview { host: text, at, sources: vec![source], stores: vec![store], served: true }
    }

    #[test]
    fn no_markup_gets_through() {
        let page = hostile();
        let html = page.html().expect("a page");
        assert!(
            !html.contains("<script")
                && !html.contains("<img")
                && html.matches("</title>").count() == 1 + svg_titles(&html)
        );
        let snapshot = SnapshotPage {
            row: row(HOSTILE),
            facts: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
            compared_with: Some(HOSTILE.to_owned()),
            tables: vec![TableRow {
                name: HOSTILE.to_owned(),
                status: HOSTILE.to_owned(),
                before: HOSTILE.to_owned(),
                rows: HOSTILE.to_owned(),
                change: HOSTILE.to_owned(),
                bytes: HOSTILE.to_owned(),
            }],
            tables_note: Some(HOSTILE.to_owned()),
            commands: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        };
        let html = snapshot.html().expect("a page");
        assert!(!html.contains("<script") && !html.contains("<img") && html.matches("</title>").count() == 1, "{html}");
        let html = message(HOSTILE, HOSTILE).expect("a page");
        assert!(!html.contains("<script") && !html.contains("<img"));
        let markdown = page.markdown().expect("a text");
        assert!(!markdown.contains("<script") && !markdown.contains("<img") && !markdown.contains("`|"), "{markdown}");
    }

    fn svg_titles(html: &str) -> usize {
        html.matches("<title>").count() - 1
    }

    #[test]
    fn the_policy_names_the_style_that_the_page_has() {
        let html = hostile().html().expect("a page");
        let style = html.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).expect("a style");
        let digest = base64::encode(Sha256::digest(style.as_bytes()));
        assert!(policy().contains(&format!("'sha256-{digest}'")));
        assert!(!html.contains(" style=") && !html.contains("http-equiv=\"refresh\" content=\"0"));
    }

    #[test]
    fn one_that_is_bad_makes_all_bad() {
        use Status::{Bad, Good, Unknown};
        assert_eq!(Status::of_all([]), Good);
        assert_eq!(Status::of_all([Good, Unknown]), Unknown);
        assert_eq!(Status::of_all([Unknown, Bad, Good]), Bad);
    }
}
