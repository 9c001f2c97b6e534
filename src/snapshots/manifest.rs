//! The manifest: the JSON document that describes a snapshot. In a store, a snapshot exists once its manifest exists.
//!
//! The manifest inside the archive is written before the archive is finished; the one outside repeats
//! it and adds `archive_bytes`, `sha256` and `index_sha256`. Readers ignore unknown fields.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::{FORMAT, check_version};
use crate::platform::digest::{RowDigest, Sha256};
use crate::platform::error::{Error, Result};
use crate::platform::file_birth::FileBirth;
use crate::platform::json;
use crate::snapshots::id::{SnapshotId, SourceName};

/// The kind of a snapshot: its content and its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// The whole source. Only full snapshots can be `latest`, and only they count for retention.
    Full,
    /// A selection of the source.
    Partial,
    /// The data that a restore overwrites, saved before the restore.
    Safety,
    /// The data that could be saved from a damaged source, for forensics.
    Damaged,
}

impl SnapshotKind {
    /// Returns its name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SnapshotKind::Full => "full",
            SnapshotKind::Partial => "partial",
            SnapshotKind::Safety => "safety",
            SnapshotKind::Damaged => "damaged",
        }
    }
}

/// The location of a source, without secrets. Two sources are the same exactly if their origins are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The machine's name.
    pub host: String,
    /// The absolute path of a database file, links resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port of a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name of a server's database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |text: &Option<String>| crate::platform::error::one_line(text.as_deref().unwrap_or(""));
        match self.port {
            Some(port) => write!(f, "{}:{port}/{}", self.host, shown(&self.database)),
            None => write!(f, "{}:{}", self.host, shown(&self.path)),
        }
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its declared type; empty if none was declared.
    #[serde(rename = "type")]
    pub declared: String,
    /// True for a generated column: its values are not part of [`Table::digest`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// True for a `NOT NULL` column (PostgreSQL).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
}

/// One table: its columns, and the number and digest of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name; for PostgreSQL `schema.table`, each part quoted if SQL requires it.
    pub name: String,
    /// Schema and table, unquoted (PostgreSQL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// The number of rows; `None` if the table cannot be read (see `reason`).
    pub rows: Option<u64>,
    /// The bytes of the values: 8 for a number, the length for a text or blob.
    pub bytes: Option<u64>,
    /// The order-independent digest of the rows (see [`crate::platform::digest`]).
    pub digest: Option<RowDigest>,
    /// The digest of the rows with the values of stored generated columns (PostgreSQL). Snapshots of earlier versions do not
    /// have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_generated: Option<GeneratedDigest>,
    /// The reason why there is no digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `table`, `virtual` or `shadow`; for TimescaleDB also `hypertable`, or `continuous aggregate` for its
    /// materialized rows.
    #[serde(rename = "type")]
    pub kind: String,
    /// The table or view whose rows a full-text index shows: its option `content`. Such an index keeps no rows of its
    /// own. Snapshots of earlier versions do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The columns, in order.
    pub columns: Vec<Column>,
}

/// The schema of the notes that `migrate` makes in its target.
pub const MIGRATION_NOTES: &str = "lifeboat_migrate";

/// Returns true if a table, named with its schema, holds the notes that `migrate` makes in its target. They come with a
/// migration and go with its rollback, so no comparison takes them for data.
#[must_use]
pub fn is_migration_note(name: &str) -> bool {
    name.starts_with("lifeboat_migrate.") || name.starts_with("\"lifeboat_migrate\".")
}

impl Table {
    /// Returns a table of which only its name and the number of its rows are known.
    pub(super) fn with_rows(name: &str, rows: u64) -> Self {
        Table {
            name: name.to_owned(),
            relation: None,
            rows: Some(rows),
            bytes: None,
            digest: None,
            with_generated: None,
            reason: None,
            kind: "table".to_owned(),
            content: None,
            columns: Vec::new(),
        }
    }

    /// Returns true if it is a user's table: not the storage of another table, not an internal table of SQLite, no note
    /// of a migration, and not rows computed from others. [`crate::snapshots::row_counts::RowCounts`] says which of them keep rows.
    #[must_use]
    pub fn is_of_user(&self) -> bool {
        let is_kept = matches!(self.kind.as_str(), "table" | "hypertable" | "virtual");
        is_kept && !self.name.starts_with("sqlite_") && !is_migration_note(&self.name)
    }

