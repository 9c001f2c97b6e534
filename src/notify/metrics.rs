//! Metrics in a file for Prometheus: the textfile collector of its node exporter reads it (`*.prom`).
//!
//! Every series has the label `source`. Values that a run does not measure stay as they were, and so do the values of
//! sources that it was not about: after a failed run the last success is still there, and `lifeboat_last_run_ok` is 0.
//! Each source has its own result: one that was saved in every store has succeeded, also if another has failed. The
//! three values of the last run are only about `snapshot`, `predeploy` and `guard`, which save the sources; those of all
//! commands have the label `command`. The file holds no ages, because a number in a file does not grow older; Prometheus calculates them
//! (`time() - lifeboat_last_success_timestamp_seconds`).
//!
//! | metric | value |
//! | --- | --- |
//! | `lifeboat_last_run_ok` | 1 if the last run that was to save the source has saved it, else 0 |
//! | `lifeboat_last_run_timestamp_seconds` | the time at which that run ended |
//! | `lifeboat_last_success_timestamp_seconds` | the time at which the last run ended that saved the source |
//! | `lifeboat_command_ok` | 1 if the last run of the `command` succeeded for the source, else 0 |
//! | `lifeboat_command_timestamp_seconds` | the time at which that run ended |
//! | `lifeboat_command_success_timestamp_seconds` | the time at which the last successful run of the `command` ended |
//! | `lifeboat_snapshot_created_timestamp_seconds` | the time of the data in the newest snapshot |
//! | `lifeboat_snapshot_archive_bytes` | the size of its archive |
//! | `lifeboat_snapshot_raw_bytes` | its size before compression |
//! | `lifeboat_snapshot_rows` | the number of its rows |
//! | `lifeboat_snapshot_duration_seconds` | the time that it took |
//! | `lifeboat_proof_timestamp_seconds` | the time of the last proof, by `level` (`verified`, `drilled`, `damaged`) |
//! | `lifeboat_proof_ok` | 1 if the last proof found no damage, else 0 |

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::platform::disk::{folder_of, lock_folder, replace_file, shown};
use crate::platform::error::{Error, IoContext, Kind, Result};

/// The result of one run for one source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// The source's name.
    pub source: String,
    /// The command.
    pub command: &'static str,
    /// True if the command was to save the source.
    pub saves: bool,
    /// True if the run succeeded for it.
    pub ok: bool,
    /// The time at which the run ended.
    pub at: DateTime<Utc>,
    /// The snapshot that the run made, if any.
    pub snapshot: Option<SnapshotSample>,
    /// The proof of a snapshot of the source, if the run made one.
    pub proof: Option<ProofSample>,
}

/// The numbers of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SnapshotSample {
    /// The time of its data.
    pub created_at: DateTime<Utc>,
    /// The size of its archive.
    pub archive_bytes: u64,
    /// Its size before compression.
    pub raw_bytes: u64,
    /// The rows of all its tables.
    pub rows: u64,
    /// The time that it took, in seconds.
    pub seconds: f64,
}

/// A proof.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProofSample {
    /// Its level, by name: `verified`, `drilled`, `damaged`.
    pub level: String,
    /// The time at which it ended.
    pub at: DateTime<Utc>,
}

const LAST_RUN_OK: &str = "lifeboat_last_run_ok";
const LAST_RUN: &str = "lifeboat_last_run_timestamp_seconds";
const LAST_SUCCESS: &str = "lifeboat_last_success_timestamp_seconds";
const COMMAND_OK: &str = "lifeboat_command_ok";
const COMMAND_RUN: &str = "lifeboat_command_timestamp_seconds";
const COMMAND_SUCCESS: &str = "lifeboat_command_success_timestamp_seconds";
const CREATED: &str = "lifeboat_snapshot_created_timestamp_seconds";
const ARCHIVE_BYTES: &str = "lifeboat_snapshot_archive_bytes";
const RAW_BYTES: &str = "lifeboat_snapshot_raw_bytes";
const ROWS: &str = "lifeboat_snapshot_rows";
const DURATION: &str = "lifeboat_snapshot_duration_seconds";
const PROOF: &str = "lifeboat_proof_timestamp_seconds";
const PROOF_OK: &str = "lifeboat_proof_ok";

