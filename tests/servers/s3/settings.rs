//! Credentials and settings: where they come from, what is said where they are missing or wrong, and that they reach the
//! service.

use std::fs;
use std::time::Instant;

use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetentionMode};

use super::helpers::{Bucket, Place, big, nobody, one_error, wait};
use crate::support::s3::fresh_prefix;
use crate::support::s3_proxy::{S3Proxy, Verb};
use crate::support::{Run, content, sample};

on_every_server! {
    a_profile_gives_the_credentials
    missing_and_wrong_credentials_are_told_at_once
    a_bucket_that_is_not_there_is_told
    a_bad_url_is_refused_and_no_secret_repeated
    kept_as_the_settings_say
    locked_snapshots_are_locked
    a_store_may_be_a_whole_bucket
    without_a_region_it_is_said
    who_may_only_read_lists_verifies_and_restores
    odd_letters_in_a_prefix_are_no_trouble
    keys_of_a_config_are_used_and_not_told
}

fn keys_of_a_config_are_used_and_not_told(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let (server, at) = (&place.server, |name: &str| place.sandbox.path(name));
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = nobody(place, arguments);
        command.envs(variables.iter().copied());
        let run = place.sandbox.finish(command);
        let told = run.stdout() + &run.stderr();
        assert!(!told.contains(&server.secret_key), "{}", run.transcript());
        run
    };
    let source = "[[source]]\nname = \"app\"\nurl = \"app.db\"\n";
    let store = format!("[[store]]\nname = \"s3\"\nurl = \"{}\"\naccess_key_id = \"${{KEY_ID}}\"\n", place.store);
    let key_id = [("KEY_ID", server.access_key.as_str())];
    fs::write(at("lifeboat.toml"), format!("{source}{store}secret_access_key_file = \"secret\"\n")).unwrap();
    run(&["init"], &key_id).code(2).says("cannot read the secret");
    fs::write(at("secret"), format!("{}\n", server.secret_key)).unwrap();
    run(&["init"], &key_id).code(0).says("made a new store");
    run(&["snapshot", "-vv"], &key_id).code(0);
    run(&["snapshot", "--store", "s3"], &key_id).code(0);
    // They go before those of the environment, and a key that is not known is told, but not its secret.
    let others = [key_id[0], ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
    assert_eq!(run(&["list", "--json"], &others).code(0).json()["snapshots"].as_array().unwrap().len(), 2);
    run(&["restore", "latest", "--to", "copy.db", "--yes"], &key_id).code(0);
    assert_eq!(content(at("copy.db")), content(at("app.db")));
    run(&["list"], &[("KEY_ID", "nobody-knows-this")]).code(5);
    // From the application's own file of variables, with what 'init' makes of it.
    fs::remove_file(at("lifeboat.toml")).unwrap();
    fs::remove_file(at("copy.db")).unwrap();
    let env = format!(
        "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nAWS_ENDPOINT_URL_S3={}\n",
        server.access_key, server.secret_key, server.endpoint
    );
    fs::write(at(".env"), env).unwrap();
    let named = place.store.split('?').next().unwrap();
    run(&["init", "--store", &format!("{named}/of-init")], &[]).code(0).says("made a new store");
    let text = fs::read_to_string(at("lifeboat.toml")).unwrap();
    assert!(!text.contains(&server.secret_key) && text.contains("AWS_ENDPOINT_URL_S3"), "{text}");
    run(&["snapshot"], &[]).code(0);
    run(&["verify", "--all"], &[]).code(0);
}

