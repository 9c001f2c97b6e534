//! The traits of a database and of its engine. Each engine implements both; nothing outside this room asks which engine
//! it is.

use std::fmt;
use std::io::Write;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::engine::context::EngineContext;
use crate::engine::live::Live;
use crate::engine::postgres::wire::params::Params;
use crate::engine::restoring::{RestorePlan, RestoreSettings, SavedSnapshot, Without};
use crate::engine::saving::{SaveRequest, Saving};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Result};
use crate::platform::scratch::Scratch;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, Origin, Table};

/// A source or target as the user names it.
#[derive(Clone, Debug)]
pub struct Source(Arc<dyn Database>);

impl Source {
    /// Makes a source of a database.
    #[must_use]
    pub fn new(database: impl Database + 'static) -> Self {
        Source(Arc::new(database))
    }
}

impl Deref for Source {
    type Target = dyn Database;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// The tables of a database and a digest of its schema, to compare it with a snapshot.
pub struct Contents {
    /// The path, or the URL without its password.
    pub name: String,
    /// The tables, with their rows and digests.
    pub tables: Vec<Table>,
    /// The digest of the schema.
    pub schema: Option<RowDigest>,
}

/// A table of a live database, and the table of a snapshot whose rows it should have.
#[derive(Clone, Debug)]
pub struct TablePair {
    /// The name of the live table.
    pub now: String,
    /// The table of the snapshot; `None` if the snapshot has no such table.
    pub before: Option<Table>,
    /// False if only the added rows are wanted. The missing ones take longer if the snapshot has many more rows.
    pub counts_missing: bool,
}

/// The differences between a live table and a table of a snapshot, by the columns that both have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowChanges {
    /// The rows of the snapshot that the live table does not have; the least number if they are not wanted.
    pub missing: u64,
    /// The rows of the live table that the snapshot does not have.
    pub added: u64,
    /// True if `added` counts every difference. Otherwise there may be more: the rows could not be compared one by one, or
    /// the live table has values in columns that the snapshot does not have.
    pub is_exact: bool,
}

/// A mark of the state of a database. Two equal marks of one database mean that nothing was written in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeMark(pub(super) String);

/// A database: a file, or one on a server.
pub trait Database: fmt::Debug + Send + Sync {
    /// Returns the name that manifests have for the engine, such as `sqlite`.
    fn engine(&self) -> &'static str;

    /// Returns the path, or the URL without its password.
    fn shown(&self) -> String;

    /// Returns a source name made from the name of the file or of the database.
    fn derived_name(&self) -> Option<SourceName>;

    /// Returns the place that the database is in, as manifests record it; `host` is the name of this machine.
    fn origin(&self, host: &str) -> Result<Origin>;

    /// Returns the database file, if it is one.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// Returns the parameters of the connection, if it is a PostgreSQL database.
    fn server(&self) -> Option<&Params> {
        None
    }

    /// Returns true if the other database is the same place.
    fn is_same(&self, other: &dyn Database) -> bool;

    /// Returns true if the file does not exist, or if the server answers and does not have the database.
    fn is_absent(&self) -> bool;

    /// Returns true if a database that could not be opened, with this error, is absent or damaged. A file that is not a
    /// database is a damaged one: its header was destroyed, or another file or a folder is in its place. A database that
    /// is locked, that this user may not read, or whose server is down, is neither, and nothing may be restored over it.
    fn is_absent_or_damaged(&self, _error: &Error) -> bool {
        self.is_absent()
    }

    /// Returns true if something is at the place of the database that certainly never was one: a text, a program, or a
    /// folder. The rest of a damaged database is not.
    fn is_of_another_kind(&self) -> bool {
        false
    }

    /// Returns a mark of the current state, which differs after every write, without opening the database. Returns
    /// `None` if the state cannot be recognized, so that it counts as changed.
    fn change_mark(&self) -> Option<ChangeMark> {
        None
    }

    /// Opens the database for inspection, which changes nothing. A file that SQLite cannot read without a change is
    /// copied to `scratch`, and the copy is inspected.
    fn open(&self, scratch: &Scratch) -> Result<Box<dyn Live>>;

    /// Reads all tables, and their digests.
    fn contents(&self, context: &EngineContext) -> Result<Contents>;

    /// Returns what the snapshot needs and the server of the database lacks, each with its kind in words.
    fn missing_for(&self, _manifest: &Manifest) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Compares the rows of tables with those of a snapshot. Returns the changes of each pair. The memory is bounded.
    fn compare_rows(
        &self,
        snapshot: &dyn SavedSnapshot,
        pairs: &[TablePair],
        context: &EngineContext,
    ) -> Result<Vec<RowChanges>>;