/// All metrics in the order of the file, with their help texts.
const METRICS: [(&str, &str); 13] = [
    (LAST_RUN_OK, "1 if the last run that was to save the source has saved it, else 0."),
    (LAST_RUN, "The time at which the last run ended that was to save the source."),
    (LAST_SUCCESS, "The time at which the last run ended that saved the source."),
    (COMMAND_OK, "1 if the last run of the command succeeded for the source, else 0."),
    (COMMAND_RUN, "The time at which the last run of the command for the source ended."),
    (COMMAND_SUCCESS, "The time at which the last run of the command ended that succeeded for the source."),
    (CREATED, "The time of the data in the newest snapshot."),
    (ARCHIVE_BYTES, "The size of the newest snapshot's archive."),
    (RAW_BYTES, "The size of the newest snapshot before compression."),
    (ROWS, "The number of rows in the newest snapshot."),
    (DURATION, "The time that the newest snapshot took."),
    (PROOF, "The time of the last proof of a snapshot of the source, by the level of the proof."),
    (PROOF_OK, "1 if the last proof of a snapshot of the source found no damage, else 0."),
];

/// The maximum size of an existing file that is read, in bytes: enough for about ten thousand sources.
const MAX_BYTES: u64 = 16 << 20;
/// The maximum time to wait for the lock of another run.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The labels of a series: its source, and its level or its command if it has one.
type Labels = (String, Option<String>);
/// All values in a file, as they are written, by the metric's index in [`METRICS`] and the labels.
type Series = BTreeMap<(usize, Labels), String>;

/// Writes the results of a run to the file at `path` (mode 0644), atomically. Other values of Lifeboat in it stay.
///
/// A file that holds anything else is not a metrics file and is left alone: [`Kind::Usage`].
pub(crate) fn write(path: &Path, samples: &[Sample]) -> Result<()> {
    let cannot = || format!("cannot write the metrics to {}", shown(path));
    // Without the lock, another run's numbers may be lost until it runs again. Our numbers are written anyway.
    let _lock = lock_folder(folder_of(path), LOCK_TIMEOUT);
    let mut series = match read(path) {
        Ok(text) => parse(&text).ok_or_else(|| {
            Error::usage(format!("{} is not a metrics file of lifeboat", shown(path)))
                .hint("name another file, or remove this one")
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Series::new(),
        Err(error) => return Err(error).io(Kind::Failed, cannot),
    };
    for sample in samples {
        record(&mut series, sample);
    }
    replace_file(path, 0o644, render(&series).as_bytes()).io(Kind::Failed, cannot)
}

fn read(path: &Path) -> io::Result<String> {
    let facts = fs::metadata(path)?;
    if !facts.is_file() || facts.len() > MAX_BYTES {
        return Ok("no metrics file".to_owned());
    }
    // A file that is not UTF-8 is not a metrics file either.
    Ok(String::from_utf8(fs::read(path)?).unwrap_or_else(|_| "no text".to_owned()))
}

fn record(series: &mut Series, sample: &Sample) {
    let mut set = |name: &str, second: Option<&str>, value: String| {
        let metric = METRICS.iter().position(|(known, _)| *known == name).expect("all metrics are in the list");
        series.insert((metric, (sample.source.clone(), second.map(str::to_owned))), value);
    };
    let by_command = (COMMAND_OK, COMMAND_RUN, COMMAND_SUCCESS, Some(sample.command));
    let of_saving = sample.saves.then_some((LAST_RUN_OK, LAST_RUN, LAST_SUCCESS, None));
    for (ok, run, success, command) in of_saving.into_iter().chain([by_command]) {
        set(ok, command, flag(sample.ok));
        set(run, command, seconds(sample.at));
        if sample.ok {
            set(success, command, seconds(sample.at));
        }
    }
    if let Some(snapshot) = &sample.snapshot {
        set(CREATED, None, seconds(snapshot.created_at));
        set(ARCHIVE_BYTES, None, snapshot.archive_bytes.to_string());
        set(RAW_BYTES, None, snapshot.raw_bytes.to_string());
        set(ROWS, None, snapshot.rows.to_string());
        set(DURATION, None, format!("{:.3}", snapshot.seconds));
    }
    if let Some(proof) = &sample.proof {
        set(PROOF, Some(&proof.level), seconds(proof.at));
        set(PROOF_OK, None, flag(proof.level != "damaged"));
    }
}

fn flag(yes: bool) -> String {
    u8::from(yes).to_string()
}

fn seconds(time: DateTime<Utc>) -> String {
    time.timestamp().to_string()
}

fn render(series: &Series) -> String {
    let families: Vec<Family> = METRICS
        .iter()
        .enumerate()
        .map(|(index, (name, help))| {
            let mut family = Family::new(name, help);
            for ((_, (source, second)), value) in series.iter().filter(|((metric, _), _)| *metric == index) {
                let second = second.as_deref().map(|value| (second_label(name), value));
                let labels: Vec<_> = [("source", source.as_str())].into_iter().chain(second).collect();
                family.add(&labels, value);
            }
            family
        })
        .collect();
    exposition(&families)
}

/// Returns the name of the label that the series of a metric may have besides the source.
fn second_label(metric: &str) -> &'static str {
    if [COMMAND_OK, COMMAND_RUN, COMMAND_SUCCESS].contains(&metric) { "command" } else { "level" }
}

/// A metric: a gauge, and its series.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    name: &'static str,
    help: &'static str,
    series: Vec<String>,
}

