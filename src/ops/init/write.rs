//! The text of a new config.

use std::path::{Path, PathBuf};

use crate::engine::sqlite::table_counts::table_counts;
use crate::ops::init::discover::{Findings, FoundSource};
use crate::ops::init::toml_text::{literal, quoted};
use crate::ops::init::{DEFAULT_STORE, ENV_FILE};
use crate::platform::disk::{free_bytes, shown};
use crate::platform::error::one_line;

/// The settings that the command line gives.
pub(super) struct Settings<'a> {
    pub(super) folder: &'a Path,
    pub(super) host: &'a str,
    /// The stores, as they are written in the config.
    pub(super) stores: &'a [String],
}

/// Returns the config's text. Lines that begin with '#' and no space after it are examples: they are valid without the
/// '#'.
pub(super) fn config(findings: &Findings, settings: &Settings<'_>) -> String {
    let mut out = String::new();
    head(&mut out, findings, settings);
    let chosen = ChosenStores::of(findings, settings);
    stores(&mut out, &chosen, findings, settings);
    sources(&mut out, findings);
    preflight(&mut out, &chosen, findings, settings);
    other_sections(&mut out, findings);
    out
}

fn head(out: &mut String, findings: &Findings, settings: &Settings<'_>) {
    out.push_str(
        "# The config of lifeboat: its sources, its stores and its checks. Written by 'lifeboat init', which never\n\
         # changes an existing config: edit it as you like. 'lifeboat doctor' tests everything in it.\n\
         #\n\
         # Every text may contain ${VARIABLE} or ${VARIABLE:-default}; $${ stands for ${. Relative paths begin in\n\
         # this file's folder. Lines that begin with '#' and no space are examples: remove the '#' and edit them.\n\n",
    );
    match &findings.env_file {
        Some(Ok(())) => out.push_str(&format!(
            "# Variables that are not set in the environment are read from this file.\nenv_file = {}\n\n",
            quoted(ENV_FILE)
        )),
        Some(Err(reason)) => out.push_str(&format!("# {}\n#env_file = {}\n\n", one_line(reason), quoted(ENV_FILE))),
        None => out.push_str(&format!(
            "# A file of variables, for those that are not set in the environment.\n#env_file = {}\n\n",
            quoted(ENV_FILE)
        )),
    }
    out.push_str(&format!(
        "# This machine's name in the origin of snapshots. It is fixed here because a container gets a new host name\n\
         # with every deploy, and a source whose host name changes is refused. Two machines or environments that\n\
         # share a store need two names.\n\
         host = {}\n\n\
         # gzip can be read everywhere, zstd is faster.\n\
         #compression = \"zstd:3\"\n\n\
         # For Prometheus's node exporter.\n\
         #metrics_file = \"/var/lib/node_exporter/lifeboat.prom\"\n\n",
        quoted(&literal(settings.host))
    ));
}

/// The stores that the config gets.
struct ChosenStores {
    /// The folders, as they are written in the config.
    folders: Vec<String>,
    /// The buckets.
    remote: Vec<String>,
    /// The reason why no folder is used, although none was named.
    skipped: Option<String>,
}

impl ChosenStores {
    /// Chooses the stores that the command line names, or else a bucket that was found, and a folder whose files are
    /// not lost at the next deploy.
    fn of(findings: &Findings, settings: &Settings<'_>) -> Self {
        let (remote, folders) = settings.stores.iter().cloned().partition(|store| store.starts_with("s3://"));
        let mut chosen = ChosenStores { folders, remote, skipped: None };
        if settings.stores.is_empty() {
            let buckets = findings.bucket.iter().map(|(_, bucket)| format!("s3://{bucket}/lifeboat"));
            chosen.remote.extend(buckets);
            let on_volume = || findings.volumes.iter().find(|volume| volume.path.is_dir())?.path.to_str();
            let reason = findings.mounts.reason_for_loss(&settings.path(DEFAULT_STORE), &findings.volumes);
            match (reason, on_volume()) {
                // A bucket is available, and files in this folder would soon be lost.
                (Some(reason), _) if !chosen.remote.is_empty() => chosen.skipped = Some(reason),
                (Some(_), Some(volume)) => chosen.folders.push(format!("{volume}/lifeboat")),
                _ => chosen.folders.push(DEFAULT_STORE.to_owned()),
            }
        }
        chosen
    }
}

