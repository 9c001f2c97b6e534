//! Ctrl-C and SIGTERM: the first signal asks the current operation to stop and clean up, the second ends the process.
//!
//! Signals are received either by [`listen`] or, in a command that runs another program, by `supervise`, which decides
//! what a signal means and calls [`request`] and [`clear`].

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::iterator::Signals;

use crate::platform::error::{Error, Kind, Result};

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts listening for SIGINT, SIGTERM and SIGHUP; call once, at the start of the program.
pub fn listen() -> Result<()> {
    listen_with(None)
}

/// The same as [`listen`]. With `last_words`, the second signal calls it before it ends the process, which it does only if
/// that returns true. The third signal ends the process in any case.
pub fn listen_with(last_words: Option<fn() -> bool>) -> Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    let ignored = ignored_signals();
    let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];
    // A signal that was ignored at the start (with nohup, for example) stays ignored.
    let signals: Vec<i32> = signals.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect();
    let cannot = |error: std::io::Error| Error::failed("cannot listen for signals").because(error);
    for signal in &signals {
        // The order matters: the second signal finds the flag already set by the first and exits.
        if last_words.is_none() {
            signal_hook::flag::register_conditional_shutdown(*signal, 130, Arc::clone(stop)).map_err(cannot)?;
        }
        signal_hook::flag::register(*signal, Arc::clone(stop)).map_err(cannot)?;
    }
    let Some(last_words) = last_words else { return Ok(()) };
    let mut received = Signals::new(&signals).map_err(cannot)?;
    let end = move || {
        let mut later = received.forever().skip(1);
        // The first signal was for the operation.
        if later.next().is_some() && (last_words() || later.next().is_some()) {
            signal_hook::low_level::exit(Kind::Interrupted.exit_code().into());
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(end).map(drop).map_err(cannot)
}

/// Returns the signals that this process was started to ignore, as the kernel's mask; 0 if the mask cannot be read.
pub(crate) fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Asks the current operation to stop, as a first signal does.
pub fn request() {
    STOP.get_or_init(Arc::default).store(true, Ordering::SeqCst);
}

/// Clears an earlier request to stop, so that it does not affect later operations.
pub fn clear() {
    STOP.get_or_init(Arc::default).store(false, Ordering::SeqCst);
}

/// Fails with [`Kind::Interrupted`] after a signal has asked to stop. Long loops call it often.
pub fn check() -> Result<()> {
    match STOP.get() {
        Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::new(Kind::Interrupted, "interrupted")),
        _ => Ok(()),
    }
}

/// Sleeps, and fails with [`Kind::Interrupted`] as soon as a signal asks to stop.
pub fn sleep(time: Duration) -> Result<()> {
    const CHECK_INTERVAL: Duration = Duration::from_millis(50);
    let start = Instant::now();
    loop {
        check()?;
        match time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => std::thread::sleep(left.min(CHECK_INTERVAL)),
            None => return Ok(()),
        }
    }
}
