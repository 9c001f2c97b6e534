//! The manifest: the JSON document that describes a snapshot. In a store, a snapshot exists once its manifest exists.
//!
//! The manifest inside the archive is written before the archive is finished; the one outside repeats
//! it and adds `archive_bytes` and `sha256`. Readers ignore unknown fields.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::check_version;
use crate::platform::digest::{RowDigest, Sha256};
use crate::platform::error::{Error, Result};
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
    /// True for a generated column: its values are not part of the row digest.
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
    /// The reason why there is no digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `table`, `virtual` or `shadow`; for TimescaleDB also `hypertable`, or `continuous aggregate` for its
    /// materialized rows.
    #[serde(rename = "type")]
    pub kind: String,
    /// The columns, in order.
    pub columns: Vec<Column>,
}

impl Table {
    /// Returns true if it is a user's table with its own rows: not the storage of another table, not an internal table
    /// of SQLite, and not rows computed from others.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "hypertable") && !self.name.starts_with("sqlite_")
    }
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
    /// The role that read it.
    pub role: String,
    /// The database.
    pub database: DatabaseFacts,
    /// The extensions installed in it.
    pub extensions: Vec<Extension>,
    /// The roles that owners, grants and policies name.
    pub roles: Vec<String>,
    /// The digest of the statements that create the schema, to check whether two schemas are the same.
    pub schema_digest: RowDigest,
    /// The large objects.
    pub large_objects: LargeObjectFacts,
    /// The states of the sequences.
    pub sequences: Vec<SequenceValue>,
    /// The objects left out: by a selection, or because they could not be saved and this was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Notes about the restored database, such as secrets that must be set again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// `gzip` or `zstd`.
    pub codec: String,
    /// True if the archive is encrypted.
    pub encrypted: bool,
    /// The version of the database's server or library.
    pub server_version: String,
    /// The number of rows of all tables with their own rows. Not counted are virtual tables, which show the rows of
    /// their shadow tables, and SQLite's internal tables (`sqlite_...`).
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
        Manifest { tables: Vec::new(), sqlite: None, postgres: None, ..self.clone() }
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

    /// Parses a manifest, inside or outside. Fails if it is invalid or has another format version; see
    /// [`check_version`].
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            format: Value,
        }
        let parsed = serde_json::from_slice::<Manifest>(bytes);
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
    /// fields except `archive_bytes` and `sha256`, including unknown ones; for an encrypted snapshot, only the fields
    /// that the outside manifest has.
    pub fn differences(outside: &[u8], inside: &[u8]) -> Result<Vec<String>> {
        let parse = |bytes: &[u8], which: &str| match serde_json::from_slice(bytes) {
            Ok(Value::Object(mut fields)) => {
                fields.remove("archive_bytes");
                fields.remove("sha256");
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
