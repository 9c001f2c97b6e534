//! The types that only the server reads, such as `inet`, `interval` or arrays: tells whether the server holds a text exactly.
//!
//! Many of these types accept several notations of a value, and some of them silently cut or round it: `varchar(n)` drops
//! spaces, `name` keeps 63 bytes, `money` rounds. A text is held exactly if the server writes the value back in the same
//! words, or if a rule for the type shows that it is the same value in another notation.

use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::platform::error::{Error, Result, one_line};

/// The rule that shows that two texts are the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// The type holds every text that it accepts, as it is.
    Verbatim,
    /// The type holds every value that it accepts, but may write it in another way.
    Any,
    /// Only an equal text is the same value.
    Exact,
    /// Spaces at the end do not count.
    Padded,
    /// Texts of digits and marks are the same value if they have the same numbers; other texts must be equal.
    Numbers,
    /// A number with another number of zeros is the same amount.
    Money,
    /// A time of day.
    Time,
    /// A time of day with an offset.
    TimeWithOffset,
    /// An interval whose fraction, if any, is one of a second.
    Interval,
    /// A range of dates.
    Dates,
}

/// The characters of a text of numbers and marks, for a regular expression.
const MARKS: &str = r#"[][(){}<>,;:/"= 0-9.+-]"#;

impl Notation {
    /// Returns the condition that the server's text `stored` is the value of the text `written`; both are SQL expressions.
    fn condition(self, written: &str, stored: &str, unbounded: &str) -> String {
        let matches = |pattern: &str| format!("{written} ~* {}", literal(pattern));
        // A type without length or precision shows that these have not changed the value.
        let is_whole = format!("{stored} = pg_catalog.concat({written}::{unbounded})");
        match self {
            Notation::Verbatim | Notation::Any => "true".to_owned(),
            Notation::Exact => format!("{written} = {stored}"),
            Notation::Padded => format!("pg_catalog.rtrim({written}, ' ') = pg_catalog.rtrim({stored}, ' ')"),
            Notation::Numbers => {
                let has_numbers = matches(&format!(r"^(?:{MARKS}|[0-9.]e[-+]?[0-9])*$"));
                let numbers = |text: &str| {
                    format!(
                        "ARRAY(SELECT m[1]::pg_catalog.numeric FROM pg_catalog.regexp_matches({text}, {}, 'g') m)",
                        literal(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)")
                    )
                };
                let (one, other) = (numbers(written), numbers(stored));
                format!("({written} = {stored} OR CASE WHEN {has_numbers} THEN {one} = {other} ELSE false END)")
            }
            Notation::Money => {
                let is_number = matches(r"^\s*[-+]?[0-9]+(\.[0-9]+)?\s*$");
                let amount = format!("{stored}::pg_catalog.money::pg_catalog.numeric");
                format!(
                    "CASE WHEN {is_number} THEN {written}::pg_catalog.numeric = {amount} ELSE {written} = {stored} END"
                )
            }
            Notation::Time => {
                format!("{} AND {is_whole}", matches(r"^\s*\d{1,2}:[0-5]\d(:[0-5]\d(\.\d{1,6}0*)?)?\s*$"))
            }
            Notation::TimeWithOffset => {
                let pattern = r"^\s*\d{1,2}:[0-5]\d(:[0-5]\d(\.\d{1,6}0*)?)?\s*(z|[-+]\d{1,2}(:?[0-5]\d)?)\s*$";
                format!("{} AND {is_whole}", matches(pattern))
            }
            // A number without a unit is refused: the server would read seconds.
            Notation::Interval => format!(
                "{} AND {} AND {is_whole}",
                matches(r"[a-z:]"),
                matches(r"^[^.]*(\.\d{1,6}0*\s*(s|secs?|seconds?)?(\s+ago)?\s*)?$")
            ),
            Notation::Dates => matches(r#"^[][(){},\s"]*(\d{4}-\d{2}-\d{2}[][(){},\s"]*)*$"#),
        }
    }
}

/// A type that only the server reads.
pub(super) struct ServerType {
    /// Its quoted name without length or precision: that of the type under a domain, which may have some too.
    pub(super) unbounded: String,
    /// The type, as the plan writes it.
    target_type: String,
    /// The rule for its values, or for the elements of an array.
    notation: Notation,
    /// The element type of an array, without length or precision.
    element: Option<String>,
}

impl ServerType {
    /// Reads the properties of a type.
    pub(super) fn read(session: &mut Session, target_type: &str) -> Result<Self> {
        let row = session.row(&format!(
            "WITH RECURSIVE types AS (
                 SELECT t.oid, t.typbasetype, t.typtypmod FROM pg_catalog.pg_type t WHERE t.oid = {}::pg_catalog.regtype
                  UNION ALL SELECT t.oid, t.typbasetype, t.typtypmod
                   FROM types d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype)
             SELECT n.nspname AS schema, t.typname AS name, t.typtype AS kind, t.typcategory AS category,
                    (SELECT pg_catalog.bool_or(typtypmod <> -1) FROM types) AS is_bounded,
                    pg_catalog.format_type(e.oid, NULL) AS element
               FROM types b JOIN pg_catalog.pg_type t ON t.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
               LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
              WHERE b.typbasetype = 0",
            literal(target_type)
        ))?;
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        // Quoted, because PostgreSQL reads unquoted `char` and `bit` as char(1) and bit(1).
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let unbounded = format!("{}.{}", quoted(schema), quoted(name));
        let is_bounded = row.flag("is_bounded")? || target_type.contains('(');
        let target_type = target_type.to_owned();
        if let Some(element) = row.owned("element")? {
            let element = ServerType::read(session, &element)?;
            let notation = match element.notation {
                Notation::Verbatim if is_bounded => Notation::Exact,
                // The quotes of elements may be left out.
                Notation::Verbatim => Notation::Any,
                other => other,
            };
            return Ok(ServerType { unbounded, target_type, notation, element: Some(element.unbounded) });
        }
        let notation = match (row.text("kind")?, row.text("category")?, name) {
            ("e", ..) => Notation::Verbatim,
            ("b", "S", "text" | "varchar" | "citext") if !is_bounded => Notation::Verbatim,
            (_, _, "bpchar") => Notation::Padded,
            _ if schema != "pg_catalog" => by_category(row.text("kind")?, row.text("category")?),
            (_, _, "bool" | "int2" | "int4" | "int8" | "uuid" | "bytea") => Notation::Any,
            (_, _, "inet" | "cidr" | "macaddr" | "macaddr8") => Notation::Any,
            (_, _, "int4range" | "int8range" | "int4multirange" | "int8multirange") => Notation::Any,
            (_, _, "daterange" | "datemultirange") => Notation::Dates,
            (_, _, "money") => Notation::Money,
            (_, _, "time") => Notation::Time,
            (_, _, "timetz") => Notation::TimeWithOffset,
            (_, _, "interval") => Notation::Interval,
            (kind, category, _) => by_category(kind, category),
        };
        Ok(ServerType { unbounded, target_type, notation, element: None })
    }

