//! Chooses the type of a column of a new table: by its values, and by its declaration and name if these leave it open.

use chrono_tz::Tz;

use super::convert::{Converter, Kind};
use super::plan::Epoch;
use super::profile::{ColumnProfile, Counted, declared};
use crate::engine::sqlite::schema::ColumnFacts;
use crate::engine::sqlite::values::Cell;

/// The chosen type of a column.
pub(super) struct Choice {
    pub(super) kind: Kind,
    pub(super) epoch: Epoch,
}

impl From<Kind> for Choice {
    fn from(kind: Kind) -> Self {
        Choice { kind, epoch: Epoch::Auto }
    }
}

/// Chooses a column's type by its values; if they leave the choice open, by its declaration and name.
pub(super) fn choose(facts: &ColumnFacts, profile: &ColumnProfile, is_rowid: bool) -> Choice {
    let declared = declared(facts);
    if is_rowid {
        return Kind::Whole(64).into();
    }
    let null_texts = profile.trials.iter().flat_map(|trial| trial.nulls.values()).max().copied().unwrap_or(0);
    if profile.values() == 0 || profile.values() == null_texts {
        return declared.unwrap_or(Kind::Text).into();
    }
    let likely = |kind: Kind| profile.trial(kind).is_some_and(|trial| trial.is_likely());
    let most = |count: u64| count.saturating_mul(10) >= profile.values().saturating_mul(9);
    if most(profile.blobs) && likely(Kind::Bytes) {
        return Kind::Bytes.into();
    }
    if likely(Kind::Boolean) && is_boolean(profile, declared) {
        return Kind::Boolean.into();
    }
    if likely(Kind::Jsonb) && (declared == Some(Kind::Jsonb) || structured(profile)) {
        // jsonb would keep only the last value of a key that an object has twice.
        let repeats = profile.trial(Kind::Jsonb).is_some_and(|trial| trial.changes.repeats > 0);
        return if repeats { Kind::Json.into() } else { Kind::Jsonb.into() };
    }
    if let Some(choice) = choose_time(facts, profile) {
        return choice;
    }
    if let Some(bounded @ Kind::Numeric(_)) = declared {
        let holds_all = profile.trial(bounded).is_some_and(|trial| trial.failures == 0 && trial.fits > 0);
        let numeric = if holds_all { bounded } else { Kind::Numeric(None) };
        if likely(numeric) {
            return numeric.into();
        }
    }
    // A column declared as text stays text even if its values look like numbers, because codes may have leading zeros.
    let is_text = matches!(declared, Some(Kind::Text)) || (declared.is_none() && most(profile.texts));
    if !is_text && likely(Kind::Whole(64)) && (profile.reals == 0 || declared == Some(Kind::Whole(64))) {
        return Kind::Whole(64).into();
    }
    if !is_text && likely(Kind::Double) && declared != Some(Kind::Bytes) {
        return Kind::Double.into();
    }
    if !is_text && likely(Kind::Numeric(None)) {
        return Kind::Numeric(None).into();
    }
    // A few blobs among texts do not make the column bytea.
    let is_of_bytes = profile.blobs >= profile.texts && likely(Kind::Bytes);
    if is_of_bytes { Kind::Bytes.into() } else { Kind::Text.into() }
}

/// Returns true if nearly all values begin as a JSON object or array does. Texts that mean NULL are not included.
fn structured(profile: &ColumnProfile) -> bool {
    let null_texts: u64 = profile.trial(Kind::Jsonb).map_or(0, |trial| trial.nulls.values().sum());
    profile.structured > 0 && profile.structured.saturating_mul(10) >= (profile.values() - null_texts).saturating_mul(9)
}

