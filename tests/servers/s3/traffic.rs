//! How much goes over the wire: what is read, is read once, and of one table no more than is its own.

use super::helpers::{Place, archive_in, big, id_of, with};
use crate::support::content;
use crate::support::postgres::server;
use crate::support::s3_proxy::S3Proxy;

on_every_server! {
    an_archive_is_fetched_once
    one_table_is_fetched_without_the_others
}

fn an_archive_is_fetched_once(place: &Place) {
    big(place.at("big.db"), 12);
    let (key, public) = place.age_key("key.txt");
    for (name, sealing) in [("plain", &[][..]), ("sealed", &["--encrypt-to", &public])] {
        let proxy = S3Proxy::start(place.server.port);
        let store = place.store_by(proxy.port);
        let taken = place.json(&with(
            &["snapshot", "big.db", "--name", name, "--compression", "zstd:1", "--store", &store],
            sealing,
        ));
        let archive_bytes = taken["snapshots"][0]["archive_bytes"].as_u64().unwrap();
        assert!(archive_bytes > 11 << 20, "{archive_bytes}");
        let (up, down) = (proxy.bytes_up(), proxy.bytes_down());
        assert!(up >= archive_bytes && up < archive_bytes + 100_000, "{name}: {up} of {archive_bytes} sent");
        assert!(down < 100_000, "{name}: {down} fetched while it was sent");
        let id = id_of(&taken);
        let (new, folder) = (format!("{name}.db"), format!("{name}-folder"));
        let safety = ["restore", &id, "--replace", "--no-safety", "--to", &new];
        for (arguments, most) in [
            (&["show", &id][..], 0.2),
            (&["verify", "--quick", &id], 0.2),
            (&["verify", &id], 1.1),
            (&["drill", &id], 1.1),
            (&["restore", &id, "--to", &new], 1.1),
            (&safety, 1.1),
            (&["extract", &id, "--entry", "README.txt", "--to", "-"], 0.5),
            (&["copy", &id, "--to", &folder, "--create"], 1.1),
        ] {
            proxy.reset();
            let run = place.ok(&[arguments, &["--store", &store, "--identity", &key]].concat());
            let (fetched, requests) = (proxy.bytes_down(), proxy.requests().len());
            let share = fetched as f64 / archive_bytes as f64;
            eprintln!(
                "{} {name}: {}: {share:.3} of the archive in {requests} requests",
                place.server.name,
                arguments.join(" ")
            );
            assert!(share <= most, "{name}: {share} of the archive was fetched\n{}", run.transcript());
            assert!(requests <= 60, "{name}: {requests} requests\n{}", run.transcript());
        }
        assert_eq!(content(place.at(&new)), content(place.at("big.db")));
        let archive = archive_in(&place.sandbox.path(&folder).join(name));
        assert_eq!(std::fs::metadata(archive).unwrap().len(), archive_bytes);
    }
}

fn one_table_is_fetched_without_the_others(place: &Place) {
    let (key, public) = place.age_key("key.txt");
    let database = server(17).create_database("s3_traffic");
    database.psql(
        "CREATE TABLE big AS SELECT g, md5(g::text) a, md5('a' || g) b, md5('b' || g) c, md5('c' || g) d
             FROM generate_series(1, 300000) AS g;
         CREATE TABLE small AS SELECT g, md5(g::text) a FROM generate_series(1, 1000) AS g;",
    );
    let url = database.url();
    for (name, sealing) in [("plain", &[][..]), ("sealed", &["--encrypt-to", &public])] {
        let proxy = S3Proxy::start(place.server.port);
        let store = place.store_by(proxy.port);
        let snapshot = ["snapshot", &url, "--name", name, "--compression", "zstd:1", "--store", &store];
        let taken = place.json(&with(&snapshot, sealing));
        let archive_bytes = taken["snapshots"][0]["archive_bytes"].as_u64().unwrap();
        assert!(archive_bytes > 20 << 20, "{archive_bytes}");
        let id = id_of(&taken);
        database.psql("DELETE FROM small WHERE g > 10");
        for arguments in [
            &["restore", &id, "--to", &url, "--replace", "--table", "public.small", "--no-safety", "--yes"][..],
            &["extract", &id, "--table", "public.small", "--to", "-"],
        ] {
            proxy.reset();
            let run = place.ok(&[arguments, &["--store", &store, "--identity", &key]].concat());
            let share = proxy.bytes_down() as f64 / archive_bytes as f64;
            eprintln!("{} {name}: {}: {share:.3} of the archive", place.server.name, arguments[0]);
            assert!(share < 0.4, "{name}: {share} of the archive was fetched\n{}", run.transcript());
        }
        assert_eq!(database.value("SELECT count(*) FROM small"), "1000");
    }
}
