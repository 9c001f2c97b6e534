//! Translates defaults of columns to PostgreSQL's SQL: literals, and expressions of the clock and of random values.
//!
//! A new row in the target gets the value that the same program would have written to SQLite, converted to the type of
//! the plan. An expression that may give another value is not carried over, and the reason is reported.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::convert::{Converter, Kind};
use super::plan::Epoch;
use super::translate::{Token, tokens};
use crate::engine::postgres::schema::quote::literal;
use crate::engine::sqlite::values::Cell;

/// The column of the target that gets a default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The class of its type.
    pub kind: Kind,
    /// The unit of its numbers, if it holds times.
    pub epoch: Epoch,
    /// The zone of times without an offset.
    pub zone: Tz,
}

/// A default in PostgreSQL's SQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// The expression; `None` is NULL.
    pub sql: Option<String>,
    /// The clock whose time it writes without an offset in SQLite, if any.
    pub clock: Option<Clock>,
}

/// A clock that SQLite reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// The time in UTC.
    Utc,
    /// The time in the zone of the machine.
    Local,
}

/// The value of an expression.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Bytes(String),
    /// The hexadecimal digits of bytes, in capitals.
    Hex(String),
    Whole(String),
    /// A text that is JSON, itself a literal.
    Json(String),
    /// A literal, which may become a value of any type.
    Fixed(Fixed),
    Now(Now),
}

#[derive(Clone, Debug)]
enum Fixed {
    Text(String),
    Number(String),
}

/// The current time in some form.
#[derive(Clone, Debug)]
struct Now {
    form: Form,
    clock: Clock,
    /// The modifiers that move it, as intervals of PostgreSQL.
    shifts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// A text in a format of `strftime`.
    Format(String),
    Julian,
    /// Days since 1970, with a fraction.
    Days,
    /// Seconds since 1970.
    Seconds {
        is_whole: bool,
    },
    /// Milliseconds since 1970; whole seconds only if the seconds were cut before.
    Millis {
        is_whole: bool,
        has_whole_seconds: bool,
    },
}

type Answer<T> = Result<T, String>;

fn untranslatable<T>() -> Answer<T> {
    Err("it may mean something else in PostgreSQL".to_owned())
}

/// Translates a default, or returns the reason why it cannot be translated.
pub(super) fn default(sql: &str, target: Target) -> Answer<Carried> {
    let tokens: Vec<Token> = tokens(sql).into_iter().map(|(_, token)| token).collect();
    let is_word = |word: &str| matches!(tokens.as_slice(), [Token::Word(found)] if found.eq_ignore_ascii_case(word));
    if is_word("null") {
        return Ok(Carried::default());
    }
    if is_word("true") || is_word("false") {
        let sql = default_value(Cell::Integer(i64::from(is_word("true"))), target)?;
        return Ok(Carried { sql: Some(sql), clock: None });
    }
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let value = parser.sum()?;
    if parser.at != tokens.len() {
        return untranslatable();
    }
    let clock = match &value {
        Value::Now(Now { form: Form::Format(format), clock, .. }) if !format.ends_with('Z') => Some(*clock),
        _ => None,
    };
    Ok(Carried { sql: Some(assign(value, target)?), clock })
}