    /// Returns true if the type may hold another value than that of a text which it accepts.
    pub(super) fn may_change(&self) -> bool {
        !matches!(self.notation, Notation::Verbatim | Notation::Any)
    }

    /// Returns an SQL expression for the text that the server writes for a value; `written` is one for the value's text.
    fn stored(&self, written: &str) -> String {
        // The output function, which a cast to text does not always use.
        format!("pg_catalog.concat({written}::{}::{})", self.unbounded, self.target_type)
    }

    /// Returns the condition that the server holds the value of a text exactly; `written` is an SQL expression for the text.
    pub(super) fn is_held(&self, written: &str) -> String {
        let stored = self.stored(written);
        let Some(element) = &self.element else {
            return self.notation.condition(written, &stored, &self.unbounded);
        };
        let same = self.notation.condition("x.written", "x.stored", element);
        format!(
            "NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest({written}::text[]), pg_catalog.unnest({stored}::text[])) \
             AS x(written, stored) WHERE NOT coalesce({same}, x.written IS NULL AND x.stored IS NULL))"
        )
    }

    /// Returns for each text the one that the server writes for it, or `None` if it does not hold it exactly. Must be called
    /// in a transaction.
    pub(super) fn canonical(&self, session: &mut Session, texts: &[&str]) -> Result<Vec<Option<String>>> {
        if self.notation == Notation::Verbatim {
            return Ok(texts.iter().map(|text| Some((*text).to_owned())).collect());
        }
        self.held(session, texts)
    }

    /// Returns the same, also `None` for a text that the server refuses.
    pub(super) fn held(&self, session: &mut Session, texts: &[&str]) -> Result<Vec<Option<String>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        // Functions that check a domain find others by the search path that the app has, as they do while rows are loaded.
        session.execute("SAVEPOINT lifeboat_texts; SET LOCAL search_path = DEFAULT")?;
        let list: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        let found = session.rows(&format!(
            "SELECT CASE WHEN {} THEN {} END AS text
               FROM pg_catalog.unnest(ARRAY[{}]::text[]) WITH ORDINALITY AS v(text, place) ORDER BY place",
            self.is_held("v.text"),
            self.stored("v.text"),
            list.join(", ")
        ));
        session.execute("ROLLBACK TO SAVEPOINT lifeboat_texts; RELEASE SAVEPOINT lifeboat_texts")?;
        match found {
            Ok(rows) => rows.iter().map(|row| row.owned("text")).collect(),
            Err(error) if !is_refusal(&error) => Err(error),
            Err(_) if texts.len() == 1 => Ok(vec![None]),
            // One of them is refused.
            Err(_) => {
                let (one, other) = texts.split_at(texts.len() / 2);
                Ok([self.held(session, one)?, self.held(session, other)?].concat())
            }
        }
    }
}

/// Returns the reason why a value of a type is rejected that the server does not hold exactly.
pub(super) fn not_held(target_type: &str) -> String {
    format!("the type {} does not hold this value exactly as it is written", one_line(target_type))
}

/// Returns the rule for a type without a rule of its own.
fn by_category(kind: &str, category: &str) -> Notation {
    match (kind, category) {
        // Texts, the internal type "char", and bits, to which a cast adds zeros.
        (_, "S" | "Z" | "V") => Notation::Exact,
        ("b" | "r" | "m", _) => Notation::Numbers,
        // A row, whose fields may be of any type.
        _ => Notation::Exact,
    }
}

/// Returns true if the failure was caused by the content of a row (a data exception, a violated constraint, a limit of the
/// server, or an exception that code of the target has raised) and not by the circumstances.
pub(super) fn is_refusal(error: &Error) -> bool {
    let of_row = |state: String| ["22", "23", "54"].iter().any(|class| state.starts_with(class)) || state == "P0001";
    sqlstate(error).is_some_and(of_row)
}
