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

#[test]
fn invalid_settings_of_serve_are_refused() {
    for (lines, words) in [
        ("token = \"short\"\n", "fewer than 16 characters"),
        ("user = \"ops\"\n", "user and password must be set together"),
        ("listen = \"somewhere\"\n", "not an address to listen on"),
        ("every = \"0s\"\n", "at least 1s"),
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
