//! The gates around a deploy: what both have in common.

pub mod postdeploy;
pub mod predeploy;
pub mod remote;

use std::time::{Duration, Instant};

use crate::engine::source::Source;
use crate::ops::Context;
use crate::ops::checks::Checks;
use crate::ops::preflight::{self, Finding};
use crate::ops::sources::Chosen;
use crate::platform::disk::{folder_of, free_bytes, shown};
use crate::platform::error::{Error, Result};
use crate::platform::text;
use crate::store::StoreUrl;

/// How long it is until what failed is looked at again.
const PAUSE: Duration = Duration::from_secs(2);

fn add(checks: &mut Checks, finding: Finding) {
    checks.add(finding.name, finding.ok, finding.message);
}

/// What the config wants looked at before anything is done: mount points, rights, room, endpoints.
pub(crate) fn preflight(chosen: &[Chosen], context: &Context, checks: &mut Checks) -> Result<()> {
    let Some(config) = &context.config else { return Ok(()) };
    let wanted = config.preflight()?;
    for path in &wanted.mounts {
        let mount = preflight::mount(path, wanted.allow_tmpfs);
        let is_mounted = mount.ok;
        add(checks, mount);
        // Of a folder that is none nothing more is to be said.
        if is_mounted {
            add(checks, preflight::writable(path));
            if let Some(least) = wanted.min_free {
                add(checks, preflight::min_free(path, least));
            }
        }
    }
    for path in &wanted.writable {
        add(checks, preflight::writable(path));
    }
    if wanted.min_free.is_some() {
        free_space(chosen, context, checks)?;
    }
    for endpoint in &wanted.http {
        add(checks, preflight::http(endpoint, Duration::ZERO)?);
    }
    Ok(())
}

/// Whether there is room where the databases are and in stores that are folders: what the config wants, or else any.
pub(crate) fn free_space(chosen: &[Chosen], context: &Context, checks: &mut Checks) -> Result<()> {
    let least = match &context.config {
        Some(config) => config.preflight()?.min_free,
        None => None,
    };
    for chosen in chosen {
        if let Some(found) = free_beside(&chosen.source, least.unwrap_or(1)) {
            checks.note(format!("{}: free space", chosen.name()?), found)?;
        }
    }
    if let Some(least) = least {
        for store in &context.stores {
            if let StoreUrl::Folder(path) = store {
                add(checks, preflight::min_free(path, least));
            }
        }
    }
    Ok(())
}

/// Looks again and again until all is well or the time is over. What was found last.
pub(crate) fn wait_until<T>(wait: Duration, mut look: impl FnMut() -> Result<(bool, T)>) -> Result<T> {
    let start = Instant::now();
    loop {
        let (is_ok, found) = look()?;
        if is_ok || start.elapsed() >= wait {
            return Ok(found);
        }
        let pause = PAUSE.min(wait.saturating_sub(start.elapsed()));
        crate::platform::interrupt::sleep(pause)?;
    }
}

/// The commit that is deployed: as it is named, or in GitHub Actions the one that the workflow runs for.
fn commit(named: Option<&str>) -> Option<String> {
    let of_actions = || std::env::var("GITHUB_SHA").ok().filter(|_| std::env::var_os("GITHUB_ACTIONS").is_some());
    named.map(str::to_owned).or_else(of_actions).filter(|commit| !commit.is_empty())
}

/// What is free beside a database file, and whether that is enough.
pub(crate) fn free_beside(source: &Source, least: u64) -> Option<Result<String>> {
    let Source::Sqlite(path) = source else { return None };
    let folder = folder_of(path);
    Some(match free_bytes(folder) {
        Ok(free) if free >= least => Ok(format!("{} free in {}", text::bytes(free), shown(folder))),
        Ok(free) => Err(Error::problem(format!(
            "{} free in {}; expected at least {}",
            text::bytes(free),
            shown(folder),
            text::bytes(least)
        ))),
        Err(error) => Err(Error::unreachable(format!("cannot look at {}", shown(folder))).because(error)),
    })
}