fn a_profile_gives_the_credentials(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let server = &place.server;
    let keys = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", server.access_key, server.secret_key);
    fs::write(
        place.at("credentials"),
        format!("[default]\naws_access_key_id = x\naws_secret_access_key = y\n[mine]\n{keys}"),
    )
    .unwrap();
    let run = |store: &str, profile: Option<&str>| {
        let mut command = nobody(place, &["snapshot", "app.db", "--store", store]);
        command.env("AWS_SHARED_CREDENTIALS_FILE", place.at("credentials"));
        profile.map(|profile| command.env("AWS_PROFILE", profile));
        place.sandbox.finish(command)
    };
    run(&format!("{}&profile=mine", place.store), None).code(0);
    run(&place.store, Some("mine")).code(0);
    assert_eq!(place.ids(&place.store).len(), 2);
    one_error(&run(&place.store, None).code(5).says("check the access key"));
    let absent = run(&format!("{}&profile=absent", place.store), None).code(5);
    assert!(absent.stderr().contains("profile"), "{}", absent.transcript());
    // A config file serves as well, and a program that prints them.
    let helper = place.at("helper");
    let printed = format!(
        "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{}\"}}'\n",
        server.access_key, server.secret_key
    );
    fs::write(&helper, printed).unwrap();
    fs::write(
        place.at("config"),
        format!("[profile mine]\n{keys}[profile helped]\ncredential_process = sh {helper}\n"),
    )
    .unwrap();
    for profile in ["mine", "helped"] {
        let mut command = nobody(place, &["list", "--store", &format!("{}&profile={profile}", place.store), "--json"]);
        command.env("AWS_CONFIG_FILE", place.at("config"));
        let run = place.sandbox.finish(command).code(0);
        assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 2);
    }
}

/// Requires an answer within some seconds.
#[track_caller]
fn soon(run: impl FnOnce() -> Run) -> Run {
    let clock = Instant::now();
    let run = run();
    assert!(clock.elapsed().as_secs() < 10, "{:?}\n{}", clock.elapsed(), run.transcript());
    run
}

fn missing_and_wrong_credentials_are_told_at_once(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    for arguments in [&["snapshot", "app.db"][..], &["list"], &["verify"]] {
        let arguments = [arguments, &["--store", &place.store]].concat();
        let run = soon(|| place.sandbox.finish(nobody(place, &arguments))).code(5).says("AWS_ACCESS_KEY_ID");
        one_error(&run);
        for (name, value) in [("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"), ("AWS_ACCESS_KEY_ID", "AKIAWRONG")] {
            let run = soon(|| {
                let mut command = place.command(&arguments);
                command.env(name, value);
                place.sandbox.finish(command)
            });
            one_error(&run);
            assert!(!run.transcript().contains("hunter2") && !run.transcript().contains(&place.server.secret_key));
            let run = run.code(5);
            assert!(run.stderr().contains("hint: "), "{}", run.transcript());
        }
    }
    assert!(place.objects().is_empty());
}

fn a_bucket_that_is_not_there_is_told(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let store = place.store_in_no_bucket();
    // Some services make a bucket when something is written to it; a mistyped name must not get that far.
    for arguments in [&["snapshot", "app.db"][..], &["list"], &["show"], &["restore", "latest", "--to", "x.db"]] {
        let run = soon(|| place.run(&[arguments, &["--store", &store]].concat())).code(5).says("make the bucket first");
        one_error(&run);
        assert!(run.stderr().contains(&store[..20]), "{}", run.transcript());
    }
    let closed = super::several_stores::closed(place);
    let run = soon(|| place.run(&["list", "--store", &closed])).code(5).says("refused");
    one_error(&run);
    // Nothing there yet is not an empty store.
    one_error(&place.run(&["list", "--store", &place.store]).code(5).says("no lifeboat store"));
}

fn a_bad_url_is_refused_and_no_secret_repeated(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let server = &place.server;
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
                let run = place.run(&[arguments, json].concat());
                assert_eq!(run.exit(), 2, "{}", run.transcript());
                let shown = run.stdout() + &run.stderr();
                // A part of a name that is only odd may be repeated; what stands where a password does may not.
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
        let run = place.run(&["list", "--store", &format!("{}&{setting}", place.store)]).code(2);
        assert!(run.stderr().contains(setting.split('=').next().unwrap()), "{}", run.transcript());
    }
    assert!(place.objects().is_empty());
}