/// Returns true if all values that arrive are stored in the file as the target's type, so that SQLite compares them as
/// PostgreSQL does.
pub(super) fn is_plain(profile: &ColumnProfile, kind: Kind) -> bool {
    match kind {
        Kind::Text => profile.integers + profile.reals == 0,
        Kind::Boolean => profile.texts + profile.reals == 0,
        _ => {
            // Texts that become NULL or are rejected are not compared.
            let trial = profile.trial(kind);
            let nulls = trial.map_or(0, |trial| trial.nulls.values().sum::<u64>());
            let failures = trial.map_or(0, |trial| trial.failures);
            let rejected = if profile.reals + profile.blobs == 0 || kind != Kind::Whole(64) { failures } else { 0 };
            profile.texts <= nulls + rejected
        }
    }
}

/// Returns true if a column holds booleans, and no values that differ in the file become equal.
fn is_boolean(profile: &ColumnProfile, declared: Option<Kind>) -> bool {
    const PAIRS: [[&str; 2]; 5] = [["true", "false"], ["yes", "no"], ["y", "n"], ["t", "f"], ["on", "off"]];
    let (digits, words): (Vec<&str>, Vec<&str>) =
        profile.boolean_words.iter().map(String::as_str).partition(|word| ["1", "0"].contains(word));
    let is_pair = words.is_empty() || PAIRS.iter().any(|pair| words.iter().all(|word| pair.contains(word)));
    let (fits, numbers) = (
        profile.trial(Kind::Boolean).map_or(0, |trial| trial.fits),
        profile.trial(Kind::Whole(64)).map_or(0, |trial| trial.fits),
    );
    let has_words = !words.is_empty() && fits > numbers && profile.distinct >= 2;
    is_pair
        && match declared {
            Some(Kind::Boolean) => true,
            Some(Kind::Text) => has_words && digits.is_empty() && words.iter().all(|word| PAIRS[0].contains(word)),
            Some(Kind::Whole(_)) => has_words,
            _ => has_words && digits.is_empty(),
        }
}

/// Returns true if programs may have recorded these numbers as times since 1970. Numbers before 2000 alone are those of
/// another epoch: SQLite is not older.
fn is_plausible((earliest, latest): &(Counted, Counted)) -> bool {
    earliest.time.as_str() >= "1979-01-01" && ("2000-01-01".."2101-01-01").contains(&latest.time.as_str())
}

fn is_named_time(facts: &ColumnFacts) -> bool {
    matches!(declared(facts), Some(Kind::Instant | Kind::Date)) || is_time_name(&facts.name)
}

/// Asks about numbers that look like times by their column's name, but are not plausible as times since 1970. Names the
/// epochs in which they are plausible.
pub(super) fn epoch_question(facts: &ColumnFacts, profile: &ColumnProfile, kind: Kind) -> Option<String> {
    let is_likely = profile.trial(Kind::Instant).is_some_and(|trial| trial.is_likely());
    let (earliest, latest) = profile.counted.as_ref()?;
    let is_odd = if kind.is_time() { !profile.counted.as_ref().is_none_or(is_plausible) } else { is_named_time(facts) };
    if !is_likely || !is_odd || profile.forms.numbers() == 0 {
        return None;
    }
    let (least, greatest) = profile.counts?;
    let read = |number: Cell<'_>, epoch: Epoch| {
        let mut time = Vec::new();
        Converter::in_unit(Kind::Instant, epoch, Tz::UTC).write(number, &mut time).ok()?;
        String::from_utf8(time).ok()
    };
    let plausible = Epoch::NAMES.iter().filter_map(|(epoch, name, description)| {
        let (first, last) = (read(least, *epoch)?, read(greatest, *epoch)?);
        let is_plausible = first.as_str() >= "1995-01-01" && ("2007-01-01".."2045-01-01").contains(&last.as_str());
        is_plausible.then(|| format!("epoch = \"{name}\" ({description}): {first} to {last}"))
    });
    let plausible: Vec<String> = plausible.collect();
    if plausible.is_empty() && declared(facts) != Some(Kind::Instant) && !kind.is_time() {
        return None;
    }
    let zeros = if earliest.time.starts_with("1970-01-01 00:00:00+") { ", with 0" } else { "" };
    let seen = format!(
        "as times since 1970 its numbers are {} to {}{zeros}, which is not plausible",
        earliest.time, latest.time
    );
    let effect = match kind.is_time() {
        true => "the plan reads them so. If that is wrong, set",
        false => "it stays a number. If these are times, set type = \"timestamptz\" with",
    };
    let epochs = if plausible.is_empty() { "their epoch".to_owned() } else { plausible.join(", or ") };
    Some(format!("{seen}: {effect} {epochs}"))
}

