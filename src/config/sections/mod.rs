//! The sections of a config: for each, the raw form as written in the file, and the parsed form.

mod backups;
mod encryption;
mod guard;
mod notices;
mod preflight;
mod reading;
mod retention;
mod rules;
mod serve;
mod signing;
mod sources;
mod stores;

pub use self::backups::Backups;
pub(super) use self::backups::RawBackups;
pub use self::encryption::Encryption;
pub(super) use self::encryption::RawEncryption;
pub(super) use self::guard::RawGuard;
pub use self::guard::{Guard, OnDoubt, OnOverlap};
pub(super) use self::notices::RawNotices;
pub use self::notices::{Notices, WATCHED};
pub use self::preflight::Preflight;
pub(super) use self::preflight::RawPreflight;
pub(super) use self::reading::{ReadContext, on_one_line};
pub(super) use self::retention::RawRetention;
pub use self::retention::Retention;
pub(super) use self::serve::RawServe;
pub use self::serve::{Hosts, Serve, parse_listen};
pub(super) use self::signing::RawSigning;
pub use self::signing::Signing;
pub(super) use self::sources::RawSource;
pub use self::sources::{ConfiguredSource, prefixed};
pub use self::stores::ConfiguredStore;
pub(super) use self::stores::RawStore;
