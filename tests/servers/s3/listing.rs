//! A store with thousands of snapshots: commands find the snapshots that they need with few requests.

use std::time::Instant;

use chrono::{DateTime, Duration, Utc};
use futures_util::StreamExt as _;
use lifeboat::platform::digest::Sha256;
use lifeboat::snapshots::id::SnapshotId;
use serde_json::{Value, json};

use super::helpers::{Bucket, Setup, block_on, id_of, one_error, text};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{Run, sample};

on_every_server! {
    the_newest_of_many_snapshots_are_found_with_few_requests
    many_snapshots_are_deleted_in_batches
}

/// Returns the number of snapshots to create: several pages of a listing. Ceph gets fewer, because it is slower.
fn snapshot_count(setup: &Setup) -> usize {
    if setup.server.name == "ceph" { 2_500 } else { 10_000 }
}

/// The number of concurrent requests that create the snapshots.
const CONCURRENT_REQUESTS: usize = 64;
/// The time by which the proxy delays every request.
const LATENCY: std::time::Duration = std::time::Duration::from_millis(50);

/// Adds copies of a snapshot with these times, and returns their ids, newest first.
fn add_copies(setup: &Setup, id: &str, times: &[DateTime<Utc>]) -> Vec<String> {
    let old: SnapshotId = id.parse().unwrap();
    let manifest: Value = serde_json::from_slice(&setup.object(&format!("app/{id}.json"))).unwrap();
    let archive = b"tiny";
    let bucket = Bucket::of(&setup.server, &setup.server.bucket);
    let mut ids = Vec::new();
    let mut objects: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, time) in times.iter().enumerate() {
        let id = SnapshotId::new(old.source(), *time, (number % 1296) as u16).to_string();
        let mut manifest = manifest.clone();
        manifest["id"] = json!(id);
        manifest["archive"] = json!(format!("{id}.tar.gz"));
        manifest["created_at"] = json!(time.to_rfc3339());
        manifest["archive_bytes"] = json!(archive.len());
        manifest["sha256"] = json!(Sha256::of(archive).to_string());
        manifest["tags"] = json!([format!("n{number}")]);
        objects.push((format!("app/{id}.tar.gz"), archive.to_vec()));
        objects.push((format!("app/{id}.json"), serde_json::to_vec(&manifest).unwrap()));
        ids.push(id);
    }
    let start = Instant::now();
    let prefix = setup.prefix();
    block_on(futures_util::stream::iter(objects).for_each_concurrent(CONCURRENT_REQUESTS, |(key, bytes)| {
        let request = bucket.client.put_object().bucket(&bucket.name).key(prefix.clone() + &key).body(bytes.into());
        async { drop(request.send().await.unwrap()) }
    }));
    eprintln!("{}: {} snapshots in {:?}", setup.server.name, ids.len(), start.elapsed());
    ids.sort();
    ids.reverse();
    ids
}

/// Runs a command through the proxy, and counts its requests and the rounds of requests.
fn run_and_count(setup: &Setup, proxy: &S3Proxy, arguments: &[&str]) -> Counted {
    proxy.reset();
    let store = setup.store_through(proxy.port);
    let run = setup.run(&[arguments, &["--store", &store]].concat());
    let mut starts: Vec<Instant> = proxy.requests().iter().map(|request| request.at).collect();
    starts.sort();
    // Every reply is delayed, so a request that starts later by the delay was sent after the reply to an earlier one.
    let rounds = 1 + starts.windows(2).filter(|pair| pair[1] - pair[0] > LATENCY.mul_f64(0.8)).count();
    eprintln!("{}: {}: {} requests, {rounds} rounds", setup.server.name, arguments.join(" "), starts.len());
    Counted { requests: starts.len(), rounds, run }
}

struct Counted {
    requests: usize,
    rounds: usize,
    run: Run,
}

impl Counted {
    /// Requires exit code 0 and at most this many requests and rounds, and returns the document.
    #[track_caller]
    fn within(self, requests: usize, rounds: usize) -> Value {
        let run = self.run.code(0);
        assert!(
            self.requests <= requests && self.rounds <= rounds,
            "{} requests in {} rounds\n{}",
            self.requests,
            self.rounds,
            run.transcript()
        );
        run.json()
    }
}

/// Returns the times of this many snapshots, newest first: some within the last hour, the others over years.
fn snapshot_times(now: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
    let recent = [3, 10, 11, 25, 40, 55].map(|minutes| now - Duration::minutes(minutes));
    let older =
        (0..count - recent.len()).map(|number| now - Duration::hours(2) - Duration::minutes(290 * number as i64));
    recent.into_iter().chain(older).collect()
}

fn ids(document: &Value, list: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|one| text(&one["id"])).collect()
}

