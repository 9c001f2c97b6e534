//! Describes the values of a column for a plan: the evidence for its type, and the values that change or do not fit.

use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::Tz;

use super::changes::{ChangeCounts, Changes};
use super::convert::Kind;
use super::profile::{ColumnProfile, Example, Trial};
use crate::engine::sqlite::schema::ColumnFacts;
use crate::platform::error::one_line;

/// Describes the values that fit a type but change, with some of their rows.
pub(super) fn changes(profile: &ColumnProfile, kind: Kind, zone: Tz) -> Vec<String> {
    let describe = |trial: &Trial| -> Vec<String> {
        let sentences = trial.changes.sentences(zone).into_iter();
        sentences.map(|(change, sentence)| format!("{sentence} ({})", places(trial, change))).collect()
    };
    if kind != Kind::Json {
        return profile.trial(kind).map(describe).unwrap_or_default();
    }
    let Some(trial) = profile.trial(Kind::Jsonb).filter(|trial| trial.changes.repeats > 0) else { return Vec::new() };
    let repeats = Changes { repeats: true, ..Changes::default() };
    vec![format!(
        "{} JSON values have an object with the same key twice ({}): the type json keeps both values, jsonb would keep only \
         the last",
        trial.changes.repeats,
        places(trial, repeats)
    )]
}

/// Names some of the rows whose values change in a way.
fn places(trial: &Trial, change: Changes) -> String {
    let is_same = |other: &Changes| {
        let mut counts = ChangeCounts::default();
        counts.add(*other);
        counts.sentences(Tz::UTC).iter().any(|(one, _)| *one == change)
    };
    let examples = trial.changed.iter().filter(|(other, _)| is_same(other)).map(|(_, example)| {
        let row = example.rowid.map_or(String::new(), |rowid| format!("row {rowid}: "));
        format!("{row}{}", example.value)
    });
    let examples: Vec<String> = examples.take(EXAMPLES).collect();
    format!("such as {}", examples.join("; "))
}

/// The number of values that change and are shown.
const EXAMPLES: usize = 3;

/// Names the texts that become NULL, if there are any.
pub(super) fn null_texts(trial: &Trial) -> Option<String> {
    let words = trial.nulls.iter().map(|(word, count)| format!("'{}' ({count})", one_line(word)));
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| format!("texts that become NULL: {}", words.join(", ")))
}

/// Counts the values that do not fit a type, with examples, if there are any.
pub(super) fn failures(trial: &Trial) -> Option<String> {
    let example = |example: &Example| {
        let place = example.rowid.map_or(String::new(), |rowid| format!("row {rowid}: "));
        format!("{place}{}, {}", example.value, example.reason)
    };
    let examples: Vec<String> = trial.examples.iter().map(example).collect();
    let dots = if trial.failures > trial.examples.len() as u64 { "; ..." } else { "" };
    (trial.failures > 0).then(|| {
        format!(
            "{} values do not fit the type, so their rows are rejected: {}{dots}",
            trial.failures,
            examples.join("; ")
        )
    })
}

/// Describes the values of a column in one line.
pub(super) fn evidence(facts: &ColumnFacts, profile: &ColumnProfile, kind: Kind, zone: Tz) -> String {
    let mut parts = Vec::new();
    let mut add = |count: u64, description: &str| {
        if count > 0 {
            parts.push(format!("{count} {description}"));
        }
    };
    let integers = match profile.range {
        Some((least, greatest)) => format!("whole numbers ({least} to {greatest})"),
        None => String::new(),
    };
    add(profile.integers, &integers);
    add(profile.reals, "other numbers");
    add(profile.texts, "texts");
    add(profile.blobs, "blobs");
    add(profile.nulls, "NULL");
    let forms = &profile.forms;
    let is_of_time = profile.trial(Kind::Instant).is_some_and(|trial| trial.is_likely());
    if is_of_time && profile.texts > 0 {
        add(forms.local, "times without an offset");
        add(forms.offset, "times with an offset");
        add(forms.dates, "dates");
    }
    let declared = match facts.declared.as_str() {
        "" => "without a type".to_owned(),
        declared => format!("as {}", one_line(declared)),
    };
    let values = if parts.is_empty() { "no values".to_owned() } else { parts.join(", ") };
    let span = profile.span.as_ref().filter(|_| kind.is_time());
    let span = span.map_or(String::new(), |(earliest, latest)| {
        let day = |time: &str| {
            let instant = NaiveDateTime::parse_from_str(time.get(..19)?, "%Y-%m-%d %H:%M:%S").ok()?;
            Some(zone.from_utc_datetime(&instant).date_naive().to_string())
        };
        let shown = |time: &String| {
            Some(time).filter(|_| kind == Kind::Date).and_then(|time| day(time)).unwrap_or(time.clone())
        };
        format!("; from {} to {}", shown(earliest), shown(latest))
    });
    format!("declared {declared}; {values}{span}")
}
