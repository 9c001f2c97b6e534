//! `doctor`: tests the config, sources and stores with real operations, and reports the results.

use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use crate::archive;
use crate::config::Config;
use crate::engine::postgres::Params;
use crate::engine::postgres::status::{Connections, Extension, Rights, ServerState};
use crate::engine::postgres::wire::about::ServerAbout;
use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::guard::grace::{self, Grace};
use crate::ops::inspect::{Strictness, inspect};
use crate::ops::sources::Chosen;
use crate::ops::{Context, gate, host_name, stores};
use crate::platform::digest::Sha256;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::exposed;
use crate::platform::http::Url;
use crate::platform::text;
use crate::snapshots::catalog::{Catalog, TRIAL_PREFIX};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Depth;
use crate::snapshots::trust::Signer;
use crate::store::{Key, Names, Published, Store, StoreExt, StoreUrl};

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DoctorOptions {
    /// Test only these sources: names of the config, SQLite files, PostgreSQL URLs
    pub sources: Vec<String>,
    /// Also send a test notice and pings
    pub notify: bool,
}

/// The extension that is reported even if the server does not have it.
const TIMESCALEDB: &str = "timescaledb";
/// The size of the large test object: more than one part of an upload, and not a multiple of a part's size.
const LARGE_BYTES: usize = (17 << 20) + 11;
/// The largest difference allowed between the clocks of this machine and of the store.
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(30);

/// Runs the command.
pub(crate) fn run(options: &DoctorOptions, context: &Context) -> Result<ChecksReport> {
    let mut checks = Checks::default();
    if !options.sources.is_empty() {
        for chosen in context.sources(&options.sources)? {
            try_source(&chosen, &mut checks, context)?;
        }
        note_exposed_files(&mut checks);
        return Ok(report(checks));
    }
    if let Some(config) = &context.config {
        checks.add("config", true, shown(&config.path));
        let host = config.host().and_then(|_| host_name::require_permanent(&context.host));
        let host = host.map(|()| format!("snapshots are recorded as from host {}", one_line(&context.host)));
        checks.note("host", host)?;
        try_sources(config, &mut checks, context)?;
        let preflight = config.preflight().map(|_| String::new());
        match preflight {
            Ok(_) => {
                // Sources that cannot be read from the config are reported above.
                let chosen = config.sources().map(|_| context.sources(&[])).unwrap_or(Ok(Vec::new()));
                gate::preflight(&chosen.unwrap_or_default(), context, &mut checks)?;
            }
            Err(error) => drop(checks.note("preflight", Err(error))?),
        }
    }
    match context.all_stores() {
        Ok(stores) => {
            for store in stores {
                try_store(store, context.may_create(store), &mut checks)?;
            }
        }
        Err(error) if context.config.is_none() => return Err(error),
        Err(error) => drop(checks.note("store", Err(error))?),
    }
    try_trust(&mut checks, context)?;
    if let Some(config) = &context.config {
        checks.note("encryption", encryption(config, context))?;
        checks.note("signing", signing(config, context))?;
        checks.note("retention", retention(config))?;
        try_grace(config, &mut checks, context)?;
        try_notices(config, options, &mut checks)?;
        if let Some(file) = config.metrics_file()? {
            let folder = crate::platform::disk::folder_of(&file).to_owned();
            let found = crate::ops::preflight::writable(&folder);
            checks.add("metrics", found.ok, found.message);
        }
    }
    note_exposed_files(&mut checks);
    Ok(report(checks))
}

/// Reports the files with secrets that other users can read or change.
fn note_exposed_files(checks: &mut Checks) {
    exposed::found().into_iter().for_each(|message| checks.add("permissions", false, message));
}

/// Adds the verdict to the checks.
fn report(checks: Checks) -> ChecksReport {
    let mut report = checks.into_report();
    let failed = report.failed().count();
    report.verdict = match failed {
        0 => "everything works".to_owned(),
        failed => format!("{failed} of {} checks FAILED", report.checks.len()),
    };
    report
}

