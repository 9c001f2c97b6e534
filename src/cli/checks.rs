//! The result for people of the commands that make checks.

use crate::cli::call::Text;
use crate::ops::checks::{Check, ChecksReport};
use crate::platform::error::one_line;
use crate::platform::text;

impl Text for ChecksReport {
    fn text(&self) -> String {
        let row = |check: &Check| {
            vec![if check.ok { "ok" } else { "FAILED" }.to_owned(), one_line(&check.name), one_line(&check.message)]
        };
        let mut lines = text::table(&["", "CHECK", "FOUND"], self.checks.iter().map(row));
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
