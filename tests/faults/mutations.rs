//! Documents that somebody else may have written, changed at random: each is read or refused, and nothing panics.
//!
//! Each test tries one changed document after the other for ten seconds, or for `LIFEBOAT_TEST_SECONDS`. The change is
//! determined by its number, which a failure names: `LIFEBOAT_TEST_SEED` begins with it.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifeboat::archive::ArchiveReader;
use lifeboat::config::Config;
use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::params::Environment;
use lifeboat::platform::entries::EntryVisitor;
use lifeboat::platform::error::Result;
use lifeboat::snapshots::manifest::Manifest;
use serde_json::Value;

use crate::common::{program, transcript};
use crate::support::craft::{self, CODECS, Layout};
use crate::support::vault::Vault;
use crate::support::{Sandbox, sample};

/// The longest time that one document may take.
const LONGEST: Duration = Duration::from_secs(20);

/// Random numbers that are determined by a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, which must not be 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Texts that readers of documents have often been wrong about.
const WORDS: [&str; 36] = [
    "0",
    "-1",
    "18446744073709551615",
    "9223372036854775808",
    "1e999",
    "NaN",
    "0x7f",
    "true",
    "null",
    "\"\"",
    "[]",
    "{}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\n",
    "\r\n",
    "\u{feff}",
    "é",
    "\u{202e}",
    "%00",
    "%ff",
    "../",
    "//",
    "\\",
    "'",
    "\"",
    "\"\"\"",
    "=",
    "#",
    "${",
    "${HOME}",
    "1970-01-01T00:00:00Z",
    "-9999-99-99T99:99:99Z",
    "~/",
];

/// Returns `good` with one to four changes.
fn mutated(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        // Most parts are short, some are as long as the document.
        let longest = if random.below(4) == 0 { bytes.len() + 1 } else { 16 };
        let end = (at + random.below(longest)).min(bytes.len());
        match random.below(8) {
            0 => bytes.splice(at..end, []).for_each(drop),
            1 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part).for_each(drop);
            }
            2 => bytes.truncate(at),
            3 => {
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part).for_each(drop);
            }
            4 => bytes.splice(at..end, random.one_of(&WORDS).bytes()).for_each(drop),
            5 => bytes.splice(at..at, random.one_of(&WORDS).bytes()).for_each(drop),
            6 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            _ => {
                // A number becomes another one.
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let start = at + bytes[at..].iter().position(is_digit).unwrap_or(0);
                let end = start + bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                bytes.splice(start..end, random.one_of(&WORDS[..6]).bytes()).for_each(drop);
            }
        }
    }
    bytes
}

/// Calls `try_one` with changes of the documents until the time is over.
#[track_caller]
fn try_all(goods: &[Vec<u8>], mut try_one: impl FnMut(&[u8], &mut Random)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, seconds) = (number("LIFEBOAT_TEST_SEED").unwrap_or(0), number("LIFEBOAT_TEST_SECONDS").unwrap_or(10));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = first;
    while Instant::now() < end {
        let mut random = Random(seed);
        let good = random.one_of(goods).clone();
        let bad = mutated(&good, &mut random);
        let start = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| try_one(&bad, &mut random)));
        let document = || String::from_utf8_lossy(&bad).chars().take(4000).collect::<String>();
        assert!(tried.is_ok(), "LIFEBOAT_TEST_SEED={seed}: see the message above; the document:\n{}", document());
        assert!(start.elapsed() < LONGEST, "LIFEBOAT_TEST_SEED={seed}: {:?}\n{}", start.elapsed(), document());
        seed += 1;
    }
    eprintln!("{} documents", seed - first);
    assert!(seed - first > 100, "only {} documents were tried", seed - first);
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Returns a document whose numbers with a fraction are rounded: the last digit of one need not survive being read.
fn rounded(json: &[u8]) -> Value {
    fn round(value: Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => format!("{:.9e}", number.as_f64().unwrap()).into(),
            Value::Array(values) => values.into_iter().map(round).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, round(value))).collect(),
            other => other,
        }
    }
    round(serde_json::from_slice(json).unwrap())
}

