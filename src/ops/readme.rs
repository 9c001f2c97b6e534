//! The first entry of every archive. It explains the archive, and how to get the data back without this program.

use chrono::{DateTime, Utc};

use crate::engine::sqlite::target::quote_word;
use crate::platform::error::one_line;
use crate::platform::text;
use crate::snapshots::catalog::SEALED_ENDING;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::Origin;

/// Returns the shell command that unpacks an archive of that name with common tools, and the extra arguments that
/// `lifeboat restore` needs for it.
fn by_hand(archive: &str) -> (String, &'static str) {
    let is_zstd = archive.contains(".tar.zst");
    match archive.ends_with(SEALED_ENDING) {
        true => (
            format!("age -d -i KEY.txt {archive} | tar {}", if is_zstd { "--zstd -x" } else { "xz" }),
            " --identity KEY.txt",
        ),
        false => (format!("tar {} {archive}", if is_zstd { "--zstd -xf" } else { "xzf" }), ""),
    }
}

/// Returns the text for an SQLite snapshot whose image is the entry `image`.
pub(crate) fn sqlite(
    id: &SnapshotId,
    origin: &Origin,
    created_at: DateTime<Utc>,
    archive: &str,
    image: &str,
) -> String {
    let (unpack, key) = by_hand(archive);
    let image = quote_word(image);
    format!(
        "This is a snapshot of an SQLite database, made by lifeboat {version}.\n\
         \n\
         snapshot  {id}\n\
         taken     {taken}\n\
         from      {origin}\n\
         \n\
         To get the database back with lifeboat (verified on the way):\n\
         \n\
         \x20   lifeboat restore {id} --store STORE --to NEW.db{key}\n\
         \n\
         By hand, with nothing but tar and sqlite3:\n\
         \n\
         \x20   {unpack}\n\
         \x20   sqlite3 {image} 'PRAGMA integrity_check'\n\
         \n\
         The file is the whole database as it was at one instant, WAL content included. Before you put it\n\
         in place, stop the program that uses the old one, and move the old file away together with its\n\
         -wal, -shm and -journal: an old WAL or journal beside the new file would destroy it.\n\
         \n\
         manifest.json (the last file) names every table with its number of rows.\n",
        version = env!("CARGO_PKG_VERSION"),
        taken = text::time(created_at),
        origin = one_line(&origin.to_string()),
    )
}

/// Returns the text for a PostgreSQL snapshot.
pub(crate) fn postgres(id: &SnapshotId, origin: &Origin, created_at: DateTime<Utc>, archive: &str) -> String {
    let (unpack, key) = by_hand(archive);
    format!(
        "This is a snapshot of a PostgreSQL database, made by lifeboat {version}.\n\
         \n\
         snapshot  {id}\n\
         taken     {taken}\n\
         from      {origin}\n\
         \n\
         To get the database back with lifeboat (verified on the way):\n\
         \n\
         \x20   lifeboat restore {id} --store STORE --to postgres://USER@HOST/NEW --create{key}\n\
         \n\
         By hand, with nothing but tar and psql:\n\
         \n\
         \x20   {unpack}\n\
         \x20   createdb --template template0 NEW\n\
         \x20   psql -d NEW -f restore.sql\n\
         \n\
         restore.sql stops at the first error. Roles that own things and extensions must be there before:\n\
         manifest.json (the last file) names them, and every table with its number of rows. Rows are in\n\
         data/SCHEMA/TABLE/*.copy as COPY prints them, the schema is in schema/*.sql.\n",
        version = env!("CARGO_PKG_VERSION"),
        taken = text::time(created_at),
        origin = one_line(&origin.to_string()),
    )
}

/// Returns the text for the raw bytes of a damaged database.
pub(crate) fn raw(id: &SnapshotId, origin: &Origin, created_at: DateTime<Utc>) -> String {
    format!(
        "These are the raw bytes of a damaged SQLite database, saved for forensics by lifeboat {version}.\n\
         \n\
         snapshot  {id}\n\
         taken     {taken}\n\
         from      {origin}\n\
         \n\
         SQLite could not open the file. What is left in it may be got out with\n\
         \n\
         \x20   sqlite3 FILE '.recover'\n",
        version = env!("CARGO_PKG_VERSION"),
        taken = text::time(created_at),
        origin = one_line(&origin.to_string()),
    )
}
