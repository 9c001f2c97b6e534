//! Writes a plan as the text that people edit, with the reasons for each choice as comments.

use super::plan::{ColumnPlan, Epoch, HypertablePlan, Plan, Rejects, TablePlan};
use super::propose::Proposal;

/// Returns a text as a TOML string in quotes.
fn quoted(text: &str) -> String {
    // TOML strings are JSON strings, except for one character that only TOML escapes.
    serde_json::to_string(text).unwrap_or_default().replace('\u{7f}', "\\u007F")
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// Appends a comment: each line begins with `#`, and long lines are broken.
fn comment(indent: &str, text: &str, out: &mut String) {
    const WIDTH: usize = 110;
    let mut line = String::new();
    // Control characters from a file must not end the comment.
    let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    for word in plain.split(' ') {
        if !line.is_empty() && line.chars().count() + word.chars().count() + indent.len() > WIDTH {
            out.push_str(&format!("{indent}# {line}\n"));
            line.clear();
            line.push_str("  ");
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("{indent}# {line}\n"));
}

/// Renders a plan. `proposals` are in the order of its tables; `notes` are the remarks on each file.
#[must_use]
pub(crate) fn render(plan: &Plan, proposals: &[Proposal], notes: &[(String, Vec<String>)]) -> String {
    let mut out = String::from(HEAD);
    out.push_str(&format!("format = {}\nid = {}\n", plan.format, quoted(&plan.id)));
    out.push_str("\n# The time zone of times without an offset; a column can have its own: zone = \"...\"\n");
    out.push_str(&format!("zone = {}\n", quoted(plan.zone.name())));
    out.push_str(
        "\n# Rows that cannot be converted: \"table\" keeps them, with the reason, in lifeboat_migrate.rejects;\n",
    );
    out.push_str("# \"stop\" ends the run at the first such row\n");
    let rejects = if plan.rejects == Rejects::Stop { "stop" } else { "table" };
    out.push_str(&format!("rejects = {}\n\n[target]\n", quoted(rejects)));
    let target = &plan.target;
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let fields = [
        ("url", target.url.clone()),
        ("source", target.source.clone()),
        ("env_file", path(&target.env_file)),
        ("env_prefix", target.env_prefix.clone()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            out.push_str(&format!("{name} = {}\n", quoted(&value)));
        }
    }
    for file in &plan.files {
        out.push('\n');
        for (_, notes) in notes.iter().filter(|(name, _)| *name == file.name) {
            notes.iter().for_each(|note| comment("", note, &mut out));
        }
        out.push_str(&format!("[[file]]\nname = {}\n", quoted(&file.name)));
        if let Some(path) = path(&file.path) {
            out.push_str(&format!("path = {}\n", quoted(&path)));
        }
        if let Some(snapshot) = &file.snapshot {
            out.push_str(&format!("snapshot = {}\n", quoted(snapshot)));
        }
    }
    for (table, proposal) in plan.tables.iter().zip(proposals) {
        write_table(table, proposal, &mut out);
    }
    out
}

const HEAD: &str = "# A plan to migrate SQLite files to PostgreSQL tables. Review it, edit it, and then:
#   lifeboat migrate run PLAN          migrates; run it again if it was interrupted
#   lifeboat migrate verify PLAN       compares every row
#   lifeboat migrate rollback PLAN     removes what 'run' created, and nothing else
# A table or column that you remove from this file is not migrated.

";

/// Writes the names of a table and what is to be done with it.
fn write_names(table: &TablePlan, out: &mut String) {
    out.push_str("[[table]]\n");
    for (name, value) in
        [("file", &table.file), ("source", &table.source), ("schema", &table.schema), ("name", &table.name)]
    {
        out.push_str(&format!("{name} = {}\n", quoted(value)));
    }
    if table.merge {
        out.push_str("merge = true\n");
    }
    if table.existing {
        out.push_str("existing = true\n");
    }
    if table.expected_rejects > 0 {
        comment("", "At most this number of rows may be rejected; the run reports more as a problem:", out);
        out.push_str(&format!("expected_rejects = {}\n", table.expected_rejects));
    }
}

fn write_table(table: &TablePlan, proposal: &Proposal, out: &mut String) {
    out.push('\n');
    comment("", &format!("{} rows", proposal.rows), out);
    proposal.conflicts.iter().for_each(|conflict| comment("", &format!("CONFLICT: {conflict}"), out));
    proposal.notes.iter().for_each(|note| comment("", note, out));
    write_names(table, out);
    out.push_str("columns = [\n");
    for (column, notes) in table.columns.iter().zip(&proposal.column_notes) {
        notes.iter().for_each(|note| comment("  ", note, out));
        out.push_str(&format!("  {},\n", column_line(column)));
    }
    out.push_str("]\n");
    if !table.primary_key.is_empty() {
        out.push_str(&format!("primary_key = {}\n", list(&table.primary_key)));
    }
    let mut lines = |name: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            out.push_str(&format!("{name} = [\n"));
            lines.iter().for_each(|line| out.push_str(&format!("  {{ {line} }},\n")));
            out.push_str("]\n");
        }
    };
    let unique =
        table.uniques.iter().map(|one| format!("name = {}, columns = {}", quoted(&one.name), list(&one.columns)));
    lines("uniques", unique.collect());
    let check = |one: &super::plan::CheckPlan| {
        format!("name = {}, expression = {}", quoted(&one.name), quoted(&one.expression))
    };
    lines("checks", table.checks.iter().map(check).collect());
    let index = |one: &super::plan::IndexPlan| {
        let mut line = format!("name = {}, columns = {}", quoted(&one.name), list(&one.columns));
        if !one.descending.is_empty() {
            line.push_str(&format!(", descending = {}", list(&one.descending)));
        }
        if !one.digest.is_empty() {
            line.push_str(&format!(", digest = {}", list(&one.digest)));
        }
        for (name, value) in [("using", &one.using), ("operator_class", &one.operator_class), ("where", &one.condition)]
        {
            if let Some(value) = value {
                line.push_str(&format!(", {name} = {}", quoted(value)));
            }
        }
        if one.unique {
            line.push_str(", unique = true");
        }
        line
    };
    lines("indexes", table.indexes.iter().map(index).collect());
    let foreign = |one: &super::plan::ForeignKeyPlan| {
        let mut line = format!("name = {}, columns = {}", quoted(&one.name), list(&one.columns));
        line.push_str(&format!(", references = {}, referenced = {}", quoted(&one.references), list(&one.referenced)));
        for (name, value) in [("schema", &one.schema), ("on_delete", &one.on_delete), ("on_update", &one.on_update)] {
            if let Some(value) = value {
                line.push_str(&format!(", {name} = {}", quoted(value)));
            }
        }
        if !one.validate {
            line.push_str(", validate = false");
        }
        line
    };
    lines("foreign_keys", table.foreign_keys.iter().map(foreign).collect());
    if let Some(hypertable) = &table.hypertable {
        write_hypertable(hypertable, &proposal.options, out);
    }
}