/// Returns the SQL of a value as a default of a column.
fn assign(value: Value, target: Target) -> Answer<String> {
    let value = if let Value::Hex(_) = value { Value::Text(text_of(value)?) } else { value };
    Ok(match (value, target.kind) {
        (Value::Fixed(Fixed::Text(text)), _) => return default_value(Cell::Text(text.as_bytes()), target),
        (Value::Fixed(Fixed::Number(number)), _) => return numeric(&number, target),
        (Value::Json(json), Kind::Jsonb | Kind::Json | Kind::Text) => literal(&json),
        (Value::Text(sql), Kind::Text) | (Value::Bytes(sql), Kind::Bytes) => sql,
        (Value::Text(sql), Kind::Uuid) if sql.contains("gen_random_uuid()") => format!("({sql})::uuid"),
        (Value::Whole(sql), Kind::Whole(_) | Kind::Numeric(_)) => sql,
        (Value::Whole(sql), Kind::Double) => format!("({sql})::double precision"),
        (Value::Whole(sql), Kind::Text) => format!("({sql})::text"),
        (Value::Now(now), Kind::Instant) => now.instant(target)?,
        (Value::Now(now), Kind::Date) => match &now.form {
            Form::Format(format) if time_format(format) == Some((Precision::Day, false)) => {
                format!("({})::date", now.local(target)?)
            }
            _ => return untranslatable(),
        },
        (Value::Now(now), Kind::Text) => now.text(target)?,
        (Value::Now(now), Kind::Whole(_) | Kind::Double | Kind::Numeric(_)) => now.number(target)?,
        _ => return untranslatable(),
    })
}

/// The part of a time that a format contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    Day,
    Time,
}

/// Returns the precision of a format that writes a time as programs store it, and true if the format ends with the
/// offset of UTC.
fn time_format(format: &str) -> Option<(Precision, bool)> {
    let plain = format.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S").replace("%R", "%H:%M");
    let plain = plain.replace('/', "-");
    let rest = plain.strip_prefix("%Y-%m-%d").or_else(|| plain.strip_prefix("%Y%m%d"))?;
    if rest.is_empty() {
        return Some((Precision::Day, false));
    }
    let rest = rest.strip_prefix(['T', ' ']).unwrap_or(rest);
    let rest = rest.strip_prefix("%H:%M").or_else(|| rest.strip_prefix("%H%M"))?;
    let rest = ["%f", "%S"].iter().find_map(|second| rest.trim_start_matches(':').strip_prefix(second)).unwrap_or(rest);
    let rest = rest.strip_prefix('.').map_or(rest, |digits| digits.trim_start_matches('0'));
    match rest {
        "" => Some((Precision::Time, false)),
        "Z" | "+00:00" | "+00" | " UTC" | " +00:00" => Some((Precision::Time, true)),
        _ => None,
    }
}

/// Returns the format of `to_char` for a format of `strftime`.
fn to_char_format(format: &str) -> Option<String> {
    let mut out = String::new();
    let mut plain = String::new();
    let mut letters = format.chars();
    let flush = |plain: &mut String, out: &mut String| {
        let is_mark =
            |letter: char| letter.is_ascii() && !letter.is_ascii_alphanumeric() && letter != '"' && letter != '\\';
        if plain.chars().all(is_mark) {
            out.push_str(plain);
        } else {
            out.push_str(&format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\"")));
        }
        plain.clear();
    };
    while let Some(letter) = letters.next() {
        if letter != '%' {
            plain.push(letter);
            continue;
        }
        let pattern = match letters.next()? {
            '%' => {
                plain.push('%');
                continue;
            }
            'Y' => "YYYY",
            'm' => "MM",
            'd' => "DD",
            'H' => "HH24",
            'I' => "HH12",
            'M' => "MI",
            'S' => "SS",
            'f' => "SS.MS",
            'j' => "DDD",
            'p' => "AM",
            'u' => "ID",
            'G' => "IYYY",
            'V' => "IW",
            'F' => "YYYY-MM-DD",
            'T' => "HH24:MI:SS",
            'R' => "HH24:MI",
            _ => return None,
        };
        flush(&mut plain, &mut out);
        out.push_str(pattern);
    }
    flush(&mut plain, &mut out);
    Some(out)
}

impl Now {
    /// Returns the instant, moved by the modifiers.
    fn moved(&self) -> String {
        let shifts: String = self.shifts.iter().map(|shift| format!(" + {shift}")).collect();
        if shifts.is_empty() { "now()".to_owned() } else { format!("(now(){shifts})") }
    }

