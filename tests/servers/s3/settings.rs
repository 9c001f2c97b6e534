//! Credentials and settings: their sources, the errors if they are missing or wrong, and their effect on the service.

use std::fs;
use std::time::Instant;

use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetentionMode};

use super::helpers::{Bucket, Setup, big_database, block_on, command_without_credentials, one_error};
use crate::support::s3::fresh_prefix;
use crate::support::s3_proxy::{S3Proxy, Verb};
use crate::support::{Run, content, sample};

on_every_server! {
    credentials_are_read_from_a_profile
    missing_and_wrong_credentials_are_reported_within_seconds
    a_missing_bucket_is_reported_and_not_created
    an_invalid_url_is_refused_without_printing_secrets
    objects_are_stored_as_the_settings_say
    object_lock_settings_lock_the_snapshots
    a_store_can_be_a_whole_bucket
    a_missing_region_is_reported
    a_read_only_user_can_list_verify_and_restore
    a_prefix_can_contain_special_characters
    keys_in_a_config_are_used_and_not_printed
}

fn keys_in_a_config_are_used_and_not_printed(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let (server, at) = (&setup.server, |name: &str| setup.sandbox.path(name));
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = command_without_credentials(setup, arguments);
        command.envs(variables.iter().copied());
        let run = setup.sandbox.finish(command);
        let output = run.stdout() + &run.stderr();
        assert!(!output.contains(&server.secret_key), "{}", run.transcript());
        run
    };
    let source = "[[source]]\nname = \"app\"\nurl = \"app.db\"\n";
    let store = format!("[[store]]\nname = \"s3\"\nurl = \"{}\"\naccess_key_id = \"${{KEY_ID}}\"\n", setup.store);
    let key_id = [("KEY_ID", server.access_key.as_str())];
    fs::write(at("lifeboat.toml"), format!("{source}{store}secret_access_key_file = \"secret\"\n")).unwrap();
    run(&["init"], &key_id).code(2).says("cannot read the secret");
    fs::write(at("secret"), format!("{}\n", server.secret_key)).unwrap();
    run(&["init"], &key_id).code(0).says("created a new store");
    run(&["snapshot", "-vv"], &key_id).code(0);
    run(&["snapshot", "--store", "s3"], &key_id).code(0);
    // The keys of the config have priority over those of the environment. An unknown key id is an error that does not
    // print the secret.
    let others = [key_id[0], ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
    assert_eq!(run(&["list", "--json"], &others).code(0).json()["snapshots"].as_array().unwrap().len(), 2);
    run(&["restore", "latest", "--to", "copy.db", "--yes"], &key_id).code(0);
    assert_eq!(content(at("copy.db")), content(at("app.db")));
    run(&["list"], &[("KEY_ID", "nobody-knows-this")]).code(5);
    // The keys are in the .env file of an application. 'init' finds them and writes a config that refers to the file.
    fs::remove_file(at("lifeboat.toml")).unwrap();
    fs::remove_file(at("copy.db")).unwrap();
    let env = format!(
        "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nAWS_ENDPOINT_URL_S3={}\n",
        server.access_key, server.secret_key, server.endpoint
    );
    fs::write(at(".env"), env).unwrap();
    let named = setup.store.split('?').next().unwrap();
    run(&["init", "--store", &format!("{named}/of-init")], &[]).code(0).says("created a new store");
    let text = fs::read_to_string(at("lifeboat.toml")).unwrap();
    assert!(!text.contains(&server.secret_key) && text.contains("AWS_ENDPOINT_URL_S3"), "{text}");
    run(&["snapshot"], &[]).code(0);
    run(&["verify", "--all"], &[]).code(0);
}

