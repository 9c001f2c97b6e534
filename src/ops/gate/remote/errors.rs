//! Errors in the documents of the other lifeboat.

use serde_json::Value;

use crate::platform::error::{Error, Kind, one_line};

/// Reads an error of the other lifeboat. Returns `None` if the value is not an error.
pub(super) fn error_of(value: &Value) -> Option<Error> {
    let fields = value.as_object()?;
    let text = |field: &str| fields.get(field).and_then(Value::as_str).map(one_line);
    let kinds = [Kind::Failed, Kind::Usage, Kind::Problem, Kind::NotFound, Kind::Unreachable, Kind::Interrupted];
    let name = text("kind")?;
    let kind = kinds.into_iter().find(|kind| kind.name() == name);
    let mut message = text("message").unwrap_or_default();
    for cause in fields.get("causes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        message.push_str(&format!(": {}", one_line(cause)));
    }
    let error = Error::new(kind.unwrap_or(Kind::Failed), message);
    Some(match text("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
