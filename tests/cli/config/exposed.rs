//! Files with secrets that other users can read or change.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::Value;

use super::{SECRET, create_stores, lifeboat, with_config};
use crate::helpers::run_without_root;
use crate::ownership::is_root;
use crate::support::{Sandbox, sample};

const CONFIG: &str = "host = \"vm\"\nenv_file = \".env\"\n[[store]]\nurl = \"${STORE}\"\n\
                      [[source]]\nname = \"app\"\nurl = \"app.db\"\n";

fn sandbox_with(config: &str) -> Sandbox {
    let sandbox = with_config(config);
    sample(sandbox.path("app.db"), 2, "delete");
    fs::write(sandbox.path(".env"), format!("STORE=b\nDB_PASSWORD={SECRET}\n")).unwrap();
    set_mode(&sandbox, ".env", 0o600);
    set_mode(&sandbox, "lifeboat.toml", 0o600);
    create_stores(&sandbox, &[]);
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    sandbox
}

fn set_mode(sandbox: &Sandbox, name: &str, mode: u32) {
    fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a command, and requires the number of warnings about a file, and a failed check by `doctor` if there is one.
#[track_caller]
fn assert_warns(sandbox: &Sandbox, name: &str, verb: &str, warns: bool) {
    let run = lifeboat(sandbox, &["list"], &[]).code(0);
    let words = format!("{name} can be {verb} by other users");
    assert_eq!(run.stderr().matches(&words).count(), usize::from(warns), "{}", run.transcript());
    let run = lifeboat(sandbox, &["doctor", "--json"], &[]);
    let document: Value = run.json();
    let mut checks = document["checks"].as_array().unwrap().iter();
    let failed = checks.any(|check| check["name"] == "permissions" && check["ok"] == false);
    assert_eq!(failed, warns, "{}", run.transcript());
    assert_eq!(run.exit(), if warns { 3 } else { 0 }, "{}", run.transcript());
}

#[test]
fn an_env_file_that_others_can_read_or_change_is_reported() {
    let sandbox = sandbox_with(CONFIG);
    for (mode, verb, warns) in [
        (0o600, "", false),
        (0o640, "", false),
        (0o644, "read", true),
        (0o602, "changed", true),
        (0o666, "changed", true),
    ] {
        set_mode(&sandbox, ".env", mode);
        assert_warns(&sandbox, ".env", verb, warns);
    }
    set_mode(&sandbox, ".env", 0o644);
    for (line, warns) in [
        ("", false),
        ("BACKUP_KEY=age1qqq\nPASSWORD_FILE=/run/secrets/x\nMONKEY=x\nMAX_TOKENS=9\nA=postgres://u:${PW}@h/db", false),
        ("A=AGE-SECRET-KEY-1QQ", true),
        ("A=postgres://h/db?password=abc", true),
    ] {
        fs::write(sandbox.path(".env"), format!("STORE=b\n{line}\n")).unwrap();
        assert_warns(&sandbox, ".env", "read", warns);
    }
    if is_root() {
        for (mode, warns) in [(0o640, false), (0o660, true)] {
            set_mode(&sandbox, ".env", mode);
            chown(sandbox.path(".env"), Some(0), Some(12345)).unwrap();
            assert_warns(&sandbox, ".env", "changed", warns);
        }
    }
}

#[test]
fn a_config_that_others_can_change_or_with_secrets_that_others_can_read_is_reported() {
    let sandbox = sandbox_with(CONFIG);
    for (mode, warns) in [(0o644, false), (0o646, true)] {
        set_mode(&sandbox, "lifeboat.toml", mode);
        assert_warns(&sandbox, "lifeboat.toml", "changed", warns);
    }
    let sandbox = sandbox_with(&format!("{CONFIG}[serve]\ntoken = \"{SECRET}-{SECRET}\"\n"));
    for (mode, warns) in [(0o640, false), (0o644, true)] {
        set_mode(&sandbox, "lifeboat.toml", mode);
        assert_warns(&sandbox, "lifeboat.toml", "read", warns);
    }
    let sandbox = sandbox_with(&format!("{CONFIG}[serve]\ntoken = \"${{DB_PASSWORD}}-${{DB_PASSWORD}}\"\n"));
    set_mode(&sandbox, "lifeboat.toml", 0o644);
    assert_warns(&sandbox, "lifeboat.toml", "read", false);
}

#[test]
fn a_secret_that_the_user_cannot_protect_is_not_reported() {
    if !is_root() {
        return;
    }
    // A container engine mounts secrets as files of root that everybody can read.
    let sandbox = sandbox_with(CONFIG);
    for mode in [0o444, 0o644] {
        for name in [".env", "lifeboat.toml", "app.db"] {
            set_mode(&sandbox, name, mode);
        }
        let run = run_without_root(&sandbox, &["list", "--store", "elsewhere"]);
        assert!(!run.stderr().contains("other users"), "{}", run.transcript());
        set_mode(&sandbox, ".env", 0o666);
        run_without_root(&sandbox, &["list", "--store", "elsewhere"]).says(".env can be changed by other users");
    }
}
