//! The manifest: the JSON document that describes a snapshot and, in a store, makes it exist.
//!
//! The manifest inside the archive is written before the archive is finished; the one outside repeats
//! it and adds `archive_bytes` and `sha256`. Readers pass over fields that they do not know.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::FORMAT;
use crate::platform::digest::{RowDigest, Sha256};
use crate::platform::error::{Error, Result};
use crate::snapshots::id::{SnapshotId, SourceName};

/// What a snapshot is of and for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// The whole source; only these are ever `latest`, and only these count for retention.
    Full,
    /// A selection of the source.
    Partial,
    /// Taken before a restore, of what the restore overwrites.
    Safety,
    /// What could be saved of a damaged source, for forensics.
    Damaged,
}

impl SnapshotKind {
    /// The word for it in tables and JSON.
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

/// Where a source lives, without secrets; two sources are one exactly when these are equal.
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
    /// Its declared type, empty where none was declared.
    #[serde(rename = "type")]
    pub declared: String,
    /// True for a generated column: its values are not part of the row digest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// True for a column that refuses NULL (PostgreSQL).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
}

/// One table: its rows and what they hash to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name; of PostgreSQL `schema.table`, each part quoted where SQL wants it quoted.
    pub name: String,
    /// Schema and table, unquoted (PostgreSQL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// Rows; None where the table cannot be read (see `reason`).
    pub rows: Option<u64>,
    /// Bytes of the values: 8 for a number, the length of a text or blob.
    pub bytes: Option<u64>,
    /// The order-independent digest of the rows (see [`crate::platform::digest`]).
    pub digest: Option<RowDigest>,
    /// Why there is no digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `table`, `virtual` or `shadow`; of TimescaleDB `hypertable`, or `continuous aggregate` for its materialized rows.
    #[serde(rename = "type")]
    pub kind: String,
    /// The columns, in order.
    pub columns: Vec<Column>,
}

impl Table {
    /// Whether it is a table of the user's own, whose rows nothing else tells: no part of another table's storage, no
    /// table of SQLite's, no rows computed from others.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "hypertable") && !self.name.starts_with("sqlite_")
    }
}

/// Which table of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relation {
    /// The schema's name, unquoted.
    pub schema: String,
    /// The table's, unquoted.
    pub table: String,
    /// The condition on the rows of an extension's configuration table: only they are saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The column by whose values rows of a time can be restored alone (TimescaleDB), unquoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Rows that refer to a parent row which is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanRows {
    /// The table that holds them.
    pub table: String,
    /// The table they refer to.
    pub parent: String,
    /// The number of the foreign key, as SQLite's `foreign_key_list` counts.
    pub key: i64,
    /// How many.
    pub rows: u64,
}

/// Which of SQLite's integrity checks was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// All pages and all rows, but not whether every index agrees with its table.
    #[default]
    #[serde(rename = "quick_check")]
    Quick,
    /// Indexes too.
    #[serde(rename = "integrity_check")]
    Full,
}

/// What SQLite's own checks said of the image when it was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Which integrity check was made.
    pub check: Depth,
    /// What the integrity check reported, at most [`Health::MAX_FAULTS`] lines; empty when it said ok.
    pub integrity: Vec<String>,
    /// What `foreign_key_check` reported, summed per key.
    pub orphans: Vec<OrphanRows>,
    /// Why a check could not be made at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
}

impl Health {
    /// The most lines of the integrity check that are kept.
    pub const MAX_FAULTS: usize = 100;
}

/// What only an SQLite snapshot has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqliteFacts {
    /// The entry of the archive that is the database's image.
    pub image: String,
    /// `wal`, or the rollback mode `delete`.
    pub journal_mode: String,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages in the image.
    pub pages: u64,
    /// The text encoding, as `PRAGMA encoding` says it.
    pub encoding: String,
    /// `PRAGMA user_version`.
    pub user_version: i64,
    /// `PRAGMA application_id`.
    pub application_id: i64,
    /// The digest of `sqlite_schema` (type, name, table, SQL), for telling whether two schemas are one.
    pub schema_digest: Option<RowDigest>,
    /// Permission bits of the file.
    pub file_mode: u32,
    /// Seconds that writers were locked out (rollback-journal mode), 0 in WAL mode.
    pub locked_seconds: f64,
    /// Bytes the WAL grew while it could not be reset.
    pub wal_growth_bytes: u64,
    /// What SQLite's checks said at birth; None for a raw copy of a file that SQLite cannot open.
    pub health: Option<Health>,
}

/// What `CREATE DATABASE` must be told to make one like it.
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
    /// The locale of a provider that is not libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The ICU rules of the locale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// All of its size in bytes, as the server says it; 0 where it does not say.
    pub bytes: u64,
}

/// An extension that must be installed on the server that a schema is restored to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The version that the source has.
    pub version: String,
    /// The schema that its objects are in.
    pub schema: String,
}

