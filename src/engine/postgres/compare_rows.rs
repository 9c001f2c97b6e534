//! Compares the rows of a live database with those of a snapshot: the rows that only one of them has.
//!
//! The rows of both are hashed as they are read, in the text format of COPY. The hashes are divided into files by their
//! first bits, and compared file by file, so that the memory is a small part of the number of rows.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};

use crate::engine::context::EngineContext;
use crate::engine::database::{RowChanges, TablePair};
use crate::engine::postgres::copy::selection::{Pattern, Selection};
use crate::engine::postgres::copy::snapshot::{Snapshot, SnapshotOptions};
use crate::engine::postgres::layout;
use crate::engine::postgres::save::{options_of, table_of};
use crate::engine::postgres::wire::params::Params;
use crate::engine::restoring::SavedSnapshot;
use crate::engine::saving::SaveRequest;
use crate::platform::digest::RowDigest;
use crate::platform::disk::create_file;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{IoContext, Kind, Result};
use crate::platform::scratch::ScratchFolder;
use crate::snapshots::manifest::Table;

/// The number of files for the hashes of each side.
const PARTS: usize = 64;
/// The bytes of one record: the number of the pair, and the hash of a row.
const RECORD_BYTES: usize = 4 + 16;

/// Compares pairs of tables. A pair whose columns have changed is compared by its numbers of rows only.
pub(super) fn compare(
    params: &Params,
    snapshot: &dyn SavedSnapshot,
    pairs: &[TablePair],
    context: &EngineContext,
) -> Result<Vec<RowChanges>> {
    let tables = pairs.iter().map(|pair| Pattern::exact(&pair.now)).collect();
    let selection = Selection { tables, without_large_objects: true, ..Selection::default() };
    let options = options_of(params, &SaveRequest::default(), context.jobs);
    let mut live = Snapshot::begin(params, &SnapshotOptions { selection, allow_partial: true, ..options })?;
    let numbers: HashMap<&str, usize> = pairs.iter().enumerate().map(|(at, pair)| (pair.now.as_str(), at)).collect();
    let of_table: Vec<Option<usize>> =
        live.tables.iter().map(|table| numbers.get(table.qualified.as_str()).copied()).collect();
    let scratch = context.scratch.folder(0)?;
    let mut now = Parts::create(&scratch, "now")?;
    live.read_rows(&mut |piece| match of_table.get(piece.table).copied().flatten() {
        Some(number) => now.add_rows(number, &piece.rows).map(drop),
        None => Ok(()),
    })?;
    let mut rows_now = vec![0; pairs.len()];
    let mut is_comparable = vec![false; pairs.len()];
    for ((table, rows), number) in live.tables.iter().zip(&live.rows).zip(&of_table) {
        let Some(number) = *number else { continue };
        rows_now[number] = rows.sum.rows;
        let before = pairs[number].before.as_ref();
        is_comparable[number] = before.is_some_and(|before| have_same_columns(before, &table_of(table, &rows.sum)));
    }
    drop(live);
    let mut before =
        Before { folders: Vec::new(), parts: Parts::create(&scratch, "before")?, current: None, rest: Vec::new() };
    for (number, pair) in pairs.iter().enumerate().filter(|(number, _)| is_comparable[*number]) {
        let relation = pair.before.as_ref().and_then(|table| table.relation.as_ref());
        before
            .folders
            .extend(relation.map(|relation| (layout::table_folder(&relation.schema, &relation.table), number)));
    }
    let folders: Vec<String> = before.folders.iter().map(|(folder, _)| folder.clone()).collect();
    snapshot.read_some(&|path| folders.iter().any(|folder| path.starts_with(folder)), &mut before)?;
    let mut changes = count_changes(now, before.parts, pairs.len())?;
    for (number, pair) in pairs.iter().enumerate().filter(|(number, _)| !is_comparable[*number]) {
        let was = pair.before.as_ref().and_then(|table| table.rows).unwrap_or_default();
        let (missing, added) = (was.saturating_sub(rows_now[number]), rows_now[number].saturating_sub(was));
        changes[number] = RowChanges { missing, added, is_exact: pair.before.is_none() };
    }
    Ok(changes)
}

