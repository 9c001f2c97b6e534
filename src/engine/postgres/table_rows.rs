//! Writes the rows of one table out of a snapshot.

use std::io::Write;

use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::copy::selection::Pattern;
use crate::engine::postgres::layout;
use crate::engine::restoring::SavedSnapshot;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, Result, one_line};

/// Writes one table's rows as they were saved. Only the blocks of that table are read.
pub(super) fn write(snapshot: &dyn SavedSnapshot, name: &str, out: &mut dyn Write) -> Result<()> {
    let manifest = snapshot.manifest();
    let (id, pattern) = (&manifest.id, Pattern::new(name));
    let tables = manifest.tables.iter().filter_map(|table| Some((table, table.relation.as_ref()?)));
    let found: Vec<_> =
        tables.filter(|(table, relation)| pattern.matches(&relation.schema, &relation.table, &table.name)).collect();
    let (table, relation) = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(Error::usage(format!("the snapshot {id} has no table {}", one_line(name)))
                .hint(format!("'lifeboat show {id}' lists its tables")));
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(table, _)| table.name.as_str()).collect();
            return Err(Error::usage(format!("{} is the name of several tables", one_line(name)))
                .hint(format!("name one of them: {}", one_line(&names.join(", ")))));
        }
    };
    let folder = layout::table_folder(&relation.schema, &relation.table);
    let mut rows = TableRows { out, sum: RowSum::default(), rest: Vec::new() };
    snapshot.read_some(&|path| path.starts_with(&folder), &mut rows)?;
    let sum = rows.sum;
    if table.rows != Some(sum.rows) || table.digest != Some(sum.digest) {
        return Err(Error::problem(format!("the rows of {} differ from those that were saved", one_line(&table.name)))
            .context(format!("the snapshot {id} is damaged")));
    }
    Ok(())
}

/// Writes rows as they arrive, and computes their count and digest.
struct TableRows<'a> {
    out: &'a mut dyn Write,
    sum: RowSum,
    /// The beginning of a row whose end has not arrived yet.
    rest: Vec<u8>,
}

impl EntryVisitor for TableRows<'_> {
    fn start(&mut self, _: &str, _: u64) -> Result<()> {
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let received = std::mem::take(&mut self.rest);
        self.rest.extend_from_slice(self.sum.add(&received));
        Ok(self.out.write_all(bytes)?)
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}
