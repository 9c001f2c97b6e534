//! The result for people of the commands that make checks.

use crate::cli::call::Text;
use crate::ops::checks::ChecksReport;
use crate::ops::summary::Check;
use crate::platform::error::one_line;
use crate::platform::text;

/// Returns a table of checks.
pub(super) fn checks_table(checks: &[Check]) -> String {
    let row = |check: &Check| {
        vec![if check.ok { "ok" } else { "FAILED" }.to_owned(), one_line(&check.name), one_line(&check.message)]
    };
    text::table(&["", "CHECK", "FOUND"], checks.iter().map(row))
}

impl Text for ChecksReport {
    fn text(&self) -> String {
        let mut lines = checks_table(&self.checks);
        for restored in &self.restored {
            lines.push_str(&restored.text());
        }
        if !self.verdict.is_empty() {
            lines.push_str(&format!("{}\n", self.verdict));
        }
        for command in &self.rollback {
            lines.push_str(&format!("  {command}\n"));
        }
        lines
    }
}