    /// Returns the zone of the clock.
    fn zone(&self, target: Target) -> Answer<String> {
        match self.clock {
            Clock::Utc => Ok("'UTC'".to_owned()),
            Clock::Local if target.zone == Tz::UTC => {
                Err("it writes the local time of the machine: plan with --zone to carry it over".to_owned())
            }
            Clock::Local => Ok(literal(target.zone.name())),
        }
    }

    /// Returns the time of the clock, without a zone.
    fn local(&self, target: Target) -> Answer<String> {
        Ok(format!("{} AT TIME ZONE {}", self.moved(), self.zone(target)?))
    }

    fn instant(&self, target: Target) -> Answer<String> {
        let is_in = |units: &[Epoch]| target.epoch == Epoch::Auto || units.contains(&target.epoch);
        match &self.form {
            Form::Format(format) => {
                let Some((precision, has_offset)) = time_format(format) else { return untranslatable() };
                if has_offset && self.clock == Clock::Local {
                    return Err("it writes local time as if it were UTC".to_owned());
                }
                if precision == Precision::Day {
                    return Ok(format!("date_trunc('day', {}, {})", self.moved(), self.zone(target)?));
                }
                // Programs in a zone without summer time add its offset instead of 'localtime'.
                let is_zone = |shift: &String| fixed_offset(target.zone).is_some_and(|offset| *shift == hours(offset));
                if !has_offset && target.zone != Tz::UTC && self.shifts.len() == 1 && self.shifts.iter().all(is_zone) {
                    return Ok("now()".to_owned());
                }
            }
            Form::Seconds { .. } if is_in(&[Epoch::S]) => {}
            Form::Millis { .. } if is_in(&[Epoch::Ms]) => {}
            Form::Julian if is_in(&[]) => {}
            _ => return untranslatable(),
        }
        Ok(self.moved())
    }

    fn text(&self, target: Target) -> Answer<String> {
        match &self.form {
            Form::Format(format) => {
                let Some(format) = to_char_format(format) else { return untranslatable() };
                Ok(format!("to_char({}, {})", self.local(target)?, literal(&format)))
            }
            Form::Seconds { is_whole: true } | Form::Millis { is_whole: true, .. } => {
                Ok(format!("({})::text", self.number(Target { kind: Kind::Whole(64), ..target })?))
            }
            _ => untranslatable(),
        }
    }

    fn number(&self, target: Target) -> Answer<String> {
        let seconds = format!("extract(epoch FROM {})", self.moved());
        let (sql, is_whole) = match &self.form {
            Form::Format(format) => {
                let digits = to_char_format(format).filter(|_| {
                    let plain = format.split('%').skip(1).all(|part| "YmdHMSjuGV".contains(part));
                    plain && format.starts_with('%') && !format.contains("%%")
                });
                let Some(digits) = digits else { return untranslatable() };
                (format!("to_char({}, {})::bigint", self.local(target)?, literal(&digits)), true)
            }
            Form::Julian => (format!("{seconds} / 86400.0 + 2440587.5"), false),
            Form::Days => (format!("{seconds} / 86400.0"), false),
            Form::Seconds { is_whole: true } => (format!("floor({seconds})::bigint"), true),
            Form::Seconds { is_whole: false } => (seconds, false),
            Form::Millis { has_whole_seconds: true, .. } => (format!("floor({seconds})::bigint * 1000"), true),
            Form::Millis { is_whole: true, .. } => (format!("floor({seconds} * 1000)::bigint"), true),
            Form::Millis { .. } => (format!("{seconds} * 1000"), false),
        };
        match target.kind {
            Kind::Whole(_) if is_whole => Ok(sql),
            Kind::Numeric(None) => Ok(sql),
            Kind::Double => Ok(format!("({sql})::double precision")),
            _ => untranslatable(),
        }
    }
}

/// Returns the offset of a zone from UTC in hours, if it is the same all year.
fn fixed_offset(zone: Tz) -> Option<i64> {
    let offset = |seconds| {
        let instant = DateTime::from_timestamp(seconds, 0)?.naive_utc();
        Some(zone.offset_from_utc_datetime(&instant).fix().local_minus_utc())
    };
    // January and July 2026.
    let (winter, summer) = (offset(1_768_000_000)?, offset(1_783_600_000)?);
    (winter == summer && winter % 3600 == 0).then_some(i64::from(winter / 3600))
}

