//! `drill`: restores a snapshot into scratch, compares everything, measures the time, and throws the result away.

use std::time::Instant;

use clap::Args;

use super::verify::{Outcome, VerifyReport, keep_proof};
use super::{Context, NarrowArgs, Problem, fetch};
use crate::catalog::ProofLevel;
use crate::engine::sqlite::image;
use crate::error::{Kind, Result};

/// Restores a snapshot into scratch, checks it, times it, and drops it
#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// Which snapshots are meant
    #[command(flatten)]
    pub narrow: NarrowArgs,
}

/// Runs the command.
pub fn run(args: &DrillArgs, context: &Context) -> Result<VerifyReport> {
    let catalog = context.open_catalog()?;
    let listed = catalog.find(&args.snapshot, &(&args.narrow).into())?;
    let clock = Instant::now();
    let restore = || {
        let opened = fetch::open(&catalog, &listed.id, context)?;
        // The folder is marked as this process's own, and cleared after it should it die.
        let scratch = context.scratch.folder(opened.manifest.raw_bytes)?;
        let fetched = opened.fetch_image(scratch.path("drill.db"), context)?;
        image::check(fetched.image.path(), &opened.manifest)
    };
    let problems = match restore() {
        Ok(_) => Vec::new(),
        Err(error) if error.kind == Kind::Problem => vec![Problem::of("damage", &error)],
        Err(error) => return Err(error.context(format!("cannot drill {}", listed.id))),
    };
    let seconds = clock.elapsed().as_secs_f64();
    let (level, restore_seconds) =
        if problems.is_empty() { (ProofLevel::Drilled, Some(seconds)) } else { (ProofLevel::Damaged, None) };
    keep_proof(&catalog, &listed, level, seconds, restore_seconds, &problems, context);
    let ok = problems.is_empty();
    let outcome = Outcome { id: listed.id.to_string(), level: level.name(), ok, problems, seconds, restore_seconds };
    Ok(VerifyReport { ok, snapshots: vec![outcome] })
}
