//! `doctor`: tests the config, sources and stores with real operations, and reports the results.

use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use crate::archive;
use crate::config::Config;
use crate::engine::postgres::Params;
use crate::engine::postgres::status::{Connections, Extension, Rights, Standing};
use crate::engine::postgres::wire::about::ServerAbout;
use crate::engine::source::Source;
use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::look::{Strictness, look};
use crate::ops::sources::Chosen;
use crate::ops::{Context, gate, stores};
use crate::platform::digest::Sha256;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::http::Url;
use crate::platform::text;
use crate::snapshots::catalog::{Catalog, TRIAL_PREFIX};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Depth;
use crate::store::{Key, Names, Published, Store, StoreUrl};

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DoctorOptions {
    /// Try only these: names of the config, SQLite files, PostgreSQL URLs
    pub sources: Vec<String>,
    /// Send a notice and pings too, to see them arrive
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
    let mut trials = Checks::default();
    if !options.sources.is_empty() {
        for chosen in context.sources(&options.sources)? {
            try_source(&chosen, &mut trials)?;
        }
        return Ok(told(trials));
    }
    if let Some(config) = &context.config {
        trials.add("config", true, shown(&config.path));
        let host = config.host().and_then(|host| match host {
            None if is_containers_own(&context.host) => Err(Error::problem(format!(
                "{} is a container's own name, and the next one has another",
                one_line(&context.host)
            ))
            .hint("give host = \"...\" in the config: snapshots belong to a machine and a path")),
            _ => Ok(format!("origins are of {}", one_line(&context.host))),
        });
        trials.note("host", host)?;
        try_sources(config, &mut trials, context)?;
        let preflight = config.preflight().map(|_| String::new());
        match preflight {
            Ok(_) => gate::preflight(&[], context, &mut trials)?,
            Err(error) => drop(trials.note("preflight", Err(error))?),
        }
    }
    match context.all_stores() {
        Ok(stores) => {
            for store in stores {
                try_store(store, &mut trials)?;
            }
        }
        Err(error) if context.config.is_none() => return Err(error),
        Err(error) => drop(trials.note("store", Err(error))?),
    }
    if let Some(config) = &context.config {
        trials.note("encryption", encryption(config, context))?;
        trials.note("retention", retention(config))?;
        try_notices(config, options, &mut trials)?;
        if let Some(file) = config.metrics_file()? {
            let folder = crate::platform::disk::folder_of(&file).to_owned();
            let found = crate::ops::preflight::writable(&folder);
            trials.add("metrics", found.ok, found.message);
        }
    }
    Ok(told(trials))
}

fn told(trials: Checks) -> ChecksReport {
    let mut report = trials.into_report();
    let failed = report.failed().count();
    report.verdict = match failed {
        0 => "everything works".to_owned(),
        failed => format!("{failed} of {} trials FAILED", report.checks.len()),
    };
    report
}

