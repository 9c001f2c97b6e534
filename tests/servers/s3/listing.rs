//! A store with ten thousand snapshots, or with as many as will do: few requests find the few that are wanted.

use std::time::Instant;

use chrono::{DateTime, Duration, Utc};
use futures_util::StreamExt as _;
use lifeboat::platform::digest::Sha256;
use lifeboat::snapshots::id::SnapshotId;
use serde_json::{Value, json};

use super::helpers::{Bucket, Place, id_of, one_error, text, wait};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{Run, sample};

on_every_server! {
    the_newest_of_many_are_found_by_few_requests
    many_are_pruned_in_batches
}

/// How many snapshots there are: several pages of a listing in any case. Ceph takes long to store as many as the other.
fn many(place: &Place) -> usize {
    if place.server.name == "ceph" { 2_500 } else { 10_000 }
}

/// How many requests are under way at once while they are made.
const AT_ONCE: usize = 64;
/// How long the proxy holds every request back.
const LATENCY: std::time::Duration = std::time::Duration::from_millis(50);

/// Adds copies of a snapshot that are dated otherwise; their ids, newest first.
fn add(place: &Place, id: &str, times: &[DateTime<Utc>]) -> Vec<String> {
    let old: SnapshotId = id.parse().unwrap();
    let manifest: Value = serde_json::from_slice(&place.object(&format!("app/{id}.json"))).unwrap();
    let archive = b"tiny";
    let bucket = Bucket::of(&place.server, &place.server.bucket);
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
    let clock = Instant::now();
    let prefix = place.prefix();
    wait(futures_util::stream::iter(objects).for_each_concurrent(AT_ONCE, |(key, bytes)| {
        let request = bucket.client.put_object().bucket(&bucket.name).key(prefix.clone() + &key).body(bytes.into());
        async { drop(request.send().await.unwrap()) }
    }));
    eprintln!("{}: {} snapshots in {:?}", place.server.name, ids.len(), clock.elapsed());
    ids.sort();
    ids.reverse();
    ids
}

/// The requests that a command makes through the proxy, in how many rounds, and what it prints.
fn counted(place: &Place, proxy: &S3Proxy, arguments: &[&str]) -> Counted {
    proxy.reset();
    let store = place.store_by(proxy.port);
    let run = place.run(&[arguments, &["--store", &store]].concat());
    let mut starts: Vec<Instant> = proxy.requests().iter().map(|seen| seen.at).collect();
    starts.sort();
    // Every reply is held back: what begins later was asked for with the answer in hand.
    let rounds = 1 + starts.windows(2).filter(|pair| pair[1] - pair[0] > LATENCY.mul_f64(0.8)).count();
    eprintln!("{}: {}: {} requests, {rounds} rounds", place.server.name, arguments.join(" "), starts.len());
    Counted { requests: starts.len(), rounds, run }
}

struct Counted {
    requests: usize,
    rounds: usize,
    run: Run,
}

impl Counted {
    /// Requires success with few requests; the document.
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

/// Times of so many snapshots: some within the last hour, the others over years, from the newest on.
fn years(now: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
    let recent = [3, 10, 11, 25, 40, 55].map(|minutes| now - Duration::minutes(minutes));
    let older =
        (0..count - recent.len()).map(|number| now - Duration::hours(2) - Duration::minutes(290 * number as i64));
    recent.into_iter().chain(older).collect()
}

fn ids(document: &Value, list: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|one| text(&one["id"])).collect()
}

