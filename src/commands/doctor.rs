//! `doctor`: tries for real what a store must be able to do, and says what it can.

use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use clap::Args;

use super::checks::{Checks, ChecksReport};
use super::look::{Strictness, look};
use super::{Context, gate, stores};
use crate::archive;
use crate::catalog::{Catalog, TRIAL_PREFIX};
use crate::config::Config;
use crate::digest::Sha256;
use crate::disk::shown;
use crate::error::{Error, IoContext, Kind, Result, one_line};
use crate::http::Url;
use crate::manifest::Depth;
use crate::store::{Key, Names, Published, Store, StoreUrl};
use crate::text;

/// Tries everything in the config: sources, stores (writes, reads, lists and deletes objects of its own), mount points, keys, addresses
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Send a notice and pings too, to see them arrive
    #[arg(long)]
    pub notify: bool,
}

/// More than one part of an upload, and no multiple of one.
const LARGE_BYTES: usize = (17 << 20) + 11;
/// How far the clocks of this machine and of the store may be apart.
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(30);

/// Runs the command.
pub fn run(args: &DoctorArgs, context: &Context) -> Result<ChecksReport> {
    let mut trials = Checks::default();
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
        try_notices(config, args, &mut trials)?;
        if let Some(file) = config.metrics_file()? {
            let folder = crate::disk::folder_of(&file).to_owned();
            let found = crate::preflight::writable(&folder);
            trials.add("metrics", found.ok, found.message);
        }
    }
    let mut report = trials.into_report();
    let failed = report.failed().count();
    report.verdict = match failed {
        0 => "everything works".to_owned(),
        failed => format!("{failed} of {} trials FAILED", report.checks.len()),
    };
    Ok(report)
}

/// Whether this is a name that a container runtime makes up: twelve hexadecimal digits.
pub(super) fn is_containers_own(host: &str) -> bool {
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
        trials.append(look(&chosen, None, Depth::Quick, Strictness::Complaints)?.checks);
    }
    Ok(())
}

/// Whether what is encrypted here can be opened, and where.
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

/// Whether the addresses can be reached; nothing is sent, unless that is asked for.
fn try_notices(config: &Config, args: &DoctorArgs, trials: &mut Checks) -> Result<()> {
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
    if args.notify {
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
        // What is tried must be deleted again.
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
    // Whatever was found, nothing of it stays; what a signal leaves here, 'prune' clears.
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
    // Bytes that no two parts share.
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
