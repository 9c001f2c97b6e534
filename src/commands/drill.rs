//! `drill`: restores a snapshot into scratch, compares everything, measures the time, and throws the result away.

use std::time::Instant;

use clap::Args;

use super::restore::drill_postgres;
use super::verify::{Outcome, VerifyReport, keep_proof};
use super::{Context, NarrowArgs, Problem, fetch};
use crate::catalog::ProofLevel;
use crate::engine::postgres::make::Owners;
use crate::engine::sqlite::image;
use crate::error::{Error, Kind, Result};

/// Restores a snapshot into scratch, checks it, times it, and drops it
#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// Which snapshots are meant
    #[command(flatten)]
    pub narrow: NarrowArgs,
    /// PostgreSQL: the server to make the scratch database on; by default the one the snapshot came from
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// PostgreSQL: leave owners and grants out, for a server that lacks the roles
    #[arg(long)]
    pub no_owner: bool,
}

/// Runs the command.
pub fn run(args: &DrillArgs, context: &Context) -> Result<VerifyReport> {
    let catalog = context.open_catalog()?;
    let listed = catalog.find(&args.snapshot, &(&args.narrow).into())?;
    let clock = Instant::now();
    let mut different = None;
    let owners = if args.no_owner { Owners::Leave } else { Owners::Keep };
    let mut restore = || {
        let opened = fetch::open(&catalog, &listed.id, context)?;
        if opened.manifest.postgres.is_some() {
            different = drill_postgres(&opened, args.to.as_deref(), owners, context)?;
            return Ok(());
        }
        if args.to.is_some() || args.no_owner {
            return Err(Error::usage(
                "--to and --no-owner go with a server, and the snapshot is of an SQLite database",
            )
            .hint("it is drilled in a scratch file: --scratch names the folder"));
        }
        // The folder is marked as this process's own, and cleared after it should it die.
        let scratch = context.scratch.folder(opened.manifest.raw_bytes)?;
        let fetched = opened.fetch_image(scratch.path("drill.db"), context)?;
        image::check(fetched.image.path(), &opened.manifest).map(drop)
    };
    let restored = match restore() {
        // Damage is recorded for good: what was only damaged on its way from far away is none.
        Err(error) if error.kind == Kind::Problem && !catalog.is_near() => {
            tracing::warn!("restoring {} once more: {}", listed.id, error.whole());
            restore()
        }
        restored => restored,
    };
    let problems = match restored {
        Ok(()) => Vec::new(),
        Err(error) if error.kind == Kind::Problem => vec![Problem::of("damage", &error)],
        Err(error) => return Err(error.context(format!("cannot drill {}", listed.id))),
    };
    let seconds = clock.elapsed().as_secs_f64();
    if let Some(error) = different {
        // The archive is as it was written: another server shows it otherwise. No proof, and no damage.
        let problems = vec![Problem::of("different", &error)];
        let level = ProofLevel::None.name();
        let id = listed.id.to_string();
        let outcome = Outcome { id, level, ok: false, problems, seconds, restore_seconds: None };
        return Ok(VerifyReport { ok: false, snapshots: vec![outcome] });
    }
    let (level, restore_seconds) =
        if problems.is_empty() { (ProofLevel::Drilled, Some(seconds)) } else { (ProofLevel::Damaged, None) };
    keep_proof(&catalog, &listed, level, seconds, restore_seconds, &problems, context);
    let ok = problems.is_empty();
    let outcome = Outcome { id: listed.id.to_string(), level: level.name(), ok, problems, seconds, restore_seconds };
    Ok(VerifyReport { ok, snapshots: vec![outcome] })
}