    /// Returns true if the rows are known to be those of another version of the table. The digest of a full-text index
    /// that stores no content covers no values, so its rows are not known.
    #[must_use]
    pub fn has_same_rows(&self, other: &Table) -> bool {
        let is_covered = self.kind != "virtual" || self.rows == Some(0) || self.bytes.is_none_or(|bytes| bytes > 0);
        self.digest.is_some() && self.digest == other.digest && is_covered && !self.has_other_generated_values(other)
    }

    /// Returns true if the values of generated columns are known to differ: both digests are there, and cover the same
    /// columns.
    #[must_use]
    pub fn has_other_generated_values(&self, other: &Table) -> bool {
        match (&self.with_generated, &other.with_generated) {
            (Some(one), Some(other)) => one.columns == other.columns && one.digest != other.digest,
            _ => false,
        }
    }
}

/// The digest of the rows of a table with the values of generated columns, which an archive does not contain: the server
/// computes them again when rows are loaded, and may compute others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedDigest {
    /// The generated columns whose values are covered. In each row, they follow the columns that are not generated.
    pub columns: Vec<String>,
    /// The order-independent digest of these rows.
    pub digest: RowDigest,
}

/// Returns the tables by their names. For searches: a database can have tens of thousands of tables.
#[must_use]
pub fn by_name(tables: &[Table]) -> HashMap<&str, &Table> {
    tables.iter().map(|table| (table.name.as_str(), table)).collect()
}

/// A table of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relation {
    /// The schema's name, unquoted.
    pub schema: String,
    /// The table's name, unquoted.
    pub table: String,
    /// The condition on the rows of an extension's configuration table: only they are saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The column by which a restore can select the rows of a time range (TimescaleDB), unquoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Rows that refer to a missing parent row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanRows {
    /// The table that holds them.
    pub table: String,
    /// The table that they refer to.
    pub parent: String,
    /// The id of the foreign key in SQLite's `foreign_key_list`.
    pub key: i64,
    /// The number of rows.
    pub rows: u64,
}

/// The kind of SQLite integrity check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// Checks all pages and all rows, but not that every index agrees with its table.
    #[default]
    #[serde(rename = "quick_check")]
    Quick,
    /// Also checks the indexes.
    #[serde(rename = "integrity_check")]
    Full,
}

/// The results of SQLite's own checks of the image when it was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The integrity check that was run.
    pub check: Depth,
    /// The report of the integrity check, at most [`Health::MAX_FAULTS`] lines; empty if it was `ok`.
    pub integrity: Vec<String>,
    /// The report of `foreign_key_check`, summed per key.
    pub orphans: Vec<OrphanRows>,
    /// The parts that were not checked, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
}

impl Health {
    /// The maximum number of lines of the integrity check that are kept.
    pub const MAX_FAULTS: usize = 100;
}

/// The owner of a database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOwner {
    /// The number of the user.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
}

/// The facts that only an SQLite snapshot has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqliteFacts {
    /// The path of the archive's entry that holds the database's image.
    pub image: String,
    /// `wal`, or the rollback mode `delete`.
    pub journal_mode: String,
    /// The page size in bytes.
    pub page_bytes: u64,
    /// The number of pages in the image.
    pub pages: u64,
    /// The text encoding, as `PRAGMA encoding` reports it.
    pub encoding: String,
    /// `PRAGMA user_version`.
    pub user_version: i64,
    /// `PRAGMA application_id`.
    pub application_id: i64,
    /// The digest of `sqlite_schema` (type, name, table, SQL), to check whether two schemas are the same.
    pub schema_digest: Option<RowDigest>,
    /// The names of the views. Snapshots of earlier versions do not list them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
    /// The permission bits of the file.
    pub file_mode: u32,
    /// The owner of the file. Snapshots of earlier versions do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_owner: Option<FileOwner>,
    /// The identity of the file. Snapshots of earlier versions do not have it, nor those of files on a file system that does
    /// not record when they were created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_birth: Option<FileBirth>,
    /// The extended attributes of the file in hexadecimal: its access control list, its SELinux context, and those that
    /// users have set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub file_attributes: BTreeMap<String, String>,
    /// The seconds for which writers were locked out (rollback-journal mode); 0 in WAL mode.
    pub locked_seconds: f64,
    /// The bytes by which the WAL grew while it could not be reset.
    pub wal_growth_bytes: u64,
    /// The results of SQLite's checks at the time of the snapshot; `None` for a raw copy of a file that SQLite cannot
    /// open.
    pub health: Option<Health>,
}