fn kept_as_the_settings_say(place: &Place) {
    // Large enough for parts, of a size that is no power of two.
    big(place.at("app.db"), 12);
    let class = "STANDARD_IA";
    let store = format!("{}&storage_class={class}&part_size=5MiB&timeout=20s&retries=3", place.store);
    let run = place.run(&["snapshot", "app.db", "--store", &store, "--json"]);
    if run.exit() == 0 {
        let bucket = Bucket::of(&place.server, &place.server.bucket);
        let mut archive = None;
        for key in place.objects() {
            let head =
                wait(bucket.client.head_object().bucket(&bucket.name).key(place.prefix() + &key).send()).unwrap();
            assert_eq!(head.storage_class().map(|class| class.as_str()), Some(class), "{key}");
            archive = archive.or(head.e_tag().filter(|_| key.contains(".tar")).map(str::to_owned));
        }
        assert!(archive.unwrap().trim_matches('"').ends_with("-3"), "12 MiB in parts of 5");
        // What printed commands say reads back as the same store.
        let shown = place.json(&["show", "--store", &store]);
        let command = shown["restore"][0].as_str().unwrap();
        assert!(command.contains("storage_class=STANDARD_IA") && command.contains("part_size="), "{command}");
        place.paste(command);
        assert_eq!(content(place.at("app-restored.db")), content(place.at("app.db")));
    } else {
        // A service that has one class only says so, and nothing is left.
        assert_eq!(run.exit(), 1, "{}", run.transcript());
        assert!(run.stderr().contains("doctor"), "{}", run.transcript());
        assert!(place.objects().is_empty());
    }
    let odd = format!("{}&storage_class=NO_SUCH_CLASS", place.other_store("odd"));
    let run = place.run(&["snapshot", "app.db", "--store", &odd]);
    assert!([0, 1].contains(&run.exit()), "{}", run.transcript());
    // The service's own encryption: neither of these servers has it as it runs here, so what is asked for counts.
    for (settings, sse, key) in
        [("sse=AES256", "AES256", None), ("sse=aws:kms&kms_key=alias/mine", "aws:kms", Some("alias/mine"))]
    {
        let proxy = S3Proxy::start(place.server.port);
        let other = Place::new(&place.server.name);
        let store = format!("{}&{settings}&retries=0", other.store_by(proxy.port));
        let run = place.run(&["snapshot", "app.db", "--store", &store]);
        assert_ne!(run.exit(), 0, "{}", run.transcript());
        one_error(&run);
        let sent = proxy.requests().into_iter().find(|seen| seen.verb == Verb::Put).expect("a try");
        assert_eq!(sent.header("x-amz-server-side-encryption"), Some(sse));
        assert_eq!(sent.header("x-amz-server-side-encryption-aws-kms-key-id"), key);
    }
    let checked = format!("{}&checksums=when_supported", place.other_store("checked"));
    let run = place.run(&["snapshot", "app.db", "--store", &checked]);
    assert_eq!(run.exit(), 0, "{}", run.transcript());
    place.ok(&["verify", "--store", &checked]);
}

fn locked_snapshots_are_locked(place: &Place) {
    let Some(name) = place.server.locked_bucket.clone() else { return };
    sample(place.at("app.db"), 3, "delete");
    let prefix = fresh_prefix();
    let store =
        format!("s3://{name}/{prefix}?endpoint={}&object_lock=governance&object_lock_days=1", place.server.endpoint);
    let bucket = Bucket::of(&place.server, &name);
    let first = place.snapshot("app.db", &store, &[]);
    let keys = bucket.list(&format!("{prefix}/"));
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys.iter().filter(|key| key.starts_with("app/")) {
        let path = format!("{prefix}/{key}");
        let head = wait(bucket.client.head_object().bucket(&name).key(&path).send()).unwrap();
        assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Governance), "{key}");
        let kept = wait(bucket.client.get_object_retention().bucket(&name).key(&path).send()).unwrap();
        let kept = kept.retention().unwrap().clone();
        assert_eq!(kept.mode(), Some(&ObjectLockRetentionMode::Governance));
        let days = (kept.retain_until_date().unwrap().secs() - chrono::Utc::now().timestamp()) as f64 / 86400.0;
        assert!((0.98..1.02).contains(&days), "{days}");
    }
    // Pruned, they are to be seen no more; the versions that were locked are still there.
    let second = place.snapshot("app.db", &store, &[]);
    let run = place.run(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    let listed = place.ids(&store);
    let versions =
        wait(bucket.client.list_object_versions().bucket(&name).prefix(format!("{prefix}/app/{first}")).send())
            .unwrap();
    let versions = versions.versions().len();
    let run = run.code(0);
    assert_eq!(versions, 2, "what is locked is hidden, not gone\n{}", run.transcript());
    assert_eq!(listed, [second], "{}", run.transcript());
    assert_eq!(place.json(&["verify", "--all", "--store", &store])["ok"], true);
    place.ok(&["doctor", "--store", &format!("s3://{name}/{prefix}?endpoint={}", place.server.endpoint)]);
}