fn try_sources(config: &Config, checks: &mut Checks, context: &Context) -> Result<()> {
    let sources = match config.sources() {
        Ok(sources) => sources,
        Err(error) => return checks.note("sources", Err(error)).map(drop),
    };
    if sources.is_empty() {
        checks.add("sources", false, "the config has none (add a [[source]] with name and url)");
        return Ok(());
    }
    for chosen in context.sources(&[])? {
        try_source(&chosen, checks, context)?;
    }
    Ok(())
}

fn try_source(chosen: &Chosen, checks: &mut Checks, context: &Context) -> Result<()> {
    let strictness = match chosen.source.server() {
        None => Strictness::Complaints,
        Some(params) => {
            if !try_server(&chosen.name()?, params, checks)? {
                return Ok(());
            }
            Strictness::AllowEmpty
        }
    };
    checks.append(inspect(chosen, None, Depth::Quick, strictness, &context.scratch)?.checks);
    Ok(())
}

/// Reports the server, the role and its rights; returns false if the server cannot be reached. Rights that only a
/// restore or a migration needs are reported, but the check passes without them.
fn try_server(name: &SourceName, params: &Params, checks: &mut Checks) -> Result<bool> {
    let mut state = match ServerState::open(params) {
        Ok(state) => state,
        Err(error) => return checks.note(format!("{name}: server"), Err(error)),
    };
    let about = state.about().clone();
    let place = format!("PostgreSQL {} at {}:{}, database {}", about.version, about.host, about.port, about.database);
    checks.add(format!("{name}: server"), true, one_line(&place));
    let power = if about.is_superuser { ", a superuser" } else { "" };
    checks.add(format!("{name}: role"), true, one_line(&format!("{}{power}", about.user)));
    checks.note(format!("{name}: writing"), state.is_read_only().map(|is_now| writing(&about, is_now)))?;
    checks.note(format!("{name}: extensions"), state.extensions().map(|found| extensions(&found)))?;
    checks.note(format!("{name}: rights to create"), state.rights().map(|found| rights(&found)))?;
    checks.note(format!("{name}: connections"), state.connections().and_then(connections))?;
    Ok(true)
}

/// Describes whether transactions may write.
fn writing(about: &ServerAbout, is_read_only: bool) -> String {
    let now = match (about.in_recovery, is_read_only) {
        (true, _) => "no: the server is a standby",
        (false, true) => "no: transactions are read-only",
        (false, false) => return "allowed".to_owned(),
    };
    format!("{now} (enough for a backup, but not for a restore or a migration)")
}

fn extensions(found: &[Extension]) -> String {
    let mut words: Vec<String> = found
        .iter()
        .filter_map(|extension| {
            let installed = extension.installed.as_ref()?;
            let newer = extension.available.as_ref().filter(|available| *available != installed);
            let newer = newer.map(|newer| format!(" (version {newer} is available)")).unwrap_or_default();
            Some(format!("{} {installed}{newer}", extension.name))
        })
        .collect();
    match found.iter().find(|extension| extension.name == TIMESCALEDB) {
        Some(Extension { installed: None, available: Some(version), .. }) => {
            words.push(format!("{TIMESCALEDB} {version} is available, but not installed in this database"));
        }
        Some(_) => {}
        None => words.push(format!("{TIMESCALEDB} is not available on this server")),
    }
    one_line(&words.join(", "))
}

fn rights(found: &Rights) -> String {
    let mut words = vec![match found.in_database {
        true => "create schemas in the database: yes".to_owned(),
        false => "create schemas in the database: no".to_owned(),
    }];
    if !found.in_schemas.is_empty() {
        words.push(format!("create objects in {}: yes", found.in_schemas.join(", ")));
    }
    if !found.not_in_schemas.is_empty() {
        words.push(format!("create objects in {}: no", found.not_in_schemas.join(", ")));
    }
    if !found.in_database || !found.not_in_schemas.is_empty() {
        words.push("a backup does not need these rights, but a restore or a migration does".to_owned());
    }
    one_line(&words.join("; "))
}

fn connections(found: Connections) -> Result<String> {
    let Connections { free, used, most, reserved, limit } = found;
    let limit = limit.map(|limit| format!(", the limit of this database or role is {limit}")).unwrap_or_default();
    let message = format!("{free} more can be opened ({used} of {most} are open, {reserved} are reserved{limit})");
    if free > 0 {
        return Ok(message);
    }
    Err(Error::problem(message).hint("raise max_connections or the limit, or close some; '--jobs 1' needs the fewest"))
}

