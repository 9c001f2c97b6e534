//! A table whose rows are read or written: the COPY statements for all of its rows, or for some.

use std::collections::HashMap;

use crate::engine::postgres::copy::rows::{BufferPool, Columns, Gatherer, RowSum};
use crate::engine::postgres::schema::data::{Chunked, TableData};
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::timescale::{AGGREGATE, HYPERTABLE, aggregate_rows_table};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;
use crate::snapshots::manifest::{Relation, Table};

/// A table to read rows from, or to load rows into.
#[derive(Clone, Debug)]
pub(crate) struct RowSource {
    /// Schema and name, quoted for statements.
    pub qualified: String,
    /// The columns to copy, quoted, in the order of their values.
    pub columns: Vec<String>,
    /// The stored generated columns whose values are read too, quoted. They are part of a digest, and are never loaded.
    pub generated: Vec<String>,
    /// A condition (`WHERE ...`) on the rows.
    pub condition: Option<String>,
    /// The size of the rows in bytes, TOAST included.
    pub bytes: u64,
    /// The number of pages of the main fork if the table can be read by page ranges, else 0.
    pub(in crate::engine::postgres) pages: u64,
    /// Set if the rows are stored in chunks.
    pub span: Option<Span>,
    /// The sum of the rows, once they have been read.
    pub sum: RowSum,
    /// Set if the rows are loaded with the rights of the table's owner.
    pub owned: Option<Owned>,
}

/// A table with code of its owner, which is run when rows are loaded.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    /// The role.
    pub owner: String,
    /// The quoted name of the table, without its schema.
    pub name: String,
    /// The columns that are loaded, with types that have no code, as in `CREATE TABLE`.
    pub definitions: String,
    /// The types of the columns that are loaded as text, by the quoted names of the columns.
    pub casts: HashMap<String, String>,
    /// The `search_path` for the code, if it is not the safe one.
    pub path: Option<String>,
}

impl RowSource {
    /// Returns the source for a table as the catalogs describe it.
    #[must_use]
    pub(crate) fn of(data: &TableData) -> Self {
        let stored = data.columns.iter().filter(|column| !column.generated);
        RowSource {
            qualified: data.qualified.clone(),
            columns: stored.map(|column| ident(&column.name)).collect(),
            generated: data.columns.iter().filter(|column| column.stored).map(|column| ident(&column.name)).collect(),
            condition: data.extension_condition.clone().flatten(),
            bytes: data.bytes,
            pages: 0,
            span: data.chunked.as_ref().map(Span::of),
            sum: RowSum::default(),
            owned: None,
        }
    }

    /// Returns the counterpart of a snapshot's table: the table that its rows are loaded into.
    #[must_use]
    pub(crate) fn like(table: &Table) -> Self {
        let relation = table.relation.as_ref();
        let stored = table.columns.iter().filter(|column| !column.generated);
        let name = |relation: &Relation| match table.kind.as_str() {
            AGGREGATE => qualified(&relation.schema, &aggregate_rows_table(&relation.table)),
            _ => qualified(&relation.schema, &relation.table),
        };
        let name = relation.map_or_else(|| table.name.clone(), name);
        let time = relation.and_then(|relation| relation.time.as_deref()).map(ident);
        RowSource {
            span: (table.kind == HYPERTABLE).then(|| Span { relation: name.clone(), time, starts: Vec::new() }),
            qualified: name,
            columns: stored.map(|column| ident(&column.name)).collect(),
            generated: Vec::new(),
            condition: relation.and_then(|relation| relation.condition.clone()),
            bytes: table.bytes.unwrap_or(0),
            pages: 0,
            sum: RowSum::default(),
            owned: None,
        }
    }

    /// Reads the generated columns too that the digest of a snapshot's table covers.
    #[must_use]
    pub(crate) fn with_generated(mut self, table: &Table) -> Self {
        let covered = table.with_generated.iter().flat_map(|digest| &digest.columns);
        self.generated = covered.map(|column| ident(column)).collect();
        self
    }

    /// Returns the numbers of columns of the rows that are read.
    pub(in crate::engine::postgres) fn counts(&self) -> Columns {
        Columns { kept: self.columns.len(), generated: self.generated.len() }
    }

