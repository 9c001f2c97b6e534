//! S3 services as people have them, each simulated by a small server: below a path, with private certificates, behind
//! a login page, with fewer parts than S3, and with credentials that have a fault.

use std::fs;
use std::process::Command;

use crate::support::bucket::{Bucket, S3Request, refusal};
use crate::support::web::{Web, answer};
use crate::support::{Sandbox, have, sample, skip};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sample(sandbox.path("a.db"), 20, "wal");
    sandbox
}

/// Writes a database whose archive has several parts.
fn large(sandbox: &Sandbox) {
    let db = crate::support::open(sandbox.path("large.db"));
    db.execute_batch(
        "create table t(v blob); with recursive n(i) as (select 1 union all select i + 1 from n where i < 30)
         insert into t select randomblob(1048576) from n",
    )
    .unwrap();
}

#[test]
fn a_service_below_a_path_is_used() {
    let sandbox = sandbox();
    let bucket = Bucket::below("/storage/v1/s3", |_| None);
    let endpoint = bucket.endpoint();
    let store = format!("s3://bucket/p?endpoint={endpoint}/");
    Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &store]).code(0);
    Bucket::run(&sandbox, &["verify", "--all", "--store", &store]).code(0);
    for variable in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        let mut command = Bucket::command(&sandbox, &["verify", "--all", "--store", "s3://bucket/p?retries=0"]);
        command.env(variable, &endpoint);
        sandbox.finish(command).code(0);
    }
    assert!(bucket.keys().contains(&"p/lifeboat.json".to_owned()), "{:?}", bucket.keys());
}

#[test]
fn an_invalid_endpoint_in_the_environment_is_named() {
    let sandbox = sandbox();
    let mut command = Bucket::command(&sandbox, &["list", "--store", "s3://bucket/p"]);
    command.env("AWS_ENDPOINT_URL_S3", "minio:9000");
    let run = sandbox.finish(command).code(2);
    assert!(run.stderr().contains("AWS_ENDPOINT_URL_S3 is invalid"), "{}", run.transcript());
}

#[test]
fn a_profile_sets_the_endpoint_and_the_addressing_style() {
    let sandbox = sandbox();
    let bucket = Bucket::new();
    let endpoint = bucket.endpoint();
    fs::create_dir(sandbox.path(".aws")).unwrap();
    let config = format!(
        "[profile whole]\nendpoint_url = {endpoint}\n\
         [profile named]\nservices = mine\n\
         [services mine]\ns3 =\n  endpoint_url = {endpoint}\n\
         [profile virtual]\nendpoint_url = http://localhost:{}\ns3 =\n  addressing_style = virtual\n",
        bucket.web.port
    );
    fs::write(sandbox.path(".aws/config"), config).unwrap();
    for profile in ["whole", "named"] {
        // By the environment, also with a line break after it, which is removed.
        let mut command = Bucket::command(&sandbox, &["snapshot", "a.db", "--store", "s3://bucket/p?retries=0"]);
        command.env("AWS_PROFILE", format!("{profile}\n"));
        sandbox.finish(command).code(0);
        // By the URL, with keys of the profile.
        let keys = format!("[{profile}]\naws_access_key_id = key\naws_secret_access_key = secret\n");
        fs::write(sandbox.path(".aws/credentials"), keys).unwrap();
        let store = format!("s3://bucket/p?retries=0&profile={profile}");
        Bucket::run(&sandbox, &["list", "--store", &store]).code(0);
    }
    let mut command = Bucket::command(&sandbox, &["list", "--store", "s3://bucket/p?retries=0"]);
    command.env("AWS_PROFILE", "virtual");
    sandbox.finish(command);
    let last = bucket.web.requests().pop().unwrap();
    assert!(
        last.header("host").unwrap().starts_with("bucket.localhost") || last.line().contains("/bucket/"),
        "{last:?}"
    );
    assert!(!last.target.starts_with("/bucket/p/lifeboat.json") || last.header("host").unwrap().starts_with("bucket."));
}

#[test]
fn a_line_break_after_a_key_or_region_is_removed() {
    let sandbox = sandbox();
    let bucket = Bucket::new();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_ACCESS_KEY_ID", "key\r"),
        ("AWS_SECRET_ACCESS_KEY", "secret\r\n"),
        ("AWS_SESSION_TOKEN", "token\n"),
        ("AWS_REGION", "eu-central-1\n"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1\n"),
    ] {
        let mut command = Bucket::command(&sandbox, &["snapshot", "a.db", "--json", "--store", &bucket.store()]);
        command.env(name, value);
        let run = sandbox.finish(command).code(0);
        assert!(run.json()["snapshots"].is_array(), "{name}\n{}", run.transcript());
    }
}

