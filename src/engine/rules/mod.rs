//! Rules for a database, and how they are evaluated on it. [`loss`] compares it with a snapshot.

mod fresh;
mod loss;
pub(crate) mod migration_tables;
pub(crate) mod moment;
pub(crate) mod names;
mod observed;
mod rule;
mod share;

use chrono::{DateTime, Utc};

use crate::engine::live::{Live, Newest};
use crate::engine::rules::observed::Observed;
use crate::platform::duration::format_duration;
use crate::platform::error::Error;

pub(crate) use crate::engine::rules::fresh::Fresh;
pub(crate) use crate::engine::rules::loss::{Rename, compare, compare_totals, renames};
pub(crate) use crate::engine::rules::rule::{Condition, Rule, Verdict};
pub(crate) use crate::engine::rules::share::Share;

/// Evaluates a rule on a live database. A rule that cannot be evaluated does not pass.
///
/// A rule about what is lost since a snapshot is evaluated by [`compare`] instead, and passes here.
#[must_use]
pub(crate) fn evaluate(rule: &Rule, live: &mut dyn Live, now: DateTime<Utc>) -> Verdict {
    let name = rule.name();
    let (expected, observed) = match &rule.condition {
        Condition::MinRows(least) => (format!("at least {least} rows"), min_rows(rule, *least, live)),
        Condition::Fresh(fresh) => (
            format!("a time ({}) within the last {}", fresh.zone.name(), format_duration(fresh.within)),
            newest(rule, fresh, live, now),
        ),
        Condition::Query(query) => {
            ("true".to_owned(), live.holds(query).map(|ok| Observed { ok, description: ok.to_string() }))
        }
        Condition::MaxRowDrop(_) | Condition::MayDrop | Condition::MustDrop | Condition::RenamedTo { .. } => (
            "a comparison with a snapshot".to_owned(),
            Ok(Observed { ok: true, description: "only compared with a snapshot".to_owned() }),
        ),
    };
    match observed {
        Ok(Observed { ok, description }) => {
            let (tables, is_loss, is_intended) = (Vec::new(), false, false);
            Verdict { name, tables, ok, evaluated: true, is_loss, is_intended, expected, observed: description }
        }
        Err(error) => {
            let observed = error.full_message_with_hint();
            let (tables, is_loss, is_intended) = (Vec::new(), false, false);
            Verdict { name, tables, ok: false, evaluated: false, is_loss, is_intended, expected, observed }
        }
    }
}

fn min_rows(rule: &Rule, least: u64, live: &mut dyn Live) -> Result<Observed, Error> {
    let table = rule.table.as_deref().unwrap_or_default();
    let rows = live.rows(table)?;
    Ok(Observed { ok: rows >= least, description: format!("{rows} rows") })
}

fn newest(rule: &Rule, fresh: &Fresh, live: &mut dyn Live, now: DateTime<Utc>) -> Result<Observed, Error> {
    let table = rule.table.as_deref().unwrap_or_default();
    let mut newest = fresh::Scan::new(fresh, now);
    match live.newest(table, &fresh.column)? {
        Newest::One(value) => newest.add(&value)?,
        // The greatest text is not always the latest time.
        Newest::Each => {
            let mut failed = None;
            live.each(table, &fresh.column, &mut |value| match newest.add(value) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Newest::None => {}
    }
    Ok(newest.evaluate())
}