fn hours(hours: i64) -> String {
    format!("interval '{hours} hours'")
}

/// Returns an expression of random bytes.
fn random_bytes(count: &str) -> Answer<String> {
    // A random UUID has 122 random bits and 6 fixed ones, so two of them are hashed.
    const PART: &str = "sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))";
    let count: usize = count.parse().map_err(|_| "it may mean something else in PostgreSQL".to_owned())?;
    if count == 0 || count > 256 {
        return Err("it would need more random bytes than are supported".to_owned());
    }
    let parts = vec![PART; count.div_ceil(32)].join(" || ");
    let parts = if count > 32 { format!("({parts})") } else { parts };
    Ok(if count.is_multiple_of(32) { parts } else { format!("substr({parts}, 1, {count})") })
}

/// The greatest nesting depth of a default that is translated.
const MAX_DEPTH: usize = 50;

/// Parses an expression and translates it on the way.
struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn mark(&mut self, marks: &[&str]) -> Option<String> {
        match self.tokens.get(self.at) {
            Some(Token::Mark(mark)) if marks.contains(&mark.as_str()) => {
                self.at += 1;
                Some(mark.clone())
            }
            _ => None,
        }
    }

    fn require(&mut self, mark: &str) -> Answer<()> {
        self.mark(&[mark]).map_or_else(untranslatable, |_| Ok(()))
    }

    fn sum(&mut self) -> Answer<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return untranslatable();
        }
        let mut left = self.product()?;
        while let Some(mark) = self.mark(&["+", "-"]) {
            let right = self.product()?;
            left = match (left, &right) {
                (Value::Now(now), Value::Fixed(Fixed::Number(days)))
                    if now.form == Form::Julian && mark == "-" && days == "2440587.5" =>
                {
                    Value::Now(Now { form: Form::Days, ..now })
                }
                (left, right) => arithmetic(&left, &mark, right)?,
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn product(&mut self) -> Answer<Value> {
        let mut left = self.concatenation()?;
        while let Some(mark) = self.mark(&["*", "%"]) {
            let right = self.concatenation()?;
            left = match (left, &right) {
                (Value::Now(now), Value::Fixed(Fixed::Number(factor))) if mark == "*" => multiply(now, factor)?,
                (left, right) => arithmetic(&left, &mark, right)?,
            };
        }
        Ok(left)
    }

    fn concatenation(&mut self) -> Answer<Value> {
        let mut left = self.value()?;
        while self.mark(&["||"]).is_some() {
            let right = self.value()?;
            left = Value::Text(format!("{} || {}", text_of(left)?, text_of(right)?));
        }
        Ok(left)
    }

    fn value(&mut self) -> Answer<Value> {
        if let Some(sign) = self.mark(&["-", "+"]) {
            return match self.tokens.get(self.at) {
                Some(Token::Number(number)) => {
                    self.at += 1;
                    Ok(Value::Fixed(Fixed::Number(format!("{sign}{number}"))))
                }
                _ => untranslatable(),
            };
        }
        if self.mark(&["("]).is_some() {
            let inner = self.sum()?;
            self.require(")")?;
            return Ok(match inner {
                Value::Text(sql) => Value::Text(format!("({sql})")),
                Value::Whole(sql) => Value::Whole(format!("({sql})")),
                other => other,
            });
        }
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        match token {
            Some(Token::Text(text) | Token::Quoted(text)) => Ok(Value::Fixed(Fixed::Text(text))),
            Some(Token::Number(number)) => Ok(Value::Fixed(Fixed::Number(number))),
            Some(Token::Word(word)) => {
                let word = word.to_ascii_lowercase();
                if let ("x", Some(Token::Text(digits))) = (word.as_str(), self.tokens.get(self.at)) {
                    self.at += 1;
                    let bytes = hex::decode(digits).map_err(|_| "it is not valid".to_owned())?;
                    return Ok(Value::Bytes(format!("'\\x{}'::bytea", hex::encode(bytes))));
                }
                let format = match word.as_str() {
                    "current_timestamp" => "%Y-%m-%d %H:%M:%S",
                    "current_date" => "%Y-%m-%d",
                    "current_time" => "%H:%M:%S",
                    _ => return self.call(&word),
                };
                Ok(Value::Now(Now { form: Form::Format(format.to_owned()), clock: Clock::Utc, shifts: Vec::new() }))
            }
            _ => untranslatable(),
        }
    }

    /// Parses the arguments of a function and translates the call.
    fn call(&mut self, name: &str) -> Answer<Value> {
        self.require("(")?;
        let mut arguments = Vec::new();
        if self.mark(&[")"]).is_none() {
            loop {
                arguments.push(self.sum()?);
                let is_cast = name == "cast"
                    && matches!(self.tokens.get(self.at), Some(Token::Word(word)) if word.eq_ignore_ascii_case("as"));
                if is_cast {
                    let Some(Token::Word(to)) = self.tokens.get(self.at + 1) else { return untranslatable() };
                    self.at += 2;
                    self.require(")")?;
                    return cast(&arguments.remove(0), &to.to_ascii_lowercase());
                }
                if self.mark(&[","]).is_none() {
                    break;
                }
            }
            self.require(")")?;
        }
        function(name, arguments)
    }
}

fn multiply(now: Now, factor: &str) -> Answer<Value> {
    let form = match (&now.form, factor.trim_end_matches(".0")) {
        (Form::Seconds { is_whole }, "1000") => Form::Millis { is_whole: *is_whole, has_whole_seconds: *is_whole },
        (Form::Days, "86400") => Form::Seconds { is_whole: false },
        (Form::Days, "86400000") => Form::Millis { is_whole: false, has_whole_seconds: false },
        _ => return untranslatable(),
    };
    Ok(Value::Now(Now { form, ..now }))
}

fn cast(value: &Value, to: &str) -> Answer<Value> {
    match (value, to) {
        (Value::Now(now), "integer" | "int" | "bigint") => {
            let form = match &now.form {
                Form::Seconds { .. } => Form::Seconds { is_whole: true },
                Form::Millis { has_whole_seconds, .. } => {
                    Form::Millis { is_whole: true, has_whole_seconds: *has_whole_seconds }
                }
                _ => return untranslatable(),
            };
            Ok(Value::Now(Now { form, ..now.clone() }))
        }
        (Value::Now(Now { form: Form::Seconds { is_whole: true }, .. }), "text") => Ok(value.clone()),
        (Value::Whole(sql), "integer" | "int" | "bigint") => Ok(Value::Whole(sql.clone())),
        _ => untranslatable(),
    }
}

fn number_of(value: &Value) -> Answer<String> {
    match value {
        Value::Whole(sql) => Ok(sql.clone()),
        Value::Fixed(Fixed::Number(number)) if number.parse::<i64>().is_ok() => Ok(number.clone()),
        _ => untranslatable(),
    }
}

fn arithmetic(left: &Value, mark: &str, right: &Value) -> Answer<Value> {
    // PostgreSQL would calculate with 4 bytes, and fail where SQLite does not.
    if let (Value::Fixed(Fixed::Number(left)), Value::Fixed(Fixed::Number(right))) = (left, right) {
        let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) else { return untranslatable() };
        let result = match mark {
            "+" => left.checked_add(right),
            "-" => left.checked_sub(right),
            "*" => left.checked_mul(right),
            "%" => left.checked_rem(right),
            _ => None,
        };
        return result.map_or_else(untranslatable, |number| Ok(Value::Fixed(Fixed::Number(number.to_string()))));
    }
    Ok(Value::Whole(format!("{} {mark} {}", number_of(left)?, number_of(right)?)))
}