fn the_newest_of_many_are_found_by_few_requests(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let newest = place.snapshot("app.db", &place.store, &[]);
    place.snapshot("app.db", &place.store, &["--name", "other"]);
    let many = many(place);
    let mut all = add(place, &newest, &years(Utc::now(), many));
    all.insert(0, newest.clone());
    let proxy = S3Proxy::start(place.server.port);
    proxy.add(Rule::new(Action::Delay(LATENCY)).forever());
    let list = |more: &[&str]| counted(place, &proxy, &[&["list", "--source", "app", "--json"], more].concat());

    let listed = list(&["--limit", "20"]).within(40, 12);
    assert_eq!(ids(&listed, "snapshots"), all[..20]);
    assert_eq!(ids(&list(&["--limit", "3"]).within(10, 6), "snapshots"), all[..3]);
    let both = counted(place, &proxy, &["list", "--limit", "20", "--json"]).within(40, 18);
    assert_eq!(both["snapshots"].as_array().unwrap().len(), 20);
    assert_eq!(both["snapshots"].as_array().unwrap().iter().filter(|one| one["source"] == "other").count(), 1);

    // 'latest', the start of an id, and an id.
    let show = |what: &str, more: &[&str]| {
        counted(place, &proxy, &[&["show", what, "--source", "app", "--json"], more].concat())
    };
    assert_eq!(show("latest", &[]).within(8, 8)["id"], newest.as_str());
    let some = &all[many / 2];
    assert_eq!(show(some, &[]).within(8, 8)["id"], some.as_str());
    assert_eq!(show(&some[..some.len() - 5], &[]).within(8, 8)["id"], some.as_str());
    let second = counted(place, &proxy, &["show", &some[..some.len() - 4]]);
    assert!(second.requests <= 8 && second.run.exit() == 0, "{}", second.run.transcript());
    let vague = counted(place, &proxy, &["show", "app-2"]);
    assert_eq!(vague.run.exit(), 2);
    assert!(vague.run.stderr().contains(&(many + 1).to_string()), "{}", vague.run.transcript());
    let none = counted(place, &proxy, &["show", "app-1999"]);
    assert!(none.requests <= 8, "{}", none.requests);
    one_error(&none.run.code(4));
    // What was taken before some time years ago: names are looked through, and manifests left alone.
    let id: SnapshotId = all[many / 2].parse().unwrap();
    let before = id.time().to_rfc3339();
    assert_eq!(show("latest", &["--before", &before]).within(40, 40)["id"], all[many / 2 + 1].as_str());
    let older = list(&["--before", &before, "--limit", "5"]).within(45, 45);
    assert_eq!(ids(&older, "snapshots"), all[many / 2 + 1..many / 2 + 6]);
    // A snapshot asks for as little as a look does.
    let taken = counted(place, &proxy, &["snapshot", "app.db", "--name", "app", "--json"]).within(20, 20);
    all.insert(0, id_of(&taken));
    assert_eq!(ids(&list(&["--limit", "2"]).within(10, 6), "snapshots"), all[..2]);
}

fn many_are_pruned_in_batches(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let newest = place.snapshot("app.db", &place.store, &[]);
    let mut all = add(place, &newest, &years(Utc::now(), 1000));
    all.insert(0, newest.clone());
    let proxy = S3Proxy::start(place.server.port);
    let store = place.store_by(proxy.port);
    let done = place.json(&["prune", "--keep-last", "100", "--yes", "--store", &store]);
    assert_eq!(ids(&done, "keep"), all[..100]);
    assert_eq!(ids(&done, "delete"), all[100..]);
    // Of 901 snapshots: 300 manifests at once, then what was theirs.
    let deletes = (proxy.count(Verb::DeleteMany), proxy.count(Verb::Delete));
    assert!(deletes.0 >= 6 && deletes.0 + deletes.1 <= 8, "{deletes:?}");
    assert_eq!(place.ids(&place.store), all[..100]);
    let left = place.objects();
    assert_eq!(left.len(), 201, "{left:?}");
    // Where there is no such request, one by one.
    let proxy = S3Proxy::start(place.server.port);
    proxy.add(
        Rule::on(Verb::DeleteMany, Action::Answer { status: 501, code: "NotImplemented", retry_after: None }).forever(),
    );
    let store = place.store_by(proxy.port);
    let done = place.json(&["prune", "--keep-last", "80", "--yes", "--store", &store]);
    assert_eq!(ids(&done, "delete"), all[80..100]);
    assert_eq!(proxy.count(Verb::Delete), 40);
    assert_eq!(place.objects().len(), 161);
}
