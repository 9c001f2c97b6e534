//! Code that the gates before and after a deploy share.

mod earlier;
pub(crate) mod intended;
mod new_rows;
mod newer;
pub(crate) mod postdeploy;
pub(crate) mod predeploy;
pub(crate) mod remote;
mod renames;
mod rollback;
mod verdict;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Preflight;
use crate::engine::source::Source;
use crate::ops::Context;
use crate::ops::checks::Checks;
use crate::ops::preflight;
use crate::ops::sources::Chosen;
use crate::platform::disk::{folder_of, free_bytes, real_path, shown};
use crate::platform::error::{Error, Result};
use crate::platform::text;
use crate::store::StoreUrl;

/// The pause before a failed check is repeated.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs the checks that the config asks for before anything is done: mount points, permissions, free space, endpoints.
pub(crate) fn preflight(chosen: &[Chosen], context: &Context, checks: &mut Checks) -> Result<()> {
    let Some(config) = &context.config else { return Ok(()) };
    let wanted = config.preflight()?;
    let mut all_are_mounted = true;
    for path in &wanted.mounts {
        let mount = preflight::mount(path, wanted.allow_tmpfs);
        let is_mounted = mount.ok;
        all_are_mounted &= is_mounted;
        checks.push(mount);
        // If the folder is not a mount point, the other checks say nothing useful.
        if is_mounted {
            checks.push(preflight::writable(path));
            if let Some(least) = wanted.min_free {
                checks.push(preflight::min_free(path, least));
            }
        }
    }
    // If a mount is missing, the files on it seem to be elsewhere.
    if all_are_mounted && !wanted.mounts.is_empty() {
        files_on_mounts(chosen, wanted, context, checks)?;
    }
    for path in &wanted.writable {
        checks.push(preflight::writable(path));
    }
    if wanted.min_free.is_some() {
        free_space(chosen, context, checks)?;
    }
    for endpoint in &wanted.http {
        checks.push(preflight::http(endpoint, Duration::ZERO)?);
    }
    Ok(())
}

/// Checks that SQLite files, and stores that are folders, lie on the mounts that the config demands.
fn files_on_mounts(chosen: &[Chosen], wanted: &Preflight, context: &Context, checks: &mut Checks) -> Result<()> {
    let is_excepted =
        |path: &Path| wanted.outside_mounts.iter().any(|outside| real_path(path).starts_with(real_path(outside)));
    let mut check = |name: String, path: &Path| {
        if !is_excepted(path) {
            checks.push(preflight::on_mount(name, path, &wanted.mounts, wanted.allow_tmpfs));
        }
    };
    for chosen in chosen {
        if let Some(path) = chosen.source.file() {
            check(format!("{}: mount", chosen.name()?), path);
        }
    }
    for path in context.stores.iter().filter_map(StoreUrl::folder) {
        check(format!("store {}: mount", shown(path)), path);
    }
    Ok(())
}

/// Checks the free space beside SQLite files (at least the config's minimum, or one byte if it sets none) and, if the
/// config sets a minimum, in stores that are folders.
pub(crate) fn free_space(chosen: &[Chosen], context: &Context, checks: &mut Checks) -> Result<()> {
    let least = match &context.config {
        Some(config) => config.preflight()?.min_free,
        None => None,
    };
    for chosen in chosen {
        if let Some(found) = free_beside(&chosen.source, least.unwrap_or(1)) {
            let name = chosen.name()?;
            checks.of_source(&name, |checks| checks.note(format!("{name}: free space"), found))?;
        }
    }
    if let Some(least) = least {
        for store in &context.stores {
            if let Some(path) = store.folder() {
                checks.push(preflight::min_free(path, least));
            }
        }
    }
    Ok(())
}

/// Repeats `attempt` until it reports success or the time is over. Returns its last result.
pub(crate) fn wait_until<T>(wait: Duration, mut attempt: impl FnMut() -> Result<(bool, T)>) -> Result<T> {
    let start = Instant::now();
    loop {
        let (is_ok, result) = attempt()?;
        if is_ok || start.elapsed() >= wait {
            return Ok(result);
        }
        let pause = PAUSE.min(wait.saturating_sub(start.elapsed()));
        crate::platform::interrupt::sleep(pause)?;
    }
}

/// Returns the commit that is deployed: the one that is named, or in GitHub Actions the one that the workflow runs for.
fn commit(named: Option<&str>) -> Option<String> {
    let of_actions = || std::env::var("GITHUB_SHA").ok().filter(|_| std::env::var_os("GITHUB_ACTIONS").is_some());
    named.map(str::to_owned).or_else(of_actions).filter(|commit| !commit.is_empty())
}

/// Returns the free space beside an SQLite file, or an error if it is less than `least`. Returns `None` for other
/// sources.
pub(crate) fn free_beside(source: &Source, least: u64) -> Option<Result<String>> {
    let folder = folder_of(source.file()?);
    Some(match free_bytes(folder) {
        Ok(free) if free >= least => Ok(format!("{} free in {}", text::bytes(free), shown(folder))),
        Ok(free) => Err(Error::problem(format!(
            "{} free in {}; expected at least {}",
            text::bytes(free),
            shown(folder),
            text::bytes(least)
        ))),
        Err(error) => Err(Error::unreachable(format!("cannot get the free space of {}", shown(folder))).because(error)),
    })
}
