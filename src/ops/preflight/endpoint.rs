//! Checks that an HTTP endpoint answers as expected.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::{HttpCheck, JsonField};
use crate::ops::summary::Check;
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::http::{Answer, Client};
use crate::platform::{interrupt, text};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// The interval at which a pause checks for a signal to stop.
const TICK: Duration = Duration::from_millis(50);
/// The maximum number of characters of a value that a message shows.
const SHOWN_CHARACTERS: usize = 80;

/// Sends requests until the endpoint answers as expected or the time `wait` is over. Sends at least one request. The
/// first request has the full timeout of the check, even if `wait` is shorter.
///
/// Returns an error only if a signal asks the program to stop.
pub fn http(check: &HttpCheck, wait: Duration) -> Result<Check> {
    let name = format!("http {}", check.url.with_path());
    let start = Instant::now();
    let (mut attempts, mut timeout) = (0_u32, check.timeout);
    loop {
        attempts += 1;
        let sent = Instant::now();
        let answer = Client::new(timeout).interruptible().get(&check.url);
        let problem = match answer.map(|answer| check_answer(check, &answer)) {
            Ok(Ok(found)) => {
                let took = text::seconds(sent.elapsed().as_secs_f64());
                return Ok(Check::good(name, format!("{} {found} in {took}", check.url)));
            }
            Ok(Err(problem)) => problem,
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => error.full_message_with_hint(),
        };
        // With too little time left, another attempt would only end in a timeout.
        let left = wait.saturating_sub(start.elapsed());
        if left < PAUSE + check.timeout.min(PAUSE) {
            let times = match attempts {
                1 => String::new(),
                _ => format!(" ({attempts} attempts in {})", text::seconds(start.elapsed().as_secs_f64())),
            };
            return Ok(Check::bad(name, format!("{problem}{times}")));
        }
        pause(PAUSE)?;
        timeout = check.timeout.min(wait.saturating_sub(start.elapsed()));
    }
}

fn pause(time: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        interrupt::check()?;
        thread::sleep(TICK.min(time));
    }
    interrupt::check()
}

/// Checks an answer. Returns a description of the answer or, as the error, of the problem.
fn check_answer(check: &HttpCheck, answer: &Answer) -> Result<String, String> {
    let url = &check.url;
    if answer.status != check.status {
        return Err(match &answer.redirect {
            Some(target) => format!("{url} redirects to {target} ({}): use the final URL", answer.status),
            None => format!("{url} answers {}, not {}", answer.status, check.status),
        });
    }
    let mut found = format!("answers {}", answer.status);
    if let Some(field) = &check.json {
        let value = find(answer, field).map_err(|problem| format!("{url} {problem}"))?;
        found.push_str(&format!(", {} is {}", one_line(&field.path), short(&value)));
    }
    if let Some(wanted) = &check.contains {
        if !String::from_utf8_lossy(&answer.body).contains(wanted) {
            let limit = if answer.is_complete { "" } else { " in its first MiB" };
            return Err(format!("the answer of {url} does not contain '{}'{limit}", one_line(wanted)));
        }
        found.push_str(&format!(", contains '{}'", one_line(wanted)));
    }
    Ok(found)
}

/// Returns the value of a field if it is the expected one. Otherwise the error describes the problem.
fn find(answer: &Answer, field: &JsonField) -> Result<String, String> {
    if !answer.is_complete {
        return Err("answers with more than the limit of 1 MiB".to_owned());
    }
    let document: Value = serde_json::from_slice(&answer.body).map_err(|_| {
        let start = answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
        match start {
            None => "answers with an empty body, not JSON".to_owned(),
            Some(b'<') => "answers HTML, not JSON: check that the URL is not that of a web page or a login".to_owned(),
            Some(_) if answer.content_type.contains("html") => "answers HTML, not JSON".to_owned(),
            Some(_) => "answers something that is not JSON".to_owned(),
        }
    })?;
    let path = one_line(&field.path);
    let Some(value) = at(&document, &field.path) else {
        return Err(format!("answers JSON without the field {path}"));
    };
    let value = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => return Err(format!("answers JSON whose {path} is not a single value")),
        other => other.to_string(),
    };
    if value != field.expected {
        return Err(format!("answers that {path} is {}, not {}", short(&value), short(&field.expected)));
    }
    Ok(value)
}

/// Returns the value at a path of field names and array indexes.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, part| match value {
        Value::Object(fields) => fields.get(part),
        Value::Array(values) => values.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

fn short(value: &str) -> String {
    let line = one_line(value);
    match line.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("'{}\u{2026}'", &line[..end]),
        None => format!("'{line}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(body: &str, path: &str, expected: &str) -> Result<String, String> {
        let answer = Answer {
            own_headers: Vec::new(),
            status: 200,
            content_type: "application/json".to_owned(),
            redirect: None,
            retry_after: None,
            body: body.as_bytes().to_vec(),
            is_complete: true,
        };
        find(&answer, &JsonField { path: path.to_owned(), expected: expected.to_owned() })
    }

    #[test]
    fn fields_are_found_by_names_and_indexes() {
        let body = r#"{"status":"ok","data":{"state":"up","n":3,"on":true,"none":null,"list":[{"a":"x"}]}}"#;
        for (path, expected) in [
            ("status", "ok"),
            ("data.state", "up"),
            ("data.n", "3"),
            ("data.on", "true"),
            ("data.none", "null"),
            ("data.list.0.a", "x"),
        ] {
            assert_eq!(found_in(body, path, expected).as_deref(), Ok(expected), "{path}");
        }
        for (path, problem) in [
            ("missing", "answers JSON without the field missing"),
            ("status.deeper", "answers JSON without the field status.deeper"),
            ("data.list.1.a", "answers JSON without the field data.list.1.a"),
            ("data", "answers JSON whose data is not a single value"),
            ("data.state", "answers that data.state is 'up', not 'x'"),
        ] {
            assert_eq!(found_in(body, path, "x"), Err(problem.to_owned()), "{path}");
        }
    }

    #[test]
    fn answers_that_are_not_json_are_reported() {
        for (body, problem) in [
            ("  <!doctype html>", "answers HTML, not JSON: check that the URL is not that of a web page or a login"),
            ("", "answers with an empty body, not JSON"),
            ("OK", "answers something that is not JSON"),
        ] {
            assert_eq!(found_in(body, "status", "ok"), Err(problem.to_owned()));
        }
        let long = format!("{{\"status\":\"{}\"}}", "\u{e9}".repeat(500));
        assert!(found_in(&long, "status", "ok").expect_err("another value").chars().count() < 150);
    }
}