fn the_newest_of_many_snapshots_are_found_with_few_requests(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let newest = setup.snapshot("app.db", &setup.store, &[]);
    setup.snapshot("app.db", &setup.store, &["--name", "other"]);
    let snapshot_count = snapshot_count(setup);
    let mut all = add_copies(setup, &newest, &snapshot_times(Utc::now(), snapshot_count));
    all.insert(0, newest.clone());
    let proxy = S3Proxy::start(setup.server.port);
    proxy.add(Rule::new(Action::Delay(LATENCY)).forever());
    let list = |more: &[&str]| run_and_count(setup, &proxy, &[&["list", "--source", "app", "--json"], more].concat());

    let listed = list(&["--limit", "20"]).within(40, 12);
    assert_eq!(ids(&listed, "snapshots"), all[..20]);
    assert_eq!(ids(&list(&["--limit", "3"]).within(10, 6), "snapshots"), all[..3]);
    let both = run_and_count(setup, &proxy, &["list", "--limit", "20", "--json"]).within(40, 18);
    assert_eq!(both["snapshots"].as_array().unwrap().len(), 20);
    assert_eq!(both["snapshots"].as_array().unwrap().iter().filter(|one| one["source"] == "other").count(), 1);

    // Finds a snapshot by 'latest', by its id, and by the beginning of its id. It is trusted only if no older one is encrypted:
    // one request for each 1,000 objects of the source tells this.
    let most = 8 + (2 * snapshot_count).div_ceil(1000);
    let show = |snapshot: &str, more: &[&str]| {
        run_and_count(setup, &proxy, &[&["show", snapshot, "--source", "app", "--json"], more].concat())
    };
    assert_eq!(show("latest", &[]).within(most, most)["id"], newest.as_str());
    let some_id = &all[snapshot_count / 2];
    assert_eq!(show(some_id, &[]).within(most, most)["id"], some_id.as_str());
    assert_eq!(show(&some_id[..some_id.len() - 5], &[]).within(most, most)["id"], some_id.as_str());
    let second = run_and_count(setup, &proxy, &["show", &some_id[..some_id.len() - 4]]);
    assert!(second.requests <= most && second.run.exit() == 0, "{}", second.run.transcript());
    let ambiguous = run_and_count(setup, &proxy, &["show", "app-2"]);
    assert_eq!(ambiguous.run.exit(), 2);
    assert!(ambiguous.run.stderr().contains(&(snapshot_count + 1).to_string()), "{}", ambiguous.run.transcript());
    let none = run_and_count(setup, &proxy, &["show", "app-1999"]);
    assert!(none.requests <= 8, "{}", none.requests);
    one_error(&none.run.code(4));
    // Snapshots before a time years ago are found by their names. Few manifests are read.
    let id: SnapshotId = all[snapshot_count / 2].parse().unwrap();
    let before = id.time().to_rfc3339();
    assert_eq!(show("latest", &["--before", &before]).within(40, 40)["id"], all[snapshot_count / 2 + 1].as_str());
    let older = list(&["--before", &before, "--limit", "5"]).within(45, 45);
    assert_eq!(ids(&older, "snapshots"), all[snapshot_count / 2 + 1..snapshot_count / 2 + 6]);
    // A new snapshot needs few requests too.
    let document =
        run_and_count(setup, &proxy, &["snapshot", "app.db", "--name", "app", "--json"]).within(12 + most, 12 + most);
    all.insert(0, id_of(&document));
    assert_eq!(ids(&list(&["--limit", "2"]).within(10, 6), "snapshots"), all[..2]);
}

fn many_snapshots_are_deleted_in_batches(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let newest = setup.snapshot("app.db", &setup.store, &[]);
    let mut all = add_copies(setup, &newest, &snapshot_times(Utc::now(), 1000));
    all.insert(0, newest.clone());
    let proxy = S3Proxy::start(setup.server.port);
    let store = setup.store_through(proxy.port);
    let pruned = setup.json(&["prune", "--keep-last", "100", "--yes", "--store", &store]);
    assert_eq!(ids(&pruned, "keep"), all[..100]);
    assert_eq!(ids(&pruned, "delete"), all[100..]);
    // 901 snapshots are deleted in batches: one request for 300 manifests, and then one for their archives.
    let deletes = (proxy.count(Verb::DeleteMany), proxy.count(Verb::Delete));
    assert!(deletes.0 >= 6 && deletes.0 + deletes.1 <= 8, "{deletes:?}");
    assert_eq!(setup.ids(&setup.store), all[..100]);
    let remaining = setup.objects();
    assert_eq!(remaining.len(), 201, "{remaining:?}");
    // If the service does not support such requests, the objects are deleted one by one.
    let proxy = S3Proxy::start(setup.server.port);
    proxy.add(
        Rule::on(Verb::DeleteMany, Action::Answer { status: 501, code: "NotImplemented", retry_after: None }).forever(),
    );
    let store = setup.store_through(proxy.port);
    let pruned = setup.json(&["prune", "--keep-last", "80", "--yes", "--store", &store]);
    assert_eq!(ids(&pruned, "delete"), all[80..100]);
    assert_eq!(proxy.count(Verb::Delete), 40);
    assert_eq!(setup.objects().len(), 161);
}
