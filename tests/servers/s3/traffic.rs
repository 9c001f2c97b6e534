//! The bytes that are sent and received: an archive is downloaded at most once, and for one table only a part of it.

use super::helpers::{Setup, archive_in, big_database, id_of, with};
use crate::support::content;
use crate::support::postgres::server;
use crate::support::s3_proxy::S3Proxy;

on_every_server! {
    every_command_downloads_an_archive_at_most_once
    commands_on_one_table_download_only_a_part_of_the_archive
}

fn every_command_downloads_an_archive_at_most_once(setup: &Setup) {
    big_database(setup.at("big.db"), 12);
    let (key, public) = setup.age_key("key.txt");
    for (name, encryption) in [("plain", &[][..]), ("sealed", &["--encrypt-to", &public])] {
        let proxy = S3Proxy::start(setup.server.port);
        let store = setup.store_through(proxy.port);
        let document = setup.json(&with(
            &["snapshot", "big.db", "--name", name, "--compression", "zstd:1", "--store", &store],
            encryption,
        ));
        let archive_bytes = document["snapshots"][0]["archive_bytes"].as_u64().unwrap();
        assert!(archive_bytes > 11 << 20, "{archive_bytes}");
        let (up, down) = (proxy.bytes_up(), proxy.bytes_down());
        assert!(up >= archive_bytes && up < archive_bytes + 100_000, "{name}: {up} of {archive_bytes} sent");
        assert!(down < 100_000, "{name}: {down} fetched during the upload");
        let id = id_of(&document);
        let (new, folder) = (format!("{name}.db"), format!("{name}-folder"));
        let safety = ["restore", &id, "--replace", "--no-safety", "--to", &new];
        for (arguments, maximum) in [
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
            let run = setup.ok(&[arguments, &["--store", &store, "--identity", &key]].concat());
            let (fetched, requests) = (proxy.bytes_down(), proxy.requests().len());
            let share = fetched as f64 / archive_bytes as f64;
            eprintln!(
                "{} {name}: {}: {share:.3} of the archive in {requests} requests",
                setup.server.name,
                arguments.join(" ")
            );
            assert!(share <= maximum, "{name}: {share} of the archive was fetched\n{}", run.transcript());
            assert!(requests <= 60, "{name}: {requests} requests\n{}", run.transcript());
        }
        assert_eq!(content(setup.at(&new)), content(setup.at("big.db")));
        let archive = archive_in(&setup.sandbox.path(&folder).join(name));
        assert_eq!(std::fs::metadata(archive).unwrap().len(), archive_bytes);
    }
}

fn commands_on_one_table_download_only_a_part_of_the_archive(setup: &Setup) {
    let (key, public) = setup.age_key("key.txt");
    let database = server(17).create_database("s3_traffic");
    database.psql(
        "CREATE TABLE big AS SELECT g, md5(g::text) a, md5('a' || g) b, md5('b' || g) c, md5('c' || g) d
             FROM generate_series(1, 300000) AS g;
         CREATE TABLE small AS SELECT g, md5(g::text) a FROM generate_series(1, 1000) AS g;",
    );
    let url = database.url();
    for (name, encryption) in [("plain", &[][..]), ("sealed", &["--encrypt-to", &public])] {
        let proxy = S3Proxy::start(setup.server.port);
        let store = setup.store_through(proxy.port);
        let snapshot = ["snapshot", &url, "--name", name, "--compression", "zstd:1", "--store", &store];
        let document = setup.json(&with(&snapshot, encryption));
        let archive_bytes = document["snapshots"][0]["archive_bytes"].as_u64().unwrap();
        assert!(archive_bytes > 20 << 20, "{archive_bytes}");
        let id = id_of(&document);
        database.psql("DELETE FROM small WHERE g > 10");
        for arguments in [
            &["restore", &id, "--to", &url, "--replace", "--table", "public.small", "--no-safety", "--yes"][..],
            &["extract", &id, "--table", "public.small", "--to", "-"],
        ] {
            proxy.reset();
            let run = setup.ok(&[arguments, &["--store", &store, "--identity", &key]].concat());
            let share = proxy.bytes_down() as f64 / archive_bytes as f64;
            eprintln!("{} {name}: {}: {share:.3} of the archive", setup.server.name, arguments[0]);
            assert!(share < 0.4, "{name}: {share} of the archive was fetched\n{}", run.transcript());
        }
        assert_eq!(database.value("SELECT count(*) FROM small"), "1000");
    }
}