#[test]
fn a_key_with_a_line_break_inside_is_an_error() {
    let sandbox = sandbox();
    let bucket = Bucket::new();
    for (name, value) in [("AWS_ACCESS_KEY_ID", "k\ney"), ("AWS_SESSION_TOKEN", "Tok\nen"), ("AWS_REGION", "a\nb")] {
        let mut command = Bucket::command(&sandbox, &["list", "--json", "--store", &bucket.store()]);
        command.env(name, value);
        let run = sandbox.finish(command);
        assert!([2, 5].contains(&run.exit()), "{}", run.transcript());
        assert!(run.json()["error"]["hint"].is_string(), "{}", run.transcript());
        assert!(!run.transcript().contains("Tok"), "a secret is shown\n{}", run.transcript());
    }
    assert_eq!(bucket.web.request_lines(), Vec::<String>::new());
}

#[test]
fn fewer_parts_than_s3_allows_are_named_with_the_setting() {
    let sandbox = sandbox();
    large(&sandbox);
    let few = |request: &S3Request| {
        (request.part_number() > 2)
            .then(|| refusal("400 Bad Request", "InvalidArgument", "Part number must be between 1 and 2"))
    };
    let bucket = Bucket::special(few);
    let run = Bucket::run(&sandbox, &["snapshot", "large.db", "--store", &bucket.store()]).code(1);
    assert!(run.stderr().contains("?part_size=64MiB"), "{}", run.transcript());
    let larger = format!("{}&part_size=64MiB", bucket.store());
    Bucket::run(&sandbox, &["snapshot", "large.db", "--store", &larger]).code(0);

    let run = Bucket::run(&sandbox, &["doctor", "--store", &larger]);
    assert!(run.stdout().contains("part_size"), "{}", run.transcript());
}

#[test]
fn doctor_finds_the_number_of_parts() {
    let sandbox = sandbox();
    for (most, text) in [(10_000, "up to 9900 are allowed"), (1_000, "1000 are allowed, but not 9900")] {
        let few = move |request: &S3Request| {
            (request.part_number() > most)
                .then(|| refusal("400 Bad Request", "InvalidArgument", "Part number must be smaller"))
        };
        let bucket = Bucket::special(few);
        Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &bucket.store()]).code(0);
        let run = Bucket::run(&sandbox, &["doctor", "--store", &bucket.store()]).code(0);
        assert!(run.stdout().contains(text), "{}", run.transcript());
    }
}

#[test]
fn a_login_page_is_not_a_store() {
    let sandbox = sandbox();
    for kind in ["text/html; charset=utf-8", "application/octet-stream"] {
        let page = answer("200 OK", kind, "<!doctype html><html>log in</html>");
        let web = Web::answering(&[page]);
        let store = format!("s3://bucket/p?endpoint={}&retries=0", web.url(""));
        for arguments in [vec!["list"], vec!["snapshot", "a.db"], vec!["verify", "--all"]] {
            let run = Bucket::run(&sandbox, &[arguments, vec!["--store", &store]].concat()).code(5);
            let hint = run.stderr();
            let hint = hint.split_once("hint: ").map_or("", |(_, hint)| hint);
            assert!(hint.contains("endpoint"), "{}", run.transcript());
        }
    }
}

#[test]
fn a_login_page_in_the_middle_is_no_damage() {
    let sandbox = sandbox();
    let page = |request: &S3Request| {
        (request.method == "GET" && request.key.ends_with(".tar.gz"))
            .then(|| answer("200 OK", "text/html", "<!doctype html><html>log in</html>"))
    };
    let bucket = Bucket::special(page);
    Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &bucket.store()]).code(0);
    let all = Bucket::run(&sandbox, &["verify", "--all", "--json", "--store", &bucket.store()]).code(3);
    assert_eq!(all.json()["snapshots"][0]["problems"][0]["kind"], "unreadable", "{}", all.transcript());
    let run = Bucket::run(&sandbox, &["verify", "latest", "--store", &bucket.store()]).code(5);
    assert!(!bucket.keys().iter().any(|key| key.contains(".proof-")), "{:?}\n{}", bucket.keys(), run.transcript());
}

