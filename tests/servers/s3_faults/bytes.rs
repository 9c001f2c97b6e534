//! The bytes that a restore of one table downloads.

use crate::support::Sandbox;
use crate::support::postgres::server;
use crate::support::s3::{S3Server, s3_server};
use crate::support::s3_proxy::{S3Proxy, Verb};

/// Restores a small table from a large archive, and requires that little more than its own blocks is downloaded.
fn require_small_download(service: &S3Server, keys: &[&str]) {
    let (sandbox, postgres) = (Sandbox::new(), server(17));
    let database = postgres.create_database("bytes");
    database.psql(
        "CREATE TABLE large AS SELECT n, decode(string_agg(md5(random()::text), ''), 'hex') AS noise
            FROM generate_series(1, 4000) n, generate_series(1, 2048) m GROUP BY n;
         CREATE TABLE small (id int PRIMARY KEY, name text NOT NULL);
         INSERT INTO small SELECT n, 'name ' || n FROM generate_series(1, 5000) n;",
    );
    let proxy = S3Proxy::start(service.port);
    let (direct_url, through_proxy) = {
        let url = service.new_store();
        (url.clone(), url.replace(&service.endpoint, &proxy.endpoint()))
    };
    let url = database.url();
    if keys.is_empty() {
        service.run(&sandbox, &["snapshot", &url, "--name", "bytes", "--store", &direct_url]).code(0);
    } else {
        sandbox.ok(&["keygen", "--output", "key.txt"]);
        let recipient = sandbox.ok(&["keygen", "--public", "key.txt"]).stdout();
        let recipient = recipient.trim();
        service
            .run(&sandbox, &["snapshot", &url, "--name", "bytes", "--store", &direct_url, "--encrypt-to", recipient])
            .code(0);
    }
    database.psql("DELETE FROM small WHERE id % 2 = 0; UPDATE small SET name = 'other'");
    proxy.reset();
    let mut arguments = vec![
        "restore",
        "latest",
        "--to",
        &url,
        "--replace",
        "--table",
        "public.small",
        "--no-safety",
        "--yes",
        "--store",
        &through_proxy,
    ];
    arguments.extend(keys);
    service.run(&sandbox, &arguments).code(0);
    assert_eq!(database.value("SELECT count(*) FROM small WHERE name = 'name ' || id"), "5000");
    let archive: u64 = {
        let listed = service.run(&sandbox, &["list", "--store", &direct_url, "--json"]).code(0).json();
        listed["snapshots"][0]["archive_bytes"].as_u64().unwrap()
    };
    assert!(archive > 100 << 20, "{archive}");
    // The rows of the small table are within two blocks. Each has at most 4 MiB, and also contains rows of the other
    // table.
    let fetched = proxy.bytes_down();
    assert!(fetched < (8 << 20) + 5_000_000, "{fetched} bytes of {archive}");
    let gets = proxy.count(Verb::Get);
    assert!(gets <= 20, "{gets} requests");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_restore_of_a_small_table_downloads_only_its_blocks() {
    require_small_download(&s3_server("seaweedfs"), &[]);
}

#[test]
#[ignore = "needs S3 servers"]
fn a_restore_of_a_small_table_downloads_only_its_blocks_of_an_encrypted_archive() {
    require_small_download(&s3_server("ceph"), &["--identity", "key.txt"]);
}
