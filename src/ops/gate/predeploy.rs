//! `predeploy`: lets a deploy continue only if the data passes its checks and is saved.

use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::command_line::source_word;
use crate::ops::first_deploy::NOTHING_YET;
use crate::ops::gate::verdict::Known;
use crate::ops::gate::{commit, earlier, preflight, verdict, wait_until};
use crate::ops::inspect::{Found, Strictness, inspect};
use crate::ops::origin::require_same_database;
use crate::ops::other_name::described;
use crate::ops::restore_in_place::{restore_command, restore_latest};
use crate::ops::save::{self, SaveOptions, Saved};
use crate::ops::sources::Chosen;
use crate::ops::tags::PREDEPLOY;
use crate::ops::{Context, ReportedSnapshot, verify};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, Manifest};
use crate::snapshots::proofs::ProofSummary;
use crate::snapshots::row_counts::RowCounts;
use chrono::Duration;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct PredeployOptions {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    pub sources: Vec<String>,
    /// The commit to deploy, which becomes a tag of the snapshots; default: the workflow's commit in GitHub Actions
    pub commit: Option<String>,
    /// Additional tags for the snapshots
    pub tag: Vec<String>,
    /// The maximum time to wait until failing checks pass
    pub wait: Duration,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    pub full_check: bool,
}

/// Runs the command.
pub(crate) fn run(options: &PredeployOptions, context: &Context) -> Result<ChecksReport> {
    save::require_free_tags(&options.tag)?;
    save::require_free_tags(options.commit.as_slice())?;
    let chosen = context.sources(&options.sources)?;
    let depth = if options.full_check { Depth::Full } else { Depth::Quick };
    let (mut before, mut earlier): (Vec<Option<Manifest>>, Vec<Option<Found>>) = (Vec::new(), Vec::new());
    let commit = commit(options.commit.as_deref());
    for chosen in &chosen {
        let name = chosen.name()?;
        let state = context.newest_state(&name)?.or_fail()?;
        if let Some(state) = &state {
            // The snapshot would be refused in the end, and `guard` refuses the database.
            require_same_database(state, &chosen.source, || Ok(Some(state.clone())), context)?;
        }
        before.push(state);
        let of_commit = commit.as_ref().filter(|_| before.last().is_some_and(Option::is_some));
        earlier.push(of_commit.map(|commit| earlier::find(&name, commit, context)).transpose()?.flatten());
    }
    let state = wait_until(options.wait.to_std().unwrap_or_default(), || {
        let mut state = State::default();
        preflight(&chosen, context, &mut state.checks)?;
        for ((chosen, before), earlier) in chosen.iter().zip(&before).zip(&earlier) {
            let name = chosen.name()?;
            let before_add = state.checks.mark();
            let rows = state.add(chosen, before.as_ref(), depth, context)?;
            if let (Some(earlier), Some(commit), Some(rows)) = (earlier, &commit, rows) {
                state.add_earlier(earlier::losses(earlier, commit, chosen, &rows, context), &name);
            }
            state.checks.set_source(before_add, name);
        }
        Ok((state.checks.are_ok(), state))
    })?;
    if !state.checks.are_ok() {
        let (lost, restores) = (state.lost_rows, state.lost.concat());
        let mut report = state.checks.into_report();
        // Nothing was saved, also of the sources whose checks passed.
        for chosen in &chosen {
            report.results.fail(chosen.name()?, None);
        }
        let failed = report.failed().count();
        report.verdict = format!("the gate is CLOSED: {failed} checks failed, and no snapshot was taken{restores}");
        // Only a loss of rows can be accepted: a rule that fails, or a database that is gone, fails again.
        if !lost.is_empty() {
            let words = ["snapshot".to_owned()].into_iter().chain(lost).chain(["--accept".to_owned()]);
            let command = context.gate_command_line(&words.collect::<Vec<_>>())?;
            report.verdict += &format!(
                "; if what is missing was deleted on purpose, run '{command}' to make the current state the new baseline"
            );
        }
        return Ok(report);
    }
    save(options, state, context)
}

