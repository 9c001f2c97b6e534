//! The `lifeboat` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: no other thread was started.
    ExitCode::from(unsafe { lifeboat::cli::run(std::env::args_os()) })
}