fn text_of(value: Value) -> Answer<String> {
    match value {
        Value::Text(sql) => Ok(sql),
        Value::Hex(sql) => Ok(format!("upper(encode({sql}, 'hex'))")),
        Value::Fixed(Fixed::Text(text)) => Ok(literal(&text)),
        Value::Now(now) if now.clock == Clock::Utc => {
            now.text(Target { kind: Kind::Text, epoch: Epoch::Auto, zone: Tz::UTC })
        }
        _ => untranslatable(),
    }
}

fn function(name: &str, mut arguments: Vec<Value>) -> Answer<Value> {
    match (name, arguments.as_slice()) {
        ("datetime" | "date" | "time" | "strftime" | "unixepoch" | "julianday", _) => return clock(name, arguments),
        ("randomblob", [Value::Fixed(Fixed::Number(count))]) => return Ok(Value::Bytes(random_bytes(count)?)),
        ("hex", [Value::Bytes(sql)]) => return Ok(Value::Hex(sql.clone())),
        ("random", []) => {
            let sql = format!("('x' || encode({}, 'hex'))::bit(64)::bigint", random_bytes("8")?);
            return Ok(Value::Whole(sql));
        }
        ("abs", [value @ Value::Whole(_)]) => return Ok(Value::Whole(format!("abs({})", number_of(value)?))),
        ("round", [Value::Now(_)]) => {
            let Value::Now(now) = arguments.remove(0) else { return untranslatable() };
            // Rounding to the nearest second may give the next one, as in SQLite.
            let now = Now { shifts: [now.shifts, vec!["interval '0.5 seconds'".to_owned()]].concat(), ..now };
            return match now.form {
                Form::Seconds { is_whole: false } => cast(&Value::Now(now), "integer"),
                _ => untranslatable(),
            };
        }
        ("json_array", []) => return Ok(Value::Json("[]".to_owned())),
        ("json_object", []) => return Ok(Value::Json("{}".to_owned())),
        ("json", [Value::Fixed(Fixed::Text(text))]) => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            if is_json && !text.contains([' ', '\n', '\t', '\r']) {
                return Ok(Value::Json(text.clone()));
            }
        }
        ("lower", [Value::Hex(sql)]) => return Ok(Value::Text(format!("encode({sql}, 'hex')"))),
        ("upper", [Value::Hex(sql)]) => return Ok(Value::Hex(sql.clone())),
        ("lower" | "upper", [Value::Text(sql)]) => return Ok(Value::Text(format!("{name}({sql})"))),
        ("substr" | "substring", [_, start, rest @ ..]) if rest.len() < 2 => {
            let mut numbers = vec![number_of(start)?];
            for count in rest {
                numbers.push(number_of(count)?);
            }
            if numbers.iter().any(|number| number.starts_with(['-', '0'])) {
                return untranslatable();
            }
            let casts: Vec<String> = numbers.iter().map(|number| format!("({number})::integer")).collect();
            return Ok(Value::Text(format!("substr({}, {})", text_of(arguments.remove(0))?, casts.join(", "))));
        }
        _ => {}
    }
    untranslatable()
}