fn choose_time(facts: &ColumnFacts, profile: &ColumnProfile) -> Option<Choice> {
    let trial = profile.trial(Kind::Instant).filter(|trial| trial.is_likely())?;
    let is_named_time = is_named_time(facts);
    let forms = &profile.forms;
    // Numbers are times only if the column's name or declaration says so, and if a program may have recorded such
    // times.
    if forms.numbers() > 0 && (!is_named_time || !profile.counted.as_ref().is_none_or(is_plausible)) {
        return None;
    }
    let written = forms.local + forms.offset + forms.dates;
    if forms.numbers() == 0 && written.saturating_mul(10) < trial.fits.saturating_mul(9) {
        return None;
    }
    if forms.dates + forms.date_digits == trial.fits {
        let is_date = profile.trial(Kind::Date).is_some_and(|trial| trial.is_likely());
        return is_date.then(|| Kind::Date.into());
    }
    Some(Choice { kind: Kind::Instant, epoch: unit(profile) })
}

/// Returns the unit of the numbers in a column of times. Returns [`Epoch::Auto`] if the numbers have several units, or
/// if the earliest and the latest number do not give the times of the profile when they are read in that unit.
pub(super) fn unit(profile: &ColumnProfile) -> Epoch {
    let forms = &profile.forms;
    let units = [Epoch::S, Epoch::Ms, Epoch::Us, Epoch::Ns];
    let mut used = units.into_iter().zip(forms.counted).filter(|(_, count)| *count > 0);
    let (Some((unit, count)), None) = (used.next(), used.next()) else { return Epoch::Auto };
    let is_same = |end: &Counted| {
        let mut time = Vec::new();
        let read = Converter::in_unit(Kind::Instant, unit, Tz::UTC).write(end.number, &mut time);
        read.is_ok() && time == end.time.as_bytes()
    };
    let ends = profile.counted.as_ref().filter(|_| count == forms.numbers());
    if ends.is_some_and(|(earliest, latest)| is_same(earliest) && is_same(latest)) { unit } else { Epoch::Auto }
}

fn is_time_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["time", "date", "timestamp", "datetime", "ts", "at", "created", "updated", "day", "epoch"];
    name.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|part| words.contains(&part))
        || ["time", "date", "timestamp", "_utc", "ticks"].iter().any(|end| name.ends_with(end))
}

/// Returns a type as it is written in the plan.
pub(super) fn written(kind: Kind) -> String {
    match kind {
        Kind::Whole(16) => "smallint".to_owned(),
        Kind::Whole(32) => "integer".to_owned(),
        Kind::Whole(_) => "bigint".to_owned(),
        Kind::Double => "double precision".to_owned(),
        Kind::Single => "real".to_owned(),
        Kind::Numeric(None) => "numeric".to_owned(),
        Kind::Numeric(Some((precision, scale))) => format!("numeric({precision}, {scale})"),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Instant => "timestamptz".to_owned(),
        Kind::Local => "timestamp".to_owned(),
        Kind::Date => "date".to_owned(),
        Kind::Jsonb => "jsonb".to_owned(),
        Kind::Json => "json".to_owned(),
        Kind::Text | Kind::Character | Kind::Other => "text".to_owned(),
        Kind::Bytes => "bytea".to_owned(),
        Kind::Uuid => "uuid".to_owned(),
    }
}