    /// Fails if the request has a setting that the engine does not support.
    fn require_supported(&self, _request: &SaveRequest) -> Result<()> {
        Ok(())
    }

    /// Finds the database: its absolute path with links resolved, or a server that answers. Fails if it certainly
    /// cannot be saved.
    fn locate(&self, request: &SaveRequest) -> Result<Source>;

    /// Fixes the state that is saved.
    fn begin_save(&self, request: &SaveRequest, context: &EngineContext) -> Result<Box<dyn Saving>>;

    /// Inspects the target of a restore, and chooses what to do; changes nothing.
    fn plan_restore(
        &self,
        snapshot: Arc<dyn SavedSnapshot>,
        settings: &RestoreSettings,
        context: &EngineContext,
    ) -> Result<Box<dyn RestorePlan>>;

    /// Prepares the place of a database that may be absent, and plans the restore in place that changes the least. For
    /// gates and guards, which cannot ask the user.
    fn plan_restore_in_place(
        &self,
        snapshot: Arc<dyn SavedSnapshot>,
        lock_timeout: u64,
        context: &EngineContext,
    ) -> Result<Box<dyn RestorePlan>>;
}

/// The form of a table that is written out of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFormat {
    /// `CREATE TABLE` and `INSERT` statements.
    Sql,
    /// Comma-separated values with a header.
    Csv,
    /// The output of PostgreSQL's COPY.
    Copy,
}

/// The settings of a drill.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrillSettings {
    /// The server on which the scratch database is created.
    pub to: Option<Source>,
    /// True if the user has named it; it may then be an empty database to drill in.
    pub is_named: bool,
    /// Leave owners and grants out.
    pub no_owner: bool,
    /// The objects of a PostgreSQL snapshot that are left out.
    pub without: Without,
}

/// The result of a drill that was carried out.
pub(crate) enum Drilled {
    /// The restored database is equal to what was saved.
    Equal,
    /// The restored rows differ from those that were saved. This is not damage of the archive, every byte of which was
    /// hashed while it was read.
    Different(Error),
}

/// Opens a snapshot.
pub(crate) type OpenSnapshot<'a> = dyn Fn() -> Result<Box<dyn SavedSnapshot>> + 'a;

/// The database engine of a snapshot.
pub(crate) trait Engine: Sync {
    /// Returns the name that manifests have for it, such as `sqlite`.
    fn name(&self) -> &'static str;

    /// Returns the name of the product, such as `SQLite`.
    fn title(&self) -> &'static str;

    /// Returns the database that a snapshot came from, as far as this machine can reach it; `host` is the name of this
    /// machine.
    fn origin_of(&self, manifest: &Manifest, host: &str) -> Result<Option<Source>>;

    /// Checks that the archive holds exactly the entries that the manifest describes. `entries` has the path and
    /// length of each entry between the first one, which explains the archive, and the last one, the manifest.
    fn check_layout(&self, manifest: &Manifest, entries: &[(&str, u64)]) -> Result<()>;

    /// Computes the digest of the schema of a snapshot again. The digests of earlier versions may have covered more
    /// than those of this one; `None` if they covered the same.
    fn schema_digest(&self, _open: &OpenSnapshot<'_>) -> Result<Option<RowDigest>> {
        Ok(None)
    }

    /// Returns the ways to restore a snapshot, the safest first: the purpose of each, and the words of its `lifeboat`
    /// command. `target` is the database that it came from, as far as this machine can reach it; `target_word` returns
    /// the word for a database in a command.
    fn restore_commands(
        &self,
        manifest: &Manifest,
        target: Option<&Source>,
        target_word: &dyn Fn(&str) -> Result<String>,
    ) -> Result<Vec<(&'static str, Vec<String>)>>;

    /// Restores a snapshot into a scratch file or database, compares everything, and deletes the result.
    fn drill(&self, snapshot: &dyn SavedSnapshot, settings: &DrillSettings, context: &EngineContext)
    -> Result<Drilled>;

    /// Returns the entries of an archive that another program runs, made anew, with their paths: the archive alone must
    /// not decide what they do.
    fn made_anew(&self, _snapshot: &dyn SavedSnapshot) -> Result<Vec<(&'static str, Vec<u8>)>> {
        Ok(Vec::new())
    }

    /// Writes one table of a snapshot to `out`.
    fn write_table(
        &self,
        snapshot: &dyn SavedSnapshot,
        table: &str,
        format: Option<TableFormat>,
        context: &EngineContext,
        out: &mut dyn Write,
    ) -> Result<()>;
}