/// Returns true if the rows of two tables have the same form.
fn have_same_columns(one: &Table, other: &Table) -> bool {
    let columns = |table: &Table| -> Vec<(String, String)> {
        let own = table.columns.iter().filter(|column| !column.generated);
        own.map(|column| (column.name.clone(), column.declared.clone())).collect()
    };
    columns(one) == columns(other)
}

/// The hashes of the rows of one side, in files.
struct Parts {
    files: Vec<(std::path::PathBuf, BufWriter<File>)>,
}

impl Parts {
    fn create(scratch: &ScratchFolder, name: &str) -> Result<Self> {
        let create = |number: usize| {
            let path = scratch.path(format!("{name}-{number}"));
            let file = create_file(&path)?;
            Ok((path, BufWriter::new(file)))
        };
        Ok(Parts { files: (0..PARTS).map(create).collect::<Result<_>>()? })
    }

    /// Adds the hashes of whole rows. Returns the text after the last line break.
    fn add_rows<'a>(&mut self, pair: usize, mut text: &'a [u8]) -> Result<&'a [u8]> {
        let pair = u32::try_from(pair).expect("fewer tables than 2^32").to_le_bytes();
        while let Some(end) = memchr::memchr(b'\n', text) {
            let mut digest = RowDigest::default();
            digest.add(&text[..end]);
            let part = usize::try_from(digest.0 % PARTS as u128).expect("a small number");
            let written = self.files[part]
                .1
                .write_all(&pair)
                .and_then(|()| self.files[part].1.write_all(&digest.0.to_le_bytes()));
            written.io(Kind::Failed, || "cannot write to the scratch folder".to_owned())?;
            text = &text[end + 1..];
        }
        Ok(text)
    }

    /// Returns the sorted records of each part, one part after the other.
    fn into_sorted(self) -> impl Iterator<Item = Result<Vec<[u8; RECORD_BYTES]>>> {
        self.files.into_iter().map(|(path, mut file)| {
            let read = file.flush().and_then(|()| std::fs::read(&path));
            let bytes = read.io(Kind::Failed, || "cannot read from the scratch folder".to_owned())?;
            let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
            let mut records = records.to_vec();
            records.sort_unstable();
            Ok(records)
        })
    }
}

/// Counts the records that only one side has.
fn count_changes(now: Parts, before: Parts, pairs: usize) -> Result<Vec<RowChanges>> {
    let mut changes = vec![RowChanges { is_exact: true, ..RowChanges::default() }; pairs];
    let pair_of =
        |record: &[u8; RECORD_BYTES]| u32::from_le_bytes([record[0], record[1], record[2], record[3]]) as usize;
    for (now, before) in now.into_sorted().zip(before.into_sorted()) {
        let (now, before) = (now?, before?);
        let (mut now, mut before) = (now.iter().peekable(), before.iter().peekable());
        loop {
            match (now.peek(), before.peek()) {
                (None, None) => break,
                (Some(one), Some(other)) if one == other => {
                    now.next();
                    before.next();
                }
                (Some(one), other) if other.is_none_or(|other| one < other) => {
                    changes[pair_of(one)].added += 1;
                    now.next();
                }
                (_, Some(other)) => {
                    changes[pair_of(other)].missing += 1;
                    before.next();
                }
                (Some(_), None) => unreachable!("handled above"),
            }
        }
    }
    Ok(changes)
}

/// Reads the rows of the snapshot.
struct Before {
    /// The folders of the tables, each with the number of its pair.
    folders: Vec<(String, usize)>,
    parts: Parts,
    /// The pair whose rows are read.
    current: Option<usize>,
    /// The beginning of a row whose end has not arrived yet.
    rest: Vec<u8>,
}

impl EntryVisitor for Before {
    fn start(&mut self, path: &str, _: u64) -> Result<()> {
        self.current = self.folders.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, number)| *number);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(number) = self.current else { return Ok(()) };
        self.rest.extend_from_slice(bytes);
        let received = std::mem::take(&mut self.rest);
        let rest = self.parts.add_rows(number, &received)?;
        self.rest.extend_from_slice(rest);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}