/// The parameters for `CREATE DATABASE` to create a database like the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// The name of its encoding.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// The locale of a provider other than libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The ICU rules of the locale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// Its total size in bytes, as the server reports it; 0 if the server does not report it.
    pub bytes: u64,
}

/// An extension that must be installed on the server that a schema is restored to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The version installed in the source.
    pub version: String,
    /// The schema that its objects are in.
    pub schema: String,
}

/// A role, without its password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleFacts {
    /// Its name.
    pub name: String,
    /// The attributes that a new role does not have: `LOGIN`, `SUPERUSER`, `CREATEDB` and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// True if it has the privileges of the roles that it is a member of.
    pub inherits: bool,
    /// The most connections that it may open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    /// The time until which its password is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Its settings in all databases, each as `name=value`. They may be secrets: only the archive has them.
    #[serde(skip)]
    pub settings: Vec<String>,
    /// The other roles of the snapshot that it is a member of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<Membership>,
}

/// The membership of a role in another role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The role that it is a member of.
    pub role: String,
    /// True if it may make others members.
    pub admin: bool,
    /// True if it has that role's privileges at once. Servers before version 16 have no such option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherit: Option<bool>,
    /// True if it may act as that role. Servers before version 16 have no such option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<bool>,
}

/// The state of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValue {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// The last value returned, or the first to be returned (see `is_called`).
    pub last_value: i64,
    /// True if `last_value` was already returned.
    pub is_called: bool,
    /// The difference between one value and the next.
    pub increment: i64,
    /// The table whose column owns it, as [`Table::name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// The large objects of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjectFacts {
    /// The number of large objects.
    pub count: u64,
    /// The number of chunk rows that hold them.
    pub rows: u64,
    /// The digest of those rows.
    pub digest: RowDigest,
}

/// The facts that only a PostgreSQL snapshot has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// The server's version as a number: 150004 for 15.4.
    pub version_num: u32,
    /// The host or the socket's folder through which the machine that took the snapshot connected.
    pub reached_by: String,
    /// The role that logged in to read it.
    pub role: String,
    /// The database.
    pub database: DatabaseFacts,
    /// The extensions installed in it.
    pub extensions: Vec<Extension>,
    /// The roles that owners, grants and policies name.
    pub roles: Vec<String>,
    /// The definitions of those roles, without the roles of the server itself. Older manifests have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub role_definitions: Vec<RoleFacts>,
    /// The tablespaces that tables and indexes are stored in, apart from the database's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<String>,
    /// The digest of the statements that create the schema, to check whether two schemas are the same.
    pub schema_digest: RowDigest,
    /// The large objects.
    pub large_objects: LargeObjectFacts,
    /// The states of the sequences.
    pub sequences: Vec<SequenceValue>,
    /// The objects left out: by a selection, or because they could not be saved and this was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The objects left out because they belong to the provider of the server, if the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderFacts>,
    /// Notes about the restored database, such as secrets that must be set again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The objects of a provider, which a snapshot does not contain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFacts {
    /// The provider, as the config names it.
    pub name: String,
    /// The schemas that were left out.
    pub schemas: Vec<String>,
    /// The objects in these schemas that users may have created, such as triggers and policies, and all event triggers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// The tables in these schemas that may have rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables_with_rows: Vec<String>,
}

impl ProviderFacts {
    /// Describes what was left out, in one line.
    #[must_use]
    pub fn shown(&self) -> String {
        let schemas =
            if self.schemas.is_empty() { String::new() } else { format!(": schemas {}", self.schemas.join(", ")) };
        let objects = if self.objects.is_empty() { String::new() } else { format!("; {}", self.objects.join(", ")) };
        let tables = self.tables_with_rows.join(", ");
        let rows = if tables.is_empty() { String::new() } else { format!("; rows of {tables}") };
        format!("objects of the provider {}{schemas}{objects}{rows}", self.name)
    }
}