/// Returns true if the name is of the form that container runtimes generate: twelve hexadecimal digits.
pub(crate) fn is_containers_own(host: &str) -> bool {
    host.len() == 12 && host.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn try_sources(config: &Config, trials: &mut Checks, context: &Context) -> Result<()> {
    let sources = match config.sources() {
        Ok(sources) => sources,
        Err(error) => return trials.note("sources", Err(error)).map(drop),
    };
    if sources.is_empty() {
        trials.add("sources", false, "the config has none (add a [[source]] with name and url)");
        return Ok(());
    }
    for chosen in context.sources(&[])? {
        try_source(&chosen, trials)?;
    }
    Ok(())
}

fn try_source(chosen: &Chosen, trials: &mut Checks) -> Result<()> {
    let strictness = match &chosen.source {
        Source::Sqlite(_) => Strictness::Complaints,
        Source::Postgres(params) => {
            if !try_server(&chosen.name()?, params, trials)? {
                return Ok(());
            }
            Strictness::Trial
        }
    };
    trials.append(look(chosen, None, Depth::Quick, strictness)?.checks);
    Ok(())
}

/// Reports the server, the role and its rights; returns false if the server cannot be reached. Rights that only a
/// restore or a migration needs are reported, but the check passes without them.
fn try_server(name: &SourceName, params: &Params, trials: &mut Checks) -> Result<bool> {
    let mut standing = match Standing::open(params) {
        Ok(standing) => standing,
        Err(error) => return trials.note(format!("{name}: server"), Err(error)),
    };
    let about = standing.about().clone();
    let place = format!("PostgreSQL {} at {}:{}, database {}", about.version, about.host, about.port, about.database);
    trials.add(format!("{name}: server"), true, one_line(&place));
    let power = if about.is_superuser { ", a superuser" } else { "" };
    trials.add(format!("{name}: role"), true, one_line(&format!("{}{power}", about.user)));
    trials.note(format!("{name}: writing"), standing.is_read_only().map(|is_now| writing(&about, is_now)))?;
    trials.note(format!("{name}: extensions"), standing.extensions().map(|found| extensions(&found)))?;
    trials.note(format!("{name}: rights to create"), standing.rights().map(|found| rights(&found)))?;
    trials.note(format!("{name}: connections"), standing.connections().and_then(connections))?;
    Ok(true)
}

/// Describes whether transactions may write.
fn writing(about: &ServerAbout, is_read_only: bool) -> String {
    let now = match (about.in_recovery, is_read_only) {
        (true, _) => "no: the server is a standby",
        (false, true) => "no: transactions are read-only here",
        (false, false) => return "allowed".to_owned(),
    };
    format!("{now} (a backup needs no more, a restore or a migration does)")
}

fn extensions(found: &[Extension]) -> String {
    let mut words: Vec<String> = found
        .iter()
        .filter_map(|extension| {
            let installed = extension.installed.as_ref()?;
            let newer = extension.available.as_ref().filter(|available| *available != installed);
            let newer = newer.map(|newer| format!(" (the server has {newer})")).unwrap_or_default();
            Some(format!("{} {installed}{newer}", extension.name))
        })
        .collect();
    match found.iter().find(|extension| extension.name == TIMESCALEDB) {
        Some(Extension { installed: None, available: Some(version), .. }) => {
            words.push(format!("{TIMESCALEDB} {version} is available, and not installed in this database"));
        }
        Some(_) => {}
        None => words.push(format!("{TIMESCALEDB} is not available on this server")),
    }
    one_line(&words.join(", "))
}

fn rights(found: &Rights) -> String {
    let mut words = vec![match found.in_database {
        true => "schemas in the database: yes".to_owned(),
        false => "schemas in the database: no".to_owned(),
    }];
    if !found.in_schemas.is_empty() {
        words.push(format!("in {}: yes", found.in_schemas.join(", ")));
    }
    if !found.not_in_schemas.is_empty() {
        words.push(format!("in {}: no", found.not_in_schemas.join(", ")));
    }
    if !found.in_database || !found.not_in_schemas.is_empty() {
        words.push("a backup needs none of them, a restore or a migration does".to_owned());
    }
    one_line(&words.join("; "))
}

fn connections(found: Connections) -> Result<String> {
    let Connections { free, used, most, reserved, limit } = found;
    let limit = limit.map(|limit| format!(", this database or role may have {limit}")).unwrap_or_default();
    let told = format!("{free} more may be opened ({used} of {most} are, {reserved} are reserved{limit})");
    if free > 0 {
        return Ok(told);
    }
    Err(Error::problem(told).hint("raise max_connections or the limit, or close some; '--jobs 1' takes fewest"))
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
            "to {count} keys; nothing on this machine opens it: keep the secret ones where you find them"
        ));
    }
    if encryption.recipients.iter().any(|recipient| ours.contains(recipient)) {
        return Ok(format!("to {count} keys, one of which is here"));
    }
    Err(Error::problem("the keys that are here open nothing that is encrypted to the recipients")
        .hint("check recipients against 'lifeboat keygen --public FILE'"))
}

fn retention(config: &Config) -> Result<String> {
    let retention = config.retention()?;
    Ok(match (retention.policy.is_empty(), retention.after_snapshot) {
        (true, _) => "none: every snapshot stays".to_owned(),
        (false, true) => "pruned by every 'snapshot' that is good".to_owned(),
        (false, false) => "pruned by 'snapshot --prune' and 'prune --yes'".to_owned(),
    })
}

/// Checks that the addresses for notices and pings can be reached. Nothing is sent unless --notify is given.
fn try_notices(config: &Config, options: &DoctorOptions, trials: &mut Checks) -> Result<()> {
    let notices = match config.notices() {
        Ok(notices) => notices,
        Err(error) => return trials.note("notify", Err(error)).map(drop),
    };
    let pings = notices.pings.iter().map(|(command, url)| (format!("ping of {command}"), url));
    let urls: Vec<_> = notices.webhook.iter().map(|url| ("webhook".to_owned(), url)).chain(pings).collect();
    if urls.is_empty() {
        trials.add("notify", true, "nobody is told of failures (webhook and ping under [notify])");
    }
    for (name, url) in urls {
        trials.note(name, reach(url))?;
    }
    if options.notify {
        for warning in notices.trial() {
            trials.add("notice", false, warning);
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
            Ok(_) => return Ok(format!("{url} answers")),
            Err(error) => last = Some(error),
        }
    }
    Err(unreachable(last.unwrap_or_else(|| std::io::Error::other("it has no address"))))
}

