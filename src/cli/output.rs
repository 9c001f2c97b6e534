//! The output of the program: results on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::github;
use crate::ops::error_document;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::progress::Progress;
use crate::platform::text;

/// True once the result was written. Locked while it is written.
static IS_WRITTEN: Mutex<bool> = Mutex::new(false);

/// Writes the JSON document of a command that a second signal ends, unless its result was written. Returns false if that
/// is being written at this moment.
pub(super) fn end_with_document() -> bool {
    // The lock is kept, so that there is never a second document: the process ends now.
    let Ok(is_written) = IS_WRITTEN.try_lock().map(std::mem::ManuallyDrop::new) else { return false };
    if !**is_written {
        let error = Error::new(Kind::Interrupted, "interrupted by a second signal, before the work was cleaned up");
        let document = error_json(&error, &[]);
        let _ = io::stdout().lock().write_all(document.as_bytes()).and_then(|()| io::stdout().flush());
    }
    true
}

/// Writes a result to stdout: one JSON document, or text for people. A closed pipe is not a failure of the command.
pub(super) fn write_result(text: &str, json: bool) -> Result<()> {
    let text = if json { github::disarm_json(text) } else { github::disarm(text) };
    write_stdout(text.as_bytes())
}

/// Writes to stderr for people. Errors are ignored, because nothing can be reported if stderr is closed.
fn write_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(github::disarm(text).as_bytes());
}

/// Stderr, for the log: each event is written at once.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_stderr(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to stdout. A closed pipe is not a failure of the command.
pub(super) fn write_stdout(bytes: &[u8]) -> Result<()> {
    let mut is_written = IS_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    *is_written = true;
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::failed("cannot write to stdout").because(error)),
    }
}

/// Prints a line for people in addition to the result.
pub(super) fn print_note(note: &str) {
    // Nothing can be reported if stderr is closed.
    let _ = io::stderr().lock().write_all(format!("{}\n", crate::platform::error::one_line(note)).as_bytes());
}

/// Prints an error for people: the failure, its causes, and the hint.
pub(super) fn print_error(error: &Error) {
    let mut text = format!("error: {}\n", error.full_message());
    if let Some(hint) = &error.hint {
        text.push_str(&format!("hint: {}\n", crate::platform::error::one_line(hint)));
    }
    write_stderr(&text);
}

/// Returns the JSON document of a command that failed. If a problem was found (exit 3), the document also has the
/// command's own fields, which are in `own`.
#[must_use]
pub(super) fn error_json(error: &Error, own: &[(&str, Value)]) -> String {
    let mut document = json!({ "error": error_document(error) });
    if error.kind == Kind::Problem {
        document["ok"] = Value::Bool(false);
        for (name, value) in own {
            document[*name] = value.clone();
        }
    }
    format!("{document:#}\n")
}

/// Returns a report as one JSON document.
pub(super) fn document(report: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|error| Error::failed("cannot write the result as JSON").because(error))?;
    text.push('\n');
    Ok(text)
}

/// Returns the number of characters in a line of stdout: that of the environment variable `COLUMNS`, or the terminal's.
/// Returns `None` if the result is not for a terminal.
fn width() -> Option<usize> {
    let written = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok()).filter(|width| *width > 0);
    let of_terminal = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    written.or_else(of_terminal).filter(|width| *width > 0)
}

/// Formats a table for stdout. It is as wide as the terminal: columns in `optional` are left out, in this order, and the
/// texts of the last column are cut. If the result is not for a terminal, it has 80 characters, as far as the columns that
/// are left allow it: no text is cut.
pub(super) fn fitted_table(headings: &[&str], rows: &[Vec<String>], optional: &[&str]) -> String {
    const WITHOUT_TERMINAL: usize = 80;
    let width = width();
    text::table_within(headings, rows, width.unwrap_or(WITHOUT_TERMINAL), width.is_some(), optional)
}

/// A colour of a line.
#[derive(Clone, Copy)]
pub(super) enum Colour {
    /// For what is lost or damaged.
    Red,
    /// For what needs a look.
    Yellow,
}

/// Returns true if results are shown in colours: on a terminal, unless `NO_COLOR` is set.
pub(super) fn has_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    !is_set("NO_COLOR") && !is_dumb && io::stdout().is_terminal()
}

/// Returns a line in a colour.
pub(super) fn paint(line: &str, colour: Colour) -> String {
    let code = match colour {
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\x1b[{code}m{line}\x1b[0m")
}

/// Progress bars on a terminal's stderr.
#[derive(Default)]
pub(super) struct Bars {
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Returns true if stderr is a terminal.
    #[must_use]
    pub(super) fn would_show() -> bool {
        io::stderr().is_terminal()
    }
}

impl Progress for Bars {
    fn start(&self, what: &str, total: u64) {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let form = if total > 0 {
            "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        } else {
            "{msg} {spinner} {elapsed}"
        };
        bar.set_style(
            ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
        );
        bar.set_message(crate::platform::error::one_line(what));
        if total == 0 {
            bar.enable_steady_tick(std::time::Duration::from_millis(200));
        }
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.inc(bytes);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
