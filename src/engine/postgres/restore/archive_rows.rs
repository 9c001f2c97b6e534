//! Reads the rows of tables, and large objects, out of an archive, in pieces that can be loaded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::engine::postgres::copy::load::Load;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::PIECE_BYTES;
use crate::engine::postgres::layout;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, Result};
use crate::platform::progress::Progress;
use crate::snapshots::manifest::Table;

/// Returns the folder of an entry, with a slash at its end.
pub(super) fn folder_of(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(folder, _)| format!("{folder}/"))
}

/// Visits the entries of an archive and passes whole pieces of rows to `load`, which returns true if it accepts more.
pub(super) struct Rows<'a, F> {
    folders: HashMap<String, Arc<RowSource>>,
    progress: &'a dyn Progress,
    load: F,
    piece: Option<Vec<u8>>,
    current: Option<Arc<RowSource>>,
    with_large_objects: bool,
    /// True once `load` accepts no more.
    pub(super) stopped: bool,
}

impl<'a, F: FnMut(Load) -> Result<bool>> Rows<'a, F> {
    pub(super) fn new(sinks: &[(&Table, &RowSource)], progress: &'a dyn Progress, load: F) -> Self {
        let folder = |table: &Table| {
            table.relation.as_ref().map(|relation| layout::table_folder(&relation.schema, &relation.table))
        };
        let folders = sinks.iter().filter_map(|(table, copy)| Some((folder(table)?, Arc::new((*copy).clone()))));
        let folders = folders.collect();
        Rows { folders, progress, load, piece: None, current: None, with_large_objects: true, stopped: false }
    }

    /// Returns the folders of the entries whose rows are loaded.
    pub(super) fn folders(&self) -> HashSet<String> {
        self.folders.keys().cloned().collect()
    }
}

impl<F: FnMut(Load) -> Result<bool>> EntryVisitor for Rows<'_, F> {
    fn start(&mut self, path: &str, bytes: u64) -> Result<()> {
        self.current = folder_of(path).as_ref().and_then(|folder| self.folders.get(folder).cloned());
        let is_large = self.with_large_objects && path.starts_with(layout::LARGE_OBJECTS);
        let bytes = usize::try_from(bytes).map_err(|_| Error::problem("an entry is larger than memory"))?;
        self.piece = (self.current.is_some() || is_large).then(|| Vec::with_capacity(bytes.min(2 * PIECE_BYTES)));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(piece) = &mut self.piece {
            piece.extend_from_slice(bytes);
            self.progress.advance(bytes.len() as u64);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(rows) = self.piece.take() else { return Ok(()) };
        let work = match self.current.take() {
            Some(table) => Load::Rows { table, rows },
            None => Load::LargeObjects(rows),
        };
        if (self.load)(work)? {
            return Ok(());
        }
        self.stopped = true;
        Err(Error::failed("the server accepts no more rows"))
    }
}
