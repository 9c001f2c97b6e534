//! The page for people: what is known of sources, snapshots and stores, as HTML and as Markdown.
//!
//! Nothing here looks at a database or a store: who calls has looked, and fills in what is shown. Every text that comes
//! from outside is escaped by the templates; there is no script, and the one style sheet stands in the page.

mod calendar;
mod markdown;
mod plot;

use askama::Template;
use aws_smithy_types::base64;
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use crate::platform::error::{Error, Result};
use crate::platform::text;

pub use crate::serve::page::calendar::{Calendar, DAYS, Day, DayKind};
pub use crate::serve::page::plot::{Plot, Unit};

/// The style of every page.
const STYLE: &str = include_str!("templates/style.css");

/// What a browser may do with a page: show it, with its own style and nothing from elsewhere.
#[must_use]
pub fn policy() -> String {
    let digest = base64::encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is.
    Good,
    /// It is not.
    Bad,
    /// Nobody has looked yet.
    Unknown,
}

impl Status {
    /// The class of its style.
    fn class(self) -> &'static str {
        match self {
            Status::Good => "good",
            Status::Bad => "bad",
            Status::Unknown => "unknown",
        }
    }

    /// The word for people.
    fn word(self) -> &'static str {
        match self {
            Status::Good => "healthy",
            Status::Bad => "UNHEALTHY",
            Status::Unknown => "not looked at yet",
        }
    }

    /// All good, or else the worst.
    #[must_use]
    pub fn of_all(all: impl IntoIterator<Item = Status>) -> Status {
        all.into_iter().fold(Status::Good, |one, other| match (one, other) {
            (Status::Bad, _) | (_, Status::Bad) => Status::Bad,
            (Status::Unknown, _) | (_, Status::Unknown) => Status::Unknown,
            _ => Status::Good,
        })
    }
}

/// The page of everything.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The machine's name.
    pub host: String,
    /// When what it shows was put together.
    pub at: DateTime<Utc>,
    /// The databases.
    pub sources: Vec<SourceView>,
    /// Where their snapshots are.
    pub stores: Vec<StoreView>,
    /// Whether snapshots have pages of their own, to be linked to, and the page is to be loaded again now and then.
    pub served: bool,
}

/// Something that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub name: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was found.
    pub message: String,
}

/// A store.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// Where it is.
    pub location: String,
    /// Whether it answers.
    pub status: Status,
    /// What it holds, or what is wrong.
    pub message: String,
}

/// A database.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// Where it is, without secrets.
    pub place: String,
    /// Whether all is well.
    pub status: Status,
    /// When it was looked at.
    pub looked_at: Option<DateTime<Utc>>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The newest full snapshot.
    pub newest: Option<SnapshotRow>,
    /// The last days.
    pub calendar: Calendar,
    /// Size, rows and duration over time.
    pub plots: Vec<Plot>,
    /// How tables grew, fastest first.
    pub growth: Vec<Growth>,
    /// Between which two snapshots.
    pub growth_span: String,
    /// How long a restore takes, as the newest drill has measured it.
    pub restore: Option<String>,
    /// What the retention plan removes next.
    pub victims: Vec<Victim>,
    /// The newest snapshots.
    pub snapshots: Vec<SnapshotRow>,
    /// How many there are.
    pub total: usize,
    /// How many are still to be read.
    pub unread: usize,
}

/// How a table grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Its name.
    pub table: String,
    /// Its rows then.
    pub before: u64,
    /// Its rows now.
    pub after: u64,
    /// Rows a day, with a sign.
    pub a_day: String,
}

/// A snapshot that will go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its id.
    pub id: String,
    /// When it goes.
    pub when: String,
}

/// A snapshot in a row of a table.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    /// Its id.
    pub id: String,
    /// When it was taken.
    pub at: DateTime<Utc>,
    /// How long ago that was.
    pub age: String,
    /// Its kind, `?` where its manifest cannot be read.
    pub kind: String,
    /// The size of its archive.
    pub size: String,
    /// Its rows.
    pub rows: String,
    /// How long it took.
    pub duration: String,
    /// What its tests showed.
    pub proof: String,
    /// Whether it is one to restore from.
    pub status: Status,
    /// Its tags.
    pub tags: String,
}

/// The page of one snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotPage {
    /// The snapshot.
    pub row: SnapshotRow,
    /// What is to be known of it, in pairs.
    pub facts: Vec<(String, String)>,
    /// The snapshot that its tables are compared with.
    pub compared_with: Option<String>,
    /// Its tables, and those that are gone.
    pub tables: Vec<TableRow>,
    /// Why there are no tables to show.
    pub no_tables: Option<String>,
    /// The commands that restore it, and what each does.
    pub commands: Vec<(String, String)>,
}

/// A table of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// Its name.
    pub name: String,
    /// `same`, `changed`, `added`, `removed`; empty where there is nothing to compare with.
    pub status: String,
    /// Its rows in the snapshot before.
    pub before: String,
    /// Its rows.
    pub rows: String,
    /// How many more or fewer.
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
    /// Whether all is well.
    #[must_use]
    pub fn status(&self) -> Status {
        let sources = self.sources.iter().map(|source| source.status);
        Status::of_all(sources.chain(self.stores.iter().map(|store| store.status)))
    }

    /// The page, whole.
    pub fn html(&self) -> Result<String> {
        rendered(&OverviewHtml { style: STYLE, policy: policy(), status: self.status(), page: self })
    }

    /// The same in short, for the summary of a job.
    pub fn markdown(&self) -> Result<String> {
        rendered(&OverviewMarkdown { status: self.status(), page: self })
    }
}

impl SnapshotPage {
    /// The page, whole.
    pub fn html(&self) -> Result<String> {
        rendered(&SnapshotHtml { style: STYLE, policy: policy(), page: self })
    }
}

/// A page that says one thing.
pub fn message(title: &str, message: &str) -> Result<String> {
    rendered(&MessageHtml { style: STYLE, policy: policy(), title, message })
}

fn rendered(template: &impl Template) -> Result<String> {
    template.render().map_err(|error| Error::failed("the page cannot be written").because(error))
}

/// A time as the templates show it.
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
            place: text.clone(),
            status: Status::Bad,
            looked_at: Some(at),
            findings: vec![Finding { name: text.clone(), ok: false, message: text.clone() }],
            newest: Some(row(HOSTILE)),
            calendar: Calendar::new(at.date_naive(), &[]),
            plots: vec![Plot::new(&text, Unit::Bytes, &[(at, 1.0), (at, 2.0)])],
            growth: vec![Growth { table: text.clone(), before: 1, after: 2, a_day: "+1".to_owned() }],
            growth_span: text.clone(),
            restore: Some(text.clone()),
            victims: vec![Victim { id: text.clone(), when: text.clone() }],
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
            no_tables: Some(HOSTILE.to_owned()),
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
