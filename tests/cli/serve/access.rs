//! Access to the pages and to `POST /snapshots`: tokens, logins, and headers that protect browsers.

use super::helpers::{ServeProcess, TOKEN, app, configure};
use crate::support::Sandbox;

/// Creates a sandbox whose config has these lines in `[serve]`.
fn protected(lines: &str) -> Sandbox {
    let sandbox = app();
    let config =
        format!("[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n[serve]\n{lines}");
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox
}

const PATHS: [&str; 5] = ["/", "/health/data", "/metrics", "/snapshots", "/snapshots/app-20260101T000000Z-0000"];

#[test]
fn with_a_token_only_the_health_of_the_process_is_public() {
    let sandbox =
        protected("every = \"1s\"\ntoken = \"${LIFEBOAT_TOKEN}\"\nuser = \"ops\"\npassword = \"look:only\"\n");
    let serve = ServeProcess::start(&sandbox);
    assert_eq!(serve.get("/health").status, 200);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    // base64 of "ops:look:only", "x:0123456789abcdef-token" and "ops:wrong"
    let login = "Authorization: Basic b3BzOmxvb2s6b25seQ==\r\n".to_owned();
    let token_as_password = "Authorization: Basic eDowMTIzNDU2Nzg5YWJjZGVmLXRva2Vu\r\n".to_owned();
    let wrong = "Authorization: Basic b3BzOndyb25n\r\n".to_owned();
    for path in PATHS {
        for headers in [String::new(), bearer("wrong"), bearer(""), bearer(&TOKEN[1..]), wrong.clone()] {
            let answer = serve.request("GET", path, &headers, "");
            assert_eq!(answer.status, 401, "{path} {headers}");
            assert!(answer.head.contains("www-authenticate: basic"), "{}", answer.head);
            assert!(!answer.body.contains("accounts") && !answer.body.contains(TOKEN), "{}", answer.body);
        }
        for headers in [bearer(TOKEN), login.clone(), token_as_password.clone()] {
            assert_ne!(serve.request("GET", path, &headers, "").status, 401, "{path} {headers}");
        }
    }
    // A browser sends a stored login with requests of any page, so a login alone must not permit a snapshot.
    for headers in [String::new(), bearer("wrong"), login, token_as_password, wrong] {
        assert_eq!(serve.request("POST", "/snapshots", &headers, "").status, 401, "{headers}");
    }
    assert_eq!(sandbox.json(&["list", "--store", "backups"])["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(serve.post("").status, 201);
}

#[test]
fn without_a_token_no_snapshot_can_be_requested() {
    let sandbox = protected("");
    let serve = ServeProcess::start(&sandbox);
    for path in &PATHS[..4] {
        assert_ne!(serve.get(path).status, 401, "{path}");
    }
    for headers in ["", "Authorization: Bearer \r\n", "Authorization: Bearer x\r\n"] {
        let answer = serve.request("POST", "/snapshots", headers, "");
        assert_eq!(answer.status, 403, "{headers}");
        assert!(answer.body.contains("no token is configured"), "{}", answer.body);
    }
}

/// Returns the status of a request with this target and these header lines.
fn status(serve: &ServeProcess, version: &str, target: &str, headers: &[&str]) -> Option<u16> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("GET {target} HTTP/{version}\r\n{headers}Connection: close\r\n\r\n");
    serve.send(request.as_bytes()).map(|answer| answer.status)
}

#[test]
fn without_a_token_only_this_machine_and_configured_hosts_are_answered() {
    let sandbox =
        protected("every = \"1s\"\npublic = true\nhosts = [\"Status.example.com\", \"fd00::5\", \"${NO_HOST:-}\"]\n");
    let serve = ServeProcess::start(&sandbox);
    let answered = [
        "localhost",
        "LOCALHOST:8700",
        "localhost.:1",
        "127.0.0.1",
        "127.0.0.1:8700",
        "127.1.2.3",
        "[::1]",
        "[::1]:8700",
        "[0::1]:9",
        "[::ffff:127.0.0.1]",
        "status.example.com",
        "STATUS.EXAMPLE.COM.:443",
        "[fd00::5]:8700",
    ];
    let refused = [
        "evil.example",
        "evil.example:8700",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a.status.example.com",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::1",
        "localhost:port",
        "user@localhost",
        "localhost evil.example",
        "",
    ];
    for path in PATHS.iter().chain(&["/nothing"]) {
        for host in answered {
            let status = status(&serve, "1.1", path, &[&format!("Host: {host}")]);
            assert!(status.is_some_and(|status| ![403, 421].contains(&status)), "{path} {host}: {status:?}");
        }
        for host in refused {
            let status = status(&serve, "1.1", path, &[&format!("Host: {host}")]);
            assert!(matches!(status, Some(400 | 421)), "{path} {host}: {status:?}");
        }
    }
    let refusal = serve.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    assert!(refusal.body.contains("hosts under [serve]") && !refusal.body.contains("app"), "{}", refusal.body);
    for (version, target, headers) in [
        ("1.1", "/", &[][..]),
        ("1.0", "/", &[]),
        ("1.1", "/", &["Host: localhost", "Host: evil.example"]),
        ("1.1", "/", &["Host: evil.example", "Host: localhost"]),
        ("1.1", "/", &["Host: evil.example", "X-Forwarded-Host: localhost", "Forwarded: host=localhost"]),
        ("1.1", "http://evil.example/", &["Host: localhost"]),
        ("1.1", "http://localhost/", &["Host: evil.example"]),
        ("1.1", "http://localhost@evil.example/", &["Host: localhost"]),
    ] {
        let status = status(&serve, version, target, headers);
        assert!(matches!(status, Some(400 | 421)), "{version} {target} {headers:?}: {status:?}");
    }
    assert_eq!(status(&serve, "1.1", "http://localhost:1/", &["Host: localhost"]), Some(200));
    assert_eq!(status(&serve, "1.0", "/", &["Host: localhost"]), Some(200));
    assert_eq!(status(&serve, "1.1", "/", &["Host: localhost", "X-Forwarded-Host: evil.example"]), Some(200));
}

#[test]
fn the_health_of_the_process_is_answered_to_any_host_and_says_nothing_else() {
    let sandbox = protected("");
    let serve = ServeProcess::start(&sandbox);
    for headers in ["Host: healthcheck.railway.app\r\n", "Host: 10.1.2.3:8700\r\n", ""] {
        let request = format!("GET /health HTTP/1.0\r\n{headers}\r\n");
        let answer = serve.send(request.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.json()), (200, serde_json::json!({"status": "ok"})), "{headers}");
    }
    assert!(serve.get("/health").json()["version"].is_string());
}

