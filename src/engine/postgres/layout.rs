//! The paths of the entries in the archive of a PostgreSQL snapshot.

use crate::platform::entries::encode_name;

/// The steps that create the schema, as JSON.
pub(crate) const OBJECTS: &str = "schema/objects.json";
/// The maximum length of [`OBJECTS`] in bytes. A larger schema is not saved, because it could not be restored.
pub(crate) const MAX_OBJECTS_BYTES: u64 = 256 << 20;
/// The maximum number of commas in [`OBJECTS`], as a bound for the memory that its values take.
pub(crate) const MAX_OBJECTS_COMMAS: usize = 8_000_000;
/// The settings of the roles that the schema needs, as JSON.
pub(crate) const ROLE_SETTINGS: &str = "schema/role-settings.json";
/// The maximum length of [`ROLE_SETTINGS`].
pub(crate) const MAX_ROLE_SETTINGS_BYTES: u64 = 64 << 20;
/// The maximum number of commas in [`ROLE_SETTINGS`].
pub(crate) const MAX_ROLE_SETTINGS_COMMAS: usize = 2_000_000;
/// The statements that make the roles which the schema needs, as SQL.
pub(crate) const ROLES: &str = "schema/roles.sql";
/// The statements that are run before the rows are loaded, as SQL.
pub(crate) const PRE_DATA: &str = "schema/pre-data.sql";
/// The statements that are run after the rows are loaded, as SQL.
pub(crate) const POST_DATA: &str = "schema/post-data.sql";
/// The values of sequences, as SQL.
pub(crate) const SEQUENCES: &str = "schema/sequences.sql";
/// The script that loads everything by hand.
pub(crate) const RESTORE: &str = "restore.sql";
/// The folder of large objects.
pub(crate) const LARGE_OBJECTS: &str = "large-objects/";

/// Returns the folder of a table's rows.
pub(crate) fn table_folder(schema: &str, table: &str) -> String {
    format!("data/{}/{}/", encode_name(schema), encode_name(table))
}

/// Returns the path of one piece of a table's rows.
pub(crate) fn piece_path(schema: &str, table: &str, number: u32) -> String {
    format!("{}{number:06}.copy", table_folder(schema, table))
}

/// Returns the path of one piece of the large objects' content.
pub(crate) fn large_objects_path(number: u32) -> String {
    format!("{LARGE_OBJECTS}{number:06}.copy")
}