#[test]
fn a_condition_refused_with_status_400_is_left_out() {
    let sandbox = sandbox();
    large(&sandbox);
    let refuse = |request: &S3Request| {
        request.is_conditional.then(|| refusal("400 Bad Request", "InvalidRequest", "If-None-Match is not allowed"))
    };
    let bucket = Bucket::special(refuse);
    for source in ["a.db", "large.db"] {
        Bucket::run(&sandbox, &["snapshot", source, "--store", &bucket.store()]).code(0);
    }
    Bucket::run(&sandbox, &["verify", "--all", "--store", &bucket.store()]).code(0);
}

#[test]
fn a_token_that_expires_during_the_upload_is_said() {
    let sandbox = sandbox();
    large(&sandbox);
    // The reply to HEAD has no body, and so no error code.
    let expired = |request: &S3Request| match request.method.as_str() {
        "HEAD" => Some("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()),
        _ => None,
    };
    let later = |request: &S3Request| {
        (request.part_number() > 1).then(|| refusal("400 Bad Request", "ExpiredToken", "The token has expired."))
    };
    for (bucket, source) in [(Bucket::special(expired), "a.db"), (Bucket::special(later), "large.db")] {
        let run = Bucket::run(&sandbox, &["snapshot", source, "--store", &bucket.store()]).code(5);
        assert!(run.stderr().contains("credentials"), "{}", run.transcript());
        assert!(!bucket.keys().iter().any(|key| key.ends_with("Z.json")), "{:?}", bucket.keys());
    }
}

#[test]
fn snapshots_go_on_where_older_objects_are_in_glacier() {
    let sandbox = sandbox();
    let archived = |request: &S3Request| {
        let is_old = request.method == "GET" && request.key.starts_with("p/");
        is_old.then(|| {
            refusal("403 Forbidden", "InvalidObjectState", "The operation is not valid for the object's storage class")
        })
    };
    let bucket = Bucket::special(archived);
    let first = Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &bucket.store()]);
    // The store's own document is archived too, so it counts as one.
    first.code(0);
    Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &bucket.store()]).code(0);
    let run = Bucket::run(&sandbox, &["restore", "latest", "--to", "b.db", "--store", &bucket.store()]).code(5);
    assert!(run.stderr().contains("aws s3api restore-object"), "{}", run.transcript());
    assert!(!sandbox.path("b.db").exists());
}

#[test]
fn the_missing_file_of_a_login_is_named() {
    let sandbox = sandbox();
    let bucket = Bucket::new();
    fs::create_dir(sandbox.path(".aws")).unwrap();
    let config = "[profile web]\nrole_arn = arn:aws:iam::1:role/x\nweb_identity_token_file = /no/such/token\n\
                  [profile corp]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = x\n\
                  [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n";
    fs::write(sandbox.path(".aws/config"), config).unwrap();
    let run = |variables: &[(&str, &str)], store: &str| {
        let mut command = Bucket::command(&sandbox, &["list", "--store", store]);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").envs(variables.iter().copied());
        sandbox.finish(command).code(5)
    };
    let store = bucket.store();
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/token"), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")];
    let web = run(&variables, &store);
    assert!(web.stderr().contains("web identity token file /no/token"), "{}", web.transcript());
    let web = run(&[("AWS_PROFILE", "web")], &store);
    assert!(web.stderr().contains("/no/such/token"), "{}", web.transcript());
    let sso = run(&[], &format!("{store}&profile=corp"));
    assert!(sso.stderr().contains(".aws/sso/cache"), "{}", sso.transcript());
    assert!(sso.stderr().contains("aws sso login"), "{}", sso.transcript());
}

#[test]
fn a_snapshot_and_a_listing_make_few_requests() {
    let sandbox = sandbox();
    let bucket = Bucket::new();
    let requests_of = |arguments: &[&str]| {
        let before = bucket.web.requests().len();
        Bucket::run(&sandbox, &[arguments, &["--store", &bucket.store()]].concat()).code(0);
        bucket.web.request_lines().split_off(before)
    };
    // The first one creates the store.
    requests_of(&["snapshot", "a.db"]);
    let made = requests_of(&["snapshot", "a.db"]);
    // Its own archive has no manifest while it is published, and is not looked for.
    assert!(made.len() <= 17, "{} requests: {made:#?}", made.len());
    let made = requests_of(&["list"]);
    assert!(made.len() <= 10, "{} requests: {made:#?}", made.len());
}