fn credentials_are_read_from_a_profile(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let server = &setup.server;
    let keys = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", server.access_key, server.secret_key);
    fs::write(
        setup.at("credentials"),
        format!("[default]\naws_access_key_id = x\naws_secret_access_key = y\n[mine]\n{keys}"),
    )
    .unwrap();
    let run = |store: &str, profile: Option<&str>| {
        let mut command = command_without_credentials(setup, &["snapshot", "app.db", "--store", store]);
        command.env("AWS_SHARED_CREDENTIALS_FILE", setup.at("credentials"));
        profile.map(|profile| command.env("AWS_PROFILE", profile));
        setup.sandbox.finish(command)
    };
    run(&format!("{}&profile=mine", setup.store), None).code(0);
    run(&setup.store, Some("mine")).code(0);
    assert_eq!(setup.ids(&setup.store).len(), 2);
    one_error(&run(&setup.store, None).code(5).says("check the access key"));
    let absent = run(&format!("{}&profile=absent", setup.store), None).code(5);
    assert!(absent.stderr().contains("profile"), "{}", absent.transcript());
    // The keys can also be in an AWS config file, or come from a program that prints them.
    let credential_program = setup.at("helper");
    let script = format!(
        "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{}\"}}'\n",
        server.access_key, server.secret_key
    );
    fs::write(&credential_program, script).unwrap();
    fs::write(
        setup.at("config"),
        format!("[profile mine]\n{keys}[profile helped]\ncredential_process = sh {credential_program}\n"),
    )
    .unwrap();
    for profile in ["mine", "helped"] {
        let store = format!("{}&profile={profile}", setup.store);
        let mut command = command_without_credentials(setup, &["list", "--store", &store, "--json"]);
        command.env("AWS_CONFIG_FILE", setup.at("config"));
        let run = setup.sandbox.finish(command).code(0);
        assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 2);
    }
}

/// Requires that a run ends within ten seconds.
#[track_caller]
fn within_ten_seconds(run: impl FnOnce() -> Run) -> Run {
    let start = Instant::now();
    let run = run();
    assert!(start.elapsed().as_secs() < 10, "{:?}\n{}", start.elapsed(), run.transcript());
    run
}

fn missing_and_wrong_credentials_are_reported_within_seconds(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    for arguments in [&["snapshot", "app.db"][..], &["list"], &["verify"]] {
        let arguments = [arguments, &["--store", &setup.store]].concat();
        let run = within_ten_seconds(|| setup.sandbox.finish(command_without_credentials(setup, &arguments)));
        one_error(&run.code(5).says("AWS_ACCESS_KEY_ID"));
        for (name, value) in [("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"), ("AWS_ACCESS_KEY_ID", "AKIAWRONG")] {
            let run = within_ten_seconds(|| {
                let mut command = setup.command(&arguments);
                command.env(name, value);
                setup.sandbox.finish(command)
            });
            one_error(&run);
            assert!(!run.transcript().contains("hunter2") && !run.transcript().contains(&setup.server.secret_key));
            let run = run.code(5);
            assert!(run.stderr().contains("hint: "), "{}", run.transcript());
        }
    }
    assert!(setup.objects().is_empty());
}

fn a_missing_bucket_is_reported_and_not_created(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let store = setup.store_in_missing_bucket();
    // Some services create a bucket when an object is written to it. A mistyped name must be refused before that.
    for arguments in [&["snapshot", "app.db"][..], &["list"], &["show"], &["restore", "latest", "--to", "x.db"]] {
        let run = within_ten_seconds(|| setup.run(&[arguments, &["--store", &store]].concat()));
        let run = run.code(5).says("create the bucket first");
        one_error(&run);
        assert!(run.stderr().contains(&store[..20]), "{}", run.transcript());
    }
    let unreachable = super::several_stores::unreachable_store(setup);
    let run = within_ten_seconds(|| setup.run(&["list", "--store", &unreachable])).code(5).says("refused");
    one_error(&run);
    // A prefix without a store is an error, not an empty list.
    one_error(&setup.run(&["list", "--store", &setup.store]).code(5).says("no lifeboat store"));
}

