//! Ctrl-C and SIGTERM: the first asks the work in hand to stop and clean up, the second ends the process.
//!
//! Who hears the signals is one of two: [`listen`], or for a program that runs another one the room `supervise`,
//! which decides itself what a signal means and says so through [`request`] and [`clear`].

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::platform::error::{Error, Kind, Result};

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts listening for SIGINT, SIGTERM and SIGHUP; call once, at the start of the program.
pub fn listen() -> Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    let ignored = ignored_signals();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // Whoever started us with a signal ignored (nohup, say) wants it to stay so.
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        // The order matters: the second signal finds the flag already set by the first and exits.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(stop)))
            .map_err(|error| Error::failed("cannot listen for signals").because(error))?;
    }
    Ok(())
}

/// The signals that this process was started to ignore, as the kernel's mask; none where that cannot be told.
pub(crate) fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Asks the work in hand to stop, as a first signal does.
pub fn request() {
    STOP.get_or_init(Arc::default).store(true, Ordering::SeqCst);
}

/// Forgets what asked to stop: work that begins now is asked anew.
pub fn clear() {
    STOP.get_or_init(Arc::default).store(false, Ordering::SeqCst);
}

/// Fails with [`Kind::Interrupted`] once a signal has asked to stop. Long loops call it often.
pub fn check() -> Result<()> {
    match STOP.get() {
        Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::new(Kind::Interrupted, "interrupted")),
        _ => Ok(()),
    }
}

/// Waits, but no longer than until a signal asks to stop.
pub fn sleep(time: Duration) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    let start = Instant::now();
    loop {
        check()?;
        match time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => std::thread::sleep(left.min(LOOK)),
            None => return Ok(()),
        }
    }
}
