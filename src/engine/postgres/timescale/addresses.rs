//! Addresses of what only TimescaleDB has, beside those of the catalogs.

use crate::engine::postgres::schema::Address;

/// The address of what makes a table a hypertable.
pub(in crate::engine::postgres) fn hypertable_at(table: u32) -> Address {
    Address { catalog: 0, oid: table, column: 11 }
}

/// The address of a hypertable's, or an aggregate's, compression settings.
pub(in crate::engine::postgres) fn settings_at(table: u32) -> Address {
    Address { catalog: 0, oid: table, column: 12 }
}