/// Translates a call of a function of date and time that reads the clock.
fn clock(name: &str, arguments: Vec<Value>) -> Answer<Value> {
    let mut texts = Vec::new();
    for argument in arguments {
        let Value::Fixed(Fixed::Text(text)) = argument else { return untranslatable() };
        texts.push(text);
    }
    let mut texts = texts.into_iter();
    let format = if name == "strftime" { texts.next().map_or_else(untranslatable, Ok)? } else { String::new() };
    let is_now = |text: &String| ["now", "subsec", "subsecond"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let first = texts.next();
    if first.as_ref().is_some_and(|first| !is_now(first)) {
        return untranslatable();
    }
    let (mut clock, mut shifts, mut is_fine) = (Clock::Utc, Vec::new(), false);
    for modifier in first.into_iter().filter(|first| !first.eq_ignore_ascii_case("now")).chain(texts) {
        match modifier.to_ascii_lowercase().as_str() {
            "localtime" if clock == Clock::Utc => clock = Clock::Local,
            "subsec" | "subsecond" => is_fine = true,
            other => shifts.push(shift(other)?),
        }
    }
    let second = if is_fine { "%f" } else { "%S" };
    let form = match name {
        "datetime" => Form::Format(format!("%Y-%m-%d %H:%M:{second}")),
        "date" => Form::Format("%Y-%m-%d".to_owned()),
        "time" => Form::Format(format!("%H:%M:{second}")),
        "julianday" => Form::Julian,
        "unixepoch" => Form::Seconds { is_whole: !is_fine },
        _ if format == "%s" => Form::Seconds { is_whole: true },
        _ if format == "%J" => Form::Julian,
        _ => Form::Format(format),
    };
    if clock == Clock::Local && !matches!(form, Form::Format(_)) {
        return Err("it counts local time as if it were UTC".to_owned());
    }
    Ok(Value::Now(Now { form, clock, shifts }))
}

/// Translates a modifier such as `+8 hours`. Months and years are refused, because SQLite and PostgreSQL count them
/// differently at the end of a month.
fn shift(modifier: &str) -> Answer<String> {
    let (count, unit) = modifier.trim().split_once(' ').map_or_else(untranslatable, Ok)?;
    let count: i64 = count.parse().map_err(|_| "it may mean something else in PostgreSQL".to_owned())?;
    let unit = unit.trim().trim_end_matches('s');
    if !["second", "minute", "hour", "day"].contains(&unit) {
        return untranslatable();
    }
    // Days have 24 hours in SQLite, which counts in UTC.
    Ok(if unit == "day" { hours(count.saturating_mul(24)) } else { format!("interval '{count} {unit}s'") })
}

fn numeric(text: &str, target: Target) -> Answer<String> {
    match text.parse::<i64>() {
        Ok(number) => default_value(Cell::Integer(number), target),
        Err(_) => match text.parse::<f64>() {
            Ok(number) if number.is_infinite() => Err("it is out of range".to_owned()),
            Ok(number) => default_value(Cell::Real(number), target),
            Err(_) => Err("it is written differently in PostgreSQL".to_owned()),
        },
    }
}

/// Returns a value as a default of a type, or the reason why it cannot be one.
fn default_value(cell: Cell<'_>, target: Target) -> Answer<String> {
    let mut out = Vec::new();
    Converter::in_unit(target.kind, target.epoch, target.zone)
        .write(cell, &mut out)
        .map_err(|reason| reason.0.to_owned())?;
    let text = String::from_utf8_lossy(&out).into_owned();
    Ok(match target.kind {
        Kind::Instant | Kind::Local | Kind::Date => literal(&text),
        Kind::Boolean => if text == "t" { "true" } else { "false" }.to_owned(),
        // NaN and Infinity must be quoted.
        Kind::Double | Kind::Numeric(_) if text.ends_with(|last: char| last.is_ascii_alphabetic()) => literal(&text),
        Kind::Whole(_) | Kind::Numeric(_) | Kind::Double => text,
        // The converted text is escaped for COPY; the original text is needed here.
        Kind::Text | Kind::Jsonb | Kind::Json => match cell {
            Cell::Text(text) => literal(&String::from_utf8_lossy(text)),
            _ => literal(&text),
        },
        _ => return Err("it is not a valid default for that type".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(sql: &str, kind: Kind, zone: Tz) -> Answer<Carried> {
        default(sql, Target { kind, epoch: Epoch::Auto, zone })
    }

    #[test]
    fn defaults_with_the_same_meaning_are_translated() {
        let now = "to_char(now() AT TIME ZONE 'UTC'";
        let cases = [
            ("datetime('now')", Kind::Instant, "now()"),
            ("( CURRENT_TIMESTAMP )", Kind::Instant, "now()"),
            ("strftime('%s', 'now')", Kind::Whole(64), "floor(extract(epoch FROM now()))::bigint"),
            ("1", Kind::Boolean, "true"),
            ("'it''s'", Kind::Text, "'it''s'"),
            ("'{}'", Kind::Jsonb, "'{}'"),
            ("-1.5", Kind::Numeric(None), "-1.5"),
            ("'inf'", Kind::Double, "'Infinity'"),
            ("'nan'", Kind::Numeric(None), "'NaN'"),
            ("STRFTIME('%Y-%m-%d %H:%M:%S', 'NOW')", Kind::Instant, "now()"),
            ("(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW'))", Kind::Instant, "now()"),
            ("strftime('%Y-%m-%dT%H:%M:%fZ','now')", Kind::Instant, "now()"),
            (
                "strftime('%Y-%m-%dT%H:%M:%fZ','now')",
                Kind::Text,
                &format!("{now}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
            ),
            ("strftime('%Y%m%d','now')", Kind::Whole(64), &format!("{now}, 'YYYYMMDD')::bigint")),
            ("strftime('%S', 'now')", Kind::Whole(64), &format!("{now}, 'SS')::bigint")),
            ("(unixepoch() * 1000)", Kind::Whole(64), "floor(extract(epoch FROM now()))::bigint * 1000"),
            (
                "CAST((julianday('now') - 2440587.5)*86400000 AS INTEGER)",
                Kind::Whole(64),
                "floor(extract(epoch FROM now()) * 1000)::bigint",
            ),
            ("julianday('now')", Kind::Double, "(extract(epoch FROM now()) / 86400.0 + 2440587.5)::double precision"),
            ("datetime('now', '+7 days')", Kind::Instant, "(now() + interval '168 hours')"),
            ("json_array()", Kind::Jsonb, "'[]'"),
            ("'2000-01-01'", Kind::Date, "'2000-01-01'"),
            ("x'00ff'", Kind::Bytes, "'\\x00ff'::bytea"),
        ];
        for (sql, kind, wanted) in cases {
            assert_eq!(of(sql, kind, Tz::UTC).unwrap().sql.as_deref(), Some(wanted), "{sql}");
        }
        assert_eq!(of("NULL", Kind::Text, Tz::UTC), Ok(Carried::default()));
        for (sql, kind) in [
            ("9e999", Kind::Double),
            ("-9e999", Kind::Double),
            ("strftime('%Y-%M-%d %H:%m:%S', 'now')", Kind::Instant),
            ("'x'", Kind::Whole(64)),
            ("''", Kind::Instant),
            ("datetime('now', '+1 month')", Kind::Instant),
            ("datetime('now', 'utc')", Kind::Instant),
            ("datetime('2020-01-01', 'localtime')", Kind::Text),
            ("unixepoch('now', 'localtime')", Kind::Whole(64)),
            ("json_array()", Kind::Whole(64)),
            ("randomblob(-1)", Kind::Bytes),
            ("datetime('now') || ", Kind::Text),
        ] {
            assert!(of(sql, kind, Tz::UTC).is_err(), "{sql}");
        }
    }

    #[test]
    fn local_time_needs_a_zone() {
        let shanghai = chrono_tz::Asia::Shanghai;
        let local = "datetime('now', 'localtime')";
        assert!(of(local, Kind::Text, Tz::UTC).is_err());
        let carried = of(local, Kind::Text, shanghai).unwrap();
        assert_eq!(carried.clock, Some(Clock::Local));
        let wanted = "to_char(now() AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM-DD HH24:MI:SS')";
        assert_eq!(carried.sql.as_deref(), Some(wanted));
        assert_eq!(of(local, Kind::Instant, shanghai).unwrap().sql.as_deref(), Some("now()"));
        // The offset of the zone is another way to write local time.
        assert_eq!(of("datetime('now', '+8 hours')", Kind::Instant, shanghai).unwrap().sql.as_deref(), Some("now()"));
        assert!(of("strftime('%Y-%m-%dT%H:%M:%SZ', 'now', 'localtime')", Kind::Instant, shanghai).is_err());
    }
}
