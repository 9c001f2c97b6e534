//! Addresses of TimescaleDB's objects that the catalogs do not have.

use crate::engine::postgres::schema::object::Address;

/// The address of the conversion of a table to a hypertable.
pub(in crate::engine::postgres) fn hypertable_at(table: u32) -> Address {
    Address { catalog: 0, oid: table, column: 11 }
}

/// The address of the compression settings of a hypertable or an aggregate.
pub(in crate::engine::postgres) fn settings_at(table: u32) -> Address {
    Address { catalog: 0, oid: table, column: 12 }
}