    /// Returns ` (a, b)` for a COPY. It is empty for a table without columns to copy, because the statement then takes
    /// no list.
    #[must_use]
    pub(crate) fn column_list(&self) -> String {
        if self.columns.is_empty() { String::new() } else { format!(" ({})", self.columns.join(", ")) }
    }

    /// Returns the COPY that writes into the table.
    #[must_use]
    pub(crate) fn copy_in(&self) -> String {
        format!("COPY {}{} FROM STDIN", self.qualified, self.column_list())
    }

    /// Returns the COPY that reads the rows of a range.
    pub(in crate::engine::postgres) fn copy_out(&self, range: &Range) -> String {
        let condition = match (&self.condition, range) {
            (Some(condition), _) => condition.clone(),
            (_, Range::Pages(first, Some(end))) => format!("WHERE ctid >= '({first},0)' AND ctid < '({end},0)'"),
            (_, Range::Pages(first, None)) => format!("WHERE ctid >= '({first},0)'"),
            (_, Range::Times(from, until)) => self.within(from.as_deref(), until.as_deref()),
            _ if self.span.is_some() || !self.generated.is_empty() => String::new(),
            _ => return format!("COPY {}{} TO STDOUT", self.qualified, self.column_list()),
        };
        let columns: Vec<&str> = self.columns.iter().chain(&self.generated).map(String::as_str).collect();
        format!("COPY (SELECT {} FROM {} {condition}) TO STDOUT", columns.join(", "), self.relation())
    }

    /// Returns the relation that a query reads the rows from.
    #[must_use]
    pub(crate) fn relation(&self) -> String {
        match &self.span {
            Some(span) => span.relation.clone(),
            None => format!("ONLY {}", self.qualified),
        }
    }

    /// Returns the condition for rows in a time range, whose end is not included. It is empty if both ends are open or
    /// the table has no time column.
    #[must_use]
    pub(crate) fn within(&self, from: Option<&str>, until: Option<&str>) -> String {
        let Some(time) = self.span.as_ref().and_then(|span| span.time.as_ref()) else { return String::new() };
        let from = from.map(|from| format!("{time} >= {}", literal(from)));
        let until = until.map(|until| format!("{time} < {}", literal(until)));
        let both: Vec<String> = from.into_iter().chain(until).collect();
        if both.is_empty() { String::new() } else { format!("WHERE {}", both.join(" AND ")) }
    }

    /// Reads the rows on one session, and returns their sum.
    pub(crate) fn sum(&self, session: &mut Session) -> Result<RowSum> {
        self.sum_within(session, None, None)
    }

    /// Reads and sums the rows in a time range, whose end is not included.
    pub(crate) fn sum_within(&self, session: &mut Session, from: Option<&str>, until: Option<&str>) -> Result<RowSum> {
        let range = match (from, until) {
            (None, None) => Range::All,
            (from, until) => Range::Times(from.map(str::to_owned), until.map(str::to_owned)),
        };
        let pool = BufferPool::default();
        let mut gatherer = Gatherer::new(&pool, self.counts());
        let (rest, reported_rows) = session.copy_out(&self.copy_out(&range), gatherer.buffer(), |buffer| {
            if let Some(piece) = gatherer.gather(buffer) {
                pool.put(piece);
            }
            Ok(())
        })?;
        gatherer.finish(rest, reported_rows)?;
        Ok(gatherer.sum)
    }
}

/// The source of rows that are read by a query over all chunks: a COPY of the table itself would return no rows and no
/// error.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The relation that the query reads, quoted for statements.
    pub relation: String,
    /// The time column, quoted.
    pub time: Option<String>,
    /// The times at which the table can be divided, each with the bytes up to the next; empty if it cannot be divided.
    pub(in crate::engine::postgres) starts: Vec<(String, u64)>,
}

impl Span {
    /// Returns the source for the rows of a table with chunks.
    #[must_use]
    pub(crate) fn of(chunked: &Chunked) -> Self {
        let time = chunked.time.as_deref().map(ident);
        let starts = if time.is_some() { chunked.starts.clone() } else { Vec::new() };
        Span { relation: chunked.relation.clone(), time, starts }
    }
}

/// A range of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine::postgres) enum Range {
    /// All rows.
    #[default]
    All,
    /// The rows in a range of pages: the first page, and the page after the last; `None` for an open end.
    Pages(u64, Option<u64>),
    /// The rows in a time range: the start, and the end, which is not included; `None` for open ends.
    Times(Option<String>, Option<String>),
}