fn write_hypertable(hypertable: &HypertablePlan, options: &[String], out: &mut String) {
    out.push_str(&format!(
        "\n[table.hypertable]\ntime = {}\ninterval = {}\n",
        quoted(&hypertable.time),
        quoted(&hypertable.interval)
    ));
    if !options.is_empty() {
        out.push_str("# optional; chunks older than 'retention' are dropped permanently:\n");
        options.iter().for_each(|line| out.push_str(&format!("# {line}\n")));
    }
}

fn column_line(column: &ColumnPlan) -> String {
    let mut parts = vec![format!("source = {}", quoted(&column.source))];
    if let Some(name) = &column.name {
        parts.push(format!("name = {}", quoted(name)));
    }
    parts.push(format!("type = {}", quoted(&column.target_type)));
    if let Some(zone) = column.zone {
        parts.push(format!("zone = {}", quoted(zone.name())));
    }
    let unit = Epoch::NAMES.iter().find(|(epoch, ..)| *epoch == column.epoch);
    parts.extend(unit.map(|(_, name, _)| format!("epoch = {}", quoted(name))));
    if !column.nulls.is_empty() {
        parts.push(format!("nulls = {}", list(&column.nulls)));
    }
    for (name, is_set) in [("not_null", column.not_null), ("identity", column.identity)] {
        if is_set {
            parts.push(format!("{name} = true"));
        }
    }
    if let Some(default) = &column.default {
        parts.push(format!("default = {}", quoted(default)));
    }
    format!("{{ {} }}", parts.join(", "))
}