#[test]
fn changed_manifests_are_read_or_refused() {
    let vault = Vault::new(craft::Codec::Gzip, 0);
    let postgres = fs::read(data().join("v1/postgres/shop/shop-20261125T234032Z-5i2c.json")).unwrap();
    let goods = [vault.document.clone(), postgres];
    let good: Vec<Manifest> = goods.iter().map(|good| Manifest::from_json(good).unwrap()).collect();
    let mut accepted = 0;
    try_all(&goods, |bytes, _| {
        let _ = Manifest::rows_of_newer(bytes);
        let _ = Manifest::differences(bytes, &goods[0]);
        let Ok(manifest) = Manifest::from_json(bytes) else { return };
        accepted += 1;
        let json = manifest.to_json();
        let again = Manifest::from_json(&json).expect("what was written is read").to_json();
        assert_eq!(rounded(&json), rounded(&again));
        let _ = (manifest.outside(), manifest.schema_digest(), manifest.document_from(bytes));
        for good in &good {
            let _ = (manifest.is_of_same_database(good), good.is_of_same_database(&manifest));
        }
    });
    assert!(accepted > 10, "almost nothing was accepted: the changes are too large");
}

/// Collects the entries of an archive.
#[derive(Default)]
struct Collected {
    files: BTreeMap<String, Vec<u8>>,
    current: (String, Vec<u8>),
}

impl EntryVisitor for Collected {
    fn start(&mut self, path: &str, _: u64) -> Result<()> {
        self.current = (path.to_owned(), Vec::new());
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.current.1.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let (path, content) = std::mem::take(&mut self.current);
        assert!(self.files.insert(path, content).is_none(), "a path occurs twice");
        Ok(())
    }
}

/// Reads a whole archive. Returns `None` if it is refused.
fn read_archive(bytes: &[u8]) -> Option<Collected> {
    let reader = ArchiveReader::open(Arc::new(bytes.to_vec()), 1).ok()?;
    let mut found = Collected::default();
    let walked = reader.walk(&mut found).is_ok();
    let problems = reader.inspect().map_or(1, |walk| walk.problems.len());
    assert_eq!(walked, problems == 0, "the two ways to read an archive agree");
    for entry in reader.entries() {
        if let Ok(content) = reader.read_entry(&entry.path, 1 << 20) {
            assert!(!walked || found.files[&entry.path] == content, "{}", entry.path);
        }
    }
    walked.then_some(found)
}

#[test]
fn changed_archives_are_refused() {
    let goods = CODECS.map(|codec| Vault::new(codec, 0).archive_bytes);
    let expected = goods.clone().map(|good| read_archive(&good).unwrap().files);
    try_all(&goods, |bytes, _| {
        // A change can put back the bytes that it took.
        if let Some(found) = read_archive(bytes) {
            assert!(expected.contains(&found.files), "a changed archive was read as a good one");
        }
    });
}

/// The index is changed, and the footer fits it: this is not damage, but somebody's intention.
#[test]
fn archives_with_a_changed_index_are_read_or_refused() {
    let vaults = CODECS.map(|codec| Vault::new(codec, 0));
    let layouts = vaults.map(|vault| vault.layout(&vault.files()));
    let goods: Vec<Vec<u8>> = layouts.iter().map(Layout::index_text).collect();
    try_all(&goods, |index, random| {
        let layout = random.one_of(&layouts);
        let packed = craft::pack(layout.codec, index);
        let archive = craft::assemble(layout.codec, &layout.blocks.concat(), &packed, layout.version);
        for path in read_archive(&archive).into_iter().flat_map(|found| found.files.into_keys()) {
            let is_safe = |part: &str| !part.is_empty() && part != "." && part != "..";
            assert!(path.split('/').all(is_safe) && !path.contains(['\\', '\0', '\n']), "{path:?}");
        }
    });
}

#[test]
fn changed_configs_are_read_or_refused_and_no_error_has_a_secret() {
    const SECRET: &str = "s3cr3t-of-the-database";
    let sandbox = Sandbox::new();
    let path = sandbox.path("lifeboat.toml");
    let page = include_str!("../../docs/config.md");
    let mut goods: Vec<Vec<u8>> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().as_bytes().to_vec()).collect();
    let all = format!(
        "host = \"a\"\n[[store]]\nurl = \"./b\"\n[[source]]\nname = \"a\"\nurl = \"postgres://u:{SECRET}@127.0.0.1/d\"\n\
         [[source.rule]]\ntable = \"t\"\nmin_rows = 1\nmax_row_drop = \"5%\"\nfresh = {{ column = \"c\", within = \"2d\", zone = \"UTC\" }}\n\
         [retention]\nkeep_daily = 7\n[guard]\nevery = \"15m\"\ngrace = \"10s\"\n[backups]\nmax_age = \"1d\"\n"
    );
    goods.push(all.into_bytes());
    let mut accepted = 0;
    try_all(&goods, |bytes, _| {
        fs::write(&path, bytes).unwrap();
        let message = match Config::load(&path) {
            Ok(config) => {
                accepted += 1;
                let errors = [
                    config.stores().err(),
                    config.sources().err(),
                    config.retention().err(),
                    config.guard().err(),
                    config.backups().err(),
                    config.notices().err(),
                    config.preflight().err(),
                    config.encryption().err(),
                    config.serve().err(),
                    config.host().err(),
                    config.compression().err(),
                    config.metrics_file().err(),
                ];
                let _ = (config.secrets().len(), config.source_names().len());
                errors.into_iter().flatten().map(|error| error.full_message()).collect::<String>()
            }
            Err(error) => error.full_message(),
        };
        // If the change is in the URL itself, the text need not be a password any more.
        if String::from_utf8_lossy(bytes).contains(&format!("url = \"postgres://u:{SECRET}@127.0.0.1/d\"\n")) {
            assert!(!message.contains(SECRET), "{message}");
        }
    });
    assert!(accepted > 10, "almost nothing was accepted: the changes are too large");
}