/// A snapshot that another one was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedWith {
    /// Its id.
    pub id: SnapshotId,
    /// The number of its rows, as [`Manifest::rows`], or the number of rows of one of its tables.
    pub rows: u64,
}

/// A period whose rows a snapshot may lack: `guard` has restored an older snapshot, because newer ones could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPeriod {
    /// The snapshot that was restored.
    pub after: SnapshotId,
    /// The time of the restore.
    pub until: DateTime<Utc>,
}

impl MissingPeriod {
    /// The most periods that a manifest records.
    const MOST: usize = 64;

    /// Returns all of these periods for the manifest of a snapshot, each once.
    #[must_use]
    pub fn merge(all: impl IntoIterator<Item = MissingPeriod>) -> Vec<MissingPeriod> {
        let mut periods: Vec<MissingPeriod> = Vec::new();
        for period in all {
            if !periods.contains(&period) {
                periods.push(period);
            }
        }
        periods.sort_by_key(|period| period.until);
        let surplus = periods.len().saturating_sub(Self::MOST);
        periods.drain(..surplus);
        periods
    }

    /// Returns true if a snapshot was taken in this period. Ids count in seconds.
    #[must_use]
    pub fn contains(&self, id: &SnapshotId) -> bool {
        *id != self.after && id.time() >= self.after.time() && id.time() <= self.until
    }
}

/// The document that describes a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of archive and manifest, [`crate::archive::FORMAT`].
    pub format: u32,
    /// The program that wrote it.
    pub lifeboat_version: String,
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The source's short name.
    pub source: SourceName,
    /// The location of the source.
    pub origin: Origin,
    /// The earlier locations of the source, oldest first: `snapshot --moved` said that the database moved from there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved_from: Vec<Origin>,
    /// The newest full snapshot of the source when this one was taken, so that a removed one is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<SnapshotId>,
    /// The kind of snapshot.
    pub kind: SnapshotKind,
    /// `sqlite` or `postgres`.
    pub engine: String,
    /// The start of the read transaction.
    pub created_at: DateTime<Utc>,
    /// The tags, chosen by the user.
    pub tags: Vec<String>,
    /// The archive's file name; the archive is in the manifest's folder.
    pub archive: String,
    /// The archive's length (outside manifest only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// The size of the database itself in bytes.
    pub raw_bytes: u64,
    /// SHA-256 of the whole archive (outside manifest only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// SHA-256 of the archive's index, which has that of every block (outside manifest only). Who reads a part of an archive
    /// compares it, because only this document is signed. Snapshots of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_sha256: Option<Sha256>,
    /// `gzip` or `zstd`.
    pub codec: String,
    /// True if the archive is encrypted.
    pub encrypted: bool,
    /// The version of the database's server or library.
    pub server_version: String,
    /// The number of rows in all ordinary tables and shadow tables. Not counted are virtual tables, which show the rows
    /// of their shadow tables or of other tables, and SQLite's internal tables (`sqlite_...`).
    pub rows: u64,
    /// The tables, sorted by name.
    pub tables: Vec<Table>,
    /// The seconds from the start of the snapshot to the writing of this document.
    pub seconds: f64,
    /// The facts that only an SQLite snapshot has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteFacts>,
    /// The facts that only a PostgreSQL snapshot has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresFacts>,
    /// The snapshot that a suspect snapshot was compared with, so that its rows are still known when it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<ComparedWith>,
    /// The rows of each table of that snapshot, if they were known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub compared_tables: BTreeMap<String, u64>,
    /// The tables that have lost rows within the tolerance, in this snapshot or in several before it: the last snapshot
    /// before these losses, and the rows of the table in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses_since: BTreeMap<String, ComparedWith>,
    /// The periods whose rows this snapshot may lack, oldest first. The snapshots taken in them are not pruned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_periods: Vec<MissingPeriod>,
}

impl Manifest {
    /// The most earlier locations that a manifest records.
    const MAX_MOVES: usize = 16;

