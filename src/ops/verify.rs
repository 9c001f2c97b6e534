//! `verify`: reads snapshots and reports everything that differs from what was written.

use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use serde::Serialize;

use crate::archive;
use crate::ops::choose::{Choice, open_without_manifest};
use crate::ops::summary::{RunSummary, SnapshotSummary, SourceResults};
use crate::ops::{Context, Problem, Report, error_document, fetch};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::ranged::Ranged;
use crate::platform::shell::quote_word;
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::ENCRYPTED_ENDING;
use crate::snapshots::proofs::{Proof, ProofLevel};
use crate::snapshots::search::SnapshotFilter;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct VerifyOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: String,
    /// The filters for the snapshots to choose from
    pub filter: SnapshotFilter,
    /// All snapshots (of --source, if given)
    pub all: bool,
    /// Check only manifests, indexes and sizes: finds missing and truncated archives, but not changed bytes
    pub quick: bool,
}

/// The result of testing one snapshot.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The snapshot.
    pub id: String,
    /// `verified`, `drilled`, `damaged`, or `none` if only metadata was read.
    pub level: &'static str,
    /// True if no problem was found.
    pub ok: bool,
    /// The problems that were found.
    pub problems: Vec<Problem>,
    /// The duration of the test.
    pub seconds: f64,
    /// The duration of the restore in a drill, checks included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_seconds: Option<f64>,
}

/// The results of testing several snapshots.
#[derive(Debug, Default, Serialize)]
pub(crate) struct VerifyReport {
    /// True if no snapshot has a problem.
    pub ok: bool,
    /// One result for each snapshot.
    pub snapshots: Vec<Outcome>,
    /// The errors of snapshots that could not be tested; the first one decides the exit code.
    #[serde(rename = "error", skip_serializing_if = "Vec::is_empty", serialize_with = "first_document")]
    pub failures: Vec<Error>,
    /// The failures of sources of which no snapshot could be tested. Those of the snapshots are added in the summary.
    #[serde(skip)]
    pub results: SourceResults,
}

fn first_document<S: serde::Serializer>(failures: &[Error], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    failures.first().map(error_document).serialize(serializer)
}

impl Report for VerifyReport {
    fn summary(&self) -> RunSummary {
        let source = |outcome: &Outcome| outcome.id.parse::<SnapshotId>().ok().map(|id| id.source().to_string());
        let of = |outcome: &Outcome| SnapshotSummary {
            id: outcome.id.clone(),
            source: source(outcome),
            proof: outcome.level,
            problems: outcome.problems.iter().map(|problem| problem.message.clone()).collect(),
            ..SnapshotSummary::default()
        };
        let mut results = self.results.clone();
        for outcome in &self.snapshots {
            match source(outcome) {
                Some(source) if outcome.ok => results.succeed(source),
                Some(source) => results.fail(source, None),
                None => {}
            }
        }
        RunSummary { snapshots: self.snapshots.iter().map(of).collect(), results, ..RunSummary::default() }
    }

    fn errors(&self) -> &[Error] {
        &self.failures
    }

    fn is_ok(&self) -> bool {
        self.ok
    }

    /// Damage outranks a snapshot that could not be tested.
    fn exit_code(&self) -> u8 {
        let is_found = self.snapshots.iter().any(|outcome| !outcome.ok && !outcome.is_newer());
        match self.failures.first() {
            Some(error) if !is_found => error.kind.exit_code(),
            _ if self.ok => 0,
            _ => Kind::Problem.exit_code(),
        }
    }
}

impl Outcome {
    /// The kind of problem of a snapshot that a newer version of this program made.
    const NEWER: &'static str = "newer";
    /// The kind of problem of a snapshot that is not trusted.
    const UNTRUSTED: &'static str = "untrusted";

    /// Returns the outcome for a snapshot that could not be tested.
    fn untested(id: &SnapshotId, kind: &str, error: &Error) -> Self {
        let (id, level, problems) = (id.to_string(), ProofLevel::None.name(), vec![Problem::of(kind, error)]);
        Outcome { id, level, ok: false, problems, seconds: 0.0, restore_seconds: None }
    }

    /// Returns true if it was not tested, because it is not trusted.
    pub(crate) fn is_untrusted(&self) -> bool {
        self.problems.iter().any(|problem| problem.kind == Self::UNTRUSTED)
    }

    /// Returns true if a newer version of this program made the snapshot, so that it was not tested.
    pub(crate) fn is_newer(&self) -> bool {
        !self.problems.is_empty() && self.problems.iter().all(|problem| problem.kind == Self::NEWER)
    }
}

