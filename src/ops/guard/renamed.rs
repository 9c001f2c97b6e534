//! Judges a source that has no snapshot, while a store has snapshots of the same database under another name: the source was
//! renamed, and this is not its first start.

use crate::config::OnDoubt;
use crate::engine::rules::Verdict;
use crate::ops::guard::judge::{Case, Decision, Judgement, Live, START_HINT, some_of};
use crate::ops::guard::newest::taken;
use crate::ops::inspect::{Found, compare_with};
use crate::ops::other_name::described;
use crate::ops::restore_in_place::restore_command;
use crate::platform::error::{Error, Reason, Result, one_line};

impl Case<'_> {
    /// Decides on a source that was renamed. Returns `None` if no store has its database under another name.
    pub(super) fn renamed(&self) -> Result<Option<Judgement>> {
        let Some(found) = &self.stored.other_name else { return Ok(None) };
        let state = match self.live {
            Live::Missing => "is missing".to_owned(),
            Live::There { .. } if self.live.is_empty() => "is empty".to_owned(),
            Live::There { tables, .. } => {
                let total = self.total(tables, &found.manifest)?;
                let verdicts = compare_with(&found.manifest, tables, total, &self.chosen.rules());
                let lost = verdicts.iter().filter(|verdict| !verdict.ok && verdict.evaluated).map(Verdict::description);
                let lost: Vec<String> = lost.chain(self.live.failed_rules()).collect();
                if lost.is_empty() {
                    tracing::warn!("{}; its database has all tables and rows of it", described(found, &self.name));
                    return Ok(Some(Judgement { decision: Decision::Start, failures: self.unread() }));
                }
                format!("is not as it was: {}", some_of(lost))
            }
        };
        let manifest = &found.manifest;
        let mut hints = vec![self.context.advice_on_other_name(found, self.chosen)];
        if self.is_missing_or_empty() {
            hints.push(format!(
                "on_doubt = \"restore-older\" in [guard], or --on-doubt restore-older, starts the program with {}",
                manifest.id
            ));
        }
        hints.push(START_HINT.to_owned());
        let error = Error::problem(format!(
            "{} {state}, and this is not its first start: {}, {}",
            self.name,
            described(found, &self.name),
            taken(manifest.created_at)
        ));
        let error = error.hint(hints.join("; "));
        Ok(Some(match self.on_doubt {
            OnDoubt::RestoreOlder if self.restores && self.is_missing_or_empty() => {
                Judgement { decision: Decision::Restore("was renamed"), failures: vec![error] }
            }
            _ => self.unless_started(error),
        }))
    }

    fn is_missing_or_empty(&self) -> bool {
        matches!(self.live, Live::Missing) || self.live.is_empty()
    }

    /// Warns about the snapshots of a database that is missing or empty, and is not restored because the settings say so.
    pub(super) fn warn_about_snapshots(&self) {
        let why = if matches!(self.live, Live::Missing) { "is missing" } else { "is empty" };
        if let Some(found) = self.stored.newest() {
            tracing::warn!("{}", self.not_restored(why, found));
        } else if let Some(newer) = self.stored.newer.first() {
            let (name, store) = (&self.name, one_line(&newer.location));
            tracing::warn!("{name} {why}, and is not restored; {store} has {}: {}", newer.id, newer.reason);
        }
        // Without restores, a store need not exist.
        for failure in self.unread().iter().filter(|failure| failure.reason != Some(Reason::StoreIsAbsent)) {
            tracing::warn!("{}", failure.full_message());
        }
    }

    /// Describes a database that is not restored because the settings say so, and the command that restores it.
    pub(super) fn not_restored(&self, why: &str, found: &Found) -> String {
        let (manifest, location) = (&found.manifest, found.catalog.location());
        let options: &[&str] = if matches!(self.live, Live::Missing) { &[] } else { &["--replace"] };
        // A source of another name is not the one of the config.
        let command = match manifest.source == self.name {
            true => restore_command(manifest, &location, Some(self.chosen), options, self.context),
            false => self.context.restore_elsewhere(found, self.chosen),
        };
        format!(
            "{} {why}, and is not restored, because restore_if_missing is false: {} has {}, {}, with {} rows; '{command}' \
             restores it",
            self.name,
            one_line(&location),
            manifest.id,
            taken(manifest.created_at),
            manifest.rows
        )
    }
}