fn a_store_may_be_a_whole_bucket(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let name = format!("whole-{}", fresh_prefix());
    let bucket = Bucket::of(&place.server, &name);
    wait(bucket.client.create_bucket().bucket(&name).send()).unwrap();
    let store = format!("s3://{name}/?endpoint={}", place.server.endpoint);
    place.ok(&["doctor", "--store", &store]);
    let first = place.snapshot("app.db", &store, &[]);
    let second = place.snapshot("app.db", &store, &[]);
    assert_eq!(bucket.list("").len(), 5);
    assert_eq!(place.ids(&store), [second.clone(), first.clone()]);
    assert_eq!(place.json(&["verify", "--all", "--store", &store])["ok"], true);
    place.ok(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    place.json(&["copy", &second, "--from", &store, "--to", "folder", "--create"]);
    place.ok(&["restore", "latest", "--to", "new.db", "--store", "folder"]);
    assert_eq!(content(place.at("new.db")), content(place.at("app.db")));
    place.ok(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    // A store below a store would mix with it.
    let below = format!("s3://{name}/app?endpoint={}", place.server.endpoint);
    one_error(&place.run(&["snapshot", "app.db", "--store", &below]).code(2).says("not empty"));
    for key in bucket.list("") {
        wait(bucket.client.delete_object().bucket(&name).key(key).send()).unwrap();
    }
    wait(bucket.client.delete_bucket().bucket(&name).send()).unwrap();
}

fn without_a_region_it_is_said(place: &Place) {
    let run = soon(|| place.run(&["list", "--store", "s3://some-bucket/some/prefix"])).code(5);
    one_error(&run.says("?region="));
}

fn who_may_only_read_lists_verifies_and_restores(place: &Place) {
    let server = &place.server;
    let (Some(access), Some(secret)) = (&server.limited_access_key, &server.limited_secret_key) else { return };
    sample(place.at("app.db"), 3, "delete");
    let id = place.snapshot("app.db", &place.store, &[]);
    let before = place.objects();
    let run = |arguments: &[&str]| {
        let mut command = place.command(&[arguments, &["--store", &place.store]].concat());
        command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
        place.sandbox.finish(command)
    };
    run(&["list"]).code(0);
    run(&["show"]).code(0);
    // The outcome stands; that it could not be kept is said.
    run(&["verify"]).code(0).says("could not be kept");
    run(&["drill"]).code(0).says("could not be kept");
    run(&["restore", &id, "--to", "new.db"]).code(0);
    assert_eq!(content(place.at("new.db")), content(place.at("app.db")));
    one_error(&run(&["snapshot", "app.db"]).code(5).says("may not do that"));
    // Without a way back nothing is overwritten.
    fs::copy(place.at("app.db"), place.at("live.db")).unwrap();
    super::helpers::sql(place.at("live.db"), "DELETE FROM logs");
    let harmed = content(place.at("live.db"));
    one_error(&run(&["restore", &id, "--to", "live.db", "--replace", "--yes"]).code(5));
    assert_eq!(content(place.at("live.db")), harmed);
    run(&["restore", &id, "--to", "live.db", "--replace", "--yes", "--no-safety"]).code(0);
    assert_eq!(content(place.at("live.db")), content(place.at("app.db")));
    assert_eq!(place.objects(), before);
}

fn odd_letters_in_a_prefix_are_no_trouble(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let prefix = format!("{}a+b=c@d,e:f!g/h-_.i", place.prefix());
    let store = format!("s3://{}/{prefix}?endpoint={}", place.server.bucket, place.server.endpoint);
    let first = place.snapshot("app.db", &store, &[]);
    let second = place.snapshot("app.db", &store, &[]);
    assert_eq!(place.ids(&store), [second.clone(), first]);
    assert_eq!(place.json(&["verify", "--all", "--store", &store])["ok"], true);
    place.ok(&["prune", "--keep-last", "1", "--yes", "--store", &store]);
    assert_eq!(place.ids(&store), std::slice::from_ref(&second));
    let shown = place.json(&["show", "--store", &store]);
    place.paste(shown["restore"][0].as_str().unwrap());
    assert_eq!(content(place.at("app-restored.db")), content(place.at("app.db")));
}