/// Runs the command. Fails if there is no snapshot to test.
pub(crate) fn run(options: &VerifyOptions, context: &Context) -> Result<VerifyReport> {
    if !options.all {
        let choice = Choice::find(&options.snapshot, &options.filter, || context.open_first())?;
        let depth = TestDepth { quick: options.quick, any_key: false };
        let outcome = match &choice {
            Choice::Snapshot(catalog, listed) => outcome(catalog, listed, depth, context)?,
            Choice::WithoutManifest(catalog, archive) if archive.has_lost_manifest => {
                missing_manifest(catalog, archive, depth, context)?
            }
            Choice::WithoutManifest(_, archive) => outcome_alone(&choice, Some(&archive.id), depth, context)?,
            Choice::File(_) => outcome_alone(&choice, None, depth, context)?,
        };
        return Ok(VerifyReport { ok: outcome.ok, snapshots: vec![outcome], ..VerifyReport::default() });
    }
    let catalog = context.open_first()?;
    let source = options.filter.source.as_ref();
    let listed = catalog.list_all(source)?;
    // A younger one may belong to a snapshot that is being written.
    let mut without_manifest = catalog.list_without_manifest(source)?;
    without_manifest.retain(ArchiveWithoutManifest::is_old);
    if listed.is_empty() && without_manifest.is_empty() {
        return Err(Error::not_found(format!("there is no snapshot to verify in {}", one_line(&catalog.location())))
            .hint("take one with 'lifeboat snapshot'"));
    }
    let depth = TestDepth { quick: options.quick, any_key: true };
    let (mut snapshots, mut failures) = (Vec::new(), Vec::new());
    for listed in &listed {
        match outcome(&catalog, listed, depth, context) {
            Ok(outcome) => snapshots.push(outcome),
            // The snapshot was pruned while others were read.
            Err(error) if error.kind == Kind::NotFound => {}
            // A snapshot that cannot be read must not hide the results of the others.
            Err(error) if error.kind == Kind::Unreachable => {
                snapshots.push(Outcome::untested(&listed.id, "unreadable", &error));
            }
            Err(error) if error.is_newer_format() => {
                snapshots.push(Outcome::untested(&listed.id, Outcome::NEWER, &error));
                failures.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    for archive in without_manifest {
        match missing_manifest(&catalog, &archive, depth, context) {
            Err(error) if error.is_newer_format() => {
                snapshots.push(Outcome::untested(&archive.id, Outcome::NEWER, &error));
                failures.push(error);
            }
            outcome => snapshots.push(outcome?),
        }
    }
    let ok = snapshots.iter().all(|outcome| outcome.ok);
    Ok(VerifyReport { ok, snapshots, failures, ..VerifyReport::default() })
}

/// Tests an archive by the manifest in it. Nothing is recorded: a proof belongs to a snapshot with a manifest. `id` is
/// the id that its name gives it.
fn outcome_alone(choice: &Choice, id: Option<&SnapshotId>, depth: TestDepth, context: &Context) -> Result<Outcome> {
    let clock = Instant::now();
    let opened = choice.open_as_stored(context);
    if let (Choice::WithoutManifest(catalog, archive), Ok(found)) = (choice, &opened) {
        match catalog.require_trusted_alone(&found.manifest, found.is_encrypted()) {
            Err(error) if error.is_not_trusted() => {
                return Ok(Outcome::untested(&archive.id, Outcome::UNTRUSTED, &error));
            }
            checked => checked?,
        }
    }
    let (found, problems) = problems_alone(opened, depth, context)?;
    let id = id.or(found.as_ref()).map_or_else(|| choice.shown(), ToString::to_string);
    let level = match (problems.is_empty(), depth.quick) {
        (false, _) => ProofLevel::Damaged,
        (true, true) => ProofLevel::None,
        (true, false) => ProofLevel::Verified,
    };
    let (ok, seconds) = (problems.is_empty(), clock.elapsed().as_secs_f64());
    Ok(Outcome { id, level: level.name(), ok, problems, seconds, restore_seconds: None })
}

/// Returns the id in an archive that has no manifest outside, and all problems of the archive.
fn problems_alone(
    opened: Result<fetch::Opened>,
    depth: TestDepth,
    context: &Context,
) -> Result<(Option<SnapshotId>, Vec<Problem>)> {
    let opened = match opened {
        Err(error) if error.kind == Kind::Problem => return Ok((None, vec![Problem::of("damage", &error)])),
        opened => opened?,
    };
    let id = opened.manifest.id.clone();
    if depth.quick {
        return Ok((Some(id), Vec::new()));
    }
    context.progress.start(&format!("verifying {id}"), 0);
    let walk = opened.reader.inspect();
    context.progress.finish();
    let problems = match walk {
        Err(error) if error.kind == Kind::Problem => vec![Problem::of("damage", &error)],
        walk => walk?.problems.iter().map(|error| Problem::of("damage", error)).collect(),
    };
    Ok((Some(id), problems))
}

/// Returns the outcome for an archive whose manifest is missing or damaged, which is a problem even if the archive is
/// whole.
fn missing_manifest(
    catalog: &Catalog,
    archive: &ArchiveWithoutManifest,
    depth: TestDepth,
    context: &Context,
) -> Result<Outcome> {
    let clock = Instant::now();
    let store = quote_word(&catalog.location());
    let key = &archive.archive.key;
    let put_back = format!("'lifeboat copy {} --from {store} --to {store}' writes it again", archive.id);
    let lacks = if archive.has_lost_manifest { "has a damaged manifest" } else { "has no manifest" };
    let (is_damaged, message) = match problems_alone(open_without_manifest(catalog, archive, context), depth, context) {
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) if error.is_newer_format() => return Err(error),
        Err(error) => (false, format!("{key} {lacks}: {put_back}; {}", error.full_message())),
        Ok((_, found)) => match found.first() {
            Some(problem) => (true, format!("{key} {lacks}, and is damaged: {}", problem.message)),
            None if depth.quick => (false, format!("{key} {lacks}: {put_back}")),
            None => (false, format!("{key} {lacks}, but every byte of it is as it was written: {put_back}")),
        },
    };
    let level = if is_damaged { ProofLevel::Damaged } else { ProofLevel::None };
    let kind = if archive.has_lost_manifest { "manifest" } else { "without_manifest" };
    Ok(Outcome {
        id: archive.id.to_string(),
        level: level.name(),
        ok: false,
        problems: vec![Problem { kind: kind.to_owned(), message }],
        seconds: clock.elapsed().as_secs_f64(),
        restore_seconds: None,
    })
}

/// Reads back every byte of a snapshot that was just taken. Of an encrypted snapshot that no key opens, only the
/// ciphertext is checked.
pub(crate) fn read_back(catalog: &Catalog, id: &SnapshotId, context: &Context) -> Result<Outcome> {
    let filter = SnapshotFilter { source: Some(id.source().clone()), ..SnapshotFilter::default() };
    let listed = catalog.find(&id.to_string(), &filter)?;
    outcome(catalog, &listed, TestDepth { quick: false, any_key: true }, context)
}

/// Tests one snapshot, and records the result in the store.
fn outcome(catalog: &Catalog, listed: &Listed, depth: TestDepth, context: &Context) -> Result<Outcome> {
    let clock = Instant::now();
    catalog.require_known_proofs(listed)?;
    let problems = match confirmed_problems(catalog, listed, depth, context) {
        // It is no damage, and nothing is recorded.
        Err(error) if error.is_not_trusted() => return Ok(Outcome::untested(&listed.id, Outcome::UNTRUSTED, &error)),
        found => found?,
    };
    if !problems.is_empty()
        && let Some(archive) = catalog.with_lost_manifest(listed)?
    {
        return missing_manifest(catalog, &archive, depth, context);
    }
    let level = match (problems.is_empty(), depth.quick) {
        (false, _) => ProofLevel::Damaged,
        (true, true) => ProofLevel::None,
        (true, false) => ProofLevel::Verified,
    };
    let seconds = clock.elapsed().as_secs_f64();
    // A missing archive and a manifest that cannot be read are not recorded: they are visible in every listing, and may
    // come back.
    let is_readable = problems.is_empty() || catalog.manifest(&listed.id).is_ok();
    if level != ProofLevel::None && listed.archive.is_some() && is_readable {
        record_proof(catalog, listed, level, seconds, None, &problems, context);
    }
    if level == ProofLevel::Verified
        && !listed.proofs.is_empty()
        && catalog.proof(listed).is_ok_and(|proof| proof.level == ProofLevel::Damaged)
    {
        tracing::warn!(
            "every byte of {} is as it was written, but an earlier test found it damaged: \
             'latest' skips it as long as that test's {}.proof-*.json is in the store",
            listed.id,
            listed.id
        );
    }
    let (id, level, ok) = (listed.id.to_string(), level.name(), problems.is_empty());
    Ok(Outcome { id, level, ok, problems, seconds, restore_seconds: None })
}

/// Records the outcome in the store. If that fails, a warning is logged, and the outcome is still valid.
pub(crate) fn record_proof(
    catalog: &Catalog,
    listed: &Listed,
    level: ProofLevel,
    seconds: f64,
    restore_seconds: Option<f64>,
    problems: &[Problem],
    context: &Context,
) {
    let is_encrypted = listed.archive.as_ref().is_some_and(|archive| archive.key.name().ends_with(ENCRYPTED_ENDING));
    // A message may name a table, and no table may be named outside an encrypted archive.
    let text = |problem: &Problem| if is_encrypted { problem.kind.clone() } else { problem.message.clone() };
    let proof = Proof {
        id: listed.id.clone(),
        level,
        at: Utc::now(),
        host: context.host.clone(),
        seconds,
        restore_seconds,
        problems: problems.iter().take(10).map(text).collect(),
    };
    if let Err(error) = catalog.record_proof(&proof) {
        tracing::warn!("cannot record the result for {} in the store: {}", listed.id, error.full_message());
    }
}

/// The same as [`problems`], but repeated if the store is remote and a problem was found. Damage is recorded
/// permanently, and bytes that were only damaged in transit are not damage.
fn confirmed_problems(catalog: &Catalog, listed: &Listed, depth: TestDepth, context: &Context) -> Result<Vec<Problem>> {
    let found = problems(catalog, listed, depth, context)?;
    if found.is_empty() || catalog.is_local() {
        return Ok(found);
    }
    let again = problems(catalog, listed, depth, context)?;
    if again.is_empty() {
        tracing::warn!("{} was damaged at the first read, and intact at the second: {}", listed.id, found[0].message);
    }
    Ok(again)
}

/// Returns all problems of a snapshot, or an error if it cannot be tested.
fn problems(catalog: &Catalog, listed: &Listed, depth: TestDepth, context: &Context) -> Result<Vec<Problem>> {
    let opened = match open_or_hash(catalog, listed, depth, context) {
        Err(error) if error.kind == Kind::Problem && !error.is_not_trusted() => {
            return Ok(vec![Problem::of("damage", &error)]);
        }
        Ok(Content::Hashed(problems)) => return Ok(problems),
        Ok(Content::Opened(opened)) => opened,
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    if !depth.quick {
        context.progress.start(&format!("verifying {}", listed.id), 0);
        let walk = opened.reader.inspect();
        context.progress.finish();
        let walk = match walk {
            Err(error) if error.kind == Kind::Problem => return Ok(vec![Problem::of("damage", &error)]),
            other => other?,
        };
        found.extend(walk.problems.iter().map(|error| Problem::of("damage", error)));
        if Some(walk.sha256) != opened.manifest.sha256 {
            found.push(hash_differs());
        }
    }
    match opened.compare_inside() {
        Err(error) if error.kind == Kind::Problem => found.push(Problem::of("manifest", &error)),
        other => other?,
    }
    Ok(found)
}

/// The depth of a test.
#[derive(Clone, Copy)]
struct TestDepth {
    /// True if only metadata and sizes are checked.
    quick: bool,
    /// True if the ciphertext of an encrypted snapshot is checked, with a warning, when none of the keys opens it;
    /// otherwise that is an error.
    any_key: bool,
}

/// The part of a snapshot that could be read.
enum Content {
    Opened(Box<fetch::Opened>),
    /// The problems of an encrypted archive that no key opens: only its hash was compared.
    Hashed(Vec<Problem>),
}

fn open_or_hash(catalog: &Catalog, listed: &Listed, depth: TestDepth, context: &Context) -> Result<Content> {
    let (manifest, _) = catalog.manifest(&listed.id)?;
    if manifest.encrypted && context.keys.is_empty() {
        tracing::info!("{} is encrypted and no key is given: only its ciphertext is verified", listed.id);
        let archive = catalog.open_archive(&manifest)?;
        return Ok(Content::Hashed(if depth.quick {
            Vec::new()
        } else {
            hash_encrypted(archive, &manifest, context)?
        }));
    }
    match fetch::open_uncompared(catalog, &listed.id, context) {
        // Either the key is wrong or the header is damaged. age cannot tell the two apart, but the hash can.
        Err(error) if error.kind == Kind::Usage && !error.is_newer_format() && manifest.encrypted => {
            let problems = hash_encrypted(catalog.open_archive(&manifest)?, &manifest, context)?;
            if problems.is_empty() && !depth.any_key {
                return Err(error);
            }
            if problems.is_empty() {
                tracing::warn!("only the ciphertext of {} is verified: {}", listed.id, error.full_message());
            }
            Ok(Content::Hashed(problems))
        }
        opened => Ok(Content::Opened(Box::new(opened?))),
    }
}

/// Compares the hash of an encrypted archive with the manifest's. Returns a problem if they differ.
fn hash_encrypted(archive: Arc<dyn Ranged>, manifest: &Manifest, context: &Context) -> Result<Vec<Problem>> {
    context.progress.start(&format!("verifying {}", manifest.id), archive.len());
    let sha256 = archive::stream(archive, &mut |bytes| {
        context.progress.advance(bytes.len() as u64);
        Ok(())
    });
    context.progress.finish();
    if Some(sha256?) == manifest.sha256 { Ok(Vec::new()) } else { Ok(vec![hash_differs()]) }
}

fn hash_differs() -> Problem {
    Problem { kind: "damage".to_owned(), message: "the archive's SHA-256 is not the one in the manifest".to_owned() }
}