/// Makes a certificate and its key in the sandbox with openssl, signed by `issuer`, or by itself.
fn certificate(sandbox: &Sandbox, name: &str, issuer: Option<&str>) {
    let (key, file) = (format!("{name}.key"), format!("{name}.pem"));
    let mut openssl = Command::new("openssl");
    openssl.current_dir(sandbox.root()).args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]);
    openssl.args(["-keyout", &key, "-out", &file, "-subj", &format!("/CN={name}")]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    if let Some(issuer) = issuer {
        openssl.args(["-CA", &format!("{issuer}.pem"), "-CAkey", &format!("{issuer}.key")]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn private_and_self_signed_certificates_are_trusted_if_named() {
    if !have(&["openssl"]) {
        return skip("openssl is not installed");
    }
    let sandbox = sandbox();
    certificate(&sandbox, "ca", None);
    certificate(&sandbox, "issued", Some("ca"));
    certificate(&sandbox, "own", None);
    for (server, trusted) in [("issued", "ca.pem"), ("own", "own.pem")] {
        let bucket = Bucket::with_tls(&sandbox.path(format!("{server}.pem")), &sandbox.path(format!("{server}.key")));
        let store = format!("s3://bucket/p?endpoint=https://localhost:{}&retries=0&timeout=5s", bucket.port);
        let run = Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &store]).code(5);
        let hint = run.stderr();
        let hint = hint.split_once("hint: ").map_or("", |(_, hint)| hint);
        assert!(hint.contains("certificate") && hint.contains("AWS_CA_BUNDLE"), "{}", run.transcript());
        for variable in ["SSL_CERT_FILE", "AWS_CA_BUNDLE"] {
            let mut command = Bucket::command(&sandbox, &["snapshot", "a.db", "--store", &store]);
            command.env(variable, sandbox.path(trusted));
            sandbox.finish(command).code(0);
        }
        // Another host name is refused although the certificate is trusted.
        let other = store.replace("localhost", "127.0.0.2");
        let mut command = Bucket::command(&sandbox, &["list", "--store", &other]);
        command.env("AWS_CA_BUNDLE", sandbox.path(trusted));
        sandbox.finish(command).code(5);
    }
    let mut command = Bucket::command(&sandbox, &["list", "--store", "s3://bucket/p?endpoint=https://localhost:1"]);
    command.env("AWS_CA_BUNDLE", sandbox.path("a.db"));
    sandbox.finish(command).code(2).says("AWS_CA_BUNDLE");
}

#[test]
fn a_tilde_that_no_shell_expands_is_refused() {
    let sandbox = sandbox();
    for arguments in [
        &["snapshot", "a.db", "--store=~/backups"][..],
        &["snapshot", "a.db", "--store", "~/backups"],
        &["snapshot", "a.db", "--store", "file://~/backups"],
        &["snapshot", "a.db", "--store", "b", "--metrics-file=~/metrics.prom"],
        &["list", "--store=~"],
        &["snapshot", "a.db", "--store", "~root/backups"],
        &["snapshot", "a.db", "--store", "~root"],
        &["snapshot", "a.db", "--store=~root/backups"],
        &["snapshot", "a.db", "--store", "file://~root/backups"],
        &["snapshot", "a.db", "--store", "~+/backups"],
        &["snapshot", "~root/a.db", "--store", "b"],
        &["snapshot", "sqlite:///~root/a.db", "--store", "b"],
        &["keygen", "--output", "~root/key"],
        &["keygen", "-o", "~root/key"],
        &["snapshot", "a.db", "--store", "b", "--metrics-file", "~root/metrics.prom"],
    ] {
        let run = sandbox.run(arguments).code(2);
        assert!(run.stderr().contains("hint: write the full path"), "{}", run.transcript());
        let created = std::fs::read_dir(sandbox.root()).unwrap().flatten().map(|entry| entry.file_name());
        let created: Vec<_> = created.filter(|name| name.to_string_lossy().starts_with(['~', 'b'])).collect();
        assert!(created.is_empty(), "{created:?}\n{}", run.transcript());
    }
    // The config has the same rule, and a source that guard would create is no exception.
    for (key, text) in [
        ("store", "[[store]]\nurl = \"~root/b\"\n[[source]]\nname = \"a\"\nurl = \"./a.db\"\n"),
        ("source", "[[store]]\nurl = \"./b\"\n[[source]]\nname = \"a\"\nurl = \"~root/a.db\"\n"),
        ("mounts", "[[store]]\nurl = \"./b\"\n[preflight]\nmounts = [\"~root/data\"]\n"),
    ] {
        std::fs::write(sandbox.path("lifeboat.toml"), text).unwrap();
        for command in [&["list"][..], &["guard", "--", "true"]] {
            let run = sandbox.run(command).code(2);
            assert!(run.stderr().contains("write the full path"), "{key}\n{}", run.transcript());
        }
        std::fs::remove_file(sandbox.path("lifeboat.toml")).unwrap();
    }
    // A name with a dot is that of a file, and './' names a folder of such a name.
    crate::helpers::shell_ok(&sandbox, "cp a.db '~a.db'");
    sandbox.ok(&["snapshot", "~a.db", "--name", "copy", "--store", "./~root"]);
    let run = sandbox.run(&["snapshot", "a.db", "--store=~/backups", "--json"]).code(2);
    assert_eq!(run.json()["error"]["kind"], "usage");
}

/// Returns a page of a listing that continues at a token.
fn page(token: &str) -> String {
    answer(
        "200 OK",
        "application/xml",
        &format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>\
             </ListBucketResult>"
        ),
    )
}

