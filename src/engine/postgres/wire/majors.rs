//! The major versions of PostgreSQL that Lifeboat is tested with. To add one: add it here, start a server of it in
//! `scripts/servers`, and run `scripts/test`. The tests in `new_in_servers` name what is new in it.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::platform::error::{Error, Result};

/// The major versions that the tests run with, in order, without gaps.
pub const TESTED: &[u32] = &[13, 14, 15, 16, 17, 18];

/// The newest major version that the tests run with.
pub const NEWEST: u32 = TESTED[TESTED.len() - 1];

/// The version number of PostgreSQL 16, from which a membership has the options `INHERIT` and `SET`, and collations have rules.
pub(in crate::engine::postgres) const VERSION_16: u32 = 160_000;

/// True if the user has allowed newer servers.
static ALLOWS_NEWER: AtomicBool = AtomicBool::new(false);

/// Allows this process to use servers that are newer than those tested.
pub fn allow_newer() {
    ALLOWS_NEWER.store(true, Ordering::Relaxed);
}

/// Returns true if a version number, such as 150004, belongs to a major version that is newer than those tested.
#[must_use]
pub fn is_newer(version_num: u32) -> bool {
    version_num / 10_000 > NEWEST
}

/// Fails if the version of a server is too old, or newer than those tested and not allowed. `url` is the server in words,
/// `version` its version as people write it.
pub(in crate::engine::postgres) fn require_supported(url: &str, version_num: u32, version: &str) -> Result<()> {
    require_supported_if(url, version_num, version, ALLOWS_NEWER.load(Ordering::Relaxed))
}

fn require_supported_if(url: &str, version_num: u32, version: &str, allows_newer: bool) -> Result<()> {
    let supported = format!("PostgreSQL {} to {NEWEST} are supported", TESTED[0]);
    if version_num / 10_000 < TESTED[0] {
        let message = format!("{url} is PostgreSQL {version}, which is not supported");
        return Err(Error::failed(message).hint(supported));
    }
    if !is_newer(version_num) {
        return Ok(());
    }
    if !allows_newer {
        let message = format!("{url} is PostgreSQL {version}, which this lifeboat was not tested with");
        let hint = format!("{supported}: use a newer lifeboat, or try it with --allow-newer-server");
        return Err(Error::usage(message).hint(hint));
    }
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!("{url} is PostgreSQL {version}, which this lifeboat was not tested with: drill its snapshots");
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::platform::error::Kind;

    #[test]
    fn servers_are_refused_by_their_version() {
        let check = |version, allows_newer| require_supported_if("postgres://me@db/app", version, "x.y", allows_newer);
        for version in [130_000, 130_023, 150_018, 180_004] {
            check(version, false).unwrap();
        }
        let error = check(120_022, true).unwrap_err();
        assert_eq!(error.message, "postgres://me@db/app is PostgreSQL x.y, which is not supported");
        assert_eq!(error.kind, Kind::Failed);
        let error = check(190_000, false).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        check(190_000, true).unwrap();
    }

    #[test]
    fn majors_are_in_order_and_have_no_gaps() {
        assert!(TESTED.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
}