impl Family {
    /// Creates a metric without series; `help` describes it in one sentence.
    #[must_use]
    pub(crate) fn new(name: &'static str, help: &'static str) -> Self {
        Family { name, help, series: Vec::new() }
    }

    /// Adds a series.
    pub(crate) fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.series.push(format!("{}{labels} {value}\n", self.name));
    }
}

/// Returns metrics as text in the exposition format. Metrics without series are left out.
#[must_use]
pub(crate) fn exposition(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, help, series } in families.iter().filter(|family| !family.series.is_empty()) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        text.extend(series.iter().map(String::as_str));
    }
    text
}

/// Escapes a label's value for the exposition format.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Parses a file that Lifeboat wrote. Returns `None` if it holds anything else. Metrics of Lifeboat that this version
/// does not know are dropped.
fn parse(text: &str) -> Option<Series> {
    let mut series = Series::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_whitespace().skip(1);
            words.next().filter(|name| name.starts_with("lifeboat_"))?;
            continue;
        }
        let (name, rest) = line.split_once('{')?;
        let (mut labels, value) = parse_labels(rest)?;
        if !name.starts_with("lifeboat_") || value.parse::<f64>().is_err() {
            return None;
        }
        let Some(metric) = METRICS.iter().position(|(known, _)| *known == name) else { continue };
        let labels = (labels.remove("source")?, labels.remove(second_label(name)));
        series.insert((metric, labels), value.to_owned());
    }
    Some(series)
}

