//! `[[source.rule]]`: the conditions that a database must meet.

use serde::Deserialize;

use crate::config::sections::reading::is_on;
use crate::config::values::{Age, Flag, Number, Parsed};
use crate::engine::rules::{Condition, Fresh, Rule, Share};
use crate::platform::error::{Error, Result};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRule {
    table: Option<String>,
    min_rows: Option<Parsed<Number>>,
    fresh: Option<RawFresh>,
    max_row_drop: Option<Parsed<Share>>,
    may_drop: Option<Parsed<Flag>>,
    renamed_to: Option<String>,
    query: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFresh {
    column: String,
    within: Parsed<Age>,
    #[serde(default)]
    zone: Option<Parsed<Zone>>,
}

#[derive(Clone, Copy)]
struct Zone(chrono_tz::Tz);

impl std::str::FromStr for Zone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Zone).map_err(|_| {
            Error::usage(format!("'{text}' is not a time zone")).hint("write a name such as UTC or Asia/Shanghai")
        })
    }
}

impl RawRule {
    /// Returns the rules in a `[[source.rule]]` table: one for each condition.
    pub(in crate::config) fn read(self) -> Result<Vec<Rule>> {
        let Some(table) = self.table.clone() else {
            if self.min_rows.is_some() || self.fresh.is_some() || self.may_drop.is_some() || self.renamed_to.is_some() {
                return Err(Error::usage("the rule has no table").hint("add table = \"...\""));
            }
            return self.conditions(None);
        };
        if self.query.is_some() {
            return Err(
                Error::usage("a rule with a query must not have a table").hint("remove table, or write two rules")
            );
        }
        self.conditions(Some(table))
    }

    fn conditions(self, table: Option<String>) -> Result<Vec<Rule>> {
        let zone = |fresh: &RawFresh| fresh.zone.as_ref().map_or(chrono_tz::UTC, |zone| zone.0.0);
        // A switch that is off is a condition too: it may be the value of a variable.
        let has_switch = self.may_drop.is_some();
        let conditions = [
            is_on(self.may_drop, false).then_some(Condition::MayDrop),
            self.renamed_to.map(|new| Condition::RenamedTo { new, must: false }),
            self.min_rows.map(|rows| Condition::MinRows(rows.0.0)),
            self.fresh.map(|fresh| {
                let zone = zone(&fresh);
                Condition::Fresh(Fresh { column: fresh.column, within: fresh.within.0.0, zone })
            }),
            self.max_row_drop.map(|share| Condition::MaxRowDrop(share.0)),
            self.query.map(Condition::Query),
        ];
        let rules: Vec<Rule> =
            conditions.into_iter().flatten().map(|condition| Rule { table: table.clone(), condition }).collect();
        if rules.is_empty() && !has_switch {
            return Err(Error::usage("the rule has no condition")
                .hint("set min_rows, fresh, max_row_drop, may_drop, renamed_to or query"));
        }
        Ok(rules)
    }
}