    /// Returns true if two snapshots are of one database: their origins are equal, or it moved from one to the other.
    #[must_use]
    pub fn is_of_same_database(&self, other: &Manifest) -> bool {
        self.origin == other.origin
            || self.moved_from.contains(&other.origin)
            || other.moved_from.contains(&self.origin)
    }

    /// Returns true if the snapshot is of the database that is at `origin`: it was taken there, or it says that the
    /// database was there before. `newest` is the newest full snapshot of the source; if it was taken at `origin` too,
    /// it can say that the database was moved there from the place of this one.
    #[must_use]
    pub fn is_of_database_at(&self, origin: &Origin, newest: Option<&Manifest>) -> bool {
        self.origin == *origin
            || self.moved_from.contains(origin)
            || newest.is_some_and(|newest| {
                (newest.origin == *origin || newest.moved_from.contains(origin))
                    && newest.moved_from.contains(&self.origin)
            })
    }

    /// Returns the earlier locations for a next snapshot of the same source that is at `origin`.
    #[must_use]
    pub fn moves_to(&self, origin: &Origin) -> Vec<Origin> {
        let mut moves = self.moved_from.clone();
        if self.origin != *origin {
            moves.push(self.origin.clone());
        }
        moves.retain(|earlier| earlier != origin);
        let surplus = moves.len().saturating_sub(Self::MAX_MOVES);
        moves.drain(..surplus);
        moves
    }

    /// Returns a manifest with the rows of the snapshot that this one was compared with, if it is suspect. Its other
    /// fields are those of this one.
    #[must_use]
    pub fn of_compared(&self) -> Option<Manifest> {
        let ComparedWith { id, rows } = self.compared_with.clone()?;
        let tables: Vec<Table> =
            self.compared_tables.iter().map(|(name, rows)| Table::with_rows(name, *rows)).collect();
        // A manifest without tables is taken for that of an encrypted snapshot: only its total is compared.
        let encrypted = tables.is_empty();
        let (sqlite, postgres, compared_with, losses_since) = (None, None, None, BTreeMap::new());
        Some(Manifest { id, rows, tables, encrypted, sqlite, postgres, compared_with, losses_since, ..self.clone() })
    }