/// Adds a failed check for each source of the config whose newest snapshot in a store is not trusted.
fn try_trust(checks: &mut Checks, context: &Context) -> Result<()> {
    let Some(Ok(sources)) = context.config.as_ref().map(Config::sources) else { return Ok(()) };
    // Stores that cannot be read have checks of their own.
    for catalog in context.stores.iter().filter_map(|store| context.open(store).ok()) {
        for source in sources {
            let found =
                catalog.list_newest(Some(&source.name), None, 1).and_then(|(newest, _)| catalog.describe(newest));
            let errors = found.into_iter().flatten().filter_map(|described| described.manifest.err());
            for error in errors.filter(Error::is_not_trusted) {
                let place = one_line(&catalog.location());
                let error = error.context(format!("the newest snapshot in {place} is not trusted"));
                checks.of_source(&source.name, |checks| checks.note(format!("{}: trust", source.name), Err(error)))?;
            }
        }
    }
    Ok(())
}

/// Describes how snapshots are encrypted and if a key on this machine opens them. Fails if there are keys here and none
/// of them opens them.
fn encryption(config: &Config, context: &Context) -> Result<String> {
    let encryption = config.encryption()?;
    if encryption.passphrase()?.is_some() {
        return Ok("with a passphrase".to_owned());
    }
    if encryption.recipients.is_empty() {
        return Ok("none".to_owned());
    }
    let ours = context.keys.recipients();
    let count = encryption.recipients.len();
    if ours.is_empty() {
        return Ok(format!(
            "to {count} keys; no key on this machine opens the snapshots: keep the secret keys in a safe place"
        ));
    }
    if encryption.recipients.iter().any(|recipient| ours.contains(recipient)) {
        return Ok(format!("to {count} keys, one of which is on this machine"));
    }
    Err(Error::problem("no key on this machine opens snapshots that are encrypted to the recipients")
        .hint("compare recipients with the output of 'lifeboat keygen --public FILE'"))
}

/// Describes which snapshots are signed and trusted. Fails if the key cannot be used, or if it is not trusted.
fn signing(config: &Config, context: &Context) -> Result<String> {
    let signing = config.signing()?;
    let key = match context.trust.signer() {
        Signer::None => None,
        Signer::Key(key) => Some(key.public()),
        Signer::Unusable(error) => return Err(error.duplicate()),
    };
    let restores_by_itself = config.guard().is_ok_and(|guard| guard.is_configured && guard.restore_if_missing);
    let unchecked = match restores_by_itself {
        true => {
            "signatures are not checked, although guard restores by itself what the store has: set trusted under [signing]"
        }
        false => "signatures are not checked",
    };
    match (key, &signing.trusted) {
        (None, None) => Ok(format!("snapshots are not signed, and {unchecked}")),
        (Some(_), None) => Ok(format!("snapshots are signed, but {unchecked}")),
        (None, Some(trusted)) => {
            Ok(format!("only snapshots that one of {} keys has signed are trusted; no key here signs", trusted.len()))
        }
        (Some(key), Some(trusted)) if trusted.contains(&key) => Ok(format!(
            "snapshots are signed, and only those that one of {} keys has signed are trusted",
            trusted.len()
        )),
        (Some(key), Some(_)) => Err(Error::problem(format!("the key that signs is not trusted itself: {key}"))
            .hint("add it to trusted under [signing]: otherwise no new snapshot is trusted")),
    }
}

/// Adds the check of the grace period of `guard`, if a guard is used.
fn try_grace(config: &Config, checks: &mut Checks, context: &Context) -> Result<()> {
    let guard = match config.guard() {
        Ok(guard) => guard,
        Err(error) => return checks.note("guard", Err(error)).map(drop),
    };
    if !guard.snapshot_at_end {
        return Ok(());
    }
    let grace = Grace::new(guard.grace.to_std().unwrap_or_default(), guard.reserve.and_then(|time| time.to_std().ok()));
    match grace::check(grace, guard.is_configured, context) {
        Ok(Some(found)) => checks.note("guard", Ok(found)).map(drop),
        // Stores and sources have checks of their own.
        Ok(None) => Ok(()),
        Err(error) if error.kind == Kind::Problem || error.kind == Kind::Interrupted => {
            checks.note("guard", Err(error)).map(drop)
        }
        Err(_) => Ok(()),
    }
}

