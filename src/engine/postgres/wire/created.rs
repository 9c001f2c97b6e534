//! A list of the objects that sessions have created, for the program that may have to drop them again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object that a statement was sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) struct CreatedObject {
    /// The place of its item in the list of items.
    pub(in crate::engine::postgres) item: usize,
    /// Its oid. `None` if the server's reply has not arrived: then it may exist or not.
    pub(in crate::engine::postgres) oid: Option<u32>,
}

/// A list that several sessions share, in the order of creation.
#[derive(Clone, Debug, Default)]
pub(in crate::engine::postgres) struct Created(Arc<Mutex<Vec<CreatedObject>>>);

impl Created {
    /// Adds an item whose statement is about to be sent.
    pub(in crate::engine::postgres) fn begin(&self, item: usize) {
        self.entries().push(CreatedObject { item, oid: None });
    }

    /// Records the objects that the statement has created: none if it has failed.
    pub(in crate::engine::postgres) fn finish(&self, item: usize, oids: &[u32]) {
        let mut entries = self.entries();
        entries.retain(|entry| entry.item != item || entry.oid.is_some());
        entries.extend(oids.iter().map(|oid| CreatedObject { item, oid: Some(*oid) }));
    }

    /// Returns the objects, the oldest first.
    pub(in crate::engine::postgres) fn list(&self) -> Vec<CreatedObject> {
        self.entries().clone()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<CreatedObject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
