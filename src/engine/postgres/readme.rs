//! The text of the first entry in the archive of a PostgreSQL snapshot.

use chrono::{DateTime, Utc};

use crate::engine::readme::{Commands, commands, head};
use crate::engine::saving::Identity;

/// Returns the text.
pub(super) fn readme(identity: Identity<'_>, taken: DateTime<Utc>) -> String {
    let Commands { unpack, key } = commands(identity.archive);
    let instructions = format!(
        "To restore the database with lifeboat, which verifies every byte:\n\
         \n\
         \x20   lifeboat restore {id} --store STORE --to postgres://USER@HOST/NEW --create{key}\n\
         \n\
         To restore it by hand, with only tar and psql:\n\
         \n\
         \x20   {unpack}\n\
         \x20   createdb --template template0 NEW\n\
         \x20   psql -d NEW -f restore.sql\n\
         \n\
         restore.sql stops at the first error. The roles and extensions must exist before it is run.\n\
         schema/roles.sql, if it is there, makes the roles that are missing, without passwords:\n\
         \n\
         \x20   psql -d postgres -f schema/roles.sql\n\
         \n\
         Everything is stored in the database's own tablespace. Comments in schema/*.sql name the tablespaces that tables\n\
         and indexes were in: ALTER TABLE ... SET TABLESPACE and ALTER INDEX ... SET TABLESPACE move them.\n\
         \n\
         manifest.json (the last file) names them, and every table with its number of rows. The rows are\n\
         in data/SCHEMA/TABLE/*.copy, in the text format of COPY; the schema is in schema/*.sql.\n",
        id = identity.id,
    );
    head("This is a snapshot of a PostgreSQL database, made", identity, taken) + &instructions
}
