//! `serve`: its arguments, and its result for people.

use std::net::SocketAddr;

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::config::parse_listen;
use crate::platform::error::Result;
use crate::serve::{self, ServeOptions, ServeReport};

/// Serves the status of sources and stores over HTTP: /health, /health/data, /metrics, a status page, and POST
/// /snapshots with a token
#[derive(Args, Clone, Debug)]
pub(super) struct ServeArgs {
    /// The address to listen on; default: listen in the config, or 127.0.0.1:8700
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    listen: Option<SocketAddr>,
}

impl From<ServeArgs> for ServeOptions {
    fn from(args: ServeArgs) -> Self {
        ServeOptions { listen: args.listen }
    }
}

impl Subcommand for ServeArgs {
    fn name(&self) -> &'static str {
        "serve"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&serve::run(&self.clone().into(), &call.context)?)
    }

    fn shows_log(&self) -> bool {
        true
    }

    fn shows_progress(&self) -> bool {
        false
    }
}

impl Text for ServeReport {
    fn text(&self) -> String {
        String::new()
    }
}