fn an_invalid_url_is_refused_without_printing_secrets(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let server = &setup.server;
    for url in [
        format!("s3://AKIA:hunter2@{}/x?endpoint={}", server.bucket, server.endpoint),
        format!("s3://{}/x?endpoint=http://AKIA:hunter2@127.0.0.1:{}", server.bucket, server.port),
        format!("s3://{}/x?endpoint={}&secret_access_key=hunter2", server.bucket, server.endpoint),
        format!("s3://{}/x?endpoint={}&secret_key=hunter2&access_key=AKIA", server.bucket, server.endpoint),
        format!("s3://{}/x?endpoint={}&AWS_SECRET_ACCESS_KEY=hunter2", server.bucket, server.endpoint),
        format!("s3://AKIA:hunter2@127.0.0.1:{}/{}/x", server.port, server.bucket),
        format!("s3://{}/AKIA:hunter2@x?regoin=eu", server.bucket),
        format!("https://AKIA:hunter2@127.0.0.1:{}/{}", server.port, server.bucket),
    ] {
        for json in [&["--json"][..], &[]] {
            for arguments in [&["snapshot", "app.db", "--store", &url][..], &["copy", "--from", "a", "--to", &url]] {
                let run = setup.run(&[arguments, json].concat());
                assert_eq!(run.exit(), 2, "{}", run.transcript());
                let shown = run.stdout() + &run.stderr();
                // The text may be printed as a part of an object key, but not at the place of a password.
                if !url.contains("regoin") {
                    assert!(!shown.contains("hunter2"), "{}", run.transcript());
                }
            }
        }
    }
    for setting in [
        "regoin=x",
        "sse=rot13",
        "path_style=maybe",
        "timeout=0s",
        "part_size=1MiB",
        "object_lock=governance",
        "region=",
    ] {
        let run = setup.run(&["list", "--store", &format!("{}&{setting}", setup.store)]).code(2);
        assert!(run.stderr().contains(setting.split('=').next().unwrap()), "{}", run.transcript());
    }
    assert!(setup.objects().is_empty());
}

fn objects_are_stored_as_the_settings_say(setup: &Setup) {
    // The archive is uploaded in several parts of 5 MiB.
    big_database(setup.at("app.db"), 12);
    let class = "STANDARD_IA";
    let store = format!("{}&storage_class={class}&part_size=5MiB&timeout=20s&retries=3", setup.store);
    let run = setup.run(&["snapshot", "app.db", "--store", &store, "--json"]);
    if run.exit() == 0 {
        let bucket = Bucket::of(&setup.server, &setup.server.bucket);
        let mut archive = None;
        for key in setup.objects() {
            let head =
                block_on(bucket.client.head_object().bucket(&bucket.name).key(setup.prefix() + &key).send()).unwrap();
            assert_eq!(head.storage_class().map(|class| class.as_str()), Some(class), "{key}");
            archive = archive.or(head.e_tag().filter(|_| key.contains(".tar")).map(str::to_owned));
        }
        assert!(archive.unwrap().trim_matches('"').ends_with("-3"), "12 MiB must have three parts of 5 MiB");
        // The URL in a printed command has the settings, and names the same store.
        let shown = setup.json(&["show", "--store", &store]);
        let command = shown["restore"][0].as_str().unwrap();
        assert!(command.contains("storage_class=STANDARD_IA") && command.contains("part_size="), "{command}");
        setup.paste(command);
        assert_eq!(content(setup.at("app-restored.db")), content(setup.at("app.db")));
    } else {
        // A service with a single storage class refuses the request, and no object is left.
        assert_eq!(run.exit(), 1, "{}", run.transcript());
        assert!(run.stderr().contains("doctor"), "{}", run.transcript());
        assert!(setup.objects().is_empty());
    }
    let unknown_class = format!("{}&storage_class=NO_SUCH_CLASS", setup.other_store("odd"));
    let run = setup.run(&["snapshot", "app.db", "--store", &unknown_class]);
    assert!([0, 1].contains(&run.exit()), "{}", run.transcript());
    // The test servers do not support encryption by the service, so this checks only the headers of the request.
    for (settings, sse, key) in
        [("sse=AES256", "AES256", None), ("sse=aws:kms&kms_key=alias/mine", "aws:kms", Some("alias/mine"))]
    {
        let proxy = S3Proxy::start(setup.server.port);
        let other = Setup::new(&setup.server.name);
        let store = format!("{}&{settings}&retries=0", other.store_through(proxy.port));
        let run = setup.run(&["snapshot", "app.db", "--store", &store]);
        assert_ne!(run.exit(), 0, "{}", run.transcript());
        one_error(&run);
        let request = proxy.requests().into_iter().find(|request| request.verb == Verb::Put).expect("a PUT request");
        assert_eq!(request.header("x-amz-server-side-encryption"), Some(sse));
        assert_eq!(request.header("x-amz-server-side-encryption-aws-kms-key-id"), key);
    }
    let checked = format!("{}&checksums=when_supported", setup.other_store("checked"));
    let run = setup.run(&["snapshot", "app.db", "--store", &checked]);
    assert_eq!(run.exit(), 0, "{}", run.transcript());
    setup.ok(&["verify", "--store", &checked]);
}