/// The state of the sources before a deploy.
#[derive(Default)]
struct State<'a> {
    checks: Checks,
    /// The sources that have something to save.
    existing: Vec<&'a Chosen>,
    /// The names of the sources that have nothing to save, because this is their first deploy.
    new: Vec<String>,
    /// The words that name the sources that have lost rows or tables since their baselines.
    lost_rows: Vec<String>,
    /// The sentences about the sources whose databases are missing or damaged, with the commands that restore them.
    lost: Vec<String>,
    /// The facts about each source that was compared with a baseline.
    known: Vec<Known>,
    /// The sentences about rows that are gone since an earlier gate for the same commit.
    earlier: Vec<String>,
}

impl<'a> State<'a> {
    /// Inspects one source. Returns the rows of its tables, if they were compared with the baseline.
    fn add(
        &mut self,
        chosen: &'a Chosen,
        before: Option<&Manifest>,
        depth: Depth,
        context: &Context,
    ) -> Result<Option<RowCounts>> {
        let Some(before) = before else {
            let name = chosen.name()?;
            match context.first_deploy(chosen) {
                Ok(Some(state)) => {
                    self.checks.add(format!("{name}: database"), true, state);
                    self.new.push(name.to_string());
                    return Ok(None);
                }
                Ok(None) => {}
                Err(error) if error.kind == Kind::Problem => {
                    return self.checks.note(format!("{name}: database"), Err(error)).map(|_| None);
                }
                Err(error) => return Err(error),
            }
            // A source that was renamed is compared with its last state under the other name.
            let renamed = context.under_other_name(chosen)?;
            let message = match &renamed {
                None => "there is no good earlier snapshot to compare with".to_owned(),
                Some(found) => format!("{}, with which it is compared", described(found, &name)),
            };
            self.checks.add(format!("{name}: compared"), true, message);
            return self.inspect(chosen, renamed.as_ref().map(|found| &found.manifest), depth, context);
        };
        self.inspect(chosen, Some(before), depth, context)
    }

    /// Inspects a source that exists. Returns the rows of its tables, if they were compared with `before`.
    fn inspect(
        &mut self,
        chosen: &'a Chosen,
        before: Option<&Manifest>,
        depth: Depth,
        context: &Context,
    ) -> Result<Option<RowCounts>> {
        self.existing.push(chosen);
        let inspection = inspect(chosen, before, depth, Strictness::Damage, &context.scratch)?;
        let is_accepted = inspection.has_lost_rows || !inspection.gone_tables.is_empty();
        self.lost_rows.extend(is_accepted.then(|| source_word(chosen)));
        if inspection.is_lost && inspection.tables.is_none() && before.is_some() {
            let (restore, name) = (restore_latest(chosen, context)?, chosen.name()?);
            self.lost.push(format!("; '{restore}' restores the last good snapshot of {name}"));
        }
        if let Some(before) = before {
            self.known.push(Known::new(chosen.name()?, Some(before.id.clone()), inspection.is_lost, &inspection));
        }
        self.checks.append(inspection.checks);
        Ok(inspection.tables.filter(|_| before.is_some()))
    }

    /// Adds the losses since an earlier gate for the same commit. The baseline decides whether the gate is open.
    fn add_earlier(&mut self, losses: Option<String>, name: &SourceName) {
        if let Some(losses) = losses {
            self.checks.add(format!("{name}: earlier gate"), true, losses.clone());
            self.earlier.push(losses);
        }
    }
}

/// The settings with which a snapshot that is not encrypted is trusted.
const PLAINTEXT_REMEDY: &str =
    "set recipients in [encryption] to encrypt it, or allow_plaintext = true there to trust it";
/// The settings with which a snapshot that no trusted key has signed is trusted.
const SIGNATURE_REMEDY: &str = "set key_file in [signing] to the key that trusted there names";

