//! Fills a store with copies of its newest snapshot, to measure how fast many snapshots are listed.
//!
//! ```text
//! many ./backups/app 10000     copies until there are 10,000 snapshots, each six hours older than the next
//! ```
//! The archives are hard links to one file, and the manifests differ only in id and time. The copies can be listed, but
//! `verify` reports them as damaged.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use chrono::Duration;
use clap::Parser;
use lifeboat::snapshots::id::SnapshotId;
use lifeboat::snapshots::manifest::Manifest;

#[derive(Parser)]
#[command(about = "Fills a store with copies of its newest snapshot")]
struct Args {
    /// The folder of one source in a local store
    folder: PathBuf,
    /// The number of snapshots after the run
    count: u16,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut names = Vec::new();
    for entry in fs::read_dir(&args.folder)? {
        let name = entry?.file_name().into_string().map_err(|name| format!("{name:?} is not valid UTF-8"))?;
        names.extend(name.strip_suffix(".json").and_then(|id| id.parse::<SnapshotId>().ok()));
    }
    let newest = names.iter().max().ok_or("the folder contains no snapshot")?;
    let mut manifest = Manifest::from_json(&fs::read(args.folder.join(format!("{newest}.json")))?)?;
    let archive = args.folder.join(&manifest.archive);
    let suffix = manifest.archive.strip_prefix(&newest.to_string()).ok_or("unexpected name of the archive")?.to_owned();
    for number in (u16::try_from(names.len())?..args.count).rev() {
        manifest.created_at -= Duration::hours(6);
        manifest.id = SnapshotId::new(&manifest.source, manifest.created_at, number);
        manifest.archive = format!("{}{suffix}", manifest.id);
        fs::hard_link(&archive, args.folder.join(&manifest.archive))?;
        fs::write(args.folder.join(format!("{}.json", manifest.id)), manifest.to_json())?;
    }
    Ok(())
}
