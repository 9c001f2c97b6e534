//! The text of the first entry in the archive of an SQLite snapshot.

use chrono::{DateTime, Utc};

use crate::engine::readme::{Commands, commands, head};
use crate::engine::saving::Identity;
use crate::platform::shell::quote_word;

/// Returns the text for a snapshot whose image is the entry `image`.
pub(super) fn of_image(identity: Identity<'_>, taken: DateTime<Utc>, image: &str) -> String {
    let Commands { unpack, key } = commands(identity.archive);
    let image = quote_word(image);
    let instructions = format!(
        "To restore the database with lifeboat, which verifies every byte:\n\
         \n\
         \x20   lifeboat restore {id} --store STORE --to NEW.db{key}\n\
         \n\
         To restore it by hand, with only tar and sqlite3:\n\
         \n\
         \x20   {unpack}\n\
         \x20   sqlite3 {image} 'PRAGMA integrity_check'\n\
         \n\
         The file is the whole database at one point in time, with the content of the WAL. Before you put\n\
         it in place, stop the program that uses the old file, and move the old file away together with\n\
         its -wal, -shm and -journal files: an old WAL or journal beside the new file would destroy it.\n\
         \n\
         manifest.json (the last file) names every table with its number of rows.\n",
        id = identity.id,
    );
    head("This is a snapshot of an SQLite database, made", identity, taken) + &instructions
}

/// Returns the text for the raw bytes of a damaged database.
pub(super) fn of_raw_bytes(identity: Identity<'_>, taken: DateTime<Utc>) -> String {
    head("These are the raw bytes of a damaged SQLite database, saved for forensics", identity, taken)
        + "SQLite could not open the file. To recover the data that is left in it, try\n\
           \n\
           \x20   sqlite3 FILE '.recover'\n"
}