/// Takes the snapshots and reads them back.
fn save(options: &PredeployOptions, state: State<'_>, context: &Context) -> Result<ChecksReport> {
    let State { mut checks, existing, new, known, earlier, .. } = state;
    if existing.is_empty() {
        let verdict = format!("the gate is open; {NOTHING_YET}");
        return Ok(ChecksReport { verdict, first_deploy: new, ..checks.into_report() });
    }
    let chosen: Vec<Chosen> = existing.into_iter().cloned().collect();
    let mut tags = vec![PREDEPLOY.to_owned()];
    tags.extend(commit(options.commit.as_deref()));
    tags.extend(options.tag.iter().cloned());
    let taken = SaveOptions { tag: tags, full_check: options.full_check, ..SaveOptions::default() };
    let taken = save::take(&taken, &chosen, context)?;
    let (mut snapshots, mut remedy) = (Vec::new(), None);
    for saved in &taken.snapshots {
        let is_intact = read_back(saved, &mut checks, &mut remedy, context)?;
        let mut proof = ProofSummary::default();
        if is_intact {
            proof.level = crate::snapshots::proofs::ProofLevel::Verified;
        }
        let (manifest, stores) = (saved.manifest.clone(), saved.stores.clone());
        snapshots.push(ReportedSnapshot { manifest, proof, stores });
    }
    let mut report = checks.into_report();
    (report.snapshots, report.failures, report.first_deploy) = (snapshots, taken.failures, new);
    report.results = taken.results;
    for saved in &taken.snapshots {
        let source = chosen.iter().find(|chosen| chosen.name().is_ok_and(|name| name == saved.manifest.source));
        let store = saved.stores.first().map(String::as_str).unwrap_or_default();
        report.rollback.push(restore_command(&saved.manifest, store, source, &["--replace"], context));
    }
    report.verdict = match (report.ok, report.failures.is_empty()) {
        (true, true) => {
            let earlier: String = earlier.iter().map(|losses| format!("; {losses}")).collect();
            let limits = verdict::limits(&known);
            format!("the gate is open{limits}{earlier}; if the deploy goes wrong, this restores the data:")
        }
        (_, false) => "the gate is CLOSED: not everything was saved".to_owned(),
        (false, true) => match remedy {
            Some(remedy) => format!("the gate is CLOSED: a snapshot was saved, but it is not trusted: {remedy}"),
            None => "the gate is CLOSED: a snapshot was saved, but could not be read back intact".to_owned(),
        },
    };
    if !report.ok {
        report.rollback.clear();
    }
    Ok(report)
}

/// Reads a snapshot back from every store that has it. Returns true if every store returns the bytes that were written.
/// Sets `remedy` to the settings with which the snapshot is trusted, if it is not.
fn read_back(saved: &Saved, checks: &mut Checks, remedy: &mut Option<&'static str>, context: &Context) -> Result<bool> {
    let id = &saved.manifest.id;
    let mut is_intact = true;
    for location in &saved.stores {
        let mut read = || {
            for store in context.all_stores()? {
                let catalog = context.open(store)?;
                if catalog.location() == *location {
                    let outcome = verify::read_back(&catalog, id, context)?;
                    if outcome.is_untrusted() {
                        *remedy = Some(match catalog.trusts_encryption_of(&saved.manifest) {
                            false => PLAINTEXT_REMEDY,
                            true => SIGNATURE_REMEDY,
                        });
                    }
                    return match outcome.problems.first() {
                        None => Ok(format!("{id}: every byte was read back from {}", one_line(location))),
                        Some(problem) => Err(Error::problem(format!("{id}: {}", problem.message))),
                    };
                }
            }
            Err(Error::unreachable(format!("the store {} can no longer be opened", one_line(location))))
        };
        let source = &saved.manifest.source;
        is_intact &= checks.of_source(source, |checks| checks.note(format!("{source}: snapshot"), read()))?;
    }
    Ok(is_intact)
}
