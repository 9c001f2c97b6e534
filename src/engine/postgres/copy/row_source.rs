//! A table as its rows are read and written: the statements of COPY for all of them, or for some.

use crate::engine::postgres::copy::rows::{Gatherer, RowSum, Spare};
use crate::engine::postgres::schema::data::{Chunked, TableData};
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::timescale::{AGGREGATE, HYPERTABLE, waiting_room};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;
use crate::snapshots::manifest::{Relation, Table};

/// A table to read rows of.
#[derive(Clone, Debug)]
pub struct RowSource {
    /// Schema and name as statements write them.
    pub qualified: String,
    /// The columns to copy, quoted, in the order in which their values are to stand.
    pub columns: Vec<String>,
    /// A condition (`WHERE ...`) on its rows.
    pub condition: Option<String>,
    /// Bytes of rows, TOAST included.
    pub bytes: u64,
    /// Pages of the main fork, where it can be read by ranges of them; else 0.
    pub(in crate::engine::postgres) pages: u64,
    /// Set where its rows are those of chunks.
    pub span: Option<Span>,
    /// Its rows, once they have passed.
    pub sum: RowSum,
}

impl RowSource {
    /// A table as the catalogs tell it.
    #[must_use]
    pub fn of(data: &TableData) -> Self {
        let stored = data.columns.iter().filter(|column| !column.generated);
        RowSource {
            qualified: data.qualified.clone(),
            columns: stored.map(|column| ident(&column.name)).collect(),
            condition: data.extension_condition.clone().flatten(),
            bytes: data.bytes,
            pages: 0,
            span: data.chunked.as_ref().map(Span::of),
            sum: RowSum::default(),
        }
    }

    /// The counterpart of a snapshot's table: what its rows are loaded into.
    #[must_use]
    pub fn like(table: &Table) -> Self {
        let relation = table.relation.as_ref();
        let stored = table.columns.iter().filter(|column| !column.generated);
        let name = |relation: &Relation| match table.kind.as_str() {
            AGGREGATE => qualified(&relation.schema, &waiting_room(&relation.table)),
            _ => qualified(&relation.schema, &relation.table),
        };
        let name = relation.map_or_else(|| table.name.clone(), name);
        let time = relation.and_then(|relation| relation.time.as_deref()).map(ident);
        RowSource {
            span: (table.kind == HYPERTABLE).then(|| Span { relation: name.clone(), time, starts: Vec::new() }),
            qualified: name,
            columns: stored.map(|column| ident(&column.name)).collect(),
            condition: relation.and_then(|relation| relation.condition.clone()),
            bytes: table.bytes.unwrap_or(0),
            pages: 0,
            sum: RowSum::default(),
        }
    }

    /// ` (a, b)` for a COPY; empty for a table without columns to copy, where the statement wants no list.
    #[must_use]
    pub fn column_list(&self) -> String {
        if self.columns.is_empty() { String::new() } else { format!(" ({})", self.columns.join(", ")) }
    }

    /// The COPY that writes into it.
    #[must_use]
    pub fn copy_in(&self) -> String {
        format!("COPY {}{} FROM STDIN", self.qualified, self.column_list())
    }

    /// The COPY that reads its rows, or some of them.
    pub(in crate::engine::postgres) fn copy_out(&self, range: &Range) -> String {
        let condition = match (&self.condition, range) {
            (Some(condition), _) => condition.clone(),
            (_, Range::Pages(first, Some(end))) => format!("WHERE ctid >= '({first},0)' AND ctid < '({end},0)'"),
            (_, Range::Pages(first, None)) => format!("WHERE ctid >= '({first},0)'"),
            (_, Range::Times(from, until)) => self.within(from.as_deref(), until.as_deref()),
            _ if self.span.is_some() => String::new(),
            _ => return format!("COPY {}{} TO STDOUT", self.qualified, self.column_list()),
        };
        format!("COPY (SELECT {} FROM {} {condition}) TO STDOUT", self.columns.join(", "), self.relation())
    }

    /// What a query reads its rows from.
    #[must_use]
    pub fn relation(&self) -> String {
        match &self.span {
            Some(span) => span.relation.clone(),
            None => format!("ONLY {}", self.qualified),
        }
    }

    /// The condition on rows of a time, the end not included; nothing where both ends are open, or it has no time.
    #[must_use]
    pub fn within(&self, from: Option<&str>, until: Option<&str>) -> String {
        let Some(time) = self.span.as_ref().and_then(|span| span.time.as_ref()) else { return String::new() };
        let from = from.map(|from| format!("{time} >= {}", literal(from)));
        let until = until.map(|until| format!("{time} < {}", literal(until)));
        let both: Vec<String> = from.into_iter().chain(until).collect();
        if both.is_empty() { String::new() } else { format!("WHERE {}", both.join(" AND ")) }
    }

    /// Reads and sums its rows on one session.
    pub fn sum(&self, session: &mut Session) -> Result<RowSum> {
        self.sum_within(session, None, None)
    }

    /// The same for its rows of a time, the end not included.
    pub fn sum_within(&self, session: &mut Session, from: Option<&str>, until: Option<&str>) -> Result<RowSum> {
        let range = match (from, until) {
            (None, None) => Range::All,
            (from, until) => Range::Times(from.map(str::to_owned), until.map(str::to_owned)),
        };
        let spare = Spare::default();
        let mut gatherer = Gatherer::new(&spare);
        let (rest, told_rows) = session.copy_out(&self.copy_out(&range), gatherer.buffer(), |buffer| {
            if let Some(piece) = gatherer.gather(buffer) {
                spare.put(piece);
            }
            Ok(())
        })?;
        gatherer.finish(rest, told_rows)?;
        Ok(gatherer.sum)
    }
}

/// What is read by a query over all of its chunks: a COPY of the table itself would find it empty, and say nothing.
#[derive(Clone, Debug)]
pub struct Span {
    /// What the query reads, as statements write it.
    pub relation: String,
    /// The column of time, quoted.
    pub time: Option<String>,
    /// Where it can be cut, with the bytes from there to the next; empty where it cannot.
    pub(in crate::engine::postgres) starts: Vec<(String, u64)>,
}

impl Span {
    /// What a table's rows are read by.
    #[must_use]
    pub fn of(chunked: &Chunked) -> Self {
        let time = chunked.time.as_deref().map(ident);
        let starts = if time.is_some() { chunked.starts.clone() } else { Vec::new() };
        Span { relation: chunked.relation.clone(), time, starts }
    }
}

/// Which rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine::postgres) enum Range {
    /// All.
    #[default]
    All,
    /// Those of pages: the first, and the one after the last; None for an open end.
    Pages(u64, Option<u64>),
    /// Those of a time: from when, and until before when; None for open ends.
    Times(Option<String>, Option<String>),
}