#[test]
fn with_a_token_or_for_any_host_the_name_is_not_checked() {
    for lines in
        ["token = \"${LIFEBOAT_TOKEN}\"\n", "hosts = [\"*\"]\n", "token = \"${LIFEBOAT_TOKEN}\"\nhosts = [\"a\"]\n"]
    {
        let serve = ServeProcess::start(&protected(lines));
        let authorization = format!("Authorization: Bearer {TOKEN}");
        assert_eq!(status(&serve, "1.1", "/", &["Host: db.internal:8700", &authorization]), Some(200), "{lines}");
    }
    // If everybody may read in spite of a token, only the named hosts are answered.
    let lines = "token = \"${LIFEBOAT_TOKEN}\"\npublic = true\n";
    let serve = ServeProcess::start(&protected(lines));
    assert_eq!(status(&serve, "1.1", "/", &["Host: status.example.com"]), Some(200));
    let serve = ServeProcess::start(&protected(&format!("{lines}hosts = [\"status.example.com\"]\n")));
    assert_eq!(status(&serve, "1.1", "/", &["Host: status.example.com"]), Some(200));
    assert_eq!(status(&serve, "1.1", "/", &["Host: evil.example"]), Some(421));
}

#[test]
fn invalid_settings_of_serve_are_refused() {
    for (lines, words) in [
        ("token = \"short\"\n", "fewer than 16 characters"),
        ("user = \"ops\"\n", "user and password must be set together"),
        ("listen = \"somewhere\"\n", "not an address to listen on"),
        ("every = \"0s\"\n", "at least 1s"),
        ("hosts = [\"http://status.example.com\"]\n", "not the name of a host"),
        ("hosts = [\"localhost:8700\"]\n", "without a scheme and a port"),
    ] {
        let sandbox = protected(lines);
        let run = sandbox.run(&["serve", "--listen", "127.0.0.1:0"]).code(2);
        assert!(run.stderr().contains(words), "{}", run.transcript());
        assert!(!run.stderr().contains("\"short\"") && !run.stderr().contains("'short'"), "{}", run.transcript());
    }
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["serve", "--json"]).code(2);
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("lifeboat init"));
}

#[test]
fn every_response_has_security_headers() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    for path in
        ["/", "/health", "/health/data", "/metrics", "/snapshots", "/nothing", "/snapshots/../x", "/%2e%2e/etc/passwd"]
    {
        let head = serve.get(path).head;
        for header in [
            "content-security-policy: default-src 'none'; style-src 'sha256-",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
    }
    assert_eq!(serve.get("/nothing").status, 404);
    assert_eq!(serve.request("DELETE", "/snapshots", "", "").status, 405);
    assert_eq!(serve.request("POST", "/", "", "").status, 405);
}

#[test]
fn table_names_with_markup_are_escaped() {
    let sandbox = app();
    super::helpers::sql(
        &sandbox,
        "app.db",
        "CREATE TABLE \"<script>alert(1)</script>\" (x); INSERT INTO \"<script>alert(1)</script>\" VALUES (1);
         CREATE TABLE \"a\"\"b'c&<img src=x>|`\n\" (x)",
    );
    configure(&sandbox, "[[source.rule]]\ntable = \"<script>alert(1)</script>\"\nmin_rows = 5\n");
    let config = std::fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    let config = config.replace("[[source.rule]]\ntable = \"<script>alert(1)</script>\"\nmin_rows = 5\n", "");
    let config =
        config.replace("[serve]", "[[source.rule]]\ntable = \"<script>alert(1)</script>\"\nmin_rows = 5\n[serve]");
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox.run(&["snapshot", "--accept"]);
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(503, |health| health["sources"][0]["problems"].to_string().contains("<script>"));
    let id = serve.get("/snapshots").json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    for path in ["/".to_owned(), format!("/snapshots/{id}")] {
        let page = serve.get(&path);
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("<script") && !page.body.contains("<img"), "{}", page.body);
        assert!(
            page.body.contains("&#60;script&#62;alert(1)") || page.body.contains("&lt;script&gt;alert(1)"),
            "{}",
            page.body
        );
    }
    let run = sandbox.run(&["report", "--markdown", "-"]).code(3);
    assert!(!run.stdout().contains("<script"), "{}", run.stdout());
}
