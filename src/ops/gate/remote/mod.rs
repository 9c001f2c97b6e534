//! `predeploy --remote` and `postdeploy --remote`: the `lifeboat serve` beside the database does the work of the gate.

mod errors;
mod exchange;
mod report;
mod run_id;
mod shell_words;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ops::gate::commit;
use crate::ops::gate::postdeploy::{DEFAULT_LOCK_TIMEOUT, PostdeployOptions};
use crate::ops::gate::predeploy::PredeployOptions;
use crate::ops::gate::remote::exchange::Exchange;
use crate::platform::error::{Error, Result};
use crate::platform::http::Url;
use crate::platform::secret::Secret;
use crate::snapshots::id::SourceName;

pub(crate) use crate::ops::gate::remote::exchange::{EXIT_CODE, RUN};
pub(crate) use crate::ops::gate::remote::report::RemoteReport;
pub(crate) use crate::ops::gate::remote::run_id::RunId;

/// The environment variable that holds the token. It is not read by clap, which shows the values of variables.
const TOKEN: &str = "LIFEBOAT_TOKEN";
/// The maximum of all times.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The endings of names that only private networks resolve.
const PRIVATE_NAMES: [&str; 6] = [".internal", ".local", ".localhost", ".lan", ".flycast", ".home.arpa"];

/// Another lifeboat.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Its address.
    pub url: Url,
    /// The maximum time of a run.
    pub timeout: chrono::Duration,
}

impl Remote {
    /// Runs `predeploy` on the other lifeboat.
    pub(crate) fn predeploy(&self, options: &PredeployOptions) -> Result<RemoteReport> {
        let request = json!({
            "gate": "predeploy",
            "sources": options.sources,
            "tags": options.tag,
            "commit": commit(options.commit.as_deref()),
            "full_check": options.full_check,
        });
        self.run("predeploy", request, &options.sources, options.wait, false)
    }

    /// Runs `postdeploy` on the other lifeboat.
    pub(crate) fn postdeploy(&self, options: &PostdeployOptions) -> Result<RemoteReport> {
        let mut request = json!({
            "gate": "postdeploy",
            "sources": options.sources,
            "commit": commit(options.commit.as_deref()),
            "rollback": options.rollback,
        });
        // The others are sent only if they are set, because an older lifeboat refuses what it does not know.
        if options.discard_new {
            request["discard_new"] = json!(true);
        }
        if !options.intended.dropped.is_empty() {
            request["expect_dropped"] = json!(options.intended.dropped);
        }
        if !options.intended.renamed.is_empty() {
            request["expect_renamed"] = json!(options.intended.renamed);
        }
        if options.lock_timeout != DEFAULT_LOCK_TIMEOUT {
            request["lock_timeout"] = json!(options.lock_timeout);
        }
        self.run("postdeploy", request, &options.sources, options.wait, options.rollback)
    }

    fn run(
        &self,
        gate: &'static str,
        request: Value,
        sources: &[String],
        wait: chrono::Duration,
        changes_data: bool,
    ) -> Result<RemoteReport> {
        // A URL with a password must not be sent to another machine.
        let sources: Vec<SourceName> = sources.iter().map(|source| source_name(source)).collect::<Result<_>>()?;
        let token = token().ok_or_else(|| {
            Error::usage(format!("--remote needs a token in {TOKEN}"))
                .hint("use the token that the other lifeboat has under [serve] in its config")
        })?;
        let timeout =
            self.timeout.to_std().map_err(|error| Error::usage("the timeout is out of range").because(error))?;
        if !self.url.is_https() && !is_private(self.url.host()) {
            tracing::warn!("{} is not encrypted: others can read the token on the way; use https://", self.url);
        }
        // The sum of a time and now must be a time.
        let (wait, timeout) = (wait.to_std().unwrap_or_default().min(LONGEST), timeout.min(LONGEST));
        let exchange = Exchange { url: &self.url, token, gate, request, wait, timeout, changes_data };
        RemoteReport::read(gate, exchange.run()?, &sources, &format!("the lifeboat at {}", self.url))
    }
}

/// Returns the token in the environment.
pub(crate) fn token() -> Option<Secret> {
    let token = std::env::var(TOKEN).ok()?;
    let token = token.trim();
    (!token.is_empty()).then(|| Secret::new(token))
}

fn source_name(source: &str) -> Result<SourceName> {
    source.parse().map_err(|_| {
        Error::usage("with --remote, a SOURCE must be a name in the config of the other lifeboat")
            .hint("paths and URLs are not sent to it; without a SOURCE, the gate is for all sources of its config")
    })
}

/// Returns true if only a private network has this host.
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => !host.contains('.') || PRIVATE_NAMES.iter().any(|ending| host.ends_with(ending)),
    }
}