impl Settings<'_> {
    /// Returns the path of a folder, as it is written in the config.
    fn path(&self, folder: &str) -> PathBuf {
        self.folder.join(folder.strip_prefix("./").unwrap_or(folder))
    }
}

fn stores(out: &mut String, chosen: &ChosenStores, findings: &Findings, settings: &Settings<'_>) {
    out.push_str("# --- stores: 'lifeboat snapshot' writes to all of them, other commands read from the first\n\n");
    for folder in &chosen.folders {
        if let Some(reason) = findings.mounts.reason_for_loss(&settings.path(folder), &findings.volumes) {
            tracing::warn!("the store {}: {reason}", one_line(folder));
            out.push_str(&format!("# WARNING: {reason}. Use a bucket, or a folder on a volume.\n"));
        }
        out.push_str(&format!("[[store]]\nurl = {}\n\n", quoted(&literal(folder))));
    }
    if let Some(reason) = &chosen.skipped {
        out.push_str(&format!("# No folder is used: {reason}.\n#[[store]]\n#url = {}\n\n", quoted(DEFAULT_STORE)));
    }
    let endpoint = findings.aws.iter().find(|name| name.starts_with("AWS_ENDPOINT_URL"));
    let is_bare = |store: &str| !store.contains('?');
    for store in &chosen.remote {
        out.push_str(&format!(
            "# The access keys come from the variables, files and roles of AWS.\n[[store]]\nurl = {}\n",
            quoted(&literal(store))
        ));
        if let Some(variable) = endpoint.filter(|_| is_bare(store)) {
            out.push_str(&format!("endpoint = \"${{{variable}:-}}\"\n"));
        }
        out.push('\n');
    }
    if chosen.remote.is_empty() {
        if findings.aws.is_empty() {
            out.push_str("# A second store, away from this machine: any service with the S3 API.\n");
        } else {
            let aws = findings.aws.join(", ");
            out.push_str(&format!("# {aws}: set. Snapshots in a bucket are safe even if this machine is lost.\n"));
        }
        out.push_str("#[[store]]\n#url = \"s3://my-bucket/lifeboat\"\n");
        if let Some(variable) = endpoint {
            out.push_str(&format!("#endpoint = \"${{{variable}:-}}\"\n"));
        }
        out.push('\n');
    }
}

fn sources(out: &mut String, findings: &Findings) {
    out.push_str("# --- sources: the databases to save\n\n");
    if !findings.sources.iter().any(|source| source.is_used) {
        out.push_str(
            "# None was found. Name an SQLite file, or a PostgreSQL database by its URL or by variables such as\n\
             # APP_DB_HOST, APP_DB_PORT, APP_DB_NAME, APP_DB_USER and APP_DB_PASSWORD.\n\
             #[[source]]\n#name = \"app\"\n#url = \"./data/app.db\"\n\n\
             #[[source]]\n#name = \"shop\"\n#url = \"${DATABASE_URL}\"\n\n\
             #[[source]]\n#name = \"stock\"\n#env_prefix = \"APP_DB_\"\n\n",
        );
    }
    for source in &findings.sources {
        source_text(out, source, findings);
    }
}