fn object_lock_settings_lock_the_snapshots(setup: &Setup) {
    let Some(name) = setup.server.locked_bucket.clone() else { return };
    sample(setup.at("app.db"), 3, "delete");
    let prefix = fresh_prefix();
    let store =
        format!("s3://{name}/{prefix}?endpoint={}&object_lock=governance&object_lock_days=1", setup.server.endpoint);
    let bucket = Bucket::of(&setup.server, &name);
    let first = setup.snapshot("app.db", &store, &[]);
    let keys = bucket.list(&format!("{prefix}/"));
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys.iter().filter(|key| key.starts_with("app/")) {
        let path = format!("{prefix}/{key}");
        let head = block_on(bucket.client.head_object().bucket(&name).key(&path).send()).unwrap();
        assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Governance), "{key}");
        let retention = block_on(bucket.client.get_object_retention().bucket(&name).key(&path).send()).unwrap();
        let retention = retention.retention().unwrap().clone();
        assert_eq!(retention.mode(), Some(&ObjectLockRetentionMode::Governance));
        let days = (retention.retain_until_date().unwrap().secs() - chrono::Utc::now().timestamp()) as f64 / 86400.0;
        assert!((0.98..1.02).contains(&days), "{days}");
    }
    // After prune, the locked snapshot is not listed, but the locked versions of its objects still exist.
    let second = setup.snapshot("app.db", &store, &[]);
    let run = setup.run(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    let listed = setup.ids(&store);
    let versions =
        block_on(bucket.client.list_object_versions().bucket(&name).prefix(format!("{prefix}/app/{first}")).send())
            .unwrap();
    let versions = versions.versions().len();
    let run = run.code(0);
    assert_eq!(versions, 2, "the locked versions must still exist\n{}", run.transcript());
    assert_eq!(listed, [second], "{}", run.transcript());
    assert_eq!(setup.json(&["verify", "--all", "--store", &store])["ok"], true);
    setup.ok(&["doctor", "--store", &format!("s3://{name}/{prefix}?endpoint={}", setup.server.endpoint)]);
}

