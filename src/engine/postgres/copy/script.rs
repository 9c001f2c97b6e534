//! Writes the psql script that loads an extracted archive by hand.

use crate::engine::postgres::copy::large_objects::{CREATE_LOADING_TABLE, LOADING_TABLE, PUT_LOADED};
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::wire::settings;
use crate::platform::error::one_line;

/// Builds `restore.sql` while the pieces are extracted.
pub(crate) struct Script {
    text: String,
    has_large_objects: bool,
}

impl Script {
    /// Starts the script for the snapshot `id` of a database with this encoding; the script first runs the file
    /// `pre_data`.
    #[must_use]
    pub(crate) fn new(id: &str, encoding: &str, pre_data: &str) -> Self {
        let text = format!(
            "-- Loads the snapshot {} into an empty database:\n\
             --\n\
             --   createdb --template template0 NEW && psql -d NEW -f restore.sql\n\
             --\n\
             -- Run it in the folder that the archive was extracted to. It stops at the first error.\n\
             \\set ON_ERROR_STOP on\n\
             \\encoding UTF8\n\
             \\ir {pre_data}\n\
             {}",
            one_line(id),
            settings::script(encoding),
        );
        Script { text, has_large_objects: false }
    }

    /// Adds the command that loads the piece at `path` into a table.
    pub(crate) fn copy(&mut self, table: &RowSource, path: &str) {
        let path = path.replace('\'', "''");
        let (name, columns) = (&table.qualified, table.column_list());
        if !format!("{name}{columns}").contains(['\n', '\r']) {
            self.text.push_str(&format!("\\copy {name}{columns} FROM '{path}'\n"));
            return;
        }
        // A psql command ends at the end of its line, and these names contain a line break.
        let names = table.columns.join(", ");
        self.text.push_str(&format!(
            "CREATE TEMPORARY TABLE lifeboat_rows AS SELECT {names} FROM ONLY {name} WITH NO DATA;\n\
             \\copy pg_temp.lifeboat_rows FROM '{path}'\n\
             INSERT INTO {name} ({names}) OVERRIDING SYSTEM VALUE SELECT * FROM pg_temp.lifeboat_rows;\n\
             DROP TABLE pg_temp.lifeboat_rows;\n"
        ));
    }

    /// Adds the command that loads the piece at `path` of large objects' content.
    pub(crate) fn large_objects(&mut self, path: &str) {
        if !self.has_large_objects {
            self.text.push_str(&format!("{CREATE_LOADING_TABLE};\n"));
            self.has_large_objects = true;
        }
        self.text.push_str(&format!(
            "\\copy {LOADING_TABLE} FROM '{path}'\n{PUT_LOADED} \\g /dev/null\nTRUNCATE {LOADING_TABLE};\n"
        ));
    }

    /// Ends the script with commands that run these files.
    #[must_use]
    pub(crate) fn finish(mut self, files: &[&str]) -> String {
        for file in files {
            self.text.push_str(&format!("\\ir {file}\n"));
        }
        self.text.push_str("\\echo 'All data was loaded.'\n");
        self.text
    }
}
