//! An order in which things can be made: by need, then by kind, schema and name.

use super::object::Object;
use crate::error::Result;

/// Sorts the objects.
pub fn sort(mut objects: Vec<Object>) -> Result<Vec<Object>> {
    objects.sort_by(|a, b| {
        (a.section, a.kind, &a.schema, &a.name, a.address).cmp(&(b.section, b.kind, &b.schema, &b.name, b.address))
    });
    Ok(objects)
}