fn a_store_can_be_a_whole_bucket(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let name = format!("whole-{}", fresh_prefix());
    let bucket = Bucket::of(&setup.server, &name);
    block_on(bucket.client.create_bucket().bucket(&name).send()).unwrap();
    let store = format!("s3://{name}/?endpoint={}", setup.server.endpoint);
    setup.ok(&["doctor", "--store", &store]);
    let first = setup.snapshot("app.db", &store, &[]);
    let second = setup.snapshot("app.db", &store, &[]);
    assert_eq!(bucket.list("").len(), 5);
    assert_eq!(setup.ids(&store), [second.clone(), first.clone()]);
    assert_eq!(setup.json(&["verify", "--all", "--store", &store])["ok"], true);
    setup.ok(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    setup.json(&["copy", &second, "--from", &store, "--to", "folder", "--create"]);
    setup.ok(&["restore", "latest", "--to", "new.db", "--store", "folder"]);
    assert_eq!(content(setup.at("new.db")), content(setup.at("app.db")));
    setup.ok(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    // A store inside the prefix of another store is refused.
    let below = format!("s3://{name}/app?endpoint={}", setup.server.endpoint);
    one_error(&setup.run(&["snapshot", "app.db", "--store", &below]).code(2).says("not empty"));
    for key in bucket.list("") {
        block_on(bucket.client.delete_object().bucket(&name).key(key).send()).unwrap();
    }
    block_on(bucket.client.delete_bucket().bucket(&name).send()).unwrap();
}

fn a_missing_region_is_reported(setup: &Setup) {
    let run = within_ten_seconds(|| setup.run(&["list", "--store", "s3://some-bucket/some/prefix"])).code(5);
    one_error(&run.says("?region="));
}

fn a_read_only_user_can_list_verify_and_restore(setup: &Setup) {
    let server = &setup.server;
    let (Some(access), Some(secret)) = (&server.limited_access_key, &server.limited_secret_key) else { return };
    sample(setup.at("app.db"), 3, "delete");
    let id = setup.snapshot("app.db", &setup.store, &[]);
    let before = setup.objects();
    let run = |arguments: &[&str]| {
        let mut command = setup.command(&[arguments, &["--store", &setup.store]].concat());
        command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
        setup.sandbox.finish(command)
    };
    run(&["list"]).code(0);
    run(&["show"]).code(0);
    // The commands succeed, and warn that the result cannot be recorded.
    run(&["verify"]).code(0).says("cannot record the result");
    run(&["drill"]).code(0).says("cannot record the result");
    run(&["restore", &id, "--to", "new.db"]).code(0);
    assert_eq!(content(setup.at("new.db")), content(setup.at("app.db")));
    one_error(&run(&["snapshot", "app.db"]).code(5).says("do not permit"));
    // Nothing is overwritten if the safety snapshot cannot be stored.
    fs::copy(setup.at("app.db"), setup.at("live.db")).unwrap();
    super::helpers::sql(setup.at("live.db"), "DELETE FROM logs");
    let damaged = content(setup.at("live.db"));
    one_error(&run(&["restore", &id, "--to", "live.db", "--replace", "--yes"]).code(5));
    assert_eq!(content(setup.at("live.db")), damaged);
    run(&["restore", &id, "--to", "live.db", "--replace", "--yes", "--no-safety"]).code(0);
    assert_eq!(content(setup.at("live.db")), content(setup.at("app.db")));
    assert_eq!(setup.objects(), before);
}

fn a_prefix_can_contain_special_characters(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let prefix = format!("{}a+b=c@d,e:f!g/h-_.i", setup.prefix());
    let store = format!("s3://{}/{prefix}?endpoint={}", setup.server.bucket, setup.server.endpoint);
    let first = setup.snapshot("app.db", &store, &[]);
    let second = setup.snapshot("app.db", &store, &[]);
    assert_eq!(setup.ids(&store), [second.clone(), first]);
    assert_eq!(setup.json(&["verify", "--all", "--store", &store])["ok"], true);
    setup.ok(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    assert_eq!(setup.ids(&store), std::slice::from_ref(&second));
    let shown = setup.json(&["show", "--store", &store]);
    setup.paste(shown["restore"][0].as_str().unwrap());
    assert_eq!(content(setup.at("app-restored.db")), content(setup.at("app.db")));
}