#[test]
fn a_listing_whose_pages_go_in_a_circle_ends() {
    let sandbox = sandbox();
    for tokens in [["a", "a", "a"], ["a", "b", "c"]] {
        let circle = move |request: &S3Request| {
            let next = match request.query.get("continuation-token").map(String::as_str) {
                None | Some("c") => tokens[0],
                Some("a") => tokens[1],
                _ => tokens[2],
            };
            request.is("GET", "list-type").then(|| page(next))
        };
        let bucket = Bucket::special(circle);
        bucket.put("p/lifeboat.json", "{\"lifeboat_store\":1}");
        let run = Bucket::run(&sandbox, &["list", "--store", &bucket.store()]).code(5);
        assert!(run.stderr().contains("did not say where it continues"), "{}", run.transcript());
    }
}

#[test]
fn empty_pages_and_objects_of_other_programs_do_not_disturb() {
    let sandbox = sandbox();
    let empty_first = |request: &S3Request| {
        let is_first = request.is("GET", "list-type") && !request.query.contains_key("continuation-token");
        is_first.then(|| page("next"))
    };
    let bucket = Bucket::special(empty_first);
    let store = bucket.store();
    Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &store]).code(0);
    for key in [".DS_Store", "._a", "Icon\u{d}", "notes \u{fc}ber 50% + 1.txt", "a\\b", "a-20260101T000000Z-zzzz.txt"] {
        bucket.put(&format!("p/{key}"), "another program's");
        bucket.put(&format!("p/a/{key}"), "another program's");
    }
    // A console shows folders by such objects.
    bucket.put("p/", "");
    bucket.put("p/a/", "");
    bucket.put("p/other folder/x", "x");
    let keys = bucket.keys();
    for arguments in
        [&["list"][..], &["verify", "--all"], &["restore", "latest", "--to", "b.db"], &["snapshot", "a.db"]]
    {
        Bucket::run(&sandbox, &[arguments, &["--store", &store]].concat()).code(0);
    }
    Bucket::run(&sandbox, &["prune", "--keep-last", "1", "--yes", "--store", &store]).code(0);
    let left = bucket.keys();
    let others = keys.iter().filter(|key| !key.contains("Z-") || key.ends_with(".txt"));
    assert!(others.into_iter().all(|key| left.contains(key)), "{left:?}");
    let listed = Bucket::run(&sandbox, &["list", "--json", "--store", &store]).code(0).json();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "{listed:#}");
}

#[test]
fn a_redirect_names_the_region_and_a_page_of_a_proxy_is_no_answer() {
    let sandbox = sandbox();
    let moved = "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n";
    let html = answer("502 Bad Gateway", "text/html", "<html><body>502 <b>Bad Gateway</b></body></html>");
    for (reply, hint) in [(moved.to_owned(), "?region=REGION"), (html, "try again later")] {
        let bucket = Bucket::special(move |_| Some(reply.clone()));
        for arguments in [&["list"][..], &["snapshot", "a.db"], &["doctor"]] {
            let run = Bucket::run(&sandbox, &[arguments, &["--store", &bucket.store()]].concat());
            assert!([3, 5].contains(&run.exit()), "{}", run.transcript());
            let said = run.stdout() + &run.stderr();
            assert!(said.contains(hint) && !said.contains("<b>"), "{}", run.transcript());
        }
    }
}