/// A plan with every setting.
const PLAN: &str = r#"format = 1
id = "move-accounts"
zone = "Europe/Berlin"
rejects = "stop"

[target]
url = "postgres://user@127.0.0.1:1/db"

[[file]]
name = "app"
path = "FILE"

[[table]]
file = "app"
source = "accounts"
schema = "public"
name = "accounts"
primary_key = ["id"]
columns = [
    { source = "id", type = "bigint", not_null = true, identity = true },
    { source = "name", name = "title", type = "text", nulls = ["", "-"], default = "'none'" },
]
uniques = [{ name = "one_title", columns = ["title"] }]
checks = [{ name = "positive", expression = "id > 0" }]
indexes = [{ name = "by_title", columns = ["title"], descending = ["title"], using = "btree", where = "id > 1", unique = true }]

[[table]]
file = "app"
source = "balances"
schema = "public"
name = "balances"
columns = [
    { source = "id", type = "bigint" },
    { source = "account", type = "bigint" },
    { source = "created_at", type = "timestamp with time zone", zone = "UTC", epoch = "ms" },
]
foreign_keys = [{ name = "of", columns = ["account"], references = "accounts", referenced = ["id"], on_delete = "CASCADE" }]
hypertable = { time = "created_at", interval = "7 days", compress = { segment_by = ["account"], after = "30 days" } }
"#;

#[test]
fn changed_plans_are_read_or_refused() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let target = "postgres://user@127.0.0.1:1/db";
    let verify = |plan: &[u8]| {
        fs::write(sandbox.path("plan.toml"), plan).unwrap();
        program(sandbox.root(), &["migrate", "verify", "plan.toml", "--to", target]).output().unwrap()
    };
    let plan = PLAN.replace("FILE", sandbox.path("app.db").to_str().unwrap());
    // The target cannot be reached.
    let output = verify(plan.as_bytes());
    assert_eq!(output.status.code(), Some(5), "{}", transcript("migrate verify", sandbox.root(), &output));
    try_all(&[plan.into_bytes()], |plan, _| {
        let output = verify(plan);
        let is_refused = matches!(output.status.code(), Some(2 | 5));
        assert!(is_refused, "{}", transcript("migrate verify", sandbox.root(), &output));
    });
}

#[test]
fn changed_connection_strings_are_read_or_refused_and_no_message_has_the_password() {
    const SECRET: &str = "s3cr3t-of-the-database";
    let url = format!("postgres://user:{SECRET}@");
    let goods = [
        format!("{url}db.example.com:5433,[::1]:5434/shop?sslmode=verify-full&connect_timeout=3&options=-c%20x%3Dy"),
        format!("{url}%2Fvar%2Frun%2Fpostgresql/shop?target_session_attrs=read-write&channel_binding=require"),
        "host=a,b port=5432,5433 dbname='a b' user=u sslmode=prefer application_name='it''s' keepalives=0".to_owned(),
    ];
    let goods = goods.map(String::into_bytes);
    let environment = Environment::default();
    let mut accepted = 0;
    try_all(&goods, |bytes, _| {
        let text = String::from_utf8_lossy(bytes);
        let message = match Params::parse_in(&text, &environment) {
            Ok(params) => {
                accepted += 1;
                let is_password = params.password().is_some_and(|password| password.expose() == SECRET);
                let is_secret = is_password && text.matches(SECRET).count() == 1;
                let shown = format!("{} {params:?}", params.shown());
                assert!(!is_secret || !shown.contains(SECRET), "{shown}");
                let again = params.with_database("other").shown();
                assert!(!is_secret || !again.contains(SECRET), "{again}");
                return;
            }
            Err(error) => error.full_message(),
        };
        if text.starts_with(&url) && text.matches(SECRET).count() == 1 {
            assert!(!message.contains(SECRET), "{message}");
        }
    });
    assert!(accepted > 10, "almost nothing was accepted: the changes are too large");
}