fn retention(config: &Config) -> Result<String> {
    let retention = config.retention()?;
    Ok(match (retention.policy.is_empty(), retention.after_snapshot) {
        (true, _) => "none: every snapshot is kept".to_owned(),
        (false, true) => "pruned after every successful 'snapshot'".to_owned(),
        (false, false) => "pruned by 'snapshot --prune' and 'prune --yes'".to_owned(),
    })
}

/// Checks that the addresses for notices and pings can be reached. Nothing is sent unless --notify is given.
fn try_notices(config: &Config, options: &DoctorOptions, checks: &mut Checks) -> Result<()> {
    let notices = match config.notices() {
        Ok(notices) => notices,
        Err(error) => return checks.note("notify", Err(error)).map(drop),
    };
    let pings = notices.pings.iter().map(|(command, url)| (format!("ping of {command}"), url));
    let urls: Vec<_> = notices.webhook.iter().map(|url| ("webhook".to_owned(), url)).chain(pings).collect();
    if urls.is_empty() {
        checks.add("notify", true, "no notices of failures are sent (set webhook or ping under [notify])");
    }
    for (name, url) in urls {
        checks.note(name, reach(url))?;
    }
    if let Some(url) = &notices.webhook {
        let found = match notices.form.refusal(url) {
            None => Ok(format!("notices have the form {}", notices.form.name())),
            Some((message, hint)) => Err(Error::problem(message).hint(hint)),
        };
        checks.note("webhook form", found)?;
    }
    if options.notify {
        for warning in notices.trial() {
            checks.add("notice", false, warning);
        }
    }
    Ok(())
}

fn reach(url: &Url) -> Result<String> {
    let unreachable = |error: std::io::Error| Error::unreachable(format!("cannot reach {url}")).because(error);
    let addresses = (url.host(), url.port()).to_socket_addrs().map_err(unreachable)?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(_) => return Ok(format!("{url} can be reached")),
            Err(error) => last = Some(error),
        }
    }
    Err(unreachable(last.unwrap_or_else(|| std::io::Error::other("the host name has no address"))))
}

/// Tests a store. One that the command line names may be absent: a snapshot would create it. One of the config may not.
fn try_store(url: &StoreUrl, may_create: bool, checks: &mut Checks) -> Result<()> {
    let mut url = url.clone();
    if let Some(lock) = url.take_lock() {
        // The test objects must be deleted again, so they are written without a lock.
        let left_out = format!("not tested: the test objects could not be deleted for {} days", lock.days);
        checks.note("object lock", Ok(left_out))?;
    }
    let store = match url.open() {
        Ok(store) => store,
        Err(error) => return checks.note("store", Err(error)).map(drop),
    };
    let location = store.location();
    // The same connection is tested below: it has learned the difference of the clocks.
    let (exists, store) = match Catalog::exists(store) {
        Ok(found) => found,
        Err(error) => return checks.note("store", Err(error)).map(drop),
    };
    let found = match (exists, may_create) {
        (true, _) => Ok(location),
        (false, true) => Ok(format!("{location}: no store exists yet; 'lifeboat snapshot --store' creates one")),
        (false, false) => Err(Error::unreachable(format!("{location}: no store exists yet")).hint(
            "'lifeboat init' creates the stores of a new config; if there was one, check that its disk is mounted",
        )),
    };
    checks.note("store", found)?;
    if let Some(folder) = url.folder() {
        let missing = stores::missing_guarantees(folder);
        let found = if missing.is_empty() {
            "new files are exclusive, durable and private".to_owned()
        } else {
            missing.join("; ")
        };
        checks.add("file system", true, found);
    }
    let small: Key = format!("{TRIAL_PREFIX}{}", random()?).parse()?;
    let large: Key = format!("{TRIAL_PREFIX}{}", random()?).parse()?;
    let tested = try_objects(&*store, &small, &large, checks);
    // The test objects are deleted whatever the results are. 'prune' removes those that an interrupted run leaves.
    let cleared = store.delete_all(&[small.clone(), large.clone()]).and_then(|()| {
        let left = [&small, &large].map(|key| store.stat(key));
        for left in left {
            if left?.is_some() {
                return Err(Error::failed("a deleted object still exists"));
            }
        }
        Ok("deleted objects no longer exist".to_owned())
    });
    checks.note("delete", cleared)?;
    tested
}