fn source_text(out: &mut String, source: &FoundSource, findings: &Findings) {
    let warning = source.file.as_ref().and_then(|file| findings.mounts.reason_for_loss(file, &findings.volumes));
    for remark in source.remarks.iter().chain(&warning) {
        if source.is_used {
            tracing::warn!("{} ({}): {remark}", source.name, one_line(&source.from));
        }
        let mark = if Some(remark) == warning.as_ref() { "WARNING: " } else { "" };
        out.push_str(&format!("# {mark}{}\n", one_line(remark)));
    }
    let is_of_variables = source.keys.iter().any(|(key, value)| *key == "env_prefix" || value.starts_with("${"));
    if is_of_variables && !source.needs.is_empty() && !matches!(findings.env_file, Some(Ok(()))) {
        out.push_str(&format!(
            "# {}: must be set wherever lifeboat runs. Cron and systemd do not have a shell's variables; a {ENV_FILE}\n\
             # beside this file works everywhere.\n",
            source.needs
        ));
    }
    let mark = if source.is_used { "" } else { "#" };
    out.push_str(&format!("{mark}[[source]]\n{mark}name = {}\n", quoted(source.name.as_str())));
    for (key, value) in &source.keys {
        out.push_str(&format!("{mark}{key} = {}\n", quoted(value)));
    }
    let tables = source.file.as_ref().filter(|_| source.is_used).map(|file| table_counts(file)).unwrap_or_default();
    let largest = tables.iter().max_by_key(|table| table.rows).filter(|table| table.rows > 0);
    if let Some(table) = largest {
        // Half of today's rows.
        out.push_str(&format!(
            "#[[source.rule]]\n#table = {}\n#min_rows = {}\n",
            quoted(&literal(&table.name)),
            round_down((table.rows / 2).max(1))
        ));
    }
    if source.is_used {
        out.push_str("#[[source.rule]]\n#max_row_drop = \"10%\"\n");
    }
    out.push('\n');
}

/// Rounds a number down to its first digit, followed by zeros.
fn round_down(number: u64) -> u64 {
    let zeros = 10_u64.pow(number.checked_ilog10().unwrap_or(0));
    number / zeros * zeros
}

fn preflight(out: &mut String, chosen: &ChosenStores, findings: &Findings, settings: &Settings<'_>) {
    out.push_str("# --- checks before a deploy\n\n[preflight]\n");
    let stores: Vec<PathBuf> = chosen.folders.iter().map(|folder| settings.path(folder)).collect();
    let mut mounts: Vec<&Path> = findings.volumes.iter().map(|volume| volume.path.as_path()).collect();
    if mounts.is_empty() {
        let files = findings.sources.iter().filter(|source| source.is_used).filter_map(|source| source.file.as_deref());
        mounts.extend(files.filter_map(|file| findings.mounts.volume_of(file)));
        // 'doctor' also checks that the stores lie on the mounts.
        if !mounts.is_empty() {
            mounts.extend(stores.iter().filter_map(|store| findings.mounts.volume_of(store)));
        }
        mounts.sort_unstable();
        mounts.dedup();
    }
    let texts: Vec<String> =
        mounts.iter().filter_map(|mount| mount.to_str()).map(|mount| quoted(&literal(mount))).collect();
    if texts.is_empty() {
        out.push_str(
            "# Folders that must be mounted volumes, not folders of the container. Databases and stores must be on them.\n#mounts = [\"/app/data\"]\n",
        );
    } else {
        let from: Vec<&str> = findings.volumes.iter().map(|volume| volume.variable.as_str()).collect();
        let from = if from.is_empty() { String::new() } else { format!(" ({})", from.join(", ")) };
        out.push_str(&format!(
            "# These must be mounted volumes, not folders of the container{from}. Databases and stores must be on them.\n\
             mounts = [{}]\n#outside_mounts = [\"./cache.db\"]\n",
            texts.join(", ")
        ));
    }
    let free = free_bytes(settings.folder).unwrap_or(0);
    let sizes = [("1GiB", 1_u64 << 30), ("500MiB", 500 << 20), ("100MiB", 100 << 20)];
    // A limit that does not fail today.
    match sizes.iter().find(|(_, bytes)| free / 2 >= *bytes) {
        Some((size, _)) => out.push_str(&format!("# The free space to require everywhere.\nmin_free = \"{size}\"\n")),
        None => out.push_str(&format!("# {} is nearly full.\n#min_free = \"100MiB\"\n", shown(settings.folder))),
    }
    out.push_str("#http = [{ url = \"http://127.0.0.1:8000/health\", status = 200 }]\n\n");
}