fn try_store(url: &StoreUrl, trials: &mut Checks) -> Result<()> {
    let mut url = url.clone();
    if let StoreUrl::S3(settings) = &mut url
        && let Some(lock) = settings.lock.take()
    {
        // The test objects must be deleted again, so they are written without a lock.
        let left_out = format!("not tried: objects could not be deleted for {} days", lock.days);
        trials.note("object lock", Ok(left_out))?;
    }
    let store = match stores::place(&url) {
        Ok(store) => store,
        Err(error) => return trials.note("store", Err(error)).map(drop),
    };
    let found = Catalog::is_there(&*store).map(|is_there| match is_there {
        true => store.location(),
        false => format!("{}: no store yet; 'lifeboat snapshot --store' makes one", store.location()),
    });
    if !trials.note("store", found)? {
        return Ok(());
    }
    let small: Key = format!("{TRIAL_PREFIX}{}", random()?).parse()?;
    let large: Key = format!("{TRIAL_PREFIX}{}", random()?).parse()?;
    let tried = try_objects(&*store, &small, &large, trials);
    // The test objects are deleted whatever the results are. 'prune' removes those that an interrupted run leaves.
    let cleared = store.delete_all(&[small.clone(), large.clone()]).and_then(|()| {
        let left = [&small, &large].map(|key| store.stat(key));
        for left in left {
            if left?.is_some() {
                return Err(Error::failed("an object that was deleted is still there"));
            }
        }
        Ok("objects are gone when they are deleted".to_owned())
    });
    trials.note("delete", cleared)?;
    tried
}

fn try_objects(store: &dyn Store, small: &Key, large: &Key, trials: &mut Checks) -> Result<()> {
    let words = b"written by lifeboat doctor; it may be deleted";
    let begun = SystemTime::now();
    let put = store.write(small, words).and_then(|published| match published {
        Published::Created => Ok(format!("{} bytes", words.len())),
        Published::AlreadyThere => Err(Error::failed("an object of a new name was there already")),
    });
    if !trials.note("write", put)? {
        return Ok(());
    }
    let got = store.read(small, 1 << 16).and_then(|read| match read == words {
        true => Ok("as it was written".to_owned()),
        false => Err(Error::problem("other bytes came back than were written")),
    });
    trials.note("read", got)?;
    let range = store.open(small).and_then(|object| {
        let mut part = [0; 7];
        object.read_at(11, &mut part).io(Kind::Unreachable, || format!("cannot read a range of {small}"))?;
        if part == words[11..18] {
            Ok("a part of an object".to_owned())
        } else {
            Err(Error::problem("other bytes came"))
        }
    });
    trials.note("read a range", range)?;
    let listed =
        store.list("", Names::StartingWith(small.as_str())).and_then(|listing| match listing.objects.as_slice() {
            [one] if one.key == *small && one.bytes == words.len() as u64 => {
                Ok("shows what was just written".to_owned())
            }
            _ => Err(Error::problem("an object that was just written is not listed")),
        });
    trials.note("list", listed)?;
    let again = store.write(small, b"something else").and_then(|published| match published {
        Published::AlreadyThere if store.read(small, 1 << 16)? == words => {
            Ok("an object that is there is not overwritten".to_owned())
        }
        _ => Err(Error::problem("an object that was there was overwritten")),
    });
    trials.note("write once", again)?;
    trials.note("write in parts", try_large(store, large))?;
    for (name, found) in store.probe(large) {
        trials.note(&name, found)?;
    }
    let clock = store.stat(small).and_then(|meta| clock(begun, meta.map(|meta| meta.modified)));
    trials.note("clock", clock)?;
    if let Some(free) = store.free_bytes() {
        trials.note("free space", Ok(text::bytes(free)))?;
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
        return Err(Error::problem("other bytes came back than were written"));
    }
    Ok(format!("{}, as it was written", text::bytes(bytes.len() as u64)))
}

fn clock(begun: SystemTime, written: Option<SystemTime>) -> Result<String> {
    let written = written.ok_or_else(|| Error::failed("an object that was just written is not there"))?;
    let apart = DateTime::<Utc>::from(written) - DateTime::<Utc>::from(begun);
    if apart.abs() <= CLOCK_SLACK {
        return Ok("this machine's agrees with the store's".to_owned());
    }
    let (seconds, which) =
        (apart.num_seconds().abs(), if apart < chrono::Duration::zero() { "ahead of" } else { "behind" });
    Err(Error::problem(format!("this machine's clock is {seconds} s {which} the store's"))
        .hint("set it: snapshots are named and found by their time"))
}

fn random() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::failed("the system gives no random numbers").because(error.to_string()))?;
    Ok(hex::encode(random))
}