fn try_objects(store: &dyn Store, small: &Key, large: &Key, checks: &mut Checks) -> Result<()> {
    let content = b"written by lifeboat doctor; it may be deleted";
    let begun = SystemTime::now();
    let put = store.write(small, content).and_then(|published| match published {
        Published::Created => Ok(format!("{} bytes", content.len())),
        Published::AlreadyExists => Err(Error::failed("an object with a new random name already exists")),
    });
    if !checks.note("write", put)? {
        return Ok(());
    }
    let got = store.read(small, 1 << 16).and_then(|read| match read == content {
        true => Ok("the same bytes as written".to_owned()),
        false => Err(Error::problem("the bytes read differ from those written")),
    });
    checks.note("read", got)?;
    let range = store.open(small).and_then(|object| {
        let mut part = [0; 7];
        object.read_at(11, &mut part).io(Kind::Unreachable, || format!("cannot read a range of {small}"))?;
        if part == content[11..18] {
            Ok("partial reads work".to_owned())
        } else {
            Err(Error::problem("the bytes of a range differ from those written"))
        }
    });
    checks.note("read a range", range)?;
    let listed =
        store.list("", Names::StartingWith(small.as_str())).and_then(|listing| match listing.objects.as_slice() {
            [one] if one.key == *small && one.bytes == content.len() as u64 => {
                Ok("a new object is listed at once".to_owned())
            }
            _ => Err(Error::problem("an object that was just written is not listed")),
        });
    checks.note("list", listed)?;
    let again = store.write(small, b"something else").and_then(|published| match published {
        Published::AlreadyExists if store.read(small, 1 << 16)? == content => {
            Ok("an existing object is not overwritten".to_owned())
        }
        _ => Err(Error::problem("an existing object was overwritten")),
    });
    checks.note("write once", again)?;
    checks.note("write in parts", try_large(store, large))?;
    for (name, found) in store.probe(large) {
        checks.note(&name, found)?;
    }
    let clock = store.stat(small).and_then(|meta| clock(begun, meta.map(|meta| meta.modified)));
    checks.note("clock", clock)?;
    if let Some(free) = store.free_bytes() {
        checks.note("free space", Ok(text::bytes(free)))?;
    }
    Ok(())
}

fn try_large(store: &dyn Store, key: &Key) -> Result<String> {
    // The content of every part is different.
    let bytes: Vec<u8> = (0..LARGE_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut upload = store.create_large(key, bytes.len() as u64)?;
    upload.write_all(&bytes)?;
    let published = upload.finish()?;
    let sha256 = archive::stream(Arc::from(store.open(key)?), &mut |_| Ok(()))?;
    if published != Published::Created || sha256 != Sha256::of(&bytes) {
        return Err(Error::problem("the bytes read differ from those written"));
    }
    Ok(format!("{}, the same bytes as written", text::bytes(bytes.len() as u64)))
}

fn clock(begun: SystemTime, written: Option<SystemTime>) -> Result<String> {
    let written = written.ok_or_else(|| Error::failed("an object that was just written does not exist"))?;
    let apart = DateTime::<Utc>::from(written) - DateTime::<Utc>::from(begun);
    if apart.abs() <= CLOCK_SLACK {
        return Ok("this machine's clock agrees with the store's".to_owned());
    }
    let (seconds, which) =
        (apart.num_seconds().abs(), if apart < chrono::Duration::zero() { "ahead of" } else { "behind" });
    Err(Error::problem(format!("this machine's clock is {seconds} s {which} the store's"))
        .hint("set the clock: snapshots are named and found by their time"))
}

fn random() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::failed("cannot get random numbers from the system").because(error.to_string()))?;
    Ok(hex::encode(random))
}