/// Where a sequence stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValue {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// The value last given, or the first to be given.
    pub last_value: i64,
    /// Whether `last_value` was given already.
    pub is_called: bool,
    /// What is added from one value to the next.
    pub increment: i64,
    /// The table whose column owns it, as [`Table::name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// The large objects of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjectFacts {
    /// How many.
    pub count: u64,
    /// The rows of chunks that carry them.
    pub rows: u64,
    /// The digest of those rows.
    pub digest: RowDigest,
}

/// What only a PostgreSQL snapshot has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// The server's version as a number: 150004 for 15.4.
    pub version_num: u32,
    /// The host or the socket's folder that it was reached by, from the machine that took the snapshot.
    pub reached_by: String,
    /// The role that read it.
    pub role: String,
    /// The database.
    pub database: DatabaseFacts,
    /// The extensions in it.
    pub extensions: Vec<Extension>,
    /// The roles that owners, grants and policies name.
    pub roles: Vec<String>,
    /// The digest of the statements that make the schema, for telling whether two schemas are one.
    pub schema_digest: RowDigest,
    /// Large objects.
    pub large_objects: LargeObjectFacts,
    /// Where the sequences stood.
    pub sequences: Vec<SequenceValue>,
    /// What was left out: by a selection, or because it could not be saved and that was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What is to be known of the restored database: secrets to be set again, and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The document that describes a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of archive and manifest, [`FORMAT`].
    pub format: u32,
    /// The program that wrote it.
    pub lifeboat_version: String,
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The source's short name.
    pub source: SourceName,
    /// Where the source lives.
    pub origin: Origin,
    /// What the snapshot is of and for.
    pub kind: SnapshotKind,
    /// `sqlite` or `postgres`.
    pub engine: String,
    /// When the read transaction began.
    pub created_at: DateTime<Utc>,
    /// Free words.
    pub tags: Vec<String>,
    /// The archive's file name, beside the manifest.
    pub archive: String,
    /// The archive's length (outside manifest only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// Bytes of the database itself.
    pub raw_bytes: u64,
    /// SHA-256 of the whole archive (outside manifest only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// `gzip` or `zstd`.
    pub codec: String,
    /// True where the archive is encrypted.
    pub encrypted: bool,
    /// The version of the database's server or library.
    pub server_version: String,
    /// Rows of all tables that hold rows of their own: not of virtual ones, which show those of their shadows,
    /// nor of those that SQLite keeps for itself (`sqlite_...`).
    pub rows: u64,
    /// The tables, by name.
    pub tables: Vec<Table>,
    /// Seconds from the start of the snapshot to the writing of this document.
    pub seconds: f64,
    /// What only an SQLite snapshot has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteFacts>,
    /// What only a PostgreSQL snapshot has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresFacts>,
}

impl Manifest {
    /// The largest manifest that is read, in bytes.
    pub const MAX_BYTES: u64 = 64 << 20;

    /// The document as indented JSON with a line break at its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest has only string keys");
        json.push(b'\n');
        json
    }

    /// The form that stands outside the archive. Where that is encrypted, nothing outside names a table.
    #[must_use]
    pub fn outside(&self) -> Manifest {
        if !self.encrypted {
            return self.clone();
        }
        Manifest { tables: Vec::new(), sqlite: None, postgres: None, ..self.clone() }
    }

    /// Reads a manifest, inside or outside; refuses other formats and what is no manifest.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let parsed = serde_json::from_slice::<Manifest>(bytes);
        // What another version wrote may look like damage; its number says what it is.
        let format = match &parsed {
            Ok(manifest) => Ok(manifest.format),
            Err(_) => serde_json::from_slice(bytes).map(|Versioned { format }| format),
        };
        match format {
            Ok(format) if format != FORMAT => {
                Err(Error::problem(format!("the manifest has the unknown format version {format}"))
                    .hint("a newer lifeboat wrote it: use that one"))
            }
            _ => parsed.map_err(|error| Error::problem("the manifest is not readable").because(error)),
        }
    }

    /// Compares the outside manifest with the inside one: all fields but `archive_bytes` and `sha256`,
    /// those included that this version does not know; of an encrypted snapshot those that are outside only.
    /// The names of the fields that differ.
    pub fn differences(outside: &[u8], inside: &[u8]) -> Result<Vec<String>> {
        let parse = |bytes: &[u8], which: &str| match serde_json::from_slice(bytes) {
            Ok(Value::Object(mut fields)) => {
                fields.remove("archive_bytes");
                fields.remove("sha256");
                Ok(fields)
            }
            Ok(_) => Err(Error::problem(format!("the {which} manifest is not an object"))),
            Err(error) => Err(Error::problem(format!("the {which} manifest is not readable")).because(error)),
        };
        let (mut outside, mut inside) = (parse(outside, "outside")?, parse(inside, "inside")?);
        if inside.get("encrypted") == Some(&Value::Bool(true)) {
            // Outside there are no tables, whatever there is inside.
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
