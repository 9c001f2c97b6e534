//! `doctor`: tries for real what a store must be able to do, and says what it can.

use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::{Context, Report, stores};
use crate::archive;
use crate::catalog::{Catalog, TRIAL_PREFIX};
use crate::digest::Sha256;
use crate::error::{Error, IoContext, Kind, Result, one_line};
use crate::store::{Key, Names, Published, Store, StoreUrl};
use crate::text;

/// Tries a store: writes, reads, lists and deletes objects of its own, and says what the service can do
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// True where it is as it must be.
    pub ok: bool,
    /// What was found.
    pub message: String,
}

/// Everything that was tried.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    /// True where all is as it must be.
    pub ok: bool,
    /// In the order in which it was tried.
    pub checks: Vec<Check>,
    /// None: nothing is saved. The documents of all checks have this field.
    pub snapshots: [(); 0],
}

impl Report for DoctorReport {
    fn text(&self) -> String {
        let row = |check: &Check| {
            vec![if check.ok { "ok" } else { "FAILED" }.to_owned(), check.name.clone(), check.message.clone()]
        };
        text::table(&["", "CHECK", "FOUND"], self.checks.iter().map(row))
    }

    fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { Kind::Problem.exit_code() }
    }
}

/// More than one part of an upload, and no multiple of one.
const LARGE_BYTES: usize = (17 << 20) + 11;
/// How far the clocks of this machine and of the store may be apart.
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(30);

/// Runs the command.
pub fn run(_: &DoctorArgs, context: &Context) -> Result<DoctorReport> {
    if context.stores.is_empty() {
        return Err(Error::usage("no store is named").hint("name one with --store, a folder or s3://bucket/prefix"));
    }
    let mut trials = Trials { checks: Vec::new() };
    for store in &context.stores {
        try_store(store, &mut trials)?;
    }
    Ok(DoctorReport { ok: trials.checks.iter().all(|check| check.ok), checks: trials.checks, snapshots: [] })
}

/// What was tried so far.
struct Trials {
    checks: Vec<Check>,
}

impl Trials {
    /// Notes how a trial ended; false where it failed. A signal is no finding.
    fn note(&mut self, name: &str, found: Result<String>) -> Result<bool> {
        let (ok, message) = match found {
            Ok(message) => (true, message),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => {
                let hint = error.hint.as_ref().map(|hint| format!(" ({})", one_line(hint))).unwrap_or_default();
                (false, error.whole() + &hint)
            }
        };
        self.checks.push(Check { name: name.to_owned(), ok, message });
        Ok(ok)
    }
}

fn try_store(url: &StoreUrl, trials: &mut Trials) -> Result<()> {
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

fn try_objects(store: &dyn Store, small: &Key, large: &Key, trials: &mut Trials) -> Result<()> {
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