    /// Returns the rows in a manifest of a newer format, as far as this version can read them: a manifest without the
    /// facts of the engine. Nothing may be restored by it.
    #[must_use]
    pub fn rows_of_newer(bytes: &[u8]) -> Option<Manifest> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else { return None };
        fields.insert("format".to_owned(), FORMAT.into());
        // The facts of an engine have its name.
        let engine = fields.get("engine").and_then(Value::as_str).map(str::to_owned);
        engine.and_then(|engine| fields.remove(&engine));
        let table = |table: &Value| -> Option<Value> {
            let (name, rows) = (table.get("name")?.as_str()?, table.get("rows")?.as_u64()?);
            let kind = table.get("type").and_then(Value::as_str).unwrap_or("table");
            let content = table.get("content").and_then(Value::as_str).map(str::to_owned);
            let bytes = table.get("bytes").and_then(Value::as_u64);
            serde_json::to_value(Table { kind: kind.to_owned(), content, bytes, ..Table::with_rows(name, rows) }).ok()
        };
        let tables = fields.get("tables")?.as_array()?.iter().filter_map(table).collect();
        fields.insert("tables".to_owned(), Value::Array(tables));
        serde_json::from_value(Value::Object(fields)).ok()
    }

    /// Returns true if this is the manifest outside of an encrypted archive, which names no tables.
    #[must_use]
    pub fn lacks_tables(&self) -> bool {
        self.encrypted && self.sqlite.is_none() && self.postgres.is_none()
    }

    /// Returns true if the snapshot holds the raw bytes of a file that the database engine could not open.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.sqlite.as_ref().is_some_and(|facts| facts.health.is_none())
    }

    /// Returns true if the snapshot has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    /// Returns the digest of the schema.
    #[must_use]
    pub fn schema_digest(&self) -> Option<RowDigest> {
        match (&self.sqlite, &self.postgres) {
            (Some(facts), _) => facts.schema_digest,
            (_, Some(facts)) => Some(facts.schema_digest),
            (None, None) => None,
        }
    }

    /// The largest manifest that is read, in bytes.
    pub const MAX_BYTES: u64 = 64 << 20;

    /// The most commas in a manifest, as a bound for the number of its values. A manifest of the largest size that this
    /// program writes has fewer; one that has as many short values as fit would need many times its size in memory.
    const MAX_COMMAS: usize = 4_000_000;

    /// Returns the document as indented JSON with a line break at its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest has only string keys");
        json.push(b'\n');
        json
    }

    /// Returns the manifest for outside the archive. If the archive is encrypted, it omits the tables and the engine's
    /// facts, so that it names no table.
    #[must_use]
    pub fn outside(&self) -> Manifest {
        if !self.encrypted {
            return self.clone();
        }
        let (compared_tables, losses_since) = (BTreeMap::new(), BTreeMap::new());
        Manifest { tables: Vec::new(), sqlite: None, postgres: None, compared_tables, losses_since, ..self.clone() }
    }

    /// Returns the text of the manifest outside an archive, made from the one inside it. `inside` is its text, and this
    /// manifest has the archive's length and hash. It repeats fields that are not known here.
    pub fn document_from(&self, inside: &[u8]) -> Result<Vec<u8>> {
        let document = self.outside().to_json();
        if Self::differences(&document, inside)?.is_empty() {
            return Ok(document);
        }
        let mut fields: Value = serde_json::from_slice(inside)
            .map_err(|error| Error::problem("cannot parse the manifest").because(error))?;
        fields["archive_bytes"] = self.archive_bytes.into();
        fields["sha256"] = serde_json::to_value(self.sha256).expect("a hash is a text");
        if let Some(sha256) = &self.index_sha256 {
            fields["index_sha256"] = serde_json::to_value(sha256).expect("a hash is a text");
        }
        if self.encrypted {
            fields["tables"] = Value::Array(Vec::new());
            let known: Value = serde_json::to_value(self.outside()).expect("a manifest has only string keys");
            if let (Some(fields), Some(known)) = (fields.as_object_mut(), known.as_object()) {
                fields.retain(|name, _| known.contains_key(name));
            }
        }
        let mut json = serde_json::to_vec_pretty(&fields).expect("a manifest has only string keys");
        json.push(b'\n');
        Ok(json)
    }

    /// Parses a manifest, inside or outside. Fails if it is invalid, has another format version (see [`check_version`]),
    /// or more values than any database needs.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            format: Value,
        }
        let parsed = json::parse::<Manifest>(bytes, Self::MAX_COMMAS);
        // A manifest of another version may look damaged; check its version number first.
        let format = match &parsed {
            Ok(manifest) => Some(manifest.format.into()),
            Err(_) => serde_json::from_slice(bytes).ok().map(|Versioned { format }| format),
        };
        if let Some(format) = format {
            check_version("the manifest", &format)?;
        }
        parsed.map_err(|error| Error::problem("cannot parse the manifest").because(error))
    }

    /// Compares the outside manifest with the inside one and returns the names of the fields that differ. Compares all
    /// fields except `archive_bytes`, `sha256` and `index_sha256`, including unknown ones; for an encrypted snapshot, only the fields
    /// that the outside manifest has.
    pub fn differences(outside: &[u8], inside: &[u8]) -> Result<Vec<String>> {
        let parse = |bytes: &[u8], which: &str| match serde_json::from_slice(bytes) {
            Ok(Value::Object(mut fields)) => {
                fields.remove("archive_bytes");
                fields.remove("sha256");
                fields.remove("index_sha256");
                Ok(fields)
            }
            Ok(_) => Err(Error::problem(format!("the {which} manifest is not a JSON object"))),
            Err(error) => Err(Error::problem(format!("cannot parse the {which} manifest")).because(error)),
        };
        let (mut outside, mut inside) = (parse(outside, "outside")?, parse(inside, "inside")?);
        if inside.get("encrypted") == Some(&Value::Bool(true)) {
            // The outside manifest has no tables.
            if outside.remove("tables").is_some_and(|tables| tables == Value::Array(Vec::new())) {
                inside.retain(|name, _| outside.contains_key(name));
            }
        }
        let mut names: Vec<String> = outside.keys().chain(inside.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names.retain(|name| outside.get(name) != inside.get(name));
        Ok(names)
    }
}