fn other_sections(out: &mut String, findings: &Findings) {
    out.push_str(
        "# --- requirements for the backups\n\n\
         [backups]\n\
         # One day, and time for a late run.\n\
         max_age = \"26h\"\n\
         #max_shrink = \"50%\"\n\
         # A drill restores a snapshot to a scratch database and compares everything.\n\
         #proof = \"drilled\"\n\
         #proof_within = \"8d\"\n\n\
         # --- the snapshots that 'lifeboat prune' keeps\n\n\
         [retention]\n\
         keep_last = 7\n\
         keep_daily = 30\n\
         keep_monthly = 12\n\
         # Prune after every successful 'lifeboat snapshot'.\n\
         #after_snapshot = true\n\n\
         # --- notices; an address whose variable is not set is not used\n\n",
    );
    let is_set = |name: &str| {
        findings.variables.get(name).is_some_and(|url| url.starts_with("http://") || url.starts_with("https://"))
    };
    let (webhook, ping) = (is_set("ALERT_WEBHOOK"), is_set("PING_URL"));
    let mark = |is_used: bool| if is_used { "" } else { "#" };
    out.push_str(&format!(
        "{}[notify]\n\
         # The form is that of Slack, Discord, Microsoft Teams or ntfy if the URL is theirs, or else plain JSON.\n\
         {}webhook = \"${{ALERT_WEBHOOK:-}}\"\n\
         #form = \"slack\"\n\
         # Called at start, success and failure, so that the receiver also notices a run that did not start.\n\
         {}ping = \"${{PING_URL:-}}\"\n\n",
        mark(webhook || ping),
        mark(webhook),
        mark(ping)
    ));
    out.push_str(
        "# --- encryption: 'lifeboat keygen --output key.txt' prints the public key. Keep key.txt on another machine:\n\
         # whoever has it can open the snapshots, and without it nobody can.\n\n\
         #[encryption]\n\
         #recipients = [\"${BACKUP_PUBLIC_KEY}\"]\n\
         #identity_file = \"/secure/key.txt\"\n\
         # Trust snapshots that are not encrypted, such as those from before the encryption.\n\
         #allow_plaintext = false\n\n\
         # --- signatures: 'lifeboat keygen --signing --output sign.key' prints the public key. Then nobody who may only\n\
         # write to the store can have a snapshot of his own restored.\n\n\
         #[signing]\n\
         #key_file = \"/secure/sign.key\"\n\
         #trusted = [\"${SIGNING_PUBLIC_KEY}\"]\n\n\
         # --- 'lifeboat guard -- CMD': a container's entry point\n\n\
         #[guard]\n\
         # The time from SIGTERM to SIGKILL that the platform grants.\n\
         #grace = \"10s\"\n\
         #restore_if_missing = true\n\
         # If the newest snapshot cannot be restored, or rows are missing: \"refuse\" to start, \"restore-older\", or\n\
         # \"start\" with the database as it is.\n\
         #on_doubt = \"refuse\"\n\
         # The longest wait for a store if the database is there and has rows.\n\
         #store_wait = \"5s\"\n\
         # The interval between snapshots while CMD runs; none is stored if nothing has changed.\n\
         #every = \"15m\"\n\
         # A container that starts before the old one has ended waits for the last snapshot of the old one.\n\
         #handover = \"3m\"\n\
         # If it does not come: \"refuse\", or \"start\" without what the old one still writes.\n\
         #on_overlap = \"refuse\"\n\n\
         # --- 'lifeboat serve': health, metrics and a page over HTTP\n\n\
         #[serve]\n\
         #listen = \"127.0.0.1:8700\"\n\
         # Clients with this token may request snapshots ('lifeboat predeploy --remote'); 16 characters or more.\n\
         #token = \"${LIFEBOAT_TOKEN}\"\n\
         # With a token, clients without it may read only if this is true.\n\
         #public = true\n\
         # Without a token, only requests for localhost and for these hosts are answered.\n\
         #hosts = [\"status.example.com\"]\n",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_texts_are_one_line_of_toml() {
        let text = "a\"b\\c\nd\u{1}e\u{7f}\u{85}\u{2028}ü'''${X}";
        let line = format!("x = {}", quoted(&literal(text)));
        assert_eq!(line.lines().count(), 1);
        let read: toml::Table = toml::from_str(&line).expect("valid");
        assert_eq!(read["x"].as_str(), Some(text.replace("${", "$${").as_str()));
        let comment = format!("# {line}\ny = 1");
        assert!(toml::from_str::<toml::Table>(&comment).is_ok());
    }

    #[test]
    fn a_suggested_number_is_round_and_no_larger() {
        for (number, round) in [(1, 1), (9, 9), (19, 10), (555, 500), (50_000, 50_000)] {
            assert_eq!(round_down(number), round);
        }
    }
}
