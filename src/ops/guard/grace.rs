//! Compares the grace period with the time that the last snapshots took, so that a period that is too short is known
//! before the data is needed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::ops::{Context, tags};
use crate::platform::error::{Error, Kind, Result};
use crate::platform::text;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, SnapshotKind};

/// The part of the grace period that is reserved for the guard's own exit.
pub(super) const MARGIN: Duration = Duration::from_millis(500);
/// The number of snapshots of each source that are read.
const MOST_SNAPSHOTS: usize = 3;
/// The longest time to wait at the end for a comparison that a slow store delays.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The grace period of a platform.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    /// The time from SIGTERM to SIGKILL.
    pub(crate) total: Duration,
    /// The part that is reserved for the last snapshot.
    pub(crate) reserve: Duration,
}

impl Grace {
    /// Returns the grace period with the part that is reserved: half of it, if nothing is set.
    pub(crate) fn new(total: Duration, reserve: Option<Duration>) -> Self {
        Grace { total, reserve: reserve.unwrap_or(total / 2).min(total) }
    }

    /// Fails if a snapshot that takes as long as `took` may not be complete in time.
    fn require(self, took: Duration) -> Result<()> {
        let (Grace { total, reserve }, seconds) = (self, |time: Duration| text::seconds(time.as_secs_f64()));
        let left = reserve.saturating_sub(MARGIN);
        if took <= left {
            return Ok(());
        }
        // Times vary, and the exit takes some too.
        let part = Duration::from_secs((took.mul_f64(1.25) + MARGIN).as_secs() + 1);
        let whole = (total - reserve).max(if reserve * 2 == total { part } else { Duration::ZERO }) + part;
        let certainty = if took > total.saturating_sub(MARGIN) { "cannot" } else { "may not" };
        let message = format!(
            "the grace period is too short: the last snapshots took {}, but only {} of {} are reserved for the last \
             one, which {certainty} be complete before the container is killed",
            seconds(took),
            seconds(left),
            seconds(total)
        );
        let reserve =
            if reserve * 2 == total { String::new() } else { format!(" and reserve = \"{}s\"", part.as_secs()) };
        Err(Error::problem(message).hint(format!(
            "allow at least {0}s from SIGTERM to SIGKILL on the platform, and set grace = \"{0}s\"{reserve} under [guard]",
            whole.as_secs()
        )))
    }
}

/// Returns the time that the last snapshots of the sources took in all, and whether a guard took one of them. Returns
/// `None` if there are no snapshots.
fn measured(sources: &[SourceName], context: &Context) -> Result<Option<(Duration, bool)>> {
    let (mut total, mut by_guard) = (None, false);
    for source in sources {
        let mut manifests = Vec::new();
        let mut unreachable = None;
        for store in context.all_stores()? {
            match context.open(store).and_then(|catalog| newest(&catalog, source)) {
                Ok(found) => manifests.extend(found),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => unreachable = Some(error),
            }
        }
        if let Some(error) = unreachable.filter(|_| manifests.is_empty()) {
            return Err(error);
        }
        by_guard |= manifests.iter().any(|manifest| manifest.has_tag(tags::GUARD));
        let longest = manifests.iter().map(|manifest| manifest.seconds).filter(|seconds| seconds.is_finite());
        if let Some(longest) = longest.reduce(f64::max) {
            let longest = Duration::try_from_secs_f64(longest).unwrap_or_default();
            total = Some(total.unwrap_or(Duration::ZERO) + longest);
        }
    }
    Ok(total.map(|total| (total, by_guard)))
}

fn newest(catalog: &crate::snapshots::catalog::Catalog, source: &SourceName) -> Result<Vec<Manifest>> {
    let (listed, _) = catalog.list_newest(Some(source), None, MOST_SNAPSHOTS)?;
    let manifests = catalog.describe(listed)?.into_iter().filter_map(|described| described.manifest.ok());
    Ok(manifests.filter(|manifest| manifest.kind == SnapshotKind::Full).collect())
}

/// Describes the grace period of a guard, for `doctor`. Fails if it is too short. Returns `None` if no guard is used:
/// the config has no section for it, and it has taken no snapshot.
pub(crate) fn check(grace: Grace, is_configured: bool, context: &Context) -> Result<Option<String>> {
    let Some(config) = &context.config else { return Ok(None) };
    let names: Vec<SourceName> = config.sources()?.iter().map(|source| source.name.clone()).collect();
    let Some((took, by_guard)) = measured(&names, context)? else {
        return Ok(
            is_configured.then(|| "no snapshot has measured yet how much of the grace period is needed".to_owned())
        );
    };
    if !is_configured && !by_guard {
        return Ok(None);
    }
    grace.require(took)?;
    let seconds = |time: Duration| text::seconds(time.as_secs_f64());
    Ok(Some(format!(
        "the last snapshots took {}; {} of the grace period of {} are reserved for the last one",
        seconds(took),
        seconds(grace.reserve),
        seconds(grace.total)
    )))
}

/// A comparison that runs beside the program.
pub(super) struct Comparison(Receiver<()>);

impl Comparison {
    /// Begins to compare, and logs a warning if the grace period is too short. The program does not wait for a store.
    pub(super) fn begin(grace: Grace, sources: Vec<SourceName>, context: &Arc<Context>) -> Self {
        let (done, receiver) = channel();
        let context = Arc::clone(context);
        let started = thread::Builder::new().name("grace".to_owned()).spawn(move || {
            match measured(&sources, &context) {
                Ok(Some((took, _))) => {
                    if let Err(error) = grace.require(took) {
                        tracing::warn!("{}", error.full_message_with_hint());
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!("the grace period was not compared: {}", error.full_message()),
            }
            drop(done);
        });
        if let Err(error) = started {
            tracing::warn!("the grace period is not compared with the last snapshots: {error}");
        }
        Comparison(receiver)
    }

    /// Waits for the comparison, but not for a store that hangs.
    pub(super) fn end(self) {
        let _ = self.0.recv_timeout(LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_in_the_hint_is_enough() {
        for (total, reserve, took_ms) in
            [(10, None, 4_600), (1, None, 9_000), (30, Some(5), 6_000), (60, Some(60), 60_000)]
        {
            let took = Duration::from_millis(took_ms);
            let grace = Grace::new(Duration::from_secs(total), reserve.map(Duration::from_secs));
            let error = grace.require(took).expect_err("too short");
            let hint = error.hint.expect("a hint");
            let number = |name: &str| {
                let text = hint.split(&format!("{name} = \"")).nth(1)?;
                text.split('s').next()?.parse().ok().map(Duration::from_secs)
            };
            let better = Grace::new(number("grace").expect("a grace"), number("reserve"));
            assert!(better.require(took).is_ok(), "{hint}");
        }
        assert!(Grace::new(Duration::from_secs(10), None).require(Duration::from_millis(4_500)).is_ok());
    }
}