/// Reads `a="x",b="y"} 1`: the labels and the value.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_start_matches(',').trim().to_owned(), value);
        rest = &after[end + 1..];
        if let Some(value) = rest.strip_prefix('}') {
            return Some((labels, value.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn good(source: &str, seconds: i64) -> Sample {
        let snapshot = SnapshotSample {
            created_at: at(seconds - 5),
            archive_bytes: 1000,
            raw_bytes: 9000,
            rows: 42,
            seconds: 1.5,
        };
        let proof = ProofSample { level: "verified".to_owned(), at: at(seconds) };
        Sample {
            source: source.to_owned(),
            command: "snapshot",
            saves: true,
            ok: true,
            at: at(seconds),
            snapshot: Some(snapshot),
            proof: Some(proof),
        }
    }

    /// Reads the exposition format by its own rules (one HELP and one TYPE before the samples of a metric, all of
    /// them together, no series twice) and returns the samples.
    fn strictly(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with('\n'));
        let (mut found, mut ended, mut helped, mut typed) = (BTreeMap::new(), Vec::new(), "", "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert!(!ended.contains(&name) && !help.is_empty(), "{line}");
                ended.push(name);
                helped = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest, format!("{helped} gauge"));
                typed = helped;
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').expect("labels");
                assert_eq!(name, typed, "{line}");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(labels.starts_with("source=\"") && labels.ends_with("\"}"), "{line}");
                assert!(found.insert(series.to_owned(), value.parse().expect("a number")).is_none(), "{line}");
            }
        }
        found
    }

    #[test]
    fn the_file_is_what_prometheus_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lifeboat.prom");
        write(&path, &[good("b", 2000), good("a", 1000)]).expect("written");
        let text = fs::read_to_string(&path).expect("there");
        let found = strictly(&text);
        assert_eq!(found.len(), 2 * METRICS.len());
        assert_eq!(found["lifeboat_last_success_timestamp_seconds{source=\"a\"}"], 1000.0);
        assert_eq!(found["lifeboat_snapshot_duration_seconds{source=\"b\"}"], 1.5);
        assert_eq!(found["lifeboat_proof_timestamp_seconds{source=\"b\",level=\"verified\"}"], 2000.0);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "a file was left over");
        write(&path, &[]).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), text, "the order is not stable");
    }

    #[test]
    fn a_failed_run_keeps_the_last_success_and_other_sources_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lifeboat.prom");
        write(&path, &[good("a", 1000), good("b", 1000)]).expect("written");
        let failed = Sample { ok: false, at: at(5000), snapshot: None, proof: None, ..good("a", 0) };
        write(&path, &[failed]).expect("written");
        let found = strictly(&fs::read_to_string(&path).expect("there"));
        assert_eq!(found["lifeboat_last_run_ok{source=\"a\"}"], 0.0);
        assert_eq!(found["lifeboat_last_run_timestamp_seconds{source=\"a\"}"], 5000.0);
        assert_eq!(found["lifeboat_last_success_timestamp_seconds{source=\"a\"}"], 1000.0);
        assert_eq!(found["lifeboat_snapshot_rows{source=\"a\"}"], 42.0);
        assert_eq!(found["lifeboat_last_run_ok{source=\"b\"}"], 1.0);
    }

    #[test]
    fn only_commands_that_save_change_the_last_run() {
        let mut series = Series::new();
        record(&mut series, &good("a", 1000));
        for (command, ok, time) in [("verify", true, 2000), ("check", false, 3000)] {
            record(&mut series, &Sample { command, saves: false, ok, ..good("a", time) });
        }
        let found = strictly(&render(&series));
        assert_eq!(found["lifeboat_last_success_timestamp_seconds{source=\"a\"}"], 1000.0);
        assert_eq!(found["lifeboat_last_run_ok{source=\"a\"}"], 1.0);
        assert_eq!(found["lifeboat_command_ok{source=\"a\",command=\"check\"}"], 0.0);
        assert_eq!(found["lifeboat_command_success_timestamp_seconds{source=\"a\",command=\"verify\"}"], 2000.0);
        assert!(!found.contains_key("lifeboat_command_success_timestamp_seconds{source=\"a\",command=\"check\"}"));
        assert_eq!(parse(&render(&series)), Some(series));
    }

    #[test]
    fn proof_levels_are_kept_apart_and_damage_is_reported() {
        let mut series = Series::new();
        record(&mut series, &good("a", 1000));
        for (level, time) in [("drilled", 2000), ("damaged", 3000)] {
            let proof = Some(ProofSample { level: level.to_owned(), at: at(time) });
            record(&mut series, &Sample { snapshot: None, proof, ..good("a", time) });
        }
        let found = strictly(&render(&series));
        for (level, time) in [("verified", 1000.0), ("drilled", 2000.0), ("damaged", 3000.0)] {
            assert_eq!(found[&format!("lifeboat_proof_timestamp_seconds{{source=\"a\",level=\"{level}\"}}")], time);
        }
        assert_eq!(found["lifeboat_proof_ok{source=\"a\"}"], 0.0);
    }

    #[test]
    fn labels_survive_whatever_is_in_them() {
        let mut series = Series::new();
        for source in ["a\"b\\c\nd", "}{=\",", "\\n", "\u{e9}", " "] {
            record(&mut series, &good(source, 1000));
        }
        let text = render(&series);
        assert_eq!(strictly(&text).len(), 5 * METRICS.len());
        assert_eq!(parse(&text), Some(series));
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("other.prom");
        for text in [
            "root:x:0:0\n",
            "# HELP node_load1 load\nnode_load1 0.5\n",
            "lifeboat_last_run_ok{source=\"a\"} x\n",
            "lifeboat_last_run_ok{source=\"a\n",
            "\u{0}",
        ] {
            fs::write(&path, text).expect("written");
            let error = write(&path, &[good("a", 1000)]).expect_err(text);
            assert_eq!(error.kind, Kind::Usage, "{error}");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        assert_eq!(write(folder.path(), &[good("a", 1000)]).expect_err("a folder").kind, Kind::Usage);
        let error = write(&folder.path().join("none/x.prom"), &[good("a", 1000)]).expect_err("no folder");
        assert_eq!(error.kind, Kind::Failed, "{error}");
    }

    #[test]
    fn runs_at_once_lose_nothing_of_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lifeboat.prom");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || write(path, &[good(&format!("source{number}"), 1000)]).expect("written"));
            }
        });
        let found = strictly(&fs::read_to_string(&path).expect("there"));
        assert_eq!(found.len(), 8 * METRICS.len());
    }

    #[test]
    fn an_empty_file_and_metrics_of_a_later_version_are_taken() {
        assert_eq!(parse(""), Some(Series::new()));
        let later = "# HELP lifeboat_later x\n# TYPE lifeboat_later gauge\nlifeboat_later{source=\"a\"} 1\n";
        assert_eq!(parse(later), Some(Series::new()));
    }
}
