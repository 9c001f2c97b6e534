//! Writes one archive to several stores at once.

use std::io::{self, Write};

use crate::platform::error::{Error, Kind, Result};
use crate::store::Upload;

/// Writes the same bytes to several uploads. An upload that fails is dropped at once, and the others continue.
pub(super) struct Fanout {
    uploads: Vec<Result<Box<dyn Upload>>>,
}

impl Fanout {
    /// Begins with uploads, some of which may have failed to start; fails if all of them have.
    pub(super) fn new(uploads: Vec<Result<Box<dyn Upload>>>) -> Result<Self> {
        let mut fanout = Fanout { uploads };
        fanout.require_one()?;
        Ok(fanout)
    }

    /// Returns the uploads in their original order, with the errors of those that failed.
    pub(super) fn into_uploads(self) -> Vec<Result<Box<dyn Upload>>> {
        self.uploads
    }

    /// Fails with the first error if no upload is left.
    fn require_one(&mut self) -> Result<()> {
        if self.uploads.iter().any(Result::is_ok) {
            return Ok(());
        }
        let first = self.uploads.drain(..).find_map(Result::err);
        Err(first.unwrap_or_else(|| Error::failed("there is no store to write to")))
    }

    /// Runs `work` on every upload. One that fails is replaced by its error.
    fn for_each(&mut self, mut work: impl FnMut(&mut dyn Upload) -> io::Result<()>) -> io::Result<()> {
        for upload_or_error in &mut self.uploads {
            if let Ok(upload) = upload_or_error
                && let Err(error) = work(upload.as_mut())
            {
                let error = Error::from(error);
                // A signal is not a failure of one store: it stops all uploads.
                if error.kind == Kind::Interrupted {
                    return Err(error.into());
                }
                *upload_or_error = Err(error);
            }
        }
        Ok(self.require_one()?)
    }
}

impl Write for Fanout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.for_each(|upload| upload.write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.for_each(|upload| upload.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Faults;
    use crate::store::{Key, MemoryStore, Published, Store};

    #[test]
    fn one_that_fails_does_not_stop_the_others() {
        let stores = [MemoryStore::new(), MemoryStore::new(), MemoryStore::new()];
        let key: Key = "app/a".parse().expect("a key");
        let mut fanout = Fanout::new(stores.iter().map(|store| store.create(&key)).collect()).expect("all start");
        fanout.write_all(b"one").expect("all are well");
        stores[1].inject(Faults::FailFrom(1));
        fanout.write_all(b"two").expect("two are well");
        fanout.flush().expect("two are well");
        let ends: Vec<bool> = fanout
            .into_uploads()
            .into_iter()
            .map(|each| each.and_then(|upload| upload.finish()).is_ok_and(|published| published == Published::Created))
            .collect();
        assert_eq!(ends, [true, false, true]);
        stores[1].inject(Faults::None);
        assert_eq!(stores[1].stat(&key).expect("well again"), None);
        assert_eq!(stores[2].read(&key, 6).expect("there"), b"onetwo");
    }

    #[test]
    fn if_no_store_is_left_the_first_error_is_returned() {
        let stores = [MemoryStore::new(), MemoryStore::new()];
        let key: Key = "app/a".parse().expect("a key");
        let mut fanout = Fanout::new(stores.iter().map(|store| store.create(&key)).collect()).expect("both start");
        stores.iter().for_each(|store| store.inject(Faults::FailFrom(1)));
        let error = Error::from(fanout.write_all(b"x").expect_err("none is well"));
        assert_eq!(error.kind, Kind::Unreachable);
        stores[0].inject(Faults::FailFrom(1));
        assert!(Fanout::new(vec![stores[0].create(&key)]).is_err());
    }
}
